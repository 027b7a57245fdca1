//! What kopid has counted at one moment.

use serde_json::Value;

use crate::contender::Service;
use crate::error::{BenchError, Result};

/// Counters of a kopid with one worker and one app.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Seconds that the worker was busy.
    pub(crate) busy_seconds: f64,
    /// The worker's longest turn since this was asked before.
    pub(crate) longest_turn_ns: u64,
    /// Frames that the wire and the apps gave to kopid, and copies made of them.
    pub(crate) came: u64,
    /// Frames that went out.
    pub(crate) went: u64,
    /// Frames dropped.
    pub(crate) drops: u64,
    /// Flows that were pushed out of the flow table.
    pub(crate) evictions: u64,
}

impl Counts {
    /// Asks kopid.
    ///
    /// # Errors
    ///
    /// When it does not answer, or not as expected.
    pub(crate) fn ask(service: &mut dyn Service) -> Result<Self> {
        let status = service.ask("status")?.unwrap_or_default();
        let stats = service.ask("stats")?.unwrap_or_default();
        let strange = || BenchError::Failed(format!("kopid's counters are not understood: {status}, {stats}"));
        Self::read(&status, &stats).ok_or_else(strange)
    }

    fn read(status: &Value, stats: &Value) -> Option<Self> {
        let worker = status.get("status")?.get(0)?.get("workers")?.get(0)?;
        let mut counts = Self {
            busy_seconds: worker.get("busy_seconds")?.as_f64()?,
            longest_turn_ns: worker.get("longest_turn_ns")?.as_u64()?,
            evictions: worker.get("flow_evictions")?.as_u64()?,
            ..Self::default()
        };
        for port in stats.get("stats")?.as_array()? {
            let number = |key: &str| port.get(key)?.as_u64();
            let (rx, tx) = (number("rx_packets")?, number("tx_packets")?);
            let (came, went) = if port.get("port")? == "wire" { (rx, tx) } else { (tx, rx) };
            counts.came += came + number("copies")?;
            counts.went += went;
            counts.drops += number("drops")?;
        }
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kopids_counters_are_read() {
        let status = json!({ "status": [{ "workers": [
            { "busy_seconds": 1.5, "longest_turn_ns": 900, "flow_evictions": 3 }
        ] }] });
        let port = |name: &str, rx: u64, tx: u64, drops: u64| json!({ "port": name, "rx_packets": rx, "tx_packets": tx, "copies": 0, "drops": drops });
        let stats = json!({ "stats": [port("wire", 5, 90, 2), port("app0", 3, 90, 0)] });
        let counts = Counts { busy_seconds: 1.5, longest_turn_ns: 900, came: 95, went: 93, drops: 2, evictions: 3 };
        assert_eq!(Counts::read(&status, &stats), Some(counts));
        assert_eq!(Counts::read(&json!({}), &stats), None);
    }
}

//! What happened between two looks at the counters.

use kopi_api::Port;
use std::time::Instant;

/// The last look.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    last: Option<(Instant, Vec<Port>)>,
}

/// A port, and its rates since the look before.
#[derive(Debug)]
pub(crate) struct Rated {
    /// The counters.
    pub(crate) port: Port,
    /// `None` for a port that was not there before, or whose counters began anew since.
    pub(crate) rate: Option<Rate>,
}

/// Frames and bytes of frame (FCS, preamble and gap not counted) in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) rx_packets: f64,
    pub(crate) rx_bytes: f64,
    pub(crate) tx_packets: f64,
    pub(crate) tx_bytes: f64,
    pub(crate) drops: f64,
}

impl Rates {
    /// Compares `ports`, as they are `now`, with the last look, and keeps them for the next.
    pub(crate) fn since_last(&mut self, ports: Vec<Port>, now: Instant) -> Vec<Rated> {
        let (seconds, before) = match self.last.replace((now, ports.clone())) {
            Some((then, before)) => (now.saturating_duration_since(then).as_secs_f64(), before),
            None => (0.0, Vec::new()),
        };
        let rated = |port: Port| {
            let old = before.iter().find(|old| old.port == port.port);
            let rate = old.and_then(|old| Rate::between(old, &port, seconds));
            Rated { port, rate }
        };
        ports.into_iter().map(rated).collect()
    }
}

impl Rate {
    fn between(old: &Port, new: &Port, seconds: f64) -> Option<Self> {
        // A rate needs no more than the 53 bits that a float has.
        #[expect(clippy::cast_precision_loss, reason = "what is lost lies far below what is shown")]
        let of = |count: fn(&Port) -> u64| Some(count(new).checked_sub(count(old))? as f64 / seconds);
        (seconds > 0.0).then_some(())?;
        Some(Self {
            rx_packets: of(|port| port.rx_packets)?,
            rx_bytes: of(|port| port.rx_bytes)?,
            tx_packets: of(|port| port.tx_packets)?,
            tx_bytes: of(|port| port.tx_bytes)?,
            drops: of(|port| port.drops)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn port(name: &str, n: u64) -> Port {
        Port {
            port: name.into(),
            rx_packets: n,
            rx_bytes: n * 64,
            tx_packets: n * 2,
            tx_bytes: n * 128,
            drops: n / 10,
            ..Port::default()
        }
    }

    /// Rates are differences over time; a port that is new or began anew has none yet.
    #[test]
    fn rates_are_differences_over_time() {
        let mut rates = Rates::default();
        let start = Instant::now();
        assert!(rates.since_last(vec![port("a", 100), port("b", 100)], start).iter().all(|r| r.rate.is_none()));
        let later = start + Duration::from_secs(2);
        let second = rates.since_last(vec![port("a", 300), port("b", 50), port("c", 1)], later);
        let expected = Rate { rx_packets: 100.0, rx_bytes: 6400.0, tx_packets: 200.0, tx_bytes: 12_800.0, drops: 10.0 };
        assert_eq!(second.iter().map(|r| r.rate).collect::<Vec<_>>(), [Some(expected), None, None]);
        assert!(rates.since_last(vec![port("a", 300)], later).iter().all(|r| r.rate.is_none()), "no time has passed");
    }
}

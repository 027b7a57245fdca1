//! What operators are told, as JSON. The keys are an interface: they stay.

mod flows;
mod policy;

pub(crate) use policy::put_in_force;

use crate::attach::Attach;
use crate::control::{Answer, Brought, Next, Question, Rows};
use crate::counters::PortTotals;
use crate::forwarding::{PortId, WIRE};
use crate::gate::FRAGMENTED;
use crate::host::HostFacts;
use crate::registry::{App, HOST_NAME, format_mac};
use crate::switch::Switch;
use dpdk::Stats;
use kopi_ring::DropReason;
use serde_json::{Value, json};
use std::sync::Arc;

/// What only the control thread knows, for the reports.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Seconds since the daemon was ready.
    pub uptime_seconds: u64,
    /// Ticks of the workers' clock in a second.
    pub tsc_hz: u64,
    /// The wire device's own counters.
    pub device: Stats,
    /// Packet buffers in all, and free now.
    pub mbufs: (u32, u32),
    /// Connections on the apps' socket.
    pub connections: usize,
    /// The host port, if there is one.
    pub host: Option<HostFacts>,
}

/// What answers are made from, on the control thread.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Apps, ports and workers.
    pub switch: &'a mut Switch,
    /// The rest.
    pub facts: &'a Facts,
}

/// Apps of one part of an answer.
const PART: usize = 64;

/// The answer to a question, or `None` if there is no such command.
#[must_use]
pub fn answer(question: Question, switch: &mut Switch, attach: &mut Attach, facts: &Facts) -> Option<Answer> {
    let told = |outcome: Result<Value, String>| outcome.unwrap_or_else(|error| json!({ "error": error }));
    Some(match (question.command.as_str(), &question.brought) {
        (_, Brought::Next(_)) => {
            let Brought::Next(next) = question.brought else { return None };
            next.answer(&mut Sources { switch, facts })
        }
        ("reload", Brought::Policy(wanted, who)) => {
            policy::reload(wanted, who, switch, attach).unwrap_or_else(|error| told(Err(error)).into())
        }
        ("capture", Brought::Capture(request)) => match switch.capture(question.account, Arc::clone(request)) {
            Ok(place) => Answer::Place(Box::new(place)),
            Err(error) => told(Err(error)).into(),
        },
        ("explain", _) => told(policy::explain(&question, switch)).into(),
        ("flows", _) => flows::flows(&question, &mut Sources { switch, facts }),
        (command, _) => {
            if let Some(refused) = question.stranger(&[]) {
                return Some(refused.into());
            }
            let sources = &mut Sources { switch, facts };
            match command {
                "status" => json!({ "status": [status(switch, facts)] }).into(),
                "apps" => of_apps(Vec::new(), sources, |app, sources| vec![describe(app, sources.switch)]),
                "stats" => of_apps(wire_stats(sources), sources, |app, sources| vec![stats(app, sources.switch)]),
                "drops" => policy::drops(sources),
                "rules" => policy::rules(sources),
                "classes" => policy::classes(switch),
                _ => return None,
            }
        }
    })
}

/// An answer of `first`, and of rows for each app, some apps at a time.
fn of_apps(first: Vec<Value>, sources: &Sources<'_>, rows: fn(&App, &Sources<'_>) -> Vec<Value>) -> Answer {
    from_app(0, first, sources, rows)
}

fn from_app(
    from: PortId,
    first: Vec<Value>,
    sources: &Sources<'_>,
    rows: fn(&App, &Sources<'_>) -> Vec<Value>,
) -> Answer {
    let (mut made, mut next) = (first, None);
    for (n, app) in sources.switch.apps().filter(|app| app.id >= from).enumerate() {
        if n == PART {
            next = Some(app.id);
            break;
        }
        made.extend(rows(app, sources));
    }
    Answer::part(move |text: &mut Rows| {
        made.iter().for_each(|row| text.push(row));
        Ok(next.map(|from| Next::new(move |sources| from_app(from, Vec::new(), sources, rows))))
    })
}

fn status(switch: &Switch, facts: &Facts) -> Value {
    let wire = switch.wire();
    let workers = switch.dataplane().counters().zip(switch.dataplane().loads()).map(|((cpu, counters), load)| {
        json!({
            "cpu": cpu,
            "turns": counters.turns.get(),
            "busy_turns": counters.busy_turns.get(),
            "busy_seconds": seconds(counters.busy_cycles.get(), facts.tsc_hz),
            "busy": load.busy,
            "sleeps": counters.sleeps.get(),
            "asleep_seconds": seconds(counters.asleep_cycles.get(), facts.tsc_hz),
            "asleep": load.asleep,
            "longest_turn_ns": nanoseconds(counters.longest_turn.take(), facts.tsc_hz),
            "flows": counters.flows.get(),
            "flow_misses": counters.flow_misses.get(),
            "flow_evictions": counters.flow_evictions.get(),
            "answers_withheld": counters.answers_withheld.get(),
        })
    });
    let workers: Vec<Value> = workers.collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "dpdk": dpdk::eal::version(),
        "dpdk_built": dpdk::eal::built_version(),
        "protocol": kopi_ring::PROTOCOL,
        "uptime_seconds": facts.uptime_seconds,
        "wire": {
            "device": wire.device,
            "driver": wire.driver,
            "mac": format_mac(&wire.mac),
            "mtu": wire.mtu,
            "link": if wire.link.up { "up" } else { "down" },
            "speed_mbps": wire.link.speed,
            "checksums_finished": switch.dataplane().finished(),
        },
        "idle": if switch.dataplane().sleeps() { "adaptive" } else { "poll" },
        "workers": workers,
        "host": facts.host.as_ref().map(HostFacts::status),
        "policy": switch.policy().ruleset().map(|ruleset| json!({
            "file": switch.policy().path(),
            "rules": ruleset.rules().len(),
            "apps": ruleset.policy().apps.len(),
            "tracks": ruleset.uses_state(),
            "connections": connections(switch),
            "confirm_seconds": switch.policy().trial_seconds(),
        })),
        "flows": switch.dataplane().counters().map(|(_, counters)| counters.flows.get()).sum::<u64>(),
        "mbufs": { "total": facts.mbufs.0, "free": facts.mbufs.1 },
        "apps": switch.apps().filter(|app| Some(app.id) != switch.host()).count(),
        "captures": switch.captures().len(),
        "connections": facts.connections,
        "snapshots": switch.snapshots(),
        "ring_memory": { "total": switch.memory().total(), "used": switch.memory().used() },
    })
}

/// What has become of the connections that were tracked.
fn connections(switch: &Switch) -> Value {
    let stats = switch.connections().stats();
    json!({
        "begun": stats.begun,
        "evicted": stats.evicted,
        "refused": stats.refused,
        "swept": stats.swept,
        "bad_checksums": stats.damaged,
        "used": switch.connections().used(),
        "capacity": switch.connections().capacity(),
        "per_user": switch.limits().connections.per_user,
        "per_app": switch.limits().connections.per_app,
    })
}

/// Milliseconds are precise enough for a time that people read, and 136 years are long enough.
fn seconds(cycles: u64, hz: u64) -> f64 {
    let hz = hz.max(1);
    let whole = u32::try_from(cycles / hz).unwrap_or(u32::MAX);
    let micros = u128::from(cycles % hz) * 1_000_000 / u128::from(hz);
    f64::from(whole) + f64::from(u32::try_from(micros).unwrap_or(999_999)) / 1e6
}

fn nanoseconds(cycles: u64, hz: u64) -> u64 {
    u64::try_from(u128::from(cycles) * 1_000_000_000 / u128::from(hz.max(1))).unwrap_or(u64::MAX)
}

fn totals_of(app: &App, switch: &Switch) -> PortTotals {
    switch.dataplane().totals(app.id).since(&app.base)
}

fn describe(app: &App, switch: &Switch) -> Value {
    let totals = totals_of(app, switch);
    let (tracked, limits) = (switch.tracked(app), switch.limits().connections);
    let queues = app.region.as_ref().map_or((0, 0), |r| (r.geometry().tx().len(), r.geometry().rx().len()));
    json!({
        "port": app.id,
        "name": app.name,
        "pid": app.identity.pid,
        "uid": app.identity.known_uid(),
        "gid": app.identity.known_gid(),
        "user": app.identity.user,
        "comm": app.identity.comm,
        "exe": app.identity.exe,
        "cgroup": app.identity.cgroup,
        "label": app.identity.label,
        "driver": app.driver,
        "mac": app.settings.macs.first().map(format_mac),
        "macs": app.settings.macs.iter().map(format_mac).collect::<Vec<_>>(),
        "mtu": app.settings.mtu,
        "promiscuous": app.settings.promiscuous,
        "all_multicast": app.settings.all_multicast,
        "state": if app.region.is_some() { "running" } else { "stopped" },
        "queues": { "tx": queues.0, "rx": queues.1 },
        "memory": app.region.as_ref().map_or(0, kopi_ring::Region::size),
        "huge_pages": app.region.as_ref().is_some_and(kopi_ring::Region::huge),
        "tx_packets": totals.tx_packets,
        "tx_bytes": totals.tx_bytes,
        "rx_packets": totals.rx_packets,
        "rx_bytes": totals.rx_bytes,
        "drops": totals.dropped(),
        "connections": tracked.own,
        "connections_limit": limits.per_app,
        "connections_refused": tracked.refused,
        "user_connections": tracked.of_user,
        "user_connections_limit": limits.per_user,
        "fragments": switch.dataplane().fragments(app.id),
        "fragments_shared": switch.dataplane().workers() * FRAGMENTED,
    })
}

/// Packets and bytes of a port. Frames in, plus copies, equal frames out plus drops plus those under way: for an app
/// TX is in and RX is out, for the wire the other way round. What an app counted leaves with it, so this holds since the
/// last one left.
fn port_stats(name: &str, totals: &PortTotals) -> Value {
    json!({
        "port": name,
        "rx_packets": totals.rx_packets,
        "rx_bytes": totals.rx_bytes,
        "tx_packets": totals.tx_packets,
        "tx_bytes": totals.tx_bytes,
        "copies": totals.copies,
        "drops": totals.dropped(),
    })
}

fn stats(app: &App, switch: &Switch) -> Value {
    port_stats(&app.name, &totals_of(app, switch))
}

fn wire_stats(sources: &Sources<'_>) -> Vec<Value> {
    let device = &sources.facts.device;
    let mut wire = port_stats("wire", &sources.switch.dataplane().totals(WIRE));
    wire["device"] = json!({
        "rx_missed": device.rx_missed,
        "rx_errors": device.rx_errors,
        "rx_no_mbuf": device.rx_no_mbuf,
        "tx_errors": device.tx_errors,
    });
    vec![wire]
}

/// The stage in which frames are dropped for a reason.
#[must_use]
pub const fn stage_of(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Runt | DropReason::Oversize => "parse",
        DropReason::UnknownUnicast
        | DropReason::NoListener
        | DropReason::SamePort
        | DropReason::WireDown
        | DropReason::LinkControl => "forward",
        DropReason::RxRingFull
        | DropReason::NoMbuf
        | DropReason::WireTxFull
        | DropReason::HandoffFull
        | DropReason::PortGone => "deliver",
        DropReason::Policy
        | DropReason::Rejected
        | DropReason::Spoofed
        | DropReason::PortNotLeased
        | DropReason::Malformed
        | DropReason::Fragment
        | DropReason::FlowLimit => "filter",
        DropReason::QueueFull | DropReason::Codel => "shape",
    }
}

/// Frames of a port that were dropped, by reason.
fn drops_of_port(name: &str, totals: &PortTotals) -> Vec<Value> {
    let counted = DropReason::ALL.iter().zip(totals.drops);
    counted.filter_map(|(why, n)| dropped(name, stage_of(*why), why.name(), n)).collect()
}

fn dropped(app: &str, stage: &str, reason: &str, packets: u64) -> Option<Value> {
    let row = || json!({ "app": app, "stage": stage, "reason": reason, "rule": null, "packets": packets });
    (packets > 0).then(row)
}

/// What was dropped that is no app's.
fn other_drops(sources: &Sources<'_>) -> Vec<Value> {
    let Sources { switch, facts } = sources;
    let mut rows = drops_of_port("wire", &switch.dataplane().totals(WIRE));
    // What the device lost before a worker saw it, or after a worker gave it away.
    rows.extend(dropped("wire", "device", "rx_missed", facts.device.rx_missed));
    rows.extend(dropped("wire", "device", "no_mbuf", facts.device.rx_no_mbuf));
    rows.extend(dropped("wire", "device", "tx_errors", facts.device.tx_errors));
    // What lies between the host port's rings and the kernel.
    for (reason, packets) in facts.host.iter().flat_map(|host| host.lost) {
        rows.extend(dropped(HOST_NAME, "device", reason, packets));
    }
    rows
}

/// Every reason for which frames of an app were dropped. `refused` is what rules have: name, reason and frames.
fn drops_of_app(name: &str, totals: &PortTotals, refused: &[(String, &'static str, u64)]) -> Vec<Value> {
    let mut totals = *totals;
    let mut rows = Vec::new();
    for (rule, reason, packets) in refused.iter().filter(|(.., packets)| *packets > 0) {
        // What a rule has dropped is told by rule; the rest, if there is any, without.
        let counted = DropReason::ALL.iter().zip(&mut totals.drops).find(|(why, _)| why.name() == *reason);
        if let Some((why, left)) = counted {
            *left = left.saturating_sub(*packets);
            let stage = stage_of(*why);
            rows.push(json!({ "app": name, "stage": stage, "reason": reason, "rule": rule, "packets": packets }));
        }
    }
    rows.extend(drops_of_port(name, &totals));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that is busy for years has a number of seconds still, with milliseconds.
    #[test]
    fn seconds_have_no_end() {
        let hz = 3_000_000_000;
        assert_eq!([0, hz / 2, 10 * hz + hz / 1000].map(|cycles| seconds(cycles, hz)), [0.0, 0.5, 10.001]);
        let year = 365 * 86_400;
        assert_eq!(seconds(year * hz, hz), 31_536_000.0);
        assert!(seconds(u64::MAX, 0).is_finite());
    }
}

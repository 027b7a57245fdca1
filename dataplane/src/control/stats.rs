//! What operators are told, as JSON. The keys are an interface: they stay.

mod flows;
mod policy;

pub(crate) use policy::put_in_force;

use crate::control::app::App;
use crate::control::attach::{Attach, AttachCounts};
use crate::control::plane::ControlPlane;
use crate::control::ports::{HOST_NAME, format_mac};
use crate::control::server::{Answer, Brought, Next, Question, Rows};
use crate::host::Host;
use crate::ids::{PortId, WIRE};
use crate::stages::policy::FRAGMENTED;
use crate::worker::counters::PortTotals;
use dpdk::Stats;
use kopi_api::apps::Queues;
use kopi_api::stats::Device;
use kopi_api::status::{Copies, InForce, Mbufs, RingMemory, Tracked, Wire, Worker};
use kopi_api::{Drops, Port, Status};
use kopi_ring::DropReason;
use serde::Serialize;
use std::sync::Arc;

/// What answers are made from besides the control plane.
#[derive(Debug)]
pub struct Facts<'a> {
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
    /// What has become of those who connected there.
    pub attaches: &'a AttachCounts,
    /// Policies that could not be read or compiled.
    pub unread_policies: u64,
    /// The host port, if there is one.
    pub host: Option<&'a Host>,
}

/// What answers are made from, on the control thread.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Apps, ports and workers.
    pub plane: &'a mut ControlPlane,
    /// The rest.
    pub facts: &'a Facts<'a>,
}

/// Apps of one part of an answer.
const PART: usize = 64;

/// The answer to a question, or `None` if there is no such command.
#[must_use]
pub fn answer(question: Question, plane: &mut ControlPlane, attach: &mut Attach, facts: &Facts<'_>) -> Option<Answer> {
    Some(match (question.command.as_str(), &question.brought) {
        (_, Brought::Next(_)) => {
            let Brought::Next(next) = question.brought else { return None };
            next.answer(&mut Sources { plane, facts })
        }
        ("reload", Brought::Policy(wanted, who)) => {
            policy::reload(wanted, who, plane, attach).unwrap_or_else(Answer::Refused)
        }
        ("capture", Brought::Capture(request)) => match plane.capture(question.account, Arc::clone(request)) {
            Ok(capture) => Answer::Capture(Box::new(capture)),
            Err(error) => Answer::Refused(error),
        },
        ("explain", _) => policy::explain(&question, plane).unwrap_or_else(Answer::Refused),
        ("flows", _) => flows::flows(&question, &mut Sources { plane, facts }),
        (command, _) => {
            if let Err(refused) = question.check(&[]) {
                return Some(Answer::Refused(refused));
            }
            let sources = &mut Sources { plane, facts };
            match command {
                "status" => {
                    Answer::Reply(kopi_api::answer("status", &[status(plane, facts, plane.dataplane().tell_longest())]))
                }
                "apps" => from_app(0, Vec::new(), sources, |app, sources| describe(app, sources.plane)),
                "stats" => from_app(0, vec![wire_stats(sources)], sources, |app, sources| stats(app, sources.plane)),
                "drops" => policy::drops(sources),
                "rules" => policy::rules(sources),
                "classes" => policy::classes(sources),
                _ => return None,
            }
        }
    })
}

/// The apps of the next part of an answer, from number `from` on, and where the part after that begins.
fn apps_from(from: PortId, plane: &ControlPlane) -> (impl Iterator<Item = &App>, Option<PortId>) {
    let apps = || plane.apps().filter(move |app| app.id >= from);
    (apps().take(PART), apps().nth(PART).map(|app| app.id))
}

/// An answer of `first`, and of a row for each app from number `from` on, some apps at a time.
fn from_app<R: Serialize + Send + 'static>(
    from: PortId,
    mut rows: Vec<R>,
    sources: &Sources<'_>,
    row: fn(&App, &Sources<'_>) -> R,
) -> Answer {
    let (apps, next) = apps_from(from, sources.plane);
    rows.extend(apps.map(|app| row(app, sources)));
    Answer::part(move |text: &mut Rows| {
        rows.iter().for_each(|row| text.push(row));
        Ok(next.map(|from| Next::new(move |sources| from_app(from, Vec::new(), sources, row))))
    })
}

/// The daemon as a whole. `longest` has the cycles of each worker's longest turn.
pub(crate) fn status(plane: &ControlPlane, facts: &Facts<'_>, longest: impl Iterator<Item = u64>) -> Status {
    let wire = plane.wire();
    let workers = plane.dataplane().counters().zip(plane.dataplane().loads()).zip(plane.dataplane().crowded());
    let workers = workers.zip(longest).map(|((((cpu, counters), load), flows_crowded), longest)| Worker {
        cpu: cpu.into(),
        turns: counters.iterations.get(),
        busy_turns: counters.busy_iterations.get(),
        busy_seconds: seconds(counters.busy_cycles.get(), facts.tsc_hz),
        busy: load.busy,
        sleeps: counters.sleeps.get(),
        asleep_seconds: seconds(counters.asleep_cycles.get(), facts.tsc_hz),
        asleep: load.asleep,
        longest_turn_ns: dpdk::tsc::nanoseconds(longest, facts.tsc_hz),
        flows: counters.flows.get(),
        flow_misses: counters.flow_misses.get(),
        flow_evictions: counters.flow_evictions.get(),
        flow_capacity: plane.dataplane().flow_capacity(),
        flows_crowded,
        answers_withheld: counters.answers_withheld.get(),
        handed_over: counters.handed_over.get(),
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        dpdk: dpdk::eal::version().to_owned(),
        dpdk_built: dpdk::eal::built_version().to_owned(),
        protocol: kopi_ring::PROTOCOL.into(),
        uptime_seconds: facts.uptime_seconds,
        wire: Wire {
            device: wire.device.clone(),
            driver: wire.driver.clone(),
            mac: format_mac(&wire.mac),
            mtu: wire.mtu.into(),
            link: if wire.link.up { "up" } else { "down" }.to_owned(),
            speed_mbps: wire.link.speed.into(),
            checksums_finished: plane.dataplane().finished(),
        },
        idle: if plane.dataplane().sleeps() { "adaptive" } else { "poll" }.to_owned(),
        workers: workers.collect(),
        host: facts.host.map(Host::status),
        policy: plane.policy().ruleset().map(|ruleset| InForce {
            file: plane.policy().path().map(|path| path.display().to_string()),
            rules: ruleset.rules().len(),
            apps: ruleset.policy().apps.len(),
            tracks: ruleset.uses_state(),
            connections: connections(plane),
            confirm_seconds: plane.policy().confirm_seconds(),
        }),
        flows: plane.dataplane().counters().map(|(_, counters)| counters.flows.get()).sum(),
        mbufs: Mbufs { total: facts.mbufs.0, free: facts.mbufs.1 },
        apps: plane.apps().filter(|app| Some(app.id) != plane.host()).count(),
        captures: plane.captures().len(),
        connections: facts.connections,
        copies: Copies {
            tx: plane.dataplane().copies().routines.tx.to_string(),
            rx: plane.dataplane().copies().routines.rx.to_string(),
            measured: plane.dataplane().copies().measured.is_some(),
        },
        snapshots: plane.snapshots(),
        ring_memory: RingMemory {
            kept: plane.memory().kept(),
            total: plane.memory().total(),
            used: plane.memory().used(),
        },
    }
}

/// What has become of the connections that were tracked.
fn connections(plane: &ControlPlane) -> Tracked {
    let stats = plane.connections().stats();
    Tracked {
        begun: stats.begun,
        evicted: stats.evicted,
        refused: stats.refused,
        swept: stats.swept,
        bad_checksums: stats.damaged,
        used: plane.connections().used(),
        capacity: plane.connections().capacity(),
        per_user: plane.limits().connections.per_user,
        per_app: plane.limits().connections.per_app,
    }
}

/// Milliseconds are precise enough for a time that people read, and 136 years are long enough.
fn seconds(cycles: u64, hz: u64) -> f64 {
    let hz = hz.max(1);
    let whole = u32::try_from(cycles / hz).unwrap_or(u32::MAX);
    let micros = u128::from(cycles % hz) * 1_000_000 / u128::from(hz);
    f64::from(whole) + f64::from(u32::try_from(micros).unwrap_or(999_999)) / 1e6
}

/// What an app's port has counted since it is there.
pub(crate) fn totals_of(app: &App, plane: &ControlPlane) -> PortTotals {
    plane.dataplane().totals(app.id).since(&app.base)
}

fn describe(app: &App, plane: &ControlPlane) -> kopi_api::App {
    let totals = totals_of(app, plane);
    let (tracked, limits) = (plane.tracked(app), plane.limits().connections);
    let queues = |r: &kopi_ring::Region| Queues { rx: r.geometry().rx_queues(), tx: r.geometry().tx().len() };
    kopi_api::App {
        port: app.id.into(),
        name: app.name.clone(),
        pid: app.identity.pid,
        uid: app.identity.known_uid(),
        gid: app.identity.known_gid(),
        user: app.identity.user.clone(),
        comm: app.identity.comm.clone(),
        exe: app.identity.exe.clone(),
        cgroup: app.identity.cgroup.clone(),
        container: app.identity.container().map(|of| of.id.clone()),
        pod: app.identity.pod().map(str::to_owned),
        runtime: app.identity.container().map(|of| of.runtime.to_string()),
        label: app.identity.label.clone(),
        driver: app.driver.clone(),
        mac: app.settings.macs.first().map(format_mac),
        macs: app.settings.macs.iter().map(format_mac).collect(),
        mtu: app.settings.mtu.into(),
        promiscuous: app.settings.promiscuous,
        all_multicast: app.settings.all_multicast,
        state: if app.is_served() { "running" } else { "stopped" }.to_owned(),
        queues: app.region.as_ref().map(queues).unwrap_or_default(),
        memory: app.region.as_ref().map_or(0, |region| region.size() as u64),
        huge_pages: app.region.as_ref().is_some_and(kopi_ring::Region::huge),
        sealed: app.sealed,
        tx_packets: totals.tx_packets,
        tx_bytes: totals.tx_bytes,
        rx_packets: totals.rx_packets,
        rx_bytes: totals.rx_bytes,
        drops: totals.dropped(),
        connections: tracked.own,
        connections_limit: limits.per_app,
        connections_refused: tracked.refused,
        user_connections: tracked.of_user,
        user_connections_limit: limits.per_user,
        flow_rules: app.flow_rules.len(),
        fragments: plane.dataplane().fragments(app.id),
        fragments_shared: plane.dataplane().workers() * FRAGMENTED,
    }
}

fn port_stats(name: &str, totals: &PortTotals, device: Option<Device>) -> Port {
    Port {
        port: name.to_owned(),
        rx_packets: totals.rx_packets,
        rx_bytes: totals.rx_bytes,
        tx_packets: totals.tx_packets,
        tx_bytes: totals.tx_bytes,
        copies: totals.copies,
        drops: totals.dropped(),
        device,
    }
}

fn stats(app: &App, plane: &ControlPlane) -> Port {
    port_stats(&app.name, &totals_of(app, plane), None)
}

fn wire_stats(sources: &Sources<'_>) -> Port {
    let Stats { rx_missed, rx_errors, rx_no_mbuf, tx_errors, .. } = sources.facts.device;
    let device = Device { rx_missed, rx_errors, rx_no_mbuf, tx_errors };
    port_stats("wire", &sources.plane.dataplane().totals(WIRE), Some(device))
}

/// Frames of a port that were dropped, by reason.
fn drops_of_port(name: &str, totals: &PortTotals) -> Vec<Drops> {
    let counted = DropReason::ALL.iter().zip(totals.drops);
    counted.filter_map(|(why, n)| dropped(name, why.stage(), why.name(), None, n)).collect()
}

fn dropped(app: &str, stage: &str, reason: &str, rule: Option<&str>, packets: u64) -> Option<Drops> {
    (packets > 0).then(|| Drops {
        app: app.to_owned(),
        stage: stage.to_owned(),
        reason: reason.to_owned(),
        rule: rule.map(str::to_owned),
        packets,
    })
}

/// What was dropped that is no app's.
fn other_drops(sources: &Sources<'_>) -> Vec<Drops> {
    let Sources { plane, facts } = sources;
    let mut rows = drops_of_port("wire", &plane.dataplane().totals(WIRE));
    // What the device lost before a worker saw it, or after a worker gave it away.
    rows.extend(dropped("wire", "device", "rx_missed", None, facts.device.rx_missed));
    rows.extend(dropped("wire", "device", "no_mbuf", None, facts.device.rx_no_mbuf));
    rows.extend(dropped("wire", "device", "tx_errors", None, facts.device.tx_errors));
    // What lies between the host port's rings and the kernel.
    for (reason, packets) in facts.host.iter().flat_map(|host| host.lost()) {
        rows.extend(dropped(HOST_NAME, "device", reason, None, packets));
    }
    rows
}

/// Every reason for which frames of an app were dropped. `refused` is what rules have: name, reason and frames.
fn drops_of_app(name: &str, totals: &PortTotals, refused: &[(String, &'static str, u64)]) -> Vec<Drops> {
    let mut totals = *totals;
    let mut rows = Vec::new();
    for (rule, reason, packets) in refused {
        // What a rule has dropped is told by rule; the rest, if there is any, without.
        let counted = DropReason::ALL.iter().zip(&mut totals.drops).find(|(why, _)| why.name() == *reason);
        if let Some((why, left)) = counted {
            *left = left.saturating_sub(*packets);
            rows.extend(dropped(name, why.stage(), reason, Some(rule), *packets));
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

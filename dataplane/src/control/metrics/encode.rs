//! Figures as the text that Prometheus reads, by `prometheus-client`.

use super::families::*;
use super::figures::{Figures, PortFigures};
use crate::control::attach::TOO_MANY;
use crate::control::classes::{ClassRow, DELAY_BOUNDS, DelayCounts};
use crate::control::detach::DetachReason;
use crate::control::ports::HOST_NAME;
use kopi_config::policy::{Action, Direction};
use kopi_ring::DropReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, prometheus_text, text,
};
use prometheus_client::registry::Registry;
use std::fmt;
use std::iter::once;
use std::sync::Arc;

/// The label of the rules that have no series of their own, together.
const OTHER_RULES: &str = "(others)";
/// The label of the class of what has none: no class can be called so.
const NO_CLASS: &str = "(none)";

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, 0.0.4, for those who do not ask for the other.
    Prometheus,
}

impl Format {
    /// Its `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The text.
    ///
    /// # Errors
    ///
    /// None that a text in memory has.
    pub(super) fn encode(self, figures: &Arc<Figures>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(figures)));
        let mut out = String::new();
        match self {
            Self::OpenMetrics => text::encode(&mut out, &registry)?,
            Self::Prometheus => prometheus_text::encode(&mut out, &registry)?,
        }
        Ok(out)
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Output(encoder);
        daemon(self, &mut out)?;
        wire(self, &mut out)?;
        ports(self, &mut out)?;
        drops(self, &mut out)?;
        rules(self, &mut out)?;
        classes(self, &mut out)?;
        workers(self, &mut out)?;
        connections(self, &mut out)?;
        memory(self, &mut out)?;
        attaches(self, &mut out)?;
        captures(self, &mut out)?;
        host(self, &mut out)
    }
}

/// Where metrics are written.
struct Output<'e>(DescriptorEncoder<'e>);

impl Output<'_> {
    /// The series of `family`: values of its labels, and the value. A family without any is left out.
    fn counter<'a, const N: usize, V: EncodeCounterValue>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = ([&'a str; N], V)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut series = self.0.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
        for (values, value) in rows {
            let labels = labels(family, values);
            match labels.as_slice() {
                [] => series.encode_counter::<NoLabelSet, V, u64>(&value, None)?,
                labels => series.encode_family(&labels)?.encode_counter::<NoLabelSet, V, u64>(&value, None)?,
            }
        }
        Ok(())
    }

    /// The same for what goes up and down.
    fn gauge<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = ([&'a str; N], V)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut series = self.0.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
        for (values, value) in rows {
            let labels = labels(family, values);
            match labels.as_slice() {
                [] => series.encode_gauge(&value)?,
                labels => series.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// The same for what only says something by its labels.
    fn info<'a, const N: usize>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = [&'a str; N]>,
    ) -> fmt::Result {
        let mut series = self.0.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
        rows.into_iter().try_for_each(|values| series.encode_info(&labels(family, values)))
    }
}

/// The labels of one series.
fn labels<'a, const N: usize>(family: &Family, values: [&'a str; N]) -> [(&'static str, &'a str); N] {
    debug_assert_eq!(family.labels.len(), N, "{}", family.name);
    let mut names = family.labels.iter();
    values.map(|value| (names.next().copied().unwrap_or_default(), value))
}

/// A series without labels.
const fn one<V>(value: V) -> [([&'static str; 0], V); 1] {
    [([], value)]
}

fn daemon(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let status = &figures.status;
    out.info(&BUILD, [[status.version.as_str(), &status.dpdk, &status.protocol.to_string()]])?;
    out.gauge(&UPTIME, one(status.uptime_seconds))?;
    out.counter(&SNAPSHOTS, one(status.snapshots))?;
    let reloads = figures.reloads;
    let outcomes = [("done", reloads.done), ("failed", reloads.failed), ("taken_back", reloads.taken_back)];
    out.counter(&RELOADS, outcomes.map(|(outcome, n)| ([outcome], n)))?;
    let unconfirmed = status.policy.as_ref().is_some_and(|policy| policy.confirm_seconds.is_some());
    out.gauge(&UNCONFIRMED, one(u32::from(unconfirmed)))
}

fn wire(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let wire = &figures.status.wire;
    out.info(&WIRE, [[wire.device.as_str(), &wire.driver]])?;
    out.gauge(&WIRE_UP, one(u32::from(wire.link == "up")))?;
    out.gauge(&WIRE_SPEED, one(wire.speed_mbps * 1_000_000 / 8))?;
    out.counter(&WIRE_CHECKSUMS, one(wire.checksums_finished))?;
    out.counter(&WIRE_RX_ERRORS, one(figures.device.rx_errors))
}

fn ports(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let all = || figures.ports.iter().map(|port| (port, [port.name.as_str()]));
    let apps = || all().filter_map(|(port, name)| Some((port.app.as_ref()?, name)));
    out.info(&PORT, apps().map(|(app, [name])| [name, app.user.as_str()]))?;
    out.gauge(&PORT_RUNNING, apps().map(|(app, name)| (name, u32::from(app.running))))?;
    out.counter(&PORT_RX_PACKETS, all().map(|(port, name)| (name, port.totals.rx_packets)))?;
    out.counter(&PORT_RX_BYTES, all().map(|(port, name)| (name, port.totals.rx_bytes)))?;
    out.counter(&PORT_TX_PACKETS, all().map(|(port, name)| (name, port.totals.tx_packets)))?;
    out.counter(&PORT_TX_BYTES, all().map(|(port, name)| (name, port.totals.tx_bytes)))?;
    out.counter(&PORT_COPIES, all().map(|(port, name)| (name, port.totals.copies)))?;
    out.counter(&PORT_DROPPED, all().map(|(port, name)| (name, port.totals.dropped())))?;
    out.gauge(&PORT_CONNECTIONS, apps().map(|(app, name)| (name, app.connections)))?;
    out.counter(&PORT_CONNECTIONS_REFUSED, apps().map(|(app, name)| (name, app.connections_refused)))?;
    out.gauge(&PORT_MEMORY, apps().map(|(app, name)| (name, app.memory)))
}

fn drops(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let of_port = |port: &'_ PortFigures| {
        let counted = DropReason::ALL.iter().zip(port.totals.drops);
        counted.map(|(reason, n)| (reason.stage(), reason.name(), n)).collect::<Vec<_>>()
    };
    let ports = figures
        .ports
        .iter()
        .flat_map(|port| of_port(port).into_iter().map(|(stage, reason, n)| ([port.name.as_str(), stage, reason], n)));
    let device = &figures.device;
    let of_device = [("rx_missed", device.rx_missed), ("no_mbuf", device.rx_no_mbuf), ("tx_errors", device.tx_errors)];
    let of_device = of_device.into_iter().map(|(reason, n)| (["wire", "device", reason], n));
    let of_host = figures.host_lost.iter().map(|(reason, n)| ([HOST_NAME, "device", *reason], *n));
    // There are many reasons, and most ports know few of them.
    out.counter(&DROPS, ports.chain(of_device).chain(of_host).filter(|(_, n)| *n > 0))
}

fn rules(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let Some((ruleset, counted)) = &figures.rules else { return Ok(()) };
    out.gauge(&RULES, one(ruleset.rules().len()))?;
    let shown = ruleset.rules().len().min(figures.limits.0);
    let (sums, others) = counted.first_rules(ruleset.ids().get(..shown).unwrap_or_default());
    let rules = ruleset.rules().iter().zip(sums).map(|(rule, sum)| ([rule.name.as_str(), action(rule.action)], sum));
    let others = (shown < ruleset.rules().len()).then_some(([OTHER_RULES, ""], others));
    let default = &ruleset.policy().default;
    let defaults = [
        (["default egress", default.egress.as_str()], counted.default(Direction::Egress)),
        (["default ingress", default.ingress.as_str()], counted.default(Direction::Ingress)),
    ];
    let rows: Vec<_> = rules.chain(others).chain(defaults).collect();
    out.counter(&RULE_PACKETS, rows.iter().map(|(labels, sum)| (*labels, sum.packets)))?;
    out.counter(&RULE_BYTES, rows.iter().map(|(labels, sum)| (*labels, sum.bytes)))
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Decide(decision) => decision.as_str(),
        Action::Log => "log",
        Action::Count => "count",
        Action::Class => "class",
    }
}

fn classes(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    out.gauge(&CLASSES, one(figures.class_count))?;
    let parts = figures.classes.iter().flat_map(|(part, delays)| part.rows().zip(delays));
    let rows: Vec<(ClassRow, &Option<DelayCounts>)> = parts.collect();
    let all = || rows.iter().map(|(row, _)| (row, class_labels(row)));
    out.counter(&CLASS_PACKETS, all().map(|(row, labels)| (labels, row.totals.packets)))?;
    out.counter(&CLASS_BYTES, all().map(|(row, labels)| (labels, row.totals.bytes)))?;
    out.gauge(&CLASS_RATE, all().map(|(row, labels)| (labels, row.bits_per_second / 8)))?;
    out.counter(
        &CLASS_DROPPED,
        all().flat_map(|(row, [class, direction])| {
            let full = ([class, direction, DropReason::QueueFull.name()], row.totals.full);
            once(full).chain(once(([class, direction, DropReason::Codel.name()], row.totals.late)))
        }),
    )?;
    out.gauge(&CLASS_BACKLOG_PACKETS, all().map(|(row, labels)| (labels, row.totals.backlog.0)))?;
    out.gauge(&CLASS_BACKLOG_BYTES, all().map(|(row, labels)| (labels, row.totals.backlog.1)))?;
    out.counter(&CLASS_OVERLIMITS, all().map(|(row, labels)| (labels, row.totals.overlimits)))?;
    delays(rows.iter().filter_map(|(row, delays)| Some((row, delays.as_ref()?))), out)
}

fn class_labels(row: &ClassRow) -> [&str; 2] {
    [if row.index.is_some() { row.name.as_str() } else { NO_CLASS }, row.direction.as_str()]
}

fn delays<'r>(rows: impl Iterator<Item = (&'r ClassRow, &'r DelayCounts)>, out: &mut Output<'_>) -> fmt::Result {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let family = &CLASS_DELAY;
    let mut series = out.0.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
    let bounds: Vec<f64> = DELAY_BOUNDS.iter().map(|ns| seconds(*ns)).chain(once(f64::INFINITY)).collect();
    for (row, counts) in rows {
        let buckets: Vec<_> = bounds.iter().copied().zip(counts.buckets).collect();
        let labels = labels(family, class_labels(row));
        let count = counts.buckets.iter().sum();
        series.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds(counts.sum_ns), count, &buckets, None)?;
    }
    Ok(())
}

/// Nanoseconds in seconds, as precise as a number of 53 bits is.
fn seconds(ns: u64) -> f64 {
    let (whole, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let float = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    float(whole) + float(rest) / 1e9
}

fn workers(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let cpus: Vec<_> = figures.status.workers.iter().map(|worker| worker.cpu.to_string()).collect();
    let all = || figures.status.workers.iter().zip(&cpus).map(|(worker, cpu)| (worker, [cpu.as_str()]));
    out.counter(&WORKER_TURNS, all().map(|(worker, cpu)| (cpu, worker.turns)))?;
    out.counter(&WORKER_BUSY_TURNS, all().map(|(worker, cpu)| (cpu, worker.busy_turns)))?;
    out.counter(&WORKER_BUSY, all().map(|(worker, cpu)| (cpu, worker.busy_seconds)))?;
    out.counter(&WORKER_SLEEPS, all().map(|(worker, cpu)| (cpu, worker.sleeps)))?;
    out.counter(&WORKER_ASLEEP, all().map(|(worker, cpu)| (cpu, worker.asleep_seconds)))?;
    out.gauge(&WORKER_LONGEST, all().map(|(worker, cpu)| (cpu, seconds(worker.longest_turn_ns))))?;
    out.gauge(&WORKER_FLOWS, all().map(|(worker, cpu)| (cpu, worker.flows)))?;
    out.gauge(&WORKER_FLOW_CAPACITY, all().map(|(worker, cpu)| (cpu, worker.flow_capacity)))?;
    out.gauge(&WORKER_FLOWS_CROWDED, all().map(|(worker, cpu)| (cpu, u32::from(worker.flows_crowded))))?;
    out.counter(&WORKER_FLOW_MISSES, all().map(|(worker, cpu)| (cpu, worker.flow_misses)))?;
    out.counter(&WORKER_FLOW_EVICTIONS, all().map(|(worker, cpu)| (cpu, worker.flow_evictions)))?;
    out.counter(&WORKER_WITHHELD, all().map(|(worker, cpu)| (cpu, worker.answers_withheld)))?;
    out.counter(&WORKER_HANDED_OVER, all().map(|(worker, cpu)| (cpu, worker.handed_over)))
}

fn connections(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let Some(tracked) = figures.status.policy.as_ref().map(|policy| &policy.connections) else { return Ok(()) };
    out.gauge(&CONNECTIONS, one(tracked.used))?;
    out.gauge(&CONNECTIONS_CAPACITY, one(tracked.capacity))?;
    out.counter(&CONNECTIONS_BEGUN, one(tracked.begun))?;
    out.counter(&CONNECTIONS_EVICTED, one(tracked.evicted))?;
    out.counter(&CONNECTIONS_REFUSED, one(tracked.refused))?;
    out.counter(&CONNECTIONS_SWEPT, one(tracked.swept))?;
    out.counter(&BAD_CHECKSUMS, one(tracked.bad_checksums))
}

fn memory(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let kopi_api::Status { mbufs, ring_memory, .. } = &figures.status;
    out.gauge(&MBUFS, one(mbufs.total))?;
    out.gauge(&MBUFS_FREE, one(mbufs.free))?;
    out.gauge(&RING_MEMORY_USED, one(ring_memory.used))?;
    out.gauge(&RING_MEMORY_KEPT, one(ring_memory.kept))?;
    out.gauge(&RING_MEMORY_LIMIT, one(ring_memory.total))
}

fn attaches(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let counts = &figures.attaches;
    out.gauge(&APPS, one(figures.status.apps))?;
    out.gauge(&APP_SOCKETS, one(figures.status.connections))?;
    out.counter(&ATTACHES, one(counts.attached))?;
    let words = || DetachReason::WORDS.into_iter();
    // Who goes by itself before it has a port is not refused.
    let refusals = words().filter(|word| *word != DetachReason::Ended.as_str()).chain(once(TOO_MANY));
    out.counter(&REFUSALS, refusals.map(|word| ([word], counts.refused.get(word).copied().unwrap_or(0))))?;
    out.counter(&DETACHES, words().map(|word| ([word], counts.detached.get(word).copied().unwrap_or(0))))
}

fn captures(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let totals = figures.captures;
    out.gauge(&CAPTURES, one(figures.status.captures))?;
    out.counter(&CAPTURES_BEGUN, one(totals.begun))?;
    out.counter(&CAPTURE_PACKETS, one(totals.wanted))?;
    let lost = [("ring_full", totals.ring_full), ("unwritten", totals.unwritten)];
    out.counter(&CAPTURE_LOST, lost.map(|(reason, n)| ([reason], n)))
}

fn host(figures: &Figures, out: &mut Output<'_>) -> fmt::Result {
    let Some(host) = &figures.status.host else { return Ok(()) };
    let tap = [host.tap.as_str()];
    out.gauge(&HOST_UP, [(tap, u32::from(host.state == "running"))])?;
    out.counter(&HOST_FROM, [(tap, host.from_kernel)])?;
    out.counter(&HOST_TO, [(tap, host.to_kernel)])
}

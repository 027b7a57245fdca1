//! Every metric: its name, kind, labels, and what it means.
//!
//! docs/metrics.md has the same list, and a test compares them.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// One metric, with all its series.
#[derive(Debug)]
pub(super) struct Family {
    /// Its name without the unit and what a kind adds.
    pub(super) name: &'static str,
    /// What it is counted in; `None` of what is counted in itself.
    pub(super) unit: Option<Unit>,
    /// How it moves.
    pub(super) kind: MetricType,
    /// Names of its labels.
    pub(super) labels: &'static [&'static str],
    /// What it means.
    pub(super) help: &'static str,
}

/// Declares metrics: `CONSTANT = kind "name" [unit] (labels): "help";`
macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $([$unit:ident])? ($($label:literal),*): $help:literal;)*) => {
        $(pub(super) static $constant: Family = Family {
            name: concat!("kopi_", $name),
            unit: families!(@unit $($unit)?),
            kind: MetricType::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All of them.
        #[cfg(test)]
        pub(super) static ALL: &[&Family] = &[$(&$constant),*];
    };
    (@unit $unit:ident) => { Some(Unit::$unit) };
    (@unit) => { None };
}

families! {
    BUILD = Info "build" ("version", "dpdk", "protocol"): "Releases of kopid, of the DPDK that runs, and of the ring protocol.";
    UPTIME = Gauge "uptime" [Seconds] (): "Time since kopid was ready.";

    WIRE = Info "wire" ("device", "driver"): "The physical port.";
    WIRE_UP = Gauge "wire_up" (): "Whether its link is up.";
    WIRE_SPEED = Gauge "wire_speed" [Bytes] (): "Bytes a second that its link carries; 0 if unknown.";
    WIRE_CHECKSUMS = Counter "wire_checksums_finished" (): "Checksums that the kernel at the other end had left to its NIC.";
    WIRE_RX_ERRORS = Counter "wire_receive_errors" (): "Frames that the device took for invalid.";

    PORT = Info "port" ("port", "user"): "Who is behind a port.";
    PORT_RUNNING = Gauge "port_running" ("port"): "Whether workers serve its rings.";
    PORT_RX_PACKETS = Counter "port_receive_packets" ("port"): "Frames received: by the app, or from the wire.";
    PORT_RX_BYTES = Counter "port_receive" [Bytes] ("port"): "Bytes of those, FCS not counted.";
    PORT_TX_PACKETS = Counter "port_transmit_packets" ("port"): "Frames sent: by the app, or on the wire.";
    PORT_TX_BYTES = Counter "port_transmit" [Bytes] ("port"): "Bytes of those, FCS not counted.";
    PORT_COPIES = Counter "port_copies" ("port"): "Frames made by copying a multicast frame of this port.";
    PORT_DROPPED = Counter "port_dropped_packets" ("port"): "Frames dropped and charged to the port, for any reason.";
    PORT_CONNECTIONS = Gauge "port_connections" ("port"): "Tracked connections charged to the app.";
    PORT_CONNECTIONS_REFUSED = Counter "port_connections_refused" ("port"): "Connections of the app that were not tracked for want of room.";
    PORT_MEMORY = Gauge "port_memory" [Bytes] ("port"): "Shared memory of its rings.";

    DROPS = Counter "drop_packets" ("port", "stage", "reason"): "Frames dropped, by reason. What has not happened has no series.";

    RULES = Gauge "rules" (): "Rules of the policy in force.";
    RULE_PACKETS = Counter "rule_packets" ("rule", "action"): "Frames that a rule has matched; what an action drops or rejects is dropped in stage filter.";
    RULE_BYTES = Counter "rule" [Bytes] ("rule", "action"): "Bytes of those.";

    CLASSES = Gauge "classes" (): "Classes of the policy in force, those of what has none included.";
    CLASS_PACKETS = Counter "class_packets" ("class", "direction"): "Packets sent, by a class and those below it.";
    CLASS_BYTES = Counter "class" [Bytes] ("class", "direction"): "Bytes of those.";
    CLASS_RATE = Gauge "class_rate_bytes_per_second" ("class", "direction"): "Rate over the last second.";
    CLASS_DROPPED = Counter "class_dropped_packets" ("class", "direction", "reason"): "Packets dropped: by a full queue, or by CoDel.";
    CLASS_BACKLOG_PACKETS = Gauge "class_backlog_packets" ("class", "direction"): "Packets that wait in kopid.";
    CLASS_BACKLOG_BYTES = Gauge "class_backlog" [Bytes] ("class", "direction"): "Bytes of those.";
    CLASS_OVERLIMITS = Counter "class_overlimits" ("class", "direction"): "Times that it had to wait for tokens.";
    CLASS_DELAY = Histogram "class_delay" [Seconds] ("class", "direction"): "How long sampled packets of a class without others below it have waited.";

    WORKER_TURNS = Counter "worker_turns" ("cpu"): "Looks of a worker at everything that it serves.";
    WORKER_BUSY_TURNS = Counter "worker_busy_turns" ("cpu"): "Those that moved a frame.";
    WORKER_BUSY = Counter "worker_busy" [Seconds] ("cpu"): "Time spent in those.";
    WORKER_SLEEPS = Counter "worker_sleeps" ("cpu"): "Times that it has slept.";
    WORKER_ASLEEP = Counter "worker_asleep" [Seconds] ("cpu"): "Time asleep.";
    WORKER_LONGEST = Gauge "worker_longest_turn" [Seconds] ("cpu"): "Longest turn of the last half minute to minute.";
    WORKER_FLOWS = Gauge "worker_flows" ("cpu"): "Flow-table entries in use.";
    WORKER_FLOW_CAPACITY = Gauge "worker_flow_capacity" ("cpu"): "Entries of its flow table.";
    WORKER_FLOWS_CROWDED = Gauge "worker_flows_crowded" ("cpu"): "Whether the table was too small within the last ten seconds.";
    WORKER_FLOW_MISSES = Counter "worker_flow_misses" ("cpu"): "Lookups that have found nothing.";
    WORKER_FLOW_EVICTIONS = Counter "worker_flow_evictions" ("cpu"): "Flows that made room for others.";
    WORKER_WITHHELD = Counter "worker_answers_withheld" ("cpu"): "Answers to rejected frames that would have been too many.";
    WORKER_HANDED_OVER = Counter "worker_handed_over_packets" ("cpu"): "Frames handed over to another worker.";

    CONNECTIONS = Gauge "connections" (): "Tracked connections.";
    CONNECTIONS_CAPACITY = Gauge "connections_capacity" (): "As many as there may be.";
    CONNECTIONS_BEGUN = Counter "connections_begun" (): "Connections that have begun.";
    CONNECTIONS_EVICTED = Counter "connections_evicted" (): "Those that made room for others.";
    CONNECTIONS_REFUSED = Counter "connections_refused" (): "Those for which there was no room.";
    CONNECTIONS_SWEPT = Counter "connections_swept" (): "Those that were forgotten when they had ended, or were idle for too long.";
    BAD_CHECKSUMS = Counter "connections_bad_checksums" (): "Frames of tracked connections whose checksum was wrong.";

    MBUFS = Gauge "mbufs" (): "Packet buffers.";
    MBUFS_FREE = Gauge "mbufs_free" (): "Packet buffers that are free.";
    RING_MEMORY_USED = Gauge "ring_memory_used" [Bytes] (): "Shared memory that apps have.";
    RING_MEMORY_KEPT = Gauge "ring_memory_kept" [Bytes] (): "As much of it as processes keep of ports that are gone.";
    RING_MEMORY_LIMIT = Gauge "ring_memory_limit" [Bytes] (): "As much as they may have.";

    APPS = Gauge "apps" (): "Attached apps, without the kernel.";
    APP_SOCKETS = Gauge "app_sockets" (): "Connections on the socket of apps.";
    ATTACHES = Counter "attaches" (): "Ports that were given.";
    REFUSALS = Counter "attach_refusals" ("reason"): "Connections that were refused a port.";
    DETACHES = Counter "detaches" ("reason"): "Ports that were taken back.";
    SNAPSHOTS = Counter "snapshots" (): "Snapshots of ports and policy that workers were given.";

    CAPTURES = Gauge "captures" (): "Capture sessions.";
    CAPTURES_BEGUN = Counter "captures_begun" (): "Capture sessions that have begun.";
    CAPTURE_PACKETS = Counter "capture_packets" (): "Frames that captures wanted.";
    CAPTURE_LOST = Counter "capture_lost_packets" ("reason"): "Those that are in no file: a ring was full, or nobody could write.";

    RELOADS = Counter "reloads" ("outcome"): "Policies that were to come into force: done, failed, or taken back since nobody confirmed them.";
    UNCONFIRMED = Gauge "policy_unconfirmed" (): "Whether the policy in force waits to be confirmed.";

    HOST_UP = Gauge "host_up" ("tap"): "Whether the host port has its interface.";
    HOST_FROM = Counter "host_from_kernel_packets" ("tap"): "Frames from the kernel, large segments counted as one.";
    HOST_TO = Counter "host_to_kernel_packets" ("tap"): "The same, to it.";
}

impl Family {
    /// Its name as Prometheus shows it; that of a histogram is followed by `_bucket` and so on there.
    #[cfg(test)]
    pub(super) fn full_name(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let kind = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        };
        format!("{}{unit}{kind}", self.name)
    }

    /// The word for its kind.
    #[cfg(test)]
    pub(super) fn kind_name(&self) -> &'static str {
        match self.kind {
            MetricType::Counter => "counter",
            MetricType::Histogram => "histogram",
            MetricType::Info => "info",
            _ => "gauge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The document has a row for each metric, as the code has it, and none for another one.
    #[test]
    fn document_lists_every_metric() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let text = std::fs::read_to_string(document).unwrap();
        let documented: Vec<_> = text.lines().filter(|line| line.starts_with("| `kopi_")).collect();
        let expected: Vec<_> = ALL.iter().map(|family| row(family)).collect();
        for row in &expected {
            assert!(documented.contains(&row.as_str()), "docs/metrics.md needs: {row}");
        }
        let expected: BTreeSet<_> = expected.iter().map(String::as_str).collect();
        let strange: Vec<_> = documented.iter().filter(|row| !expected.contains(**row)).collect();
        assert!(strange.is_empty(), "docs/metrics.md has what there is not: {strange:#?}");
        assert_eq!(documented.len(), ALL.len(), "a metric is listed twice");
    }

    fn row(family: &Family) -> String {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", family.full_name(), family.kind_name(), labels.join(", "), family.help)
            .replace("|  |", "| |")
    }

    /// Prometheus' rules for names hold: one prefix, base units, no suffix that a kind adds by itself.
    #[test]
    fn names_are_prometheus_names() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.full_name()).collect();
        assert_eq!(names.len(), ALL.len(), "two have one name");
        for family in ALL {
            let name = family.name;
            assert!(name.starts_with("kopi_") && !name.ends_with("_total") && !name.ends_with("_info"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
}

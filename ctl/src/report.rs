//! kopid's answers. Keys that are not here may come and are left alone.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The daemon as a whole.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// DPDK as it runs.
    pub(crate) dpdk: String,
    /// DPDK as kopid was built with it.
    pub(crate) dpdk_built: String,
    /// Version of the contract with the apps.
    pub(crate) protocol: u32,
    pub(crate) uptime_seconds: u64,
    pub(crate) wire: Wire,
    /// The kernel's port, if there is one.
    pub(crate) host: Option<Host>,
    pub(crate) workers: Vec<Worker>,
    /// Flow-table entries in use, of all workers.
    pub(crate) flows: u64,
    pub(crate) mbufs: Mbufs,
    /// Attached apps.
    pub(crate) apps: u64,
    /// Connections on the apps' socket.
    pub(crate) connections: u64,
    /// The policy in force, if there is one.
    pub(crate) policy: Option<InForce>,
}

/// The kernel's port.
#[derive(Debug, Deserialize)]
pub(crate) struct Host {
    /// Its interface.
    pub(crate) tap: String,
    pub(crate) state: String,
}

/// The policy in force.
#[derive(Debug, Deserialize)]
pub(crate) struct InForce {
    /// The configured file; the policy may be another one since a reload.
    pub(crate) file: Option<String>,
    pub(crate) rules: u64,
    /// Entries that say who may attach.
    pub(crate) apps: u64,
    /// Whether connections are tracked.
    pub(crate) tracks: bool,
    /// Seconds until the policy of before comes back, if this one is on trial.
    pub(crate) confirm_seconds: Option<u64>,
    /// What has become of tracked connections.
    #[serde(default)]
    pub(crate) connections: Tracked,
}

/// The table of connections. Older daemons tell of less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tracked {
    pub(crate) used: u64,
    pub(crate) capacity: u64,
    /// As many as one user may have.
    pub(crate) per_user: u64,
    /// As many as one app may have.
    pub(crate) per_app: u64,
    /// Those for which there was no room.
    pub(crate) refused: u64,
}

/// The physical port.
#[derive(Debug, Deserialize)]
pub(crate) struct Wire {
    pub(crate) device: String,
    pub(crate) driver: String,
    pub(crate) mac: String,
    pub(crate) mtu: u32,
    /// `up` or `down`.
    pub(crate) link: String,
    /// Mbit/s, 0 if unknown.
    pub(crate) speed_mbps: u64,
}

/// One thread of the dataplane.
#[derive(Debug, Deserialize)]
pub(crate) struct Worker {
    pub(crate) cpu: u32,
    /// Time spent in turns that moved a frame, since the start.
    pub(crate) busy_seconds: f64,
    /// Share of the last second in such turns, 0 to 1.
    pub(crate) busy: f64,
    /// Share of the last second asleep, 0 to 1.
    pub(crate) asleep: f64,
    pub(crate) flows: u64,
    pub(crate) flow_misses: u64,
    pub(crate) flow_evictions: u64,
}

/// Packet buffers.
#[derive(Debug, Deserialize)]
pub(crate) struct Mbufs {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// One attached app.
#[derive(Debug, Deserialize)]
pub(crate) struct App {
    /// Number of its port.
    pub(crate) port: u32,
    pub(crate) name: String,
    /// 0 if it is in another pid namespace.
    pub(crate) pid: i64,
    /// `None` of the kernel, and of a user whom kopid's user namespace does not know.
    pub(crate) uid: Option<u32>,
    pub(crate) user: Option<String>,
    pub(crate) comm: String,
    pub(crate) exe: Option<String>,
    pub(crate) cgroup: Option<String>,
    /// What the security module calls it. An older kopid does not say.
    #[serde(default)]
    pub(crate) label: Option<String>,
    pub(crate) mac: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) promiscuous: bool,
    pub(crate) all_multicast: bool,
    /// `running` or `stopped`.
    pub(crate) state: String,
    pub(crate) queues: Queues,
    /// Bytes of shared memory.
    pub(crate) memory: u64,
    pub(crate) huge_pages: bool,
    pub(crate) tx_packets: u64,
    pub(crate) rx_packets: u64,
    pub(crate) drops: u64,
    /// Tracked connections on its account, and as many as there may be. Older daemons do not tell.
    #[serde(default)]
    pub(crate) connections: u64,
    #[serde(default)]
    pub(crate) connections_limit: u64,
    /// Those of all apps of its user.
    #[serde(default)]
    pub(crate) user_connections: u64,
    #[serde(default)]
    pub(crate) user_connections_limit: u64,
    /// Connections that were not tracked for want of room.
    #[serde(default)]
    pub(crate) connections_refused: u64,
    /// Packets in fragments that are followed on its account.
    #[serde(default)]
    pub(crate) fragments: u64,
    /// As many as all apps together may have.
    #[serde(default)]
    pub(crate) fragments_shared: u64,
}

/// Rings of an app, named from its side.
#[derive(Debug, Deserialize)]
pub(crate) struct Queues {
    pub(crate) tx: u32,
    pub(crate) rx: u32,
}

/// What one port has counted. For an app TX is what it sent, for the wire what the wire sent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Port {
    /// `wire` or the app's name.
    pub(crate) port: String,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    /// Frames made by copying a multicast frame of this port to more than one receiver.
    pub(crate) copies: u64,
    pub(crate) drops: u64,
}

/// Frames of one port dropped for one reason.
#[derive(Debug, Deserialize)]
pub(crate) struct Drops {
    /// `wire` or the app's name.
    pub(crate) app: String,
    pub(crate) stage: String,
    pub(crate) reason: String,
    /// The rule that said so, if any did.
    pub(crate) rule: Option<String>,
    pub(crate) packets: u64,
}

/// One rule, or the default of a direction, and what it has matched.
#[derive(Debug, Deserialize)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) action: String,
    /// As the policy has it, long lists cut; nothing for a default.
    #[serde(rename = "match")]
    pub(crate) matches: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) class: Option<String>,
    #[serde(default)]
    pub(crate) log: bool,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// One class of the policy, with what is below it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Class {
    pub(crate) name: String,
    /// The class that it is a part of; nothing for the wire.
    pub(crate) parent: Option<String>,
    /// `egress` or `ingress`.
    pub(crate) direction: String,
    pub(crate) rate: Option<String>,
    pub(crate) ceil: Option<String>,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    /// Over the last second.
    pub(crate) bits_per_second: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) overlimits: u64,
    pub(crate) backlog_packets: u64,
    pub(crate) delay_p50_ns: Option<u64>,
    pub(crate) delay_p99_ns: Option<u64>,
}

/// One flow, from the side of an app.
#[derive(Debug, Deserialize)]
pub(crate) struct Flow {
    pub(crate) app: String,
    /// `egress` if the app began it, else `ingress`.
    pub(crate) direction: Option<String>,
    pub(crate) proto: String,
    pub(crate) src: Option<String>,
    pub(crate) src_port: Option<u16>,
    pub(crate) dst: Option<String>,
    pub(crate) dst_port: Option<u16>,
    pub(crate) vlan: Option<u16>,
    pub(crate) state: Option<String>,
    #[serde(deserialize_with = "seconds")]
    pub(crate) age_seconds: u64,
    #[serde(deserialize_with = "seconds")]
    pub(crate) idle_seconds: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Since it began. Older daemons do not tell.
    #[serde(default)]
    pub(crate) bits_per_second: Option<u64>,
    pub(crate) class: Option<String>,
    pub(crate) rule: Option<String>,
    /// `accept`, `drop` or `reject`.
    pub(crate) verdict: Option<String>,
    pub(crate) pid: Option<i64>,
    pub(crate) uid: Option<u32>,
    pub(crate) user: Option<String>,
    pub(crate) comm: Option<String>,
}

/// Whole seconds, of a number that may have a fraction.
fn seconds<'d, D: Deserializer<'d>>(source: D) -> Result<u64, D::Error> {
    let seconds = f64::deserialize(source)?;
    Duration::try_from_secs_f64(seconds).map(|time| time.as_secs()).map_err(serde::de::Error::custom)
}

/// A policy that was put in force, or kept.
#[derive(Debug, Deserialize)]
pub(crate) struct Reloaded {
    pub(crate) rules: u64,
    /// Texts of several lines.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    /// Time after which the policy of before comes back, unless this one is kept.
    #[serde(default)]
    pub(crate) confirm_seconds: Option<u64>,
}

/// What would become of a packet.
#[derive(Debug, Deserialize)]
pub(crate) struct Explained {
    /// The packet as kopid has understood it.
    pub(crate) packet: String,
    pub(crate) direction: String,
    pub(crate) state: String,
    /// `accept`, `drop` or `reject`.
    pub(crate) decision: String,
    /// `rule`, `default`, or the name of what was wrong with the packet.
    pub(crate) cause: String,
    /// The rule that decided.
    pub(crate) rule: Option<String>,
    pub(crate) line: Option<u64>,
    pub(crate) class: Option<String>,
    /// Rules that matched and went on to the next one.
    #[serde(default)]
    pub(crate) passed: Vec<String>,
    /// Rules that came close.
    #[serde(default)]
    pub(crate) missed: Vec<Missed>,
}

/// A rule that did not match.
#[derive(Debug, Deserialize)]
pub(crate) struct Missed {
    pub(crate) rule: String,
    /// What of it did not hold.
    pub(crate) fields: Vec<String>,
}

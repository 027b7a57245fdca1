//! The daemon as a whole.

use serde::{Deserialize, Serialize};

/// The one row of `status`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Status {
    /// kopid's release.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// DPDK as it runs.
    pub dpdk: String,
    /// DPDK as kopid was built with it.
    pub dpdk_built: String,
    /// Version of the contract with the apps.
    pub protocol: u32,
    /// Since it was ready.
    pub uptime_seconds: u64,
    /// The physical port.
    pub wire: Wire,
    /// What idle workers do: `poll` or `adaptive`.
    pub idle: String,
    /// Threads of the dataplane.
    pub workers: Vec<Worker>,
    /// The kernel's port, if there is one.
    pub host: Option<Host>,
    /// The policy in force, if there is one.
    pub policy: Option<InForce>,
    /// Flow-table entries in use, of all workers.
    pub flows: u64,
    /// Packet buffers.
    pub mbufs: Mbufs,
    /// Attached apps, without the kernel.
    pub apps: usize,
    /// Capture sessions.
    pub captures: usize,
    /// Connections on the apps' socket.
    pub connections: usize,
    /// Snapshots that workers have used since the start.
    pub snapshots: u64,
    /// Shared memory of apps.
    pub ring_memory: RingMemory,
    /// How frames are copied into rings.
    pub copies: Copies,
}

/// How frames are copied into rings: `registers`, `rep movsb`, or `rep movsb from 1024 bytes`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Copies {
    /// By apps into TX rings, if their driver takes the advice.
    pub tx: String,
    /// By the workers into RX rings.
    pub rx: String,
    /// Whether that was measured at the start, or is what the processor recommends.
    pub measured: bool,
}

/// The physical port.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Wire {
    /// The device as configured.
    pub device: String,
    /// Name of its driver.
    pub driver: String,
    /// Its own address.
    pub mac: String,
    /// In bytes.
    pub mtu: u32,
    /// `up` or `down`.
    pub link: String,
    /// Mbit/s, 0 if unknown.
    pub speed_mbps: u64,
    /// Checksums that the kernel at the other end had left to its card.
    pub checksums_finished: u64,
}

/// One thread of the dataplane.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Worker {
    /// The CPU that it runs on.
    pub cpu: u32,
    /// Looks at everything that it serves.
    pub turns: u64,
    /// Those that moved a frame.
    pub busy_turns: u64,
    /// Time spent in them, since the start.
    pub busy_seconds: f64,
    /// Share of the last second in such turns, 0 to 1.
    pub busy: f64,
    /// How often it has slept.
    pub sleeps: u64,
    /// Time asleep, since the start.
    pub asleep_seconds: f64,
    /// Share of the last second asleep, 0 to 1.
    pub asleep: f64,
    /// The longest turn since the last time that somebody asked.
    pub longest_turn_ns: u64,
    /// Flow-table entries in use.
    pub flows: u64,
    /// Lookups that have found nothing.
    pub flow_misses: u64,
    /// Flows that made room for others.
    pub flow_evictions: u64,
    /// Entries of its flow table.
    pub flow_capacity: u64,
    /// Whether more flows than by chance have made room for others within the last ten seconds: the table is too small.
    pub flows_crowded: bool,
    /// Answers to rejected frames that would have been too many.
    pub answers_withheld: u64,
    /// Frames handed over to another worker, which has the ring or the queue that they go to.
    pub handed_over: u64,
}

/// The kernel's port.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Host {
    /// Its interface.
    pub tap: String,
    /// `running` or `gone`.
    pub state: String,
    /// Frames from the kernel, large segments counted as one.
    pub from_kernel: u64,
    /// The same, to it.
    pub to_kernel: u64,
}

/// The policy in force.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct InForce {
    /// The configured file; the policy may be another one since a reload.
    pub file: Option<String>,
    /// How many rules it has.
    pub rules: usize,
    /// Entries that say who may attach.
    pub apps: usize,
    /// Whether connections are tracked.
    pub tracks: bool,
    /// What has become of tracked connections.
    pub connections: Tracked,
    /// Seconds until the policy of before comes back, if this one is on trial.
    pub confirm_seconds: Option<u64>,
}

/// The table of connections.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Tracked {
    /// Those that have begun.
    pub begun: u64,
    /// Those that made room for others.
    pub evicted: u64,
    /// Those for which there was no room.
    pub refused: u64,
    /// Those that were forgotten when they had ended, or were idle for too long.
    pub swept: u64,
    /// Frames whose checksum was wrong.
    pub bad_checksums: u64,
    /// How many there are.
    pub used: u64,
    /// How many there may be.
    pub capacity: usize,
    /// As many as one user may have.
    pub per_user: u32,
    /// As many as one app may have.
    pub per_app: u32,
}

/// Packet buffers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Mbufs {
    /// In all.
    pub total: u32,
    /// Free now.
    pub free: u32,
}

/// Shared memory of apps, in bytes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RingMemory {
    /// What processes keep mapped of ports that are gone; it counts as used.
    pub kept: u64,
    /// As much as all apps may have.
    pub total: u64,
    /// As much as they have.
    pub used: u64,
}

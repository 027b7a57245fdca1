//! Attached apps.

use serde::{Deserialize, Serialize};

/// A row of `apps`, in the order of the keys as they are sent.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct App {
    /// Whether it gets every multicast frame.
    pub all_multicast: bool,
    /// The cgroup of its process.
    pub cgroup: Option<String>,
    /// What its process calls itself.
    pub comm: String,
    /// Tracked connections charged to it.
    pub connections: u32,
    /// As many as there may be.
    pub connections_limit: u32,
    /// Connections that were not tracked for want of room.
    pub connections_refused: u64,
    /// The container of its process: an id, which has a unit before it if that unit's user says so.
    pub container: Option<String>,
    /// What its driver calls itself.
    pub driver: String,
    /// Frames that were dropped.
    pub drops: u64,
    /// The program of its process.
    pub exe: Option<String>,
    /// Flow rules that it has made (`rte_flow`).
    pub flow_rules: usize,
    /// Packets in fragments that are followed and charged to it.
    pub fragments: u64,
    /// As many as all apps together may have.
    pub fragments_shared: usize,
    /// The group of its process.
    pub gid: Option<u32>,
    /// Whether its memory lies in huge pages.
    pub huge_pages: bool,
    /// What the security module calls it.
    pub label: Option<String>,
    /// Its first address.
    pub mac: Option<String>,
    /// All its addresses.
    pub macs: Vec<String>,
    /// Bytes of shared memory.
    pub memory: u64,
    /// In bytes.
    pub mtu: u32,
    /// Its name.
    pub name: String,
    /// Its process; 0 if it is in another pid namespace.
    pub pid: i32,
    /// The pod of that container.
    pub pod: Option<String>,
    /// Number of its port.
    pub port: u32,
    /// Whether it gets frames that nobody owns.
    pub promiscuous: bool,
    /// Its rings.
    pub queues: Queues,
    /// Who runs that container: `docker`, `podman`, `containerd`, `cri-o`, or `kubelet` if no more is known.
    pub runtime: Option<String>,
    /// Bytes that it has received.
    pub rx_bytes: u64,
    /// Frames that it has received.
    pub rx_packets: u64,
    /// Whether it can make no holes in its memory.
    pub sealed: bool,
    /// `running` or `stopped`.
    pub state: String,
    /// Bytes that it has sent.
    pub tx_bytes: u64,
    /// Frames that it has sent.
    pub tx_packets: u64,
    /// The user of its process; `None` of the kernel, and of a user whom kopid's user namespace does not know.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<String>,
    /// Tracked connections of all apps of its user.
    pub user_connections: u32,
    /// As many as there may be.
    pub user_connections_limit: u32,
}

/// Rings of an app, named from its side.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Queues {
    /// To it.
    pub rx: usize,
    /// From it.
    pub tx: usize,
}

//! `kopid.toml`: what the daemon needs to start, and what takes a restart to change.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cpu::Cores;
use crate::device::Device;
use crate::document::{Document, Layout, Place};
use crate::host::{Host, HostEntry};
use crate::packet_ring::{PacketRing, Problem};
use crate::path::FilePath;
use crate::report::{Diagnostic, Errors, Report, quoted};
use crate::schema;
use crate::size::{Size, SizeIn};
use crate::socket::{AppSocket, ControlSocket, Socket};
use crate::source::Source;
use crate::value::{As, Fault, Form, Int, Line, List, PowerOfTwo, Raw};

/// The daemon's settings. Every value is within its limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The physical port.
    pub wire: Wire,
    /// The workers.
    pub dataplane: Dataplane,
    /// What apps may take.
    pub limits: Limits,
    /// The kernel's own port; `None` for none.
    pub host: Option<Host>,
    /// How memory is obtained.
    pub memory: Memory,
    /// DPDK's environment.
    pub eal: Eal,
    /// The socket that apps attach to.
    pub socket: Socket,
    /// The socket for operators.
    pub control: Socket,
    /// The daemon's own log.
    pub log: Log,
    /// The policy's file: as the daemon can open it after [`Config::load`], as it was written after [`Config::parse`].
    /// Without one, every frame is forwarded.
    pub policy: Option<PathBuf>,
    /// What is allowed and probably not intended, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// What kopid needs to start, and what takes a restart to change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct File {
    /// The policy's file, seen from the folder of this one; without it, every frame is forwarded.
    #[schemars(default, with = "As<FilePath>")]
    policy: (),
    wire: Wire,
    dataplane: Dataplane,
    #[schemars(default)]
    limits: Limits,
    #[schemars(default)]
    host: HostEntry,
    #[schemars(default)]
    memory: Memory,
    #[schemars(default)]
    eal: Eal,
    #[schemars(default)]
    socket: AppSocket,
    #[schemars(default)]
    control: ControlSocket,
    #[schemars(default)]
    log: Log,
}

/// `[wire]`: the physical port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Wire {
    /// The device that the daemon owns, with its arguments: a PCI address ("0000:3b:00.0") or a virtual device
    /// ("net_af_packet0,iface=eth1").
    #[serde(with = "As::<Device>")]
    pub device: Device,
    /// Largest IP packet in bytes, the Ethernet header not counted.
    #[serde(default = "of_u16::<1500>", with = "As::<Int<u16, 68, 9000>>")]
    pub mtu: u16,
    /// Receive descriptors for each worker. A power of two.
    #[serde(default = "of_u16::<1024>", with = "As::<PowerOfTwo<u16, 64, 16384>>")]
    pub rx_ring: u16,
    /// Transmit descriptors for each worker. A power of two.
    #[serde(default = "of_u16::<1024>", with = "As::<PowerOfTwo<u16, 64, 16384>>")]
    pub tx_ring: u16,
    /// The ring that the device shares with the kernel, if it is one of `net_af_packet`.
    #[serde(skip)]
    pub packet_ring: Option<PacketRing>,
}

/// `[dataplane]`: the workers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Dataplane {
    /// The CPUs they run on, a list of the kernel's numbers, one worker each.
    #[serde(with = "List::<Int<u16, 0, 1023>, 1, 64>")]
    #[schemars(extend("uniqueItems" = true))]
    pub cores: Cores,
    /// What a worker does when there is nothing to do: look again for ever, or sleep after a while.
    #[serde(default)]
    pub idle: Idle,
    /// Entries in the flow table of each worker. A power of two.
    #[serde(default = "of_u32::<65536>", with = "As::<PowerOfTwo<u32, 1024, 16_777_216>>")]
    pub flows: u32,
    /// Packet buffers for each worker: at least 512 more than `rx_ring` and `tx_ring` hold.
    #[serde(default = "of_u32::<16384>", with = "As::<Int<u32, 4096, 1_048_576>>")]
    pub mbufs: u32,
}

const fn of_u16<const N: u16>() -> u16 {
    N
}

const fn of_u32<const N: u32>() -> u32 {
    N
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Idle {
    /// Looks again at once, for ever.
    #[default]
    Poll,
    /// Looks again for a while, and then sleeps until somebody calls.
    Adaptive,
}

/// `[limits]`: what apps may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Limits {
    /// Apps attached at a time.
    #[serde(with = "As::<Int<u16, 1, 1024>>")]
    pub apps: u16,
    /// Apps of one user attached at a time, its subordinate uids included; all but an eighth of `apps` unless the file
    /// says otherwise.
    #[serde(with = "As::<Int<u16, 1, 1024>>")]
    #[schemars(extend("default" = null))]
    pub apps_per_user: u16,
    /// Requests that the apps of one user may make in a second, and at once; who has made more waits. A connection is one,
    /// too.
    #[serde(with = "As::<Int<u32, 10, 1_000_000>>")]
    pub requests_per_user: u32,
    /// Changes to the ports that the apps of one user may make in a second, after each of which every flow is judged anew.
    #[serde(with = "As::<Int<u32, 1, 1_000_000>>")]
    pub changes_per_user: u32,
    /// Queue pairs of one app.
    #[serde(with = "As::<Int<u16, 1, 16>>")]
    pub queues: u16,
    /// Slots in one ring of an app. A power of two.
    #[serde(with = "As::<PowerOfTwo<u32, 64, 8192>>")]
    pub ring_size: u32,
    /// Shared memory of one app, with the units of tc.
    #[serde(with = "As::<SizeIn<{ 1 << 20 }, { 64 << 30 }>>")]
    pub memory: Size,
    /// Shared memory of all apps; without it, half of what the machine and kopid's cgroup have left when it starts, and
    /// the free huge pages.
    #[serde(with = "As::<SizeIn<{ 1 << 20 }, { 16 << 40 }>>")]
    pub memory_total: Option<Size>,
    /// Shared memory of the apps of one user; without it, three quarters of `memory_total`.
    #[serde(with = "As::<SizeIn<{ 1 << 20 }, { 16 << 40 }>>")]
    pub memory_per_user: Option<Size>,
    /// Tracked connections of the apps of one user; without it, half of the places that there are: `flows` times the
    /// workers.
    #[serde(with = "As::<Int<u32, 16, { 1 << 28 }>>")]
    pub connections_per_user: Option<u32>,
    /// Tracked connections of one app; without it, as many as `connections_per_user`.
    #[serde(with = "As::<Int<u32, 16, { 1 << 28 }>>")]
    pub connections_per_app: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            apps: 64,
            // Of `apps`: see `Config::walk`.
            apps_per_user: 0,
            requests_per_user: 1000,
            changes_per_user: 10,
            queues: 16,
            ring_size: 4096,
            memory: Size::new(256 << 20),
            memory_total: None,
            memory_per_user: None,
            connections_per_user: None,
            connections_per_app: None,
        }
    }
}

/// `[memory]`: how memory is obtained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Memory {
    /// Whether huge pages are used.
    pub huge_pages: HugePages,
}

/// Whether huge pages are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Where there are some.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always: without them the daemon does not start, and an app does not attach.
    Require,
}

/// `[eal]`: DPDK's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Eal {
    /// More arguments for EAL, each as one word of its command line. None of them chooses CPUs.
    #[serde(with = "List::<EalArg, 0, 64>")]
    pub args: Vec<String>,
}

/// `[log]`: the daemon's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Log {
    /// The least important messages that are written.
    pub level: Level,
}

/// How important a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works worse than it should.
    Warn,
    /// What an operator wants to know: starts, stops, apps that come and go.
    #[default]
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Wire {
    /// The device with its arguments, as DPDK is to have it.
    #[must_use]
    pub fn devargs(&self) -> &str {
        self.packet_ring.as_ref().map_or_else(|| self.device.devargs(), PacketRing::devargs)
    }

    /// Works out the ring of `net_af_packet`; `None` after an error was reported.
    fn complete(mut self, table: &Place<'_>) -> Option<Self> {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
        // The driver has one number for both rings.
        let frames = u32::from(self.rx_ring.max(self.tx_ring));
        match PacketRing::complete(self.device.devargs(), self.mtu, frames, page) {
            Ok(ring) => self.packet_ring = ring,
            Err(Problem { message, help }) => {
                table.error("device", format!("`device` in [wire]: {message}"), Some(help));
                return None;
            }
        }
        let longest = u32::from(self.mtu) + 14;
        if let Some(ring) = self.packet_ring.as_ref().filter(|ring| ring.longest() < longest) {
            let message = format!(
                "`device` in [wire]: frames of more than {} bytes are cut short, and with `mtu` {} they have up to {longest}",
                ring.longest(),
                self.mtu
            );
            table.warning("device", message, "leave framesz out");
        }
        Some(self)
    }
}

impl Level {
    /// The level's word, which the `log` crate reads as well.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Packet buffers that a worker needs beyond those that lie in the rings of its wire queue: the bursts in its hands, and
/// the pool's cache. With fewer, full rings would leave it none to receive from apps with.
pub const SPARE_MBUFS: u32 = 512;

impl Config {
    /// Reads and checks the file at `path`. Never blocks, whatever kind of file it is.
    ///
    /// # Errors
    ///
    /// Every problem of the file: see [`Source::read`] for those of reading it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Errors> {
        let path = path.as_ref();
        let mut config = Self::from_source(&Source::read(path)?)?;
        if let Some(policy) = &mut config.policy {
            // An absolute path takes the place of the folder.
            *policy = path.parent().unwrap_or_else(|| Path::new("")).join(&*policy);
        }
        Ok(config)
    }

    /// Checks `text` as the content of a file that messages call `file_name`.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse(text: impl AsRef<[u8]>, file_name: &str) -> Result<Self, Errors> {
        Self::from_source(&Source::from_bytes(file_name, text.as_ref())?)
    }

    fn from_source(source: &Source) -> Result<Self, Errors> {
        let report = Report::new(source);
        let config = Self::walk(&Document::parse(&LAYOUT, &report));
        let (config, warnings) = report.finish(config)?;
        Ok(Self { warnings, ..config })
    }

    fn walk(document: &Document<'_>) -> Option<Self> {
        // Every table is read before the first `?`, so that one run reports the problems of all.
        let (wire, dataplane) = (document.table::<Wire>("wire"), document.table::<Dataplane>("dataplane"));
        let (socket, control) = (document.table::<AppSocket>("socket"), document.table::<ControlSocket>("control"));
        let (limits, host) = (document.table::<Limits>("limits"), document.table::<HostEntry>("host"));
        let (memory, eal, log) = (document.table("memory"), document.table("eal"), document.table("log"));
        let policy = document.key("policy", |value| As::<FilePath>::deserialize(value));
        let (dataplane_place, control_place) = (dataplane.place.clone(), control.place.clone());
        let wire = wire.value.filter(|_| wire.is_whole).and_then(|value| value.complete(&wire.place));
        let mut dataplane = dataplane.whole();
        if let Some(dataplane) = &mut dataplane {
            dataplane.cores.locate(&dataplane_place, "cores");
        }
        let (socket, control) = (socket.whole().map(Socket::from), control.whole().map(Socket::from));
        if let (Some(wire), Some(dataplane)) = (&wire, &dataplane) {
            check_mbufs(wire, dataplane, &dataplane_place);
        }
        if let (Some(socket), Some(control)) = (&socket, &control) {
            check_control(socket, control, &control_place);
        }
        let states_share = limits.place.states("apps_per_user");
        let mut limits = limits.whole()?;
        if !states_share {
            limits.apps_per_user = limits.apps - limits.apps / 8;
        }
        Some(Self {
            wire: wire?,
            dataplane: dataplane?,
            limits,
            host: host.whole()?.host(),
            memory: memory.whole()?,
            eal: eal.whole()?,
            socket: socket?,
            control: control?,
            log: log.whole()?,
            policy: policy?,
            warnings: Vec::new(),
        })
    }
}

fn check_mbufs(wire: &Wire, dataplane: &Dataplane, table: &Place<'_>) {
    let least = u32::from(wire.rx_ring) + u32::from(wire.tx_ring) + SPARE_MBUFS;
    if dataplane.mbufs < least {
        let what = format!("must be at least rx_ring + tx_ring + {SPARE_MBUFS} = {least}, found {}", dataplane.mbufs);
        let help = "the rings of the wire would hold every packet buffer, and leave none for apps".to_owned();
        table.fail("mbufs", &what, Some(help));
    }
}

fn check_control(socket: &Socket, control: &Socket, table: &Place<'_>) {
    if socket.path == control.path {
        let help = "apps and operators need a socket each".to_owned();
        table.fail("path", "is the same as in [socket]", Some(help));
    }
    if control.mode.is_world_writable() {
        let message = format!("`mode` {} in [control] lets every user of this machine control kopid", control.mode);
        table.warning("mode", message, "write \"0660\" and a `group`");
    }
}

/// The form of one EAL argument: a line that does not choose CPUs.
#[derive(Debug)]
pub struct EalArg;

impl EalArg {
    const CPU_OPTIONS: [&str; 3] = ["--lcores", "--main-lcore", "--master-lcore"];

    fn chooses_cpus(arg: &str) -> bool {
        let name = arg.split_once('=').map_or(arg, |(name, _)| name);
        let short = !name.starts_with("--") && (name.starts_with("-l") || name.starts_with("-c"));
        short || Self::CPU_OPTIONS.contains(&name)
    }
}

impl Form for EalArg {
    type Value = String;

    fn expected() -> String {
        Line::<1024>::expected()
    }

    fn schema() -> serde_json::Value {
        Line::<1024>::schema()
    }

    fn read(raw: Raw<'_>) -> Result<String, Fault> {
        match raw {
            Raw::Text(arg) if Self::chooses_cpus(arg) => Err(Fault::new(
                format!("must not be {}", quoted(arg)),
                Some("`cores` in [dataplane] chooses the CPUs".to_owned()),
            )),
            _ => Line::<1024>::read(raw),
        }
    }
}

/// Every table and key of `kopid.toml`.
pub static LAYOUT: Layout = Layout {
    keys: &["policy"],
    tables: &["wire", "dataplane", "limits", "host", "memory", "eal", "socket", "control", "log"],
    lists: &[],
    schema: || schema::schema::<File>("kopid.toml"),
};

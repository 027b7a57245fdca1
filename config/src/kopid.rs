//! `kopid.toml`: what the daemon needs to start, and what takes a restart to change.
//!
//! The statics of this file are the table of its keys; the types above them are what the keys become.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::account::ModeForm;
use crate::cpu::{Cores, CoresForm};
use crate::device::{Device, DeviceForm};
use crate::form::{Choice, Int, Line, List};
use crate::host::{HOST, Host};
use crate::packet_ring::{PacketRing, Problem};
use crate::path::FilePathForm;
use crate::report::{Diagnostic, Errors, Report, quoted};
use crate::size::{Size, SizeForm};
use crate::socket::{self, Socket, SocketKeys, SocketPathForm};
use crate::source::Source;
use crate::walk::{AnyKey, Document, Form, Item, Key, Layout, Need, Section, Table};

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

/// `[wire]`: the physical port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wire {
    /// The device that the daemon owns.
    pub device: Device,
    /// Largest IP packet in bytes, the Ethernet header not counted.
    pub mtu: u16,
    /// Receive descriptors for each worker. A power of two.
    pub rx_ring: u16,
    /// Transmit descriptors for each worker. A power of two.
    pub tx_ring: u16,
    /// The ring that the device shares with the kernel, if it is one of `net_af_packet`.
    pub packet_ring: Option<PacketRing>,
}

impl Wire {
    /// The device with its arguments, as DPDK is to have it.
    #[must_use]
    pub fn devargs(&self) -> &str {
        self.packet_ring.as_ref().map_or_else(|| self.device.devargs(), PacketRing::devargs)
    }
}

/// `[dataplane]`: the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dataplane {
    /// The CPUs they run on, one each.
    pub cores: Cores,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// Entries in the flow table of each worker. A power of two.
    pub flows: u32,
    /// Packet buffers for each worker. More than its rings hold, by at least [`SPARE_MBUFS`].
    pub mbufs: u32,
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idle {
    /// Looks again at once, for ever.
    Poll,
    /// Looks again for a while, and then sleeps until somebody calls.
    Adaptive,
}

/// `[limits]`: what apps may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Apps attached at a time.
    pub apps: u16,
    /// Apps of one user attached at a time; all but an eighth of `apps` unless the file says otherwise.
    pub apps_per_user: u16,
    /// Requests that the apps of one user may make in a second, and at once. A connection is one, too.
    pub requests_per_user: u32,
    /// Changes to the ports that the apps of one user may make in a second.
    pub changes_per_user: u32,
    /// Queue pairs of one app.
    pub queues: u16,
    /// Slots in one ring of an app. A power of two.
    pub ring_size: u32,
    /// Shared memory of one app.
    pub memory: Size,
    /// Shared memory of all apps; `None` for a part of what there is.
    pub memory_total: Option<Size>,
    /// Shared memory of the apps of one user; `None` for a part of `memory_total`.
    pub memory_per_user: Option<Size>,
    /// Tracked connections of the apps of one user; `None` for a part of the table.
    pub connections_per_user: Option<u32>,
    /// Tracked connections of one app; `None` for as many as its user may have.
    pub connections_per_app: Option<u32>,
}

/// `[memory]`: how memory is obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Whether huge pages are used.
    pub huge_pages: HugePages,
}

/// Whether huge pages are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Where there are some.
    Auto,
    /// Never.
    Off,
    /// Always: without them the daemon does not start, and an app does not attach.
    Require,
}

/// `[eal]`: DPDK's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Eal {
    /// More arguments for EAL, each as one word of its command line. None of them chooses CPUs.
    pub args: Vec<String>,
}

/// `[log]`: the daemon's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// The least important messages that are written.
    pub level: Level,
}

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works worse than it should.
    Warn,
    /// What an operator wants to know: starts, stops, apps that come and go.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
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
        let wire_table = document.table(&WIRE);
        let dataplane_table = document.table(&DATAPLANE);
        let control_table = document.table(&CONTROL);
        let wire = wire_table.as_ref().and_then(Wire::read);
        let dataplane = dataplane_table.as_ref().and_then(Dataplane::read);
        let limits = document.table(&LIMITS).as_ref().and_then(Limits::read);
        let host = document.table(&HOST).as_ref().and_then(Host::read);
        let memory = document.table(&MEMORY).as_ref().and_then(Memory::read);
        let eal = document.table(&EAL).as_ref().and_then(Eal::read);
        let socket = document.table(&SOCKET).as_ref().and_then(|table| SOCKET_KEYS.read(table));
        let control = control_table.as_ref().and_then(|table| CONTROL_KEYS.read(table));
        let log = document.table(&LOG).as_ref().and_then(Log::read);
        let policy = document.top(&TOP).optional(&POLICY);
        if let (Some(wire), Some(dataplane), Some(table)) = (&wire, &dataplane, &dataplane_table) {
            check_mbufs(wire, dataplane, table);
        }
        if let (Some(socket), Some(control), Some(table)) = (&socket, &control, &control_table) {
            check_control(socket, control, table);
        }
        Some(Self {
            wire: wire?,
            dataplane: dataplane?,
            limits: limits?,
            host: host?,
            memory: memory?,
            eal: eal?,
            socket: socket?,
            control: control?,
            log: log?,
            policy: policy?,
            warnings: Vec::new(),
        })
    }
}

fn check_mbufs(wire: &Wire, dataplane: &Dataplane, table: &Table<'_>) {
    let least = u32::from(wire.rx_ring) + u32::from(wire.tx_ring) + SPARE_MBUFS;
    if dataplane.mbufs < least {
        let message = format!(
            "`mbufs` in [dataplane] must be at least rx_ring + tx_ring + {SPARE_MBUFS} = {least}, found {}",
            dataplane.mbufs
        );
        let help = "the rings of the wire would hold every packet buffer, and leave none for apps".to_owned();
        table.error(&MBUFS, message, Some(help));
    }
}

fn check_control(socket: &Socket, control: &Socket, table: &Table<'_>) {
    if socket.path == control.path {
        let message = "`path` in [control] is the same as in [socket]".to_owned();
        table.error(&CONTROL_PATH, message, Some("apps and operators need a socket each".to_owned()));
    }
    if control.mode.is_world_writable() {
        let message = format!("`mode` {} in [control] lets every user of this machine control kopid", control.mode);
        table.warning(&CONTROL_MODE, message, Some("write \"0660\" and a `group`".to_owned()));
    }
}

impl Wire {
    fn read(table: &Table<'_>) -> Option<Self> {
        let device = table.get(&DEVICE);
        let mtu = table.get(&MTU);
        let rx_ring = table.get(&RX_RING);
        let tx_ring = table.get(&TX_RING);
        let (device, mtu, rx_ring, tx_ring) = (device?, mtu?, rx_ring?, tx_ring?);
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
        // The driver has one number for both rings.
        let frames = u32::from(rx_ring.max(tx_ring));
        let packet_ring = match PacketRing::complete(device.devargs(), mtu, frames, page) {
            Ok(ring) => ring,
            Err(Problem { message, help }) => {
                table.error(&DEVICE, format!("`device` in [wire]: {message}"), Some(help));
                return None;
            }
        };
        let longest = u32::from(mtu) + 14;
        if let Some(ring) = packet_ring.as_ref().filter(|ring| ring.longest() < longest) {
            let message = format!(
                "`device` in [wire]: frames of more than {} bytes are cut short, and with `mtu` {mtu} they have up to {longest}",
                ring.longest()
            );
            table.warning(&DEVICE, message, Some("leave framesz out".to_owned()));
        }
        Some(Self { device, mtu, rx_ring, tx_ring, packet_ring })
    }
}

impl Dataplane {
    fn read(table: &Table<'_>) -> Option<Self> {
        let cores = table.get(&CORES);
        let idle = table.get(&IDLE);
        let flows = table.get(&FLOWS);
        let mbufs = table.get(&MBUFS);
        Some(Self { cores: cores?, idle: idle?, flows: flows?, mbufs: mbufs? })
    }
}

impl Limits {
    fn read(table: &Table<'_>) -> Option<Self> {
        let apps = table.get(&APPS);
        let apps_per_user = table.optional(&APPS_PER_USER);
        let requests_per_user = table.get(&REQUESTS_PER_USER);
        let changes_per_user = table.get(&CHANGES_PER_USER);
        let queues = table.get(&QUEUES);
        let ring_size = table.get(&RING_SIZE);
        let memory = table.get(&APP_MEMORY);
        let memory_total = table.optional(&MEMORY_TOTAL);
        let memory_per_user = table.optional(&MEMORY_PER_USER);
        let connections_per_user = table.optional(&CONNECTIONS_PER_USER);
        let connections_per_app = table.optional(&CONNECTIONS_PER_APP);
        let apps = apps?;
        Some(Self {
            apps,
            apps_per_user: apps_per_user?.unwrap_or(apps - apps / 8),
            requests_per_user: requests_per_user?,
            changes_per_user: changes_per_user?,
            queues: queues?,
            ring_size: ring_size?,
            memory: memory?,
            memory_total: memory_total?,
            memory_per_user: memory_per_user?,
            connections_per_user: connections_per_user?,
            connections_per_app: connections_per_app?,
        })
    }
}

impl Memory {
    fn read(table: &Table<'_>) -> Option<Self> {
        table.get(&HUGE_PAGES).map(|huge_pages| Self { huge_pages })
    }
}

impl Eal {
    fn read(table: &Table<'_>) -> Option<Self> {
        table.get(&ARGS).map(|args| Self { args })
    }
}

impl Log {
    fn read(table: &Table<'_>) -> Option<Self> {
        table.get(&LEVEL).map(|level| Self { level })
    }
}

/// The form of one EAL argument: a line that does not choose CPUs.
#[derive(Clone, Copy, Debug)]
pub struct EalArgForm;

impl EalArgForm {
    const LINE: Line = Line { max: 1024 };
    const CPU_OPTIONS: [&str; 3] = ["--lcores", "--main-lcore", "--master-lcore"];

    fn chooses_cpus(arg: &str) -> bool {
        let name = arg.split_once('=').map_or(arg, |(name, _)| name);
        let short = !name.starts_with("--") && (name.starts_with("-l") || name.starts_with("-c"));
        short || Self::CPU_OPTIONS.contains(&name)
    }
}

impl Form for EalArgForm {
    type Value = String;

    fn expected(&self) -> String {
        Self::LINE.expected()
    }

    fn schema(&self) -> serde_json::Value {
        Self::LINE.schema()
    }

    fn read(&self, item: &Item<'_>) -> Option<String> {
        match item.value {
            DeValue::String(arg) if Self::chooses_cpus(arg) => item.fail(
                &format!("must not be {}", quoted(arg)),
                Some("`cores` in [dataplane] chooses the CPUs".to_owned()),
            ),
            _ => Self::LINE.read(item),
        }
    }
}

/// Every table and key of `kopid.toml`.
pub static LAYOUT: Layout = Layout {
    top: &TOP,
    sections: &[&WIRE, &DATAPLANE, &LIMITS, &HOST, &MEMORY, &EAL, &SOCKET, &CONTROL, &LOG],
    lists: &[],
};

static TOP: Section = Section { name: "", doc: "the daemon's files", keys: &[&POLICY] };

static POLICY: Key<FilePathForm> = Key {
    name: "policy",
    doc: "the policy's file, seen from the folder of this one; without it, every frame is forwarded",
    form: FilePathForm,
    need: Need::Optional,
};

static WIRE: Section =
    Section { name: "wire", doc: "the physical port", keys: &[&DEVICE as &dyn AnyKey, &MTU, &RX_RING, &TX_RING] };

static DEVICE: Key<DeviceForm> = Key {
    name: "device",
    doc: "the device that kopid owns, with its arguments",
    form: DeviceForm,
    need: Need::Required,
};

static MTU: Key<Int<u16>> = Key {
    name: "mtu",
    doc: "largest IP packet in bytes, the Ethernet header not counted",
    form: Int::range(68, 9000),
    need: Need::Default("1500"),
};

static RX_RING: Key<Int<u16>> = Key {
    name: "rx_ring",
    doc: "receive descriptors for each worker",
    form: Int::power_of_two(64, 16384),
    need: Need::Default("1024"),
};

static TX_RING: Key<Int<u16>> = Key {
    name: "tx_ring",
    doc: "transmit descriptors for each worker",
    form: Int::power_of_two(64, 16384),
    need: Need::Default("1024"),
};

static DATAPLANE: Section =
    Section { name: "dataplane", doc: "the workers", keys: &[&CORES as &dyn AnyKey, &IDLE, &FLOWS, &MBUFS] };

static CORES: Key<CoresForm> = Key {
    name: "cores",
    doc: "the CPUs of the workers by the kernel's numbers, one worker each",
    form: CoresForm,
    need: Need::Required,
};

static IDLE: Key<Choice<Idle>> = Key {
    name: "idle",
    doc: "what a worker does when there is nothing to do: look again for ever, or sleep after a while",
    form: Choice { words: &[("poll", Idle::Poll), ("adaptive", Idle::Adaptive)] },
    need: Need::Default("\"poll\""),
};

static FLOWS: Key<Int<u32>> = Key {
    name: "flows",
    doc: "entries in the flow table of each worker",
    form: Int::power_of_two(1024, 1 << 24),
    need: Need::Default("65536"),
};

static MBUFS: Key<Int<u32>> = Key {
    name: "mbufs",
    doc: "packet buffers for each worker, more than rx_ring and tx_ring hold",
    form: Int::range(4096, 1 << 20),
    need: Need::Default("16384"),
};

static LIMITS: Section = Section {
    name: "limits",
    doc: "what apps may take",
    keys: &[
        &APPS as &dyn AnyKey,
        &APPS_PER_USER,
        &REQUESTS_PER_USER,
        &CHANGES_PER_USER,
        &QUEUES,
        &RING_SIZE,
        &APP_MEMORY,
        &MEMORY_TOTAL,
        &MEMORY_PER_USER,
        &CONNECTIONS_PER_USER,
        &CONNECTIONS_PER_APP,
    ],
};

static APPS: Key<Int<u16>> =
    Key { name: "apps", doc: "apps attached at a time", form: Int::range(1, 1024), need: Need::Default("64") };

static APPS_PER_USER: Key<Int<u16>> = Key {
    name: "apps_per_user",
    doc: "apps of one user attached at a time, its subordinate uids included; without it, all but an eighth of `apps`",
    form: Int::range(1, 1024),
    need: Need::Optional,
};

static REQUESTS_PER_USER: Key<Int<u32>> = Key {
    name: "requests_per_user",
    doc: "requests that the apps of one user may make in a second, connections included; who has made more waits",
    form: Int::range(10, 1_000_000),
    need: Need::Default("1000"),
};

static CHANGES_PER_USER: Key<Int<u32>> = Key {
    name: "changes_per_user",
    doc: "changes to ports that the apps of one user may make in a second, after each of which every flow is judged anew",
    form: Int::range(1, 1_000_000),
    need: Need::Default("10"),
};

static QUEUES: Key<Int<u16>> =
    Key { name: "queues", doc: "queue pairs of one app", form: Int::range(1, 16), need: Need::Default("16") };

static RING_SIZE: Key<Int<u32>> = Key {
    name: "ring_size",
    doc: "slots in one ring of an app",
    form: Int::power_of_two(64, 8192),
    need: Need::Default("4096"),
};

static APP_MEMORY: Key<SizeForm> = Key {
    name: "memory",
    doc: "shared memory of one app, with the units of tc",
    form: SizeForm { min: Size::new(1 << 20), max: Size::new(64 << 30) },
    need: Need::Default("\"256mb\""),
};

static MEMORY_TOTAL: Key<SizeForm> = Key {
    name: "memory_total",
    doc: "shared memory of all apps; without it, half of what the machine and kopid's cgroup have left when it starts, and the free huge pages",
    form: SizeForm { min: Size::new(1 << 20), max: Size::new(16 << 40) },
    need: Need::Optional,
};

static MEMORY_PER_USER: Key<SizeForm> = Key {
    name: "memory_per_user",
    doc: "shared memory of the apps of one user; without it, three quarters of `memory_total`",
    form: SizeForm { min: Size::new(1 << 20), max: Size::new(16 << 40) },
    need: Need::Optional,
};

static CONNECTIONS_PER_USER: Key<Int<u32>> = Key {
    name: "connections_per_user",
    doc: "tracked connections of the apps of one user; without it, half of the places that there are: `flows` times the workers",
    form: Int::range(16, 1 << 28),
    need: Need::Optional,
};

static CONNECTIONS_PER_APP: Key<Int<u32>> = Key {
    name: "connections_per_app",
    doc: "tracked connections of one app; without it, as many as `connections_per_user`",
    form: Int::range(16, 1 << 28),
    need: Need::Optional,
};

static MEMORY: Section = Section { name: "memory", doc: "how memory is obtained", keys: &[&HUGE_PAGES] };

static HUGE_PAGES: Key<Choice<HugePages>> = Key {
    name: "huge_pages",
    doc: "whether huge pages are used: where there are some, never, or not without",
    form: Choice { words: &[("auto", HugePages::Auto), ("off", HugePages::Off), ("require", HugePages::Require)] },
    need: Need::Default("\"auto\""),
};

static EAL: Section = Section { name: "eal", doc: "DPDK's environment", keys: &[&ARGS] };

static ARGS: Key<List<EalArgForm>> = Key {
    name: "args",
    doc: "more arguments for EAL, each as one word of its command line",
    form: List { each: EalArgForm, min: 0, max: 64 },
    need: Need::Default("[]"),
};

static SOCKET: Section = Section {
    name: "socket",
    doc: "the socket that apps attach to",
    keys: &[&SOCKET_PATH as &dyn AnyKey, &socket::OWNER, &socket::GROUP, &SOCKET_MODE],
};

static SOCKET_PATH: Key<SocketPathForm> = SocketKeys::path("\"/run/kopi/kopi.sock\"");
static SOCKET_MODE: Key<ModeForm> = SocketKeys::mode("\"0660\"");

static CONTROL: Section = Section {
    name: "control",
    doc: "the socket for operators",
    keys: &[&CONTROL_PATH as &dyn AnyKey, &socket::OWNER, &socket::GROUP, &CONTROL_MODE],
};

static CONTROL_PATH: Key<SocketPathForm> = SocketKeys::path("\"/run/kopi/control.sock\"");
static CONTROL_MODE: Key<ModeForm> = SocketKeys::mode("\"0600\"");

static SOCKET_KEYS: SocketKeys = SocketKeys { path: &SOCKET_PATH, mode: &SOCKET_MODE };
static CONTROL_KEYS: SocketKeys = SocketKeys { path: &CONTROL_PATH, mode: &CONTROL_MODE };

static LOG: Section = Section { name: "log", doc: "the daemon's own log", keys: &[&LEVEL] };

static LEVEL: Key<Choice<Level>> = Key {
    name: "level",
    doc: "the least important messages that are written",
    form: Choice {
        words: &[
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
            ("trace", Level::Trace),
        ],
    },
    need: Need::Default("\"info\""),
};

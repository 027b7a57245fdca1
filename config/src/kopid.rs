//! `kopid.toml`: what the daemon needs to start, and what takes a restart to change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kopi_packet::MacAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::account::{Account, Mode};
use crate::amount::{Size, SizeIn};
use crate::device::Device;
use crate::document::{Document, Entry, Place};
use crate::metrics::Endpoint;
use crate::packet_ring::PacketRing;
use crate::path::{FilePath, Interface, SocketPath};
use crate::policy::mac::Station;
use crate::report::{Diagnostic, Errors, Report, quoted};
use crate::schema;
use crate::source::{SIZE_MAX, Source};
use crate::value::{As, Fault, Form, Int, List, PowerOfTwo, Truth, is_line, table};

/// What kopid needs to start, and what takes a restart to change.
// Every value is within its limits.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields, default, extend("required" = ["wire", "dataplane"]))]
#[non_exhaustive]
pub struct Config {
    /// The policy's file, seen from the folder of this one; without it, every frame is forwarded.
    // After `load` it is as the daemon can open it, after `parse` as it was written.
    #[schemars(with = "As<FilePath>")]
    pub policy: Option<PathBuf>,
    /// The physical port.
    pub wire: Wire,
    /// The workers.
    pub dataplane: Dataplane,
    /// What apps may take.
    pub limits: Limits,
    /// The kernel's own port.
    #[schemars(with = "Host")]
    pub host: Option<Host>,
    /// How memory is obtained.
    pub memory: Memory,
    /// DPDK's environment.
    pub eal: Eal,
    /// The socket that apps attach to.
    #[schemars(with = "AppSocket")]
    pub socket: Socket,
    /// The socket for operators.
    #[schemars(with = "ControlSocket")]
    pub control: Socket,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// The daemon's own log.
    pub log: Log,
    /// What is allowed and probably not intended, in the order of the file.
    #[schemars(skip)]
    pub warnings: Vec<Diagnostic>,
    /// Where the keys stand in which the machine has a say.
    #[schemars(skip)]
    places: BTreeMap<String, Diagnostic>,
}

table! {
    /// The keys at the top of the file.
    struct Top {
        policy: Option<PathBuf> = None, "As::<FilePath>";
    }
}

table! {
    /// `[wire]`: the physical port.
    #[schemars(extend("required" = ["device"]))]
    pub struct Wire {
        /// The device that the daemon owns, with its arguments: a PCI address ("0000:3b:00.0") or a virtual device
        /// ("net_af_packet0,iface=eth1").
        pub device: Device = Device::Virtual(String::new()), "As::<Device>";
        /// Largest IP packet in bytes, the Ethernet header not counted.
        pub mtu: u16 = 1500, "As::<Int<u16, 68, 9000>>";
        /// Receive descriptors for each worker. A power of two.
        pub rx_ring: u16 = 1024, "As::<PowerOfTwo<u16, 64, 16384>>";
        /// Transmit descriptors for each worker. A power of two.
        pub tx_ring: u16 = 1024, "As::<PowerOfTwo<u16, 64, 16384>>";
        /// The ring that the device shares with the kernel, if it is one of `net_af_packet`.
        #[serde(skip)]
        pub packet_ring: Option<PacketRing> = None;
    }
}

table! {
    /// `[dataplane]`: the workers.
    #[schemars(extend("required" = ["cores"]))]
    pub struct Dataplane {
        /// The CPUs they run on, a list of the kernel's numbers, one worker each.
        // The largest is one less than the size of the C library's CPU sets.
        #[schemars(extend("uniqueItems" = true))]
        pub cores: Vec<u16> = Vec::new(), "List::<Int<u16, 0, 1023>, 1, 64>";
        /// What a worker does when there is nothing to do: look again for ever, or sleep after a while.
        pub idle: Idle = Idle::Poll;
        /// Entries in the flow table of each worker. A power of two; without it, as many as the tables of all workers, and of the
        /// connections, fill a 32nd of the machine's memory with, from 65,536 to 2,097,152.
        pub flows: Option<u32> = None, "As::<PowerOfTwo<u32, 1024, 16_777_216>>";
        /// Packet buffers for each worker: at least 512 more than `rx_ring` and `tx_ring` hold.
        pub mbufs: u32 = 16384, "As::<Int<u32, 4096, 1_048_576>>";
    }
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

table! {
    /// `[limits]`: what apps may take.
    #[derive(Copy)]
    pub struct Limits {
        /// Apps attached at a time.
        pub apps: u16 = 64, "As::<Int<u16, 1, 1024>>";
        /// Apps of one user attached at a time, its subordinate uids included; all but an eighth of `apps` unless the
        /// file says otherwise.
        #[schemars(extend("default" = null))]
        pub apps_per_user: u16 = 0, "As::<Int<u16, 1, 1024>>";
        /// Requests that the apps of one user may make in a second, and at once; who has made more waits. A connection is
        /// one, too.
        pub requests_per_user: u32 = 1000, "As::<Int<u32, 10, 1_000_000>>";
        /// Changes to the ports that the apps of one user may make in a second, after each of which every flow is judged
        /// anew.
        pub changes_per_user: u32 = 10, "As::<Int<u32, 1, 1_000_000>>";
        /// Queue pairs of one app.
        pub queues: u16 = 16, "As::<Int<u16, 1, 16>>";
        /// Slots in one ring of an app. A power of two.
        pub ring_size: u32 = 4096, "As::<PowerOfTwo<u32, 64, 8192>>";
        /// Shared memory of one app, with the units of tc.
        pub memory: Size = Size::new(256 << 20), "As::<SizeIn<{ 1 << 20 }, { 64 << 30 }>>";
        /// Shared memory of all apps; without it, half of what the machine and kopid's cgroup have left when it starts,
        /// and the free huge pages.
        pub memory_total: Option<Size> = None, "As::<SizeIn<{ 1 << 20 }, { 16 << 40 }>>";
        /// Shared memory of the apps of one user; without it, three quarters of `memory_total`.
        pub memory_per_user: Option<Size> = None, "As::<SizeIn<{ 1 << 20 }, { 16 << 40 }>>";
        /// Tracked connections of the apps of one user; without it, half of the places that there are: `flows` times the
        /// workers.
        pub connections_per_user: Option<u32> = None, "As::<Int<u32, 16, { 1 << 28 }>>";
        /// Tracked connections of one app; without it, as many as `connections_per_user`.
        pub connections_per_app: Option<u32> = None, "As::<Int<u32, 16, { 1 << 28 }>>";
    }
}

table! {
    /// The kernel's own port.
    pub struct Host {
        /// The interface that the kernel gets for its port on the wire; without it, there is none.
        #[schemars(extend("default" = null))]
        pub tap: String = String::new(), "As::<Interface>";
        /// Queues of that interface.
        pub queues: u16 = 1, "As::<Int<u16, 1, 16>>";
        /// Whether the kernel leaves checksums and segmentation to kopid, and gets segments put together.
        pub offload: bool = true, "As::<Truth>";
        /// MAC addresses of others behind that interface, such as macvlan devices, stations on a bridge, or a virtual
        /// router.
        pub macs: Vec<MacAddr> = Vec::new(), "List::<Station, 0, 127>";
    }
}

table! {
    /// `[memory]`: how memory is obtained.
    #[derive(Copy)]
    pub struct Memory {
        /// Whether huge pages are used.
        pub huge_pages: HugePages = HugePages::Auto;
        /// Whether kopid may read the memory of apps, so that they need not copy long frames for it. Only for apps that are trusted
        /// not to stop the host's other traffic: by what they do to that memory, they can have workers wait for seconds.
        pub share_memory: bool = false, "As::<Truth>";
    }
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

table! {
    /// `[eal]`: DPDK's environment.
    pub struct Eal {
        /// More arguments for EAL, each as one word of its command line. None of them chooses CPUs.
        pub args: Vec<String> = Vec::new(), "List::<EalArg, 0, 64>";
    }
}

/// One listening Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    /// Its owner; `None` leaves the daemon's user.
    pub owner: Option<Account>,
    /// Its group; `None` leaves the daemon's group.
    pub group: Option<Account>,
    /// Who may connect: that takes the right to write.
    pub mode: Mode,
}

/// Declares a listening Unix socket by its defaults.
macro_rules! socket {
    ($(#[$doc:meta])* $name:ident, $path:literal, $mode:literal) => {
        table! {
            $(#[$doc])*
            struct $name {
                /// Where the socket is.
                path: PathBuf = PathBuf::from($path), "As::<SocketPath>";
                /// The user that owns the socket; without it, the daemon's.
                owner: Option<Account> = None, "As::<Account>";
                /// The group that owns the socket; without it, the daemon's.
                group: Option<Account> = None, "As::<Account>";
                /// Who may connect: permission bits.
                mode: Mode = Mode::new($mode), "As::<Mode>";
            }
        }

        impl From<$name> for Socket {
            fn from($name { path, owner, group, mode }: $name) -> Self {
                Self { path, owner, group, mode }
            }
        }
    };
}
socket! {
    /// The socket that apps attach to.
    AppSocket, "/run/kopi/kopi.sock", 0o660
}
socket! {
    /// The socket for operators.
    ControlSocket, "/run/kopi/control.sock", 0o600
}

table! {
    /// `[metrics]`: figures for Prometheus.
    pub struct Metrics {
        /// Where they are served over HTTP: an IP address and a port ("127.0.0.1:9469"), or the absolute path of a Unix socket;
        /// without it, nowhere. Whoever may connect may read them.
        pub listen: Option<Endpoint> = None, "As::<Endpoint>";
        /// The user that owns the socket, if it is one; without it, the daemon's.
        pub owner: Option<Account> = None, "As::<Account>";
        /// The group that owns the socket, if it is one; without it, the daemon's.
        pub group: Option<Account> = None, "As::<Account>";
        /// Who may connect to the socket, if it is one: permission bits.
        pub mode: Mode = Mode::new(0o660), "As::<Mode>";
        /// Rules with figures of their own, the first of the policy; those of all others are summed up.
        pub rules: u32 = 1000, "As::<Int<u32, 0, 100_000>>";
        /// Classes with figures of their own, the first of the policy.
        pub classes: u32 = 1000, "As::<Int<u32, 0, 65_536>>";
    }
}

table! {
    /// `[log]`: the daemon's own log.
    #[derive(Copy)]
    pub struct Log {
        /// The least important messages that are written.
        pub level: Level = Level::Info;
    }
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

    /// Works out the ring of `net_af_packet`.
    fn complete(&mut self, table: &Place<'_>) {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
        // The driver has one number for both rings.
        let frames = u32::from(self.rx_ring.max(self.tx_ring));
        match PacketRing::complete(self.device.devargs(), self.mtu, frames, page) {
            Ok(ring) => self.packet_ring = ring,
            Err((message, help)) => {
                table.error("device", format!("`device` in [wire]: {message}"), &help);
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
    }
}

impl Metrics {
    /// The Unix socket that they are served at, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<Socket> {
        let Some(Endpoint::Path(path)) = &self.listen else { return None };
        let (owner, group) = (self.owner.clone(), self.group.clone());
        Some(Socket { path: path.clone(), owner, group, mode: self.mode })
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

/// Packet buffers that a worker needs beyond those that lie in the rings of its wire queue: the bursts in its hands, and
/// the pool's cache. With fewer, full rings would leave it none to receive from apps with.
pub const SPARE_MBUFS: u32 = 512;

/// What a file may have.
pub(crate) static SCHEMA: LazyLock<Json> = LazyLock::new(|| schema::schema::<Config>("kopid.toml"));

impl Config {
    /// Reads and checks the file at `path`. Never blocks, whatever kind of file it is.
    ///
    /// # Errors
    ///
    /// Every problem of the file, and those of reading it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Errors> {
        let path = path.as_ref();
        let mut config = Self::from_source(&Source::read(path, SIZE_MAX)?)?;
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
        Self::from_source(&Source::from_bytes(file_name, text.as_ref(), SIZE_MAX)?)
    }

    fn from_source(source: &Source) -> Result<Self, Errors> {
        let report = Report::new(source);
        let config = Self::walk(&Document::parse(&SCHEMA, &report));
        let warnings = report.finish()?;
        Ok(Self { warnings, ..config })
    }

    /// Reads every table, and then checks them against each other.
    fn walk(document: &Document<'_>) -> Self {
        let mut config = Self { policy: document.top::<Top>().policy, ..Self::default() };
        let mut wire = document.table::<Wire>("wire");
        let dataplane = document.table::<Dataplane>("dataplane");
        if wire.is_whole {
            wire.value.complete(&wire.place);
            config.note(&wire.place, &["device"]);
        }
        if dataplane.is_whole {
            config.note_cores(&dataplane);
        }
        if wire.is_whole && dataplane.is_whole {
            check_mbufs(&wire.value, &dataplane);
        }
        (config.wire, config.dataplane) = (wire.value, dataplane.value);
        let limits = document.table::<Limits>("limits");
        config.limits = limits.value;
        if !limits.place.states("apps_per_user") {
            config.limits.apps_per_user = config.limits.apps - config.limits.apps / 8;
        }
        config.host = Some(document.table::<Host>("host").value).filter(|host| !host.tap.is_empty());
        config.memory = document.table("memory").value;
        config.eal = document.table("eal").value;
        config.log = document.table("log").value;
        let (socket, control) = (document.table::<AppSocket>("socket"), document.table::<ControlSocket>("control"));
        config.note(&socket.place, &["owner", "group"]);
        config.note(&control.place, &["owner", "group"]);
        (config.socket, config.control) = (socket.value.into(), control.value.into());
        if socket.is_whole && control.is_whole {
            config.check_control(&control.place);
        }
        let metrics = document.table::<Metrics>("metrics");
        config.note(&metrics.place, &["owner", "group"]);
        config.metrics = metrics.value;
        if metrics.is_whole {
            config.check_metrics(&metrics.place);
        }
        config
    }

    /// An error at the place of `key`, such as "wire.device", if the file states it.
    pub(crate) fn error_at(&self, key: &str, message: String, help: Option<String>) -> Option<Diagnostic> {
        let place = self.places.get(key)?.clone();
        let key = key.split('[').next().map(str::to_owned);
        Some(Diagnostic { key, message, help, ..place })
    }

    /// Notes where `keys` of a table stand.
    fn note(&mut self, table: &Place<'_>, keys: &[&str]) {
        let places = keys.iter().filter(|key| table.states(key)).map(|key| table.locate(key));
        self.places.extend(places.filter_map(|place| Some((place.key.clone()?, place))));
    }

    /// Checks that no CPU stands twice, and notes where each stands.
    fn note_cores(&mut self, table: &Entry<'_, Dataplane>) {
        let mut seen = BTreeSet::new();
        for (index, cpu) in table.value.cores.iter().enumerate() {
            let element = format!("cores[{index}]");
            if !seen.insert(cpu) {
                let help = "each worker needs a CPU of its own";
                table.place.fail(&element, &format!("names CPU {cpu} a second time"), help);
            }
            self.note(&table.place, &[&element]);
        }
    }

    fn check_control(&self, table: &Place<'_>) {
        if self.socket.path == self.control.path {
            table.fail("path", "is the same as in [socket]", "apps and operators need a socket each");
        }
        let mode = self.control.mode;
        if mode.is_world_writable() {
            let message = format!("`mode` {mode} in [control] lets every user of this machine control kopid");
            table.warning("mode", message, "write \"0660\" and a `group`");
        }
    }

    fn check_metrics(&self, table: &Place<'_>) {
        let Some(socket) = self.metrics.socket() else {
            for key in ["owner", "group", "mode"].into_iter().filter(|key| table.states(key)) {
                table.fail(key, "is of a Unix socket", "name one with `listen`, or leave this out");
            }
            return;
        };
        for (name, other) in [("socket", &self.socket), ("control", &self.control)] {
            if socket.path == other.path {
                table.fail("listen", &format!("is the same as in [{name}]"), "metrics need a socket of their own");
            }
        }
    }
}

fn check_mbufs(wire: &Wire, dataplane: &Entry<'_, Dataplane>) {
    let least = u32::from(wire.rx_ring) + u32::from(wire.tx_ring) + SPARE_MBUFS;
    let mbufs = dataplane.value.mbufs;
    if mbufs < least {
        let what = format!("must be at least rx_ring + tx_ring + {SPARE_MBUFS} = {least}, found {mbufs}");
        let help = "the rings of the wire would hold every packet buffer, and leave none for apps";
        dataplane.place.fail("mbufs", &what, help);
    }
}

/// The form of one EAL argument: a line that does not choose CPUs.
struct EalArg;

impl EalArg {
    const LEN_MAX: usize = 1024;
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
        format!("a string of 1 to {} bytes without control characters", Self::LEN_MAX)
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": Self::LEN_MAX })
    }

    fn text(arg: &str) -> Result<String, Fault> {
        if Self::chooses_cpus(arg) {
            let help = "`cores` in [dataplane] chooses the CPUs".to_owned();
            return Err(Fault::new(format!("must not be {}", quoted(arg)), Some(help)));
        }
        if is_line(arg, Self::LEN_MAX) { Ok(arg.to_owned()) } else { Err(Fault::default()) }
    }
}

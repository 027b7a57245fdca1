//! The daemon: start, event loop, end.

use crate::capture::Captures;
use crate::control::attach::Attach;
use crate::control::detach::DetachReason;
use crate::control::helper::Wake;
use crate::control::listener::{ListenError, Listener};
use crate::control::logging::Queued;
use crate::control::memory::{Bytes, Machine, free_huge_memory};
use crate::control::operator::Operator;
use crate::control::plane::{ControlPlane, Helpers, Limits};
use crate::control::policy::Enforcement;
use crate::control::poller::{Poller, Token};
use crate::control::reload::{Hangup, Reload, Source};
use crate::control::server::Control;
use crate::control::signals::{SignalRequest, Signals};
use crate::control::stats::{self, Facts};
use crate::control::wire_device::{WireDevice, WireState, frame_room, kept_buffers, sleeps};
use crate::control::workers::{Dataplane, Setup, StartError, random_seed};
use crate::host::{Host, HostError};
use crate::ids::WIRE;
use dpdk::{DpdkError, Eal, Pool, PoolConfig};
use kopi_config::check::{find_interface, unknown_names};
use kopi_config::{Config, Device, HugePages, Policy};
use kopi_policy::Connections;
use kopi_ring::message::Link;
use kopi_ring::{HoleWatch, Region, RegionError};
use rustix::net::SocketType;
use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How often counters are shown, the link is looked at, and late peers are dealt with.
const TICK: Duration = Duration::from_millis(100);
/// How often is looked for changes of processes and accounts that the policy follows within a second.
const REFRESH_PERIOD: Duration = Duration::from_millis(500);
/// How soon a worker's answer is looked for while one is outstanding.
const REPLY_PERIOD: Duration = Duration::from_millis(1);
/// How long apps that do not take their last message are waited for.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
/// Bytes of DPDK memory beyond the packet buffers, for its own structures and the drivers'.
const DPDK_MEMORY: u64 = 96 << 20;
/// Bytes of a packet buffer besides the frame: `rte_mbuf`, headroom, the pool's header and padding.
const MBUF_OVERHEAD: u64 = 128 + 128 + 192;
/// Packet buffers that a thread may keep to itself: DPDK's maximum.
const POOL_CACHE: u32 = 512;
/// Why the daemon could not start or go on.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configured CPUs are not there.
    #[error("{0}")]
    Config(#[from] kopi_config::Errors),
    /// DPDK could not be started.
    #[error("DPDK does not start: {0}")]
    Eal(#[source] DpdkError),
    /// The wire could not be opened.
    #[error("the wire `{device}` cannot be used: {error}")]
    Wire {
        /// The device as configured.
        device: String,
        /// What DPDK said.
        #[source]
        error: DpdkError,
    },
    /// The wire's interface is not there.
    #[error("the wire `{device}` cannot be used: {reason}")]
    NoInterface {
        /// The device as configured.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// Packet buffers could not be had.
    #[error(
        "no memory for {mbufs} packet buffers of {room} bytes: {error}; lower [dataplane] mbufs, or add huge pages"
    )]
    Pool {
        /// Buffers asked for.
        mbufs: u32,
        /// Bytes of frame in each.
        room: u16,
        /// What DPDK said.
        #[source]
        error: DpdkError,
    },
    /// The policy has more than there is room for.
    #[error("the policy cannot be compiled: {0}")]
    Policy(String),
    /// A worker did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The host port could not be made.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A socket could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The handler for punched regions could not be installed.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The system refused something that always works.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A worker ended by itself.
    #[error("a worker has ended; see the lines above")]
    WorkerGone,
    /// The host port's thread ended by itself.
    #[error("{0}")]
    HostGone(String),
}

impl From<rustix::io::Errno> for DaemonError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Tries, for root, whether EAL takes its arguments. What a daemon that runs already has is not touched. All else that a start needs is
/// looked at by [`kopi_config::check`].
///
/// # Errors
///
/// [`DaemonError`] as of a start that fails.
pub fn try_eal(config: &Config) -> Result<(), DaemonError> {
    if !geteuid().is_root() {
        // What others may not have may be there for who starts kopid.
        return Ok(());
    }
    if config.memory.huge_pages == HugePages::Require && free_huge_memory() == 0 {
        // A daemon that runs may have them all, and gives them back before the next one starts.
        return Ok(());
    }
    let online = kopi_config::online_cpus()?;
    let eal = Eal::init(&check_args(config, &online)).map_err(DaemonError::Eal)?;
    eal.close().map_err(DaemonError::Eal)
}

/// EAL's arguments without the wire, in files of nobody else's, in little memory, and with messages about errors alone.
fn check_args(config: &Config, online: &BTreeSet<u16>) -> Vec<String> {
    let is_memory = |arg: &str| arg.starts_with("-m") && arg[2..].bytes().all(|byte| byte.is_ascii_digit());
    let mut args = eal_args(config, online);
    let own = args.len() - config.eal.args.len();
    for arg in args.iter_mut().take(own) {
        if arg.starts_with("-a") {
            *arg = "--no-pci".to_owned();
        } else if arg.starts_with("--file-prefix") {
            // EAL leaves a folder of this name behind.
            *arg = "--file-prefix=kopid-check".to_owned();
        } else if is_memory(arg) {
            *arg = "-m16".to_owned();
        }
    }
    args.extend(["--no-shconf".to_owned(), "--log-level=*:error".to_owned()]);
    args
}

/// Fails if the wire's interface is not there.
fn check_interface(config: &Config) -> Result<(), DaemonError> {
    let device = config.wire.device.devargs();
    find_interface(device).map_err(|reason| DaemonError::NoInterface { device: device.to_owned(), reason })
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
///
/// [`DaemonError`] if it cannot start, or a worker ends.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    let (apps, control) = (config.socket.path.as_path(), config.control.path.as_path());
    // Before anything that could disturb a daemon that runs already.
    Listener::check_free(apps, SocketType::SEQPACKET)?;
    Listener::check_free(control, SocketType::STREAM)?;
    let online = kopi_config::online_cpus()?;
    config.dataplane.cores.check_online(&online)?;
    check_interface(config)?;
    let mut signals = Signals::catch()?;
    raise_descriptor_limit();

    let eal = Eal::init(&eal_args(config, &online)).map_err(DaemonError::Eal)?;
    keep_off_workers(config, &online)?;
    // After EAL, which has its own handler for a while.
    match Region::watch_holes()? {
        HoleWatch::Touch => {
            log::info!("holes that apps punch into their rings are seen at the first touch (userfaultfd)")
        }
        HoleWatch::Asking(errno) => log::warn!(
            "userfaultfd is refused ({errno}): holes that apps punch into their rings are looked for ten times a second, and \
             cost workers time until then. Let kopid have it: Linux 4.14, and a filter of system calls that allows it"
        ),
    }
    let mut queued = None;
    let outcome = serve(config, &eal, &mut signals, &mut queued);
    match eal.close() {
        // The memory goes with this process.
        Err(DpdkError::BuffersOut(missing))
            if missing <= kept_buffers(&config.wire, config.dataplane.cores.cpus().len()) =>
        {
            log::debug!("the driver of the wire has kept {missing} packet buffers that are in its rings");
        }
        Err(error) => log::warn!("DPDK was not taken down: {error}"),
        Ok(()) => {}
    }
    outcome
}

/// Opens the wire, starts the workers, and handles events until told to stop.
///
/// From then on the log is `queued`.
fn serve(config: &Config, eal: &Eal, signals: &mut Signals, queued: &mut Option<Queued>) -> Result<(), DaemonError> {
    let started = Started::new(config, eal)?;
    let Started { mut device, pool, wake, mut plane } = started;
    let host = match &config.host {
        None => None,
        Some(host) => Some(Host::start(host, &mut plane)?),
    };
    let poller = Poller::new()?;
    poller.add(&*signals, Token::Signal)?;
    let outcome = Listener::bind(&config.socket, SocketType::SEQPACKET).and_then(|apps| {
        let control = Listener::bind(&config.control, SocketType::STREAM)?;
        Ok((apps, control))
    });
    let (apps, control) = match outcome {
        Ok(listeners) => listeners,
        Err(error) => {
            drop(host);
            drop(plane);
            return Err(error.into());
        }
    };
    poller.add(plane.captures().wake(), Token::Captures)?;
    poller.add(plane.regions_event(), Token::Regions)?;
    if let Some(event) = Region::hole_event() {
        poller.add(event, Token::Hole)?;
    }
    poller.add(plane.peers().wake(), Token::Peers)?;
    poller.add(&wake, Token::Helpers)?;
    let attach = Attach::new(apps, plane.limits().requests_per_user, wake.clone(), &poller)?;
    let source = Arc::new(Source::new(config.policy.clone()));
    let control = Control::new(control, Arc::clone(&source), &poller)?;
    let hangup = Hangup::new(source, wake.clone());
    log::info!(
        "ready: wire {} ({}), {} worker(s), apps at {}",
        plane.wire().device,
        plane.wire().driver,
        plane.dataplane().workers(),
        config.socket.path.as_path().display()
    );
    if !plane.wire().link.up {
        device.log_link(plane.wire().link);
    }
    let mut events = Events {
        poller,
        wake,
        plane,
        attach,
        control,
        hangup,
        host,
        device: &mut device,
        pool: &pool,
        since: Instant::now(),
        ticked: Instant::now(),
        next_refresh: Instant::now() + REFRESH_PERIOD,
        hz: eal.tsc_hz(),
    };
    // Whoever reads the log keeps nobody waiting from now on.
    *queued = Some(Queued::begin()?);
    let outcome = events.run(signals);
    let Events { mut attach, mut plane, control, host, .. } = events;
    drop(control);
    // Nobody may use a region any more when it is emptied.
    drop(host);
    // The apps get it at once; their sockets close behind it.
    attach.send_link(Link { up: false, speed: 0 }, &mut plane);
    plane.peers().flush(FLUSH_TIMEOUT);
    drop(plane);
    drop(attach);
    if let Err(error) = device.stop() {
        log::warn!("the wire was not stopped: {error}");
    }
    log::info!("stopped");
    outcome
}

/// Everything that runs before the first socket opens.
struct Started {
    device: WireDevice,
    pool: Pool,
    wake: Wake,
    plane: ControlPlane,
}

impl Started {
    fn new(config: &Config, eal: &Eal) -> Result<Self, DaemonError> {
        let wire = &config.wire;
        let wire_error = |error| DaemonError::Wire { device: wire.device.devargs().to_owned(), error };
        let cores = config.dataplane.cores.cpus();
        let workers = u16::try_from(cores.len()).unwrap_or(u16::MAX);

        let mut device = WireDevice::open(eal, wire).map_err(wire_error)?;
        let room = frame_room(wire);
        let mbufs = config.dataplane.mbufs.saturating_mul(workers.into());
        let pool_config =
            PoolConfig { name: "kopi-frames", mbufs, cache: POOL_CACHE, frame_max: room, socket: device.socket() };
        let pool = Pool::new(eal, pool_config).map_err(|error| DaemonError::Pool { mbufs, room, error })?;
        let (rx, tx) = device.start(config, workers, &pool).map_err(wire_error)?;
        let link = device.link();
        let wire_state = WireState {
            device: wire.device.devargs().to_owned(),
            driver: device.driver().to_owned(),
            mac: device.mac().map_err(wire_error)?,
            mtu: wire.mtu,
            link,
        };
        let flows = usize::try_from(config.dataplane.flows).unwrap_or(1 << 16);
        // As many as there can be flows.
        let capacity = (flows * usize::from(workers)).next_power_of_two();
        let limits = limits(config, capacity);
        let policy = config.policy.as_ref().map(read_policy).transpose()?;
        let tracking = policy.as_ref().map(|policy| policy.tracking).unwrap_or_default();
        let policy = Enforcement::new(config.policy.clone(), policy).map_err(DaemonError::Policy)?;
        let connections = Arc::new(Connections::new(capacity, random_seed()?, &tracking, eal.tsc_hz()));
        let dataplane = Dataplane::start(
            eal,
            Setup {
                cores: cores.to_vec(),
                flows,
                apps: limits.apps + usize::from(config.host.is_some()),
                pool: pool.clone(),
                sleep: sleeps(config).then(|| device.ears(&rx)),
                finish: device.is_virtual(),
                rx,
                tx,
                snapshot: ControlPlane::empty_snapshot(link, wire.mtu),
                connections: Arc::clone(&connections),
            },
        )?;
        let wake = Wake::new()?;
        let helpers = Helpers::start(Captures::new(eal.tsc_hz())?, &wake)?;
        let plane = ControlPlane::new(dataplane, wire_state, limits, policy, connections, helpers);
        Ok(Self { device, pool, wake, plane })
    }
}

/// What apps may have. There is room for `connections`; without another limit, a user may have half of that: as many as have a
/// flow in each direction in the flow tables, and no more than all others together.
fn limits(config: &Config, connections: usize) -> Limits {
    let half = u32::try_from(connections / 2).unwrap_or(u32::MAX);
    let per_user = config.limits.connections_per_user.unwrap_or(half);
    let per_app = config.limits.connections_per_app.unwrap_or(per_user);
    let (memory_total, memory_per_user) = memory_limits(config);
    Limits {
        apps: config.limits.apps.into(),
        apps_per_user: config.limits.apps_per_user.into(),
        requests_per_user: config.limits.requests_per_user,
        changes_per_user: config.limits.changes_per_user,
        memory_total,
        memory_per_user,
        queues: config.limits.queues,
        ring: config.limits.ring_size,
        memory: config.limits.memory.bytes(),
        connections: kopi_policy::Limits { per_app, per_user },
        huge_pages: match config.memory.huge_pages {
            HugePages::Auto => kopi_ring::HugePages::Auto,
            HugePages::Off => kopi_ring::HugePages::Off,
            HugePages::Require => kopi_ring::HugePages::Require,
        },
    }
}

/// Bytes of rings that all apps may have, and those of one user: as configured, or half of what there is at the start, and three
/// quarters of that.
fn memory_limits(config: &Config) -> (u64, u64) {
    let limits = &config.limits;
    let (left, pool) = (Machine::new().left(), free_huge_memory());
    let left = match config.memory.huge_pages {
        HugePages::Off => left / 2,
        HugePages::Auto => (left / 2).saturating_add(pool),
        HugePages::Require => pool,
    };
    let total = limits.memory_total.map_or(left, kopi_config::Size::bytes);
    let per_user = limits.memory_per_user.map_or(total / 4 * 3, kopi_config::Size::bytes);
    log::info!("rings may take {}, those of one user {}", Bytes(total), Bytes(per_user));
    if total > left {
        log::warn!(
            "[limits] memory_total is {}, and kopid should not give more than {} of what its machine and cgroup have: applications \
             may be refused rings before that",
            Bytes(total),
            Bytes(left)
        );
    }
    (total, per_user)
}

/// Of the CPUs that are `online` those on which no worker runs.
fn other_cpus(config: &Config, online: &BTreeSet<u16>) -> Vec<u16> {
    let cores = config.dataplane.cores.cpus();
    online.iter().copied().filter(|cpu| !cores.contains(cpu)).collect()
}

/// Keeps the threads that there are before the workers, and those that they start, off the workers' CPUs if there are others.
fn keep_off_workers(config: &Config, online: &BTreeSet<u16>) -> std::io::Result<()> {
    let mut cpus = CpuSet::new();
    other_cpus(config, online).into_iter().for_each(|cpu| cpus.set(cpu.into()));
    if cpus.count() == 0 {
        return Ok(());
    }
    for task in std::fs::read_dir("/proc/self/task")? {
        let thread = task?.file_name().to_str().and_then(|tid| tid.parse().ok()).and_then(Pid::from_raw);
        if let Err(errno) = sched_setaffinity(thread, &cpus) {
            log::warn!("a thread of kopid's takes time from the workers: it cannot be kept off their CPUs ({errno})");
        }
    }
    Ok(())
}

/// The policy in `path`, with its warnings in the log.
fn read_policy(path: &PathBuf) -> Result<Policy, kopi_config::Errors> {
    let policy = Policy::read(path)?;
    policy.warnings.iter().chain(&unknown_names(&policy)).for_each(|warning| log::warn!("{warning}"));
    Ok(policy)
}

/// The event loop's state.
struct Events<'a> {
    poller: Poller,
    wake: Wake,
    plane: ControlPlane,
    attach: Attach,
    control: Control,
    hangup: Hangup,
    host: Option<Host>,
    device: &'a mut WireDevice,
    pool: &'a Pool,
    since: Instant,
    ticked: Instant,
    next_refresh: Instant,
    hz: u64,
}

impl Events<'_> {
    fn run(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let (mut next_tick, mut stops) = (Instant::now() + TICK, false);
        loop {
            let until_tick = next_tick.saturating_duration_since(Instant::now());
            let awaits = self.plane.awaits_replies() || self.attach.owes_replies() || self.control.awaits_replies();
            let timeout = if awaits { REPLY_PERIOD.min(until_tick) } else { until_tick };
            let timeout = self.plane.until_published().map_or(timeout, |until| until.min(timeout));
            let timeout = if self.control.is_due() { Duration::ZERO } else { timeout };
            for token in self.poller.wait(timeout)? {
                match token {
                    Token::Signal => stops |= self.handle_signals(signals),
                    token => self.handle(token),
                }
            }
            if stops {
                return Ok(());
            }
            let faults = self.plane.handle_replies();
            if let Some((_, fault)) = faults.iter().find(|(id, _)| Some(*id) == self.plane.host()) {
                return Err(DaemonError::HostGone(format!("the rings of the host port are broken: {fault}")));
            }
            self.attach.detach_ports(faults, &mut self.plane);
            self.plane.publish();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick()?;
            }
            self.attach.answer(&mut self.plane);
            self.attach.sweep(&self.poller);
            self.serve();
            self.control.reply_in_force(|snapshot| self.plane.uses(snapshot));
        }
    }

    fn handle(&mut self, token: Token) {
        let Self { poller, plane, attach, control, hangup, wake, .. } = self;
        match token {
            Token::Signal => {}
            Token::AppListener => attach.accept(plane, poller),
            Token::ControlListener => {
                let users = plane.users();
                control.accept(|uid| users.of(uid), plane.peers_mut(), poller);
            }
            Token::Peers => {
                let detached = attach.receive(plane, poller);
                attach.detach_ports(detached, plane);
            }
            Token::Helpers => {
                wake.clear();
                attach.take_names(plane);
                plane.take_host_sockets();
                let detached = plane.refresh();
                attach.detach_ports(detached, plane);
                if let Some((read, who)) = hangup.take() {
                    reload(read, &who, plane, attach);
                }
            }
            Token::Exit(at) => attach.detach(at, DetachReason::Ended, plane),
            Token::Operators => control.receive(),
            Token::Captures => plane.reap_captures(),
            Token::Regions => attach.take_regions(plane),
            // Whose hole it was is found out before the next event is waited for.
            Token::Hole => Region::hush_holes(),
        }
    }

    /// Answers one operator. Others and applications have their turn before the next.
    fn serve(&mut self) {
        let Self { plane, attach, control, host, device, .. } = self;
        let (since, hz, pool) = (self.since, self.hz, self.pool);
        control.serve(|question| {
            let facts = Facts {
                uptime_seconds: since.elapsed().as_secs(),
                tsc_hz: hz,
                device: device.stats(),
                mbufs: (pool.mbufs(), pool.available()),
                connections: attach.connections(),
                host: host.as_ref().map(Host::facts),
            };
            stats::answer(question, plane, attach, &facts)
        });
    }

    /// Handles the signals that have come. Returns whether kopid is to end.
    fn handle_signals(&mut self, signals: &mut Signals) -> bool {
        let mut stops = false;
        for request in signals.take() {
            match request {
                SignalRequest::Reload(sender) => self.hang_up(sender),
                SignalRequest::Stop(sender) => {
                    // Without the name of the user: a name service would have to be waited for.
                    let uid = sender.map_or_else(|| "the kernel".to_owned(), |sender| format!("uid {}", sender.uid));
                    let pid =
                        sender.and_then(|sender| sender.pid).map(|pid| format!(", pid {pid}")).unwrap_or_default();
                    log::info!("stopping: {uid}{pid} has sent SIGTERM or SIGINT");
                    stops = true;
                }
            }
        }
        stops
    }

    /// Has the configured policy read again, after a SIGHUP of `sender`.
    fn hang_up(&mut self, sender: Option<Operator>) {
        if self.plane.policy().path().is_none() {
            log::info!("SIGHUP: there is no `policy` in kopid.toml to read again; kopid.toml itself needs a restart");
        } else if let Err(error) = self.hangup.read(sender) {
            log::error!("SIGHUP: the policy in force stays: {error}");
        }
    }

    fn tick(&mut self) -> Result<(), DaemonError> {
        let passed = self.ticked.elapsed();
        self.ticked = Instant::now();
        self.plane.grant(passed);
        self.attach.tick(passed, &mut self.plane, &self.poller);
        self.control.tick(passed, &self.poller);
        self.attach.detach_ports(self.plane.holes(), &mut self.plane);
        self.plane.peers_mut().sweep();
        self.plane.show_drops();
        self.plane.reap_captures();
        let detached = self.plane.tick(dpdk::tsc(), self.hz);
        if Instant::now() >= self.next_refresh {
            self.next_refresh = Instant::now() + REFRESH_PERIOD;
            self.plane.check_accounts();
            self.attach.look(&mut self.plane);
            self.plane.read_host_sockets();
        }
        self.attach.detach_ports(detached, &mut self.plane);
        self.device.tick(&self.plane.dataplane().totals(WIRE), self.plane.dataplane().finished());
        let link = self.device.link();
        if !self.plane.set_link(link) {
            self.device.log_reason(link);
        } else {
            self.device.log_link(link);
            // The workers first, so that nobody counts on a link that they do not know of.
            self.plane.publish_now();
            self.attach.send_link(link, &mut self.plane);
        }
        if let Some(host) = &mut self.host {
            host.tick(link.up).map_err(DaemonError::HostGone)?;
        }
        if self.plane.dataplane().is_alive() { Ok(()) } else { Err(DaemonError::WorkerGone) }
    }
}

/// Puts the policy that was read after a SIGHUP of `who` in force. Whatever is wrong with it, the one in force stays.
fn reload(read: Result<Reload, String>, who: &str, plane: &mut ControlPlane, attach: &mut Attach) {
    let outcome = read.and_then(|reload| {
        // Who has sent a signal can only be told by the log.
        reload.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        stats::put_in_force(&reload, None, who, plane, attach)
    });
    if let Err(error) = outcome {
        log::error!("{who}: the policy in force stays: {error}");
    }
}

/// Allows as many file descriptors as the administrator lets us have: an app takes three, a silent peer two, and the usual
/// soft limit of 1,024 is for programs that use `select`, see `select(2)`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::debug!("the limit on file descriptors stays: {errno}");
    }
}

/// The arguments of EAL. Memory comes from huge pages without any file system mounted, or from ordinary pages.
fn eal_args(config: &Config, online: &BTreeSet<u16>) -> Vec<String> {
    let cores = config.dataplane.cores.cpus();
    let others: Vec<String> = other_cpus(config, online).iter().map(u16::to_string).collect();
    let all: Vec<String> = online.iter().map(u16::to_string).collect();
    // The control thread keeps off the workers' CPUs, if there are any others.
    let control = if others.is_empty() { all } else { others };
    let mut args = vec![format!("--lcores=0@({})", control.join(",")), "--file-prefix=kopid".to_owned()];
    let mbufs = u64::from(config.dataplane.mbufs) * cores.len() as u64;
    let need = mbufs * (u64::from(frame_room(&config.wire)) + MBUF_OVERHEAD) + DPDK_MEMORY;
    let huge = match config.memory.huge_pages {
        HugePages::Off => false,
        HugePages::Require => true,
        HugePages::Auto => free_huge_memory() >= need,
    };
    if huge {
        args.push("--in-memory".into());
    } else {
        if config.memory.huge_pages == HugePages::Auto {
            log::warn!(
                "{} MiB of free huge pages are too few for {} MiB of packet buffers: using 4 KiB pages, which is \
                 slower. `sysctl vm.nr_hugepages` or `dpdk-hugepages.py --setup` makes more",
                free_huge_memory() >> 20,
                need >> 20
            );
        }
        args.push("--no-huge".into());
        args.push(format!("-m{}", need >> 20));
    }
    match &config.wire.device {
        Device::Pci { .. } => args.push(format!("-a{}", config.wire.device.devargs())),
        Device::Virtual { .. } => args.push("--no-pci".into()),
    }
    args.extend(config.eal.args.iter().cloned());
    args
}

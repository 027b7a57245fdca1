//! The daemon: start and end. Between them its event loop (`event_loop.rs`) runs.

mod eal_args;
mod event_loop;

use crate::capture::Captures;
use crate::control::attach::Attach;
use crate::control::copy_trial::CopyTrial;
use crate::control::flow_sizes::FlowSizes;
use crate::control::helper::Wake;
use crate::control::limits::Limits;
use crate::control::listener::{ListenError, Listener};
use crate::control::logging::Queued;
use crate::control::memory::free_huge_memory;
use crate::control::metrics::{MetricsListener, MetricsServer};
use crate::control::plane::ControlPlane;
use crate::control::policy::Enforcement;
use crate::control::poller::{Poller, Token};
use crate::control::reload::{Hangup, PolicySource};
use crate::control::server::Control;
use crate::control::signals::Signals;
use crate::control::wire_device::{WireDevice, WireState, frame_room, kept_buffers, sleeps};
use crate::control::workers::{Dataplane, Setup, StartError, random_seed};
use crate::host::{Host, HostError};
use crate::worker::flow_table::Advise;
use dpdk::{DpdkError, Eal, Pool, PoolConfig};
use eal_args::{check_args, eal_args, other_cpus};
use event_loop::Events;
use kopi_config::check::{check_machine, unknown_names};
use kopi_config::{Config, HugePages, Policy};
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

/// Timeout for apps to take their last message.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
/// Packet buffers that a thread may keep to itself: DPDK's maximum.
const POOL_CACHE: u32 = 512;

/// Why the daemon could not start or go on.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration or the policy has errors, or names what this machine does not have.
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
    dpdk::heap::give_back();
    check_machine(config)?;
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
             cost workers time until then; nor may apps share memory. Let kopid have it: Linux 4.14, and a filter of system calls that \
             allows it"
        ),
    }
    let mut queued = None;
    let outcome = serve(config, &eal, &online, &mut signals, &mut queued);
    match eal.close() {
        // The memory goes with this process.
        Err(DpdkError::BuffersOut(missing)) if missing <= kept_buffers(&config.wire, config.dataplane.cores.len()) => {
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
fn serve(
    config: &Config,
    eal: &Eal,
    online: &BTreeSet<u16>,
    signals: &mut Signals,
    queued: &mut Option<Queued>,
) -> Result<(), DaemonError> {
    let started = Started::new(config, eal, online)?;
    let Started { mut device, pool, wake, mut plane } = started;
    let host = match &config.host {
        None => None,
        Some(host) => Some(Host::start(host, &mut plane)?),
    };
    let poller = Poller::new()?;
    poller.add(&*signals, Token::Signal)?;
    let outcome = Listener::bind(&config.socket, SocketType::SEQPACKET).and_then(|apps| {
        let control = Listener::bind(&config.control, SocketType::STREAM)?;
        Ok((apps, control, MetricsListener::bind(&config.metrics)?))
    });
    let (apps, control, metrics) = match outcome {
        Ok(listeners) => listeners,
        Err(error) => {
            drop(host);
            drop(plane);
            return Err(error.into());
        }
    };
    wait_for_threads(&poller, &plane)?;
    poller.add(&wake, Token::Helpers)?;
    let attach = Attach::new(apps, plane.limits().requests_per_user, wake.clone(), &poller)?;
    let source = Arc::new(PolicySource::new(config.policy.clone()));
    let control = Control::new(control, Arc::clone(&source), &poller)?;
    let hangup = Hangup::new(source, wake.clone());
    let metrics = MetricsServer::start(metrics, &config.metrics, || control.asker())?;
    log::info!(
        "ready: wire {} ({}), {} worker(s), apps at {}",
        plane.wire().device,
        plane.wire().driver,
        plane.dataplane().workers(),
        config.socket.path.display()
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
        next_refresh: Instant::now() + event_loop::REFRESH_PERIOD,
        hz: eal.tsc_hz(),
    };
    // From now on no thread waits for the reader of the log.
    *queued = Some(Queued::begin()?);
    let outcome = events.run(signals);
    let Events { mut attach, mut plane, control, host, .. } = events;
    drop(control);
    drop(metrics);
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

/// Has what other threads of kopid's, and the kernel, have to say about apps waited for.
fn wait_for_threads(poller: &Poller, plane: &ControlPlane) -> Result<(), rustix::io::Errno> {
    poller.add(plane.captures().wake(), Token::Captures)?;
    poller.add(plane.regions().done(), Token::Regions)?;
    if let Some(event) = plane.region_ends() {
        poller.add(event, Token::Regions)?;
    }
    if let Some(event) = Region::hole_event() {
        poller.add(event, Token::Hole)?;
    }
    poller.add(plane.peers().events(), Token::Peers)
}

/// Everything that runs before the first socket opens.
struct Started {
    device: WireDevice,
    pool: Pool,
    wake: Wake,
    plane: ControlPlane,
}

impl Started {
    fn new(config: &Config, eal: &Eal, online: &BTreeSet<u16>) -> Result<Self, DaemonError> {
        let wire = &config.wire;
        let wire_error = |error| DaemonError::Wire { device: wire.device.devargs().to_owned(), error };
        let cores = &config.dataplane.cores;
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
        let FlowSizes { flows, connections } = FlowSizes::new(config);
        let advise: Advise = match config.memory.huge_pages {
            HugePages::Off => |_, _| (),
            HugePages::Auto | HugePages::Require => kopi_ring::prefer_huge_pages,
        };
        let limits = Limits::new(config, connections);
        let policy = config.policy.as_ref().map(read_policy).transpose()?;
        let tracking = policy.as_ref().map(|policy| policy.tracking).unwrap_or_default();
        let policy = Enforcement::new(config.policy.clone(), policy).map_err(DaemonError::Policy)?;
        let connections = Connections::advised(connections, random_seed()?, &tracking, eal.tsc_hz(), advise);
        let connections = Arc::new(connections);
        let dataplane = Dataplane::start(
            eal,
            Setup {
                cores: cores.to_vec(),
                flows,
                advise,
                apps: limits.apps + usize::from(config.host.is_some()),
                pool: pool.clone(),
                sleep: sleeps(config).then(|| device.irqs(&rx)),
                finish: device.is_virtual(),
                rx,
                tx,
                snapshot: ControlPlane::empty_snapshot(link, wire.mtu),
                connections: Arc::clone(&connections),
                copies: CopyTrial::run(cores.first().copied().unwrap_or(0), online, cores),
            },
        )?;
        let wake = Wake::new()?;
        let captures = Captures::new(eal.tsc_hz())?;
        let plane = ControlPlane::new(dataplane, wire_state, limits, policy, connections, captures, &wake)?;
        Ok(Self { device, pool, wake, plane })
    }
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

/// Allows as many file descriptors as the administrator lets us have: an app takes three, a silent peer two, and the usual
/// soft limit of 1,024 is for programs that use `select`, see `select(2)`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::debug!("the limit on file descriptors stays: {errno}");
    }
}

//! The host port: the kernel's port on the wire.
//!
//! An app inside kopid. It has a region of rings as every app has, and workers serve it as they serve every app, so policy,
//! capture and counters know it as the app `host`. Its other side is a thread of kopid's, the [`TapThread`], which moves
//! frames between these rings and a TAP interface. Workers make no system call for it.
//!
//! - [`Host`], on the control thread: makes the interface, follows the wire's link, makes it again when it was deleted;
//! - [`tap_thread`]: the thread; [`tap_rx`]: frames from the kernel; [`tap_tx`]: frames to it;
//! - [`host_sockets`]: addresses and ports of the kernel; [`netdev`]: its interface under a virtual wire.

pub mod host_sockets;
pub mod netdev;
pub mod tap_rx;
pub mod tap_thread;
pub mod tap_tx;

use crate::control::plane::{ControlPlane, SetupError};
use crate::control::ports::{HOST_NAME, Refusal};
use crate::worker::counters::Counter;
use dpdk::{TapConfig, TapDevice, TapError};
use kopi_packet::MacAddr;
use kopi_ring::layout::DEFAULT_SLOT;
use kopi_ring::message::Mac;
use kopi_ring::{Doorbell, Geometry, Region, RegionError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tap_thread::{Doorbells, TapCommand, TapThread};
use thiserror::Error;

/// Slots in a ring from the kernel, of which one large segment takes 45, and in one to it: the thread may sleep for a
/// millisecond, or wait for a CPU, while frames arrive.
const TX_RING: u32 = 1024;
const RX_RING: u32 = 4096;
/// Addresses of others that the log tells of.
const FOREIGN_MACS: usize = 16;
/// Time before an interface that was deleted is made again.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no host port.
#[derive(Debug, Error)]
pub enum HostError {
    /// The interface could not be made.
    #[error("`tap` in [host]: {0}")]
    Tap(#[from] TapError),
    /// It gets no port.
    #[error("[host]: {0}")]
    Port(#[from] Refusal),
    /// It gets no rings.
    #[error("[host]: {0}")]
    Rings(#[from] SetupError),
    /// Its rings cannot be used.
    #[error("[host]: {0}")]
    Region(#[from] RegionError),
    /// Its thread could not be made.
    #[error("no thread for the host port: {0}")]
    Thread(#[from] std::io::Error),
    /// File descriptors are short.
    #[error("[host]: {0}")]
    Descriptors(std::io::Error),
}

/// What the thread counts, and tells. Written by its thread alone.
#[derive(Debug, Default)]
pub struct HostCounters {
    /// Reads and writes of frames: a large segment is one.
    pub from_kernel: Counter,
    /// The same, towards the kernel.
    pub to_kernel: Counter,
    /// Frames that the kernel did not take because it has no room.
    pub tap_full: Counter,
    /// Frames that the kernel did not take because the interface is set down or gone.
    pub tap_down: Counter,
    /// Frames that the kernel did not take for another reason.
    pub tap_refused: Counter,
    /// Frames of the kernel's whose header does not fit them.
    pub bad_offload: Counter,
    /// Frames that came by the interface from an address which is not the port's.
    pub foreign_mac: Counter,
    /// The last of these addresses that nobody has been told of, as a number; 0 if there is none.
    pub new_foreign_mac: AtomicU64,
    /// The interface is gone.
    pub gone: AtomicBool,
}

/// The interface is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The host port, as the control thread has it. Its thread ends with it.
#[derive(Debug)]
pub struct Host {
    config: TapConfig,
    tap: Option<TapDevice>,
    carrier: bool,
    retry: Instant,
    /// Addresses of others that the log has told of.
    foreign_macs: Vec<MacAddr>,
    counters: Arc<HostCounters>,
    commands: Sender<TapCommand>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Makes the interface, gives it a port, and starts its thread.
    ///
    /// # Errors
    ///
    /// [`HostError`]; those about the interface name what would help.
    ///
    /// # Panics
    ///
    /// If the configuration lets queues through that rings cannot have.
    pub fn start(config: &kopi_config::Host, plane: &mut ControlPlane) -> Result<Self, HostError> {
        let others: Vec<Mac> = config.macs.iter().map(|mac| mac.bytes()).collect();
        let (id, mac) = plane.admit_host(&config.tap, &others)?;
        let macs: Arc<[Mac]> = [&[mac], &*others].concat().into();
        let mtu = plane.wire().mtu;
        let config = TapConfig { name: config.tap.clone(), queues: config.queues, mac, mtu, offload: config.offload };
        let (tap, files) = TapDevice::open(&config)?;
        let limit = plane.limits().ring;
        let rings = |slots: u32| vec![slots.min(limit); config.queues.into()];
        // Sizes and a number that the configuration has checked.
        let geometry = Geometry::new(&rings(TX_RING), &rings(RX_RING), DEFAULT_SLOT);
        let geometry = geometry.expect("the host port's rings are within limits");
        let (doorbell, call) = Doorbell::pair().map_err(|errno| HostError::Descriptors(errno.into()))?;
        plane.setup_host(id, &geometry, call)?;
        let doorbells = Doorbells { worker: plane.take_doorbell(id).map(Arc::new), own: doorbell };
        let fd = plane.app(id).and_then(|app| app.region.as_ref()).map(|region| region.fd().try_clone_to_owned());
        let fd = fd.ok_or(SetupError::Gone)?.map_err(HostError::Descriptors)?;
        // The other side of the rings, mapped as an app would.
        let region = Region::open(fd, &geometry)?;
        let counters = Arc::new(HostCounters::default());
        let (commands, command_queue) = channel();
        let mut thread =
            TapThread::new(&region, files, config.offload, doorbells, command_queue, (Arc::clone(&counters), macs));
        let thread = std::thread::Builder::new().name("kopi-host".to_owned()).spawn(move || thread.run())?;
        log::info!("the kernel's port is `{}`, port {id} `{HOST_NAME}`", config.name);
        let (carrier, retry, foreign_macs) = (false, Instant::now(), Vec::new());
        Ok(Self { config, tap: Some(tap), carrier, retry, foreign_macs, counters, commands, thread: Some(thread) })
    }

    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// For `status`. A large segment counts as one frame.
    #[must_use]
    pub fn status(&self) -> kopi_api::status::Host {
        kopi_api::status::Host {
            tap: self.config.name.clone(),
            state: if self.tap.is_some() { "running" } else { "gone" }.to_owned(),
            from_kernel: self.counters.from_kernel.get(),
            to_kernel: self.counters.to_kernel.get(),
        }
    }

    /// Frames that were lost between rings and kernel, with their reasons. The first is what the kernel counts itself, since
    /// nobody took frames from its interface while the rings were full.
    #[must_use]
    pub fn lost(&self) -> [(&'static str, u64); 6] {
        let HostCounters { tap_full, tap_down, tap_refused, bad_offload, foreign_mac, .. } = &*self.counters;
        [
            ("tap_queue_full", host_sockets::tx_dropped(self.name())),
            ("tap_full", tap_full.get()),
            ("tap_down", tap_down.get()),
            ("tap_refused", tap_refused.get()),
            ("bad_offload", bad_offload.get()),
            ("foreign_mac", foreign_mac.get()),
        ]
    }

    /// Called now and then: has the interface's link follow that of the wire, and makes the interface again if it was deleted.
    ///
    /// # Errors
    ///
    /// A text for people if the thread has ended, which it does not by itself.
    pub fn tick(&mut self, link_up: bool) -> Result<(), String> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err("the host port's thread has ended; see the lines above".to_owned());
        }
        if self.tap.is_some() && self.counters.gone.load(Relaxed) {
            self.tap = None;
            self.retry = Instant::now();
            log::error!("the interface `{}` was deleted: the kernel has no port until it is made again", self.name());
        }
        self.log_foreign_mac();
        if self.tap.is_none() && Instant::now() >= self.retry {
            self.reopen();
        }
        if let Some(tap) = self.tap.as_ref().filter(|_| self.carrier != link_up) {
            match tap.set_carrier(link_up) {
                Ok(()) => self.carrier = link_up,
                Err(error) => log::debug!("the carrier of `{}`: {error}", self.name()),
            }
        }
        Ok(())
    }

    /// Says once of each address, up to some, that nothing from there passes.
    fn log_foreign_mac(&mut self) {
        if self.counters.new_foreign_mac.load(Relaxed) == 0 || self.foreign_macs.len() >= FOREIGN_MACS {
            return;
        }
        let mac = MacAddr::from_u64(self.counters.new_foreign_mac.swap(0, Relaxed));
        if self.foreign_macs.contains(&mac) {
            return;
        }
        self.foreign_macs.push(mac);
        let (tap, own) = (self.name(), MacAddr::new(self.config.mac));
        log::warn!(
            "frames from {mac} come by `{tap}`, whose address is {own}: they are dropped as `foreign_mac`. If somebody stands \
             behind it, name that address in `macs` of [host]; if it is that of `{tap}`, give it back its own"
        );
    }

    fn reopen(&mut self) {
        self.retry = Instant::now() + RETRY;
        match TapDevice::open(&self.config) {
            Ok((tap, files)) => {
                self.counters.gone.store(false, Relaxed);
                (self.tap, self.carrier) = (Some(tap), false);
                // If nobody receives it, the next tick says that the thread is gone.
                let _sent = self.commands.send(TapCommand::Tap(files));
                log::warn!("the interface `{}` is there again; its addresses and routes are not", self.name());
            }
            Err(error) => log::debug!("the kernel's port is not made again: {error}"),
        }
    }
}

impl Drop for Host {
    /// Ends the thread, and with it the last user of the rings' other side.
    fn drop(&mut self) {
        let _sent = self.commands.send(TapCommand::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the host port's thread had panicked");
        }
    }
}

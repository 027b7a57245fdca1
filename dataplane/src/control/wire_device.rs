//! The wire's device, as the control thread has it: how it is set up, what it cannot do, and what becomes of it.

use crate::host::netdev::Netdev;
use crate::worker::counters::PortTotals;
use crate::worker::sleep::WireIrq;
use dpdk::{Carrier, DpdkError, Eal, Pool, Port, PortConfig, PortInfo, RxQueue, Stats, TxQueue};
use kopi_config::{Config, Idle, Wire};
use kopi_ring::DropReason;
use kopi_ring::layout::L2_OVERHEAD;
use kopi_ring::message::{Link, Mac};

/// The driver that sits on single queues of an interface.
const AF_XDP: &str = "net_af_xdp";
/// The driver that reads packet sockets.
const AF_PACKET: &str = "net_af_packet";
/// Drivers whose sockets' losses are counted here. Others read those numbers themselves.
const COUNTED: [&str; 2] = [AF_PACKET, AF_XDP];
/// The driver that reads only after a signal, which another thread of this process may take its time to handle.
const TAP: &str = "net_tap";
/// Smallest room for a frame: what NICs expect of a buffer.
const FRAME_ROOM: u16 = 2048;

/// What is known about the wire.
#[derive(Clone, Debug)]
pub struct WireState {
    /// The device as configured.
    pub device: String,
    /// Name of its driver.
    pub driver: String,
    /// Its own MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its link.
    pub link: Link,
}

/// The wire's device.
#[derive(Debug)]
pub struct WireDevice {
    port: Port,
    info: PortInfo,
    /// As configured.
    device: String,
    mtu: u16,
    netdev: Option<Netdev>,
    logged: Logged,
}

/// What the log has said already.
#[derive(Clone, Copy, Debug, Default)]
struct Logged {
    finished: bool,
    oversize: bool,
    /// How the interface was when the log last had the link.
    carrier: Option<Carrier>,
}

impl WireDevice {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// DPDK's.
    pub fn open(eal: &Eal, wire: &Wire) -> Result<Self, DpdkError> {
        let port = Port::by_devargs(eal, wire.devargs())?;
        let info = port.info()?;
        let device = wire.device.devargs().to_owned();
        let netdev = Netdev::under(&device);
        Ok(Self { port, info, device, mtu: wire.mtu, netdev, logged: Logged::default() })
    }

    /// Sets it up and starts it, with a pair of queues for each of `workers`, or as many as it has. The log says what it cannot do.
    ///
    /// # Errors
    ///
    /// DPDK's.
    pub fn start(
        &mut self,
        config: &Config,
        workers: u16,
        pool: &Pool,
    ) -> Result<(Vec<RxQueue>, Vec<TxQueue>), DpdkError> {
        let (wire, info) = (&config.wire, &self.info);
        let setup = PortConfig {
            rx_queues: workers.min(info.max_rx_queues),
            tx_queues: workers.min(info.max_tx_queues),
            rx_ring: wire.rx_ring,
            tx_ring: wire.tx_ring,
            mtu: self.mtu_to_set(),
            rss: workers > 1,
            lsc: false,
            rx_interrupts: false,
            // The apps' addresses are not the device's own.
            promiscuous: true,
            one_pool: true,
            checksums: false,
        };
        let queues = start(&mut self.port, setup, pool, sleeps(config))?;
        self.log_limits(queues.0.len());
        Ok(queues)
    }

    /// The MTU that the device is told. DPDK's `net_af_packet` claims 1,500 at most and yet carries what fits its ring (22.11,
    /// `drivers/net/af_packet`): there the interface is told here.
    fn mtu_to_set(&self) -> Option<u16> {
        let mtu = self.mtu;
        if mtu <= self.info.max_mtu || self.info.driver != AF_PACKET {
            return Some(mtu);
        }
        let interface = self.netdev.as_ref().and_then(Netdev::interface)?;
        if interface.mtu().is_ok_and(|has| has < mtu.into())
            && let Err(error) = interface.set_mtu(mtu)
        {
            log::warn!(
                "[wire] mtu is {mtu}, and the interface under {} does not take it ({error}): longer frames than it has are lost",
                self.device
            );
        }
        None
    }

    /// Says what the driver cannot do, as far as frames are lost or changed by it.
    fn log_limits(&mut self, queues: usize) {
        let Self { info, device, netdev: Some(netdev), .. } = self else { return };
        let (driver, name) = (info.driver.as_str(), netdev.name());
        let has = netdev.interface().and_then(dpdk::Interface::rx_queues).unwrap_or(0);
        if driver == AF_XDP && has as usize > queues {
            log::warn!(
                "the wire {device} takes {queues} of the interface's {has} receive queues, and frames in the others go to the kernel: \
                 leave it as many with `ethtool -L`, or take more with queue_count="
            );
        }
        match netdev.listen() {
            Ok(found) if found == queues || !COUNTED.contains(&driver) => {}
            found => log::warn!(
                "the sockets of the wire {device} were not found or do not listen ({found:?}): frames that this kernel sends on `{name}` \
                 come back as received, and what the sockets lose is counted nowhere"
            ),
        }
        if driver == AF_XDP && netdev.interface().is_some_and(dpdk::Interface::strips_tags) {
            log::warn!(
                "{AF_XDP} on `{name}`: VLAN tags that a card takes off, or that a kernel at the other end leaves to its card, are lost, and \
                 the frames come without. Where there are VLANs: `ethtool -K {name} rxvlan off` here, and `ethtool -K INTERFACE txvlan \
                 off` at the other end of a veth pair"
            );
        }
        if driver == AF_PACKET {
            log::warn!(
                "{AF_PACKET} on `{name}`: the kernel puts IPv4 fragments together before kopid gets them, and what is longer than the \
                 MTU then is dropped as `oversize`; an outer tag of 802.1ad comes as one of 802.1Q. \
                 With `device = \"{AF_XDP}0,iface={name}\"` both come as they were sent"
            );
            if netdev.interface().is_some_and(dpdk::Interface::merges) {
                log::warn!(
                    "the interface `{name}` merges received frames into longer ones, which are dropped as `oversize`: turn that off \
                     with `ethtool -K {name} gro off lro off`"
                );
            }
        }
    }

    /// NUMA node that it is attached to, if it has one.
    #[must_use]
    pub const fn socket(&self) -> Option<u16> {
        self.info.socket
    }

    /// Name of its driver.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.info.driver
    }

    /// Its own MAC address.
    ///
    /// # Errors
    ///
    /// DPDK's.
    pub fn mac(&self) -> Result<Mac, DpdkError> {
        self.port.mac()
    }

    /// Whether a kernel at the other end may leave checksums to a NIC that there is not.
    #[must_use]
    pub const fn is_virtual(&self) -> bool {
        self.netdev.is_some()
    }

    /// What wakes workers that sleep for frames in each of the RX queues.
    #[must_use]
    pub fn irqs(&self, rx: &[RxQueue]) -> Vec<Option<WireIrq>> {
        let irq = if self.info.driver == TAP { WireIrq::Level } else { WireIrq::Edge };
        let interrupts: Vec<_> = rx.iter().map(|rx| rx.interrupt().map(irq)).collect();
        if self.netdev.is_none() || interrupts.iter().all(Option::is_some) {
            return interrupts;
        }
        match Netdev::sockets() {
            Ok(sockets) if sockets.len() == rx.len() => {
                sockets.into_iter().map(|socket| Some(WireIrq::Edge(socket))).collect()
            }
            found => {
                let found = found.map(|sockets| sockets.len());
                log::info!(
                    "the wire's sockets were not found ({found:?}): sleeping workers look at it every two milliseconds"
                );
                interrupts
            }
        }
    }

    /// Its link; a device that cannot tell any more counts as down, and so does one whose interface is.
    #[must_use]
    pub fn link(&self) -> Link {
        match self.port.link() {
            Ok(link) => {
                let up = link.up && self.carrier().is_none_or(|carrier| carrier == Carrier::Up);
                Link { up, speed: link.speed_mbps.unwrap_or(0) }
            }
            Err(error) => {
                log::debug!("no link state: {error}");
                Link { up: false, speed: 0 }
            }
        }
    }

    fn carrier(&self) -> Option<Carrier> {
        self.netdev.as_ref().map(Netdev::carrier)
    }

    /// Says in the log why its link is down, if that is not what was said last: an interface that was set down may be deleted.
    pub fn log_reason(&mut self, link: Link) {
        if !link.up && self.logged.carrier != self.carrier() {
            self.log_link(link);
        }
    }

    /// Says in the log how its link is.
    pub fn log_link(&mut self, link: Link) {
        self.logged.carrier = self.carrier();
        let name = || self.netdev.as_ref().map(Netdev::name).unwrap_or_default();
        match (link.up, self.logged.carrier) {
            (true, _) => log::warn!("the wire's link is up"),
            (false, None | Some(Carrier::Up)) => log::warn!("the wire's link is down"),
            (false, Some(Carrier::SetDown)) => {
                log::warn!("the wire's link is down: the interface `{0}` is set down; `ip link set {0} up`", name());
            }
            (false, Some(Carrier::Lost)) => {
                log::warn!("the wire's link is down: the interface `{}` has no carrier", name());
            }
            (false, Some(Carrier::Gone)) => log::warn!(
                "the wire's link is down: the interface `{}` is not there any more; for another one of that name, start kopid again",
                name()
            ),
        }
    }

    /// Its own counters.
    pub fn stats(&mut self) -> Stats {
        let mut stats = self.port.stats().unwrap_or_default();
        if let Some(netdev) = self.netdev.as_mut().filter(|_| COUNTED.contains(&self.info.driver.as_str())) {
            stats.rx_missed += netdev.lost();
        }
        stats
    }

    /// Called now and then with what was counted on the wire, and how many checksums were finished there: says once what is wrong at
    /// the other end of a virtual wire, and takes in what the kernel has counted.
    pub fn tick(&mut self, totals: &PortTotals, finished: u64) {
        let Self { netdev: Some(netdev), logged, device, mtu, info, .. } = self else { return };
        if COUNTED.contains(&info.driver.as_str()) {
            netdev.lost();
        }
        if finished > 0 && !std::mem::replace(&mut logged.finished, true) {
            log::info!(
                "frames with unfinished checksums come by the wire {device}, from a kernel that leaves them to its card: kopid \
                 finishes them. `ethtool -K INTERFACE tx off` at the other end saves it the work"
            );
        }
        let oversize = totals.drops.get(DropReason::Oversize.index()).is_some_and(|frames| *frames > 0);
        if oversize && !std::mem::replace(&mut logged.oversize, true) {
            log::warn!(
                "frames longer than the MTU of {mtu} come by the wire {device} and are dropped as `oversize`. Where a kernel at the other \
                 end leaves cutting them to its card: `ethtool -K INTERFACE tso off gso off` there; where they are merged on this \
                 side: `ethtool -K {} gro off lro off`; or its MTU is larger",
                netdev.name()
            );
        }
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// DPDK's: one of its queues is in use.
    pub fn stop(&mut self) -> Result<(), DpdkError> {
        self.port.stop()
    }
}

/// Whether workers sleep at times.
pub(crate) fn sleeps(config: &Config) -> bool {
    config.dataplane.idle == Idle::Adaptive
}

/// Starts the port, with receive interrupts where workers sleep and the device has them.
fn start(
    port: &mut Port,
    setup: PortConfig,
    pool: &Pool,
    sleeps: bool,
) -> Result<(Vec<RxQueue>, Vec<TxQueue>), DpdkError> {
    let pools = std::slice::from_ref(pool);
    if sleeps {
        let setup = PortConfig { rx_interrupts: true, ..setup };
        match port.configure(&setup, pools).and_then(|()| port.start()) {
            Ok(queues) => return Ok(queues),
            Err(error) => {
                log::info!("the wire has no receive interrupts ({error}): workers look at it every two milliseconds")
            }
        }
    }
    port.configure(&setup, pools)?;
    port.start()
}

/// Bytes that a packet buffer has for a frame.
#[must_use]
pub(crate) fn frame_room(wire: &Wire) -> u16 {
    let room = wire.mtu.saturating_add(L2_OVERHEAD).max(FRAME_ROOM).next_multiple_of(64);
    // That driver counts all of a place in its ring as a frame's.
    let place = wire.packet_ring.as_ref().map_or(0, |ring| ring.buffer().next_multiple_of(64));
    room.max(u16::try_from(place).unwrap_or(u16::MAX))
}

/// Packet buffers that the driver of `wire` with at most `queues` queues may not give back when its port is closed.
///
/// # Source
///
/// `net_af_xdp` of DPDK 22.11 frees none that are in the rings of a queue (`drivers/net/af_xdp/rte_eth_af_xdp.c`, `eth_dev_close`). In the
/// fill ring, at the kernel and in the receive ring there are as many as `xsk_configure` has put into the fill ring: `af_xdp_rx_zc` puts
/// one there for each that it takes. The transmit ring has as many places as the receive ring (`cfg.tx_size = ring_size`). Frames that it
/// has given to the kernel are in the completion ring or have a place reserved there (`xsk_generic_xmit` in Linux,
/// `net/xdp/xsk.c`), and that ring is as large as the fill ring was filled (`comp_size` in `xdp_umem_configure`).
pub(crate) fn kept_buffers(wire: &Wire, queues: usize) -> u64 {
    /// Its `ETH_AF_XDP_DFLT_NUM_DESCS`.
    const RING: u64 = 2048;
    let is_af_xdp = wire.device.devargs().starts_with(AF_XDP);
    if is_af_xdp { queues as u64 * (RING + u64::from(wire.rx_ring) + RING) } else { 0 }
}

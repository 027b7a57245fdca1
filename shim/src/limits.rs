//! What a port can do. Every number here is one that the driver keeps to.

use crate::devargs::Args;
use crate::port_state::{MAX_UNICAST, PortState};
use crate::sys;
use kopi_ring::layout::{L2_OVERHEAD, MAX_MTU, MAX_QUEUES, MAX_RING, MIN_RING};
use kopi_ring::message::{RETA_SIZE, RSS_KEY_SIZE};

/// Slots of a ring unless the application asks for another number. Measured (`bench/results`, question `size`): 512 cost a
/// tenth more for 1,518 bytes, where the cores are near and where they are far, and no size matters for 64.
const DEFAULT_RING: u16 = 1024;
/// The burst that applications are advised to use, the daemon's own.
const BURST: u16 = 32;
/// Smallest MTU: the minimum of IPv4 (RFC 791, 3.2).
const MIN_MTU: u16 = 68;
/// Smallest buffer for received frames, in bytes without headroom.
const MIN_BUFFER: u32 = 64;

/// RX offloads: frames spread over several buffers, the flow hash that the daemon has computed, and what the driver does to frames.
pub(crate) const RX_OFFLOADS: u64 =
    sys::RTE_ETH_RX_OFFLOAD_SCATTER | sys::RTE_ETH_RX_OFFLOAD_RSS_HASH | crate::rx::offloads::OFFLOADS;
/// TX offloads: packets of several segments, and buffers that are given back without being looked at; and what is done to packets that
/// ask for it, see [`crate::tx`].
pub(crate) const TX_OFFLOADS: u64 = sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS
    | sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE
    | sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM
    | sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM
    | sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM
    | sys::RTE_ETH_TX_OFFLOAD_SCTP_CKSUM
    | sys::RTE_ETH_TX_OFFLOAD_TCP_TSO
    | sys::RTE_ETH_TX_OFFLOAD_VLAN_INSERT
    | sys::RTE_ETH_TX_OFFLOAD_QINQ_INSERT;
/// Fewest slots of a TX ring with segmentation, if the daemon allows as many: a packet of 64 KiB fits in frames with 256 bytes of payload
/// each. TCP's default is 536 (RFC 9293, 3.7.1).
const TSO_RING: u16 = 256;

/// What the RSS hash may be over.
pub(crate) const RSS_TYPES: u64 =
    sys::RTE_ETH_RSS_IP | sys::RTE_ETH_RSS_TCP | sys::RTE_ETH_RSS_UDP | sys::RTE_ETH_RSS_SCTP;

/// The packet types that the daemon finds, ended by `RTE_PTYPE_UNKNOWN`.
pub(crate) static PTYPES: [u32; 15] = [
    sys::RTE_PTYPE_L2_ETHER,
    sys::RTE_PTYPE_L2_ETHER_ARP,
    sys::RTE_PTYPE_L2_ETHER_VLAN,
    sys::RTE_PTYPE_L2_ETHER_QINQ,
    sys::RTE_PTYPE_L3_IPV4,
    sys::RTE_PTYPE_L3_IPV4_EXT,
    sys::RTE_PTYPE_L3_IPV6,
    sys::RTE_PTYPE_L3_IPV6_EXT,
    sys::RTE_PTYPE_L4_TCP,
    sys::RTE_PTYPE_L4_UDP,
    sys::RTE_PTYPE_L4_SCTP,
    sys::RTE_PTYPE_L4_ICMP,
    sys::RTE_PTYPE_L4_FRAG,
    sys::RTE_PTYPE_L4_NONFRAG,
    0,
];

/// The longest frame for an MTU, in bytes.
pub(crate) fn frame_for(mtu: u16) -> u32 {
    u32::from(mtu).saturating_add(L2_OVERHEAD.into())
}

/// The bounds of a port. While there is no daemon, those of the last one hold, or the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) queues: u16,
    pub(crate) ring: u16,
    pub(crate) mtu: u16,
    speed: u32,
}

impl Limits {
    /// The bounds of the port in `state`.
    pub(crate) fn of(state: &PortState, args: &Args) -> Self {
        let most = u16::try_from(MAX_QUEUES).unwrap_or(1);
        let Some(welcome) = &state.welcome else {
            return Self::of_queues(args.queues.min(most));
        };
        Self {
            queues: args.queues.min(most).min(welcome.max_queues).max(1),
            ring: ring_limit(welcome.max_ring),
            mtu: welcome.max_mtu.clamp(MIN_MTU, MAX_MTU),
            speed: state.wire.speed,
        }
    }

    /// The bounds of a port of which only the number of queues is known.
    pub(crate) fn of_queues(queues: u16) -> Self {
        Self { queues, ring: ring_limit(MAX_RING), mtu: MAX_MTU, speed: 0 }
    }

    /// Writes the bounds where ethdev wants them.
    pub(crate) fn describe(&self, info: &mut sys::rte_eth_dev_info) {
        info.min_mtu = MIN_MTU;
        info.max_mtu = self.mtu;
        info.min_rx_bufsize = MIN_BUFFER;
        info.max_rx_pktlen = frame_for(self.mtu);
        info.max_rx_queues = self.queues;
        info.max_tx_queues = self.queues;
        info.max_mac_addrs = u32::try_from(MAX_UNICAST).unwrap_or(1);
        info.rx_offload_capa = RX_OFFLOADS;
        info.rx_queue_offload_capa = RX_OFFLOADS;
        info.tx_offload_capa = TX_OFFLOADS;
        info.tx_queue_offload_capa = TX_OFFLOADS;
        info.flow_type_rss_offloads = RSS_TYPES;
        info.hash_key_size = u8::try_from(RSS_KEY_SIZE).unwrap_or(0);
        info.reta_size = u16::try_from(RETA_SIZE).unwrap_or(0);
        sys::describe_toeplitz(info);
        for limit in [&mut info.rx_desc_lim, &mut info.tx_desc_lim] {
            limit.nb_min = u16::try_from(MIN_RING).unwrap_or(1);
            limit.nb_max = self.ring;
            limit.nb_align = 1;
            limit.nb_seg_max = u16::MAX;
            limit.nb_mtu_seg_max = u16::MAX;
        }
        for port in [&mut info.default_rxportconf, &mut info.default_txportconf] {
            port.burst_size = BURST;
            port.ring_size = DEFAULT_RING.min(self.ring);
            port.nb_queues = 1;
        }
        info.speed_capa = speed_capability(self.speed);
    }

    /// The ring that the application gets for `descriptors`: the next power of two.
    pub(crate) fn ring_for(&self, descriptors: u16) -> u16 {
        let least = u16::try_from(MIN_RING).unwrap_or(1);
        descriptors.checked_next_power_of_two().unwrap_or(u16::MAX).clamp(least, self.ring)
    }

    /// The same for a TX queue with these offloads.
    pub(crate) fn tx_ring_for(&self, descriptors: u16, offloads: u64) -> u16 {
        let segments = offloads & sys::RTE_ETH_TX_OFFLOAD_TCP_TSO != 0;
        self.ring_for(if segments { descriptors.max(TSO_RING) } else { descriptors })
    }
}

/// The largest power of two that is no more than `slots`, within the protocol's limits.
fn ring_limit(slots: u32) -> u16 {
    let slots = slots.clamp(MIN_RING, MAX_RING);
    let power = 1_u32.checked_shl(slots.ilog2()).unwrap_or(MIN_RING);
    u16::try_from(power).unwrap_or(u16::MAX)
}

/// ethdev's bit for a speed in Mbit/s, or 0 if it is unknown.
const fn speed_capability(mbps: u32) -> u32 {
    match mbps {
        1_000 => sys::RTE_ETH_LINK_SPEED_1G,
        10_000 => sys::RTE_ETH_LINK_SPEED_10G,
        25_000 => sys::RTE_ETH_LINK_SPEED_25G,
        40_000 => sys::RTE_ETH_LINK_SPEED_40G,
        50_000 => sys::RTE_ETH_LINK_SPEED_50G,
        100_000 => sys::RTE_ETH_LINK_SPEED_100G,
        200_000 => sys::RTE_ETH_LINK_SPEED_200G,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring size is rounded up to a power of two, and never leaves the limits.
    #[test]
    fn ring_sizes_are_rounded_up() {
        let limits = Limits { queues: 1, ring: 1024, mtu: 1500, speed: 0 };
        for (asked, given) in [(1, 64), (64, 64), (65, 128), (500, 512), (512, 512), (1000, 1024), (u16::MAX, 1024)] {
            assert_eq!(
                (limits.ring_for(asked), limits.tx_ring_for(asked, !sys::RTE_ETH_TX_OFFLOAD_TCP_TSO)),
                (given, given)
            );
            assert_eq!(limits.tx_ring_for(asked, sys::RTE_ETH_TX_OFFLOAD_TCP_TSO), given.max(256));
        }
        let small = Limits { ring: 128, ..limits };
        assert_eq!(small.tx_ring_for(64, sys::RTE_ETH_TX_OFFLOAD_TCP_TSO), 128, "the daemon's limit");
    }

    /// A daemon's limit that is no power of two is rounded down, whatever it says.
    #[test]
    fn daemons_ring_limit_is_rounded_down() {
        for (said, limit) in [(0, 64), (63, 64), (100, 64), (1000, 512), (4096, 4096), (u32::MAX, 8192)] {
            assert_eq!(ring_limit(said), limit);
        }
    }
}

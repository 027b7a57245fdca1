//! The packet buffer, with the same field names under every release of DPDK.

use core::ffi::c_void;
use core::mem::offset_of;

use crate::{rte_mbuf_ext_shared_info, rte_mempool};

/// One segment of a packet: two cache lines of description. The data lies at `buf_addr + data_off`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct rte_mbuf {
    /// Begin of the buffer, headroom included.
    pub buf_addr: *mut c_void,
    /// The same as the device sees it.
    pub buf_iova: u64,
    /// Bytes from `buf_addr` to the data.
    pub data_off: u16,
    /// References to this buffer. Where it can be above one, use `kopi_mbuf_refcnt_*`, which are atomic.
    pub refcnt: u16,
    /// Segments of the packet. Only valid in its first segment.
    pub nb_segs: u16,
    /// Port that the packet came from.
    pub port: u16,
    /// `RTE_MBUF_F_*`.
    pub ol_flags: u64,
    /// `RTE_PTYPE_*`.
    pub packet_type: u32,
    /// Bytes of the whole packet. Only valid in its first segment.
    pub pkt_len: u32,
    /// Bytes in this segment.
    pub data_len: u16,
    /// VLAN tag that was taken off, or that is to be put in.
    pub vlan_tci: u16,
    /// The union `hash`: the RSS hash in its first word after reception, free for the application afterwards.
    pub hash: [u32; 2],
    /// Outer VLAN tag.
    pub vlan_tci_outer: u16,
    /// Bytes of the buffer, headroom included.
    pub buf_len: u16,
    /// Where the segment goes when it is freed.
    pub pool: *mut rte_mempool,
    /// Next segment of the packet; null in the last. Begin of the second cache line.
    pub next: *mut rte_mbuf,
    /// Lengths of headers for offloads on transmission.
    pub tx_offload: u64,
    /// What is shared between the segments that use one external buffer.
    pub shinfo: *mut rte_mbuf_ext_shared_info,
    /// Bytes of application data between this structure and the buffer.
    pub priv_size: u16,
    /// IEEE 1588 flags.
    pub timesync: u16,
    /// Given out by `rte_mbuf_dynfield_register`.
    pub dynfield1: [u32; 9],
}

/// Asserts that each field lies where the installed headers have it.
macro_rules! assert_layout {
    ($($field:ident == $offset:ident),+ $(,)?) => {
        $(const _: () = assert!(offset_of!(rte_mbuf, $field) == crate::$offset as usize);)+
    };
}

const _: () = assert!(size_of::<rte_mbuf>() == 128 && crate::KOPI_MBUF_SIZE == 128);
const _: () = assert!(align_of::<rte_mbuf>() == crate::KOPI_MBUF_ALIGN as usize);
assert_layout!(
    buf_addr == KOPI_OFFSET_buf_addr,
    buf_iova == KOPI_OFFSET_buf_iova,
    data_off == KOPI_OFFSET_data_off,
    refcnt == KOPI_OFFSET_refcnt,
    nb_segs == KOPI_OFFSET_nb_segs,
    port == KOPI_OFFSET_port,
    ol_flags == KOPI_OFFSET_ol_flags,
    packet_type == KOPI_OFFSET_packet_type,
    pkt_len == KOPI_OFFSET_pkt_len,
    data_len == KOPI_OFFSET_data_len,
    vlan_tci == KOPI_OFFSET_vlan_tci,
    hash == KOPI_OFFSET_hash,
    vlan_tci_outer == KOPI_OFFSET_vlan_tci_outer,
    buf_len == KOPI_OFFSET_buf_len,
    pool == KOPI_OFFSET_pool,
    next == KOPI_OFFSET_next,
    tx_offload == KOPI_OFFSET_tx_offload,
    shinfo == KOPI_OFFSET_shinfo,
    priv_size == KOPI_OFFSET_priv_size,
    timesync == KOPI_OFFSET_timesync,
    dynfield1 == KOPI_OFFSET_dynfield1,
);

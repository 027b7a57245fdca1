//! What a NIC does to the frames that it receives, and the driver in its place: checksums, VLAN tags, timestamps.
//!
//! All of it is done to the application's own copy of a frame, while that is near: so what is said of a frame is said of the bytes
//! that the application gets.

use crate::mbuf_cache::{AsCopied, Finish};
use crate::sys;
use crate::sys::rte_mbuf;
use kopi_packet::verify::{Verdict, Verified, Wanted, good_tcp_or_udp, raw_sum, verify, verify_long, verify_short};
use kopi_ring::layout::{MAX_FRAME, Notes};
use kopi_ring::{Consumer, SumRoutine};
use std::ffi::c_int;
use std::ops::RangeInclusive;

/// The offloads that are about checksums.
const CHECKSUMS: u64 = sys::RTE_ETH_RX_OFFLOAD_IPV4_CKSUM
    | sys::RTE_ETH_RX_OFFLOAD_TCP_CKSUM
    | sys::RTE_ETH_RX_OFFLOAD_UDP_CKSUM
    | sys::RTE_ETH_RX_OFFLOAD_SCTP_CKSUM;
/// All that is done here.
pub(crate) const OFFLOADS: u64 = CHECKSUMS | sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP | sys::RTE_ETH_RX_OFFLOAD_TIMESTAMP;

/// Bytes of a VLAN tag.
const TAG: u16 = 4;
/// The L2 nibble of a packet type.
const L2_MASK: u32 = 0xf;

/// What one queue does to its frames.
#[derive(Debug)]
pub(crate) struct RxOffloads {
    wanted: Wanted,
    /// How frames are summed up, if any of their checksums is asked for.
    routine: Option<SumRoutine>,
    timestamp: Option<Timestamp>,
    /// The flags of frames of UDP and TCP over IPv4 whose checksums are good.
    good: [u64; 2],
    /// Whether VLAN tags are stripped in this burst.
    strip: bool,
    /// Whether nothing but checksums is asked for in this burst.
    only_sums: bool,
    /// The clock at the begin of this burst.
    now: u64,
    /// Where a frame that lies in several buffers is put together to be summed up; nothing if that is never asked for.
    whole: Box<[u8]>,
}

/// Where an mbuf has its timestamp, and the flag that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp {
    offset: usize,
    flag: u64,
}

impl Timestamp {
    /// The place that DPDK has for it in all mbufs of the process.
    ///
    /// # Errors
    ///
    /// An errno of DPDK's, if there is no room left in mbufs.
    pub(crate) fn register() -> Result<Self, c_int> {
        let (mut offset, mut flag) = (0, 0);
        // SAFETY: two places of ours to write to.
        if unsafe { sys::rte_mbuf_dyn_rx_timestamp_register(&raw mut offset, &raw mut flag) } != 0 {
            return Err(libc::ENOSPC);
        }
        let offset = usize::try_from(offset).map_err(|_| libc::ENOSPC)?;
        let fits = offset.is_multiple_of(8) && offset.saturating_add(8) <= size_of::<rte_mbuf>();
        if fits { Ok(Self { offset, flag }) } else { Err(libc::ENOSPC) }
    }

    #[inline]
    fn put(self, mbuf: &mut rte_mbuf, now: u64) {
        let at = std::ptr::from_mut(mbuf).wrapping_byte_add(self.offset).cast::<u64>();
        // SAFETY: eight bytes inside the mbuf, aligned as that is, as `register` has checked; numbers, which may be anything.
        unsafe { at.write(now) };
    }
}

impl RxOffloads {
    /// Does what `offloads` asks for. `timestamp` is there if they ask for one.
    pub(crate) fn new(offloads: u64, timestamp: Option<Timestamp>) -> Self {
        let has = |offload| offloads & offload != 0;
        let wanted = Wanted {
            ipv4: has(sys::RTE_ETH_RX_OFFLOAD_IPV4_CKSUM),
            tcp: has(sys::RTE_ETH_RX_OFFLOAD_TCP_CKSUM),
            udp: has(sys::RTE_ETH_RX_OFFLOAD_UDP_CKSUM),
            sctp: has(sys::RTE_ETH_RX_OFFLOAD_SCTP_CKSUM),
        };
        let sums = has(CHECKSUMS);
        let whole = vec![0; if sums { MAX_FRAME as usize } else { 0 }];
        let routine = sums.then(SumRoutine::detect);
        let verdict = |asked| if asked { Verdict::Good } else { Verdict::Unknown };
        let good =
            [wanted.udp, wanted.tcp].map(|l4| flags_of(Verified { ipv4: verdict(wanted.ipv4), l4: verdict(l4) }));
        Self { wanted, routine, timestamp, good, strip: false, only_sums: false, now: 0, whole: whole.into() }
    }

    /// Whether there is anything to do, if VLAN tags are stripped or not.
    pub(crate) const fn any(&self, strip: bool) -> bool {
        strip || self.routine.is_some() || self.timestamp.is_some()
    }

    /// Begins a burst.
    #[inline]
    pub(crate) fn begin(&mut self, strip: bool) {
        self.strip = strip;
        self.only_sums = self.routine.is_some() && !strip && self.timestamp.is_none();
        if self.timestamp.is_some() {
            self.now = clock();
        }
    }

    /// Does what there is to do to a packet whose frame begins with `head`, all of it that lies in its first buffer.
    #[inline]
    fn finish(&self, mbuf: &mut rte_mbuf, head: &mut [u8], verified: Verified) {
        let mut flags = flags_of(verified);
        if self.strip
            && let Some(tci) = strip(head)
        {
            flags |= sys::RTE_MBUF_F_RX_VLAN | sys::RTE_MBUF_F_RX_VLAN_STRIPPED;
            mbuf.vlan_tci = tci;
            mbuf.data_off = mbuf.data_off.wrapping_add(TAG);
            mbuf.data_len = mbuf.data_len.wrapping_sub(TAG);
            mbuf.pkt_len = mbuf.pkt_len.wrapping_sub(TAG.into());
            mbuf.packet_type = stripped(mbuf.packet_type);
        }
        if let Some(timestamp) = self.timestamp {
            timestamp.put(mbuf, self.now);
            flags |= timestamp.flag;
        }
        mbuf.ol_flags |= flags;
    }

    /// The same for one whose frame lies in one buffer, and has this sum. Apart, for its registers would be missing in the loop that
    /// calls it.
    #[inline(never)]
    fn finish_plain(&self, mbuf: &mut rte_mbuf, frame: &mut [u8], sum: u64) {
        if self.only_sums
            && let Some(tcp) = good_tcp_or_udp(frame, sum)
        {
            let [udp_flags, tcp_flags] = self.good;
            mbuf.ol_flags |= if tcp { tcp_flags } else { udp_flags };
        } else {
            self.finish_short(mbuf, frame, sum);
        }
    }

    /// The same for frames with a wrong checksum, or where more is asked for.
    #[inline(never)]
    fn finish_short(&self, mbuf: &mut rte_mbuf, frame: &mut [u8], sum: u64) {
        let sums = self.routine.is_some();
        match if sums { verify_short(frame, sum, self.wanted) } else { Some(Verified::default()) } {
            Some(verified) => self.finish(mbuf, frame, verified),
            None => self.finish_long(mbuf, frame, sum),
        }
    }

    /// The same where a look at more than the start of the frame is needed. Apart, so that most frames save no registers.
    #[inline(never)]
    fn finish_long(&self, mbuf: &mut rte_mbuf, frame: &mut [u8], sum: u64) {
        let verified = verify_long(frame, sum, self.wanted);
        self.finish(mbuf, frame, verified);
    }
}

impl Finish for RxOffloads {
    #[inline]
    unsafe fn take_run<'a>(
        &mut self,
        ring: &mut Consumer,
        most: usize,
        lens: RangeInclusive<u16>,
        place: impl FnMut(u16, Notes) -> Option<(*mut rte_mbuf, &'a mut [u8])>,
    ) -> usize {
        if !self.any(self.strip) {
            // Here for flow rules alone, which are applied to whole bursts.
            // SAFETY: by the caller's word.
            return unsafe { AsCopied.take_run(ring, most, lens, place) };
        }
        ring.take_run_summed(most, lens, self.routine, place, |mbuf, frame, sum| {
            // SAFETY: the caller's own buffer, as it says.
            self.finish_plain(unsafe { &mut *mbuf }, frame, sum);
        })
    }

    unsafe fn finish_odd(&mut self, packet: *mut rte_mbuf) {
        let verified = if self.routine.is_some() {
            // SAFETY: by the caller's word.
            unsafe { self.verify_odd(packet) }
        } else {
            Verified::default()
        };
        // SAFETY: by the caller's word, and nothing refers to it now.
        let head = unsafe { data(packet) };
        // SAFETY: by the caller's word; its data lies elsewhere.
        self.finish(unsafe { &mut *packet }, head, verified);
    }
}

impl RxOffloads {
    /// Verifies a packet of any number of buffers.
    ///
    /// # Safety
    ///
    /// `packet` is a well-formed packet, which is the caller's alone.
    unsafe fn verify_odd(&mut self, packet: *mut rte_mbuf) -> Verified {
        // SAFETY: by the caller's word.
        let frame = unsafe { data(packet) };
        // SAFETY: by the caller's word.
        let mut next = unsafe { (*packet).next };
        if next.is_null() {
            return verify(frame, raw_sum(frame), self.wanted);
        }
        let mut len = fill(&mut self.whole, 0, frame);
        while !next.is_null() {
            // SAFETY: a further buffer of the packet.
            len = fill(&mut self.whole, len, unsafe { data(next) });
            // SAFETY: as above.
            next = unsafe { (*next).next };
        }
        let whole = self.whole.get(..len).unwrap_or_default();
        verify(whole, raw_sum(whole), self.wanted)
    }
}

/// Copies `part` to offset `at` of `whole`, as far as there is room, and returns where it ends.
fn fill(whole: &mut [u8], at: usize, part: &[u8]) -> usize {
    let room = whole.get_mut(at..).unwrap_or_default();
    let len = room.len().min(part.len());
    room.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
    at.saturating_add(len)
}

/// The bytes in one buffer of a packet.
///
/// # Safety
///
/// `mbuf` is valid, and its bytes are the caller's alone for as long as the result lives.
unsafe fn data<'a>(mbuf: *mut rte_mbuf) -> &'a mut [u8] {
    // SAFETY: valid, by the caller's word.
    let mbuf = unsafe { &*mbuf };
    let begin = mbuf.buf_addr.cast::<u8>().wrapping_add(mbuf.data_off.into());
    // SAFETY: the bytes of a valid buffer, by the caller's word.
    unsafe { std::slice::from_raw_parts_mut(begin, mbuf.data_len.into()) }
}

/// Moves the addresses over the first tag, if that is one of IEEE 802.1Q, and returns what stood in it.
///
/// Tags of other types stay: they are a provider's, as are all that stand in front of them.
#[inline]
fn strip(frame: &mut [u8]) -> Option<u16> {
    let header = frame.first_chunk_mut::<18>()?;
    let [.., 0x81, 0x00, t0, t1, _, _] = *header else { return None };
    header.copy_within(..12, TAG.into());
    Some(u16::from_be_bytes([t0, t1]))
}

/// The packet type of what is left when the first tag is gone.
const fn stripped(packet_type: u32) -> u32 {
    let l2 = match packet_type & L2_MASK {
        sys::RTE_PTYPE_L2_ETHER_QINQ => sys::RTE_PTYPE_L2_ETHER_VLAN,
        sys::RTE_PTYPE_L2_ETHER_VLAN => sys::RTE_PTYPE_L2_ETHER,
        // ARP, whatever stands before it; or the daemon was of another mind.
        other => other,
    };
    packet_type & !L2_MASK | l2
}

/// How ethdev puts what was found: what is absent is neither right nor wrong (`RTE_MBUF_F_RX_L4_CKSUM_NONE`), as `net_tap` says of it, too.
#[inline]
const fn flags_of(verified: Verified) -> u64 {
    let (mut flags, Verified { ipv4, l4 }) = (0, verified);
    if matches!(ipv4, Verdict::Good) {
        flags |= sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    }
    if matches!(ipv4, Verdict::Bad) {
        flags |= sys::RTE_MBUF_F_RX_IP_CKSUM_BAD;
    }
    if matches!(l4, Verdict::Good | Verdict::Absent) {
        flags |= sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    }
    if matches!(l4, Verdict::Bad | Verdict::Absent) {
        flags |= sys::RTE_MBUF_F_RX_L4_CKSUM_BAD;
    }
    flags
}

/// The clock of timestamps: the processor's, which `rte_rdtsc` of DPDK reads.
#[inline]
pub(crate) fn clock() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let now: u64;
        // SAFETY: a register that Linux lets programs read.
        unsafe {
            std::arch::asm!("mrs {now}, cntvct_el0", now = out(reg) now, options(nomem, nostack, preserves_flags))
        };
        now
    }
}

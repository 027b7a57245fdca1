//! The kernel's side of the sockets that drivers have opened on an interface: what they are to leave out, and what they have lost.
//!
//! `net_af_packet` of DPDK 22.11 receives what its own kernel sends on the interface, and counts nothing that its ring had no room for.
//! `net_af_xdp` counts what found no buffer, and not what found no room in its ring.
//!
//! # Source
//!
//! packet(7); Linux, `Documentation/networking/af_xdp.rst`, `Documentation/networking/filter.rst` and `include/uapi/linux/filter.h`.

use crate::interface::check;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Where a filter finds a frame's `sll_pkttype`: `SKF_AD_OFF + SKF_AD_PKTTYPE`.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// Load a word from a fixed place; compare with a number; end with a number (`BPF_LD | BPF_W | BPF_ABS` and so on).
const LOAD: u16 = 0x20;
const IS_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A packet socket.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// A socket of AF_XDP.
#[derive(Debug)]
pub struct XdpSocket(OwnedFd);

/// `tpacket_stats`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Statistics {
    packets: libc::c_uint,
    drops: libc::c_uint,
}

impl PacketSocket {
    /// Takes a packet socket.
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Has it leave out what this kernel sends on the interface.
    ///
    /// By a filter, since for sockets of a fan-out, as those of `net_af_packet`, `PACKET_IGNORE_OUTGOING` has no effect.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn leave_out_own(&self) -> io::Result<()> {
        let outgoing = u32::from(libc::PACKET_OUTGOING);
        let mut program = [
            libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: PACKET_TYPE },
            libc::sock_filter { code: IS_EQUAL, jt: 0, jf: 1, k: outgoing },
            libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: u32::MAX },
        ];
        let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        // SAFETY: the kernel reads a `sock_fprog` and copies the four instructions that it points to.
        check(unsafe {
            libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const filter).cast(), size_of(&filter))
        })
    }

    /// Frames that it had no room for since this was last asked.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn take_lost(&self) -> io::Result<u32> {
        let mut statistics = Statistics::default();
        let mut size = size_of(&statistics);
        let (fd, place) = (self.0.as_raw_fd(), (&raw mut statistics).cast());
        // SAFETY: the kernel writes a `tpacket_stats`, or as much of it as `size` says.
        check(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, place, &raw mut size) })?;
        Ok(statistics.drops)
    }
}

impl XdpSocket {
    /// Takes a socket of AF_XDP.
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Frames that found no room in its ring since it was opened. Before Linux 5.9 the kernel does not tell.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn lost(&self) -> io::Result<u64> {
        // SAFETY: a structure of numbers, which may be zero.
        let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        let mut size = size_of(&statistics);
        let (fd, place) = (self.0.as_raw_fd(), (&raw mut statistics).cast());
        // SAFETY: the kernel writes an `xdp_statistics`, or as much of it as it has and `size` says.
        check(unsafe { libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_STATISTICS, place, &raw mut size) })?;
        Ok(statistics.rx_ring_full)
    }
}

fn size_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}

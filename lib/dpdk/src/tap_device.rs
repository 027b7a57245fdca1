//! A TAP interface of the kernel: the NIC that the kernel sees, whose other end is a file.
//!
//! It stands beside DPDK's devices because it is one more of the daemon's ends to the outside, and because making it takes
//! `ioctl`, which has no safe form: [`TapDevice::open`] and the setters are all of it. Frames are moved by ordinary reads and
//! writes of the files that it gives out, each with a header of ten bytes before it (virtio 1.2, 5.1.6, without
//! `num_buffers`).
//!
//! # Source
//!
//! Linux, `Documentation/networking/tuntap.rst` and `include/uapi/linux/if_tun.h`; netdevice(7).

use crate::interface::{check, request};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use thiserror::Error;

/// Where TAP interfaces come from.
const MAKER: &str = "/dev/net/tun";
/// `IFF_TUN_EXCL`: an error if there is such an interface already.
const EXCLUSIVE: u16 = 0x8000;
/// `TUN_F_TSO6`.
const TSO6: libc::c_uint = 0x04;

/// What a TAP interface is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Its name.
    pub name: String,
    /// Its queues, at least one.
    pub queues: u16,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Whether the kernel may leave checksums and TCP segmentation to the other end.
    pub offload: bool,
}

/// Why there is no TAP interface.
#[derive(Debug, Error)]
#[error("{step} of `{name}`: {error}{}", help(.step, .error))]
pub struct TapError {
    /// What was tried.
    pub step: &'static str,
    /// The interface.
    pub name: String,
    /// What the kernel said.
    pub error: io::Error,
}

/// What would help against an error of the kernel's.
fn help(step: &str, error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; it takes the capability CAP_NET_ADMIN",
        Some(libc::EBUSY) => "; there is an interface of that name already: delete it, or choose another name",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) if step == OPENING => {
            "; the kernel's module `tun` is not there"
        }
        _ => "",
    }
}

const OPENING: &str = "opening /dev/net/tun for the interface";

/// A TAP interface. It goes with the last of its files.
#[derive(Debug)]
pub struct TapDevice {
    name: String,
    first: OwnedFd,
    /// Any socket: the kernel takes requests about interfaces through each.
    socket: UnixDatagram,
}

impl TapDevice {
    /// Makes the interface, without a carrier and set up, and returns it with a file for each of its queues. The files do
    /// not block.
    ///
    /// # Errors
    ///
    /// [`TapError`], with what would help: there is an interface of that name, the right is missing, or the kernel has no
    /// TAP interfaces.
    pub fn open(config: &TapConfig) -> Result<(Self, Vec<OwnedFd>), TapError> {
        let name = config.name.clone();
        let failed = |step| {
            let name = config.name.clone();
            move |error| TapError { step, name, error }
        };
        let mut files = Vec::new();
        for queue in 0..config.queues.max(1) {
            let file = open_maker().map_err(failed(OPENING))?;
            let exclusive = if queue == 0 { EXCLUSIVE } else { 0 };
            attach(&file, &name, exclusive).map_err(failed("the making"))?;
            set_offload(&file, config.offload).map_err(failed("setting the offloads"))?;
            files.push(OwnedFd::from(file));
        }
        let first = files.first().map(OwnedFd::try_clone).unwrap_or_else(|| Err(io::Error::other("no queue")));
        let first = first.map_err(failed("keeping a file"))?;
        let socket = UnixDatagram::unbound().map_err(failed("opening a socket for the set-up"))?;
        let tap = Self { name, first, socket };
        tap.set_carrier(false).map_err(failed("taking the carrier away"))?;
        tap.set_mac(config.mac).map_err(failed("setting the MAC address"))?;
        tap.set_mtu(config.mtu).map_err(failed("setting the MTU"))?;
        tap.set_up().map_err(failed("setting up"))?;
        Ok((tap, files))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says whether there is a carrier: whether the NIC's link is up.
    ///
    /// # Errors
    ///
    /// The kernel's: `EBADFD` if the interface was deleted.
    pub fn set_carrier(&self, up: bool) -> io::Result<()> {
        let on = libc::c_int::from(up);
        // SAFETY: TUNSETCARRIER reads one `int`, which `on` is.
        check(unsafe { libc::ioctl(self.first.as_raw_fd(), libc::TUNSETCARRIER, &raw const on) })
    }

    fn set_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (to, from) in address.sa_data.iter_mut().zip(mac) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let mut request = request(&self.name)?;
        request.ifr_ifru.ifru_hwaddr = address;
        // SAFETY: SIOCSIFHWADDR reads an `ifreq`, of which the address is filled in.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFHWADDR, &raw const request) })
    }

    fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut request = request(&self.name)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        // SAFETY: SIOCSIFMTU reads an `ifreq`, of which the MTU is filled in.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) })
    }

    fn set_up(&self) -> io::Result<()> {
        let mut request = request(&self.name)?;
        let flags = libc::IFF_UP | libc::IFF_MULTICAST;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(0);
        // SAFETY: SIOCSIFFLAGS reads an `ifreq`, of which the flags are filled in.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
    }
}

fn open_maker() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(MAKER)
}

/// Makes `file` one queue of the TAP interface `name`.
fn attach(file: &File, name: &str, exclusive: u16) -> io::Result<()> {
    let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let flags = u16::try_from(kind).unwrap_or(0) | exclusive;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, of which name and flags are filled in.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// What the kernel may leave to us. It segments by itself what has CWR set, since that is not among it.
fn set_offload(file: &File, on: bool) -> io::Result<()> {
    let flags = if on { libc::TUN_F_CSUM | libc::TUN_F_TSO4 | TSO6 } else { 0 };
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error says which key's value it is about and what would help.
    #[test]
    fn errors_say_what_would_help() {
        let of =
            |step, code| TapError { step, name: "kopi0".into(), error: io::Error::from_raw_os_error(code) }.to_string();
        assert!(of("the making", libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(of("the making", libc::EBUSY).contains("`kopi0`") && of("the making", libc::EBUSY).contains("already"));
        assert!(of(OPENING, libc::ENOENT).contains("module `tun`"));
        assert!(!of("setting the MTU", libc::ENOENT).contains("module"));
    }
}

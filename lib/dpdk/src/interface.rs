//! An interface of the kernel's, as one finds it by its name.
//!
//! `net_af_packet` and `net_af_xdp` sit on one, and do not say what becomes of it. What is asked here is asked through a socket of
//! this process, so it is about this process's network namespace; `/sys` may be another one's, or missing.
//!
//! # Source
//!
//! netdevice(7); Linux, `include/uapi/linux/ethtool.h` and `include/uapi/linux/sockios.h`.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// `ETHTOOL_GLINK`, `ETHTOOL_GFLAGS`, `ETHTOOL_GGRO`, `ETHTOOL_GCHANNELS`: whether there is a link, whether frames are merged by the
/// NIC and by the kernel, and how many queues there are.
const GLINK: u32 = 0x0a;
const GFLAGS: u32 = 0x25;
const GGRO: u32 = 0x2b;
const GCHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN`, `ETH_FLAG_LRO`.
const STRIPS: u32 = 1 << 8;
const LRO: u32 = 1 << 15;

/// An interface, known by its number: one that gets another name is still the same.
#[derive(Debug)]
pub struct Interface {
    index: libc::c_int,
    /// Any socket: the kernel takes requests about interfaces through each.
    socket: UnixDatagram,
}

/// Whether an interface carries frames, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// It does.
    Up,
    /// It is set down.
    SetDown,
    /// It is set up, and nobody is at the other end.
    Lost,
    /// There is no such interface any more.
    Gone,
}

/// `ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Interface {
    /// The interface that has this name now.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENODEV` if there is none.
    pub fn named(name: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let mut request = request(name)?;
        // SAFETY: SIOCGIFINDEX reads the name of an `ifreq` and writes its number.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) })?;
        // SAFETY: the kernel has written this member.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(Self { index, socket })
    }

    /// Its name now.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENODEV` if it is gone.
    pub fn name(&self) -> io::Result<String> {
        let request = self.request()?;
        // SAFETY: the kernel has written a string that ends within the field.
        let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
        Ok(name.to_string_lossy().into_owned())
    }

    /// Whether it carries frames.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        let Ok(mut request) = self.request() else { return Carrier::Gone };
        // SAFETY: SIOCGIFFLAGS reads the name of an `ifreq` and writes its flags.
        if check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) }).is_err() {
            return Carrier::Gone;
        }
        // SAFETY: the kernel has written this member.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        // Not every driver tells of its link by itself. Then the kernel's own view counts, which comes a little later.
        let link = || self.value(GLINK).map_or(flags & libc::IFF_RUNNING != 0, |link| link != 0);
        match flags & libc::IFF_UP != 0 {
            false => Carrier::SetDown,
            true if link() => Carrier::Up,
            true => Carrier::Lost,
        }
    }

    /// Its MTU in bytes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request()?;
        // SAFETY: SIOCGIFMTU reads the name of an `ifreq` and writes its MTU.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
        // SAFETY: the kernel has written this member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u32::try_from(mtu).unwrap_or(0))
    }

    /// Gives it this MTU.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut request = self.request()?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        // SAFETY: SIOCSIFMTU reads an `ifreq`, of which the MTU is filled in.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) })
    }

    /// Receive queues that it uses, if its driver tells.
    #[must_use]
    pub fn rx_queues(&self) -> Option<u32> {
        let mut channels = Channels { command: GCHANNELS, ..Channels::default() };
        self.ethtool(&mut channels).ok()?;
        Some(channels.rx + channels.combined)
    }

    /// Whether received frames are merged into longer ones, by the kernel (GRO) or by the NIC (LRO).
    #[must_use]
    pub fn merges(&self) -> bool {
        self.value(GGRO).is_ok_and(|on| on != 0) || self.value(GFLAGS).is_ok_and(|flags| flags & LRO != 0)
    }

    /// Whether VLAN tags are taken off received frames, and kept beside them.
    #[must_use]
    pub fn strips_tags(&self) -> bool {
        self.value(GFLAGS).is_ok_and(|flags| flags & STRIPS != 0)
    }

    fn value(&self, command: u32) -> io::Result<u32> {
        let mut value = Value { command, data: 0 };
        self.ethtool(&mut value).map(|()| value.data)
    }

    /// Asks the interface's driver. `question` is the structure that belongs to the command in its first field.
    fn ethtool<T>(&self, question: &mut T) -> io::Result<()> {
        let mut request = self.request()?;
        request.ifr_ifru.ifru_data = std::ptr::from_mut(question).cast();
        // SAFETY: SIOCETHTOOL reads an `ifreq`, and reads and writes the structure that it points to; the two above have the fields
        // that `ethtool.h` gives them.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })
    }

    /// A request about it, by its present name.
    fn request(&self) -> io::Result<libc::ifreq> {
        // SAFETY: all zeros is a valid `ifreq`: an empty name and a union of plain numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = self.index;
        // SAFETY: SIOCGIFNAME reads the number of an `ifreq` and writes its name.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) })?;
        Ok(request)
    }
}

/// A request about the interface `name`, with nothing else filled in.
pub(crate) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros is a valid `ifreq`: an empty name and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that the kernel would cut short is refused before it is asked.
    #[test]
    fn names_fit_the_kernels_field() {
        assert!(request("fifteen-letters").is_ok());
        assert!(["", "sixteen-letters-", "a\0b"].iter().all(|name| request(name).is_err()));
    }

    /// The one interface that every namespace has is found by its name, and one that nobody has is not.
    #[test]
    fn interfaces_are_found_by_their_names() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!(lo.name().unwrap(), "lo");
        assert!(lo.mtu().unwrap() > 1500);
        assert_ne!(lo.carrier(), Carrier::Gone);
        assert_eq!(Interface::named("kopi-nobody").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    /// A number that no interface has belongs to one that is gone.
    #[test]
    fn an_interface_that_is_not_there_is_gone() {
        let gone = Interface { index: libc::c_int::MAX, socket: UnixDatagram::unbound().unwrap() };
        assert_eq!(gone.carrier(), Carrier::Gone);
        assert!(gone.name().is_err() && gone.mtu().is_err() && gone.rx_queues().is_none() && !gone.merges());
    }
}

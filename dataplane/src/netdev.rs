//! The kernel's interface under a virtual wire.
//!
//! `net_af_packet` and `net_af_xdp` sit on an interface of the kernel, and do not follow its link: DPDK 22.11's
//! `net_af_packet` says "up" even when the interface is gone. The kernel knows better.

use rustix::fd::{OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::fs;
use std::path::PathBuf;

/// The family of `net_af_xdp`'s sockets (`linux/socket.h`).
const AF_XDP: AddressFamily = AddressFamily::from_raw(44);

/// An interface that a wire sits on.
#[derive(Debug)]
pub struct Netdev {
    folder: PathBuf,
    /// The kernel's number for it when the wire was opened. One that was deleted and made again has another, and the
    /// driver's sockets do not follow.
    index: Option<String>,
}

/// Fails if `devargs` name an interface with `iface=` that is not there, as drivers do that take one for a wire. `net_tap` makes its own.
///
/// # Errors
///
/// A text for people.
pub fn check_interface(devargs: &str) -> Result<(), String> {
    let Some(name) = interface_of(devargs).filter(|_| !devargs.starts_with("net_tap")) else { return Ok(()) };
    let socket =
        rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(|errno| errno.to_string())?;
    match rustix::net::netdevice::name_to_index(&socket, name) {
        Err(Errno::NODEV) => {
            Err(format!("there is no interface `{name}` here; `ip link` lists those of this network namespace"))
        }
        // Whatever else is wrong with it, the driver will say.
        _ => Ok(()),
    }
}

/// The interface that `devargs` name.
fn interface_of(devargs: &str) -> Option<&str> {
    devargs.split(',').skip(1).find_map(|argument| argument.strip_prefix("iface="))
}

impl Netdev {
    /// The interface that `devargs` name with `iface=`, if they do.
    #[must_use]
    pub fn under(devargs: &str) -> Option<Self> {
        let name = interface_of(devargs)?;
        Some(Self::at(PathBuf::from("/sys/class/net").join(name)))
    }

    fn at(folder: PathBuf) -> Self {
        let index = fs::read_to_string(folder.join("ifindex")).ok();
        Self { folder, index }
    }

    /// The sockets through which this process sees the frames of such an interface, in the order in which they were opened: one
    /// for each pair of queues. `net_af_packet` and `net_af_xdp` give nobody access to theirs, so they are looked for among all
    /// descriptors of this process, which opens no others of these kinds.
    ///
    /// # Errors
    ///
    /// The kernel's, if it does not let this process look at itself.
    pub fn sockets() -> std::io::Result<Vec<OwnedFd>> {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        let names =
            fs::read_dir("/proc/self/fd")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut numbers: Vec<RawFd> = names.collect();
        numbers.sort_unstable();
        let copies = numbers.into_iter().filter_map(|fd| pidfd_getfd(&own, fd, PidfdGetfdFlags::empty()).ok());
        let of_wires = |fd: &OwnedFd| {
            sockopt::socket_domain(fd).is_ok_and(|family| [AddressFamily::PACKET, AF_XDP].contains(&family))
        };
        // A copy may have got the number that the folder had, and would be found twice.
        let mut seen = Vec::new();
        let is_new = |fd: &OwnedFd| {
            let inode = rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino);
            let new = !seen.contains(&inode);
            seen.push(inode);
            new
        };
        Ok(copies.filter(of_wires).filter(is_new).collect())
    }

    /// Receive queues that it uses, as far as the kernel tells.
    #[must_use]
    pub fn rx_queues(&self) -> usize {
        let names =
            fs::read_dir(self.folder.join("queues")).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("rx-"))).count()
    }

    /// Whether it is there, is the one that it was, is set up and has a carrier.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let read = |file| fs::read_to_string(self.folder.join(file)).ok();
        // Reading `carrier` fails while the interface is set down.
        self.index.is_some() && read("ifindex") == self.index && read("carrier").is_some_and(|text| text.trim() == "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only devices that name an interface have one.
    #[test]
    fn interface_is_taken_from_the_arguments() {
        let of = |devargs| Netdev::under(devargs).map(|netdev| netdev.folder);
        assert_eq!(of("net_af_packet0,iface=eth1,qpairs=1"), Some("/sys/class/net/eth1".into()));
        assert_eq!(of("net_af_xdp0,start_queue=1,iface=a.b"), Some("/sys/class/net/a.b".into()));
        assert!(of("net_null0,size=64").is_none());
        assert!(of("0000:3b:00.0").is_none());
    }

    /// No carrier, set down, gone, and another of the same name all count as down.
    #[test]
    fn anything_but_the_same_interface_with_a_carrier_is_down() {
        let folder = std::env::temp_dir().join(format!("kopi-netdev-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let set = |file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
        set("ifindex", "7\n");
        set("carrier", "1\n");
        let netdev = Netdev::at(folder.clone());
        assert!(netdev.is_up());
        set("carrier", "0\n");
        assert!(!netdev.is_up());
        set("carrier", "1\n");
        assert!(netdev.is_up());
        set("ifindex", "8\n");
        assert!(!netdev.is_up());
        set("ifindex", "7\n");
        fs::remove_file(folder.join("carrier")).unwrap();
        assert!(!netdev.is_up());
        fs::remove_dir_all(&folder).unwrap();
        assert!(!netdev.is_up());
    }
}

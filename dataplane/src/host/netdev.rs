//! The kernel's interface under a virtual wire.
//!
//! `net_af_packet` and `net_af_xdp` sit on an interface of the kernel, and do not follow its link: DPDK 22.11's
//! `net_af_packet` says "up" even when the interface is gone. The kernel knows better. It is asked through sockets and not through
//! `/sys`, which a process in a network namespace of its own may not have, or have from another namespace.

use dpdk::{Carrier, Interface, PacketSocket, XdpSocket};
use kopi_config::check::interface_of;
use rustix::fd::{OwnedFd, RawFd};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::fs;

/// The family of `net_af_xdp`'s sockets (`linux/socket.h`).
const AF_XDP: AddressFamily = AddressFamily::from_raw(44);

/// An interface that a wire sits on.
#[derive(Debug)]
pub struct Netdev {
    name: String,
    /// As it was when the wire was opened. One that was deleted and made again is another one, and the driver's sockets do not
    /// follow.
    interface: Option<Interface>,
    /// The sockets through which the wire's frames come. Drivers do not count all that these lose.
    packet: Vec<PacketSocket>,
    xdp: Vec<XdpSocket>,
    /// What packet sockets have lost, whose own numbers begin anew with each look.
    lost: u64,
}

impl Netdev {
    /// The interface that `devargs` name with `iface=`, if they do.
    #[must_use]
    pub fn under(devargs: &str) -> Option<Self> {
        let name = interface_of(devargs)?;
        let interface = Interface::named(name).ok();
        Some(Self { name: name.to_owned(), interface, packet: Vec::new(), xdp: Vec::new(), lost: 0 })
    }

    /// Its name, as it is now.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.interface.as_ref().and_then(|interface| interface.name().ok());
        name.unwrap_or_else(|| self.name.clone())
    }

    /// The interface, if it was there when the wire was opened.
    #[must_use]
    pub const fn interface(&self) -> Option<&Interface> {
        self.interface.as_ref()
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
        let of_wires =
            |fd: &OwnedFd| family_of(fd).is_some_and(|family| [AddressFamily::PACKET, AF_XDP].contains(&family));
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

    /// Finds the wire's sockets, and has packet sockets leave out what this kernel sends on the interface, which is nothing that comes by
    /// the wire. Returns how many sockets there are.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn listen(&mut self) -> std::io::Result<usize> {
        let (packet, xdp): (Vec<_>, Vec<_>) =
            Self::sockets()?.into_iter().partition(|fd| family_of(fd) == Some(AddressFamily::PACKET));
        self.packet = packet.into_iter().map(PacketSocket::new).collect();
        self.xdp = xdp.into_iter().map(XdpSocket::new).collect();
        self.packet.iter().try_for_each(PacketSocket::leave_out_own)?;
        Ok(self.packet.len() + self.xdp.len())
    }

    /// Frames that the sockets have lost since the wire was opened, and that their driver does not count. To be asked every minute at
    /// least: of packet sockets, the kernel's number is one of 32 bits.
    pub fn lost(&mut self) -> u64 {
        let more: u64 = self.packet.iter().map(|socket| u64::from(socket.take_lost().unwrap_or(0))).sum();
        self.lost += more;
        self.lost + self.xdp.iter().map(|socket| socket.lost().unwrap_or(0)).sum::<u64>()
    }

    /// Whether it is there, is the one that it was, is set up and has a carrier.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.interface.as_ref().map_or(Carrier::Gone, Interface::carrier)
    }
}

fn family_of(fd: &OwnedFd) -> Option<AddressFamily> {
    sockopt::socket_domain(fd).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that was not there when the wire was opened is down, whatever comes later.
    #[test]
    fn an_interface_that_was_not_there_is_gone() {
        let netdev = Netdev::under("net_af_packet0,iface=kopi-nobody").unwrap();
        assert_eq!((netdev.carrier(), netdev.name()), (Carrier::Gone, "kopi-nobody".to_owned()));
        assert_ne!(Netdev::under("net_af_packet0,iface=lo").unwrap().carrier(), Carrier::Gone);
    }
}

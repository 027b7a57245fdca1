//! What the host's kernel uses of an address that apps share with it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use kopi_config::policy::Listen;

/// The kernel's addresses and ports, as they were at one moment.
///
/// A port is the kernel's if a socket has it, or if the kernel may choose it for a socket at any time: the ephemeral range,
/// but for what the administrator has reserved (`ip_local_port_range` and `ip_local_reserved_ports` in the kernel's
/// `Documentation/networking/ip-sysctl.rst`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSockets {
    addresses: BTreeSet<IpAddr>,
    ephemeral: RangeInclusive<u16>,
    reserved: Vec<RangeInclusive<u16>>,
    /// Ports of sockets, of those that the kernel does not choose by itself.
    sockets: BTreeSet<Listen>,
}

impl HostSockets {
    /// The kernel with these `addresses`, that chooses ports of `ephemeral` that are not `reserved`, and on which `sockets`
    /// are open.
    #[must_use]
    pub fn new(
        addresses: BTreeSet<IpAddr>,
        ephemeral: RangeInclusive<u16>,
        reserved: Vec<RangeInclusive<u16>>,
        sockets: impl IntoIterator<Item = Listen>,
    ) -> Self {
        let mut host = Self { addresses, ephemeral, reserved, sockets: BTreeSet::new() };
        // Those among the ephemeral ports come and go all the time, and make no difference.
        host.sockets = sockets.into_iter().filter(|socket| !host.chooses(socket.port)).collect();
        host
    }

    /// Whether the kernel may choose the port for a socket at any time.
    #[must_use]
    pub fn chooses(&self, port: u16) -> bool {
        self.ephemeral.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }

    /// Whether the port is the kernel's.
    #[must_use]
    pub fn has_port(&self, local: Listen) -> bool {
        self.chooses(local.port) || self.sockets.contains(&local)
    }

    /// Whether the address is the kernel's.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}

impl Default for HostSockets {
    /// No address, and every port.
    fn default() -> Self {
        Self { addresses: BTreeSet::new(), ephemeral: 0..=u16::MAX, reserved: Vec::new(), sockets: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    /// A port is the kernel's exactly if it is ephemeral and not reserved, or a socket of that protocol has it.
    #[test]
    fn ports_are_the_kernels_by_range_or_by_socket() {
        let sockets = [(TCP, 22), (UDP, 53), (TCP, 40_000), (TCP, 50_001)].map(|(proto, port)| Listen { proto, port });
        let host = HostSockets::new(BTreeSet::new(), 32768..=60999, vec![50_000..=50_009, 8080..=8080], sockets);
        for port in 0..=u16::MAX {
            let ephemeral = (32768..=60999).contains(&port) && !(50_000..=50_009).contains(&port);
            assert_eq!(host.chooses(port), ephemeral, "{port}");
            assert_eq!(host.has_port(Listen { proto: TCP, port }), ephemeral || port == 22 || port == 50_001, "{port}");
            assert_eq!(host.has_port(Listen { proto: UDP, port }), ephemeral || port == 53, "{port}");
        }
    }

    /// Sockets that come and go among the ephemeral ports change nothing.
    #[test]
    fn ephemeral_sockets_make_no_difference() {
        let of = |port| HostSockets::new(BTreeSet::new(), 32768..=60999, Vec::new(), [Listen { proto: TCP, port }]);
        assert_eq!(of(40_000), of(41_000));
        assert_ne!(of(80), of(81));
    }
}

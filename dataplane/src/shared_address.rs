//! The apps that have their address together with the host. Part of a snapshot.
//!
//! What comes for that address is the host's, unless an app has the port in its `listen`, or a connection that the frame is of: that
//! is for the [policy stage](crate::stages::policy) to say, who knows the connections. What the kernel alone answers, no app hears.

use crate::ids::PortId;
use kopi_config::policy::Listen;
use kopi_packet::{FlowKey, ndp};
use kopi_ring::message::Mac;

/// `ares_op$REPLY` (RFC 826).
const ARP_REPLY: u16 = 2;
/// Types of ICMPv6: those that ask for somebody's address, and the answer (RFC 4861, 4.3 and 4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// One of them.
#[derive(Clone, Debug)]
pub struct Sharer {
    /// Its port.
    pub id: PortId,
    /// The ports of its `listen`.
    pub listen: Vec<Listen>,
}

/// The host and the apps that share its address. There is one app at least.
#[derive(Debug)]
pub struct SharedAddress {
    host: PortId,
    mac: Mac,
    /// The apps, sorted.
    apps: Box<[PortId]>,
    /// The host, and the apps.
    all: Box<[PortId]>,
    /// Reserved ports, sorted. Each is somebody's alone, or of whoever has the lowest number.
    reserved: Box<[(Listen, PortId)]>,
}

impl SharedAddress {
    /// The `sharers` of the address `mac` of the host, whose port is `host`; `None` if there are none.
    #[must_use]
    pub fn new(host: PortId, mac: Mac, sharers: &[Sharer]) -> Option<Self> {
        let mut apps: Vec<PortId> = sharers.iter().map(|sharer| sharer.id).collect();
        apps.sort_unstable();
        let all = std::iter::once(host).chain(apps.iter().copied()).collect();
        let reserved = sharers.iter().flat_map(|sharer| sharer.listen.iter().map(|listen| (*listen, sharer.id)));
        let mut reserved: Vec<_> = reserved.collect();
        reserved.sort_unstable();
        reserved.dedup_by_key(|(listen, _)| *listen);
        (!apps.is_empty()).then(|| Self { host, mac, apps: apps.into(), all, reserved: reserved.into() })
    }

    /// The host's port.
    #[must_use]
    pub const fn host(&self) -> PortId {
        self.host
    }

    /// The address.
    #[must_use]
    pub const fn mac(&self) -> &Mac {
        &self.mac
    }

    /// The apps.
    #[must_use]
    pub fn apps(&self) -> &[PortId] {
        &self.apps
    }

    /// The host and the apps.
    #[must_use]
    pub fn all(&self) -> &[PortId] {
        &self.all
    }

    /// Whether `id` is the host or one of the apps.
    #[must_use]
    pub fn has(&self, id: PortId) -> bool {
        self.all.contains(&id)
    }

    /// The app for which the port at which the frame arrives is reserved.
    #[must_use]
    pub fn listener(&self, key: &FlowKey) -> Option<PortId> {
        let local = Listen { proto: key.proto(), port: key.dst_port()? };
        let at = self.reserved.binary_search_by_key(&local, |(listen, _)| *listen).ok()?;
        self.reserved.get(at).map(|(_, id)| *id)
    }

    /// Whether port `id` is to hear of a frame for several: the kernel alone answers those who ask for a neighbour.
    #[must_use]
    pub fn hears(&self, id: PortId, key: &FlowKey) -> bool {
        let asks = match key.arp_operation() {
            Some(operation) => operation != ARP_REPLY,
            None => is_of_discovery(key, SOLICITATION),
        };
        !(asks && self.apps.binary_search(&id).is_ok())
    }
}

/// Whether a frame tells of a neighbour, so that everybody who shares the address of the one who asked wants to know.
#[must_use]
pub fn tells_of_neighbour(key: &FlowKey) -> bool {
    key.arp_operation() == Some(ARP_REPLY) || is_of_discovery(key, ADVERTISEMENT)
}

fn is_of_discovery(key: &FlowKey, kind: u8) -> bool {
    ndp::is_ndp(key) && key.icmp().is_some_and(|(found, _)| found == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::describe::frame_of;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    fn key(text: &str) -> FlowKey {
        kopi_packet::parse(&frame_of(text).unwrap(), 0).1
    }

    fn listen(proto: u8, port: u16) -> Listen {
        Listen { proto, port }
    }

    /// A reserved port is its holder's, of that protocol alone.
    #[test]
    fn reserved_ports_have_their_holders() {
        let sharers = [
            Sharer { id: 7, listen: vec![listen(6, 80), listen(17, 53)] },
            Sharer { id: 3, listen: vec![listen(6, 443)] },
        ];
        let sharing = SharedAddress::new(9, MAC, &sharers).unwrap();
        let holder = |text: &str| sharing.listener(&key(text));
        assert_eq!(holder("tcp 10.0.0.1:1000 > 10.0.0.2:80"), Some(7));
        assert_eq!(holder("tcp 10.0.0.1:1000 > 10.0.0.2:443"), Some(3));
        assert_eq!(holder("udp 10.0.0.1:1000 > 10.0.0.2:53"), Some(7));
        for none in [
            "udp 10.0.0.1:1000 > 10.0.0.2:80",
            "tcp 10.0.0.1:80 > 10.0.0.2:1000",
            "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 1",
        ] {
            assert_eq!(holder(none), None, "{none}");
        }
        assert_eq!((sharing.apps(), sharing.all()), (&[3, 7][..], &[9, 3, 7][..]));
        assert!(sharing.has(9) && sharing.has(3) && !sharing.has(1));
        assert!(SharedAddress::new(9, MAC, &[]).is_none());
    }

    /// The kernel alone hears who asks for an address, and everybody else hears it as before.
    #[test]
    fn questions_for_neighbours_are_the_kernels() {
        let sharing = SharedAddress::new(9, MAC, &[Sharer { id: 3, listen: Vec::new() }]).unwrap();
        let request = key("arp request 10.0.0.1 > 10.0.0.2");
        let reply = key("arp reply 10.0.0.1 > 10.0.0.2");
        let other = key("udp 10.0.0.1:67 > 255.255.255.255:68");
        assert_eq!([9, 3, 1].map(|id| sharing.hears(id, &request)), [true, false, true]);
        assert_eq!([9, 3, 1].map(|id| sharing.hears(id, &reply)), [true; 3]);
        assert_eq!([9, 3, 1].map(|id| sharing.hears(id, &other)), [true; 3]);
        let solicitation = key("icmp6 fe80::1 > ff02::1:ff00:2 type 135 target fe80::2");
        let advertisement = key("icmp6 fe80::1 > fe80::2 type 136");
        assert_eq!([9, 3, 1].map(|id| sharing.hears(id, &solicitation)), [true, false, true]);
        assert!(tells_of_neighbour(&advertisement) && !tells_of_neighbour(&solicitation));
        assert!(tells_of_neighbour(&reply) && !tells_of_neighbour(&request) && !tells_of_neighbour(&other));
    }
}

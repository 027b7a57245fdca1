//! Port security: the addresses that an app may send from, and the ports that it may be reached at.
//!
//! An `[[app]]` entry reserves for the process that attaches by it:
//!
//! - **a MAC address**, `mac`. Without it, the app has the addresses that its port has asked for and been given.
//! - **IP addresses**, `addresses`. A packet from another source address is dropped, and so are ARP that names another
//!   sender and neighbour discovery about another target. Without any, the app may send from every address that no other
//!   entry reserves. Link-local addresses made of its own MAC addresses (RFC 4291, appendix A) are always its own.
//! - **ports**, `listen`. At these it may be reached by new connections; at other ports only by packets of connections
//!   that it began, and by what is for a multicast address of IP or for 255.255.255.255, which connection tracking does
//!   not follow. The port is at its own side: the destination port of ingress, the source port of egress. A port that any
//!   entry lists is for no app that does not list it, in either direction, be it for a server or as the ephemeral port of
//!   a client.
//!
//! An app with `address = "shared"` has the MAC and the IP addresses of the host. It sends from the host's addresses, or from
//! those among `addresses`, and begins connections from ports that the host does not use ([`HostSockets`]). The ports of its
//! `listen` are its own all the same: there the host is the one that may not.
//!
//! An app with IP addresses of its own does not speak for others either: it sends no messages of routers and of servers of
//! DHCP, and nothing inside of which there could be another address, unless its entry allows that. What it says as a client
//! of DHCP is of its own MAC address, for every app that is checked.
//!
//! What one entry reserves is nobody else's, so a process that has attached by no entry may use what is left.
//! `spoof_check = false` frees an app from the first two.
//!
//! A host that has no address yet may ask for one: by DHCP (RFC 2131, 4.1), by an ARP probe (RFC 5227, 2.1.1), and as
//! IPv6 has it (RFC 4862, 5.4.2; RFC 3590 for the multicast listener report).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use kopi_config::policy::{Address, Addresses, Allowed, App, Direction, Field, IpNet, Listen, Policy, State};
use kopi_packet::{FlowKey, MacAddr, Malformed, Shape, dhcp, encapsulates, ndp, proto};

use crate::frame::{Packet, Violation};
use crate::host_sockets::HostSockets;

/// VRRP (RFC 9568) and CARP, by which a router becomes that of a network.
const VRRP: u8 = 112;
const ARP_REQUEST: u16 = 1;

/// Types of ICMP that only routers send (RFC 792, RFC 1256).
mod icmp {
    pub(super) const REDIRECT: u8 = 5;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 9;
}

/// Types of ICMPv6 that matter here.
mod icmp6 {
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const REDIRECT: u8 = 137;
    /// RFC 2894.
    pub(super) const ROUTER_RENUMBERING: u8 = 138;
    pub(super) const LISTENER_REPORT: u8 = 143;
    /// Of multicast routers (RFC 4286).
    pub(super) const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;
}

/// What one `[[app]]` entry reserves and allows.
#[derive(Debug)]
struct Entry {
    /// Whether it has the address of the host.
    shared: bool,
    spoof_check: SpoofCheck,
    addresses: Option<Addresses>,
    listen: BTreeSet<Listen>,
    allow: Allowed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpoofCheck {
    /// The app may send from any address.
    Off,
    /// It may send from its own addresses.
    On,
    /// It has attached by no entry, and may send from addresses that no entry reserves.
    Unlisted,
}

/// Port security of a whole policy.
#[derive(Debug)]
pub(crate) struct PortSecurityTable {
    /// By the index of the entry.
    entries: Vec<Arc<Entry>>,
    unlisted: Arc<Entry>,
    reserved: Arc<Reserved>,
}

/// What any entry reserves.
#[derive(Debug)]
struct Reserved {
    macs: BTreeSet<MacAddr>,
    addresses: Addresses,
    ports: BTreeSet<Listen>,
}

/// Port security of one attached app.
#[derive(Clone, Debug)]
pub(crate) struct PortSecurity {
    entry: Arc<Entry>,
    reserved: Arc<Reserved>,
    macs: Box<[MacAddr]>,
    /// What the host uses, if the app shares the host's address.
    host: Option<Arc<HostSockets>>,
}

impl PortSecurity {
    /// Whether both may use the same. Both have to be of one ruleset.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry) && self.macs == other.macs && self.host == other.host
    }

    /// The same with the sockets of `host`, if the app shares its address.
    pub(crate) fn with_host_sockets(mut self, host: &Arc<HostSockets>) -> Self {
        self.host = self.entry.shared.then(|| Arc::clone(host));
        self
    }
}

impl PortSecurityTable {
    pub(crate) fn of(policy: &Policy) -> Self {
        let apps = &policy.apps;
        let reserved = Reserved {
            macs: apps.iter().filter_map(|app| app.mac).collect(),
            addresses: addresses(apps.iter().flat_map(|app| &app.addresses)),
            ports: apps.iter().flat_map(|app| app.listen.iter().copied()).collect(),
        };
        let unlisted = Entry {
            shared: false,
            spoof_check: SpoofCheck::Unlisted,
            addresses: None,
            listen: BTreeSet::new(),
            allow: Allowed::default(),
        };
        Self {
            entries: apps.iter().map(|app| Arc::new(Entry::of(app))).collect(),
            unlisted: Arc::new(unlisted),
            reserved: Arc::new(reserved),
        }
    }

    /// What belongs to the app that attached by `entry` and whose port has the addresses `macs`.
    pub(crate) fn port(&self, entry: Option<(usize, &App)>, macs: &[MacAddr]) -> PortSecurity {
        let of = entry.and_then(|(index, _)| self.entries.get(index)).unwrap_or(&self.unlisted);
        let macs = entry.and_then(|(_, app)| app.mac).map_or_else(|| macs.into(), |mac| [mac].into());
        // Until the sockets of the host are known, every port is the host's.
        let host = of.shared.then(Arc::default);
        PortSecurity { entry: Arc::clone(of), reserved: Arc::clone(&self.reserved), macs, host }
    }

    /// Whether ports are reserved, or are the host's, so that new connections have to be told apart.
    pub(crate) fn lists_ports(&self) -> bool {
        !self.reserved.ports.is_empty() || self.entries.iter().any(|entry| entry.shared)
    }
}

impl Entry {
    fn of(app: &App) -> Self {
        Self {
            shared: app.address == Address::Shared,
            spoof_check: if app.spoof_check { SpoofCheck::On } else { SpoofCheck::Off },
            addresses: (!app.addresses.is_empty()).then(|| addresses(&app.addresses)),
            listen: app.listen.iter().copied().collect(),
            allow: app.allow,
        }
    }
}

impl PortSecurity {
    /// What the frame uses that is not the app's.
    #[inline]
    pub(crate) fn violation(&self, packet: &Packet<'_>) -> Option<Violation> {
        let spoofed = match packet.direction {
            Direction::Egress if self.entry.spoof_check != SpoofCheck::Off => self.spoofed(packet),
            _ => None,
        };
        spoofed.or_else(|| (!self.may_use_port(packet)).then_some(Violation::Listen))
    }

    fn spoofed(&self, packet: &Packet<'_>) -> Option<Violation> {
        let key = packet.key;
        if !self.has_mac(key.src_mac()) {
            return Some(Violation::Mac);
        }
        let (Some(source), Some(destination)) = (key.src_addr(), key.dst_addr()) else {
            // What claims to have an address and does not show it cannot be the app's.
            let hides = matches!(key.shape(), Shape::Malformed(_)) && self.entry.addresses.is_some();
            return hides.then_some(Violation::Ip).or_else(|| self.speaks_for_others(packet));
        };
        if let (Some(sender), Some(operation)) = (key.arp_sender(), key.arp_operation()) {
            let probe = operation == ARP_REQUEST && source == Ipv4Addr::UNSPECIFIED && self.owns(destination);
            let own = self.has_mac(sender) && (self.owns(source) || probe);
            return (!own).then_some(Violation::Arp);
        }
        if !self.owns(source) && !asks_for_address(key, source, destination) {
            return Some(Violation::Ip);
        }
        if !self.neighbour_is_own(packet, source) {
            return Some(Violation::Ndp);
        }
        self.speaks_for_others(packet).or_else(|| (!self.client_is_own(packet)).then_some(Violation::Dhcp))
    }

    /// What a frame says that is not for a host with addresses of its own to say.
    fn speaks_for_others(&self, packet: &Packet<'_>) -> Option<Violation> {
        let (key, allow) = (packet.key, self.entry.allow);
        if !self.is_bound() {
            return None;
        }
        if !allow.tunnel && encapsulates(key) {
            return Some(Violation::Tunnel);
        }
        if !allow.router && is_of_router(key) {
            return Some(Violation::Router);
        }
        (!allow.dhcp_server && is_of_dhcp_server(key)).then_some(Violation::Dhcp)
    }

    /// Whether it has IP addresses of its own, and may use no others.
    fn is_bound(&self) -> bool {
        self.entry.addresses.is_some() || self.host.is_some()
    }

    /// Whether a packet for a server of DHCP speaks of nothing but what is the app's own. One that cannot be read does not, if
    /// the app has addresses.
    fn client_is_own(&self, packet: &Packet<'_>) -> bool {
        if self.entry.allow.dhcp_server || !dhcp::is_for_server(packet.key) {
            return true;
        }
        let Some(request) = packet.dhcp else { return !self.is_bound() };
        let address = IpAddr::V4(request.address);
        self.has_mac(request.hardware)
            && request.identifier.is_none_or(|mac| self.has_mac(mac))
            && (address.is_unspecified() || self.owns(address))
    }

    /// Whether a message of neighbour discovery tells of nothing but what is the app's own. One that cannot be read does
    /// not. A redirect tells of others by its nature; whether it may is asked elsewhere.
    fn neighbour_is_own(&self, packet: &Packet<'_>, source: IpAddr) -> bool {
        if !ndp::is_ndp(packet.key) {
            return true;
        }
        let Some(message) = packet.ndp else { return false };
        let target_is_own = || message.target.is_some_and(|target| self.owns(target.into()));
        let about_own = match message.kind {
            ndp::Kind::Redirect => return true,
            ndp::Kind::NeighborAdvertisement => target_is_own(),
            ndp::Kind::NeighborSolicitation if source.is_unspecified() => target_is_own(),
            _ => true,
        };
        let mut links = [message.source_link, message.target_link].into_iter().flatten();
        about_own && links.all(|mac| self.has_mac(mac))
    }

    fn has_mac(&self, mac: MacAddr) -> bool {
        match self.entry.spoof_check {
            SpoofCheck::Unlisted => !self.reserved.macs.contains(&mac) || self.macs.contains(&mac),
            _ => self.macs.contains(&mac),
        }
    }

    fn owns(&self, address: IpAddr) -> bool {
        let owned = match (&self.entry.addresses, &self.host) {
            (Some(own), _) => own.contains(address),
            (None, Some(host)) => host.has_address(address),
            (None, None) => !self.reserved.addresses.contains(address),
        };
        owned || self.macs.iter().any(|mac| link_local(*mac) == address)
    }

    fn may_use_port(&self, packet: &Packet<'_>) -> bool {
        let key = packet.key;
        if self.reserved.ports.is_empty() && self.host.is_none() {
            return true;
        }
        let port = match packet.direction {
            Direction::Egress => key.src_port(),
            Direction::Ingress => key.dst_port(),
        };
        let Some(port) = port else { return true };
        let local = Listen { proto: key.proto(), port };
        let begins = matches!(packet.state, State::New | State::Invalid);
        let bound = match packet.direction {
            Direction::Ingress => begins && !self.entry.listen.is_empty(),
            // What it has begun before the host took the port goes on.
            Direction::Egress => begins && self.host.as_ref().is_some_and(|host| host.has_port(local)),
        };
        !(bound || self.reserved.ports.contains(&local)) || self.entry.listen.contains(&local)
    }
}

/// Whether the packet is one that a host sends before it has an address.
fn asks_for_address(key: &FlowKey, source: IpAddr, destination: IpAddr) -> bool {
    match (source, destination) {
        // For the MAC address of one host it would be a packet from nobody to that host alone.
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST)) => {
            let ports = (key.src_port(), key.dst_port()) == (Some(dhcp::CLIENT), Some(dhcp::SERVER));
            key.proto() == proto::UDP && ports && key.dst_mac().is_broadcast()
        }
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(group))
            if group.is_multicast() && key.dst_mac().is_multicast() =>
        {
            use icmp6::{LISTENER_DONE, LISTENER_QUERY, LISTENER_REPORT, NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION};
            let kind = key.icmp().map_or(0, |(kind, _)| kind);
            let listener = kind > LISTENER_QUERY && kind <= LISTENER_DONE || kind == LISTENER_REPORT;
            listener || matches!(kind, ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION)
        }
        _ => false,
    }
}

/// Whether only a router says this, or something that wants to be taken for one. In IPv6 what cannot be followed to its end may
/// be of neighbour discovery.
fn is_of_router(key: &FlowKey) -> bool {
    use icmp6::{LISTENER_QUERY, MULTICAST_ROUTER_ADVERTISEMENT, REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_RENUMBERING};
    let kind = key.icmp().map(|(kind, _)| kind);
    match key.shape() {
        Shape::Ipv4 if key.proto() == VRRP => true,
        Shape::Ipv4 => matches!(kind, Some(icmp::REDIRECT | icmp::ROUTER_ADVERTISEMENT)),
        Shape::Ipv6 if key.proto() == VRRP => true,
        Shape::Ipv6 => matches!(
            kind,
            Some(
                LISTENER_QUERY | ROUTER_ADVERTISEMENT | REDIRECT | ROUTER_RENUMBERING | MULTICAST_ROUTER_ADVERTISEMENT
            )
        ),
        Shape::Malformed(Malformed::Ipv6Extensions) => true,
        _ => false,
    }
}

/// Whether only a server or a relay agent of DHCP sends this. Clients go by the port that it is for, whatever it is from.
fn is_of_dhcp_server(key: &FlowKey) -> bool {
    let (from, to) = (key.src_port(), key.dst_port());
    key.proto() == proto::UDP
        && match key.shape() {
            Shape::Ipv4 => from == Some(dhcp::SERVER) || to == Some(dhcp::CLIENT),
            Shape::Ipv6 => from == Some(dhcp::SERVER_V6) || to == Some(dhcp::CLIENT_V6),
            _ => false,
        }
}

/// The link-local address that is made of a MAC address (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    let low = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low))
}

fn addresses<'a>(blocks: impl IntoIterator<Item = &'a IpNet>) -> Addresses {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for block in blocks {
        let prefix = u32::from(block.prefix_len());
        match block.addr() {
            IpAddr::V4(first) => v4.push(block_of(first.to_bits(), u32::MAX.checked_shr(prefix).unwrap_or(0))),
            IpAddr::V6(first) => v6.push(block_of(first.to_bits(), u128::MAX.checked_shr(prefix).unwrap_or(0))),
        }
    }
    Addresses { v4: Field::new(v4), v6: Field::new(v6) }
}

fn block_of<T: std::ops::BitOr<Output = T> + Copy>(first: T, rest: T) -> RangeInclusive<T> {
    first..=first | rest
}

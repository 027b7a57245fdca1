//! The bytes of a frame that was described.

use super::alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proto::{ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
use crate::walk::extension;
use crate::{Fragment, MacAddr, Malformed, VlanTag, ethertype};

/// Offset of a later fragment in units of eight bytes: what a fragment of 1,500 bytes leaves behind it.
const LATER: u16 = 185;

/// A frame, as it was described.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) tags: Vec<VlanTag>,
    /// What is wrong with it: nothing of that is in the bytes.
    pub(super) malformed: Option<Malformed>,
    pub(super) body: Body,
    pub(super) from: Option<MacAddr>,
    pub(super) to: Option<MacAddr>,
    /// Differentiated services code point, of IP.
    pub(super) dscp: u8,
}

#[derive(Debug)]
pub(super) enum Body {
    Runt,
    Other(u16),
    Arp(Arp),
    Ip(Ip),
}

/// ARP, with the protocol and hardware addresses of its stations.
#[derive(Debug)]
pub(super) struct Arp {
    pub(super) operation: u16,
    pub(super) sender: (Ipv4Addr, Option<MacAddr>),
    pub(super) target: (Ipv4Addr, Option<MacAddr>),
}

#[derive(Debug)]
pub(super) struct Ip {
    pub(super) proto: u8,
    pub(super) src: IpAddr,
    /// Of the same version as `src`.
    pub(super) dst: IpAddr,
    /// There if the protocol has ports and this is no later fragment.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) fragment: Fragment,
    pub(super) flags: u8,
    pub(super) icmp: Icmp,
}

#[derive(Debug)]
pub(super) struct Icmp {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) id: u16,
    pub(super) target: Option<Ipv6Addr>,
}

impl Description {
    /// The protocol of IP; zero for what is not IP.
    pub(super) const fn proto(&self) -> u8 {
        if let Body::Ip(ip) = &self.body { ip.proto } else { 0 }
    }

    /// The frame, between these stations unless the description names others.
    pub(super) fn build(&self, from: MacAddr, to: MacAddr) -> Vec<u8> {
        let from = self.from.unwrap_or(from);
        let (ethertype, payload) = match &self.body {
            Body::Runt => return Vec::new(),
            Body::Other(ethertype) => (*ethertype, Vec::new()),
            Body::Arp(arp) => (ethertype::ARP, arp.build(from)),
            Body::Ip(ip) => match (ip.src, ip.dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => (ethertype::IPV4, ip.v4(src, dst, self.dscp)),
                (src, dst) => (ethertype::IPV6, ip.v6(to_v6(src), to_v6(dst), self.dscp)),
            },
        };
        let asks_all = to.is_zero() && matches!(&self.body, Body::Arp(Arp { operation: 1, .. }));
        let to = self.to.unwrap_or(if asks_all { MacAddr::BROADCAST } else { to });
        let mut frame = [to.bytes(), from.bytes()].concat();
        for tag in &self.tags {
            let tpid = if tag.service { ethertype::SERVICE_VLAN } else { ethertype::VLAN };
            frame.extend([tpid.to_be_bytes(), tag.tci.to_be_bytes()].as_flattened());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame
    }
}

impl Arp {
    /// RFC 826, for IPv4 over Ethernet.
    fn build(&self, from: MacAddr) -> Vec<u8> {
        let station = |(address, mac): (Ipv4Addr, Option<MacAddr>), default: MacAddr| {
            mac.unwrap_or(default).bytes().into_iter().chain(address.octets())
        };
        let mut packet = [0, 1, 8, 0, 6, 4].to_vec();
        packet.extend(self.operation.to_be_bytes());
        packet.extend(station(self.sender, from));
        packet.extend(station(self.target, MacAddr::ZERO));
        packet
    }
}

impl Ip {
    /// Offset in units of eight bytes, and whether more fragments follow.
    const fn part(&self) -> (u16, bool) {
        match self.fragment {
            Fragment::None => (0, false),
            Fragment::First => (0, true),
            Fragment::Later => (LATER, false),
        }
    }

    /// RFC 791, 3.1.
    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr, dscp: u8) -> Vec<u8> {
        const HEADER: usize = 20;
        const TIME_TO_LIVE: u8 = 64;
        let payload = self.payload();
        let (units, more) = self.part();
        let mut packet = [0x45, dscp << 2].to_vec();
        packet.extend(length(HEADER + payload.len()));
        packet.extend([0, 0]);
        packet.extend((units | if more { 0x2000 } else { 0 }).to_be_bytes());
        packet.extend([TIME_TO_LIVE, self.proto, 0, 0]);
        packet.extend([src.octets(), dst.octets()].as_flattened());
        packet.extend(payload);
        packet
    }

    /// RFC 8200, 3, with a fragment header (4.5) if it is a fragment.
    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr, dscp: u8) -> Vec<u8> {
        const VERSION: u16 = 0x6000;
        const HOP_LIMIT: u8 = 255;
        let (units, more) = self.part();
        let mut next = self.proto;
        let mut payload = Vec::new();
        if self.fragment != Fragment::None {
            payload.extend([next, 0]);
            payload.extend((units << 3 | u16::from(more)).to_be_bytes());
            payload.extend([0; 4]);
            next = extension::FRAGMENT;
        }
        payload.extend(self.payload());
        // The traffic class stands across two bytes, and the flow label is zero.
        let mut packet = (VERSION | u16::from(dscp) << 6).to_be_bytes().to_vec();
        packet.extend([0; 2]);
        packet.extend(length(payload.len()));
        packet.extend([next, HOP_LIMIT]);
        packet.extend([src.octets(), dst.octets()].as_flattened());
        packet.extend(payload);
        packet
    }

    /// The transport header. Fields that are not described are zero, but for lengths.
    fn payload(&self) -> Vec<u8> {
        const TCP_DATA_OFFSET: u8 = 5 << 4;
        const UDP_LENGTH: [u8; 4] = [0, 8, 0, 0];
        let Some((src, dst)) = self.ports else {
            let is_icmp = matches!((self.src.is_ipv6(), self.proto), (false, ICMP) | (true, ICMPV6));
            return if is_icmp && self.fragment != Fragment::Later { self.icmp() } else { [0; 8].to_vec() };
        };
        let mut payload = [src.to_be_bytes(), dst.to_be_bytes()].as_flattened().to_vec();
        match self.proto {
            TCP => {
                payload.extend([0; 8]);
                payload.extend([TCP_DATA_OFFSET, self.flags]);
                payload.extend([0; 6]);
            }
            UDP | UDP_LITE => payload.extend(UDP_LENGTH),
            SCTP => payload.extend([0; 8]),
            _ => {}
        }
        payload
    }

    /// RFC 792 and RFC 4443. A message of Neighbor Discovery has its target: that of the description, else whom a
    /// solicitation is sent to, or whoever sends an advertisement (RFC 4861, 4).
    fn icmp(&self) -> Vec<u8> {
        let Icmp { kind, code, id, target } = self.icmp;
        let mut message = [kind, code, 0, 0].to_vec();
        message.extend(id.to_be_bytes());
        message.extend([0, 0]);
        let (src, dst) = (to_v6(self.src), to_v6(self.dst));
        match (self.proto, kind) {
            (ICMPV6, 134) => message.extend([0; 8]),
            (ICMPV6, 135) => message.extend(target.unwrap_or(dst).octets()),
            (ICMPV6, 136) => message.extend(target.unwrap_or(src).octets()),
            (ICMPV6, 137) => message.extend([target.unwrap_or(src).octets(), dst.octets()].as_flattened()),
            _ => {}
        }
        message
    }
}

/// A length field. None is near the end of its range.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or_default().to_be_bytes()
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    }
}

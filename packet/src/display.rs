//! How a flow key is printed: one line, protocol first, as an administrator would say it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::key::{self, layer};
use crate::{FlowKey, Fragment, Shape, VlanTag};

/// Prints the flow in one line, such as `tcp 10.0.0.1:5 > 10.0.0.2:80` or `vlan 7 icmp fe80::1 > fe80::2 type 128`.
///
/// The port id is left out: the dataplane knows its name.
impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tag in [self.outer_vlan(), self.inner_vlan()].into_iter().flatten() {
            vlan(f, tag)?;
        }
        if let Shape::Malformed(reason) = self.shape() {
            write!(f, "malformed {} ", reason.name())?;
        }
        match (self.kind().layer, self.src_addr(), self.dst_addr()) {
            (layer::RUNT, ..) => f.write_str("runt"),
            (layer::ARP, Some(from), Some(to)) => self.arp(f, from, to),
            (_, Some(from), Some(to)) => self.ip(f, from, to),
            _ => write!(f, "{:#06x} {} > {}", self.ethertype(), self.src_mac(), self.dst_mac()),
        }
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowKey({self}, from port {}: {:016x?})", self.source(), self.words())
    }
}

fn vlan(f: &mut fmt::Formatter<'_>, tag: VlanTag) -> fmt::Result {
    let name = if tag.service { "service-vlan" } else { "vlan" };
    write!(f, "{name} {} ", tag.id())
}

impl FlowKey {
    fn arp(&self, f: &mut fmt::Formatter<'_>, from: IpAddr, to: IpAddr) -> fmt::Result {
        match self.arp_operation() {
            Some(1) => f.write_str("arp request ")?,
            Some(2) => f.write_str("arp reply ")?,
            operation => write!(f, "arp operation {} ", operation.unwrap_or_default())?,
        }
        let (sender, target) = (self.arp_sender().unwrap_or_default(), self.arp_target().unwrap_or_default());
        write!(f, "{from} ({sender}) > {to} ({target})")
    }

    fn ip(&self, f: &mut fmt::Formatter<'_>, from: IpAddr, to: IpAddr) -> fmt::Result {
        match (self.kind().layer, self.proto()) {
            (_, key::TCP) => f.write_str("tcp ")?,
            (_, key::UDP) => f.write_str("udp ")?,
            (_, key::UDP_LITE) => f.write_str("udplite ")?,
            (_, key::SCTP) => f.write_str("sctp ")?,
            (layer::IPV4, key::ICMP) => f.write_str("icmp ")?,
            (layer::IPV6, key::ICMPV6) => f.write_str("icmp6 ")?,
            (_, other) => write!(f, "proto {other} ")?,
        }
        match (self.src_port(), self.dst_port()) {
            (Some(source), Some(destination)) => {
                write!(f, "{} > {}", SocketAddr::new(from, source), SocketAddr::new(to, destination))?;
            }
            _ => write!(f, "{from} > {to}")?,
        }
        if let Some((kind, code)) = self.icmp() {
            write!(f, " type {kind} code {code}")?;
        }
        if let Some(id) = self.icmp_id() {
            write!(f, " id {id}")?;
        }
        match self.fragment() {
            Fragment::None => Ok(()),
            part => write!(f, " {} fragment", part.name()),
        }
    }
}

//! How a flow key is printed: one line, protocol first, as an administrator would say it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::describe::words::FLAGS;
use crate::key::layer;
use crate::{FlowKey, Fragment, Shape, VlanTag, proto};

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

/// A [`FlowKey`], printed with everything that a policy can ask for. See [`FlowKey::full`].
#[derive(Clone, Copy, Debug)]
pub struct Full<'a> {
    key: &'a FlowKey,
    flags: u8,
}

impl fmt::Display for Full<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, flags: known } = self;
        write!(f, "{key}")?;
        let is_ip = matches!(key.kind().layer, layer::IPV4 | layer::IPV6);
        if *known != 0 && is_ip && key.proto() == proto::TCP && key.src_port().is_some() {
            f.write_str(" flags ")?;
            flags(f, key.tcp_flags() & known)?;
        }
        if is_ip && key.dscp() != 0 {
            write!(f, " dscp {}", key.dscp())?;
        }
        if is_ip || key.kind().layer == layer::ARP {
            write!(f, " from {} to {}", key.src_mac(), key.dst_mac())?;
        }
        Ok(())
    }
}

/// Names of flags of TCP, with commas between.
fn flags(f: &mut fmt::Formatter<'_>, flags: u8) -> fmt::Result {
    let (none, names) = FLAGS.split_first().map_or(("none", FLAGS.as_slice()), |((none, _), names)| (*none, names));
    let mut set = names.iter().filter(|(_, flag)| flags & flag != 0).map(|(name, _)| *name);
    f.write_str(set.next().unwrap_or(none))?;
    set.try_for_each(|name| write!(f, ",{name}"))
}

fn vlan(f: &mut fmt::Formatter<'_>, tag: VlanTag) -> fmt::Result {
    let name = if tag.service { "service-vlan" } else { "vlan" };
    write!(f, "{name} {} ", tag.id())
}

impl FlowKey {
    /// The flow in one line, as [`Display`](fmt::Display) prints it, with the addresses of the frame, the DSCP, and `flags` of TCP, which
    /// are those that are in the key: everything that a policy can ask for.
    #[must_use]
    pub const fn full(&self, flags: u8) -> Full<'_> {
        Full { key: self, flags }
    }

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
            (_, proto::TCP) => f.write_str("tcp ")?,
            (_, proto::UDP) => f.write_str("udp ")?,
            (_, proto::UDP_LITE) => f.write_str("udplite ")?,
            (_, proto::SCTP) => f.write_str("sctp ")?,
            (layer::IPV4, proto::ICMP) => f.write_str("icmp ")?,
            (layer::IPV6, proto::ICMPV6) => f.write_str("icmp6 ")?,
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

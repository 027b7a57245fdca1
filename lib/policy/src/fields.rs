//! The fields that rules can state: what each rule says of a field, and what a frame has there.

use std::borrow::Cow;
use std::net::IpAddr;

use kopi_config::policy::{Addresses, Field, Match, Rule, State, TcpFlags};
use kopi_packet::{FlowKey, Fragment, Shape, proto};

use crate::bits::{Pool, View};
use crate::frame::Packet;
use crate::plane::Plane;

/// What a frame has in the place of a field.
#[derive(Clone, Copy, Debug)]
enum Found<T> {
    /// This value.
    Value(T),
    /// There is no such field, so that a rule which states it does not match.
    Absent,
    /// The field is another one of the pair for the two families of IP, and the answer lies there.
    Elsewhere,
}

impl<T> From<Option<T>> for Found<T> {
    #[inline]
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }
}

/// What a rule says of a field.
type Stated<'a, T> = Option<Cow<'a, Field<T>>>;

/// Most fields that one frame is looked up by, and the owner's set of rules.
pub(crate) const MAX_VIEWS: usize = 25;

/// Makes [`Fields`] of a table: name in the code, name in the file, type, what a rule states, what a frame has.
macro_rules! fields {
    ($($field:ident $name:literal $t:ty, $stated:expr, $found:expr;)*) => {
        /// All fields, compiled. What no rule states costs nothing.
        #[derive(Debug)]
        pub(crate) struct Fields {
            $($field: Option<Plane<$t>>,)*
        }

        const _: () = assert!([$($name),*].len() < MAX_VIEWS);

        impl Fields {
            pub(crate) fn compile(rules: &[Rule], pool: &mut Pool) -> Self {
                $(
                    let stated: fn(&Match) -> Stated<'_, $t> = $stated;
                    let $field = Plane::compile(rules.iter().map(|rule| stated(&rule.matches)), rules.len(), pool);
                )*
                Self { $($field,)* }
            }

            /// Gives `add` the set of rules that each field of the frame allows.
            #[inline]
            pub(crate) fn look_up<'a>(&'a self, packet: &Packet<'_>, mut add: impl FnMut(View<'a>)) {
                $(
                    if let Some(plane) = &self.$field {
                        let found: fn(&Packet<'_>) -> Found<$t> = $found;
                        match found(packet) {
                            Found::Value(value) => add(plane.at(value)),
                            Found::Absent => add(plane.absent()),
                            Found::Elsewhere => {}
                        }
                    }
                )*
            }
        }

        /// Names of the fields by which a rule is not for a frame.
        pub(crate) fn differences(rule: &Match, packet: &Packet<'_>) -> Vec<&'static str> {
            let mut names = Vec::new();
            $(
                let stated: fn(&Match) -> Stated<'_, $t> = $stated;
                let found: fn(&Packet<'_>) -> Found<$t> = $found;
                match (stated(rule), found(packet)) {
                    (None, _) | (_, Found::Elsewhere) => {}
                    (Some(field), Found::Value(value)) if field.contains(value) => {}
                    (Some(_), _) => names.push($name),
                }
            )*
            names
        }
    };
}

// Those that tell most frames apart come first, since a block of rules is looked at until nothing is left of it.
fields! {
    dst4 "dst" u32, |m| v4(m.dst.as_ref()), |p| ipv4(p, p.key.dst_addr());
    dst6 "dst" u128, |m| v6(m.dst.as_ref()), |p| ipv6(p, p.key.dst_addr());
    src4 "src" u32, |m| v4(m.src.as_ref()), |p| ipv4(p, p.key.src_addr());
    src6 "src" u128, |m| v6(m.src.as_ref()), |p| ipv6(p, p.key.src_addr());
    dst_port "dst_port" u16, |m| borrowed(&m.dst_port), |p| p.key.dst_port().into();
    src_port "src_port" u16, |m| borrowed(&m.src_port), |p| p.key.src_port().into();
    proto "proto" u8, |m| borrowed(&m.proto), |p| is_ip(p.key).then_some(p.key.proto()).into();
    dscp "dscp" u8, |m| borrowed(&m.dscp), |p| is_ip(p.key).then(|| p.key.dscp()).into();
    direction "direction" u8, |m| m.direction.map(|d| single(d as u8)), |p| Found::Value(p.direction as u8);
    state "state" u8, |m| m.state.map(|states| values(|v| ALL_STATES.into_iter().any(|s| s as u8 == v && states.contains(s)))),
        |p| Found::Value(p.state as u8);
    icmp "icmp_type" u16, |m| borrowed(&m.icmp), |p| icmp(p.key, |address| address.is_ipv4());
    icmp6 "icmp6_type" u16, |m| borrowed(&m.icmp6), |p| icmp(p.key, |address| address.is_ipv6());
    tcp_flags "tcp_flags" u8, |m| m.tcp_flags.map(|TcpFlags { mask, value }| values(|v| v & mask == value)),
        |p| has_tcp(p.key).then(|| p.key.tcp_flags()).into();
    dst_mac "dst_mac" u64, |m| borrowed(&m.dst_mac), |p| is_frame(p.key).then(|| p.key.dst_mac().to_u64()).into();
    src_mac "src_mac" u64, |m| borrowed(&m.src_mac), |p| is_frame(p.key).then(|| p.key.src_mac().to_u64()).into();
    ethertype "ethertype" u16, |m| borrowed(&m.ethertype), |p| Some(p.key.ethertype()).filter(|t| *t != 0).into();
    vlan "vlan" u16, |m| borrowed(&m.vlan), |p| Found::Value(p.key.outer_vlan().map_or(0, |tag| tag.id()));
    inner_vlan "inner_vlan" u16, |m| borrowed(&m.inner_vlan),
        |p| Found::Value(p.key.inner_vlan().map_or(0, |tag| tag.id()));
    fragment "fragment" u8, |m| m.fragment.map(|is| single(u8::from(is))),
        |p| is_ip(p.key).then(|| u8::from(p.key.fragment() != Fragment::None)).into();
    arp_op "arp_op" u16, |m| borrowed(&m.arp_op), |p| p.key.arp_operation().into();
    arp_src "arp_src" u32, |m| v4(m.arp_src.as_ref()), |p| arp(p.key, p.key.src_addr());
    arp_dst "arp_dst" u32, |m| v4(m.arp_dst.as_ref()), |p| arp(p.key, p.key.dst_addr());
    arp_src_mac "arp_src_mac" u64, |m| borrowed(&m.arp_src_mac), |p| p.key.arp_sender().map(|mac| mac.to_u64()).into();
}

const ALL_STATES: [State; 5] = [State::New, State::Established, State::Related, State::Invalid, State::Untracked];

/// Flags of TCP that at least one of the rules looks at.
pub(crate) fn tcp_flags_mask(rules: &[Rule]) -> u8 {
    rules.iter().filter_map(|rule| rule.matches.tcp_flags).fold(0, |mask, flags| mask | flags.mask)
}

/// Whether the frame is one of IP, however much of it could be read.
#[inline]
pub(crate) fn is_ip(key: &FlowKey) -> bool {
    key.src_addr().is_some() && key.arp_operation().is_none()
}

fn is_frame(key: &FlowKey) -> bool {
    key.shape() != Shape::Runt
}

fn has_tcp(key: &FlowKey) -> bool {
    key.proto() == proto::TCP && key.src_port().is_some()
}

fn borrowed<T: Clone>(field: &Option<Field<T>>) -> Stated<'_, T> {
    field.as_ref().map(Cow::Borrowed)
}

fn v4(addresses: Option<&Addresses>) -> Stated<'_, u32> {
    addresses.map(|addresses| Cow::Borrowed(&addresses.v4))
}

fn v6(addresses: Option<&Addresses>) -> Stated<'_, u128> {
    addresses.map(|addresses| Cow::Borrowed(&addresses.v6))
}

fn single(value: u8) -> Cow<'static, Field<u8>> {
    Cow::Owned(Field::new([value..=value]))
}

fn values(holds: impl Fn(u8) -> bool) -> Cow<'static, Field<u8>> {
    Cow::Owned(Field::new((0..=u8::MAX).filter(|value| holds(*value)).map(|value| value..=value)))
}

/// Frames that are not IP are looked up here, those of IPv6 in the other family's field.
fn ipv4(packet: &Packet<'_>, address: Option<IpAddr>) -> Found<u32> {
    match address {
        Some(IpAddr::V6(_)) => Found::Elsewhere,
        Some(IpAddr::V4(address)) if is_ip(packet.key) => Found::Value(address.to_bits()),
        _ => Found::Absent,
    }
}

fn ipv6(_: &Packet<'_>, address: Option<IpAddr>) -> Found<u128> {
    match address {
        Some(IpAddr::V6(address)) => Found::Value(address.to_bits()),
        _ => Found::Elsewhere,
    }
}

fn arp(key: &FlowKey, address: Option<IpAddr>) -> Found<u32> {
    match address {
        Some(IpAddr::V4(address)) if !is_ip(key) => Found::Value(address.to_bits()),
        _ => Found::Absent,
    }
}

/// Type and code of ICMP, if the family of the packet is the right one.
fn icmp(key: &FlowKey, family: impl Fn(IpAddr) -> bool) -> Found<u16> {
    let message = key.icmp().filter(|_| key.src_addr().is_some_and(family));
    message.map(|(kind, code)| u16::from_be_bytes([kind, code])).into()
}

/// Whether any of the rules looks at the state of the connection.
pub(crate) fn uses_state(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| rule.matches.state.is_some())
}

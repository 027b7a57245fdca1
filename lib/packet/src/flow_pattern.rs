//! What a flow rule of an application's asks for, and whether a [`FlowKey`] has it.
//!
//! [`FlowPattern`] is what the application says, field by field. It is compiled into masks over the words of a key once,
//! so that a key is compared in a few instructions. A field of which no bit counts may have any value.

use core::ops::BitAnd;

use crate::key::{Kind, layer, tags};
use crate::proto::{ICMP, ICMPV6, TCP, UDP};
use crate::{FlowKey, MacAddr};

/// A value, and those of its bits that count. The others are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masked<T> {
    value: T,
    mask: T,
}

impl<T: Copy + BitAnd<Output = T>> Masked<T> {
    /// The bits of `value` that are set in `mask`.
    #[must_use]
    pub fn new(value: T, mask: T) -> Self {
        Self { value: value & mask, mask }
    }

    /// The value.
    #[must_use]
    pub const fn value(self) -> T {
        self.value
    }

    /// The bits of it that count.
    #[must_use]
    pub const fn mask(self) -> T {
        self.mask
    }
}

/// The frames that a rule is for. The default is for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowPattern {
    /// Destination address of the frame.
    pub dst_mac: Masked<MacAddr>,
    /// Source address of the frame.
    pub src_mac: Masked<MacAddr>,
    /// The type behind all VLAN tags, in the header itself: a frame with SNAP has none.
    pub ether_type: Option<u16>,
    /// VLAN tags.
    pub vlan: VlanPattern,
    /// A packet of IP in it.
    pub ip: Option<IpPattern>,
}

/// What a rule asks of VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VlanPattern {
    /// Nothing.
    #[default]
    Any,
    /// That there are none.
    Untagged,
    /// That there is one.
    Tagged {
        /// Tag control information of the outer one.
        tci: Masked<u16>,
        /// Whether the outer one has to be a customer tag (0x8100).
        customer: bool,
        /// Whether another one follows. `None` if that does not matter.
        more: Option<bool>,
    },
}

/// A packet of IP that is not malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPattern {
    /// Its version and addresses.
    pub addresses: AddressPattern,
    /// What is in it.
    pub transport: TransportPattern,
}

/// Version and addresses of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// Version 4.
    V4 {
        /// Source address.
        src: Masked<u32>,
        /// Destination address.
        dst: Masked<u32>,
    },
    /// Version 6.
    V6 {
        /// Source address.
        src: Masked<u128>,
        /// Destination address.
        dst: Masked<u128>,
    },
}

/// What a packet of IP carries. Whatever has a header of its own has no fragment for a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportPattern {
    /// Anything.
    #[default]
    Any,
    /// This protocol, after IPv6 extension headers; fragments, too.
    Protocol(u8),
    /// TCP with these ports.
    Tcp(PortsPattern),
    /// UDP with these ports.
    Udp(PortsPattern),
    /// ICMP under IPv4, ICMPv6 under IPv6.
    Icmp {
        /// The type.
        kind: Masked<u8>,
        /// The code.
        code: Masked<u8>,
    },
}

/// Ports of TCP or UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortsPattern {
    /// Source port.
    pub src: Masked<u16>,
    /// Destination port.
    pub dst: Masked<u16>,
}

/// A [`FlowPattern`] as masks over a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompiledPattern {
    mask: [u64; 8],
    value: [u64; 8],
    /// Bits of word 3 of which one has to be set, whichever. Zero if none has to.
    some: u64,
}

impl CompiledPattern {
    /// Whether the frames of `key` are such.
    #[inline]
    #[must_use]
    pub fn matches(&self, key: &FlowKey) -> bool {
        let words = key.words();
        let mut wanted = self.mask.iter().zip(&self.value);
        // Most rules that do not match differ in what stands in front: addresses and ports.
        words.iter().all(|word| wanted.next().is_some_and(|(mask, value)| word & mask == *value))
            && (self.some == 0 || words[3] & self.some != 0)
    }
}

/// What a pattern is compiled from: `value` and `mask` of everything, in the same shape.
#[derive(Default)]
struct Half {
    /// Words 0 to 2.
    words: [u64; 3],
    kind: Kind,
    ends: [[u64; 2]; 2],
}

impl Half {
    const fn words(self) -> [u64; 8] {
        let ([w0, w1, w2], [w4, w5, w6, w7]) = (self.words, FlowKey::address_words(self.ends));
        [w0, w1, w2, self.kind.to_word(), w4, w5, w6, w7]
    }
}

impl FlowPattern {
    /// The same for comparing with keys.
    #[must_use]
    pub fn compile(&self) -> CompiledPattern {
        let [mut value, mut mask] = [Half::default(), Half::default()];
        value.words[0] = self.dst_mac.value.to_u64() << 16;
        mask.words[0] = self.dst_mac.mask.to_u64() << 16;
        value.words[1] = self.src_mac.value.to_u64() << 16;
        mask.words[1] = self.src_mac.mask.to_u64() << 16;
        if let Some(ether_type) = self.ether_type {
            value.words[1] |= u64::from(ether_type);
            mask.words[1] |= 0xffff;
            mask.kind.tags |= tags::SNAP;
        }
        let some = self.vlan.compile(&mut value, &mut mask);
        if let Some(ip) = self.ip {
            ip.compile(&mut value, &mut mask);
        }
        CompiledPattern { mask: mask.words(), value: value.words(), some }
    }
}

impl VlanPattern {
    /// Returns the bits of word 3 of which one has to be set.
    fn compile(self, value: &mut Half, mask: &mut Half) -> u64 {
        let (tci, customer, more) = match self {
            Self::Any => return 0,
            Self::Untagged => {
                mask.kind.tags |= tags::COUNT;
                return 0;
            }
            Self::Tagged { tci, customer, more } => (tci, customer, more),
        };
        value.words[2] |= u64::from(tci.value) << 48;
        mask.words[2] |= u64::from(tci.mask) << 48;
        if customer {
            mask.kind.tags |= tags::OUTER_IS_SERVICE;
        }
        match more {
            None => Kind { tags: tags::COUNT, ..Kind::default() }.to_word(),
            Some(more) => {
                mask.kind.tags |= tags::COUNT;
                value.kind.tags |= if more { 2 } else { 1 };
                0
            }
        }
    }
}

impl IpPattern {
    fn compile(self, value: &mut Half, mask: &mut Half) {
        let halves = |bits: u128| [(bits >> 64) as u64, (bits & 0xffff_ffff_ffff_ffff) as u64];
        (value.ends, mask.ends, value.kind.layer) = match self.addresses {
            AddressPattern::V4 { src, dst } => (
                [src.value, dst.value].map(|address| [0, u64::from(address)]),
                [src.mask, dst.mask].map(|address| [0, u64::from(address)]),
                layer::IPV4,
            ),
            AddressPattern::V6 { src, dst } => {
                ([src.value, dst.value].map(halves), [src.mask, dst.mask].map(halves), layer::IPV6)
            }
        };
        // No fields of a malformed packet are to be believed.
        (mask.kind.layer, mask.kind.malformed) = (!0, !0);
        let is_v4 = matches!(self.addresses, AddressPattern::V4 { .. });
        let (proto, ports) = match self.transport {
            TransportPattern::Any => return,
            TransportPattern::Protocol(proto) => (proto, None),
            TransportPattern::Tcp(ports) => (TCP, Some(ports)),
            TransportPattern::Udp(ports) => (UDP, Some(ports)),
            // They stand where the source port is.
            TransportPattern::Icmp { kind, code } => {
                let src = Masked {
                    value: u16::from_be_bytes([kind.value, code.value]),
                    mask: u16::from_be_bytes([kind.mask, code.mask]),
                };
                (if is_v4 { ICMP } else { ICMPV6 }, Some(PortsPattern { src, dst: Masked::default() }))
            }
        };
        (value.kind.proto, mask.kind.proto) = (proto, !0);
        if let Some(PortsPattern { src, dst }) = ports {
            value.words[2] |= u64::from(src.value) << 16 | u64::from(dst.value);
            mask.words[2] |= u64::from(src.mask) << 16 | u64::from(dst.mask);
            mask.kind.fragment = !0;
        }
    }
}

#[cfg(test)]
mod tests;

//! Frames as they are meant, and their bytes.

use kopi_packet::{FlowKey, Fragment, MacAddr, ndp, parse};

/// A frame, with small numbers for its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) dst_mac: u8,
    pub(crate) src_mac: u8,
    /// VLANs, the outer one first; two at most.
    pub(crate) tags: Vec<u16>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Ip(Ip),
    Arp {
        op: u16,
        sender: u8,
        src: [u8; 4],
        dst: [u8; 4],
    },
    Other {
        ethertype: u16,
    },
    /// An IEEE 802.3 frame: a length in the place of the type.
    Length,
}

#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) addresses: Pair,
    /// Differentiated services code point.
    pub(crate) dscp: u8,
    pub(crate) part: Fragment,
    pub(crate) l4: L4,
    /// Whether the transport header is cut short, if there is one.
    pub(crate) short: bool,
}

/// Source and destination.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pair {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

#[derive(Clone, Debug)]
pub(crate) enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    /// ICMP of the family; `rest` is what follows the checksum.
    Icmp {
        kind: u8,
        code: u8,
        rest: Vec<u8>,
    },
    Other(u8),
}

/// A locally administered address.
pub(crate) fn mac(number: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, number])
}

impl L4 {
    pub(crate) fn proto(&self, v6: bool) -> u8 {
        match self {
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::Icmp { .. } if v6 => 58,
            Self::Icmp { .. } => 1,
            Self::Other(proto) => *proto,
        }
    }

    fn bytes(&self, noise: u8) -> Vec<u8> {
        match self {
            Self::Tcp { src, dst, flags } => {
                let start = [src.to_be_bytes(), dst.to_be_bytes()].concat();
                [&start[..], &[noise; 8], &[0x50, *flags, noise, 1, 0, 0, 0, 0]].concat()
            }
            Self::Udp { src, dst } => [src.to_be_bytes(), dst.to_be_bytes(), [0, 8], [noise, 0]].concat(),
            Self::Icmp { kind, code, rest } => [&[*kind, *code, noise, 0], &rest[..]].concat(),
            Self::Other(_) => vec![noise; 16],
        }
    }
}

impl Ip {
    pub(crate) fn is_v6(&self) -> bool {
        matches!(self.addresses, Pair::V6(..))
    }

    fn bytes(&self, noise: u8) -> Vec<u8> {
        let mut payload = self.l4.bytes(noise);
        if self.short && !matches!(self.l4, L4::Other(_)) {
            payload.truncate(3);
        }
        let (offset, more) = match self.part {
            Fragment::None => (0, false),
            Fragment::First => (0, true),
            Fragment::Later => (100, noise & 1 != 0),
        };
        let proto = self.l4.proto(self.is_v6());
        match self.addresses {
            Pair::V4(src, dst) => {
                let length = u16::try_from(payload.len() + 20).unwrap();
                let part = offset | u16::from(more) << 13;
                let mut bytes = vec![0x45, self.dscp << 2 | noise & 3];
                bytes.extend(
                    [length.to_be_bytes(), [noise, 7], part.to_be_bytes(), [noise | 1, proto], [0; 2]].concat(),
                );
                [&bytes[..], &src, &dst, &payload].concat()
            }
            Pair::V6(src, dst) => {
                let fragmented = self.part != Fragment::None;
                if fragmented {
                    let part: u16 = offset << 3 | u16::from(more);
                    let header = [&[proto, 0][..], &part.to_be_bytes(), &[0, 0, noise, 9]].concat();
                    payload.splice(0..0, header);
                }
                let length = u16::try_from(payload.len()).unwrap();
                let next = if fragmented { 44 } else { proto };
                let class = self.dscp << 2 | noise & 3;
                let start =
                    [&[0x60 | class >> 4, class << 4, 0, noise], &length.to_be_bytes()[..], &[next, 255]].concat();
                [&start[..], &src, &dst, &payload].concat()
            }
        }
    }
}

impl Frame {
    /// The bytes; frames that differ only in `noise` are of one flow.
    pub(crate) fn bytes(&self, noise: u8) -> Vec<u8> {
        let mut bytes = [mac(self.dst_mac).bytes(), mac(self.src_mac).bytes()].concat();
        for tag in &self.tags {
            bytes.extend([[0x81, 0], tag.to_be_bytes()].concat());
        }
        let (ethertype, packet) = match &self.body {
            Body::Ip(ip) => (if ip.is_v6() { 0x86dd } else { 0x0800 }, ip.bytes(noise)),
            Body::Arp { op, sender, src, dst } => {
                let start = [&[0, 1, 8, 0, 6, 4][..], &op.to_be_bytes(), &mac(*sender).bytes()].concat();
                (0x0806, [&start[..], src, &[0; 6], dst].concat())
            }
            Body::Other { ethertype } => (*ethertype, vec![noise; 20]),
            Body::Length => (64 + u16::from(noise), vec![noise; 46]),
        };
        bytes.extend(u16::to_be_bytes(ethertype));
        bytes.extend(packet);
        bytes
    }

    /// The key, as a worker makes it under a ruleset that looks at the flags in `mask`.
    pub(crate) fn key(&self, noise: u8, mask: u8) -> FlowKey {
        let (_, key) = parse(&self.bytes(noise), 3);
        match &self.body {
            Body::Ip(Ip { l4: L4::Tcp { flags, .. }, .. }) => key.with_tcp_flags(flags & mask),
            _ => key,
        }
    }

    pub(crate) fn ndp(&self) -> Option<ndp::Message> {
        let bytes = self.bytes(0);
        let (headers, _) = parse(&bytes, 3);
        ndp::message(&bytes, &headers)
    }

    /// Whether it cannot be read to its end.
    pub(crate) fn is_malformed(&self) -> bool {
        let Body::Ip(ip) = &self.body else { return false };
        ip.short && ip.part != Fragment::Later && !matches!(ip.l4, L4::Other(_))
    }
}

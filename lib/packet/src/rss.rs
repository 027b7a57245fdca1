//! The hash that spreads flows over the queues of an application: what NICs call RSS.
//!
//! An application chooses its key and over what it is, and works it out again in software (`rte_softrss` of DPDK), so it is the
//! function of the cards, bit by bit.

use crate::key::layer;
use crate::proto::{SCTP, TCP, UDP};
use crate::{FlowKey, Fragment, Seed};

/// Bytes of a key.
pub const RSS_KEY_SIZE: usize = 40;
/// A key of the hash.
pub type RssKey = [u8; RSS_KEY_SIZE];

/// Half bytes of the longest input: two addresses of IPv6 and two ports.
const NIBBLES: usize = 72;
/// Half bytes of a 64-bit word.
const OF_WORD: usize = 16;

/// The Toeplitz hash under one key: each bit of the input that is set adds the 32 bits of the key that begin at the same place.
///
/// It is linear, so what a half byte adds is looked up: in 4.5 KiB, of which a connection of IPv4 needs a third.
///
/// # Source
///
/// "RSS Hashing Functions" of Microsoft's documentation of NDIS, with the vectors of "Verifying the RSS Hash Calculation".
#[derive(Clone)]
pub struct Toeplitz {
    key: RssKey,
    tables: [[u32; 16]; NIBBLES],
}

impl Toeplitz {
    /// The hash under `key`.
    #[must_use]
    pub fn new(key: RssKey) -> Self {
        let mut tables = [[0; 16]; NIBBLES];
        for (place, table) in tables.iter_mut().enumerate() {
            // Bit 0 is the last one of a half byte.
            let windows = [3, 2, 1, 0].map(|bit| window(&key, 4 * place + bit));
            for value in 1..16_usize {
                let others = value & (value - 1);
                table[value] = table[others] ^ windows[value.trailing_zeros() as usize];
            }
        }
        Self { key, tables }
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &RssKey {
        &self.key
    }

    /// What the upper `N` half bytes of `word` add, of which the first is half byte `place` of the input.
    #[inline]
    fn word<const N: usize>(&self, place: usize, word: u64) -> u32 {
        let tables = self.tables.get(place..).and_then(<[_]>::first_chunk::<N>);
        let Some(tables) = tables else { return 0 };
        let sums = tables.iter().enumerate().map(|(at, table)| table[(word >> (60 - 4 * at) & 15) as usize]);
        sums.fold(0, core::ops::BitXor::bitxor)
    }

    /// Of addresses of IPv4, one after the other in a word.
    #[inline]
    fn ipv4(&self, addresses: u64) -> u32 {
        self.word::<OF_WORD>(0, addresses)
    }

    /// Of addresses of IPv6, of which each is two words.
    #[inline]
    fn ipv6(&self, [[s0, s1], [d0, d1]]: [[u64; 2]; 2]) -> u32 {
        self.word::<OF_WORD>(0, s0)
            ^ self.word::<OF_WORD>(OF_WORD, s1)
            ^ self.word::<OF_WORD>(2 * OF_WORD, d0)
            ^ self.word::<OF_WORD>(3 * OF_WORD, d1)
    }

    /// What two ports, the low half of a word, add behind addresses of so many half bytes.
    #[inline]
    fn ports(&self, addresses: usize, ports: u64) -> u32 {
        self.word::<8>(addresses, ports << 32)
    }
}

impl core::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Toeplitz").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The 32 bits of `key` from bit `begin` on.
fn window(key: &RssKey, begin: usize) -> u32 {
    let bytes = key.iter().skip(begin / 8).take(5);
    let bits = bytes.fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> (8 - begin % 8) & 0xffff_ffff) as u32
}

/// The key of a host for applications that choose none, made from what tells this start of the host from others: up to 56 bytes of it.
/// It is the same in every build of kopid.
///
/// It is not a secret: whoever is on the host can work it out, as with a NIC's well-known key, and so choose the queue of what
/// they send. It has nothing to do with the [`Seed`] of the flow table.
#[must_use]
pub fn rss_key_of_boot(id: &[u8]) -> RssKey {
    /// Any bytes would do, but not others than those of earlier builds.
    const FIXED: &[u8; 64] = b"kopi: the queue of an application that gets a connection's frame";
    let fixed = Seed::from_bytes(*FIXED);
    let mut words = [0; 8];
    for (to, from) in words.iter_mut().zip(id.chunks(8)) {
        let mut word = [0; 8];
        word.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        *to = u64::from_le_bytes(word);
    }
    let mut key = [0; RSS_KEY_SIZE];
    for (number, to) in (0..).zip(key.as_chunks_mut::<8>().0) {
        words[7] = number;
        *to = fixed.hash(&words).to_le_bytes();
    }
    key
}

/// The kinds of packets that are hashed, and over what, as a set of `RTE_ETH_RSS_*` of DPDK.
///
/// | bits | packets | over |
/// | --- | --- | --- |
/// | `IPV4`, `IPV6` | all of the family | addresses |
/// | `FRAG_IPV4`, `FRAG_IPV6` | fragments, the first one too | addresses |
/// | `NONFRAG_IPV4_TCP`, `_UDP`, `_SCTP`, and those of IPv6 | no fragments, of that protocol | addresses and ports |
/// | `NONFRAG_IPV4_OTHER`, `NONFRAG_IPV6_OTHER` | no fragments, of other protocols | addresses |
/// | `IPV6_EX`, `IPV6_TCP_EX`, `IPV6_UDP_EX` | as the bits without `EX` | as those |
///
/// Where two of them fit, the one with ports counts. Extension headers of IPv6 are passed over: the addresses are those of the IP
/// header, whatever a header behind it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssTypes {
    /// Bit 0 is for all of the family, the others are for the kinds below.
    ipv4: u8,
    ipv6: u8,
}

/// Bits of the kinds of a family, in the order that DPDK has them in for both.
const ANY: u8 = 1;
const FRAG: u8 = 1 << 1;
const NONFRAG_TCP: u8 = 1 << 2;
const NONFRAG_UDP: u8 = 1 << 3;
const NONFRAG_SCTP: u8 = 1 << 4;
const NONFRAG_OTHER: u8 = 1 << 5;
const OF_FAMILY: u64 = 0x3f;
/// Where each family begins among DPDK's bits.
const IPV4: u32 = 2;
const IPV6: u32 = 8;
/// DPDK's bits for packets with extension headers, and what they stand for.
const EX: [(u64, u8); 3] = [(1 << 15, ANY), (1 << 16, NONFRAG_TCP), (1 << 17, NONFRAG_UDP)];

impl RssTypes {
    /// No packets.
    pub const NONE: Self = Self { ipv4: 0, ipv6: 0 };
    /// All kinds that there are: `RTE_ETH_RSS_IP`, `_TCP`, `_UDP` and `_SCTP`.
    pub const ALL: Self = Self { ipv4: 0x3f, ipv6: 0x3f };
    /// DPDK's bits of these.
    pub const ALL_BITS: u64 = OF_FAMILY << IPV4 | OF_FAMILY << IPV6 | EX[0].0 | EX[1].0 | EX[2].0;

    /// The kinds that these bits of DPDK's stand for; `None` if one of them is of no kind that there is.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        if bits & !Self::ALL_BITS != 0 {
            return None;
        }
        let family = |begin: u32| (bits >> begin & OF_FAMILY) as u8;
        let ex = EX.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |all, (_, kind)| all | kind);
        Some(Self { ipv4: family(IPV4), ipv6: family(IPV6) | ex })
    }
}

impl FlowKey {
    /// The hash that chooses the queue of a receiver which has chosen the function `toeplitz` and these `types`. It is 0 for packets of
    /// other kinds, and for what is not IP. What else may differ between packets of a connection does not count.
    #[must_use]
    pub fn rss(&self, toeplitz: &Toeplitz, types: RssTypes) -> u32 {
        let kind = self.kind();
        let family = match kind.layer {
            layer::IPV4 => types.ipv4,
            layer::IPV6 => types.ipv6,
            _ => return 0,
        };
        let of_kind = match kind.proto {
            _ if kind.fragment != Fragment::None as u8 => FRAG,
            TCP if self.has_ports() => NONFRAG_TCP,
            UDP if self.has_ports() => NONFRAG_UDP,
            SCTP if self.has_ports() => NONFRAG_SCTP,
            _ => NONFRAG_OTHER,
        };
        if family & (of_kind | ANY) == 0 {
            return 0;
        }
        let ports = family & of_kind & (NONFRAG_TCP | NONFRAG_UDP | NONFRAG_SCTP) != 0;
        let [_, _, l4, _, addresses, ..] = *self.words();
        match (kind.layer == layer::IPV4, ports) {
            (true, true) => toeplitz.ipv4(addresses) ^ toeplitz.ports(OF_WORD, l4),
            (true, false) => toeplitz.ipv4(addresses),
            (false, true) => toeplitz.ipv6(self.ends()) ^ toeplitz.ports(4 * OF_WORD, l4),
            (false, false) => toeplitz.ipv6(self.ends()),
        }
    }
}

#[cfg(test)]
mod tests;

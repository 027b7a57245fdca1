//! The hash that spreads flows over the queues of an application.

use crate::key::layer;
use crate::{FlowKey, Fragment, Seed};

/// The seed of the hash that applications get with what they receive, and that chooses the queue: one per host.
///
/// It is not a secret: whoever is on the host can work it out, as with a NIC's well-known key, and so choose the queue of what
/// they send. It is not the [`Seed`] of the flow table, nor made from it.
#[derive(Clone, Debug)]
pub struct RssSeed(Seed);

impl RssSeed {
    /// Makes a seed from 64 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(Seed::from_bytes(bytes))
    }

    /// Makes the seed of a host from what tells this start of it from others: up to 56 bytes of it. It is the same in every build
    /// of kopid.
    #[must_use]
    pub fn of_boot(id: &[u8]) -> Self {
        /// Any bytes would do, but not others than those of earlier builds.
        const FIXED: &[u8; 64] = b"kopi: the queue of an application that gets a connection's frame";
        let fixed = Seed::from_bytes(*FIXED);
        let mut words = [0; 8];
        for (to, from) in words.iter_mut().zip(id.chunks(8)) {
            let mut word = [0; 8];
            word.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            *to = u64::from_le_bytes(word);
        }
        let mut bytes = [0; 64];
        for (number, to) in (0..).zip(bytes.as_chunks_mut::<8>().0) {
            words[7] = number;
            *to = fixed.hash(&words).to_le_bytes();
        }
        Self::from_bytes(bytes)
    }
}

impl FlowKey {
    /// The hash that chooses the queue of a receiver. It is over what `RTE_ETH_RSS_IP`, `_TCP`, `_UDP` and `_SCTP` of DPDK mean,
    /// and over the ports of UDP-Lite, so a connection has one value, whatever else differs between its packets:
    ///
    /// - the addresses, the protocol and, if there are any, the ports;
    /// - for a fragment, the first one too, the addresses and the protocol, since the others have no ports. For IPv6 the addresses
    ///   alone: a fragment header may name an extension header, behind which only the first fragment has the protocol;
    /// - for what is not IP, 0.
    #[must_use]
    pub fn rss(&self, seed: &RssSeed) -> u32 {
        let (ports, [[s0, s1], [d0, d1]]) = (self.words()[2], self.ends());
        let kind = self.kind();
        let whole = kind.fragment == Fragment::None as u8;
        let proto = match kind.layer {
            layer::IPV6 if !whole => 0,
            layer::IPV4 | layer::IPV6 => kind.proto,
            _ => return 0,
        };
        let ports = if whole && self.has_ports() { ports & 0xffff_ffff } else { 0 };
        (seed.0.hash(&[ports, proto.into(), 0, 0, s0, s1, d0, d1]) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::frame_of;
    use crate::parse;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::format;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    fn seed() -> RssSeed {
        RssSeed::from_bytes(core::array::from_fn(|i| u8::try_from(i).unwrap().wrapping_mul(151) ^ 0x5c))
    }

    fn key(text: &str) -> FlowKey {
        parse(&frame_of(text).unwrap(), 0).1
    }

    fn rss(text: &str) -> u32 {
        key(text).rss(&seed())
    }

    /// Everything in which packets of one connection, or of one fragmented packet, may differ leaves the hash alone.
    #[test]
    fn packets_of_a_connection_have_one_hash() {
        let same: [&[&str]; 5] = [
            &[
                "tcp 10.0.0.1:1000 > 10.0.0.2:80",
                "tcp 10.0.0.1:1000 > 10.0.0.2:80 flags ack from 02:00:00:00:00:01 to 02:00:00:00:00:09",
                "vlan 7 tcp 10.0.0.1:1000 > 10.0.0.2:80 flags fin,ack",
                "service-vlan 9 vlan 7 tcp 10.0.0.1:1000 > 10.0.0.2:80",
            ],
            &["udp [fe80::1]:53 > [fe80::2]:53", "vlan 1 udp [fe80::1]:53 > [fe80::2]:53 from 02:00:00:00:00:01"],
            &[
                "udp 10.0.0.1:1 > 10.0.0.2:2 first fragment",
                "udp 10.0.0.1:3 > 10.0.0.2:4 first fragment",
                "proto 17 10.0.0.1 > 10.0.0.2 later fragment",
            ],
            &["udp [fe80::1]:1 > [fe80::2]:2 first fragment", "proto 17 fe80::1 > fe80::2 later fragment"],
            &[
                "icmp 10.0.0.1 > 10.0.0.2 type 8 id 5",
                "icmp 10.0.0.1 > 10.0.0.2 type 0 id 6",
                "icmp 10.0.0.1 > 10.0.0.2 type 3 code 1",
                "icmp 10.0.0.1 > 10.0.0.2 first fragment",
                "proto 1 10.0.0.1 > 10.0.0.2 later fragment",
            ],
        ];
        for texts in same {
            for text in texts {
                assert_eq!(rss(text), rss(texts[0]), "{text}");
            }
        }
    }

    /// Each field of a plain frame that is no address, protocol or port may be anything.
    #[test]
    fn other_fields_of_a_frame_are_not_hashed() {
        let plain = frame_of("tcp 10.0.0.1:1000 > 10.0.0.2:80").unwrap();
        let expected = parse(&plain, 0).1.rss(&seed());
        // The addresses of the frame; DSCP and ECN, identification, the flag against fragments, TTL, checksum; and TCP's own, but
        // for the length of its header.
        for at in (0..12).chain([15, 18, 19, 20, 22, 24, 25]).chain(38..46).chain(47..54) {
            let mut other = plain.clone();
            other[at] ^= if at == 20 { 0x40 } else { 0xff };
            let (_, key) = parse(&other, 9);
            assert_eq!(key.rss(&seed()), expected, "byte {at}");
            assert_eq!(key.with_tcp_flags(0x12).rss(&seed()), expected, "byte {at}");
        }
        // Four options that do nothing, and SNAP.
        let mut options = plain.clone();
        options[14] = 0x46;
        options[17] += 4;
        options.splice(34..34, [1; 4]);
        assert_eq!(parse(&options, 0).1.rss(&seed()), expected);
        let mut snap = plain;
        snap.splice(12..12, [0, 48, 0xaa, 0xaa, 3, 0, 0, 0]);
        assert_eq!(parse(&snap, 0).1.rss(&seed()), expected);
    }

    /// Extension headers of IPv6 change nothing, and no fragment leaves the others where options stand behind the fragment
    /// header.
    #[test]
    fn extension_headers_are_not_hashed() {
        const DESTINATION: u8 = 60;
        const FRAGMENT: u8 = 44;
        let plain = frame_of("udp [fe80::1]:53 > [fe80::2]:99").unwrap();
        let with = |chain: &[(u8, [u8; 8])]| {
            let mut frame = plain.clone();
            let mut at = 54;
            frame[20] = chain[0].0;
            for (number, (_, header)) in chain.iter().enumerate() {
                let mut header = *header;
                header[0] = chain.get(number + 1).map_or(17, |(proto, _)| *proto);
                frame.splice(at..at, header);
                at += 8;
            }
            let length = u16::try_from(frame.len() - 54).unwrap().to_be_bytes();
            frame[18..20].copy_from_slice(&length);
            parse(&frame, 0).1
        };
        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        let whole = with(&[(DESTINATION, padding)]);
        assert_eq!((whole.fragment(), whole.rss(&seed())), (Fragment::None, rss("udp [fe80::1]:53 > [fe80::2]:99")));
        let first = with(&[(FRAGMENT, [0, 0, 0, 1, 0, 0, 0, 5]), (DESTINATION, padding)]);
        let later = with(&[(FRAGMENT, [0, 0, 4, 0, 0, 0, 0, 5]), (DESTINATION, padding)]);
        assert_eq!((first.fragment(), first.proto()), (Fragment::First, 17));
        assert_eq!((later.fragment(), later.proto()), (Fragment::Later, DESTINATION));
        assert_eq!(first.rss(&seed()), later.rss(&seed()));
    }

    /// What is not IP has no hash, as from a NIC.
    #[test]
    fn what_is_not_ip_has_none() {
        for text in [
            "arp request 10.0.0.1 > 10.0.0.2",
            "arp reply 10.0.0.3 > 10.0.0.2",
            "0x88cc 02:00:00:00:00:01 > 02:00:00:00:00:02",
        ] {
            assert_eq!(rss(text), 0, "{text}");
        }
        assert_eq!(parse(&[], 3).1.rss(&seed()), 0);
    }

    proptest! {
        /// Addresses, protocol and ports each count, and in their own place.
        #[test]
        fn each_part_of_a_connection_counts(bit in 0_u32..64, source: u32, destination: u32, ports: (u16, u16), tcp: bool) {
            let text = |tcp: bool, (s, d): (u32, u32), (from, to): (u16, u16)| {
                let proto = if tcp { "tcp" } else { "udp" };
                let [s, d] = [s, d].map(core::net::Ipv4Addr::from);
                format!("{proto} {s}:{from} > {d}:{to}")
            };
            let plain = rss(&text(tcp, (source, destination), ports));
            let [s, d] = if bit < 32 { [1 << bit, 0] } else { [0, 1 << (bit - 32)] };
            let [f, t] = [1_u16.rotate_left(bit), 0_u16];
            prop_assert_ne!(plain, rss(&text(tcp, (source ^ s, destination ^ d), ports)));
            prop_assert_ne!(plain, rss(&text(tcp, (source, destination), (ports.0 ^ f, ports.1 ^ t))));
            prop_assert_ne!(plain, rss(&text(tcp, (source, destination), (ports.0 ^ t, ports.1 ^ f))));
            prop_assert_ne!(plain, rss(&text(!tcp, (source, destination), ports)));
        }
    }

    /// A connection keeps its queue when another build of kopid starts on the host, and not when the host does.
    #[test]
    fn seed_of_a_host_stays() {
        let [one, other] = ["1d1f7b7c-8a3e-4a52-9a3c-0d7e3b0f6a11\n", "1d1f7b7c-8a3e-4a52-9a3c-0d7e3b0f6a12\n"]
            .map(|id| RssSeed::of_boot(id.as_bytes()));
        let texts =
            ["tcp 10.0.0.1:1000 > 10.0.0.2:80", "udp [fe80::1]:53 > [fe80::2]:53", "proto 89 10.0.0.1 > 10.0.0.2"];
        assert_eq!(texts.map(|text| key(text).rss(&one)), [0xa88c_d973, 0xcabc_dafb, 0xbdf3_ef3a]);
        assert!(texts.iter().all(|text| key(text).rss(&one) != key(text).rss(&other)));
        // An identifier that is cut short, or none, is one too.
        let short: BTreeSet<u32> = (0..=56).map(|n| key(texts[0]).rss(&RssSeed::of_boot(&[b'x'; 56][..n]))).collect();
        assert_eq!(short.len(), 57);
    }

    /// Connections that are numbered through spread evenly: over queues by the high bits, over tables of applications by the
    /// low ones. The bounds are those of [`Seed::hash`]'s tests.
    #[test]
    fn connections_spread() {
        spread(&seed());
        spread(&RssSeed::of_boot(b"1d1f7b7c-8a3e-4a52-9a3c-0d7e3b0f6a11\n"));
    }

    fn spread(seed: &RssSeed) {
        let texts: [fn(u32) -> String; 3] = [
            |n| format!("tcp 10.0.0.1:{} > 10.0.0.2:80", 1 + n % 65_535),
            |n| format!("udp 10.1.{}.{}:53 > 10.0.0.2:53", n >> 8 & 0xff, n & 0xff),
            |n| format!("tcp [2001:db8::{:x}]:{} > [2001:db8::1]:443", n & 0xff, 1024 + (n >> 8)),
        ];
        for (number, text) in texts.into_iter().enumerate() {
            let hashes: Vec<u32> = (0..16_384).map(|n| key(&text(n)).rss(seed)).collect();
            let distinct = hashes.iter().collect::<BTreeSet<_>>().len();
            assert!(distinct > 16_384 - 4, "{number}: {distinct} values");
            for shift in [0, 10, 22] {
                let mut buckets = vec![0_u32; 1024];
                hashes.iter().for_each(|hash| buckets[usize::try_from(hash >> shift & 1023).unwrap()] += 1);
                let chi: f64 = buckets.iter().map(|&n| (f64::from(n) - 16.0).powi(2) / 16.0).sum();
                assert!(chi < 1320.0, "{number} shift {shift}: {chi}");
            }
        }
    }
}

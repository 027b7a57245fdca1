use super::*;
use crate::describe::frame_of;
use crate::parse;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::format;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::string::String;
use std::vec;
use std::vec::Vec;

/// The key of the published vectors.
const PUBLISHED: RssKey = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];
const BOOT: &[u8] = b"1d1f7b7c-8a3e-4a52-9a3c-0d7e3b0f6a11\n";
/// Kinds of IPv4 and IPv6 by DPDK's numbers.
const BIT: fn(u32) -> RssTypes = |bit| RssTypes::from_bits(1 << bit).unwrap();

fn published() -> Toeplitz {
    Toeplitz::new(PUBLISHED)
}

fn key(text: &str) -> FlowKey {
    parse(&frame_of(text).unwrap(), 0).1
}

fn rss(text: &str) -> u32 {
    key(text).rss(&published(), RssTypes::ALL)
}

/// The definition, bit by bit: shift the key through, and add its upper 32 bits for each bit of the input that is set.
fn by_definition(key: &RssKey, input: &[u8]) -> u32 {
    let mut sum = 0;
    let mut shifted = *key;
    for byte in input {
        for bit in (0..8).rev() {
            if byte >> bit & 1 == 1 {
                sum ^= u32::from_be_bytes([shifted[0], shifted[1], shifted[2], shifted[3]]);
            }
            let carried: Vec<u8> = shifted.iter().skip(1).map(|next| next >> 7).chain([0]).collect();
            shifted.iter_mut().zip(carried).for_each(|(byte, carry)| *byte = *byte << 1 | carry);
        }
    }
    sum
}

/// "Verifying the RSS Hash Calculation" of Microsoft: destination, source, hash of addresses, hash with the ports of TCP.
#[test]
fn published_vectors() {
    let ipv4 = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
    ];
    let ipv6 = [
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x4b61_e985, 0x02d1_feef),
    ];
    let (tcp4, any4, tcp6, any6) = (BIT(4), BIT(2), BIT(10), BIT(8));
    let hash = |text: &str, types| key(text).rss(&published(), types);
    for (destination, source, addresses, with_ports) in ipv4 {
        let text = format!("tcp {source} > {destination}");
        assert_eq!((hash(&text, any4), hash(&text, tcp4)), (addresses, with_ports), "{text}");
        assert_eq!((hash(&text, any6), hash(&text, tcp6)), (0, 0), "{text}");
    }
    for (destination, source, addresses, with_ports) in ipv6 {
        let text = format!("tcp {source} > {destination}");
        assert_eq!((hash(&text, any6), hash(&text, tcp6)), (addresses, with_ports), "{text}");
        assert_eq!((hash(&text, any4), hash(&text, tcp4)), (0, 0), "{text}");
    }
}

/// Each kind is hashed if its bit is set, over what the bit is for, and no other bit but that of its family has it hashed.
#[test]
fn each_type_is_of_its_packets() {
    const ADDRESSES: bool = false;
    const PORTS: bool = true;
    // A packet, the bits that have it hashed, and over what.
    let cases: [(&str, &[(u32, bool)]); 13] = [
        ("tcp 10.0.0.1:1000 > 10.0.0.2:80", &[(2, ADDRESSES), (4, PORTS)]),
        ("udp 10.0.0.1:1000 > 10.0.0.2:80", &[(2, ADDRESSES), (5, PORTS)]),
        ("sctp 10.0.0.1:1000 > 10.0.0.2:80", &[(2, ADDRESSES), (6, PORTS)]),
        ("icmp 10.0.0.1 > 10.0.0.2 type 8 id 5", &[(2, ADDRESSES), (7, ADDRESSES)]),
        ("udplite 10.0.0.1:1000 > 10.0.0.2:80", &[(2, ADDRESSES), (7, ADDRESSES)]),
        ("udp 10.0.0.1:1 > 10.0.0.2:2 first fragment", &[(2, ADDRESSES), (3, ADDRESSES)]),
        ("proto 17 10.0.0.1 > 10.0.0.2 later fragment", &[(2, ADDRESSES), (3, ADDRESSES)]),
        ("tcp [fe80::1]:53 > [fe80::2]:99", &[(8, ADDRESSES), (10, PORTS), (15, ADDRESSES), (16, PORTS)]),
        ("udp [fe80::1]:53 > [fe80::2]:99", &[(8, ADDRESSES), (11, PORTS), (15, ADDRESSES), (17, PORTS)]),
        ("sctp [fe80::1]:53 > [fe80::2]:99", &[(8, ADDRESSES), (12, PORTS), (15, ADDRESSES)]),
        ("proto 89 fe80::1 > fe80::2", &[(8, ADDRESSES), (13, ADDRESSES), (15, ADDRESSES)]),
        ("udp [fe80::1]:1 > [fe80::2]:2 first fragment", &[(8, ADDRESSES), (9, ADDRESSES), (15, ADDRESSES)]),
        ("proto 17 fe80::1 > fe80::2 later fragment", &[(8, ADDRESSES), (9, ADDRESSES), (15, ADDRESSES)]),
    ];
    let toeplitz = published();
    for (text, hashed) in cases {
        let key = key(text);
        let [_, _, ports, ..] = *key.words();
        let ends = key.ends();
        let addresses = match key.kind().layer {
            layer::IPV4 => ends.map(|[_, low]| u32::try_from(low).unwrap().to_be_bytes()).concat(),
            _ => ends.map(|words| words.map(u64::to_be_bytes).concat()).concat(),
        };
        let with_ports = [&addresses[..], &ports.to_be_bytes()[4..]].concat();
        for bit in 0..64 {
            let Some(types) = RssTypes::from_bits(1 << bit) else {
                assert!(!(2..=13).contains(&bit) && !(15..=17).contains(&bit), "bit {bit}");
                continue;
            };
            let expected = match hashed.iter().find(|(of, _)| *of == bit) {
                Some((_, PORTS)) => by_definition(&PUBLISHED, &with_ports),
                Some((_, ADDRESSES)) => by_definition(&PUBLISHED, &addresses),
                None => 0,
            };
            assert_eq!(key.rss(&toeplitz, types), expected, "{text}, bit {bit}");
        }
        assert_eq!(key.rss(&toeplitz, RssTypes::NONE), 0);
    }
    assert_eq!(RssTypes::from_bits(RssTypes::ALL_BITS), Some(RssTypes::ALL));
    assert_eq!(RssTypes::from_bits(0), Some(RssTypes::NONE));
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

/// Each field of a plain frame that is no address or port may be anything.
#[test]
fn other_fields_of_a_frame_are_not_hashed() {
    let plain = frame_of("tcp 10.0.0.1:1000 > 10.0.0.2:80").unwrap();
    let hash = |key: FlowKey| key.rss(&published(), RssTypes::ALL);
    let expected = hash(parse(&plain, 0).1);
    // The addresses of the frame; DSCP and ECN, identification, the flag against fragments, TTL, checksum; and TCP's own, but
    // for the length of its header.
    for at in (0..12).chain([15, 18, 19, 20, 22, 24, 25]).chain(38..46).chain(47..54) {
        let mut other = plain.clone();
        other[at] ^= if at == 20 { 0x40 } else { 0xff };
        let (_, key) = parse(&other, 9);
        assert_eq!(hash(key), expected, "byte {at}");
        assert_eq!(hash(key.with_tcp_flags(0x12)), expected, "byte {at}");
    }
    // Four options that do nothing, and SNAP.
    let mut options = plain.clone();
    options[14] = 0x46;
    options[17] += 4;
    options.splice(34..34, [1; 4]);
    assert_eq!(hash(parse(&options, 0).1), expected);
    let mut snap = plain;
    snap.splice(12..12, [0, 48, 0xaa, 0xaa, 3, 0, 0, 0]);
    assert_eq!(hash(parse(&snap, 0).1), expected);
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
    let hash = |key: &FlowKey| key.rss(&published(), RssTypes::ALL);
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    let whole = with(&[(DESTINATION, padding)]);
    assert_eq!((whole.fragment(), hash(&whole)), (Fragment::None, rss("udp [fe80::1]:53 > [fe80::2]:99")));
    let first = with(&[(FRAGMENT, [0, 0, 0, 1, 0, 0, 0, 5]), (DESTINATION, padding)]);
    let later = with(&[(FRAGMENT, [0, 0, 4, 0, 0, 0, 0, 5]), (DESTINATION, padding)]);
    assert_eq!((first.fragment(), first.proto()), (Fragment::First, 17));
    assert_eq!((later.fragment(), later.proto()), (Fragment::Later, DESTINATION));
    assert_eq!(hash(&first), hash(&later));
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
    assert_eq!(parse(&[], 3).1.rss(&published(), RssTypes::ALL), 0);
}

proptest! {
    /// Tables say what the definition says, under any key.
    #[test]
    fn tables_are_as_the_definition(
        begin in any::<[u8; 20]>(), end in any::<[u8; 20]>(),
        source: u32, destination: u32, sources: u128, destinations: u128, from: u16, to: u16, ports: bool
    ) {
        let secret: RssKey = [begin, end].concat().try_into().unwrap();
        let toeplitz = Toeplitz::new(secret);
        let both = [from.to_be_bytes(), to.to_be_bytes()].concat();
        let input = |addresses: &[u8]| [addresses, if ports { &both } else { &[] }].concat();
        let types = if ports { RssTypes::ALL } else { RssTypes { ipv4: ANY, ipv6: ANY } };
        let [s, d] = [source, destination].map(Ipv4Addr::from);
        let hash = key(&format!("udp {s}:{from} > {d}:{to}")).rss(&toeplitz, types);
        prop_assert_eq!(hash, by_definition(&secret, &input(&[s.octets(), d.octets()].concat())));
        let [s, d] = [sources, destinations].map(Ipv6Addr::from);
        let hash = key(&format!("tcp [{s}]:{from} > [{d}]:{to}")).rss(&toeplitz, types);
        prop_assert_eq!(hash, by_definition(&secret, &input(&[s.octets(), d.octets()].concat())));
    }
}

/// A connection keeps its queue when another build of kopid starts on the host, and not when the host does.
#[test]
fn key_of_a_host_stays() {
    let other = rss_key_of_boot(b"1d1f7b7c-8a3e-4a52-9a3c-0d7e3b0f6a12\n");
    assert_eq!(
        rss_key_of_boot(BOOT),
        [
            9, 231, 83, 51, 0, 92, 86, 199, 211, 128, 108, 176, 129, 152, 101, 29, 205, 92, 97, 92, 245, 246, 253, 39,
            64, 71, 130, 7, 10, 18, 114, 101, 63, 237, 246, 135, 57, 77, 107, 6
        ]
    );
    assert_ne!(rss_key_of_boot(BOOT), other);
    // An identifier that is cut short, or none, is one too.
    let short: BTreeSet<RssKey> = (0..=56).map(|n| rss_key_of_boot(&[b'x'; 56][..n])).collect();
    assert_eq!(short.len(), 57);
}

/// Connections that are numbered through spread over the entries of a redirection table, under the key of a host and the
/// published one. The function is linear, so that is no matter of chance alone: no entry has more than four times its part.
#[test]
fn connections_spread() {
    let texts: [fn(u32) -> String; 3] = [
        |n| format!("tcp 10.0.0.1:{} > 10.0.0.2:80", 1 + n % 65_535),
        |n| format!("udp 10.1.{}.{}:53 > 10.0.0.2:53", n >> 8 & 0xff, n & 0xff),
        |n| format!("tcp [2001:db8::{:x}]:{} > [2001:db8::1]:443", n & 0xff, 1024 + (n >> 8)),
    ];
    for toeplitz in [published(), Toeplitz::new(rss_key_of_boot(BOOT))] {
        for (number, text) in texts.into_iter().enumerate() {
            let mut entries = vec![0_u32; 128];
            (0..16_384).for_each(|n| {
                let hash = key(&text(n)).rss(&toeplitz, RssTypes::ALL);
                entries[usize::try_from(hash & 127).unwrap()] += 1;
            });
            assert!(entries.iter().all(|&n| (32..=512).contains(&n)), "{number}: {entries:?}");
        }
    }
}

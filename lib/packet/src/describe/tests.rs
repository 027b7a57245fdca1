//! What is printed is read, what is read is printed, and nothing else gets through.

use super::alloc::format;
use super::alloc::string::ToString;
use super::alloc::vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::{Headers, ndp, tcp};

/// Descriptions as [`FlowKey`](crate::FlowKey) prints them.
fn descriptions() -> impl Strategy<Value = String> {
    let tag = ("(service-)?vlan", 0_u16..4096).prop_map(|(word, id)| format!("{word} {id} "));
    let tags = prop::collection::vec(tag, 0..=2).prop_map(|tags| tags.concat());
    (tags, prop_oneof![with_ports(), without_ports(), icmp(), arp(), other()]).prop_map(|(tags, rest)| tags + &rest)
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr::new)
}

fn with_ports() -> impl Strategy<Value = String> {
    let ends = prop_oneof![
        any::<((Ipv4Addr, u16), (Ipv4Addr, u16))>().prop_map(|(a, b)| (SocketAddr::from(a), SocketAddr::from(b))),
        any::<((Ipv6Addr, u16), (Ipv6Addr, u16))>().prop_map(|(a, b)| (SocketAddr::from(a), SocketAddr::from(b))),
    ];
    let proto = select(vec!["tcp", "udp", "udplite", "sctp"]);
    (proto, ends, any::<bool>()).prop_map(|(proto, (a, b), first)| {
        let fragment = if first { " first fragment" } else { "" };
        format!("{proto} {a} > {b}{fragment}")
    })
}

fn without_ports() -> impl Strategy<Value = String> {
    let v4 = (select(vec!["proto 47", "proto 58", "proto 255"]), any::<(Ipv4Addr, Ipv4Addr)>())
        .prop_map(|(proto, (a, b))| format!("{proto} {a} > {b}"));
    let v6 = (select(vec!["proto 47", "proto 1", "proto 59"]), any::<(Ipv6Addr, Ipv6Addr)>())
        .prop_map(|(proto, (a, b))| format!("{proto} {a} > {b}"));
    let later = (select(vec!["tcp", "udp", "icmp", "proto 44"]), any::<(Ipv4Addr, Ipv4Addr)>())
        .prop_map(|(proto, (a, b))| format!("{proto} {a} > {b} later fragment"));
    let later6 = (select(vec!["tcp", "sctp", "icmp6", "proto 60"]), any::<(Ipv6Addr, Ipv6Addr)>())
        .prop_map(|(proto, (a, b))| format!("{proto} {a} > {b} later fragment"));
    prop_oneof![v4, v6, later, later6]
}

fn icmp() -> impl Strategy<Value = String> {
    let fields = any::<(u8, u8, u16)>();
    let v4 = (any::<(Ipv4Addr, Ipv4Addr)>(), fields).prop_map(|((a, b), (kind, code, id))| {
        let id = if matches!(kind, 0 | 8) { format!(" id {id}") } else { String::new() };
        format!("icmp {a} > {b} type {kind} code {code}{id}")
    });
    let v6 = (any::<(Ipv6Addr, Ipv6Addr)>(), fields).prop_map(|((a, b), (kind, code, id))| {
        let id = if matches!(kind, 128 | 129) { format!(" id {id}") } else { String::new() };
        format!("icmp6 {a} > {b} type {kind} code {code}{id}")
    });
    prop_oneof![v4, v6]
}

fn arp() -> impl Strategy<Value = String> {
    let operation =
        prop_oneof![Just("request".into()), Just("reply".into()), (3_u16..).prop_map(|n| format!("operation {n}"))];
    (operation, any::<(Ipv4Addr, Ipv4Addr)>(), mac(), mac()).prop_map(
        |(operation, (a, b), sender, target): (String, _, _, _)| {
            format!("arp {operation} {a} ({sender}) > {b} ({target})")
        },
    )
}

fn other() -> impl Strategy<Value = String> {
    let types = select(vec!["0x0000", "0x0600", "0x88cc", "0xffff"]);
    (types, mac(), mac()).prop_map(|(ethertype, from, to)| format!("{ethertype} {from} > {to}"))
}

/// Everything of a key that a policy can ask for.
fn seen(key: &FlowKey) -> String {
    let vlans = [key.outer_vlan(), key.inner_vlan()].map(|tag| tag.map(|tag| tag.id()));
    let ends = (key.src_addr(), key.src_port(), key.dst_addr(), key.dst_port());
    let link = (key.src_mac(), key.dst_mac(), key.ethertype(), vlans);
    let arp = (key.arp_operation(), key.arp_sender(), key.arp_target());
    let rest = (key.shape(), key.proto(), key.dscp(), key.icmp(), key.icmp_id(), key.fragment(), key.tcp_flags());
    format!("{ends:?} {link:?} {arp:?} {rest:?}")
}

fn shown(text: &str) -> Result<String, DescribeError> {
    Ok(parse(&frame_of(text)?, 0).1.to_string())
}

proptest! {
    /// A frame that was made of a description has that description.
    #[test]
    fn what_is_read_is_printed(text in descriptions()) {
        prop_assert_eq!(shown(&text), Ok(text));
    }

    /// The description of any frame that can be parsed makes one of the same description; the others are refused.
    #[test]
    fn what_is_printed_is_read(
        text in descriptions(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut frame = frame_of(&text).unwrap();
        frame.extend(noise);
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let (Headers { shape, .. }, key) = parse(&frame, 0);
        let expected = match shape {
            Shape::Malformed(_) => Err(DescribeError::Malformed),
            _ => Ok(key.to_string()),
        };
        prop_assert_eq!(shown(&key.to_string()), expected);
        // Of the full form there is a key always, which is the same for every policy.
        let key = key.with_tcp_flags(tcp::flags_of(&frame, &parse(&frame, 0).0));
        let text = key.full(0xff).to_string();
        let (made, headers, read) = key_between(&text, MacAddr::ZERO, MacAddr::ZERO, 0).map_err(|error| {
            TestCaseError::fail(format!("{text}: {error}"))
        })?;
        let read = read.with_tcp_flags(tcp::flags_of(&made, &headers));
        prop_assert_eq!(seen(&read), seen(&key), "{}", text);
        prop_assert_eq!(read.full(0xff).to_string(), text);
    }

    /// Words that belong somewhere, in any order, and any other text, are read or refused.
    #[test]
    fn nonsense_is_refused_without_panic(
        words in prop::collection::vec(select("vlan 1 4096 tcp udp icmp6 proto 0 43 arp request ( (02:00:00:00:00:01) \
            10.0.0.1 10.0.0.1:1 fe80::1 [fe80::1] [fe80::1]:1 > type code id flags syn,ack target first later fragment \
            from to 02:00:00:00:00:01 0x88cc 0x8100 0x0800 runt malformed".split(' ').collect::<Vec<_>>()), 0..12),
        text in ".*",
    ) {
        for text in [words.join(" "), text] {
            if let Ok(frame) = frame_of(&text) {
                prop_assert!(!matches!(parse(&frame, 0).0.shape, Shape::Malformed(_)), "{}", text);
            }
        }
    }
}

/// What people leave out is filled in.
#[test]
fn what_is_left_out_has_a_default() {
    for (text, expected) in [
        ("icmp 10.0.0.1 > 10.0.0.2", "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 0"),
        ("icmp6 [fe80::1] > fe80::2 id 7", "icmp6 fe80::1 > fe80::2 type 128 code 0 id 7"),
        ("  proto 6 10.0.0.1:1\t> 10.0.0.2:2 ", "tcp 10.0.0.1:1 > 10.0.0.2:2"),
        ("icmp 10.0.0.1 > 10.0.0.2 code 1 type 3", "icmp 10.0.0.1 > 10.0.0.2 type 3 code 1"),
        (
            "arp request 10.0.0.1 > 10.0.0.2 from 02:00:00:00:00:01",
            "arp request 10.0.0.1 (02:00:00:00:00:01) > 10.0.0.2 (00:00:00:00:00:00)",
        ),
        ("runt", "runt"),
    ] {
        assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
    }
}

/// What cannot be made into a frame is read as a key, with everything that was known.
#[test]
fn malformed_frames_are_described() {
    for text in [
        "malformed ipv4_length tcp 10.0.0.1 > 10.0.0.2 dscp 46 from 02:00:00:00:00:01 to 02:00:00:00:00:02",
        "vlan 7 malformed l4_truncated udp fe80::1 > fe80::2 from 02:00:00:00:00:01 to 02:00:00:00:00:02",
        "malformed ipv4_header 0x0800 02:00:00:00:00:01 > 02:00:00:00:00:02",
        "malformed vlan_truncated 0x8100 02:00:00:00:00:01 > 02:00:00:00:00:02",
        "malformed ipv6_extensions proto 43 fe80::1 > fe80::2 from 02:00:00:00:00:01 to 02:00:00:00:00:02",
        "tcp 10.0.0.1:1 > 10.0.0.2:2 flags none dscp 63 from 02:00:00:00:00:01 to 02:00:00:00:00:02",
        "udp [fe80::1]:1 > [fe80::2]:2 dscp 10 from 02:00:00:00:00:01 to 02:00:00:00:00:02",
    ] {
        let key = key_between(text, MacAddr::ZERO, MacAddr::ZERO, 3).unwrap().2;
        assert_eq!((key.full(0xff).to_string().as_str(), key.source()), (text, 3));
    }
    let error = |text| key_between(text, MacAddr::ZERO, MacAddr::ZERO, 0).unwrap_err().to_string();
    assert_eq!(
        error("malformed badly tcp 10.0.0.1 > 10.0.0.2"),
        "`badly` stands where what is wrong with the frame, as `kopictl flows` prints it, belongs"
    );
    assert_eq!(error("tcp 10.0.0.1:1 > 10.0.0.2:2 dscp 64"), "`64` stands where a number up to 63 belongs");
    assert_eq!(error("arp request 10.0.0.1 > 10.0.0.2 dscp 1"), "ARP has no fields of IP");
}

/// Fields that are not printed reach the frame too.
#[test]
fn flags_targets_and_stations_are_in_the_frame() {
    let flags = |text: &str| {
        let frame = frame_of(text).unwrap();
        tcp::flags_of(&frame, &parse(&frame, 0).0)
    };
    assert_eq!(flags("tcp 10.0.0.1:1 > 10.0.0.2:2"), tcp::flags::SYN);
    assert_eq!(flags("tcp [::1]:1 > [::2]:2 flags syn,ack"), tcp::flags::SYN | tcp::flags::ACK);
    assert_eq!(flags("tcp 10.0.0.1:1 > 10.0.0.2:2 flags none"), 0);

    let [one, two, three] = [1, 2, 3].map(|n| MacAddr::new([2, 0, 0, 0, 0, n]));
    let stations = |text: &str| {
        let key = parse(&frame_between(text, one, two).unwrap(), 0).1;
        (key.src_mac(), key.dst_mac(), key.arp_sender())
    };
    assert_eq!(stations("udp 10.0.0.1:1 > 10.0.0.2:2"), (one, two, None));
    assert_eq!(stations("udp 10.0.0.1:1 > 10.0.0.2:2 to 02:00:00:00:00:03"), (one, three, None));
    assert_eq!(stations("arp reply 10.0.0.1 > 10.0.0.2 from 02:00:00:00:00:03"), (three, two, Some(three)));
    let request = parse(&frame_of("arp request 10.0.0.1 > 10.0.0.2").unwrap(), 0).1;
    assert!(request.dst_mac().is_broadcast());

    let target = |text: &str| {
        let frame = frame_of(text).unwrap();
        ndp::message(&frame, &parse(&frame, 0).0).and_then(|message| message.target)
    };
    let addresses = ["fe80::1", "fe80::2", "fe80::3"].map(|text| text.parse().ok());
    assert_eq!(target("icmp6 fe80::1 > fe80::2 type 135"), addresses[1]);
    assert_eq!(target("icmp6 fe80::1 > fe80::2 type 136"), addresses[0]);
    assert_eq!(target("icmp6 fe80::1 > fe80::2 type 137 target fe80::3"), addresses[2]);
    let advertisement = frame_of("icmp6 fe80::1 > ff02::1 type 134").unwrap();
    assert!(ndp::message(&advertisement, &parse(&advertisement, 0).0).is_some());
}

/// A refusal names the word, and what belongs there.
#[test]
fn refusals_name_the_word() {
    for (text, expected) in [
        (
            "",
            "at the end, a protocol (tcp, udp, udplite, sctp, icmp, icmp6, proto N, arp) or an ethertype (0x88cc) is missing",
        ),
        ("vlan 4096 runt", "`4096` stands where the number of a VLAN, 0 to 4095 belongs"),
        ("vlan 1 vlan 2 vlan 3 runt", "there can be two VLAN tags"),
        ("tcp 10.0.0.1:1", "at the end, > is missing"),
        ("tcp 10.0.0.1:1 10.0.0.2:2", "`10.0.0.2:2` stands where > belongs"),
        ("tcp 10.0.0.1 > 10.0.0.2", "ports are missing: write 10.0.0.1:80, or [fe80::1]:80 for IPv6"),
        ("tcp fe80::1:80 > fe80::2:80", "ports are missing: write 10.0.0.1:80, or [fe80::1]:80 for IPv6"),
        ("tcp 10.0.0.1:1 > [::1]:1", "the addresses are of different versions of IP"),
        ("tcp 10.0.0.1:1 > 10.0.0.2:2 later fragment", "a later fragment has no ports"),
        ("icmp 10.0.0.1:1 > 10.0.0.2", "this protocol has no ports"),
        ("icmp ::1 > ::2", "between IPv6 addresses it is icmp6"),
        ("icmp6 10.0.0.1 > 10.0.0.2", "between IPv4 addresses it is icmp"),
        ("udp 10.0.0.1:1 > 10.0.0.2:2 flags syn", "only TCP has flags, and no later fragment"),
        ("icmp 10.0.0.1 > 10.0.0.2 type 3 type 4", "something is said twice"),
        ("icmp 10.0.0.1 > 10.0.0.2 type +3", "`+3` stands where a number up to 255 belongs"),
        ("0x88cc 02:00:00:00:00:01 > 02:00:00:00:00:02 more", "`more` stands where the end belongs"),
        ("0x0800 02:00:00:00:00:01 > 02:00:00:00:00:02", "a malformed frame cannot be made from its description"),
        ("proto 0 ::1 > ::2", "a malformed frame cannot be made from its description"),
        (
            "\u{1b}[2J",
            "`\\u{1b}[2J` stands where a protocol (tcp, udp, udplite, sctp, icmp, icmp6, proto N, arp) or an ethertype (0x88cc) belongs",
        ),
    ] {
        assert_eq!(frame_of(text).unwrap_err().to_string(), expected, "{text}");
    }
    let long = frame_of(&"x".repeat(10_000)).unwrap_err().to_string();
    assert!(long.starts_with(&format!("`{}...` ", "x".repeat(48))), "{long}");
}

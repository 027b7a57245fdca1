use super::*;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, TcpOptionElement};
use proptest::prelude::*;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const A4: [u8; 4] = [10, 0, 0, 1];
const B4: [u8; 4] = [10, 0, 0, 2];
const A6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// The words for a whole frame.
fn words(bytes: &[u8], style: Style) -> String {
    frame(bytes, bytes.len(), style).text
}

fn plain(bytes: &[u8]) -> String {
    words(bytes, Style::default())
}

fn verbose(bytes: &[u8]) -> String {
    words(bytes, Style { verbose: 1, ..Style::default() })
}

fn link(bytes: &[u8]) -> String {
    words(bytes, Style { link: true, ..Style::default() })
}

/// An Ethernet frame around `payload`.
fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&B[..], &A, &kind.to_be_bytes(), payload].concat()
}

fn arp(operation: u8, sender: [u8; 6], target: [u8; 6]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    ethernet(0x0806, &[&head[..], &sender, &[10, 9, 0, 66], &target, &[10, 9, 0, 1]].concat())
}

fn syn() -> Vec<u8> {
    let options = [
        TcpOptionElement::MaximumSegmentSize(1460),
        TcpOptionElement::SelectiveAcknowledgementPermitted,
        TcpOptionElement::Timestamp(7, 0),
        TcpOptionElement::Noop,
        TcpOptionElement::WindowScale(7),
    ];
    let tcp = PacketBuilder::ethernet2(A, B).ipv4(A4, B4, 64).tcp(40000, 5432, 1000, 64240).syn();
    let mut bytes = Vec::new();
    tcp.options(&options).unwrap().write(&mut bytes, &[]).unwrap();
    bytes
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(A, B).ipv4(A4, B4, 64).udp(1234, 53).write(&mut bytes, payload).unwrap();
    bytes
}

fn icmp6(kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(A, B).ipv6(A6, B6, 255).icmpv6(kind).write(&mut bytes, payload).unwrap();
    bytes
}

/// ARP says who asks for whom, and when the frame comes from somebody else than its sender.
#[test]
fn arp_names_who_asks() {
    assert_eq!(plain(&arp(1, A, [0; 6])), "ARP, Request who-has 10.9.0.1 tell 10.9.0.66, length 28");
    assert_eq!(
        plain(&arp(1, B, B)),
        "ARP, Request who-has 10.9.0.1 (02:00:00:00:00:02) tell 10.9.0.66 (sender 02:00:00:00:00:02 in a frame from \
         02:00:00:00:00:01), length 28"
    );
    assert_eq!(plain(&arp(2, A, B)), "ARP, Reply 10.9.0.66 is-at 02:00:00:00:00:01, length 28");
    assert_eq!(
        link(&arp(1, A, [0; 6])),
        "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype ARP (0x0806), length 42: Request who-has 10.9.0.1 tell \
         10.9.0.66, length 28"
    );
    assert_eq!(plain(&arp(1, A, [0; 6])[..30]), "ARP, [|arp]");
}

/// TCP has its flags, numbers and options.
#[test]
fn tcp_has_flags_numbers_and_options() {
    let options = "options [mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7]";
    let expected = format!("IP 10.0.0.1.40000 > 10.0.0.2.5432: Flags [S], seq 1000, win 64240, {options}, length 0");
    assert_eq!(plain(&syn()), expected);
    assert_eq!(words(&syn(), Style { quick: true, ..Style::default() }), "IP 10.0.0.1.40000 > 10.0.0.2.5432: tcp 0");
    let mut bytes = Vec::new();
    let tcp = PacketBuilder::ethernet2(A, B).ipv6(A6, B6, 64).tcp(1, 2, u32::MAX, 5).ack(9).psh();
    tcp.write(&mut bytes, b"hello").unwrap();
    assert_eq!(plain(&bytes), "IP6 fe80::1.1 > fe80::2.2: Flags [P.], seq 4294967295:4, ack 9, win 5, length 5");
}

/// UDP has its length, and says when it claims more than there is.
#[test]
fn udp_has_its_length() {
    assert_eq!(plain(&udp(b"0123")), "IP 10.0.0.1.1234 > 10.0.0.2.53: UDP, length 4");
    let mut long = udp(b"0123");
    long[14 + 20 + 5] = 99;
    assert_eq!(plain(&long), "IP 10.0.0.1.1234 > 10.0.0.2.53: UDP, bad length 91 > 4");
    let padded = [&udp(b"0123")[..], &[0; 14]].concat();
    assert_eq!(plain(&padded), plain(&udp(b"0123")), "padding of Ethernet is not part of it");
}

/// The verbose form adds the fields of IP, and says whether checksums are right.
#[test]
fn verbose_checks_the_checksums() {
    let text = verbose(&udp(b"0123"));
    let head = "IP (tos 0x0, ttl 64, id 0, offset 0, flags [DF], proto UDP (17), length 32)\n    ";
    assert_eq!(text, format!("{head}10.0.0.1.1234 > 10.0.0.2.53: [udp sum ok] UDP, length 4"));
    assert!(verbose(&syn()).contains(" (correct), seq 1000,"), "{}", verbose(&syn()));
    for (at, said) in [(14 + 8, "bad cksum"), (14 + 20 + 8, "bad udp cksum")] {
        let mut changed = udp(b"0123");
        changed[at] ^= 1;
        assert!(verbose(&changed).contains(said), "{}", verbose(&changed));
    }
    let mut changed = syn();
    changed[14 + 20 + 4] ^= 1;
    assert!(verbose(&changed).contains("(incorrect -> "), "{}", verbose(&changed));
    let whole = syn();
    let cut = frame(&whole[..54], whole.len(), Style { verbose: 1, ..Style::default() }).text;
    assert!(!cut.contains("cksum"), "what was not kept cannot be checked: {cut}");
}

/// ICMP errors name what they are about.
#[test]
fn icmp_errors_name_their_packet() {
    let mut bytes = Vec::new();
    let quoted = &udp(b"0123")[14..];
    let kind = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    PacketBuilder::ethernet2(B, A).ipv4(B4, A4, 64).icmpv4(kind).write(&mut bytes, quoted).unwrap();
    let line = frame(&bytes, bytes.len(), Style::default());
    assert_eq!(line.text, "IP 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 udp port 53 unreachable, length 40");
    assert_eq!(line.fields.ports, None, "the ports are those of the quoted packet");
    let mut bytes = Vec::new();
    let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 3, seq: 4 });
    PacketBuilder::ethernet2(B, A).ipv4(B4, A4, 64).icmpv4(echo).write(&mut bytes, &[0; 56]).unwrap();
    assert_eq!(plain(&bytes), "IP 10.0.0.2 > 10.0.0.1: ICMP echo request, id 3, seq 4, length 64");
}

/// Neighbor Discovery names the address that is asked for; the verbose form the link address that is claimed.
#[test]
fn neighbor_discovery_names_its_target() {
    let raw = |kind| Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0x60, 0, 0, 0] };
    let option = [2, 1, 2, 0, 0, 0, 0, 9];
    let solicitation = icmp6(raw(135), &B6);
    let advertisement = icmp6(raw(136), &[&A6[..], &option].concat());
    let ends = "fe80::1 > fe80::2: ICMP6,";
    assert_eq!(plain(&solicitation), format!("IP6 {ends} neighbor solicitation, who has fe80::2, length 24"));
    assert_eq!(plain(&advertisement), format!("IP6 {ends} neighbor advertisement, tgt is fe80::1, length 32"));
    let more = "Flags [solicited, override], destination link-address 02:00:00:00:00:09";
    assert!(verbose(&advertisement).contains(more), "{}", verbose(&advertisement));
}

/// Fragments have their place; only the first one has ports.
#[test]
fn fragments_have_their_place() {
    let fragment = |word: u16| {
        let mut bytes = udp(&[0; 24]);
        bytes[14 + 6..14 + 8].copy_from_slice(&word.to_be_bytes());
        plain(&bytes)
    };
    assert_eq!(fragment(0x2000), "IP 10.0.0.1.1234 > 10.0.0.2.53: frag (0|32) UDP, length 24");
    assert_eq!(fragment(0x00b9), "IP 10.0.0.1 > 10.0.0.2: frag (1480|32) udp");
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(A, B).ipv6(A6, B6, 64).udp(1, 2).write(&mut bytes, &[0; 8]).unwrap();
    bytes[14 + 6] = 44;
    bytes[14 + 5] += 8;
    bytes.splice(54..54, [17, 0, 0x05, 0xa8, 0, 0, 0, 7]);
    assert_eq!(plain(&bytes), "IP6 fe80::1 > fe80::2: frag (1448|16) udp");
}

/// Tags are shown, with and without the Ethernet header, and what is behind them is read.
#[test]
fn tags_are_shown() {
    let mut bytes = arp(1, A, [0; 6]);
    bytes.splice(12..12, [0x88, 0xa8, 0x60, 7, 0x81, 0, 0x10, 9]);
    let line = frame(&bytes, bytes.len(), Style::default());
    assert_eq!(line.text, "vlan 7, p 3, vlan 9, p 0, DEI, ARP, Request who-has 10.9.0.1 tell 10.9.0.66, length 28");
    assert_eq!((line.fields.vlan, line.fields.ethertype), (Some(7), Some(0x0806)));
    let head = "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype 802.1Q-QinQ (0x88a8), length 50: vlan 7, p 3, ethertype \
                802.1Q (0x8100), vlan 9, p 0, DEI, ethertype ARP (0x0806), Request";
    assert!(link(&bytes).starts_with(head), "{}", link(&bytes));
}

/// What is not IP or ARP is named as far as it has a name.
#[test]
fn other_ethertypes_are_named() {
    let macs = "02:00:00:00:00:01 > 02:00:00:00:00:02";
    let said = |kind| plain(&ethernet(kind, &[0x42, 0x42, 3]));
    assert_eq!(said(0x88cc), format!("{macs}, ethertype LLDP (0x88cc), length 3"));
    assert_eq!(said(0x1234), format!("{macs}, ethertype Unknown (0x1234), length 3"));
    assert_eq!(said(3), format!("{macs}, 802.3, STP, length 3"));
}

/// A packet inside a packet is read, to a limit; the fields are those of the outer one.
#[test]
fn nested_packets_are_read_to_a_limit() {
    let mut packet = udp(b"")[14..].to_vec();
    for _ in 0..10 {
        let mut outer = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 4, 0, 0, 9, 9, 9, 9, 8, 8, 8, 8];
        outer[3] = u8::try_from(packet.len() + 20).unwrap();
        packet = [outer, packet].concat();
    }
    let bytes = ethernet(0x0800, &packet);
    let line = frame(&bytes, bytes.len(), Style::default());
    assert_eq!(line.text.matches("9.9.9.9 > 8.8.8.8").count(), 4);
    assert!(line.text.ends_with("IPIP, length 148"), "{}", line.text);
    assert_eq!((line.fields.proto, line.fields.ports), (Some(4), None));
}

/// A packet that claims to be longer than its frame is told from one that was cut by the capture.
#[test]
fn missing_bytes_are_counted() {
    let mut short = syn();
    short.truncate(14 + 50);
    let head = "IP truncated-ip - 10 bytes missing! 10.0.0.1.40000 > 10.0.0.2.5432: Flags [S], seq 1000, win 64240";
    assert_eq!(plain(&short), format!("{head}, options [mss 1460,sackOK, [|tcp]], length 0"));
    let head =
        "IP truncated-ip - 10 bytes missing! (tos 0x0, ttl 64, id 0, offset 0, flags [DF], proto TCP (6), length 60)";
    assert!(verbose(&short).starts_with(&format!("{head}\n    10.0.0.1.40000 >")), "{}", verbose(&short));
}

/// Every cut of a frame is said to be one, unless it only takes payload away.
#[test]
fn cuts_are_shown() {
    for whole in [
        arp(1, A, [0; 6]),
        syn(),
        udp(b"0123"),
        icmp6(Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] }, &B6),
    ] {
        let all = plain(&whole);
        for kept in 0..whole.len() {
            let line = frame(&whole[..kept], whole.len(), Style::default());
            assert!(line.text.contains("[|") || line.text == all, "{kept}: {}", line.text);
        }
    }
    assert_eq!(plain(&[]), "[|ether]");
    let whole = syn();
    assert_eq!(frame(&whole[..40], whole.len(), Style::default()).text, "IP 10.0.0.1.40000 > 10.0.0.2.5432: [|tcp]");
}

fn styles() -> impl Strategy<Value = Style> {
    (any::<bool>(), 0..2_u8, any::<bool>()).prop_map(|(link, verbose, quick)| Style { link, verbose, quick })
}

/// Bytes that get far: a header that is right, then anything.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x0005, 0x88cc]);
    let protos = prop::sample::select(vec![0_u8, 1, 4, 6, 17, 41, 43, 44, 50, 58, 59, 60, 132]);
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    (kinds, protos, 0..16_u8, any::<bool>(), bytes).prop_map(|(kind, proto, ihl, whole, mut bytes)| {
        let fixed: &[(usize, u8)] = match kind {
            0x0800 => &[(0, 0x40 | ihl), (9, proto), (6, 0), (7, 0)],
            0x86dd => &[(0, 0x60), (6, proto)],
            0x0806 => &[(0, 0), (1, 1), (2, 8), (3, 0), (4, 6), (5, 4)],
            _ => &[],
        };
        for (at, value) in fixed.iter().take(if whole { usize::MAX } else { 2 }) {
            if let Some(byte) = bytes.get_mut(*at) {
                *byte = *value;
            }
        }
        ethernet(kind, &bytes)
    })
}

proptest! {
    /// No bytes of whatever claimed length panic, or bring out anything that a terminal acts on.
    #[test]
    fn all_bytes_are_readable(bytes in prop_oneof![likely(), prop::collection::vec(any::<u8>(), 0..100)],
                              length in 0..300_usize, style in styles()) {
        let text = frame(&bytes, length, style).text;
        prop_assert!(!text.is_empty());
        prop_assert!(text.chars().all(|c| c == '\n' || !crate::text::is_unsafe(c)), "{text:?}");
        if style.verbose == 0 {
            prop_assert!(!text.contains('\n'), "{text:?}");
        }
        let limit = 400 + 40 * bytes.len();
        prop_assert!(text.len() <= limit, "{} bytes", text.len());
    }
}

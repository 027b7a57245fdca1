//! One test per rule of the RFCs, over frames written out by hand.

use std::string::{String, ToString};
use std::vec::Vec;

use super::*;
use crate::parse;
use core::net::IpAddr;

const SOURCE: u16 = 9;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    [&macs[..], &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2 with DSCP 46 and ECN 1; `flags` is the word with the fragment offset.
fn ipv4(proto: u8, flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = 20 + options.len() + payload.len();
    let [l0, l1] = u16::try_from(length).unwrap().to_be_bytes();
    let [f0, f1] = flags.to_be_bytes();
    let ihl = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let header = [ihl, 46 << 2 | 1, l0, l1, 0, 7, f0, f1, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], options, payload].concat()
}

/// An IPv6 packet from fd00::1 to fd00::2 with DSCP 46 and ECN 1.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut header = [0; 40];
    header[..8].copy_from_slice(&[0x6b, 0x90, 0, 1, l0, l1, next, 64]);
    (header[8], header[23], header[24], header[39]) = (0xfd, 1, 0xfd, 2);
    [&header[..], payload].concat()
}

fn udp() -> Vec<u8> {
    [5000_u16.to_be_bytes(), 53_u16.to_be_bytes(), [0, 8], [0, 0]].concat()
}

fn tcp() -> Vec<u8> {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0x15, 0x38]);
    header[12] = 0x50;
    header.to_vec()
}

/// An extension header of `8 * units` bytes, padded with one PadN option and Pad1 options.
fn extension(next: u8, units: u8) -> Vec<u8> {
    let mut header = std::vec![0; usize::from(units) * 8];
    header[..4].copy_from_slice(&[next, units - 1, 1, 2]);
    header
}

fn fragment_header(next: u8, units: u16, more: bool) -> [u8; 8] {
    let [o0, o1] = (units << 3 | u16::from(more)).to_be_bytes();
    [next, 0, o0, o1, 0, 0, 0, 1]
}

fn read(frame: &[u8]) -> (Headers, FlowKey) {
    parse(frame, SOURCE)
}

fn shape(frame: &[u8]) -> Shape {
    read(frame).0.shape
}

fn malformed(frame: &[u8]) -> Option<Malformed> {
    let (headers, key) = read(frame);
    assert_eq!(headers.shape, key.shape(), "{key}");
    match headers.shape {
        Shape::Malformed(reason) => {
            assert_eq!((headers.l4_offset, key.src_port(), key.icmp()), (0, None, None), "{key}");
            Some(reason)
        }
        _ => None,
    }
}

fn text(frame: &[u8]) -> String {
    read(frame).1.to_string()
}

#[test]
fn fewer_bytes_than_an_ethernet_header_are_a_runt() {
    let frame = ethernet(0x0800, &[]);
    for length in 0..14 {
        assert_eq!(read(&frame[..length]), (Headers::default(), FlowKey::from_words([9, 0, 0, 0, 0, 0, 0, 0])));
    }
    assert_eq!(malformed(&frame), Some(Malformed::Ipv4Header));
    assert_eq!(text(&[]), "runt");
}

#[test]
fn ethernet_fields_are_where_ieee_802_3_puts_them() {
    let (headers, key) = read(&ethernet(0x88cc, &[1, 2, 3]));
    assert_eq!((headers.shape, headers.ethertype, headers.l3_offset, headers.l4_offset), (Shape::Other, 0x88cc, 14, 0));
    assert_eq!((key.dst_mac().to_u64(), key.src_mac().to_u64()), (0x0200_0000_0001, 0x0200_0000_0002));
    assert_eq!((key.source(), key.ethertype(), key.src_addr(), key.proto()), (SOURCE, 0x88cc, None, 0));
    assert_eq!(key.to_string(), "0x88cc 02:00:00:00:00:02 > 02:00:00:00:00:01");
}

#[test]
fn an_802_3_length_is_no_flow_of_its_own() {
    let (short, long) = (read(&ethernet(38, &[0x42; 46])), read(&ethernet(0x05ff, &[0x42; 46])));
    assert_eq!((short.0.ethertype, long.0.ethertype), (38, 0x05ff));
    assert_eq!(short.1, long.1);
    assert_ne!(short.1, read(&ethernet(0x0600, &[0x42; 46])).1);
}

#[test]
fn up_to_two_vlan_tags_are_read() {
    let inner = ipv4(17, 0, &[], &udp());
    let one = ethernet(0x8100, &[&[0x60, 7, 8, 0], &inner[..]].concat());
    let (headers, key) = read(&one);
    assert_eq!((headers.shape, headers.vlans, headers.l3_offset, headers.l4_offset), (Shape::Ipv4, 1, 18, 38));
    assert_eq!((key.outer_vlan().unwrap().tci, key.outer_vlan().unwrap().id(), key.inner_vlan()), (0x6007, 7, None));
    assert_eq!(key.to_string(), "vlan 7 udp 10.0.0.1:5000 > 10.0.0.2:53");

    let two = ethernet(0x88a8, &[&[0, 5, 0x81, 0, 0, 6, 8, 0], &inner[..]].concat());
    let (headers, key) = read(&two);
    assert_eq!((headers.vlans, headers.ethertype, headers.l3_offset, headers.l4_offset), (2, 0x0800, 22, 42));
    assert_eq!(key.outer_vlan(), Some(crate::VlanTag { tci: 5, service: true }));
    assert_eq!(key.inner_vlan(), Some(crate::VlanTag { tci: 6, service: false }));
    assert_eq!(key.to_string(), "service-vlan 5 vlan 6 udp 10.0.0.1:5000 > 10.0.0.2:53");

    let untagged = read(&ethernet(0x0800, &inner)).1;
    let priority = read(&ethernet(0x8100, &[&[0, 0, 8, 0], &inner[..]].concat())).1;
    assert_ne!(untagged, priority, "a tag for VLAN 0 is still a tag");
}

/// What stands behind LLC and SNAP for a type of Ethernet is read as if it stood there without, and tells the key apart; every
/// other LLC is left alone, and so is a tag behind it.
#[test]
fn snap_stands_for_its_type() {
    let inner = ipv4(17, 0, &[], &udp());
    let snap = |oui: [u8; 3], kind: [u8; 2], payload: &[u8]| {
        let body = [&[0xaa, 0xaa, 3][..], &oui, &kind, payload].concat();
        ethernet(u16::try_from(body.len()).unwrap(), &body)
    };
    let plain = read(&ethernet(0x0800, &inner)).1;
    for oui in [[0, 0, 0], [0, 0, 0xf8]] {
        let (headers, key) = read(&snap(oui, [8, 0], &inner));
        assert_eq!(
            (headers.shape, headers.ethertype, headers.l3_offset, headers.l4_offset),
            (Shape::Ipv4, 0x0800, 22, 42)
        );
        assert_eq!((key.is_snap(), plain.is_snap(), key.ethertype()), (true, false, 0x0800));
        assert_eq!((key.src_addr(), key.dst_port()), (plain.src_addr(), Some(53)));
        assert_ne!(key, plain);
    }
    let tagged = [&[0, 7, 0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &inner].concat();
    let (headers, key) = read(&ethernet(0x8100, &tagged));
    assert_eq!((headers.vlans, headers.l3_offset, key.is_snap(), key.dst_port()), (1, 26, true, Some(53)));
    for (oui, kind) in [([0, 0, 0x0c], [0x20, 0]), ([8, 0, 7], [0x80, 0x9b])] {
        let (headers, key) = read(&snap(oui, kind, &inner));
        assert_eq!((headers.shape, headers.l3_offset, key.is_snap(), key.ethertype()), (Shape::Other, 14, false, 0));
    }
    let (headers, key) = read(&snap([0; 3], [0x81, 0], &[&[0, 7, 8, 0][..], &inner].concat()));
    assert_eq!((headers.shape, headers.vlans, key.ethertype(), key.src_addr()), (Shape::Other, 0, 0x8100, None));
    let spanning = read(&ethernet(38, &[0x42, 0x42, 3])).1;
    assert_eq!((spanning.ethertype(), spanning.is_snap()), (0, false));
}

/// The types that tags had before there was a standard are types of service tags.
#[test]
fn old_service_tags_are_tags() {
    let inner = ipv4(17, 0, &[], &udp());
    for kind in [0x9100, 0x9200, 0x88a8] {
        let (headers, key) = read(&ethernet(kind, &[&[0, 5, 8, 0][..], &inner].concat()));
        assert_eq!((headers.vlans, headers.l3_offset, key.dst_port()), (1, 18, Some(53)), "{kind:#x}");
        assert_eq!(key.outer_vlan(), Some(crate::VlanTag { tci: 5, service: true }));
        let both = [&[0, 5, 0x81, 0, 0, 6, 8, 0][..], &inner].concat();
        assert_eq!(read(&ethernet(kind, &both)).1.inner_vlan().map(|tag| tag.id()), Some(6));
        let deep = [&[0, 5, 0x91, 0, 0, 6, 0x92, 0, 0, 7, 8, 0][..], &inner].concat();
        assert_eq!(malformed(&ethernet(kind, &deep)), Some(Malformed::VlanTooDeep));
    }
}

#[test]
fn a_third_tag_is_too_deep_and_a_short_one_truncated() {
    let tags = [0, 5, 0x81, 0, 0, 6, 0x88, 0xa8, 0, 7, 8, 0, 0, 0];
    let (headers, key) = read(&ethernet(0x8100, &tags));
    assert_eq!(headers.shape, Shape::Malformed(Malformed::VlanTooDeep));
    assert_eq!((headers.vlans, headers.ethertype, key.vlans(), key.ethertype()), (2, 0x88a8, 2, 0x88a8));
    for length in 0..4 {
        assert_eq!(malformed(&ethernet(0x8100, &tags[..length])), Some(Malformed::VlanTruncated));
        assert_eq!(malformed(&ethernet(0x88a8, &tags[..4 + length])), Some(Malformed::VlanTruncated));
    }
}

#[test]
fn rfc_826_request_and_reply() {
    let mut packet = std::vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1, 0, 0, 0, 0, 0, 3, 10, 0, 0, 2];
    let (headers, key) = read(&ethernet(0x0806, &packet));
    assert_eq!((headers.shape, headers.l4_offset, key.arp_operation()), (Shape::Arp, 0, Some(1)));
    assert_eq!(key.arp_sender().unwrap().to_u64(), 0x0200_0000_0009);
    assert_eq!(key.to_string(), "arp request 10.0.0.1 (02:00:00:00:00:09) > 10.0.0.2 (00:00:00:00:00:03)");
    assert_eq!((key.src_port(), key.proto()), (None, 0));
    for length in 0..28 {
        assert_eq!(malformed(&ethernet(0x0806, &packet[..length])), Some(Malformed::ArpTruncated));
    }
    packet[7] = 2;
    assert!(text(&ethernet(0x0806, &packet)).starts_with("arp reply "));
    for at in 0..6 {
        let mut other = packet.clone();
        other[at] ^= 0x10;
        assert_eq!(malformed(&ethernet(0x0806, &other)), Some(Malformed::ArpHeader), "byte {at}");
    }
}

#[test]
fn rfc_791_fields() {
    let (headers, key) = read(&ethernet(0x0800, &ipv4(6, 0x4000, &[], &tcp())));
    assert_eq!((headers.shape, headers.l3_offset, headers.l4_offset, headers.proto), (Shape::Ipv4, 14, 34, 6));
    assert_eq!(
        (key.src_addr(), key.dst_addr()),
        (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])))
    );
    assert_eq!((key.src_port(), key.dst_port(), key.dscp(), key.has_options()), (Some(40000), Some(5432), 46, false));
    assert_eq!(key.to_string(), "tcp 10.0.0.1:40000 > 10.0.0.2:5432");
}

#[test]
fn rfc_791_version_and_header_length() {
    let good = ipv4(17, 0, &[], &udp());
    for first in 0..=255 {
        let mut packet = good.clone();
        packet[0] = first;
        // 0x46 and 0x47 make options of the UDP header, 0x48 and above reach beyond the packet.
        let expected = match first {
            0x45 => None,
            0x46 | 0x47 => Some(Malformed::Ipv4Options),
            _ => Some(Malformed::Ipv4Header),
        };
        assert_eq!(malformed(&ethernet(0x0800, &packet)), expected, "{first:#x}");
    }
    for length in 0..20 {
        assert_eq!(malformed(&ethernet(0x0800, &good[..length])), Some(Malformed::Ipv4Header));
    }
}

#[test]
fn rfc_791_total_length_bounds_the_packet() {
    let good = ipv4(17, 0, &[], &udp());
    let mut padded = good.clone();
    padded.extend([0xff; 18]);
    assert_eq!(read(&ethernet(0x0800, &good)), read(&ethernet(0x0800, &padded)), "padding is no part of the packet");
    for total in 0..60_u16 {
        let mut packet = padded.clone();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        let expected = match total {
            0..20 | 47.. => Some(Malformed::Ipv4Length),
            20..28 => Some(Malformed::L4Truncated),
            28.. => None,
        };
        let frame = ethernet(0x0800, &packet);
        assert_eq!(malformed(&frame), expected, "{total}");
        assert_eq!(read(&frame).1.dst_addr(), Some(IpAddr::from([10, 0, 0, 2])), "the addresses are kept");
    }
}

#[test]
fn rfc_791_options_are_walked() {
    for (options, good) in [
        ([1, 1, 1, 0], true),
        ([0, 0xff, 0xff, 0xff], true),
        ([0x94, 4, 0, 0], true),
        ([0x94, 2, 1, 1], true),
        ([0x94, 5, 0, 0], false),
        ([0x94, 1, 0, 0], false),
        ([0x94, 0, 0, 0], false),
        ([1, 1, 1, 0x94], false),
    ] {
        let frame = ethernet(0x0800, &ipv4(17, 0, &options, &udp()));
        assert_eq!(malformed(&frame), (!good).then_some(Malformed::Ipv4Options), "{options:?}");
        assert!(read(&frame).1.has_options());
        if good {
            assert_eq!((read(&frame).0.l4_offset, read(&frame).1.dst_port()), (38, Some(53)));
        }
    }
}

#[test]
fn rfc_791_only_the_first_fragment_has_ports() {
    for (flags, fragment, port) in [
        (0, Fragment::None, Some(53)),
        (0xc000, Fragment::None, Some(53)),
        (0x2000, Fragment::First, Some(53)),
        (0x2001, Fragment::Later, None),
        (0x0001, Fragment::Later, None),
        (0x1000, Fragment::Later, None),
    ] {
        let (headers, key) = read(&ethernet(0x0800, &ipv4(17, flags, &[], &udp())));
        assert_eq!((headers.fragment, key.fragment(), key.dst_port()), (fragment, fragment, port), "{flags:#x}");
        assert_eq!(headers.l4_offset == 0, port.is_none());
        assert_eq!(key.words()[2] == 0, port.is_none());
    }
}

#[test]
fn rfc_1858_tiny_fragment() {
    for length in 0..20 {
        let frame = ethernet(0x0800, &ipv4(6, 0x2000, &[], &tcp()[..length]));
        assert_eq!(malformed(&frame), Some(Malformed::L4Truncated));
        assert_eq!(read(&frame).0.fragment, Fragment::First);
    }
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(6, 0x2000, &[], &tcp()))), None);
}

#[test]
fn rfc_3128_fragment_over_the_tcp_flags() {
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(6, 0x0001, &[], &tcp()))), Some(Malformed::FragmentOffset));
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(6, 0x0002, &[], &tcp()))), None);
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(17, 0x0001, &[], &tcp()))), None);
    let v6 = |units| ethernet(0x86dd, &ipv6(44, &[&fragment_header(6, units, true)[..], &tcp()].concat()));
    assert_eq!(malformed(&v6(1)), Some(Malformed::FragmentOffset));
    assert_eq!(malformed(&v6(2)), None);
}

#[test]
fn no_fragment_ends_beyond_the_largest_packet() {
    // 8191 * 8 = 65,528 bytes before it, 20 of header, and 7 that do not fit.
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(17, 8191, &[], &[]))), Some(Malformed::FragmentOffset));
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(17, 8188, &[], &[0; 11]))), None);
    assert_eq!(malformed(&ethernet(0x0800, &ipv4(17, 8188, &[], &[0; 12]))), Some(Malformed::FragmentOffset));
    let v6 = |length| ethernet(0x86dd, &ipv6(44, &[&fragment_header(17, 8191, false)[..], &[0; 9][..length]].concat()));
    assert_eq!(malformed(&v6(7)), None);
    assert_eq!(malformed(&v6(8)), Some(Malformed::FragmentOffset));
}

#[test]
fn rfc_792_and_4443_echo() {
    let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
    let key = read(&ethernet(0x0800, &ipv4(1, 0, &[], &echo))).1;
    assert_eq!((key.icmp(), key.icmp_id(), key.src_port()), (Some((8, 0)), Some(0x1234), None));
    assert_eq!(key.to_string(), "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 4660");
    let unreachable = [3, 4, 0, 0, 0x12, 0x34, 0, 1];
    let key = read(&ethernet(0x0800, &ipv4(1, 0, &[], &unreachable))).1;
    assert_eq!((key.icmp(), key.icmp_id(), key.words()[2]), (Some((3, 4)), None, 0x0304_0000));
    let v6 = |bytes: &[u8]| ethernet(0x86dd, &ipv6(58, bytes));
    let key = read(&v6(&[128, 0, 0, 0, 0x12, 0x34, 0, 1])).1;
    assert_eq!((key.icmp(), key.icmp_id()), (Some((128, 0)), Some(0x1234)));
    assert_eq!(key.to_string(), "icmp6 fd00::1 > fd00::2 type 128 code 0 id 4660");
    assert_eq!(malformed(&v6(&[128, 0, 0, 0, 0x12, 0x34, 0])), Some(Malformed::L4Truncated));
    for (frame, kind) in [
        (v6(&[129, 0, 0, 0, 0x12, 0x34, 0, 1]), 129),
        (ethernet(0x0800, &ipv4(1, 0, &[], &[0, 0, 0, 0, 0x12, 0x34, 0, 1])), 0),
    ] {
        let key = read(&frame).1;
        assert_eq!((key.icmp(), key.icmp_id()), (Some((kind, 0)), Some(0x1234)), "a reply has the identifier too");
    }
    // RFC 4286: a message of four bytes.
    assert_eq!(read(&v6(&[152, 0, 0, 0])).1.icmp(), Some((152, 0)));
    // Each of the two belongs to one version of IP.
    assert_eq!(read(&v6(&[0; 8])).1.icmp(), Some((0, 0)));
    assert_eq!(read(&ethernet(0x86dd, &ipv6(1, &echo))).1.icmp(), None);
    assert_eq!(read(&ethernet(0x0800, &ipv4(58, 0, &[], &[128; 8]))).1.icmp(), None);
}

#[test]
fn a_cut_transport_header_keeps_the_addresses() {
    for (proto, shortest) in [(6, 20), (17, 8), (136, 8), (132, 12), (1, 8)] {
        for length in 0..24 {
            let frame = ethernet(0x0800, &ipv4(proto, 0, &[], &[7; 24][..length]));
            let (headers, key) = read(&frame);
            let cut = length < shortest;
            assert_eq!(malformed(&frame), cut.then_some(Malformed::L4Truncated), "{proto} {length}");
            assert_eq!((headers.proto, key.dst_addr()), (proto, Some(IpAddr::from([10, 0, 0, 2]))));
            assert_eq!(key.dst_port(), (!cut && proto != 1).then_some(0x0707), "{proto} {length}");
        }
    }
    assert_eq!(text(&ethernet(0x0800, &ipv4(6, 0, &[], &[]))), "malformed l4_truncated tcp 10.0.0.1 > 10.0.0.2");
}

#[test]
fn protocols_without_ports_are_told_apart_by_number() {
    let (headers, key) = read(&ethernet(0x0800, &ipv4(47, 0, &[], &[])));
    assert_eq!((headers.shape, headers.l4_offset, key.proto(), key.src_port()), (Shape::Ipv4, 34, 47, None));
    assert_eq!(key.to_string(), "proto 47 10.0.0.1 > 10.0.0.2");
}

#[test]
fn rfc_8200_fields() {
    let (headers, key) = read(&ethernet(0x86dd, &ipv6(17, &udp())));
    assert_eq!((headers.shape, headers.l3_offset, headers.l4_offset, headers.proto), (Shape::Ipv6, 14, 54, 17));
    assert_eq!((key.dscp(), key.has_options(), key.src_port()), (46, false, Some(5000)));
    assert_eq!(key.to_string(), "udp [fd00::1]:5000 > [fd00::2]:53");
    let good = ipv6(17, &udp());
    for length in 0..40 {
        assert_eq!(malformed(&ethernet(0x86dd, &good[..length])), Some(Malformed::Ipv6Header));
    }
    for length in 40..48 {
        assert_eq!(malformed(&ethernet(0x86dd, &good[..length])), Some(Malformed::Ipv6Length));
    }
    for version in (0..16).filter(|&version| version != 6) {
        let mut packet = good.clone();
        packet[0] = version << 4;
        assert_eq!(malformed(&ethernet(0x86dd, &packet)), Some(Malformed::Ipv6Header));
    }
}

#[test]
fn rfc_8200_extension_headers_are_followed() {
    let chain = [extension(60, 1), extension(43, 2), extension(17, 1), udp()].concat();
    let (headers, key) = read(&ethernet(0x86dd, &ipv6(0, &chain)));
    assert_eq!((headers.shape, headers.proto, headers.l4_offset), (Shape::Ipv6, 17, 54 + 32));
    assert_eq!((key.dst_port(), key.has_options()), (Some(53), true));
    // RFC 4302: the length of an authentication header counts units of four bytes, less two.
    let chain = [&[17, 4][..], &[0; 22], &udp()].concat();
    assert_eq!(read(&ethernet(0x86dd, &ipv6(51, &chain))).0.l4_offset, 54 + 24);
    let chain = [&[17, 0][..], &[0; 6], &udp()].concat();
    assert_eq!(malformed(&ethernet(0x86dd, &ipv6(51, &chain))), Some(Malformed::Ipv6Extensions));
    // RFC 8200, 4.7: nothing follows.
    assert_eq!(read(&ethernet(0x86dd, &ipv6(59, &[1; 8]))).0.l4_offset, 0);
}

#[test]
fn rfc_8200_hop_by_hop_only_at_the_start() {
    let chain = [extension(0, 1), extension(17, 1), udp()].concat();
    assert_eq!(malformed(&ethernet(0x86dd, &ipv6(60, &chain))), Some(Malformed::Ipv6Extensions));
    assert_eq!(malformed(&ethernet(0x86dd, &ipv6(0, &chain))), Some(Malformed::Ipv6Extensions));
}

#[test]
fn extension_chains_have_a_limit_in_headers_and_in_bytes() {
    for count in 0..100 {
        let mut chain = Vec::new();
        for left in (0..count).rev() {
            chain.extend(extension(if left == 0 { 17 } else { 60 }, 1));
        }
        chain.extend(udp());
        let frame = ethernet(0x86dd, &ipv6(if count == 0 { 17 } else { 60 }, &chain));
        assert_eq!(malformed(&frame), (count > 8).then_some(Malformed::Ipv6Extensions), "{count} headers");
    }
    for (first, second) in [(16, 16), (31, 1), (32, 1), (255, 1)] {
        let chain = [extension(60, first), extension(17, second), udp()].concat();
        let long = u16::from(first) + u16::from(second) > 32;
        let expected = long.then_some(Malformed::Ipv6Extensions);
        assert_eq!(malformed(&ethernet(0x86dd, &ipv6(60, &chain))), expected, "{first} and {second} times 8 bytes");
    }
}

#[test]
fn rfc_7112_the_chain_ends_within_the_packet() {
    let chain = [extension(60, 1), extension(17, 3), udp()].concat();
    for length in 0..chain.len() {
        let expected = if length < 32 { Malformed::Ipv6Extensions } else { Malformed::L4Truncated };
        assert_eq!(malformed(&ethernet(0x86dd, &ipv6(60, &chain[..length]))), Some(expected), "{length}");
    }
}

#[test]
fn rfc_2675_jumbograms_are_refused() {
    let jumbo = [17, 0, 0xc2, 4, 0, 1, 0, 0];
    assert_eq!(malformed(&ethernet(0x86dd, &ipv6(0, &[&jumbo[..], &udp()].concat()))), Some(Malformed::Ipv6Jumbogram));
    // A payload length of zero leaves no room for the option.
    let mut packet = ipv6(0, &[&jumbo[..], &udp()].concat());
    packet[4..6].fill(0);
    assert_eq!(malformed(&ethernet(0x86dd, &packet)), Some(Malformed::Ipv6Extensions));
    // An option that runs over the end of its header hides what comes after it.
    let over = [17, 0, 1, 5, 0, 0, 0, 0];
    assert_eq!(malformed(&ethernet(0x86dd, &ipv6(0, &[&over[..], &udp()].concat()))), Some(Malformed::Ipv6Extensions));
}

#[test]
fn rfc_8200_fragments() {
    let v6 = |units, more| ethernet(0x86dd, &ipv6(44, &[&fragment_header(17, units, more)[..], &udp()].concat()));
    for (units, more, fragment, port) in [
        (0, true, Fragment::First, Some(53)),
        (1, true, Fragment::Later, None),
        (9, false, Fragment::Later, None),
        // RFC 6946: an atomic fragment is a whole packet.
        (0, false, Fragment::None, Some(53)),
    ] {
        let (headers, key) = read(&v6(units, more));
        assert_eq!((headers.shape, headers.proto), (Shape::Ipv6, 17), "{units} {more}");
        assert_eq!((headers.fragment, key.fragment(), key.dst_port()), (fragment, fragment, port), "{units} {more}");
    }
    // A later fragment that looks like an endless chain is still just data.
    let data = [&fragment_header(60, 5, true)[..], &[60, 255, 0, 0]].concat();
    assert_eq!(shape(&ethernet(0x86dd, &ipv6(44, &data))), Shape::Ipv6);
    // A fragment of a fragment.
    let twice = [&fragment_header(44, 0, true)[..], &fragment_header(17, 0, false), &udp()].concat();
    assert_eq!(malformed(&ethernet(0x86dd, &ipv6(44, &twice))), Some(Malformed::Ipv6Extensions));
    assert_eq!(text(&v6(1, true)), "udp fd00::1 > fd00::2 later fragment");
}

/// What a router or the next packet of a flow changes does not change the key; what a policy can ask for does.
#[test]
fn keys_differ_exactly_where_a_policy_can_tell() {
    let frame = ethernet(0x0800, &ipv4(6, 0x4000, &[], &tcp()));
    let key = read(&frame).1;
    let ignored = [
        15, // ECN, in its low two bits
        18, 19, // identification
        22, // TTL
        24, 25, // checksum
        38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, // TCP after the ports
    ];
    for at in 0..frame.len() {
        let mut other = frame.clone();
        other[at] ^= 1;
        assert_eq!(read(&other).1 == key, ignored.contains(&at), "byte {at}");
        other[at] ^= 1 | 4;
        let dscp = at == 15;
        assert_eq!(read(&other).1 == key, ignored.contains(&at) && !dscp, "byte {at}");
    }
    assert_ne!(parse(&frame, SOURCE + 1).1, key);
}

//! What must hold for the parser, whatever bytes it is given.
//!
//! Shared by the property tests, the replay of the corpus and the fuzz target, so it depends on nothing but the parser
//! and its oracle, and says what is wrong by a panic.

use std::net::IpAddr;

use etherparse::err::packet::SliceError;
use etherparse::err::{Layer, LenError};
use etherparse::{LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, SlicedPacket, TransportSlice};
use kopi_packet::tcp::{Segment, flags};
use kopi_packet::{FlowKey, Fragment, Headers, Malformed, Shape, fragment_id, icmp, ndp, parse, reply, tcp};

const SOURCE: u16 = 0x5a5a;

/// Checks every property on one frame.
pub(crate) fn check(frame: &[u8]) {
    let (headers, key) = parse(frame, SOURCE);
    consistent(frame, &headers, &key);
    prefixes(frame, &headers, &key);
    padding(frame, &headers, &key);
    oracle(frame, &headers, &key);
    readers(frame, &headers, &key);
    answers(frame, &headers, &key);
}

/// What is read beside the key agrees with the key, and nothing is read of a frame that has it not.
fn readers(frame: &[u8], headers: &Headers, key: &FlowKey) {
    let tcp = key.dst_port().is_some() && key.proto() == 6;
    if let Some(segment) = Segment::of(frame, headers) {
        assert!(tcp, "{key}");
        assert_eq!(segment.flags, tcp::flags_of(frame, headers));
        assert!(usize::from(segment.payload_len) + 20 + usize::from(headers.l4_offset) <= frame.len());
        assert!(segment.window_scale.is_none_or(|shift| shift <= 14 && segment.has(flags::SYN)));
    }
    assert!(tcp || tcp::flags_of(frame, headers) == 0);
    let quoted = icmp::embedded(frame, headers);
    assert!(quoted.is_none() || icmp::is_error(key));
    assert!(quoted.is_none_or(|quoted| quoted.src.is_ipv4() == quoted.dst.is_ipv4()));
    let message = ndp::message(frame, headers);
    assert!(message.is_none() || ndp::is_ndp(key));
    let whole = matches!(headers.shape, Shape::Ipv4 | Shape::Ipv6);
    assert_eq!(fragment_id(frame, headers).is_some(), whole && headers.fragment != Fragment::None);
}

/// An answer is a whole packet that goes back, is not answered itself, and needs a buffer no longer than promised.
fn answers(frame: &[u8], headers: &Headers, key: &FlowKey) {
    let mut out = [0xee; reply::MAX_LEN];
    let reset = reply::tcp_reset(frame, headers, &mut out).map(|length| out[..length].to_vec());
    let error = reply::unreachable(frame, headers, &mut out).map(|length| out[..length].to_vec());
    for answer in [reset, error].into_iter().flatten() {
        let (back, back_key) = parse(&answer, SOURCE);
        assert_eq!(
            (back.shape, back.vlans, back.ethertype),
            (headers.shape, headers.vlans, headers.ethertype),
            "{key}"
        );
        assert_eq!((back_key.src_addr(), back_key.dst_addr()), (key.dst_addr(), key.src_addr()));
        assert_eq!((back_key.src_mac(), back_key.dst_mac()), (key.dst_mac(), key.src_mac()));
        assert_eq!((back_key.outer_vlan(), back_key.inner_vlan()), (key.outer_vlan(), key.inner_vlan()));
        assert_eq!(reply::tcp_reset(&answer, &back, &mut out), None, "{back_key}");
        if headers.proto != 6 || back.proto != 6 {
            assert_eq!(reply::unreachable(&answer, &back, &mut out), None, "{back_key}");
        }
        assert_eq!(reply::tcp_reset(frame, headers, &mut out[..answer.len() - 1]).filter(|_| back.proto == 6), None);
    }
}

/// Headers and key tell the same story, and it is the frame's.
fn consistent(frame: &[u8], headers: &Headers, key: &FlowKey) {
    assert_eq!(headers.shape == Shape::Runt, frame.len() < 14);
    assert_eq!((key.shape(), key.vlans(), key.proto()), (headers.shape, headers.vlans, headers.proto));
    assert_eq!((key.fragment(), key.source()), (headers.fragment, SOURCE));
    assert_eq!(key.outer_vlan().is_some(), headers.vlans > 0);
    assert_eq!(key.inner_vlan().is_some(), headers.vlans > 1);
    assert_eq!(key.src_addr().is_some(), key.dst_addr().is_some());
    assert_eq!(key.src_port().is_some(), key.dst_port().is_some());
    assert!(!key.to_string().is_empty());
    if frame.len() < 14 {
        return;
    }
    assert_eq!((&key.dst_mac().bytes()[..], &key.src_mac().bytes()[..]), (&frame[..6], &frame[6..12]));
    let (l3, l4) = (usize::from(headers.l3_offset), usize::from(headers.l4_offset));
    assert_eq!(l3, 14 + 4 * usize::from(headers.vlans) + if key.is_snap() { 8 } else { 0 });
    assert!(l3 <= frame.len() && l4 <= frame.len());
    assert_eq!(frame[l3 - 2..l3], headers.ethertype.to_be_bytes());
    assert!(l4 == 0 || (l3 < l4 && matches!(headers.shape, Shape::Ipv4 | Shape::Ipv6)));
    if let (Some(source), Some(destination)) = (key.src_port(), key.dst_port()) {
        assert_eq!(frame[l4..l4 + 2], source.to_be_bytes());
        assert_eq!(frame[l4 + 2..l4 + 4], destination.to_be_bytes());
    }
    if let Some((kind, code)) = key.icmp() {
        assert_eq!(frame[l4..l4 + 2], [kind, code]);
    }
    if let Some(id) = key.icmp_id() {
        assert_eq!(frame[l4 + 4..l4 + 6], id.to_be_bytes());
    }
}

/// No prefix of the frame panics, and none that is too short for the IP packet passes for the whole.
fn prefixes(frame: &[u8], headers: &Headers, key: &FlowKey) {
    // Beyond the longest chain of headers nothing is read but lengths.
    for length in (0..frame.len()).rev().take(16).chain(0..frame.len().min(400)) {
        let (cut, cut_key) = parse(&frame[..length], SOURCE);
        let whole = (cut, cut_key) == (*headers, *key);
        if whole && matches!(headers.shape, Shape::Ipv4 | Shape::Ipv6) {
            assert!(length >= usize::from(headers.l4_offset), "{key} found in {length} bytes");
        }
    }
}

/// Bytes behind a packet that knows its own length change nothing.
fn padding(frame: &[u8], headers: &Headers, key: &FlowKey) {
    if matches!(headers.shape, Shape::Arp | Shape::Ipv4 | Shape::Ipv6) {
        let padded = [frame, &[0xee; 24]].concat();
        assert_eq!(parse(&padded, SOURCE), (*headers, *key));
    }
}

/// Whatever `etherparse` finds, we find, and the other way round, but for the differences named below.
fn oracle(frame: &[u8], headers: &Headers, key: &FlowKey) {
    let Ok(lax) = LaxSlicedPacket::from_ethernet(frame) else {
        assert_eq!(headers.shape, Shape::Runt);
        return;
    };
    if !same_tags(&lax, headers, key) {
        return;
    }
    let strict = SlicedPacket::from_ethernet(frame);
    // The lax oracle goes by the version and not by the ethertype.
    let other_version = match (headers.shape, frame.get(usize::from(headers.l3_offset))) {
        (Shape::Malformed(Malformed::Ipv4Header), Some(first)) => first >> 4 != 4,
        (Shape::Malformed(Malformed::Ipv6Header), Some(first)) => first >> 4 != 6,
        _ => false,
    };
    if other_version {
        assert!(strict.is_err(), "{key}");
        return;
    }
    same_network(&lax, headers, key);
    same_transport(&lax, headers, key);
    match (headers.shape, strict) {
        (Shape::Malformed(reason), Ok(_)) => assert!(stricter_than_oracle(&lax, headers, reason), "{key}: {lax:?}"),
        (Shape::Arp | Shape::Ipv4 | Shape::Ipv6, Err(error)) => {
            assert!(laxer_than_oracle(headers, &error), "{key}: {error}");
        }
        _ => {}
    }
}

/// Compares VLAN tags. False where the oracle goes on and we do not, behind a third tag and MACsec, and where we go on and it
/// does not: behind SNAP, and at a tag of the type 0x9200, whole or cut off.
fn same_tags(lax: &LaxSlicedPacket<'_>, headers: &Headers, key: &FlowKey) -> bool {
    let ours = [key.outer_vlan(), key.inner_vlan()];
    for (extension, ours) in lax.link_exts.iter().zip(ours) {
        match (extension, ours) {
            (LaxLinkExtSlice::Vlan(tag), Some(ours)) => {
                assert_eq!(tag.slice()[..2], ours.tci.to_be_bytes());
                assert_eq!(tag.vlan_identifier().value(), ours.id());
            }
            (_, None) => assert_eq!(headers.ethertype, 0x88e5, "{key}: {lax:?}"),
            (LaxLinkExtSlice::Macsec(_), Some(_)) => panic!("we took MACsec for a tag: {key}"),
        }
    }
    lax.link_exts.len() == usize::from(headers.vlans)
        && ![0x88e5, 0x9200].contains(&headers.ethertype)
        && !key.is_snap()
}

/// Compares addresses, protocol, DSCP and fragmentation.
fn same_network(lax: &LaxSlicedPacket<'_>, headers: &Headers, key: &FlowKey) {
    match &lax.net {
        Some(LaxNetSlice::Ipv4(slice)) => {
            let header = slice.header();
            let ours = (key.src_addr(), key.dst_addr());
            assert_eq!(ours, (Some(IpAddr::V4(header.source_addr())), Some(IpAddr::V4(header.destination_addr()))));
            assert_eq!((headers.proto, key.dscp()), (header.protocol().0, header.dcp().value()));
            assert_eq!(key.has_options(), !header.options().is_empty());
            let fragment = fragment(header.fragments_offset().value(), header.more_fragments());
            assert_eq!(headers.fragment, fragment);
        }
        Some(LaxNetSlice::Ipv6(slice)) => {
            let header = slice.header();
            let ours = (key.src_addr(), key.dst_addr());
            assert_eq!(ours, (Some(IpAddr::V6(header.source_addr())), Some(IpAddr::V6(header.destination_addr()))));
            assert_eq!(key.dscp(), header.dscp().value());
            if headers.shape == Shape::Ipv6 && !stops_early(lax) {
                assert_eq!(headers.fragment != Fragment::None, slice.is_payload_fragmented(), "{key}");
                assert_eq!(key.has_options(), !slice.extensions().is_empty(), "{key}");
                // The oracle goes on into the data of a later fragment.
                if headers.fragment != Fragment::Later {
                    assert_eq!(headers.proto, slice.payload().ip_number.0, "{key}");
                }
            }
        }
        Some(LaxNetSlice::Arp(slice)) if headers.shape == Shape::Arp => {
            assert_eq!(key.arp_operation(), Some(slice.operation().0));
            assert_eq!(key.arp_sender().map(|mac| mac.bytes().to_vec()), Some(slice.sender_hw_addr().to_vec()));
            assert_eq!(key.arp_target().map(|mac| mac.bytes().to_vec()), Some(slice.target_hw_addr().to_vec()));
            assert_eq!(key.src_addr().map(bytes), Some(slice.sender_protocol_addr().to_vec()));
            assert_eq!(key.dst_addr().map(bytes), Some(slice.target_protocol_addr().to_vec()));
        }
        Some(LaxNetSlice::Arp(_)) => assert_eq!(key.src_addr(), None),
        None => assert_eq!(key.src_addr(), None, "{key}: {lax:?}"),
    }
}

/// Whether the oracle stopped at an extension header that it does not know: mobility, HIP or shim6.
fn stops_early(lax: &LaxSlicedPacket<'_>) -> bool {
    matches!(&lax.net, Some(LaxNetSlice::Ipv6(slice)) if matches!(slice.payload().ip_number.0, 135 | 139 | 140))
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn fragment(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Compares ports, and type, code and identifier of ICMP, where both found some.
fn same_transport(lax: &LaxSlicedPacket<'_>, headers: &Headers, key: &FlowKey) {
    if !matches!(headers.shape, Shape::Ipv4 | Shape::Ipv6) {
        return;
    }
    // The oracle looks behind an authentication header in IPv4, and behind IPv6 headers of later fragments.
    let hidden = matches!(&lax.net, Some(LaxNetSlice::Ipv4(slice)) if slice.header().protocol().0 == 51);
    if hidden || stops_early(lax) || headers.fragment != Fragment::None {
        assert!(headers.fragment != Fragment::Later || key.dst_port().is_none());
        return;
    }
    match &lax.transport {
        Some(TransportSlice::Tcp(slice)) => {
            assert_eq!(key.src_port().zip(key.dst_port()), Some((slice.source_port(), slice.destination_port())));
        }
        Some(TransportSlice::Udp(slice)) => {
            assert_eq!(key.src_port().zip(key.dst_port()), Some((slice.source_port(), slice.destination_port())));
        }
        Some(TransportSlice::Icmpv4(slice)) if headers.shape == Shape::Ipv4 => {
            assert_eq!(key.icmp(), Some((slice.type_u8(), slice.code_u8())));
            let echo = matches!(slice.type_u8(), 0 | 8);
            assert_eq!(key.icmp_id(), echo.then(|| first_two(slice.bytes5to8())));
        }
        Some(TransportSlice::Icmpv6(slice)) if headers.shape == Shape::Ipv6 => {
            assert_eq!(key.icmp(), Some((slice.type_u8(), slice.code_u8())));
            let echo = matches!(slice.type_u8(), 128 | 129);
            assert_eq!(key.icmp_id(), echo.then(|| first_two(slice.bytes5to8())));
        }
        Some(_) => assert_eq!(key.dst_port(), None),
        // It knows no UDP-Lite and no SCTP, and gives up on a TCP header with a wrong data offset.
        None => assert!(key.dst_port().is_none() || matches!(headers.proto, 6 | 132 | 136), "{key}: {lax:?}"),
    }
}

fn first_two(bytes: [u8; 4]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Whether we refuse with `reason` what the oracle takes, and mean to.
fn stricter_than_oracle(lax: &LaxSlicedPacket<'_>, headers: &Headers, reason: Malformed) -> bool {
    // The oracle takes a payload length of zero for "all the rest", which RFC 8200 does not.
    let no_length = matches!(&lax.net, Some(LaxNetSlice::Ipv6(slice)) if slice.header().payload_length() == 0);
    match reason {
        Malformed::VlanTooDeep => lax.link_exts.len() > 2,
        // It skips options, follows any number of extension headers, and puts no fragments together in its mind.
        Malformed::Ipv4Options | Malformed::Ipv6Extensions | Malformed::Ipv6Jumbogram | Malformed::FragmentOffset => {
            true
        }
        // It takes addresses of any length.
        Malformed::ArpHeader | Malformed::ArpTruncated => {
            let usual = |slice: &etherparse::ArpPacketSlice<'_>| slice.slice()[..6] == [0, 1, 8, 0, 6, 4];
            matches!(&lax.net, Some(LaxNetSlice::Arp(slice)) if !usual(slice))
        }
        // It leaves fragments alone, and does not know UDP-Lite and SCTP.
        Malformed::L4Truncated => {
            no_length || stops_early(lax) || headers.fragment == Fragment::First || matches!(headers.proto, 132 | 136)
        }
        _ => false,
    }
}

/// Whether we take what the oracle refuses with `error`, and mean to: because it is nothing that we read.
fn laxer_than_oracle(headers: &Headers, error: &SliceError) -> bool {
    // It goes on into the data of a later fragment, and follows no limits of ours there.
    let later = headers.fragment == Fragment::Later;
    match error {
        SliceError::Tcp(_) | SliceError::Ipv4Exts(_) => true,
        SliceError::Ipv6Exts(_) => later,
        SliceError::Len(LenError { layer, .. }) => match layer {
            // Data offset and length field of the transport, and protocols that we do not look into.
            Layer::TcpHeader => headers.proto == 6 || headers.proto == 51,
            Layer::UdpHeader | Layer::UdpPayload => headers.proto == 17 || headers.proto == 51,
            Layer::Igmp | Layer::Icmpv4 | Layer::Icmpv4Timestamp | Layer::Icmpv4TimestampReply => true,
            // RFC 4286 has messages of four bytes.
            Layer::Icmpv6 => true,
            Layer::IpAuthHeader => headers.proto == 51 || later,
            Layer::Ipv6ExtHeader | Layer::Ipv6FragHeader | Layer::Ipv6DestOptionsHeader | Layer::Ipv6RouteHeader => {
                later
            }
            _ => false,
        },
        _ => false,
    }
}

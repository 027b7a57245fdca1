//! Segments against a plain reference: another parser reads each, and together they are what was cut.

use super::*;
use crate::vnet::VnetHeader;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use std::vec::Vec;

/// A TCP frame whose checksum is that of the pseudo header alone, as a kernel leaves it, with what is to be done to it.
pub(crate) fn unfinished(v6: bool, tags: usize, payload: &[u8], flags: u8, size: u16) -> (Vec<u8>, VnetHeader) {
    let mut frame = whole(v6, payload, flags, 0xffff_ff00);
    for _ in 0..tags {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    }
    let ip = 14 + 4 * tags;
    let tcp = ip + if v6 { 40 } else { 20 };
    let addresses = if v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
    let pseudo = fold(sum(&frame[addresses]) + 6 + (frame.len() - tcp) as u64);
    frame[tcp + 16..tcp + 18].copy_from_slice(&pseudo.to_be_bytes());
    let checksum = Some((u16::try_from(tcp).unwrap(), 16));
    let header = VnetHeader { checksum, segments: Some(Segments { v6, size }), header_len: 0 };
    (frame, header)
}

/// A whole TCP frame with options, as another library makes it.
pub(crate) fn whole(v6: bool, payload: &[u8], flags: u8, sequence: u32) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let options = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8];
    let ip = if v6 { link.ipv6([7; 16], [9; 16], 64) } else { link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
    let packet = ip.tcp(4000, 80, sequence, 512).options_raw(&options).unwrap();
    let mut frame = Vec::new();
    packet.write(&mut frame, payload).unwrap();
    let tcp = 14 + if v6 { 40 } else { 20 };
    frame[tcp + 13] = flags;
    // With the flags, the checksum changes; what it has to be is found by its definition.
    frame[tcp + 16..tcp + 18].fill(0);
    let addresses = if v6 { 22..54 } else { 26..34 };
    let total = sum(&frame[addresses]) + 6 + (frame.len() - tcp) as u64 + sum(&frame[tcp..]);
    frame[tcp + 16..tcp + 18].copy_from_slice(&checksum(total).to_be_bytes());
    frame
}

/// What another parser reads of a segment whose checksums it finds right.
pub(crate) struct Read {
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) id: Option<u16>,
}

/// Reads a frame with another parser, and checks its checksums with it.
pub(crate) fn read(frame: &[u8]) -> Read {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
    let (right, id) = match &sliced.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), frame.len() - (frame.len() - header_start(frame)));
            (tcp.calc_checksum_ipv4(header.source, header.destination).unwrap(), Some(header.identification))
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            (tcp.calc_checksum_ipv6(header.source, header.destination).unwrap(), None)
        }
        _ => panic!("no IP"),
    };
    assert_eq!(tcp.checksum(), right);
    let flags = tcp.slice()[13];
    Read { sequence: tcp.sequence_number(), flags, payload: tcp.payload().to_vec(), id }
}

/// Bytes of IP in the frame.
fn header_start(frame: &[u8]) -> usize {
    frame.len() - network(frame).unwrap().0
}

/// All frames that a frame is cut into.
pub(crate) fn cut(frame: &mut [u8], header: &VnetHeader) -> Vec<Vec<u8>> {
    let outgoing = Outgoing::new(frame, header).unwrap();
    let pieces: Vec<_> = (0..outgoing.len()).map(|at| outgoing.piece(at).unwrap()).collect();
    assert!(outgoing.piece(outgoing.len()).is_none());
    pieces.iter().map(|piece| [piece.headers(), &outgoing.frame()[piece.rest.clone()]].concat()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut frames are sound for another parser, hold the payload in order, and differ in nothing but what has to.
    #[test]
    fn segments_are_the_whole_in_order(
        v6: bool, tags in 0_usize..3, payload in prop::collection::vec(any::<u8>(), 1..6000), size in 1_u16..3000, flags: u8
    ) {
        let size = size.max(payload.len().div_ceil(200).try_into().unwrap());
        let (frame, header) = unfinished(v6, tags, &payload, flags, size);
        let pieces = cut(&mut frame.clone(), &header);
        prop_assert_eq!(pieces.len(), payload.len().div_ceil(usize::from(size)));
        let first = word(&frame, 14 + 4 * tags + 4).unwrap();
        let mut together = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let segment = read(piece);
            let last = at + 1 == pieces.len();
            prop_assert_eq!(segment.sequence, 0xffff_ff00_u32.wrapping_add(u32::try_from(together.len()).unwrap()));
            prop_assert_eq!(segment.payload.len() == usize::from(size), !last || payload.len() % usize::from(size) == 0);
            let dropped = if last { 0 } else { flags::FIN | flags::PSH } | if at > 0 { flags::CWR } else { 0 };
            prop_assert_eq!(segment.flags, flags & !dropped);
            prop_assert!(segment.id.is_none_or(|id| id == first.wrapping_add(u16::try_from(at).unwrap())));
            together.extend(segment.payload);
        }
        prop_assert_eq!(together, payload);
    }

    /// Whatever frame and header say, there is an answer and no panic, and no piece is longer than headers and size.
    #[test]
    fn nonsense_is_refused(mut frame in prop::collection::vec(any::<u8>(), 0..300), bytes: [u8; 10], real: bool, v6: bool) {
        if real {
            let mut made = unfinished(v6, 0, &[1; 200], 0x18, 100).0;
            for (at, byte) in bytes.iter().enumerate() {
                let place = usize::from(*byte) % made.len();
                made[place] ^= 1 << (at % 8);
            }
            frame = made;
        }
        let Some(header) = VnetHeader::read(&bytes) else { return Ok(()) };
        let tcp = if v6 { 54 } else { 34 };
        for header in [header, VnetHeader { checksum: Some((tcp, 16)), segments: Some(Segments { v6, size: 60 }), header_len: 0 }] {
            let mut copy = frame.clone();
            if let Ok(outgoing) = Outgoing::new(&mut copy, &header) {
                for at in 0..outgoing.len().min(400) {
                    if let (Some(piece), Some(segments)) = (outgoing.piece(at), header.segments) {
                        prop_assert!(piece.rest.len() <= usize::from(segments.size));
                    }
                }
            }
        }
    }

    /// A checksum that was left out is the one that another library writes.
    #[test]
    fn missing_checksums_are_written(payload in prop::collection::vec(any::<u8>(), 0..200), odd: bool) {
        let payload = &payload[..payload.len() - usize::from(odd && !payload.is_empty())];
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut right = Vec::new();
        link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(53, 1000).write(&mut right, payload).unwrap();
        let mut frame = right.clone();
        let pseudo = fold(sum(&frame[26..34]) + 17 + (frame.len() - 34) as u64);
        frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
        let header = VnetHeader { checksum: Some((34, 6)), segments: None, header_len: 0 };
        prop_assert_eq!(cut(&mut frame, &header), [right]);
    }
}

/// A sum of zero is written as all ones for UDP, since zero means that there is none.
#[test]
fn checksum_of_zero_is_not_none() {
    let mut frame = [0; 44];
    frame[34..44].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]);
    let header = VnetHeader { checksum: Some((34, 6)), segments: None, header_len: 0 };
    let made = cut(&mut frame, &header);
    assert_eq!(made[0][40..42], [0xff, 0xff]);
}

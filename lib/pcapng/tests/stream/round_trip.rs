//! What is written is what is read.

use crate::model::{Dialect, Item, PacketRecord, expected, streams, written};
use kopi_pcapng::{Block, Direction, InterfaceInfo, Reader, Statistics};
use proptest::prelude::*;
use std::io::{self, Read};

/// A pipe that gives a few bytes at a time, and is interrupted by a signal before each of them.
struct Drip<'a> {
    bytes: &'a [u8],
    step: usize,
    interrupted: bool,
}

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = buffer.len().min(self.step);
        self.bytes.read(&mut buffer[..most])
    }
}

/// Checks that `bytes` are read as `items`, apart from blocks of unknown types.
fn check(items: &[Item], source: impl Read) {
    let mut reader = Reader::new(source);
    let mut next = |at| loop {
        match reader.next().unwrap_or_else(|error| panic!("block {at}: {error}")) {
            Some(Block::Other(0x0bad)) => {}
            other => break format!("{other:?}"),
        }
    };
    for (at, item) in items.iter().enumerate() {
        assert_eq!(next(at), format!("{:?}", Some(expected(item))), "block {at}");
    }
    assert_eq!(next(items.len()), "None");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every stream is read back as it was written, however its bytes come in.
    #[test]
    fn written_streams_are_read_back(items in streams(), step in 1_usize..5000) {
        check(&items, Drip { bytes: &written(&items), step, interrupted: false });
    }

    /// The writer's bytes are those that the format prescribes, put together without its code.
    #[test]
    fn written_bytes_are_the_format(items in streams()) {
        let plain = Dialect { big_endian: false, odd: false };
        prop_assert!(written(&items) == plain.encode(&items));
    }

    /// Sections of both byte orders are read, in one stream, and what is not known is passed over.
    #[test]
    fn other_writers_are_read(parts in prop::collection::vec((streams(), any::<bool>(), any::<bool>()), 1..4)) {
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|(items, big_endian, odd)| Dialect { big_endian: *big_endian, odd: *odd }.encode(items))
            .collect();
        let items: Vec<_> = parts.into_iter().flat_map(|(items, _, _)| items).collect();
        check(&items, bytes.as_slice());
    }
}

/// Timestamps mean what their interface says, microseconds if it says nothing, in packets and statistics alike.
#[test]
fn each_interface_has_its_clock() {
    for big_endian in [false, true] {
        let dialect = Dialect { big_endian, odd: false };
        let clocks = [vec![], vec![(9, vec![3])], vec![(9, vec![0x81]), (14, dialect.u64(100))]];
        let mut bytes = dialect.encode(&[Item::Section(Default::default())]);
        for options in &clocks {
            bytes.extend(dialect.block(1, [dialect.u16(1), dialect.u16(0), dialect.u32(0)].concat(), options));
        }
        for interface in 0..3 {
            let head = [dialect.u32(interface), dialect.timestamp(5)].concat();
            bytes.extend(dialect.block(6, [head.clone(), vec![0; 8]].concat(), &[]));
            bytes.extend(dialect.block(5, head, &[(2, dialect.timestamp(6)), (3, dialect.timestamp(7))]));
        }

        let mut reader = Reader::new(bytes.as_slice());
        assert!(matches!(reader.next(), Ok(Some(Block::Section(_)))));
        for _ in 0..3 {
            let plain = InterfaceInfo { link_type: 1, ..InterfaceInfo::default() };
            assert_eq!(reader.next().expect("an interface"), Some(Block::Interface(plain)));
        }
        for (interface, [five, six, seven]) in (0..).zip([
            [5_000, 6_000, 7_000],
            [5_000_000, 6_000_000, 7_000_000],
            [102_500_000_000, 103_000_000_000, 103_500_000_000],
        ]) {
            let Ok(Some(Block::Packet(packet))) = reader.next() else { panic!("a packet") };
            assert_eq!((packet.interface, packet.timestamp_ns, packet.direction), (interface, five, None));
            let expected =
                Statistics { interface, timestamp_ns: five, start_ns: six, end_ns: seven, ..Statistics::default() };
            assert_eq!(reader.next().expect("statistics"), Some(Block::Statistics(expected)));
        }
    }
}

/// A packet with the longest data and comment that are written is one that is read.
#[test]
fn the_largest_packet_is_read_back() {
    let items = [
        Item::Section(Default::default()),
        Item::Interface { name: "a".into(), description: String::new(), mac: None, filter: None, snap: 262_144 },
        Item::Packet(PacketRecord {
            interface: 0,
            timestamp_ns: u64::MAX,
            len: u32::MAX,
            direction: Direction::Outbound,
            queue: Some(u32::MAX),
            drops: u64::MAX,
            comment: "x".repeat(70_000),
            data: (0..=u8::MAX).cycle().take(kopi_pcapng::MAX_CAPTURED).collect(),
            piece: 2048,
        }),
    ];
    check(&items, written(&items).as_slice());
}

/// A filter of another kind than libpcap's is none, and of several comments the first counts.
#[test]
fn foreign_filters_and_more_comments() {
    let dialect = Dialect { big_endian: false, odd: false };
    let mut bytes = dialect.encode(&[Item::Section(Default::default())]);
    bytes.extend(dialect.block(1, [vec![1, 0, 0, 0], vec![0; 4]].concat(), &[(11, vec![1, 0xff, 0xff])]));
    let comments = [(1, b"first".to_vec()), (1, b"second".to_vec())];
    bytes.extend(dialect.block(6, vec![0; 20], &comments));
    let mut reader = Reader::new(bytes.as_slice());
    assert!(matches!(reader.next(), Ok(Some(Block::Section(_)))));
    assert!(matches!(reader.next(), Ok(Some(Block::Interface(InterfaceInfo { filter: None, .. })))));
    assert!(matches!(reader.next(), Ok(Some(Block::Packet(packet))) if packet.comment == Some("first")));
}

/// Only two bits of the flags are the direction, and of their four values two are one.
#[test]
fn directions_are_two_bits() {
    let dialect = Dialect { big_endian: true, odd: false };
    let mut head = dialect.encode(&[Item::Section(Default::default())]);
    head.extend(dialect.block(1, vec![0; 8], &[]));
    for (bits, direction) in [(0, None), (1, Some(Direction::Inbound)), (2, Some(Direction::Outbound)), (3, None)] {
        for others in [0, 0xffff_fffc] {
            let bytes = [head.clone(), dialect.block(6, vec![0; 20], &[(2, dialect.u32(others | bits))])].concat();
            let mut reader = Reader::new(bytes.as_slice());
            assert!(matches!(reader.next(), Ok(Some(Block::Section(_)))));
            assert!(matches!(reader.next(), Ok(Some(Block::Interface(_)))));
            assert!(matches!(reader.next(), Ok(Some(Block::Packet(packet))) if packet.direction == direction));
        }
    }
}

/// What is behind the mark of the last option is none, whatever it looks like.
#[test]
fn options_end_at_their_mark() {
    let dialect = Dialect { big_endian: false, odd: false };
    let mut bytes = dialect.encode(&[Item::Section(Default::default())]);
    bytes.extend(dialect.block(1, vec![0; 8], &[(2, b"real".to_vec()), (0, vec![]), (2, b"none".to_vec())]));
    bytes.extend(dialect.block(1, vec![0; 8], &[(0, vec![]), (0xffff, vec![]), (6, vec![0xff; 3])]));
    let mut reader = Reader::new(bytes.as_slice());
    assert!(matches!(reader.next(), Ok(Some(Block::Section(_)))));
    assert!(matches!(reader.next(), Ok(Some(Block::Interface(interface))) if interface.name == "real"));
    assert!(matches!(reader.next(), Ok(Some(Block::Interface(InterfaceInfo { mac: None, .. })))));
}

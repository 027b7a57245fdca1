//! Streams that no writer has written.

use crate::model::{Dialect, Item, streams, written};
use kopi_pcapng::{MAX_BLOCK, MAX_INTERFACES, ReadError, Reader};
use proptest::prelude::*;
use proptest::sample::Index;
use std::io::{self, Read};

const LITTLE: Dialect = Dialect { big_endian: false, odd: false };

/// Reads to the end. Returns how many blocks there were, and what was wrong.
fn read(bytes: &[u8]) -> (usize, Option<ReadError>) {
    let mut reader = Reader::new(bytes);
    let mut blocks = 0;
    let wrong = loop {
        match reader.next() {
            Ok(Some(_)) => blocks += 1,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(reader.next(), Ok(None)), "a stream is over after its end and after an error");
    assert!(blocks <= bytes.len() / 12, "a block has at least twelve bytes");
    (blocks, wrong)
}

/// A section with one interface, and then `block`.
fn with(block: Vec<u8>) -> Vec<u8> {
    let mut bytes = LITTLE.encode(&[Item::Section(Default::default())]);
    bytes.extend(LITTLE.block(1, vec![1, 0, 0, 0, 0, 0, 0, 0], &[]));
    bytes.extend(block);
    bytes
}

/// Checks what is said of `block` after a section and an interface that are in order.
fn refused(block: Vec<u8>, what: &str) {
    let (blocks, wrong) = read(&with(block));
    assert_eq!((blocks, wrong.map(|wrong| format!("{wrong:?}")).as_deref()), (2, Some(what)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Noise is answered, with or without a section before it.
    #[test]
    fn noise_is_answered(noise in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        let bytes = if header { with(noise) } else { noise };
        read(&bytes);
    }

    /// A block of a known type that is whole by its lengths may hold anything.
    #[test]
    fn noise_in_blocks_is_answered(
        kind in 0_u32..8,
        mut body in prop::collection::vec(prop_oneof![0_u8..12, any::<u8>()], 0..120),
        big_endian in any::<bool>(),
    ) {
        body.truncate(body.len() / 4 * 4);
        let dialect = Dialect { big_endian, odd: false };
        let mut bytes = dialect.encode(&[Item::Section(Default::default())]);
        bytes.extend(dialect.block(1, [dialect.u16(1), vec![0; 6]].concat(), &[]));
        bytes.extend(dialect.block(kind, body, &[]));
        read(&bytes);
    }

    /// Streams with a few changed bytes are answered.
    #[test]
    fn damage_is_answered(items in streams(), damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
        let mut bytes = written(&items);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read(&bytes);
    }
}

/// Wherever a stream ends within a block, that is said; and only there.
#[test]
fn every_truncation_is_seen() {
    let block = LITTLE.block(6, vec![0; 20], &[(1, b"comment".to_vec())]);
    let bytes = with(block.clone());
    let ends = [0, 32, 32 + 24, bytes.len()];
    for len in 0..=bytes.len() {
        let (blocks, wrong) = read(&bytes[..len]);
        assert_eq!(blocks, ends.iter().filter(|&&end| 0 < end && end <= len).count());
        match wrong {
            None => assert!(ends.contains(&len), "{len} bytes are taken for a whole stream"),
            Some(ReadError::NotPcapng) => assert!(len < 12, "{len} bytes are not even a section"),
            Some(error) => assert!(matches!(error, ReadError::Truncated) && !ends.contains(&len), "{len}: {error}"),
        }
    }
}

/// A stream has to begin with a section of a version that is known.
#[test]
fn only_pcapng_is_read() {
    let mut pcap = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    pcap.resize(64, 0);
    assert!(matches!(read(&pcap), (0, Some(ReadError::NotPcapng))));
    assert!(matches!(read(&LITTLE.block(1, vec![0; 8], &[])), (0, Some(ReadError::NotPcapng))));
    let header = |major, minor| {
        let body = [LITTLE.u32(0x1a2b_3c4d), LITTLE.u16(major), LITTLE.u16(minor), vec![0xff; 8]].concat();
        read(&LITTLE.block(0x0a0d_0d0a, body, &[]))
    };
    assert!(matches!(header(1, 0), (1, None)));
    assert!(matches!(header(1, 2), (1, None)));
    for (major, minor) in [(0, 0), (1, 1), (1, 3), (2, 0)] {
        let (blocks, wrong) = header(major, minor);
        assert_eq!(blocks, 0);
        assert!(matches!(wrong, Some(ReadError::Version { major: a, minor: b }) if (a, b) == (major, minor)));
    }
}

/// No length of a block is believed: not one that is no block's, nor one that its end contradicts.
#[test]
fn lengths_are_checked() {
    for length in [0, 4, 8, 11, 13, 14, u32::try_from(MAX_BLOCK).expect("a constant") + 4, u32::MAX] {
        refused([LITTLE.u32(6), LITTLE.u32(length), vec![0; 64]].concat(), &format!("Length({length})"));
    }
    let most = MAX_BLOCK - 16;
    assert!(matches!(read(&with(LITTLE.block(99, vec![0; most], &[]))), (3, None)));
    let mut block = LITTLE.block(6, vec![0; 20], &[]);
    let last = block.len() - 4;
    block[last] += 4;
    refused(block, "Lengths { front: 36, back: 40 }");
}

/// What a block says lies in it has to lie in it.
#[test]
fn content_stays_within_its_block() {
    for (kind, least) in [(1, 8), (5, 12), (6, 20)] {
        for len in (0..least).step_by(4) {
            // By hand, for a mark after the last option would be taken for a field.
            let total = LITTLE.u32(12 + len);
            let body = vec![0; usize::try_from(len).expect("a few")];
            let block = [LITTLE.u32(kind), total.clone(), body, total].concat();
            refused(block, &format!("Short {{ kind: {kind} }}"));
        }
    }
    for captured in [5, 8, u32::MAX] {
        let body = [vec![0; 12], LITTLE.u32(captured), vec![0; 4]].concat();
        refused(LITTLE.block(6, body, &[]), "Short { kind: 6 }");
    }
    let option = [LITTLE.u16(1), LITTLE.u16(9), vec![b'a'; 4]].concat();
    refused(LITTLE.block(6, [vec![0; 20], option].concat(), &[]), "Short { kind: 6 }");
}

/// Known options have to have their length, and texts to be UTF-8.
#[test]
fn known_options_are_checked() {
    let heads = [(1, 8), (5, 12), (6, 20)];
    let malformed = [
        (1, 2, vec![0xff]),
        (1, 6, vec![0; 5]),
        (1, 6, vec![0; 8]),
        (1, 9, vec![]),
        (1, 9, vec![9, 0]),
        (1, 11, vec![]),
        (1, 11, vec![0, 0xff]),
        (1, 14, vec![0; 4]),
        (5, 2, vec![0; 4]),
        (5, 3, vec![0; 9]),
        (5, 4, vec![0; 4]),
        (5, 8, vec![]),
        (6, 1, vec![0xc3]),
        (6, 2, vec![0; 8]),
        (6, 4, vec![0; 4]),
        (6, 6, vec![0; 2]),
    ];
    for (kind, code, value) in malformed {
        let (_, len) = heads.into_iter().find(|&(head, _)| head == kind).expect("one of the three");
        let block = LITTLE.block(kind, vec![0; len], &[(code, value)]);
        refused(block, &format!("Option {{ kind: {kind}, code: {code} }}"));
    }
}

/// Blocks are only about interfaces of their own section.
#[test]
fn interfaces_have_to_be_described() {
    for kind in [5, 6] {
        let block = |interface| LITTLE.block(kind, [LITTLE.u32(interface), vec![0; 16]].concat(), &[]);
        assert!(matches!(read(&with(block(0))), (3, None)));
        refused(block(1), "Interface(1)");
        refused(block(u32::MAX), "Interface(4294967295)");
        let again = [with(vec![]), LITTLE.encode(&[Item::Section(Default::default())]), block(0)].concat();
        assert!(matches!(read(&again), (3, Some(ReadError::Interface(0)))));
    }
}

/// A time that 64 bits of nanoseconds cannot say is an error and not another time.
#[test]
fn times_out_of_range_are_refused() {
    let late = [LITTLE.u32(0), LITTLE.timestamp(u64::MAX), vec![0; 8]].concat();
    refused(LITTLE.block(6, late.clone(), &[]), "Timestamp");
    refused(LITTLE.block(5, late[..12].to_vec(), &[]), "Timestamp");
    refused(LITTLE.block(5, vec![0; 12], &[(2, LITTLE.timestamp(u64::MAX))]), "Timestamp");
}

/// A source that says the same thing for ever.
struct Endless<'a> {
    what: &'a [u8],
    at: usize,
}

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&self.what[self.at..]).read(buffer)?;
        self.at = (self.at + n) % self.what.len();
        Ok(n)
    }
}

/// Endless interfaces end at a limit, since each costs the reader memory.
#[test]
fn interfaces_are_limited() {
    let header = LITTLE.encode(&[Item::Section(Default::default())]);
    let interface = LITTLE.block(1, vec![1, 0, 0, 0, 0, 0, 0, 0], &[]);
    let mut reader = Reader::new(header.as_slice().chain(Endless { what: &interface, at: 0 }));
    for at in 0..=MAX_INTERFACES {
        assert!(matches!(reader.next(), Ok(Some(_))), "block {at}");
    }
    assert!(matches!(reader.next(), Err(ReadError::Interfaces)));
    assert!(matches!(reader.next(), Ok(None)));
}

/// What the source says is handed on.
#[test]
fn errors_of_the_source_are_handed_on() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let whole = with(vec![]);
    let mut reader = Reader::new(whole.as_slice().chain(Broken));
    assert!(matches!(reader.next(), Ok(Some(_))));
    assert!(matches!(reader.next(), Ok(Some(_))));
    assert!(matches!(reader.next(), Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset));
    assert!(matches!(reader.next(), Ok(None)));
}

//! What is put together, against what it was cut from.

use super::*;
use crate::segment::tests::{cut, read, unfinished, whole};
use proptest::prelude::*;
use std::boxed::Box;
use std::vec::Vec;

fn begin(run: &mut Run, frame: &[u8]) {
    run.begin(&Candidate::of(frame).unwrap(), frame);
    assert!(!run.is_empty());
}

/// `None` if the frame is nothing that is put to others.
fn offer(run: &mut Run, frame: &[u8]) -> Option<Offer> {
    Candidate::of(frame).map(|segment| run.offer(&segment, frame))
}

/// What a run of `frames` becomes, and how many of them it took.
fn together(frames: &[Vec<u8>]) -> (Vec<u8>, VnetHeader, usize) {
    let mut run = Box::new(Run::new());
    assert!(run.is_empty());
    begin(&mut run, &frames[0]);
    let taken = frames[1..].iter().take_while(|frame| offer(&mut run, frame) == Some(Offer::Taken)).count();
    let bytes = run.finish();
    let header = VnetHeader::read(bytes.first_chunk().unwrap()).unwrap();
    (bytes[LEN..].to_vec(), header, taken + 1)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What was cut is put together again, to the byte, and cutting it again gives the same frames.
    #[test]
    fn putting_together_undoes_cutting(
        v6: bool, tags in 0_usize..3, payload in prop::collection::vec(any::<u8>(), 2..6000), size in 100_u16..1500, push: bool
    ) {
        let flags = if push { ACK | PSH } else { ACK };
        let (mut frame, header) = unfinished(v6, tags, &payload, flags, size);
        let original = frame.clone();
        let pieces = cut(&mut frame, &header);
        prop_assume!(pieces.len() > 1);
        let (made, mut made_header, taken) = together(&pieces);
        prop_assert_eq!(taken, pieces.len());
        made_header.header_len = 0;
        prop_assert_eq!(made_header, header);
        // But for the checksum of IPv4, which a kernel has written and the reference leaves as the library made it.
        prop_assert_eq!(&made, &original);
        prop_assert_eq!(cut(&mut made.clone(), &made_header), pieces);
    }

    /// A frame that differs in anything, or whose checksum is wrong, is not put to the others; alone in a run it passes as it
    /// came.
    #[test]
    fn what_differs_stays_apart(v6: bool, at in 0_usize..94, bit in 0_u8..8, repair: bool) {
        let first = whole(v6, &[1; 100], ACK, 1000);
        let next = whole(v6, &[2; 100], ACK, 1100);
        let mut changed = next.clone();
        let tcp = if v6 { 54 } else { 34 };
        let place = at.min(tcp + 31);
        changed[place] ^= 1 << bit;
        if repair {
            let (ip, addresses) = (14, if v6 { 22..54 } else { 26..34 });
            if !v6 {
                changed[ip + 10..ip + 12].fill(0);
                let header = checksum(sum(&changed[ip..tcp]));
                changed[ip + 10..ip + 12].copy_from_slice(&header.to_be_bytes());
            }
            changed[tcp + 16..tcp + 18].fill(0);
            let total = sum(&changed[addresses]) + 6 + (changed.len() - tcp) as u64 + sum(&changed[tcp..]);
            changed[tcp + 16..tcp + 18].copy_from_slice(&checksum(total).to_be_bytes());
        }
        let push = place == tcp + 13 && 1 << bit == PSH;
        let id = !v6 && (18..20).contains(&place);
        let restored = changed == next;
        let (_, _, taken) = together(&[first, changed.clone()]);
        prop_assert_eq!(taken == 2, restored || repair && (push || id), "byte {} bit {}", place, bit);
        if Candidate::of(&changed).is_some() {
            let (alone, header, _) = together(std::slice::from_ref(&changed));
            prop_assert_eq!((alone, header), (changed, VnetHeader::default()));
        }
    }

    /// Whatever comes, in whatever order, all payload of a flow goes on in the order in which it came.
    #[test]
    fn order_is_kept(steps in prop::collection::vec((0_u32..4, 1_usize..200, any::<bool>()), 1..40)) {
        let mut run = Box::new(Run::new());
        let (mut sequence, mut sent, mut got) = (u32::MAX - 500, Vec::new(), Vec::new());
        let deliver = |run: &mut Run, got: &mut Vec<(u32, u8)>| {
            let bytes = run.finish();
            let header = VnetHeader::read(bytes.first_chunk().unwrap()).unwrap();
            for piece in cut(&mut bytes[LEN..].to_vec(), &header) {
                let segment = read(&piece);
                got.extend((0_u32..).zip(&segment.payload).map(|(at, byte)| (segment.sequence.wrapping_add(at), *byte)));
            }
            run.clear();
        };
        for (jump, length, push) in steps {
            // Now and then something is missing, or comes again.
            sequence = if jump == 0 { sequence.wrapping_sub(50) } else { sequence };
            let payload: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let frame = whole(false, &payload, if push { ACK | PSH } else { ACK }, sequence);
            sent.extend((0_u32..).zip(&payload).map(|(at, byte)| (sequence.wrapping_add(at), *byte)));
            sequence = sequence.wrapping_add(u32::try_from(length).unwrap());
            if run.is_empty() || offer(&mut run, &frame) != Some(Offer::Taken) {
                if !run.is_empty() {
                    deliver(&mut run, &mut got);
                }
                begin(&mut run, &frame);
            }
        }
        deliver(&mut run, &mut got);
        prop_assert_eq!(got, sent);
    }
}

/// A run ends where an IPv4 packet would be longer than its length field can say.
#[test]
fn trains_fit_their_length_field() {
    let mut run = Box::new(Run::new());
    let mut sequence = 0;
    begin(&mut run, &whole(false, &[7; 1448], ACK, sequence));
    let mut taken = 1;
    loop {
        sequence += 1448;
        if offer(&mut run, &whole(false, &[7; 1448], ACK, sequence)) != Some(Offer::Taken) {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, (65535 - 52) / 1448);
    assert!(run.finish().len() <= LEN + 14 + 65535);
}

/// What is nothing to be put together says so, and padding is not taken for payload.
#[test]
fn padding_and_others_are_told_apart() {
    let mut run = Box::new(Run::new());
    let mut padded = whole(false, &[1; 4], ACK, 1);
    padded.extend([0; 6]);
    begin(&mut run, &padded);
    assert_eq!(run.finish().len(), LEN + padded.len() - 6);
    assert_eq!(offer(&mut run, &whole(false, &[], ACK, 5)), None, "no payload");
    assert_eq!(offer(&mut run, &whole(false, &[1], ACK | crate::tcp::flags::FIN, 5)), None);
    assert_eq!(offer(&mut run, &[0; 60]), None);
    assert_eq!(offer(&mut run, &whole(true, &[1], ACK, 5)), Some(Offer::Other));
    assert_eq!(offer(&mut run, &whole(false, &[1], ACK, 6)), Some(Offer::Follows), "a gap");
    assert_eq!(offer(&mut run, &whole(false, &[1], ACK, 5)), Some(Offer::Taken));
    run.clear();
    assert_eq!(offer(&mut run, &whole(false, &[1], ACK, 6)), Some(Offer::Other), "there is nothing to follow");
    run.begin(&Candidate::of(&padded).unwrap(), &padded[..20]);
    assert!(run.is_empty(), "another frame than was read");
}

//! Frames of which only the head lies in the ring: an honest peer's arrive as they were sent, and whatever else a descriptor says
//! is a fault that has a name.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use kopi_ring::layout::{Descriptor, HEAD, MAX_FRAME, Notes, WindowLayout};
use kopi_ring::message::{Segment, Span};
use kopi_ring::{Consumer, Geometry, HugePages, PeerFault, Producer, Region, Window};
use proptest::prelude::*;
use rustix::fs::MemfdFlags;
use rustix::io::pwrite;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const PAGE: u64 = 4096;
/// Pages of the window, and which of them are shared.
const PAGES: u64 = 16;
const FIRST: u64 = 4;
const SHARED: u64 = 8;
const SLOTS: u32 = 64;

/// A ring, and a window with memory in it.
struct Lab {
    memory: OwnedFd,
    window: Arc<Window>,
    region: Region,
    producer: Producer,
    consumer: Consumer,
}

impl Lab {
    fn new() -> Self {
        let memory = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let bytes: Vec<u8> = (0..SHARED * PAGE).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect();
        assert_eq!(pwrite(&memory, &bytes, 0), Ok(bytes.len()));
        let window = Arc::new(Window::new(WindowLayout::new(PAGE, PAGES * PAGE).unwrap()).unwrap());
        let region = Region::create(&Geometry::new(&[SLOTS], &[SLOTS], 256).unwrap(), HugePages::Off).unwrap();
        let producer = region.tx_producer(0).unwrap();
        let consumer = region.tx_consumer(0).unwrap().sharing(Some(Arc::clone(&window)));
        let lab = Self { memory, window, region, producer, consumer };
        lab.share();
        lab
    }

    fn span() -> Span {
        Span { at: FIRST * PAGE, length: SHARED * PAGE }
    }

    fn share(&self) {
        self.window.map(&self.memory, &Segment { span: Self::span(), offset: 0 }).unwrap();
    }

    /// Publishes one descriptor, whatever it says.
    fn describe(&mut self, descriptor: u64) {
        let layout = self.region.geometry().layout();
        let at = layout.tx[0].descriptors() + (self.producer.position() % SLOTS) as usize * 8;
        assert!(self.producer.free(1).is_ok_and(|free| free > 0) && self.producer.push(&[1; 60], Notes::NONE));
        assert_eq!(pwrite(self.region.fd(), &descriptor.to_le_bytes(), at as u64), Ok(8));
        self.producer.publish();
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A frame of so many bytes, all of them in the ring.
    Push(usize),
    /// One whose rest lies at this place in what is shared.
    Refer(u16, u64),
    /// So many by a run of plain frames, or of references.
    Take(bool, usize),
    /// One, read from this offset on.
    Next(u32),
    Release,
}

fn any_step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![HEAD + 1..300_u16, HEAD + 1..=9022_u16];
    prop_oneof![
        3 => (1..600_usize).prop_map(Step::Push),
        5 => (len, 0..SHARED * PAGE - 9022).prop_map(|(len, at)| Step::Refer(len, at)),
        4 => (any::<bool>(), 0..20_usize).prop_map(|(referring, most)| Step::Take(referring, most)),
        3 => (0..9022_u32).prop_map(Step::Next),
        2 => Just(Step::Release),
    ]
}

proptest! {
    /// Frames of both kinds come out as they went in, in order, however they are taken; and a slot is emptied when the consumer has
    /// said so, and not before.
    #[test]
    fn frames_arrive_as_they_were_sent(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut lab = Lab::new();
        let memory: Vec<u8> = (0..SHARED * PAGE).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect();
        let (mut queue, mut held): (VecDeque<(Vec<u8>, bool)>, Vec<u32>) = (VecDeque::new(), Vec::new());
        let (mut number, mut taken, mut released) = (0_u8, 0_u32, 0_u32);
        for step in steps {
            match step {
                Step::Push(len) => {
                    number = number.wrapping_add(1);
                    let frame = vec![number; len];
                    if lab.producer.free(8).is_ok_and(|free| free >= 3) && lab.producer.push(&frame, Notes::NONE) {
                        queue.push_back((frame, false));
                    }
                }
                Step::Refer(len, at) => {
                    number = number.wrapping_add(1);
                    let mut frame = vec![number; HEAD.into()];
                    if lab.producer.free(8).is_ok_and(|free| free > 0) {
                        held.push(lab.producer.position());
                        assert!(lab.producer.push_reference(&frame, len, FIRST * PAGE + at));
                        let at = usize::try_from(at).unwrap();
                        frame.extend_from_slice(&memory[at..at + usize::from(len - HEAD)]);
                        queue.push_back((frame, true));
                    }
                }
                Step::Take(referring, most) => {
                    lab.producer.publish();
                    lab.consumer.poll().unwrap();
                    let mut rooms = vec![vec![0; 9022]; most];
                    let mut lens = Vec::new();
                    let mut places = rooms.iter_mut();
                    let mut place = |len: u16| {
                        lens.push(len);
                        places.next()?.get_mut(..usize::from(len))
                    };
                    let n = match referring {
                        true => lab.consumer.take_references(most, 1..=9022, &mut place),
                        false => lab.consumer.take_run(most, 1..=9022, |len, _| place(len)),
                    };
                    for (room, len) in rooms.iter().zip(&lens).take(n) {
                        let (frame, referred) = queue.pop_front().unwrap();
                        assert_eq!(referred, referring);
                        assert_eq!(room[..usize::from(*len)], frame);
                        taken = taken.wrapping_add(1);
                    }
                }
                Step::Next(offset) => {
                    lab.producer.publish();
                    lab.consumer.poll().unwrap();
                    let Some(frame) = lab.consumer.next().unwrap() else { continue };
                    let (sent, referred) = queue.pop_front().unwrap();
                    assert_eq!(frame.len() as usize, sent.len());
                    let mut whole = vec![0; sent.len()];
                    lab.consumer.copy(&frame, &mut whole);
                    assert_eq!(whole, sent);
                    let offset = offset.min(frame.len());
                    let mut part = vec![0; 500];
                    let n = lab.consumer.copy_from(&frame, offset, &mut part);
                    let rest = &sent[offset as usize..];
                    assert_eq!(part[..n], rest[..rest.len().min(500)]);
                    taken += if referred { 1 } else { frame.len().div_ceil(256) };
                }
                Step::Release => {
                    lab.consumer.release();
                    released = taken;
                    lab.producer.free(SLOTS).unwrap();
                    held.iter().for_each(|position| assert_eq!(lab.producer.emptied(*position), *position < released));
                }
            }
            // Nothing is emptied behind the producer's back.
            assert!(held.iter().filter(|position| lab.producer.emptied(**position)).all(|position| *position < released));
        }
    }

    /// Whatever a descriptor says, the outcome is a frame of memory that is shared, or a fault; nothing else is read.
    #[test]
    fn any_descriptor_is_a_frame_or_a_fault(length in any::<u16>(), at in 0..(PAGES + 2) * PAGE, other in any::<u64>(), plain in any::<bool>()) {
        let mut lab = Lab::new();
        let descriptor = if plain { other } else { u64::from(length) | Descriptor::REFERENCE | at << 20 };
        lab.describe(descriptor);
        lab.consumer.poll().unwrap();
        let mut room = vec![0; usize::from(u16::MAX)];
        let mut place = Some(&mut *room);
        let taken = lab.consumer.take_references(1, 14..=9022, |len| place.take()?.get_mut(..len.into()));
        let next = lab.consumer.next();
        let (end, shared) = (at + u64::from(length.saturating_sub(HEAD)), Lab::span());
        if !plain {
            let good = length > HEAD && u32::from(length) <= MAX_FRAME;
            let inside = at >= shared.at && end <= shared.at + shared.length;
            prop_assert_eq!(taken == 1, good && inside);
            match next {
                Ok(frame) => prop_assert!(frame.is_none() && taken == 1),
                Err(PeerFault::Length { .. }) => prop_assert!(!good),
                Err(fault) => prop_assert_eq!(fault, PeerFault::Reference { at }),
            }
        }
    }
}

/// A reference out of the window, over its end, or over the end of what is shared, is a fault, and so is one whose length lies.
#[test]
fn references_that_are_none_are_named() {
    let (begin, end) = (FIRST * PAGE, (FIRST + SHARED) * PAGE);
    for (length, at) in [
        (200, 0),
        (200, begin - 1),
        (200, begin - 72),
        (200, end - 71),
        (200, end),
        (200, PAGES * PAGE - 71),
        (200, PAGES * PAGE),
        (200, (1 << 44) - 1),
        (9022, end - 8000),
    ] {
        let mut lab = Lab::new();
        lab.describe(Descriptor::reference(length, at).unwrap().0);
        lab.consumer.poll().unwrap();
        for _ in 0..3 {
            assert_eq!(lab.consumer.take_references(9, 1..=9022, |_| panic!("{at:#x}")), 0);
            assert_eq!(lab.consumer.next(), Err(PeerFault::Reference { at }), "{at:#x}");
        }
    }
    for length in [0, 1, HEAD, 9023, u16::MAX] {
        let mut lab = Lab::new();
        lab.describe(u64::from(length) | Descriptor::REFERENCE | begin << 20);
        lab.consumer.poll().unwrap();
        assert_eq!(lab.consumer.take_references(9, 1..=9022, |len| panic!("{len}")), 0, "{length}");
        assert_eq!(lab.consumer.next(), Err(PeerFault::Length { length, slot_size: 256 }));
    }
    // As a part of a chain, at either place.
    let good = Descriptor::reference(200, begin).unwrap().0;
    // Or with a bit that nobody may set.
    for bits in [Descriptor::MORE, 1 << 18, 1 << 19] {
        let mut lab = Lab::new();
        lab.describe(good | bits);
        lab.consumer.poll().unwrap();
        assert_eq!(lab.consumer.take_references(9, 1..=9022, |len| panic!("{len}")), 0, "{bits:#x}");
        assert_eq!(lab.consumer.next(), Err(PeerFault::Reserved { bits }));
    }
    let mut lab = Lab::new();
    lab.describe(256 | Descriptor::MORE);
    lab.describe(good);
    lab.consumer.poll().unwrap();
    assert_eq!(lab.consumer.next(), Err(PeerFault::Reserved { bits: Descriptor::REFERENCE }));
}

/// What is shared no longer is not read any more, even for a frame that was taken while it was; and a consumer without a window
/// knows no references.
#[test]
fn unmapped_memory_is_not_read() {
    let mut lab = Lab::new();
    for _ in 0..2 {
        assert!(lab.producer.free(1).is_ok_and(|free| free > 0));
        assert!(lab.producer.push_reference(&[9; 128], 400, FIRST * PAGE));
    }
    lab.producer.publish();
    lab.consumer.poll().unwrap();
    let frame = lab.consumer.next().unwrap().unwrap();
    lab.window.unmap(Lab::span()).unwrap();
    let mut bytes = [0xee; 400];
    lab.consumer.copy(&frame, &mut bytes);
    assert_eq!((&bytes[..128], &bytes[128..]), (&[9; 128][..], &[0; 272][..]));
    assert_eq!(lab.consumer.next(), Err(PeerFault::Reference { at: FIRST * PAGE }));
    lab.share();
    assert!(lab.consumer.next().unwrap().is_some());

    let mut without = lab.region.tx_consumer(0).unwrap();
    without.poll().unwrap();
    assert!(matches!(without.next(), Err(PeerFault::Reserved { .. })));
    assert_eq!(without.take_references(9, 1..=9022, |_| panic!("there is no window")), 0);
}

/// An application that rewrites what it has sent changes bytes behind the head of its own frame, and no others.
#[test]
fn scribbling_changes_the_rest_alone() {
    let mut lab = Lab::new();
    assert!(lab.producer.free(1).is_ok_and(|free| free > 0));
    assert!(lab.producer.push_reference(&[9; 128], 400, FIRST * PAGE + 5));
    lab.producer.publish();
    lab.consumer.poll().unwrap();
    pwrite(&lab.memory, &[0x55; 4096], 0).unwrap();
    let mut room = [0xee; 500];
    let mut place = Some(&mut room[..400]);
    assert_eq!(lab.consumer.take_references(1, 14..=1522, |_| place.take()), 1);
    assert_eq!((&room[..128], &room[128..400], &room[400..]), (&[9; 128][..], &[0x55; 272][..], &[0xee; 100][..]));
}

//! Faults 10 to 12: a peer that writes what it likes into the region. Neither side panics, neither side leaves its own
//! buffers, and every outcome is a frame, nothing, or a `PeerFault`.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use kopi_ring::layout::{Descriptor, LINE, MAX_FRAME, Notes, RingSpan};
use kopi_ring::{Geometry, HugePages, PeerFault, Region};
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::thread;

const SLOTS: u32 = 64;
const SLOT_SIZE: u32 = 256;

/// The peer's own mapping of the region, through which it can write anything anywhere.
struct Peer {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping is used through atomics only.
unsafe impl Sync for Peer {}
// SAFETY: as above.
unsafe impl Send for Peer {}

impl Peer {
    fn of(region: &Region) -> Self {
        let size = region.size();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, region.fd(), 0)
        };
        Self { base: NonNull::new(base.unwrap().cast()).unwrap(), size }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset + 8 <= self.size);
        self.base.as_ptr().wrapping_add(offset)
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside the mapping and aligned, and only used as an atomic here.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }

    fn long(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping and aligned, and only used as an atomic here.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    fn head(&self, ring: &RingSpan) -> &AtomicU32 {
        self.word(ring.offset)
    }

    fn tail(&self, ring: &RingSpan) -> &AtomicU32 {
        self.word(ring.offset + 128)
    }

    fn describe(&self, ring: &RingSpan, position: u32, descriptor: u64) {
        self.long(ring.descriptors() + (position % ring.slots) as usize * 8).store(descriptor, SeqCst);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody borrows any more.
        unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size) }.unwrap();
    }
}

fn geometry() -> Geometry {
    Geometry::new(&[SLOTS], &[SLOTS], SLOT_SIZE).unwrap()
}

fn region() -> (Region, Peer, RingSpan) {
    let region = Region::create(&geometry(), HugePages::Off).unwrap();
    let peer = Peer::of(&region);
    (region, peer, geometry().layout().tx[0])
}

/// A small generator of numbers: enough disorder for a scribbler, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).unwrap()
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// Ends the other thread when it goes out of scope, so that a failed assertion ends the test instead of hanging it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Fault 10: `head` ahead by more than the ring. No slot is read, and the fault stays.
#[test]
fn fault_10_head_jumps() {
    let (region, peer, ring) = region();
    for moved in [SLOTS + 1, SLOTS * 2, 1 << 31, u32::MAX] {
        let mut consumer = region.tx_consumer(0).unwrap();
        peer.head(&ring).store(moved, SeqCst);
        for _ in 0..3 {
            assert_eq!(consumer.poll(), Err(PeerFault::HeadJump { moved, room: SLOTS }));
            assert_eq!(consumer.next(), Ok(None));
        }
        assert_eq!(peer.tail(&ring).load(SeqCst), 0);
    }
}

/// Fault 10: `head` goes back behind what was already seen.
#[test]
fn fault_10_head_moves_backwards() {
    let (region, peer, ring) = region();
    let mut consumer = region.tx_consumer(0).unwrap();
    (0..4).for_each(|position| peer.describe(&ring, position, 60));
    peer.head(&ring).store(4, SeqCst);
    assert_eq!(consumer.poll(), Ok(4));
    peer.head(&ring).store(3, SeqCst);
    assert_eq!(consumer.filled(), Err(PeerFault::HeadJump { moved: u32::MAX, room: SLOTS - 4 }));
    // What was published once is still good.
    assert_eq!((0..5).filter(|_| consumer.next().unwrap().is_some()).count(), 4);
}

/// Fault 10: `head` is another number at every look. Each look is judged for itself, and never gives more than a ring.
#[test]
fn fault_10_head_changes_on_every_read() {
    let (region, peer, ring) = region();
    (0..SLOTS).for_each(|position| peer.describe(&ring, position, 60));
    let stop = AtomicBool::new(false);
    let (mut good, mut faults) = (0, 0);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut numbers = Numbers(1);
            while !stop.load(Relaxed) {
                let near = numbers.small(200);
                peer.head(&ring).store(peer.tail(&ring).load(Relaxed).wrapping_add(near), Relaxed);
            }
        });
        let mut consumer = region.tx_consumer(0).unwrap();
        while good < 2000 || faults < 2000 {
            match consumer.poll() {
                Ok(ready) => {
                    assert!(ready <= SLOTS);
                    good += 1;
                    while consumer.next().unwrap().is_some() {}
                    consumer.release();
                }
                Err(PeerFault::HeadJump { moved, room }) => {
                    assert!(moved > room);
                    faults += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
}

/// The same for the other index: a consumer that empties what was never filled.
#[test]
fn fault_10_tail_jumps_or_moves_backwards() {
    let (region, peer, ring) = region();
    for moved in [4, SLOTS, 1 << 31, u32::MAX] {
        let mut producer = region.tx_producer(0).unwrap();
        assert_eq!(producer.free(1), Ok(SLOTS));
        assert!((0..3).all(|_| producer.push(&[1; 60], Notes::NONE)));
        peer.tail(&ring).store(moved, SeqCst);
        assert_eq!(producer.free(SLOTS), Err(PeerFault::TailJump { moved, filled: 3 }));
        assert_eq!(producer.filled(), 3);
    }
}

/// Fault 11: every descriptor that is not one is refused by name, and the ring stays where it was.
#[test]
fn fault_11_malformed_descriptors() {
    let length = |length| PeerFault::Length { length, slot_size: SLOT_SIZE };
    let more = Descriptor::MORE;
    let cases = [
        (0, length(0)),
        (257, length(257)),
        (65535, length(65535)),
        (more, length(0)),
        (60 | more, length(60)),
        (256 | more, PeerFault::Chain { slots: 1 }),
        (60 | 1 << 17, PeerFault::Reserved { bits: 1 << 17 }),
        (60 | 1 << 19, PeerFault::Reserved { bits: 1 << 19 }),
        // An app has no notes to give.
        (60 | 1 << 20, PeerFault::Reserved { bits: 1 << 20 }),
        (60 | 1 << 63, PeerFault::Reserved { bits: 1 << 63 }),
        (u64::MAX, PeerFault::Reserved { bits: !0x1_ffff }),
    ];
    let (region, peer, ring) = region();
    for (descriptor, fault) in cases {
        let mut consumer = region.tx_consumer(0).unwrap();
        peer.describe(&ring, 0, descriptor);
        peer.head(&ring).store(1, SeqCst);
        assert_eq!(consumer.poll(), Ok(1));
        for _ in 0..3 {
            assert_eq!(consumer.next(), Err(fault), "descriptor {descriptor:#x}");
            let run = consumer.take_run(9, 0..=u16::MAX, |_, _| panic!("descriptor {descriptor:#x} in a run"));
            assert_eq!(run, 0);
            assert!(!consumer.take_one(0..=u16::MAX, |_, _| panic!("descriptor {descriptor:#x} is a frame")));
        }
    }
}

/// Fault 11: a length below an Ethernet header is well-formed here; the daemon drops such a frame by name.
#[test]
fn fault_11_runts_are_frames() {
    let (region, peer, ring) = region();
    let mut consumer = region.tx_consumer(0).unwrap();
    (0..13).for_each(|position| peer.describe(&ring, position, u64::from(position) + 1));
    peer.head(&ring).store(13, SeqCst);
    assert_eq!(consumer.poll(), Ok(13));
    for len in 1..=13 {
        assert_eq!(consumer.next().unwrap().unwrap().len(), len);
    }
}

/// Fault 11: chains without an end, in a full ring of them too, and chains longer than any frame.
#[test]
fn fault_11_chains_without_an_end() {
    let (region, peer, ring) = region();
    let full = u64::from(SLOT_SIZE) | Descriptor::MORE;
    (0..SLOTS).for_each(|position| peer.describe(&ring, position, full));
    for published in [1, 2, 35, 36, SLOTS] {
        let mut consumer = region.tx_consumer(0).unwrap();
        peer.head(&ring).store(published, SeqCst);
        assert_eq!(consumer.poll(), Ok(published));
        // 36 slots of 256 bytes are more than the longest frame, so nobody looks further.
        assert_eq!(consumer.next(), Err(PeerFault::Chain { slots: published.min(36) }));
    }
    // One byte too long, with an end.
    let mut consumer = region.tx_consumer(0).unwrap();
    peer.describe(&ring, 35, u64::from(MAX_FRAME - 35 * SLOT_SIZE) + 1);
    assert_eq!(consumer.poll(), Ok(SLOTS));
    assert_eq!(consumer.next(), Err(PeerFault::Chain { slots: 36 }));
}

/// Writes into the region without pause: random bits everywhere, and now and then what passes for a counter or a
/// descriptor, so that the other side gets beyond its first check.
fn scribble(peer: &Peer, stop: &AtomicBool) {
    let layout = geometry().layout();
    let rings = [layout.tx[0], layout.rx[0]];
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    while !stop.load(Relaxed) {
        let ring = &rings[numbers.below(2)];
        match numbers.below(8) {
            0 => peer.long(numbers.below(peer.size / 8) * 8).store(numbers.next(), Relaxed),
            1 => peer.long(ring.descriptors() + numbers.below(SLOTS as usize) * 8).store(numbers.next(), Relaxed),
            2..5 => {
                let position = numbers.small(SLOTS);
                let length = [1, 60, 255, 256, 256, 256, 257][numbers.below(7)];
                peer.describe(ring, position, length | [0, 0, Descriptor::MORE][numbers.below(3)]);
            }
            5 => peer.head(ring).store(peer.tail(ring).load(Relaxed).wrapping_add(numbers.small(70)), Relaxed),
            6 => peer.tail(ring).store(peer.head(ring).load(Relaxed).wrapping_sub(numbers.small(70)), Relaxed),
            _ => peer.head(ring).store(numbers.small(70), Relaxed),
        }
    }
}

/// A buffer with a margin on both sides that nobody may write to.
struct Guarded(Vec<u8>);

impl Guarded {
    const MARGIN: usize = 4 * LINE;

    fn new(len: usize) -> Self {
        Self(vec![0xa5; len + 2 * Self::MARGIN])
    }

    fn inside(&mut self, len: usize) -> &mut [u8] {
        &mut self.0[Self::MARGIN..][..len]
    }

    fn check(&self, len: usize) {
        let (before, after) = (&self.0[..Self::MARGIN], &self.0[Self::MARGIN + len..]);
        assert!(before.iter().chain(after).all(|byte| *byte == 0xa5), "a copy left its buffer");
    }
}

/// Fault 12, seen from the emptying side: whatever is written, a copy stays within its buffer and a frame within its
/// limits.
#[test]
fn fault_12_consumer_survives_a_scribbler() {
    let (region, peer, _) = region();
    let stop = AtomicBool::new(false);
    let (mut frames, mut chains, mut faults) = (0_u32, 0_u32, 0_u32);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| scribble(&peer, &stop));
        let mut round = 0_u32;
        // Until the scribbler got through to every kind of outcome: before that, the test shows nothing.
        while round < 200_000 || frames < 100 || chains == 0 || faults < 100 {
            round += 1;
            assert!(round < 100_000_000, "{frames} frames, {chains} chains, {faults} faults");
            if round.is_multiple_of(1024) {
                thread::yield_now();
            }
            let taken = if round.is_multiple_of(2) { region.tx_consumer(0) } else { region.rx_consumer(0) };
            let mut consumer = taken.unwrap();
            for _ in 0..4 {
                let outcome = consumer.poll().and_then(|ready| {
                    assert!(ready <= SLOTS);
                    let mut buffer = Guarded::new(SLOT_SIZE as usize);
                    let mut place = Some(buffer.inside(SLOT_SIZE as usize)).filter(|_| round.is_multiple_of(3));
                    let run = consumer.take_run(9, 0..=u16::MAX, |len, _| place.take()?.get_mut(..len.into()));
                    assert!(run <= 1);
                    let place = buffer.inside(SLOT_SIZE as usize);
                    consumer.take_one(0..=u16::MAX, |len, _| place.get_mut(..len.into()));
                    buffer.check(SLOT_SIZE as usize);
                    consumer.next()
                });
                match outcome {
                    Ok(Some(frame)) => {
                        assert!((1..=MAX_FRAME).contains(&frame.len()));
                        let room = [frame.len() as usize, 60, 0][round as usize % 3];
                        let mut buffer = Guarded::new(room);
                        consumer.copy(&frame, buffer.inside(room));
                        buffer.check(room);
                        let copied = consumer.copy_from(&frame, round % 600, buffer.inside(room));
                        assert!(copied <= room);
                        buffer.check(room);
                        if round.is_multiple_of(5) {
                            consumer.put_back(&frame);
                        }
                        consumer.release();
                        frames += 1;
                        chains += u32::from(frame.len() > SLOT_SIZE);
                    }
                    Ok(None) => {}
                    Err(_) => faults += 1,
                }
            }
        }
    });
}

/// Fault 12, seen from the filling side: the producer never takes more than the ring has, and never reads from it.
#[test]
fn fault_12_producer_survives_a_scribbler() {
    let (region, peer, _) = region();
    let stop = AtomicBool::new(false);
    let frame = vec![0x77; MAX_FRAME as usize];
    let (mut pushed, mut faults) = (0_u32, 0_u32);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| scribble(&peer, &stop));
        let mut round = 0_u32;
        while round < 20_000 || pushed < 1000 || faults < 100 {
            round += 1;
            assert!(round < 10_000_000, "{pushed} pushed, {faults} faults");
            if round.is_multiple_of(128) {
                thread::yield_now();
            }
            let made = if round.is_multiple_of(2) { region.tx_producer(0) } else { region.rx_producer(0) };
            let mut producer = made.unwrap();
            for step in 0..40_u32 {
                match producer.free(SLOTS) {
                    Ok(free) => assert!(free <= SLOTS),
                    Err(_) => faults += 1,
                }
                let len = [60, 256, 257, 1518, MAX_FRAME as usize][(round + step) as usize % 5];
                let room = SLOTS - producer.filled() >= producer.slots_for(u32::try_from(len).unwrap());
                let took = producer.push(&frame[..len], Notes::NONE);
                assert_eq!(took, room);
                assert!(producer.filled() <= SLOTS);
                pushed += u32::from(took);
                producer.publish();
            }
        }
    });
    assert!(frame.iter().all(|byte| *byte == 0x77));
}

//! Both ends of a ring over a real region, against a queue that cannot be wrong.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use kopi_ring::layout::{MAX_FRAME, MIN_SLOT, Notes};
use kopi_ring::{Consumer, Frame, Geometry, HugePages, Producer, Region, SumRoutine};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// The smallest ring, which wraps most often.
const SLOTS: u32 = 64;

/// One thing that one of the two sides does.
#[derive(Clone, Debug)]
enum Step {
    /// The producer looks for this many free slots.
    Free(u32),
    /// The producer sends a frame of so many bytes at once.
    Push(u32),
    /// The producer sends a frame in one slot, sums it up, and writes over two bytes of the copy, here.
    Summing(u32, usize),
    /// The producer sends frames of so many bytes each, as a run.
    Run(Vec<u32>),
    /// The producer sends a frame in pieces of so many bytes, behind as many others that come last.
    Pieces(u32, u32, u32),
    /// The producer begins a frame and gives it up after so many bytes.
    GiveUp(u32, u32),
    Publish,
    Poll,
    /// The consumer looks at the producer's counter in any case.
    Filled,
    /// The consumer takes a frame and copies it in the way given.
    Next(Read),
    /// The consumer takes frames of these lengths as a run, as many as it has places for.
    TakeRun(u16, u16, usize),
    PutBack,
    Release,
}

#[derive(Clone, Copy, Debug)]
enum Read {
    Whole,
    /// Into a buffer of so many bytes, which may be too short or too long.
    Into(u32),
    /// From an offset, into a buffer of so many bytes.
    From(u32, u32),
}

/// The sum of words as they lie, of which an odd last byte is padded.
fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

fn any_len() -> impl Strategy<Value = u32> {
    // Slots are 256 or 2,048 bytes; the bounds between them are where chains go wrong.
    prop_oneof![
        4 => 1..300_u32,
        2 => (1..36_u32, 0..3_u32).prop_map(|(slots, more)| slots * 256 + more - 1),
        1 => (1..5_u32, 0..3_u32).prop_map(|(slots, more)| slots * 2048 + more - 1),
        1 => 1..=MAX_FRAME,
        1 => prop_oneof![Just(0), Just(MAX_FRAME), Just(MAX_FRAME + 1), Just(70_000)],
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let read = prop_oneof![
        2 => Just(Read::Whole),
        1 => (0..10_000_u32).prop_map(Read::Into),
        1 => (0..10_000_u32, 0..10_000_u32).prop_map(|(from, len)| Read::From(from, len)),
    ];
    prop_oneof![
        3 => (1..80_u32).prop_map(Step::Free),
        6 => any_len().prop_map(Step::Push),
        2 => (any_len(), 0..2100_usize).prop_map(|(len, at)| Step::Summing(len, at)),
        2 => prop::collection::vec(any_len(), 0..40).prop_map(Step::Run),
        2 => (any_len(), 1..4000_u32, 0..300_u32).prop_map(|(len, piece, head)| Step::Pieces(len, piece, head)),
        1 => (any_len(), any_len()).prop_map(|(len, done)| Step::GiveUp(len, done)),
        3 => Just(Step::Publish),
        3 => Just(Step::Poll),
        1 => Just(Step::Filled),
        6 => read.prop_map(Step::Next),
        3 => (0..20_u16, prop_oneof![0..300_u16, any::<u16>()], prop_oneof![Just(1), 0..40_usize]).prop_map(|(a, b, n)| Step::TakeRun(a, b, n)),
        1 => Just(Step::PutBack),
        3 => Just(Step::Release),
    ]
}

/// A frame as it was sent.
#[derive(Clone, Debug)]
struct Sent {
    bytes: Vec<u8>,
    notes: Notes,
    slots: u32,
}

/// The two ends, and what should be in the ring. Counters count slots since the beginning.
struct Bench {
    producer: Producer,
    consumer: Consumer,
    slot_size: u32,
    /// Whether this direction carries notes.
    notes: bool,
    /// Frames pushed and not taken, oldest first.
    queue: VecDeque<Sent>,
    /// The frame taken last, as long as it can be put back.
    last: Option<(Frame, Sent)>,
    frames: u32,
    /// The producer's own counter, what it published of it, and what the consumer has seen of that.
    head: u32,
    head_published: u32,
    head_seen: u32,
    /// The consumer's counters, likewise.
    tail: u32,
    tail_published: u32,
    tail_seen: u32,
}

impl Bench {
    fn new(slot_size: u32, notes: bool) -> Self {
        let geometry = Geometry::new(&[SLOTS], &[SLOTS], slot_size).unwrap();
        let region = Region::create(&geometry, HugePages::Off).unwrap();
        let ends = if notes {
            region.rx_producer(0).zip(region.rx_consumer(0))
        } else {
            region.tx_producer(0).zip(region.tx_consumer(0))
        };
        let (producer, consumer) = ends.unwrap();
        Self {
            producer,
            consumer,
            slot_size,
            notes,
            queue: VecDeque::new(),
            last: None,
            frames: 0,
            head: 0,
            head_published: 0,
            head_seen: 0,
            tail: 0,
            tail_published: 0,
            tail_seen: 0,
        }
    }

    /// The next frame to send: its bytes and notes follow from its number, so that no two are alike.
    fn next_frame(&mut self, len: u32) -> Sent {
        self.frames += 1;
        let first = self.frames.wrapping_mul(0x9e37_79b9);
        let bytes = (0..len).map(|i| (first.wrapping_add(i.wrapping_mul(193)) >> 7).to_le_bytes()[0]).collect();
        let notes = if self.notes { Notes::new(0x211, first) } else { Notes::NONE };
        Sent { bytes, notes, slots: len.div_ceil(self.slot_size) }
    }

    /// Whether the producer may take a frame of so many bytes, as far as it knows.
    fn fits(&self, len: u32) -> bool {
        (1..=MAX_FRAME).contains(&len) && len.div_ceil(self.slot_size) <= SLOTS - (self.head - self.tail_seen)
    }

    fn sent(&mut self, frame: Sent) {
        self.head += frame.slots;
        self.queue.push_back(frame);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Free(want) => {
                if SLOTS - (self.head - self.tail_seen) < want {
                    self.tail_seen = self.tail_published;
                }
                assert_eq!(self.producer.free(want), Ok(SLOTS - (self.head - self.tail_seen)));
                assert_eq!(self.producer.filled(), self.head - self.tail_seen);
            }
            Step::Push(len) => {
                let frame = self.next_frame(len);
                let fits = self.fits(len);
                assert_eq!(self.producer.push(&frame.bytes, frame.notes), fits);
                if fits {
                    self.sent(frame);
                }
            }
            Step::Summing(len, at) => self.push_summing(len, at),
            Step::Run(ref lens) => self.push_run(lens),
            Step::Pieces(len, piece, head) => self.push_in_pieces(len, piece, head),
            Step::GiveUp(len, done) => {
                let frame = self.next_frame(len);
                let fits = self.fits(len);
                let slots = self.producer.begin(len, frame.notes);
                assert_eq!(slots.is_some(), fits);
                if let Some(mut slots) = slots {
                    let piece = vec![0xdd; done as usize];
                    assert_eq!(slots.append(&piece), done <= len);
                    // A complete frame is given up by not finishing it.
                    assert!(done == len || !slots.finish());
                }
            }
            Step::Publish => {
                self.producer.publish();
                self.head_published = self.head;
            }
            Step::Poll => {
                if self.head_seen == self.tail {
                    self.head_seen = self.head_published;
                }
                assert_eq!(self.consumer.poll(), Ok(self.head_seen - self.tail));
            }
            Step::Filled => {
                self.head_seen = self.head_published;
                assert_eq!(self.consumer.filled(), Ok(self.head_seen - self.tail));
            }
            Step::Next(read) => self.take(read),
            Step::TakeRun(shortest, longest, places) => self.take_run(shortest..=longest, places),
            Step::PutBack => {
                if let Some((frame, sent)) = self.last.take() {
                    self.consumer.put_back(&frame);
                    self.tail -= sent.slots;
                    self.queue.push_front(sent);
                }
            }
            Step::Release => {
                self.consumer.release();
                self.tail_published = self.tail;
                self.last = None;
            }
        }
    }

    /// A run ends at the first frame that does not fit, or not into one slot.
    fn push_run(&mut self, lens: &[u32]) {
        let frames: Vec<_> = lens.iter().map(|len| self.next_frame(*len)).collect();
        let room = (SLOTS - (self.head - self.tail_seen)) as usize;
        let short = frames.iter().take_while(|frame| frame.slots == 1).count();
        let pushed = self.producer.push_run(frames.iter().map(|frame| (frame.bytes.as_slice(), frame.notes)));
        assert_eq!(pushed as usize, short.min(room));
        frames.into_iter().take(pushed as usize).for_each(|frame| self.sent(frame));
    }

    fn push_summing(&mut self, len: u32, at: usize) {
        let mut frame = self.next_frame(len);
        let (expected, field) = (words(&frame.bytes), [!frame.bytes.first().unwrap_or(&0), 0x5a]);
        let fits = self.fits(len) && len <= self.slot_size && at + 2 <= frame.bytes.len();
        let pushed = self.producer.push_summing(&frame.bytes, frame.notes, |sum| {
            assert_eq!(sum % 0xffff, expected % 0xffff);
            [None, Some((at, field))]
        });
        assert_eq!(pushed, fits);
        if fits {
            frame.bytes[at..at + 2].copy_from_slice(&field);
            self.sent(frame);
        }
    }

    fn push_in_pieces(&mut self, len: u32, piece: u32, head: u32) {
        let frame = self.next_frame(len);
        let fits = self.fits(len);
        let slots = self.producer.begin(len, frame.notes);
        assert_eq!(slots.is_some(), fits);
        if let Some(mut slots) = slots {
            let left = slots.leave_head(head);
            assert_eq!(left, head <= len.min(MIN_SLOT));
            let (first, rest) = frame.bytes.split_at(if left { head as usize } else { 0 });
            for (at, bytes) in rest.chunks(piece as usize).enumerate() {
                if at % 2 == 0 {
                    assert!(slots.append(bytes));
                } else {
                    let sum = slots.append_summing(bytes).unwrap();
                    assert_eq!(sum % 0xffff, words(bytes) % 0xffff);
                }
            }
            assert!(!slots.append(&[0]) && slots.append_summing(&[0]).is_none(), "longer than announced");
            if !first.is_empty() {
                assert!(!slots.put_head(&first[1..]), "not as long as what was left");
                assert!(slots.put_head(first));
            }
            assert!(slots.finish());
            self.sent(frame);
        }
    }

    /// A run ends at the first frame of another length or in several slots, and where there are no more places.
    fn take_run(&mut self, lens: RangeInclusive<u16>, places: usize) {
        let seen = (self.head_seen - self.tail) as usize;
        let is_right = |sent: &&Sent| sent.slots == 1 && lens.contains(&u16::try_from(sent.bytes.len()).unwrap());
        let expected: Vec<_> = self.queue.iter().take(seen.min(places)).take_while(is_right).cloned().collect();
        let mut buffers: Vec<_> = expected.iter().map(|sent| vec![0xee; sent.bytes.len() + 16]).collect();
        let mut left = buffers.iter_mut();
        let mut given = Vec::new();
        let mut asked = 0;
        let most = places + usize::from(places.is_multiple_of(3));
        let mut place = |len, notes| {
            asked += 1;
            given.push((usize::from(len), notes));
            left.next().map(|buffer| &mut buffer[..usize::from(len)])
        };
        let routines = [None, Some(SumRoutine::PORTABLE), Some(SumRoutine::detect())];
        let mut copied = Vec::new();
        let taken = match (most, routines.get(places % 4)) {
            (1, _) => usize::from(self.consumer.take_one(lens, place)),
            (_, None) => self.consumer.take_run(most, lens, place),
            (_, Some(routine)) => {
                let mut number = 0..;
                let place = |len, notes| number.next().zip(place(len, notes));
                let copied = |number, frame: &mut [u8], sum| copied.push((number, frame.to_vec(), sum));
                self.consumer.take_run_summed(most, lens, *routine, place, copied)
            }
        };
        assert_eq!(taken, expected.len());
        for (number, (sent, (given, bytes, sum))) in expected.iter().zip(copied).enumerate() {
            assert!(given == number && bytes == sent.bytes);
            let words = bytes.chunks(2).map(|word| u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
            let right = words.map(u64::from).sum::<u64>() % 0xffff;
            assert_eq!(sum % 0xffff, if routines[places % 4].is_some() { right } else { 0 });
        }
        assert!(asked <= expected.len() + 1, "asked after the end");
        for ((sent, buffer), (len, notes)) in expected.iter().zip(&buffers).zip(given) {
            assert_eq!((len, notes), (sent.bytes.len(), sent.notes));
            assert!(buffer[..len] == sent.bytes && buffer[len..].iter().all(|byte| *byte == 0xee));
            self.tail += 1;
            self.queue.pop_front();
        }
        if taken > 0 {
            self.last = None;
        }
    }

    fn take(&mut self, read: Read) {
        let frame = self.consumer.next().unwrap();
        let expected = if self.head_seen == self.tail { None } else { self.queue.pop_front() };
        let (Some(frame), Some(sent)) = (frame, &expected) else {
            assert!(frame.is_none() && expected.is_none(), "got {frame:?}");
            return;
        };
        assert_eq!(frame.len() as usize, sent.bytes.len());
        assert_eq!(frame.notes(), sent.notes);
        let (from, room) = match read {
            Read::Whole => (0, frame.len()),
            Read::Into(room) => (0, room),
            Read::From(from, room) => (from, room),
        };
        let left = sent.bytes.get(from as usize..).unwrap_or_default();
        let copied = left.len().min(room as usize);
        let mut buffer = vec![0xee; room as usize];
        if let Read::From(..) = read {
            assert_eq!(self.consumer.copy_from(&frame, from, &mut buffer), copied);
        } else {
            self.consumer.copy(&frame, &mut buffer);
        }
        assert!(buffer[..copied] == left[..copied], "frame of {} bytes read as {read:?}", frame.len());
        assert!(buffer[copied..].iter().all(|byte| *byte == 0xee), "bytes written behind the frame");
        self.tail += sent.slots;
        self.last = expected.map(|sent| (frame, sent));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the two sides do, in whatever order: frames come out whole, in order and once, neither side ever sees
    /// more than the other has published, and nothing is written behind the end of a reader's buffer.
    #[test]
    fn ring_behaves_like_a_bounded_queue_of_frames(
        small in any::<bool>(), notes in any::<bool>(), steps in prop::collection::vec(any_step(), 1..400),
    ) {
        let mut bench = Bench::new(if small { 256 } else { 2048 }, notes);
        steps.iter().for_each(|step| bench.step(step));
    }

    /// A ring that is emptied as fast as it is filled passes any number of frames, of any length, many times round.
    #[test]
    fn frames_of_every_length_pass_many_times_round(lens in prop::collection::vec(1..=MAX_FRAME, 200)) {
        let mut bench = Bench::new(256, true);
        for len in lens {
            for step in [Step::Free(SLOTS), Step::Push(len), Step::Publish, Step::Poll, Step::Next(Read::Whole), Step::Release] {
                bench.step(&step);
            }
            prop_assert!(bench.queue.is_empty());
        }
    }
}

//! The daemon's ends of the rings of a region into which the peer writes what it likes, between and while they are used.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

use kopi_ring::layout::{MAX_FRAME, Notes, RING_HEADER_SIZE, RingSpan};
use kopi_ring::{Consumer, Geometry, HugePages, PeerFault, Producer, Region};

use crate::input::Input;

const SLOTS: u32 = 64;
const SLOT_SIZE: u32 = 256;
/// Offset of the consumer's counter in a ring.
const TAIL: usize = 128;
/// What a buffer holds that nothing was copied to.
const UNTOUCHED: u8 = 0xee;

/// A region, and what its peer can do to it.
struct Lab {
    region: Region,
    peer: File,
    tx: RingSpan,
    rx: RingSpan,
}

thread_local! {
    static LAB: Lab = Lab::new();
}

impl Lab {
    fn new() -> Self {
        let geometry = Geometry::new(&[SLOTS], &[SLOTS], SLOT_SIZE).expect("within the limits");
        let region = Region::create(&geometry, HugePages::Off).expect("a small region");
        let peer = File::from(region.fd().try_clone_to_owned().expect("one more descriptor"));
        let layout = geometry.layout();
        Self { region, peer, tx: layout.tx[0], rx: layout.rx[0] }
    }

    /// Rings as they are at first, and the daemon's ends of them.
    fn ends(&self) -> (Consumer, Producer) {
        for ring in [self.tx, self.rx] {
            self.write(ring.offset, &vec![0; ring.data() - ring.offset]);
        }
        let ends = (self.region.tx_consumer(0), self.region.rx_producer(0));
        (ends.0.expect("there is a ring"), ends.1.expect("there is a ring"))
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.peer.write_all_at(bytes, at.try_into().expect("a small region")).expect("the file can be written");
    }

    fn describe(&self, slot: u32, descriptor: u64) {
        let slot = usize::try_from(slot % SLOTS).expect("a small number");
        self.write(self.tx.offset + RING_HEADER_SIZE + 8 * slot, &descriptor.to_le_bytes());
    }
}

/// Whatever the peer writes, the daemon takes frames of possible lengths and as many as fit, copies what it was asked to copy
/// and nothing beside it, and notices counters that make no sense. An honest peer gets what was sent to it.
pub(crate) fn check(bytes: &[u8]) {
    LAB.with(|lab| {
        let (tx, rx) = lab.ends();
        let reader = lab.region.rx_consumer(0).expect("there is a ring");
        let mut play = Play { lab, tx, rx, reader, sent: VecDeque::new(), honest: true, number: 0 };
        let mut input = Input::new(bytes);
        // Every fault ends the peer, as it does in the daemon.
        while !input.is_empty() && play.step(&mut input).is_ok() {}
    });
}

struct Play<'a> {
    lab: &'a Lab,
    tx: Consumer,
    rx: Producer,
    /// The peer's end of the RX ring, as long as it is honest there.
    reader: Consumer,
    /// What it has to find in it.
    sent: VecDeque<Vec<u8>>,
    honest: bool,
    number: u8,
}

impl Play<'_> {
    fn step(&mut self, input: &mut Input<'_>) -> Result<(), PeerFault> {
        match input.byte() % 10 {
            0 => self.lab.write(self.lab.tx.offset, &input.below(300).to_le_bytes()),
            1 => self.lab.write(self.lab.tx.offset, &input.u32().to_le_bytes()),
            2 => {
                self.honest = false;
                self.lab.write(self.lab.rx.offset + TAIL, &input.below(300).to_le_bytes());
            }
            3 => self.lab.describe(input.byte().into(), input.u64()),
            // Plausible ones: a length, and perhaps more to come.
            4 => {
                let (slot, more) = (input.byte(), u64::from(input.byte() & 1));
                self.lab.describe(slot.into(), u64::from(input.below(SLOT_SIZE + 2)) | more << 16);
            }
            // The begin of a long chain.
            5 => {
                let (first, slots) = (u32::from(input.byte()), u32::from(input.byte() % 48));
                (first..first + slots).for_each(|slot| self.lab.describe(slot, u64::from(SLOT_SIZE) | 1 << 16));
            }
            6 | 7 => self.take(input)?,
            8 => self.send(input)?,
            _ => self.read(),
        }
        Ok(())
    }

    fn take(&mut self, input: &mut Input<'_>) -> Result<(), PeerFault> {
        let (most, again) = (self.tx.poll()?, input.byte());
        assert!(most <= SLOTS);
        let mut taken = 0;
        while let Some(frame) = self.tx.next()? {
            taken += 1;
            assert!(taken <= SLOTS && (1..=MAX_FRAME).contains(&frame.len()), "{frame:?}");
            if again == 1 && taken == 1 {
                self.tx.put_back(&frame);
                assert_eq!(self.tx.next()?.map(|frame| frame.len()), Some(frame.len()));
            }
            let len = usize::try_from(frame.len()).expect("a short frame");
            let mut buffer = vec![UNTOUCHED; len + 64];
            self.lab.write(self.lab.tx.data(), &[again; 64]);
            self.tx.copy(&frame, &mut buffer[..len]);
            assert!(buffer[len..].iter().all(|byte| *byte == UNTOUCHED));
            let offset = input.below(frame.len() + 2);
            let room = usize::from(input.byte()) * 40;
            let copied = self.tx.copy_from(&frame, offset, &mut vec![0; room]);
            assert_eq!(copied, room.min(len.saturating_sub(offset.try_into().expect("a short frame"))));
        }
        self.tx.release();
        Ok(())
    }

    fn send(&mut self, input: &mut Input<'_>) -> Result<(), PeerFault> {
        let len = usize::from(input.u16() % 2000);
        let cut = usize::from(input.u16()).min(len);
        let free = self.rx.free(input.below(80))?;
        assert!(free <= SLOTS);
        self.number = self.number.wrapping_add(1);
        let frame: Vec<u8> = (0..len).map(|at| self.number ^ at.to_le_bytes()[0]).collect();
        let done = if cut == 0 {
            self.rx.push(&frame, Notes::NONE)
        } else {
            let announced = u32::try_from(len).expect("a short frame");
            self.rx.begin(announced, Notes::NONE).is_some_and(|mut slots| {
                let (a, b) = frame.split_at(cut);
                slots.append(a) && slots.append(b) && !slots.append(&[1]) && slots.finish()
            })
        };
        if done {
            assert!(!frame.is_empty());
            self.sent.push_back(frame);
        }
        assert!(self.rx.filled() <= SLOTS);
        self.rx.publish();
        let _woken = self.rx.take_need_wakeup();
        Ok(())
    }

    fn read(&mut self) {
        if !self.honest {
            return;
        }
        self.reader.poll().expect("the daemon's counter makes sense");
        while let Some(frame) = self.reader.next().expect("the daemon's descriptors make sense") {
            let mut bytes = vec![0; frame.len().try_into().expect("a short frame")];
            self.reader.copy_from(&frame, 0, &mut bytes);
            assert_eq!(Some(bytes), self.sent.pop_front());
        }
        assert!(self.sent.is_empty());
        self.reader.release();
    }
}

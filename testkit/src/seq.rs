//! Frames with sequence numbers: how to make and how to check them.
//!
//! A frame is UDP over IPv4 over Ethernet, so that switches and hashes treat it as a flow. Every byte of its payload
//! follows from its flow, its number and its length, so a receiver knows what it must look like.
//!
//! ```text
//! payload  +0  "KSEQ"   +4  kind: 1 data, 2 acknowledgement   +5  zero   +6  flow   +8  number   +12 …  filler
//! ```
//! The receiver acknowledges how many frames it has in all, and the sender keeps a window of unacknowledged frames
//! open. So nobody's buffers overflow unless somebody loses frames, and a lost frame is the switch's fault.

use crate::frames::Mac;
use std::ops::RangeInclusive;

/// Shortest frame, in bytes without FCS.
pub const MIN_FRAME: u16 = 60;
/// Where the UDP payload starts.
const PAYLOAD: usize = 14 + 20 + 8;
/// Where the filler starts.
const FILLER: usize = PAYLOAD + 12;
const MAGIC: [u8; 4] = *b"KSEQ";
const KIND_DATA: u8 = 1;
const KIND_ACK: u8 = 2;
/// UDP port of every receiver.
const PORT: u16 = 7777;

/// A number that looks random, made from `x` (the finaliser of splitmix64, Vigna 2015).
const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const fn seed(flow: u16, number: u32) -> u64 {
    mix(((flow as u64) << 32 | number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// Length of frame `number` of `flow`, between the bounds.
#[must_use]
pub fn length(flow: u16, number: u32, bounds: &RangeInclusive<u16>) -> u16 {
    let span = u64::from(bounds.end() - bounds.start()) + 1;
    bounds.start() + u16::try_from(seed(flow, number) % span).expect("the span is one of u16")
}

fn write(frame: &mut [u8], destination: Mac, source: Mac, kind: u8, flow: u16, number: u32) {
    let size = u16::try_from(frame.len()).expect("a frame has fewer than 65,536 bytes");
    assert!(size >= MIN_FRAME, "frame of {size} bytes");
    frame[0..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut frame[14..34];
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 78, 0, 1, 10, 78, 0, 2]);
    ip[2..4].copy_from_slice(&(size - 14).to_be_bytes());
    let checksum = crate::frames::checksum(&[ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = &mut frame[34..PAYLOAD];
    udp[0..2].copy_from_slice(&flow.wrapping_add(1024).to_be_bytes());
    udp[2..4].copy_from_slice(&PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&(size - 34).to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);
    frame[PAYLOAD..PAYLOAD + 4].copy_from_slice(&MAGIC);
    frame[PAYLOAD + 4] = kind;
    frame[PAYLOAD + 5] = 0;
    frame[PAYLOAD + 6..PAYLOAD + 8].copy_from_slice(&flow.to_be_bytes());
    frame[PAYLOAD + 8..FILLER].copy_from_slice(&number.to_be_bytes());
    let mut words = seed(flow, number);
    for chunk in frame[FILLER..].chunks_mut(8) {
        chunk.copy_from_slice(&words.to_le_bytes()[..chunk.len()]);
        words = words.wrapping_add(0x0101_0101_0101_0101);
    }
}

/// What frames are sent: numbers from 0 on in each flow, round the flows, and where the acknowledgements stand.
#[derive(Debug)]
pub struct Sender {
    source: Mac,
    destination: Mac,
    lengths: RangeInclusive<u16>,
    /// Frames in all, over all flows.
    count: u64,
    window: u64,
    /// The next number of each flow.
    next: Vec<u32>,
    sent: u64,
    acknowledged: u64,
}

impl Sender {
    /// Sends `count` frames over `flows` flows, with at most `window` unacknowledged at a time.
    #[must_use]
    pub fn new(
        source: Mac,
        destination: Mac,
        count: u64,
        flows: u16,
        lengths: RangeInclusive<u16>,
        window: u64,
    ) -> Self {
        assert!(flows > 0 && window > 0 && !lengths.is_empty() && *lengths.start() >= MIN_FRAME);
        let next = vec![0; flows.into()];
        Self { source, destination, lengths, count, window, next, sent: 0, acknowledged: 0 }
    }

    /// The flow of frame `index` of all.
    fn flow(&self, index: u64) -> u16 {
        let flows = u64::try_from(self.next.len()).expect("flows are counted in 16 bits");
        u16::try_from(index % flows).expect("flows are counted in 16 bits")
    }

    /// The flow and length of the next frame, or `None` while the window is closed or when all are sent.
    #[must_use]
    pub fn peek(&self) -> Option<(u16, u16)> {
        if self.sent == self.count || self.sent - self.acknowledged.min(self.sent) >= self.window {
            return None;
        }
        let flow = self.flow(self.sent);
        Some((flow, length(flow, self.next[usize::from(flow)], &self.lengths)))
    }

    /// Writes the frame that [`Sender::peek`] told about, and counts it as sent.
    pub fn write(&mut self, frame: &mut [u8]) {
        let flow = self.flow(self.sent);
        let number = &mut self.next[usize::from(flow)];
        write(frame, self.destination, self.source, KIND_DATA, flow, *number);
        *number += 1;
        self.sent += 1;
    }

    /// Takes in a received frame, if it is an acknowledgement.
    pub fn hear(&mut self, frame: &[u8]) {
        if let Some((KIND_ACK, _, number)) = read(frame) {
            self.acknowledged = self.acknowledged.max(number.into());
        }
    }

    /// Frames sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Frames that the receiver has.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the receiver has everything.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.acknowledged >= self.count
    }
}

/// Kind, flow and number of a frame that is one of ours.
fn read(frame: &[u8]) -> Option<(u8, u16, u32)> {
    let header = frame.get(PAYLOAD..FILLER)?;
    if frame.get(12..14)? != [0x08, 0x00] || header[0..4] != MAGIC {
        return None;
    }
    let number = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    Some((header[4], u16::from_be_bytes([header[6], header[7]]), number))
}

/// What frames are received: checks them and knows what to acknowledge.
#[derive(Debug)]
pub struct Receiver {
    own: Mac,
    lengths: RangeInclusive<u16>,
    count: u64,
    /// The number that each flow must bring next.
    expected: Vec<u32>,
    received: u64,
    bytes: u64,
    /// The sender, once it is known.
    sender: Option<Mac>,
    acknowledged: u64,
    other: u64,
    problem: Option<String>,
}

impl Receiver {
    /// Expects `count` frames for address `own`, as a [`Sender`] with the same numbers makes them.
    #[must_use]
    pub fn new(own: Mac, count: u64, flows: u16, lengths: RangeInclusive<u16>) -> Self {
        let expected = vec![0; flows.into()];
        Self {
            own,
            lengths,
            count,
            expected,
            received: 0,
            bytes: 0,
            sender: None,
            acknowledged: 0,
            other: 0,
            problem: None,
        }
    }

    /// Checks a received frame. The first problem is kept; frames that are not ours are counted apart.
    pub fn take(&mut self, frame: &[u8]) {
        let Some((KIND_DATA, flow, number)) = read(frame) else {
            self.other += 1;
            return;
        };
        self.received += 1;
        self.bytes += u64::try_from(frame.len()).expect("lengths fit");
        self.sender = frame.get(6..12).and_then(|mac| mac.try_into().ok());
        if let Err(problem) = self.check(frame, flow, number) {
            self.problem.get_or_insert(problem);
        }
    }

    fn check(&mut self, frame: &[u8], flow: u16, number: u32) -> Result<(), String> {
        let Some(expected) = self.expected.get_mut(usize::from(flow)) else {
            return Err(format!("flow {flow} does not exist"));
        };
        let due = std::mem::replace(expected, number.wrapping_add(1));
        if number != due {
            let kind = if number > due { "frames are missing" } else { "it was reordered or doubled" };
            return Err(format!("flow {flow} brought frame {number}, frame {due} was due: {kind}"));
        }
        let mut right = vec![0; length(flow, number, &self.lengths).into()];
        write(&mut right, self.own, self.sender.unwrap_or_default(), KIND_DATA, flow, number);
        if frame.len() != right.len() {
            return Err(format!("frame {number} of flow {flow} has {} bytes, not {}", frame.len(), right.len()));
        }
        match frame.iter().zip(&right).position(|(got, want)| got != want) {
            Some(at) => Err(format!("frame {number} of flow {flow} is wrong from byte {at} on")),
            None => Ok(()),
        }
    }

    /// The acknowledgement of everything so far, or `None` if fewer than `step` frames came since the last one.
    #[must_use]
    pub fn acknowledge(&mut self, step: u64) -> Option<[u8; MIN_FRAME as usize]> {
        if self.received < self.acknowledged + step {
            return None;
        }
        self.acknowledged = self.received;
        let mut frame = [0; MIN_FRAME as usize];
        let number = u32::try_from(self.received).expect("tests send fewer than 2^32 frames");
        write(&mut frame, self.sender?, self.own, KIND_ACK, 0, number);
        Some(frame)
    }

    /// Whether as many frames came as were expected.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.received >= self.count
    }

    /// Frames received so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Bytes received so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frames received that are not ours.
    #[must_use]
    pub const fn other(&self) -> u64 {
        self.other
    }

    /// The first thing that was wrong.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];

    fn frames(count: u64, flows: u16) -> Vec<Vec<u8>> {
        let mut sender = Sender::new(A, B, count, flows, 60..=1514, u64::MAX);
        let mut made = Vec::new();
        while let Some((_, length)) = sender.peek() {
            let mut frame = vec![0; length.into()];
            sender.write(&mut frame);
            made.push(frame);
        }
        made
    }

    fn problem_of(frames: &[Vec<u8>], flows: u16) -> Option<String> {
        let mut receiver = Receiver::new(B, u64::MAX, flows, 60..=1514);
        frames.iter().for_each(|frame| receiver.take(frame));
        receiver.problem().map(str::to_owned)
    }

    /// What a sender makes is what a receiver expects, and flows may overtake each other.
    #[test]
    fn receiver_accepts_what_a_sender_made() {
        let mut made = frames(200, 4);
        assert_eq!(problem_of(&made, 4), None);
        made.sort_by_key(|frame| read(frame).unwrap().1);
        assert_eq!(problem_of(&made, 4), None);
    }

    /// A lost, doubled, swapped or changed frame is always found.
    #[test]
    fn receiver_finds_every_kind_of_damage() {
        let made = frames(40, 2);
        for at in 0..38 {
            let mut lost = made.clone();
            lost.remove(at);
            assert!(problem_of(&lost, 2).unwrap().contains("missing"), "{at}");
            let mut doubled = made.clone();
            doubled.insert(at, made[at].clone());
            assert!(problem_of(&doubled, 2).unwrap().contains("doubled"), "{at}");
            let mut swapped = made.clone();
            swapped.swap(at, at + 2);
            assert!(problem_of(&swapped, 2).is_some(), "{at}");
            for byte in [0, 6, 20, 35, 54, made[at].len() - 1] {
                let mut changed = made.clone();
                changed[at][byte] ^= 1;
                // A changed source address is taken for another sender, which is right for a switch.
                assert_eq!(problem_of(&changed, 2).is_some(), byte != 6, "frame {at}, byte {byte}");
            }
        }
    }

    /// The window closes until the acknowledgement comes.
    #[test]
    fn window_holds_the_sender_back() {
        let mut sender = Sender::new(A, B, 10, 1, 60..=60, 4);
        let mut receiver = Receiver::new(B, 10, 1, 60..=60);
        let mut frame = [0; 60];
        for round in 0..3 {
            while sender.peek().is_some() {
                sender.write(&mut frame);
                receiver.take(&frame);
            }
            assert_eq!(sender.sent(), [4, 8, 10][round]);
            sender.hear(&receiver.acknowledge(1).unwrap());
        }
        assert!(sender.is_done() && receiver.is_done());
        assert_eq!(receiver.problem(), None);
    }
}

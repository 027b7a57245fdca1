//! The numbers of a TCP connection, as far as one in the middle can know them: whether a segment fits the window, and what
//! the next one is that its receiver expects.
//!
//! With `tcp_window` each segment is looked at, from the first SYN on, and both windows are *followed*. Without it only a
//! few are: those of the handshake, those with SYN, FIN or RST, and one of each direction within so many ticks
//! ([`TOUCH_SHIFT`](super::TOUCH_SHIFT)) of all that pass. Then numbers are *noted*, the latest in the place of those before.
//!
//! # Source
//!
//! G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2000), with the bounds that Linux has made of it
//! (`tcp_in_window` of `net/netfilter/nf_conntrack_proto_tcp.c`). Selective acknowledgments are not looked at: they
//! only tell of bytes within the window.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use kopi_packet::tcp::{Segment, flags};

use crate::tcp::Side;

/// What one side has sent and been allowed to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Half {
    /// Behind the last byte that it has sent.
    pub(crate) end: u32,
    /// Behind the last byte that the other side has room for. If numbers are only noted, when that was.
    max_end: u32,
    /// What it has acknowledged, which is the next number that it expects: `td_maxack` of Linux.
    pub(crate) acked: Option<u32>,
    /// The largest window that it has offered, in bytes, rounded up to a multiple of eight; 0 if it has not sent anything.
    max_window: u32,
    /// Shift count of its windows, if its SYN had the window scale option.
    scale: Option<u8>,
}

/// An acknowledgment may lag behind by the window, and by so many bytes in any case.
const LAG: u32 = 66_000;
/// No window is larger (RFC 7323, 2.3).
const MAX_WINDOW: u32 = (1 << 30) - WINDOW_UNIT;
/// What windows are rounded to, so that a half fits two words.
const WINDOW_UNIT: u32 = 8;
/// Stands for a shift count that is not there.
const NO_SCALE: u8 = 15;

/// Whether sequence number `a` lies behind `b` (RFC 9293, 3.4).
pub(crate) const fn after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) > u32::MAX / 2
}

impl Half {
    /// The side that has sent nothing but this SYN.
    fn of_syn(syn: &Segment) -> Self {
        Self {
            end: syn.end(),
            max_end: syn.end(),
            acked: syn.has(flags::ACK).then_some(syn.ack),
            // A window in a SYN is never scaled (RFC 7323, 2.2).
            max_window: u32::from(syn.window).max(1),
            scale: syn.window_scale,
        }
    }

    /// The half after a segment of which nobody knows what was before it. `when` it was noted.
    fn noted(self, segment: &Segment, when: u32) -> Self {
        let acked = if segment.has(flags::ACK) { Some(segment.ack) } else { self.acked };
        Self { end: segment.end(), max_end: when, acked, max_window: 1, scale: None }
    }

    /// Whether this side has sent nothing yet.
    pub(crate) const fn is_silent(&self) -> bool {
        self.max_window == 0
    }

    /// ```text
    /// 63         32  31  30    27 26               0
    /// | end        |  max_end                       |
    /// | acked      | set | scale | max_window / 8   |
    /// ```
    fn words(self) -> [u64; 2] {
        let scale = u32::from(self.scale.map_or(NO_SCALE, |scale| scale.min(14)));
        let window = self.max_window.min(MAX_WINDOW).div_ceil(WINDOW_UNIT);
        let low = u32::from(self.acked.is_some()) << 31 | scale << 27 | window;
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        [pair(self.end, self.max_end), pair(self.acked.unwrap_or(0), low)]
    }

    fn from_words([ends, rest]: [u64; 2]) -> Self {
        let [m0, m1, m2, m3, e0, e1, e2, e3] = ends.to_le_bytes();
        let [l0, l1, l2, l3, a0, a1, a2, a3] = rest.to_le_bytes();
        let low = u32::from_le_bytes([l0, l1, l2, l3]);
        let scale = (l3 >> 3) & 0x0f;
        Self {
            end: u32::from_le_bytes([e0, e1, e2, e3]),
            max_end: u32::from_le_bytes([m0, m1, m2, m3]),
            acked: (low >> 31 != 0).then_some(u32::from_le_bytes([a0, a1, a2, a3])),
            max_window: (low & ((1 << 27) - 1)) * WINDOW_UNIT,
            scale: (scale != NO_SCALE).then_some(scale),
        }
    }
}

/// Both sides after `segment`, or `None` if it is out of the window.
fn follow(mut sender: Half, mut receiver: Half, segment: &Segment) -> Option<(Half, Half)> {
    let syn = segment.has(flags::SYN);
    let (mut seq, mut end) = (segment.seq, segment.end());
    let silent = sender.is_silent();
    if syn && silent {
        sender = Half::of_syn(segment);
        // Both have to offer scaling, or neither does it (RFC 7323, 1.3).
        if !receiver.is_silent() && (sender.scale.is_none() || receiver.scale.is_none()) {
            (sender.scale, receiver.scale) = (None, None);
        }
        if !segment.has(flags::ACK) {
            return Some((sender, receiver));
        }
    } else if silent {
        let max_window = u32::from(segment.window).max(1);
        sender = Half { end, max_end: end.wrapping_add(max_window), max_window, ..sender };
    }
    // Old stacks send resets with ACK and a number of zero.
    let reset = segment.has(flags::RST);
    let none = !segment.has(flags::ACK) || (reset && segment.ack == 0);
    let ack = if none { receiver.end } else { segment.ack };
    if seq == end && !reset {
        // Without data only the acknowledgment counts.
        (seq, end) = (sender.end, sender.end);
    }

    let fits = !after(seq, sender.max_end)
        && !after(sender.end.wrapping_sub(receiver.max_window), end)
        && !after(ack, receiver.end)
        && !after(receiver.end.wrapping_sub(sender.max_window.max(LAG)), ack);
    if !fits {
        return None;
    }
    let window = u32::from(segment.window) << if syn { 0 } else { sender.scale.unwrap_or(0).min(14) };
    sender.max_window = sender.max_window.max(window);
    if !receiver.is_silent() && after(end, sender.max_end) {
        // It went beyond the window, so the window was larger than we knew.
        let beyond = end.wrapping_sub(sender.max_end);
        receiver.max_window = receiver.max_window.saturating_add(beyond).min(MAX_WINDOW);
    }
    if after(end, sender.end) {
        sender.end = end;
    }
    if !none && sender.acked.is_none_or(|acked| after(ack, acked)) {
        sender.acked = Some(ack);
    }
    // A window of zero is probed with one byte (RFC 9293, 3.8.6.1).
    let room = ack.wrapping_add(window.max(1));
    if after(room, receiver.max_end) {
        receiver.max_end = room;
    }
    Some((sender, receiver))
}

/// Whether `segment` fits between its sender and its receiver.
pub(crate) fn fits(sender: Half, receiver: Half, segment: &Segment) -> bool {
    follow(sender, receiver, segment).is_some()
}

/// Both sides of one connection. Workers of both directions may change it at the same time: every change only moves an
/// edge on, and one that loses a race is computed again.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(crate) struct Windows([AtomicU64; 4]);

/// Attempts before a change is given up: with two directions, more than two are very unlikely.
const ATTEMPTS: usize = 4;

impl Windows {
    /// Begins anew with the first segment of the originator, to be followed if it is a SYN of which all that comes after
    /// will be looked at. Nobody else may be looking.
    pub(crate) fn begin(&self, first: &Segment, followed: bool, when: u32) {
        let half = if followed { Half::of_syn(first) } else { Half::default().noted(first, when) };
        self.store([half, Half::default()]);
    }

    /// Begins anew with a SYN of the originator that was ignored when it came, and the answer to it.
    pub(crate) fn begin_again(&self, syn: &Segment, answer: &Segment, followed: bool, when: u32) {
        self.begin(syn, followed, when);
        match followed {
            true => self.advance(Side::Responder, answer),
            false => self.note(Side::Responder, answer, when, true),
        }
    }

    fn store(&self, halves: [Half; 2]) {
        let [[a, b], [c, d]] = halves.map(Half::words);
        for (to, from) in self.0.iter().zip([a, b, c, d]) {
            to.store(from, Relaxed);
        }
    }

    fn load(&self) -> [u64; 4] {
        self.0.each_ref().map(|word| word.load(Acquire))
    }

    /// The half of `side`, and that of the other side.
    pub(crate) fn halves(&self, side: Side) -> (Half, Half) {
        let [a, b, c, d] = self.load();
        let (originator, responder) = (Half::from_words([a, b]), Half::from_words([c, d]));
        match side {
            Side::Originator => (originator, responder),
            Side::Responder => (responder, originator),
        }
    }

    fn after(words: [u64; 4], side: Side, segment: &Segment) -> Option<[u64; 4]> {
        let [a, b, c, d] = words;
        let (originator, responder) = (Half::from_words([a, b]), Half::from_words([c, d]));
        let ([a, b], [c, d]) = match side {
            Side::Originator => {
                let (sender, receiver) = follow(originator, responder, segment)?;
                (sender.words(), receiver.words())
            }
            Side::Responder => {
                let (sender, receiver) = follow(responder, originator, segment)?;
                (receiver.words(), sender.words())
            }
        };
        Some([a, b, c, d])
    }

    /// Takes down that `segment` has passed, where all segments are.
    pub(crate) fn advance(&self, side: Side, segment: &Segment) {
        for _ in 0..ATTEMPTS {
            let before = self.load();
            let Some(next) = Self::after(before, side, segment) else { return };
            let stored = self.0.iter().zip(before.iter().zip(&next)).fold(true, |stored, (word, (from, to))| {
                (from == to || word.compare_exchange(*from, *to, AcqRel, Relaxed).is_ok()) && stored
            });
            if stored {
                return;
            }
        }
    }

    /// Takes down that `segment` has passed, where few segments are: `always`, or if none of this side was noted at the
    /// same time. Half of a note may be another worker's, which a later one repairs.
    pub(crate) fn note(&self, side: Side, segment: &Segment, when: u32, always: bool) {
        let (half, _) = self.halves(side);
        if always || half.is_silent() || half.max_end != when {
            let at = if side == Side::Originator { 0 } else { 2 };
            for (to, from) in self.0.iter().skip(at).zip(half.noted(segment, when).words()) {
                to.store(from, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(flags: u8, seq: u32, ack: u32, payload_len: u16) -> Segment {
        Segment { flags, seq, ack, window: 1000, payload_len, window_scale: None, whole: true }
    }

    fn fitting(windows: &Windows, side: Side, segment: &Segment) -> bool {
        let (own, other) = windows.halves(side);
        fits(own, other, segment)
    }

    const O: Side = Side::Originator;
    const R: Side = Side::Responder;

    /// A connection whose handshake is done, with these initial numbers and shift counts.
    fn open(ours: u32, theirs: u32, scales: (Option<u8>, Option<u8>)) -> Windows {
        let windows = Windows::default();
        windows.begin(&Segment { window_scale: scales.0, ..segment(flags::SYN, ours, 0, 0) }, true, 0);
        let answer = segment(flags::SYN | flags::ACK, theirs, ours.wrapping_add(1), 0);
        let answer = Segment { window_scale: scales.1, ..answer };
        assert!(fitting(&windows, R, &answer));
        windows.advance(R, &answer);
        let last = segment(flags::ACK, ours.wrapping_add(1), theirs.wrapping_add(1), 0);
        assert!(fitting(&windows, O, &last));
        windows.advance(O, &last);
        windows
    }

    proptest! {
        /// A conversation in which both keep to what the other has room for is never out of the window, wherever the
        /// numbers wrap, with segments lost behind us and sent again.
        #[test]
        fn an_honest_conversation_always_fits(
            numbers: (u32, u32), scale in 0_u8..5, steps in prop::collection::vec((0_usize..2, 0_u32..1500, 0_u8..4), 1..200)
        ) {
            let windows = open(numbers.0, numbers.1, (Some(scale), Some(scale)));
            // The next number that each side sends, up to where the other has got it, and what it knows of that.
            let mut sent = [numbers.0.wrapping_add(1), numbers.1.wrapping_add(1)];
            let mut got = sent;
            let mut known = sent;
            for (me, length, fate) in steps {
                let under_way = sent[me].wrapping_sub(known[me]);
                let (seq, length) = match fate {
                    3 => (known[me], length.min(under_way)),
                    // The window of a SYN is not scaled, and may be the last one that this side has seen.
                    _ => (sent[me], length.min(1000 - under_way)),
                };
                let data = segment(flags::ACK, seq, got[1 - me], u16::try_from(length).unwrap());
                let side = [O, R][me];
                prop_assert!(fitting(&windows, side, &data), "{:?} {:?}", windows, data);
                windows.advance(side, &data);
                let end = seq.wrapping_add(length);
                sent[me] = if after(end, sent[me]) { end } else { sent[me] };
                // A fate of zero: lost behind us.
                if fate != 0 {
                    known[1 - me] = got[1 - me];
                    let in_order = !after(seq, got[me]);
                    got[me] = if in_order && after(end, got[me]) { end } else { got[me] };
                }
            }
        }

        /// Numbers far from the window are refused from either side, and change nothing.
        #[test]
        fn a_blind_sender_does_not_fit(ours: u32, theirs: u32, off in 100_000_u32..u32::MAX - 100_000, reset: bool) {
            let windows = open(ours, theirs, (None, None));
            let before = windows.load();
            let flags = if reset { flags::RST } else { flags::ACK };
            for (side, own, other) in [(O, ours, theirs), (R, theirs, ours)] {
                let (own, other) = (own.wrapping_add(1), other.wrapping_add(1));
                for blind in [segment(flags, own.wrapping_add(off), other, 10),
                              segment(flags::ACK, own, other.wrapping_add(off), 10)] {
                    prop_assert!(!fitting(&windows, side, &blind), "{:?}", blind);
                    windows.advance(side, &blind);
                }
            }
            prop_assert_eq!(windows.load(), before);
        }
    }

    #[test]
    fn rfc_7323_windows_are_scaled_if_both_offer_it() {
        for (scales, room) in [((Some(7), Some(7)), 128_000), ((Some(7), None), 1000), ((None, Some(7)), 1000)] {
            let windows = open(5, 9, scales);
            // The window in the SYN was not scaled; this one is.
            windows.advance(R, &segment(flags::ACK, 10, 6, 0));
            for (seq, fits) in [(6 + room, true), (7 + room, false)] {
                let data = segment(flags::ACK, seq, 10, 1);
                assert_eq!(fitting(&windows, O, &data), fits, "{scales:?} {seq}");
            }
        }
    }

    /// What each side expects next is the greatest number that it has acknowledged, if all segments are looked at, and the
    /// latest that was noted, if few are.
    #[test]
    fn what_is_expected_is_what_was_acknowledged() {
        let windows = open(100, 500, (None, None));
        let expected = |windows: &Windows| [O, R].map(|side| windows.halves(side).0.acked);
        assert_eq!(expected(&windows), [Some(501), Some(101)]);
        windows.advance(R, &segment(flags::ACK, 501, 101, 40));
        windows.advance(O, &segment(flags::ACK, 101, 541, 0));
        windows.advance(O, &segment(flags::ACK, 101, 521, 0));
        assert_eq!(expected(&windows), [Some(541), Some(101)]);
        let windows = Windows::default();
        windows.begin(&segment(flags::SYN, 100, 0, 0), false, 1);
        windows.note(R, &segment(flags::SYN | flags::ACK, 500, 101, 0), 1, true);
        windows.note(O, &segment(flags::ACK, 101, 501, 0), 1, true);
        windows.note(O, &segment(flags::ACK, 101, 600, 0), 1, false);
        assert_eq!(expected(&windows), [Some(501), Some(101)], "one was noted at that time");
        windows.note(O, &segment(flags::ACK, 101, 600, 0), 2, false);
        assert_eq!(expected(&windows), [Some(600), Some(101)]);
    }

    #[test]
    fn a_half_is_read_as_it_was_written() {
        for (acked, scale) in [(Some(u32::MAX), Some(14)), (Some(0), Some(0)), (None, None)] {
            let half = Half { end: 0x1234_5678, max_end: 0x9abc_def0, acked, max_window: 0x0fed_cba8, scale };
            assert_eq!(Half::from_words(half.words()), half);
        }
        assert_eq!(Half::from_words([0, 0]), Half { scale: Some(0), ..Half::default() });
        assert!(Half::from_words(Half::default().words()).is_silent());
        let wide = Half { max_window: u32::MAX, ..Half::default() };
        assert_eq!(Half::from_words(wide.words()).max_window, MAX_WINDOW);
        assert_eq!(Half::from_words(Half { max_window: 1, ..wide }.words()).max_window, WINDOW_UNIT, "rounded up");
    }
}

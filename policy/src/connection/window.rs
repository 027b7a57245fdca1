//! Whether a TCP segment fits the window, as far as one in the middle can know it.
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
struct Half {
    /// Behind the last byte that it has sent.
    end: u32,
    /// Behind the last byte that the other side has room for.
    max_end: u32,
    /// The largest window that it has offered, in bytes; 0 if it has not sent anything.
    max_window: u32,
    /// Shift count of its windows.
    scale: u8,
    /// Whether its SYN had the window scale option.
    scales: bool,
}

/// An acknowledgment may lag behind by the window, and by so many bytes in any case.
const LAG: u32 = 66_000;
/// No window is larger (RFC 7323, 2.3).
const MAX_WINDOW: u32 = 1 << 30;

/// Whether sequence number `a` lies behind `b` (RFC 9293, 3.4).
const fn after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) > u32::MAX / 2
}

impl Half {
    /// The side that has sent nothing but this SYN.
    fn of_syn(syn: &Segment) -> Self {
        Self {
            end: syn.end(),
            max_end: syn.end(),
            // A window in a SYN is never scaled (RFC 7323, 2.2).
            max_window: u32::from(syn.window).max(1),
            scale: syn.window_scale.unwrap_or(0),
            scales: syn.window_scale.is_some(),
        }
    }

    fn words(self) -> [u64; 2] {
        let scale = u64::from(self.scale) << 32 | u64::from(self.scales) << 40;
        [u64::from(self.end) << 32 | u64::from(self.max_end), scale | u64::from(self.max_window)]
    }

    fn from_words([ends, rest]: [u64; 2]) -> Self {
        let [m0, m1, m2, m3, e0, e1, e2, e3] = ends.to_le_bytes();
        let [w0, w1, w2, w3, scale, scales, ..] = rest.to_le_bytes();
        Self {
            end: u32::from_le_bytes([e0, e1, e2, e3]),
            max_end: u32::from_le_bytes([m0, m1, m2, m3]),
            max_window: u32::from_le_bytes([w0, w1, w2, w3]),
            scale,
            scales: scales != 0,
        }
    }
}

/// Both sides after `segment`, or `None` if it is out of the window. `opening` while no side has acknowledged the
/// other's SYN: a SYN with new numbers is a new attempt then.
fn follow(mut sender: Half, mut receiver: Half, opening: bool, segment: &Segment) -> Option<(Half, Half)> {
    let syn = segment.has(flags::SYN);
    let (mut seq, mut end) = (segment.seq, segment.end());
    let silent = sender.max_window == 0;
    if syn && (silent || (opening && after(end, sender.end))) {
        sender = Half::of_syn(segment);
        // Both have to offer scaling, or neither does it (RFC 7323, 1.3).
        if receiver.max_window != 0 && !(sender.scales && receiver.scales) {
            (sender.scale, receiver.scale) = (0, 0);
        }
        if !segment.has(flags::ACK) {
            return Some((sender, receiver));
        }
    } else if silent {
        // A reset instead of an answer.
        let max_window = u32::from(segment.window).max(1);
        sender = Half { end, max_end: end.wrapping_add(max_window), max_window, ..sender };
    }
    // Old stacks send resets with ACK and a number of zero.
    let none = !segment.has(flags::ACK) || (segment.has(flags::RST) && segment.ack == 0);
    let ack = if none { receiver.end } else { segment.ack };
    let refusal = seq == 0 && opening;
    if seq == end && (!segment.has(flags::RST) || refusal) {
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
    let window = u32::from(segment.window) << if syn { 0 } else { sender.scale.min(14) };
    sender.max_window = sender.max_window.max(window);
    if receiver.max_window != 0 && after(end, sender.max_end) {
        // It went beyond the window, so the window was larger than we knew.
        let beyond = end.wrapping_sub(sender.max_end);
        receiver.max_window = receiver.max_window.saturating_add(beyond).min(MAX_WINDOW);
    }
    if after(end, sender.end) {
        sender.end = end;
    }
    // A window of zero is probed with one byte (RFC 9293, 3.8.6.1).
    let room = ack.wrapping_add(window.max(1));
    if after(room, receiver.max_end) {
        receiver.max_end = room;
    }
    Some((sender, receiver))
}

/// Both sides of one connection. Workers of both directions may change it at the same time: every change only moves an
/// edge on, and one that loses a race is computed again.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(crate) struct Windows([AtomicU64; 4]);

/// Attempts before a change is given up: with two directions, more than two are very unlikely.
const ATTEMPTS: usize = 4;

impl Windows {
    /// Begins anew with the SYN of the originator. Nobody else may be looking.
    pub(crate) fn begin(&self, syn: &Segment) {
        let [a, b] = Half::of_syn(syn).words();
        for (to, from) in self.0.iter().zip([a, b, 0, 0]) {
            to.store(from, Relaxed);
        }
    }

    fn load(&self) -> [u64; 4] {
        self.0.each_ref().map(|word| word.load(Acquire))
    }

    fn after(words: [u64; 4], side: Side, opening: bool, segment: &Segment) -> Option<[u64; 4]> {
        let [a, b, c, d] = words;
        let (originator, responder) = (Half::from_words([a, b]), Half::from_words([c, d]));
        let ([a, b], [c, d]) = match side {
            Side::Originator => {
                let (sender, receiver) = follow(originator, responder, opening, segment)?;
                (sender.words(), receiver.words())
            }
            Side::Responder => {
                let (sender, receiver) = follow(responder, originator, opening, segment)?;
                (receiver.words(), sender.words())
            }
        };
        Some([a, b, c, d])
    }

    /// Whether `segment` from `side` fits.
    pub(crate) fn fits(&self, side: Side, opening: bool, segment: &Segment) -> bool {
        Self::after(self.load(), side, opening, segment).is_some()
    }

    /// Takes down that `segment` has passed.
    pub(crate) fn advance(&self, side: Side, opening: bool, segment: &Segment) {
        for _ in 0..ATTEMPTS {
            let before = self.load();
            let Some(next) = Self::after(before, side, opening, segment) else { return };
            let stored = self.0.iter().zip(before.iter().zip(&next)).fold(true, |stored, (word, (from, to))| {
                (from == to || word.compare_exchange(*from, *to, AcqRel, Relaxed).is_ok()) && stored
            });
            if stored {
                return;
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

    const O: Side = Side::Originator;
    const R: Side = Side::Responder;

    /// A connection whose handshake is done, with these initial numbers and shift counts.
    fn open(ours: u32, theirs: u32, scales: (Option<u8>, Option<u8>)) -> Windows {
        let windows = Windows::default();
        windows.begin(&Segment { window_scale: scales.0, ..segment(flags::SYN, ours, 0, 0) });
        let answer = segment(flags::SYN | flags::ACK, theirs, ours.wrapping_add(1), 0);
        let answer = Segment { window_scale: scales.1, ..answer };
        assert!(windows.fits(R, true, &answer));
        windows.advance(R, true, &answer);
        let last = segment(flags::ACK, ours.wrapping_add(1), theirs.wrapping_add(1), 0);
        assert!(windows.fits(O, false, &last));
        windows.advance(O, false, &last);
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
                prop_assert!(windows.fits(side, false, &data), "{:?} {:?}", windows, data);
                windows.advance(side, false, &data);
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
                    prop_assert!(!windows.fits(side, false, &blind), "{:?}", blind);
                    windows.advance(side, false, &blind);
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
            windows.advance(R, false, &segment(flags::ACK, 10, 6, 0));
            for (seq, fits) in [(6 + room, true), (7 + room, false)] {
                let data = segment(flags::ACK, seq, 10, 1);
                assert_eq!(windows.fits(O, false, &data), fits, "{scales:?} {seq}");
            }
        }
    }

    #[test]
    fn a_refusal_fits_and_so_does_a_new_attempt() {
        let windows = Windows::default();
        windows.begin(&segment(flags::SYN, 100, 0, 0));
        assert!(windows.fits(R, true, &segment(flags::RST | flags::ACK, 0, 101, 0)));
        assert!(!windows.fits(R, true, &segment(flags::RST | flags::ACK, 0, 102, 0)), "of a blind sender");
        windows.advance(O, true, &segment(flags::SYN, 5000, 0, 0));
        assert!(windows.fits(R, true, &segment(flags::SYN | flags::ACK, 7, 5001, 0)));
    }

    #[test]
    fn a_half_is_read_as_it_was_written() {
        let half = Half { end: 0x1234_5678, max_end: 0x9abc_def0, max_window: 0x0fed_cba9, scale: 14, scales: true };
        assert_eq!(Half::from_words(half.words()), half);
        assert_eq!(Half::from_words([0, 0]), Half::default());
    }
}

//! What a TCP segment does to its connection, by its numbers as well as by its flags.
//!
//! Whoever knows addresses and ports of a connection can send segments with its tuple, and sees none of its numbers. Its
//! ends ignore such segments, so they must not end a connection here either, nor shorten its life (RFC 5961, whatever
//! `tcp_window` says):
//!
//! - **A reset** ends a connection if its number is the one that its receiver expects next, which is what that has last
//!   acknowledged; as in Linux, which also asks for no more if the window is checked and it comes right behind the last byte
//!   of its sender. One that lies before is invalid. Any other passes and changes nothing, so that its receiver can ask back
//!   (RFC 5961, 3.2). Instead of an answer to a SYN it has to acknowledge that SYN (RFC 9293, 3.10.7.3).
//! - **A FIN** begins the end of a connection if it is the next that its receiver expects, or once that has acknowledged it.
//! - **A SYN** changes nothing where there is a connection (RFC 5961, 4). If it is answered after all by the other side, the
//!   two begin anew.
//! - **The handshake** is done when the number of the answer to a SYN is acknowledged, so nobody makes up an established
//!   connection without seeing that answer.
//!
//! Without `tcp_window` most segments are not looked at, so it may be unknown what is expected by now: the last
//! acknowledgment that was noted is some fraction of a second older than the last one that passed. Then the connection is
//! *challenged* by a reset or FIN which may be right: it lives on and all that follows is looked at. Whatever shows that it
//! goes on ends that; the acknowledgment of a FIN proves it. If nothing follows, it keeps its time, but makes room for
//! others if it has to: a dead connection costs its place until somebody needs it, and no blind sender cuts an idle one.
//!
//! # Source
//!
//! RFC 5961, 3 and 4; RFC 9293, 3.10.7; `nf_conntrack_tcp_packet` of `net/netfilter/nf_conntrack_proto_tcp.c` in Linux 6.x,
//! cases `TCP_CONNTRACK_CLOSE` and `TCP_CONNTRACK_IGNORE`. Linux gives an established connection ten seconds after a reset
//! with a number in the window that is not exact; here it keeps its time.

use kopi_packet::tcp::{Segment, flags};

use super::window::{Half, after, fits};
use crate::tcp::{Kind, Side, Step, TcpState, step};

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// It belongs to nothing that the connection could be in.
    Invalid,
    /// It passes, and nothing changes.
    Pass,
    /// The connection is in this state now.
    To(TcpState),
    /// The connection is in this state now, and what follows may prove what the segment says.
    Claim(TcpState, Claim),
    /// The answer to a SYN that was ignored: both ends have begun anew.
    Again(Segment),
    /// The connection was over, and this begins another between the same ports.
    Reopen,
}

/// What a segment says that nobody has confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    side: Side,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// A new attempt.
    Syn { end: u32, window: u16, scale: Option<u8> },
    /// Nothing comes from this number on.
    Fin { end: u32 },
    /// The connection is gone.
    Reset,
}

const NO_SCALE: u8 = 15;

impl Claim {
    /// ```text
    /// 63   60      56            48   32              0
    /// |  0  | scale | side | kind | window | end       |   0 for none
    /// ```
    pub(crate) fn to_word(self) -> u64 {
        let (kind, end, window, scale) = match self.of {
            Of::Syn { end, window, scale } => (1, end, window, scale),
            Of::Fin { end } => (2, end, 0, None),
            Of::Reset => (3, 0, 0, None),
        };
        let side = if self.side == Side::Responder { 0x10 } else { 0 };
        let ([e0, e1, e2, e3], [w0, w1]) = (end.to_le_bytes(), window.to_le_bytes());
        u64::from_le_bytes([e0, e1, e2, e3, w0, w1, side | kind, scale.map_or(NO_SCALE, |scale| scale.min(14))])
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let [e0, e1, e2, e3, w0, w1, kind, scale] = word.to_le_bytes();
        let end = u32::from_le_bytes([e0, e1, e2, e3]);
        let scale = (scale != NO_SCALE).then_some(scale);
        let of = match kind & 0x0f {
            1 => Of::Syn { end, window: u16::from_le_bytes([w0, w1]), scale },
            2 => Of::Fin { end },
            3 => Of::Reset,
            _ => return None,
        };
        Some(Self { side: if kind & 0x10 == 0 { Side::Originator } else { Side::Responder }, of })
    }

    fn syn(side: Side, syn: &Segment) -> Self {
        Self { side, of: Of::Syn { end: syn.end(), window: syn.window, scale: syn.window_scale } }
    }

    /// The SYN that it is about, if `answer` from the side `side` acknowledges that.
    fn answered_by(self, side: Side, answer: &Segment) -> Option<Segment> {
        match self.of {
            Of::Syn { end, window, scale } if self.side != side && answer.has(flags::ACK) && answer.ack == end => {
                let seq = end.wrapping_sub(1);
                Some(Segment { flags: flags::SYN, seq, window, window_scale: scale, whole: true, ..Segment::default() })
            }
            _ => None,
        }
    }
}

/// A segment at its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) kind: Kind,
    /// Who sends it.
    pub(crate) side: Side,
    pub(crate) tcp_state: TcpState,
    /// The numbers of the sender, and of the receiver.
    pub(crate) own: Half,
    pub(crate) other: Half,
    /// Whether the numbers are those of all segments, and the segment has to fit.
    pub(crate) checked: bool,
    pub(crate) claim: Option<Claim>,
}

/// A reset without the number that is expected may be right if it is at most so far ahead of the last number known: no
/// window is larger (RFC 7323, 2.3).
const AHEAD: u32 = 1 << 30;

impl Arrival<'_> {
    pub(crate) fn evaluate(&self) -> Move {
        // What nobody has confirmed is not so.
        let challenged = self.tcp_state == TcpState::Challenged;
        let state = if challenged { TcpState::Established } else { self.tcp_state };
        let next = step(self.side, self.kind, state);
        match (self.kind, next) {
            (_, Step::Invalid) => Move::Invalid,
            (_, Step::Reopen) => Move::Reopen,
            (Kind::Syn, Step::Ignore) => Move::Claim(self.tcp_state, Claim::syn(self.side, self.segment)),
            (Kind::Syn, Step::To(next)) => self.syn(next),
            (Kind::SynAck, Step::Ignore) => self.again().unwrap_or(Move::Pass),
            (Kind::SynAck, Step::To(next)) => match self.again() {
                _ if self.segment.ack == self.other.end => self.checked(next),
                Some(again) => again,
                None => Move::Invalid,
            },
            (Kind::Rst, _) if matches!(state, TcpState::TimeWait | TcpState::Close) => Move::To(TcpState::Close),
            (Kind::Rst, _) => self.reset(),
            (Kind::Fin, Step::To(next)) => self.fin(next),
            (Kind::Ack, Step::To(next)) => self.plain(next, challenged),
            (_, Step::Ignore) => Move::Pass,
        }
    }

    /// The state, unless the segment does not fit.
    fn checked(&self, next: TcpState) -> Move {
        let fits = !self.checked || fits(self.own, self.other, self.segment);
        if fits { Move::To(next) } else { Move::Invalid }
    }

    /// A SYN before the handshake is done: the same again, or the other side's, or another attempt, of which the answer
    /// will tell whether it is one.
    fn syn(&self, next: TcpState) -> Move {
        match self.own.is_silent() || self.segment.end() == self.own.end {
            true => self.checked(next),
            false => Move::Claim(next, Claim::syn(self.side, self.segment)),
        }
    }

    fn again(&self) -> Option<Move> {
        self.claim?.answered_by(self.side, self.segment).map(Move::Again)
    }

    fn reset(&self) -> Move {
        let Self { segment, own, other, .. } = *self;
        // No host cuts a reset into fragments.
        if !segment.whole {
            return Move::Invalid;
        }
        let answers_ignored = self.claim.is_some_and(|claim| claim.answered_by(self.side, segment).is_some());
        if answers_ignored {
            return Move::To(TcpState::Close);
        }
        let is_next = |number: u32| segment.seq == number;
        let refusing = own.is_silent() || (self.tcp_state == TcpState::SynSent && self.side == Side::Responder);
        match other.acked {
            Some(expected) if is_next(expected) => Move::To(TcpState::Close),
            _ if refusing => {
                let refuses = segment.has(flags::ACK) && segment.ack == other.end;
                if refuses { Move::To(TcpState::Close) } else { Move::Invalid }
            }
            Some(_) if self.checked && is_next(own.end) => Move::To(TcpState::Close),
            None if is_next(own.end) => Move::To(TcpState::Close),
            None => Move::Invalid,
            Some(expected) if after(expected, segment.seq) => Move::Invalid,
            Some(_) if self.checked => {
                if fits(own, other, segment) {
                    Move::Pass
                } else {
                    Move::Invalid
                }
            }
            Some(expected) => {
                let may_be = segment.seq.wrapping_sub(expected) <= AHEAD;
                self.challenge(may_be.then_some(Of::Reset))
            }
        }
    }

    fn fin(&self, next: TcpState) -> Move {
        let Self { segment, other, .. } = *self;
        if self.checked {
            return self.checked(next);
        }
        let end = segment.end();
        match other.acked {
            Some(expected) if after(segment.seq, expected) => self.challenge(Some(Of::Fin { end })),
            // It was acknowledged long ago.
            Some(expected) if !after(end, expected) => Move::Pass,
            _ => Move::To(next),
        }
    }

    /// What follows tells whether it is so. While the connection is being closed, all of it is looked at anyway, and its
    /// time is short.
    fn challenge(&self, of: Option<Of>) -> Move {
        let Some(of) = of else { return Move::Pass };
        let claim = Claim { side: self.side, of };
        match self.tcp_state {
            TcpState::Established | TcpState::Challenged => Move::Claim(TcpState::Challenged, claim),
            _ if of == Of::Reset => Move::Pass,
            state => Move::Claim(state, claim),
        }
    }

    fn plain(&self, next: TcpState, challenged: bool) -> Move {
        let Self { segment, side, .. } = *self;
        if self.checked && !fits(self.own, self.other, segment) {
            return Move::Invalid;
        }
        let fin = match self.claim {
            Some(Claim { side, of: Of::Fin { end } }) => Some((side, end)),
            _ => None,
        };
        match (self.tcp_state, fin) {
            (_, Some((of, end))) if of != side && segment.ack == end => match self.tcp_state {
                TcpState::SynRecv | TcpState::Established | TcpState::Challenged => Move::To(TcpState::CloseWait),
                _ => Move::To(TcpState::TimeWait),
            },
            // The other one has not got that far, or this one acknowledges behind its FIN.
            (TcpState::Challenged, Some((of, end))) if of != side || segment.seq == end => {
                Move::To(TcpState::Challenged)
            }
            _ if challenged => Move::To(TcpState::Established),
            (TcpState::SynRecv, _) if next == TcpState::Established && segment.ack != self.other.end => {
                Move::To(TcpState::SynRecv)
            }
            _ => Move::To(next),
        }
    }
}

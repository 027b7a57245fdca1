//! The states of a TCP connection, as a firewall in the middle sees them.
//!
//! Each segment that passes moves the connection from one [`TcpState`] to the next: [`step`]. The policy hook does not see
//! what the hosts do with a segment, nor whether it arrives, so it follows them loosely, and lets pass what the receiver
//! is better able to decide.
//!
//! # Source
//!
//! The states and transitions of Linux' connection tracking, `net/netfilter/nf_conntrack_proto_tcp.c`, written down
//! anew; they go back to RFC 9293, 3.3.2, and to G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2000).
//! The one difference is named at [`Step::Reopen`]. What the numbers of a segment have to say is for the connection's
//! `numbers`.

use kopi_packet::tcp::flags::{ACK, FIN, RST, SYN, URG};

/// How far a connection has come, as one who sees its segments pass knows it. Connections of other protocols
/// are in `Udp`, `Icmp` and `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TcpState {
    SynSent = 1,
    SynRecv = 2,
    Established = 3,
    FinWait = 4,
    CloseWait = 5,
    LastAck = 6,
    TimeWait = 7,
    Close = 8,
    /// SYN from both sides.
    SynSent2 = 9,
    /// UDP and UDP-Lite.
    Udp = 10,
    /// Requests of ICMP and ICMPv6 that have replies.
    Icmp = 11,
    /// Every other protocol.
    Other = 12,
    /// Established, and a reset or FIN has passed of which we cannot tell whether its receiver takes it: see
    /// [`numbers`](crate::connection).
    Challenged = 13,
}

impl TcpState {
    /// Every state, in the order of their numbers, which start at one.
    pub(crate) const ALL: [Self; 13] = [
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
        Self::Udp,
        Self::Icmp,
        Self::Other,
        Self::Challenged,
    ];

    /// The name of the state, as `conntrack -L` prints it.
    pub(crate) const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            // What the two ends make of a claim, nobody knows yet.
            Self::Established | Self::Challenged => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
            Self::Udp | Self::Icmp | Self::Other => return None,
        })
    }

    pub(crate) const fn is_tcp(self) -> bool {
        self.name().is_some()
    }

    /// Whether both sides have said that nothing more will come.
    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }
}

/// Who sends a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Whose packet was the first of the connection.
    Originator,
    /// The other one.
    Responder,
}

/// What matters of the flags of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

impl Kind {
    /// `None` for flags that no TCP sends together: no flag, FIN or data without ACK, SYN with FIN or RST.
    pub(crate) const fn of(flags: u8) -> Option<Self> {
        // PSH and the flags of ECN go with anything (RFC 9293, 3.1; RFC 3168, 6.1.1).
        Some(match flags & (FIN | SYN | RST | ACK | URG) {
            f if f == SYN || f == SYN | URG => Self::Syn,
            f if f == SYN | ACK => Self::SynAck,
            f if f == RST || f == RST | ACK => Self::Rst,
            f if f & !URG == FIN | ACK => Self::Fin,
            f if f & !URG == ACK => Self::Ack,
            _ => return None,
        })
    }
}

/// What a segment does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The connection is in this state now.
    To(TcpState),
    /// It passes and changes nothing: it may be right, if the hosts know more than we do, and if it is not, the receiver
    /// answers with a reset that we will see.
    Ignore,
    /// It fits nothing that the connection could be in.
    Invalid,
    /// The connection is over, and this begins another between the same ports.
    ///
    /// In Linux only after `TIME_WAIT` and `CLOSE`. Here also after `LAST_ACK`: the acknowledgment that ends it may have
    /// passed by the flow cache.
    Reopen,
}

/// The state of a connection that begins with such a segment; `None` if none can. A plain segment begins one only if
/// connections may be picked up in their middle (`loose`).
pub(crate) const fn first(kind: Kind, loose: bool) -> Option<TcpState> {
    match kind {
        Kind::Syn => Some(TcpState::SynSent),
        Kind::Ack if loose => Some(TcpState::Established),
        Kind::Ack | Kind::SynAck | Kind::Fin | Kind::Rst => None,
    }
}

/// What a segment of this kind from this side does to a connection in this state.
pub(crate) const fn step(side: Side, kind: Kind, state: TcpState) -> Step {
    use Side::{Originator, Responder};
    use TcpState::{Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent, SynSent2, TimeWait};
    match (kind, side, state) {
        // A retransmission, or a new attempt.
        (Kind::Syn, Originator, SynSent) => Step::To(SynSent),
        (Kind::Syn, Originator, SynSent2) => Step::To(SynSent2),
        (Kind::Syn, Originator, LastAck | TimeWait | Close) => Step::Reopen,
        // The originator has lost its memory, or somebody is guessing.
        (Kind::Syn, Originator, _) => Step::Ignore,
        // Both open at the same time (RFC 9293, figure 7).
        (Kind::Syn, Responder, SynSent | SynSent2) => Step::To(SynSent2),
        (Kind::Syn, Responder, _) => Step::Invalid,

        (Kind::SynAck, _, SynSent2) | (Kind::SynAck, Responder, SynSent) => Step::To(SynRecv),
        // Nobody answers its own SYN.
        (Kind::SynAck, Originator, SynSent) => Step::Invalid,
        // Late, or the answer to a SYN that was ignored.
        (Kind::SynAck, ..) => Step::Ignore,

        // There is nothing to close yet.
        (Kind::Fin, _, SynSent | SynSent2) => Step::Invalid,
        (Kind::Fin, _, SynRecv | Established) => Step::To(FinWait),
        (Kind::Fin, _, FinWait | CloseWait | LastAck) => Step::To(LastAck),

        // The originator acknowledges a SYN that it has not got.
        (Kind::Ack, Originator, SynSent | SynSent2) => Step::Invalid,
        // The responder holds half of an older connection (RFC 9293, figure 9).
        (Kind::Ack, Responder, SynSent | SynSent2) => Step::Ignore,
        (Kind::Ack, Originator, SynRecv) => Step::To(Established),
        (Kind::Ack, Responder, SynRecv) => Step::To(SynRecv),
        (Kind::Ack, _, Established) => Step::To(Established),
        (Kind::Ack, _, FinWait | CloseWait) => Step::To(CloseWait),
        (Kind::Ack, _, LastAck) => Step::To(TimeWait),

        (Kind::Fin | Kind::Ack, _, TimeWait) => Step::To(TimeWait),
        (Kind::Fin | Kind::Ack, _, Close) => Step::To(Close),
        (Kind::Rst, ..) => Step::To(Close),
        // The table never asks about states of other protocols, and about one that is challenged as what it may well be.
        (_, _, TcpState::Udp | TcpState::Icmp | TcpState::Other | TcpState::Challenged) => Step::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_listed_by_their_numbers() {
        for (number, state) in (1_u8..).zip(TcpState::ALL) {
            assert_eq!(state as u8, number);
        }
    }

    /// Plays segments and names the state after each; `-` for ignored, `!` for invalid, `new` for reopened.
    fn play(segments: &[(Side, u8)]) -> Vec<String> {
        let mut state = None;
        let name = |state: TcpState| state.name().unwrap().to_owned();
        segments
            .iter()
            .map(|&(side, flags)| {
                let Some(kind) = Kind::of(flags) else { return "!".to_owned() };
                let step = match state {
                    None => first(kind, true).map_or(Step::Invalid, Step::To),
                    Some(state) => step(side, kind, state),
                };
                match step {
                    Step::To(next) => {
                        state = Some(next);
                        name(next)
                    }
                    Step::Ignore => "-".to_owned(),
                    Step::Invalid => "!".to_owned(),
                    Step::Reopen => {
                        state = first(kind, false);
                        "new".to_owned()
                    }
                }
            })
            .collect()
    }

    const O: Side = Side::Originator;
    const R: Side = Side::Responder;
    const OPEN: [(Side, u8); 3] = [(O, SYN), (R, SYN | ACK), (O, ACK)];

    #[test]
    fn rfc_9293_figure_6_and_12_open_talk_close() {
        let talk = [(R, ACK), (O, ACK | 0x08), (O, FIN | ACK), (R, ACK), (R, FIN | ACK), (O, ACK)];
        let states = play(&[&OPEN[..], &talk].concat());
        assert_eq!(states[..3], ["SYN_SENT", "SYN_RECV", "ESTABLISHED"]);
        assert_eq!(states[3..5], ["ESTABLISHED", "ESTABLISHED"]);
        assert_eq!(states[5..], ["FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"]);
    }

    #[test]
    fn rfc_9293_figure_7_simultaneous_open() {
        let states = play(&[(O, SYN), (R, SYN), (O, SYN | ACK), (R, SYN | ACK), (O, ACK)]);
        assert_eq!(states, ["SYN_SENT", "SYN_SENT2", "SYN_RECV", "-", "ESTABLISHED"]);
    }

    #[test]
    fn rfc_9293_figure_9_a_half_open_connection_is_reset() {
        let states = play(&[&OPEN[..], &[(O, SYN), (R, ACK), (O, RST)]].concat());
        assert_eq!(states[3..], ["-", "ESTABLISHED", "CLOSE"]);
    }

    #[test]
    fn both_close_at_the_same_time() {
        let states = play(&[&OPEN[..], &[(O, FIN | ACK), (R, FIN | ACK), (O, ACK), (R, ACK)]].concat());
        assert_eq!(states[3..], ["FIN_WAIT", "LAST_ACK", "TIME_WAIT", "TIME_WAIT"]);
    }

    #[test]
    fn a_refused_connection_is_closed() {
        assert_eq!(play(&[(O, SYN), (R, RST | ACK)]), ["SYN_SENT", "CLOSE"]);
    }

    #[test]
    fn ports_are_used_again_after_the_end() {
        let close = [(O, FIN | ACK), (R, FIN | ACK)];
        assert_eq!(play(&[&OPEN[..], &close, &[(O, SYN)]].concat())[5], "new", "the last ACK was not seen");
        assert_eq!(play(&[&OPEN[..], &close, &[(O, ACK), (O, SYN)]].concat())[6], "new");
        assert_eq!(play(&[&OPEN[..], &[(R, RST), (O, SYN)]].concat())[4], "new");
        assert_eq!(play(&[&OPEN[..], &[(R, RST), (R, SYN)]].concat())[4], "!", "not by the other side");
    }

    #[test]
    fn only_a_syn_begins_a_connection_unless_tracking_is_loose() {
        for flags in 0..64 {
            let strict = Kind::of(flags).and_then(|kind| first(kind, false));
            let loose = Kind::of(flags).and_then(|kind| first(kind, true));
            let plain = flags & !(URG | 0x08);
            assert_eq!(strict.is_some(), plain == SYN, "{flags:#x}");
            assert_eq!(loose.is_some(), plain == SYN || plain == ACK, "{flags:#x}");
        }
    }

    #[test]
    fn impossible_flags_are_invalid_in_every_phase() {
        for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | SYN | RST | ACK, SYN | FIN | ACK, RST | FIN, URG, 0x08] {
            assert_eq!(Kind::of(flags), None, "{flags:#x}");
        }
    }

    /// Out-of-place segments of a blind sender neither open, nor close without a reset, nor end up in a state of
    /// another protocol.
    #[test]
    fn every_step_stays_within_tcp() {
        for state in TcpState::ALL.into_iter().filter(|state| state.name().is_some() && *state != TcpState::Challenged)
        {
            for kind in [Kind::Syn, Kind::SynAck, Kind::Fin, Kind::Ack, Kind::Rst] {
                for side in [O, R] {
                    match step(side, kind, state) {
                        Step::To(next) => {
                            assert!(next.name().is_some(), "{side:?} {kind:?} {state:?}");
                            assert_eq!(next == TcpState::Close, kind == Kind::Rst || state == TcpState::Close);
                            let opens = next == TcpState::Established && state != TcpState::Established;
                            assert!(!opens || (state == TcpState::SynRecv && side == O), "{side:?} {kind:?} {state:?}");
                        }
                        Step::Reopen => assert!(kind == Kind::Syn && side == O),
                        Step::Ignore | Step::Invalid => {}
                    }
                }
            }
        }
    }
}

//! Segments of a sender that knows addresses and ports of a connection and sees none of its numbers; and damaged packets.

use super::*;

/// What the app sends next, and what it expects, after the conversation of [`Talk::begin`].
const APP_NEXT: u32 = 1006;
const PEER_NEXT: u32 = 7006;

const BOTH: [bool; 2] = [false, true];

/// A connection of the app to the peer, with what both know of their numbers.
struct Talk {
    table: Connections,
    now: u64,
}

impl Talk {
    /// A connection over which each side has sent five bytes and acknowledged those of the other, a second between any
    /// two segments.
    fn begin(window: bool) -> Self {
        let mut talk = Self::slow(window);
        for _ in 0..2 {
            talk.now += TOUCH;
            assert_eq!(talk.send(Egress, ACK, (APP_NEXT, PEER_NEXT)), Established);
        }
        talk
    }

    /// The same without the last acknowledgment.
    fn slow(window: bool) -> Self {
        let table = Connections::new(64, seed(), &tracking(|t| t.tcp_window = window), HZ);
        let mut talk = Self { table, now: 1000 * TOUCH };
        let segments = [
            (Egress, SYN, (1000, 0), 0),
            (Ingress, SYN | ACK, (7000, 1001), 0),
            (Egress, ACK, (1001, 7001), 0),
            (Egress, ACK, (1001, 7001), 5),
            (Ingress, ACK, (7001, APP_NEXT), 5),
        ];
        for (direction, flags, numbers, length) in segments {
            talk.now += TOUCH;
            talk.send_data(direction, flags, numbers, length);
        }
        assert_eq!(talk.tcp_state(), Some("ESTABLISHED"));
        talk
    }

    fn send(&mut self, direction: Direction, flags: u8, numbers: (u32, u32)) -> State {
        self.send_data(direction, flags, numbers, 0)
    }

    fn send_data(&mut self, direction: Direction, flags: u8, numbers: (u32, u32), length: u8) -> State {
        let frame = frame(direction, flags, numbers, length);
        pass(&self.table, direction, &frame, self.now).0
    }

    fn tcp_state(&self) -> Option<&'static str> {
        tcp_state(&self.table, self.now)
    }

    /// Whether the connection lives after as many idle days as an established one has, but one.
    fn keeps_its_time(&self) -> bool {
        self.table.snapshot(self.now + 4 * 24 * 3600 * HZ).count() == 1
    }
}

/// Ticks after which the next packet of a direction is noted.
const TOUCH: u64 = 1 << TOUCH_SHIFT;
/// Half a second between two notes.
const HZ: u64 = 2 * TOUCH;

fn frame(direction: Direction, flags: u8, numbers: (u32, u32), length: u8) -> Vec<u8> {
    let (app, peer) = ((APP, 40_000), (PEER, 5432));
    let (src, dst) = if direction == Egress { (app, peer) } else { (peer, app) };
    let mut frame = numbered(src, dst, flags, numbers);
    frame.resize(54 + usize::from(length), 1);
    frame[17] = 40 + length;
    sum_up(&mut frame);
    frame
}

/// What Linux 6.18 says of the same four resets, of which it takes the last one: `nft` counts those in front of the next
/// number by 256, or behind it by 3 << 28, as invalid, and that behind it by 4,096 as established.
const RESETS: [(u32, State, bool); 4] = [
    (PEER_NEXT.wrapping_add(3 << 28), Invalid, true),
    (PEER_NEXT - 256, Invalid, true),
    (PEER_NEXT + 4096, Established, true),
    (PEER_NEXT, Established, false),
];

#[test]
fn resets_are_taken_as_linux_takes_them() {
    for window in BOTH {
        for (number, state, lives) in RESETS {
            let mut talk = Talk::begin(window);
            // Without the window, nobody knows how far it has moved since the last look.
            let state = if !window && number == RESETS[0].0 { Established } else { state };
            assert_eq!(talk.send(Ingress, RST, (number, 0)), state, "window {window}, {number}");
            assert_eq!(
                talk.tcp_state(),
                Some(if lives { "ESTABLISHED" } else { "CLOSE" }),
                "window {window}, {number}"
            );
            assert_eq!(talk.keeps_its_time(), lives, "window {window}, {number}");
            let after = talk.send_data(Ingress, ACK, (PEER_NEXT, APP_NEXT), 5);
            assert_eq!(after, Established, "window {window}, {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a blind sender sends in the name of the peer, and however much of it, the connection keeps its time, the app's
    /// and the peer's segments are established, and what ends it is a right reset.
    #[test]
    fn no_blind_sender_ends_a_connection(
        window: bool,
        segments in prop::collection::vec((
            proptest::sample::select(&[SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, ACK][..]), any::<u32>(), any::<u32>(), 0_u8..9, any::<bool>()
        ), 1..12),
    ) {
        let mut talk = Talk::begin(window);
        for (flags, seq, ack, length, pause) in segments {
            // It does not know what the app would accept.
            prop_assume!(seq.wrapping_sub(PEER_NEXT - 256) > 512 && ack.wrapping_sub(APP_NEXT - 256) > 512);
            talk.now += if pause { TOUCH } else { 0 };
            talk.send_data(Ingress, flags, (seq, ack), length);
            prop_assert_eq!(talk.tcp_state(), Some("ESTABLISHED"));
            prop_assert!(talk.keeps_its_time());
        }
        talk.now += TOUCH;
        prop_assert_eq!(talk.send(Egress, ACK, (APP_NEXT, PEER_NEXT)), Established);
        prop_assert_eq!(talk.send_data(Ingress, ACK, (PEER_NEXT, APP_NEXT), 5), Established);
        talk.now += TOUCH;
        prop_assert_eq!(talk.send(Egress, ACK, (APP_NEXT, PEER_NEXT + 5)), Established);
        prop_assert!(talk.keeps_its_time());
        prop_assert_eq!(talk.send(Ingress, RST, (PEER_NEXT + 5, 0)), Established);
        prop_assert_eq!(talk.tcp_state(), Some("CLOSE"));
    }
}

/// A reset that comes right behind data which nobody has looked at: nothing says that it is right, so the connection keeps its
/// time; but it is the first to go when somebody needs the place.
#[test]
fn a_reset_that_may_be_right_costs_no_more_than_a_place() {
    let mut talk = Talk::slow(false);
    for round in 1..4 {
        // Within one touch: the acknowledgment passes by the flow table.
        let next = PEER_NEXT + 100 * round;
        assert_eq!(talk.send(Ingress, RST, (next, 0)), Established);
        assert!(talk.keeps_its_time() && talk.tcp_state() == Some("ESTABLISHED"));
        let of = talk.table.find(&tuple_of(Ingress), talk.now).unwrap();
        assert_eq!(talk.table.plain(of, Egress), None, "what follows is looked at");
        assert_eq!(talk.send_data(Egress, ACK, (APP_NEXT, PEER_NEXT), 5), Established);
        assert!(talk.table.is_established(of), "the app has not taken it");
    }
    talk.send(Ingress, RST, (PEER_NEXT + 1000, 0));
    let small = Talk { table: Connections::new(8, seed(), &Tracking::default(), HZ), now: talk.now };
    let mut talk = Talk { table: small.table, ..talk };
    for n in 0..8 {
        open_to(&talk.table, n, talk.now);
    }
    assert_eq!(talk.table.create(&tuple(99), Egress, None, talk.now), None, "all eight are established");
    let reset = numbered((PEER, 80), (APP, 100), RST, (START + 500, 0));
    assert_eq!(pass(&talk.table, Ingress, &reset, talk.now).0, Established);
    talk.now += 1;
    assert!(talk.table.create(&tuple(99), Egress, None, talk.now).is_some(), "one may have ended");
}

/// An established connection of the app's port 100 + `n` to port 80 of the peer.
fn open_to(table: &Connections, n: u16, now: u64) {
    let (app, peer) = ((APP, 100 + n), (PEER, 80));
    pass(table, Egress, &tcp(app, peer, SYN), now);
    pass(table, Ingress, &tcp(peer, app, SYN | ACK), now);
    pass(table, Egress, &tcp(app, peer, ACK), now);
}

fn tuple_of(direction: Direction) -> Tuple {
    let frame = frame(direction, ACK, (0, 0), 0);
    Tuple::of(1, &parse(&frame, 1).1, direction).unwrap()
}

/// A FIN behind data that nobody has looked at is proven by its acknowledgment, and by nothing else.
#[test]
fn a_fin_counts_once_it_is_acknowledged() {
    for window in BOTH {
        let mut talk = Talk::begin(window);
        if !window {
            // The peer has sent 500 bytes by way of the flow table, and the app acknowledged none of them so far.
            assert_eq!(talk.send(Ingress, FIN | ACK, (PEER_NEXT + 500, APP_NEXT)), Established);
            assert_eq!(talk.tcp_state(), Some("ESTABLISHED"));
            assert_eq!(talk.send(Egress, ACK, (APP_NEXT, PEER_NEXT + 400)), Established);
            assert!(talk.keeps_its_time());
            assert_eq!(talk.send(Egress, ACK, (APP_NEXT, PEER_NEXT + 501)), Established);
        } else {
            assert_eq!(talk.send(Ingress, FIN | ACK, (PEER_NEXT + 9_000_000, APP_NEXT)), Invalid);
            assert_eq!(talk.send(Ingress, FIN | ACK, (PEER_NEXT, APP_NEXT)), Established);
            assert_eq!(talk.tcp_state(), Some("FIN_WAIT"));
            assert_eq!(talk.send(Egress, ACK, (APP_NEXT, PEER_NEXT + 1)), Established);
        }
        assert_eq!(talk.tcp_state(), Some("CLOSE_WAIT"), "window {window}");
        assert!(!talk.keeps_its_time());
        let acked = if window { PEER_NEXT + 1 } else { PEER_NEXT + 501 };
        assert_eq!(talk.send(Egress, FIN | ACK, (APP_NEXT, acked)), Established);
        assert_eq!(talk.send(Ingress, ACK, (acked, APP_NEXT + 1)), Established);
        assert_eq!(talk.tcp_state(), Some("TIME_WAIT"), "window {window}");
    }
}

/// RFC 5961, 4: the other end has lost its memory, or somebody is guessing. The answer tells which.
#[test]
fn a_syn_changes_nothing_until_it_is_answered() {
    for window in BOTH {
        let lost = |talk: &mut Talk| {
            let time = talk.now;
            assert_eq!(talk.send(Egress, SYN, (500_000, 0)), Established);
            assert!(talk.keeps_its_time() && talk.now == time);
            assert_eq!(talk.send(Ingress, ACK, (PEER_NEXT, APP_NEXT)), Established, "RFC 5961: asks back");
            assert_eq!(talk.tcp_state(), Some("ESTABLISHED"));
        };
        let mut talk = Talk::begin(window);
        lost(&mut talk);
        assert_eq!(talk.send(Ingress, SYN | ACK, (900_000, 500_001)), Established);
        assert_eq!(talk.tcp_state(), Some("SYN_RECV"), "window {window}");
        assert_eq!(talk.send(Egress, ACK, (500_001, 900_001)), Established);
        assert_eq!(talk.tcp_state(), Some("ESTABLISHED"));
        talk.now += TOUCH;
        assert_eq!(talk.send_data(Ingress, ACK, (900_001, 500_001), 9), Established, "by the new numbers");
        let mut talk = Talk::begin(window);
        lost(&mut talk);
        assert_ne!(talk.send(Ingress, RST | ACK, (0, 500_002)), New);
        assert_eq!(talk.tcp_state(), Some("ESTABLISHED"), "of a blind sender");
        assert_eq!(talk.send(Ingress, RST | ACK, (0, 500_001)), Established);
        assert_eq!(talk.tcp_state(), Some("CLOSE"), "window {window}");
    }
}

/// Who does not see the answer to a SYN cannot go on, so nobody fills the table with established connections blindly.
#[test]
fn a_handshake_is_done_by_who_has_seen_the_answer() {
    for window in BOTH {
        let table = Connections::new(64, seed(), &tracking(|t| t.tcp_window = window), HZ);
        let (peer, app) = ((PEER, 9), (APP, 80));
        assert_eq!(pass(&table, Ingress, &numbered(peer, app, SYN, (10, 0)), 0).0, New);
        assert_eq!(pass(&table, Egress, &numbered(app, peer, SYN | ACK, (70, 12)), 0).0, Invalid, "of another SYN");
        assert_eq!(pass(&table, Egress, &numbered(app, peer, RST | ACK, (0, 12)), 0).0, Invalid, "of another SYN");
        assert_eq!(pass(&table, Egress, &numbered(app, peer, SYN | ACK, (70, 11)), 0).0, Established);
        pass(&table, Ingress, &numbered(peer, app, ACK, (11, 72)), 0);
        assert_eq!(tcp_state(&table, 0), Some("SYN_RECV"), "window {window}");
        assert_eq!(pass(&table, Ingress, &numbered(peer, app, ACK, (11, 71)), 0).0, Established);
        assert_eq!(tcp_state(&table, 0), Some("ESTABLISHED"), "window {window}");
        assert!(table.snapshot(0).all(|connection| connection.assured));
    }
}

/// What the receiver will not take neither begins a connection, nor moves it on, nor ends it; and what passes without changing
/// anything is not summed up.
#[test]
fn a_wrong_checksum_changes_nothing() {
    let damaged = |mut frame: Vec<u8>| {
        let last = frame.len() - 1;
        frame[last] ^= 1;
        frame
    };
    let table = table(64);
    let (there, back) = (udp((APP, 5353), (PEER, 53)), udp((PEER, 53), (APP, 5353)));
    let wrong = |mut datagram: Vec<u8>| {
        datagram[40] ^= 1;
        datagram
    };
    for frame in [damaged(segment(Egress, SYN)), wrong(there.clone()), damaged(icmp(APP, PEER, 8, 7))] {
        assert_eq!(pass(&table, Egress, &frame, 0), (Invalid, None), "{frame:02x?}");
    }
    assert_eq!((table.snapshot(0).count(), table.stats().damaged), (0, 3));
    pass(&table, Egress, &there, 0);
    assert_eq!(pass(&table, Ingress, &wrong(back), 0), (Invalid, None), "an answer");
    assert!(table.snapshot(0).all(|connection| !connection.answered));
    let error = unreachable(&there);
    assert_eq!(state(&table, Ingress, &error, 0), Related);
    assert_eq!(state(&table, Ingress, &damaged(error), 0), Invalid);
    for window in BOTH {
        let mut talk = Talk::begin(window);
        for flags in [RST, FIN | ACK, RST | ACK] {
            let frame = damaged(frame(Ingress, flags, (PEER_NEXT, APP_NEXT), 4));
            assert_eq!(pass(&talk.table, Ingress, &frame, talk.now), (Invalid, None), "{flags:#x}");
        }
        assert_eq!(talk.table.stats().damaged, 3);
        assert!(talk.tcp_state() == Some("ESTABLISHED") && talk.keeps_its_time());
        let data = damaged(frame(Ingress, ACK, (PEER_NEXT, APP_NEXT), 4));
        assert_eq!(pass(&talk.table, Ingress, &data, talk.now).0, Established);
        assert_eq!(talk.send(Ingress, RST, (PEER_NEXT, 0)), Established, "the right one");
        assert_eq!(talk.tcp_state(), Some("CLOSE"));
    }
}

/// A policy that is read again with another setting does not make what goes on invalid.
#[test]
fn the_window_may_be_turned_off_and_on() {
    let mut talk = Talk::begin(true);
    talk.table.set_tracking(&tracking(|t| t.tcp_window = false));
    for round in 0..3 {
        assert_eq!(talk.send_data(Ingress, ACK, (PEER_NEXT + (round << 28), APP_NEXT), 9), Established);
    }
    talk.table.set_tracking(&tracking(|t| t.tcp_window = true));
    assert_eq!(talk.send_data(Ingress, ACK, (PEER_NEXT + (3 << 28), APP_NEXT), 9), Established);
}

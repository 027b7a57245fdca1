//! Connections over whole frames, and against a model.

mod numbers;
mod shares;
mod stress;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering::Relaxed;

use kopi_config::policy::{Direction, State, Tracking};
use kopi_packet::tcp::flags::{ACK, FIN, RST, SYN};
use kopi_packet::{FlowKey, Headers, Seed, checksum, parse, reply};
use proptest::prelude::*;

use super::*;
use Direction::{Egress, Ingress};
use State::{Established, Invalid, New, Related, Untracked};

const HZ: u64 = 1000;
const APP: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];

fn seed() -> Seed {
    Seed::from_bytes(std::array::from_fn(|i| u8::try_from(i * 37 % 251).unwrap()))
}

/// The default settings with a change.
fn tracking(change: impl FnOnce(&mut Tracking)) -> Tracking {
    let mut tracking = Tracking::default();
    change(&mut tracking);
    tracking
}

fn table(capacity: usize) -> Connections {
    Connections::new(capacity, seed(), &Tracking::default(), HZ)
}

/// An IPv4 frame.
fn ipv4(proto: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let start = [0x45, 0, l0, l1, 0, 0, 0, 0, 64, proto, 0, 0];
    let mut frame = [&ethernet[..], &start, &src, &dst, payload].concat();
    sum_up(&mut frame);
    frame
}

/// Writes the checksums that a packet has to have, after it was changed. What is so short that the parser finds no header in
/// it has none.
fn sum_up(frame: &mut [u8]) {
    let (headers, _) = parse(frame, 1);
    checksum::complete(frame, &headers);
}

/// A segment with these numbers.
fn numbered(src: ([u8; 4], u16), dst: ([u8; 4], u16), flags: u8, (seq, ack): (u32, u32)) -> Vec<u8> {
    let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
    let header = [&numbers[..], &[5 << 4, flags, 0x10, 0, 0, 0, 0, 0]].concat();
    ipv4(6, src.0, dst.0, &[&src.1.to_be_bytes()[..], &dst.1.to_be_bytes(), &header].concat())
}

/// The numbers that both begin with.
const START: u32 = 7000;

/// A segment without data, as if nothing had been sent before but a SYN by each side.
fn tcp(src: ([u8; 4], u16), dst: ([u8; 4], u16), flags: u8) -> Vec<u8> {
    let seq = if flags & SYN != 0 { START } else { START + 1 };
    numbered(src, dst, flags, (seq, if flags & ACK != 0 { START + 1 } else { 0 }))
}

fn udp(src: ([u8; 4], u16), dst: ([u8; 4], u16)) -> Vec<u8> {
    ipv4(17, src.0, dst.0, &[&src.1.to_be_bytes()[..], &dst.1.to_be_bytes(), &[0, 8, 0, 0]].concat())
}

fn icmp(src: [u8; 4], dst: [u8; 4], kind: u8, id: u16) -> Vec<u8> {
    ipv4(1, src, dst, &[&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1]].concat())
}

/// Looks at a frame and accepts it, whatever it is: its state, and the connection it has afterwards.
fn pass(table: &Connections, direction: Direction, frame: &[u8], now: u64) -> (State, Option<Ref>) {
    let (headers, key) = parse(frame, 1);
    let lookup = table.lookup(1, direction, (frame, &headers, &key), now);
    (lookup.state(), table.accept(&lookup, now))
}

fn state(table: &Connections, direction: Direction, frame: &[u8], now: u64) -> State {
    let (headers, key) = parse(frame, 1);
    table.lookup(1, direction, (frame, &headers, &key), now).state()
}

/// A segment from the app, or to it, on port 5432 of the peer.
fn segment(direction: Direction, flags: u8) -> Vec<u8> {
    let (app, peer) = ((APP, 40_000), (PEER, 5432));
    if direction == Egress { tcp(app, peer, flags) } else { tcp(peer, app, flags) }
}

fn open(table: &Connections, now: u64) -> Ref {
    assert_eq!(pass(table, Egress, &segment(Egress, SYN), now).0, New);
    assert_eq!(pass(table, Ingress, &segment(Ingress, SYN | ACK), now).0, Established);
    let (state, of) = pass(table, Egress, &segment(Egress, ACK), now);
    assert_eq!(state, Established);
    of.unwrap()
}

fn tcp_state(table: &Connections, now: u64) -> Option<&'static str> {
    table.snapshot(now).next().and_then(|connection| connection.tcp_state)
}

#[test]
fn a_tcp_connection_from_syn_to_time_wait() {
    let table = table(64);
    let of = open(&table, 0);
    assert!(table.is_established(of));
    assert_eq!(table.plain(of, Ingress), Some(Established));
    let steps = [
        (Ingress, ACK, "ESTABLISHED"),
        (Egress, FIN | ACK, "FIN_WAIT"),
        (Ingress, ACK, "CLOSE_WAIT"),
        (Ingress, FIN | ACK, "LAST_ACK"),
        (Egress, ACK, "TIME_WAIT"),
    ];
    for (direction, flags, name) in steps {
        assert_eq!(pass(&table, direction, &segment(direction, flags), 0), (Established, Some(of)), "{name}");
        assert_eq!(tcp_state(&table, 0), Some(name));
        assert_eq!(table.is_established(of), name == "ESTABLISHED");
    }
    let (state, again) = pass(&table, Egress, &segment(Egress, SYN), 1);
    assert_eq!((state, tcp_state(&table, 1)), (New, Some("SYN_SENT")));
    assert_ne!(again, Some(of));
    assert_eq!(
        (table.plain(of, Egress), table.is_established(of), table.touch(of, Egress, None, 1)),
        (None, false, false),
        "stale"
    );
    assert_eq!(table.advance(of, Egress, None, 1), None);
    assert_eq!(table.in_zone(1), 1);
}

#[test]
fn what_cannot_begin_a_connection_is_invalid() {
    for flags in [SYN | ACK, FIN | ACK, RST, RST | ACK, 0, SYN | FIN] {
        let table = table(64);
        assert_eq!(pass(&table, Ingress, &segment(Ingress, flags), 0), (Invalid, None), "{flags:#x}");
        assert_eq!(table.snapshot(0).count(), 0);
    }
    let strict = tracking(|t| t.tcp_loose = false);
    for (tracking, expected) in [(Tracking::default(), New), (strict, Invalid)] {
        let table = Connections::new(64, seed(), &tracking, HZ);
        assert_eq!(state(&table, Egress, &segment(Egress, ACK), 0), expected);
    }
    let mut short = segment(Egress, SYN);
    short[46] = 4 << 4;
    assert_eq!(state(&table(64), Egress, &short, 0), Invalid, "RFC 9293, 3.1: data offset below 5");
}

#[test]
fn a_picked_up_connection_is_settled_once_both_sides_are_seen() {
    let table = table(64);
    let (state, of) = pass(&table, Ingress, &segment(Ingress, ACK), 0);
    let of = of.unwrap();
    assert_eq!((state, table.plain(of, Ingress), table.plain(of, Egress)), (New, Some(New), None));
    assert_eq!(pass(&table, Egress, &segment(Egress, ACK), 0).0, Established);
    assert!(!table.is_established(of));
    assert_eq!(pass(&table, Ingress, &segment(Ingress, ACK), 0).0, Established);
    assert!(table.is_established(of));
}

#[test]
fn a_refused_connection_leaves_nothing() {
    let table = table(64);
    assert_eq!(pass(&table, Egress, &segment(Egress, SYN), 0).0, New);
    assert_eq!(pass(&table, Ingress, &segment(Ingress, RST | ACK), 0).0, Established);
    assert_eq!(table.snapshot(0).count(), 0);
    assert_eq!(state(&table, Ingress, &segment(Ingress, RST | ACK), 0), Invalid);
    assert_eq!(pass(&table, Egress, &segment(Egress, SYN), 0).0, New);
}

#[test]
fn looking_changes_nothing_and_dropped_packets_are_not_remembered() {
    let table = table(64);
    for _ in 0..3 {
        assert_eq!(state(&table, Egress, &segment(Egress, SYN), 0), New);
        assert_eq!(state(&table, Ingress, &segment(Ingress, SYN | ACK), 0), Invalid);
    }
    pass(&table, Egress, &segment(Egress, SYN), 0);
    assert_eq!(state(&table, Ingress, &segment(Ingress, SYN | ACK), 0), Established);
    assert_eq!(tcp_state(&table, 0), Some("SYN_SENT"));
}

#[test]
fn udp_is_established_by_its_answer_and_settled_by_the_next_packet() {
    let table = table(64);
    let (there, back) = (udp((APP, 5353), (PEER, 53)), udp((PEER, 53), (APP, 5353)));
    let (first, of) = pass(&table, Egress, &there, 0);
    let of = of.unwrap();
    assert_eq!((first, table.plain(of, Egress), table.plain(of, Ingress)), (New, Some(New), None));
    assert_eq!(pass(&table, Egress, &there, 0).0, New);
    assert_eq!(pass(&table, Ingress, &back, 0).0, Established);
    assert_eq!((table.plain(of, Egress), table.plain(of, Ingress)), (None, Some(Established)));
    assert_eq!(pass(&table, Egress, &there, 0), (Established, Some(of)));
    assert!(table.is_established(of));
    // The other way round it is another connection, of another pair of ports.
    assert_eq!(state(&table, Ingress, &udp((PEER, 5353), (APP, 53)), 0), New);
}

#[test]
fn an_echo_is_begun_by_a_request_only_and_from_both_ends_apart() {
    let table = table(64);
    assert_eq!(state(&table, Ingress, &icmp(PEER, APP, 0, 7), 0), Invalid);
    assert_eq!(pass(&table, Egress, &icmp(APP, PEER, 8, 7), 0).0, New);
    assert_eq!(state(&table, Ingress, &icmp(PEER, APP, 0, 8), 0), Invalid, "another identifier");
    assert_eq!(state(&table, Egress, &icmp(APP, PEER, 0, 7), 0), Invalid, "nobody asked for this one");
    assert_eq!(pass(&table, Ingress, &icmp(PEER, APP, 8, 7), 0).0, New, "the peer asks with the same identifier");
    assert_eq!(pass(&table, Ingress, &icmp(PEER, APP, 0, 7), 0).0, Established);
    assert_eq!(pass(&table, Egress, &icmp(APP, PEER, 0, 7), 0).0, Established);
    assert_eq!(table.snapshot(0).count(), 2);
    assert_eq!(state(&table, Ingress, &icmp(PEER, APP, 42, 7), 0), Invalid, "no such message");
}

/// The ICMP error about `frame`, as the peer sends it.
fn unreachable(frame: &[u8]) -> Vec<u8> {
    let mut out = [0; reply::MAX_LEN];
    let length = reply::unreachable(frame, &parse(frame, 0).0, &mut out).unwrap();
    out[..length].to_vec()
}

#[test]
fn an_icmp_error_is_related_to_the_connection_that_it_is_about() {
    let table = table(64);
    let there = udp((APP, 5353), (PEER, 53));
    let error = unreachable(&there);
    assert_eq!(state(&table, Ingress, &error, 0), Invalid, "about nothing");
    pass(&table, Egress, &there, 0);
    assert_eq!(pass(&table, Ingress, &error, 0), (Related, None));
    assert_eq!(state(&table, Ingress, &unreachable(&udp((APP, 5353), (PEER, 54))), 0), Invalid);
    assert_eq!(state(&table, Egress, &error, 0), Invalid, "the other way");
    // To somebody else than the one who sent the packet.
    let mut stray = error;
    stray[33] = 9;
    sum_up(&mut stray);
    assert_eq!(state(&table, Ingress, &stray, 0), Invalid);
    // An error about an echo request.
    let request = icmp(APP, PEER, 8, 7);
    pass(&table, Egress, &request, 0);
    assert_eq!(state(&table, Ingress, &unreachable(&request), 0), Related);
}

#[test]
fn what_has_no_connections_is_untracked() {
    let table = table(64);
    let mut arp = vec![0; 42];
    arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    let mut solicitation = vec![0; 78];
    solicitation[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
    solicitation[22] = 0xfe;
    solicitation[38] = 0xfe;
    solicitation[54] = 135;
    let others = [udp((APP, 1), ([239, 1, 1, 1], 1)), udp((APP, 68), ([255; 4], 67)), vec![0; 10], vec![0x88; 60]];
    for frame in others.iter().chain([&arp, &solicitation]) {
        assert_eq!(pass(&table, Egress, frame, 0), (Untracked, None), "{}", parse(frame, 0).1);
    }
    let mut malformed = udp((APP, 1), (PEER, 1));
    malformed[17] = 200;
    assert_eq!(pass(&table, Egress, &malformed, 0), (Invalid, None));
    assert_eq!(table.snapshot(0).count(), 0);
}

/// As in Linux: what is sent to everybody on the link may be for one host, and a subnet's broadcast address looks like it.
#[test]
fn what_comes_by_broadcast_is_tracked_by_its_addresses() {
    let table = table(64);
    let mut to_all = udp((PEER, 68), (APP, 67));
    to_all[..6].fill(0xff);
    assert_eq!(pass(&table, Ingress, &to_all, 0).0, New);
    assert_eq!(pass(&table, Egress, &udp((APP, 67), (PEER, 68)), 0).0, Established);
}

#[test]
fn zones_and_vlans_are_apart() {
    let table = table(64);
    let syn = segment(Egress, SYN);
    let (headers, key) = parse(&syn, 1);
    let state_in = |zone| table.lookup(zone, Egress, (&syn, &headers, &key), 0);
    table.accept(&state_in(1), 0).unwrap();
    assert!(state_in(1).connection().is_some() && state_in(2).connection().is_none());
    let tagged = [&syn[..12], &[0x81, 0, 0, 5], &syn[12..]].concat();
    let (headers, key) = parse(&tagged, 1);
    assert!(table.lookup(1, Egress, (&tagged, &headers, &key), 0).connection().is_none());
    assert_eq!((table.in_zone(1), table.in_zone(2)), (1, 0));
}

/// Each state ends after its time, not before, and a packet or a touch renews it.
#[test]
fn connections_end_when_their_time_is_up() {
    let short = |t: &mut Tracking| (t.tcp_syn, t.tcp_established, t.tcp_closing) = (11, 22, 5);
    let table = Connections::new(64, seed(), &tracking(short), HZ);
    let alive = |now: u64| table.snapshot(now).count() == 1;
    pass(&table, Egress, &segment(Egress, SYN), 0);
    assert!(alive(11 * HZ) && !alive(12 * HZ));
    let of = open(&table, 12 * HZ);
    assert!(alive(34 * HZ) && !alive(35 * HZ));
    assert!(table.touch(of, Egress, None, 30 * HZ) && alive(52 * HZ) && !alive(53 * HZ));
    pass(&table, Egress, &segment(Egress, FIN | ACK), 31 * HZ);
    assert!(alive(36 * HZ) && !alive(37 * HZ));
    assert!(!table.touch(of, Egress, None, 37 * HZ), "too late");
    assert_eq!(state(&table, Ingress, &segment(Ingress, FIN | ACK), 37 * HZ), Invalid);
    // A reload with longer times counts for connections that are there.
    table.set_tracking(&tracking(|t| t.tcp_closing = 60));
    assert!(alive(37 * HZ));
    assert_eq!(table.sweep(37 * HZ, table.buckets()), 0);
    assert_eq!(table.sweep(92 * HZ, table.buckets()), 1);
    assert_eq!((table.stats().swept, table.in_zone(1)), (1, 0));
}

/// A table without connections is looked through once, and again when one has begun: it is swept then, wherever it is.
#[test]
fn an_empty_table_is_left_alone_until_a_connection_begins() {
    let table = table(64);
    let looks = |share| {
        let before = table.cursor.load(Relaxed);
        table.sweep(HZ, share);
        table.cursor.load(Relaxed) - before
    };
    let buckets = table.buckets();
    for _ in 0..3 {
        let _of = open(&table, 0);
        assert_eq!(looks(buckets - 1), buckets - 1, "it is alive");
        assert_eq!(looks(1), 1);
        table.forget_zone(1);
        assert_eq!(looks(buckets), buckets, "it is swept");
        let looked: usize = (0..2 * buckets).map(|_| looks(1)).sum();
        assert!(looked <= buckets && looks(1) == 0, "nothing is left: {looked}");
    }
    assert_eq!(table.stats().swept, 3);
}

#[test]
fn a_forgotten_zone_has_no_connections_and_its_number_can_be_used_again() {
    let table = table(64);
    let of = open(&table, 0);
    table.forget_zone(1);
    assert_eq!((table.snapshot(0).count(), table.in_zone(1)), (0, 0));
    assert_eq!(state(&table, Ingress, &segment(Ingress, SYN | ACK), 0), Invalid);
    let again = open(&table, 0);
    assert_ne!(of, again);
    assert_eq!((table.snapshot(0).count(), table.in_zone(1)), (1, 1));
    assert_eq!(table.sweep(0, table.buckets()), 1, "the forgotten one");
    assert_eq!((table.plain(of, Egress), table.plain(again, Egress)), (None, Some(Established)));
    assert_eq!(table.in_zone(1), 1);
}

#[test]
fn with_the_window_checked_a_blind_reset_is_invalid() {
    let table = Connections::new(64, seed(), &tracking(|t| t.tcp_window = true), HZ);
    let numbered = |direction, flags, seq: u32, ack: u32| {
        let mut frame = segment(direction, flags);
        frame[38..42].copy_from_slice(&seq.to_be_bytes());
        frame[42..46].copy_from_slice(&ack.to_be_bytes());
        sum_up(&mut frame);
        frame
    };
    pass(&table, Egress, &numbered(Egress, SYN, 1000, 0), 0);
    assert_eq!(state(&table, Ingress, &numbered(Ingress, SYN | ACK, 7000, 1002), 0), Invalid);
    assert_eq!(pass(&table, Ingress, &numbered(Ingress, SYN | ACK, 7000, 1001), 0).0, Established);
    let (state_of_ack, of) = pass(&table, Egress, &numbered(Egress, ACK, 1001, 7001), 0);
    assert_eq!((state_of_ack, table.is_established(of.unwrap())), (Established, false));
    assert_eq!(pass(&table, Ingress, &numbered(Ingress, RST, 900_000, 0), 0).0, Invalid);
    assert_eq!(tcp_state(&table, 0), Some("ESTABLISHED"));
    assert_eq!(pass(&table, Ingress, &numbered(Ingress, RST, 7001, 0), 0).0, Established);
    assert_eq!(tcp_state(&table, 0), Some("CLOSE"));
}

/// Only one that fits itself: a blind sender cannot turn the check off.
#[test]
fn a_fragmented_segment_ends_the_check_of_the_window() {
    let table = Connections::new(64, seed(), &tracking(|t| t.tcp_window = true), HZ);
    let of = open(&table, 0);
    let mut fragment = segment(Egress, ACK);
    fragment[20] = 0x20;
    sum_up(&mut fragment);
    assert_eq!((pass(&table, Egress, &fragment, 0).0, table.is_established(of)), (Established, false), "no data");
    fragment.extend([0; 8]);
    fragment[17] += 8;
    fragment[38] = 0x70;
    sum_up(&mut fragment);
    assert_eq!((pass(&table, Egress, &fragment, 0).0, table.is_established(of)), (Invalid, false));
    fragment[38] = 0;
    sum_up(&mut fragment);
    assert_eq!((pass(&table, Egress, &fragment, 0).0, table.is_established(of)), (Established, true));
}

#[test]
fn a_snapshot_tells_what_conntrack_would() {
    let table = table(64);
    open(&table, 0);
    let listed: Vec<Connection> = table.snapshot(10 * HZ).collect();
    let [connection] = listed[..] else { panic!("{listed:?}") };
    assert_eq!((connection.zone, connection.proto, connection.vlans), (1, 6, (0, 0)));
    assert_eq!((connection.local, connection.remote), (IpAddr::from(APP), IpAddr::from(PEER)));
    assert_eq!((connection.ports, connection.icmp), (Some((40_000, 5432)), None));
    assert_eq!((connection.begun, connection.tcp_state), (Egress, Some("ESTABLISHED")));
    assert!(connection.answered && connection.assured);
    assert_eq!((connection.age, connection.expires), (10, 431_990));
}

/// The tuple of a UDP packet from the app to a peer that `n` stands for.
fn tuple(n: u32) -> Tuple {
    let frame = udp((APP, 1), (Ipv4Addr::from_bits(0x0b00_0000 + n).octets(), 1));
    Tuple::of(1, &parse(&frame, 1).1, Egress).unwrap()
}

/// What the model knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    of: Ref,
    seen: u64,
    begun: Direction,
    answered: bool,
    assured: bool,
}

impl Known {
    /// With the default time-outs of UDP, and a second of grace for the table's coarse clock.
    fn is_gone(&self, now: u64) -> Option<bool> {
        let due = self.seen + HZ * if self.answered { 120 } else { 30 };
        if now < due {
            Some(false)
        } else if now > due + HZ {
            Some(true)
        } else {
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a map, in a table that is much too small: what is found is what the map knows, an assured connection is
    /// lost to its time-out only, and everything that was lost is counted.
    #[test]
    fn the_table_behaves_like_a_map_that_forgets_what_it_may(
        steps in prop::collection::vec((0_u32..60, any::<bool>(), 0_u64..4000), 1..600)
    ) {
        let table = table(16);
        let mut model: BTreeMap<u32, Known> = BTreeMap::new();
        let mut now = 0;
        for (n, egress, pause) in steps {
            now += pause;
            let direction = if egress { Egress } else { Ingress };
            let (tuple, found) = (tuple(n), table.find(&tuple(n), now));
            match (found, model.get(&n).copied()) {
                (Some(of), Some(known)) => {
                    prop_assert_eq!(of, known.of);
                    prop_assert_ne!(known.is_gone(now), Some(true));
                    let answered = known.answered || direction != known.begun;
                    let expected = if answered { Established } else { New };
                    prop_assert_eq!(table.state_of(of, direction, None), expected);
                    prop_assert_eq!(table.advance(of, direction, None, now), Some(of));
                    let assured = known.assured || (known.answered && direction == known.begun);
                    model.insert(n, Known { seen: now, answered, assured, ..known });
                    prop_assert_eq!(table.is_established(of), assured);
                }
                (Some(of), None) => prop_assert!(false, "{:?} of nobody", of),
                (None, known) => {
                    let may_go = known.is_none_or(|known| !known.assured || known.is_gone(now) != Some(false));
                    prop_assert!(may_go, "{:?} at {}", known, now);
                    prop_assert!(known.is_none_or(|known| table.plain(known.of, direction).is_none()
                        || known.is_gone(now) != Some(false)));
                    let before = table.stats();
                    match table.create(&tuple, direction, None, now) {
                        Some(of) => {
                            prop_assert_eq!(table.find(&tuple, now), Some(of));
                            let begun = direction;
                            model.insert(n, Known { of, seen: now, begun, answered: false, assured: false });
                        }
                        None => {
                            model.remove(&n);
                            prop_assert_eq!(table.stats().refused, before.refused + 1);
                        }
                    }
                }
            }
            prop_assert!(table.snapshot(now).count() <= 16);
            prop_assert!(usize::try_from(table.in_zone(1)).unwrap() <= 16);
        }
        for _ in 0..table.buckets() {
            table.sweep(now + 200 * HZ, 1);
        }
        prop_assert_eq!((table.in_zone(1), table.snapshot(now).count()), (0, 0));
        let stats = table.stats();
        prop_assert!(stats.begun >= stats.evicted + stats.swept);
    }

    #[test]
    fn frames_of_any_kind_cause_no_panic(frame: Vec<u8>, egress: bool) {
        let table = table(8);
        let direction = if egress { Egress } else { Ingress };
        pass(&table, direction, &frame, 0);
        let (_, key) = parse(&frame, 1);
        pass(&table, direction, &segment(Egress, SYN), 0);
        let other: (Headers, FlowKey) = (Headers::default(), key);
        let lookup = table.lookup(1, direction, (&frame, &other.0, &other.1), 0);
        table.accept(&lookup, 0);
    }
}

/// A version holds as long as nothing but time has changed, and names its connection.
#[test]
fn a_stamp_holds_until_the_connection_moves_on() {
    let table = table(64);
    let (there, back) = (udp((APP, 5), (PEER, 6)), udp((PEER, 6), (APP, 5)));
    let of = pass(&table, Egress, &there, 1).1.unwrap();
    let version = table.version(of, Egress, New).unwrap();
    assert_eq!((version.connection(), table.version(of, Egress, Established)), (Some(of), None));
    assert!(table.touch(of, Egress, None, HZ) && table.holds(version), "time alone changes nothing");
    pass(&table, Ingress, &back, HZ);
    assert!(!table.holds(version), "it was answered");
    pass(&table, Egress, &there, HZ);
    let version = table.version(of, Egress, Established).unwrap();
    assert!(table.holds(version));
    table.forget_zone(1);
    table.sweep(HZ, table.buckets());
    assert!(!table.holds(version), "it is gone");
}

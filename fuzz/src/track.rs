//! Frames from the input pass connection tracking, at the points of several apps, in both directions, under several settings.

use kopi_config::policy::{Direction, State, Tracking};
use kopi_packet::{Seed, parse};
use kopi_policy::{Connections, Limits};

use crate::input::Input;

/// Connections that there is room for.
const CAPACITY: usize = 8;
/// Apps, two of each user.
const ZONES: u16 = 4;
/// What they may have under some settings.
const LIMITS: Limits = Limits { per_app: 3, per_user: 5 };
/// Ticks of the clock in a second.
const HZ: u64 = 1000;
/// Longer than any connection lives without a frame, in ticks.
const EVER: u64 = 20 * 86_400 * HZ;

/// Looking changes nothing, what is accepted is found again, counters agree with the table, nobody has more than it may have,
/// nothing outlives its time or its app, and there is never more in it than there is room for.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let settings = input.byte();
    let mut tracking = Tracking::default();
    tracking.tcp_window = settings & 1 != 0;
    tracking.tcp_loose = settings & 2 != 0;
    let table = Connections::new(CAPACITY, Seed::from_bytes([7; 64]), &tracking, HZ);
    let limits = if settings & 4 == 0 { Limits::default() } else { LIMITS };
    table.set_limits(limits);
    (0..ZONES).for_each(|zone| table.open_zone(zone, zone / 2));
    let mut now = 0;
    while !input.is_empty() {
        let (way, step, frame) = (input.byte(), input.byte(), input.piece());
        now += u64::from(step) * u64::from(step) * 37;
        let direction = if way & 1 == 0 { Direction::Egress } else { Direction::Ingress };
        let zone = u16::from(way >> 6);
        let source = if direction == Direction::Egress { zone } else { u16::from(way >> 4 & 3) };
        pass(&table, (zone, source), direction, frame, way & 2 == 0, now);
        if way & 4 != 0 {
            table.sweep(now, 1);
        }
        if way & 8 != 0 {
            table.forget_zone(zone);
            assert_eq!(table.in_zone(zone), 0);
            assert!(table.snapshot(now).all(|connection| connection.zone != zone));
        }
        let there = table.snapshot(now).count();
        assert!(there <= table.capacity());
        counts_agree(&table, limits);
    }
    table.sweep(now + EVER, 1);
    assert_eq!(table.snapshot(now + EVER).count(), 0);
    (0..ZONES).for_each(|zone| assert_eq!(table.in_zone(zone), 0, "zone {zone}"));
}

fn counts_agree(table: &Connections, limits: Limits) {
    let of_user = |user: u16| table.in_zone(2 * user) + table.in_zone(2 * user + 1);
    for user in 0..ZONES / 2 {
        assert_eq!(table.in_account(user), of_user(user));
        assert!(of_user(user) <= limits.per_user);
    }
    assert!((0..ZONES).all(|zone| table.in_zone(zone) <= limits.per_app));
    assert_eq!(table.used(), u64::from(of_user(0) + of_user(1)));
    assert!(table.used() <= CAPACITY as u64);
}

fn pass(table: &Connections, (zone, source): (u16, u16), direction: Direction, frame: &[u8], accept: bool, now: u64) {
    let (headers, key) = parse(frame, source);
    let seen = (frame, &headers, &key);
    let lookup = table.lookup(zone, direction, seen, now);
    let again = table.lookup(zone, direction, seen, now);
    assert_eq!((again.state(), again.connection()), (lookup.state(), lookup.connection()), "{key}");
    assert!(lookup.state() != State::Related || key.icmp().is_some(), "{key}");
    let ip = key.src_addr().is_some() && !headers.shape.eq(&kopi_packet::Shape::Arp);
    assert!(
        ip || lookup.state() == State::Untracked || lookup.state() == State::Invalid,
        "{key}: {:?}",
        lookup.state()
    );
    if !accept {
        return;
    }
    let Some(of) = table.accept(&lookup, now) else { return };
    assert!(lookup.state() != State::Untracked, "{key}");
    assert!(
        lookup.state() != State::Invalid || lookup.connection() == Some(of),
        "an invalid frame began something: {key}"
    );
    // What is known may be charged to an app that has gone.
    assert!(table.in_zone(table.charged(zone, source).zone()) > 0 || lookup.connection().is_some());
    if let Some(version) = table.version(of, direction, lookup.state()) {
        assert!(table.holds(version) && version.connection() == Some(of));
    }
    let _state = table.plain(of, direction);
    let _established = table.is_established(of);
    let _there = table.touch(of, direction, None, now);
}

//! Frames from the input pass connection tracking, at the points of several apps, in both directions, under several settings.

use kopi_config::policy::{Direction, State, Tracking};
use kopi_packet::{Seed, parse};
use kopi_policy::Connections;

use crate::input::Input;

/// Connections that there is room for.
const CAPACITY: usize = 8;
/// Apps.
const ZONES: u16 = 4;
/// Ticks of the clock in a second.
const HZ: u64 = 1000;
/// Longer than any connection lives without a frame, in ticks.
const EVER: u64 = 100 * 86_400 * HZ;

/// Looking changes nothing, what is accepted is found again, counters agree with the table, nothing outlives its time or its
/// app, and there is never more in it than there is room for.
pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let settings = input.byte();
    let mut tracking = Tracking::default();
    tracking.tcp_window = settings & 1 != 0;
    tracking.tcp_loose = settings & 2 != 0;
    let table = Connections::new(CAPACITY, Seed::from_bytes([7; 64]), &tracking, HZ);
    let mut now = 0;
    while !input.is_empty() {
        let (way, step, frame) = (input.byte(), input.byte(), input.piece());
        now += u64::from(step) * u64::from(step) * 37;
        let direction = if way & 1 == 0 { Direction::Egress } else { Direction::Ingress };
        pass(&table, u16::from(way >> 6), direction, frame, way & 2 == 0, now);
        if way & 4 != 0 {
            table.sweep(now, 1);
        }
        if way & 8 != 0 {
            let zone = u16::from(way >> 6);
            table.forget_zone(zone);
            assert_eq!(table.in_zone(zone), 0);
            assert!(table.snapshot(now).all(|connection| connection.zone != zone));
        }
        let there = table.snapshot(now).count();
        assert!(there <= table.capacity());
    }
    table.sweep(now + EVER, 1);
    assert_eq!(table.snapshot(now + EVER).count(), 0);
    (0..ZONES).for_each(|zone| assert_eq!(table.in_zone(zone), 0, "zone {zone}"));
}

fn pass(table: &Connections, zone: u16, direction: Direction, frame: &[u8], accept: bool, now: u64) {
    let (headers, key) = parse(frame, zone);
    let seen = (frame, &headers, &key);
    let look = table.look(zone, direction, seen, now);
    let again = table.look(zone, direction, seen, now);
    assert_eq!((again.state(), again.connection()), (look.state(), look.connection()), "{key}");
    assert!(look.state() != State::Related || key.icmp().is_some(), "{key}");
    let ip = key.src_addr().is_some() && !headers.shape.eq(&kopi_packet::Shape::Arp);
    assert!(ip || look.state() == State::Untracked || look.state() == State::Invalid, "{key}: {:?}", look.state());
    if !accept {
        return;
    }
    let Some(of) = table.accept(&look, now) else { return };
    assert!(look.state() != State::Untracked, "{key}");
    assert!(look.state() != State::Invalid || look.connection() == Some(of), "an invalid frame began something: {key}");
    assert!(table.in_zone(zone) > 0);
    if let Some(stamp) = table.stamp(of, direction, look.state()) {
        assert!(table.holds(stamp) && stamp.connection() == Some(of));
    }
    let _state = table.plain(of, direction);
    let _settled = table.settled(of);
    let _there = table.touch(of, direction, None, now);
}

//! What one user has in the table, and what that costs others: nothing.

use super::*;

/// The tuple of a UDP packet from app `zone` to a peer that `n` stands for.
fn tuple_of(zone: u16, n: u32) -> Tuple {
    let frame = udp((APP, 1), (Ipv4Addr::from_bits(0x0b00_0000 + n).octets(), 1));
    Tuple::of(zone, &parse(&frame, zone).1, Egress).unwrap()
}

/// Begins a connection, and has it answered and assured if `assured`.
fn begin(table: &Connections, zone: u16, n: u32, assured: bool, now: u64) -> Option<Ref> {
    let of = table.create(&tuple_of(zone, n), Egress, None, now)?;
    if assured {
        table.advance(of, Ingress, None, now);
        table.advance(of, Egress, None, now);
    }
    Some(of)
}

/// As many as there is room for.
fn fill(table: &Connections, zone: u16, numbers: std::ops::Range<u32>) -> usize {
    numbers.filter(|n| begin(table, zone, *n, true, 1).is_some()).count()
}

fn shared(capacity: usize, limits: Limits, apps: &[(u16, u16)]) -> Connections {
    let table = table(capacity);
    table.set_limits(limits);
    apps.iter().for_each(|(zone, account)| table.open_zone(*zone, *account));
    table
}

const FILLER: u16 = 7;
const HONEST: u16 = 8;

/// A filler with many applications, whose connections both ends talk in, denies another user nothing, takes none of its
/// connections, with and without limits; and when it has gone, all is free at once.
#[test]
fn a_filler_costs_another_user_nothing() {
    let half = Limits { per_app: 2048, per_user: 2048 };
    for (limits, assured) in [(half, true), (half, false), (Limits::default(), true), (Limits::default(), false)] {
        let apps: Vec<_> = (1..8).map(|zone| (zone, FILLER)).chain([(9, HONEST)]).collect();
        let table = shared(4096, limits, &apps);
        let mut honest = Vec::new();
        for n in 0..20_000 {
            begin(&table, u16::try_from(1 + n % 7).unwrap(), n, assured, 1);
            if n % 100 == 0 {
                let of = begin(&table, 9, n, false, 1).expect("there is room for the other");
                begin(&table, 3, n, assured, 1);
                table.advance(of, Ingress, None, 1);
                assert_eq!(table.advance(of, Egress, None, 1), Some(of), "it was not taken between its packets");
                honest.push(of);
            }
        }
        assert!(honest.iter().all(|of| table.is_established(*of)), "{limits:?} {assured}");
        assert!(table.in_account(FILLER) <= limits.per_user);
        assert_eq!((table.in_account(HONEST), table.in_zone(9)), (200, 200));
        (1..8).for_each(|zone| table.forget_zone(zone));
        assert_eq!((table.in_account(FILLER), table.used()), (0, 200));
        let before = table.stats().evicted;
        table.open_zone(1, 4);
        assert_eq!(
            (fill(&table, 1, 50_000..51_000), table.stats().evicted - before),
            (1000, 0),
            "{limits:?} {assured}"
        );
        assert!(honest.iter().all(|of| table.is_established(*of)));
    }
}

/// Somebody who crowds one bucket, as if it knew the seed, keeps nobody out: the whole table is one bucket here.
#[test]
fn a_crowded_bucket_gives_way_to_who_has_less() {
    let table = shared(8, Limits::default(), &[(1, FILLER), (2, HONEST), (3, FILLER)]);
    assert!((0..8).all(|n| begin(&table, 1, n, true, 1).is_some()));
    assert_eq!(begin(&table, 1, 99, true, 2), None, "not for itself");
    let own = begin(&table, 2, 1, true, 2).unwrap();
    assert_eq!((table.in_zone(1), table.in_zone(2)), (7, 1));
    assert!(begin(&table, 3, 1, true, 2).is_some(), "of one user, the app that has most gives");
    assert_eq!((table.in_zone(1), table.in_zone(3)), (6, 1));
    for n in 10..20 {
        begin(&table, 1, n, false, 3);
        begin(&table, 3, n, false, 3);
    }
    assert!(table.is_established(own), "who has more takes nothing");
    for n in 2..9 {
        begin(&table, 2, n, true, 4);
    }
    assert_eq!((table.in_account(FILLER), table.in_account(HONEST)), (4, 4), "it ends with the same for each");
}

/// Who is at its limit gives up its own for each new one, the least worth first, and is refused if there is nothing to give.
#[test]
fn a_limit_is_kept_by_giving_up_ones_own() {
    for (limits, zones) in [
        (Limits { per_app: 16, per_user: u32::MAX }, [1, 1]),
        (Limits { per_app: u32::MAX, per_user: 16 }, [1, 2]),
        (Limits { per_app: 8, per_user: 16 }, [1, 2]),
    ] {
        let table = shared(64, limits, &[(1, FILLER), (2, FILLER), (3, HONEST)]);
        let others: Vec<_> = (0..8).filter_map(|n| begin(&table, 3, n, false, 0)).collect();
        let begin_each = |numbers: std::ops::Range<u32>, assured: u32, now: u64| {
            numbers.filter(|n| begin(&table, zones[*n as usize % 2], *n, *n < assured, now).is_some()).count()
        };
        assert_eq!(begin_each(0..16, 8, 0), 16);
        assert_eq!(table.in_account(FILLER), 16);
        assert_eq!(begin_each(16..500, 0, 100), 484);
        assert_eq!(table.in_account(FILLER), 16, "{limits:?}");
        let settled = table.snapshot(100).filter(|connection| connection.zone != 3 && connection.assured).count();
        assert_eq!(settled, 8, "{limits:?}: the established ones stay");
        assert!(others.iter().all(|of| table.touch(*of, Egress, None, 100)), "{limits:?}: and those of others");
        // With nothing but such left, there is no more.
        begin_each(500..600, 600, 100);
        assert_eq!(begin(&table, 1, 700, false, 100), None);
        assert_eq!(table.in_account(FILLER), 16, "{limits:?}");
        let (refused, limited) = table.noted(1);
        assert!(refused > 0 && limited >= refused && table.noted(3) == (0, 0));
    }
}

/// An app whose user has all that it may have still gets its share of that.
#[test]
fn apps_of_one_user_share_its_limit() {
    let table = shared(1024, Limits { per_app: 128, per_user: 128 }, &[(1, FILLER), (2, FILLER)]);
    assert_eq!((fill(&table, 1, 0..300), table.in_zone(1)), (128, 128));
    fill(&table, 2, 0..300);
    assert_eq!((table.in_zone(1), table.in_zone(2)), (64, 64));
}

/// What an app sends to another is charged to it at the other's hook, too: it cannot use up the other's.
#[test]
fn a_sender_pays_at_its_receivers_point() {
    let table = shared(1024, Limits { per_app: 64, per_user: 64 }, &[(1, FILLER), (2, HONEST)]);
    let arrives = |source: u16, n: u32| {
        let frame = udp((Ipv4Addr::from_bits(0x0b00_0000 + n).octets(), 1), (APP, 1));
        let (headers, key) = parse(&frame, source);
        table.accept(&table.lookup(2, Ingress, (&frame, &headers, &key), 1), 1)
    };
    assert_eq!((0..500).filter(|n| arrives(1, *n).is_some()).count(), 500, "in each other's places");
    assert_eq!((table.in_zone(1), table.in_zone(2), table.noted(2)), (64, 0, (0, 0)));
    assert!((0..64).all(|n| arrives(0, 1000 + n).is_some()), "what the wire brings is its receiver's");
    assert_eq!((table.in_zone(1), table.in_zone(2)), (64, 64));
    table.forget_zone(1);
    assert_eq!(table.sweep(1, table.buckets()), 64, "and goes with who has sent it");
}

/// What takes the place of somebody else's expired connection with the same key counts like any other.
#[test]
fn an_expired_one_of_anothers_is_no_place_beyond_the_limit() {
    let limits = Limits { per_app: 3, per_user: 3 };
    let table = shared(64, limits, &[(1, FILLER), (2, HONEST)]);
    let frame = udp((Ipv4Addr::from_bits(0x0b00_0001).octets(), 1), (APP, 1));
    let (headers, key) = parse(&frame, 1);
    assert!(table.accept(&table.lookup(2, Ingress, (&frame, &headers, &key), 1), 1).is_some());
    assert_eq!((table.in_zone(1), table.in_zone(2)), (1, 0));
    let late = 10_000 * HZ;
    assert!((2..5).all(|n| begin(&table, 2, n, true, late).is_some()));
    assert_eq!(begin(&table, 2, 1, false, late), None, "it has all that it may have, and gives up nothing established");
    assert_eq!((table.in_zone(2), table.in_account(HONEST)), (3, 3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever several apps of several users do, the counts are those of what is in the table, nobody exceeds its limit, and
    /// nobody who has less than others is refused.
    #[test]
    fn counts_agree_with_the_table(
        steps in prop::collection::vec((0_u16..6, 0_u32..80, 0_u8..24, 0_u64..2000), 1..500)
    ) {
        let limits = Limits { per_app: 12, per_user: 20 };
        let apps: Vec<_> = (0..6).map(|zone| (zone, zone / 2)).collect();
        let table = shared(32, limits, &apps);
        let mut now = 0;
        for (zone, n, what, pause) in steps {
            now += pause;
            match what {
                0 => table.forget_zone(zone),
                1 => table.open_zone(zone, zone / 2),
                2 => drop(table.sweep(now, 1)),
                _ => {
                    let user = table.in_account(zone / 2);
                    let least = (0..3).all(|other| other == zone / 2 || table.in_account(other) > user + 1);
                    let begun = begin(&table, zone, n, what > 12, now);
                    prop_assert!(begun.is_some() || !least, "who has least is refused");
                }
            }
            // What has run out is there until it is swept.
            let mut counts = [0_u32; 6];
            table.snapshot(0).for_each(|connection| counts[usize::from(connection.zone)] += 1);
            for zone in 0..6 {
                prop_assert_eq!(table.in_zone(zone), counts[usize::from(zone)]);
                prop_assert!(table.in_zone(zone) <= limits.per_app);
            }
            for user in 0..3_u16 {
                let of_apps = table.in_zone(2 * user) + table.in_zone(2 * user + 1);
                prop_assert_eq!(table.in_account(user), of_apps);
                prop_assert!(of_apps <= limits.per_user);
            }
            prop_assert_eq!(table.used(), u64::from(counts.iter().sum::<u32>()));
        }
    }
}

/// Two workers fill what two users may have, while a third thread has their apps come and go: the counts agree in the end.
#[test]
fn counts_agree_after_threads() {
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 100_000 };
    let table = shared(256, Limits { per_app: 60, per_user: 100 }, &[(1, FILLER), (2, FILLER), (3, HONEST)]);
    std::thread::scope(|scope| {
        for start in [1_u32, 77] {
            let table = &table;
            scope.spawn(move || {
                for i in 0..ROUNDS {
                    let n = i.wrapping_mul(2_654_435_761).wrapping_add(start) >> 22;
                    begin(table, u16::try_from(1 + n % 3).unwrap(), n, i % 5 == 0, 0);
                }
            });
        }
        for _ in 0..200 {
            table.open_zone(2, HONEST);
            table.sweep(0, 4);
            table.open_zone(2, FILLER);
        }
    });
    table.sweep(0, table.buckets());
    let there = |zone| u32::try_from(table.snapshot(0).filter(|connection| connection.zone == zone).count()).unwrap();
    assert_eq!([1, 2, 3].map(|zone| table.in_zone(zone)), [1, 2, 3].map(there));
    assert_eq!(table.in_account(FILLER), there(1) + there(2));
    assert_eq!(table.in_account(HONEST), there(3));
}

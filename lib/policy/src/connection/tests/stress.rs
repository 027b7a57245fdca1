//! The table under a flood, and from several threads.

use std::collections::BTreeSet;

use super::*;

/// Floods of SYNs from addresses that do not exist, unanswered or answered by the app, lose no established
/// connection.
#[test]
fn a_syn_flood_loses_no_established_connection() {
    for answers in [false, true] {
        let table = table(8192);
        let connect = |n: u16, flags, direction| {
            let (app, peer) = ((APP, 80), ([10, 1, 0, 1], 1024 + n));
            let frame = if direction == Egress { tcp(app, peer, flags) } else { tcp(peer, app, flags) };
            pass(&table, direction, &frame, 0)
        };
        let established: Vec<Ref> = (0..1000)
            .map(|n| {
                connect(n, SYN, Ingress);
                connect(n, SYN | ACK, Egress);
                connect(n, ACK, Ingress).1.unwrap()
            })
            .collect();
        assert_eq!(table.stats().evicted, 0);
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [_, port, _, _, a, b, c, _] = random.to_be_bytes();
            let (from, to) = (([11, a, b, c], 1024 + u16::from(port)), (APP, 80));
            assert_eq!(pass(&table, Ingress, &tcp(from, to, SYN), 1).0, New);
            if answers {
                pass(&table, Egress, &tcp(to, from, SYN | ACK), 1);
            }
        }
        assert!(established.iter().all(|&of| table.is_established(of)), "answers: {answers}");
        assert!(table.stats().evicted > 100_000);
        assert_eq!(table.stats().refused, 0);
    }
}

/// When all places of a bucket belong to assured connections, a new one is refused and counted.
#[test]
fn a_full_bucket_of_established_connections_refuses_new_ones() {
    let table = table(8);
    for n in 0..8 {
        let of = table.create(&tuple(n), Egress, None, 0).unwrap();
        table.advance(of, Ingress, None, 0);
        table.advance(of, Egress, None, 0);
    }
    assert_eq!(table.create(&tuple(9), Egress, None, 0), None);
    assert_eq!((table.stats().refused, table.stats().evicted, table.in_zone(1)), (1, 0, 8));
    assert!(table.create(&tuple(9), Egress, None, 200 * HZ).is_some(), "when their time is up");
}

/// Two workers, one for each direction of the same connections, begin, answer and move on whatever comes; a control
/// thread sweeps and lists. In the end each connection is there once, and answered.
#[test]
fn two_directions_on_two_threads_agree() {
    const COUNT: u32 = if cfg!(miri) { 20 } else { 2000 };
    let table = table(8192);
    std::thread::scope(|scope| {
        for direction in [Egress, Ingress] {
            let table = &table;
            scope.spawn(move || {
                for round in 0..5 {
                    for n in 0..COUNT {
                        let tuple = tuple(n);
                        let of = table.find(&tuple, round).map_or_else(
                            || table.create(&tuple, direction, None, round),
                            |of| table.advance(of, direction, None, round),
                        );
                        assert!(of.is_some_and(|of| table.touch(of, direction, None, round)));
                    }
                }
            });
        }
        for _ in 0..20 {
            table.sweep(0, table.buckets());
            let listed: Vec<_> = table.snapshot(0).map(|connection| connection.remote).collect();
            let distinct: BTreeSet<_> = listed.iter().collect();
            assert_eq!(distinct.len(), listed.len());
        }
    });
    assert_eq!((table.snapshot(0).count(), table.in_zone(1)), (usize::try_from(COUNT).unwrap(), COUNT));
    assert!(table.snapshot(0).all(|connection| connection.answered));
    assert_eq!(table.stats().begun, u64::from(COUNT));
}

/// Two workers fight for a table that is much too small. Nobody finds a connection that is not his, none is there twice,
/// and the counts agree in the end.
#[test]
fn eviction_from_two_threads_keeps_the_counts() {
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 200_000 };
    let table = table(32);
    std::thread::scope(|scope| {
        for start in [1_u32, 77] {
            let table = &table;
            scope.spawn(move || {
                for i in 0..ROUNDS {
                    let n = i.wrapping_mul(2_654_435_761).wrapping_add(start) >> 24;
                    let tuple = tuple(n);
                    if let Some(of) = table.find(&tuple, 0).or_else(|| table.create(&tuple, Egress, None, 0))
                        && i % 5 == 0
                    {
                        table.advance(of, Ingress, None, 0);
                    }
                }
            });
        }
        for _ in 0..50 {
            for connection in table.snapshot(0) {
                let IpAddr::V4(remote) = connection.remote else { panic!("{connection:?}") };
                assert!(remote.octets()[..3] == [11, 0, 0] && connection.local == IpAddr::from(APP));
            }
        }
    });
    let mut left: Vec<_> = table.snapshot(0).map(|connection| connection.remote).collect();
    let count = left.len();
    left.sort_unstable();
    left.dedup();
    assert_eq!((left.len(), usize::try_from(table.in_zone(1)).unwrap()), (count, count));
    let stats = table.stats();
    assert_eq!(stats.begun - stats.evicted, u64::try_from(count).unwrap());
}

//! What connection tracking costs, and what a flood of SYNs does to it: `cargo bench -p kopi-policy --bench connections`.
//!
//! Nanoseconds per packet on one core, the hash of the tuple and the walk through the table counted; parsing only where
//! it is said. The median of many rounds is printed, and the best one beside it.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::time::Instant;

use kopi_config::policy::{Direction, Tracking};
use kopi_packet::{FlowKey, Headers, Seed, checksum, parse};
use kopi_policy::{Connections, Ref};

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Ticks in a second of the clock that the benchmark makes up.
const HZ: u64 = 1_000_000_000;

fn main() {
    println!("ns per packet                                     median     best");
    for count in [1_000, 100_000] {
        known(count);
    }
    for capacity in [65_536, 262_144] {
        for answered in [false, true] {
            flood(capacity, answered);
        }
    }
    println!();
    println!("handshakes of others that end within this many packets of a flood of unanswered SYNs, per cent");
    println!("capacity           100     1,000    10,000   100,000 packets");
    for capacity in [65_536, 262_144] {
        let shares = [100, 1_000, 10_000, 100_000].map(|packets| handshakes(capacity, packets));
        println!("{capacity:10}  {:9.1} {:9.1} {:9.1} {:9.1}", shares[0], shares[1], shares[2], shares[3]);
    }
}

fn table(capacity: usize) -> Connections {
    let seed = Seed::from_bytes(std::array::from_fn(|i| u8::try_from(i * 37 % 251).unwrap_or(0)));
    Connections::new(capacity, seed, &Tracking::default(), HZ)
}

/// An IPv4 segment from 10.1.0.0 + `host` to 10.0.0.1, or back, between port 1024 and port 80.
fn segment(host: u32, direction: Direction, flags: u8) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
    let (app, peer) = ([10, 0, 0, 1], (0x0a01_0000 + host).to_be_bytes());
    let ingress = direction == Direction::Ingress;
    let (src, dst) = if ingress { (peer, app) } else { (app, peer) };
    frame[26..30].copy_from_slice(&src);
    frame[30..34].copy_from_slice(&dst);
    frame[34..38].copy_from_slice(if ingress { &[4, 0, 0, 80] } else { &[0, 80, 4, 0] });
    // Both begin with zero.
    frame[41] = u8::from(flags & SYN == 0);
    frame[45] = u8::from(flags & ACK != 0);
    frame[46] = 5 << 4;
    frame[47] = flags;
    let (headers, _) = parse(&frame, 1);
    checksum::complete(&mut frame, &headers);
    frame
}

/// Parses, looks up, accepts, as a worker does for a frame that its flow table does not answer for.
fn pass(table: &Connections, direction: Direction, frame: &[u8], now: u64) -> Option<Ref> {
    let (headers, key) = parse(frame, 1);
    let lookup = table.lookup(1, direction, (frame, &headers, &key), now);
    table.accept(&lookup, now)
}

fn establish(table: &Connections, host: u32, now: u64) -> Option<Ref> {
    pass(table, Direction::Ingress, &segment(host, Direction::Ingress, SYN), now)?;
    pass(table, Direction::Egress, &segment(host, Direction::Egress, SYN | ACK), now)?;
    pass(table, Direction::Ingress, &segment(host, Direction::Ingress, ACK), now)
}

/// A host number for each number, in no order: xorshift's multiplier spreads them.
fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let [_, _, _, _, a, b, c, d] = state.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Packets of connections that are known.
fn known(count: u32) {
    let table = table(262_144);
    let refs: Vec<Ref> = (0..count).filter_map(|host| establish(&table, host, 0)).collect();
    let frames: Vec<([u8; 64], Headers, FlowKey)> = (0..count)
        .map(|host| {
            let frame = segment(host, Direction::Ingress, ACK);
            let (headers, key) = parse(&frame, 1);
            (frame, headers, key)
        })
        .collect();
    let per_round = u32::try_from(refs.len()).unwrap_or(1);
    report(&format!("{count} connections, plain"), per_round, || {
        refs.iter().filter(|&&of| table.plain(of, Direction::Ingress).is_some()).count()
    });
    let mut now = 0;
    report(&format!("{count} connections, touch"), per_round, || {
        now += HZ;
        refs.iter().filter(|&&of| table.touch(of, Direction::Ingress, None, now)).count()
    });
    report(&format!("{count} connections, lookup and accept"), per_round, || {
        let one = |(frame, headers, key): &([u8; 64], Headers, FlowKey)| {
            let lookup = table.lookup(1, Direction::Ingress, (frame, headers, key), now);
            table.accept(&lookup, now)
        };
        frames.iter().filter(|frame| one(frame).is_some()).count()
    });
    assert_eq!(refs.iter().filter(|&&of| table.is_established(of)).count(), refs.len(), "some were lost");
}

/// A flood of SYNs from random hosts, answered by the app or not, against a table with 1,000 established connections.
fn flood(capacity: usize, answered: bool) {
    let table = table(capacity);
    let established: Vec<Ref> = (0..1000).filter_map(|host| establish(&table, host, 0)).collect();
    let (mut state, mut now) = (1, 0);
    let name = format!("flood, parsed too, {}answered, of {capacity}", if answered { "" } else { "not " });
    let per_round = if answered { 2_000 } else { 1_000 };
    report(&name, per_round, || {
        for _ in 0..1000 {
            let host = 0x10_0000 | random(&mut state) >> 4;
            now += 1000;
            black_box(pass(&table, Direction::Ingress, &segment(host, Direction::Ingress, SYN), now));
            if answered {
                black_box(pass(&table, Direction::Egress, &segment(host, Direction::Egress, SYN | ACK), now));
            }
        }
        0
    });
    let left = established.iter().filter(|&&of| table.is_established(of)).count();
    let stats = table.stats();
    println!("    established before {}, after {left}; {stats:?}", established.len());
}

/// The share of handshakes, in per cent, that are not evicted though `packets` SYNs of a flood come between SYN and the
/// answer to it, in a table that the flood has filled.
fn handshakes(capacity: usize, packets: u32) -> f64 {
    let table = table(capacity);
    let mut state = 1;
    let mut now = 0;
    let mut flood = |count: usize| {
        for _ in 0..count {
            let host = 0x10_0000 | random(&mut state) >> 4;
            // A million a second.
            now += 1000;
            black_box(pass(&table, Direction::Ingress, &segment(host, Direction::Ingress, SYN), now));
        }
        now
    };
    let mut now = flood(2 * capacity);
    let mut done = 0;
    let waiting = 1000;
    for host in 0..waiting {
        pass(&table, Direction::Ingress, &segment(host, Direction::Ingress, SYN), now);
    }
    now = flood(usize::try_from(packets).unwrap_or(0)).max(now);
    for host in 0..waiting {
        done += u32::from(pass(&table, Direction::Egress, &segment(host, Direction::Egress, SYN | ACK), now).is_some());
    }
    100.0 * f64::from(done) / f64::from(waiting)
}

/// Runs `round`, which handles `packets`, for a while, and prints median and best time per packet, in nanoseconds.
fn report(name: &str, packets: u32, mut round: impl FnMut() -> usize) {
    let rounds = (4_000_000 / packets).max(20);
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            black_box(round());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(packets)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:48} {:7.1}  {:7.1}", times[times.len() / 2], times[0]);
}

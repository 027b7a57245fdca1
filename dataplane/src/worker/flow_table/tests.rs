//! The table against models.

use super::*;
use crate::ids::WIRE;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A distinct key for every number: a UDP packet with the number in its source address.
fn key(n: u32) -> FlowKey {
    key_from(n, 1)
}

/// The same from another port.
fn key_from(n: u32, source: PortId) -> FlowKey {
    let mut frame = [0_u8; 64];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
    frame[26..30].copy_from_slice(&n.to_be_bytes());
    frame[38..40].copy_from_slice(&[0, 30]);
    kopi_packet::parse(&frame, source).1
}

fn table(capacity: usize) -> FlowTable {
    let seed = Seed::from_bytes(std::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap()));
    FlowTable::new(capacity, 2, seed)
}

/// Time, in the smallest steps that the table tells apart, begins where its clock is about to wrap.
const fn at(steps: u64) -> u64 {
    (u32::MAX as u64 - 20 + steps) * SEEN_UNIT
}

fn touch(table: &mut FlowTable, n: u32, steps: u64) -> u64 {
    let (key, now) = (key(n), at(steps));
    let hash = table.hash(&key);
    let flow = table.flow(&key, hash, u32::MAX, now).unwrap();
    flow.count(1, 64, now);
    flow.packets()
}

proptest! {
    /// Packets and bytes add up, however often their lower parts overflow.
    #[test]
    fn counts_add_up(
        bursts in prop::collection::vec((any::<u16>(), prop_oneof![0_u32..1 << 21, any::<u32>()]), 0..100)
    ) {
        let mut flow = Flow::EMPTY;
        for (packets, bytes) in &bursts {
            flow.count(*packets, *bytes, 0);
        }
        let sum = bursts.iter().fold((0, 0), |(packets, bytes), (p, b)| (packets + u64::from(*p), bytes + u64::from(*b)));
        prop_assert_eq!((flow.packets(), flow.bytes()), sum);
    }

    /// Of eight tags the first is found that is equal, and none if there is none.
    #[test]
    fn first_equal_tag_is_found(places in prop::array::uniform8(0_usize..3), others: [u16; 2]) {
        let [wanted, other] = others.map(|other| other | 1);
        let tags = Tags(places.map(|place| [0, wanted, other][place]));
        prop_assert_eq!(tags.find(wanted), tags.0.iter().position(|tag| *tag == wanted));
    }

    /// A flow is that of its key and of no other, of IPv4, IPv6, ARP and anything else, and gives its key back.
    #[test]
    fn flow_is_of_its_key_alone(
        mut frames: [[u8; 64]; 2],
        kind in prop::sample::select(vec![[8, 0, 0x45], [0x86, 0xdd, 0x60], [8, 6, 0], [9, 9, 9]]),
        differ in 0_usize..64,
        mask: u8,
        same: bool
    ) {
        if same {
            frames[1] = frames[0];
            frames[1][differ] ^= mask;
        }
        let [one, other] = frames.map(|mut frame| {
            frame[12..15].copy_from_slice(&kind);
            kopi_packet::parse(&frame, 1).1
        });
        let flow = Flow::new(&one, 0);
        prop_assert!(flow.is_of(&one));
        prop_assert_eq!(flow.is_of(&other), one == other);
        prop_assert_eq!(flow.key(), one);
    }
}

/// What was located for one flow and has become another's place meanwhile, or was swept, is not taken for the flow.
#[test]
fn stale_place_is_searched_anew() {
    let mut table = table(8);
    let keys: Vec<_> = (0..9).map(key).collect();
    touch(&mut table, 0, 1);
    let (hash, place) = (table.hash(&keys[0]), table.locate(table.hash(&keys[0]), true));
    for n in 1..9 {
        touch(&mut table, n, 2);
    }
    let flow = table.flow_at(place, &keys[0], hash, u32::MAX, at(3)).unwrap();
    assert_eq!((flow.packets(), flow.key()), (0, keys[0]), "evicted, and begun anew");
    for _ in 0..table.buckets() {
        table.sweep(at(1000), SEEN_UNIT, |_| false);
    }
    assert_eq!(table.locate(hash, true), NOWHERE);
    assert_eq!(table.flow(&keys[0], hash, u32::MAX, at(1000)).unwrap().packets(), 0);
    assert_eq!(table.misses(), 11);
}

proptest! {
    /// Against a map: a flow that still has its place counts on, one that lost it starts anew; the number of
    /// places in use never exceeds the capacity, and misses minus evictions minus removals are what is left.
    #[test]
    fn table_behaves_like_a_map_that_forgets(
        steps in prop::collection::vec((0_u32..200, 0_u8..10), 1..400)
    ) {
        let mut table = table(64);
        let mut model = BTreeMap::new();
        for (now, (n, kind)) in (1_u64..).zip(steps) {
            if kind == 0 {
                let before = table.used();
                table.sweep(at(now), 50 * SEEN_UNIT, |_| false);
                prop_assert!(table.used() <= before);
                continue;
            }
            let misses = table.misses();
            let packets = touch(&mut table, n, now);
            let counted = model.entry(n).and_modify(|p| *p += 1).or_insert(1);
            if table.misses() > misses {
                prop_assert_eq!(packets, 1);
                *counted = 1;
            } else {
                prop_assert_eq!(packets, *counted);
            }
            prop_assert!(table.used() <= 64);
        }
    }
}

/// A flow of the model: whose it is, and when it was used last.
type Model = BTreeMap<(PortId, u32), (PortId, u64)>;

/// Uses flow `n` from port `source`, which goes to app `to`. Returns whether it was there.
fn send(table: &mut FlowTable, n: u32, source: PortId, to: PortId, steps: u64) -> bool {
    let key = key_from(n, source);
    let (hash, misses) = (table.hash(&key), table.misses());
    let flow = table.flow(&key, hash, u32::MAX, at(steps)).unwrap();
    flow.count(1, 64, at(steps));
    flow.verdict = Verdict::App(to);
    table.misses() == misses
}

proptest! {
    /// Against a list of what one bucket has: when it is full, the flow goes that was unused for longest, of those whose
    /// holder would have most. Flows from the wire are their receiver's.
    #[test]
    fn full_bucket_takes_from_whoever_has_most(
        steps in prop::collection::vec((0_u32..12, 0_u16..3, 1_u16..4), 1..200)
    ) {
        let mut table = table(8);
        let mut model = Model::new();
        for (now, (n, source, to)) in (1_u64..).zip(steps) {
            let holder = if source == WIRE { to } else { source };
            prop_assert_eq!(send(&mut table, n, source, to, now), model.contains_key(&(source, n)));
            if model.len() == 8 && !model.contains_key(&(source, n)) {
                let has = |of: PortId| {
                    model.values().filter(|(holder, _)| *holder == of).count() + usize::from(of == source)
                };
                let most = model.values().map(|(of, _)| has(*of)).max().unwrap();
                let oldest = model.iter().filter(|(_, (of, _))| has(*of) == most).min_by_key(|(_, (_, seen))| *seen);
                let gone = *oldest.unwrap().0;
                model.remove(&gone);
            }
            model.insert((source, n), (holder, now));
            prop_assert_eq!(table.used(), model.len());
        }
        for ((source, n), (holder, _)) in &model {
            prop_assert!(send(&mut table, *n, *source, *holder, 1000), "flow {} from port {} has gone", n, source);
        }
    }
}

/// An app that makes up flows, or somebody who sends it such, evicts no other app's: those stay though the table is filled
/// ten times over between any two of their packets.
#[test]
fn scan_evicts_nobody_elses_flows() {
    for (source, to) in [(1, 3), (WIRE, 1)] {
        let mut table = table(4096);
        let (mut now, mut made_up) = (1, 1 << 24);
        // Of the other's flows, some of them sent and some received, no bucket has half of its places.
        let from = |n: u32| if n.is_multiple_of(2) { WIRE } else { 2 };
        let new = |table: &mut FlowTable, now| (0..100).filter(|n| !send(table, *n, from(*n), 2, now)).count();
        assert_eq!(new(&mut table, now), 100);
        for _ in 0..3 {
            for _ in 0..10 * 4096 {
                now += 1;
                made_up += 1;
                assert!(!send(&mut table, made_up, source, to, now));
            }
            assert_eq!(new(&mut table, now), 0, "flows of another were evicted");
        }
        assert_eq!(table.used(), 4096);
    }
}

/// Flows that fit are all kept, whatever their addresses, up to a load that a set-associative table can bear.
#[test]
fn half_full_table_keeps_nearly_everything() {
    let mut table = table(65536);
    for n in 0..20_000 {
        touch(&mut table, n, 1);
    }
    assert!(table.evictions() < 20, "{} evictions", table.evictions());
    let misses = table.misses();
    for n in 0..20_000 {
        touch(&mut table, n, 2);
    }
    assert!(table.misses() - misses <= 40, "{} misses", table.misses() - misses);
}

/// In the queue of a class, nobody stands in another's place: what two ports send are two flows, also if the frames are the
/// same, or are none of IP.
#[test]
fn senders_are_told_apart_in_the_queue_of_a_class() {
    let table = table(8);
    let mut arp = [0_u8; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut udp = [0_u8; 60];
    udp[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    for frame in [&arp, &udp] {
        let flow = |port| table.hash(&kopi_packet::parse(frame, port).1).flow();
        assert_ne!(flow(1), flow(2));
    }
    assert_ne!(table.hash(&kopi_packet::parse(&arp, 1).1).flow(), table.hash(&kopi_packet::parse(&udp, 1).1).flow());
}

/// A flow that goes on while it is asked about is neither weeks idle nor years old.
#[test]
fn what_came_later_is_no_time_ago() {
    let mut table = table(8);
    let (key, now) = (key(1), 3 << 28);
    let hash = table.hash(&key);
    let flow = table.flow(&key, hash, u32::MAX, now).unwrap();
    flow.count(1, 64, now + 5 * SEEN_UNIT);
    assert_eq!((flow.age(now), flow.age(now - 1), flow.age(now + AGE_UNIT)), (0, 0, AGE_UNIT));
    assert_eq!((flow.idle(now), flow.idle(now + 7 * SEEN_UNIT)), (0, 2 * SEEN_UNIT));
}

/// A full bucket gives up the entry that was unused for longest.
#[test]
fn oldest_of_a_full_bucket_makes_room() {
    let mut table = table(8);
    for n in 0..8 {
        touch(&mut table, n, u64::from(n) + 1);
    }
    touch(&mut table, 0, 100);
    touch(&mut table, 50, 101);
    assert_eq!((table.used(), table.evictions()), (8, 1));
    assert_eq!(touch(&mut table, 0, 102), 3, "recently used, so it stayed");
    assert_eq!(touch(&mut table, 1, 103), 1, "the oldest, so it went");
}

/// Once round the table, sweeping frees what is idle and what belongs to a port that is gone, and nothing else.
#[test]
fn sweep_frees_idle_and_orphaned_flows() {
    let mut table = table(64);
    for n in 0..10 {
        touch(&mut table, n, if n < 4 { 10 } else { 1000 });
    }
    let kept = table.used();
    for _ in 0..table.buckets() {
        table.sweep(at(1000), 500 * SEEN_UNIT, |_| false);
    }
    assert_eq!(table.used(), kept - 4);
    for _ in 0..table.buckets() {
        table.sweep(at(1000), u64::MAX, |port| port == 1);
    }
    assert_eq!(table.used(), 0);
}

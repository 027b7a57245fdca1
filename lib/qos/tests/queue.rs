//! Queues that share a store, against what a queue must never do, and against a list of packets for each flow.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kopi_qos::{Cause, CodelConfig, PacketStore, Pushed, Queue, QueueConfig};
use proptest::prelude::*;

const HZ: u64 = 1_000_000_000;
const MS: u64 = HZ / 1000;

fn config(packets: u32, bytes: u64) -> QueueConfig {
    QueueConfig { packets, bytes, quantum: 1514, codel: Some(CodelConfig::new(HZ, 1514)) }
}

fn packet<T>(item: T, length: u32, hash: u32) -> Pushed<T> {
    Pushed { item, length, hash }
}

/// A packet of the model: its number, its length, its flow.
type Item = (u32, u32, u32);

/// What is in one queue, by flow.
#[derive(Default)]
struct Model(BTreeMap<u32, VecDeque<Item>>);

impl Model {
    fn flow_bytes(&self, flow: u32) -> u64 {
        self.0.get(&flow).map_or(0, |items| items.iter().map(|item| u64::from(item.1)).sum())
    }

    fn packets(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }

    fn bytes(&self) -> u64 {
        self.0.keys().map(|flow| self.flow_bytes(*flow)).sum()
    }

    /// Takes `item` out, which has to be the oldest of its flow.
    fn remove(&mut self, item: Item) {
        assert_eq!(self.0.get_mut(&item.2).and_then(VecDeque::pop_front), Some(item), "not the oldest of its flow");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push { queue: usize, length: u32, flow: u32 },
    Pop { queue: usize },
    Wait(u64),
    Drain { queue: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let push = (0..3_usize, prop_oneof![60..100_u32, 60..9018_u32], prop_oneof![0..3_u32, 0..12_u32]);
    let op = prop_oneof![
        12 => push.prop_map(|(queue, length, flow)| Op::Push { queue, length, flow }),
        7 => (0..3_usize).prop_map(|queue| Op::Pop { queue }),
        1 => (0..200 * MS).prop_map(Op::Wait),
        1 => (0..60_usize).prop_filter_map("seldom", |queue| (queue < 3).then_some(Op::Drain { queue })),
    ];
    prop::collection::vec(op, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every packet comes out once: popped, dropped or refused, and in the order of its flow. Limits hold, a full queue drops from
    /// a flow that holds about the most, and only a store without room refuses.
    #[test]
    fn every_packet_is_accounted_for(ops in ops(), room in 1..60_usize) {
        let mut store = PacketStore::new(room, 40);
        let limits = [(20, 1 << 40), (1000, 20_000), (30, 100_000)];
        let mut queues = limits.map(|(packets, bytes)| Queue::new(config(packets, bytes)));
        let mut models = [Model::default(), Model::default(), Model::default()];
        let (mut now, mut number) = (1, 0);
        for op in ops {
            match op {
                Op::Wait(ticks) => now += ticks,
                Op::Push { queue, length, flow } => {
                    number += 1;
                    let item = (number, length, flow);
                    let model = RefCell::new(&mut models[queue]);
                    let refused = queues[queue].push(&mut store, packet(item, length, flow + 1024), now, |dropped: Item, cause| {
                        let mut model = model.borrow_mut();
                        assert_eq!(cause, Cause::Full);
                        let most = model.0.keys().map(|flow| model.flow_bytes(*flow)).max().unwrap();
                        assert!(model.flow_bytes(dropped.2) + 256 >= most / 2, "{dropped:?} and {most}");
                        model.remove(dropped);
                    });
                    match refused {
                        Ok(()) => models[queue].0.entry(flow).or_default().push_back(item),
                        Err(refused) => {
                            prop_assert_eq!(refused, item);
                            prop_assert_eq!(models.iter().map(Model::packets).sum::<usize>(), room);
                            prop_assert!(queues[queue].is_empty());
                        }
                    }
                }
                Op::Pop { queue } => {
                    let model = RefCell::new(&mut models[queue]);
                    let popped = queues[queue].pop(&mut store, now, |dropped, cause| {
                        assert_eq!(cause, Cause::Codel);
                        model.borrow_mut().remove(dropped);
                    });
                    match popped {
                        Some(popped) => {
                            prop_assert_eq!(popped.length, popped.item.1);
                            models[queue].remove(popped.item);
                        }
                        None => prop_assert_eq!(models[queue].packets(), 0),
                    }
                }
                Op::Drain { queue } => {
                    queues[queue].drain(&mut store, |item| models[queue].remove(item));
                    prop_assert_eq!(models[queue].packets(), 0);
                }
            }
            for ((queue, model), (packets, bytes)) in queues.iter().zip(&models).zip(limits) {
                prop_assert_eq!(queue.len() as usize, model.packets());
                prop_assert_eq!(queue.bytes(), model.bytes());
                prop_assert!(queue.len() <= packets && (queue.bytes() <= bytes || queue.len() == 1));
            }
        }
        // Nothing of the store is lost.
        for (queue, model) in queues.iter_mut().zip(&mut models) {
            queue.drain(&mut store, |item| model.remove(item));
        }
        for number in 0..room {
            let number = u32::try_from(number).unwrap();
            let item = packet((number, 60, 0), 60, number % 40);
            prop_assert!(queues[1].push(&mut store, item, now, |_, _| ()).is_ok());
        }
        prop_assert_eq!(queues[1].len() as usize, room);
    }

    /// Flows that always have packets get the same number of bytes, whatever their lengths, to within a quantum and a frame.
    #[test]
    fn flows_get_the_same(lengths in prop::collection::vec(60..=1514_u32, 2..10)) {
        let mut store = PacketStore::new(1000, 100);
        let mut queue = Queue::new(QueueConfig { codel: None, ..config(1000, 1 << 40) });
        let mut bytes = vec![0_u64; lengths.len()];
        let push = |store: &mut PacketStore<usize>, queue: &mut Queue, flow: usize| {
            let hash = u32::try_from(flow * 7).unwrap();
            queue.push(store, packet(flow, lengths[flow], hash), 0, |_, _| ()).unwrap();
        };
        for flow in 0..lengths.len() {
            for _ in 0..50 {
                push(&mut store, &mut queue, flow);
            }
        }
        for _ in 0..2000 {
            let popped = queue.pop(&mut store, 0, |_, _| ()).unwrap();
            bytes[popped.item] += u64::from(popped.length);
            push(&mut store, &mut queue, popped.item);
            let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
            prop_assert!(most - least <= 2 * 1514 + 1514, "{:?}", bytes);
        }
    }
}

/// A sparse flow waits for one frame of each bulk flow at most, however long their queues are.
#[test]
fn a_sparse_flow_hardly_waits() {
    let mut store = PacketStore::new(10_000, 100);
    let mut queue = Queue::new(QueueConfig { codel: None, ..config(10_000, 1 << 40) });
    for number in 0..5000_u32 {
        queue.push(&mut store, packet("bulk", 1514, number % 5), 0, |_, _| ()).unwrap();
    }
    for _ in 0..20 {
        queue.pop(&mut store, 0, |_, _| ()).unwrap();
    }
    for _ in 0..100 {
        queue.push(&mut store, packet("sparse", 100, 77), 0, |_, _| ()).unwrap();
        let place = (0..20).find(|_| queue.pop(&mut store, 0, |_, _| ()).unwrap().item == "sparse");
        assert!(place.unwrap() <= 5, "{place:?}");
        // It is silent for a round.
        for _ in 0..6 {
            queue.pop(&mut store, 0, |_, _| ()).unwrap();
        }
    }
}

/// A bulk flow that does not slow down fills the queue, and a sparse one beside it neither waits nor loses.
#[test]
fn bulk_drops_and_sparse_does_not() {
    let mut store = PacketStore::new(2000, 100);
    let mut queue = Queue::new(config(1000, 1 << 40));
    let (mut dropped, mut worst) = (BTreeMap::new(), 0);
    let drops = RefCell::new(&mut dropped);
    // Twelve packets come while ten go, for ten seconds.
    for round in 1..10_000_u64 {
        let now = round * MS;
        let mut sink = |item: &'static str, _| *drops.borrow_mut().entry(item).or_insert(0_u32) += 1;
        for _ in 0..12 {
            queue.push(&mut store, packet("bulk", 1514, 1), now, &mut sink).unwrap();
        }
        if round % 10 == 0 {
            queue.push(&mut store, packet("sparse", 100, 2), now, &mut sink).unwrap();
        }
        for _ in 0..10 {
            let popped = queue.pop(&mut store, now, &mut sink).unwrap();
            if popped.item == "sparse" {
                worst = popped.sojourn.max(worst);
            }
        }
    }
    assert_eq!(worst, 0);
    assert!(dropped["bulk"] > 10_000, "{dropped:?}");
    assert_eq!(dropped.get("sparse"), None);
}

/// A flow that slows down when it loses, as TCP does, is kept at a short wait.
#[test]
fn waits_are_kept_short() {
    let mut store = PacketStore::new(5000, 100);
    let mut queue = Queue::new(config(5000, 1 << 40));
    // A window of packets under way, a round trip of 40 ms without the queue, ten packets a millisecond on the wire.
    let (mut window, mut under_way) = (100.0_f64, VecDeque::new());
    let mut waits = Vec::new();
    let mut queued = 0_u32;
    for now in (1..20_000_u64).map(|round| round * MS) {
        while under_way.front().is_some_and(|back| *back <= now) {
            under_way.pop_front();
            window += 1.0 / window;
        }
        while f64::from(queued + u32::try_from(under_way.len()).unwrap()) < window {
            queue.push(&mut store, packet((), 1514, 5), now, |(), _| ()).unwrap();
            queued += 1;
        }
        for _ in 0..10 {
            let mut lost = 0;
            if let Some(popped) = queue.pop(&mut store, now, |(), _| lost += 1) {
                under_way.push_back(now + 40 * MS);
                waits.push(popped.sojourn);
            }
            if lost > 0 {
                window = (window / 2.0).max(2.0);
            }
            queued = queue.len();
        }
    }
    let late = &mut waits[100_000..];
    late.sort_unstable();
    let median = late[late.len() / 2];
    assert!(median < 15 * MS, "{median}");
}

/// With no room for another flow the packets of new flows go with others, and none is lost or mixed with another queue's.
#[test]
fn flows_share_when_there_are_too_many() {
    let mut store = PacketStore::new(100, 2);
    let mut queues = [(); 3].map(|()| Queue::new(config(100, 1 << 40)));
    for hash in 0..10 {
        assert!(queues[0].push(&mut store, packet(hash, 100, hash), 0, |_, _| ()).is_ok());
    }
    // The first queue has both flows.
    assert_eq!(queues[1].push(&mut store, packet(77, 100, 0), 0, |_, _| ()), Err(77));
    let mut seen = BTreeSet::new();
    while let Some(popped) = queues[0].pop(&mut store, 0, |_, _| ()) {
        seen.insert(popped.item);
    }
    assert_eq!(seen, (0..10).collect());
    assert!(queues[1].push(&mut store, packet(77, 100, 0), 0, |_, _| ()).is_ok());
    assert!(queues[2].push(&mut store, packet(78, 100, 0), 0, |_, _| ()).is_ok());
    assert_eq!(queues[1].pop(&mut store, 0, |_, _| ()).map(|popped| popped.item), Some(77));
    assert_eq!(queues[2].pop(&mut store, 0, |_, _| ()).map(|popped| popped.item), Some(78));
}

/// A limit that shrinks is kept to as packets come, a bounded number at a time.
#[test]
fn a_smaller_limit_is_kept_to_by_and_by() {
    let mut store = PacketStore::new(1000, 10);
    let mut queue = Queue::new(config(1000, 1 << 40));
    for hash in 0..500 {
        queue.push(&mut store, packet((), 100, hash % 4), 0, |(), _| ()).unwrap();
    }
    queue.reconfigure(config(100, 1 << 40));
    for _ in 0..7 {
        let mut drops = 0;
        queue.push(&mut store, packet((), 100, 1), 0, |(), _| drops += 1).unwrap();
        assert!(drops <= 64);
    }
    assert_eq!(queue.len(), 100);
}

//! Frames for an app whose RX queue another worker serves are handed over to that one, and each is counted. What the wire brings is not,
//! where it spreads flows over all workers and the app has a queue of each; and nothing is where each queue has a ring of each.

use crate::lab::{App, Crew, Lab, MTU, books, wait_until};
use kopi_ring::message::{Mac, Settings};

/// Flows of each sender, and frames of each flow.
const FLOWS: u8 = 20;
const FRAMES: u8 = 10;
const WORKERS: u16 = 2;
const RECEIVER: u16 = 4;
const NOBODY: Mac = [2, 9, 9, 9, 9, 9];

/// UDP from app `from` to `to`, number `number` of flow `flow`.
fn frame(from: u16, to: Mac, flow: u8, number: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&App::mac(from));
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame[26..34].copy_from_slice(&[10, 0, 0, App::mac(from)[5], 10, 0, 1, flow]);
    frame[42] = number;
    frame
}

fn run(crew: Crew<'_>, queues: usize, to: Mac) -> Vec<u64> {
    run_lanes(crew, (queues, 1), to)
}

/// Two senders, each of which another worker serves, and a receiver with `queues` queues of `lanes` rings each, which gets what they send
/// to `to`: at once, or from the wire, which gives back what it takes. Returns what the workers have handed over.
fn run_lanes(mut crew: Crew<'_>, (queues, lanes): (usize, u16), to: Mac) -> Vec<u64> {
    let settings =
        |id| Settings { mtu: MTU, promiscuous: id == RECEIVER, all_multicast: false, macs: vec![App::mac(id)] };
    let mut senders = [1, 2].map(|id| crew.attach(id, settings(id), 1, 256));
    let mut receiver = crew.give_lanes(RECEIVER, settings(RECEIVER), (queues, lanes), 512);
    crew.publish();
    for sender in &mut senders {
        for (flow, number) in (0..FRAMES).flat_map(|number| (0..FLOWS).map(move |flow| (flow, number))) {
            assert!(sender.push(0, &frame(sender.id, to, flow, number)), "there is room");
        }
        sender.publish();
    }
    let all = 2 * u64::from(FLOWS) * u64::from(FRAMES);
    let mut rings = vec![Vec::new(); queues * usize::from(lanes)];
    wait_until("all frames have come", || {
        rings.iter_mut().zip(receiver.take()).for_each(|(all, new)| all.extend(new));
        receiver.popped >= all
    });
    assert_eq!(receiver.popped, all, "{queues} queues");
    for (sender, flow) in senders.iter().flat_map(|sender| (0..FLOWS).map(move |flow| (sender.id, flow))) {
        let is_its = |frame: &&[u8; 60]| frame[6..12] == App::mac(sender) && frame[33] == flow;
        let of = |ring: &Vec<[u8; 60]>| ring.iter().filter(is_its).map(|frame| frame[42]).collect::<Vec<_>>();
        let numbers: Vec<_> = rings.iter().map(of).filter(|numbers| !numbers.is_empty()).collect();
        assert_eq!(numbers, [(0..FRAMES).collect::<Vec<_>>()], "a flow is in one ring, and in order");
    }
    assert!(rings.iter().all(|ring| !ring.is_empty()), "flows are in all rings");
    let counters = crew.counters();
    let (totals, _) = crew.stop();
    let (debit, credit) = books(&totals);
    assert_eq!(debit, credit, "{totals:?}");
    counters.iter().map(|counters| counters.handed_over.get()).collect()
}

pub(crate) fn check(lab: &Lab) {
    let of_a_sender = u64::from(FLOWS) * u64::from(FRAMES);
    // The receiver's only queue is the first worker's, as is the second sender.
    let one = Crew::start(lab, WORKERS.into(), || 0);
    assert_eq!(run(one, 1, App::mac(RECEIVER)), [0, of_a_sender]);
    // With two, it depends on the flow, not on who has sent it.
    let two = run(Crew::spread(lab, WORKERS), 2, App::mac(RECEIVER));
    assert!(two.iter().all(|handed| (1..of_a_sender).contains(handed)), "{two:?}");
    for queues in [2, 4] {
        assert_eq!(run(Crew::spread(lab, WORKERS), queues, NOBODY), [0, 0], "{queues} queues");
    }
    // One of three queues would get half of all.
    assert!(run(Crew::spread(lab, WORKERS), 3, NOBODY).iter().sum::<u64>() > 0);
    for (queues, to) in [1, 2, 3].into_iter().flat_map(|queues| [(queues, NOBODY), (queues, App::mac(RECEIVER))]) {
        let handed = run_lanes(Crew::spread(lab, WORKERS), (queues, WORKERS), to);
        assert_eq!(handed, [0, 0], "{queues} queues with lanes");
    }
}

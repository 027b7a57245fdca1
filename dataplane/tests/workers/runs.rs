//! Frames in a row: what a burst finds out about each is what it would find out about it alone.

use crate::conservation::Random;
use crate::lab::Lab;
use dpdk::Batch;
use kopi_config::policy::Tracking;
use kopi_dataplane::fib::Fib;
use kopi_dataplane::policy_counters::PolicyCounters;
use kopi_dataplane::policy_table::Inspection;
use kopi_dataplane::rss::{Rss, RssTable};
use kopi_dataplane::snapshot::Snapshot;
use kopi_dataplane::stages::policy::PolicyStage;
use kopi_dataplane::stages::{parse, policy};
use kopi_dataplane::worker::burst::Burst;
use kopi_dataplane::worker::flow_table::FlowTable;
use kopi_dataplane::worker::packet_type::packet_type;
use kopi_packet::{LinkProtocol, Seed, Toeplitz};
use kopi_policy::Connections;
use kopi_ring::layout::Notes;
use std::sync::Arc;

/// Bursts that are compared.
const BURSTS: usize = 4000;

/// A frame of one of a few kinds, of one of two flows: plain and short UDP, TCP, another type, a VLAN tag, a fragment.
fn fresh(random: &mut Random) -> Vec<u8> {
    let mut frame = vec![0; random.pick(&[60, 60, 60, 64, 43, 14, 9])];
    let mut put = |at: usize, bytes: &[u8]| frame.iter_mut().skip(at).zip(bytes).for_each(|(to, byte)| *to = *byte);
    put(12, random.pick(&[&[8, 0], &[8, 0], &[8, 0], &[0x88, 0xcc], &[0x81, 0]]));
    put(14, &[0x45, 0, 0, random.pick(&[46, 46, 29, 60]), 0, 0, 0, random.pick(&[0, 0, 0, 8]), 64]);
    put(23, &[random.pick(&[17, 17, 6, 1])]);
    put(37, &[random.pick(&[1, 2])]);
    put(46, &[0x50, random.pick(&[0x10, 0x11])]);
    frame
}

/// Frames that mostly repeat the one before, sometimes with a byte changed.
fn row(random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    while frames.len() < Batch::MAX {
        let mut frame = frames.last().cloned().unwrap_or_else(|| fresh(random));
        match random.below(8) {
            0 => frame = fresh(random),
            1 => {
                let at = usize::try_from(random.below(frame.len() as u64)).expect("an index");
                frame[at] ^= 1 << random.below(8);
            }
            _ => {}
        }
        frames.push(frame);
    }
    frames
}

pub(crate) fn check(lab: &Lab) {
    let usual = Arc::new(Rss::usual(Arc::new(Toeplitz::new([6; 40])), 1));
    let mut flows = FlowTable::new(64, 2, Seed::from_bytes([7; 64]));
    let connections = Arc::new(Connections::new(64, Seed::from_bytes([8; 64]), &Tracking::default(), 1 << 30));
    let (noted, _) = rtrb::RingBuffer::new(1);
    let mut policy_stage =
        PolicyStage::new(connections, Arc::new(PolicyCounters::new(0)), Seed::from_bytes([9; 64]), 1 << 30, noted);
    let snapshot = Snapshot::new(1, Fib::new(true, 1500, &[])).with_rss(RssTable::new(usual, []));
    let mut random = Random(5);
    let mut burst = Burst::new();
    let (mut followers, mut frames_seen) = (0, 0);
    for number in 0..BURSTS {
        let watch = (number % 2 == 1).then_some(Inspection { flags: 0x3f, tracks: true });
        let frames = row(&mut random);
        lab.fill(&mut burst.batch, &frames);
        let bytes = parse::run(&mut burst, 1, &flows, watch);
        assert_eq!(bytes, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
        assert_eq!(burst.bytes(3..9), frames[3..9].iter().map(|frame| frame.len() as u64).sum::<u64>());
        assert_eq!(Some(burst.longest() as usize), frames.iter().map(Vec::len).max());
        policy::run(&mut burst, 1, &mut policy_stage, &mut flows, &snapshot, 1);
        let mut before = None;
        for (at, frame) in frames.iter().enumerate() {
            let (headers, mut key) = kopi_packet::parse(frame, 1);
            let alone = watch.is_some_and(|watch| watch.complete(&mut key, frame, &headers));
            assert_eq!(burst.key(at), key, "frame {at} of {frames:02x?}");
            assert_eq!(burst.destination(at), key.dst_mac().bytes());
            assert_eq!(burst.hash(at).bits(), flows.hash(&key).bits());
            // That of its flow: what is too long for a port that there is not has another verdict.
            let verdict = match LinkProtocol::of(&key) {
                Some(protocol) => snapshot.fib().lookup_link(1, &key.dst_mac().bytes(), protocol),
                None => snapshot.fib().lookup(1, &key.dst_mac().bytes()),
            };
            let rss = snapshot.rss().hash(&key, verdict);
            assert_eq!(burst.notes(at), Notes::new(packet_type(&key), rss), "frame {at} of {frames:02x?}");
            assert_eq!(burst.notes(at).hash(), rss);
            let follows = before == Some((key, false)) && !alone;
            assert_eq!(burst.flow_starts() >> at & 1 == 0, follows, "frame {at} of {frames:02x?}");
            followers += u32::from(follows);
            frames_seen += 1;
            before = Some((key, alone));
        }
        burst.batch.free_all();
    }
    assert!(
        followers > frames_seen / 3 && followers < frames_seen,
        "{followers} of {frames_seen} frames follow another"
    );
}

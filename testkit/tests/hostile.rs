//! What an app can do wrong in its shared memory, faults 10 to 12 and 42: it is detached, and no other app loses a frame.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Region;
use kopi_ring::layout::{Descriptor, Notes};
use kopi_ring::message::Mac;
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::evil::{Client, HugeHog, Random, Vandal, small, without_watches};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Settings, TempDir, machine, wait_until};
use rustix::process::Signal;
use std::time::Duration;

const EVIL: Mac = [2, 0, 0, 0, 0xee, 1];
const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";

fn start(label: &str) -> (TempDir, Kopid) {
    let dir = TempDir::new(label);
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", log: "warn", ..Settings::default() });
    (dir, kopid)
}

/// A kopid that seals no region.
fn start_unsealing(dir: &TempDir, config: &Settings) -> Kopid {
    without_watches(|| Kopid::start(dir, config))
}

/// An app of an older version of the protocol.
fn attach(kopid: &Kopid) -> (Client, Region) {
    kopid.await_no_app("evil");
    Client::attach_old(&kopid.socket(), "evil", EVIL, &small())
}

/// Where the first TX ring, or the first RX ring, has its head, tail and first descriptor.
fn offsets(region: &Region, tx: bool) -> (usize, usize, usize) {
    let layout = region.geometry().layout();
    let span = if tx { &layout.tx[0] } else { &layout.rx[0] };
    (span.offset, span.offset + 128, span.descriptors())
}

/// Has an app misbehave, and checks that it is detached for this reason and can come back.
fn is_detached(kopid: &Kopid, reason: &str, act: impl FnOnce(&Vandal, &Region)) {
    let (client, region) = attach(kopid);
    act(&Vandal::new(&region), &region);
    let refusal = client.refusal();
    assert!(refusal.contains(reason), "`{refusal}` does not say {reason}");
    kopid.await_log(reason);
    kopid.await_no_app("evil");
    drop(attach(kopid));
}

/// Fault 10: a TX head that jumps further than the ring, or backwards, ends the app before a slot is read.
#[test]
fn fault_10_head_jumps_end_the_app() {
    let (_dir, kopid) = start("head");
    for jump in [513, 1 << 16, 1 << 31, u32::MAX] {
        is_detached(&kopid, "ring head moved", |vandal, region| vandal.write_u32(offsets(region, true).0, jump));
    }
    is_detached(&kopid, "ring head moved", |vandal, region| {
        let mut producer = region.tx_producer(0).expect("a ring");
        for _ in 0..8 {
            assert!(producer.free(1).is_ok_and(|free| free > 0) && producer.push(&[0xff; 60], Notes::NONE));
        }
        producer.publish();
        wait_until("kopid has taken them", SOON, || producer.free(512) == Ok(512));
        vandal.write_u32(offsets(region, true).0, 7);
    });
    assert_eq!(kopid.counter("wire", "tx_packets"), 8, "only the honest frames were taken");
}

/// Fault 10: a head that is another number at every look.
#[test]
fn fault_10_head_that_changes_all_the_time_ends_the_app() {
    let (_dir, kopid) = start("flicker");
    is_detached(&kopid, "ring", |vandal, region| {
        let mut random = Random::new(10);
        for _ in 0..2000 {
            let head = u32::try_from(random.next() >> 32).expect("32 bits");
            vandal.write_u32(offsets(region, true).0, head);
        }
    });
}

/// Fault 11: descriptors that no honest driver writes. A short frame is dropped with a reason, the others end the app.
#[test]
fn fault_11_impossible_descriptors_end_the_app() {
    let (_dir, kopid) = start("descriptors");
    let plain = |length: u16| Descriptor::new(length, false, Notes::NONE).0;
    let cases: [(u64, &str); 9] = [
        (plain(0), "descriptor length 0"),
        (plain(2049), "descriptor length 2049"),
        (plain(65535), "descriptor length 65535"),
        (plain(60) | 1 << 17, "reserved descriptor bits"),
        (plain(60) | 1 << 19, "reserved descriptor bits"),
        (plain(60) | 1 << 20, "reserved descriptor bits"),
        (plain(60) | 1 << 63, "reserved descriptor bits"),
        (u64::MAX, "descriptor"),
        (Descriptor::new(2048, true, Notes::NONE).0, "has no end"),
    ];
    for (descriptor, reason) in cases {
        is_detached(&kopid, reason, |vandal, region| {
            let (head, _, at) = offsets(region, true);
            vandal.write(at, &descriptor.to_le_bytes());
            vandal.write_u32(head, 1);
        });
    }
    assert_eq!(kopid.counter("wire", "tx_packets"), 0);

    let (_client, region) = attach(&kopid);
    let vandal = Vandal::new(&region);
    let (head, _, at) = offsets(&region, true);
    vandal.write(at, &plain(13).to_le_bytes());
    vandal.write_u32(head, 1);
    wait_until("13 bytes are a runt", SOON, || kopid.drops("runt") == 1);
    assert!(kopid.app("evil").is_some(), "a short frame is no reason to go");
}

/// Fault 11: a chain that goes on for ever around the ring.
#[test]
fn fault_11_endless_chain_ends_the_app() {
    let (_dir, kopid) = start("chain");
    is_detached(&kopid, "has no end", |vandal, region| {
        let (head, _, at) = offsets(region, true);
        let endless = Descriptor::new(2048, true, Notes::NONE).0.to_le_bytes().repeat(512);
        vandal.write(at, &endless);
        vandal.write_u32(head, 512);
    });
}

/// Fault 10, the other direction: an RX tail that runs ahead of what was delivered ends the app at the next delivery.
#[test]
fn fault_10_tail_jumps_end_the_app() {
    let (_dir, kopid) = start("tail");
    let mut other = Client::attach(&kopid.socket(), "other", [2, 0, 0, 0, 0, 7], &small());
    for jump in [513, 1 << 31, u32::MAX] {
        is_detached(&kopid, "ring tail moved", |vandal, region| {
            vandal.write_u32(offsets(region, false).1, jump);
            // The tail is looked at when room is needed: more frames than the ring has slots make sure of that.
            let mut producer = other.1.tx_producer(0).expect("a ring");
            let mut frame = [0; 60];
            frame[..6].copy_from_slice(&EVIL);
            let mut sent = 0;
            wait_until("the other app's frames are taken", SOON, || {
                while sent < 1200 && producer.free(1).is_ok_and(|free| free > 0) {
                    assert!(producer.push(&frame, Notes::NONE));
                    sent += 1;
                }
                producer.publish();
                sent == 1200 || kopid.app("evil").is_none()
            });
        });
        // Each end of a ring is made once, so the other app attaches anew for the next case.
        drop(other);
        kopid.await_no_app("other");
        other = Client::attach(&kopid.socket(), "other", [2, 0, 0, 0, 0, 7], &small());
    }
}

/// An app that is detached comes back and scribbles over its next region at once, as long as two others exchange frames:
/// these lose none of them.
fn others_lose_nothing(
    label: &str,
    config: &Settings,
    start: impl Fn(&TempDir, &Settings) -> Kopid,
    attack: impl Fn(&Region, u64) -> Option<Box<dyn std::any::Any>>,
) {
    let dir = TempDir::new(label);
    let mut kopid = start(&dir, config);
    let load = Transfer::new(200_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    let mut attacks = 0;
    while sender.process().ended().is_none() {
        let (client, region) = attach(&kopid);
        let running = attack(&region, attacks);
        // kopid says nothing else to this app than that it has to go.
        drop(client.hear());
        drop(running);
        attacks += 1;
    }
    let limit = Duration::from_secs(60);
    sender.finish(limit);
    receiver.finish(limit);
    assert!(attacks > 3, "only {attacks} attacks were made");
    assert_eq!(kopid.drops("rx_ring_full") + kopid.drops("no_mbuf") + kopid.drops("handoff_full"), 0);
    kopid.await_no_connections();
    assert!(kopid.stop().success());
}

/// Fault 12: garbage over all of the region, without pause, costs another app no frame.
#[test]
fn fault_12_garbage_everywhere_costs_others_nothing() {
    let config = Settings { huge_pages: "off", log: "warn", ..Settings::default() };
    others_lose_nothing("scribble", &config, Kopid::start, |region, round| {
        let scribbler = Vandal::new(region).scribble(round);
        wait_until("the region was written over", SOON, || scribbler.rounds() > 0);
        Some(Box::new(scribbler))
    });
}

/// Fault 42: holes in ordinary pages read as zeros, which no honest app would have written.
#[test]
fn fault_42_holes_cost_others_nothing() {
    let config = Settings { huge_pages: "off", log: "warn", ..Settings::default() };
    others_lose_nothing("holes", &config, start_unsealing, |region, _| {
        let mut producer = region.tx_producer(0).expect("a ring");
        assert!(producer.free(8).is_ok_and(|free| free >= 8));
        for _ in 0..8 {
            assert!(producer.push(&[0xff; 60], Notes::NONE));
        }
        let vandal = Vandal::new(region);
        producer.publish();
        vandal.punch().expect("it is not sealed");
        // With luck kopid was faster, so it gets something else to stumble over.
        vandal.write_u32(offsets(region, true).0, 16);
        None
    });
}

/// Fault 42: with the pool of huge pages empty, kopid's touch of a hole is a SIGBUS, which it outlives.
#[test]
fn fault_42_holes_in_huge_pages_cost_others_nothing() {
    // 200 for kopid and the region; others may be about to give theirs back.
    wait_until("200 huge pages are free: sysctl vm.nr_hugepages=512", SOON, || machine::huge_pages().1 >= 200);
    let config = Settings { huge_pages: "require", log: "warn", ..Settings::default() };
    let dir = TempDir::new("huge-holes");
    let mut kopid = start_unsealing(&dir, &config);
    let load = Transfer::new(100_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    for _ in 0..5 {
        let (client, region) = attach(&kopid);
        assert_eq!(kopid.app("evil").expect("it is attached")["huge_pages"], true);
        // Stopped for a moment, so that it cannot take the page back before the hog has it.
        kopid.process().signal(Signal::STOP);
        wait_until("kopid is stopped", SOON, || kopid.process().is_stopped());
        let hog = HugeHog::new();
        Vandal::new(&region).punch().expect("it is not sealed");
        hog.grab();
        kopid.process().signal(Signal::CONT);
        // kopid looks at the head of every ring all the time, so it falls into the hole by itself.
        let refusal = client.refusal();
        assert!(refusal.contains("punched out"), "`{refusal}`");
    }
    let limit = Duration::from_secs(60);
    sender.finish(limit);
    receiver.finish(limit);
    kopid.await_no_connections();
    assert!(kopid.stop().success());
}

//! Fault 41: ten thousand attaches and detaches beside traffic leave everything where it was.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::Notes;
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::evil::{Client, tiny};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Settings, TempDir, wait_until};
use std::time::Duration;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const ATTACHES: u32 = 10_000;
/// Apps that come and go at a time.
const GUESTS: usize = 8;

/// One attach, with a frame sent through the rings, and one detach.
fn come_and_go(kopid: &Kopid, n: u32) {
    let [_, b, c, d] = n.to_be_bytes();
    let mac = [2, 0xcc, 0, b, c, d];
    let mut client = Client::connect(&kopid.socket());
    drop(client.hello(&format!("guest-{n}"), mac));
    let region = client.setup(&tiny());
    client.settings(mac);
    let mut producer = region.tx_producer(0).expect("a ring");
    let mut frame = [0xff; 60];
    frame[6..12].copy_from_slice(&mac);
    assert!(producer.free(1).is_ok_and(|free| free > 0) && producer.push(&frame, Notes::NONE));
    producer.publish();
    // Half of them take their leave, the others just go.
    if n.is_multiple_of(2) {
        drop(client.ask(kopi_ring::message::Message::Stop));
    }
}

/// So many of these, several at a time: kopid tells its workers of changes every five milliseconds, and there are three in a visit.
fn visits(kopid: &Kopid, count: u32) {
    std::thread::scope(|scope| {
        for first in (0..count).take(GUESTS) {
            scope.spawn(move || (first..count).step_by(GUESTS).for_each(|n| come_and_go(kopid, n)));
        }
    });
}

fn churn(huge_pages: &'static str, attaches: u32) {
    let dir = TempDir::new("churn");
    let mut kopid = Kopid::start(&dir, &Settings { huge_pages, log: "error", ..Settings::default() });
    visits(&kopid, 64);
    kopid.await_no_connections();
    let before = kopid.process().usage();
    let mbufs = kopid.status()["mbufs"]["free"].as_u64();

    let load = Transfer::new(300_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    visits(&kopid, attaches);
    sender.finish(Duration::from_secs(120));
    receiver.finish(Duration::from_secs(120));
    assert_eq!(kopid.drops("rx_ring_full"), 0);
    // Their processes have ended; the processes' memory and kopid's answers to it take a moment.
    drop((sender, receiver));
    kopid.await_no_connections();
    kopid.process().await_usage(&before);
    assert_eq!(before.huge_kib > 0, huge_pages == "require", "{before:?}");
    wait_until("all buffers are back", SOON, || kopid.status()["mbufs"]["free"].as_u64() == mbufs);
    let flows = kopid.status()["flows"].as_u64();
    assert!(flows.is_some_and(|flows| flows < 65536), "{flows:?} flows");
    assert!(kopid.stop().success());
}

/// Ten thousand in ordinary pages.
#[test]
fn fault_41_ten_thousand_attaches_leave_nothing() {
    churn("off", ATTACHES);
}

/// A thousand in huge pages, of which kopid has as many afterwards as before.
#[test]
fn fault_41_attaches_give_huge_pages_back() {
    churn("require", ATTACHES / 10);
}

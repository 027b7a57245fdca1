//! Every mode of memory that an application can ask EAL for, fault 30: it works, or the refusal says why.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Memory, Settings, TempDir, Testpmd, machine, testpmd, wait_until};
use std::time::Duration;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const LIMIT: Duration = Duration::from_secs(60);
/// A user that exists everywhere and may do nothing.
const NOBODY: u32 = 65534;

fn exchange(dir: &TempDir, kopid: &Kopid, sender: &AppOptions, receiver: &AppOptions) {
    let load = Transfer::new(5000, 60..=1514);
    let mut receiver = App::receive(dir, kopid, receiver, &load);
    let mut sender = App::send(dir, kopid, sender, &load, B);
    sender.finish(LIMIT);
    assert_eq!(receiver.finish(LIMIT)["received"], load.count);
}

/// Fault 30: sender and receiver in every mode, against each other in the next one.
#[test]
fn fault_30_every_memory_mode_carries_traffic() {
    let dir = TempDir::new("memory");
    let kopid = Kopid::start(&dir, &Settings::default());
    let free = machine::huge_pages().1;
    assert!(free >= 128, "{free} huge pages are free, 128 are needed: sysctl vm.nr_hugepages=512");
    for (mode, next) in Memory::ALL.into_iter().zip(Memory::ALL.into_iter().cycle().skip(1)) {
        let sender = AppOptions { memory: mode, ..AppOptions::new("sender", A) };
        let receiver = AppOptions { memory: next, ..AppOptions::new("receiver", B) };
        exchange(&dir, &kopid, &sender, &receiver);
    }
}

/// Fault 30: an ordinary user needs neither huge pages nor rights, and kopid knows who it is.
#[test]
fn fault_30_ordinary_user_needs_no_huge_pages() {
    let dir = TempDir::new("user");
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", ..Settings::default() });
    // A number without a name is a user, too.
    for uid in [NOBODY, 4_242_424] {
        let sender = AppOptions { user: Some(uid), ..AppOptions::new("sender", A) };
        let receiver = AppOptions { user: Some(uid), ..AppOptions::new("receiver", B) };
        let load = Transfer::new(5000, 60..=1514);
        let mut receiver = App::receive(&dir, &kopid, &receiver, &load);
        let row = kopid.await_app("receiver");
        assert_eq!((&row["uid"], &row["gid"]), (&uid.into(), &uid.into()));
        assert_eq!(row["user"], if uid == NOBODY { "nobody".into() } else { serde_json::Value::Null });
        assert_eq!((&row["comm"], &row["pid"]), (&"kopi-seq".into(), &receiver.process().pid().into()));
        let mut sender = App::send(&dir, &kopid, &sender, &load, B);
        sender.finish(LIMIT);
        receiver.finish(LIMIT);
    }
}

/// Fault 28: buffers in every kind of memory that testpmd can allocate them from, its own external buffers included.
#[test]
fn fault_28_every_kind_of_mempool_sends() {
    let dir = TempDir::new("mempool");
    let kopid = Kopid::start(&dir, &Settings::default());
    for kind in ["native", "anon", "xmem", "xmemhuge", "xbuf"] {
        let name = format!("pool-{kind}");
        let options = testpmd::Options::new(&name, "txonly").memory(Memory::InMemory);
        let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options.with(&format!("--mp-alloc={kind}")));
        wait_until("frames come out of it", SOON, || kopid.counter(&name, "tx_packets") > 10_000);
        testpmd.tell("stop", "Accumulated forward statistics");
        testpmd.quit();
        kopid.await_no_app(&name);
    }
}

/// Fault 28: frames in several segments arrive whole.
#[test]
fn fault_28_segments_become_one_frame() {
    let dir = TempDir::new("segments");
    let kopid = Kopid::start(&dir, &Settings::default());
    for (segments, bytes) in [("64,128", 192), ("64,1,1,1,33", 100), ("500,500,500", 1500)] {
        let options = testpmd::Options::new("segments", "txonly").with(&format!("--txpkts={segments}"));
        let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options);
        wait_until("frames come out of it", SOON, || kopid.counter("segments", "tx_packets") > 10_000);
        testpmd.tell("stop", "Accumulated forward statistics");
        let (frames, total) = (kopid.counter("segments", "tx_packets"), kopid.counter("segments", "tx_bytes"));
        wait_until("kopid has taken all of them", SOON, || {
            let now = (kopid.counter("segments", "tx_packets"), kopid.counter("segments", "tx_bytes"));
            now.1 == now.0 * bytes && now.0 >= frames && now.1 >= total
        });
        testpmd.quit();
        kopid.await_no_app("segments");
    }
}

/// Fault 28: an application that holds on to its buffers until none is left counts `rx_nombuf`, and loses no frame: they
/// wait in the ring until there are buffers again.
#[test]
fn fault_28_empty_mempool_delays_frames_and_loses_none() {
    let dir = TempDir::new("hoard");
    let kopid = Kopid::start(&dir, &Settings::default());
    let load = Transfer::new(20_000, 60..=1514);
    let receiver = AppOptions { hoard: Some(1023), ..AppOptions::new("receiver", B) };
    let mut receiver = App::receive(&dir, &kopid, &receiver, &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    sender.finish(LIMIT);
    let report = receiver.finish(LIMIT);
    assert!(report["hoarded_until_nombuf"].as_u64().is_some_and(|times| times > 0), "{report}");
}

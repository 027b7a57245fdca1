//! An app takes pages out of its region, for kopid to put back: it cannot once that is sealed, and before that its rings are not
//! served. Where nothing can be sealed, it is seen at the first touch, and costs the worker next to nothing.

use kopi_ring::Region;
use kopi_ring::layout::Notes;
use kopi_ring::message::{Mac, Message};
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::evil::{Client, Vandal, small, without_watches};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Settings, TempDir, machine, wait_until};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVIL: Mac = [2, 0, 0, 0, 0xee, 2];
const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";

/// A thread that takes the page with the counters of the first ring out of a region, without pause, until its value goes.
struct Puncher {
    stop: Arc<AtomicBool>,
    holes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Puncher {
    /// With `refill`, it puts a page back at once, before kopid may have touched the hole.
    fn new(region: &Region, refill: bool) -> Self {
        let fd: OwnedFd = region.fd().try_clone_to_owned().expect("a descriptor can be doubled");
        let page = if region.huge() { 2 << 20 } else { 4096 };
        let at = region.geometry().layout().tx[0].offset as u64 / page * page;
        let (stop, holes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&holes));
        let work = move || {
            while !stopped.load(Relaxed) {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&fd, hole, at, page).expect("it is not sealed");
                if refill {
                    // Without a page in the pool, the hole stays.
                    let _short = rustix::fs::fallocate(&fd, FallocateFlags::empty(), at, page);
                }
                counted.fetch_add(1, Relaxed);
            }
        };
        Self { stop, holes, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Puncher {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Page faults that the workers of kopid have had so far: field 10 of their `stat`, see `proc_pid_stat(5)`.
fn faults_of_workers(kopid: &mut Kopid) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", kopid.process().pid())).expect("kopid lives");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let workers = stats.filter(|stat| stat.contains("(kopi-worker"));
    workers.filter_map(|stat| stat.rsplit(')').next()?.split_whitespace().nth(7)?.parse::<u64>().ok()).sum()
}

/// Two apps exchange frames while a third attaches and punches holes, again and again. It is detached with the reason, soon,
/// having cost the workers no more than a handful of page faults each time; the two lose no frame.
fn puncher_is_detached(label: &str, huge_pages: &'static str, refill: bool) {
    let dir = TempDir::new(label);
    let settings = Settings { huge_pages, log: "warn", ..Settings::default() };
    let mut kopid = without_watches(|| Kopid::start(&dir, &settings));
    let load = Transfer::new(60_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    let before = faults_of_workers(&mut kopid);
    let (mut attacks, mut longest) = (0, Duration::ZERO);
    while attacks < 3 || (sender.process().ended().is_none() && attacks < 100) {
        kopid.await_no_app("evil");
        let (client, region) = Client::attach_old(&kopid.socket(), "evil", EVIL, &small());
        assert_eq!(region.huge(), huge_pages == "require");
        let begun = Instant::now();
        let puncher = Puncher::new(&region, refill);
        let refusal = client.refusal();
        assert!(refusal.contains("punched out"), "`{refusal}` after {} holes", puncher.holes.load(Relaxed));
        longest = longest.max(begun.elapsed());
        attacks += 1;
    }
    assert!(longest < Duration::from_secs(1), "an app went on for {longest:?}");
    let faults = faults_of_workers(&mut kopid) - before;
    // Each worker touches some pages of the regions and its own for the first time, and a few holes each time.
    assert!(faults < 1000 + 100 * attacks, "{faults} page faults of the workers in {attacks} attacks");
    kopid.await_log("punched out");
    sender.finish(Duration::from_secs(60));
    receiver.finish(Duration::from_secs(60));
    assert!(kopid.stop().success());
}

/// Holes in ordinary pages, which the kernel would fill again at each touch of a worker's.
#[test]
fn holes_in_ordinary_pages_end_the_app() {
    puncher_is_detached("holes", "off", false);
}

/// Holes that the app fills again itself, for the worker to find a page, if another one.
#[test]
fn holes_that_are_filled_again_end_the_app() {
    puncher_is_detached("refilled", "off", true);
}

/// Holes in huge pages, each of which takes tens of microseconds to fill again.
#[test]
fn holes_in_huge_pages_end_the_app() {
    wait_until("200 huge pages are free: sysctl vm.nr_hugepages=512", SOON, || machine::huge_pages().1 >= 200);
    puncher_is_detached("huge-holes", "require", false);
}

/// An app that has said that its rings are mapped can make no hole in them, by none of the files that it has, nor map them anew; in
/// pages of both sizes. It stays attached.
#[test]
fn sealed_rings_get_no_holes() {
    wait_until("200 huge pages are free: sysctl vm.nr_hugepages=512", SOON, || machine::huge_pages().1 >= 200);
    for huge_pages in ["off", "require"] {
        let dir = TempDir::new("sealed");
        let mut kopid = Kopid::start(&dir, &Settings { huge_pages, ..Settings::default() });
        let (mut client, region) = Client::attach(&kopid.socket(), "sealed", EVIL, &small());
        assert_eq!(
            (region.huge(), kopid.await_app("sealed")["sealed"].as_bool()),
            (huge_pages == "require", Some(true))
        );
        let again =
            fs::File::options().read(true).write(true).open(format!("/proc/self/fd/{}", region.fd().as_raw_fd()));
        let again = OwnedFd::from(again.expect("a file may be opened again"));
        for file in [region.fd(), again.as_fd()] {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            assert_eq!(rustix::fs::fallocate(file, hole, 0, region.size() as u64), Err(Errno::PERM));
            assert_eq!(rustix::fs::ftruncate(file, 0), Err(Errno::PERM));
            let mapped =
                Region::open(file.try_clone_to_owned().expect("a descriptor can be doubled"), region.geometry());
            assert!(mapped.is_err_and(|error| error.to_string() == "mmap: Operation not permitted (os error 1)"));
        }
        client.settings(EVIL);
        assert!(kopid.app("sealed").is_some());
        drop((client, region, again));
        kopid.await_no_app("sealed");
        wait_until("its memory is free", SOON, || kopid.status()["ring_memory"]["used"] == 0);
        assert!(kopid.stop().success());
    }
}

/// A driver of the version before seals, which knows no word for it, exchanges frames with one of today, and its rings are sealed, too.
#[test]
fn older_drivers_are_sealed_and_served() {
    let dir = TempDir::new("older");
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", ..Settings::default() });
    let (_old, sender) = Client::attach_old(&kopid.socket(), "old", EVIL, &small());
    let (_new, receiver) = Client::attach(&kopid.socket(), "new", [2, 0, 0, 0, 0, 7], &small());
    assert_eq!(
        [kopid.await_app("old")["sealed"].as_bool(), kopid.await_app("new")["sealed"].as_bool()],
        [Some(true), Some(true)]
    );
    let (mut producer, mut consumer) =
        (sender.tx_producer(0).expect("a ring"), receiver.rx_consumer(0).expect("a ring"));
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    frame[6..12].copy_from_slice(&EVIL);
    assert!(producer.free(1).is_ok_and(|free| free > 0) && producer.push(&frame, Notes::NONE));
    producer.publish();
    wait_until("the frame arrives", SOON, || consumer.poll() == Ok(1));
}

/// A hole that nobody touches is found within a few tenths of a second.
#[test]
fn hole_that_is_never_touched_ends_the_app() {
    let dir = TempDir::new("far-hole");
    let kopid = without_watches(|| Kopid::start(&dir, &Settings { huge_pages: "off", ..Settings::default() }));
    let (client, region) = Client::attach_old(&kopid.socket(), "evil", EVIL, &small());
    // The last slot of the RX ring, to which nobody sends.
    let last = region.size() as u64 / 4096 * 4096 - 4096;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(region.fd(), hole, last, 4096).expect("it is not sealed");
    assert!(client.refusal().contains("punched out"));
}

/// A client of either version that is about to say that its rings are mapped, and has sent nothing but what comes before.
fn unsealed(kopid: &Kopid, old: bool) -> (Client, Region, Mac) {
    let client = Client::connect(&kopid.socket());
    let mut client = if old { client.old() } else { client };
    let mac = client.hello("evil", EVIL).mac;
    let region = client.setup_unsealed(&small());
    (client, region, mac)
}

/// Says that its rings are mapped, and what the port is to receive.
fn say_mapped(client: &mut Client, mac: Mac) {
    client.mapped();
    client.settings(mac);
}

/// Rings are served when they are sealed, and not before, to clients of both versions: until then a worker would wait for whatever the
/// client does to their pages. From then on it can take none out.
#[test]
fn rings_are_served_once_they_are_sealed() {
    wait_until("200 huge pages are free: sysctl vm.nr_hugepages=512", SOON, || machine::huge_pages().1 >= 200);
    let dir = TempDir::new("unsealed");
    for (huge_pages, old) in [("off", false), ("off", true), ("require", false), ("require", true)] {
        let mut kopid = Kopid::start(&dir, &Settings { huge_pages, ..Settings::default() });
        let (mut client, region, mac) = unsealed(&kopid, old);
        let (vandal, mut producer) = (Vandal::new(&region), region.tx_producer(0).expect("a ring"));
        assert!(producer.free(1).is_ok_and(|free| free == 512) && producer.push(&[0xff; 60], Notes::NONE));
        producer.publish();
        // Ten of kopid's looks.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(producer.free(512), Ok(511), "nobody looks there");
        let evil = kopid.app("evil").expect("it is attached");
        assert_eq!((&evil["state"], &evil["sealed"]), (&"stopped".into(), &false.into()));
        say_mapped(&mut client, mac);
        wait_until("the frame is taken", SOON, || producer.free(512) == Ok(512));
        let evil = kopid.await_app("evil");
        assert_eq!((&evil["state"], &evil["sealed"]), (&"running".into(), &true.into()));
        assert_eq!(vandal.punch(), Err(Errno::PERM), "of an older version: {old}");

        // Others in their place are as those.
        drop((vandal, producer));
        let again = client.setup_unsealed(&small());
        drop(region);
        let mut producer = again.tx_producer(0).expect("a ring");
        assert!(producer.free(1).is_ok_and(|free| free == 512) && producer.push(&[0xff; 60], Notes::NONE));
        producer.publish();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(producer.free(512), Ok(511), "nobody looks there");
        say_mapped(&mut client, mac);
        wait_until("the frame is taken", SOON, || producer.free(512) == Ok(512));
        assert_eq!(Vandal::new(&again).punch(), Err(Errno::PERM));
        drop((client, producer, again));
        kopid.await_no_app("evil");
        wait_until("its memory is free", SOON, || kopid.status()["ring_memory"]["used"] == 0);
        assert!(kopid.stop().success());
    }
}

/// A client that makes holes, or forbids the seal, before its rings are sealed loses its port, and no worker touches any of its pages.
#[test]
fn holes_before_the_seal_are_met_by_nobody() {
    let dir = TempDir::new("early-holes");
    let mut kopid = Kopid::start(&dir, &Settings { huge_pages: "off", log: "warn", ..Settings::default() });
    // A page of each worker's own that nobody has touched yet is none of this.
    drop(Client::attach(&kopid.socket(), "first", EVIL, &small()));
    kopid.await_no_app("first");
    let before = faults_of_workers(&mut kopid);
    for old in [false, true] {
        for says in [false, true] {
            let (mut client, region, mac) = unsealed(&kopid, old);
            Vandal::new(&region).punch().expect("it is not sealed yet");
            if says {
                let settings = kopi_ring::message::Settings { mtu: 1500, macs: vec![mac], ..Default::default() };
                assert!(client.say(if old { Message::Settings(settings) } else { Message::Mapped }));
            }
            let refusal = client.refusal();
            assert!(refusal.contains("punched out"), "{refusal}");
            kopid.await_no_app("evil");
        }
        let (mut client, region, mac) = unsealed(&kopid, old);
        rustix::fs::fcntl_add_seals(region.fd(), rustix::fs::SealFlags::SEAL).expect("it may be sealed");
        let settings = kopi_ring::message::Settings { mtu: 1500, macs: vec![mac], ..Default::default() };
        assert!(client.say(if old { Message::Settings(settings) } else { Message::Mapped }));
        let refusal = client.refusal();
        assert!(refusal.contains("cannot be sealed against holes"), "{refusal}");
        kopid.await_no_app("evil");
    }
    let faults = faults_of_workers(&mut kopid) - before;
    assert_eq!(faults, 0, "page faults of the workers");
    wait_until("all memory is free", SOON, || kopid.status()["ring_memory"]["used"] == 0);
    assert!(kopid.stop().success());
}

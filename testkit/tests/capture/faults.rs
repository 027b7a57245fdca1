//! Readers that do not read, disks that are full, clients and daemons that die: faults 36 and 37.

use crate::scene::{BOB_MAC, NOBODYS_MAC, Scene};
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::capture::Session;
use kopi_testkit::frames::{Ends, framed};
use kopi_testkit::machine::run;
use kopi_testkit::recording::Sums;
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Capture, Kopid, Netns, Recording, TempDir, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes of a frame of [`flood`]'s.
const FRAME: usize = 1400;
/// Longest time that a capture may take to end, whatever its reader does.
const END: Duration = Duration::from_secs(8);
/// Capture sessions at a time.
const SESSIONS: usize = 16;

/// Long frames from the wire that are nobody's, and waits until kopid has seen them.
pub(crate) fn flood(scene: &Scene, from: u16, count: u16) {
    let ip = |host| Ipv4Addr::new(10, 77, 0, host);
    let frame = |id| {
        let ends = Ends { source: ip(1), destination: ip(99), id };
        framed(NOBODYS_MAC, Netns::MAC, &ends.udp((1, 2), &[0x5a; FRAME - 42]))
    };
    scene.transmit((from..from + count).map(frame));
}

/// Two DPDK applications, one of which sends so many frames to the other, none of which gets lost.
fn stream(scene: &Scene, count: u64) {
    const TO: &str = "02:00:00:00:00:0f";
    let load = Transfer::new(count, 60..=1514);
    let mut receiver = App::receive(&scene.dir, &scene.kopid, &AppOptions::new("receiver", TO), &load);
    let mut sender = App::send(&scene.dir, &scene.kopid, &AppOptions::new("sender", "02:00:00:00:00:0e"), &load, TO);
    sender.finish(Duration::from_secs(60));
    receiver.finish(Duration::from_secs(60));
}

/// A kopictl that writes into a FIFO, and the FIFO's reading end.
fn into_fifo(scene: &Scene, args: &str) -> (Capture, File) {
    let path = scene.path("fifo");
    run("mkfifo", &[path.to_str().expect("a plain name")]);
    let mut capture = Capture::launch(&scene.dir, &scene.kopid, &format!("-w {} {args}", path.display()));
    let reader = File::open(&path).expect("there is one");
    capture.process().expect(0, "listening on", SOON);
    (capture, reader)
}

/// What a FIFO has until its writers are gone.
fn rest_of(mut reader: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("a FIFO can be read");
    bytes
}

/// Whether no session is left.
fn await_no_session(scene: &mut Scene, before: usize, limit: Duration) {
    wait_until("the session is gone", limit, || threads(scene) <= before);
}

/// Threads of operators and their sessions. Those of users stay for a while when a job of theirs took long.
fn threads(scene: &mut Scene) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", scene.kopid.process().pid())).into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("kopi-capture") || name.starts_with("kopi-operator")).count()
}

/// Fault 36: a reader that never reads. Traffic between applications goes on and nothing of it gets lost; what does not
/// fit is counted; Ctrl-C ends the capture in bounded time; and what is in the pipe is right as far as it goes.
#[test]
fn fault_36_reader_that_never_reads() {
    let mut scene = Scene::new("never-reads", "");
    let before = threads(&mut scene);
    let (mut capture, reader) = into_fifo(&scene, "-B 64");
    stream(&scene, 20_000);
    let begun = Instant::now();
    let Sums { captured, received, dropped } = capture.stop();
    assert!(begun.elapsed() < END, "it took {:?}", begun.elapsed());
    // The applications' acknowledgements are records, too.
    assert!(received > 40_000 && dropped > received / 2, "{captured} {received} {dropped}");
    assert_eq!(captured + dropped, received);
    await_no_session(&mut scene, before, END);
    let (recording, _) = Recording::read(&rest_of(reader));
    recording.check_packets();
    assert!(recording.packets.len() > 100, "{} packets", recording.packets.len());
    assert!(scene.kopid.stop().success());
}

/// Fault 36: a reader that stops reading and reads again later gets whole blocks only, and each packet that comes after
/// lost ones says how many.
#[test]
fn fault_36_reader_that_reads_again() {
    let mut scene = Scene::new("reads-again", "");
    let (mut capture, reader) = into_fifo(&scene, "-B 64");
    flood(&scene, 0, 3000);
    let reading = std::thread::spawn(move || rest_of(reader));
    // Until the ring is empty again.
    let mut next = 3000;
    let mut probe = Session::start(&scene.kopid, &json!({}), &File::create(scene.path("probe")).expect("a file"));
    wait_until("some come through again", SOON, || {
        std::thread::sleep(Duration::from_millis(50));
        flood(&scene, next, 10);
        next += 10;
        next >= 3200
    });
    probe.await_received(200);
    let sums = capture.stop();
    let (recording, end) = Recording::read(&reading.join().expect("it reads"));
    assert!(end.is_none(), "{end:?}");
    recording.check_packets();
    assert_eq!(recording.sums(), sums, "{:?}", recording.statistics);
    assert_eq!(sums.received, u64::from(next));
    assert_eq!(sums.captured + sums.dropped, sums.received);
    assert!(sums.dropped > 1000, "{sums:?}");
    assert_eq!(recording.packets.iter().map(|packet| packet.drops).sum::<u64>(), sums.dropped);
    assert!(scene.kopid.stop().success());
}

/// Fault 36: a reader that has seen enough ends the capture, without a complaint.
#[test]
fn fault_36_reader_that_goes() {
    let mut scene = Scene::new("reader-goes", "");
    let before = threads(&mut scene);
    let (mut capture, reader) = into_fifo(&scene, "");
    flood(&scene, 0, 100);
    drop(reader);
    let status = capture.process().wait(SOON);
    assert!(status.success(), "{status}: {}", capture.process().log());
    await_no_session(&mut scene, before, SOON);
    flood(&scene, 0, 100);
    assert!(scene.kopid.stop().success());
}

/// A small disk of the test's own.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn new(dir: &TempDir, size: &str) -> Self {
        let path = dir.join("disk");
        fs::create_dir(&path).expect("the folder is new");
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none", path.to_str().expect("a plain name")]);
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

/// Fault 36: the disk is full, and later there is room again. The file has whole blocks only, its statistics count what is
/// missing, traffic does not notice.
#[test]
fn fault_36_disk_full() {
    let mut scene = Scene::new("disk-full", "");
    let disk = Disk::new(&scene.dir, "2m");
    let (filler, file) = (disk.file("filler"), disk.file("packets"));
    fs::write(&filler, vec![1; 1 << 20]).expect("half of it");
    let mut full = Capture::start(&scene.dir, &scene.kopid, &format!("-B 64 -w {}", file.display()));
    // As many at once as the ring holds, so that it is the disk that is full.
    for from in (0..2000).step_by(40) {
        flood(&scene, from, 40);
        std::thread::sleep(Duration::from_millis(10));
    }
    stream(&scene, 5000);
    fs::remove_file(&filler).expect("it is there");
    // kopid looks once a second whether there is room.
    std::thread::sleep(Duration::from_millis(1500));
    flood(&scene, 2000, 100);
    let sums = full.stop();
    assert!(full.process().log().contains("the disk was full"), "{}", full.process().log());
    let recording = Recording::load(&file);
    assert_eq!(recording.sums(), sums, "{:?}", recording.statistics);
    assert!(sums.dropped > 1000, "{sums:?}");
    assert_eq!(sums.captured + sums.dropped, sums.received);
    let last = recording.packets.last().and_then(|packet| kopi_testkit::frames::id_of(&packet.data));
    assert!(last >= Some(2000), "what comes when there is room again is in the file, not {last:?} as the last");
    assert!(file.metadata().expect("it is there").blocks_of() <= 2 << 20);
    assert!(scene.kopid.stop().success());
}

/// Fault 36: the disk is full until the end.
#[test]
fn fault_36_disk_full_to_the_end() {
    let mut scene = Scene::new("disk-full-end", "");
    let disk = Disk::new(&scene.dir, "1m");
    let file = disk.file("packets");
    let mut full = Capture::start(&scene.dir, &scene.kopid, &format!("-w {}", file.display()));
    flood(&scene, 0, 2000);
    let sums = full.stop();
    let recording = Recording::load(&file);
    assert_eq!(recording.sums(), sums, "{:?}", recording.statistics);
    assert_eq!((sums.received, sums.captured + sums.dropped), (2000, 2000));
    assert!(sums.captured > 400, "{sums:?}");
    assert!(scene.kopid.stop().success());
}

/// Bytes that a file takes on its disk.
trait OnDisk {
    fn blocks_of(&self) -> u64;
}

impl OnDisk for fs::Metadata {
    fn blocks_of(&self) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(self) * 512
    }
}

/// Fault 36: kopictl is killed. Its session is gone within a second, at least where nobody else needs the CPU all the time,
/// and the file is complete.
#[test]
fn fault_36_killed_client() {
    let mut scene = Scene::new("killed-client", "");
    let before = threads(&mut scene);
    let mut quickest = SOON;
    for _ in 0..5 {
        let mut capture = scene.capture("packets", "");
        flood(&scene, 0, 100);
        capture.process().signal(Signal::KILL);
        capture.end();
        let begun = Instant::now();
        await_no_session(&mut scene, before, SOON);
        quickest = quickest.min(begun.elapsed());
        let recording = Recording::load(&scene.path("packets"));
        assert_eq!(recording.sums(), Sums { captured: 100, received: 100, dropped: 0 });
    }
    assert!(quickest < Duration::from_secs(1), "it took {quickest:?} at least");
    assert!(scene.kopid.stop().success());
}

/// kopid ends during a capture: kopictl says so, and the file is complete. kopid is killed: kopictl says that, too, and
/// the file is right as far as it goes.
#[test]
fn captures_outlive_kopid() {
    let mut scene = Scene::new("outlive", "");
    let mut ended = scene.capture("ended", "");
    flood(&scene, 0, 100);
    assert!(scene.kopid.stop().success());
    let status = ended.end();
    let said = ended.process().log();
    assert!(status.code() == Some(1) && said.contains("kopid has ended"), "{status}: {said}");
    assert_eq!(Recording::load(&scene.path("ended")).packets.len(), 100);

    scene.kopid.restart();
    let mut killed = scene.capture("killed", "");
    flood(&scene, 0, 100);
    let size = || scene.path("killed").metadata().map_or(0, |file| file.len());
    wait_until("they are in the file", SOON, || size() > 100 * FRAME as u64);
    scene.kopid.kill();
    let status = killed.end();
    let said = killed.process().log();
    assert!(status.code() == Some(3) && said.contains("kopid has gone"), "{status}: {said}");
    let (recording, end) = Recording::read(&fs::read(scene.path("killed")).expect("it is there"));
    recording.check_packets();
    assert_eq!((recording.packets.len(), end.is_none(), recording.statistics.len()), (100, true, 0), "{end:?}");
    scene.kopid.restart();
    assert!(scene.kopid.stop().success());
}

/// Fault 37: a hundred captures at once. Sixteen run, all others hear why not; then there is nothing left of them.
#[test]
fn fault_37_hundred_captures_at_once() {
    let mut scene = Scene::new("hundred", "");
    let before = threads(&mut scene);
    let name = |at: usize| format!("-w {}", scene.path(&format!("{at}.pcapng")).display());
    let mut all: Vec<Capture> = (0..100).map(|at| Capture::launch(&scene.dir, &scene.kopid, &name(at))).collect();
    let runs = |capture: &mut Capture| capture.process().log().contains("listening on");
    wait_until("each runs or has ended", Duration::from_secs(60), || {
        all.iter_mut().all(|capture| runs(capture) || capture.process().ended().is_some())
    });
    let running = all.iter_mut().filter_map(|capture| capture.process().ended().is_none().then_some(())).count();
    assert_eq!(running, SESSIONS);
    flood(&scene, 0, 50);
    let mut refused = 0;
    for capture in &mut all {
        match capture.process().ended() {
            None => assert_eq!(capture.stop().captured, 50),
            Some(status) => {
                let said = capture.process().log();
                assert!(status.code() == Some(1) && said.contains("there are 16 captures already"), "{status}: {said}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 100 - SESSIONS);
    await_no_session(&mut scene, before, SOON);
    assert!(scene.kopid.stop().success());
}

/// Fault 37: a thousand captures one after the other, by several operators at once, under traffic of which nothing gets lost. Nothing is
/// left of them.
#[test]
fn fault_37_thousand_captures_one_after_the_other() {
    /// A session's thread yields to the apps, with which it shares a CPU: one operator alone mostly waits.
    const OPERATORS: usize = 8;
    const TO: &str = "02:00:00:00:00:0f";
    let mut scene = Scene::new("thousand", "");
    let load = Transfer::new(1 << 32, 60..=1514);
    let mut receiver = App::receive(&scene.dir, &scene.kopid, &AppOptions::new("receiver", TO), &load);
    let mut sender = App::send(&scene.dir, &scene.kopid, &AppOptions::new("sender", "02:00:00:00:00:0e"), &load, TO);
    let null = File::options().write(true).open("/dev/null").expect("there is one");
    let arguments = json!({ "filter": "udp and greater 1000", "buffer": 1 << 16, "user": ["root"] });
    let captured = AtomicU64::new(0);
    let take = |kopid: &Kopid, count: usize| {
        let left = AtomicUsize::new(count);
        let one_by_one = || {
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let session = Session::try_start(kopid, &arguments, &null).expect("there is room for one");
                captured.fetch_add(session.stop()["captured"].as_u64().expect("a number"), Relaxed);
            }
        };
        std::thread::scope(|scope| (0..OPERATORS).for_each(|_| drop(scope.spawn(one_by_one))));
    };
    let few = threads(&mut scene);
    let rest = |scene: &mut Scene| {
        await_no_session(scene, few, SOON);
        scene.kopid.process().usage()
    };
    // What the allocator keeps for threads is there after some of them.
    take(&scene.kopid, 100);
    let before = rest(&mut scene);
    take(&scene.kopid, 1000);
    let captured = captured.into_inner();
    wait_until("nothing is left of them", SOON, || rest(&mut scene).is_back_at(&before));
    assert!(captured > 1000, "they have captured {captured} packets only");
    for app in [&mut sender, &mut receiver] {
        assert!(app.process().ended().is_none(), "an app has found something wrong: {}", app.process().log());
    }
    drop((sender, receiver));
    assert!(scene.kopid.stop().success());
}

/// kopid sees the frames of a capture only once, and forgets nothing of what was there before it: an app's own counters
/// are the same with sixteen sessions as without.
#[test]
fn captures_do_not_change_what_is_counted() {
    let mut scene = Scene::new("unchanged", "");
    let app = scene.app("bob", BOB_MAC, 0, &[]);
    let received = |scene: &Scene| scene.kopid.counter("bob", "rx_packets");
    // No more than bob's ring has room for, whether he looks or not.
    scene.arrive(BOB_MAC, 7000, 200);
    wait_until("bob has got them", SOON, || received(&scene) == 200);
    let null = File::options().write(true).open("/dev/null").expect("there is one");
    let sessions: Vec<Session> = (0..SESSIONS).map(|_| Session::start(&scene.kopid, &json!({}), &null)).collect();
    scene.arrive(BOB_MAC, 7000, 200);
    wait_until("bob has got them", SOON, || received(&scene) == 400);
    for session in sessions {
        assert_eq!(session.stop()["captured"], 200);
    }
    app.finish();
    assert!(scene.kopid.stop().success());
}

/// A path is never created by kopid, and a file that cannot be written is refused by it.
#[test]
fn files_are_the_clients_own() {
    let mut scene = Scene::new("files", "");
    let missing = scene.path("no").join("packets");
    let output = scene.kopid.kopictl(&["capture", "-w", missing.to_str().expect("a plain name")]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let readable = File::open(Path::new("/dev/null")).expect("there is one");
    let refused = Session::try_start(&scene.kopid, &json!({}), &readable).map(drop);
    assert!(refused.as_ref().is_err_and(|why| why.contains("not open for writing")), "{refused:?}");
    assert!(scene.kopid.stop().success());
}

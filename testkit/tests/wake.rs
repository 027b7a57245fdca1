//! Sleep and wake-up with the real daemon: applications that wait for receive interrupts, workers that sleep.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use kopi_ring::WAKE_FUTEX_OFFSET;
use kopi_testkit::evil::{Client, Random, Vandal, small};
use kopi_testkit::netns::INSIDE;
use kopi_testkit::process::{Launch, Usage};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Settings, Sleeper, TempDir, wait_until};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MAC: &str = "02:00:00:00:00:0e";
const ADDRESS: &str = "10.77.0.14";

/// A wire with a kernel behind it, and kopid on it with this idle mode.
fn start(label: &str, idle: &'static str) -> (TempDir, Netns, Kopid) {
    start_with(label, Settings { idle, ..Settings::default() })
}

/// The same with these settings, whatever they say of the wire.
fn start_with(label: &str, settings: Settings) -> (TempDir, Netns, Kopid) {
    let dir = TempDir::new(label);
    let netns = Netns::new(1500);
    netns.neighbour(ADDRESS, MAC);
    let wire = Settings::on_interface(netns.outside(), 1).wire;
    let kopid = Kopid::start(&dir, &Settings { wire, ..settings });
    (dir, netns, kopid)
}

/// Sends `count` datagrams to the sleeper, each after the answer to the one before and a pause of up to `pause`. Returns the
/// time that each took.
fn echo(netns: &Netns, count: u32, pause: Duration) -> Vec<Duration> {
    echo_of(ADDRESS, netns, count, pause)
}

/// The same with the sleeper at another address.
fn echo_of(address: &str, netns: &Netns, count: u32, pause: Duration) -> Vec<Duration> {
    netns.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("there are ports");
        socket.connect((address, 7)).expect("there is a route");
        socket.set_read_timeout(Some(SOON)).expect("a time limit");
        let mut random = Random::new(9);
        let micros = u64::try_from(pause.as_micros()).expect("a short pause");
        let mut trips = Vec::new();
        for number in 0..count {
            std::thread::sleep(Duration::from_micros(random.below(micros + 1)));
            let begun = Instant::now();
            socket.send(&number.to_le_bytes()).expect("the wire is up");
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
            assert_eq!(answer[..length], number.to_le_bytes());
            trips.push(begun.elapsed());
        }
        trips
    })
}

/// Share of a CPU that a process uses, in percent, while nothing happens.
fn cpu_percent(pid: u32) -> f64 {
    const SPAN: Duration = Duration::from_secs(2);
    let before = Usage::cpu_time(pid);
    std::thread::sleep(SPAN);
    (Usage::cpu_time(pid).saturating_sub(before)).as_secs_f64() / SPAN.as_secs_f64() * 100.0
}

/// Fault 16: with application and worker falling asleep between datagrams, at every stage of it, every datagram is answered, and
/// none has to wait until the application's own time limit of a second wakes it.
#[test]
fn fault_16_every_datagram_wakes_the_sleeper() {
    for (idle, poll) in [("adaptive", false), ("adaptive", true), ("poll", false), ("poll", true)] {
        let (dir, netns, kopid) = start("wake-echo", idle);
        let mut sleeper = Sleeper::start(&dir, &kopid, "sleeper", MAC, poll);
        let trips = echo(&netns, 1500, Duration::from_micros(1500));
        let longest = trips.iter().max().expect("there are some");
        assert!(*longest < Duration::from_millis(900), "{idle}, poll {poll}: {longest:?}");
        if idle == "adaptive" {
            // A doorbell or a wire that is not heard costs a tenth of a second.
            let late = trips.iter().filter(|trip| **trip > Duration::from_millis(90)).count();
            assert!(late < 15, "poll {poll}: {late} of 1500 took as long as the worker's longest sleep");
        }
        assert!(sleeper.process().ended().is_none());
    }
}

/// Of two workers, of which each has a ring of the only queue, whichever gets a datagram wakes the sleeper.
#[test]
fn each_worker_wakes_the_sleeper() {
    for (idle, poll) in [("adaptive", false), ("poll", true)] {
        let dir = TempDir::new("wake-two");
        let netns = Netns::new(1500);
        netns.neighbour(ADDRESS, MAC);
        let kopid = Kopid::start(&dir, &Settings { idle, ..Settings::on_interface(netns.outside(), 2) });
        let _sleeper = Sleeper::start(&dir, &kopid, "sleeper", MAC, poll);
        for _ in 0..16 {
            // From another port each time: half of these flows are of one worker.
            let trips = echo(&netns, 60, Duration::from_micros(1500));
            let longest = trips.iter().max().expect("there are some");
            assert!(*longest < Duration::from_millis(900), "{idle}, poll {poll}: {longest:?}");
        }
        let status = kopid.status();
        let workers = status["workers"].as_array().expect("there are workers");
        assert!(workers.len() == 2 && workers.iter().all(|worker| worker["flows"].as_u64() > Some(0)), "{status}");
        assert_eq!(kopid.handed_over(), 0);
    }
}

/// An application that waits uses next to no CPU, and nor does a worker that may sleep; and kopid says so.
#[test]
fn idle_application_and_worker_use_no_cpu() {
    let (dir, netns, mut kopid) = start("wake-idle", "adaptive");
    let mut sleeper = Sleeper::start(&dir, &kopid, "sleeper", MAC, false);
    assert_eq!(echo(&netns, 3, Duration::ZERO).len(), 3);
    let percent = cpu_percent(sleeper.process().pid());
    assert!(percent < 5.0, "the application uses {percent} % of a CPU");
    let percent = cpu_percent(kopid.process().pid());
    assert!(percent < 10.0, "kopid uses {percent} % of a CPU");
    let worker = &kopid.status()["workers"][0];
    let share = |key: &str| worker[key].as_f64().expect("a number");
    assert!(share("asleep") > 0.9 && share("busy") < 0.05, "{worker}");
}

/// A wire without a descriptor is looked at often enough: frames from there need no doorbell.
#[test]
fn worker_without_an_ear_wakes_by_itself() {
    let dir = TempDir::new("wake-timer");
    let settings = Settings { wire: "net_null0".into(), idle: "adaptive", ..Settings::default() };
    let kopid = Kopid::start(&dir, &settings);
    wait_until("frames come from the wire", SOON, || kopid.counter("wire", "rx_packets") > 1000);
}

/// Wires of the other kinds that a kernel has are heard, too: `net_af_xdp` by its socket, `net_tap` by its receive interrupt.
#[test]
fn every_kind_of_wire_is_heard() {
    const TAP: &str = "tap0";
    for kind in ["net_af_xdp", "net_tap"] {
        let dir = TempDir::new("wake-wires");
        let netns = Netns::new(1500);
        let (wire, address) = match kind {
            "net_tap" => (format!("net_tap0,iface={TAP}"), "10.78.0.14"),
            _ => (format!("net_af_xdp0,iface={}", netns.outside()), ADDRESS),
        };
        let settings = Settings { wire, idle: "adaptive", ..Settings::default() };
        // A TAP's other end is the kernel that kopid itself runs on.
        let within = (kind == "net_tap").then(|| netns.name().to_owned());
        let mut kopid = Kopid::start_as(&dir, &settings, &Launch { netns: within, ..Launch::default() });
        if kind == "net_tap" {
            netns.inside("ip", &["address", "add", "10.78.0.1/24", "dev", TAP]);
            netns.inside("ip", &["neigh", "replace", address, "lladdr", MAC, "dev", TAP]);
        } else {
            netns.neighbour(address, MAC);
            assert!(kopid.log().contains("1 of the interface's 4 receive queues"), "{}", kopid.log());
            netns.inside("ethtool", &["-L", INSIDE, "tx", "1"]);
        }
        let _sleeper = Sleeper::start(&dir, &kopid, "sleeper", MAC, false);
        assert!(!kopid.log().contains("two milliseconds"), "{kind} is not listened to: {}", kopid.log());
        // `net_tap` would lose one of three hundred if kopid did not wait for its signal.
        let count = if kind == "net_tap" { 3000 } else { 300 };
        let trips = echo_of(address, &netns, count, Duration::from_micros(1500));
        let late = trips.iter().filter(|trip| **trip > Duration::from_millis(90)).count();
        assert!(late < 4, "{kind}: {late} of {count} took as long as the worker's longest sleep");
        let worker = || kopid.status()["workers"][0].clone();
        wait_until("the worker sleeps", SOON, || worker()["asleep"].as_f64().expect("a share") > 0.9);
        assert!(kopid.stop().success());
    }
}

/// Who sleeps through the death of kopid is woken by the next one, without doing anything.
#[test]
fn sleeper_survives_the_daemon() {
    let (dir, netns, mut kopid) = start("wake-restart", "adaptive");
    let _sleeper = Sleeper::start(&dir, &kopid, "sleeper", MAC, false);
    for _ in 0..2 {
        assert_eq!(echo(&netns, 20, Duration::from_millis(1)).len(), 20);
        kopid.kill();
        kopid.restart();
        drop(kopid.await_app("sleeper"));
    }
    assert_eq!(echo(&netns, 20, Duration::from_millis(1)).len(), 20);
}

/// Fault 12: an app scribbles over the words by which both sides are woken, and rings its doorbell without pause. That costs
/// kopid's time and nothing else: another app sleeps, is woken and loses nothing.
#[test]
fn fault_12_scribbled_wakeup_words_harm_nobody_else() {
    // What is not in huge pages can be written to through its file.
    let settings = Settings { idle: "adaptive", huge_pages: "off", ..Settings::default() };
    let (dir, netns, mut kopid) = start_with("wake-evil", settings);
    let _sleeper = Sleeper::start(&dir, &kopid, "sleeper", MAC, false);
    let mut client = Client::connect(&kopid.socket());
    let welcome = client.hello("evil", [2, 0, 0, 0, 0, 0x66]);
    let (region, doorbell) = client.setup_sleeping(&small());
    client.settings(welcome.mac);
    let doorbell = doorbell.expect("kopid sleeps, so it has one");
    let layout = region.geometry().layout();
    let words = [WAKE_FUTEX_OFFSET, layout.tx[0].offset + 256, layout.rx[0].offset + 256];
    let vandal = Vandal::new(&region);
    let done = AtomicBool::new(false);
    let trips = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(5);
            while !done.load(Relaxed) {
                for at in words {
                    let value = random.next();
                    // Mostly states that mean something.
                    let value = if value & 3 == 0 { value >> 32 } else { value % 3 };
                    vandal.write_u32(at, u32::try_from(value).expect("32 bits"));
                }
                doorbell.ring();
                doorbell.quiet();
            }
        });
        let trips = std::panic::catch_unwind(|| echo(&netns, 500, Duration::from_millis(1)));
        done.store(true, Relaxed);
        trips
    });
    let trips = trips.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(trips.iter().all(|trip| *trip < Duration::from_millis(900)), "a sleeper was forgotten");
    assert!(kopid.process().ended().is_none());
    drop(kopid.await_app("evil"));
}

//! All that one user can do to others, at once: they have their share of the wire, wait no longer, attach, and are answered.

use crate::descriptors::Lingering;
use crate::time::{SlowWire, apps};
use crate::wakeups::{Crowd, keep_off_workers};
use kopi_ring::Geometry;
use kopi_ring::layout::{DEFAULT_SLOT, Notes};
use kopi_ring::message::{Mac, Message, Settings as PortSettings};
use kopi_testkit::Kopid;
use kopi_testkit::evil::{Client, as_user, hello, small};
use kopi_testkit::load::Load;
use rustix::process::setpriority_process;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// The attacker, with as many more users as a range of subordinate uids has, the one who shares the wire, and one who measures.
const EVE: u32 = 4_244_001;
const ALICE: u32 = 4_245_001;
const BOB: u32 = 4_246_001;
const PROBE: [Mac; 2] = [[2, 0, 0, 0x77, 0, 1], [2, 0, 0, 0x77, 0, 2]];

/// What threads of the attacker's have in common.
#[derive(Clone, Copy)]
struct Attack<'a> {
    kopid: &'a Kopid,
    stop: &'a AtomicBool,
    /// Rounds that they have made.
    rounds: &'a AtomicU32,
}

impl<'a> Attack<'a> {
    /// Does `act` without pause, as user `uid`. On a host attackers have CPUs of their own. Here they share one with all of kopid but
    /// its worker, and with whoever measures, which is no doing of kopid's: so they are nice.
    fn start<'s>(self, scope: &'s Scope<'s, 'a>, uid: u32, mut act: impl FnMut(&Kopid) + Send + 'a) {
        scope.spawn(move || {
            keep_off_workers();
            setpriority_process(None, 10).expect("anybody may be nice");
            as_user(uid, || {
                while !self.stop.load(Relaxed) {
                    act(self.kopid);
                    self.rounds.fetch_add(1, Relaxed);
                }
            });
        });
    }
}

/// Tells other threads to end, however this one does.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Row 1: descriptors that take long to close.
fn linger(kopid: &Kopid) {
    if let Ok(client) = Client::try_connect(&kopid.socket()) {
        Lingering::new().send(client.socket());
    }
    thread::sleep(Duration::from_millis(20));
}

/// Rows 10 and 11: large rings, again and again, with as many ports as may be.
fn hoard(kopid: &Kopid) {
    let large = Geometry::new(&[4096; 14], &[4096; 14], DEFAULT_SLOT).expect("within the limits");
    let mut held = Vec::new();
    for _ in 0..4 {
        let Ok(mut client) = Client::try_connect(&kopid.socket()) else { return };
        if !matches!(client.ask(hello("", [0; 6])), Ok((Message::Welcome(_), _))) || client.try_setup(&large).is_err() {
            return;
        }
        held.push(client);
    }
}

/// Row 13: settings that change, and connections anew.
fn flip(kopid: &Kopid) {
    let mac: Mac = [2, 0, 0, 0x66, 2, 0];
    let Ok(mut client) = Client::try_connect(&kopid.socket()) else { return };
    if matches!(client.ask(hello("eve-flips", mac)), Ok((Message::Welcome(_), _))) {
        for round in 0..20 {
            let settings =
                PortSettings { mtu: 1500, macs: vec![mac], promiscuous: round % 2 == 0, ..PortSettings::default() };
            if client.ask(Message::Settings(settings)).is_err() {
                return;
            }
        }
    }
}

/// Row 14: what is no message.
fn break_protocol(kopid: &Kopid) {
    if let Ok(client) = Client::try_connect(&kopid.socket()) {
        client.send_raw(b"x", 0);
        drop(client.hear());
    }
}

/// The longest of `times` but for one in a hundred.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() - 1 - times.len() / 100]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long frames take from one app to another one, each of them alone, for about `time`.
fn waits(kopid: &Kopid, time: Duration) -> Vec<Duration> {
    let attach = |n: usize| as_user(BOB, || Client::attach(&kopid.socket(), &format!("probe-{n}"), PROBE[n], &small()));
    let ((_a, out), (_b, into)) = (attach(0), attach(1));
    let (mut tx, mut rx) = (out.tx_producer(0).expect("a ring"), into.rx_consumer(0).expect("a ring"));
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&PROBE[1]);
    frame[6..12].copy_from_slice(&PROBE[0]);
    let (mut waits, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < time {
        thread::sleep(Duration::from_millis(1));
        let sent = Instant::now();
        assert!(tx.free(1).is_ok_and(|free| free > 0) && tx.push(&frame, Notes::NONE));
        tx.publish();
        loop {
            assert!(sent.elapsed() < Duration::from_secs(5), "a frame does not arrive");
            // Broadcasts of the attacker's come by here, too.
            let mut mine = false;
            while let Ok(1..) = rx.poll() {
                while let Ok(Some(received)) = rx.next() {
                    let mut copy = [0; 2048];
                    let len = received.len() as usize;
                    rx.copy(&received, &mut copy[..len]);
                    mine |= copy[..12] == frame[..12];
                }
                rx.release();
            }
            if mine {
                break;
            }
        }
        waits.push(sent.elapsed());
    }
    waits
}

/// Rows 1, 2, 6 to 8 and 10 to 14 at once, from one user, on a wire that is a tenth of what is sent.
#[test]
fn one_user_does_all_at_once() {
    let wire = SlowWire::new(1, 1, None);
    let kopid = &wire.kopid;
    // Row 6: ports with many silent queues; rows 7 and 8: costly frames, of many apps, and broadcasts to many.
    let crowd = [
        vec![format!("h:{ALICE}:flood:size=1000")],
        apps(4, "silent", EVE, "silent:queues=16"),
        apps(2, "fresh", EVE, "fresh"),
        apps(2, "cast", EVE, "broadcast:size=1500"),
        apps(16, "full", EVE, "flood:size=1500:all=1"),
    ];
    let mut load = Load::start(&wire.dir, kopid, &crowd.concat());
    load.on("h");
    let alone = Load::rates(kopid, &["h"], Duration::from_secs(1))[0];
    let before = as_user(BOB, || waits(kopid, Duration::from_secs(1)));
    let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    let attack = Attack { kopid, stop: &stop, rounds: &rounds };
    // Row 2: an app that is expensive to answer.
    let mut evil = as_user(EVE, || Client::connect(&kopid.socket()));
    let _welcome = evil.hello("eve-crowd", [0; 6]);
    let crowd = Crowd::at(evil.socket().try_clone().expect("a descriptor"));
    thread::scope(|scope| {
        let _ended = Stop(&stop);
        for name in ["fresh", "cast", "full"] {
            load.on(name);
        }
        attack.start(scope, EVE, linger);
        attack.start(scope, EVE, hoard);
        attack.start(scope, EVE, flip);
        attack.start(scope, EVE, break_protocol);
        attack.start(scope, EVE, |_| {
            let settings = PortSettings { mtu: 1500, ..PortSettings::default() };
            drop(evil.ask(Message::Settings(settings)));
            thread::sleep(Duration::from_millis(20));
        });
        // Row 12: connections that say nothing.
        for uid in EVE + 1..EVE + 5 {
            let mut silent = VecDeque::new();
            attack.start(scope, uid, move |kopid| {
                silent.extend(Client::try_connect(&kopid.socket()));
                silent.drain(..silent.len().saturating_sub(60));
                thread::sleep(Duration::from_millis(2));
            });
        }
        let rate = Load::rates(kopid, &["h"], Duration::from_secs(2))[0];
        let (mut attaches, mut answers) = (Vec::new(), Vec::new());
        for round in 0..20 {
            let begun = Instant::now();
            as_user(ALICE, || drop(Client::attach(&kopid.socket(), &format!("alice-{round}"), [0; 6], &small())));
            attaches.push(begun.elapsed());
            let begun = Instant::now();
            assert!(kopid.kopictl(&["status"]).status.success(), "kopictl is not answered");
            answers.push(begun.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        let during = waits(kopid, Duration::from_secs(2));
        let report = format!(
            "rate {rate:.0} of {alone:.0}, attached in {:?}, answered in {:?}, waits {:?} and {:?} before, {} rounds",
            median(attaches.clone()),
            median(answers.clone()),
            p99(during.clone()),
            p99(before.clone()),
            rounds.load(Relaxed),
        );
        assert!(rate >= 0.45 * alone, "{report}");
        assert!(median(attaches) < Duration::from_millis(100), "{report}");
        assert!(median(answers) < Duration::from_millis(200), "{report}");
        assert!(p99(during) < p99(before) + Duration::from_millis(1), "{report}");
        assert!(rounds.load(Relaxed) > 100, "{report}");
        println!("{report}");
    });
    drop(crowd);
}

//! An app connects, asks and changes its port without pause: others attach, are answered, and keep their verdicts.

use kopi_ring::message::{Mac, Message, Settings as PortSettings};
use kopi_testkit::evil::{Client, as_user, small};
use kopi_testkit::{Kopid, Settings, TempDir, wait_until};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Users who do not like each other.
const EVE: u32 = 4_243_001;
const ALICE: u32 = 4_243_501;

/// Tells other threads to end, however this one does.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Pictures of the ports that workers were given so far.
fn pictures(kopid: &Kopid) -> u64 {
    kopid.status()["snapshots"].as_u64().expect("status says how many")
}

/// Four apps of a user change their ports, and connect anew, without pause. The workers get no more than a few pictures a second
/// by that, and another user's app attaches all the same.
#[test]
fn changes_of_a_user_are_few_in_a_second() {
    let dir = TempDir::new("flip");
    let settings = Settings { huge_pages: "off", log: "warn", limits: String::new(), ..Settings::default() };
    let kopid = Kopid::start(&dir, &settings);
    let (stop, changes) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for n in 0..4_u8 {
            let (kopid, stop, changes) = (&kopid, &stop, &changes);
            scope.spawn(move || {
                let mac: Mac = [2, 0, 0, 0x66, 0, n];
                let flip = || {
                    while !stop.load(Relaxed) {
                        let mut client = Client::connect(&kopid.socket());
                        // Refused, or not yet forgotten under its name: it tries again.
                        let asked = client.ask(kopi_testkit::evil::hello(&format!("eve-{n}"), mac));
                        if !matches!(asked, Ok((Message::Welcome(_), _))) || client.try_setup(&small()).is_err() {
                            thread::sleep(Duration::from_millis(5));
                            continue;
                        }
                        for round in 0..20 {
                            let promiscuous = round % 2 == 0;
                            let settings =
                                PortSettings { mtu: 1500, macs: vec![mac], promiscuous, ..PortSettings::default() };
                            if client.ask(Message::Settings(settings)).is_err() {
                                break;
                            }
                            changes.fetch_add(1, Relaxed);
                        }
                    }
                };
                as_user(EVE, flip);
            });
        }
        let _ended = Stop(&stop);
        // What a user has saved is used up first.
        thread::sleep(Duration::from_secs(2));
        let (before, begun) = (pictures(&kopid), Instant::now());
        let mut attaches = Vec::new();
        while begun.elapsed() < Duration::from_secs(2) {
            let attach = Instant::now();
            as_user(ALICE + u32::try_from(attaches.len()).expect("few"), || {
                drop(Client::attach(&kopid.socket(), "alice", [0; 6], &small()));
            });
            attaches.push(attach.elapsed());
            kopid.await_no_app("alice");
            thread::sleep(Duration::from_millis(200));
        }
        let (caused, seconds) = (pictures(&kopid) - before, begun.elapsed().as_secs() + 1);
        // Ten a second for the one user, and three for each of the others: rings, addresses, farewell.
        let due = 10 * seconds + 3 * attaches.len() as u64;
        assert!(caused < 2 * due, "{caused} pictures in {seconds} s, for {} attaches", attaches.len());
        attaches.sort_unstable();
        let attached = attaches[attaches.len() / 2];
        assert!(attached < Duration::from_millis(100), "attached after {attached:?}: {attaches:?}");
    });
    assert!(changes.load(Relaxed) > 4, "{} changes were made", changes.load(Relaxed));
}

/// Settings that say the same again are answered, and change nothing.
#[test]
fn same_settings_are_no_change() {
    let dir = TempDir::new("same");
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", ..Settings::default() });
    let mac: Mac = [2, 0, 0, 0x66, 1, 0];
    let (mut client, _region) = Client::attach(&kopid.socket(), "same", mac, &small());
    let before = pictures(&kopid);
    for _ in 0..100 {
        client.settings(mac);
    }
    assert_eq!(pictures(&kopid), before);
}

/// Connections that say nothing, under three hundred uids, keep nobody out: who has been silent for longest makes room.
#[test]
fn silent_connections_keep_nobody_out() {
    let dir = TempDir::new("silent");
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", log: "error", ..Settings::default() });
    let silent = |user: u32| as_user(user, || Client::connect(&kopid.socket()));
    let mut crowd: Vec<Client> = (0..300).map(|n| silent(EVE + 1000 + n)).collect();
    for round in 0..20_u32 {
        crowd.extend((0..10).map(|n| silent(EVE + 2000 + 10 * round + n)));
        let begun = Instant::now();
        as_user(ALICE, || drop(Client::attach(&kopid.socket(), "alice", [0; 6], &small())));
        assert!(begun.elapsed() < Duration::from_secs(1), "attached after {:?}", begun.elapsed());
        kopid.await_no_app("alice");
    }
    assert!(crowd[0].refusal().contains("silent for longest"));
}

/// A kopid that was away, here stopped for longer than a hello may take, hears those who have said it meanwhile.
#[test]
fn hello_that_kopid_was_too_late_to_hear_counts() {
    let dir = TempDir::new("away");
    let mut kopid = Kopid::start(&dir, &Settings { huge_pages: "off", ..Settings::default() });
    let mut client = Client::connect(&kopid.socket());
    wait_until("it is accepted", Duration::from_secs(5), || kopid.status()["connections"] == 1);
    kopid.process().signal(Signal::STOP);
    wait_until("kopid is stopped", Duration::from_secs(5), || kopid.process().is_stopped());
    assert!(client.say(kopi_testkit::evil::hello("patient", [0; 6])));
    thread::sleep(Duration::from_millis(2500));
    kopid.process().signal(Signal::CONT);
    assert!(matches!(client.hear(), Ok((Message::Welcome(_), None))));
}

//! What a peer can do wrong on the attach socket, faults 1 to 8: it is refused with a reason, and nothing is left of it.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::DEFAULT_SLOT;
use kopi_ring::message::{Envelope, MAX_MESSAGE, Mac, Message, Settings};
use kopi_ring::{Geometry, OLDEST_PROTOCOL, PROTOCOL};
use kopi_testkit::evil::{Client, MAX_FDS, Random, hello, small, tiny};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Settings as Config, TempDir, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, Instant};

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];

fn start(label: &str) -> (TempDir, Kopid) {
    let dir = TempDir::new(label);
    let kopid = Kopid::start(&dir, &Config { huge_pages: "off", ..Config::default() });
    (dir, kopid)
}

/// An app can still attach, and afterwards nothing is left but what was there before `act`.
fn leaves_nothing(kopid: &mut Kopid, act: impl FnOnce(&mut Kopid)) {
    let visit = |kopid: &Kopid| {
        drop(Client::attach(&kopid.socket(), "visitor", A, &small()));
        kopid.await_no_connections();
    };
    visit(kopid);
    let before = kopid.process().usage();
    act(kopid);
    kopid.await_no_connections();
    visit(kopid);
    kopid.process().await_usage(&before);
}

/// The packets of a good session, as bytes: hello, setup, mapped, settings, stop.
fn session() -> Vec<Vec<u8>> {
    let settings = Settings { mtu: 1500, macs: vec![A], ..Settings::default() };
    let (setup, settings) = (Message::Setup(tiny().into()), Message::Settings(settings));
    let messages = [hello("session", A), setup, Message::Mapped, settings, Message::Stop];
    let numbered =
        (1..).zip(messages).map(|(sequence, message)| Envelope { protocol: PROTOCOL, sequence, message }.encode());
    numbered.collect()
}

/// Plays packets and takes whatever comes back.
fn play(kopid: &Kopid, packets: &[Vec<u8>]) {
    // Under a crowd of connections of ours one more may be refused at once, which is an answer too.
    let Ok(client) = Client::try_connect(&kopid.socket()) else { return };
    for packet in packets {
        if !client.send_raw(packet, 0) || client.hear().is_err() {
            return;
        }
    }
}

/// Fault 1: a silent peer is refused after two seconds, and does not keep others from attaching meanwhile.
#[test]
fn fault_1_silent_peer_runs_out_of_time() {
    let (_dir, mut kopid) = start("silent");
    leaves_nothing(&mut kopid, |kopid| {
        let begun = Instant::now();
        let silent = Client::connect(&kopid.socket());
        drop(Client::attach(&kopid.socket(), "talker", A, &small()));
        assert!(begun.elapsed() < Duration::from_secs(2), "the silent peer holds others up");
        assert!(silent.refusal().contains("no hello in time"));
        assert!(begun.elapsed() < Duration::from_secs(4), "the silent peer may stay too long");
    });
}

/// Fault 1: whoever sends a byte at a time is refused at the first, for a packet is a whole message.
#[test]
fn fault_1_single_bytes_are_refused() {
    let (_dir, mut kopid) = start("bytes");
    leaves_nothing(&mut kopid, |kopid| {
        for byte in &session()[0] {
            let client = Client::connect(&kopid.socket());
            assert!(client.send_raw(&[*byte], 0));
            assert!(client.refusal().contains("ends early"));
        }
    });
}

/// Fault 1: of 5,000 connections at once most make room for others, and operators are served all the time.
#[test]
fn fault_1_crowd_of_connections_is_capped() {
    let (_dir, mut kopid) = start("crowd");
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.map(|max| max.min(16384)), ..limit })
        .expect("a limit can be raised up to its maximum");
    let crowd = |kopid: &mut Kopid| {
        let mut crowd = Vec::new();
        let mut slowest = Duration::ZERO;
        for n in 0..5000 {
            crowd.push(wait_for("the listener accepts", SOON, || Client::try_connect(&kopid.socket()).ok()));
            if n % 500 == 0 {
                let asked = Instant::now();
                let connections = kopid.status()["connections"].as_u64();
                assert!(connections.is_some_and(|n| n <= 256), "{connections:?} half-open connections");
                slowest = slowest.max(asked.elapsed());
            }
        }
        assert!(slowest < Duration::from_secs(1), "an operator waited {slowest:?}");
        // Who has been silent for longest makes room for who comes.
        assert!(crowd.first().expect("there were 5,000").refusal().contains("too many connections"));
        drop(Client::attach(&kopid.socket(), "talker", A, &small()));
    };
    // A first crowd leaves gaps in the heap, which the C library keeps for the next one. What grows with each is a leak.
    crowd(&mut kopid);
    leaves_nothing(&mut kopid, crowd);
}

/// Fault 2: what is not a message, or not one that belongs here, is refused and the connection closed.
#[test]
fn fault_2_garbage_is_refused() {
    let (_dir, mut kopid) = start("garbage");
    leaves_nothing(&mut kopid, |kopid| {
        let mut random = Random::new(2);
        let sizes = [1, 3, 11, 12, 13, 100, MAX_MESSAGE, MAX_MESSAGE + 1, 65536];
        for size in sizes.iter().cycle().take(500) {
            let mut packet = vec![0; *size];
            random.fill(&mut packet);
            let client = Client::connect(&kopid.socket());
            assert!(client.send_raw(&packet, 0));
            assert!(!client.refusal().is_empty(), "{size} bytes of garbage");
        }
        // A packet of no bytes looks like the end of the connection, and is taken as that.
        let client = Client::connect(&kopid.socket());
        assert!(client.send_raw(&[], 0));
        assert!(client.hear().is_err());
    });
}

/// Fault 2: every single-bit error in a recorded good session, and every order of its messages, is survived.
#[test]
fn fault_2_damaged_sessions_leave_nothing() {
    let (_dir, mut kopid) = start("replay");
    let good = session();
    leaves_nothing(&mut kopid, |kopid| {
        play(kopid, &good);
        for (at, packet) in good.iter().enumerate() {
            for bit in 0..packet.len() * 8 {
                let mut damaged = good.clone();
                damaged[at][bit / 8] ^= 1 << (bit % 8);
                play(kopid, &damaged);
            }
        }
        // Every sequence of three out of the four: reordered, repeated and dropped.
        for order in 0..64_usize {
            play(kopid, &[order % 4, order / 4 % 4, order / 16].map(|at| good[at].clone()));
        }
    });
}

/// Fault 3: file descriptors that nobody asked for are refused by the kernel, or closed, whatever message they come with.
#[test]
fn fault_3_surplus_descriptors_are_closed() {
    let (_dir, mut kopid) = start("fds");
    leaves_nothing(&mut kopid, |kopid| {
        let good = session();
        for fds in [1, 2, 3, 16, 100, MAX_FDS] {
            for step in 0..good.len() {
                let client = Client::connect(&kopid.socket());
                for packet in &good[..step] {
                    assert!(client.send_raw(packet, 0) && client.hear().is_ok());
                }
                if !client.send_raw(&good[step], fds) {
                    // Linux 6.16 and later. The connection goes on as if nothing had been sent.
                    assert!(client.send_raw(&good[step], 0) && client.hear().is_ok());
                    continue;
                }
                let refusal = client.refusal();
                assert!(refusal.contains("unexpected file descriptors"), "{fds} at step {step}: {refusal}");
            }
        }
    });
}

/// Fault 4: another version of the protocol is refused, and the refusal names both.
#[test]
fn fault_4_other_versions_are_refused() {
    let (_dir, mut kopid) = start("version");
    leaves_nothing(&mut kopid, |kopid| {
        for version in [0, OLDEST_PROTOCOL - 1, PROTOCOL + 1, 9999] {
            let mut packet = session()[0].clone();
            packet[4..6].copy_from_slice(&version.to_le_bytes());
            let client = Client::connect(&kopid.socket());
            assert!(client.send_raw(&packet, 0));
            let refusal = client.refusal();
            let both = format!("peer speaks ring protocol {version}, this side speaks {OLDEST_PROTOCOL} to {PROTOCOL}");
            assert!(refusal.contains(&both), "{refusal}");
            // The log names both, too.
            kopid.await_log(&both);
        }
    });
}

/// A client may say that it has mapped its rings twice, and before it has any: then it is told so. What its version does not know, or
/// another version than that of its hello, ends its own connection.
#[test]
fn mapped_out_of_place_harms_nobody_else() {
    let (_dir, mut kopid) = start("mapped");
    leaves_nothing(&mut kopid, |kopid| {
        let (mut other, _rings) = Client::attach(&kopid.socket(), "other", B, &small());
        let mut client = Client::connect(&kopid.socket());
        drop(client.hello("early", A));
        match client.ask(Message::Mapped) {
            Ok((Message::Refused(why), None)) => assert!(why.contains("no rings that could be mapped"), "{why}"),
            answer => panic!("{answer:?}"),
        }
        let _region = client.setup(&small());
        for _ in 0..2 {
            assert!(matches!(client.ask(Message::Mapped), Ok((Message::Done, None))));
        }
        assert!(matches!(client.ask(Message::Stop), Ok((Message::Done, None))));
        assert!(matches!(client.ask(Message::Mapped), Ok((Message::Refused(_), None))));
        // What it never has said to be mapped is not served.
        let _region = client.setup_unsealed(&small());
        client.settings(A);
        let early = kopid.app("early").expect("it is attached");
        assert_eq!((&early["sealed"], &early["state"]), (&false.into(), &"stopped".into()));

        let (mut client, _region) = Client::attach_old(&kopid.socket(), "old", [2, 0, 0, 0, 0, 12], &small());
        assert!(client.say(Message::Mapped));
        let refusal = client.refusal();
        assert!(refusal.contains("unknown message kind 10"), "{refusal}");

        let mut client = Client::connect(&kopid.socket()).old();
        drop(client.hello("changing", [2, 0, 0, 0, 0, 13]));
        assert!(client.send_raw(&Envelope { protocol: PROTOCOL, sequence: 2, message: Message::Stop }.encode(), 0));
        let refusal = client.refusal();
        assert!(refusal.contains("of ring protocol 3, the hello was of 2"), "{refusal}");
        other.settings(B);
    });
}

/// The bytes of a request for rings, whatever their sizes.
fn setup(tx: &[u32], rx: &[u32], slot_size: u32) -> Vec<u8> {
    let mut packet = Envelope { protocol: PROTOCOL, sequence: 2, message: Message::Setup(small().into()) }.encode();
    packet.truncate(12);
    packet.extend(slot_size.to_le_bytes());
    for sizes in [tx, rx] {
        packet.extend(u16::try_from(sizes.len()).expect("few").to_le_bytes());
        packet.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    }
    // Each queue has one ring, and it does not sleep.
    packet.extend([1, 0, 0]);
    packet
}

/// Fault 5: sizes outside the limits are refused, and the refusal names the limit.
#[test]
fn fault_5_bad_sizes_are_refused_with_the_limit() {
    let (_dir, mut kopid) = start("sizes");
    leaves_nothing(&mut kopid, |kopid| {
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (setup(&[], &[512], DEFAULT_SLOT), "1 to 16"),
            (setup(&[512], &[], DEFAULT_SLOT), "1 to 16"),
            (setup(&[512; 17], &[512], DEFAULT_SLOT), "1 to 16"),
            (setup(&[512], &[512; 65], DEFAULT_SLOT), "1 to 16"),
            (setup(&[0], &[512], DEFAULT_SLOT), "64 to 8192"),
            (setup(&[3], &[512], DEFAULT_SLOT), "64 to 8192"),
            (setup(&[512], &[65536], DEFAULT_SLOT), "64 to 8192"),
            (setup(&[512], &[512], 0), "256 to 16384"),
            (setup(&[512], &[512], 64), "256 to 16384"),
            (setup(&[512], &[512], 300), "multiple of 128"),
            (setup(&[512], &[512], u32::MAX), "256 to 16384"),
        ];
        for (packet, limit) in cases {
            let mut client = Client::connect(&kopid.socket());
            drop(client.hello("sizes", A));
            assert!(client.send_raw(&packet, 0));
            let refusal = client.refusal();
            assert!(refusal.contains(limit), "`{refusal}` does not name {limit}");
        }
        // Within the protocol's limits but above the configured ones: refused, and the app may ask for less.
        let mut client = Client::connect(&kopid.socket());
        drop(client.hello("sizes", A));
        for (packet, limit) in
            [(setup(&[8192], &[64], 2048), "4096"), (setup(&[4096; 16], &[4096; 16], 2048), "memory")]
        {
            assert!(client.send_raw(&packet, 0));
            match client.hear() {
                Ok((Message::Refused(why), None)) => assert!(why.contains(limit), "`{why}` does not name {limit}"),
                other => panic!("{other:?}"),
            }
        }
        // Rings that no worker of this kopid would fill.
        let lanes = Geometry::new(&[64], &[64; 2], DEFAULT_SLOT).and_then(|rings| rings.with_lanes(2)).expect("few");
        let why = client.try_setup(&lanes).expect_err("there is one worker");
        assert!(why.contains("1 for each queue"), "{why}");
        drop(client.setup(&small()));
    });
}

/// Fault 6: a peer may go at every step, with and without having read the answer.
#[test]
fn fault_6_leaving_at_any_step_leaves_nothing() {
    let (_dir, mut kopid) = start("leaving");
    leaves_nothing(&mut kopid, |kopid| {
        let good = session();
        for step in 0..=good.len() {
            for _ in 0..50 {
                play(kopid, &good[..step]);
                let client = Client::connect(&kopid.socket());
                for packet in &good[..step] {
                    // It may have been refused, because the name of the one before is still taken.
                    client.send_raw(packet, 0);
                }
            }
        }
    });
}

/// Fault 7: no more apps than configured, and no name or address twice; each refusal says why.
#[test]
fn fault_7_limits_and_names_are_kept() {
    let dir = TempDir::new("limits");
    let kopid = Kopid::start(&dir, &Config { apps: 3, huge_pages: "off", ..Config::default() });
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&kopid.socket())).collect();
    let mut late = clients.pop().expect("there are four");
    for (n, client) in (1_u8..).zip(&mut clients) {
        drop(client.hello(&format!("app-{n}"), [2, 0, 0, 0, 1, n]));
    }
    assert!(late.say(hello("app-4", A)));
    let refusal = late.refusal();
    assert!(refusal.contains('3'), "`{refusal}` does not name the limit");

    drop(clients.pop());
    kopid.await_no_app("app-3");
    let cases = [
        (hello("app-1", A), "app-1"),
        (hello("app-9", [2, 0, 0, 0, 1, 2]), "app-2"),
        (hello("a name", A), "a name"),
        (hello("app-9", [0xff; 6]), "ff:ff:ff:ff:ff:ff"),
    ];
    for (message, reason) in cases {
        let mut client = Client::connect(&kopid.socket());
        assert!(client.say(message));
        let refusal = client.refusal();
        assert!(refusal.contains(reason), "`{refusal}` does not say {reason}");
    }
    assert_eq!(kopid.ask("apps").len(), 2);
}

/// Fault 8: a second kopid on the same sockets says who is there and goes; the socket of a dead one is replaced.
#[test]
fn fault_8_second_daemon_goes_and_stale_socket_is_replaced() {
    let (_dir, mut kopid) = start("second");
    let second = kopid.start_second();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&format!("already running (pid {})", kopid.process().pid())), "{text}");
    drop(Client::attach(&kopid.socket(), "still-there", A, &small()));

    kopid.kill();
    assert!(kopid.socket().exists(), "a killed daemon cannot remove its socket");
    kopid.restart();
    drop(Client::attach(&kopid.socket(), "next", A, &small()));
    assert!(kopid.stop().success());
    assert!(!kopid.socket().exists() && !kopid.control().exists(), "a clean stop removes the sockets");
}

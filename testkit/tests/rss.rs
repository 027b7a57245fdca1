//! How frames are spread over the queues of an application: as it has chosen for their connection, and by nothing else.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::Notes;
use kopi_ring::message::{Message, Rss};
use kopi_ring::{Geometry, Producer};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Ends, Mac, UDP, arp, ethernet, flags, framed, from_hex, to_hex};
use kopi_testkit::netns::Netns;
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::{SOON, wait_for, wait_until};
use kopi_testkit::{Kopid, Settings, TempDir, Testpmd};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 9];
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const QUEUES: &str = "--rxq=4 --txq=4 --rx-offloads=0x80000";

/// Flags of TCP become part of what flows are told apart by, and fragments and SYN are judged one by one.
const POLICY: &str = "default = { egress = \"accept\", ingress = \"accept\", attach = \"accept\" }\n\
    [[rule]]\nname = \"begins\"\naction = \"accept\"\n\
    match = { direction = \"ingress\", proto = \"tcp\", tcp_flags = \"syn/syn,ack,rst,fin\" }\n";

/// Two apps: one that sends what the test wants, and a testpmd with four queues that tells hash and queue of each frame.
struct Scene {
    client: Client,
    ring: Producer,
    testpmd: Testpmd,
    /// Frames received so far.
    received: usize,
}

impl Scene {
    fn new(dir: &TempDir, kopid: &Kopid) -> Self {
        let testpmd = receiver(dir, kopid);
        let (client, ring) = Self::sender(kopid);
        Self { client, ring, testpmd, received: 0 }
    }

    fn sender(kopid: &Kopid) -> (Client, Producer) {
        let (client, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
        let ring = region.tx_producer(0).expect("a region has a ring");
        drop(kopid.await_app("sender"));
        (client, ring)
    }

    /// Sends a frame, and returns the hash and the queue that the application gets it with.
    fn pass(&mut self, frame: &[u8]) -> (u32, u32) {
        self.ring.free(1).expect("kopid keeps to the contract");
        assert!(self.ring.push(frame, Notes::NONE), "the ring is empty");
        self.ring.publish();
        let at = self.received;
        self.received += 1;
        wait_for("the frame arrives", SOON, || received(&mut self.testpmd).get(at).copied())
    }

    /// Sends a packet of each connection, and checks that the application gets it as its key and its table say.
    fn check(&mut self, key: &[u8], table: &[u32; 128]) -> Vec<(u32, u32)> {
        let hash = |port: u16| toeplitz(key, &tuple(port));
        let seen: Vec<_> = (2000..2012).map(|port| self.pass(&connection(port)[1])).collect();
        for (port, seen) in (2000..2012).zip(&seen) {
            assert_eq!(*seen, (hash(port), table[hash(port) as usize % 128]), "port {port}");
        }
        seen
    }
}

/// A testpmd with four queues that tells hash and queue of each frame.
fn receiver(dir: &TempDir, kopid: &Kopid) -> Testpmd {
    let receiver = Options::new("receiver", "rxonly").mac("02:00:00:00:00:09").with(QUEUES);
    let mut testpmd =
        Testpmd::start(dir, kopid, &Options { devargs: format!("{},queues=4", receiver.devargs), ..receiver });
    // By itself it asks for addresses alone.
    testpmd.ask("port config all rss all");
    testpmd.ask("set verbose 1");
    testpmd.begin();
    drop(kopid.await_app("receiver"));
    testpmd
}

/// Hash and queue of all frames that a testpmd has received.
fn received(testpmd: &mut Testpmd) -> Vec<(u32, u32)> {
    let hex = |line: &str, key: &str| {
        let word = line.split(key).nth(1)?.split_whitespace().next()?;
        u32::from_str_radix(word, 16).ok()
    };
    let log = testpmd.process().log();
    log.lines().filter_map(|line| Some((hex(line, "RSS hash=0x")?, hex(line, "RSS queue=0x")?))).collect()
}

/// The key that the application is told.
fn key_of(testpmd: &mut Testpmd) -> Vec<u8> {
    let text = testpmd.ask("show port 0 rss-hash key");
    let digits = text.split("RSS key:").nth(1).and_then(|rest| rest.split_whitespace().next());
    digits.and_then(from_hex).unwrap_or_else(|| panic!("no key in:\n{text}"))
}

/// The table that the application is told.
fn table_of(testpmd: &mut Testpmd) -> [u32; 128] {
    let text = testpmd.ask("show port 0 rss reta 128 (0xffffffffffffffff,0xffffffffffffffff)");
    let queues = text.split("queue=").skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
    queues.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("no table of 128 entries:\n{text}"))
}

/// The Toeplitz hash by its definition.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let window = |begin| (begin..begin + 32).fold(0, |bits, at| bits << 1 | bit(key, at));
    (0..input.len() * 8).filter(|at| bit(input, *at) == 1).fold(0, |hash, at| hash ^ window(at))
}

/// What is hashed of a packet from `port` of ours to port 80 of the other end.
fn tuple(port: u16) -> Vec<u8> {
    [&HERE.octets()[..], &THERE.octets(), &port.to_be_bytes(), &80_u16.to_be_bytes()].concat()
}

fn ends(source: Ipv4Addr) -> Ends {
    Ends { source, destination: THERE, id: 7 }
}

/// A frame whose IP header has another value in one byte, and a right checksum all the same.
fn with(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet[10..12].fill(0);
    let sum = kopi_testkit::frames::checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    framed(RECEIVER, SENDER, &packet)
}

/// Frames of one TCP connection, which differ in all that packets of one connection may differ in.
fn connection(port: u16) -> Vec<Vec<u8>> {
    let segment = |flags| ends(HERE).tcp((port, 80), flags, (1, 1), b"kopi");
    let plain = || segment(flags::ACK);
    let mut options = plain();
    options.splice(20..20, [1; 4]);
    options[0] = 0x46;
    options[3] += 4;
    let kinds = [flags::SYN, flags::ACK, flags::ACK | flags::PSH, flags::ACK | flags::FIN, flags::RST];
    let mut frames: Vec<_> = kinds.into_iter().map(|kind| framed(RECEIVER, SENDER, &segment(kind))).collect();
    // DSCP, ECN, TTL, and the router that it came by.
    frames.extend([with(plain(), 1, 0xb8), with(plain(), 1, 0x01), with(plain(), 8, 3), with(options, 9, 6)]);
    frames.push(framed(RECEIVER, ROUTER, &plain()));
    frames.push(ethernet(RECEIVER, SENDER, 0x8100, &[&[0x60, 7, 8, 0][..], &plain()].concat()));
    frames
}

/// Queue and hash are those of a connection, whatever its packets differ in and whatever the policy looks at; of a fragmented
/// packet those of its addresses; and they are the same after kopid has come back.
#[test]
fn a_connection_stays_on_its_queue() {
    let dir = TempDir::new("rss");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let mut scene = Scene::new(&dir, &kopid);
    let mut queues = BTreeSet::new();
    let mut first = Vec::new();
    for port in 2000..2012 {
        let frames = connection(port);
        // All of them once: the others begin as this one does.
        let frames = if port == 2000 { &frames[..] } else { &frames[..2] };
        let seen: BTreeSet<_> = frames.iter().map(|frame| scene.pass(frame)).collect();
        assert_eq!(seen.len(), 1, "port {port}: {seen:x?}");
        queues.extend(seen.iter().map(|(_, queue)| *queue));
        first.extend(seen);
    }
    // The chance that twelve connections leave one of four queues out is 1 in 8.
    assert!(queues.len() >= 2, "{queues:?}");

    let datagram = [&[0xb, 0xb8, 0, 53, 0xb, 0xc0, 0, 0][..], &[0; 3000]].concat();
    let parts = [(0x2000, 0..1480), (0x2000 | 185, 1480..2960), (370, 2960..3008)];
    let parts =
        parts.map(|(offset, range)| framed(RECEIVER, SENDER, &ends(HERE).fragment(UDP, offset, &datagram[range])));
    let seen: BTreeSet<_> = parts.iter().map(|part| scene.pass(part)).collect();
    assert_eq!(seen.len(), 1, "fragments: {seen:x?}");
    let echoes = [ends(HERE).echo(8, 5, 1), ends(HERE).echo(0, 5, 1), ends(HERE).echo(8, 6, 2)];
    let seen: BTreeSet<_> = echoes.iter().map(|packet| scene.pass(&framed(RECEIVER, SENDER, packet))).collect();
    assert_eq!(seen.len(), 1, "echoes: {seen:x?}");
    assert_eq!(scene.pass(&arp(SENDER, 2, (SENDER, HERE), (RECEIVER, THERE))), (0, 0));
    let hashes: BTreeSet<_> = first.iter().map(|(hash, _)| *hash).collect();
    assert_eq!(hashes.len(), first.len(), "each connection has a hash of its own: {first:x?}");

    kopid.kill();
    kopid.restart();
    drop(kopid.await_app("receiver"));
    (scene.client, scene.ring) = Scene::sender(&kopid);
    for (port, before) in (2000..2012).zip(first) {
        assert_eq!(scene.pass(&connection(port)[1]), before, "port {port}, after kopid has come back");
    }
    scene.testpmd.quit();
}

/// An application's own key and table are what chooses the queue, from the next frame on; a flow moves when the table says so, and
/// the others stay; and all of it is the same after kopid has come back.
#[test]
fn a_flow_is_where_key_and_table_say() {
    let dir = TempDir::new("reta");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let mut scene = Scene::new(&dir, &kopid);
    let mut table = table_of(&mut scene.testpmd);
    assert_eq!(table, std::array::from_fn(|at| u32::try_from(at % 4).expect("small")));
    let usual = key_of(&mut scene.testpmd);
    assert_eq!(usual.len(), 40);
    scene.check(&usual, &table);

    let own: Vec<u8> = (0..40_u8).map(|n| n.wrapping_mul(151) ^ 0x6d).collect();
    scene.testpmd.ask(&format!("port config 0 rss-hash-key ipv4-tcp {}", to_hex(&own)));
    assert_eq!(key_of(&mut scene.testpmd), own);
    let seen = scene.check(&own, &table);

    // One flow moves to the next queue.
    let (hash, queue) = seen[0];
    let entry = usize::try_from(hash % 128).expect("small");
    table[entry] = (queue + 1) % 4;
    scene.testpmd.ask(&format!("port config 0 rss reta ({entry},{})", table[entry]));
    assert_eq!(table_of(&mut scene.testpmd), table);
    let moved = scene.check(&own, &table);
    assert_ne!(moved[0], seen[0]);

    // What there is not is refused, and nothing changes.
    let refused = scene.testpmd.ask(&format!("port config 0 rss reta ({entry},4)"));
    assert!(!refused.is_empty());
    assert_eq!(table_of(&mut scene.testpmd), table);

    // ARP has no hash, and is where the first entry says.
    table[0] = 2;
    scene.testpmd.ask("port config 0 rss reta (0,2)");
    assert_eq!(scene.pass(&arp(SENDER, 2, (SENDER, HERE), (RECEIVER, THERE))), (0, 2));

    kopid.kill();
    kopid.restart();
    drop(kopid.await_app("receiver"));
    (scene.client, scene.ring) = Scene::sender(&kopid);
    let back = scene.check(&own, &table);
    assert_eq!(back.len(), moved.len());
    assert_eq!(table_of(&mut scene.testpmd), table);

    // A type that is not asked for has no hash.
    scene.testpmd.ask("port config all rss udp");
    assert_eq!(scene.pass(&connection(2000)[1]), (0, 2));
    let udp = framed(RECEIVER, SENDER, &ends(HERE).udp((2000, 80), b"kopi"));
    let hash = toeplitz(&own, &tuple(2000));
    assert_eq!(scene.pass(&udp), (hash, table[hash as usize % 128]));
    scene.testpmd.quit();
}

/// With as many queues as workers, or a multiple, RSS alone chooses the queue of what the wire brings to each worker, and nothing
/// need be handed over.
#[test]
fn workers_do_not_choose_queues() {
    let dir = TempDir::new("rss-workers");
    let netns = Netns::new(1500);
    netns.neighbour("10.77.0.2", "02:00:00:00:00:09");
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 2));
    let mut testpmd = receiver(&dir, &kopid);
    let (key, table) = (key_of(&mut testpmd), table_of(&mut testpmd));
    let sockets: Vec<UdpSocket> = netns.enter(|| {
        let socket = || {
            let socket = UdpSocket::bind((HERE, 0)).expect("there are ports");
            socket.connect((THERE, 80)).expect("there is a route");
            socket
        };
        (0..32).map(|_| socket()).collect()
    });
    for socket in &sockets {
        assert!(socket.send(b"kopi").is_ok(), "the kernel takes it");
    }
    let expected: BTreeSet<_> = sockets
        .iter()
        .map(|socket| {
            let hash = toeplitz(&key, &tuple(socket.local_addr().expect("it is bound").port()));
            (hash, table[hash as usize % 128])
        })
        .collect();
    wait_until("all datagrams come", SOON, || {
        let seen: BTreeSet<_> = received(&mut testpmd).into_iter().collect();
        expected.is_subset(&seen)
    });
    // The kernel at the other end may have said something of its own.
    let others = received(&mut testpmd).into_iter().filter(|seen| !expected.contains(seen) && seen.0 != 0);
    assert_eq!(others.collect::<Vec<_>>(), []);
    assert_eq!(kopid.handed_over(), 0);
    testpmd.quit();
    assert!(kopid.stop().success());
}

/// A client of an older version, and one that says nothing, has the key that newer ones are told, all types and all queues in turn.
#[test]
fn who_does_not_choose_has_what_is_usual() {
    let dir = TempDir::new("rss-usual");
    let kopid = Kopid::start(&dir, &Settings::default());
    let key = Client::connect(&kopid.socket()).hello("key", [2, 0, 0, 0, 0, 5]).rss_key;
    let four = Geometry::new(&[64], &[64; 4], 2048).expect("a geometry");
    for old in [true, false] {
        let attach = if old { Client::attach_old } else { Client::attach };
        let (_receiver, region) = attach(&kopid.socket(), "receiver", RECEIVER, &four);
        let mut rings: Vec<_> = (0..4).map(|queue| region.rx_consumer(queue).expect("it has four rings")).collect();
        let (_client, mut ring) = Scene::sender(&kopid);
        drop(kopid.await_app("receiver"));
        for port in 2000..2012 {
            ring.free(1).expect("kopid keeps to the contract");
            assert!(ring.push(&connection(port)[1], Notes::NONE), "the ring is empty");
            ring.publish();
            let hash = toeplitz(&key, &tuple(port));
            let seen = wait_for("the frame arrives", SOON, || {
                rings.iter_mut().enumerate().find_map(|(queue, ring)| {
                    ring.poll().expect("kopid keeps to the contract");
                    let frame = ring.next().expect("kopid keeps to the contract")?;
                    let hash = frame.notes().hash();
                    ring.release();
                    Some((queue, hash))
                })
            });
            assert_eq!(seen, (hash as usize % 128 % 4, hash), "port {port}, old {old}");
        }
    }
}

/// Choices that cannot be are refused, and cost nobody but who makes them.
#[test]
fn hostile_choices_are_refused() {
    let dir = TempDir::new("rss-hostile");
    let kopid = Kopid::start(&dir, &Settings::default());
    let choice = |types, queue| {
        let mut table = [0; 128];
        table[77] = queue;
        Message::Rss(Rss { key: [1; 40], types, table })
    };
    let refused = |client: &mut Client, message| match client.ask(message) {
        Ok((Message::Refused(text), None)) => text,
        other => panic!("not refused: {other:?}"),
    };
    let mut client = Client::connect(&kopid.socket());
    let _welcome = client.hello("hostile", SENDER);
    assert!(refused(&mut client, choice(4, 0)).contains("ask for rings first"));
    let two = Geometry::new(&[64], &[64; 2], 2048).expect("a geometry");
    let _region = client.setup(&two);
    assert!(refused(&mut client, choice(4, 2)).contains("2 RX queues"));
    assert!(refused(&mut client, choice(1 << 63, 0)).contains("0x8000000000000000"));
    assert!(matches!(client.ask(choice(0, 1)), Ok((Message::Done, None))));
    // A queue that no port can have is no message, and older versions have no such message at all.
    assert!(client.say(choice(4, 16)));
    assert!(client.refusal().contains("queue 16"));
    let (mut old, _region) = Client::attach_old(&kopid.socket(), "old", RECEIVER, &small());
    assert!(old.say(choice(4, 0)));
    assert!(old.refusal().contains("14"));
    let (_client, _region) = Client::attach(&kopid.socket(), "next", SENDER, &small());
}

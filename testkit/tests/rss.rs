//! How frames are spread over the queues of an application: by their connection, and by nothing else.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Producer;
use kopi_ring::layout::Notes;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Ends, Mac, UDP, arp, ethernet, flags, framed};
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::{SOON, wait_for};
use kopi_testkit::{Kopid, Settings, TempDir, Testpmd};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

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
        let receiver = Options::new("receiver", "rxonly").mac("02:00:00:00:00:09").with(QUEUES);
        let mut testpmd =
            Testpmd::start(dir, kopid, &Options { devargs: format!("{},queues=4", receiver.devargs), ..receiver });
        testpmd.ask("set verbose 1");
        testpmd.tell("start", "packet forwarding");
        drop(kopid.await_app("receiver"));
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
        let hex = |line: &str, key: &str| {
            let word = line.split(key).nth(1)?.split_whitespace().next()?;
            u32::from_str_radix(word, 16).ok()
        };
        wait_for("the frame arrives", SOON, || {
            let log = self.testpmd.process().log();
            let line = log.lines().filter(|line| line.contains("RSS hash=")).nth(at)?;
            Some((hex(line, "RSS hash=0x")?, hex(line, "RSS queue=0x")?))
        })
    }
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

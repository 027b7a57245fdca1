//! Flow rules of an application (`rte_flow`), through testpmd and kopid: where frames go, what packets say, and that no rule brings
//! an application what the policy keeps from it.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Producer;
use kopi_ring::layout::Notes;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Ends, Mac, ethernet, flags, framed};
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::{SOON, wait_for};
use kopi_testkit::{Kopid, Settings, TempDir, Testpmd};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 9];
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const QUEUES: &str = "--rxq=4 --txq=4 --rx-offloads=0x80000";

/// Datagrams to port 666 are the operator's to drop.
const POLICY: &str = "default = { egress = \"accept\", ingress = \"accept\", attach = \"accept\" }\n\
    [[rule]]\nname = \"closed\"\naction = \"drop\"\n\
    match = { direction = \"ingress\", proto = \"udp\", dst_port = 666 }\n";

/// What testpmd says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    queue: u32,
    /// The hash, if there is one.
    hash: Option<u32>,
    /// The mark, if there is one.
    mark: Option<u32>,
}

/// Two apps: one that sends what the test wants, and a testpmd with four queues and flow rules that tells what it gets.
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
        let devargs = format!("{},queues=4", receiver.devargs);
        let mut testpmd = Testpmd::start(dir, kopid, &Options { devargs, ..receiver });
        testpmd.ask("set verbose 1");
        // By itself it asks for addresses alone.
        testpmd.ask("port config all rss all");
        testpmd.begin();
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

    /// Makes a rule, for ingress.
    fn rule(&mut self, rule: &str) {
        let answer = self.testpmd.ask(&format!("flow create 0 ingress {rule}"));
        assert!(answer.contains("created"), "{rule}:\n{answer}");
    }

    fn send(&mut self, frame: &[u8]) {
        self.ring.free(1).expect("kopid keeps to the contract");
        assert!(self.ring.push(frame, Notes::NONE), "the ring is empty");
        self.ring.publish();
    }

    /// Sends a frame that arrives, and returns what testpmd says of it.
    fn pass(&mut self, frame: &[u8]) -> Said {
        self.send(frame);
        let at = self.received;
        self.received += 1;
        let hex = |line: &str, key: &str| {
            let word = line.split(key).nth(1)?.split_whitespace().next()?;
            u32::from_str_radix(word, 16).ok()
        };
        wait_for("the frame arrives", SOON, || {
            let log = self.testpmd.process().log();
            let line = log.lines().filter(|line| line.contains("Receive queue=0x")).nth(at)?;
            let queue = hex(line, "Receive queue=0x")?;
            Some(Said { queue, hash: hex(line, "RSS hash=0x"), mark: hex(line, "FDIR matched ID=0x") })
        })
    }

    /// Sends a frame that does not arrive: one that is sent later does, and is the next.
    fn lose(&mut self, frame: &[u8]) {
        self.send(frame);
        let length = 200 + self.received;
        self.pass(&framed(RECEIVER, SENDER, &ends().udp((9, 9), &vec![0; length])));
        let log = self.testpmd.process().log();
        let last = log.lines().filter(|line| line.contains("Receive queue=0x")).nth(self.received - 1);
        let expected = format!("length={}", length + 42);
        assert!(last.is_some_and(|line| line.contains(&expected)), "{expected} was to come next:\n{last:?}");
    }

    /// What rule `number` of testpmd has counted: frames and bytes.
    fn count(&mut self, number: u32) -> (u64, u64) {
        let text = self.testpmd.ask(&format!("flow query 0 {number} count"));
        let value = |key: &str| {
            let word = text.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key} in:\n{text}"))
        };
        (value("hits: "), value("bytes: "))
    }
}

fn ends() -> Ends {
    Ends { source: HERE, destination: THERE, id: 7 }
}

/// A frame with a datagram between these ports, of 46 bytes.
fn udp(from: u16, to: u16) -> Vec<u8> {
    framed(RECEIVER, SENDER, &ends().udp((from, to), b"kopi"))
}

/// Rules choose queues and mark packets; the one with the lowest priority number holds; what they say nothing about goes by RSS as
/// before; and all of it is so again when kopid has come back.
#[test]
fn rules_choose_queues_and_mark() {
    let dir = TempDir::new("flow-queues");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let mut scene = Scene::new(&dir, &kopid);
    let before: Vec<_> = (2000..2008).map(|port| scene.pass(&udp(port, 80))).collect();
    assert!(before.iter().all(|said| said.hash.is_some() && said.mark.is_none()), "{before:?}");

    scene.rule("pattern eth / ipv4 src is 10.77.0.1 / udp dst is 53 / end actions queue index 3 / end");
    scene.rule("priority 1 pattern eth / ipv4 / udp / end actions mark id 77 / passthru / end");
    scene.rule("priority 2 pattern eth / ipv4 / udp src is 2001 / end actions queue index 0 / mark id 1 / end");
    scene.rule("pattern eth / vlan vid is 7 / end actions queue index 2 / mark id 7 / end");
    scene.rule("pattern eth / ipv4 / tcp dst is 22 / end actions queue index 1 / end");
    let check = |scene: &mut Scene| {
        for port in 3000..3008 {
            let said = scene.pass(&udp(port, 53));
            assert_eq!((said.queue, said.mark), (3, None), "{said:?}");
        }
        for (port, before) in (2000..2008).zip(&before) {
            let said = scene.pass(&udp(port, 80));
            assert_eq!(said, Said { queue: before.queue, hash: None, mark: Some(77) }, "port {port}");
        }
        let tagged =
            ethernet(RECEIVER, SENDER, 0x8100, &[&[0x60, 7, 8, 0][..], &ends().udp((1, 54), b"kopi")].concat());
        assert_eq!(scene.pass(&tagged), Said { queue: 2, hash: None, mark: Some(7) });
        let segment = |port| framed(RECEIVER, SENDER, &ends().tcp((9, port), flags::ACK, (1, 1), b"kopi"));
        assert_eq!(scene.pass(&segment(22)).queue, 1);
        assert!(scene.pass(&segment(23)).hash.is_some(), "no rule is for it");
    };
    check(&mut scene);
    kopid.kill();
    kopid.restart();
    drop(kopid.await_app("receiver"));
    (scene.client, scene.ring) = Scene::sender(&kopid);
    check(&mut scene);

    scene.testpmd.ask("flow flush 0");
    for (port, before) in (2000..2008).zip(&before) {
        assert_eq!(scene.pass(&udp(port, 80)), *before, "port {port}, without rules");
    }
    let queues: BTreeSet<_> = (3000..3012).map(|port| scene.pass(&udp(port, 53)).queue).collect();
    assert!(queues.len() >= 2, "{queues:?}");
    scene.testpmd.quit();
}

/// Rules drop and count, in kopid or in the driver; counts can be set back; a rule that goes leaves everything as it was.
#[test]
fn rules_drop_and_count() {
    let dir = TempDir::new("flow-drops");
    let kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let mut scene = Scene::new(&dir, &kopid);
    scene.rule("pattern eth / ipv4 / udp dst is 53 / end actions drop / end");
    scene.rule("pattern eth / ipv4 / udp dst is 54 / end actions drop / count / end");
    scene.rule("pattern eth / ipv4 / udp dst is 55 / end actions count / end");
    scene.rule("pattern eth / ipv4 / icmp type is 8 / end actions drop / end");
    for port in 2000..2010 {
        scene.lose(&udp(port, 53));
        scene.lose(&udp(port, 54));
        scene.pass(&udp(port, 55));
    }
    scene.lose(&framed(RECEIVER, SENDER, &ends().echo(8, 5, 1)));
    scene.pass(&framed(RECEIVER, SENDER, &ends().echo(0, 5, 1)));
    let bytes = udp(1, 1).len() as u64;
    assert_eq!((scene.count(1), scene.count(2)), ((10, 10 * bytes), (10, 10 * bytes)));
    scene.pass(&udp(1, 55));
    assert_eq!((scene.count(1), scene.count(2)), ((10, 10 * bytes), (11, 11 * bytes)));
    let dropped = scene.testpmd.xstats().into_iter().find(|(name, _)| name == "rx_kopi_flow_dropped");
    assert_eq!(dropped, Some(("rx_kopi_flow_dropped".into(), 10)));

    for rule in [0, 1] {
        scene.testpmd.tell(&format!("flow destroy 0 rule {rule}"), "destroyed");
    }
    assert!(scene.pass(&udp(2000, 53)).hash.is_some());
    assert!(scene.pass(&udp(2000, 54)).hash.is_some());
    assert_eq!(scene.count(2), (11, 11 * bytes));
    scene.testpmd.quit();
}

/// What the policy keeps from an application, no rule brings: with rules for it as without.
#[test]
fn no_rule_widens_the_policy() {
    let dir = TempDir::new("flow-policy");
    let kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let mut scene = Scene::new(&dir, &kopid);
    scene.lose(&udp(2000, 666));
    scene.rule("pattern eth / ipv4 / udp dst is 666 / end actions queue index 1 / mark id 6 / count / end");
    scene.rule("priority 1 pattern eth / end actions passthru / count / end");
    for port in 2000..2010 {
        scene.lose(&udp(port, 666));
    }
    assert_eq!(scene.count(0), (0, 0));
    // The frames that `lose` sends after each.
    assert_eq!(scene.count(1).0, 10);
    let stranger = [2, 0, 0, 0, 0, 0x55];
    scene.rule("pattern eth dst is 02:00:00:00:00:55 / end actions queue index 1 / end");
    scene.testpmd.ask("set promisc 0 off");
    scene.lose(&framed(stranger, SENDER, &ends().udp((1, 1), b"kopi")));
    assert_eq!(kopid.rule("closed"), 11);
    scene.testpmd.quit();
}

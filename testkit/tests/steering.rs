//! What an application's choice of RSS and its flow rules cost others, and what becomes of rules where workers or queues are other ones.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_packet::{AddressPattern, FlowPattern, IpPattern, Masked, PortsPattern, TransportPattern};
use kopi_ring::layout::Notes;
use kopi_ring::message::{ALL_FLOW_RULES, FlowAction, FlowRule, Message, Rss};
use kopi_ring::{Consumer, Geometry, Producer};
use kopi_testkit::evil::{Client, as_user, small};
use kopi_testkit::frames::{Ends, Mac, framed};
use kopi_testkit::wait::{SOON, wait_for, wait_until};
use kopi_testkit::{Kopid, Settings, TempDir};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 9];
const BUSY: Mac = [2, 0, 0, 0, 0, 0x66];
const EVERYBODY: Mac = [0xff; 6];

/// Who is not the user of the other apps.
const STRANGER: u32 = 4242;

/// A datagram between these ports.
fn udp(to: Mac, from_port: u16, to_port: u16) -> Vec<u8> {
    let ends = Ends { source: Ipv4Addr::new(10, 77, 0, 1), destination: Ipv4Addr::new(10, 77, 0, 2), id: 7 };
    framed(to, SENDER, &ends.udp((from_port, to_port), b"kopi"))
}

/// A rule for datagrams to a port.
fn rule(slot: u16, to_port: u16, queue: Option<u16>, told: bool) -> Message {
    let ports = PortsPattern { src: Masked::default(), dst: Masked::new(to_port, 0xffff) };
    let addresses = AddressPattern::V4 { src: Masked::default(), dst: Masked::default() };
    let ip = Some(IpPattern { addresses, transport: TransportPattern::Udp(ports) });
    let pattern = FlowPattern { ip, ..FlowPattern::default() };
    Message::FlowRule(Box::new(FlowRule { slot, priority: 0, pattern, action: FlowAction::Pass, queue, told }))
}

fn agree(client: &mut Client, message: Message) {
    let answer = client.ask(message);
    assert!(matches!(answer, Ok((Message::Done, None))), "{answer:?}");
}

fn send(ring: &mut Producer, frame: &[u8]) {
    ring.free(1).expect("kopid keeps to the contract");
    assert!(ring.push(frame, Notes::NONE), "the ring is empty");
    ring.publish();
}

/// The next frame of one of the rings: which ring, and its notes.
fn take(rings: &mut [Consumer]) -> Option<(usize, Notes)> {
    rings.iter_mut().enumerate().find_map(|(queue, ring)| {
        ring.poll().expect("kopid keeps to the contract");
        let frame = ring.next().expect("kopid keeps to the contract")?;
        let notes = frame.notes();
        ring.release();
        Some((queue, notes))
    })
}

/// The settings that an administrator has who has set none: the limits are those of kopid.
fn usual() -> Settings {
    Settings { limits: String::new(), ..Settings::default() }
}

/// Tells a thread to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Changes RSS and flow rules by turns, with an answer to each, until told to stop. Counts the changes.
fn change_all_the_time(client: &mut Client, stop: &AtomicBool, changes: &AtomicU32) {
    while !stop.load(Relaxed) {
        let made = changes.load(Relaxed);
        let message = match made % 4 {
            0 | 2 => Message::Rss(Rss { key: [1; 40], types: 1 << 2, table: [u8::from(made.is_multiple_of(4)); 128] }),
            1 => rule(7, 53, Some(3), true),
            _ => Message::FlowRuleGone(ALL_FLOW_RULES),
        };
        agree(client, message);
        changes.store(made + 1, Relaxed);
    }
}

/// Fault 52: an app that changes RSS and flow rules without pause has others' flows evaluated anew as often as its user may, and
/// no more; they lose nothing, and nothing of theirs waits for it.
#[test]
fn changes_without_pause_cost_others_nothing() {
    let dir = TempDir::new("steering-churn");
    let kopid = Kopid::start(&dir, &usual());
    let (_sender, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
    let mut out = region.tx_producer(0).expect("a region has a ring");
    let (_receiver, region) = Client::attach(&kopid.socket(), "receiver", RECEIVER, &small());
    let mut into = [region.rx_consumer(0).expect("a region has a ring")];
    let four = Geometry::new(&[64], &[64; 4], 2048).expect("a geometry");
    let (stop, changes, socket) = (AtomicBool::new(false), AtomicU32::new(0), kopid.socket());
    let before = kopid.status()["snapshots"].as_u64().expect("a number");
    let begin = Instant::now();
    let longest = std::thread::scope(|scope| {
        scope.spawn(|| {
            as_user(STRANGER, || {
                let (mut busy, _region) = Client::attach(&socket, "busy", BUSY, &four);
                change_all_the_time(&mut busy, &stop, &changes);
            });
        });
        let _stop = Stop(&stop);
        let (mut frames, mut longest) = (0_u32, Duration::ZERO);
        // More than its user has saved: the last ones have to wait.
        while changes.load(Relaxed) < 120 {
            let sent = Instant::now();
            send(&mut out, &udp(RECEIVER, 2000 + u16::try_from(frames % 64).expect("small"), 80));
            let _frame = wait_for("the frame arrives", SOON, || take(&mut into));
            longest = longest.max(sent.elapsed());
            frames += 1;
            assert!(begin.elapsed() < Duration::from_secs(60), "{changes:?} changes in a minute");
        }
        longest
    });
    assert!(take(&mut into).is_none(), "nothing comes twice");
    let snapshots = kopid.status()["snapshots"].as_u64().expect("a number") - before;
    // Forty at once, ten in a second, a few for coming and going.
    let allowed = 40.0 + 10.0 * begin.elapsed().as_secs_f64() + 10.0;
    assert!(f64::from(u32::try_from(snapshots).expect("few")) <= allowed, "{snapshots} in {:?}", begin.elapsed());
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert_eq!(kopid.await_app("receiver")["drops"], 0);
}

/// 256 rules, made one after the other on a port that runs, are in force soon: they share snapshots. Each has its answer.
#[test]
fn many_rules_share_snapshots() {
    let dir = TempDir::new("steering-many");
    let kopid = Kopid::start(&dir, &usual());
    let (mut receiver, region) = Client::attach(&kopid.socket(), "receiver", RECEIVER, &small());
    let mut into = [region.rx_consumer(0).expect("a region has a ring")];
    let (_sender, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
    let mut out = region.tx_producer(0).expect("a region has a ring");
    let snapshots = || kopid.status()["snapshots"].as_u64().expect("a number");
    let before = snapshots();
    let begin = Instant::now();
    for slot in 0..256 {
        agree(&mut receiver, rule(slot, 1000 + slot, None, true));
    }
    wait_until("the last rule is in force", SOON, || {
        send(&mut out, &udp(RECEIVER, 2000, 1255));
        let (_, notes) = wait_for("the frame arrives", SOON, || take(&mut into));
        notes.is_steered() && notes.slot() == 255
    });
    let all = begin.elapsed();
    let snapshots = snapshots() - before;
    assert!(
        all < Duration::from_secs(10),
        "{all:?}, {snapshots} snapshots: each had to wait for a change of its user's"
    );
    assert!(snapshots < 128, "{snapshots} snapshots in {all:?}");
    // Who has little left may go on.
    let apps = kopid.ask("apps");
    assert!(apps.iter().any(|app| app["name"] == "receiver" && app["flow_rules"] == 256), "{apps:?}");
    agree(&mut receiver, Message::FlowRuleGone(ALL_FLOW_RULES));
    wait_until("no rule is in force", SOON, || {
        send(&mut out, &udp(RECEIVER, 2000, 1255));
        !wait_for("the frame arrives", SOON, || take(&mut into)).1.is_steered()
    });
}

/// With two workers a rule holds for what comes by either, and its queue has it. When the app has other rings with fewer queues,
/// RSS has what was for a queue that is no more, and is still told of.
#[test]
fn rules_hold_over_workers_and_fewer_queues() {
    let dir = TempDir::new("steering-workers");
    let kopid = Kopid::start(&dir, &Settings { workers: 2, ..Settings::default() });
    let queues = |tx: usize, rx: usize| Geometry::new(&vec![64; tx], &vec![64; rx], 2048).expect("a geometry");
    let (_sender, region) = Client::attach(&kopid.socket(), "sender", SENDER, &queues(2, 1));
    // Each is served by another worker.
    let mut out = [0, 1].map(|queue| region.tx_producer(queue).expect("it has two rings"));
    let (mut receiver, mut region) = Client::attach(&kopid.socket(), "receiver", RECEIVER, &queues(1, 4));
    agree(&mut receiver, rule(5, 53, Some(3), true));
    agree(&mut receiver, rule(6, 54, Some(0), false));
    for queues_left in [4, 2] {
        let rings = 0..queues_left;
        let mut into: Vec<_> = rings.map(|queue| region.rx_consumer(queue).expect("it has so many")).collect();
        let mut seen = std::collections::BTreeSet::new();
        for from_port in 2000..2016 {
            for out in &mut out {
                send(out, &udp(RECEIVER, from_port, 53));
                let (queue, notes) = wait_for("a frame to port 53", SOON, || take(&mut into));
                assert!(notes.is_steered() && notes.slot() == 5, "{notes:?}");
                assert_eq!(usize::from(notes.queue()), queue);
                seen.insert(queue);
                send(out, &udp(RECEIVER, from_port, 54));
                assert_eq!(wait_for("a frame to port 54", SOON, || take(&mut into)).0, 0);
                send(out, &udp(RECEIVER, from_port, 80));
                assert!(!wait_for("a frame to port 80", SOON, || take(&mut into)).1.is_steered());
            }
        }
        let expected: Vec<_> = if queues_left == 4 { vec![3] } else { vec![0, 1] };
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{queues_left} queues");
        if queues_left == 4 {
            agree(&mut receiver, Message::Stop);
            region = receiver.setup(&queues(1, 2));
            receiver.settings(RECEIVER);
        }
    }
    assert!(kopid.handed_over() > 0, "both workers have taken part");
}

/// An honest app that sends to everybody, among them receivers with as many rules as their user may have, delivers all of it, and
/// others are not kept waiting.
#[test]
fn broadcasts_pass_many_rules() {
    let dir = TempDir::new("steering-broadcast");
    let kopid = Kopid::start(&dir, &Settings::default());
    let mut receivers: Vec<_> = (0..4_u8)
        .map(|n| {
            let mut client = Client::connect(&kopid.socket());
            let welcome = client.hello(&format!("many-{n}"), [2, 0, 0, 0, 1, n]);
            // Before there are rings, so that no snapshot is made for them. None of them is for what is sent here.
            (0..256).for_each(|slot| agree(&mut client, rule(slot, 1000 + slot, Some(0), true)));
            let region = client.setup(&small());
            client.settings(welcome.mac);
            (client, [region.rx_consumer(0).expect("a region has a ring")])
        })
        .collect();
    let (_sender, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
    let mut out = region.tx_producer(0).expect("a region has a ring");
    let mut longest = Duration::ZERO;
    for n in 0..500_u16 {
        let sent = Instant::now();
        // Each is of another flow.
        send(&mut out, &udp(EVERYBODY, 2000 + n, 80));
        for (_, into) in &mut receivers {
            let (_, notes) = wait_for("everybody gets it", SOON, || take(into));
            assert!(!notes.is_steered(), "{notes:?}");
        }
        longest = longest.max(sent.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

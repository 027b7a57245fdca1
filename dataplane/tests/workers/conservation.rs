//! Design decision 8, inside the dataplane: every frame that came in, or was made by copying, went out or was dropped for
//! a reason, exactly, when the workers have ended. Also while ports come and go, the wire's link flaps, rings overflow
//! and an app breaks its contract in the middle of a burst.

use crate::lab::{App, Crew, Lab, MTU, books, received, seen, wait_until};
use kopi_dataplane::ids::WIRE;
use kopi_dataplane::stages::mirror::Which;
use kopi_dataplane::worker::counters::PortTotals;
use kopi_ring::message::{Mac, Settings};
use kopi_ring::{DropReason, PeerFault};

const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];
const NOBODYS_GROUP: Mac = [1, 0, 0x5e, 0, 0, 2];
const NOBODY: Mac = [2, 9, 9, 9, 9, 9];
const APPS: u16 = 4;

/// Classes of every kind: rings that are queues, queues of rules in both directions, limits that are reached, another tree, whose ingress
/// has no limits, none.
const CLASSES: [&str; 4] = [
    r#"
[wire]
rate = "40gbit"
[[class]]
name = "bulk"
[[class]]
name = "fast"
parent = "bulk"
priority = 0
[[class]]
name = "slow"
parent = "bulk"
ceil = "200mbit"
limit = 100
[[class]]
name = "down"
direction = "ingress"
ceil = "2gbit"
[[rule]]
match = { direction = "egress", proto = "udp", dst_port = [1, 2, 3] }
action = "class"
class = "slow"
[[rule]]
match = { direction = "ingress", proto = "udp", dst_port = [3, 4] }
action = "class"
class = "down"
"#,
    r#"
[[class]]
name = "slow"
dscp = 10
[[class]]
name = "other"
rate = "1gbit"
[[class]]
name = "down"
direction = "ingress"
[[rule]]
match = { direction = "ingress", proto = "udp", dst_port = [3, 4] }
action = "class"
class = "down"
"#,
    r#"
[wire]
rate = "1gbit"
"#,
    "",
];

/// The same filter twice. The length is no part of a flow, so the second one is asked about each frame.
const FILTERS: [(u32, &str); 2] = [(5, "udp dst port 768"), (6, "udp dst port 768 and greater 1")];

/// Pseudo-random numbers, the same for a seed (splitmix64, Steele et al., OOPSLA 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }

    /// A frame of any kind that a switch can meet, in one slot. Its address, port and length are random.
    fn frame<'a>(&mut self, me: u16, room: &'a mut [u8]) -> &'a [u8] {
        let other = App::mac(self.pick(&[1, 2, 3, 4]));
        let to = self.pick(&[other, other, other, NOBODY, NOBODY, GROUP, NOBODYS_GROUP, [0xff; 6]]);
        let len = match self.below(20) {
            0 => 1 + self.below(13),
            1 => u64::from(MTU) + 23 + self.below(500),
            _ => 60 + self.below(1400),
        };
        room[..6].copy_from_slice(&to);
        room[6..12].copy_from_slice(&App::mac(me));
        room[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17]);
        room[36] = u8::try_from(self.below(8)).expect("small");
        &room[..usize::try_from(len).expect("short")]
    }
}

fn settings(id: u16, random: &mut Random) -> Settings {
    let mut macs = vec![App::mac(id)];
    if random.below(2) == 0 {
        macs.push(GROUP);
    }
    Settings { mtu: MTU, promiscuous: random.below(4) == 0, all_multicast: random.below(4) == 0, macs }
}

/// The first app has two queues, so that two workers serve it; the third has a small ring, the fourth never reads.
fn attach(crew: &mut Crew<'_>, id: u16, random: &mut Random) -> App {
    let settings = settings(id, random);
    crew.attach(id, settings, if id == 1 { 2 } else { 1 }, if id == 3 { 64 } else { 256 })
}

/// Everything an app was ever told or has told, by port number.
#[derive(Debug, Default)]
struct Witness {
    taken: [u64; APPS as usize + 1],
    given: [u64; APPS as usize + 1],
}

impl Witness {
    /// Notes what an app that is not served any more saw.
    fn question(&mut self, mut app: App) {
        app.pop(u64::MAX);
        self.taken[usize::from(app.id)] += app.pushed - app.unsent();
        self.given[usize::from(app.id)] += app.popped;
    }
}

/// Random traffic and changes; the workers are stopped in the middle of it if `busy`, else when all is delivered.
fn mix(lab: &Lab, workers: usize, seed: u64, busy: bool, policies: &[&str]) {
    let mut random = Random(seed);
    let mut crew = Crew::start(lab, workers, || 0);
    let mirrors = [(false, Which::All), (true, Which::All), (false, Which::Dropped), (true, Which::Dropped)];
    let mirrors = [1, 2, 3, 4]
        .map(|session| crew.mirror(session, mirrors[session as usize - 1].0, mirrors[session as usize - 1].1, ""));
    let filters = FILTERS.map(|(session, filter)| crew.mirror(session, true, Which::All, filter));
    let mut apps: Vec<App> = (1..=APPS).map(|id| attach(&mut crew, id, &mut random)).collect();
    policies.first().into_iter().for_each(|policy| crew.enforce(policy));
    let mut witness = Witness::default();
    let mut room = [0; 4096];
    for round in 1..2000 {
        let at = usize::try_from(random.below(APPS.into())).expect("an index");
        let app = &mut apps[at];
        let queue = if app.id == 1 { round % 2 } else { 0 };
        for _ in 0..random.below(60) {
            if !app.push(queue, random.frame(app.id, &mut room)) {
                break;
            }
        }
        app.publish();
        if app.id != APPS {
            app.pop(random.below(100));
        }
        let id = app.id;
        match random.below(400) {
            0..8 => crew.change(id, |settings| settings.promiscuous = !settings.promiscuous),
            8..12 => {
                crew.wire_up = !crew.wire_up;
                crew.publish();
            }
            16..24 if !policies.is_empty() => crew.enforce(random.pick(policies)),
            12..16 => {
                crew.detach(id);
                let app = attach(&mut crew, id, &mut random);
                witness.question(std::mem::replace(&mut apps[at], app));
            }
            _ => {}
        }
    }
    if !busy {
        crew.wire_up = true;
        crew.publish();
        wait_until("all frames are taken", || apps.iter_mut().all(|app| app.unsent() == 0));
        wait_until("the books balance while the workers run", || {
            let totals: Vec<_> = (0..8).map(|id| crew.totals(id)).collect();
            let (debit, credit) = books(&totals);
            debit == credit
        });
    }
    let (totals, _) = crew.stop();
    apps.into_iter().for_each(|app| witness.question(app));
    let (debit, credit) = books(&totals);
    assert_eq!(debit, credit, "{workers} workers, seed {seed}: {totals:?}");
    assert!(debit > 10_000, "only {debit} frames");
    let counted: Vec<_> = totals.iter().map(|t| (t.tx_packets, t.rx_packets)).collect();
    let witnessed: Vec<_> = witness.taken.into_iter().zip(witness.given).collect();
    assert_eq!(counted[1..=usize::from(APPS)], witnessed[1..], "{workers} workers, seed {seed}");
    check_records(&totals, mirrors.each_ref().map(|counts| seen(counts)), workers);
    let [by_flow, by_frame] = filters.map(|counts| received(&counts));
    assert_eq!(by_flow, by_frame, "frames that pass the same filter, {workers} workers, seed {seed}");
    let all = received(&mirrors[1]);
    assert!((1..all).contains(&by_flow), "{by_flow} of {all} frames pass the filter");
    let dropped = |reason: DropReason| totals.iter().map(|t| t.drops[reason.index()]).sum::<u64>();
    for reason in [DropReason::Runt, DropReason::Oversize, DropReason::RxRingFull, DropReason::SamePort] {
        assert!(dropped(reason) > 0, "nothing was dropped as {}", reason.name());
    }
}

/// What capture sessions were shown is what was counted: every frame at the ports that it passed, and every drop once.
fn check_records(totals: &[PortTotals], [into, out, dropped_in, dropped_out]: [Vec<u64>; 4], workers: usize) {
    // Frames of impossible length never get into a buffer, so nobody can be shown them.
    let in_ring = |t: &PortTotals| t.drops[DropReason::Runt.index()] + t.drops[DropReason::Oversize.index()];
    for (id, total) in totals.iter().enumerate().skip(1) {
        assert_eq!(out[id], total.tx_packets - in_ring(total), "out of app {id}, {workers} workers");
    }
    assert_eq!(into[0], totals[0].rx_packets, "from the wire");
    for (id, total) in totals.iter().enumerate().skip(1) {
        assert_eq!(
            dropped_in[id] + dropped_out[id],
            total.dropped() - in_ring(total),
            "drops of {id}, {workers} workers"
        );
    }
    // On the wire it is also shown what an app does not get.
    assert!(dropped_in[0] + dropped_out[0] >= totals[0].dropped(), "drops of the wire");
    if workers == 1 {
        for (id, total) in totals.iter().enumerate().skip(1) {
            assert_eq!(into[id] - dropped_in[id], total.rx_packets, "into app {id}");
        }
        let drops =
            |t: &PortTotals, reasons: &[DropReason]| reasons.iter().map(|why| t.drops[why.index()]).sum::<u64>();
        let sent = totals[0].tx_packets + drops(&totals[0], &[DropReason::WireTxFull, DropReason::WireDown]);
        // What waited in vain in classes was shown on its way to the wire, or to an app.
        let waited = [DropReason::QueueFull, DropReason::Codel, DropReason::WireTxFull];
        let in_vain: u64 = totals.iter().skip(1).map(|total| drops(total, &waited)).sum();
        assert!((sent..=sent + in_vain).contains(&out[0]), "{} onto the wire, not {sent} and {in_vain}", out[0]);
    }
}

/// An app breaks its contract after five good frames of a burst: these are accounted for, the others stay untaken, and
/// whoever else is attached goes on.
fn fault_in_the_middle(lab: &Lab, workers: usize) {
    let mut random = Random(1);
    let mut crew = Crew::start(lab, workers, || 0);
    let mut apps: Vec<App> = (1..=APPS).map(|id| attach(&mut crew, id, &mut random)).collect();
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&App::mac(3));
    for _ in 0..20 {
        assert!(apps[1].push(0, &frame));
    }
    apps[1].damage(5);
    apps[1].publish();
    assert_eq!(crew.await_fault(), (2, PeerFault::Length { length: 0, slot_size: 2048 }));
    crew.detach(2);
    let before = crew.totals(3).rx_packets;
    for _ in 0..20 {
        assert!(apps[0].push(0, &frame));
    }
    apps[0].publish();
    wait_until("the others go on", || crew.totals(3).rx_packets == before + 20);
    let (totals, _) = crew.stop();
    let (debit, credit) = books(&totals);
    assert_eq!(debit, credit, "{workers} workers: {totals:?}");
    assert_eq!((totals[2].tx_packets, totals[2].drops[DropReason::PortGone.index()]), (5, 5));
}

/// What waits in classes goes on when a policy without any comes, in both directions.
fn classes_that_end(lab: &Lab, workers: usize) {
    let policy = r#"
[[class]]
name = "up"
ceil = "10kbit"
target = "10s"
interval = "10s"
[[class]]
name = "down"
direction = "ingress"
ceil = "10kbit"
target = "10s"
interval = "10s"
[[rule]]
match = { direction = "egress", proto = "udp", dst_port = 768 }
action = "class"
class = "up"
[[rule]]
match = { direction = "ingress", proto = "udp", dst_port = 768 }
action = "class"
class = "down"
"#;
    let mut random = Random(2);
    let mut crew = Crew::start(lab, workers, || 0);
    let quiet = |macs| Settings { mtu: MTU, promiscuous: false, all_multicast: false, macs };
    let mut from = crew.attach(1, quiet(vec![App::mac(1)]), 2, 256);
    let _to = crew.attach(2, quiet(vec![App::mac(2)]), 2, 256);
    crew.enforce(policy);
    let mut room = [0; 4096];
    random.frame(1, &mut room);
    room[36] = 3;
    for to in [NOBODY, App::mac(2)] {
        room[..6].copy_from_slice(&to);
        (0..100).for_each(|_| assert!(from.push(0, &room[..1400])));
    }
    from.publish();
    wait_until("all frames are taken", || from.unsent() == 0);
    let gone = |crew: &Crew<'_>| (crew.totals(WIRE).tx_packets, crew.totals(2).rx_packets);
    let (up, down) = gone(&crew);
    assert!(up < 50 && down < 50, "{up} and {down} of 100 frames went at once, none has to wait");
    crew.enforce("");
    wait_until("what waited has gone", || gone(&crew) == (100, 100));
    let (totals, _) = crew.stop();
    let (debit, credit) = books(&totals);
    assert_eq!(debit, credit, "{workers} workers: {totals:?}");
}

/// What an app sends before the workers have the snapshot with it waits in its rings, and then goes where it was sent: nothing of it is
/// taken for too long.
fn frames_of_the_first_moment(lab: &Lab, workers: usize, policy: &str) {
    const FRAMES: u64 = 100;
    let mut crew = Crew::start(lab, workers, || 0);
    crew.enforce(policy);
    let settings = Settings { mtu: MTU, promiscuous: false, all_multicast: false, macs: vec![App::mac(1)] };
    let mut app = crew.give_rings(1, settings, workers, 256);
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&NOBODY);
    frame[6..12].copy_from_slice(&App::mac(1));
    for at in 0..FRAMES {
        assert!(app.push(usize::try_from(at).expect("few") % workers, &frame), "there is room");
    }
    app.publish();
    crew.await_iterations(100);
    let early = crew.totals(1);
    assert_eq!((early.tx_packets, early.dropped(), app.unsent()), (0, 0, FRAMES), "{workers} workers, {early:?}");
    crew.publish();
    wait_until("what has waited is sent", || crew.totals(1).tx_packets == FRAMES);
    let (totals, _) = crew.stop();
    assert_eq!(totals[1].dropped(), 0, "{workers} workers, {:?}", totals[1]);
}

/// With one worker, and with two that hand frames to each other, of which one has no part of the wire.
pub(crate) fn check(lab: &Lab) {
    for workers in 1..=2 {
        fault_in_the_middle(lab, workers);
        ["", CLASSES[0]].into_iter().for_each(|policy| frames_of_the_first_moment(lab, workers, policy));
        classes_that_end(lab, workers);
        for seed in 0..6 {
            mix(lab, workers, seed, seed % 2 == 0, &[]);
            mix(lab, workers, seed + 100, seed % 2 == 0, &CLASSES);
        }
    }
}

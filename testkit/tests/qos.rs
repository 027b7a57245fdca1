//! Classes between real applications and a real wire: what waits, what is lost and what is not. Fault 34.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::app::{self, Transfer};
use kopi_testkit::frames::{self, Ends, Mac, UDP, framed};
use kopi_testkit::machine::run;
use kopi_testkit::process::Launch;
use kopi_testkit::testpmd;
use kopi_testkit::wait::SOON;
use kopi_testkit::{
    App, Capture, Kopid, Netns, Peer, Piped, Process, Recording, Settings, TempDir, Testpmd, wait_until,
};
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

const A: &str = "02:00:00:00:00:0a";
const A_MAC: Mac = [2, 0, 0, 0, 0, 0xa];
const B: &str = "02:00:00:00:00:0b";
const B_MAC: Mac = [2, 0, 0, 0, 0, 0xb];
const WIRE: &str = "02:77:00:00:00:01";
const LIMIT: Duration = Duration::from_secs(60);
/// The last frame of a batch.
const MARK: u16 = 0xffff;
/// Frames that a worker or a driver may hold in its hands between two counters.
const HANDS: u64 = 64;

/// A wire, and kopid with this policy.
fn start(label: &str, policy: &str) -> (TempDir, Netns, Kopid) {
    let dir = TempDir::new(label);
    let netns = Netns::new(1500);
    let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(policy));
    (dir, netns, kopid)
}

/// What `kopictl classes` says of a class.
fn class(kopid: &Kopid, name: &str) -> Value {
    let rows = kopid.ask("classes");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no class {name}: {rows:?}")).clone()
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

/// Everything that was dropped, whatever the reason, but for what the kernel sends to nobody.
fn dropped(kopid: &Kopid) -> u64 {
    let rows = kopid.ask("drops");
    rows.iter().filter(|row| row["reason"] != "no_listener").map(|row| number(row, "packets")).sum()
}

/// Frames that have arrived at the far end of the wire, by the kernel's count.
fn arrived(netns: &Netns) -> u64 {
    let text = netns.inside("cat", &["/sys/class/net/wire0/statistics/rx_packets"]);
    text.trim().parse().expect("a count")
}

/// A testpmd that sends frames of 500 bytes to the wire as fast as it may.
fn flood(dir: &TempDir, kopid: &Kopid, name: &str, mac: &str) -> Testpmd {
    let args = format!("--txpkts=500 --txd=512 --eth-peer=0,{WIRE}");
    Testpmd::forwarding(dir, kopid, &testpmd::Options::new(name, "txonly").mac(mac).with(&args))
}

/// Sends `load` from an app of this name to the far end, which checks that nothing is lost, changed or reordered, and does
/// `meanwhile` until the sender has ended.
fn send(dir: &TempDir, kopid: &Kopid, netns: &Netns, name: &str, load: &Transfer, mut meanwhile: impl FnMut()) {
    let peer = Peer::new(netns);
    let received = std::thread::scope(|scope| {
        let heard = scope.spawn(|| peer.receive(load, LIMIT));
        let mut sender = App::send(dir, kopid, &app::AppOptions::new(name, B), load, WIRE);
        while sender.process().ended().is_none() && !heard.is_finished() {
            meanwhile();
        }
        let received = heard.join().expect("the peer reports");
        assert_eq!((&received.problem, received.frames), (&None, load.count), "{name}");
        sender.finish(LIMIT);
        received
    });
    assert_eq!(received.frames, load.count);
    kopid.await_no_app(name);
}

fn udp(source: Mac, id: u16, port: u16, length: usize) -> Vec<u8> {
    let ends = Ends { source: Ipv4Addr::new(10, 77, 0, 10), destination: Ipv4Addr::new(10, 77, 0, 1), id };
    framed(Netns::MAC, source, &ends.udp((5000, port), &vec![0; length - 42]))
}

/// What the driver has accepted from an app that is held back is on the wire or still in its ring; nothing is dropped, and
/// the wire never gets more than the ceiling allows.
#[test]
fn back_pressure_loses_nothing() {
    const CEIL: f64 = 20e6;
    const RING: u64 = 512;
    let policy = "[[class]]\nname = \"slow\"\nceil = \"20mbit\"\ncburst = \"64kb\"\n\
                  [[app]]\nname = \"bulk\"\nclass = \"slow\"\n";
    let (dir, netns, mut kopid) = start("back-pressure", policy);
    let before = arrived(&netns);
    let mut bulk = flood(&dir, &kopid, "bulk", A);
    wait_until("traffic flows", SOON, || kopid.counter("wire", "tx_packets") > 500);
    let first = (kopid.counter("wire", "tx_packets"), Instant::now());
    for _ in 0..10 {
        let sent = kopid.counter("wire", "tx_packets");
        let accepted = bulk.stat("TX-packets");
        let since = kopid.counter("wire", "tx_packets");
        assert!(sent <= accepted + HANDS, "{sent} sent of {accepted}");
        assert!(accepted <= since + RING + HANDS, "{accepted} accepted, {since} sent, {RING} may wait");
    }
    wait_until("some more was sent", SOON, || kopid.counter("wire", "tx_packets") > first.0 + 2000);
    let sent = kopid.counter("wire", "tx_packets") - first.0;
    let seconds = first.1.elapsed().as_secs_f64();
    // 24 bytes of overhead each, and what the burst allows at once.
    let bits = f64::from(u32::try_from(sent).expect("few")) * 524.0 * 8.0 - 65_536.0 * 8.0;
    assert!(bits / seconds < 1.01 * CEIL, "{sent} frames in {seconds} s");

    bulk.tell("stop", "Done.");
    let accepted = bulk.stat("TX-packets");
    wait_until("the ring is empty", SOON, || kopid.counter("wire", "tx_packets") == accepted);
    assert_eq!(arrived(&netns) - before, accepted);
    let row = class(&kopid, "slow");
    assert_eq!((number(&row, "packets"), number(&row, "dropped")), (accepted, 0), "{row}");
    assert!(number(&row, "overlimits") > 0, "{row}");
    assert_eq!(dropped(&kopid), 0);
    bulk.quit();
    assert!(kopid.stop().success());
}

/// What a class has saved up while it was silent is at most its burst: of what the worker has sent, by its own clock, no
/// stretch of time ever has more than its ceiling gives, and its burst.
#[test]
fn bursts_are_as_long_as_configured() {
    const FRAMES: u16 = 100;
    // The second is two frames long.
    let limits = [("8mbit", 8_000_000, "20kb", 20_480), ("50mbit", 50_000_000, "3084", 3084)];
    let policy = |(ceil, _, burst, _): (&str, u64, &str, u64)| {
        format!(
            "[[class]]\nname = \"slow\"\nceil = \"{ceil}\"\ncburst = \"{burst}\"\n[[app]]\nname = \"app\"\nclass = \"slow\"\n"
        )
    };
    let (dir, _netns, mut kopid) = start("bursts", &policy(limits[0]));
    let mut app = Piped::application(&dir, &kopid, &app::AppOptions::new("app", A));
    for (at, limit) in limits.into_iter().enumerate() {
        kopid.reload(&policy(limit)).unwrap_or_else(|error| panic!("{}: {error}", limit.0));
        let file = dir.join(&format!("bursts-{at}.pcapng"));
        let mut capture = Capture::start(&dir, &kopid, &format!("-i wire -w {} ether src {A}", file.display()));
        for round in 1..=3 {
            (0..FRAMES).for_each(|id| app.send(&udp(A_MAC, id, 5000, 1000)));
            let total = 3 * at as u64 + round;
            wait_until("all of them are sent", SOON, || {
                number(&class(&kopid, "slow"), "packets") == total * u64::from(FRAMES)
            });
            // Silence in which it saves up more than its burst, if it could.
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(capture.stop().captured, 3 * u64::from(FRAMES));
        let sent: Vec<(u64, u64)> =
            Recording::load(&file).packets.iter().map(|shot| (shot.timestamp_ns, u64::from(shot.len) + 24)).collect();
        let (_, rate, _, burst) = limit;
        let mut most = 0;
        for (first, &(from, _)) in sent.iter().enumerate() {
            let mut bytes = 0;
            for &(to, length) in &sent[first..] {
                bytes += length;
                // A thousandth for the clock, which follows the kernel's.
                let earned = (to - from) * (rate + rate / 1000) / 8 / 1_000_000_000;
                most = most.max(bytes - earned.min(bytes));
            }
        }
        assert!(most <= burst, "{most} bytes at once, though {burst} are the burst of {limit:?}");
        assert!(most + 1024 > burst, "only {most} bytes at once of {burst} that may be, {limit:?}");
    }
    app.finish();
    assert!(kopid.stop().success());
}

/// An app whose frames rules tell apart: its bulk flow overflows its own queue, and its interactive flow loses nothing. What it
/// has sent is on the wire, dropped with a reason, or waits.
#[test]
fn a_bulk_flow_does_not_harm_an_interactive_one() {
    let policy = r#"
[[class]]
name  = "bulk"
ceil  = "200kbit"
limit = 100
[[class]]
name     = "interactive"
priority = 0
[[app]]
name  = "app"
class = "bulk"
[[rule]]
name   = "interactive"
match  = { direction = "egress", dst_port = 5001 }
class  = "interactive"
action = "accept"
"#;
    let (dir, netns, mut kopid) = start("split", policy);
    let peer = Peer::new(&netns);
    let mut app = Piped::application(&dir, &kopid, &app::AppOptions::new("app", A));
    for id in 0..1000 {
        app.send(&udp(A_MAC, id, 5000, 1000));
        if id % 25 == 0 {
            app.send(&udp(A_MAC, id, 5001, 100));
        }
    }
    app.send(&udp(A_MAC, MARK, 5001, 100));
    let seen = peer.collect(|frame| frames::id_of(frame) == Some(MARK));
    let ids = |length: usize| -> Vec<u16> {
        seen.iter().filter(|frame| frame.len() == length).filter_map(|frame| frames::id_of(frame)).collect()
    };
    assert_eq!(ids(100), (0..1000).step_by(25).collect::<Vec<u16>>());
    let bulk = ids(1000);
    assert!(!bulk.is_empty() && bulk.is_sorted(), "{bulk:?}");

    let total = 1000 + 40 + 1;
    wait_until("kopid has taken everything", SOON, || kopid.counter("app", "tx_packets") == total);
    wait_until("sent, dropped and waiting make up all", SOON, || {
        let backlog = number(&class(&kopid, "bulk"), "backlog_packets");
        let wire = kopid.counter("wire", "tx_packets");
        backlog > 0 && wire + dropped(&kopid) + backlog == total
    });
    let (bulk, interactive) = (class(&kopid, "bulk"), class(&kopid, "interactive"));
    assert_eq!((number(&interactive, "packets"), number(&interactive, "dropped")), (41, 0), "{interactive}");
    assert!(number(&bulk, "dropped_full") > 0, "{bulk}");
    let by_reason = ["queue_full", "codel"].map(|reason| kopid.drops(reason));
    assert_eq!(dropped(&kopid), by_reason.iter().sum::<u64>(), "only queues drop");
    app.finish();
    assert!(kopid.stop().success());
}

/// One app's downloads are held back, and another app gets every frame, though they come in between.
#[test]
fn a_ceiling_on_downloads_holds_back_one_app_only() {
    const ROUNDS: u64 = 15;
    let policy = r#"
[[class]]
name      = "slow"
direction = "ingress"
ceil      = "100kbit"
limit     = 50
[[class]]
name      = "fast"
direction = "ingress"
[[app]]
name  = "slow"
class = "slow"
[[app]]
name  = "fast"
class = "fast"
"#;
    let (dir, netns, mut kopid) = start("downloads", policy);
    let peer = Peer::new(&netns);
    let receive = |name: &str, mac: &str| {
        Testpmd::forwarding(&dir, &kopid, &testpmd::Options::new(name, "rxonly").mac(mac).with("--rxd=512"))
    };
    let (slow, mut fast) = (receive("slow", A), receive("fast", B));
    let to = |mac: Mac| [&mac[..], &udp(Netns::MAC, 1, 5000, 1000)[6..]].concat();
    let (to_slow, to_fast) = (to(A_MAC), to(B_MAC));
    // All in all as many as a ring takes, so that it does not matter how often the receivers run.
    for round in 1..=ROUNDS {
        for _ in 0..32 {
            peer.transmit(&to_slow);
            peer.transmit(&to_fast);
        }
        wait_until("all of them arrive", SOON, || kopid.counter("fast", "rx_packets") == 32 * round);
    }
    wait_until("the application has them", SOON, || fast.stat("RX-packets") == 32 * ROUNDS);
    let row = class(&kopid, "slow");
    let parts = ["packets", "dropped", "backlog_packets"].map(|key| number(&row, key));
    assert_eq!(parts.iter().sum::<u64>(), 32 * ROUNDS, "{row}");
    assert!(parts[0] < 16 * ROUNDS && parts[1] > 0, "{row}");
    assert_eq!(dropped(&kopid), number(&class(&kopid, "slow"), "dropped"));
    // Without ceilings nothing waits, and the class counts what goes past its queue.
    kopid.reload(&policy.replace("ceil      = \"100kbit\"\n", "")).expect("the policy is well formed");
    wait_until("nothing waits", SOON, || number(&class(&kopid, "slow"), "backlog_packets") == 0);
    let before = number(&class(&kopid, "fast"), "packets");
    (0..32).for_each(|_| peer.transmit(&to_fast));
    wait_until("all are counted", SOON, || number(&class(&kopid, "fast"), "packets") == before + 32);
    wait_until("all arrive", SOON, || kopid.counter("fast", "rx_packets") == 32 * (ROUNDS + 1));
    fast.quit();
    slow.quit();
    assert!(kopid.stop().success());
}

/// Marks are on the wire as tcpdump reads them, in IPv4, IPv6 and VLAN tags, and the checksum of IPv4 is right.
#[test]
fn marks_are_seen_at_the_far_end() {
    let policy = "[[class]]\nname = \"gold\"\ndscp = \"ef\"\nvlan_priority = 5\n\
                  [[app]]\nname = \"app\"\nclass = \"gold\"\n";
    let (dir, netns, mut kopid) = start("marks", policy);
    let file = dir.join("marks.pcap").display().to_string();
    let within = Launch { netns: Some(netns.name().to_owned()), ..Launch::default() };
    let args = ["-i", "wire0", "-Z", "root", "-w", &file, "-c", "3", "ether", "src", A].map(str::to_owned);
    let mut tcpdump = Process::start(&within, "tcpdump", &args, dir.join("tcpdump.log"));
    tcpdump.expect(0, "listening on", SOON);

    let mut app = Piped::application(&dir, &kopid, &app::AppOptions::new("app", A));
    let mut tagged = udp(A_MAC, 2, 5002, 100);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    let [source, target] = [0xa, 1].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host));
    let six = framed(Netns::MAC, A_MAC, &frames::ipv6(source, target, UDP, &[0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0]));
    [udp(A_MAC, 1, 5001, 100), tagged, six].iter().for_each(|frame| app.send(frame));
    assert!(tcpdump.wait(SOON).success());

    let text = run("tcpdump", &["-r", &file, "-e", "-n", "-vv"]);
    let marked = text.matches("tos 0xb8").count();
    assert_eq!((marked, text.matches("class 0xb8").count()), (2, 1), "{text}");
    assert!(text.contains("vlan 7, p 5"), "{text}");
    // "bad cksum 1b3f (->1b87)!" stands in the line of IPv4.
    assert!(!text.contains("bad cksum"), "{text}");
    app.finish();
    assert!(kopid.stop().success());
}

/// Policies in which the class of app `sender` is another one, or lies elsewhere, with other limits.
fn trees() -> [String; 4] {
    let app = "[[app]]\nname = \"sender\"\nclass = \"mine\"\n";
    [
        format!("[[class]]\nname = \"mine\"\nceil = \"40mbit\"\n{app}"),
        format!(
            "[wire]\nrate = \"60mbit\"\n[[class]]\nname = \"users\"\n\
             [[class]]\nname = \"mine\"\nparent = \"users\"\nrate = \"10mbit\"\nceil = \"50mbit\"\n{app}"
        ),
        "[[class]]\nname = \"other\"\nceil = \"50mbit\"\npriority = 1\n[[app]]\nname = \"sender\"\nclass = \"other\"\n"
            .to_owned(),
        "[wire]\nrate = \"60mbit\"\n".to_owned(),
    ]
}

/// Trees that change under traffic cost an app nothing whose ring is its queue, and a policy that is refused changes nothing.
#[test]
fn changing_trees_lose_no_frame() {
    let policies = trees();
    let (dir, netns, mut kopid) = start("trees", &policies[0]);
    let names = || kopid.ask("classes").iter().map(|row| row["name"].to_string()).collect::<Vec<_>>();
    let (mut reloads, mut order) = (0, policies.iter().cycle().skip(1));
    // Some three seconds at 40 to 60 Mbit/s.
    send(&dir, &kopid, &netns, "sender", &Transfer::new(20_000, 60..=1514), || {
        let begun = Instant::now();
        let policy = order.next().expect("they go round");
        kopid.reload(policy).unwrap_or_else(|error| panic!("a good policy is refused: {error}"));
        let before = names();
        let error = kopid.reload("[[class]]\nname = \"a\"\nparent = \"nobody\"\n").expect_err("it has no parent");
        assert!(error.contains("nobody"), "{error}");
        assert_eq!(names(), before);
        reloads += 1;
        std::thread::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed()));
    });
    assert!(reloads >= 20, "only {reloads} reloads");
    assert_eq!(dropped(&kopid), 0);
    assert!(kopid.stop().success());
}

/// A worker that may sleep wakes by itself when what waits in a class may go, in an app's ring and in queues of both directions,
/// though nobody sends any more.
#[test]
fn a_sleeping_worker_wakes_for_what_waits() {
    const FRAMES: u16 = 300;
    // Frames of 1,000 bytes are let go one a millisecond, three at once. A worker that slept through that would look ten times in
    // a second, and take ten seconds for all. CoDel, which would make that shorter, has no reason to drop.
    const IN_TIME: Duration = Duration::from_secs(3);
    let shaped = |name: &str, way: &str| {
        format!(
            "[[class]]\nname = \"{name}\"\ndirection = \"{way}\"\nceil = \"8mbit\"\ncburst = 3084\ntarget = \"10s\"\ninterval = \"10s\"\n"
        )
    };
    let rule = |name: &str, way: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nmatch = {{ direction = \"{way}\", dst_port = 5001 }}\nclass = \"{name}\"\naction = \"accept\"\n"
        )
    };
    let rules = rule("queue", "egress") + &rule("down", "ingress");
    let policies = [
        ("ring", shaped("ring", "egress") + "[[app]]\nname = \"app\"\nclass = \"ring\"\n"),
        ("queue", shaped("queue", "egress") + &rule("queue", "egress")),
        ("down", shaped("queue", "egress") + &shaped("down", "ingress") + &rules),
    ];
    let dir = TempDir::new("asleep");
    let netns = Netns::new(1500);
    let settings = Settings { idle: "adaptive", ..Settings::on_interface(netns.outside(), 1).policy("") };
    let mut kopid = Kopid::start(&dir, &settings);
    let mut app = Piped::application(&dir, &kopid, &app::AppOptions::new("app", A));
    let peer = Peer::new(&netns);
    for (name, policy) in policies {
        kopid.reload(&policy).unwrap_or_else(|error| panic!("{name}: {error}"));
        let to_app = [&A_MAC[..], &udp(Netns::MAC, 1, 5001, 1000)[6..]].concat();
        for id in 0..FRAMES {
            match name {
                "down" => peer.transmit(&to_app),
                _ => app.send(&udp(A_MAC, id, 5001, 1000)),
            }
        }
        let begun = Instant::now();
        wait_until(&format!("nothing waits in {name}"), SOON, || {
            number(&class(&kopid, name), "packets") == u64::from(FRAMES)
        });
        assert!(begun.elapsed() < IN_TIME, "{name}: {:?}", begun.elapsed());
        assert!(number(&class(&kopid, name), "overlimits") > 0, "nothing has waited in {name}");
    }
    let asleep = |kopid: &Kopid| kopid.status()["workers"][0]["asleep"].as_f64().expect("a share");
    wait_until("the worker sleeps", SOON, || asleep(&kopid) > 0.9);
    app.finish();
    assert!(kopid.stop().success());
}

/// Fault 34: a rate that nothing fits in holds back its own class; kopid and the others go on. Less than a byte a second is
/// refused.
#[test]
fn fault_34_tiny_rate_holds_only_its_own() {
    let policy = |rate: &str| {
        format!(
            "[[class]]\nname = \"tiny\"\nceil = \"{rate}\"\ncburst = 1\n[[class]]\nname = \"plain\"\n\
             [[app]]\nname = \"tiny\"\nclass = \"tiny\"\n[[app]]\nname = \"plain\"\nclass = \"plain\"\n"
        )
    };
    let (dir, netns, mut kopid) = start("tiny", &policy("8bit"));
    let tiny = flood(&dir, &kopid, "tiny", A);
    wait_until("its first frame passes", SOON, || number(&class(&kopid, "tiny"), "packets") > 0);
    send(&dir, &kopid, &netns, "plain", &Transfer::new(3000, 60..=1514), || {});
    let row = class(&kopid, "tiny");
    assert_eq!((number(&row, "packets"), number(&row, "dropped")), (1, 0), "{row}");
    let error = kopid.reload(&policy("1bit")).expect_err("1 bit/s is taken");
    assert!(error.contains("8bit"), "{error}");
    // It stands in its debt across reloads, and is let go with its limit.
    kopid.reload(&policy("8bit")).expect("a good policy");
    send(&dir, &kopid, &netns, "plain", &Transfer::new(3000, 60..=1514), || {});
    assert_eq!(number(&class(&kopid, "tiny"), "packets"), 1);
    kopid.reload(&policy("1gbit")).expect("a good policy");
    wait_until("it is let go", SOON, || number(&class(&kopid, "tiny"), "packets") > 100);
    assert_eq!(dropped(&kopid), 0);
    tiny.quit();
    assert!(kopid.stop().success());
}

/// Fault 34: absurdly high rates are as none, and a burst that is less than a frame lets frames pass one by one, of the class and
/// of the wire.
#[test]
fn fault_34_absurd_rates_and_bursts_let_frames_pass() {
    let policy = |wire: &str| {
        format!(
            "[wire]\n{wire}\n[[class]]\nname = \"huge\"\nrate = \"10tbit\"\nburst = \"1gb\"\n\
             [[class]]\nname = \"short\"\nceil = \"50mbit\"\ncburst = 100\n\
             [[app]]\nname = \"huge\"\nclass = \"huge\"\n[[app]]\nname = \"short\"\nclass = \"short\"\n"
        )
    };
    let wires = ["rate = \"10tbit\"", "rate = \"100mbit\"\nburst = 100"];
    let (dir, netns, mut kopid) = start("absurd", &policy(wires[0]));
    for wire in wires {
        kopid.reload(&policy(wire)).unwrap_or_else(|error| panic!("{wire}: {error}"));
        for name in ["huge", "short"] {
            send(&dir, &kopid, &netns, name, &Transfer::new(1000, 60..=1514), || {});
            let row = class(&kopid, name);
            assert!(number(&row, "packets") >= 1000, "{row}");
        }
    }
    assert!(number(&class(&kopid, "short"), "overlimits") > 0);
    assert_eq!(dropped(&kopid), 0);
    assert!(kopid.stop().success());
}

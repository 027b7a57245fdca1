//! The kernel's traffic: it arrives, and policy, classes, capture and counters know whose it is.

use super::{FAR_IP, HOME_IP, host_row, number, pin_far_end, settings};
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Home, Kopid, Netns, Settings, TempDir, Testpmd, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes that do not repeat soon, so that any that are lost, doubled or swapped are found.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

/// Sends `bytes` by TCP from one namespace to the other and returns what arrives there.
pub(super) fn transfer(
    server: (impl FnOnce() -> TcpListener, &str),
    connect: impl FnOnce(SocketAddr) -> TcpStream,
    bytes: &[u8],
) -> Vec<u8> {
    let (listen, address) = server;
    let listener = listen();
    let port = listener.local_addr().expect("it is bound").port();
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            stream.set_read_timeout(Some(SOON)).expect("a time limit");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("all of it arrives");
            got
        });
        let mut stream = connect(address);
        stream.write_all(bytes).expect("all of it is sent");
        drop(stream);
        reader.join().expect("the reader ends")
    })
}

pub(super) fn listen() -> TcpListener {
    TcpListener::bind("0.0.0.0:0").expect("a port is free")
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, SOON).expect("it answers")
}

/// The kernel is pinged and serves through its port, while apps do as they did; policy, capture and counters know its traffic as
/// that of `host`.
#[test]
fn kernel_is_one_more_owner() {
    let policy = "[[rule]]\nname = \"web\"\nmatch = { direction = \"ingress\", proto = \"tcp\", dst_port = 8000 }\n\
                  owner = { app = \"host\" }\naction = \"count\"\n\
                  [[rule]]\nname = \"answers\"\nmatch = { direction = \"egress\", proto = \"tcp\", src_port = 8000 }\n\
                  owner = { app = \"host\" }\naction = \"count\"\n\
                  [[rule]]\nname = \"no\"\nmatch = { proto = \"tcp\", dst_port = 8001 }\n\
                  owner = { app = \"host\" }\naction = \"drop\"\n";
    let dir = TempDir::new("host-owner");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home).policy(policy));
    let apps = [("one", "02:00:00:00:00:0a", "10.77.0.10"), ("two", "02:00:00:00:00:0b", "10.77.0.11")];
    let running: Vec<Testpmd> = apps
        .iter()
        .map(|(name, mac, ip)| {
            far.neighbour(ip, mac);
            Testpmd::forwarding(&dir, &kopid, &Options::new(name, "icmpecho").mac(mac))
        })
        .collect();
    let mac = host_row(&kopid)["mac"].as_str().expect("it has an address").to_owned();
    assert_eq!(kopid.status()["wire"]["mac"], mac.as_str(), "the kernel has the wire's address");
    far.neighbour(HOME_IP, &mac);
    pin_far_end(&home, &far);
    for ip in [HOME_IP, apps[0].2, apps[1].2] {
        assert_eq!(far.ping(ip, 20), 20, "{ip}");
    }
    let listen = |port: u16| home.enter(move || TcpListener::bind(("0.0.0.0", port)).expect("the port is free"));
    let connect = |address: SocketAddr| far.enter(move || connect(address));
    let sent = pattern(200_000);
    let captured = std::thread::scope(|scope| {
        let capture = scope.spawn(|| kopid.kopictl(&["capture", "-i", "host", "-c", "400", "tcp", "port", "8000"]));
        // It has begun when the capture is one of the workers' mirrors; until then, frames pass unseen.
        while !capture.is_finished() {
            assert_eq!(transfer((|| listen(8000), HOME_IP), connect, &sent), sent);
        }
        capture.join().expect("kopictl ends")
    });
    let lines = String::from_utf8_lossy(&captured.stdout).into_owned();
    assert!(lines.lines().count() >= 400, "{lines}");
    assert!(lines.contains(" host out ") && lines.contains(" host in "), "{lines}");
    assert!(lines.lines().all(|line| line.contains(" host ") && line.contains("[kernel]")), "{lines}");
    let flows = kopid.ask("flows");
    let of_host = |flow: &&Value| flow["app"] == "host" && (flow["src_port"] == 8000 || flow["dst_port"] == 8000);
    let no_user = |row: &Value| row["comm"] == "kernel" && row["uid"].is_null() && row["user"].is_null();
    assert!(flows.iter().filter(of_host).all(no_user) && flows.iter().any(|flow| of_host(&flow)), "{flows:?}");
    assert!(no_user(&host_row(&kopid)), "it is no process, so nobody's");
    for user in ["nobody", "65534", "root"] {
        let none = kopid.kopictl(&["--json", "flows", "--app", "host", "--user", user]);
        let none: Value = serde_json::from_slice(&none.stdout).expect("it is JSON");
        assert_eq!(none["flows"].as_array().map(Vec::len), Some(0), "{user}");
    }
    wait_until("both rules have counted", SOON, || kopid.rule("web") > 0 && kopid.rule("answers") > 0);
    let refused = SocketAddr::new(HOME_IP.parse().expect("an address"), 8001);
    let _listener = listen(8001);
    let refused = far.enter(move || TcpStream::connect_timeout(&refused, Duration::from_millis(500)).is_err());
    assert!(refused && kopid.rule("no") > 0, "a rule for the host holds for the kernel");
    running.into_iter().for_each(Testpmd::quit);
    assert!(kopid.stop().success());
}

/// What the kernel sends in large segments, and what is put together for it, arrives whole, in both directions and with either
/// setting of `offload`, over several queues.
#[test]
fn large_transfers_arrive_whole() {
    for host in ["tap = \"kopi0\"\n", "tap = \"kopi0\"\nqueues = 2\noffload = false\n"] {
        let dir = TempDir::new("host-transfer");
        let far = Netns::new(1500);
        let home = Home::new(&far);
        let with = Settings { host: Some(host.to_owned()), ..settings(&home) };
        let mut kopid = Kopid::start_as(&dir, &with, &home.launch());
        home.await_carrier();
        assert!(home.takeover(&dir, &kopid, &[]).status.success());
        let sent = pattern(8 << 20);
        let moved =
            |kopid: &Kopid| (number(&kopid.status()["host"], "from_kernel"), number(&host_row(kopid), "tx_packets"));
        let there = transfer((|| home.enter(listen), HOME_IP), |at| far.enter(|| connect(at)), &sent);
        assert!(there == sent, "to the kernel, with {host}");
        let before = moved(&kopid);
        let back = transfer((|| far.enter(listen), FAR_IP), |at| home.enter(|| connect(at)), &sent);
        assert!(back == sent, "from the kernel, with {host}");
        let after = moved(&kopid);
        let (reads, frames) = (after.0 - before.0, after.1 - before.1);
        assert_eq!(
            reads * 2 < frames,
            !host.contains("false"),
            "segments are cut: {frames} frames of {reads}, with {host}"
        );
        assert_eq!(kopid.drops("bad_offload") + kopid.drops("tap_refused"), 0);
        assert!(kopid.stop().success());
    }
}

/// Average round trip in milliseconds that `ping` tells.
fn average(said: &str) -> f64 {
    // "rtt min/avg/max/mdev = 0.048/0.052/0.056/0.004 ms"
    let average = said.rsplit('=').next().and_then(|times| times.trim().split('/').nth(1)?.parse().ok());
    average.unwrap_or_else(|| panic!("no times in {said}"))
}

/// With everybody asleep, a frame wakes whom it is for at once, and not when they wake up by themselves, a tenth of a second
/// later: workers for the kernel's frames, and the thread of the kernel's port for frames from the wire.
#[test]
fn frames_of_the_kernel_wake_sleepers() {
    let dir = TempDir::new("host-asleep");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &Settings { idle: "adaptive", ..settings(&home) });
    let ping = |ip| ["-q", "-c", "20", "-i", "0.2", ip];
    for said in [home.inside("ping", &ping(FAR_IP)), far.inside("ping", &ping(HOME_IP))] {
        assert!(average(&said) < 25.0, "{said}");
    }
    let worker = &kopid.status()["workers"][0];
    assert!(worker["asleep"].as_f64().is_some_and(|asleep| asleep > 0.5), "{worker}");
    assert!(kopid.stop().success());
}

/// What `kopictl classes` says of a class.
fn class(kopid: &Kopid, name: &str) -> Value {
    let rows = kopid.ask("classes");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no class {name}: {rows:?}")).clone()
}

/// The kernel is in the classes that its entry and the rules for it say, in both directions. What it sends keeps to a ceiling and
/// waits in its own rings, so that nothing of it is dropped.
#[test]
fn kernel_keeps_to_its_classes() {
    const CEIL: f64 = 80e6;
    let classes = "[[class]]\nname = \"out\"\nceil = \"80mbit\"\ncburst = \"64kb\"\n\
                   [[class]]\nname = \"in\"\ndirection = \"ingress\"\n\
                   [[class]]\nname = \"web\"\n\
                   [[app]]\nname = \"host\"\nclass = [\"out\", \"in\"]\n";
    let dir = TempDir::new("host-classes");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home).policy(classes));
    let sent = pattern(4 << 20);
    let length = u64::try_from(sent.len()).expect("a length");
    let begun = Instant::now();
    assert!(transfer((|| far.enter(listen), FAR_IP), |at| home.enter(|| connect(at)), &sent) == sent);
    let (out, seconds) = (class(&kopid, "out"), begun.elapsed().as_secs_f64());
    assert!(number(&out, "bytes") > length, "{out}");
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    let bits = number(&out, "bytes") as f64 * 8.0;
    assert!(bits < CEIL * seconds + 8.0 * 65_536.0, "{bits} bits in {seconds} s");
    assert_eq!(number(&out, "dropped"), 0, "{out}");
    assert!(number(&class(&kopid, "in"), "packets") > 100, "the far end has acknowledged it");
    let flows = kopid.ask("flows");
    assert!(flows.iter().any(|flow| flow["app"] == "host" && flow["class"] == "out"), "{flows:?}");

    let rule = "[[rule]]\nname = \"to-web\"\nmatch = { direction = \"egress\", proto = \"tcp\", dst_port = 8002 }\n\
                owner = { app = \"host\" }\naction = \"class\"\nclass = \"web\"\n";
    kopid.reload(&format!("{classes}{rule}")).expect("it is a policy");
    let listen = || TcpListener::bind("0.0.0.0:8002").expect("the port is free");
    assert!(transfer((|| far.enter(listen), FAR_IP), |at| home.enter(|| connect(at)), &sent) == sent);
    assert!(number(&class(&kopid, "web"), "bytes") > length && kopid.rule("to-web") > 0);
    assert!(kopid.stop().success());
}

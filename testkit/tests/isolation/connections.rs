//! An app, or somebody on the wire, would end other people's connections, take the places that connections have, or have
//! kopid answer for it.

use kopi_testkit::frames::{Ends, ICMP, Mac, UDP, flags, framed};
use kopi_testkit::load::Load;
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Piped, Settings, TempDir, wait_until};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// An app, by the last byte of its addresses.
struct Host {
    app: Piped,
    number: u8,
}

const fn mac(number: u8) -> Mac {
    [2, 0, 0, 0, 5, number]
}

const fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 5, 0, number)
}

impl Host {
    fn new(dir: &TempDir, kopid: &Kopid, name: &str, number: u8, uid: u32) -> Self {
        let address = mac(number).map(|byte| format!("{byte:02x}")).join(":");
        let how = Launch { user: Some(uid), ..Launch::default() };
        let mut app = Piped::client(dir, kopid, name, &address, &how, &[]);
        drop(kopid.await_app(name));
        assert_eq!(app.answer(), None);
        Self { app, number }
    }

    fn ends(&self, to: u8) -> Ends {
        Ends { source: ip(self.number), destination: ip(to), id: 0 }
    }

    fn send(&mut self, to: u8, packet: &[u8]) {
        self.app.send(&framed(mac(to), mac(self.number), packet));
    }

    /// Whether `packet` arrives here from `from`.
    fn gets(&mut self, from: &mut Self, packet: &[u8]) -> bool {
        let frame = framed(mac(self.number), mac(from.number), packet);
        from.app.send(&frame);
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if self.app.received().contains(&frame) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn must_get(&mut self, from: &mut Self, packet: &[u8]) {
        let frame = framed(mac(self.number), mac(from.number), packet);
        from.app.send(&frame);
        drop(self.app.expect("the packet arrives", |got| got == frame));
    }
}

const USER: u32 = 64201;
const OTHER: u32 = 64202;

/// What the victim and the remote end begin with; the victim expects [`NEXT`].
const VICTIM: u32 = 0x2000_0000;
const REMOTE: u32 = 0x5000_0000;
const NEXT: u32 = REMOTE + 6;
const PORTS: (u16, u16) = (40_000, 5432);
/// Longer than it takes kopid to look at a direction of a connection once more.
const A_WHILE: Duration = Duration::from_millis(600);

/// The lock-down of the shipped example, for one app: nothing arrives that it has not asked for.
fn answers_only(window: bool) -> String {
    format!(
        "default = {{ egress = \"accept\", ingress = \"drop\" }}\n\
         [tracking]\ntcp_window = {window}\ntcp_loose = false\ntcp_closed = 1\n\
         [[app]]\nname = \"victim\"\n[[app]]\nname = \"remote\"\nspoof_check = false\n\
         [[app]]\nname = \"blind\"\nspoof_check = false\n\
         [[rule]]\nname = \"answers\"\nmatch = {{ state = [\"established\", \"related\"] }}\naction = \"accept\"\n\
         [[rule]]\nname = \"others\"\nowner = {{ not = {{ app = \"victim\" }} }}\naction = \"accept\"\n"
    )
}

/// Somebody who knows addresses and ports of a connection sends resets with wrong numbers, segments with wrong checksums, and
/// whatever else might end it. As with Linux' connection tracking, only the reset with the number that is expected next does.
#[test]
fn a_blind_sender_ends_no_connection() {
    for window in [false, true] {
        let dir = TempDir::new("blind");
        let mut kopid = Kopid::start(&dir, &Settings::default().policy(&answers_only(window)));
        let mut victim = Host::new(&dir, &kopid, "victim", 1, USER);
        let mut remote = Host::new(&dir, &kopid, "remote", 9, USER);
        let mut blind = Host::new(&dir, &kopid, "blind", 66, OTHER);
        let out = Ends { source: ip(1), destination: ip(9), id: 0 };
        let back = Ends { source: ip(9), destination: ip(1), id: 0 };
        let (there, here) = (PORTS, (PORTS.1, PORTS.0));
        remote.must_get(&mut victim, &out.tcp(there, flags::SYN, (VICTIM, 0), b""));
        victim.must_get(&mut remote, &back.tcp(here, flags::SYN | flags::ACK, (REMOTE, VICTIM + 1), b""));
        remote.must_get(&mut victim, &out.tcp(there, flags::ACK, (VICTIM + 1, REMOTE + 1), b""));
        let data = |seq: u32| back.tcp(here, flags::ACK, (seq, VICTIM + 1), b"hello");
        victim.must_get(&mut remote, &data(REMOTE + 1));
        std::thread::sleep(A_WHILE);
        remote.must_get(&mut victim, &out.tcp(there, flags::ACK, (VICTIM + 1, NEXT), b""));
        std::thread::sleep(A_WHILE);

        let damaged = |mut packet: Vec<u8>| {
            packet[36] ^= 1;
            packet
        };
        let blind_mark = blind.ends(9).udp((1, 1), b"mark");
        let attacks = [
            back.tcp(here, flags::RST, (NEXT.wrapping_add(3 << 28), 0), b""),
            back.tcp(here, flags::RST, (NEXT - 256, 0), b""),
            back.tcp(here, flags::RST, (NEXT + 4096, 0), b""),
            damaged(back.tcp(here, flags::RST, (NEXT, 0), b"")),
            damaged(back.tcp(here, flags::FIN | flags::ACK, (NEXT, VICTIM + 1), b"")),
            back.tcp(here, flags::FIN | flags::ACK, (NEXT + 70_000, VICTIM + 70_000), b""),
            back.tcp(here, flags::SYN, (77, 0), b""),
            back.tcp(here, flags::RST | flags::ACK, (0, 78), b""),
        ];
        // At once, and longer after them than what is closed is remembered, without a packet that would keep it alive.
        for pause in [Duration::ZERO, Duration::from_millis(2500)] {
            for attack in &attacks {
                blind.app.send(&framed(mac(1), mac(66), attack));
            }
            // What comes after them has been judged after them.
            remote.must_get(&mut blind, &blind_mark);
            std::thread::sleep(pause);
            victim.must_get(&mut remote, &data(NEXT));
        }
        assert!(kopid.status()["policy"]["connections"]["bad_checksums"].as_u64() >= Some(2), "window {window}");

        // The victim gets the right one.
        victim.must_get(&mut remote, &back.tcp(here, flags::RST, (NEXT, 0), b""));
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!victim.gets(&mut remote, &data(NEXT)), "window {window}: it is over");
        [victim, remote, blind].into_iter().for_each(|host| host.app.finish());
        assert!(kopid.stop().success());
    }
}

/// The victim, 10.5.0.1, gets what it has asked for, and datagrams to one port; everybody else gets everything.
const SHARED: &str = "default = { egress = \"accept\", ingress = \"accept\" }\n[tracking]\ntcp_loose = false\n\
     [[rule]]\nname = \"answers\"\nmatch = { state = \"established\" }\naction = \"accept\"\n\
     [[rule]]\nname = \"asked\"\nmatch = { proto = \"udp\", dst_port = 9 }\naction = \"accept\"\n\
     [[rule]]\nname = \"unasked\"\nmatch = { direction = \"ingress\", dst = \"10.5.0.1\" }\naction = \"drop\"\n";

/// Begins connections one after the other, each of which has to be known when its answer comes back; returns how many.
fn open(victim: &mut Host, remote: &mut Host, ports: std::ops::Range<u16>) -> usize {
    let (out, back) =
        (Ends { source: ip(1), destination: ip(9), id: 0 }, Ends { source: ip(9), destination: ip(1), id: 0 });
    let mut opened = 0;
    for port in ports {
        remote.must_get(victim, &out.tcp((port, 80), flags::SYN, (1, 0), b""));
        opened += usize::from(victim.gets(remote, &back.tcp((80, port), flags::SYN | flags::ACK, (1, 2), b"")));
    }
    opened
}

/// Sends packets in two fragments, the second one a while after the first; returns how many arrive whole.
fn in_parts(victim: &mut Host, remote: &mut Host, ids: std::ops::Range<u16>) -> usize {
    const LATE: Duration = Duration::from_millis(30);
    const MORE: u16 = 0x2000;
    let mut arrived = 0;
    for id in ids {
        let ends = Ends { source: ip(9), destination: ip(1), id };
        let whole = ends.udp((7, 9), &[7; 24]);
        let (first, last) = (&whole[20..36], &whole[36..]);
        victim.must_get(remote, &ends.fragment(UDP, MORE, first));
        std::thread::sleep(LATE);
        arrived += usize::from(victim.gets(remote, &ends.fragment(UDP, 2, last)));
    }
    arrived
}

/// Row 17: one user's apps fill the table of connections with such as both ends talk in, and that of fragments, as fast as kopid
/// lets them. Another's new connections are all known, and its fragments 30 ms apart arrive: with the limit of one user, and
/// without one. When the filler has left, all is free at once, and there is one line in the log for each app.
#[test]
fn a_filler_of_tables_costs_others_nothing() {
    for limit in ["", "connections_per_user = 268435456\n"] {
        let dir = TempDir::new("filler");
        let mut settings = Settings::default().policy(SHARED);
        settings.limits += limit;
        let mut kopid = Kopid::start(&dir, &settings);
        let mut victim = Host::new(&dir, &kopid, "victim", 1, OTHER);
        let mut remote = Host::new(&dir, &kopid, "remote", 9, OTHER);
        let mut apps: Vec<String> = ["echo", "talk:to=0", "talk:to=0", "fragments:to=0", "fragments"]
            .iter()
            .enumerate()
            .map(|(number, kind)| format!("filler{number}:{USER}:{kind}"))
            .collect();
        apps.push(format!("filler5:{USER}:fresh"));
        let mut load = Load::start(&dir, &kopid, &apps);
        load.on("filler");
        let filled = |kopid: &Kopid| kopid.app("filler0").and_then(|app| app["user_connections"].as_u64());
        let enough = if limit.is_empty() { 32_768 } else { 50_000 };
        wait_until("the table is full", SOON, || filled(&kopid) >= Some(enough));
        wait_until("that of fragments as well", SOON, || {
            let all = kopid.ask("apps").into_iter().filter_map(|app| app["fragments"].as_u64()).sum::<u64>();
            all >= 4000
        });

        assert_eq!(open(&mut victim, &mut remote, 1000..1100), 100, "{limit}connections of another user");
        assert_eq!(in_parts(&mut victim, &mut remote, 1..21), 20, "{limit}packets in fragments");
        let row = kopid.app("victim").expect("it is there");
        assert_eq!(row["connections_refused"], 0, "{row}");
        assert!(row["connections"].as_u64() >= Some(100) && row["fragments"].as_u64() <= Some(4096), "{row}");
        if limit.is_empty() {
            assert!(filled(&kopid) <= Some(32_768), "nobody has more than its limit");
            kopid.await_log("[limits] connections_per_");
        }

        drop(load);
        (0..6).for_each(|number| kopid.await_no_app(&format!("filler{number}")));
        let used = kopid.status()["policy"]["connections"]["used"].as_u64();
        assert!(used <= Some(1000), "{limit}{used:?} places are taken by who has left");
        assert_eq!(open(&mut victim, &mut remote, 2000..2020), 20);
        for name in (0..6).map(|number| format!("filler{number}:")) {
            let lines =
                kopid.log().lines().filter(|line| line.contains(&name) && line.contains("connections_per_")).count();
            assert!(lines <= 1, "{lines} lines about {name}");
        }
        [victim, remote].into_iter().for_each(|host| host.app.finish());
        assert!(kopid.stop().success());
    }
}

/// A datagram to somebody, in the name of a host that does not exist.
fn datagram(from: u32, to: u8) -> Vec<u8> {
    Ends { source: Ipv4Addr::from_bits(0xc633_0000 + from), destination: ip(to), id: 0 }.udp((5, 9), b"nobody waits")
}

/// What is rejected is answered as often as Linux would: six times at once to one address, and not without end to many. Who
/// causes the answers pays for them: another's rejected datagram is answered, and one with a wrong checksum is not.
#[test]
fn answers_to_what_is_rejected_are_limited() {
    let dir = TempDir::new("answers");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy("default = { ingress = \"reject\" }\n"));
    let mut asks = Host::new(&dir, &kopid, "asks", 1, USER);
    let mut other = Host::new(&dir, &kopid, "other", 2, OTHER);
    let serves = Host::new(&dir, &kopid, "serves", 9, OTHER);
    let rejected = |kopid: &Kopid| kopid.drops("rejected");
    let answers = |host: &mut Host| host.app.received().iter().filter(|frame| frame[23] == ICMP).count();

    (0..40).for_each(|_| asks.send(9, &datagram(1, 9)));
    wait_until("all are rejected", SOON, || rejected(&kopid) == 40);
    wait_until("the answers arrive", SOON, || kopid.counter("asks", "rx_packets") >= 6);
    // A busy machine may take some seconds for all of this.
    let mut few = 0;
    wait_until("the answers are read", SOON, || {
        few += answers(&mut asks);
        few >= 6
    });
    assert!((6..20).contains(&few), "{few} answers to one address");

    let start = Instant::now();
    (0..3500).for_each(|n| asks.send(9, &datagram(2 + n, 9)));
    wait_until("all are rejected", SOON, || rejected(&kopid) == 3540);
    let most = 60.0 + 1100.0 * start.elapsed().as_secs_f64();
    let many = kopid.counter("asks", "rx_packets") - few as u64;
    assert!(many >= 40 && (many as f64) <= most, "{many} answers where {most} may be");

    let quick = other.ends(9).udp((7, 9), b"am I heard?");
    other.send(9, &quick);
    let about = |frame: &[u8]| frame[23] == ICMP && frame.windows(4).any(|part| part == [0, 7, 0, 9]);
    drop(other.app.expect("another's datagram is answered", about));
    let mut damaged = other.ends(9).udp((8, 9), b"am I heard?");
    damaged[30] ^= 1;
    let withheld = |kopid: &Kopid| kopid.status()["workers"][0]["answers_withheld"].as_u64();
    let before = withheld(&kopid);
    other.send(9, &damaged);
    wait_until("it is not answered", SOON, || withheld(&kopid) == before.map(|count| count + 1));
    [asks, other, serves].into_iter().for_each(|host| host.app.finish());
    assert!(kopid.stop().success());
}

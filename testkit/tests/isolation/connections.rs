//! An app, or somebody on the wire, would end other people's connections, take the places that connections have, or have
//! kopid answer for it.

use kopi_testkit::frames::{Ends, ICMP, Mac, flags, framed};
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
        let app = Piped::client(dir, kopid, name, &address, &how, &[]);
        drop(kopid.await_app(name));
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

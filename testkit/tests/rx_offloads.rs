//! What the driver does to received frames in the place of a card, in an unmodified testpmd.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Producer;
use kopi_ring::layout::Notes;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Ends, Mac, ethernet, flags, framed};
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::{SOON, wait_for};
use kopi_testkit::{Kopid, Settings, TempDir, Testpmd};
use std::net::Ipv4Addr;

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 9];
const MAC: &str = "02:00:00:00:00:09";
const ENDS: Ends = Ends { source: Ipv4Addr::new(10, 77, 0, 1), destination: Ipv4Addr::new(10, 77, 0, 2), id: 7 };
/// The flags of an mbuf, by testpmd's names.
const VERDICTS: [&str; 4] = ["IP_CKSUM_GOOD", "IP_CKSUM_BAD", "L4_CKSUM_GOOD", "L4_CKSUM_BAD"];

/// An application that sends what the test wants.
struct Sender {
    _client: Client,
    ring: Producer,
}

impl Sender {
    fn new(kopid: &Kopid) -> Self {
        let (client, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
        drop(kopid.await_app("sender"));
        Self { _client: client, ring: region.tx_producer(0).expect("a region has a ring") }
    }

    fn send(&mut self, frame: &[u8]) {
        self.ring.free(1).expect("kopid keeps to the contract");
        assert!(self.ring.push(frame, Notes::NONE), "the ring has room");
        self.ring.publish();
    }
}

fn udp(data: &[u8]) -> Vec<u8> {
    ENDS.udp((7, 9), data)
}

fn damaged(mut packet: Vec<u8>, at: usize) -> Vec<u8> {
    packet[at] ^= 4;
    packet
}

/// testpmd counts the checksums that the driver calls bad if it has asked for them, and none if it has not.
#[test]
fn bad_checksums_are_counted() {
    let dir = TempDir::new("csum");
    let kopid = Kopid::start(&dir, &Settings::default());
    for (arguments, expected) in [("--enable-rx-cksum", (2, 4)), ("", (0, 0))] {
        let mut testpmd = Testpmd::forwarding(&dir, &kopid, &Options::new("counts", "csum").mac(MAC).with(arguments));
        let mut sender = Sender::new(&kopid);
        let tcp = ENDS.tcp((7, 80), flags::ACK, (1, 1), &[5; 1000]);
        let packets = [
            udp(b"hello"),
            tcp.clone(),
            damaged(udp(b"hello"), 30),
            damaged(udp(&[7; 1400]), 1400),
            damaged(tcp.clone(), 700),
            damaged(tcp.clone(), 36),
            // Another TTL, which only the header's checksum covers.
            damaged(udp(b"hello"), 8),
            damaged(tcp, 8),
        ];
        packets.iter().for_each(|packet| sender.send(&framed(RECEIVER, SENDER, packet)));
        // The engine counts after the port, when it has looked at them.
        let counted = || Some(testpmd.ask("show fwd stats all")).filter(|text| text.contains("RX-packets: 8 "));
        let text = wait_for("all are looked at", SOON, counted);
        let number = |key: &str| -> u64 {
            let word = text.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key} in:\n{text}"))
        };
        assert_eq!((number("Bad-ipcsum:"), number("Bad-l4csum:")), expected, "{text}");
        testpmd.quit();
        drop(sender);
        kopid.await_no_app("sender");
        kopid.await_no_app("counts");
    }
}

/// A testpmd that tells of each packet, and what it has told.
struct Told {
    testpmd: Testpmd,
    sender: Sender,
    packets: usize,
}

impl Told {
    fn new(dir: &TempDir, kopid: &Kopid, arguments: &str) -> Self {
        let mut testpmd = Testpmd::start(dir, kopid, &Options::new("told", "rxonly").mac(MAC).with(arguments));
        testpmd.ask("set verbose 1");
        testpmd.begin();
        drop(kopid.await_app("told"));
        Self { testpmd, sender: Sender::new(kopid), packets: 0 }
    }

    /// What it tells of this frame.
    fn pass(&mut self, frame: &[u8]) -> String {
        self.sender.send(frame);
        let at = self.packets;
        self.packets += 1;
        wait_for("the frame arrives", SOON, || {
            let log = self.testpmd.process().log();
            // Its flags come last.
            let told: Vec<_> = log.split(" - type=0x").skip(1).collect();
            let told = told.get(at)?.to_string();
            let (_, flags) = told.split_once("ol_flags:")?;
            flags.contains('\n').then_some(told.clone())
        })
    }
}

#[track_caller]
fn assert_verdicts(told: &str, expected: [bool; 4]) {
    assert_eq!(VERDICTS.map(|name| told.contains(name)), expected, "{told}");
}

/// The tag is told apart from the frame, with its checksums and its time, as long as stripping is on; it is switched at run time.
#[test]
fn tags_are_stripped_as_the_application_says() {
    let dir = TempDir::new("strip");
    let kopid = Kopid::start(&dir, &Settings::default());
    let mut told = Told::new(&dir, &kopid, "--rx-offloads=0x2400f");
    let tagged = |packet: &[u8]| ethernet(RECEIVER, SENDER, 0x8100, &[&[0x60, 7, 8, 0][..], packet].concat());
    let good = tagged(&udp(b"hello"));
    let length = |len: usize| format!("length={len} ");
    for strips in [true, false, true] {
        let text = told.pass(&good);
        assert_eq!((text.contains("VLAN tci=0x6007"), text.contains("RX_VLAN_STRIPPED")), (strips, strips), "{text}");
        assert!(text.contains(&length(good.len() - if strips { 4 } else { 0 })), "{text}");
        assert!(text.contains("timestamp"), "{text}");
        assert_verdicts(&text, [true, false, true, false]);
        let text = told.pass(&tagged(&damaged(udp(b"hello"), 30)));
        assert_verdicts(&text, [true, false, false, true]);
        let text = told.pass(&framed(RECEIVER, SENDER, &udp(b"hello")));
        assert!(!text.contains("VLAN tci"), "{text}");
        let switch = if strips { "off" } else { "on" };
        told.testpmd.ask(&format!("vlan set strip {switch} 0"));
        let info = told.testpmd.ask("show port info 0");
        assert!(info.contains(&format!("strip {switch}, filter off")), "{info}");
    }
    told.testpmd.ask("vlan set stripq on 0,0");
    assert!(told.pass(&good).contains("VLAN tci=0x6007"));
    told.testpmd.quit();
}

/// Frames that lie in several buffers, too, and a checksum that is left out.
#[test]
fn checksums_cover_all_buffers() {
    let dir = TempDir::new("scatter");
    let kopid = Kopid::start(&dir, &Settings::default());
    let mut told = Told::new(&dir, &kopid, "--rx-offloads=0x2200e --mbuf-size=640");
    for at in [None, Some(30), Some(600), Some(1499)] {
        let mut packet = udp(&[7; 1472]);
        if let Some(at) = at {
            packet = damaged(packet, at);
        }
        let text = told.pass(&framed(RECEIVER, SENDER, &packet));
        assert!(text.contains("nb_segs=3"), "{text}");
        assert_verdicts(&text, [true, false, at.is_none(), at.is_some()]);
    }
    let mut absent = udp(b"hello");
    absent[26..28].fill(0);
    let text = told.pass(&framed(RECEIVER, SENDER, &absent));
    assert!(text.contains("L4_CKSUM_NONE"), "{text}");
    told.testpmd.quit();
}

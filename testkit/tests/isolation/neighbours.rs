//! What an app may say to the neighbours of the wire: the switch at its other end, and the hosts behind that.

use kopi_ring::layout::Notes;
use kopi_ring::message::{Message, Settings as PortSettings};
use kopi_ring::{Consumer, Producer};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Ends, ICMPV6, Mac, arp, ethernet, framed, id_of, ipv6};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Settings, TempDir, wait_until};
use std::net::{Ipv4Addr, Ipv6Addr};

const EVIL: Mac = [2, 0, 0, 0, 0xee, 1];
const OTHER: Mac = [2, 0, 0, 0, 0xee, 2];
const SWITCH: Mac = [2, 0, 0, 0, 0xee, 0xfe];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
/// What comes last of a batch.
const MARK: u16 = 0xffff;

/// A group address that no bridge forwards.
const fn reserved(last: u8) -> Mac {
    [0x01, 0x80, 0xc2, 0, 0, last]
}

/// An IEEE 802.3 frame with LLC.
fn llc(destination: Mac, source: Mac, body: &[u8]) -> Vec<u8> {
    ethernet(destination, source, u16::try_from(body.len()).expect("short"), body)
}

/// As long as a frame on the wire is at least.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// What speaks to the other end of a link, by what an `[[app]]` has to allow for it.
fn link_control(source: Mac) -> Vec<(&'static str, Vec<u8>)> {
    let pause = [&[0, 1, 0xff, 0xff][..], &[0; 42]].concat();
    let by_class = [&[1, 1, 0, 0xff][..], &[0xff; 16], &[0; 26]].concat();
    let root = [&[0x42, 0x42, 3, 0, 0, 0, 0, 0][..], &source, &[0; 24]].concat();
    let of_vlan = [&[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b][..], &[0; 40]].concat();
    let discovery = [&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0][..], &[0; 40]].concat();
    let frames = [
        ("mac-control", ethernet(reserved(1), source, 0x8808, &pause)),
        ("mac-control", ethernet(reserved(1), source, 0x8808, &by_class)),
        ("mac-control", ethernet(SWITCH, source, 0x8808, &pause)),
        ("mac-control", ethernet([0xff; 6], source, 0x8808, &pause)),
        ("stp", llc(reserved(0), source, &root)),
        ("stp", llc(reserved(8), source, &root)),
        ("lacp", ethernet(reserved(2), source, 0x8809, &[&[1, 1][..], &[0; 108]].concat())),
        ("eapol", ethernet(reserved(3), source, 0x888e, &[&[1, 2][..], &[0; 44]].concat())),
        ("lldp", ethernet(reserved(0xe), source, 0x88cc, &[&[2, 7, 4][..], &source, &[0; 40]].concat())),
        ("lldp", ethernet(reserved(0), source, 0x8100, &[0, 0, 0x88, 0xcc, 2, 7, 4])),
        ("ptp", ethernet(reserved(0xe), source, 0x88f7, &[&[2, 2][..], &[0; 52]].concat())),
        ("cdp", llc([1, 0, 0x0c, 0xcc, 0xcc, 0xcc], source, &discovery)),
        ("cdp", llc([1, 0, 0x0c, 0xcc, 0xcc, 0xcd], source, &of_vlan)),
        ("link-control", ethernet(reserved(0xd), source, 0x88f5, &[0; 46])),
        (
            "link-control",
            framed(reserved(0xf), source, &Ends { source: OWN, destination: OWN, id: 1 }.udp((1, 2), b"x")),
        ),
    ];
    frames.map(|(word, frame)| (word, padded(frame))).into()
}

/// As a packet socket shows it: Linux takes the outer tag off.
fn untagged(frame: &[u8]) -> Vec<u8> {
    if frame[12..14] == [0x81, 0] { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

/// kopid on a wire, at whose other end one may listen.
struct Scene {
    kopid: Kopid,
    netns: Netns,
    dir: TempDir,
}

impl Scene {
    fn new(policy: Option<&str>) -> Self {
        let dir = TempDir::new("neighbours");
        let netns = Netns::new(1500);
        let settings = Settings { huge_pages: "off", ..Settings::on_interface(netns.outside(), 1) };
        let kopid = Kopid::start(&dir, &Settings { policy: policy.map(str::to_owned), ..settings });
        Self { kopid, netns, dir }
    }

    /// An app that wants everything that it may have.
    fn app(&self, name: &str, mac: Mac) -> App {
        let (mut client, region) = Client::attach(&self.kopid.socket(), name, mac, &small());
        let settings = PortSettings { mtu: 1500, macs: vec![mac], promiscuous: true, all_multicast: true };
        assert!(matches!(client.ask(Message::Settings(settings)), Ok((Message::Done, _))));
        let (producer, consumer) = (region.tx_producer(0).expect("a ring"), region.rx_consumer(0).expect("a ring"));
        App { _client: client, mac, producer, consumer }
    }
}

struct App {
    _client: Client,
    mac: Mac,
    producer: Producer,
    consumer: Consumer,
}

impl App {
    fn send(&mut self, frame: &[u8]) {
        wait_until("there is room", SOON, || self.producer.free(1).is_ok_and(|free| free > 0));
        assert!(self.producer.push(frame, Notes::NONE));
        self.producer.publish();
    }

    /// Sends frames and then one to everybody; returns those that were on the wire before it.
    fn what_passes(&mut self, peer: &Peer, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        frames.iter().for_each(|frame| self.send(frame));
        self.send(&mark(self.mac));
        peer.collect(is_mark)
    }

    /// Everything that has come up to the frame that is marked, without what the kernel at the other end says by itself.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        wait_until("the last frame comes", SOON, || {
            self.consumer.poll().expect("kopid keeps to the contract");
            let mut last = false;
            while let (false, Some(taken)) = (last, self.consumer.next().expect("kopid keeps to the contract")) {
                let mut frame = vec![0; taken.len() as usize];
                self.consumer.copy(&taken, &mut frame);
                last = is_mark(&frame);
                frames.push(frame);
            }
            self.consumer.release();
            last
        });
        frames.retain(|frame| frame[6..12] != Netns::MAC && !is_mark(frame));
        frames
    }
}

fn mark(source: Mac) -> Vec<u8> {
    framed([0xff; 6], source, &Ends { source: OWN, destination: Ipv4Addr::BROADCAST, id: MARK }.udp((1, 2), b"last"))
}

fn is_mark(frame: &[u8]) -> bool {
    id_of(frame) == Some(MARK)
}

/// What says to a switch that it is to stop, to choose another root, to bundle or to shut its port never comes from an app:
/// with addresses of its own or without, under a policy that accepts everything or none at all, to the wire or to another app.
#[test]
fn no_app_speaks_to_the_switch() {
    let own = "[[app]]\nname = \"evil\"\nmac = \"02:00:00:00:ee:01\"\naddresses = \"10.77.0.66\"\n";
    let unchecked = "[[app]]\nname = \"evil\"\nspoof_check = false\n";
    for policy in [None, Some(own), Some(unchecked), Some("[[app]]\nname = \"evil\"\n")] {
        let policy = policy.map(|policy| format!("{policy}[[app]]\nname = \"other\"\n"));
        let mut scene = Scene::new(policy.as_deref());
        let peer = Peer::new(&scene.netns);
        let (mut evil, mut other) = (scene.app("evil", EVIL), scene.app("other", OTHER));
        let mut frames: Vec<_> = link_control(EVIL).into_iter().map(|(_, frame)| frame).collect();
        frames.push(padded(ethernet(OTHER, EVIL, 0x8808, &[0, 1, 0xff, 0xff])));
        assert_eq!(evil.what_passes(&peer, &frames), Vec::<Vec<u8>>::new(), "{policy:?}");
        assert_eq!(other.received(), Vec::<Vec<u8>>::new(), "{policy:?}");
        let drops = scene.kopid.ask("drops");
        assert_eq!(scene.kopid.drops("link_control"), frames.len() as u64, "{policy:?}: {drops:?}");
        assert!(scene.kopid.stop().success());
    }
}

/// An app may say to the switch, and hear from it, what its entry allows, and nothing else; what it says is for no other app,
/// and what the switch says for none that may not.
#[test]
fn who_may_speaks_to_the_switch() {
    let policy = |words: &str| {
        format!(
            "[[app]]\nname = \"agent\"\nmac = \"02:00:00:00:ee:01\"\naddresses = \"10.77.0.66\"\nallow = {words}\n\
             [[app]]\nname = \"lldp\"\nmac = \"02:00:00:00:ee:02\"\nallow = \"lldp\"\n"
        )
    };
    let mut scene = Scene::new(Some(&policy("[]")));
    let peer = Peer::new(&scene.netns);
    let (mut agent, mut lldp) = (scene.app("agent", EVIL), scene.app("lldp", OTHER));
    let of = |frames: &[(&str, Vec<u8>)], word: &str| -> Vec<Vec<u8>> {
        let may = |of: &str| word == of || word == "link-control";
        frames.iter().filter(|(of, _)| may(of)).map(|(_, frame)| untagged(frame)).collect()
    };
    let (ours, theirs) = (link_control(EVIL), link_control(SWITCH));
    let all: Vec<_> = ours.iter().map(|(_, frame)| frame.clone()).collect();
    for word in ["lldp", "lacp", "stp", "eapol", "ptp", "cdp", "mac-control", "link-control"] {
        scene.kopid.reload(&policy(&format!("[\"{word}\"]"))).expect("a good policy");
        let before = scene.kopid.drops("link_control");
        let expected = of(&ours, word);
        assert_eq!(agent.what_passes(&peer, &all), expected, "allow = {word:?}");
        assert_eq!(lldp.received(), Vec::<Vec<u8>>::new(), "no app is the switch of another");
        let refused = scene.kopid.drops("link_control") - before;
        assert_eq!(refused, (all.len() - expected.len()) as u64, "allow = {word:?}");

        theirs.iter().for_each(|(_, frame)| peer.transmit(frame));
        peer.transmit(&mark(SWITCH));
        // One is for a station that is not here.
        let expected: Vec<_> = of(&theirs, word).into_iter().filter(|frame| frame[..6] != SWITCH).collect();
        let heard: Vec<_> = agent.received().iter().map(|frame| untagged(frame)).collect();
        assert_eq!(heard, expected, "allow = {word:?}");
        let heard: Vec<_> = lldp.received().iter().map(|frame| untagged(frame)).collect();
        assert_eq!(heard, of(&theirs, "lldp"), "the other agent hears as before");
    }
    assert!(scene.kopid.stop().success());
    drop(scene.dir);
}

/// Where the gateway is, and what it is not for an app to say.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const EVERYBODY: Mac = [0xff; 6];

fn from(source: Ipv4Addr, destination: Ipv4Addr) -> Ends {
    Ends { source, destination, id: 7 }
}

/// A message of a client of DHCP (1) or of a server (2), of the station `hardware`, that says so again in its identifier.
fn bootp(operation: u8, hardware: Mac, identifier: Mac) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[operation, 1, 6]);
    message[28..34].copy_from_slice(&hardware);
    message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    [&message[..], &[53, 1, 1, 61, 7, 1], &identifier, &[255]].concat()
}

/// A message of ICMPv6 from the link-local address that is made of a MAC address, with that in an option.
fn icmp6(source: Mac, kind: u8, fixed: usize) -> Vec<u8> {
    let [a, b, c, d, e, f] = source;
    let word = |high, low| u16::from_be_bytes([high, low]);
    let from = Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f));
    let message = [&[kind, 0, 0, 0][..], &vec![0; fixed], &[1, 1], &source].concat();
    framed([0x33, 0x33, 0, 0, 0, 1], source, &ipv6(from, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), ICMPV6, &message))
}

/// What speaks in the name of others, by what an `[[app]]` has to allow for it; "" for what nothing allows.
fn for_others() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let foreign = from(GATEWAY, Ipv4Addr::new(10, 77, 0, 1)).udp((1, 53), b"who asks?");
    let own = from(OWN, Ipv4Addr::new(10, 77, 0, 1));
    let ether = |kind, payload: &[u8]| ethernet(SWITCH, EVIL, kind, payload);
    let snap = |oui: u8, kind: u16, packet: &[u8]| {
        llc(SWITCH, EVIL, &[&[0xaa, 0xaa, 3, 0, 0, oui][..], &kind.to_be_bytes(), packet].concat())
    };
    let claim = arp(EVIL, 2, (EVIL, GATEWAY), (EVERYBODY, GATEWAY));
    let pppoe =
        [&[0x11, 0, 0, 1][..], &u16::try_from(foreign.len() + 2).expect("short").to_be_bytes(), &[0, 0x21]].concat();
    let asks = |to, message: &[u8]| framed(to, EVIL, &from(NOBODY, Ipv4Addr::BROADCAST).udp((68, 67), message));
    let says = |ports, message: &[u8]| framed(EVERYBODY, EVIL, &from(OWN, Ipv4Addr::BROADCAST).udp(ports, message));
    let offer = bootp(2, OTHER, OTHER);
    vec![
        ("", "IP", framed(SWITCH, EVIL, &foreign)),
        ("", "ARP", claim.clone()),
        ("", "ARP in SNAP", snap(0, 0x0806, &claim[14..])),
        ("", "IP in SNAP", snap(0, 0x0800, &foreign)),
        ("", "IP in SNAP of 802.1H", snap(0xf8, 0x0800, &foreign)),
        ("", "IP behind VLAN 0", ether(0x8100, &[&[0, 0, 8, 0][..], &foreign].concat())),
        ("", "IP behind tag 0x9100", ether(0x9100, &[&[0, 100, 8, 0][..], &foreign].concat())),
        ("", "IP behind tag 0x9200", ether(0x9200, &[&[0, 100, 8, 0][..], &foreign].concat())),
        ("", "IP behind two tags", ether(0x9100, &[&[0, 100, 0x91, 0, 0, 1, 8, 0][..], &foreign].concat())),
        ("", "IP in SNAP behind a tag", ether(0x8100, &[&[0, 9][..], &snap(0, 0x0800, &foreign)[12..]].concat())),
        ("", "IP broadcast from nobody to one host", asks(SWITCH, &bootp(1, EVIL, EVIL))),
        ("tunnel", "IP behind a tag in SNAP", snap(0, 0x8100, &[&[0, 9, 8, 0][..], &foreign].concat())),
        ("tunnel", "IP in PPPoE", ether(0x8864, &[&pppoe[..], &foreign].concat())),
        ("tunnel", "PPPoE offer", ether(0x8863, &[0x11, 7, 0, 0, 0, 4, 1, 1, 0, 0])),
        ("tunnel", "IP in MPLS", ether(0x8847, &[&[0, 1, 1, 0x40][..], &foreign].concat())),
        ("tunnel", "IP in MPLS multicast", ether(0x8848, &[&[0, 1, 1, 0x40][..], &foreign].concat())),
        ("tunnel", "IP in IP", framed(SWITCH, EVIL, &own.packet(4, &foreign))),
        ("tunnel", "IP in GRE", framed(SWITCH, EVIL, &own.packet(47, &[&[0, 0, 8, 0][..], &foreign].concat()))),
        ("tunnel", "IPv6 in IP", framed(SWITCH, EVIL, &own.packet(41, &icmp6(OTHER, 134, 12)[14..]))),
        ("router", "router advertisement", icmp6(EVIL, 134, 12)),
        ("router", "redirect of IPv6", icmp6(EVIL, 137, 36)),
        ("router", "question for listeners", icmp6(EVIL, 130, 20)),
        ("router", "redirect", framed(SWITCH, EVIL, &own.error(5, 1, &foreign))),
        (
            "router",
            "router advertisement of IPv4",
            framed(SWITCH, EVIL, &own.icmp(9, 0, &[1, 2, 7, 8, 10, 77, 0, 66, 0, 0, 0, 0])),
        ),
        (
            "router",
            "VRRP",
            framed([1, 0, 0x5e, 0, 0, 18], EVIL, &from(OWN, Ipv4Addr::new(224, 0, 0, 18)).packet(112, &[0x31; 20])),
        ),
        ("dhcp-server", "DHCP offer", says((67, 68), &offer)),
        ("dhcp-server", "DHCP offer from another port", says((4000, 68), &offer)),
        ("dhcp-server", "answer to a relay agent", says((67, 67), &offer)),
        ("dhcp-server", "somebody else's chaddr", asks(EVERYBODY, &bootp(1, OTHER, EVIL))),
        ("dhcp-server", "somebody else's client identifier", asks(EVERYBODY, &bootp(1, EVIL, OTHER))),
        ("dhcp-server", "a request that cannot be read", asks(EVERYBODY, &[1, 1, 6, 0])),
    ]
}

/// An app with addresses speaks for nobody else, however it wraps that up, and whatever of its own came before and has left its
/// verdict in the flow table; but for what its entry allows.
#[test]
fn no_app_speaks_for_others() {
    let policy = |words: &str| {
        format!(
            "[[app]]\nname = \"evil\"\nmac = \"02:00:00:00:ee:01\"\naddresses = \"10.77.0.66\"\nallow = [{words}]\n"
        )
    };
    let mut scene = Scene::new(Some(&policy("")));
    let peer = Peer::new(&scene.netns);
    let mut evil = scene.app("evil", EVIL);
    let cases = for_others();
    let of_its_own = [
        framed(EVERYBODY, EVIL, &from(NOBODY, Ipv4Addr::BROADCAST).udp((68, 67), &bootp(1, EVIL, EVIL))),
        padded(framed(SWITCH, EVIL, &from(OWN, GATEWAY).udp((1, 53), b"own"))),
        padded(llc(
            SWITCH,
            EVIL,
            &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &from(OWN, GATEWAY).udp((1, 53), b"own")].concat(),
        )),
        icmp6(EVIL, 133, 4),
        padded(arp(EVIL, 1, (EVIL, OWN), ([0; 6], GATEWAY))),
    ];
    for word in ["", "tunnel", "router", "dhcp-server"] {
        let words = if word.is_empty() { String::new() } else { format!("{word:?}") };
        scene.kopid.reload(&policy(&words)).expect("a good policy");
        let before = scene.kopid.drops("spoofed");
        let mut expected = 0;
        for (needs, what, frame) in &cases {
            let frame = padded(frame.clone());
            let allowed = !needs.is_empty() && *needs == word;
            expected += 2 * u64::from(!allowed);
            let own = of_its_own.clone();
            let sent = [&own[..], std::slice::from_ref(&frame), &own, std::slice::from_ref(&frame)].concat();
            let passed = evil.what_passes(&peer, &sent);
            let times = passed.iter().filter(|passed| **passed == untagged(&frame)).count();
            assert_eq!(times, if allowed { 2 } else { 0 }, "{what} with allow = [{words}]");
            assert_eq!(passed.len(), times + 2 * own.len(), "what is its own passes beside {what}");
        }
        let refused = scene.kopid.drops("spoofed") - before;
        assert_eq!(refused, expected, "with allow = [{words}]: {:?}", scene.kopid.ask("drops"));
    }
    assert!(scene.kopid.stop().success());
}

//! What an app may say to the neighbours of the wire: the switch at its other end, and the hosts behind that.

use kopi_ring::layout::Notes;
use kopi_ring::message::{Message, Settings as PortSettings};
use kopi_ring::{Consumer, Producer};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Ends, Mac, ethernet, framed, id_of};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Settings, TempDir, wait_until};
use std::net::Ipv4Addr;

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
/// with a lease or without, under a policy that accepts everything or none at all, to the wire or to another app.
#[test]
fn no_app_speaks_to_the_switch() {
    let lease = "[[app]]\nname = \"evil\"\nmac = \"02:00:00:00:ee:01\"\naddresses = \"10.77.0.66\"\n";
    let unchecked = "[[app]]\nname = \"evil\"\nspoof_check = false\n";
    for policy in [None, Some(lease), Some(unchecked), Some("[[app]]\nname = \"evil\"\n")] {
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

//! What a policy lets apps do: whose addresses they may use, whether they may attach, and what those are told whose
//! frames are rejected.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::frames::{self, Ends, Mac, UDP, advertisement, arp, framed};
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Piped, Settings, TempDir, wait_until};
use serde_json::json;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// A user that needs no account.
const BOB: u32 = 64201;
const BOB_MAC: Mac = [2, 0, 0, 0, 0, 0xb];
const BOB_NAME: &str = "02:00:00:00:00:0b";
const BOB_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const BOB_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xb);
/// What BOB_MAC becomes below fe80::/64 (RFC 4291, appendix A).
const BOB_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0xb);
const PEER_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PEER_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OTHER: Mac = [2, 0, 0, 0, 0, 0xee];
const OTHER_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
const OTHER_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
/// The last frame of a batch.
const MARK: u16 = 0xffff;

const PORT_SECURITY: &str = r#"
[[app]]
name      = "bob"
owner     = { uid = 64201 }
mac       = "02:00:00:00:00:0b"
addresses = ["10.77.0.11", "2001:db8::b"]
"#;

fn as_user(uid: u32) -> Launch {
    Launch { user: Some(uid), ..Launch::default() }
}

/// A wire, kopid with this policy, and bob's app.
fn start(label: &str, policy: &str) -> (TempDir, Netns, Kopid, Piped) {
    let dir = TempDir::new(label);
    let netns = Netns::new(1500);
    let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(policy));
    let bob = Piped::client(&dir, &kopid, "bob", BOB_NAME, &as_user(BOB), &[]);
    drop(kopid.await_app("bob"));
    (dir, netns, kopid, bob)
}

fn ends(source: Ipv4Addr, id: u16) -> Ends {
    Ends { source, destination: PEER_IP, id }
}

/// Sends frames and then one that surely passes; returns those that were on the wire.
fn what_passes(app: &mut Piped, peer: &Peer, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().for_each(|frame| app.send(frame));
    app.send(&framed(Netns::MAC, BOB_MAC, &ends(BOB_IP, MARK).udp((9, 9), b"last")));
    peer.collect(|frame| frames::id_of(frame) == Some(MARK))
}

/// The frames as a packet socket sees them.
fn untagged(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let plain = |frame: &Vec<u8>| match frame[12..14] {
        [0x81, 0] => [&frame[..12], &frame[16..]].concat(),
        _ => frame.clone(),
    };
    frames.iter().map(plain).collect()
}

/// Frames that only use what is bob's.
fn honest() -> Vec<Vec<u8>> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let ip = |packet: &[u8]| framed(Netns::MAC, BOB_MAC, packet);
    let udp = ends(BOB_IP, 1).udp((5000, 5000), b"hello");
    let mut tagged = ip(&udp);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    vec![
        ip(&udp),
        tagged,
        ip(&ends(BOB_IP, 2).echo(8, 1, 1)),
        arp(BOB_MAC, 1, (BOB_MAC, BOB_IP), ([0; 6], PEER_IP)),
        arp(BOB_MAC, 2, (BOB_MAC, BOB_IP), (Netns::MAC, PEER_IP)),
        // A probe for its own address (RFC 5227).
        arp(BOB_MAC, 1, (BOB_MAC, nobody), ([0; 6], BOB_IP)),
        ip(&advertisement(BOB_IP6, PEER_IP6, BOB_IP6, BOB_MAC)),
        ip(&advertisement(BOB_LINK, PEER_IP6, BOB_LINK, BOB_MAC)),
        ip(&frames::ipv6(BOB_IP6, PEER_IP6, UDP, &[0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0])),
    ]
}

/// Frames that use something else.
fn spoofed() -> Vec<Vec<u8>> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let ip = |packet: &[u8]| framed(Netns::MAC, BOB_MAC, packet);
    let stolen = ends(OTHER_IP, 3).udp((5000, 5000), b"hello");
    let mut tagged = ip(&stolen);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    vec![
        framed(Netns::MAC, OTHER, &ends(BOB_IP, 4).udp((5000, 5000), b"hello")),
        ip(&stolen),
        tagged,
        ip(&ends(OTHER_IP, 5).echo(8, 1, 1)),
        ip(&ends(nobody, 6).udp((5000, 5000), b"hello")),
        arp(OTHER, 1, (BOB_MAC, BOB_IP), ([0; 6], PEER_IP)),
        arp(BOB_MAC, 1, (OTHER, BOB_IP), ([0; 6], PEER_IP)),
        arp(BOB_MAC, 1, (BOB_MAC, OTHER_IP), ([0; 6], PEER_IP)),
        arp(BOB_MAC, 2, (BOB_MAC, OTHER_IP), (Netns::MAC, PEER_IP)),
        arp(BOB_MAC, 1, (BOB_MAC, nobody), ([0; 6], OTHER_IP)),
        ip(&advertisement(BOB_IP6, PEER_IP6, OTHER_IP6, BOB_MAC)),
        ip(&advertisement(BOB_IP6, PEER_IP6, BOB_IP6, OTHER)),
        ip(&advertisement(OTHER_IP6, PEER_IP6, BOB_IP6, BOB_MAC)),
        ip(&frames::ipv6(OTHER_IP6, PEER_IP6, UDP, &[0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0])),
    ]
}

/// An app speaks only from what is its own: by MAC, IP, ARP and neighbour discovery, with a VLAN tag or without, in
/// whatever order the frames come.
#[test]
fn apps_speak_only_from_their_own_addresses() {
    let (_dir, netns, mut kopid, mut bob) = start("spoofing", PORT_SECURITY);
    let peer = Peer::new(&netns);
    let (honest, spoofed) = (honest(), spoofed());
    assert_eq!(what_passes(&mut bob, &peer, &honest), untagged(&honest));
    assert_eq!(what_passes(&mut bob, &peer, &spoofed), Vec::<Vec<u8>>::new());
    let mixed: Vec<_> = spoofed.iter().zip(honest.iter().cycle()).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let passed: Vec<_> = honest.iter().cycle().take(spoofed.len()).cloned().collect();
    assert_eq!(what_passes(&mut bob, &peer, &mixed), untagged(&passed));
    wait_until("every spoofed frame is counted as such", SOON, || kopid.drops("spoofed") == 2 * spoofed.len() as u64);
    let row = kopid.ask("drops").into_iter().find(|row| row["reason"] == "spoofed").expect("there is one");
    assert_eq!((&row["app"], &row["stage"]), (&"bob".into(), &"filter".into()), "{row}");
    bob.finish();
    assert!(kopid.stop().success());
}

/// Without addresses in the policy an app may speak from any address that is nobody else's.
#[test]
fn addresses_of_others_are_theirs_without_a_lease_of_ones_own() {
    let dir = TempDir::new("unlisted");
    let netns = Netns::new(1500);
    let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(PORT_SECURITY));
    let mut other = Piped::client(&dir, &kopid, "other", "02:00:00:00:00:ee", &as_user(BOB + 1), &[]);
    drop(kopid.await_app("other"));
    let peer = Peer::new(&netns);
    let from = |ip, id| framed(Netns::MAC, OTHER, &ends(ip, id).udp((5000, 5000), b"hello"));
    let own = from(OTHER_IP, 1);
    let stolen = [from(BOB_IP, 2), framed(Netns::MAC, BOB_MAC, &ends(OTHER_IP, 3).udp((5000, 5000), b"hello"))];
    [&stolen[..], std::slice::from_ref(&own)].concat().iter().for_each(|frame| other.send(frame));
    other.send(&from(OTHER_IP, MARK));
    assert_eq!(peer.collect(|frame| frames::id_of(frame) == Some(MARK)), [own]);
    assert_eq!(kopid.drops("spoofed"), 2);
}

/// Who is not admitted hears why, and so does the log; who is admitted gets the entry's name and address, and no other.
#[test]
fn admission_follows_the_policy() {
    let policy = format!(
        "default = {{ attach = \"refuse\" }}\n{PORT_SECURITY}\
         [[app]]\nname = \"nobody\"\nowner = {{ uid = 64299 }}\nadmit = false\n"
    );
    let dir = TempDir::new("admission");
    let kopid = Kopid::start(&dir, &Settings::default().policy(&policy));
    let none = "00:00:00:00:00:00";
    let attach = |uid: u32, name: &str, mac: &str| {
        let mut client = Piped::client(&dir, &kopid, name, mac, &as_user(uid), &[]);
        let refusal = client.answer();
        let pid = client.process().pid();
        if let Some(why) = &refusal {
            let pid = format!("pid {pid}");
            wait_until("the log says why it was refused", SOON, || {
                kopid.log().lines().any(|line| line.contains(&pid) && line.contains(why.as_str()))
            });
        }
        (client, refusal)
    };
    for (uid, name, mac, reason) in [
        (BOB + 1, "other", none, "no [[app]] of the policy is for this process"),
        (BOB + 1, "bob", none, "gives the name `bob` to another process"),
        (BOB, "other", none, "has the name `bob` for this process, not `other`"),
        (BOB, "bob", "02:00:00:00:00:0c", "gives this app the MAC address 02:00:00:00:00:0b"),
        (64299, "nobody", none, "`admit` is false in [[app]] `nobody`"),
    ] {
        let (_client, refusal) = attach(uid, name, mac);
        let refusal = refusal.unwrap_or_else(|| panic!("{uid} may attach as `{name}`"));
        assert!(refusal.contains(reason), "`{refusal}` does not say: {reason}");
    }
    for (name, mac) in [("", none), ("bob", none), ("", BOB_NAME), ("bob", BOB_NAME)] {
        let (client, refusal) = attach(BOB, name, mac);
        assert_eq!(refusal, None);
        let app = kopid.await_app("bob");
        assert_eq!((&app["mac"], &app["uid"]), (&BOB_NAME.into(), &BOB.into()), "{app}");
        client.finish();
        kopid.await_no_app("bob");
    }
}

/// What a kernel's sockets hear of rejected packets: as from a port where nobody listens. What is dropped is silent.
#[test]
fn rejected_senders_are_told() {
    let rules = r#"
[[rule]]
name   = "no"
match  = { direction = "ingress", proto = ["tcp", "udp"], dst_port = 5000 }
action = "reject"

[[rule]]
name   = "silence"
match  = { direction = "ingress", proto = ["tcp", "udp"], dst_port = 6000 }
action = "drop"
"#;
    let (_dir, netns, mut kopid, bob) = start("reject", &format!("{PORT_SECURITY}{rules}"));
    netns.neighbour("10.77.0.11", BOB_NAME);
    let tcp = |port: u16| {
        let address = SocketAddr::from((BOB_IP, port));
        netns.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1))).map(drop).map_err(|e| e.kind())
    };
    let udp = |port: u16| {
        let socket = netns.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
        socket.connect((BOB_IP, port)).expect("UDP always connects");
        socket.send(b"hello").expect("it is sent");
        socket.recv(&mut [0; 16]).map(drop).map_err(|e| e.kind())
    };
    for _ in 0..3 {
        assert_eq!(tcp(5000), Err(ErrorKind::ConnectionRefused));
        assert_eq!(udp(5000), Err(ErrorKind::ConnectionRefused));
    }
    assert_eq!(tcp(6000), Err(ErrorKind::TimedOut));
    assert_eq!(udp(6000), Err(ErrorKind::WouldBlock));
    wait_until("they are counted", SOON, || kopid.rule("no") == 6 && kopid.rule("silence") >= 2);
    assert_eq!(kopid.drops("rejected"), 6);
    bob.finish();
    assert!(kopid.stop().success());
}

/// An app whose own packets are rejected hears it too: a reset for TCP, an ICMP error that quotes the packet for the rest.
#[test]
fn rejected_apps_are_told() {
    let rule = "[[rule]]\nname = \"no\"\nmatch = { direction = \"egress\", dst_port = 5000 }\naction = \"reject\"\n";
    let (_dir, _netns, mut kopid, mut bob) = start("reject-app", &format!("{PORT_SECURITY}{rule}"));
    let syn = ends(BOB_IP, 1).tcp((4000, 5000), frames::flags::SYN, (77, 0), &[]);
    bob.send(&framed(Netns::MAC, BOB_MAC, &syn));
    let reset = bob.expect("a reset comes back", |_| true);
    let right = Ends { source: PEER_IP, destination: BOB_IP, id: 0 };
    let acknowledging_reset = frames::flags::RST | frames::flags::ACK;
    let right = right.tcp((5000, 4000), acknowledging_reset, (0, 78), &[]);
    assert_eq!((&reset[..6], &reset[14 + 12..34 + 14]), (&BOB_MAC[..], &right[12..34]), "{reset:02x?}");
    assert_eq!(frames::checksum(&[&reset[14..34]]), 0, "the header's checksum is right");

    let datagram = ends(BOB_IP, 2).udp((4000, 5000), b"hello");
    bob.send(&framed(Netns::MAC, BOB_MAC, &datagram));
    let error = bob.expect("an ICMP error comes back", |_| true);
    assert_eq!((error[14 + 9], &error[34..36]), (frames::ICMP, &[3, 3][..]), "port unreachable: {error:02x?}");
    assert_eq!(error[42..62], datagram[..20], "it quotes the packet");
    assert_eq!(frames::checksum(&[&error[34..]]), 0, "its checksum is right");
    wait_until("they are counted", SOON, || kopid.rule("no") == 2);
    bob.finish();
    assert!(kopid.stop().success());
}

/// Every field of the rules has a part in these.
const FIELDS: &str = r#"
[[rule]]
name   = "voice"
match  = { direction = "egress", proto = "udp", dscp = 46 }
action = "drop"

[[rule]]
name   = "syn"
match  = { proto = "tcp", tcp_flags = "syn/syn,ack" }
action = "drop"

[[rule]]
name   = "broken"
match  = { proto = "tcp", dst = "10.77.0.66" }
action = "drop"

[[rule]]
name   = "station"
match  = { dst_mac = "02:00:00:00:00:77" }
action = "drop"

[[rule]]
name   = "vlan"
match  = { vlan = 7 }
action = "drop"

[[rule]]
name   = "asked"
match  = { state = "new", proto = "icmp" }
action = "drop"

[[rule]]
name   = "whole"
match  = { direction = "ingress", fragment = false, dst_port = 6000 }
action = "drop"
"#;

/// Frames with everything that rules can ask for, whole and broken: of each kind one that a rule drops, and one that it does not.
fn of_every_kind() -> Vec<Vec<u8>> {
    let to = |destination: [u8; 4]| Ends { source: BOB_IP, destination: destination.into(), id: 1 };
    let ip = |packet: &[u8]| framed(Netns::MAC, BOB_MAC, packet);
    let marked = |dscp: u8, packet: Vec<u8>| {
        let mut packet = packet;
        packet[1] = dscp << 2;
        ip(&packet)
    };
    let flags = [2, 18, 16, 4, 0];
    let segments = flags.map(|flags| ip(&to([10, 77, 0, 1]).tcp((4000 + u16::from(flags), 80), flags, (1, 1), &[])));
    let mut tagged = ip(&to([10, 77, 0, 1]).udp((7, 7), b"hello"));
    tagged.splice(12..12, [0x81, 0, 0x60, 7]);
    let mut other_tag = tagged.clone();
    other_tag[15] = 8;
    let mut cut = ip(&to([10, 77, 0, 66]).tcp((1, 2), 16, (1, 1), &[]));
    cut.truncate(40);
    let mut cut_to_other = ip(&to([10, 77, 0, 67]).tcp((1, 2), 16, (1, 1), &[]));
    cut_to_other.truncate(40);
    let mut frames = vec![
        marked(46, to([10, 77, 0, 1]).udp((1, 1), b"hello")),
        marked(10, to([10, 77, 0, 1]).udp((1, 1), b"hello")),
        ip(&to([10, 77, 0, 1]).udp((1, 1), b"hello")),
        framed([2, 0, 0, 0, 0, 0x77], BOB_MAC, &to([10, 77, 0, 1]).udp((2, 2), b"hello")),
        tagged,
        other_tag,
        cut,
        cut_to_other,
        ip(&to([10, 77, 0, 1]).echo(8, 1, 1)),
        ip(&to([10, 77, 0, 1]).echo(0, 2, 1)),
        framed(OTHER, BOB_MAC, &to([10, 77, 0, 99]).udp((1, 6000), b"hello")),
        framed(OTHER, BOB_MAC, &to([10, 77, 0, 99]).udp((1, 6001), b"hello")),
        arp(BOB_MAC, 1, (BOB_MAC, BOB_IP), ([0; 6], PEER_IP)),
        ip(&frames::ipv6(BOB_IP6, PEER_IP6, UDP, &[0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0])),
        ip(&frames::ipv6(BOB_IP6, PEER_IP6, UDP, &[0x13])),
        frames::ethernet(Netns::MAC, BOB_MAC, 0x88cc, &[0; 46]),
        frames::ethernet(Netns::MAC, BOB_MAC, 0x0800, &[0x65; 46]),
    ];
    frames.extend(segments);
    frames
}

/// `explain` takes what `flows` prints, and comes to what became of the flow: decision, rule and cause, at either side, whatever is
/// known of its frames.
#[test]
fn flows_are_explained_as_they_were_judged() {
    let dir = TempDir::new("explained");
    let policy = format!("default = {{ malformed = \"accept\" }}\n{FIELDS}");
    let settings = Settings { huge_pages: "off", ..Settings::default() }.policy(&policy);
    let mut kopid = Kopid::start(&dir, &settings);
    let mut bob = Piped::client(&dir, &kopid, "bob", BOB_NAME, &as_user(BOB), &[]);
    let mut other = Piped::client(&dir, &kopid, "other", "02:00:00:00:00:ee", &as_user(BOB), &[]);
    // What is sent to an app that workers do not know yet goes to the wire.
    assert_eq!([bob.answer(), other.answer()], [None, None]);
    let frames = of_every_kind();
    frames.iter().for_each(|frame| bob.send(frame));
    wait_until("all are judged", SOON, || kopid.ask("flows").len() == frames.len() + 2);
    let flows = kopid.ask("flows");
    for flow in &flows {
        let question = json!({
            "command": "explain",
            "app": flow["app"],
            "direction": flow["direction"],
            "packet": flow["packet"],
            "state": flow["ct_state"],
        });
        let answer = kopid.exchange(&question).expect("kopid answers");
        let explained = &answer["explain"][0];
        let judged = (&flow["verdict"], &flow["rule"], &flow["cause"]);
        let said = (&explained["decision"], &explained["rule"], &explained["cause"]);
        assert_eq!(said, judged, "{flow} {answer}");
    }
    for rule in ["voice", "syn", "broken", "station", "vlan", "asked", "whole"] {
        assert!(flows.iter().any(|flow| flow["rule"] == rule), "no flow for the rule {rule}");
    }
    // The same by kopictl, which looks at the words itself.
    let broken = flows.iter().find(|flow| flow["rule"] == "broken").expect("see above");
    let packet = broken["packet"].as_str().expect("a text");
    let done = kopid.kopictl(&["explain", "--app", "bob", "--state", "invalid", packet]);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("because:  rule broken"), "{said} {}", String::from_utf8_lossy(&done.stderr));
    bob.finish();
    other.finish();
    assert!(kopid.stop().success());
}

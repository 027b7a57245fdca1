//! What is an app's own, and what is not.

use std::net::IpAddr;
use std::sync::Arc;

use kopi_config::policy::{
    App, Decision, Direction, Direction::Egress, Direction::Ingress, IpNet, Listen, OwnerMatch, Policy, State,
};
use kopi_packet::dhcp::Request;
use kopi_packet::{FlowKey, Fragment, MacAddr, ndp, parse};
use kopi_policy::{Cause, Evaluation, Owner, Packet, PortPolicy, Ruleset, Violation};

use crate::frame::{Body, Frame, Ip, L4, Pair, mac};

const BOB: Option<usize> = Some(0);
const CAROL: Option<usize> = Some(1);
const FREE: Option<usize> = Some(2);
const UNLISTED: Option<usize> = None;

/// Bob has addresses and a port of his own, carol only another port, `free` is not checked. A process without an entry
/// has MAC address 9.
fn policy() -> Policy {
    let app = |name: &str| App::new(name.to_owned(), OwnerMatch::default());
    let cidr = |text: &str, prefix| IpNet::new(text.parse::<IpAddr>().unwrap(), prefix).unwrap();
    let mut bob = app("bob");
    bob.mac = Some(mac(1));
    bob.addresses = vec![cidr("10.0.0.8", 30), cidr("2001:db8::1:0", 112), cidr("fe80::", 112)];
    bob.listen = vec![Listen { proto: 6, port: 5432 }];
    let mut carol = app("carol");
    carol.listen = vec![Listen { proto: 6, port: 3306 }, Listen { proto: 17, port: 53 }];
    let mut free = app("free");
    free.spoof_check = false;
    let mut policy = Policy::default();
    policy.apps = vec![bob, carol, free];
    policy
}

fn port_policy(ruleset: &Ruleset, entry: Option<usize>) -> PortPolicy {
    let number = entry.map_or(9, |index| u8::try_from(index).unwrap() + 1);
    ruleset.port_policy(&Owner::unknown("app"), entry, &[mac(number)])
}

fn evaluate(entry: Option<usize>, direction: Direction, state: State, frame: &Frame) -> Evaluation {
    let ruleset = Ruleset::new(Arc::new(policy()), &()).unwrap();
    assert!(ruleset.uses_state());
    let key = frame.key(0, 0);
    ruleset.evaluate(&port_policy(&ruleset, entry), &Packet { ndp: frame.ndp(), ..Packet::new(direction, &key, state) })
}

/// What is wrong with a frame from the app of an entry.
fn violation(entry: Option<usize>, frame: &Frame) -> Option<Violation> {
    of(evaluate(entry, Egress, State::New, frame))
}

/// What a client of DHCP with this number says of itself.
fn request(number: u8) -> Request {
    Request { hardware: mac(number), address: [0; 4].into(), identifier: None }
}

/// The same for a frame to everybody, or to a group of IPv6.
fn violation_for_all(entry: Option<usize>, frame: &Frame, dhcp: Option<Request>) -> Option<Violation> {
    let mut bytes = frame.bytes(0);
    let v6 = bytes[12..14] == [0x86, 0xdd];
    bytes[..6].copy_from_slice(&if v6 { [0x33, 0x33, 0, 0, 0, 1] } else { MacAddr::BROADCAST.bytes() });
    of_bytes(entry, &bytes, dhcp)
}

fn of_bytes(entry: Option<usize>, bytes: &[u8], dhcp: Option<Request>) -> Option<Violation> {
    let ruleset = Ruleset::new(Arc::new(policy()), &()).unwrap();
    let (headers, key) = parse(bytes, 3);
    let packet = Packet { dhcp, ndp: ndp::message(bytes, &headers), ..Packet::new(Egress, &key, State::New) };
    of(ruleset.evaluate(&port_policy(&ruleset, entry), &packet))
}

fn of(evaluation: Evaluation) -> Option<Violation> {
    match evaluation.cause {
        Cause::PortSecurity(violation) => {
            assert_eq!(evaluation.decision, Decision::Drop);
            Some(violation)
        }
        cause => {
            assert_eq!((cause, evaluation.decision), (Cause::Default, Decision::Accept));
            None
        }
    }
}

fn ip(src_mac: u8, addresses: Pair, l4: L4) -> Frame {
    let body = Body::Ip(Ip { addresses, dscp: 0, part: Fragment::None, l4, short: false });
    Frame { dst_mac: 7, src_mac, tags: vec![], body }
}

fn v4(src: [u8; 4]) -> Pair {
    Pair::V4(src, [10, 0, 0, 77])
}

fn v6(src: &str, dst: &str) -> Pair {
    let bytes = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    Pair::V6(bytes(src), bytes(dst))
}

const fn udp(src: u16, dst: u16) -> L4 {
    L4::Udp { src, dst }
}

const fn tcp(src: u16, dst: u16) -> L4 {
    L4::Tcp { src, dst, flags: 2 }
}

fn arp(src_mac: u8, op: u16, sender: u8, src: [u8; 4], dst: [u8; 4]) -> Frame {
    Frame { dst_mac: 7, src_mac, tags: vec![], body: Body::Arp { op, sender, src, dst } }
}

/// Only the addresses of the entry are the app's; the last frames are those that a host sends to get one.
#[test]
fn source_addresses_are_those_of_the_entry() {
    let spoofed = |number, src| violation(BOB, &ip(number, v4(src), udp(1, 2)));
    assert_eq!(spoofed(1, [10, 0, 0, 8]), None);
    assert_eq!(spoofed(1, [10, 0, 0, 11]), None);
    assert_eq!(spoofed(1, [10, 0, 0, 12]), Some(Violation::Ip));
    assert_eq!(spoofed(1, [0, 0, 0, 0]), Some(Violation::Ip));
    assert_eq!(spoofed(2, [10, 0, 0, 8]), Some(Violation::Mac));
    let spoofed = |src| violation(BOB, &ip(1, v6(src, "2001:db8::7"), udp(1, 2)));
    assert_eq!(spoofed("2001:db8::1:ffff"), None);
    assert_eq!(spoofed("2001:db8::2:0"), Some(Violation::Ip));
    assert_eq!(spoofed("fe80::ff:fe00:1"), None);
    assert_eq!(spoofed("fe80::ff:fe00:2"), Some(Violation::Ip));
    assert_eq!(spoofed("fe80::5"), None);
    assert_eq!(spoofed("::"), Some(Violation::Ip));

    let discover = |addresses, l4| violation_for_all(BOB, &ip(1, addresses, l4), Some(request(1)));
    assert_eq!(discover(Pair::V4([0; 4], [255; 4]), udp(68, 67)), None);
    assert_eq!(discover(Pair::V4([0; 4], [10, 0, 0, 77]), udp(68, 67)), Some(Violation::Ip));
    assert_eq!(discover(Pair::V4([0; 4], [255; 4]), udp(69, 67)), Some(Violation::Ip));
    assert_eq!(discover(Pair::V4([0; 4], [255; 4]), tcp(68, 67)), Some(Violation::Ip));
    for (kind, expected) in [(143, None), (131, None), (130, Some(Violation::Ip)), (128, Some(Violation::Ip))] {
        let message = ip(1, v6("::", "ff02::16"), L4::Icmp { kind, code: 0, rest: vec![0; 20] });
        assert_eq!(violation_for_all(BOB, &message, None), expected, "{kind}");
        assert_eq!(violation(BOB, &message), Some(Violation::Ip), "{kind} for one host alone");
    }
    let discover = ip(1, Pair::V4([0; 4], [255; 4]), udp(68, 67));
    assert_eq!(violation(BOB, &discover), Some(Violation::Ip), "a broadcast for one host alone");
}

/// What a client of DHCP says of itself is the app's own, for every app that is checked; who has addresses says nothing that
/// cannot be read.
#[test]
fn clients_of_dhcp_speak_of_themselves() {
    let discover = |number| ip(number, Pair::V4([0; 4], [255; 4]), udp(68, 67));
    let of = |entry, number, request| violation_for_all(entry, &discover(number), request);
    let dhcp = Some(Violation::Dhcp);
    let mine = request(1);
    let renewed = Request { address: [10, 0, 0, 9].into(), identifier: Some(mac(1)), ..mine };
    assert_eq!(of(BOB, 1, Some(renewed)), None);
    for foreign in
        [request(7), Request { identifier: Some(mac(7)), ..mine }, Request { address: [10, 0, 0, 77].into(), ..mine }]
    {
        assert_eq!(of(BOB, 1, Some(foreign)), dhcp, "{foreign:?}");
        assert_eq!(of(FREE, 3, Some(foreign)), None);
    }
    assert_eq!((of(BOB, 1, None), of(CAROL, 2, None)), (dhcp, None));
    assert_eq!((of(CAROL, 2, Some(request(2))), of(CAROL, 2, Some(request(7)))), (None, dhcp));
    assert_eq!((of(UNLISTED, 9, Some(request(9))), of(UNLISTED, 9, Some(request(1)))), (None, dhcp), "bob's");
    // A client that has an address asks the server itself.
    let renewal = |request| of_bytes(BOB, &ip(1, v4([10, 0, 0, 8]), udp(68, 67)).bytes(0), Some(request));
    assert_eq!((renewal(renewed), renewal(request(7))), (None, dhcp));
}

/// Who has addresses speaks neither as a router nor as a server of DHCP, and hides no other address inside; unless its entry
/// allows that. Who has none may, as he may use any address.
#[test]
fn nobody_speaks_for_others() {
    let message = |kind| {
        // What stands before the options of a solicitation, a redirect and an advertisement.
        let fixed = match kind {
            133 => 4,
            137 => 36,
            _ => 12,
        };
        let rest = [&vec![0; fixed][..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        ip(1, v6("fe80::ff:fe00:1", "ff02::1"), L4::Icmp { kind, code: 0, rest })
    };
    let own = || v4([10, 0, 0, 8]);
    let v4_message = |kind| ip(1, own(), L4::Icmp { kind, code: 0, rest: vec![0; 40] });
    let own6 = || v6("2001:db8::1:5", "2001:db8::7");
    let other = |ethertype| Frame { dst_mac: 7, src_mac: 1, tags: vec![], body: Body::Other { ethertype } };
    let (router, dhcp, tunnel) = (Violation::Router, Violation::Dhcp, Violation::Tunnel);
    let cases = [
        (message(134), router),
        (message(137), router),
        (message(130), router),
        (message(138), router),
        (message(151), router),
        (v4_message(5), router),
        (v4_message(9), router),
        (ip(1, own(), L4::Other(112)), router),
        (ip(1, own6(), L4::Other(112)), router),
        (ip(1, own(), udp(67, 68)), dhcp),
        (ip(1, own(), udp(1067, 68)), dhcp),
        (ip(1, own(), udp(67, 67)), dhcp),
        (ip(1, own6(), udp(547, 546)), dhcp),
        (ip(1, own6(), udp(1, 546)), dhcp),
        (ip(1, own6(), udp(547, 547)), dhcp),
        (ip(1, own(), L4::Other(4)), tunnel),
        (ip(1, own(), L4::Other(41)), tunnel),
        (ip(1, own(), L4::Other(47)), tunnel),
        (ip(1, own6(), L4::Other(4)), tunnel),
        (ip(1, own6(), L4::Other(115)), tunnel),
        (other(0x8847), tunnel),
        (other(0x8864), tunnel),
        (other(0x8863), tunnel),
    ];
    let harmless = [message(133), v4_message(8), v4_message(10), ip(1, own(), L4::Other(50)), other(0x88cc)];
    for word in ["", "router", "dhcp-server", "tunnel"] {
        let mut policy = policy();
        let words = if word.is_empty() { String::new() } else { format!("{word:?}") };
        let text = format!("[[app]]\nname = \"a\"\nallow = [{words}]\n");
        policy.apps[0].allow = Policy::parse(text, "test").unwrap().apps[0].allow;
        let ruleset = Ruleset::new(Arc::new(policy), &()).unwrap();
        let refusal = |entry, frame: &Frame| {
            let key = frame.key(0, 0);
            let packet = Packet { ndp: frame.ndp(), ..Packet::new(Egress, &key, State::Untracked) };
            of(ruleset.evaluate(&ruleset.port_policy(&Owner::unknown("app"), entry, &[mac(1)]), &packet))
        };
        for (frame, refused) in &cases {
            let allowed = match refused {
                Violation::Router => word == "router",
                // A relay agent is for servers, too, and its messages are not those of a client.
                Violation::Dhcp => word == "dhcp-server",
                _ => word == "tunnel",
            };
            assert_eq!(refusal(BOB, frame), (!allowed).then_some(*refused), "{frame:?} with {word:?}");
            assert_eq!(refusal(FREE, frame), None, "{frame:?}");
        }
        assert!(harmless.iter().all(|frame| refusal(BOB, frame).is_none()), "with {word:?}");
        // What arrives is not looked at.
        let (frame, key) = (&cases[0].0, cases[0].0.key(0, 0));
        let arrives = Packet { ndp: frame.ndp(), ..Packet::new(Ingress, &key, State::Untracked) };
        assert_eq!(of(ruleset.evaluate(&port_policy(&ruleset, BOB), &arrives)), None);
    }
}

/// Who is not bob may not use what is bob's, and otherwise what he likes; `free` may use anything.
#[test]
fn reserved_addresses_are_nobody_elses() {
    for (entry, number) in [(CAROL, 2), (UNLISTED, 9)] {
        let from = |src| violation(entry, &ip(number, v4(src), udp(1, 2)));
        assert_eq!(from([10, 0, 0, 12]), None, "{entry:?}");
        assert_eq!(from([10, 0, 0, 9]), Some(Violation::Ip), "{entry:?}");
        assert_eq!(violation(entry, &arp(number, 2, number, [10, 0, 0, 9], [0; 4])), Some(Violation::Arp));
        assert_eq!(violation(entry, &arp(number, 2, 1, [10, 0, 0, 7], [0; 4])), Some(Violation::Arp));
        assert_eq!(violation(entry, &ip(1, v4([10, 0, 0, 12]), udp(1, 2))), Some(Violation::Mac), "{entry:?}");
    }
    // Even where the block is reserved, the link-local address of an own MAC address is the app's.
    let whole = IpNet::new("fe80::".parse().unwrap(), 64).unwrap();
    let mut policy = policy();
    policy.apps[0].addresses.push(whole);
    let ruleset = Ruleset::new(Arc::new(policy), &()).unwrap();
    for (address, expected) in [("fe80::ff:fe00:9", None), ("fe80::ff:fe00:8", Some(Violation::Ip))] {
        let key = ip(9, v6(address, "2001:db8::7"), udp(1, 2)).key(0, 0);
        let packet = Packet::new(Egress, &key, State::New);
        assert_eq!(of(ruleset.evaluate(&port_policy(&ruleset, UNLISTED), &packet)), expected, "{address}");
    }
    assert_eq!(violation(CAROL, &ip(3, v4([10, 0, 0, 12]), udp(1, 2))), Some(Violation::Mac));
    assert_eq!(violation(UNLISTED, &ip(3, v4([10, 0, 0, 12]), udp(1, 2))), None);
    assert_eq!(violation(FREE, &ip(1, v4([10, 0, 0, 9]), udp(1, 2))), None);
    assert_eq!(violation(FREE, &arp(1, 2, 1, [10, 0, 0, 9], [0; 4])), None);
}

/// ARP speaks for its sender: hardware and protocol address have to be the app's, but for a probe of an own address.
#[test]
fn arp_sender_is_the_lease() {
    let (own, other) = ([10, 0, 0, 8], [10, 0, 0, 77]);
    for (op, sender, src, dst, expected) in [
        (1, 1, own, other, None),
        (2, 1, own, other, None),
        (1, 1, own, own, None),
        (1, 1, [0; 4], own, None),
        (1, 1, [0; 4], other, Some(Violation::Arp)),
        (2, 1, [0; 4], own, Some(Violation::Arp)),
        (1, 1, other, own, Some(Violation::Arp)),
        (2, 2, own, other, Some(Violation::Arp)),
    ] {
        assert_eq!(violation(BOB, &arp(1, op, sender, src, dst)), expected, "{op} {sender} {src:?} {dst:?}");
    }
    assert_eq!(violation(BOB, &arp(2, 1, 1, own, other)), Some(Violation::Mac));
}

/// Neighbour discovery speaks for its target and for the link-layer address in its option.
#[test]
fn neighbour_target_is_the_lease() {
    const OWN: &str = "2001:db8::1:5";
    const OTHER: &str = "2001:db8::2:5";
    let message = |kind, src: &str, target: &str, option: &[u8]| {
        let target = target.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let rest = [&[0; 4], &target[..], option].concat();
        violation_for_all(BOB, &ip(1, v6(src, "ff02::1"), L4::Icmp { kind, code: 0, rest }), None)
    };
    let (mine, yours) = ([2, 1, 2, 0, 0, 0, 0, 1], [2, 1, 2, 0, 0, 0, 0, 5]);
    let ndp = Some(Violation::Ndp);
    assert_eq!(message(136, OWN, OWN, &mine), None);
    assert_eq!(message(136, OWN, OWN, &[]), None);
    assert_eq!(message(136, OWN, OTHER, &mine), ndp);
    assert_eq!(message(136, OWN, OWN, &yours), ndp);
    assert_eq!(message(136, OTHER, OWN, &mine), Some(Violation::Ip));
    assert_eq!(message(136, "::", OWN, &mine), Some(Violation::Ip));
    // Asking for others is what solicitations are for; asking for an address to use is not.
    assert_eq!(message(135, OWN, OTHER, &[1, 1, 2, 0, 0, 0, 0, 1]), None);
    assert_eq!(message(135, OWN, OTHER, &[1, 1, 2, 0, 0, 0, 0, 5]), ndp);
    assert_eq!(message(135, "::", OWN, &[]), None);
    assert_eq!(message(135, "::", OTHER, &[]), ndp);
    // What cannot be read could be anything.
    assert_eq!(message(136, OWN, OWN, &[2, 0, 0, 0, 0, 0, 0, 0]), ndp);
    let short = L4::Icmp { kind: 136, code: 0, rest: vec![0; 4] };
    assert_eq!(violation(BOB, &ip(1, v6(OWN, "ff02::1"), short)), ndp);
    let solicitation = |source| {
        let rest = [&[0; 4][..], &[1, 1, 2, 0, 0, 0, 0, source]].concat();
        violation_for_all(BOB, &ip(1, v6("::", "ff02::2"), L4::Icmp { kind: 133, code: 0, rest }), None)
    };
    assert_eq!((solicitation(1), solicitation(2)), (None, ndp));
}

/// A listed port is for those who list it, in both directions and every state; who lists ports is reached by nothing new
/// elsewhere. What others send from and to their own ports is not looked at.
#[test]
fn listed_ports_are_for_those_who_list_them() {
    let listen = Some(Violation::Listen);
    let own = |entry: Option<usize>| match entry {
        BOB => (1, [10, 0, 0, 8]),
        CAROL => (2, [10, 0, 0, 12]),
        FREE => (3, [10, 0, 0, 13]),
        _ => (9, [10, 0, 0, 14]),
    };
    for (entry, port, state, expected) in [
        (BOB, tcp as fn(u16, u16) -> L4, State::New, [None, None]),
        (CAROL, tcp, State::New, [listen, listen]),
        (FREE, tcp, State::New, [listen, listen]),
        (UNLISTED, tcp, State::New, [listen, listen]),
        (UNLISTED, tcp, State::Established, [listen, listen]),
        (UNLISTED, udp, State::New, [None, None]),
        (BOB, udp, State::New, [None, listen]),
        (BOB, udp, State::Established, [None, None]),
    ] {
        let (number, address) = own(entry);
        let egress = ip(number, Pair::V4(address, [10, 0, 0, 77]), port(5432, 999));
        let ingress = ip(7, Pair::V4([10, 0, 0, 77], address), port(999, 5432));
        let found = [of(evaluate(entry, Egress, state, &egress)), of(evaluate(entry, Ingress, state, &ingress))];
        assert_eq!(found, expected, "{entry:?} {state:?}");
    }
    let reaches = |entry, state, port| {
        let (_, address) = own(entry);
        of(evaluate(entry, Ingress, state, &ip(7, Pair::V4([10, 0, 0, 77], address), tcp(999, port))))
    };
    assert_eq!(reaches(BOB, State::New, 22), listen);
    assert_eq!(reaches(BOB, State::Invalid, 22), listen);
    assert_eq!(reaches(BOB, State::Established, 22), None);
    assert_eq!(reaches(BOB, State::Related, 22), None);
    assert_eq!(reaches(BOB, State::Untracked, 22), None);
    assert_eq!(reaches(BOB, State::New, 3306), listen);
    assert_eq!(reaches(CAROL, State::New, 3306), None);
    assert_eq!(reaches(UNLISTED, State::New, 22), None);
    // Another's port as the far end is nobody's business.
    assert_eq!(violation(CAROL, &ip(2, v4([10, 0, 0, 12]), tcp(999, 5432))), None);
}

/// Bytes that cannot be read are no way round port security, whatever the policy says of malformed frames. A later fragment
/// that breaks it does not get through by the evaluation of its first one.
#[test]
fn what_is_hidden_is_not_own() {
    let mut policy = policy();
    policy.default.malformed = Decision::Accept;
    let ruleset = Ruleset::new(Arc::new(policy), &()).unwrap();
    let cause = |entry, key: &FlowKey| {
        ruleset.evaluate(&port_policy(&ruleset, entry), &Packet::new(Egress, key, State::Untracked)).cause
    };
    let frame = arp(1, 2, 1, [10, 0, 0, 8], [0; 4]);
    let cut = parse(&frame.bytes(0)[..30], 3).1;
    assert_eq!(cause(BOB, &cut), Cause::PortSecurity(Violation::Ip));
    assert_eq!(cause(FREE, &cut), Cause::Default);
    assert_eq!(cause(BOB, &Frame { body: Body::Length, ..frame }.key(0, 0)), Cause::Default);

    let part = |number, part| {
        let addresses = v4([10, 0, 0, 8]);
        let body = Body::Ip(Ip { addresses, dscp: 0, part, l4: udp(5, 6), short: false });
        Frame { dst_mac: 7, src_mac: number, tags: vec![], body }.key(0, 0)
    };
    let bob = port_policy(&ruleset, BOB);
    let first = part(1, Fragment::First);
    let first = ruleset.evaluate(&bob, &Packet::new(Egress, &first, State::New));
    assert_eq!((first.decision, first.cause), (Decision::Accept, Cause::Default));
    let (own, spoofed) = (part(1, Fragment::Later), part(2, Fragment::Later));
    let later = |key| ruleset.evaluate_fragment(&bob, &Packet::new(Egress, key, State::New), &first);
    assert_eq!(later(&own), first);
    assert_eq!(later(&spoofed).cause, Cause::PortSecurity(Violation::Mac));
    assert_eq!(ruleset.evaluate(&bob, &Packet::new(Egress, &own, State::New)).cause, Cause::Fragment);
}

/// Two port policies are the same if no frame could tell them apart: a name that no rule asks for changes nothing.
#[test]
fn what_no_rule_asks_for_makes_no_other_subject() {
    let text = "[[app]]\nname = \"a\"\nowner = { uid = 1 }\n[[rule]]\nowner = { comm = \"bad*\" }\naction = \"drop\"\n";
    let policy = Policy::parse(text, "test").unwrap();
    let ruleset = Ruleset::new(Arc::new(policy), &()).unwrap();
    let of = |comm, entry, n| ruleset.port_policy(&Owner { comm: Some(comm), ..Owner::unknown("a") }, entry, &[mac(n)]);
    let before = of("good", Some(0), 1);
    assert!(before.is_same(&of("better", Some(0), 1)));
    assert!(!before.is_same(&of("bad one", Some(0), 1)), "a rule is for it now");
    assert!(!before.is_same(&of("good", None, 1)), "another entry");
    assert!(!before.is_same(&of("good", Some(0), 2)), "another address");
}

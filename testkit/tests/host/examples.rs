//! What a host says and hears to be on its network at all passes under every example of a policy.

use super::{HOME_IP, host_row, settings};
use kopi_testkit::frames::{Ends, ICMPV6, Mac, arp, checksum, ethernet, framed, ipv6};
use kopi_testkit::home::TAP;
use kopi_testkit::netns::packet_socket_in;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Home, Netns, Peer, TempDir, wait_until};
use std::net::{Ipv4Addr, Ipv6Addr};

const EXAMPLES: [(&str, &str); 3] = [
    ("minimal", include_str!("../../../config/examples/policy-minimal.toml")),
    ("paper", include_str!("../../../config/examples/policy-paper.toml")),
    ("lockdown", include_str!("../../../config/examples/policy-lockdown.toml")),
];
/// Multicast addresses of Ethernet: all, and those of two PTP messages (IEEE 1588, annex F).
const ALL: Mac = [0xff; 6];
const PTP: Mac = [0x01, 0x1b, 0x19, 0, 0, 0];
const PTP_PEER: Mac = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
const PTP_TYPE: u16 = 0x88f7;
const IGMP: u8 = 2;

/// A frame with its name, and whether the kernel's side sends it.
type Said = (&'static str, bool, Vec<u8>);

fn group(to: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = to.octets();
    [0x33, 0x33, a, b, c, d]
}

/// ICMPv6, behind a router alert as MLD has it (RFC 3810, 5).
fn icmp6(source: Ipv6Addr, to: Ipv6Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], rest].concat();
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    let sum = checksum(&[&source.octets(), &to.octets(), &length, &[0, 0, 0, ICMPV6], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    if !(130..=132).contains(&kind) && kind != 143 {
        return ipv6(source, to, ICMPV6, &message);
    }
    ipv6(source, to, 0, &[&[ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &message].concat())
}

fn udp6(source: Ipv6Addr, to: Ipv6Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut data = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat();
    let sum = checksum(&[&source.octets(), &to.octets(), &[0, 0, 0, 12, 0, 0, 0, 17], &data]);
    data[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv6(source, to, 17, &data)
}

/// What is said on the link, by the kernel at `home` and by somebody else.
fn said(home: Mac) -> Vec<Said> {
    let far = Netns::MAC;
    let (own, other): (Ipv4Addr, Ipv4Addr) = (HOME_IP.parse().expect("an address"), Ipv4Addr::new(10, 77, 0, 9));
    let ip6 = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let (own6, far6) = (ip6("fe80::2"), ip6("fe80::9"));
    let out6 = |kind, to: &str, rest: &[u8]| framed(group(ip6(to)), home, &icmp6(own6, ip6(to), kind, rest));
    let in6 = |kind, to: &str, rest: &[u8]| framed(group(ip6(to)), far, &icmp6(far6, ip6(to), kind, rest));
    let ends = |source: Ipv4Addr, destination: Ipv4Addr| Ends { source, destination, id: 1 };
    let any = Ipv4Addr::UNSPECIFIED;
    let out = |to: Mac, packet: Vec<u8>| framed(to, home, &packet);
    let hears = |packet: Vec<u8>| framed(home, far, &packet);
    let four = |last: u8| Ipv4Addr::new(224, 0, 0, last);
    let of_group = |last: u8| [1, 0, 0x5e, 0, 0, last];
    let dhcp6 = ip6("ff02::1:2");
    vec![
        ("arp", true, arp(home, 1, (home, own), ([0; 6], other))),
        ("arp", false, arp(far, 1, (far, other), ([0; 6], own))),
        ("neighbour solicitation", true, out6(135, "ff02::1:ff00:9", &[&[0; 4][..], &far6.octets()].concat())),
        ("neighbour solicitation", false, in6(135, "ff02::1:ff00:2", &[&[0; 4][..], &own6.octets()].concat())),
        ("router solicitation", true, out6(133, "ff02::2", &[0; 4])),
        ("router advertisement", false, in6(134, "ff02::1", &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("MLD query", false, in6(130, "ff02::1", &[0; 20])),
        ("MLD report", true, out6(131, "ff02::1:ff00:2", &[0; 20])),
        ("MLD done", true, out6(132, "ff02::2", &[0; 20])),
        ("MLDv2 report", true, out6(143, "ff02::16", &[0; 4])),
        (
            "IGMP query",
            false,
            framed(of_group(1), far, &ends(other, four(1)).packet(IGMP, &[17, 0, 0xee, 0xff, 0, 0, 0, 0])),
        ),
        ("IGMPv3 report", true, out(of_group(22), ends(own, four(22)).packet(IGMP, &[34, 0, 0xdd, 0xff, 0, 0, 0, 0]))),
        ("DHCP discover", true, out(ALL, ends(any, Ipv4Addr::BROADCAST).udp((68, 67), &dhcp(home)))),
        ("DHCP offer", false, framed(ALL, far, &ends(other, Ipv4Addr::BROADCAST).udp((67, 68), &dhcp(home)))),
        ("DHCP renewal", true, out(far, ends(own, other).udp((68, 67), &dhcp(home)))),
        ("DHCP acknowledgement", false, hears(ends(other, own).udp((67, 68), &dhcp(home)))),
        ("DHCPv6 solicit", true, out(group(dhcp6), udp6(own6, dhcp6, (546, 547)))),
        ("DHCPv6 reply", false, hears(udp6(far6, own6, (547, 546)))),
        ("PTP sync", false, ethernet(PTP, far, PTP_TYPE, &[0; 46])),
        ("PTP delay request", true, ethernet(PTP, home, PTP_TYPE, &[1; 46])),
        ("PTP peer delay", true, ethernet(PTP_PEER, home, PTP_TYPE, &[2; 46])),
        (
            "PTP by UDP",
            false,
            framed([1, 0, 0x5e, 0, 1, 129], far, &ends(other, Ipv4Addr::new(224, 0, 1, 129)).udp((319, 319), &[0; 44])),
        ),
        ("BFD", true, out(far, ends(own, other).udp((49152, 3784), &[0x20; 24]))),
        ("BFD", false, hears(ends(other, own).udp((49153, 3784), &[0x20; 24]))),
    ]
}

/// What of BOOTP is looked at: operation, hardware, and the client's address.
fn dhcp(client: Mac) -> Vec<u8> {
    let mut message = vec![0; 300];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&client);
    message[236..241].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 0xff]);
    message
}

/// Under each example, whatever belongs to being on a network passes in its direction; and under that of a locked-down host,
/// something else does not.
#[test]
fn hosts_are_on_their_network_under_every_example() {
    let dir = TempDir::new("host-examples");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home).policy(EXAMPLES[0].1));
    let mac = host_row(&kopid)["mac"].as_str().expect("it has an address").to_owned();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    let mac: Mac = bytes.try_into().expect("six bytes");
    let there = Peer::new(&far);
    let here = Peer::on(home.enter(|| packet_socket_in(TAP)));
    let passes = |outwards: bool, frame: &[u8], wait: u32| {
        let (from, to) = if outwards { (&here, &there) } else { (&there, &here) };
        from.transmit(frame);
        let mut buffer = vec![0; 16384];
        (0..wait).any(|_| to.next(&mut buffer).is_some_and(|seen| seen.starts_with(frame)))
    };
    for (example, policy) in EXAMPLES {
        kopid.reload(policy).unwrap_or_else(|error| panic!("{example}: {error}"));
        for (name, outwards, frame) in said(mac) {
            let way = if outwards { "from the kernel" } else { "to the kernel" };
            wait_until(&format!("{example}: {name} {way} passes"), SOON, || passes(outwards, &frame, 40));
        }
    }
    let own = HOME_IP.parse().expect("an address");
    let other = Ends { source: Ipv4Addr::new(10, 77, 0, 9), destination: own, id: 1 };
    assert!(!passes(false, &framed(mac, Netns::MAC, &other.udp((999, 999), &[7; 8])), 40), "nothing else passes");
    assert!(kopid.stop().success());
}

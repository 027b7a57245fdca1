//! The frames of all cases: UDP from 198.18.0.0/15 or 2001:2::/48, the networks for benchmarks of RFC 2544 and RFC 5180, and what has
//! nothing of IP.

use kopi_packet::checksum::complete;
use kopi_packet::parse;
use kopi_ring::message::Mac;

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From an app to the address of a station beyond the wire.
    Out,
    /// From there to an app.
    In,
    /// From an app to an address that nobody has, so that a promiscuous app gets them back from a wire that is a loop.
    Round,
}

/// What is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// UDP over IPv4.
    Ipv4,
    /// UDP over IPv6.
    Ipv6,
    /// A length in the place of a type, and zeros, as `net_null` gives them.
    Zeros,
}

/// A station beyond the wire.
const STATION: Mac = [2, 0, 0, 9, 9, 9];
/// Nobody's address.
const NOBODY: Mac = [2, 9, 9, 9, 9, 9];

/// The address of the app with this number.
pub(crate) fn mac(app: u16) -> Mac {
    let [high, low] = app.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// Two frames of each of `flows` flows, in turn between the apps from 1 to `apps`. They have `len` bytes, and those of a flow differ in
/// what differs between the packets of a flow.
pub(crate) fn all(way: Way, protocol: Protocol, flows: usize, apps: u16, len: u16) -> Vec<Vec<u8>> {
    let each = |serial| {
        let flows = (0..u16::MAX).zip(1..=flows);
        flows.map(move |(flow, _)| frame(way, protocol, (flow, serial), mac(1 + flow % apps), len))
    };
    [1, 2].into_iter().flat_map(each).collect()
}

fn frame(way: Way, protocol: Protocol, (flow, serial): (u16, u8), app: Mac, len: u16) -> Vec<u8> {
    let (to, from) = match way {
        Way::Out => (STATION, app),
        Way::In => (app, STATION),
        Way::Round => (NOBODY, app),
    };
    let ip = len.saturating_sub(14);
    let mut frame = Vec::with_capacity(len.into());
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    match protocol {
        Protocol::Ipv4 => {
            frame.extend_from_slice(&[8, 0, 0x45, 0]);
            frame.extend_from_slice(&ip.to_be_bytes());
            frame.extend_from_slice(&[0, serial, 0, 0, 64, 17, 0, 0, 198, 19, 0, 1, 198, 18, 0, 1]);
            udp(&mut frame, flow, ip.saturating_sub(20));
        }
        Protocol::Ipv6 => {
            let payload = ip.saturating_sub(40);
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&payload.to_be_bytes());
            frame.extend_from_slice(&[17, 64]);
            for last in [2, 1] {
                frame.extend_from_slice(&[0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
            udp(&mut frame, flow, payload);
        }
        Protocol::Zeros => {}
    }
    frame.resize(len.into(), 0);
    if protocol != Protocol::Zeros {
        // Connections are not tracked for packets that are broken.
        let (headers, _) = parse(&frame, 0);
        complete(&mut frame, &headers);
    }
    frame
}

fn udp(frame: &mut Vec<u8>, flow: u16, len: u16) {
    frame.extend_from_slice(&(1024 + flow).to_be_bytes());
    frame.extend_from_slice(&[0, 9]);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
}

//! The frames of all cases: UDP over IPv4, from 198.18.0.0/15, the network of RFC 2544 for benchmarks.

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

/// A station beyond the wire.
const STATION: Mac = [2, 0, 0, 9, 9, 9];
/// Nobody's address.
const NOBODY: Mac = [2, 9, 9, 9, 9, 9];

/// The address of the app with this number.
pub(crate) fn mac(app: u16) -> Mac {
    let [high, low] = app.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// A frame of each of `flows` flows, in turn between the apps from 1 to `apps`. They have `len` bytes.
pub(crate) fn all(way: Way, flows: usize, apps: u16, len: u16) -> Vec<Vec<u8>> {
    (0..u16::MAX).zip(1..=flows).map(|(flow, _)| frame(way, flow, mac(1 + flow % apps), len)).collect()
}

fn frame(way: Way, flow: u16, app: Mac, len: u16) -> Vec<u8> {
    let (to, from) = match way {
        Way::Out => (STATION, app),
        Way::In => (app, STATION),
        Way::Round => (NOBODY, app),
    };
    let ip = len.saturating_sub(14);
    let mut frame = Vec::with_capacity(len.into());
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&[8, 0, 0x45, 0]);
    frame.extend_from_slice(&ip.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 198, 19, 0, 1, 198, 18, 0, 1]);
    frame.extend_from_slice(&(1024 + flow).to_be_bytes());
    frame.extend_from_slice(&[0, 9]);
    frame.extend_from_slice(&ip.saturating_sub(20).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.resize(len.into(), 0);
    frame
}

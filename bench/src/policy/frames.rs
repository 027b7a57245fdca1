//! The frames of the benchmarks' application: with valid checksums, of as many flows as asked for.

use kopi_packet::checksum::{checksum, sum};
use kopi_packet::proto::{TCP, UDP};
use std::fs;
use std::path::Path;

use crate::error::{Doing, Result};

/// Length of the shortest frame, in bytes without the checksum, and of what is prepared of a longer one.
pub(crate) const FRAME_LEN: u16 = 64;
/// Flows in a steady load. Their frames take turns, so that no two in a row are of one flow.
pub(crate) const FLOWS: u16 = 1000;
/// Destinations there are: every other address from 198.18.0.0 on (RFC 2544's benchmarking network).
pub(crate) const DESTINATIONS: u16 = 10_000;
/// The application's address.
pub(crate) const APP_MAC: &str = "02:00:00:00:00:01";

/// The same as bytes.
const APP: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// A host on the wire.
const PEER: [u8; 6] = [0x02, 0, 0, 0x99, 0x99, 0x99];
/// Where the IPv4 header begins.
const IP: usize = 14;
/// Where the UDP or TCP header begins.
const L4: usize = 34;
const SYN: u8 = 2;

/// The first bytes of a frame; all that follow are payload.
pub(crate) type Frame = [u8; FRAME_LEN as usize];

/// The second half of the address of destination `n`.
pub(crate) const fn destination(n: u16) -> u16 {
    (n % DESTINATIONS) * 2
}

/// The frames of [`FLOWS`] flows of UDP, of `length` bytes: to the application, or from it.
pub(crate) fn flows(to_app: bool, length: u16) -> Vec<Frame> {
    (0..FLOWS).map(|flow| frame(UDP, to_app, length, 1024 + flow, destination(flow))).collect()
}

/// Flows in the load of a million, told apart by their ports.
pub(super) const MILLION: usize = 1_000_000;

/// The frame of flow number `flow` of a million, made of any frame of UDP: of 62,500 source ports and 16 destination ports.
#[inline]
pub(super) fn of_million(frame: &Frame, flow: u32) -> Frame {
    let mut frame = *frame;
    let [_, _, high, low] = (1024 + flow / 16).to_be_bytes();
    let [_, _, _, to] = (flow % 16).to_be_bytes();
    if let Some(ports) = frame.get_mut(L4..L4 + 4) {
        ports.copy_from_slice(&[high, low, 1, to]);
    }
    frame
}

/// A SYN from the application, from port `source` to the destination of number `to`.
pub(super) fn syn(source: u16, to: u16) -> Frame {
    frame(TCP, false, FRAME_LEN, source, destination(to))
}

fn frame(protocol: u8, to_app: bool, length: u16, source: u16, destination: u16) -> Frame {
    let mut frame = [0; FRAME_LEN as usize];
    let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    let (to, from) = if to_app { (APP, PEER) } else { (PEER, APP) };
    put(0, &to);
    put(6, &from);
    put(12, &[8, 0, 0x45, 0]);
    put(IP + 2, &(length - 14).to_be_bytes());
    put(IP + 8, &[64, protocol]);
    put(IP + 12, &[198, 19, 0, 1, 198, 18]);
    put(IP + 18, &destination.to_be_bytes());
    put(L4, &source.to_be_bytes());
    put(L4 + 2, &9_u16.to_be_bytes());
    if protocol == TCP {
        put(L4 + 12, &[0x50, SYN, 0xff, 0xff]);
    } else {
        // No checksum: UDP over IPv4 may do without (RFC 768).
        put(L4 + 4, &(length - 34).to_be_bytes());
    }
    let header = checksum(sum(&frame[IP..L4]));
    frame[IP + 10..IP + 12].copy_from_slice(&header.to_be_bytes());
    if protocol == TCP {
        // The pseudo-header of RFC 9293, 3.1: addresses, protocol, length.
        let pseudo = u64::from(TCP) + u64::from(FRAME_LEN - 34) + sum(&frame[IP + 12..L4]);
        let segment = checksum(pseudo + sum(&frame[L4..]));
        frame[L4 + 16..L4 + 18].copy_from_slice(&segment.to_be_bytes());
    }
    frame
}

/// Writes `frames` of `length` bytes, with zeros for payload, to a file at `path` in libpcap's format.
///
/// # Errors
///
/// When the file cannot be written.
///
/// # Source
///
/// pcap-savefile(5): a file header of 24 bytes, and 16 bytes before each packet, here all in the machine's byte order.
pub(crate) fn write_pcap(path: &Path, frames: &[Frame], length: u16) -> Result<()> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;
    let (major, minor) = (2_u16.to_ne_bytes(), 4_u16.to_ne_bytes());
    let mut file = [&MAGIC.to_ne_bytes()[..], &major, &minor, &[0; 8], &65_535_u32.to_ne_bytes()].concat();
    file.extend(ETHERNET.to_ne_bytes());
    let (rest, length) = (vec![0; length.saturating_sub(FRAME_LEN).into()], u32::from(length).to_ne_bytes());
    for frame in frames {
        file.extend([&[0; 8][..], &length, &length, frame, &rest].concat());
    }
    fs::write(path, file).doing(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071: the sum over everything that a checksum covers, itself included, is all ones.
    #[test]
    fn checksums_are_valid() {
        for frame in [syn(40_000, 9_999), flows(true, 64)[999], flows(false, 1518)[7]] {
            assert_eq!(checksum(sum(&frame[IP..L4])), 0);
        }
        let frame = syn(1, 2);
        assert_eq!(checksum(6 + 30 + sum(&frame[IP + 12..L4]) + sum(&frame[L4..])), 0);
    }

    /// Each flow of a million has ports of its own, of which none is zero.
    #[test]
    fn a_million_flows_differ() {
        let [frame, ..] = flows(false, FRAME_LEN)[..] else { return };
        let ports = |flow: usize| {
            let frame = of_million(&frame, u32::try_from(flow).expect("it is no more than a million"));
            u32::from_be_bytes([frame[L4], frame[L4 + 1], frame[L4 + 2], frame[L4 + 3]])
        };
        let mut all: Vec<u32> = (0..MILLION).map(ports).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), MILLION);
        assert!(all.iter().all(|ports| ports >> 16 >= 1024 && ports & 0xffff > 0));
    }

    /// Each flow has a key of its own.
    #[test]
    fn flows_differ() {
        let mut all = flows(false, FRAME_LEN);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), usize::from(FLOWS));
    }
}

//! Blocks, appended to a buffer of the caller. Numbers are little-endian, timestamps in nanoseconds.

use crate::block::{
    BYTE_ORDER, Direction, FILTER_TEXT, INBOUND, Interface, LINK_ETHERNET, MAX_CAPTURED, MAX_TEXT, OUTBOUND, Packet,
    Section, Statistics, kind, option, padding,
};

/// Bytes of a packet block before the data.
const PACKET_HEAD: usize = 28;

/// Appends the header of a section, which every file begins with.
pub fn section(out: &mut Vec<u8>, section: &Section<'_>) {
    let start = open(out, kind::SECTION);
    out.extend_from_slice(&BYTE_ORDER.to_le_bytes());
    // Version 1.0.
    out.extend_from_slice(&[1, 0, 0, 0]);
    // A stream does not know its length beforehand, which is said by -1.
    out.extend_from_slice(&[0xff; 8]);
    text(out, option::SHB_HARDWARE, section.hardware);
    text(out, option::SHB_OS, section.os);
    text(out, option::SHB_USERAPPL, section.application);
    close(out, start);
}

/// Appends the description of the section's next interface. It is Ethernet, its timestamps are in nanoseconds.
///
/// libpcap opens no file without an interface.
pub fn interface(out: &mut Vec<u8>, interface: &Interface<'_>) {
    let start = open(out, kind::INTERFACE);
    out.extend_from_slice(&u32::from(LINK_ETHERNET).to_le_bytes());
    out.extend_from_slice(&interface.snap.to_le_bytes());
    text(out, option::IF_NAME, interface.name);
    text(out, option::IF_DESCRIPTION, interface.description);
    if let Some(mac) = interface.mac {
        bytes(out, option::IF_MACADDR, &[], &mac);
    }
    bytes(out, option::IF_TSRESOL, &[], &[9]);
    if let Some(filter) = interface.filter {
        bytes(out, option::IF_FILTER, &[FILTER_TEXT], cut(filter, MAX_TEXT - 1).as_bytes());
    }
    close(out, start);
}

/// Appends a packet, whose kept bytes are the pieces of `data`, one after the other.
///
/// Does not allocate, but to grow `out`. A comment of more than [`MAX_TEXT`] bytes is cut at a character boundary.
///
/// # Panics
///
/// If `data` is more than [`MAX_CAPTURED`] bytes, for readers would refuse the file.
pub fn packet<'d>(out: &mut Vec<u8>, packet: &Packet<'_>, data: impl Iterator<Item = &'d [u8]>) {
    let start = out.len();
    out.extend_from_slice(&packet_head(packet));
    for piece in data {
        out.extend_from_slice(piece);
    }
    let captured = out.len() - start - PACKET_HEAD;
    assert!(captured <= MAX_CAPTURED, "{captured} bytes kept of a packet");
    out[start + 20..start + 24].copy_from_slice(&length(captured).to_le_bytes());
    pad(out, captured);

    let direction = match packet.direction {
        Direction::Inbound => INBOUND,
        Direction::Outbound => OUTBOUND,
    };
    bytes(out, option::EPB_FLAGS, &[], &direction.to_le_bytes());
    if packet.drops != 0 {
        bytes(out, option::EPB_DROPCOUNT, &[], &packet.drops.to_le_bytes());
    }
    if let Some(queue) = packet.queue {
        bytes(out, option::EPB_QUEUE, &[], &queue.to_le_bytes());
    }
    text(out, option::COMMENT, packet.comment);
    close(out, start);
}

/// Appends the statistics of an interface.
pub fn statistics(out: &mut Vec<u8>, statistics: &Statistics) {
    let start = open(out, kind::STATISTICS);
    out.extend_from_slice(&statistics.interface.to_le_bytes());
    out.extend_from_slice(&timestamp(statistics.timestamp_ns));
    bytes(out, option::ISB_STARTTIME, &[], &timestamp(statistics.start_ns));
    bytes(out, option::ISB_ENDTIME, &[], &timestamp(statistics.end_ns));
    bytes(out, option::ISB_IFRECV, &[], &statistics.received.to_le_bytes());
    bytes(out, option::ISB_IFDROP, &[], &statistics.dropped.to_le_bytes());
    bytes(out, option::ISB_FILTERACCEPT, &[], &statistics.accepted.to_le_bytes());
    bytes(out, option::ISB_USRDELIV, &[], &statistics.delivered.to_le_bytes());
    close(out, start);
}

/// The begin of a packet block in one piece, so that it is copied at once. Both lengths are put in later.
fn packet_head(packet: &Packet<'_>) -> [u8; PACKET_HEAD] {
    let mut head = [0; PACKET_HEAD];
    head[..4].copy_from_slice(&kind::PACKET.to_le_bytes());
    head[8..12].copy_from_slice(&packet.interface.to_le_bytes());
    head[12..20].copy_from_slice(&timestamp(packet.timestamp_ns));
    head[24..].copy_from_slice(&packet.len.to_le_bytes());
    head
}

/// Begins a block, and returns where. Its length is not known yet.
fn open(out: &mut Vec<u8>, kind: u32) -> usize {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    start
}

/// Ends the options and the block that began at `start`, and puts its length at both of its ends.
fn close(out: &mut Vec<u8>, start: usize) {
    // Code and length of the option that says that there are no more.
    out.extend_from_slice(&[0; 4]);
    let total = length(out.len() + 4 - start).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&total);
    out.extend_from_slice(&total);
}

/// Appends an option that is a text, unless it is empty.
fn text(out: &mut Vec<u8>, code: u16, text: &str) {
    if !text.is_empty() {
        bytes(out, code, &[], cut(text, MAX_TEXT).as_bytes());
    }
}

/// Appends an option: `prefix` and `value`, together at most [`MAX_TEXT`] bytes.
fn bytes(out: &mut Vec<u8>, code: u16, prefix: &[u8], value: &[u8]) {
    let len = prefix.len() + value.len();
    let [a, b] = code.to_le_bytes();
    let [c, d] = u16::try_from(len).expect("texts are cut to the limit of an option").to_le_bytes();
    out.extend_from_slice(&[a, b, c, d]);
    out.extend_from_slice(prefix);
    out.extend_from_slice(value);
    pad(out, len);
}

fn pad(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&[0; 3][..padding(len)]);
}

/// At most `max` bytes of `text`, and no part of a character.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A timestamp is two words, each in the section's byte order, the upper one first.
fn timestamp(ns: u64) -> [u8; 8] {
    ns.rotate_left(32).to_le_bytes()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the limits of data and texts keep a block below 1 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block starts at any place of the buffer, and the padding of its parts is counted from its own start.
    #[test]
    fn a_block_does_not_depend_on_what_is_before_it() {
        let written = |before: &[u8]| {
            let mut out = before.to_vec();
            let drops = 3;
            let direction = Direction::Inbound;
            let this = Packet { interface: 7, timestamp_ns: 9, len: 5, direction, queue: Some(1), drops, comment: "a" };
            packet(&mut out, &this, [&[1][..], &[], &[2, 3]].into_iter());
            out.split_off(before.len())
        };
        let expected = written(&[]);
        assert_eq!(expected.len() % 4, 0);
        for len in 1..8 {
            assert_eq!(written(&[0xee; 8][..len]), expected, "after {len} bytes");
        }
    }

    /// A text that is too long ends before the character that does not fit.
    #[test]
    fn cut_leaves_characters_whole() {
        let long = format!("{}é", "x".repeat(MAX_TEXT - 1));
        assert_eq!(cut(&long, MAX_TEXT), &long[..MAX_TEXT - 1]);
        assert_eq!(cut(&long[1..], MAX_TEXT), &long[1..]);
    }

    /// More data than readers take is refused at the first byte too many.
    #[test]
    #[should_panic(expected = "262145 bytes kept")]
    fn too_much_data_is_refused() {
        let direction = Direction::Inbound;
        let this =
            Packet { interface: 0, timestamp_ns: 0, len: u32::MAX, direction, queue: None, drops: 0, comment: "" };
        let mut out = Vec::new();
        packet(&mut out, &this, [&[0; MAX_CAPTURED][..]].into_iter());
        packet(&mut out, &this, [&[0; MAX_CAPTURED][..], &[0]].into_iter());
    }
}

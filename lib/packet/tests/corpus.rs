//! Replays the corpus of the fuzz target `parse`, so that every frame that ever mattered is tried on every run.
//!
//! The frames with names are written by this file: `KOPI_WRITE_CORPUS=1 cargo test -p kopi-packet --test corpus` puts
//! them back after a change. Frames that the fuzzer found may lie beside them under any other name.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test, which the lints do not see"
)]

mod support;

use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/parse")
}

/// Writes a frame from words in hexadecimal; `NxHH` repeats a byte.
fn hex(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    for word in text.split_whitespace() {
        if let Some((count, byte)) = word.split_once('x') {
            frame.resize(frame.len() + count.parse::<usize>().unwrap(), u8::from_str_radix(byte, 16).unwrap());
        } else {
            assert_eq!(word.len() % 2, 0, "{word}");
            frame.extend((0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).unwrap()));
        }
    }
    frame
}

const MACS: &str = "020000000001 020000000002";
const V4: &str = "4000 0a000001 0a000002";
const V6: &str = "fd00 13x00 01 fd00 13x00 02";
const TCP: &str = "9c401538 00000001 00000000 50022000 00000000";
const UDP: &str = "13880035 00080000";

/// A frame for every way through the parser, under the name of what it is.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |rest: &str| hex(&format!("{MACS} {rest}"));
    let v4 = |first: &str, proto: &str, rest: &str| frame(&format!("0800 {first} 40{proto} {V4} {rest}"));
    let v6 = |first: &str, rest: &str| frame(&format!("86dd 60000000 {first} 40 {V6} {rest}"));
    let deep: String = "3c00010400000000 ".repeat(100);
    vec![
        ("runt", hex("0200")),
        ("ethernet-only", frame("0800")),
        ("lldp", frame("88cc 0207")),
        ("llc", frame("0026 4242 03 35x00")),
        ("arp-request", frame("0806 0001080006040001 020000000002 0a000001 6x00 0a000002 18x00")),
        ("arp-reply", frame("0806 0001080006040002 020000000002 0a000001 020000000001 0a000002")),
        ("arp-truncated", frame("0806 0001080006040001 0200000000")),
        ("arp-other-hardware", frame("0806 0006080006040001 20x00")),
        ("ipv4-tcp", v4("4500 0028 0001 4000", "06", &format!("{TCP} 6x00"))),
        ("ipv4-udp", v4("45b8 001c 0001 0000", "11", &format!("{UDP} 18x00"))),
        ("ipv4-udp-lite", v4("4500 001c 0001 0000", "88", UDP)),
        ("ipv4-sctp", v4("4500 0020 0001 0000", "84", "0b590b59 0000000000000000")),
        ("ipv4-icmp-echo", v4("4500 001c 0001 0000", "01", "0800f7fd 00010001")),
        ("ipv4-icmp-unreachable", v4("4500 001c 0001 0000", "01", "0304f7fd 00010001")),
        ("ipv4-gre", v4("4500 0018 0001 0000", "2f", "00000800")),
        ("ipv4-authentication", v4("4500 0034 0001 0000", "33", &format!("1104 22x00 {UDP}"))),
        ("ipv4-options", v4("4600 0020 0001 0000", "11", &format!("94040000 {UDP}"))),
        ("ipv4-options-overrun", v4("4600 0020 0001 0000", "11", &format!("94080000 {UDP}"))),
        ("ipv4-options-40-bytes", v4("4f00 0044 0001 0000", "11", &format!("40x01 {UDP}"))),
        ("ipv4-ihl-4", v4("4400 001c 0001 0000", "11", UDP)),
        ("ipv4-version-6", v4("6500 001c 0001 0000", "11", UDP)),
        ("ipv4-length-0", v4("4500 0000 0001 0000", "11", UDP)),
        ("ipv4-length-beyond", v4("4500 001d 0001 0000", "11", UDP)),
        ("ipv4-cut", frame("0800 4500 001c 0001")),
        ("ipv4-first-fragment", v4("4500 0028 0001 2000", "06", TCP)),
        ("ipv4-tiny-first-fragment", v4("4500 001c 0001 2000", "06", "9c401538 00000001")),
        ("ipv4-overlapping-fragment", v4("4500 001c 0001 0001", "06", "00000000 50022000")),
        ("ipv4-later-fragment", v4("4500 001c 0001 0010", "11", UDP)),
        ("ipv4-ping-of-death", v4("4500 001c 0001 1fff", "01", UDP)),
        ("ipv4-tcp-cut", v4("4500 0027 0001 0000", "06", &TCP[..TCP.len() - 2])),
        ("vlan-ipv4-udp", frame(&format!("8100 6007 0800 4500 001c 0001 0000 4011 {V4} {UDP}"))),
        ("qinq-ipv4-udp", frame(&format!("88a8 0005 8100 0006 0800 4500 001c 0001 0000 4011 {V4} {UDP}"))),
        ("vlan-arp", frame("8100 0007 0806 0001080006040001 020000000002 0a000001 6x00 0a000002")),
        ("vlan-cut", frame("8100 00")),
        ("vlan-five-deep", frame("8100 0001 8100 0002 8100 0003 8100 0004 8100 0005 0800 20x00")),
        ("ipv6-tcp", v6("0014 06", TCP)),
        ("ipv6-udp", v6("0008 11", UDP)),
        ("ipv6-icmp-echo", v6("0008 3a", "80000000 00010001")),
        ("ipv6-neighbour-solicitation", v6("0018 3a", &format!("87000000 00000000 {}", &V6[..13]))),
        ("ipv6-multicast-router-solicitation", v6("0004 3a", "98000000")),
        ("ipv6-no-next-header", v6("0000 3b", "")),
        ("ipv6-extensions", v6("0028 00", &format!("3c00010400000000 2b00010400000000 1101 14x00 {UDP}"))),
        ("ipv6-authentication", v6("0020 33", &format!("1104 22x00 {UDP}"))),
        ("ipv6-mobility", v6("0008 87", "3b00000000000000")),
        ("ipv6-hop-by-hop-late", v6("0018 3c", &format!("0000010400000000 1100010400000000 {UDP}"))),
        ("ipv6-100-extensions", v6("0320 3c", &deep)),
        ("ipv6-long-extension", v6("0808 3c", "11ff 2046x00 13880035 00080000")),
        ("ipv6-jumbogram", v6("0010 00", &format!("1100c20400010000 {UDP}"))),
        ("ipv6-length-0", v6("0000 00", &format!("1100c20400010000 {UDP}"))),
        ("ipv6-length-beyond", v6("0009 11", UDP)),
        ("ipv6-cut", frame("86dd 60000000 0008 1140")),
        ("ipv6-first-fragment", v6("0010 2c", &format!("1100000100000001 {UDP}"))),
        ("ipv6-tiny-first-fragment", v6("000c 2c", "1100000100000001 13880035")),
        ("ipv6-later-fragment", v6("0010 2c", &format!("1100001100000001 {UDP}"))),
        ("ipv6-atomic-fragment", v6("0010 2c", &format!("1100000000000001 {UDP}"))),
        ("ipv6-fragment-twice", v6("0018 2c", &format!("2c00000100000001 1100000000000001 {UDP}"))),
    ]
}

#[test]
fn every_frame_of_the_corpus_passes_all_checks() {
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let frame = fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| support::check(&frame));
        assert!(outcome.is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count >= examples().len());
}

#[test]
fn the_examples_are_in_the_corpus() {
    for (name, frame) in examples() {
        let path = folder().join(name);
        if std::env::var_os("KOPI_WRITE_CORPUS").is_some() {
            fs::write(&path, &frame).unwrap();
        }
        assert_eq!(fs::read(&path).ok(), Some(frame), "{name}: see the top of this file");
    }
}

/// The examples are worth their name only if they reach every answer that the parser has.
#[test]
fn the_examples_reach_every_reason_and_shape() {
    use kopi_packet::{Malformed, Shape, parse};
    let shapes: Vec<Shape> = examples().iter().map(|(_, frame)| parse(frame, 0).0.shape).collect();
    let plain = [Shape::Runt, Shape::Other, Shape::Arp, Shape::Ipv4, Shape::Ipv6];
    for wanted in plain.into_iter().chain(Malformed::ALL.map(Shape::Malformed)) {
        assert!(shapes.contains(&wanted), "{wanted:?}");
    }
}

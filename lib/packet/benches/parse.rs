//! Nanoseconds per frame for parse, key and hash: `cargo bench -p kopi-packet`.
//!
//! Each kind of frame is parsed from a set of copies that fits in the first-level cache, so the numbers are the cost
//! of the work and not of memory. The median of many short rounds is printed, and the best one beside it.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::time::Instant;

use kopi_packet::{FlowKey, Headers, Seed, parse};

/// As many as a worker takes in one burst.
const FRAMES: usize = 32;
const ROUNDS: usize = 4000;

fn main() {
    let seed = Seed::from_bytes(core::array::from_fn(|i| u8::try_from(i * 37 % 251).unwrap_or(0)));
    println!("ns per frame        parse, key and hash      parse and key");
    println!("frame                  median     best     median     best");
    let udp = ipv4(17);
    for (name, frame) in [
        ("udp, ipv4", udp),
        ("tcp, ipv4", ipv4(6)),
        ("icmp, ipv4", ipv4(1)),
        ("udp, ipv4, vlan", tagged(&udp)),
        ("udp, ipv6", ipv6()),
        ("arp", arp()),
    ] {
        let frames = copies(frame);
        let mut batch = Batch::new();
        let hashed = measure(|| batch.parse_and_hash(black_box(&frames), black_box(&seed)));
        let parsed = measure(|| batch.parse(black_box(&frames)));
        println!("{name:20} {:8.2} {:8.2}   {:8.2} {:8.2}", hashed.0, hashed.1, parsed.0, parsed.1);
    }
}

/// What a worker keeps of a batch.
struct Batch {
    headers: [Headers; FRAMES],
    keys: [FlowKey; FRAMES],
    hashes: [u64; FRAMES],
}

impl Batch {
    fn new() -> Self {
        Self { headers: [Headers::default(); FRAMES], keys: [FlowKey::default(); FRAMES], hashes: [0; FRAMES] }
    }

    #[inline(never)]
    fn parse(&mut self, frames: &[[u8; 64]; FRAMES]) {
        for ((frame, headers), key) in frames.iter().zip(&mut self.headers).zip(&mut self.keys) {
            (*headers, *key) = parse(black_box(frame.as_slice()), 3);
        }
        black_box(self);
    }

    #[inline(never)]
    fn parse_and_hash(&mut self, frames: &[[u8; 64]; FRAMES], seed: &Seed) {
        let slots = self.headers.iter_mut().zip(&mut self.keys).zip(&mut self.hashes);
        for (frame, ((headers, key), hash)) in frames.iter().zip(slots) {
            (*headers, *key) = parse(black_box(frame.as_slice()), 3);
            *hash = key.hash(seed);
        }
        black_box(self);
    }
}

/// Median and best time per frame, in nanoseconds.
fn measure(mut work: impl FnMut()) -> (f64, f64) {
    const REPEATS: usize = 40;
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REPEATS {
                work();
            }
            let count = f64::from(u32::try_from(REPEATS * FRAMES).unwrap_or(1));
            start.elapsed().as_secs_f64() * 1e9 / count
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

/// Copies that differ in the last byte of both addresses and ports, as flows of a load generator do.
fn copies(frame: [u8; 64]) -> [[u8; 64]; FRAMES] {
    let vary = |i: usize| {
        let mut copy = frame;
        for at in [29, 33, 35, 37] {
            copy[at] = copy[at].wrapping_add(u8::try_from(i).unwrap_or(0));
        }
        copy
    };
    core::array::from_fn(vary)
}

fn ethernet(ethertype: u16) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame
}

fn ipv4(proto: u8) -> [u8; 64] {
    let mut frame = ethernet(0x0800);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[34..38].copy_from_slice(&[0x30, 0x39, 0, 80]);
    frame
}

fn tagged(frame: &[u8; 64]) -> [u8; 64] {
    let mut tagged = *frame;
    tagged[16..].copy_from_slice(&frame[12..60]);
    tagged[12..16].copy_from_slice(&[0x81, 0, 0, 7]);
    // Four bytes of padding fell off the end.
    tagged[20..22].copy_from_slice(&42_u16.to_be_bytes());
    tagged
}

fn ipv6() -> [u8; 64] {
    let mut frame = ethernet(0x86dd);
    frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 10, 17, 64]);
    frame[22] = 0xfd;
    frame[38] = 0xfd;
    frame
}

fn arp() -> [u8; 64] {
    let mut frame = ethernet(0x0806);
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame
}

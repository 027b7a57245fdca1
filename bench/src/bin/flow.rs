//! The flow table alone: nanoseconds per packet for parse, hash and lookup, by number of flows.
//!
//! One core, no rings, no packet buffers: what a worker pays for decision 7 of the design. Frames are 64 bytes of UDP over
//! IPv4, in bursts of 32 as a worker has them. Prints the median and the range of the samples.
#![forbid(unsafe_code)]

use kopi_dataplane::worker::flow_table::FlowTable;
use kopi_packet::{FlowKey, RssSeed, Seed};
use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

/// Frames in a burst.
const BURST: usize = 32;
/// Packets in one sample.
const PACKETS: usize = 1 << 20;
/// Samples of each case.
const SAMPLES: usize = 15;
/// Entries of the table: kopid's default.
const ENTRIES: usize = 65_536;

fn frame(flow: u32) -> [u8; 64] {
    let mut frame = [0_u8; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&flow.to_be_bytes());
    frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
    frame[34..40].copy_from_slice(&[0, 53, 0, 53, 0, 30]);
    frame
}

/// Nanoseconds per packet of one sample. With `lookup` false only parse and hash are done.
fn sample(table: &mut FlowTable, frames: &[[u8; 64]], lookup: bool, now: &mut u64) -> f64 {
    let mut keys = [FlowKey::default(); BURST];
    let mut hashes = [Default::default(); BURST];
    let mut next = frames.iter().cycle();
    let begun = Instant::now();
    for _ in 0..PACKETS / BURST {
        *now += 1;
        for ((key, hash), frame) in keys.iter_mut().zip(&mut hashes).zip(next.by_ref()) {
            *key = kopi_packet::parse(black_box(frame), 1).1;
            *hash = table.hash(key);
        }
        if lookup {
            for (key, hash) in keys.iter().zip(&hashes) {
                if let Some(flow) = table.flow(key, *hash, u32::MAX, *now) {
                    flow.count(1, 64, *now);
                }
            }
        }
        black_box((&keys, &hashes));
    }
    begun.elapsed().as_secs_f64() * 1e9 / PACKETS as f64
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:>10}  {:>24}  {:>24}", "flows", "parse and hash, ns", "with lookup, ns")?;
    for flows in [1, 10, 100, 1_000, 10_000, 30_000] {
        let frames: Vec<_> = (0..flows).map(frame).collect();
        let mut table = FlowTable::new(ENTRIES, 2, Seed::from_bytes([7; 64]), RssSeed::from_bytes([6; 64]));
        let mut now = 1;
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..SAMPLES {
            for (lookup, kept) in [false, true].into_iter().zip(&mut samples) {
                kept.push(sample(&mut table, &frames, lookup, &mut now));
            }
        }
        let [parse, all] = samples.map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            format!("{:.1} ({:.1} to {:.1})", samples[SAMPLES / 2], samples[0], samples[SAMPLES - 1])
        });
        writeln!(out, "{flows:>10}  {parse:>24}  {all:>24}")?;
    }
    Ok(())
}

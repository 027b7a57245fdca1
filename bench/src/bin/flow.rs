//! The flow table alone: nanoseconds per packet for parse, hash and lookup, by number of flows.
//!
//! One core, no rings, no packet buffers: what a worker pays for decision 7 of the design. Frames are 64 bytes of UDP over
//! IPv4, in bursts of 32 as a worker has them, looked up in the passes of `stages/policy.rs`. Flows come in no order, as the
//! hardware could guess one. Prints the median and the range of the samples, and how many lookups found nothing.
//!
//! The table has kopid's default size for this machine and one worker; another can be given as the only argument.
#![forbid(unsafe_code)]

use kopi_dataplane::control::flow_sizes::default_flows;
use kopi_dataplane::control::memory::MachineMemory;
use kopi_dataplane::worker::flow_table::FlowTable;
use kopi_packet::{FlowKey, Seed};
use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Frames in a burst.
const BURST: usize = 32;
/// Packets in one sample.
const PACKETS: usize = 1 << 20;
/// Samples of each case.
const SAMPLES: usize = 15;
/// Frames of each case that lie in memory: few enough to stay near, as packet buffers do.
const FRAMES: usize = 2048;

fn frame(flow: u32) -> [u8; 64] {
    let mut frame = [0_u8; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&flow.to_be_bytes());
    frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
    frame[34..40].copy_from_slice(&[0, 53, 0, 53, 0, 30]);
    frame
}

/// Nanoseconds per packet of one sample, of frames of the first `flows` flows. With `lookup` false only parse and hash are done.
fn sample(table: &mut FlowTable, (flows, random): (u32, &mut u64), lookup: bool, now: &mut u64) -> f64 {
    let mut keys = [FlowKey::default(); BURST];
    let mut hashes = [Default::default(); BURST];
    let mut places = [Default::default(); BURST];
    let mut took = Duration::ZERO;
    for _ in 0..PACKETS / FRAMES {
        let frames: Vec<_> = (0..FRAMES).map(|_| frame(some_flow(random, flows))).collect();
        let begun = Instant::now();
        for frames in frames.as_chunks::<BURST>().0 {
            *now += 1;
            for ((key, hash), frame) in keys.iter_mut().zip(&mut hashes).zip(frames) {
                *key = kopi_packet::parse(black_box(frame), 1).1;
                *hash = table.hash(key);
            }
            if lookup {
                for (place, hash) in places.iter_mut().zip(&hashes) {
                    *place = table.locate(*hash, false);
                }
                for ((key, hash), place) in keys.iter().zip(&hashes).zip(&places) {
                    if let Some(flow) = table.flow_at(*place, key, *hash, u32::MAX, *now) {
                        flow.count(1, 64, *now);
                    }
                }
            }
            black_box((&keys, &hashes));
        }
        took += begun.elapsed();
    }
    took.as_secs_f64() * 1e9 / PACKETS as f64
}

/// The number of one of `flows` flows, by xorshift64 (G. Marsaglia, "Xorshift RNGs", 2003).
fn some_flow(random: &mut u64, flows: u32) -> u32 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    u32::try_from(((*random >> 32) * u64::from(flows)) >> 32).unwrap_or(0)
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let given = std::env::args().nth(1).and_then(|entries| entries.parse().ok());
    let entries = given.unwrap_or_else(|| default_flows(MachineMemory::new().total(), 1));
    writeln!(out, "a table of {entries} entries")?;
    writeln!(out, "{:>10}  {:>24}  {:>24}  {:>8}", "flows", "parse and hash, ns", "with lookup, ns", "misses")?;
    for flows in [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let mut table = FlowTable::advised(entries, 2, Seed::from_bytes([7; 64]), kopi_ring::prefer_huge_pages);
        let (mut now, mut random) = (1, 88_172_645_463_325_252);
        // All of them are there once before anything is measured.
        for key in (0..flows).map(|flow| kopi_packet::parse(&frame(flow), 1).1) {
            let hash = table.hash(&key);
            table.flow(&key, hash, u32::MAX, now);
        }
        let mut samples = [Vec::new(), Vec::new()];
        let misses = table.misses();
        for _ in 0..SAMPLES {
            for (lookup, kept) in [false, true].into_iter().zip(&mut samples) {
                kept.push(sample(&mut table, (flows, &mut random), lookup, &mut now));
            }
        }
        let [parse, all] = samples.map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            format!("{:.1} ({:.1} to {:.1})", samples[SAMPLES / 2], samples[0], samples[SAMPLES - 1])
        });
        let missed = (table.misses() - misses) as f64 * 100.0 / (SAMPLES * PACKETS) as f64;
        writeln!(out, "{flows:>10}  {parse:>24}  {all:>24}  {missed:>6.2} %")?;
    }
    Ok(())
}

//! The first stage: which flow each frame is of.

use crate::ids::{PortId, WIRE};
use crate::policy_table::Inspection;
use crate::worker::burst::{Burst, fill};
use crate::worker::flow_table::{FlowTable, Hash};
use dpdk::{Batch, Mbuf};
use kopi_packet::{FlowKey, Headers};
use kopi_ring::layout::MIN_FRAME;

/// Finds the flow key of every frame, all from port `source`, and its hash. Returns the bytes of all frames.
///
/// Frames of a flow mostly come in runs, so a frame that was parsed is compared with those behind it.
#[inline(never)]
pub fn run(burst: &mut Burst, source: PortId, flows: &FlowTable, watch: Option<Inspection>) -> u64 {
    burst.from_wire = source == WIRE;
    let Burst { batch, keys, lens, hashes, .. } = burst;
    let frames: &[Mbuf] = batch;
    let n = frames.len().min(Batch::MAX);
    let (mut bytes, mut longest) = (0, 0);
    let (mut follows, mut alone) = (0_u32, 0_u32);
    let mut runts = false;
    let (mut start, mut head) = (0, 0);
    while start < n {
        let frame = frames[start].data();
        let mut end = start + 1;
        let hash = match kopi_packet::parse_plain(frame, source) {
            Some((headers, key)) => {
                keys[start] = key;
                if let Some(watch) = watch.filter(|watch| watch.has_more(&key)) {
                    let (by_itself, hash) = inspect(watch, (frame, &headers), flows, &mut keys[start]);
                    alone |= u32::from(by_itself) << start;
                    hash
                } else {
                    let hash = flows.hash(&key);
                    if end < n && kopi_packet::ends_alike(frames[end].data(), frame) {
                        end = n.min(end + alike(frames.get(end..n).unwrap_or_default(), frame));
                    }
                    hash
                }
            }
            None => {
                let others = frames.get(end..n).unwrap_or_default();
                let found = classify(frame, others, source, watch, flows, &mut keys[start]);
                end = n.min(end + found.alike);
                alone |= u32::from(found.alone) << start;
                runts |= frame.len() < MIN_FRAME as usize;
                found.hash
            }
        };
        // Where hashes differ, keys do.
        if hashes[head] == hash && keys[head] == keys[start] {
            follows |= 1 << start;
        }
        hashes[start] = hash;
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        longest = longest.max(len);
        bytes += u64::from(len);
        lens[start] = len;
        (head, start) = (start, start + 1);
        if end > start {
            bytes += u64::from(len) * (end - start) as u64;
            follows |= u32::MAX >> (Batch::MAX - end) & !(u32::MAX >> (Batch::MAX - start));
            fill(lens, start..end, len);
            start = end;
        }
    }
    burst.alone = alone;
    // The first frame follows none.
    burst.follows = follows & !(1 | alone | alone << 1);
    (burst.bytes, burst.runts, burst.longest) = (bytes, runts, longest);
    bytes
}

/// Has `watch` look at what a plain frame says beyond its `key`, by which no other is known to be like it. Returns whether it is to be
/// evaluated by itself, and the hash.
#[inline(never)]
fn inspect(
    watch: Inspection,
    (frame, headers): (&[u8], &Headers),
    flows: &FlowTable,
    key: &mut FlowKey,
) -> (bool, Hash) {
    (watch.complete(key, frame, headers), flows.hash(key))
}

/// How many of the frames in front are [alike](kopi_packet::is_alike) to `frame`.
#[inline(never)]
fn alike(others: &[Mbuf], frame: &[u8]) -> usize {
    others.iter().take_while(|mbuf| kopi_packet::is_alike(mbuf.data(), frame)).count()
}

/// What is known of a frame besides its key.
struct Classified {
    hash: Hash,
    /// Whether it is to be evaluated by itself.
    alone: bool,
    /// How many of the frames behind it are known to have its key without being parsed.
    alike: usize,
}

/// Finds the `key` of a frame of any kind, and what else is known of it.
#[inline(never)]
fn classify(
    frame: &[u8],
    others: &[Mbuf],
    source: PortId,
    watch: Option<Inspection>,
    flows: &FlowTable,
    key: &mut FlowKey,
) -> Classified {
    let short = kopi_packet::parse_short(frame, source);
    let is_short = short.is_some();
    let (headers, found) = short.unwrap_or_else(|| kopi_packet::parse_long(frame, source));
    *key = found;
    let (alone, alike) = match watch {
        // What is looked at beyond the key is not compared.
        Some(watch) if watch.has_more(key) => (watch.complete(key, frame, &headers), 0),
        _ if is_short => (false, alike(others, frame)),
        _ if kopi_packet::ends_early(&headers) => {
            (false, others.iter().take_while(|mbuf| kopi_packet::begins_alike(mbuf.data(), frame)).count())
        }
        _ => (false, 0),
    };
    Classified { hash: flows.hash(key), alone, alike }
}

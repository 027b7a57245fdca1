//! The first stage: which flow each frame is of.

use crate::ids::{PortId, WIRE};
use crate::policy_table::Inspection;
use crate::worker::burst::{Burst, fill};
use crate::worker::flow_table::{FlowTable, Hash};
use dpdk::{Batch, Mbuf};
use kopi_packet::FlowKey;

/// Finds the flow key of every frame, all from port `source`, and its hash. Returns the bytes of all frames.
///
/// Frames of a flow mostly come in runs, so a frame is first compared with the one before it.
#[inline]
pub fn run(burst: &mut Burst, source: PortId, flows: &FlowTable, watch: Option<Inspection>) -> u64 {
    burst.from_wire = source == WIRE;
    let Burst { batch, keys, lens, hashes, .. } = burst;
    let (mut bytes, mut shortest, mut longest) = (0, u32::MAX, 0);
    let (mut follows, mut alone) = (0_u32, 0_u32);
    let mut hash = Hash::default();
    let (mut start, mut head) = (0, 0);
    let mut rest: &[Mbuf] = batch;
    while let (Some((first, others)), Some(key)) = (rest.split_first(), keys.get_mut(start)) {
        let frame = first.data();
        let (likeness, by_itself) = classify(frame, source, watch, key);
        let alike = match likeness {
            Likeness::Short => others.iter().take_while(|mbuf| kopi_packet::is_alike(mbuf.data(), frame)).count(),
            Likeness::Beginning => {
                others.iter().take_while(|mbuf| kopi_packet::begins_alike(mbuf.data(), frame)).count()
            }
            Likeness::None => 0,
        };
        let (key, before) = (keys.get(start), keys.get(head));
        if start > 0 && key == before {
            follows |= 1 << start;
        } else if let Some(key) = key {
            hash = flows.hash(key);
        }
        let len = first.len();
        (shortest, longest) = (shortest.min(len), longest.max(len));
        bytes += u64::from(len);
        alone |= u32::from(by_itself) << start;
        fill(lens, start..start + 1, len);
        fill(hashes, start..start + 1, hash);
        (head, start, rest) = (start, start + 1, others);
        if alike > 0 {
            let end = start + alike;
            bytes += u64::from(len) * alike as u64;
            follows |= u32::MAX >> (Batch::MAX - end) & !(u32::MAX >> (Batch::MAX - start));
            fill(lens, start..end, len);
            fill(hashes, start..end, hash);
            (start, rest) = (end, others.get(alike..).unwrap_or_default());
        }
    }
    burst.alone = alone;
    burst.follows = follows & !(alone | alone << 1);
    (burst.bytes, burst.shortest, burst.longest) = (bytes, shortest, longest);
    bytes
}

/// By what other frames are known to have the key of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// By nothing less than to be parsed.
    None,
    /// By what [`kopi_packet::is_alike`] compares.
    Short,
    /// By what [`kopi_packet::begins_alike`] compares.
    Beginning,
}

/// Finds the `key` of a frame. Returns by what others are known to have it, and whether the frame is to be evaluated by itself.
#[inline]
fn classify(frame: &[u8], source: PortId, watch: Option<Inspection>, key: &mut FlowKey) -> (Likeness, bool) {
    // Each way on its own: where they met, headers and key would be copied, which stalls right behind the parser's stores.
    let Some((headers, found)) = kopi_packet::parse_short(frame, source) else {
        return classify_long(frame, source, watch, key);
    };
    *key = found;
    match watch {
        // What is looked at beyond the key is not compared.
        Some(watch) if watch.has_more(key) => (Likeness::None, watch.complete(key, frame, &headers)),
        _ => (Likeness::Short, false),
    }
}

/// The same for a frame that is parsed the general way.
#[inline(never)]
fn classify_long(frame: &[u8], source: PortId, watch: Option<Inspection>, key: &mut FlowKey) -> (Likeness, bool) {
    let (headers, found) = kopi_packet::parse_long(frame, source);
    *key = found;
    match watch {
        Some(watch) if watch.has_more(key) => (Likeness::None, watch.complete(key, frame, &headers)),
        _ if kopi_packet::ends_early(&headers) => (Likeness::Beginning, false),
        _ => (Likeness::None, false),
    }
}

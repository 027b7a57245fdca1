//! The first stage: which flow each frame is of.

use crate::ids::PortId;
use crate::policy_table::Inspection;
use crate::worker::burst::Burst;
use crate::worker::flow_table::{FlowTable, Hash};
use kopi_packet::FlowKey;

/// Finds the flow key of every frame, all from port `source`, and its hash. Returns the bytes of all frames.
///
/// Frames of a flow mostly come in runs, so a frame is first compared with the one before it.
#[inline]
pub fn run(burst: &mut Burst, source: PortId, flows: &FlowTable, watch: Option<Inspection>) -> u64 {
    let mut bytes = 0;
    let (mut shortest, mut longest) = (u32::MAX, 0);
    let (mut follows, mut alone) = (0_u32, 0_u32);
    let mut hash = Hash::default();
    // The first frame of the run, as far as others need no more than to be compared with it: by what the short way reads,
    // or by how they begin.
    let (mut first, mut beginning, mut head): (&[u8], &[u8], usize) = (&[], &[], 0);
    let found = burst.hashes.iter_mut().zip(&mut burst.lens);
    for (at, (mbuf, (to_hash, to_len))) in burst.batch.iter().zip(found).enumerate() {
        let frame = mbuf.data();
        bytes += frame.len() as u64;
        *to_len = mbuf.len();
        if kopi_packet::is_alike(frame, first) || kopi_packet::begins_alike(frame, beginning) {
            follows |= 1 << at;
        } else {
            shortest = shortest.min(mbuf.len());
            longest = longest.max(mbuf.len());
            let Some(key) = burst.keys.get_mut(at) else { break };
            let (likeness, by_itself) = classify(frame, source, watch, key);
            alone |= u32::from(by_itself) << at;
            first = if likeness == Likeness::Short { frame } else { &[] };
            beginning = if likeness == Likeness::Beginning { frame } else { &[] };
            let key = burst.keys.get(at);
            if at > 0 && key == burst.keys.get(head) {
                follows |= 1 << at;
            } else if let Some(key) = key {
                hash = flows.hash(key);
            }
            head = at;
        }
        *to_hash = hash;
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

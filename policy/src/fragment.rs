//! What was decided about the first fragment of a packet, for the fragments that follow it.
//!
//! Only the first fragment has ports, so only it can be judged. The others take its verdict, if they come after it; those
//! that come before it are for the policy to decide. Each worker has a table of its own. It has a fixed size: the oldest
//! verdict of a bucket makes room.

use std::net::IpAddr;

use kopi_config::policy::Direction;
use kopi_packet::{FlowKey, Seed};

/// Verdicts in a bucket.
const WAYS: usize = 4;
/// A verdict holds for so many seconds, as long as Linux waits for the rest of a packet (`ipfrag_time`).
pub const HOLD_SECONDS: u64 = 30;

/// What the fragments of one packet have in common at one policy point.
///
/// # Source
///
/// RFC 791, 3.2 (addresses, protocol, identification) and RFC 8200, 4.5 (addresses and identification: the protocol that
/// an IPv6 fragment names need not be the same in all of them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey([u64; 8]);

impl FragmentKey {
    /// The key of a fragment at the policy point of app `zone` in its life `life`, since its number is used again; `id` is
    /// what [`fragment_id`](kopi_packet::fragment_id)
    /// says of it. `None` if the frame is not IP.
    #[must_use]
    pub fn of((zone, life): (u16, u32), direction: Direction, key: &FlowKey, id: u32) -> Option<Self> {
        let (src, dst) = key.src_addr().zip(key.dst_addr())?;
        let proto = if src.is_ipv4() { key.proto() } else { 0 };
        let family = if src.is_ipv4() { 4 } else { 6 };
        let way = u8::from(direction == Direction::Ingress);
        let [z0, z1] = zone.to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        let vlan = |tag: Option<kopi_packet::VlanTag>| tag.map_or(0, |tag| u64::from(tag.id()));
        let ([s0, s1], [d0, d1]) = (halves(src), halves(dst));
        Some(Self([
            u64::from_be_bytes([z0, z1, way, proto, i0, i1, i2, i3]),
            vlan(key.outer_vlan()) << 32 | vlan(key.inner_vlan()) << 16 | family,
            s0,
            s1,
            d0,
            d1,
            life.into(),
            0,
        ]))
    }
}

fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let [a, b, c, d, e, f, g, h, rest @ ..] = bits.to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)]
}

/// Verdicts on packets whose first fragment was seen.
#[derive(Debug)]
pub struct Fragments<T> {
    entries: Box<[Option<Entry<T>>]>,
    seed: Seed,
    hold: u64,
    /// Which policy it is, counted from the start.
    epoch: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    key: FragmentKey,
    /// When the first fragment was seen, in ticks.
    since: u64,
    /// The policy under which it was decided.
    epoch: u32,
    verdict: T,
}

impl<T: Copy> Fragments<T> {
    /// A table for `capacity` packets, a power of two of at least 4, hashed under `seed`, with a clock of `hz` ticks a
    /// second.
    ///
    /// # Panics
    ///
    /// If `capacity` is anything else.
    #[must_use]
    pub fn new(capacity: usize, seed: Seed, hz: u64) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= WAYS, "table of {capacity} fragments");
        Self { entries: vec![None; capacity].into(), seed, hold: hz.saturating_mul(HOLD_SECONDS), epoch: 0 }
    }

    fn bucket(&self, key: &FragmentKey) -> usize {
        let mask = u64::try_from(self.entries.len() / WAYS - 1).unwrap_or(0);
        usize::try_from(self.seed.hash(&key.0) & mask).unwrap_or(0) * WAYS
    }

    /// Remembers what was decided about the first fragment of a packet, instead of what was decided about an earlier
    /// packet with the same key.
    pub fn remember(&mut self, key: &FragmentKey, verdict: T, now: u64) {
        let start = self.bucket(key);
        let Some(ways) = self.entries.get_mut(start..start + WAYS) else { return };
        let rank = |entry: &Option<Entry<T>>| match entry {
            Some(entry) if entry.key == *key => (0, 0),
            None => (1, 0),
            Some(entry) => (2, entry.since),
        };
        if let Some(place) = ways.iter_mut().min_by_key(|entry| rank(entry)) {
            *place = Some(Entry { key: *key, since: now, epoch: self.epoch, verdict });
        }
    }

    /// What was decided about the first fragment of the packet, at most [`HOLD_SECONDS`] ago.
    #[must_use]
    pub fn recall(&self, key: &FragmentKey, now: u64) -> Option<T> {
        let start = self.bucket(key);
        let ways = self.entries.get(start..start + WAYS)?;
        let entry = ways.iter().flatten().find(|entry| entry.key == *key)?;
        let holds = entry.epoch == self.epoch && now.saturating_sub(entry.since) < self.hold;
        holds.then_some(entry.verdict)
    }

    /// Forgets everything, as after a change of the policy. Traffic waits meanwhile, so nothing is written over.
    pub const fn clear(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::parse;

    fn table(capacity: usize) -> Fragments<u32> {
        Fragments::new(capacity, Seed::from_bytes([0x5a; 64]), 1000)
    }

    /// A fragment of a UDP packet from 10.0.0.`n`, the first one or a later one.
    fn key(n: u8, id: u32, first: bool) -> FragmentKey {
        let mut frame = [0; 60];
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, if first { 0x20 } else { 1 }, 0, 64, 17]);
        frame[26..34].copy_from_slice(&[10, 0, 0, n, 10, 0, 0, 100]);
        FragmentKey::of((3, 1), Direction::Ingress, &parse(&frame, 1).1, id).unwrap()
    }

    #[test]
    fn later_fragments_find_the_verdict_of_the_first() {
        let mut table = table(64);
        table.remember(&key(1, 7, true), 42, 1000);
        assert_eq!(table.recall(&key(1, 7, false), 1001), Some(42));
        assert_eq!(table.recall(&key(1, 8, false), 1001), None, "another packet");
        assert_eq!(table.recall(&key(2, 7, false), 1001), None, "another sender");
        assert_eq!(table.recall(&key(1, 7, false), 30_999), Some(42));
        assert_eq!(table.recall(&key(1, 7, false), 31_000), None, "too late");
        table.remember(&key(1, 7, true), 43, 40_000);
        assert_eq!(table.recall(&key(1, 7, false), 40_000), Some(43), "the identification was used again");
        table.clear();
        assert_eq!(table.recall(&key(1, 7, false), 40_000), None);
    }

    #[test]
    fn the_oldest_verdict_of_a_full_bucket_makes_room() {
        let mut table = table(4);
        for id in 0..5 {
            table.remember(&key(1, id, true), id, 10 + u64::from(id));
        }
        let left: Vec<_> = (0..5).map(|id| table.recall(&key(1, id, false), 20)).collect();
        assert_eq!(left, [None, Some(1), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn zones_lives_directions_and_families_are_apart() {
        let (_, v4) = parse(&[&[0; 12][..], &[8, 0, 0x45, 0, 0, 20], &[0; 16]].concat(), 1);
        let (_, v6) = parse(&[&[0; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64], &[0; 32]].concat(), 1);
        let of = |zone, life, direction, key: &FlowKey| FragmentKey::of((zone, life), direction, key, 5).unwrap();
        let all = [
            of(1, 1, Direction::Egress, &v4),
            of(1, 2, Direction::Egress, &v4),
            of(2, 1, Direction::Egress, &v4),
            of(1, 1, Direction::Ingress, &v4),
            of(1, 1, Direction::Egress, &v6),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b), "{i}");
        }
    }
}

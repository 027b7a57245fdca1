//! What is known about a flow.

use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::CounterId;
use crate::worker::packet_type::packet_type;
use kopi_config::policy::{Direction, State};
use kopi_packet::FlowKey;
use kopi_policy::{CtLookup, CtVersion, Evaluation, TOUCH_SHIFT};
use kopi_ring::DropReason;
use kopi_ring::layout::Notes;
use std::mem::offset_of;

/// Ticks by which the age of flows is told: about a tenth of a second, which leaves room for ten years in 32 bits.
pub const AGE_UNIT: u64 = 1 << 28;

/// Ticks by which it is told when a flow was last seen: less than a millisecond, so that 32 bits last for two weeks.
pub const SEEN_UNIT: u64 = 1 << SEEN_SHIFT;
const SEEN_SHIFT: u32 = 20;

/// What is known about a flow, with its key.
///
/// Its first cache line has all that a packet with a [short](FlowKey::is_short) key needs as long as there is no policy.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct Flow {
    /// The words of the key that a short one has.
    pub(super) key: [u64; FlowKey::SHORT],
    /// The [`crate::snapshot::Snapshot::epoch`] that the verdict was made under; 0 for none yet.
    pub epoch: u32,
    /// Where its packets go.
    pub verdict: Verdict,
    /// TSC of the burst with its last packet, in units of [`SEEN_UNIT`].
    last_seen: u32,
    /// The hash that chooses the queue of the app that gets its packets, as that has it; or what stands there if a flow rule has held.
    rss: u32,
    /// Bytes and packets seen, the low bits; what overflows is carried into `high_bytes` and `high_packets`.
    low_bytes: u32,
    low_packets: u16,
    /// The [packet type](Notes::packet_type) with [`Notes::STEERED`], [`EACH`], [`TRACKED`], [`JUDGED`] and [`LONG`].
    marks: u16,

    /// The other words of the key.
    pub(super) key_rest: [u64; 8 - FlowKey::SHORT],
    /// What the policy knows of it.
    pub hooks: Hooks,
    /// TSC of the burst with its first packet, in units of [`AGE_UNIT`].
    first_seen: u32,
    high_bytes: u32,
    high_packets: [u8; 6],
    /// The state that its packets were evaluated by at the sender's and at the receiver's side; `None` for a side that they were
    /// not evaluated at, or without tracking.
    pub states: [Option<State>; 2],
}

/// Bit of [`Flow::marks`]: each packet is evaluated by itself.
const EACH: u16 = 1 << 15;
/// Bit of [`Flow::marks`]: a connection has a say at one side, or each packet is evaluated by itself.
const TRACKED: u16 = 1 << 14;
/// Bit of [`Flow::marks`]: a policy has looked at it, so there is something in [`Flow::hooks`].
const JUDGED: u16 = 1 << 13;
/// Bit of [`Flow::marks`]: its key is not [short](FlowKey::is_short).
const LONG: u16 = 1 << 12;

/// What the policy knows of a flow at the sender's and at the receiver's side, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    /// The connection that its packets belong to, in the condition that they were evaluated by. `None` if there is no
    /// connection, or if the next packet may change it.
    pub connections: [Option<CtVersion>; 2],
    /// What counts them.
    pub counter_ids: [CounterId; 2],
    /// Their classes, counted from 1; 0 for none.
    pub classes: [u16; 2],
}

impl Hooks {
    /// Nothing.
    pub const EMPTY: Self = Self { connections: [None; 2], counter_ids: [0; 2], classes: [0; 2] };
}

impl Flow {
    /// What a new one is.
    pub const EMPTY: Self = Self {
        key: [0; FlowKey::SHORT],
        epoch: 0,
        verdict: Verdict::Drop(DropReason::PortGone),
        last_seen: 0,
        rss: 0,
        low_bytes: 0,
        low_packets: 0,
        marks: 0,
        key_rest: [0; 8 - FlowKey::SHORT],
        hooks: Hooks::EMPTY,
        first_seen: 0,
        high_bytes: 0,
        high_packets: [0; 6],
        states: [None; 2],
    };

    /// The flow of a packet with this key, the first one, at `now` (TSC). Nobody has evaluated it yet.
    pub(super) fn new(key: &FlowKey, now: u64) -> Self {
        let (first_seen, last_seen) = (age_units(now), seen_units(now));
        let [k0, k1, k2, k3, k4, key_rest @ ..] = *key.words();
        Self {
            key: [k0, k1, k2, k3, k4],
            key_rest,
            first_seen,
            last_seen,
            marks: packet_type(key) | if key.is_short() { 0 } else { LONG },
            ..Self::EMPTY
        }
    }

    /// What its packets have in common.
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        let ([k0, k1, k2, k3, k4], [k5, k6, k7]) = (self.key, self.key_rest);
        FlowKey::from_words([k0, k1, k2, k3, k4, k5, k6, k7])
    }

    /// Whether `key` is its key. Looks at the second cache line only if the key is long: what a short one has says that it is, so
    /// both are long if one is.
    #[inline]
    pub(super) fn is_of(&self, key: &FlowKey) -> bool {
        let [k0, k1, k2, k3, k4, rest @ ..] = key.words();
        let differ = [k0, k1, k2, k3, k4].iter().zip(&self.key).fold(0, |differs, (a, b)| differs | (**a ^ b));
        differ == 0 && (self.marks & LONG == 0 || *rest == self.key_rest)
    }

    /// The port that its packets come from.
    pub(super) const fn source(&self) -> PortId {
        self.key().source()
    }

    /// Whose flow it is: the sender's, or the receiver's of what the wire has sent.
    pub(super) const fn holder(&self) -> PortId {
        match (self.source(), self.verdict) {
            (WIRE, Verdict::App(id) | Verdict::Refuse(id, _) | Verdict::Reject(id)) => id,
            (source, _) => source,
        }
    }

    /// Packets seen.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        let ([l0, l1], [h0, h1, h2, h3, h4, h5]) = (self.low_packets.to_le_bytes(), self.high_packets);
        u64::from_le_bytes([l0, l1, h0, h1, h2, h3, h4, h5])
    }

    /// Bytes seen, FCS not counted.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.high_bytes as u64) << 32 | self.low_bytes as u64
    }

    /// Forgets what the policy has said of it.
    pub const fn forget(&mut self) {
        self.hooks = Hooks::EMPTY;
        self.states = [None; 2];
        self.marks &= !(EACH | TRACKED | JUDGED);
    }

    /// Has each packet evaluated by itself: it says something that its key does not.
    pub const fn judge_each(&mut self) {
        self.marks |= EACH | TRACKED;
        if matches!(self.states[0], None | Some(State::Untracked)) {
            self.states[0] = Some(State::New);
        }
    }

    /// Whether each packet is evaluated by itself.
    #[inline]
    #[must_use]
    pub const fn is_judged_each(&self) -> bool {
        self.marks & EACH != 0
    }

    /// Whether a policy has looked at its packets: there is something in its [`hooks`](Self::hooks).
    #[inline]
    #[must_use]
    pub const fn is_judged(&self) -> bool {
        self.marks & JUDGED != 0
    }

    /// Whether no connection has a say.
    #[inline]
    #[must_use]
    pub const fn is_untracked(&self) -> bool {
        self.marks & TRACKED == 0
    }

    /// Notes the hash that its receiver has for it.
    #[inline]
    pub const fn set_rss(&mut self, rss: u32) {
        self.rss = rss;
        self.marks &= !Notes::STEERED;
    }

    /// Notes what its receiver is told about each packet.
    #[inline]
    pub const fn set_notes(&mut self, notes: Notes) {
        self.rss = notes.hash();
        if notes.is_steered() {
            self.marks |= Notes::STEERED;
        }
    }

    /// What the app that gets its packets is told about each.
    #[inline]
    #[must_use]
    pub const fn notes(&self) -> Notes {
        Notes::new(self.marks, self.rss)
    }

    /// Notes what was said at one side, and gives the lookup back, if there was one.
    pub fn note(
        &mut self,
        side: Direction,
        evaluation: &Evaluation,
        lookup: Option<CtLookup>,
        counter_id: CounterId,
    ) -> Option<CtLookup> {
        let at = usize::from(side == Direction::Ingress);
        self.states[at] = lookup.as_ref().map(CtLookup::state);
        if !matches!(self.states[at], None | Some(State::Untracked)) {
            self.marks |= TRACKED;
        }
        self.marks |= JUDGED;
        self.hooks.counter_ids[at] = counter_id;
        self.hooks.classes[at] = evaluation.class.map_or(0, |class| class.saturating_add(1));
        lookup
    }

    /// Ticks since its first packet, at `now` (TSC), to within [`AGE_UNIT`]; 0 if that came later.
    #[must_use]
    pub const fn age(&self, now: u64) -> u64 {
        passed(age_units(now).wrapping_sub(self.first_seen)) * AGE_UNIT
    }

    /// Ticks since its last packet, at `now` (TSC), to within [`SEEN_UNIT`]; 0 if that came later.
    #[must_use]
    pub const fn idle(&self, now: u64) -> u64 {
        passed(self.idle_units(seen_units(now))) * SEEN_UNIT
    }

    #[inline]
    pub(super) const fn idle_units(&self, now: u32) -> u32 {
        now.wrapping_sub(self.last_seen)
    }

    /// Whether its last packet came in an earlier period of 2^[`TOUCH_SHIFT`] ticks than that of `now` (TSC).
    #[inline]
    #[must_use]
    pub const fn is_to_be_touched(&self, now: u64) -> bool {
        (seen_units(now) ^ self.last_seen) >> (TOUCH_SHIFT - SEEN_SHIFT) != 0
    }

    /// Counts packets of `bytes` bytes in all, seen at `now` (TSC).
    #[inline]
    pub fn count(&mut self, packets: u16, bytes: u32, now: u64) {
        let (low_packets, more_packets) = self.low_packets.overflowing_add(packets);
        let (low_bytes, more_bytes) = self.low_bytes.overflowing_add(bytes);
        (self.low_packets, self.low_bytes, self.last_seen) = (low_packets, low_bytes, seen_units(now));
        if more_packets | more_bytes {
            self.carry(more_packets, more_bytes);
        }
    }

    /// Adds to the upper bits of what is counted: once in many packets, since they are in the second cache line.
    #[cold]
    fn carry(&mut self, packets: bool, bytes: bool) {
        let [b0, b1, b2, b3, b4, b5] = self.high_packets;
        let high = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, 0, 0]).wrapping_add(packets.into());
        let [b0, b1, b2, b3, b4, b5, ..] = high.to_le_bytes();
        self.high_packets = [b0, b1, b2, b3, b4, b5];
        self.high_bytes = self.high_bytes.wrapping_add(bytes.into());
    }
}

// A lookup of a short key pays for one cache line here, of any other for two.
const _: () = assert!(offset_of!(Flow, key_rest) == 64 && size_of::<Flow>() == 128);

/// Units from one moment to another, by their difference, which wraps: what is more than half of all is the other way round.
const fn passed(difference: u32) -> u64 {
    if difference > u32::MAX / 2 { 0 } else { difference as u64 }
}

/// A moment in units of [`AGE_UNIT`].
#[expect(clippy::cast_possible_truncation, reason = "it wraps after ten years")]
const fn age_units(now: u64) -> u32 {
    (now / AGE_UNIT) as u32
}

/// A moment in units of [`SEEN_UNIT`].
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it wraps after two weeks, and what is idle goes after seconds")]
pub(super) const fn seen_units(now: u64) -> u32 {
    (now >> SEEN_SHIFT) as u32
}

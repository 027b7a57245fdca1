//! The table itself.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

use kopi_config::policy::{Direction, State, Tracking};
use kopi_packet::tcp::Segment;
use kopi_packet::{Seed, proto};

use super::ct_ref::{CtVersion, Ref, VERSION};
use super::entry::{Bucket, Entry, Key, Slot, WAYS};
use super::numbers::{Arrival, Claim, Move};
use super::room::Marks;
use super::timeouts::{Clock, Settings, Units, since};
use super::tuple::Tuple;
use super::window::{Half, Windows};
use super::zones::{Holder, Zones};
use crate::tcp::{self, Kind, Side, TcpState};

/// A connection is told that it lives, and its numbers are noted, at the first packet of a direction after the clock has
/// passed a multiple of two to this power: a few times a second, since the shortest time-out is one second.
pub const TOUCH_SHIFT: u32 = 29;

/// Locks of the table; each serves the buckets whose numbers have the same low bits.
const STRIPES: usize = 256;

/// The connections of all apps.
#[derive(Debug)]
pub struct Connections {
    buckets: Box<[Bucket]>,
    entries: Box<[Entry]>,
    windows: Box<[Windows]>,
    stripes: Box<[Stripe]>,
    /// To whom the slots are charged.
    pub(super) marks: Box<[Marks]>,
    pub(super) zones: Zones,
    seed: Seed,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    /// Bucket to be swept next.
    pub(super) cursor: AtomicUsize,
    /// Buckets in a row in which sweeping found nothing, and how many connections had begun by then. Whoever sweeps writes.
    pub(super) empty: AtomicUsize,
    pub(super) begun: AtomicU64,
    /// Connections that were swept away. Whoever sweeps writes.
    pub(super) swept: AtomicU64,
}

/// A lock, and counters of what was done under it. A line of its own, so that workers do not wait for each other's.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Stripe {
    locked: AtomicBool,
    pub(super) begun: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Packets with a wrong checksum. Written without the lock.
    pub(super) damaged: AtomicU64,
}

/// Holds a stripe's lock until dropped.
struct Held<'a>(&'a Stripe);

impl Stripe {
    fn lock(&self) -> Held<'_> {
        while self.locked.swap(true, Acquire) {
            std::hint::spin_loop();
        }
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.locked.store(false, Release);
    }
}

/// Adds to a counter that only the holder of the lock writes.
fn count(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

/// What a packet is to its connection, and what becomes of the connection if the packet passes.
struct Transition {
    state: State,
    next: Next,
}

enum Next {
    /// Nothing changes, not even the time.
    Nothing,
    /// The slot becomes this, and the numbers are taken down.
    Slot(Slot),
    /// The slot becomes this, and what the segment claims is taken down.
    Claim(Slot, Claim),
    /// The slot becomes this, and the numbers begin anew with this SYN and the segment, which answers it.
    Again(Slot, Segment),
    /// Another connection begins in the place of this one.
    Anew,
}

impl Transition {
    /// Whether more changes about a connection, which was `slot`, than when its last packet was seen.
    fn changes(&self, slot: Slot) -> bool {
        match self.next {
            Next::Nothing => false,
            Next::Slot(next) => (next.to_word() ^ slot.to_word()) & VERSION != 0,
            Next::Claim(..) | Next::Again(..) | Next::Anew => true,
        }
    }
}

/// Compares without a branch for each word, and without a call.
fn same(a: &Key, b: &Key) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// `length` empty ones, in memory of which `advise` is told first.
fn filled<T: Default>(length: usize, advise: fn(*const u8, usize)) -> Box<[T]> {
    let mut values: Vec<T> = Vec::with_capacity(length);
    advise(values.as_ptr().cast(), length * size_of::<T>());
    values.resize_with(length, T::default);
    values.into()
}

impl Connections {
    /// Bytes of memory for each connection.
    pub const ENTRY_SIZE: usize =
        size_of::<Entry>() + size_of::<Windows>() + (size_of::<Bucket>() + size_of::<Marks>()) / WAYS;

    /// A table of `capacity` connections, a power of two of at least 8 and at most 2^28, hashed under `seed`. `hz` is the
    /// number of ticks in a second of the clock from which every `now` is taken.
    ///
    /// It takes [`ENTRY_SIZE`](Self::ENTRY_SIZE) bytes for each connection and 0.3 MB beside, all allocated here.
    ///
    /// # Panics
    ///
    /// If `capacity` is anything else: the configuration checks it.
    #[must_use]
    pub fn new(capacity: usize, seed: Seed, tracking: &Tracking, hz: u64) -> Self {
        Self::advised(capacity, seed, tracking, hz, |_, _| ())
    }

    /// The same in memory whose beginning and bytes are given to `advise` before it is touched.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn advised(capacity: usize, seed: Seed, tracking: &Tracking, hz: u64, advise: fn(*const u8, usize)) -> Self {
        let fits = capacity.is_power_of_two() && (WAYS..=1 << 28).contains(&capacity);
        assert!(fits, "table of {capacity} connections");
        let clock = Clock::new(hz);
        let settings = Settings::default();
        settings.set(tracking, clock);
        Self {
            buckets: filled(capacity / WAYS, advise),
            entries: filled(capacity, advise),
            windows: filled(capacity, advise),
            stripes: std::iter::repeat_with(Stripe::default).take(STRIPES).collect(),
            marks: filled(capacity / WAYS, advise),
            zones: Zones::new(),
            seed,
            clock,
            settings,
            cursor: AtomicUsize::new(0),
            empty: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            swept: AtomicU64::new(0),
        }
    }

    /// Takes over the settings of a new policy, for the connections that there are as well. A window that was not
    /// followed from the start stays unchecked.
    pub fn set_tracking(&self, tracking: &Tracking) {
        self.settings.set(tracking, self.clock);
    }

    /// Connections that the table has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn stripes(&self) -> &[Stripe] {
        &self.stripes
    }

    /// The slot and the entry at a place.
    pub(super) fn place(&self, index: usize) -> Option<(&AtomicU64, &Entry)> {
        Some((self.buckets.get(index / WAYS)?.0.get(index % WAYS)?, self.entries.get(index)?))
    }

    /// To whom the connection at a place is charged.
    pub(super) fn mark(&self, index: usize) -> Option<&AtomicU32> {
        self.marks.get(index / WAYS)?.0.get(index % WAYS)
    }

    /// The slots of a bucket.
    pub(super) fn slots_of(&self, bucket: usize) -> Option<&[AtomicU64; WAYS]> {
        self.buckets.get(bucket).map(|bucket| &bucket.0)
    }

    /// The tuple with who has its zone, its bucket, and its tag.
    fn key(&self, tuple: &Tuple) -> (Key, usize, u8) {
        let mut key = tuple.words;
        key[1] |= self.zones.holder(tuple.zone()).tenure();
        let [w0, w1, w2, w3, w4, w5] = key;
        let hash = self.seed.hash(&[w0, w1, w2, w3, w4, w5, 0, 0]);
        let [tag, ..] = hash.to_be_bytes();
        let mask = u64::try_from(self.buckets.len() - 1).unwrap_or(0);
        (key, usize::try_from(hash & mask).unwrap_or(0), tag)
    }

    /// The place of `key` in its bucket, with what the slot was when the key was compared.
    fn way(&self, bucket: usize, tag: u8, key: &Key) -> Option<(usize, Slot)> {
        let slots = self.buckets.get(bucket)?;
        for (way, at) in slots.0.iter().enumerate() {
            let word = at.load(Acquire);
            if Slot::has_tag(word, tag)
                && let Some(slot) = Slot::from_word(word)
                && let Some((found, _)) = self.entries.get(bucket * WAYS + way)?.read(at, word)
                && same(&found, key)
            {
                return Some((way, slot));
            }
        }
        None
    }

    /// The connection of `tuple`, unless there is none or its time is up.
    #[must_use]
    pub fn find(&self, tuple: &Tuple, now: u64) -> Option<Ref> {
        let (key, bucket, tag) = self.key(tuple);
        let (way, slot) = self.way(bucket, tag, &key)?;
        let alive = !self.settings.is_expired(slot, self.clock.units(now));
        Ref::new(bucket * WAYS + way, slot).filter(|_| alive)
    }

    /// The slot that `of` refers to, and its word, if the connection is still there.
    fn slot(&self, of: Ref) -> Option<(&AtomicU64, u64, Slot)> {
        let (at, _) = self.place(of.index())?;
        let word = at.load(Acquire);
        let slot = Slot::from_word(word).filter(|slot| of.is_of(*slot))?;
        Some((at, word, slot))
    }

    /// The state of a packet that goes in `direction` and is of connection `of`, and of what `segment` says if it is TCP.
    /// Changes nothing. [`State::Invalid`] if the connection is gone.
    #[must_use]
    pub fn state_of(&self, of: Ref, direction: Direction, segment: Option<&Segment>) -> State {
        self.foresee(of, direction, segment).0
    }

    /// The same, and whether the packet would change more about its connection than when its last one was seen.
    pub(super) fn foresee(&self, of: Ref, direction: Direction, segment: Option<&Segment>) -> (State, bool) {
        self.slot(of).map_or((State::Invalid, false), |(_, _, slot)| {
            let transition = self.transition(of.index(), slot, direction, segment, slot.seen);
            (transition.state, transition.changes(slot))
        })
    }

    fn transition(
        &self,
        index: usize,
        slot: Slot,
        direction: Direction,
        segment: Option<&Segment>,
        now: Units,
    ) -> Transition {
        let side = side_of(slot, direction);
        let invalid = Transition { state: State::Invalid, next: Next::Nothing };
        let state = if side == Side::Responder || slot.answered { State::Established } else { State::New };
        // Without the setting not all segments are looked at.
        let slot = Slot { windowed: slot.windowed && self.settings.window(), ..slot };
        let mut tcp_state = slot.tcp_state;
        let mut refused = false;
        if slot.tcp_state.is_tcp() {
            let Some((segment, kind)) = segment.and_then(|s| Some((s, Kind::of(s.flags)?))) else { return invalid };
            refused = kind == Kind::Rst && !slot.answered;
            match self.arrival(index, slot, side, segment, kind).evaluate() {
                Move::Invalid => return invalid,
                Move::Reopen => return Transition { state: State::New, next: Next::Anew },
                Move::Pass if slot.answered || side == Side::Originator => {
                    return Transition { state, next: Next::Nothing };
                }
                Move::Pass => {}
                Move::Claim(tcp_state, claim) => {
                    return Transition { state, next: Next::Claim(Slot { tcp_state, ..slot }, claim) };
                }
                Move::Again(syn) => {
                    let windowed = self.settings.window();
                    let slot = Slot {
                        seen: now,
                        tcp_state: TcpState::SynRecv,
                        answered: true,
                        assured: false,
                        windowed,
                        ..slot
                    };
                    return Transition { state, next: Next::Again(slot, syn) };
                }
                Move::To(next) => tcp_state = next,
            }
        }
        let answered = slot.answered || (side == Side::Responder && !refused);
        let proven = match tcp_state {
            // As in Linux: the originator's acknowledgment of the handshake, or an answer to what was picked up.
            TcpState::Established => matches!(slot.tcp_state, TcpState::SynRecv | TcpState::Established),
            _ => !tcp_state.is_tcp() && side == Side::Originator,
        };
        let assured = slot.assured || (slot.answered && proven);
        // How long a fragmented segment is cannot be told, so what the other side may acknowledge cannot either. Without
        // data its sequence number was not checked, and it proves nothing.
        let windowed = slot.windowed && segment.is_none_or(|segment| segment.whole || segment.payload_len == 0);
        Transition { state, next: Next::Slot(Slot { seen: now, tcp_state, answered, assured, windowed, ..slot }) }
    }

    fn arrival<'a>(&self, index: usize, slot: Slot, side: Side, segment: &'a Segment, kind: Kind) -> Arrival<'a> {
        let unknown = (Half::default(), Half::default());
        let (own, other) = self.windows.get(index).map_or(unknown, |windows| windows.halves(side));
        let claim = self.entries.get(index).and_then(|entry| Claim::from_word(entry.claim()));
        Arrival { segment, kind, side, tcp_state: slot.tcp_state, own, other, checked: slot.windowed, claim }
    }

    /// Takes down that a packet of connection `of` was accepted; the arguments are those of
    /// [`state_of`](Self::state_of). An invalid packet changes nothing.
    ///
    /// Returns the connection, which is another one if the packet was a SYN that uses the ports of an ended one again;
    /// `None` if it is gone.
    pub fn advance(&self, of: Ref, direction: Direction, segment: Option<&Segment>, now: u64) -> Option<Ref> {
        let units = self.clock.units(now);
        loop {
            let (at, word, slot) = self.slot(of)?;
            let transition = self.transition(of.index(), slot, direction, segment, units);
            let next = match transition.next {
                Next::Nothing => return Some(of),
                Next::Anew => return self.reopen(of, direction, segment, now),
                Next::Slot(next) | Next::Again(next, _) | Next::Claim(next, _) => next.to_word(),
            };
            // A lost race means that the other direction has moved on: then it is asked again.
            if next == word || at.compare_exchange(word, next, AcqRel, Relaxed).is_ok() {
                self.take_down(of.index(), slot, direction, segment, &transition.next, now);
                return Some(of);
            }
        }
    }

    fn take_down(
        &self,
        index: usize,
        slot: Slot,
        direction: Direction,
        segment: Option<&Segment>,
        next: &Next,
        now: u64,
    ) {
        let (Some(segment), true, Some((_, entry)), Some(windows)) =
            (segment, slot.tcp_state.is_tcp(), self.place(index), self.windows.get(index))
        else {
            return;
        };
        let side = side_of(slot, direction);
        match *next {
            Next::Slot(next) if next.tcp_state == TcpState::Close => {}
            Next::Slot(next) if next.windowed => windows.advance(side, segment),
            Next::Slot(_) => {
                let plain = Kind::of(segment.flags) == Some(Kind::Ack) && self.plain_in(slot, direction).is_some();
                windows.note(side, segment, epoch(now), !plain);
            }
            Next::Claim(_, claim) => entry.set_claim(claim.to_word()),
            Next::Again(next, syn) => {
                entry.set_claim(0);
                windows.begin_again(&syn, segment, next.windowed, epoch(now));
            }
            Next::Nothing | Next::Anew => {}
        }
    }

    /// Begins the connection of `tuple` with a packet that goes in `direction` and was accepted as new, charged to the
    /// app at whose hook it is.
    ///
    /// `None` if no connection may begin with it, or if there is no room. If another worker was faster, the packet is one
    /// more of that connection.
    pub fn create(&self, tuple: &Tuple, direction: Direction, segment: Option<&Segment>, now: u64) -> Option<Ref> {
        self.begin(tuple, self.zones.holder(tuple.zone()), direction, segment, now)
    }

    /// The same, charged to `holder`.
    pub(super) fn begin(
        &self,
        tuple: &Tuple,
        holder: Holder,
        direction: Direction,
        segment: Option<&Segment>,
        now: u64,
    ) -> Option<Ref> {
        let tcp_state = self.opening(tuple, direction, segment)?;
        let units = self.clock.units(now);
        let (key, bucket, tag) = self.key(tuple);
        let held = self.stripes[bucket % STRIPES].lock();
        let same = self.way(bucket, tag, &key);
        if let Some((way, slot)) = same
            && !self.settings.is_expired(slot, units)
        {
            drop(held);
            return self.advance(Ref::new(bucket * WAYS + way, slot)?, direction, segment, now);
        }
        let (way, evicted) = self.make_room(bucket, same.map(|(way, _)| way), holder, units);
        count(&held.0.evicted, evicted);
        let Some(way) = way else {
            count(&held.0.refused, 1);
            self.zones.note_refused(holder.zone());
            return None;
        };
        count(&held.0.begun, 1);
        self.zones.enter(holder);
        let slot = self.first(tcp_state, direction, tag, units);
        self.publish(bucket * WAYS + way, (&key, holder), slot, segment, now)
    }

    /// The state in which the connection of `tuple` begins with this packet; `None` if it cannot.
    pub(super) fn opening(&self, tuple: &Tuple, direction: Direction, segment: Option<&Segment>) -> Option<TcpState> {
        match tuple.proto() {
            proto::TCP => tcp::first(Kind::of(segment?.flags)?, self.settings.loose()),
            proto::UDP | proto::UDP_LITE => Some(TcpState::Udp),
            _ => match tuple.asked() {
                // A reply does not begin anything.
                Some(asked) => (asked == direction).then_some(TcpState::Icmp),
                None => Some(TcpState::Other),
            },
        }
    }

    fn first(&self, tcp_state: TcpState, begun: Direction, tag: u8, seen: Units) -> Slot {
        let windowed = tcp_state == TcpState::SynSent && self.settings.window();
        Slot { seen, tcp_state, answered: false, assured: false, begun, windowed, tag, generation: 0 }
    }

    /// Writes a new connection to its place, whose slot is free, under the lock of its bucket.
    fn publish(
        &self,
        index: usize,
        (key, holder): (&Key, Holder),
        slot: Slot,
        segment: Option<&Segment>,
        now: u64,
    ) -> Option<Ref> {
        let (at, entry) = self.place(index)?;
        let slot = Slot { generation: entry.next_generation(), ..slot };
        self.mark(index)?.store(holder.mark(), Relaxed);
        entry.write(key, slot.seen, slot.generation);
        if let (true, Some(first), Some(windows)) = (slot.tcp_state.is_tcp(), segment, self.windows.get(index)) {
            windows.begin(first, slot.windowed, epoch(now));
        }
        at.store(slot.to_word(), Release);
        Ref::new(index, slot)
    }

    /// Makes the connection of `of`, which is over, into a new one with the same tuple.
    fn reopen(&self, of: Ref, direction: Direction, segment: Option<&Segment>, now: u64) -> Option<Ref> {
        let units = self.clock.units(now);
        let tcp_state = tcp::first(Kind::of(segment?.flags)?, false)?;
        let held = self.stripes[of.index() / WAYS % STRIPES].lock();
        loop {
            let (at, word, slot) = self.slot(of)?;
            let (key, _) = self.place(of.index())?.1.read(at, word)?;
            // What was somebody's who has gone is charged to whose key it has, who may have enough.
            let heir = || Some(Holder::of_key(&key)).filter(|heir| self.zones.reached(*heir).is_none());
            let Some(holder) = self.holder_at(of.index()).or_else(heir) else {
                count(&held.0.refused, 1);
                return None;
            };
            // A packet of the old connection may come in between; then it is tried again.
            if self.remove(of.index(), word) {
                count(&held.0.begun, 1);
                self.zones.enter(holder);
                let first = self.first(tcp_state, direction, slot.tag, units);
                return self.publish(of.index(), (&key, holder), first, segment, now);
            }
        }
    }

    /// Keeps connection `of` alive because a plain packet of it was seen in `direction`, and takes down what `segment` says if it
    /// is TCP. Returns false if the connection is gone or its time was up: then the next packet has to be looked at.
    pub fn touch(&self, of: Ref, direction: Direction, segment: Option<&Segment>, now: u64) -> bool {
        let units = self.clock.units(now);
        let Some((at, word, slot)) = self.slot(of) else { return false };
        let alive = !self.settings.is_expired(slot, units);
        if alive && since(slot.seen, units) > 0 {
            // Whoever is faster has seen a packet as well.
            let _same_anyway = at.compare_exchange(word, Slot { seen: units, ..slot }.to_word(), AcqRel, Relaxed);
        }
        if let (true, true, Some(segment)) = (alive, slot.tcp_state.is_tcp(), segment)
            && let Some(windows) = self.windows.get(of.index())
        {
            windows.note(side_of(slot, direction), segment, epoch(now), false);
        }
        alive
    }

    /// The state of a packet in `direction` that needs no lookup, because it changes nothing: not SYN, FIN or RST if it is
    /// TCP. `None` if it needs one: the connection is gone, or the packet would change it.
    ///
    /// One load from a line that changes only when a connection of the bucket does, so it may be asked for every packet.
    #[inline]
    #[must_use]
    pub fn plain(&self, of: Ref, direction: Direction) -> Option<State> {
        self.plain_in(self.slot(of)?.2, direction)
    }

    fn plain_in(&self, slot: Slot, direction: Direction) -> Option<State> {
        let tcp = slot.tcp_state.is_tcp();
        if tcp && (slot.tcp_state != TcpState::Established || (slot.windowed && self.settings.window())) {
            return None;
        }
        let originator = slot.begun == direction;
        match (slot.answered, slot.assured) {
            (false, _) => originator.then_some(State::New),
            // The originator's next packet makes it assured; in TCP the responder's does too.
            (true, false) => (!originator && !tcp).then_some(State::Established),
            (true, true) => Some(State::Established),
        }
    }

    /// The version of connection `of`, if it is such that a plain packet in `direction` is in `state`.
    #[must_use]
    pub fn version(&self, of: Ref, direction: Direction, state: State) -> Option<CtVersion> {
        let (_, word, _) = self.slot(of)?;
        let version = CtVersion::new(of, word)?;
        // Asked after the word was read: if it has changed since, the version does not hold.
        (self.plain(of, direction) == Some(state)).then_some(version)
    }

    /// Whether the connection is still in `version`. One load, for every packet.
    #[inline]
    #[must_use]
    pub fn holds(&self, version: CtVersion) -> bool {
        self.slot_of(version).is_some_and(|slot| version.is_of(slot.load(Acquire)))
    }

    /// What [`holds`](Self::holds) reads, to be fetched ahead.
    #[inline]
    #[must_use]
    pub fn slot_of(&self, version: CtVersion) -> Option<&AtomicU64> {
        let index = version.index();
        self.buckets.get(index / WAYS).and_then(|bucket| bucket.0.get(index % WAYS))
    }

    /// The state of a packet in `direction` that has the tuple `tuple` and no connection, and that is an acknowledgment if it
    /// is TCP: what [`plain`](Self::plain) is for packets of a connection.
    #[must_use]
    pub fn plain_without(&self, tuple: &Tuple, direction: Direction) -> State {
        let begins = match tuple.proto() {
            proto::TCP => self.settings.loose(),
            _ => self.opening(tuple, direction, None).is_some(),
        };
        if begins { State::New } else { State::Invalid }
    }

    /// Whether the other end has begun connection `of`, and nothing was answered yet: it may be anything that somebody sends to
    /// a port that nobody waits at. False if the connection is gone.
    #[must_use]
    pub fn is_unasked(&self, of: Ref) -> bool {
        self.slot(of).is_some_and(|(_, _, slot)| slot.begun == Direction::Ingress && !slot.answered)
    }

    /// Whether packets of connection `of` need no lookup in either direction, but for TCP segments with SYN, FIN or RST, and
    /// all are [`State::Established`].
    #[must_use]
    pub fn is_established(&self, of: Ref) -> bool {
        self.plain(of, Direction::Egress) == Some(State::Established)
            && self.plain(of, Direction::Ingress) == Some(State::Established)
    }
}

/// Which side of a connection sends in `direction`.
const fn side_of(slot: Slot, direction: Direction) -> Side {
    match (slot.begun, direction) {
        (Direction::Egress, Direction::Egress) | (Direction::Ingress, Direction::Ingress) => Side::Originator,
        _ => Side::Responder,
    }
}

/// Which of the spans of time it is in each of which a direction is noted once; wraps.
#[expect(clippy::cast_possible_truncation, reason = "only told apart")]
const fn epoch(now: u64) -> u32 {
    (now >> TOUCH_SHIFT) as u32
}

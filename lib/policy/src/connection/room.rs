//! Where a new connection finds its place: who has to go for it.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::entry::{Slot, WAYS};
use super::table::Connections;
use super::timeouts::{Units, since};
use super::zones::{Holder, Limit};
use crate::tcp::TcpState;

/// Buckets that are searched for something that an application at its limit may give up.
const SEARCH: usize = 32;

/// To whom the slots of one bucket are charged, by their [marks](Holder::mark). Written under the bucket's lock before a slot is, and
/// read after it was: who then frees the slot as it was has read the right one.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(super) struct Marks(pub(super) [AtomicU32; WAYS]);

/// The slots of one bucket as they were read; zero for a free one.
type Words = [u64; WAYS];

/// Who goes first: the smallest.
///
/// ```text
/// class | 2^32 less what its holder has, if that counts | how far it has come     then: age
///       34                                              2                     0
/// ```
type Rank = (u64, Units);

const fn class(class: u64) -> u64 {
    class << 34
}

/// What a new connection needs a place for.
#[derive(Clone, Copy, Debug)]
struct Newcomer {
    /// To whom it is charged.
    holder: Holder,
    /// The limit for which its holder has to give up one of its own.
    limit: Option<Limit>,
    /// Whether established connections may go for it.
    firm: bool,
    now: Units,
}

impl Connections {
    /// Frees a way of the bucket, under its lock, for a new connection of `holder`: `same` if there is one, else as the
    /// module says. `None` if none may go. Also returns how many connections had to go whose time was not up.
    pub(super) fn make_room(
        &self,
        bucket: usize,
        same: Option<usize>,
        holder: Holder,
        now: Units,
    ) -> (Option<usize>, u64) {
        let newcomer = Newcomer { holder, limit: None, firm: true, now };
        // What takes the place of one charged to the same is no more than before. One with the same key may be another's.
        let replaced = same.and_then(|way| self.holder_at(bucket * WAYS + way));
        if replaced == Some(holder) {
            let taken = self.take(bucket, same, newcomer);
            return (taken.map(|(way, _)| way), taken.map_or(0, |(_, gone)| gone));
        }
        let mut gone = 0;
        if let Some(limit) = self.zones.reached(holder) {
            self.zones.note_limited(holder.zone());
            let within = Newcomer { limit: Some(limit), firm: false, ..newcomer };
            // What nobody relies on, wherever it is, goes before what is established.
            // Only another app of the same user may give up what is established.
            let firm =
                limit == Limit::User && self.zones.in_account(holder.account()) > self.zones.in_zone(holder.zone());
            let given = self.give_up(bucket, within);
            let Some(given) =
                given.or_else(|| firm.then(|| self.give_up(bucket, Newcomer { firm, ..within })).flatten())
            else {
                return (None, 0);
            };
            gone = given;
        }
        match self.take(bucket, same, newcomer) {
            Some((way, more)) => (Some(way), gone + more),
            None => (None, gone),
        }
    }

    /// Frees a way of one bucket, or finds a free one, and returns it and how many had to go before their time.
    fn take(&self, bucket: usize, same: Option<usize>, newcomer: Newcomer) -> Option<(usize, u64)> {
        // A connection that moves on while we choose is not the one that we chose. That cannot go on for ever, since
        // each of the eight moves up in rank only a few times; the bound is for the reader.
        for _ in 0..4 * WAYS {
            let words = self.words(bucket)?;
            let free = || words.iter().position(|word| *word == 0).filter(|_| newcomer.limit.is_none());
            let way = same.or_else(free).or_else(|| self.victim(bucket, &words, newcomer))?;
            let Some(slot) = Slot::from_word(words[way]) else { return Some((way, 0)) };
            let index = bucket * WAYS + way;
            let alive = !self.settings.is_expired(slot, newcomer.now) && self.holder_at(index).is_some();
            if self.remove(index, words[way]) {
                return Some((way, alive.into()));
            }
        }
        None
    }

    /// Has somebody who has reached a limit give up a connection, in this bucket or somewhere else; returns how many had to go
    /// before their time. Each search goes on where the one before has ended, so old ones are found in turn.
    fn give_up(&self, bucket: usize, newcomer: Newcomer) -> Option<u64> {
        if let Some((_, gone)) = self.take(bucket, None, newcomer) {
            return Some(gone);
        }
        let hand = self.zones.hand(newcomer.holder.zone());
        let start = hand.load(Relaxed);
        for step in 0..SEARCH.min(self.buckets()) {
            let bucket = start.wrapping_add(step) % self.buckets();
            if self.has_some(bucket, newcomer)
                && let Some((_, gone)) = self.take(bucket, None, newcomer)
            {
                hand.store(bucket + 1, Relaxed);
                return Some(gone);
            }
        }
        hand.store(start.wrapping_add(SEARCH) % self.buckets(), Relaxed);
        None
    }

    /// Whether something in the bucket may be of those whom the limit is of: one line instead of two.
    fn has_some(&self, bucket: usize, newcomer: Newcomer) -> bool {
        (0..WAYS).filter_map(|way| self.holder_at(bucket * WAYS + way)).any(|of| newcomer.concerns(of))
    }

    fn words(&self, bucket: usize) -> Option<Words> {
        Some(self.slots_of(bucket)?.each_ref().map(|at| at.load(Acquire)))
    }

    /// To whom the connection at a place is charged; `None` if that has gone.
    pub(super) fn holder_at(&self, index: usize) -> Option<Holder> {
        self.zones.marked(self.mark(index)?.load(Relaxed))
    }

    /// The way of a full bucket that has to go.
    fn victim(&self, bucket: usize, words: &Words, newcomer: Newcomer) -> Option<usize> {
        let rank = |(way, word): (usize, &u64)| {
            let slot = Slot::from_word(*word)?;
            let of = self.holder_at(bucket * WAYS + way);
            self.rank(slot, of, newcomer).map(|rank| (rank, way))
        };
        words.iter().enumerate().filter_map(rank).min().map(|(_, way)| way)
    }

    /// When a connection of `of` has to go for a new one; `None` if it does not.
    fn rank(&self, slot: Slot, of: Option<Holder>, newcomer: Newcomer) -> Option<Rank> {
        let Newcomer { holder, limit, firm, now } = newcomer;
        // Nobody has it any more.
        let Some(of) = of else { return limit.is_none().then_some((0, 0)) };
        if !newcomer.concerns(of) {
            return None;
        }
        let age = Units::MAX - since(slot.seen, now);
        if self.settings.is_expired(slot, now) {
            return Some((class(1), age));
        }
        if slot.tcp_state.is_over() {
            return Some((class(2), age));
        }
        let step = match slot {
            _ if !slot.answered => Some(0),
            _ if !slot.assured => Some(1),
            _ if slot.tcp_state == TcpState::Challenged => Some(2),
            _ => None,
        };
        if of.zone() == holder.zone() {
            return step.map(|step| (class(4) | step, age));
        }
        let excess = self.zones.excess(of, holder).map(|has| u64::from(u32::MAX - has) << 2);
        match (step, excess) {
            (Some(step), Some(excess)) => Some((class(3) | excess | step, age)),
            (Some(step), None) => self.zones.is_comparable(of, holder).then_some((class(5) | step, age)),
            (None, Some(excess)) if firm => Some((class(6) | excess, age)),
            (None, _) => None,
        }
    }

    /// Frees a place if its slot is still `word`.
    pub(super) fn remove(&self, index: usize, word: u64) -> bool {
        let Some((at, _)) = self.place(index) else { return false };
        // Read before the slot is freed: afterwards it may be another's.
        let holder = self.holder_at(index);
        let removed = at.compare_exchange(word, 0, AcqRel, Relaxed).is_ok();
        if let (true, Some(holder)) = (removed, holder) {
            self.zones.leave(holder);
        }
        removed
    }
}

impl Newcomer {
    /// Whether something of `of` may go for it, for the limit that its holder has reached.
    fn concerns(self, of: Holder) -> bool {
        match self.limit {
            None => true,
            Some(Limit::App) => of.zone() == self.holder.zone(),
            Some(Limit::User) => of.account() == self.holder.account(),
        }
    }
}

//! Whose connections there are: how many each application has, and each user, and how many they may have.
//!
//! The counts change when a connection begins or ends, and never for a packet of one that is known.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use super::entry::Key;
use super::tuple::Tuple;

/// Applications that can be told apart: their zones are smaller than this. Users likewise.
pub const ZONES: usize = 2048;

/// Lower half of a zone's word: its connections. The upper half is whose they are.
const COUNT: u64 = 0xffff_ffff;

/// Who has something in a table: an application, in one life of its port number.
///
/// The number may be another's later. What is said of this life does not hold for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    zone: u16,
    account: u16,
    life: u16,
}

impl Holder {
    /// What a zone's word says; its lower half does not count.
    pub(crate) fn new(zone: u16, word: u64) -> Self {
        let [_, _, _, _, l0, l1, a0, a1] = word.to_le_bytes();
        Self { zone, account: u16::from_le_bytes([a0, a1]), life: u16::from_le_bytes([l0, l1]) }
    }

    /// Whose the connection with this key is.
    pub(super) fn of_key(key: &Key) -> Self {
        Self::new(Tuple { words: *key }.zone(), key[1] << 32)
    }

    /// The application: its port number.
    #[must_use]
    pub const fn zone(self) -> u16 {
        self.zone
    }

    /// The user.
    #[must_use]
    pub const fn account(self) -> u16 {
        self.account
    }

    /// What a key says of it beside the zone: the low half of the second word.
    pub(crate) fn tenure(self) -> u64 {
        u64::from(self.account) << 16 | u64::from(self.life)
    }

    /// Zone and life, as they stand beside a connection's slot.
    pub(super) fn mark(self) -> u32 {
        u32::from(self.zone) << 16 | u32::from(self.life)
    }
}

/// How many connections somebody may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One application.
    pub per_app: u32,
    /// All applications of one user.
    pub per_user: u32,
}

impl Default for Limits {
    /// No limits.
    fn default() -> Self {
        Self { per_app: u32::MAX, per_user: u32::MAX }
    }
}

/// A limit that somebody has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The application's own.
    App,
    /// That of its user.
    User,
}

/// What one application has. A line of its own, so that applications do not wait for each other's.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Zone {
    /// ```text
    /// 63     48     32          0
    /// | account | life | count  |
    /// ```
    word: AtomicU64,
    /// Connections of this life for which there was no room.
    refused: AtomicU64,
    /// New connections of this life that found a limit reached.
    limited: AtomicU64,
    /// Bucket at which the next search for something to give up begins.
    hand: AtomicUsize,
}

/// How many connections the applications of a user have.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Account(AtomicU32);

/// All applications and users.
#[derive(Debug)]
pub(super) struct Zones {
    zones: Box<[Zone]>,
    accounts: Box<[Account]>,
    per_app: AtomicU32,
    per_user: AtomicU32,
}

impl Zones {
    pub(super) fn new() -> Self {
        Self {
            zones: std::iter::repeat_with(Zone::default).take(ZONES).collect(),
            accounts: std::iter::repeat_with(Account::default).take(ZONES).collect(),
            per_app: AtomicU32::new(u32::MAX),
            per_user: AtomicU32::new(u32::MAX),
        }
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.per_app.store(limits.per_app, Relaxed);
        self.per_user.store(limits.per_user, Relaxed);
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { per_app: self.per_app.load(Relaxed), per_user: self.per_user.load(Relaxed) }
    }

    /// A zone, whatever the number: those that are told apart are smaller than [`ZONES`].
    fn zone(&self, zone: u16) -> &Zone {
        &self.zones[usize::from(zone) % ZONES]
    }

    fn account(&self, account: u16) -> &AtomicU32 {
        &self.accounts[usize::from(account) % ZONES].0
    }

    /// Who has the zone now.
    pub(super) fn holder(&self, zone: u16) -> Holder {
        Holder::new(zone, self.zone(zone).word.load(Relaxed))
    }

    pub(super) fn is_current(&self, holder: Holder) -> bool {
        self.holder(holder.zone) == holder
    }

    /// Whose a slot with this [`mark`](Holder::mark) is; `None` if its life is over.
    pub(super) fn marked(&self, mark: u32) -> Option<Holder> {
        let [l0, l1, z0, z1] = mark.to_le_bytes();
        let holder = self.holder(u16::from_le_bytes([z0, z1]));
        (holder.life == u16::from_le_bytes([l0, l1])).then_some(holder)
    }

    pub(super) fn in_zone(&self, zone: u16) -> u32 {
        u32::try_from(self.zone(zone).word.load(Relaxed) & COUNT).unwrap_or(u32::MAX)
    }

    pub(super) fn in_account(&self, account: u16) -> u32 {
        // Somebody may have taken an end into account before another did the beginning.
        u32::try_from(self.account(account).load(Relaxed).cast_signed()).unwrap_or(0)
    }

    pub(super) fn used(&self) -> u64 {
        (0..)
            .map_while(|account: u16| (usize::from(account) < ZONES).then(|| u64::from(self.in_account(account))))
            .sum()
    }

    /// Counts a connection, unless this life is over.
    pub(super) fn enter(&self, holder: Holder) {
        if self.recount(holder, |word| Some(word + 1)) {
            self.account(holder.account).fetch_add(1, Relaxed);
        }
    }

    /// Counts one less, unless this life is over.
    pub(super) fn leave(&self, holder: Holder) {
        if self.recount(holder, |word| (word & COUNT > 0).then(|| word - 1)) {
            self.account(holder.account).fetch_sub(1, Relaxed);
        }
    }

    fn recount(&self, holder: Holder, next: impl Fn(u64) -> Option<u64>) -> bool {
        let same_life = |word: &u64| word >> 32 == holder.tenure();
        let next = |word: u64| Some(word).filter(same_life).and_then(&next);
        self.zone(holder.zone).word.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Ends the life of a zone, and begins one of `account`, or of the same. What there was counts no more.
    pub(super) fn turn_over(&self, zone: u16, account: Option<u16>) {
        let at = self.zone(zone);
        let next = |word: u64| {
            let Holder { account: before, life, .. } = Holder::new(zone, word);
            let next = Holder { zone, account: account.unwrap_or(before), life: life.wrapping_add(1) };
            Some(next.tenure() << 32)
        };
        if let Ok(word) = at.word.fetch_update(Relaxed, Relaxed, next) {
            let count = u32::try_from(word & COUNT).unwrap_or(u32::MAX);
            self.account(Holder::new(zone, word).account).fetch_sub(count, Relaxed);
        }
        at.refused.store(0, Relaxed);
        at.limited.store(0, Relaxed);
    }

    /// The limit that one more connection of `holder` would exceed.
    pub(super) fn reached(&self, holder: Holder) -> Option<Limit> {
        let limits = self.limits();
        if self.in_zone(holder.zone) >= limits.per_app {
            Some(Limit::App)
        } else if self.in_account(holder.account) >= limits.per_user {
            Some(Limit::User)
        } else {
            None
        }
    }

    /// How much `of` has, if that is so much more than what `than` has that it may give up one for it: users are compared,
    /// and the applications of one user. Two that have the same do not take from each other.
    pub(super) fn excess(&self, of: Holder, than: Holder) -> Option<u32> {
        let (has, other) = self.both(of, than);
        (has > other.saturating_add(1)).then_some(has)
    }

    /// Whether `of` has at least half as much as `with`: of those who have about the same, one may cost another what nobody
    /// relies on yet.
    pub(super) fn is_comparable(&self, of: Holder, with: Holder) -> bool {
        let (has, other) = self.both(of, with);
        has >= other / 2
    }

    /// What both have where they differ: as users, or as applications of one user.
    fn both(&self, a: Holder, b: Holder) -> (u32, u32) {
        match a.account == b.account {
            true => (self.in_zone(a.zone), self.in_zone(b.zone)),
            false => (self.in_account(a.account), self.in_account(b.account)),
        }
    }

    pub(super) fn hand(&self, zone: u16) -> &AtomicUsize {
        &self.zone(zone).hand
    }

    pub(super) fn note_limited(&self, zone: u16) {
        self.zone(zone).limited.fetch_add(1, Relaxed);
    }

    pub(super) fn note_refused(&self, zone: u16) {
        self.zone(zone).refused.fetch_add(1, Relaxed);
    }

    /// How often there was no room, and how often a limit was reached.
    pub(super) fn noted(&self, zone: u16) -> (u64, u64) {
        let zone = self.zone(zone);
        (zone.refused.load(Relaxed), zone.limited.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user's count is the sum of its applications', whatever begins, ends and is forgotten.
    #[test]
    fn users_have_what_their_applications_have() {
        let zones = Zones::new();
        for (zone, account) in [(1, 7), (2, 7), (3, 8)] {
            zones.turn_over(zone, Some(account));
        }
        let enter = |zone: u16, times: u32| (0..times).for_each(|_| zones.enter(zones.holder(zone)));
        [(1, 5), (2, 3), (3, 2)].into_iter().for_each(|(zone, times)| enter(zone, times));
        assert_eq!((zones.in_account(7), zones.in_account(8)), (8, 2));
        let before = zones.holder(1);
        zones.turn_over(1, None);
        zones.leave(before);
        zones.enter(before);
        assert_eq!((zones.in_zone(1), zones.in_account(7)), (0, 3), "a life that is over counts no more");
        assert!(!zones.is_current(before) && zones.marked(before.mark()).is_none());
        zones.turn_over(1, Some(8));
        enter(1, 1);
        assert_eq!((zones.in_account(7), zones.in_account(8)), (3, 3));
        zones.leave(zones.holder(3));
        assert_eq!((zones.in_zone(3), zones.in_account(8)), (1, 2));
    }

    /// Who has most gives: users first, then the applications of one user; equals do not take from each other.
    #[test]
    fn who_has_more_is_told_by_users_first() {
        let zones = Zones::new();
        for (zone, account, count) in [(1, 7, 10), (2, 7, 1), (3, 8, 9), (4, 8, 2), (5, 9, 10)] {
            zones.turn_over(zone, Some(account));
            (0..count).for_each(|_| zones.enter(zones.holder(zone)));
        }
        let excess = |of, than| zones.excess(zones.holder(of), zones.holder(than));
        assert_eq!((excess(1, 2), excess(2, 1)), (Some(10), None), "of one user");
        assert_eq!((excess(2, 3), excess(3, 2)), (None, None), "both users have 11");
        assert_eq!((excess(2, 5), excess(5, 2)), (None, None), "11 and 10: it would be the same the other way round");
        zones.enter(zones.holder(2));
        assert_eq!(excess(2, 5), Some(12), "its user has most");
        assert_eq!(excess(1, 1), None);
    }
}

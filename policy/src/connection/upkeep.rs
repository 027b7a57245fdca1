//! What the control thread does with the table: zones, sweeping, listing. All of it while workers use the table.

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use kopi_config::policy::Direction;

use super::entry::{Key, Slot, WAYS};
use super::phase::since;
use super::table::Connections;
use super::tuple::Tuple;

/// Upper and lower half of a zone's word.
const LIFE: u64 = 1 << 32;
const COUNT: u64 = LIFE - 1;

/// One connection, as `kopictl flows` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The app whose view it is: its port number.
    pub zone: u16,
    /// IP protocol.
    pub proto: u8,
    /// The app's address.
    pub local: IpAddr,
    /// The other end's address.
    pub remote: IpAddr,
    /// Local and remote port.
    pub ports: Option<(u16, u16)>,
    /// Type of the request and identifier, if it is ICMP.
    pub icmp: Option<(u8, u16)>,
    /// VLANs of the outer and the inner tag; 0 for a tag that is not there.
    pub vlans: (u16, u16),
    /// Which way the first packet went: [`Direction::Egress`] if the app began it.
    pub begun: Direction,
    /// State of TCP, as `conntrack -L` prints it.
    pub tcp_state: Option<&'static str>,
    /// Whether there were packets both ways; `conntrack -L` prints `[UNREPLIED]` if not.
    pub answered: bool,
    /// Whether it will not be evicted; `conntrack -L` prints `[ASSURED]`.
    pub assured: bool,
    /// Seconds since it began.
    pub age: u32,
    /// Seconds until it ends, if no packet comes.
    pub expires: u32,
}

/// What has happened in the table since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that began.
    pub begun: u64,
    /// Connections that had to make room for others before their time.
    pub evicted: u64,
    /// Connections for which there was no room: their packets passed as new, and their answers are not established.
    pub refused: u64,
    /// Connections that were removed because their time was up or their app is gone.
    pub swept: u64,
    /// Packets that were invalid for their wrong checksum: they would have begun, moved or ended a connection.
    pub damaged: u64,
}

impl Connections {
    /// Counts a connection with this key in its zone, if the zone still has the life that the key says.
    pub(super) fn enter(&self, key: &Key) {
        self.recount(key, |word| Some(word + 1));
    }

    pub(super) fn leave(&self, key: &Key) {
        self.recount(key, |word| (word & COUNT > 0).then(|| word - 1));
    }

    fn recount(&self, key: &Key, next: impl Fn(u64) -> Option<u64>) {
        let tuple = Tuple { words: *key };
        let same_life = |word: u64| word >> 32 == key[1] & COUNT;
        let zone = &self.zones[usize::from(tuple.zone())];
        // Nothing is counted for a life that is over.
        let _before = zone.fetch_update(Relaxed, Relaxed, |word| if same_life(word) { next(word) } else { None });
    }

    /// How many connections the app `zone` has, for a limit: one that has enough gets no new one.
    #[must_use]
    pub fn in_zone(&self, zone: u16) -> u32 {
        u32::try_from(self.zones[usize::from(zone)].load(Relaxed) & COUNT).unwrap_or(u32::MAX)
    }

    /// Forgets all connections of app `zone`, whose port number another may get. They cannot be found from now on; their
    /// places are freed by [`sweep`](Self::sweep), or when somebody needs them. A [`Ref`](super::Ref) to one works until
    /// then, so flows of the app have to go as well.
    pub fn forget_zone(&self, zone: u16) {
        let next_life = |word: u64| Some((word & !COUNT).wrapping_add(LIFE));
        let _before = self.zones[usize::from(zone)].fetch_update(Relaxed, Relaxed, next_life);
    }

    /// Looks at the next `share` buckets and frees what has ended there or was forgotten; returns how many that were.
    /// [`buckets`](Self::buckets) is once round the table; a few times a minute is enough.
    pub fn sweep(&self, now: u64, share: usize) -> usize {
        let now = self.clock.units(now);
        let buckets = self.buckets();
        let share = share.min(buckets);
        let start = self.cursor.fetch_add(share, Relaxed);
        let mut removed = 0;
        for bucket in start..start + share {
            let first = bucket % buckets * WAYS;
            for index in first..first + WAYS {
                let Some((at, entry)) = self.place(index) else { continue };
                let word = at.load(Acquire);
                let Some((slot, (key, _))) = Slot::from_word(word).zip(entry.read(at, word)) else { continue };
                if (self.settings.is_expired(slot, now) || !self.is_current(&key)) && self.remove(index, word) {
                    removed += 1;
                }
            }
        }
        self.swept.fetch_add(u64::try_from(removed).unwrap_or(0), Relaxed);
        removed
    }

    /// Buckets of the table.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.capacity() / WAYS
    }

    /// Whether the zone of the key has not been forgotten since.
    fn is_current(&self, key: &Key) -> bool {
        let zone = Tuple { words: *key }.zone();
        self.zones[usize::from(zone)].load(Relaxed) >> 32 == key[1] & COUNT
    }

    /// Every connection that is alive, in no order. One that begins or ends meanwhile may be listed or not.
    pub fn snapshot(&self, now: u64) -> impl Iterator<Item = Connection> + '_ {
        let now = self.clock.units(now);
        (0..self.capacity()).filter_map(move |index| {
            let (at, entry) = self.place(index)?;
            let word = at.load(Acquire);
            let slot = Slot::from_word(word)?;
            let (key, began) = entry.read(at, word)?;
            let rest = self.settings.rest(slot, now);
            if rest == 0 || !self.is_current(&key) {
                return None;
            }
            let tuple = Tuple { words: key };
            Some(Connection {
                zone: tuple.zone(),
                proto: tuple.proto(),
                local: tuple.local(),
                remote: tuple.remote(),
                ports: tuple.ports(),
                icmp: tuple.icmp(),
                vlans: tuple.vlans(),
                begun: slot.begun,
                tcp_state: slot.phase.name(),
                answered: slot.answered,
                assured: slot.assured,
                age: self.clock.seconds(since(began, now)),
                expires: self.clock.seconds(rest),
            })
        })
    }

    /// What has happened so far, of all workers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let start = Stats { swept: self.swept.load(Relaxed), ..Stats::default() };
        self.stripes().iter().fold(start, |sum, stripe| Stats {
            begun: sum.begun + stripe.begun.load(Relaxed),
            evicted: sum.evicted + stripe.evicted.load(Relaxed),
            refused: sum.refused + stripe.refused.load(Relaxed),
            damaged: sum.damaged + stripe.damaged.load(Relaxed),
            ..sum
        })
    }
}

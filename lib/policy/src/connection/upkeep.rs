//! What the control thread does with the table: zones, sweeping, listing. All of it while workers use the table.

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use kopi_config::policy::Direction;

use super::entry::{Slot, WAYS};
use super::table::Connections;
use super::timeouts::since;
use super::tuple::Tuple;
use super::zones::{Holder, Limits};

/// The port number of the wire.
const WIRE: u16 = 0;

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
    /// Puts limits on what each application, and all of one user, may have from now on.
    ///
    /// Who has more is not cut short: each of its new connections takes the place of one of its own. With none of these that
    /// may be evicted within reach, a new one is refused.
    pub fn set_limits(&self, limits: Limits) {
        self.zones.set_limits(limits);
    }

    /// How many connections are charged to app `zone`.
    #[must_use]
    pub fn in_zone(&self, zone: u16) -> u32 {
        self.zones.in_zone(zone)
    }

    /// How many connections are charged to anybody.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.zones.used()
    }

    /// How many the apps of user `account` have.
    #[must_use]
    pub fn in_account(&self, account: u16) -> u32 {
        self.zones.in_account(account)
    }

    /// New connections of app `zone` that were refused for want of room, and those that found a limit reached, since it was
    /// [opened](Self::open_zone).
    #[must_use]
    pub fn noted(&self, zone: u16) -> (u64, u64) {
        self.zones.noted(zone)
    }

    /// Who has port number `zone` now.
    #[must_use]
    pub fn holder(&self, zone: u16) -> Holder {
        self.zones.holder(zone)
    }

    /// To whom a connection is charged that a frame from port `source` begins at the policy hook of app `zone`: to the app that
    /// sends, at its receiver's hook as well, so that nobody can use up what is another's. What comes from the wire, port 0, is
    /// charged to its receiver.
    #[must_use]
    pub fn charged(&self, zone: u16, source: u16) -> Holder {
        self.zones.holder(if source == WIRE { zone } else { source })
    }

    /// Whether `holder` has its port number still.
    #[must_use]
    pub fn is_current(&self, holder: Holder) -> bool {
        self.zones.is_current(holder)
    }

    /// Gives port number `zone` to an app of user `account`, without any connections. Both are smaller than
    /// [`ZONES`](super::ZONES).
    pub fn open_zone(&self, zone: u16, account: u16) {
        self.zones.turn_over(zone, Some(account));
    }

    /// Forgets all connections of app `zone`, whose port number another may get. They cannot be found from now on, and their
    /// places are free for whoever needs them; [`sweep`](Self::sweep) does the rest. A [`Ref`](super::Ref) to one works until
    /// then, so flows of the app have to go as well.
    pub fn forget_zone(&self, zone: u16) {
        self.zones.turn_over(zone, None);
    }

    /// Looks at the next `share` buckets and frees what has ended there or was forgotten; returns how many that were.
    /// [`buckets`](Self::buckets) is once round the table; a few times a minute is enough.
    ///
    /// A large table is megabytes of slots, and most of those who have one track nothing: so nothing is looked at after a whole round
    /// without a connection, until one begins.
    pub fn sweep(&self, now: u64, share: usize) -> usize {
        let now = self.clock.units(now);
        let buckets = self.buckets();
        let begun = self.stats().begun;
        let mut empty = if self.begun.swap(begun, Relaxed) == begun { self.empty.load(Relaxed) } else { 0 };
        if empty >= buckets {
            return 0;
        }
        let share = share.min(buckets);
        let start = self.cursor.fetch_add(share, Relaxed);
        let mut removed = 0;
        for bucket in start..start + share {
            let first = bucket % buckets * WAYS;
            empty += 1;
            for index in first..first + WAYS {
                let Some((at, entry)) = self.place(index) else { continue };
                let word = at.load(Acquire);
                let Some(slot) = Slot::from_word(word) else { continue };
                empty = 0;
                let Some((key, _)) = entry.read(at, word) else { continue };
                let nobodys = || !self.is_current(Holder::of_key(&key)) || self.holder_at(index).is_none();
                if (self.settings.is_expired(slot, now) || nobodys()) && self.remove(index, word) {
                    removed += 1;
                }
            }
        }
        self.empty.store(empty, Relaxed);
        self.swept.fetch_add(u64::try_from(removed).unwrap_or(0), Relaxed);
        removed
    }

    /// Buckets of the table.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.capacity() / WAYS
    }

    /// Every connection that is alive, in no order. One that begins or ends meanwhile may be listed or not.
    pub fn snapshot(&self, now: u64) -> impl Iterator<Item = Connection> + '_ {
        (0..self.capacity()).filter_map(move |index| self.connection_at(index, now))
    }

    /// The connection of `tuple`, unless there is none or its time is up.
    #[must_use]
    pub fn connection(&self, tuple: &Tuple, now: u64) -> Option<Connection> {
        let found = self.connection_at(self.find(tuple, now)?.index(), now)?;
        // The place may have become that of another meanwhile.
        let same = (found.zone, found.proto, found.local, found.remote, found.ports, found.vlans, found.icmp);
        let ends =
            (tuple.zone(), tuple.proto(), tuple.local(), tuple.remote(), tuple.ports(), tuple.vlans(), tuple.icmp());
        (same == ends).then_some(found)
    }

    /// The connection at this place, if there is one whose time is not up.
    fn connection_at(&self, index: usize, now: u64) -> Option<Connection> {
        let now = self.clock.units(now);
        let (at, entry) = self.place(index)?;
        let word = at.load(Acquire);
        let slot = Slot::from_word(word)?;
        let (key, began) = entry.read(at, word)?;
        let rest = self.settings.rest(slot, now);
        if rest == 0 || !self.is_current(Holder::of_key(&key)) {
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
            tcp_state: slot.tcp_state.name(),
            answered: slot.answered,
            assured: slot.assured,
            age: self.clock.seconds(since(began, now)),
            expires: self.clock.seconds(rest),
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

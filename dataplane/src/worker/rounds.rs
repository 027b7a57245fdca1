//! Whose rings are emptied next: deficit round robin over users, and over the apps of each, in ticks of the clock.
//!
//! What a worker has to give is time, and mutually distrusting users share it. So a round gives each user who has frames a
//! quantum of it, and within a user's turn each of the user's apps. What a burst has cost, to whomever it went and however
//! it was evaluated, is taken from the deficits of its app and its user; who is in debt is passed over. A user with eight apps
//! gets no more than a user with one, and costly frames come more rarely than cheap ones.
//!
//! A round goes on where it was left: when the wire takes no more, the next frames are those of whose turn it was, not those
//! of whoever attached first.
//!
//! Apps that had nothing to send for some looks are *idle*, and take no part in rounds. The worker looks at a few of their rings
//! in each iteration, the users in turn; so idle rings cost the same however many there are.
//!
//! # Source
//!
//! M. Shreedhar, G. Varghese, "Efficient fair queuing using deficit round robin", SIGCOMM 1995. Different from there, costs are
//! known only afterwards: a deficit may become negative, and a round that finds everybody in debt forgives all of them as
//! much as the least indebted owes.

use crate::ids::PortId;
use crate::worker::port::User;
use std::ops::Range;

/// Looks at an app that find nothing, one after the other, before it is idle.
const MISSES: u8 = 16;

/// Deficit and place of one who takes part in rounds.
trait Member {
    /// Ticks that it may still use; negative for what it has used too much.
    fn deficit(&mut self) -> &mut i64;
}

#[derive(Debug)]
struct AppShare {
    port: PortId,
    deficit: i64,
    /// Looks in a row that found nothing.
    misses: u8,
}

impl Member for AppShare {
    #[inline]
    fn deficit(&mut self) -> &mut i64 {
        &mut self.deficit
    }
}

#[derive(Debug)]
struct UserShare {
    user: User,
    deficit: i64,
    /// Where its apps begin among all apps. Those that are idle are the last of them.
    first: usize,
    len: usize,
    round: Round,
    /// Whether some app of the present round of its apps may have more.
    more: bool,
    /// The idle app that was looked at last, counted from `first`.
    polled: usize,
}

impl UserShare {
    fn apps(&self) -> Range<usize> {
        self.first..self.first + self.len
    }
}

impl Member for UserShare {
    #[inline]
    fn deficit(&mut self) -> &mut i64 {
        &mut self.deficit
    }
}

/// A round over the first `busy` of some members.
#[derive(Debug, Default)]
struct Round {
    busy: usize,
    /// Whose turn it is.
    at: usize,
    /// Whether that turn has begun, and so got its quantum.
    begun: bool,
    /// Whether this round has found anybody who was not in debt.
    served: bool,
    /// The least debt of this round.
    least: i64,
    /// What this round gives to everybody above the quantum.
    forgiven: i64,
}

impl Round {
    /// Whose turn it is, until it is [passed](Self::pass) on or the deficit is used up; `None` once, when a round is over.
    #[inline]
    fn turn(&mut self, members: &mut [impl Member], quantum: i64) -> Option<usize> {
        while self.at < self.busy
            && let Some(member) = members.get_mut(self.at)
        {
            let deficit = member.deficit();
            if !self.begun {
                self.begun = true;
                *deficit = deficit.saturating_add(quantum + self.forgiven).min(quantum);
                let debt = deficit.saturating_neg();
                self.served |= debt < 0;
                self.least = if self.at == 0 { debt } else { self.least.min(debt) };
            }
            if *deficit > 0 {
                return Some(self.at);
            }
            self.pass();
        }
        // What is left of earlier rounds is not owed by members that are no more: without any, no round would ever serve one.
        self.forgiven = if self.served || self.busy == 0 { 0 } else { self.least.max(0) };
        self.served = false;
        self.begun = false;
        self.at = 0;
        None
    }

    /// Ends the turn.
    #[inline]
    fn pass(&mut self) {
        self.at += 1;
        self.begun = false;
    }

    /// Lets the idle member `at` take part again. Returns where it stands from now on: there, and `at`, two have changed places.
    fn enter(&mut self, at: usize) -> usize {
        let place = self.busy;
        debug_assert!(at >= place, "it takes part already");
        self.busy += 1;
        place
    }

    /// Lets member `at` take part no longer. Returns as [`enter`](Self::enter).
    fn leave(&mut self, at: usize) -> usize {
        debug_assert!(at < self.busy, "it takes no part");
        self.busy -= 1;
        if at == self.at {
            self.begun = false;
        }
        self.busy
    }
}

/// All apps that one worker serves.
#[derive(Debug)]
pub(super) struct Rounds {
    users: Vec<UserShare>,
    apps: Vec<AppShare>,
    round: Round,
    /// The app, if there is but one.
    only: Option<PortId>,
    /// Apps that take no part.
    idle: usize,
    /// The user at whose idle apps was looked last.
    polled: usize,
    quantum: i64,
}

impl Rounds {
    /// Rounds for at most `apps` apps, that give each user `quantum` ticks. Allocates all that they ever need.
    pub(super) fn new(apps: usize, quantum: u64) -> Self {
        Self {
            users: Vec::with_capacity(apps),
            apps: Vec::with_capacity(apps),
            round: Round::default(),
            only: None,
            idle: 0,
            polled: 0,
            quantum: i64::try_from(quantum).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4),
        }
    }

    /// The ports of all apps.
    pub(super) fn ports(&self) -> impl Iterator<Item = PortId> {
        self.apps.iter().map(|app| app.port)
    }

    /// The app that shares with nobody, if there is but one. It takes no part in rounds, since there is nothing to be shared out.
    #[inline]
    pub(super) const fn only(&self) -> Option<PortId> {
        self.only
    }

    /// Apps that take no part.
    #[inline]
    pub(super) const fn idle_apps(&self) -> usize {
        self.idle
    }

    /// Users who have frames, as far as is known.
    pub(super) const fn busy_users(&self) -> usize {
        self.round.busy
    }

    /// Takes in an app of `user`. It is idle at first.
    pub(super) fn insert(&mut self, port: PortId, user: User) {
        self.remove(port);
        let found = self.users.iter().position(|share| share.user == user);
        let at = found.unwrap_or_else(|| {
            let (first, round) = (self.apps.len(), Round::default());
            self.users.push(UserShare { user, deficit: 0, first, len: 0, round, more: false, polled: 0 });
            self.users.len() - 1
        });
        self.idle += 1;
        self.only = self.apps.is_empty().then_some(port);
        let end = self.users[at].apps().end;
        self.apps.insert(end, AppShare { port, deficit: 0, misses: 0 });
        for (other, share) in self.users.iter_mut().enumerate() {
            if other == at {
                share.len += 1;
            } else if share.first >= end {
                share.first += 1;
            }
        }
    }

    /// Lets go of an app.
    pub(super) fn remove(&mut self, port: PortId) {
        let Some((at, place)) = self.find(port) else { return };
        if place < self.users[at].round.busy {
            self.deactivate(at, place);
        }
        // The user may have changed places, and so may the app.
        let Some((at, place)) = self.find(port) else { return };
        let gone = self.users[at].first + place;
        self.apps.remove(gone);
        self.idle -= 1;
        self.only = if let [app] = &*self.apps { Some(app.port) } else { None };
        for (other, share) in self.users.iter_mut().enumerate() {
            if other == at {
                share.len -= 1;
            } else if share.first > gone {
                share.first -= 1;
            }
        }
        if self.users[at].len == 0 {
            // It is idle, and all idle ones are the last; their order does not matter.
            self.users.swap_remove(at);
        }
    }

    /// Where an app stands: its user, and its place among the user's apps.
    fn find(&self, port: PortId) -> Option<(usize, usize)> {
        let app = self.apps.iter().position(|app| app.port == port)?;
        let at = self.users.iter().position(|share| share.apps().contains(&app))?;
        Some((at, app - self.users[at].first))
    }

    /// The app whose rings are to be looked at next; `None` once, when the round is over. Asked again, it says the same until
    /// what was found is told by [`sent`](Self::sent) or [`empty`](Self::empty).
    #[inline]
    pub(super) fn next(&mut self) -> Option<PortId> {
        loop {
            let Some(at) = self.round.turn(&mut self.users, self.quantum) else {
                if self.round.forgiven > 0 {
                    continue;
                }
                return None;
            };
            let share = self.users.get_mut(at)?;
            let apps = self.apps.get_mut(share.first..share.first + share.len)?;
            if let Some(app) = share.round.turn(apps, self.quantum) {
                return apps.get(app).map(|app| app.port);
            }
            // A round of the user's apps is over. If all of them were in debt, the next one is not like it.
            if share.round.forgiven == 0 && !std::mem::take(&mut share.more) {
                self.round.pass();
            }
        }
    }

    /// Notes that the [next](Self::next) app has sent a burst that cost `ticks`, and whether it may have `more`.
    #[inline]
    pub(super) fn sent(&mut self, ticks: u64, more: bool) {
        let Some(share) = self.users.get_mut(self.round.at) else { return };
        let Some(app) = self.apps.get_mut(share.first + share.round.at) else { return };
        let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
        share.more |= more;
        share.deficit = share.deficit.saturating_sub(ticks);
        app.deficit = app.deficit.saturating_sub(ticks);
        app.misses = 0;
        if !more {
            share.round.pass();
        }
    }

    /// Notes that the [next](Self::next) app has nothing to send.
    #[inline]
    pub(super) fn empty(&mut self) {
        let at = self.round.at;
        let Some(share) = self.users.get_mut(at) else { return };
        let place = share.round.at;
        let Some(app) = self.apps.get_mut(share.first + place) else { return };
        app.misses += 1;
        if app.misses < MISSES {
            share.round.pass();
        } else {
            self.deactivate(at, place);
        }
    }

    /// An idle app whose rings are to be looked at, each user's in turn; `None` if there is none.
    #[inline]
    pub(super) fn next_idle(&mut self) -> Option<PortId> {
        for _ in 0..self.users.len() {
            self.polled = if self.polled + 1 < self.users.len() { self.polled + 1 } else { 0 };
            let share = self.users.get_mut(self.polled)?;
            let idle = share.round.busy..share.len;
            if idle.is_empty() {
                continue;
            }
            let next = share.polled + 1;
            share.polled = if idle.contains(&next) { next } else { idle.start };
            return self.apps.get(share.first + share.polled).map(|app| app.port);
        }
        None
    }

    /// Has an app take part in rounds, since it has frames.
    #[cold]
    pub(super) fn activate(&mut self, port: PortId) {
        let Some((at, place)) = self.find(port) else { return };
        let share = &mut self.users[at];
        if place < share.round.busy {
            return;
        }
        self.idle -= 1;
        let to = share.round.enter(place);
        let (place, to) = (share.first + place, share.first + to);
        self.apps[place].misses = 0;
        self.apps.swap(place, to);
        if at >= self.round.busy {
            let to = self.round.enter(at);
            self.users.swap(at, to);
        }
    }

    /// Has nobody take part, until it is found to have frames.
    #[cold]
    pub(super) fn deactivate_all(&mut self) {
        self.users.iter_mut().for_each(|share| share.round = Round::default());
        self.round = Round::default();
        self.idle = self.apps.len();
    }

    /// Has app `place` of user `at` take part no longer.
    #[cold]
    fn deactivate(&mut self, at: usize, place: usize) {
        let share = &mut self.users[at];
        self.idle += 1;
        let to = share.round.leave(place);
        self.apps.swap(share.first + place, share.first + to);
        if share.round.busy == 0 {
            let to = self.round.leave(at);
            self.users.swap(at, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const QUANTUM: u64 = 1000;

    /// What an app of a model has to send, and what it has got.
    #[derive(Clone, Copy, Debug)]
    struct Load {
        user: u32,
        /// Ticks that a burst costs.
        cost: u64,
        /// Bursts that it has; all others are without end.
        bursts: u64,
    }

    /// Serves `loads` for about `ticks`; returns the ticks that each has got.
    fn serve(loads: &[Load], ticks: u64) -> Vec<u64> {
        let mut rounds = Rounds::new(loads.len(), QUANTUM);
        let mut left: Vec<u64> = loads.iter().map(|load| load.bursts).collect();
        for (id, load) in (0..).zip(loads) {
            rounds.insert(id, User::Id(load.user));
        }
        let mut got = vec![0; loads.len()];
        let (mut time, mut misses) = (0, 0);
        while time < ticks && misses < 10_000 {
            for _ in 0..4 {
                if let Some(id) = rounds.next_idle()
                    && left[usize::from(id)] > 0
                {
                    rounds.activate(id);
                }
            }
            misses += 1;
            while let Some(id) = rounds.next() {
                let at = usize::from(id);
                if left[at] == 0 {
                    rounds.empty();
                    continue;
                }
                left[at] -= 1;
                rounds.sent(loads[at].cost, left[at] > 0);
                got[at] += loads[at].cost;
                time += loads[at].cost;
                misses = 0;
            }
        }
        got
    }

    const fn endless(user: u32, cost: u64) -> Load {
        Load { user, cost, bursts: u64::MAX }
    }

    /// Each user gets the same time, whatever the number of its apps and the cost of its bursts, and so does each app of a
    /// user.
    #[test]
    fn users_get_equal_time_and_so_do_their_apps() {
        let mut loads: Vec<Load> = (0..8).map(|n| endless(1, 300 + 40 * n)).collect();
        loads.push(endless(2, 70_000));
        loads.push(endless(3, 90));
        let got = serve(&loads, 100_000_000);
        let total: u64 = got.iter().sum();
        let share = |ticks: u64| ticks as f64 / total as f64;
        for user in [got[..8].iter().sum(), got[8], got[9]] {
            assert!((share(user) - 1.0 / 3.0).abs() < 0.01, "{got:?}");
        }
        for app in &got[..8] {
            assert!((share(*app) - 1.0 / 24.0).abs() < 0.005, "{got:?}");
        }
    }

    /// Time that a user does not want goes to the others, at once, however much debt they are in.
    #[test]
    fn unwanted_time_goes_to_others() {
        let got = serve(&[endless(1, 500_000), Load { user: 2, cost: 100, bursts: 10 }], 50_000_000);
        assert_eq!(got[1], 1000);
        assert!(got[0] >= 49_000_000);
    }

    /// A round that is interrupted goes on with the app whose turn it was.
    #[test]
    fn a_round_goes_on_where_it_was_left() {
        let mut rounds = Rounds::new(3, QUANTUM);
        for id in 0..3 {
            rounds.insert(id, User::Id(id.into()));
            rounds.activate(id);
        }
        let mut served = Vec::new();
        for _ in 0..9 {
            // The wire takes one burst in each iteration.
            let id = rounds.next().or_else(|| rounds.next()).unwrap();
            assert_eq!(rounds.next(), Some(id), "asked again");
            rounds.sent(QUANTUM, true);
            served.push(id);
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    /// However many apps are idle, each look is at one of them, each user has every second, and all have their turn.
    #[test]
    fn idle_apps_are_looked_at_by_user() {
        let mut rounds = Rounds::new(64, QUANTUM);
        (0..63).for_each(|id| rounds.insert(id, User::Id(1)));
        rounds.insert(63, User::Id(2));
        let looks: Vec<_> = (0..126).map(|_| rounds.next_idle().unwrap()).collect();
        assert_eq!(looks.iter().filter(|id| **id == 63).count(), 63);
        assert!((0..63).all(|id| looks.contains(&id)));
        assert_eq!(rounds.next(), None, "nobody takes part");
    }

    /// An app without frames leaves the rounds after some looks, and comes back as it is found to have some.
    #[test]
    fn apps_without_frames_become_idle() {
        let mut rounds = Rounds::new(2, QUANTUM);
        rounds.insert(5, User::Id(1));
        rounds.insert(6, User::Host);
        rounds.activate(5);
        let mut looks = 0;
        for _ in 0..100 {
            while rounds.next() == Some(5) {
                rounds.empty();
                looks += 1;
            }
        }
        assert_eq!((looks, rounds.idle_apps()), (usize::from(MISSES), 2));
        rounds.activate(6);
        assert_eq!((rounds.next(), rounds.idle_apps()), (Some(6), 1));
        rounds.deactivate_all();
        assert_eq!((rounds.next(), rounds.idle_apps()), (None, 2));
    }

    /// Whoever is in debt may go, and there is nobody then whose turn it is.
    #[test]
    fn debts_of_those_who_have_gone_are_forgotten() {
        let mut rounds = Rounds::new(2, QUANTUM);
        for id in 0..2 {
            rounds.insert(id, User::Id(id.into()));
            rounds.activate(id);
        }
        for cost in [QUANTUM, 4 * QUANTUM] {
            assert!(rounds.next().is_some());
            rounds.sent(cost, true);
        }
        assert_eq!((rounds.next(), rounds.next()), (None, Some(0)));
        // The other one, in debt, takes its place in a round that has served somebody.
        rounds.remove(0);
        assert_eq!(rounds.next(), None);
        rounds.remove(1);
        assert_eq!(rounds.next(), None);
        rounds.insert(0, User::Id(0));
        rounds.activate(0);
        assert_eq!(rounds.next().or_else(|| rounds.next()), Some(0));
    }

    proptest! {
        /// Whatever comes, goes and is found: users and apps are where they belong, the busy ones first, and a round ends.
        #[test]
        fn bookkeeping_holds(steps in proptest::collection::vec((0_u8..6, 0_u16..12, 0_u32..4), 1..400)) {
            let mut rounds = Rounds::new(12, QUANTUM);
            let mut model: BTreeMap<PortId, u32> = BTreeMap::new();
            for (what, port, user) in steps {
                match what {
                    0 | 1 => {
                        rounds.insert(port, User::Id(user));
                        model.insert(port, user);
                    }
                    2 => {
                        rounds.remove(port);
                        model.remove(&port);
                    }
                    3 => rounds.activate(port),
                    4 => if rounds.next().is_some() {
                        rounds.sent(u64::from(user) * 700, port & 1 == 0);
                    }
                    _ => {
                        let mut looks = 0;
                        while rounds.next().is_some() {
                            rounds.empty();
                            looks += 1;
                            prop_assert!(looks <= 12 * 2, "a round without end");
                        }
                    }
                }
                let mut seen: Vec<PortId> = rounds.ports().collect();
                seen.sort_unstable();
                let mut expected: Vec<PortId> = model.keys().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(&seen, &expected);
                let mut covered = 0;
                for (at, share) in rounds.users.iter().enumerate() {
                    prop_assert!(share.len > 0 && share.round.busy <= share.len);
                    prop_assert_eq!(at < rounds.round.busy, share.round.busy > 0);
                    covered += share.len;
                    for app in &rounds.apps[share.apps()] {
                        prop_assert_eq!(User::Id(model[&app.port]), share.user);
                    }
                }
                prop_assert_eq!(covered, rounds.apps.len());
                let busy: usize = rounds.users.iter().map(|share| share.round.busy).sum();
                prop_assert_eq!(busy + rounds.idle_apps(), covered);
            }
        }
    }
}

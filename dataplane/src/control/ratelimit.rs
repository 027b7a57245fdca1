//! Log lines that peers can provoke, limited in number for each user.

use crate::control::identity::Identity;
use crate::control::logging::PEER;
use log::Level;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// The period in which lines are counted.
const PERIOD: Duration = Duration::from_secs(10);
/// Lines about all users together in one period, and those that a user has whatever others have had.
const TOTAL: u32 = 600;
const ALWAYS: u32 = 2;
/// Users that are told apart in one period, and that are named at its end. What is said of others counts as nobody's.
const USERS: usize = 4096;
const NAMED: usize = 16;

/// Lets a few lines through for each user, and counts the others.
#[derive(Debug)]
pub struct RatelimitedLog {
    /// Lines of one user that are let through in one period.
    lines: u32,
    since: Instant,
    passed: u32,
    users: BTreeMap<Option<u32>, Budget>,
}

/// One user's lines in this period.
#[derive(Debug, Default)]
struct Budget {
    passed: u32,
    left_out: u64,
    name: String,
}

impl RatelimitedLog {
    /// A log for `lines` of each user in each period, that has let nothing through yet.
    #[must_use]
    pub fn new(lines: u32) -> Self {
        Self { lines, since: Instant::now(), passed: 0, users: BTreeMap::new() }
    }

    /// Logs a warning about peers of which nothing is known, or counts it as left out.
    pub fn warn(&mut self, line: &dyn Display) {
        self.log(Level::Warn, None, line);
    }

    /// Logs a warning about a process, or counts it as left out.
    pub fn warn_of(&mut self, identity: &Identity, line: &dyn Display) {
        self.log(Level::Warn, Some(identity), line);
    }

    /// Logs a line about a process, or counts it as left out.
    pub fn log_of(&mut self, level: Level, identity: &Identity, line: &dyn Display) {
        self.log(level, Some(identity), line);
    }

    fn log(&mut self, level: Level, identity: Option<&Identity>, line: &dyn Display) {
        self.tick();
        let name = || identity.map(Identity::user_name).unwrap_or_default();
        if self.pass(identity.map(|identity| identity.uid), name) {
            log::log!(target: PEER, level, "{line}");
        }
    }

    /// Says what was left out, if a period is over. To be called now and then.
    pub fn tick(&mut self) {
        if self.since.elapsed() >= PERIOD {
            self.report().iter().for_each(|line| log::warn!(target: PEER, "{line}"));
            *self = Self::new(self.lines);
        }
    }

    /// What was left out, most of it first.
    fn report(&self) -> Vec<String> {
        let mut short: Vec<_> = self.users.iter().filter(|(_, budget)| budget.left_out > 0).collect();
        short.sort_by_key(|(_, budget)| std::cmp::Reverse(budget.left_out));
        let (named, others) = short.split_at(short.len().min(NAMED));
        let of = |(uid, Budget { left_out, name, .. }): &(&Option<u32>, &Budget)| match uid {
            Some(_) => format!("{left_out} lines about user {name} were left out"),
            None => format!("{left_out} lines about peers were left out"),
        };
        let mut lines: Vec<_> = named.iter().map(of).collect();
        if !others.is_empty() {
            let sum: u64 = others.iter().map(|(_, budget)| budget.left_out).sum();
            lines.push(format!("{sum} lines about {} other users were left out", others.len()));
        }
        lines
    }

    fn pass(&mut self, uid: Option<u32>, name: impl FnOnce() -> String) -> bool {
        let known = self.users.len() < USERS || self.users.contains_key(&uid);
        let budget = self.users.entry(uid.filter(|_| known)).or_default();
        let passes = budget.passed < self.lines && (self.passed < TOTAL || budget.passed < ALWAYS);
        if passes {
            budget.passed += 1;
            self.passed += 1;
        } else {
            if budget.left_out == 0 {
                budget.name = name();
            }
            budget.left_out += 1;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(peer_log: &mut RatelimitedLog, uid: u32, times: usize) -> usize {
        (0..times).filter(|_| peer_log.pass(Some(uid), || format!("u{uid}"))).count()
    }

    /// No more lines about one user pass in one period than were allowed; the others are counted, and nobody else has fewer.
    #[test]
    fn lines_of_a_user_are_limited() {
        let mut peer_log = RatelimitedLog::new(3);
        assert_eq!(pass(&mut peer_log, 1, 10), 3);
        assert_eq!(pass(&mut peer_log, 2, 2), 2);
        assert_eq!(pass(&mut peer_log, 3, 5), 3);
        let said = ["7 lines about user u1 were left out", "2 lines about user u3 were left out"];
        assert_eq!(peer_log.report(), said);
    }

    /// Many users together do not fill the log, each of them has its lines, and what they had left out is said in a few lines.
    #[test]
    fn lines_of_all_users_are_limited() {
        let mut peer_log = RatelimitedLog::new(20);
        let users = 500;
        let passed: usize = (0..users).map(|uid| pass(&mut peer_log, uid, 100)).sum();
        assert!((600..=600 + 2 * 500).contains(&passed), "{passed}");
        assert_eq!(pass(&mut peer_log, 1000, 100), 2, "who comes last is heard");
        assert_eq!(peer_log.report().len(), NAMED + 1);
    }

    /// A crowd of users takes no memory without end.
    #[test]
    fn users_are_bounded() {
        let mut peer_log = RatelimitedLog::new(2);
        let passed = (0..100_000).filter(|uid| peer_log.pass(Some(*uid), String::new)).count();
        assert!(passed >= USERS);
        assert!(peer_log.users.len() <= USERS + 1);
    }
}

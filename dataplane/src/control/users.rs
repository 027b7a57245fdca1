//! The uids that count as one user where something is limited for each user.
//!
//! A user of the machine may have thousands of uids: the subordinate ones that `/etc/subuid` gives to it (`subuid(5)`), under
//! which its containers run. They count as the user itself, or anybody could be as many users as it likes. A range of more
//! than one container's worth is that of a container engine that gives each container a block of its own, such as
//! Kubernetes does; there each block counts as one user.

use crate::worker::port::User;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Uids of one container: what `useradd` gives to a user, and what container engines give to a container.
const BLOCK: u32 = 65_536;

/// Which uids belong together.
#[derive(Clone, Debug)]
pub struct Users {
    path: PathBuf,
    changed: Option<SystemTime>,
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    owner: u32,
    start: u32,
    count: u32,
}

impl Users {
    /// Those of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/etc/subuid"))
    }

    fn at(path: &Path) -> Self {
        let none = Self { path: path.to_owned(), changed: None, ranges: Vec::new() };
        none.changed().unwrap_or(none)
    }

    /// What there is now, if the file has changed. May wait for a name service.
    #[must_use]
    pub fn changed(&self) -> Option<Self> {
        let changed = fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        if changed == self.changed {
            return None;
        }
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let uid = |name: &str| nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        Some(Self { path: self.path.clone(), changed, ranges: parse(&text, uid) })
    }

    /// By which number `uid` is known where users are counted.
    #[must_use]
    pub fn of(&self, uid: u32) -> u32 {
        let range = self.ranges.iter().find(|range| uid.checked_sub(range.start).is_some_and(|at| at < range.count));
        let Some(range) = range else { return uid };
        match (uid - range.start) / BLOCK {
            0 => range.owner,
            block => range.start + block * BLOCK,
        }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::new()
    }
}

/// The lines `name:start:count`. What is no such line is passed over, as `newuidmap(1)` does.
fn parse(text: &str, uid: impl Fn(&str) -> Option<u32>) -> Vec<Range> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let (name, start, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let owner = name.parse().ok().or_else(|| uid(name))?;
        Some(Range { owner, start, count })
    };
    text.lines().filter_map(line).collect()
}

/// Small numbers by which the users that have apps are told apart, for tables of a fixed size.
#[derive(Debug, Default)]
pub struct UserNumbers(Vec<Option<User>>);

impl UserNumbers {
    /// The number of a user, which it keeps until it is [forgotten](Self::keep). A new user gets one that `is_unused`: what workers
    /// still do for somebody who has gone is on his account.
    pub fn of(&mut self, user: User, is_unused: impl Fn(u16) -> bool) -> u16 {
        let known = self.0.iter().position(|other| *other == Some(user));
        let free = || (0..).zip(&self.0).position(|(number, other)| other.is_none() && is_unused(number));
        let at = known.or_else(free).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(None);
        }
        self.0[at] = Some(user);
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// The number that a user has.
    #[must_use]
    pub fn find(&self, user: User) -> Option<u16> {
        self.0.iter().position(|other| *other == Some(user)).and_then(|at| u16::try_from(at).ok())
    }

    /// Forgets the users of which `has_apps` says that they have none any more.
    pub fn keep(&mut self, has_apps: impl Fn(User) -> bool) {
        self.0.iter_mut().for_each(|user| *user = user.filter(|user| has_apps(*user)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users keep their numbers as long as they have apps, and there are no more numbers than users at a time.
    #[test]
    fn numbers_are_small_and_used_again() {
        let mut numbers = UserNumbers::default();
        assert_eq!(
            [User::Id(0), User::Host, User::Id(7), User::Id(0)].map(|user| numbers.of(user, |_| true)),
            [0, 1, 2, 0]
        );
        numbers.keep(|user| user != User::Host);
        assert_eq!((numbers.find(User::Host), numbers.find(User::Id(7))), (None, Some(2)));
        assert_eq!([User::Id(9), User::Id(7), User::Id(5)].map(|user| numbers.of(user, |_| true)), [1, 2, 3]);
        // Nobody gets a number to which something is charged still.
        numbers.keep(|user| user != User::Id(9));
        assert_eq!(numbers.of(User::Id(4), |number| number != 1), 4);
        assert_eq!(numbers.of(User::Id(3), |_| true), 1);
    }

    fn users(text: &str) -> Users {
        let uid = |name: &str| (name == "alice").then_some(1000);
        Users { path: PathBuf::new(), changed: None, ranges: parse(text, uid) }
    }

    /// All uids of a user's containers are the user's, and those of others are not.
    #[test]
    fn subordinate_uids_count_as_their_owner() {
        let users = users("alice:100000:65536\n1001:165536:65536\n# a comment\nnobody-there:300000:10\n7:x:1\n");
        assert_eq!([1000, 100_000, 131_072, 165_535].map(|uid| users.of(uid)), [1000; 4]);
        assert_eq!([1001, 165_536, 231_071].map(|uid| users.of(uid)), [1001; 3]);
        assert_eq!([0, 99_999, 231_072, 300_000].map(|uid| users.of(uid)), [0, 99_999, 231_072, 300_000]);
    }

    /// A container engine with a block for each container does not make one user of them all.
    #[test]
    fn blocks_of_an_engine_are_told_apart() {
        let users = users("900:1000000:1000000\n");
        assert_eq!(users.of(1_000_000), 900);
        assert_eq!(users.of(1_065_536), users.of(1_131_071));
        assert_ne!(users.of(1_065_536), users.of(1_131_072));
        assert_eq!(users.of(u32::MAX), u32::MAX);
    }
}

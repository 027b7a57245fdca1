//! What users are called, for the log and for operators.
//!
//! A name service may take as long as it likes, a minute if its server is gone. So each look-up has a thread of its own, and an
//! application that attaches waits for the name of its own user alone, and not for long: nothing depends on it but what people read.
//! What was found is remembered, and looked up anew behind the back of those who ask later.

use crate::control::helper::Wake;
use nix::unistd::{Uid, User};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Names that are remembered.
const KNOWN: usize = 4096;
/// Time for which a name is not looked up again.
const FRESH: Duration = Duration::from_secs(60);
/// Look-ups at a time, of all users and of one. Who has more has no name until one of them is done.
const LOOKUPS: usize = 64;
const LOOKUPS_PER_USER: usize = 4;
/// Bytes of a thread's stack. Modules of the C library's name service put buffers there.
const STACK: usize = 512 << 10;

/// How a name is looked up.
type Lookup = Arc<dyn Fn(u32) -> Option<String> + Send + Sync>;

/// The names of users.
pub struct UserNames {
    lookup: Lookup,
    known: BTreeMap<u32, Known>,
    /// What is being looked up, and for which user, as limits know it.
    asked: BTreeMap<u32, u32>,
    found: Receiver<(u32, Option<String>)>,
    finder: Sender<(u32, Option<String>)>,
    wake: Wake,
}

#[derive(Debug)]
struct Known {
    name: Option<String>,
    since: Instant,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserName {
    /// This is the name; `None` if there is none, or too much is being looked up.
    Is(Option<String>),
    /// It is being looked up.
    Later,
}

impl fmt::Debug for UserNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserNames")
            .field("known", &self.known.len())
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl UserNames {
    /// Those of the machine. `wake` is used when there is something to [take](Self::take).
    #[must_use]
    pub fn new(wake: Wake) -> Self {
        Self::by(wake, Arc::new(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)))
    }

    fn by(wake: Wake, lookup: Lookup) -> Self {
        let (finder, found) = channel();
        Self { lookup, known: BTreeMap::new(), asked: BTreeMap::new(), found, finder, wake }
    }

    /// What `uid` is called, who is user `account` as limits know it. Never waits.
    pub fn of(&mut self, uid: u32, account: u32) -> UserName {
        let known = self.known.get(&uid);
        let name = known.map(|known| known.name.clone());
        if known.is_none_or(|known| known.since.elapsed() >= FRESH) {
            self.ask(uid, account);
        }
        match name {
            Some(name) => UserName::Is(name),
            None if self.asked.contains_key(&uid) => UserName::Later,
            None => UserName::Is(None),
        }
    }

    fn ask(&mut self, uid: u32, account: u32) {
        let of_user = self.asked.values().filter(|other| **other == account).count();
        if self.asked.contains_key(&uid) || self.asked.len() >= LOOKUPS || of_user >= LOOKUPS_PER_USER {
            return;
        }
        let (lookup, finder, wake) = (Arc::clone(&self.lookup), self.finder.clone(), self.wake.clone());
        let look = move || {
            // At the end of the daemon nobody listens any more.
            if finder.send((uid, lookup(uid))).is_ok() {
                wake.wake();
            }
        };
        match std::thread::Builder::new().name(format!("kopi-name-{uid}")).stack_size(STACK).spawn(look) {
            Ok(_) => drop(self.asked.insert(uid, account)),
            Err(error) => log::debug!("the name of user {uid} is not looked up: {error}"),
        }
    }

    /// Names that were found since.
    pub fn take(&mut self) -> Vec<(u32, Option<String>)> {
        let found: Vec<_> = self.found.try_iter().collect();
        for (uid, name) in &found {
            self.asked.remove(uid);
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            self.known.insert(*uid, Known { name: name.clone(), since: Instant::now() });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// What hangs until it is opened.
    fn gate() -> (Arc<AtomicBool>, impl Fn() + Send + Sync) {
        let open = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&open);
        let pass = move || {
            while !gate.load(Relaxed) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        (open, pass)
    }

    /// Waits for so many names.
    fn take(names: &mut UserNames, count: usize) -> Vec<(u32, Option<String>)> {
        let begun = Instant::now();
        let mut found = Vec::new();
        while found.len() < count {
            assert!(begun.elapsed() < Duration::from_secs(10), "only {found:?} are found");
            found.extend(names.take());
            std::thread::yield_now();
        }
        found
    }

    /// A look-up that hangs keeps nobody waiting, neither others nor who asks; what was found is remembered, nobody's name too.
    #[test]
    fn lookup_that_hangs_holds_up_nobody() {
        let (open, pass) = gate();
        let lookup = move |uid| {
            if uid == 1 {
                pass();
            }
            (uid != 3).then(|| format!("u{uid}"))
        };
        let mut names = UserNames::by(Wake::new().unwrap(), Arc::new(lookup));
        for uid in 1..=3 {
            assert_eq!(names.of(uid, uid), UserName::Later);
        }
        take(&mut names, 2);
        assert_eq!(names.of(1, 1), UserName::Later, "it hangs");
        assert_eq!((names.of(2, 2), names.of(3, 3)), (UserName::Is(Some("u2".into())), UserName::Is(None)));
        open.store(true, Relaxed);
        assert_eq!(take(&mut names, 1), [(1, Some("u1".into()))]);
        assert_eq!(names.of(1, 1), UserName::Is(Some("u1".into())));
    }

    /// With as many look-ups under way as there may be, a name is none; one user cannot make so many that another has none.
    #[test]
    fn lookups_are_bounded() {
        let (open, pass) = gate();
        let lookup = move |_| {
            pass();
            None
        };
        let mut names = UserNames::by(Wake::new().unwrap(), Arc::new(lookup));
        let later = |names: &mut UserNames, account, uids: std::ops::Range<u32>| {
            uids.filter(|uid| names.of(*uid, account) == UserName::Later).count()
        };
        assert_eq!(later(&mut names, 1, 100..200), LOOKUPS_PER_USER);
        assert_eq!(later(&mut names, 2, 200..201), 1);
        let all = (1000..2000).filter(|user| names.of(*user, *user) == UserName::Later).count();
        assert_eq!(all, LOOKUPS - LOOKUPS_PER_USER - 1);
        open.store(true, Relaxed);
        take(&mut names, LOOKUPS);
        assert_eq!(names.of(5000, 1), UserName::Later, "there is room again");
    }
}

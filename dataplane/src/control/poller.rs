//! What the control thread waits for.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::time::Duration;

/// Something that can become ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A signal arrived.
    Signal,
    /// An app wants to connect.
    AppListener,
    /// An operator wants to connect.
    ControlListener,
    /// An app's socket has something to say.
    Peers,
    /// The process behind an app's socket has ended.
    Exit(usize),
    /// Operators ask, or have gone.
    Operators,
    /// A capture session has something to say.
    Captures,
    /// A region was made or emptied, or is gone.
    Regions,
    /// A thread has run into a hole in an app's region.
    Hole,
    /// Helpers have answers.
    Helpers,
}

/// Events taken at one time.
const BATCH: usize = 256;
/// Bits of a token's number; the kind lies above.
const KIND_SHIFT: u32 = 32;

impl Token {
    const fn encode(self) -> EventData {
        let (kind, at) = match self {
            Self::Signal => (0_u64, 0),
            Self::AppListener => (1, 0),
            Self::ControlListener => (2, 0),
            Self::Peers => (3, 0),
            Self::Exit(at) => (4, at),
            Self::Operators => (5, 0),
            Self::Captures => (6, 0),
            Self::Hole => (7, 0),
            Self::Regions => (8, 0),
            Self::Helpers => (9, 0),
        };
        EventData::new_u64(kind << KIND_SHIFT | at as u64)
    }

    fn decode(data: u64) -> Option<Self> {
        let at = usize::try_from(data & ((1 << KIND_SHIFT) - 1)).ok()?;
        Some(match data >> KIND_SHIFT {
            0 => Self::Signal,
            1 => Self::AppListener,
            2 => Self::ControlListener,
            3 => Self::Peers,
            4 => Self::Exit(at),
            5 => Self::Operators,
            6 => Self::Captures,
            7 => Self::Hole,
            8 => Self::Regions,
            9 => Self::Helpers,
            _ => return None,
        })
    }
}

/// An epoll set.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors or memory are short.
    pub fn new() -> Result<Self, Errno> {
        epoll::create(CreateFlags::CLOEXEC).map(|epoll| Self { epoll })
    }

    /// Waits for `source` too; for writing if `write`, else for reading. A closed source leaves by itself.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn add(&self, source: impl AsFd, token: Token) -> Result<(), Errno> {
        epoll::add(&self.epoll, source, token.encode(), EventFlags::IN)
    }

    /// Waits for `source` no longer, though it may stay open.
    ///
    /// # Errors
    ///
    /// The kernel's; none if `source` was added before.
    pub fn remove(&self, source: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.epoll, source)
    }

    /// Changes what `source` is waited for: reading, writing, or both. The end of a connection is reported in any case.
    ///
    /// # Errors
    ///
    /// The kernel's; none if `source` was added before.
    pub fn change(&self, source: impl AsFd, token: Token, read: bool, write: bool) -> Result<(), Errno> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, read);
        flags.set(EventFlags::OUT, write);
        epoll::modify(&self.epoll, source, token.encode(), flags)
    }

    /// Waits until something is ready, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// The kernel's; none is expected.
    pub fn wait(&self, timeout: Duration) -> Result<Vec<Token>, Errno> {
        let mut events: Vec<Event> = Vec::with_capacity(BATCH);
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(events.iter().filter_map(|event| Token::decode({ event.data }.u64())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was removed is not told of any more, though it is open still and ready.
    #[test]
    fn what_was_removed_is_silent() {
        let poller = Poller::new().unwrap();
        let ready = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        poller.add(&ready, Token::Exit(3)).unwrap();
        assert_eq!(poller.wait(Duration::ZERO), Ok(vec![Token::Exit(3)]));
        poller.remove(&ready).unwrap();
        assert_eq!(poller.wait(Duration::ZERO), Ok(Vec::new()));
    }

    /// Every token comes back as it went in.
    #[test]
    fn tokens_survive_the_kernel() {
        let all = [
            Token::Signal,
            Token::AppListener,
            Token::ControlListener,
            Token::Peers,
            Token::Exit(70_000),
            Token::Operators,
            Token::Captures,
            Token::Hole,
            Token::Regions,
            Token::Helpers,
        ];
        for token in all {
            assert_eq!(Token::decode(token.encode().u64()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}

//! One peer that asks for metrics. It may be slow, silent, or send anything.

use super::http::{HEAD_MAX, Refused, ScrapeRequest, request};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Timeouts for the head of a request, for the whole answer to be taken, and for the peer's end after that.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes received or sent before others get their turn.
const PIECE: usize = 256 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct ScrapeConnection {
    socket: OwnedFd,
    stage: Stage,
    deadline: Instant,
}

#[derive(Debug)]
enum Stage {
    /// Its request is not whole yet.
    Reads(Vec<u8>),
    /// It is being answered: head and text, and how much of both together is sent.
    Answers { head: Vec<u8>, text: Arc<str>, sent: usize },
    /// It has everything. What it still sends is thrown away: closing with that unread would take the answer from it (RFC 9112, 9.6).
    Ends,
}

/// What is to become of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits for its peer.
    Waits,
    /// It wants an answer.
    Asks(ScrapeRequest),
    /// It wants what it is to be refused.
    Refuses(Refused),
    /// It is over.
    Over,
}

impl ScrapeConnection {
    pub(super) fn new(socket: OwnedFd, now: Instant) -> Self {
        Self { socket, stage: Stage::Reads(Vec::new()), deadline: now + REQUEST_TIMEOUT }
    }

    /// What it is to be waited for.
    pub(super) const fn wants(&self) -> PollFlags {
        match self.stage {
            Stage::Reads(_) | Stage::Ends => PollFlags::IN,
            Stage::Answers { .. } => PollFlags::OUT,
        }
    }

    /// When its time is up.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on as far as its peer lets it, without waiting.
    pub(super) fn proceed(&mut self, now: Instant) -> Outcome {
        let outcome = match &mut self.stage {
            Stage::Reads(input) => read(&self.socket, input),
            Stage::Answers { head, text, sent } => {
                let whole = write(&self.socket, head, text.as_bytes(), sent);
                match whole {
                    Ok(false) => Ok(Outcome::Waits),
                    Ok(true) => {
                        let ended = shutdown(&self.socket, Shutdown::Write);
                        (self.stage, self.deadline) = (Stage::Ends, now + END_TIMEOUT);
                        ended.map(|()| Outcome::Waits)
                    }
                    Err(errno) => Err(errno),
                }
            }
            Stage::Ends => discard(&self.socket),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(Errno::AGAIN | Errno::INTR) => Outcome::Waits,
            Err(_) => Outcome::Over,
        }
    }

    /// Begins to answer.
    pub(super) fn answer(&mut self, head: Vec<u8>, text: Arc<str>, now: Instant) {
        (self.stage, self.deadline) = (Stage::Answers { head, text, sent: 0 }, now + ANSWER_TIMEOUT);
    }
}

impl AsFd for ScrapeConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read(socket: &OwnedFd, input: &mut Vec<u8>) -> Result<Outcome, Errno> {
    let mut piece = [0; HEAD_MAX];
    let room = HEAD_MAX - input.len();
    let (n, _) = recv(socket, &mut piece[..room], RecvFlags::empty())?;
    if n == 0 {
        return Ok(Outcome::Over);
    }
    input.extend_from_slice(piece.get(..n).unwrap_or_default());
    Ok(match request(input) {
        Ok(None) => Outcome::Waits,
        Ok(Some(request)) => Outcome::Asks(request),
        Err(refused) => Outcome::Refuses(refused),
    })
}

/// Sends some of what is not `sent` yet. Returns whether that was all.
fn write(socket: &OwnedFd, head: &[u8], text: &[u8], sent: &mut usize) -> Result<bool, Errno> {
    let end = head.len() + text.len();
    let stop = end.min(*sent + PIECE);
    while *sent < stop {
        let rest = match sent.checked_sub(head.len()) {
            None => head.get(*sent..),
            Some(at) => text.get(at..stop - head.len()),
        };
        *sent += send(socket, rest.unwrap_or_default(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    }
    Ok(*sent == end)
}

fn discard(socket: &OwnedFd) -> Result<Outcome, Errno> {
    let mut piece = [0; HEAD_MAX];
    let mut taken = 0;
    while taken < PIECE {
        let (n, _) = recv(socket, &mut piece[..], RecvFlags::empty())?;
        if n == 0 {
            return Ok(Outcome::Over);
        }
        taken += n;
    }
    Ok(Outcome::Waits)
}

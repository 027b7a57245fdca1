//! How a sleeping daemon is woken: a pair of connected sockets for each app.
//!
//! Each side has an end of its own and writes without waiting, whatever the other does to its end. An eventfd would not do:
//! its flags and its count are shared, so either side could make the other block.
//!
//! The side that rings pays for it. Taking the bytes out again, and closing an end, wakes everybody who polls the *other* end. How
//! long that takes is up to the peer, which may poll its end as often as it likes. So the daemon does both on a thread that
//! serves this peer's user alone.

use crate::socket::refuse_descriptors;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Bytes that are taken out at one time: more than an app that keeps to the contract ever leaves there.
const DRAIN: usize = 512;

/// One end of a doorbell.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// A new doorbell: the daemon's end, and the client's.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors or memory are short.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (daemon, client) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Older kernels pass them: then the thread that quiets the doorbell closes them.
        let _refused = refuse_descriptors(&daemon);
        Ok((Self(daemon), Self(client)))
    }

    /// Wakes the side that polls the other end. One system call, which never waits; if the other end is full, it is readable anyway.
    pub fn ring(&self) {
        let _sent = rustix::net::send(&self.0, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Takes out what has come, so that there is room for more. Never waits, but the peer can make it expensive.
    pub fn quiet(&self) {
        let _received = rustix::net::recv(&self.0, &mut [0; DRAIN], RecvFlags::DONTWAIT);
    }
}

impl From<OwnedFd> for Doorbell {
    /// The end that came over the attach socket.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Doorbell> for OwnedFd {
    /// The end that goes over the attach socket.
    fn from(doorbell: Doorbell) -> Self {
        doorbell.0
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(end: &Doorbell) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&now)).unwrap() > 0
    }

    /// A side that polls sees each ring, until the doorbell is quieted.
    #[test]
    fn ring_is_seen_until_quieted() {
        let (daemon, client) = Doorbell::pair().unwrap();
        for _ in 0..3 {
            assert!(!is_readable(&daemon));
            client.ring();
            client.ring();
            assert!(is_readable(&daemon));
            daemon.quiet();
        }
    }

    /// Neither side blocks the other: not by ringing without end, not by making its end blocking, not by going away.
    #[test]
    fn nobody_waits_at_a_doorbell() {
        let (daemon, client) = Doorbell::pair().unwrap();
        for end in [&daemon, &client] {
            let flags = rustix::fs::fcntl_getfl(end).unwrap();
            rustix::fs::fcntl_setfl(end, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
        }
        (0..10_000).for_each(|_| client.ring());
        assert!(is_readable(&daemon));
        (0..10_000).for_each(|_| daemon.quiet());
        assert!(!is_readable(&daemon));
        drop(client);
        daemon.ring();
        daemon.quiet();
    }
}

//! The kernel's end of the wire: a packet socket that sends or receives sequence-numbered frames.

use crate::app::Transfer;
use crate::frames::Mac;
use crate::netns::Netns;
use crate::seq::{Receiver, Sender};
use crate::wait::SOON;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a read waits before other things are looked at.
const PAUSE_MS: i64 = 5;
/// Frames after which the receiver acknowledges, as `kopi-seq` does.
pub const ACK_STEP: u64 = 32;

/// A packet socket in a namespace.
#[derive(Debug)]
pub struct Peer {
    socket: OwnedFd,
}

/// What a peer has sent or received.
#[derive(Clone, Debug)]
pub struct Report {
    /// Frames of ours.
    pub frames: u64,
    /// Bytes of those frames that were received.
    pub bytes: u64,
    /// The first thing that was wrong, if any.
    pub problem: Option<String>,
}

impl Peer {
    /// Opens a socket in `netns`.
    #[must_use]
    pub fn new(netns: &Netns) -> Self {
        Self::on(netns.packet_socket())
    }

    /// Opens a socket at the other end of the wire, where otherwise kopid is.
    #[must_use]
    pub fn outside(netns: &Netns) -> Self {
        Self::on(netns.packet_socket_outside())
    }

    /// A peer at this socket.
    #[must_use]
    pub fn on(socket: OwnedFd) -> Self {
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(PAUSE_MS)).expect("a time limit");
        Self { socket }
    }

    /// Sends one frame as it is.
    pub fn transmit(&self, frame: &[u8]) {
        loop {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return,
                Err(Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN) => std::thread::yield_now(),
                Err(errno) => panic!("sending {} bytes: {errno}", frame.len()),
            }
        }
    }

    /// The next frame, or `None` if there is none for a moment.
    pub fn next<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => buffer.get(..length),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => None,
            Err(errno) => panic!("receiving: {errno}"),
        }
    }

    /// Every frame up to the one that `is_last`, which is left out, and without those that the kernel itself sends.
    /// Linux takes the outer VLAN tag off before a packet socket sees a frame (packet(7), `PACKET_AUXDATA`).
    ///
    /// Panics if the last frame does not come.
    pub fn collect(&self, is_last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 16384];
        let mut frames = Vec::new();
        let start = Instant::now();
        loop {
            match self.next(&mut buffer) {
                Some(frame) if is_last(frame) => return frames,
                Some(frame) if frame.get(6..12) == Some(&Netns::MAC) => {}
                Some(frame) => frames.push(frame.to_vec()),
                None => assert!(start.elapsed() < SOON, "the last frame does not come; before it came {frames:02x?}"),
            }
        }
    }

    /// Sends `load` to `destination` and waits until all of it is acknowledged.
    #[must_use]
    pub fn send(&self, load: &Transfer, destination: Mac, limit: Duration) -> Report {
        let mut sender =
            Sender::new(Netns::MAC, destination, load.count, load.flows, load.lengths.clone(), load.window);
        let mut buffer = vec![0; 16384];
        let mut frame = vec![0; 16384];
        let start = Instant::now();
        while !sender.is_done() && start.elapsed() < limit {
            while let Some((_, length)) = sender.peek() {
                let frame = &mut frame[..usize::from(length)];
                sender.write(frame);
                self.transmit(frame);
            }
            if let Some(heard) = self.next(&mut buffer) {
                sender.hear(heard);
            }
        }
        let (sent, had) = (sender.sent(), sender.acknowledged());
        let problem = (!sender.is_done()).then(|| format!("sent {sent} of {}, the receiver has {had}", load.count));
        Report { frames: had, bytes: 0, problem }
    }

    /// Receives and checks `load`, sent to the kernel's address.
    #[must_use]
    pub fn receive(&self, load: &Transfer, limit: Duration) -> Report {
        let mut receiver = Receiver::new(Netns::MAC, load.count, load.flows, load.lengths.clone());
        let mut buffer = vec![0; 16384];
        let start = Instant::now();
        while !receiver.is_done() && receiver.problem().is_none() && start.elapsed() < limit {
            let step = match self.next(&mut buffer) {
                Some(frame) => {
                    receiver.take(frame);
                    ACK_STEP
                }
                None => 1,
            };
            if let Some(frame) = receiver.acknowledge(step) {
                self.transmit(&frame);
            }
        }
        if let Some(frame) = receiver.acknowledge(1) {
            self.transmit(&frame);
        }
        let missing = || format!("{} of {} frames came within {limit:?}", receiver.received(), load.count);
        let problem = receiver.problem().map(str::to_owned);
        let problem = problem.or_else(|| (!receiver.is_done()).then(missing));
        Report { frames: receiver.received(), bytes: receiver.bytes(), problem }
    }
}

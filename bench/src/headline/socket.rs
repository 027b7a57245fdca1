//! The application of the kernel's arm: one UDP socket, with nothing else in it.
//!
//! It takes the lines of the DPDK application, and gives the same answers. A system call sends a burst of frames to the
//! destinations in turn, and another one receives a frame.

use std::hint::black_box;
use std::io::{self, BufRead, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use kopi_packet::checksum::sum;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny};

use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};
use crate::policy::{self, FLOWS, Job, Window, destination};

/// The subcommand of this program that runs the application.
pub(crate) const COMMAND: &str = "headline-socket";
/// Headers of Ethernet, IPv4 and UDP.
const HEADERS: u16 = 42;
/// UDP port on both sides.
const PORT: u16 = 9;
/// Frames that one system call sends, as many as the DPDK application sends at once.
const BURST: usize = 32;
/// A receiver looks for the end of its window at least so often.
const GLANCE: Duration = Duration::from_millis(100);

/// Runs the application until its standard input ends.
///
/// # Errors
///
/// When there is no socket for it, or a line is not understood.
pub(crate) fn run(core: usize, length: u16) -> Result<()> {
    pin(core)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).doing(|| "make a socket".to_owned())?;
    socket.set_read_timeout(Some(GLANCE)).doing(|| "set a time-out".to_owned())?;
    let payload = vec![0; length.saturating_sub(HEADERS).into()];
    let mut sockets = Sockets { socket, to: destinations(), next: 0, payloads: vec![payload; BURST] };

    say(policy::READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.doing(|| "read a command".to_owned())?;
        let asked = policy::parse(&line).ok_or_else(|| BenchError::Failed(format!("{line:?} is not understood")))?;
        let (job, milliseconds) = asked;
        let window = sockets.window(job, Duration::from_millis(milliseconds))?;
        say(&format!("{}{}\n", policy::ANSWER, window.answer()))?;
    }
    Ok(())
}

/// The destinations of the load's flows.
fn destinations() -> Vec<SocketAddrAny> {
    let address = |flow| {
        let [c, d] = destination(flow).to_be_bytes();
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 18, c, d), PORT)).into()
    };
    (0..FLOWS).map(address).collect()
}

struct Sockets {
    socket: UdpSocket,
    to: Vec<SocketAddrAny>,
    next: usize,
    /// One for each frame of a burst.
    payloads: Vec<Vec<u8>>,
}

impl Sockets {
    fn window(&mut self, job: Job, time: Duration) -> Result<Window> {
        let begun = Instant::now();
        let mut frames = 0;
        loop {
            frames += match job {
                Job::Send => self.send(false)?,
                Job::SendWritten => self.send(true)?,
                Job::Receive => self.receive(false)?,
                Job::ReceiveRead => self.receive(true)?,
                Job::SendOne | Job::SendOneWritten | Job::SendMillion | Job::Flood => {
                    return Err(BenchError::Failed("sockets do not do that".to_owned()));
                }
            };
            let took = begun.elapsed();
            if took >= time {
                return Ok(Window { frames, nanoseconds: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) });
            }
        }
    }

    /// Sends a burst, and returns how many frames the kernel took.
    fn send(&mut self, written: bool) -> Result<u64> {
        if written {
            let [value, ..] = self.next.to_le_bytes();
            self.payloads.iter_mut().for_each(|payload| payload.fill(value));
        }
        let payloads: Vec<[IoSlice<'_>; 1]> = self.payloads.iter().map(|payload| [IoSlice::new(payload)]).collect();
        let mut nothing: Vec<_> = payloads.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let to = self.to.get(self.next..).unwrap_or_default().iter().chain(self.to.iter().cycle());
        let parts = to.zip(&payloads).zip(&mut nothing);
        let mut messages: Vec<_> =
            parts.map(|((to, payload), nothing)| MMsgHdr::new_with_addr(to, payload, nothing)).collect();
        let sent = rustix::net::sendmmsg(&self.socket, &mut messages, SendFlags::empty());
        let sent = sent.map_err(io::Error::from).doing(|| "send".to_owned())?;
        self.next = (self.next + sent) % self.to.len();
        Ok(u64::try_from(sent).unwrap_or_default())
    }

    /// Receives as many frames as a burst has, or what comes until it is time for a glance at the clock.
    fn receive(&mut self, read: bool) -> Result<u64> {
        let mut frames = 0;
        for payload in &mut self.payloads {
            match self.socket.recv(payload) {
                Ok(length) => {
                    frames += 1;
                    if read {
                        black_box(payload.get(..length).map(sum));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).doing(|| "receive".to_owned()),
            }
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every flow has a destination of its own, and they are those of the DPDK application's frames.
    #[test]
    fn destinations_differ() {
        let all = destinations();
        assert_eq!(all.len(), usize::from(FLOWS));
        let last = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 18, 7, 206), PORT));
        assert_eq!(all.last(), Some(&last.into()));
    }

    /// A burst goes round the destinations, and every frame of it arrives.
    #[test]
    fn what_is_sent_is_received() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        receiver.set_read_timeout(Some(GLANCE)).expect("a time-out");
        let to = SocketAddrAny::from(receiver.local_addr().expect("an address"));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let payloads = vec![vec![0; 22]; BURST];
        let mut sender = Sockets { socket, to: vec![to; 3], next: 2, payloads: payloads.clone() };
        assert_eq!(sender.send(true).expect("there is room"), BURST as u64);
        assert_eq!(sender.next, (2 + BURST) % 3);
        let mut receiver = Sockets { socket: receiver, to: Vec::new(), next: 0, payloads };
        assert_eq!(receiver.receive(true).expect("all is there"), BURST as u64);
        assert_eq!(receiver.payloads[7], vec![2; 22]);
    }
}

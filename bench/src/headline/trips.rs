//! Round trips of UDP through the kernel, beside sockets that send in bulk: the application, and what answers it.
//!
//! One thread does it all, as it does in the application of the QoS benchmark, whose lines it takes and whose answers it gives.

use std::io::{self, BufRead};
use std::net::UdpSocket;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};
use crate::latency::Trips;
use crate::latency::app::{PATIENCE, Tally, answer};
use crate::qos;
use crate::throughput::approximate;

/// The subcommands of this program that send, and that answer.
pub(crate) const COMMAND: &str = "headline-trips";
pub(crate) const ECHO_COMMAND: &str = "headline-echo";
/// What the echo prints when it has its socket.
pub(crate) const READY: &str = "headline-echo: ready\n";
/// Addresses of the ends.
pub(crate) const NEAR: &str = "198.19.0.1";
pub(crate) const FAR: &str = "198.19.0.2";
/// The port of the echo.
pub(crate) const PORT: u16 = 7;
/// The port to which bulk frames go; those of the first application come from the next one, and so on.
pub(crate) const BULK_PORT: u16 = 1000;
/// Headers of Ethernet, IPv4 and UDP.
const HEADERS: usize = 42;
/// Payload of a frame of 64 bytes.
const SHORT: usize = 64 - HEADERS;

/// Runs the application, with bulk sockets for frames of `lengths` bytes, until its standard input ends.
///
/// # Errors
///
/// When there is no socket for it, or a line is not understood.
pub(crate) fn run(core: usize, lengths: &[u16]) -> Result<()> {
    pin(core)?;
    let open = |from, to| {
        let socket = UdpSocket::bind((NEAR, from)).and_then(|socket| socket.connect((FAR, to)).map(|()| socket));
        let socket = socket.and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        socket.doing(|| format!("make a socket to port {to}"))
    };
    let mut bulk = Vec::new();
    for (&length, port) in lengths.iter().zip(BULK_PORT + 1..) {
        bulk.push((open(port, BULK_PORT)?, vec![0; usize::from(length).saturating_sub(HEADERS)]));
    }
    let mut traveller = Traveller { socket: open(0, PORT)?, bulk, begun: Instant::now(), number: 0 };

    say(qos::app::READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.doing(|| "read a command".to_owned())?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[rate, busy, milliseconds] = numbers.as_slice() else {
            return Err(BenchError::Failed(format!("{line:?} is not understood")));
        };
        let trips = traveller.window(rate, busy != 0, Duration::from_millis(milliseconds))?;
        say(&format!("{}{}\n", qos::app::ANSWER, answer(trips)))?;
    }
    Ok(())
}

/// Answers every frame until standard input ends. It polls, as everything else on the dataplane's core does.
///
/// # Errors
///
/// When there is no socket for it.
pub(crate) fn run_echo(core: usize) -> Result<()> {
    pin(core)?;
    let socket = UdpSocket::bind((FAR, PORT)).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    let socket = socket.doing(|| "make a socket".to_owned())?;
    let (alive, ended) = mpsc::channel::<()>();
    // Ends with standard input, and its end of the channel with it.
    thread::spawn(move || {
        let _end = io::stdin().lock().lines().count();
        drop(alive);
    });
    say(READY)?;
    let mut frame = [0; 2048];
    while ended.try_recv() != Err(TryRecvError::Disconnected) {
        if let Ok((length, from)) = socket.recv_from(&mut frame) {
            // What is not sent is lost, and counted as such by who asked.
            let _sent = socket.send_to(frame.get(..length).unwrap_or_default(), from);
        }
    }
    Ok(())
}

/// The socket whose frames are timed, and those of bulk, with what they send.
struct Traveller {
    socket: UdpSocket,
    bulk: Vec<(UdpSocket, Vec<u8>)>,
    begun: Instant,
    /// Of the next frame. Counts on through all windows, so that no late frame is taken for a new one.
    number: u64,
}

impl Traveller {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts trips for `time` at a steady `rate`, beside bulk frames or not. A frame is timed from when it was due.
    fn window(&mut self, rate: u64, busy: bool, time: Duration) -> Result<Trips> {
        let mut tally = Tally::new(1_000_000_000)?;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (first, distance) = (self.number, 1_000_000_000 / rate.max(1));
        let end = self.now().saturating_add(nanoseconds(time));
        let last_call = end.saturating_add(nanoseconds(PATIENCE));
        let mut due = self.now() + distance;
        loop {
            let now = self.now();
            if now >= last_call {
                return Ok(tally.trips());
            }
            if due < end && now >= due && self.socket.send(&frame(self.number, due)).is_ok() {
                self.number += 1;
                tally.sent += 1;
                due += distance;
            }
            let mut back = [0; SHORT];
            while let Ok(length) = self.socket.recv(&mut back) {
                match read(back.get(..length).unwrap_or_default()) {
                    Some((number, stamp)) if number >= first => tally.record(self.now().saturating_sub(stamp)),
                    _ => {}
                }
            }
            if busy {
                // A full queue refuses frames, which is what it is for.
                self.bulk.iter().for_each(|(socket, payload)| _ = socket.send(payload));
            }
        }
    }
}

/// A frame's payload: its number and when it was due.
fn frame(number: u64, stamp: u64) -> [u8; SHORT] {
    let mut payload = [0; SHORT];
    for (to, from) in payload.iter_mut().zip(number.to_be_bytes().into_iter().chain(stamp.to_be_bytes())) {
        *to = from;
    }
    payload
}

fn read(payload: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = payload.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), u64::from_be_bytes(*rest.first_chunk()?)))
}

/// Nanoseconds as microseconds.
pub(super) fn microseconds(ns: u64) -> f64 {
    approximate(ns) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        assert_eq!(read(&frame(7, u64::MAX - 1)), Some((7, u64::MAX - 1)));
        assert_eq!(read(&frame(7, 9)[..15]), None);
    }
}

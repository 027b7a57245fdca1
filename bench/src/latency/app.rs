//! The application that sends frames round: an ordinary DPDK application, with nothing of kopi in it.
//!
//! It runs in a process of its own, as EAL demands, and takes one line per window on standard input: frames per second
//! (0: one at a time), milliseconds of warm-up, milliseconds of the window. It answers with one line of JSON.
//!
//! The frames are UDP over IPv4, so that a system that looks at flows has something to look at. They go to a MAC
//! address that nobody owns, and the port is promiscuous: a system that switches by address sends such a frame to the
//! wire and takes it back from there, without any set-up that one contender would have and another not.

use std::io::{self, BufRead};
use std::time::Duration;

use dpdk::tsc::{nanoseconds, ticks};
use dpdk::{Batch, Eal, Mbuf, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue, tsc};
use hdrhistogram::Histogram;
use serde_json::json;

use super::Trips;
use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};

/// The subcommand of this program that runs the application.
pub(crate) const COMMAND: &str = "latency-app";
/// What it prints when its port is up.
pub(crate) const READY: &str = "latency-app: ready\n";
/// What it prints before each answer.
pub(crate) const ANSWER: &str = "latency-app: trips ";

const FRAME_LEN: u16 = 64;
/// Where the frame's number lies, behind the headers.
const NUMBER: usize = 42;
/// Where the time stamp lies.
const STAMP: usize = 50;
/// A locally administered address that nobody has.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0x99, 0x99, 0x99];
/// Ethertype, IPv4 (198.18.0.1 to 198.18.0.2, the benchmarking network of RFC 2544) and UDP (port 9 to 9, no checksum).
const HEADERS: [u8; 30] = [
    0x08, 0x00, // Ethertype: IPv4.
    0x45, 0x00, 0x00, 0x32, 0x00, 0x00, 0x00, 0x00, 0x40, 0x11, 0xee, 0x93, // IPv4 up to its checksum.
    198, 18, 0, 1, 198, 18, 0, 2, // Addresses.
    0x00, 0x09, 0x00, 0x09, 0x00, 0x1e, 0x00, 0x00, // UDP.
];
/// After so long a frame is lost.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);
/// The longest trip that the histogram holds, in nanoseconds.
const LONGEST_NS: u64 = 10_000_000_000;

/// Runs the application until its standard input ends.
///
/// # Errors
///
/// When DPDK or the port does not come up, or a line is not understood.
pub(crate) fn run(core: usize, eal_args: &[String]) -> Result<()> {
    let eal = Eal::init(eal_args)?;
    pin(core)?;
    let config = PoolConfig { name: "trips", mbufs: 8191, cache: 256, frame_max: 2048, socket: None };
    let pool = Pool::new(&eal, config)?;
    let mut port = Port::by_id(&eal, 0)?;
    port.configure(&PortConfig { promiscuous: true, ..PortConfig::default() }, std::slice::from_ref(&pool))?;
    let (rx, tx) = port.start()?;
    let (Some(rx), Some(tx)) = (rx.into_iter().next(), tx.into_iter().next()) else {
        return Err(BenchError::Failed("the port has no queues".to_owned()));
    };
    let mut trip = Trip::new(pool, (rx, tx), port.mac()?, eal.tsc_hz());

    say(READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.doing(|| "read a command".to_owned())?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[rate, warm_up, window] = numbers.as_slice() else {
            return Err(BenchError::Failed(format!("{line:?} is not three numbers")));
        };
        trip.window(rate, Duration::from_millis(warm_up), || {})?;
        let trips = trip.window(rate, Duration::from_millis(window), || {})?;
        say(&format!("{ANSWER}{}\n", answer(trips)))?;
    }
    Ok(())
}

/// The application's answer, as JSON.
pub(crate) fn answer(trips: Trips) -> String {
    let Trips { count, lost, p50_ns, p99_ns, p999_ns } = trips;
    json!({ "count": count, "lost": lost, "p50_ns": p50_ns, "p99_ns": p99_ns, "p999_ns": p999_ns }).to_string()
}

/// The port, and what a trip needs.
pub(crate) struct Trip {
    pool: Pool,
    rx: RxQueue,
    tx: TxQueue,
    /// For frames on either way; empty between calls.
    batch: Batch,
    mac: [u8; 6],
    /// Of the next frame. Counts on through all windows, so that no late frame is taken for a new one.
    number: u64,
    hz: u64,
}

/// Trips as they are counted.
pub(crate) struct Tally {
    histogram: Histogram<u64>,
    /// Frames that were sent.
    pub(crate) sent: u64,
    hz: u64,
}

impl Tally {
    /// Counts by a clock of `hz` ticks in a second.
    ///
    /// # Errors
    ///
    /// Never with these bounds.
    pub(crate) fn new(hz: u64) -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        let histogram = histogram.map_err(|error| BenchError::Failed(format!("make a histogram: {error}")))?;
        Ok(Self { histogram, sent: 0, hz })
    }

    /// A frame is back after so many ticks.
    pub(crate) fn record(&mut self, cycles: u64) {
        self.histogram.saturating_record(nanoseconds(cycles, self.hz));
    }

    /// What has been counted.
    pub(crate) fn trips(&self) -> Trips {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        let count = self.histogram.len();
        let lost = self.sent.saturating_sub(count);
        Trips { count, lost, p50_ns: at(0.5), p99_ns: at(0.99), p999_ns: at(0.999) }
    }
}

impl Trip {
    /// Sends by `tx` from the address `mac`, and receives by `rx`; `hz` are the ticks of the clock in a second.
    pub(crate) fn new(pool: Pool, (rx, tx): (RxQueue, TxQueue), mac: [u8; 6], hz: u64) -> Self {
        Self { pool, rx, tx, batch: Batch::new(), mac, number: 0, hz }
    }

    /// Counts trips for `time`: `rate` frames per second, or one at a time if that is 0. With a rate, `beside` is called
    /// all the time.
    ///
    /// # Errors
    ///
    /// When there are no packet buffers.
    pub(crate) fn window(&mut self, rate: u64, time: Duration, beside: impl FnMut()) -> Result<Trips> {
        let mut tally = Tally::new(self.hz)?;
        // What is still under way belongs to no window.
        while self.rx.receive(&mut self.batch) > 0 {
            self.batch.free_all();
        }
        let end = tsc() + ticks(time, self.hz);
        match rate {
            0 => self.one_at_a_time(end, &mut tally)?,
            rate => self.steady(end, self.hz / rate, &mut tally, beside)?,
        }
        Ok(tally.trips())
    }

    fn one_at_a_time(&mut self, end: u64, tally: &mut Tally) -> Result<()> {
        let patience = ticks(PATIENCE, self.hz);
        while tsc() < end {
            let number = self.number;
            let start = tsc();
            if !self.send(start)? {
                continue;
            }
            tally.sent += 1;
            let mut back = None;
            while back.is_none() && tsc() - start < patience {
                self.receive(|frame, now| {
                    if frame.number == number {
                        back = Some(now - frame.stamp);
                    }
                });
            }
            if let Some(cycles) = back {
                tally.record(cycles);
            }
        }
        Ok(())
    }

    fn steady(&mut self, end: u64, distance: u64, tally: &mut Tally, mut beside: impl FnMut()) -> Result<()> {
        let first = self.number;
        let mut due = tsc() + distance;
        let last_call = end + ticks(PATIENCE, self.hz);
        loop {
            let now = tsc();
            if now >= last_call {
                return Ok(());
            }
            // The stamp is when the frame was due: a system that refuses it makes it late.
            if due < end && now >= due && self.send(due)? {
                tally.sent += 1;
                due += distance;
            }
            self.receive(|frame, now| {
                if frame.number >= first {
                    tally.record(now.saturating_sub(frame.stamp));
                }
            });
            beside();
        }
    }

    /// Sends one frame with `stamp` in it. Returns false if the port took none.
    fn send(&mut self, stamp: u64) -> Result<bool> {
        let no_buffer = || BenchError::Failed("no packet buffer is left".to_owned());
        let mut mbuf = self.pool.take().ok_or_else(no_buffer)?;
        write_frame(mbuf.frame_mut(FRAME_LEN), self.mac, Frame { number: self.number, stamp });
        self.batch.push(mbuf).map_err(|_: Mbuf| BenchError::Failed("the batch is full".to_owned()))?;
        let sent = self.tx.send(&mut self.batch);
        self.batch.free_all();
        self.number += u64::from(sent);
        Ok(sent == 1)
    }

    /// Receives what is there, and passes on each frame of ours with the time at which it was seen.
    fn receive(&mut self, mut take: impl FnMut(Frame, u64)) {
        if self.rx.receive(&mut self.batch) == 0 {
            return;
        }
        let now = tsc();
        for mbuf in self.batch.drain() {
            if let Some(frame) = read_frame(mbuf.data()) {
                take(frame, now);
            }
        }
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    number: u64,
    /// Time stamp counter.
    stamp: u64,
}

fn write_frame(bytes: &mut [u8], source: [u8; 6], frame: Frame) {
    bytes.fill(0);
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &NOBODY);
    put(6, &source);
    put(12, &HEADERS);
    put(NUMBER, &frame.number.to_be_bytes());
    put(STAMP, &frame.stamp.to_be_bytes());
}

/// Reads a frame of ours; `None` of anything else that comes along.
fn read_frame(bytes: &[u8]) -> Option<Frame> {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let ours = bytes.get(..6)? == NOBODY && bytes.get(12..12 + HEADERS.len())? == HEADERS;
    ours.then_some(Frame { number: number(NUMBER)?, stamp: number(STAMP)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::checksum::{fold, sum};

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let frame = Frame { number: 7, stamp: u64::MAX - 1 };
        let mut bytes = [0xff; FRAME_LEN as usize];
        write_frame(&mut bytes, [2, 0, 0, 0, 0, 1], frame);
        assert_eq!(read_frame(&bytes), Some(frame));
        assert_eq!(read_frame(&bytes[..57]), None);
        bytes[5] ^= 1;
        assert_eq!(read_frame(&bytes), None);
    }

    /// RFC 1071: the sum of all words of a header, its checksum included, is all ones.
    #[test]
    fn the_headers_are_valid() {
        let ip = &HEADERS[2..22];
        assert_eq!(fold(sum(ip)), 0xffff);
        let length = |at: usize| u16::from_be_bytes([HEADERS[at], HEADERS[at + 1]]);
        assert_eq!((length(4), length(26)), (FRAME_LEN - 14, FRAME_LEN - 34));
    }
}

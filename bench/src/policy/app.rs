//! The application that loads a system: an ordinary DPDK application, with nothing of kopi in it.
//!
//! testpmd's generators either send few flows or spend more on a frame than kopid does. This one sends prepared frames,
//! or receives and counts. It takes one line for each window on standard input, what to do and for how many
//! milliseconds, and answers with one line of JSON. Between windows it does nothing.

use std::hint::black_box;
use std::io::{self, BufRead};

use dpdk::{Batch, Eal, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue, tsc};
use kopi_packet::checksum::sum;
use serde_json::{Value, json};

use super::frames::{self, FRAME_LEN, Frame};
use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};

/// The subcommand of this program that runs the application.
pub(crate) const COMMAND: &str = "policy-app";
/// What it prints when its port is up.
pub(crate) const READY: &str = "policy-app: ready\n";
/// What it prints before each answer.
pub(crate) const ANSWER: &str = "policy-app: window ";

/// What to do in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Send the frames of all flows in turn.
    Send,
    /// Send frames of one flow.
    SendOne,
    /// Send SYNs, each from a random port to a random destination.
    Flood,
    /// Receive and count.
    Receive,
    /// Like [`Job::Send`], and write the payload of each frame anew.
    SendWritten,
    /// Like [`Job::SendOne`], and write the payload of each frame anew.
    SendOneWritten,
    /// Send the frames of a million flows in turn.
    SendMillion,
    /// Like [`Job::Receive`], and read every byte, as a checksum does.
    ReceiveRead,
}

impl Job {
    const ALL: [(&'static str, Self); 8] = [
        ("send", Self::Send),
        ("send-one", Self::SendOne),
        ("flood", Self::Flood),
        ("receive", Self::Receive),
        ("send-written", Self::SendWritten),
        ("send-one-written", Self::SendOneWritten),
        ("send-million", Self::SendMillion),
        ("receive-read", Self::ReceiveRead),
    ];

    /// Its word in a line to the application.
    pub(crate) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, job)| *job == self).map_or("", |(word, _)| word)
    }
}

/// What came of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Frames that the port has taken or given.
    pub(crate) frames: u64,
    /// How long it took.
    pub(crate) nanoseconds: u64,
}

impl Window {
    /// The answer, as JSON.
    pub(crate) fn answer(self) -> String {
        json!({ "frames": self.frames, "nanoseconds": self.nanoseconds }).to_string()
    }

    /// Reads an answer.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(line).ok()?;
        let number = |key: &str| answer.get(key)?.as_u64();
        Some(Self { frames: number("frames")?, nanoseconds: number("nanoseconds")? })
    }
}

/// Runs the application until its standard input ends. What it sends are frames of `length` bytes, but for those of a flood:
/// from itself, or, where it stands for the wire, `to_app`. It receives what is for its address, or whatever comes if it is
/// `promiscuous`.
///
/// # Errors
///
/// When DPDK or the port does not come up, or a line is not understood.
pub(crate) fn run(core: usize, length: u16, to_app: bool, promiscuous: bool, eal_args: &[String]) -> Result<()> {
    let eal = Eal::init(eal_args)?;
    pin(core)?;
    let config = PoolConfig { name: "policy", mbufs: 8191, cache: 256, frame_max: 2048, socket: None };
    let pool = Pool::new(&eal, config)?;
    let mut port = Port::by_id(&eal, 0)?;
    port.configure(&PortConfig { promiscuous, ..PortConfig::default() }, std::slice::from_ref(&pool))?;
    let (rx, tx) = port.start()?;
    let (Some(rx), Some(tx)) = (rx.into_iter().next(), tx.into_iter().next()) else {
        return Err(BenchError::Failed("the port has no queues".to_owned()));
    };
    let mut pump = Pump {
        pool,
        rx,
        tx,
        batch: Batch::new(),
        frames: frames::flows(to_app, length),
        length,
        next: 0,
        random: 0x9e37_79b9_7f4a_7c15,
        sum: 0,
    };

    say(READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.doing(|| "read a command".to_owned())?;
        let (job, milliseconds) =
            parse(&line).ok_or_else(|| BenchError::Failed(format!("{line:?} is not understood")))?;
        let cycles = eal.tsc_hz() / 1000 * milliseconds;
        let (frames, took) = pump.window(job, cycles);
        let window = Window { frames, nanoseconds: tsc::nanoseconds(took, eal.tsc_hz()) };
        say(&format!("{ANSWER}{}\n", window.answer()))?;
    }
    Ok(())
}

/// The job, and milliseconds, that a line asks for.
pub(crate) fn parse(line: &str) -> Option<(Job, u64)> {
    let (word, milliseconds) = line.split_once(' ')?;
    let (_, job) = Job::ALL.into_iter().find(|(known, _)| *known == word)?;
    Some((job, milliseconds.parse().ok()?))
}

/// The port, and what is sent to it.
struct Pump {
    pool: Pool,
    rx: RxQueue,
    tx: TxQueue,
    batch: Batch,
    frames: Vec<Frame>,
    length: u16,
    next: usize,
    random: u64,
    /// Of all bytes that were read.
    sum: u64,
}

impl Pump {
    /// Works for `cycles`; returns the frames and the cycles that it took.
    fn window(&mut self, job: Job, cycles: u64) -> (u64, u64) {
        let start = tsc();
        let mut frames = 0;
        loop {
            frames += match job {
                Job::Receive => self.receive(),
                Job::ReceiveRead => self.receive_and_read(),
                Job::Send => self.send(self.length, Self::next_of_flows),
                Job::SendWritten => self.send(self.length, Self::next_of_flows_written),
                Job::SendOne => self.send(self.length, Self::first_of_flows),
                Job::SendOneWritten => self.send(self.length, Self::first_of_flows_written),
                Job::SendMillion => self.send(self.length, Self::next_of_million),
                Job::Flood => self.send(FRAME_LEN, Self::next_of_flood),
            };
            let took = tsc() - start;
            if took >= cycles {
                // What the port did not take was never sent.
                self.batch.free_all();
                black_box(self.sum);
                return (frames, took);
            }
        }
    }

    fn receive(&mut self) -> u64 {
        let n = self.rx.receive(&mut self.batch);
        self.batch.free_all();
        n.into()
    }

    fn receive_and_read(&mut self) -> u64 {
        let n = self.rx.receive(&mut self.batch);
        for mbuf in self.batch.drain() {
            self.sum = self.sum.wrapping_add(sum(mbuf.data()));
        }
        n.into()
    }

    #[inline]
    fn send(&mut self, length: u16, frame: impl Fn(&mut Self, &mut [u8])) -> u64 {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.is_empty() && self.pool.fill(&mut batch, Batch::MAX) {
            batch.iter_mut().for_each(|mbuf| frame(self, mbuf.frame_mut(length)));
        }
        let sent = self.tx.send(&mut batch);
        self.batch = batch;
        sent.into()
    }

    #[inline]
    fn next_of_flows(&mut self, to: &mut [u8]) {
        if let Some((to, frame)) = to.first_chunk_mut().zip(self.frames.get(self.next)) {
            *to = *frame;
        }
        self.next = if self.next + 1 >= self.frames.len() { 0 } else { self.next + 1 };
    }

    #[inline]
    fn next_of_flows_written(&mut self, to: &mut [u8]) {
        self.next_of_flows(to);
        self.write(to);
    }

    #[inline]
    fn first_of_flows_written(&mut self, to: &mut [u8]) {
        self.first_of_flows(to);
        self.next = self.next.wrapping_add(1);
        self.write(to);
    }

    /// Writes all payload that is not prepared.
    #[inline]
    fn write(&self, to: &mut [u8]) {
        let [value, ..] = self.next.to_le_bytes();
        if let Some(payload) = to.get_mut(FRAME_LEN.into()..) {
            payload.fill(value);
        }
    }

    #[inline]
    fn next_of_million(&mut self, to: &mut [u8]) {
        self.next = if self.next + 1 >= frames::MILLION { 0 } else { self.next + 1 };
        let prepared = self.frames.first().zip(u32::try_from(self.next).ok());
        if let Some((to, (frame, flow))) = to.first_chunk_mut().zip(prepared) {
            *to = frames::of_million(frame, flow);
        }
    }

    #[inline]
    fn first_of_flows(&mut self, to: &mut [u8]) {
        if let Some((to, frame)) = to.first_chunk_mut().zip(self.frames.first()) {
            *to = *frame;
        }
    }

    #[inline]
    fn next_of_flood(&mut self, to: &mut [u8]) {
        // Xorshift (Marsaglia, "Xorshift RNGs", 2003), with the shifts 13, 7, 17.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let [a, b, c, d, ..] = self.random.to_be_bytes();
        to.copy_from_slice(&frames::syn(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_answers_are_read() {
        for (word, job) in Job::ALL {
            assert_eq!(parse(&format!("{word} 250")), Some((job, 250)));
            assert_eq!(job.word(), word);
        }
        assert_eq!(parse("sing 250"), None);
        assert_eq!(parse("send"), None);
        let window = Window { frames: 7, nanoseconds: 9 };
        assert_eq!(Window::parse(&window.answer()), Some(window));
    }
}

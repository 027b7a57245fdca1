//! The application of the QoS benchmark: several apps of kopid in one process, each with a port of its own.
//!
//! Two cores leave one for all applications, and as many processes there would measure how the kernel switches between
//! them. This one sends from all its ports in turn, from each as much as kopid takes. It takes a line for each window on
//! standard input, and answers with one line of JSON. Between windows it does nothing. There are three kinds of [`Work`]:
//! to count frames, for a number of milliseconds; to count trips of frames from a first port, for frames per second,
//! whether the others send (1 or 0), and milliseconds; or to leave a share of the wire, for milliseconds.

use std::io::{self, BufRead};
use std::time::Duration;

use dpdk::{Batch, Eal, Pool, PoolConfig, Port, PortConfig, TxQueue, tsc};
use serde_json::{Value, json};

use super::frames::frame;
use super::unused;
use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};
use crate::latency::app::{Trip, answer};

/// The subcommand of this program that runs the application.
pub(crate) const COMMAND: &str = "qos-app";
/// What it prints when its ports are up.
pub(crate) const READY: &str = "qos-app: ready\n";
/// What it prints before each answer.
pub(crate) const ANSWER: &str = "qos-app: window ";

/// What the application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// Counts the frames of its ports.
    Count,
    /// Counts the trips of frames that its first port sends; the others send the frames whose lengths are given.
    Trips,
    /// Has the first port be silent for a while, and watches what the second makes of it.
    Leave,
}

/// The line that asks for trips.
pub(super) fn trips(rate: u32, busy: bool, time: Duration) -> String {
    format!("{rate} {} {}", u8::from(busy), time.as_millis())
}

/// What came of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Frames that kopid has taken, by port.
    pub(super) frames: Vec<u64>,
    /// How long it took.
    pub(super) nanoseconds: u64,
}

impl Window {
    fn answer(&self) -> String {
        json!({ "frames": self.frames, "nanoseconds": self.nanoseconds }).to_string()
    }

    /// Reads an answer.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(line).ok()?;
        let frames = answer.get("frames")?.as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        Some(Self { frames, nanoseconds: answer.get("nanoseconds")?.as_u64()? })
    }
}

/// Runs the application until its standard input ends. Each port sends frames of one of `lengths` bytes, in this order.
///
/// # Errors
///
/// When DPDK or a port does not come up, or a line is not understood.
pub(crate) fn run(core: usize, work: Work, lengths: &[u16], eal_args: &[String]) -> Result<()> {
    let eal = Eal::init(eal_args)?;
    pin(core)?;
    let config = PoolConfig { name: "qos", mbufs: 16383, cache: 256, frame_max: 2048, socket: None };
    let pool = Pool::new(&eal, config)?;
    // Kept, since a port closes with its value.
    let mut ports = Vec::new();
    let mut open = |promiscuous| -> Result<_> {
        let number = u16::try_from(ports.len()).unwrap_or(u16::MAX);
        let mut port = Port::by_id(&eal, number)?;
        let config = PortConfig { promiscuous, ..PortConfig::default() };
        port.configure(&config, std::slice::from_ref(&pool))?;
        let (rx, tx) = port.start()?;
        let mac = port.mac()?;
        ports.push(port);
        let queues = rx.into_iter().next().zip(tx.into_iter().next());
        Ok((mac, queues.ok_or_else(|| BenchError::Failed("a port has no queues".to_owned()))?))
    };
    let mut traveller = match work {
        Work::Count | Work::Leave => None,
        Work::Trips => {
            let (mac, queues) = open(true)?;
            Some(Trip::new(pool.clone(), queues, mac, eal.tsc_hz()))
        }
    };
    let mut senders = Vec::new();
    for (number, &length) in (1..).zip(lengths) {
        let (mac, (_, tx)) = open(false)?;
        senders.push(Sender { tx, batch: Batch::new(), frame: frame(number, mac, length), length });
    }

    say(READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.doing(|| "read a command".to_owned())?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let answer = match (&mut traveller, numbers.as_slice()) {
            (None, &[milliseconds]) if work == Work::Leave => {
                unused::watch(&pool, &mut senders, eal.tsc_hz(), milliseconds)?
            }
            (None, &[milliseconds]) => count(&pool, &mut senders, eal.tsc_hz(), milliseconds).answer(),
            (Some(traveller), &[rate, busy, milliseconds]) => {
                let (mine, time) =
                    (if busy == 0 { &mut [][..] } else { &mut senders }, Duration::from_millis(milliseconds));
                let bulk = || mine.iter_mut().for_each(|sender| _ = sender.send(&pool));
                answer(traveller.window(rate, time, bulk)?)
            }
            _ => return Err(BenchError::Failed(format!("{line:?} is not understood"))),
        };
        say(&format!("{ANSWER}{answer}\n"))?;
    }
    Ok(())
}

/// One app's port, and what it sends. What kopid has not taken yet stays in the batch, as in an application that loses
/// nothing.
pub(super) struct Sender {
    tx: TxQueue,
    batch: Batch,
    frame: Vec<u8>,
    length: u16,
}

impl Sender {
    /// Sends what there is room for, and says how many frames that were.
    #[inline]
    pub(super) fn send(&mut self, pool: &Pool) -> u64 {
        if self.batch.is_empty() && pool.fill(&mut self.batch, Batch::MAX) {
            self.batch.iter_mut().for_each(|mbuf| mbuf.frame_mut(self.length).copy_from_slice(&self.frame));
        }
        self.tx.send(&mut self.batch).into()
    }
}

/// Sends for so long, by a clock of `hz`, and counts.
fn count(pool: &Pool, senders: &mut [Sender], hz: u64, milliseconds: u64) -> Window {
    let cycles = hz / 1000 * milliseconds;
    let mut frames = vec![0; senders.len()];
    let start = tsc();
    loop {
        for (sender, frames) in senders.iter_mut().zip(&mut frames) {
            *frames += sender.send(pool);
        }
        let took = tsc() - start;
        if took >= cycles {
            return Window { frames, nanoseconds: tsc::nanoseconds(took, hz) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let window = Window { frames: vec![7, 0, 9], nanoseconds: 9 };
        assert_eq!(Window::parse(&window.answer()), Some(window));
        assert_eq!(Window::parse("{}"), None);
    }
}

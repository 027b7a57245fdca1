//! A small DPDK application for tests: sends, receives or echoes sequence-numbered frames, or any that it is given.
//!
//! `kopi-seq EAL-ARGUMENTS -- send|receive|echo|pipe OPTIONS`. It says `{"ready": …}` on a line of its own when its port is
//! started, and ends with one line of JSON that tells what it saw; exit code 0 if all was well. Flow *f* goes through
//! queue *f* modulo the number of queues, so the order within a flow is defined.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use dpdk::{Batch, Eal, Mbuf, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue};
use kopi_testkit::frames::Mac;
use kopi_testkit::peer::ACK_STEP;
use kopi_testkit::piped::{frames_of_stdin, line_of};
use kopi_testkit::seq::{Receiver, Sender};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// Packet buffers: what the rings of 16 queues hold, and some.
const MBUFS: u32 = 16383;
/// Turns without a frame after which the CPU is left to others for a moment.
const IDLE_TURNS: u32 = 64;
/// How long a receiver stays to repeat its last acknowledgement, and how often it does.
const LINGER: Duration = Duration::from_millis(200);
const REPEAT: Duration = Duration::from_millis(10);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Send,
    Receive,
    Echo,
    /// Send the frames that stand in hexadecimal on the lines of the input, and write down those that come
    Pipe,
}

/// Sends, receives or echoes sequence-numbered frames.
#[derive(Debug, Parser)]
struct Arguments {
    mode: Mode,
    /// Queues in each direction
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// MTU in bytes
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
    /// Frames in all
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Flows that they belong to
    #[arg(long, default_value_t = 8)]
    flows: u16,
    /// Shortest frame in bytes without FCS
    #[arg(long, default_value_t = 60)]
    min: u16,
    /// Longest frame in bytes without FCS
    #[arg(long, default_value_t = 1514)]
    max: u16,
    /// Frames that may be unacknowledged
    #[arg(long, default_value_t = 256)]
    window: u64,
    /// MAC address of the receiver
    #[arg(long, default_value = "ff:ff:ff:ff:ff:ff", value_parser = parse_mac)]
    to: Mac,
    /// Have so few packet buffers, and keep received ones until there is none left
    #[arg(long)]
    hoard: Option<u32>,
    /// Seconds without progress after which to give up
    #[arg(long, default_value_t = 20)]
    patience: u64,
}

fn parse_mac(text: &str) -> Result<Mac, String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("`{text}` is no MAC address"))
}

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            let fine = report["problem"].is_null();
            drop(writeln!(io::stdout(), "{report}"));
            if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            drop(writeln!(io::stderr(), "kopi-seq: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<Value> {
    let mut eal_args: Vec<String> = std::env::args().skip(1).collect();
    let at =
        eal_args.iter().position(|word| word == "--").ok_or("there is no `--` between EAL's arguments and ours")?;
    let own = eal_args.split_off(at);
    let arguments = Arguments::parse_from(std::iter::once("kopi-seq".to_owned()).chain(own.into_iter().skip(1)));

    let eal = Eal::init(&eal_args)?;
    let _thread = eal.register_thread();
    let frame_max = arguments.mtu.max(2048) + 64;
    // With pages of 4 KiB and jumbo frames, fewer buffers are enough.
    let mbufs = arguments.hoard.unwrap_or(if arguments.mtu > 2000 { MBUFS / 4 } else { MBUFS });
    let pool =
        Pool::new(&eal, PoolConfig { name: "kopi-seq", mbufs, cache: mbufs.min(256) / 2, frame_max, socket: None })?;
    let mut port = Port::by_name(&eal, "net_kopi0")?;
    let queues = arguments.queues;
    let config = PortConfig {
        rx_queues: queues,
        tx_queues: queues,
        mtu: Some(arguments.mtu),
        one_pool: true,
        ..Default::default()
    };
    port.configure(&config, std::slice::from_ref(&pool))?;
    let (rx, tx) = port.start()?;
    let own = port.mac()?;
    writeln!(io::stdout(), "{}", json!({ "ready": own }))?;
    io::stdout().flush()?;
    let batches = (0..queues).map(|_| Batch::new()).collect();
    let mut ends = Ends { rx, tx, batches, pool: pool.clone(), idle: 0 };
    let report = match arguments.mode {
        Mode::Send => ends.send(&arguments, own),
        Mode::Receive => ends.receive(&arguments, own, || port.stats().map_or(0, |stats| stats.rx_no_mbuf)),
        Mode::Echo => ends.echo(),
        Mode::Pipe => ends.pipe(),
    };
    drop(ends);
    // The daemon tells a port what it dropped ten times a second.
    let told = Instant::now() + Duration::from_millis(if report.is_ok() { 150 } else { 0 });
    while Instant::now() < told {
        std::thread::yield_now();
    }
    let stats = port.stats()?;
    let mut drops = port.xstats()?;
    drops.retain(|(name, value)| *value > 0 && name.contains("drop"));
    port.stop()?;
    let mut report = report?;
    report["stats"] =
        json!({ "rx": stats.rx_packets, "tx": stats.tx_packets, "tx_errors": stats.tx_errors, "drops": drops });
    Ok(report)
}

/// All queues of the port. What could not be sent yet waits in a batch for each.
struct Ends {
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    batches: Vec<Batch>,
    pool: Pool,
    idle: u32,
}

impl Ends {
    /// Hands every received frame to `take`, and returns how many there were. The buffers go back, or to `keep`.
    fn poll(&mut self, mut take: impl FnMut(&[u8]), mut keep: Option<&mut Vec<Mbuf>>) -> Outcome<usize> {
        let mut frames = 0;
        for queue in &mut self.rx {
            let mut batch = Batch::new();
            queue.receive(&mut batch);
            frames += batch.len();
            for mut mbuf in batch.drain() {
                mbuf.linearize()?;
                take(mbuf.data());
                if let Some(keep) = &mut keep {
                    keep.push(mbuf);
                }
            }
        }
        Ok(frames)
    }

    /// Tries to send what waits, and returns how much went.
    fn flush(&mut self) -> u64 {
        self.tx.iter_mut().zip(&mut self.batches).map(|(queue, batch)| u64::from(queue.send(batch))).sum()
    }

    /// Leaves the CPU to others, if there has been nothing to do for a while.
    fn rest(&mut self, busy: bool) {
        self.idle = if busy { 0 } else { self.idle + 1 };
        if self.idle > IDLE_TURNS {
            std::thread::yield_now();
        }
    }

    fn buffer(&self, length: u16, write: impl FnOnce(&mut [u8])) -> Option<Mbuf> {
        let mut mbuf = self.pool.take()?;
        write(mbuf.frame_mut(length));
        Some(mbuf)
    }

    fn send(&mut self, arguments: &Arguments, own: Mac) -> Outcome<Value> {
        let Arguments { count, flows, min, max, window, to, .. } = *arguments;
        let mut sender = Sender::new(own, to, count, flows, min..=max, window);
        let mut progress = Progress::new(arguments.patience);
        while !sender.is_done() && progress.is_hopeful() {
            while let Some((flow, length)) = sender.peek() {
                let queue = usize::from(flow) % self.batches.len();
                if self.batches[queue].is_full() {
                    break;
                }
                let Some(mbuf) = self.buffer(length, |frame| sender.write(frame)) else { break };
                self.batches[queue].push(mbuf).map_err(|_| "a batch has no room")?;
            }
            let sent = self.flush();
            let before = sender.acknowledged();
            let heard = self.poll(|frame| sender.hear(frame), None)?;
            if sender.acknowledged() != before {
                progress.made();
            }
            self.rest(sent > 0 || heard > 0);
        }
        let (sent, had) = (sender.sent(), sender.acknowledged());
        let problem = (!sender.is_done()).then(|| format!("sent {sent} of {count}, the receiver has {had}"));
        Ok(json!({ "mode": "send", "sent": sent, "acknowledged": had, "problem": problem }))
    }

    fn receive(&mut self, arguments: &Arguments, own: Mac, no_mbuf: impl Fn() -> u64) -> Outcome<Value> {
        let Arguments { count, flows, min, max, .. } = *arguments;
        let mut receiver = Receiver::new(own, count, flows, min..=max);
        let mut progress = Progress::new(arguments.patience);
        let mut done: Option<Instant> = None;
        let mut hoarded = arguments.hoard.map(|_| Vec::new());
        let mut no_mbufs = 0;
        while receiver.problem().is_none() && done.is_none_or(|at| at.elapsed() < LINGER) && progress.is_hopeful() {
            let heard = self.poll(|frame| receiver.take(frame), hoarded.as_mut())?;
            if hoarded.is_some() {
                no_mbufs = no_mbuf();
                hoarded = hoarded.filter(|_| no_mbufs == 0);
            }
            if heard > 0 {
                progress.made();
            }
            if receiver.is_done() && done.is_none() {
                done = Some(Instant::now());
            }
            // A quiet moment acknowledges what there is; a quiet while repeats it, in case it was lost.
            let step = if progress.is_quiet(REPEAT) { 0 } else { ACK_STEP };
            let step = if done.is_some() { step.min(1) } else { step };
            if let Some(frame) = receiver.acknowledge(step)
                && !self.batches[0].is_full()
            {
                let mbuf = self.buffer(frame.len().try_into()?, |to| to.copy_from_slice(&frame));
                mbuf.map(|mbuf| self.batches[0].push(mbuf)).transpose().map_err(|_| "a batch has no room")?;
            }
            let sent = self.flush();
            self.rest(heard > 0 || sent > 0);
        }
        let problem = receiver
            .problem()
            .map(str::to_owned)
            .or_else(|| (!receiver.is_done()).then(|| format!("only {} of {count} frames came", receiver.received())));
        Ok(json!({
            "mode": "receive", "received": receiver.received(), "bytes": receiver.bytes(),
            "other": receiver.other(), "hoarded_until_nombuf": no_mbufs, "problem": problem,
        }))
    }

    /// Sends every frame back to where it came from, until the process is killed.
    fn echo(&mut self) -> Outcome<Value> {
        loop {
            let mut busy = false;
            for ((rx, tx), batch) in self.rx.iter_mut().zip(&mut self.tx).zip(&mut self.batches) {
                let old = batch.len();
                rx.receive(batch);
                for mbuf in batch.iter_mut().skip(old) {
                    mbuf.linearize()?;
                    if let Some((destination, source)) =
                        mbuf.data_mut().get_mut(..12).and_then(|macs| macs.split_at_mut_checked(6))
                    {
                        destination.swap_with_slice(source);
                    }
                }
                busy |= tx.send(batch) > 0;
            }
            self.rest(busy);
        }
    }

    /// Sends the frames of the input and writes down those that come, until the input ends.
    fn pipe(&mut self) -> Outcome<Value> {
        let input = frames_of_stdin();
        let mut sent = 0;
        loop {
            let mut open = true;
            while !self.batches[0].is_full() {
                let frame = match input.try_recv() {
                    Ok(frame) => frame,
                    Err(error) => {
                        open = error == TryRecvError::Empty;
                        break;
                    }
                };
                let mbuf = self.buffer(frame.len().try_into()?, |to| to.copy_from_slice(&frame));
                let mbuf = mbuf.ok_or("there is no packet buffer")?;
                self.batches[0].push(mbuf).map_err(|_| "a batch has no room")?;
            }
            let now = self.flush();
            sent += now;
            let mut lines = String::new();
            let heard = self.poll(|frame| lines.push_str(&(line_of(frame) + "\n")), None)?;
            if heard > 0 {
                io::stdout().write_all(lines.as_bytes())?;
                io::stdout().flush()?;
            }
            if !open && self.batches[0].is_empty() {
                return Ok(json!({ "mode": "pipe", "sent": sent, "problem": null }));
            }
            self.rest(heard > 0 || now > 0);
        }
    }
}

/// When something last went forward.
struct Progress {
    last: Instant,
    repeated: Instant,
    patience: Duration,
}

impl Progress {
    fn new(seconds: u64) -> Self {
        Self { last: Instant::now(), repeated: Instant::now(), patience: Duration::from_secs(seconds) }
    }

    fn made(&mut self) {
        self.last = Instant::now();
    }

    fn is_hopeful(&self) -> bool {
        self.last.elapsed() < self.patience
    }

    /// Whether nothing went forward for `time`; true once in each such time.
    fn is_quiet(&mut self, time: Duration) -> bool {
        let quiet = self.last.elapsed() >= time && self.repeated.elapsed() >= time;
        if quiet {
            self.repeated = Instant::now();
        }
        quiet
    }
}

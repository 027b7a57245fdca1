//! The application of the wake-up benchmark: one thread sends, another one sleeps until something comes.
//!
//! The sleeper waits with one poll(2) for the receive interrupt of its port and for a UDP socket of the kernel's, and what it
//! is sent comes to the two in turn. So both are measured in the same moments of the same machine. Each frame and datagram
//! carries the time stamp counter from right before it was sent; it is read again when poll has returned. Both threads are on
//! one core, as far from kopid's worker as two cores allow, and the sender sleeps after each sending.
//!
//! It takes a line with a number of frames and a pause in microseconds on standard input, and answers with one line of JSON.

use std::io::{self, BufRead};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use dpdk::{Batch, Eal, Handle, Mbuf, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue, tsc};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::{Calls, Wakes};
use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};

/// The subcommand of this program that runs the application.
pub(crate) const COMMAND: &str = "wake-app";
/// What it prints when its ports are up.
pub(super) const READY: &str = "wake-app: ready\n";
/// What it prints before each answer.
pub(super) const ANSWER: &str = "wake-app: wakes ";

const FRAME_LEN: u16 = 64;
/// Where the time stamp lies, behind an Ethernet header.
const STAMP: usize = 14;
/// A protocol number for experiments (IEEE Std 802, "local experimental Ethertype 1").
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Longest wait for the next frame.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// The longest time that a histogram holds, in nanoseconds.
const LONGEST_NS: u64 = 10_000_000_000;

/// Runs the application until its standard input ends.
///
/// # Errors
///
/// When DPDK or a port does not come up, or a line is not understood.
pub(crate) fn run(core: usize, eal_args: &[String]) -> Result<()> {
    let eal = Eal::init(eal_args)?;
    pin(core)?;
    let config = PoolConfig { name: "wakes", mbufs: 4095, cache: 128, frame_max: 2048, socket: None };
    let pool = Pool::new(&eal, config)?;
    let (_near, _, tx) = open(&eal, &pool, 0)?;
    let (far, rx, _) = open(&eal, &pool, 1)?;
    let mac = far.mac()?;
    let ours = UdpSocket::bind("127.0.0.1:0").doing(|| "make a socket".to_owned())?;
    let theirs = UdpSocket::bind("127.0.0.1:0").doing(|| "make a socket".to_owned())?;
    let address = theirs.local_addr().doing(|| "make a socket".to_owned())?;
    ours.connect(address).doing(|| "connect a socket".to_owned())?;
    let mut sender = Sender { pool, tx, mac, socket: ours };
    let mut sleeper = Some(Sleeper { rx, socket: theirs, hz: eal.tsc_hz() });
    say(READY)?;
    for line in io::stdin().lock().lines() {
        let line = line.doing(|| "read a command".to_owned())?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let (&[count, pause], Some(sleeps)) = (numbers.as_slice(), sleeper.take()) else {
            return Err(BenchError::Failed(format!("{line:?} is not two numbers")));
        };
        let handle = eal.handle();
        let thread = std::thread::spawn(move || sleeps.window(core, &handle, count));
        for _ in 0..count {
            std::thread::sleep(Duration::from_micros(pause));
            sender.send_frame()?;
            std::thread::sleep(Duration::from_micros(pause));
            sender.send_datagram()?;
        }
        let (back, wakes) = thread.join().map_err(|_| BenchError::Failed("the sleeper panicked".to_owned()))??;
        sleeper = Some(back);
        say(&format!("{ANSWER}{}\n", answer(wakes)))?;
    }
    Ok(())
}

/// The application's answer, as JSON.
pub(super) fn answer(wakes: Wakes) -> String {
    let one = |Calls { count, p50_ns, p99_ns }: Calls| json!({ "count": count, "p50_ns": p50_ns, "p99_ns": p99_ns });
    json!({ "kopi": one(wakes.kopi), "udp": one(wakes.udp) }).to_string()
}

fn open(eal: &Eal, pool: &Pool, id: u16) -> Result<(Port, RxQueue, TxQueue)> {
    let mut port = Port::by_id(eal, id)?;
    let config = PortConfig { rx_interrupts: true, ..PortConfig::default() };
    port.configure(&config, std::slice::from_ref(pool))?;
    let (rx, tx) = port.start()?;
    match (rx.into_iter().next(), tx.into_iter().next()) {
        (Some(rx), Some(tx)) => Ok((port, rx, tx)),
        _ => Err(BenchError::Failed("the port has no queues".to_owned())),
    }
}

/// The sending side.
struct Sender {
    pool: Pool,
    tx: TxQueue,
    /// The sleeper's address.
    mac: [u8; 6],
    socket: UdpSocket,
}

impl Sender {
    fn send_frame(&mut self) -> Result<()> {
        let no_buffer = || BenchError::Failed("no packet buffer is left".to_owned());
        let mut mbuf = self.pool.take().ok_or_else(no_buffer)?;
        let bytes = mbuf.frame_mut(FRAME_LEN);
        bytes.fill(0);
        bytes[..6].copy_from_slice(&self.mac);
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0x99, 0x99, 0x98]);
        bytes[12..STAMP].copy_from_slice(&ETHERTYPE);
        bytes[STAMP..STAMP + 8].copy_from_slice(&tsc().to_le_bytes());
        let mut batch = Batch::new();
        batch.push(mbuf).map_err(|_: Mbuf| BenchError::Failed("the batch is full".to_owned()))?;
        if self.tx.send(&mut batch) == 1 { Ok(()) } else { Err(BenchError::Failed("kopid takes no frame".to_owned())) }
    }

    fn send_datagram(&self) -> Result<()> {
        let sent = self.socket.send(&tsc().to_le_bytes());
        sent.map(drop).doing(|| "send a datagram".to_owned())
    }
}

/// The sleeping side.
struct Sleeper {
    rx: RxQueue,
    socket: UdpSocket,
    hz: u64,
}

impl Sleeper {
    /// Sleeps until `count` frames and as many datagrams have come.
    fn window(mut self, core: usize, handle: &Handle, count: u64) -> Result<(Self, Wakes)> {
        pin(core)?;
        let _registered = handle.register_thread()?;
        let event = self.rx.interrupt().ok_or_else(|| BenchError::Failed("there is no interrupt".to_owned()))?;
        let (mut kopi, mut udp) = (histogram()?, histogram()?);
        let mut batch = Batch::new();
        while kopi.len() < count || udp.len() < count {
            self.rx.set_interrupt(true);
            let mut polled = [event.as_fd(), self.socket.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let ready = poll(&mut polled, Some(&PATIENCE)).unwrap_or(0);
            let now = tsc();
            let [framed, datagram] = polled.map(|fd| !fd.revents().is_empty());
            if ready == 0 {
                let (frames, datagrams) = (kopi.len(), udp.len());
                return Err(BenchError::Failed(format!("of {count}, {frames} frames and {datagrams} datagrams came")));
            }
            self.rx.set_interrupt(false);
            if framed {
                let _count = rustix::io::read(&event, &mut [0; 8]);
                self.rx.receive(&mut batch);
                for mbuf in batch.drain() {
                    let bytes = mbuf.data();
                    if bytes.get(12..STAMP) == Some(&ETHERTYPE[..]) {
                        self.record(&mut kopi, now, bytes.get(STAMP..STAMP + 8));
                    }
                }
            }
            if datagram {
                let mut bytes = [0; 8];
                self.socket.recv(&mut bytes).doing(|| "receive a datagram".to_owned())?;
                self.record(&mut udp, now, Some(&bytes));
            }
        }
        Ok((self, Wakes { kopi: calls(&kopi), udp: calls(&udp) }))
    }

    fn record(&self, to: &mut Histogram<u64>, now: u64, stamp: Option<&[u8]>) {
        if let Some(stamp) = stamp.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes) {
            to.saturating_record(tsc::nanoseconds(now.saturating_sub(stamp), self.hz));
        }
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .map_err(|error| BenchError::Failed(format!("make a histogram: {error}")))
}

fn calls(histogram: &Histogram<u64>) -> Calls {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Calls { count: histogram.len(), p50_ns: at(0.5), p99_ns: at(0.99) }
}

//! The thread between the host port's rings and the kernel's TAP interface.

use super::tap_rx::TapRx;
use super::tap_tx::TapTx;
use super::{Gone, HostCounters};
use kopi_ring::message::Mac;
use kopi_ring::{Doorbell, Region, RxInterrupt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::setpriority_process;
use rustix::thread::{gettid, set_current_timer_slack};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};

/// Shortest and longest sleep, in nanoseconds. Each in a row is twice as long as the one before.
///
/// The shortest is what a frame for a busy kernel waits, and few enough frames arrive meanwhile for half of its ring. After the
/// longest, the thread has itself called.
const SLEEP_NS: RangeInclusive<i64> = 50_000..=1_000_000;
/// How late a sleep may end, in nanoseconds. The kernel's 50 µs are as long as the shortest sleep (`PR_SET_TIMERSLACK`,
/// prctl(2)).
const SLACK_NS: u64 = 1_000;
/// The thread's nice value. It is the kernel's NIC, whose work the kernel does before that of any process; so applications
/// that poll on the same CPU, and take all of it, do not keep the kernel's traffic waiting.
const NICE: i32 = -10;

/// Longest sleep of a thread that workers call, in nanoseconds. Orders wait for its end.
const LONGEST_NS: i64 = 100_000_000;

/// The doorbells between workers and the thread.
#[derive(Debug)]
pub struct Doorbells {
    /// Wakes workers that sleep at times.
    pub worker: Option<Arc<Doorbell>>,
    /// This thread's end of the doorbell that workers ring.
    pub own: Doorbell,
}

/// A command of the control thread.
#[derive(Debug)]
pub enum TapCommand {
    /// To use these files, one for each queue, since the interface was made again.
    Tap(Vec<OwnedFd>),
    /// To end.
    Stop,
}

/// Moves frames between rings and files.
#[derive(Debug)]
pub struct TapThread {
    queues: Vec<Queue>,
    offload: bool,
    commands: Receiver<TapCommand>,
    counters: Arc<HostCounters>,
    doorbell: Doorbell,
    sleep_ns: i64,
}

/// One queue of the interface, in both directions.
#[derive(Debug)]
struct Queue {
    /// `None` while the interface is gone.
    file: Option<OwnedFd>,
    rx: TapRx,
    tx: TapTx,
    /// Where workers are asked for a call when something is for `tx`.
    interrupt: RxInterrupt,
}

impl TapThread {
    /// A thread between `region`, of which it is the app's side, and `files`, one for each queue. `macs` are the port's addresses.
    #[must_use]
    pub fn new(
        region: &Region,
        files: Vec<OwnedFd>,
        offload: bool,
        doorbells: Doorbells,
        commands: Receiver<TapCommand>,
        (counters, macs): (Arc<HostCounters>, Arc<[Mac]>),
    ) -> Self {
        let queues = files.into_iter().enumerate().filter_map(|(at, file)| {
            let (rx, tx, interrupt) = (region.tx_producer(at)?, region.rx_consumer(at)?, region.rx_interrupt(at)?);
            Some(Queue {
                file: Some(file),
                rx: TapRx::new(rx, doorbells.worker.clone(), Arc::clone(&macs)),
                tx: TapTx::new(tx, offload),
                interrupt,
            })
        });
        let queues = queues.collect();
        Self { queues, offload, commands, counters, doorbell: doorbells.own, sleep_ns: *SLEEP_NS.start() }
    }

    /// Works until it is ordered to stop.
    pub fn run(&mut self) {
        if let Err(errno) = set_current_timer_slack(NonZeroU64::new(SLACK_NS)) {
            log::debug!("the host port sleeps longer than it is to: {errno}");
        }
        // To the kernel, a thread is what POSIX calls a process here (setpriority(2)).
        if let Err(errno) = setpriority_process(Some(gettid()), NICE) {
            log::debug!("the host port waits for its CPU as others do: {errno}");
        }
        while self.handle_orders() {
            if self.poll_once() > 0 {
                self.sleep_ns = *SLEEP_NS.start();
            } else {
                self.sleep();
            }
        }
    }

    /// Takes an order, if there is one; returns whether to go on.
    fn handle_orders(&mut self) -> bool {
        match self.commands.try_recv() {
            Ok(TapCommand::Tap(files)) => {
                let mut files = files.into_iter();
                for queue in &mut self.queues {
                    queue.file = files.next();
                    queue.rx.forget();
                }
                true
            }
            Ok(TapCommand::Stop) | Err(TryRecvError::Disconnected) => false,
            Err(TryRecvError::Empty) => true,
        }
    }

    /// Moves what there is, up to a burst each way in each queue; returns how many frames that were.
    fn poll_once(&mut self) -> usize {
        let mut moved = 0;
        let mut gone = false;
        for queue in &mut self.queues {
            let Some(file) = &queue.file else {
                moved += queue.tx.discard(&self.counters);
                continue;
            };
            for end in
                [queue.rx.poll_once(file, self.offload, &self.counters), queue.tx.poll_once(file, &self.counters)]
            {
                match end {
                    Ok(frames) => moved += frames,
                    Err(Gone) => gone = true,
                }
            }
        }
        if gone {
            self.queues.iter_mut().for_each(|queue| queue.file = None);
            self.counters.gone.store(true, Relaxed);
        }
        moved
    }

    /// Waits for the kernel's next frame, for a while that grows as long as nothing comes; workers' frames are found when it
    /// ends, so that several share a wake-up while there are many. When nothing has come for longer, workers are asked to call.
    fn sleep(&mut self) {
        // A frame that waits for room in its ring is not waited for again, and nobody calls when there is some.
        let stuck = self.queues.iter().any(|queue| queue.rx.is_stuck());
        if stuck || self.sleep_ns < *SLEEP_NS.end() {
            self.wait(self.sleep_ns);
            self.sleep_ns = (self.sleep_ns * 2).min(*SLEEP_NS.end());
            return;
        }
        let found = self.queues.iter().fold(false, |found, queue| queue.interrupt.enable() | found);
        if !found {
            self.wait(LONGEST_NS);
        }
        self.queues.iter().for_each(|queue| queue.interrupt.disable());
        self.doorbell.quiet();
    }

    fn wait(&self, nanoseconds: i64) {
        let waiting = self.queues.iter().filter(|queue| !queue.rx.is_stuck());
        let files = waiting.filter_map(|queue| queue.file.as_ref()).map(|file| PollFd::new(file, PollFlags::IN));
        let mut files: Vec<PollFd<'_>> = files.chain([PollFd::new(&self.doorbell, PollFlags::IN)]).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
        // An error is a signal, or memory that is short: then it was no sleep.
        let _ready = poll(&mut files, Some(&timeout));
    }
}

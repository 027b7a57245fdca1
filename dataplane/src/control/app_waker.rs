//! The thread that wakes applications which sleep.
//!
//! A wake-up is a system call on a futex that the application has, too, and the kernel looks at everybody who waits in the same
//! place for as long as it takes: nothing for a worker to do. It also costs a worker some microseconds for each sleeper, of which
//! one broadcast may wake all. So a worker only notes, a bit for each port, who is to be called, and this thread calls.
//!
//! - A worker makes a system call once a turn at most, to wake this thread, and only if that sleeps. What the two share is
//!   kopid's own. While there is much to call, the thread looks by itself, and no worker has to wake it: one broadcast to fifty
//!   sleepers costs a worker what one to fifty who poll does.
//! - A port is called once in `INTERVAL`, whatever comes, but for a few calls that it has saved up. The ports that are due
//!   take turns.
//! - Each call is timed, by the CPU time that it took. A user whose calls take long, a millisecond in ten seconds, is called by a
//!   thread of its own from then on ([`crate::control::peers`]).

use crate::control::peers::{QuietDoorbell, UserThread, thread_time};
use crate::ids::PortId;
use crate::worker::wake_requests::{BITS, Sheet, WakeRequests, wake};
use kopi_ring::WakeFutex;
use kopi_ring::need_wakeup::{self, barrier};
use rustix::event::Timespec;
use rustix::process::setpriority_process;
use rustix::thread::{futex, gettid, set_current_timer_slack};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A port is called once in this time on the average.
const INTERVAL: Duration = Duration::from_micros(50);
/// Calls that a port may save up.
const BURST: u64 = 64;
/// After so many calls in one go the thread looks once in `INTERVAL` for more before it sleeps, once for each call that it made: a
/// look costs less than a call, and less than it costs a worker to wake the thread. Who else is to be called then waits for the next look.
const MANY: u32 = 16;
/// As often at most: for two milliseconds.
const MOST_LOOKS: u32 = 40;
/// The thread runs before ordinary ones: an application that polls on the same CPU would else delay everybody's calls.
const NICE: i32 = -10;
/// How late the end of a pause may be, in nanoseconds.
const SLACK_NS: u64 = 1_000;

/// How an application is reached.
#[derive(Debug)]
pub struct Reach {
    /// The thread of its user.
    pub user: Arc<UserThread>,
    /// What wakes it, if it sleeps at times.
    pub futex: Option<WakeFutex>,
    /// Its doorbell, if workers sleep at times.
    pub doorbell: Option<QuietDoorbell>,
}

/// The thread, for the control thread. It ends with this.
#[derive(Debug)]
pub struct AppWaker {
    ports: Sender<(PortId, Option<Reach>)>,
    need_wakeup: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl AppWaker {
    /// Starts the thread, for `workers` workers and `ports` ports, under a TSC of `hz` ticks a second.
    ///
    /// # Errors
    ///
    /// The system's, if there is no thread to be had.
    pub fn start(workers: usize, ports: usize, hz: u64) -> std::io::Result<(Self, Vec<WakeRequests>)> {
        let need_wakeup = Arc::new(AtomicU32::new(0));
        let words = ports.div_ceil(BITS);
        let empty = || (0..words).map(|_| AtomicU64::new(0)).collect();
        let sheets: Vec<_> = (0..workers).map(|_| Arc::new(Sheet { calls: empty(), quiets: empty() })).collect();
        let requests = sheets.iter().map(|sheet| WakeRequests::new(Arc::clone(sheet), Arc::clone(&need_wakeup)));
        let requests = requests.collect();
        let (sender, news) = channel();
        let interval = dpdk::tsc::ticks(INTERVAL, hz).max(1);
        let mut waker = Thread {
            sheets,
            need_wakeup: Arc::clone(&need_wakeup),
            news,
            ports: (0..ports).map(|_| Port::default()).collect(),
            wanted: vec![0; words],
            looks: 0,
            interval,
            hz,
        };
        // It inherits the control thread's CPUs: those without a worker, if there are any.
        let thread = std::thread::Builder::new().name("kopi-waker".to_owned()).spawn(move || waker.run())?;
        Ok((Self { ports: sender, need_wakeup, thread: Some(thread) }, requests))
    }

    /// Says how the application behind port `id` is reached from now on. Comes before a worker serves that port.
    pub fn set(&self, id: PortId, reach: Option<Reach>) {
        if self.ports.send((id, reach)).is_ok() {
            barrier();
            wake(&self.need_wakeup);
        }
    }

    /// Whether the thread still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for AppWaker {
    fn drop(&mut self) {
        // The other end of the channel sees that it is closed.
        self.ports = channel().0;
        barrier();
        wake(&self.need_wakeup);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that wakes applications had panicked");
        }
    }
}

/// One port, as the thread has it.
#[derive(Debug, Default)]
struct Port {
    reach: Option<Reach>,
    /// The TSC when its next call would be due if it had always been called once in an interval (GCRA, ITU-T I.371).
    due: u64,
    /// Whether the user's own thread is about to call it.
    asked: Arc<AtomicBool>,
}

/// The thread itself.
#[derive(Debug)]
struct Thread {
    sheets: Vec<Arc<Sheet>>,
    need_wakeup: Arc<AtomicU32>,
    news: Receiver<(PortId, Option<Reach>)>,
    ports: Vec<Port>,
    /// Ports that are to be called.
    wanted: Vec<u64>,
    /// Looks for more that are left before it sleeps.
    looks: u32,
    /// Ticks between two calls of a port.
    interval: u64,
    hz: u64,
}

impl Thread {
    fn run(&mut self) {
        if let Err(errno) = set_current_timer_slack(NonZeroU64::new(SLACK_NS)) {
            log::debug!("calls may come later than they are to: {errno}");
        }
        // To the kernel, a thread is what POSIX calls a process here (setpriority(2)).
        if let Err(errno) = setpriority_process(Some(gettid()), NICE) {
            log::debug!("sleeping applications are called with the priority of others: {errno}");
        }
        loop {
            if !self.learn() {
                return;
            }
            self.collect();
            let (next, calls) = self.call_due();
            if next == Some(0) {
                continue;
            }
            if calls >= MANY {
                self.looks = calls.min(MOST_LOOKS);
            }
            if let Some(looks) = self.looks.checked_sub(1) {
                self.looks = looks;
                // `need_wakeup` is not set, so nobody wakes the thread.
                let pause = self.timeout(next.map_or(self.interval, |next| next.min(self.interval)));
                let _outcome =
                    futex::wait(&self.need_wakeup, futex::Flags::PRIVATE, need_wakeup::AWAKE, pause.as_ref());
                continue;
            }
            // From here on a request makes a call; the one before is seen by this look.
            need_wakeup::set(&*self.need_wakeup);
            barrier();
            if !self.collect() && self.learn_is_idle() {
                let timeout = next.and_then(|ticks| self.timeout(ticks));
                // Whatever the reason for its return, everything is looked at again.
                let _outcome =
                    futex::wait(&self.need_wakeup, futex::Flags::PRIVATE, need_wakeup::SET, timeout.as_ref());
            }
            need_wakeup::clear(&*self.need_wakeup);
        }
    }

    /// Takes in what the control thread has said. Whether the thread is to go on.
    fn learn(&mut self) -> bool {
        loop {
            match self.news.try_recv() {
                Ok((id, reach)) => self.replace(id, reach),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// The same just before it sleeps. Whether there was nothing.
    fn learn_is_idle(&mut self) -> bool {
        match self.news.try_recv() {
            Ok((id, reach)) => {
                self.replace(id, reach);
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        }
    }

    fn replace(&mut self, id: PortId, reach: Option<Reach>) {
        if let Some(port) = self.ports.get_mut(usize::from(id)) {
            port.reach = reach;
        }
    }

    /// Takes in what the workers want. Whether there was anything.
    fn collect(&mut self) -> bool {
        let mut any = false;
        for sheet in &self.sheets {
            for (at, (calls, quiets)) in sheet.calls.iter().zip(&sheet.quiets).enumerate() {
                if calls.load(Relaxed) != 0 {
                    any = true;
                    if let Some(wanted) = self.wanted.get_mut(at) {
                        *wanted |= calls.swap(0, AcqRel);
                    }
                }
                if quiets.load(Relaxed) != 0 {
                    any = true;
                    let ports = bits(quiets.swap(0, AcqRel)).filter_map(|bit| self.ports.get(at * BITS + bit));
                    let reaches = ports.filter_map(|port| port.reach.as_ref());
                    reaches.filter_map(|reach| reach.doorbell.as_ref()).for_each(QuietDoorbell::quiet);
                }
            }
        }
        any
    }

    /// Calls every port that is to be called and is due, once. Returns in how many ticks the next one is, if any, and how many were
    /// called.
    fn call_due(&mut self) -> (Option<u64>, u32) {
        let (mut next, mut calls): (Option<u64>, u32) = (None, 0);
        for at in 0..self.wanted.len() {
            let word = self.wanted.get(at).copied().unwrap_or(0);
            for bit in bits(word) {
                let Some(port) = self.ports.get_mut(at * BITS + bit) else { continue };
                let wait = port.wait(dpdk::tsc(), self.interval);
                if wait > 0 {
                    next = Some(next.map_or(wait, |next| next.min(wait)));
                    continue;
                }
                if let Some(wanted) = self.wanted.get_mut(at) {
                    // Before the call, so that what comes behind it makes another one.
                    *wanted &= !(1 << bit);
                }
                calls += u32::from(port.call());
            }
        }
        (next, calls)
    }

    fn timeout(&self, ticks: u64) -> Option<Timespec> {
        Timespec::try_from(Duration::from_nanos(dpdk::tsc::nanoseconds(ticks, self.hz))).ok()
    }
}

impl Port {
    /// Ticks until it may be called, at `now`; none if it is called now, which this notes.
    fn wait(&mut self, now: u64, interval: u64) -> u64 {
        let saved = interval * BURST;
        let due = self.due.max(now.saturating_sub(saved));
        if due > now {
            return due - now;
        }
        self.due = due + interval;
        0
    }

    /// Calls it. Whether this thread did.
    fn call(&self) -> bool {
        let Some(Reach { user, futex: Some(futex), .. }) = &self.reach else { return false };
        if user.is_slow() {
            user.call(futex, &self.asked);
            return false;
        }
        let begun = thread_time();
        futex.wake();
        user.note_call(thread_time().saturating_sub(begun));
        true
    }
}

/// The numbers of the bits that are set in `word`.
fn bits(word: u64) -> impl Iterator<Item = usize> {
    (0..BITS).filter(move |bit| word >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::peers::Peers;
    use crate::worker::wake_requests::RINGS;
    use kopi_ring::{Doorbell, Geometry, HugePages, Region};
    use std::thread::park_timeout;
    use std::time::Instant;

    /// A TSC for tests, about as fast as that of the machine or slower: bounds below are generous.
    const HZ: u64 = 2_000_000_000;

    fn wake_futex() -> WakeFutex {
        let geometry = Geometry::new(&[64], &[64], 256).unwrap();
        Region::create(&geometry, HugePages::Off).unwrap().wake_futex()
    }

    fn reach(peers: &mut Peers, uid: u32, futex: &WakeFutex) -> Option<Reach> {
        Some(Reach { user: peers.user(uid), futex: Some(futex.clone()), doorbell: None })
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            park_timeout(Duration::from_millis(1));
        }
    }

    /// Who is noted is called, by any worker, however often the thread has slept in between; and nobody else is.
    #[test]
    fn who_is_noted_is_called() {
        let mut peers = Peers::new().unwrap();
        let (waker, mut workers) = AppWaker::start(2, 130, HZ).unwrap();
        let futexes: Vec<_> = (0..3).map(|_| wake_futex()).collect();
        for (id, futex) in [1, 64, 129].into_iter().zip(&futexes) {
            waker.set(id, reach(&mut peers, 1, futex));
        }
        for round in 1..100_u32 {
            for worker in &mut workers {
                worker.call(64);
                worker.kick();
            }
            until("a call is missing", || futexes[1].count() >= round);
        }
        workers[0].call(129);
        workers[0].call(200);
        workers[0].kick();
        until("a call is missing", || futexes[2].count() == 1);
        assert_eq!(futexes[0].count(), 0);
        assert!(waker.is_alive());
    }

    /// However often a port is to be called, it is called once in an interval, and what was noted last is not forgotten.
    #[test]
    fn calls_are_bounded_in_time() {
        let mut port = Port::default();
        let (mut now, mut calls) = (1_000_000, 0);
        for _ in 0..100_000 {
            now += 1;
            calls += u64::from(port.wait(now, 100) == 0);
        }
        assert!((1000..=1000 + BURST + 1).contains(&calls), "{calls}");
        assert!((1..=100).contains(&port.wait(now, 100)), "the next one is due within an interval");
    }

    /// After many calls at once the thread looks for more by itself for a while, and then sleeps until it is woken.
    #[test]
    fn many_calls_keep_it_looking() {
        let mut peers = Peers::new().unwrap();
        let (waker, mut workers) = AppWaker::start(1, 20, HZ).unwrap();
        let futexes: Vec<_> = (0..20).map(|_| wake_futex()).collect();
        for (id, futex) in (0..).zip(&futexes) {
            waker.set(id, reach(&mut peers, 1, futex));
        }
        // A busy machine may take the thread away for the whole of that time.
        let looked = (0..100_u32).any(|_| {
            let before: Vec<_> = futexes.iter().map(WakeFutex::count).collect();
            (0..20).for_each(|id| workers[0].call(id));
            workers[0].kick();
            until("a call is missing", || futexes.iter().zip(&before).all(|(futex, before)| futex.count() > *before));
            let count = futexes[3].count();
            workers[0].call(3);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(5) && futexes[3].count() == count {
                park_timeout(Duration::from_micros(100));
            }
            let looked = futexes[3].count() > count;
            workers[0].kick();
            until("a call is missing", || futexes[3].count() > count);
            looked
        });
        assert!(looked, "it never looked by itself");
        until("it looks without end", || waker.need_wakeup.load(Relaxed) == need_wakeup::SET);
    }

    /// A user whose calls took long is called all the same, by its own thread.
    #[test]
    fn slow_users_are_called_by_their_own_thread() {
        let mut peers = Peers::new().unwrap();
        let (waker, mut workers) = AppWaker::start(1, 3, HZ).unwrap();
        let (slow, other) = (wake_futex(), wake_futex());
        waker.set(1, reach(&mut peers, 1, &slow));
        waker.set(2, reach(&mut peers, 2, &other));
        peers.user(1).note_call(Duration::from_secs(1));
        assert!(peers.user(1).is_slow());
        for round in 1..20_u32 {
            workers[0].call(1);
            workers[0].call(2);
            workers[0].kick();
            until("a call is missing", || slow.count() >= round && other.count() >= round);
        }
    }

    /// An application that has gone is let go of at once, though the thread sleeps.
    #[test]
    fn who_is_gone_is_let_go_of() {
        let mut peers = Peers::new().unwrap();
        let (waker, mut workers) = AppWaker::start(1, 3, HZ).unwrap();
        let futex = wake_futex();
        waker.set(1, reach(&mut peers, 9, &futex));
        workers[0].call(1);
        workers[0].kick();
        until("a call is missing", || futex.count() == 1);
        waker.set(1, None);
        until("it is still held", || Arc::strong_count(&peers.user(9)) == 2);
        workers[0].call(1);
        workers[0].kick();
        drop(waker);
        assert_eq!(futex.count(), 1);
    }

    /// A doorbell that is rung again and again never stays full, though no worker reads from it.
    #[test]
    fn doorbells_are_quieted_now_and_then() {
        let mut peers = Peers::new().unwrap();
        let (waker, mut workers) = AppWaker::start(1, 3, HZ).unwrap();
        let (ours, theirs) = Doorbell::pair().unwrap();
        let doorbell = Some(peers.quieting(4, ours));
        waker.set(2, Some(Reach { user: peers.user(4), futex: None, doorbell }));
        let mut rings = 0;
        let full = || rustix::net::send(&theirs, &[1], rustix::net::SendFlags::DONTWAIT).is_err();
        until("it is never full", full);
        for _ in 0..RINGS {
            rings = workers[0].rung(2, rings);
        }
        assert_eq!(rings, 0);
        workers[0].kick();
        until("it stays full", || !full());
    }
}

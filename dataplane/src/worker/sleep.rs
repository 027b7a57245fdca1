//! What a worker does when there is nothing to do.
//!
//! With `idle = "poll"` it polls again at once. With `idle = "adaptive"` it does so for a while, then with pauses that leave the
//! core to its sibling, and then it sleeps until somebody calls: an app through its doorbell, the wire through its own
//! file descriptor if its driver has one, another worker or the control thread. Before it sleeps it sets `need_wakeup` of all
//! rings that it empties, and polls once more: frames that came before the flag was seen are found then, and all
//! later ones make a call ([`kopi_ring::need_wakeup`]).

use kopi_ring::Doorbell;
use kopi_ring::need_wakeup::{self, barrier};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::ids::PortId;

/// How long a worker goes on as if there was something to do: longer than an app takes to answer.
const SPIN: Duration = Duration::from_micros(50);
/// How long it has been idle when it goes to sleep. A sleep costs about ten microseconds of somebody's time; so it is never
/// more than a small part of what it saves.
const AWAKE: Duration = Duration::from_micros(250);
/// Longest sleep. It bounds what a lost call can do.
const MAX_SLEEP: Duration = Duration::from_millis(100);
/// Longest sleep of a worker that nobody tells of frames on its wire. Each poll costs some ten microseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Shortest sleep: below, the worker had better wait awake.
const SHORTEST: Duration = Duration::from_micros(60);
/// Calls taken at one time.
const EVENTS: usize = 16;
/// Bits of an event's number that say which port it is about; all ones for none.
const NOBODY: u64 = u64::MAX;
/// The number of events of a wire that is [`WireIrq::Level`].
const WIRE: u64 = NOBODY - 1;

/// By what others wake one worker.
#[derive(Debug)]
pub struct Waker {
    /// Whether it wants to be called, as with the rings of apps.
    need_wakeup: AtomicU32,
    event: OwnedFd,
}

impl Waker {
    /// Wakes the worker if it sleeps. To be called after what it is to see, and a [`barrier`].
    pub fn call(&self) {
        if need_wakeup::take(&self.need_wakeup) {
            // Nobody but this process has it, and it never fills up.
            let _written = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// What the control thread needs to know of a worker's sleep.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// By what it is woken.
    pub waker: Arc<Waker>,
    epoll: Arc<OwnedFd>,
}

impl WorkerHandle {
    /// Has the worker wake up for `doorbell`, that of port `id`, until the doorbell is closed.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn listen(&self, id: PortId, doorbell: &Doorbell) -> Result<(), Errno> {
        watch(&self.epoll, doorbell, EventData::new_u64(id.into()))
    }
}

/// The interrupt of a wire: how a sleeping worker learns of frames.
#[derive(Debug)]
pub enum WireIrq {
    /// Each frame that comes is a call.
    Edge(OwnedFd),
    /// Readable as long as there are frames, of which the driver may know later than this descriptor.
    Level(OwnedFd),
}

/// Waits for `source` from now on: for each time that something comes, and not for as long as something is there.
fn watch(epoll: &OwnedFd, source: impl AsFd, data: EventData) -> Result<(), Errno> {
    epoll::add(epoll, source, data, EventFlags::IN | EventFlags::ET)
}

/// What an idle worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looks again at once.
    Poll,
    /// Looks again after a moment.
    Pause,
    /// Sets `need_wakeup` everywhere and looks again.
    Arm,
    /// Sleeps, since the look after the flags were set has found nothing.
    Sleep,
}

/// The sleep of one worker.
#[derive(Debug)]
pub struct SleepState {
    handle: WorkerHandle,
    /// Whether the flags are set.
    armed: bool,
    /// The TSC when there was last something to do.
    since: u64,
    /// Ticks of the TSC in [`SPIN`], [`AWAKE`] and [`SHORTEST`].
    spin: u64,
    awake: u64,
    shortest: u64,
    /// Ticks that it may sleep at most, and those if nobody tells of frames on the wire.
    longest: u64,
    poll_interval: u64,
    hz: u64,
    /// What it watches of the wire.
    wire: Option<WireIrq>,
}

impl SleepState {
    /// The sleep of a worker whose clock makes `hz` ticks a second. If it receives from the wire, `wire` says how it learns of
    /// frames there; `Some(None)` if by nothing.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors or memory are short.
    pub fn new(hz: u64, wire: Option<Option<WireIrq>>) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        watch(&epoll, &event, EventData::new_u64(NOBODY))?;
        // A call can be lost where the kernel has no heavy barrier.
        let silent = wire.as_ref().is_some_and(Option::is_none) || !need_wakeup::heavy_barrier();
        let longest = if silent { POLL_INTERVAL } else { MAX_SLEEP };
        let wire = wire.flatten();
        match &wire {
            Some(WireIrq::Edge(fd)) => watch(&epoll, fd, EventData::new_u64(NOBODY))?,
            Some(WireIrq::Level(fd)) => epoll::add(&epoll, fd, EventData::new_u64(WIRE), EventFlags::IN)?,
            None => {}
        }
        let waker = Arc::new(Waker { need_wakeup: AtomicU32::new(0), event });
        let ticks = |span| dpdk::tsc::ticks(span, hz);
        Ok(Self {
            handle: WorkerHandle { waker, epoll: Arc::new(epoll) },
            armed: false,
            since: 0,
            spin: ticks(SPIN),
            awake: ticks(AWAKE),
            shortest: ticks(SHORTEST),
            longest: ticks(longest),
            poll_interval: ticks(POLL_INTERVAL),
            hz,
            wire,
        })
    }

    /// What others need to know of it.
    #[must_use]
    pub const fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    /// Notes that there was something to do until `now`. Whether flags have to be cleared.
    #[inline]
    pub const fn worked(&mut self, now: u64) -> bool {
        self.since = now;
        std::mem::replace(&mut self.armed, false)
    }

    /// What to do at `now`, after an iteration without anything to do.
    #[inline]
    #[must_use]
    pub const fn step(&self, now: u64) -> Step {
        let idle = now.saturating_sub(self.since);
        if self.armed {
            Step::Sleep
        } else if idle < self.spin {
            Step::Poll
        } else if idle < self.awake {
            Step::Pause
        } else {
            Step::Arm
        }
    }

    /// Asks for calls from the other threads of this process. The worker has set `need_wakeup` of its rings; the iteration that it makes
    /// next comes after all of them.
    pub fn arm(&mut self) {
        self.armed = true;
        need_wakeup::set(&self.handle.waker.need_wakeup);
        barrier();
        // The apps' barriers are light. Without this, naps are short.
        let _made_up = need_wakeup::heavy_barrier();
    }

    /// Asks for no more calls.
    pub fn disarm(&self) {
        need_wakeup::clear(&self.handle.waker.need_wakeup);
    }

    /// Sleeps from `now` until somebody calls, at most until `until`, if that is worth it; else returns at once. Gives the
    /// ports whose doorbells were rung to `rung`, and says whether there was any call.
    pub fn sleep(&mut self, now: u64, until: u64, mut rung: impl FnMut(PortId)) -> bool {
        let ticks = until.saturating_sub(now).min(self.longest);
        if ticks < self.shortest {
            return false;
        }
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.hz.max(1));
        let timeout = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        let mut room = [const { MaybeUninit::uninit() }; EVENTS];
        let epoll = &*self.handle.epoll;
        let mut woken = epoll::wait(epoll, &mut room, Some(&timeout)).map(|(events, _)| &*events);
        let mut again = [const { MaybeUninit::uninit() }; EVENTS];
        if woken.as_ref().is_err_and(|errno| *errno == Errno::NOSYS) {
            // Before Linux 5.11 there are only whole milliseconds.
            let short = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            woken = epoll::wait(epoll, &mut again, Some(&short)).map(|(events, _)| &*events);
        }
        let events: &[Event] = woken.unwrap_or_default();
        let ports = events.iter().filter_map(|event| PortId::try_from({ event.data }.u64()).ok());
        ports.for_each(&mut rung);
        let gone = EventFlags::ERR | EventFlags::HUP;
        let silent = events.iter().any(|event| { event.data }.u64() == WIRE && { event.flags }.intersects(gone));
        let called = !events.is_empty();
        // Who has called has taken a flag back: all of them are set anew.
        self.armed &= !called;
        if silent {
            self.stop_listening();
        }
        called
    }

    /// Looks at the wire by time from now on: what it was heard by is gone, and would say so without pause.
    #[cold]
    fn stop_listening(&mut self) {
        if let Some(WireIrq::Level(fd) | WireIrq::Edge(fd)) = self.wire.take() {
            // It is closed here in any case.
            let _removed = epoll::delete(&*self.handle.epoll, &fd);
        }
        self.longest = self.poll_interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const HZ: u64 = 1_000_000_000;

    /// A worker spins, pauses, sets its flags and sleeps, in this order, and begins anew when there was something to do.
    #[test]
    fn rest_deepens_with_time() {
        let mut sleep = SleepState::new(HZ, None).unwrap();
        assert!(!sleep.worked(1_000));
        let steps = [1_000, 50_999, 51_000, 250_999, 251_000].map(|now| sleep.step(now));
        assert_eq!(steps, [Step::Poll, Step::Poll, Step::Pause, Step::Pause, Step::Arm]);
        sleep.arm();
        assert_eq!(sleep.step(260_000), Step::Sleep);
        assert!(sleep.worked(270_000), "flags are set");
        assert_eq!(sleep.step(270_001), Step::Poll);
    }

    /// A call that was made after the flag was set ends a sleep, however early; one without a flag is none.
    #[test]
    fn calls_end_a_sleep() {
        let mut sleep = SleepState::new(HZ, None).unwrap();
        let waker = Arc::clone(&sleep.handle().waker);
        waker.call();
        sleep.arm();
        assert!(!sleep.sleep(0, 1_000_000, |_| ()), "called before the flag was set");
        assert_eq!(sleep.step(0), Step::Sleep, "flags are still set");
        waker.call();
        waker.call();
        let begun = Instant::now();
        assert!(sleep.sleep(0, u64::MAX, |_| ()));
        assert!(begun.elapsed() < MAX_SLEEP);
        assert_ne!(sleep.step(0), Step::Sleep, "the flag was taken back");
        sleep.arm();
        assert!(!sleep.sleep(0, 1_000_000, |_| ()), "one call for one flag");
    }

    /// A wire that is readable lets nobody sleep until the driver has read what is there; one that calls does so once.
    #[test]
    fn wires_end_a_sleep_as_they_say() {
        for (ear, again) in [(WireIrq::Level as fn(OwnedFd) -> WireIrq, true), (WireIrq::Edge, false)] {
            let wire = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
            let mut sleep = SleepState::new(HZ, Some(Some(ear(wire.try_clone().unwrap())))).unwrap();
            assert!(!sleep.sleep(0, 1_000_000, |_| ()), "nothing has come");
            rustix::io::write(&wire, &1_u64.to_ne_bytes()).unwrap();
            assert!(sleep.sleep(0, 1_000_000, |_| ()));
            assert_eq!(sleep.sleep(0, 1_000_000, |_| ()), again);
            rustix::io::read(&wire, &mut [0; 8]).unwrap();
            assert!(!sleep.sleep(0, 1_000_000, |_| ()), "all is read");
        }
    }

    /// A wire whose descriptor has gone bad is looked at by time.
    #[test]
    fn a_dead_ear_is_let_go() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut sleep = SleepState::new(HZ, Some(Some(WireIrq::Level(near.into())))).unwrap();
        drop(far);
        assert!(sleep.sleep(0, u64::MAX, |_| ()), "it says that it is gone");
        let begun = Instant::now();
        assert!(!sleep.sleep(0, u64::MAX, |_| ()), "and no more");
        assert!((POLL_INTERVAL..MAX_SLEEP).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    /// A doorbell ends a sleep once for each time that it rings, and says whose it is; a closed one is forgotten.
    #[test]
    fn doorbells_say_whose_they_are() {
        let mut sleep = SleepState::new(HZ, Some(None)).unwrap();
        let (daemon, app) = Doorbell::pair().unwrap();
        sleep.handle().listen(7, &daemon).unwrap();
        for _ in 0..3 {
            app.ring();
            let mut rung = Vec::new();
            assert!(sleep.sleep(0, u64::MAX, |id| rung.push(id)));
            assert_eq!(rung, [7]);
            assert!(!sleep.sleep(0, 1_000_000, |_| ()), "rung once");
        }
        app.ring();
        drop(daemon);
        assert!(!sleep.sleep(0, 1_000_000, |_| ()));
    }

    /// Nobody sleeps for longer than allowed, nor for moments that are not worth it.
    #[test]
    fn sleeps_are_bounded() {
        for (wire, most) in [(None, MAX_SLEEP), (Some(None), POLL_INTERVAL)] {
            let mut sleep = SleepState::new(HZ, wire).unwrap();
            let begun = Instant::now();
            assert!(!sleep.sleep(5, u64::MAX, |_| ()));
            assert!(begun.elapsed() >= most, "{:?}", begun.elapsed());
            let begun = Instant::now();
            (0..10_000).for_each(|_| assert!(!sleep.sleep(5, 59_000, |_| ())));
            assert!(begun.elapsed() < Duration::from_secs(1), "too short a time to sleep");
        }
    }
}

//! The thread that passes the daemon's wake-ups on to the application.
//!
//! Each RX queue with an interrupt has an eventfd of the application's own, which EAL, or any `epoll`, waits for. The daemon does
//! not write to it, since it could be made to block: it wakes the futex in the region, and this thread writes to the eventfds of
//! the queues that were meant.
//!
//! An enabled interrupt outlives the daemon: when the rings of the next one come, the control thread signals the queue, because the
//! application can only sleep on a ring that a burst has taken.

use crate::lanes::Lanes;
use crate::ring_slot::RingSlot;
use crate::{event, thread};
use kopi_ring::{Region, RxInterrupt, WakeFutex};
use rustix::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest wait on a futex before the thread looks whether the rings are still in use. The daemon may write to the futex and so
/// hide a wake-up.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// What the interrupt thread, the application's cores and the control thread share.
#[derive(Debug)]
pub(crate) struct IrqThread {
    /// By queue.
    events: Vec<OwnedFd>,
    state: Mutex<IrqState>,
    /// Signalled when there are other rings.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct IrqState {
    /// Those of the rings in use.
    sources: Option<Arc<Sources>>,
    /// The queues whose interrupts are enabled.
    enabled: Vec<bool>,
    stopping: bool,
}

/// What wakes the queues of one region.
#[derive(Debug)]
struct Sources {
    futex: WakeFutex,
    /// By queue, of all of its lanes.
    interrupts: Vec<Interrupts>,
}

/// The interrupts of a queue's lanes.
#[derive(Debug)]
struct Interrupts(Box<[RxInterrupt]>);

// Each of them is called, whatever the others say.
impl Interrupts {
    /// Those of queue `queue`, if there is one.
    fn of(region: &Region, queue: usize) -> Option<Self> {
        let lanes = usize::from(region.geometry().lanes());
        let begin = queue.saturating_mul(lanes);
        let rings = (begin..begin.saturating_add(lanes)).map(|ring| region.rx_interrupt(ring));
        rings.collect::<Option<_>>().map(Self)
    }

    /// Has the next frame of any lane wake the application, and returns whether any has frames already.
    fn enable(&self) -> bool {
        self.0.iter().fold(false, |found, lane| lane.enable() | found)
    }

    fn disable(&self) {
        self.0.iter().for_each(RxInterrupt::disable);
    }

    /// Whether the daemon has woken the application for any lane.
    fn take_wakeup(&self) -> bool {
        self.0.iter().fold(false, |woken, lane| lane.take_wakeup() | woken)
    }
}

impl IrqThread {
    /// For as many queues as there are eventfds in `events`. The thread is started by running [`IrqThread::run`] in it.
    pub(crate) fn new(events: Vec<OwnedFd>) -> Self {
        let state = IrqState { enabled: vec![false; events.len()], ..IrqState::default() };
        Self { events, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// What the application waits for, by queue.
    pub(crate) fn events(&self) -> &[OwnedFd] {
        &self.events
    }

    fn state(&self) -> MutexGuard<'_, IrqState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enables the interrupt of queue `index`, which shares `slot` with the control thread: its eventfd is signalled by the next
    /// frame, or at once if there is one already. Returns whether there is such a queue.
    pub(crate) fn enable(&self, index: u16, slot: &RingSlot<Lanes>) -> bool {
        let index = usize::from(index);
        let mut state = self.state();
        let (Some(event), Some(enabled)) = (self.events.get(index), state.enabled.get_mut(index)) else { return false };
        // What an earlier sleep has left there.
        event::drain(event);
        *enabled = true;
        let interrupt = state.sources.as_ref().and_then(|sources| sources.interrupts.get(index));
        // A ring that is offered and not taken yet may have frames, and it takes a burst to take it.
        if interrupt.is_some_and(|interrupt| interrupt.enable() || slot.is_offered()) {
            event::signal(event);
        }
        true
    }

    /// Disables the interrupt of queue `index`. Returns whether there is such a queue.
    pub(crate) fn disable(&self, index: u16) -> bool {
        let index = usize::from(index);
        let mut state = self.state();
        let Some(enabled) = state.enabled.get_mut(index) else { return false };
        *enabled = false;
        if let Some(interrupt) = state.sources.as_ref().and_then(|sources| sources.interrupts.get(index)) {
            interrupt.disable();
        }
        true
    }

    /// Watches the rings of `region`, which were offered to the queues, from now on. Signals the queues whose interrupts are
    /// enabled: they have to take their rings.
    pub(crate) fn watch(&self, region: &Region) {
        let interrupts = (0..self.events.len()).map_while(|queue| Interrupts::of(region, queue)).collect();
        let sources = Arc::new(Sources { futex: region.wake_futex(), interrupts });
        let mut state = self.state();
        state.sources = Some(sources);
        let sleeping = self.events.iter().zip(&state.enabled).filter(|(_, enabled)| **enabled);
        sleeping.for_each(|(event, _)| event::signal(event));
        drop(state);
        self.changed.notify_one();
    }

    /// Watches no rings any more, since those in use are about to go.
    pub(crate) fn unwatch(&self) {
        let sources = self.state().sources.take();
        if let Some(sources) = sources {
            sources.futex.wake();
        }
    }

    /// Makes [`run`](Self::run) return.
    pub(crate) fn stop(&self) {
        self.state().stopping = true;
        self.unwatch();
        self.changed.notify_one();
    }

    /// The body of the thread: passes wake-ups on until [`stop`](Self::stop).
    pub(crate) fn run(&self) {
        thread::go_anywhere();
        while let Some(sources) = self.sources() {
            let count = sources.futex.count();
            for (event, interrupt) in self.events.iter().zip(&sources.interrupts) {
                if interrupt.take_wakeup() {
                    event::signal(event);
                }
            }
            // Other rings may have taken their place before the count was read.
            let are_current = self.state().sources.as_ref().is_some_and(|now| Arc::ptr_eq(now, &sources));
            if are_current {
                sources.futex.wait(count, Some(MAX_WAIT));
            }
        }
    }

    /// Waits until there are rings in use; `None` when the thread has to end.
    fn sources(&self) -> Option<Arc<Sources>> {
        let waiting = |state: &mut IrqState| state.sources.is_none() && !state.stopping;
        let state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        if state.stopping { None } else { state.sources.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{lanes, region};
    use kopi_ring::Producer;
    use kopi_ring::layout::Notes;
    use kopi_ring::need_wakeup::barrier;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::thread::JoinHandle;

    /// An interrupt thread that runs without ethdev, for one queue. It ends when this is dropped.
    struct Running {
        irq: Arc<IrqThread>,
        thread: Option<JoinHandle<()>>,
    }

    impl Running {
        fn new() -> Self {
            let irq = Arc::new(IrqThread::new(vec![event::new().unwrap()]));
            let work = Arc::clone(&irq);
            Self { irq, thread: Some(std::thread::spawn(move || work.run())) }
        }

        /// Whether the eventfd is signalled within `ms` milliseconds.
        fn fires(&self, ms: i64) -> bool {
            let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
            poll(&mut [PollFd::new(&self.irq.events[0], PollFlags::IN)], Some(&timeout)).unwrap() > 0
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.irq.stop();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    /// A slot whose queue has taken its ring, and that ring.
    fn taken(region: &Region) -> (RingSlot<Lanes>, Option<Box<Lanes>>) {
        let slot = RingSlot::new();
        slot.offer(Box::new(Lanes::of(region, 0).unwrap()), None);
        let mut mine = None;
        assert!(slot.swap(&mut mine, &mut None));
        (slot, mine)
    }

    /// Sends a frame as the daemon does.
    fn send(ring: &mut Producer, futex: &WakeFutex) {
        assert!(ring.free(1).unwrap() > 0 && ring.push(&[1; 60], Notes::NONE));
        ring.publish();
        barrier();
        if ring.take_need_wakeup() {
            futex.wake();
        }
    }

    /// An enabled queue is signalled by the next frame, by one that is there already, and by nothing else.
    #[test]
    fn frames_signal_queues_that_are_enabled() {
        let region = region(64, 256);
        let (slot, mut ring) = taken(&region);
        let mut producer = region.rx_producer(0).unwrap();
        let running = Running::new();
        running.irq.watch(&region);
        send(&mut producer, &region.wake_futex());
        assert!(!running.fires(50), "not enabled");
        assert!(running.irq.enable(0, &slot) && running.fires(0), "a frame is there");
        let ring = &mut ring.as_mut().unwrap().first;
        for _ in 0..100 {
            while ring.poll().unwrap() > 0 {
                ring.next().unwrap().unwrap();
                ring.release();
            }
            running.irq.enable(0, &slot);
            assert!(!running.fires(0), "nothing is there");
            send(&mut producer, &region.wake_futex());
            assert!(running.fires(5000), "a frame has come");
            running.irq.disable(0);
        }
        assert!(!running.irq.enable(1, &slot) && !running.irq.disable(1), "no such queue");
    }

    /// An application that sleeps is woken by a frame in whichever lane, and not by those that it has emptied.
    #[test]
    fn each_lane_wakes_the_queue() {
        let region = lanes(3, 64);
        let (slot, mut mine) = taken(&region);
        let mine = mine.as_mut().unwrap();
        let mut producers: Vec<_> = (0..3).map(|lane| region.rx_producer(lane).unwrap()).collect();
        let running = Running::new();
        running.irq.watch(&region);
        for lane in [0, 2, 1, 1, 0, 2] {
            running.irq.enable(0, &slot);
            assert!(!running.fires(20), "nothing is there");
            send(&mut producers[lane], &region.wake_futex());
            assert!(running.fires(5000), "lane {lane}");
            running.irq.disable(0);
            running.irq.enable(0, &slot);
            assert!(running.fires(0), "a frame is there");
            for ring in mine.all_mut() {
                while ring.poll().unwrap() > 0 {
                    ring.next().unwrap().unwrap();
                    ring.release();
                }
            }
        }
    }

    /// An application that sleeps while the daemon is away is woken by the rings of the next one, and not before.
    #[test]
    fn sleep_outlasts_the_daemon() {
        let first = region(64, 256);
        let (slot, _ring) = taken(&first);
        let running = Running::new();
        running.irq.watch(&first);
        running.irq.enable(0, &slot);
        running.irq.unwatch();
        slot.set_away();
        assert!(!running.fires(50), "woken by the end of the daemon");
        let second = region(64, 256);
        slot.offer(Box::new(Lanes::of(&second, 0).unwrap()), None);
        running.irq.watch(&second);
        assert!(running.fires(0), "not woken for the new rings");
        // The application goes to sleep again without a burst.
        running.irq.enable(0, &slot);
        assert!(running.fires(0), "the new ring was not taken");
        // And now with one.
        let mut mine = None;
        assert!(slot.swap(&mut mine, &mut None));
        running.irq.enable(0, &slot);
        assert!(!running.fires(0));
        send(&mut second.rx_producer(0).unwrap(), &second.wake_futex());
        assert!(running.fires(5000), "the thread waits on the old futex");
    }
}

//! Receive interrupts: how an application sleeps until one of its RX queues has a frame.
//!
//! Each queue has an eventfd of the application's own, which EAL, or any `epoll`, waits for. The daemon does not write to
//! it, since it could be made to block: it wakes the futex in the region, and a thread of ours, the *relay*, writes to the
//! eventfds of the queues that were meant. There is a relay only for a port that was configured with receive interrupts.
//!
//! An enabled interrupt outlives the daemon: the rings of the next one begin with a call, since what the application
//! would have to arm is a ring that it takes up with its next burst.

use crate::affinity;
use crate::device::Device;
use crate::handoff::Handoff;
use crate::log::error;
use dpdk_sys as sys;
use kopi_ring::{Consumer, Region, RxInterrupt, WakeFutex};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd};
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait on a futex before the relay looks whether the rings are still in use. The daemon may write to the futex and
/// so hide a wake-up.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes that a reader takes out of an eventfd.
const COUNTER: u8 = 8;

/// The receive interrupts of one port, from its configuration on until the next one.
#[derive(Debug)]
pub(crate) struct Interrupts {
    relay: Arc<Relay>,
    thread: Option<JoinHandle<()>>,
    handle: Vectors,
}

/// What the application's cores, the control thread and the relay share.
#[derive(Debug)]
pub(crate) struct Relay {
    /// By queue.
    events: Vec<OwnedFd>,
    state: Mutex<State>,
    /// Signalled when there are other rings.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The rings in use.
    rings: Option<Arc<Rings>>,
    /// The queues whose interrupts are enabled.
    enabled: Vec<bool>,
    ended: bool,
}

/// The rings of one region, as far as sleeping goes.
#[derive(Debug)]
struct Rings {
    futex: WakeFutex,
    interrupts: Vec<RxInterrupt>,
}

impl Interrupts {
    /// Interrupts for `queues` queues of `device`, to which ethdev has access from now on.
    ///
    /// # Errors
    ///
    /// The system's, when file descriptors, memory or threads are short.
    pub(crate) fn new(device: Device, queues: u16) -> std::io::Result<Self> {
        let events = (0..queues).map(|_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let handle = Vectors::new(device, &events).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let state = State { enabled: vec![false; events.len()], ..State::default() };
        let relay = Arc::new(Relay { events, state: Mutex::new(state), changed: Condvar::new() });
        let work = Arc::clone(&relay);
        let thread = crate::driver::spawn("kopi-wake", move || work.run())?;
        Ok(Self { relay, thread: Some(thread), handle })
    }

    /// What others need of them.
    pub(crate) const fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.relay.end();
        if let Some(thread) = self.thread.take() {
            // Its own panic would have been its end; there is nothing to pass on.
            let _ended = thread.join();
        }
        self.handle.free();
    }
}

impl Relay {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has queue `index`, which shares `handoff` with the control thread, signal its eventfd with the next frame: at once if
    /// there is one already. Whether there is such a queue.
    pub(crate) fn enable(&self, index: u16, handoff: &Handoff<Consumer>) -> bool {
        let index = usize::from(index);
        let mut state = self.state();
        let (Some(event), Some(enabled)) = (self.events.get(index), state.enabled.get_mut(index)) else { return false };
        // What an earlier sleep has left there.
        let _read = rustix::io::read(event, &mut [0; COUNTER as usize]);
        *enabled = true;
        let interrupt = state.rings.as_ref().and_then(|rings| rings.interrupts.get(index));
        // A ring that is offered and not taken yet may have frames, and it takes a burst to take it.
        if interrupt.is_some_and(|interrupt| interrupt.enable() || handoff.is_offered()) {
            signal(event);
        }
        true
    }

    /// Ends what [`enable`](Self::enable) began. Whether there is such a queue.
    pub(crate) fn disable(&self, index: u16) -> bool {
        let index = usize::from(index);
        let mut state = self.state();
        let Some(enabled) = state.enabled.get_mut(index) else { return false };
        *enabled = false;
        if let Some(interrupt) = state.rings.as_ref().and_then(|rings| rings.interrupts.get(index)) {
            interrupt.disable();
        }
        true
    }

    /// The rings of `region`, which were offered to the queues, are in use from now on. Whoever sleeps has to take them.
    pub(crate) fn watch(&self, region: &Region) {
        let interrupts = (0..self.events.len()).map_while(|queue| region.rx_interrupt(queue)).collect();
        let rings = Arc::new(Rings { futex: region.wake_futex(), interrupts });
        let mut state = self.state();
        state.rings = Some(rings);
        let sleeping = self.events.iter().zip(&state.enabled).filter(|(_, enabled)| **enabled);
        sleeping.for_each(|(event, _)| signal(event));
        drop(state);
        self.changed.notify_one();
    }

    /// The rings in use are about to go, and are not looked at any more.
    pub(crate) fn unwatch(&self) {
        let rings = self.state().rings.take();
        if let Some(rings) = rings {
            rings.futex.wake();
        }
    }

    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        let rings = state.rings.take();
        drop(state);
        if let Some(rings) = rings {
            rings.futex.wake();
        }
        self.changed.notify_one();
    }

    /// Passes calls on until the end.
    fn run(&self) {
        affinity::go_anywhere();
        while let Some(rings) = self.rings() {
            let count = rings.futex.count();
            for (event, interrupt) in self.events.iter().zip(&rings.interrupts) {
                if interrupt.take_wakeup() {
                    signal(event);
                }
            }
            // Others may have taken their place before the count was read.
            if self.is_current(&rings) {
                rings.futex.wait(count, Some(PATIENCE));
            }
        }
    }

    /// The rings in use, as soon as there are any; `None` at the end.
    fn rings(&self) -> Option<Arc<Rings>> {
        let waiting = |state: &mut State| state.rings.is_none() && !state.ended;
        let state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        if state.ended { None } else { state.rings.clone() }
    }

    fn is_current(&self, rings: &Arc<Rings>) -> bool {
        self.state().rings.as_ref().is_some_and(|now| Arc::ptr_eq(now, rings))
    }
}

/// Makes `event` readable.
fn signal(event: &OwnedFd) {
    // Fails only when it is readable anyway.
    let _written = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// The eventfds as ethdev and EAL want to have them.
#[derive(Debug)]
struct Vectors {
    device: Device,
    handle: NonNull<sys::rte_intr_handle>,
}

impl Vectors {
    fn new(device: Device, events: &[OwnedFd]) -> Option<Self> {
        // SAFETY: makes a new object.
        let handle = NonNull::new(unsafe { sys::rte_intr_instance_alloc(sys::RTE_INTR_INSTANCE_F_PRIVATE) })?;
        let vectors = Self { device, handle };
        if vectors.fill(events).is_none() {
            error!("port {}: EAL does not take {} receive interrupts", device.port(), events.len());
            vectors.free();
            return None;
        }
        device.set_interrupts(handle.as_ptr());
        Some(vectors)
    }

    /// Enters the eventfds; `None` if EAL refuses something.
    fn fill(&self, events: &[OwnedFd]) -> Option<()> {
        let handle = self.handle.as_ptr();
        let done = |result: c_int| (result == 0).then_some(());
        let count = c_int::try_from(events.len()).ok()?;
        // SAFETY: a handle of ours.
        done(unsafe { sys::rte_intr_type_set(handle, sys::RTE_INTR_HANDLE_VDEV) })?;
        // SAFETY: as above. EAL's own waiting then takes the count out.
        done(unsafe { sys::rte_intr_efd_counter_size_set(handle, COUNTER) })?;
        // SAFETY: as above; the name is a C string that EAL does not keep.
        done(unsafe { sys::rte_intr_vec_list_alloc(handle, c"net_kopi".as_ptr(), count) })?;
        let first = c_int::try_from(sys::RTE_INTR_VEC_RXTX_OFFSET).ok()?;
        for (index, event) in (0..count).zip(events) {
            // SAFETY: as above.
            done(unsafe { sys::rte_intr_efds_index_set(handle, index, event.as_raw_fd()) })?;
            // SAFETY: as above.
            done(unsafe { sys::rte_intr_vec_list_index_set(handle, index, first.checked_add(index)?) })?;
        }
        // SAFETY: as above.
        done(unsafe { sys::rte_intr_nb_efd_set(handle, count) })
    }

    /// Takes everything back. No operation of the port runs now.
    fn free(&self) {
        let handle = self.handle.as_ptr();
        self.device.set_interrupts(std::ptr::null_mut());
        // SAFETY: a handle of ours, which ethdev does not know any more.
        unsafe { sys::rte_intr_free_epoll_fd(handle) };
        // SAFETY: as above.
        unsafe { sys::rte_intr_vec_list_free(handle) };
        // SAFETY: as above, and used no more.
        unsafe { sys::rte_intr_instance_free(handle) };
    }
}

// SAFETY: ethdev's operations, in which it is used, do not overlap; it may be dropped by any of them.
unsafe impl Send for Vectors {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::region;
    use kopi_ring::Producer;
    use kopi_ring::layout::Notes;
    use kopi_ring::need_wakeup::barrier;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// A relay that runs without ethdev, and ends with its value.
    struct Bench {
        relay: Arc<Relay>,
        thread: Option<JoinHandle<()>>,
    }

    impl Bench {
        fn new() -> Self {
            let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
            let state = Mutex::new(State { enabled: vec![false], ..State::default() });
            let relay = Arc::new(Relay { events: vec![event], state, changed: Condvar::new() });
            let work = Arc::clone(&relay);
            Self { relay, thread: Some(std::thread::spawn(move || work.run())) }
        }

        /// Whether the eventfd is signalled within `ms` milliseconds.
        fn fires(&self, ms: i64) -> bool {
            let patience = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
            poll(&mut [PollFd::new(&self.relay.events[0], PollFlags::IN)], Some(&patience)).unwrap() > 0
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.relay.end();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    /// A handoff whose queue has taken its ring.
    fn taken(region: &Region) -> (Handoff<Consumer>, Option<Box<Consumer>>) {
        let handoff = Handoff::new();
        handoff.offer(Box::new(region.rx_consumer(0).unwrap()), None);
        let mut mine = None;
        assert!(handoff.take(&mut mine, &mut None));
        (handoff, mine)
    }

    /// What the daemon does with a burst.
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
        let (handoff, mut ring) = taken(&region);
        let mut producer = region.rx_producer(0).unwrap();
        let bench = Bench::new();
        bench.relay.watch(&region);
        send(&mut producer, &region.wake_futex());
        assert!(!bench.fires(50), "not enabled");
        assert!(bench.relay.enable(0, &handoff) && bench.fires(0), "a frame is there");
        let ring = ring.as_mut().unwrap();
        for _ in 0..100 {
            while ring.poll().unwrap() > 0 {
                ring.next().unwrap().unwrap();
                ring.release();
            }
            bench.relay.enable(0, &handoff);
            assert!(!bench.fires(0), "nothing is there");
            send(&mut producer, &region.wake_futex());
            assert!(bench.fires(5000), "a frame has come");
            bench.relay.disable(0);
        }
        assert!(!bench.relay.enable(1, &handoff) && !bench.relay.disable(1), "no such queue");
    }

    /// Who sleeps while the daemon is away is woken by the rings of the next one, and not before.
    #[test]
    fn sleeper_survives_the_daemon() {
        let first = region(64, 256);
        let (handoff, _ring) = taken(&first);
        let bench = Bench::new();
        bench.relay.watch(&first);
        bench.relay.enable(0, &handoff);
        bench.relay.unwatch();
        handoff.set_away();
        assert!(!bench.fires(50), "woken by the end of the daemon");
        let second = region(64, 256);
        handoff.offer(Box::new(second.rx_consumer(0).unwrap()), None);
        bench.relay.watch(&second);
        assert!(bench.fires(0), "not woken for the new rings");
        // It goes to sleep again without a burst.
        bench.relay.enable(0, &handoff);
        assert!(bench.fires(0), "the new ring was not taken");
        // And now with one.
        let mut mine = None;
        assert!(handoff.take(&mut mine, &mut None));
        bench.relay.enable(0, &handoff);
        assert!(!bench.fires(0));
        send(&mut second.rx_producer(0).unwrap(), &second.wake_futex());
        assert!(bench.fires(5000), "the relay waits on the old futex");
    }
}

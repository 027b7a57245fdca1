//! The thread that keeps a port attached.
//!
//! Operations of the application change what is *wanted*; the thread makes the daemon agree, and does so again with the next
//! daemon when one has gone away. Only the thread exchanges messages with the daemon.

mod sharing;

use crate::devargs::Args;
use crate::device::Device;
use crate::lanes::{self, Lanes};
use crate::log::{Limiter, error, notice, warning};
use crate::memory::{MemoryWatch, Sharing};
use crate::memory_map::MemoryMap;
use crate::port_state::{CopyReason, FirstAttempt, FlowRules, PortState, Refusal, Rings, Want};
use crate::ring_slot::RingSlot;
use crate::rss::RssChoice;
use crate::session::{Lost, RequestError, Session, wait};
use crate::tx_publisher::TxPublisher;
use crate::{abi, event, thread};
use kopi_ring::message::{ALL_FLOW_RULES, FLOW_RULES, Hello, Message, Rss, Settings, Setup, Welcome};
use kopi_ring::{Doorbell, Geometry, Region};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use sharing::Memory;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Longest time that an operation waits for the daemon.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the thread looks for faults that queues have run into.
const TICK: Duration = Duration::from_millis(100);
/// First and longest time between two attempts to attach.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A connection that lasts this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// What a port's operations and its control thread share.
#[derive(Debug)]
pub(crate) struct Control {
    device: Device,
    args: Args,
    state: Mutex<PortState>,
    /// Signalled when the thread has handled something.
    handled: Condvar,
    /// Signalled when there is something to handle.
    wake: OwnedFd,
    /// Signalled, for good, when the thread is to end.
    stop: OwnedFd,
    stopping: AtomicBool,
    thread: OnceLock<ThreadId>,
    /// What becomes of the application's memory.
    memory: MemoryWatch,
    /// Whether the last connection was lost while memory was shared, or soon after that was refused: a daemon that does not get the
    /// files says so and ends the connection.
    lost_sharing: AtomicBool,
}

/// What the daemon has agreed to on this connection.
#[derive(Debug, Default)]
struct Agreed {
    /// Generation of the rings.
    rings: Option<u64>,
    rss: Option<Rss>,
    settings: Option<Settings>,
    /// Flow rules, whether or not the daemon has refused some of them. They stay when rings go.
    flow_rules: FlowRules,
    /// Whether the log says that the daemon has refused some.
    told_of_refusal: bool,
}

/// Pauses between attempts, each twice as long as the one before.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = now.saturating_mul(2).min(LONGEST_PAUSE);
        now
    }
}

impl Control {
    /// What `device` needs; the thread is started by running [`Control::run`] in it.
    ///
    /// # Errors
    ///
    /// The kernel's, if it is short of file descriptors.
    pub(crate) fn new(device: Device, args: Args) -> Result<Self, Errno> {
        let wake = event::new()?;
        let memory = MemoryWatch::new(device.port(), wake.try_clone().map_err(errno)?);
        Ok(Self {
            device,
            state: Mutex::new(PortState::new(&args)),
            args,
            memory,
            handled: Condvar::new(),
            wake,
            stop: event::new()?,
            stopping: AtomicBool::new(false),
            lost_sharing: AtomicBool::new(false),
            thread: OnceLock::new(),
        })
    }

    /// The device arguments.
    pub(crate) const fn args(&self) -> &Args {
        &self.args
    }

    /// The port's state. Held for short moments only, never while waiting for the daemon.
    pub(crate) fn state(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted, and waits until the daemon has agreed. Without a daemon, or with one that takes its
    /// time, the change stands, and the thread will see to it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the daemon refuses; the change is undone, and what others have changed meanwhile stays.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Want)) -> Result<(), Refusal> {
        let mut state = self.state();
        let before = state.want.clone();
        change(&mut state.want);
        if state.want == before || !state.attached {
            return Ok(());
        }
        let after = state.want.clone();
        let asked = state.ask();
        event::signal(&self.wake);
        if self.is_own_thread() {
            // A callback of the application, called by the thread, which therefore cannot answer now.
            return Ok(());
        }
        let waiting = |state: &mut PortState| state.answered < asked;
        let (mut state, _) =
            self.handled.wait_timeout_while(state, DAEMON_TIMEOUT, waiting).unwrap_or_else(PoisonError::into_inner);
        let refusal = state.refusal.take().filter(|refusal| refusal.asked == asked);
        if let Some(refusal) = refusal {
            state.want.undo(before, &after);
            state.ask();
            event::signal(&self.wake);
            return Err(refusal);
        }
        Ok(())
    }

    /// Waits for the first attempt to attach. A daemon that does not answer counts as absent.
    pub(crate) fn wait_for_first_attempt(&self) -> FirstAttempt {
        let waiting = |state: &mut PortState| state.first.is_none();
        let timeout = DAEMON_TIMEOUT.saturating_mul(2);
        let (state, _) =
            self.handled.wait_timeout_while(self.state(), timeout, waiting).unwrap_or_else(PoisonError::into_inner);
        state.first.clone().unwrap_or_else(|| FirstAttempt::Absent("no answer from the daemon in time".into()))
    }

    /// Gives the connection up and makes a new one.
    pub(crate) fn reattach(&self) {
        self.state().reattach = true;
        event::signal(&self.wake);
    }

    /// Makes the thread end.
    pub(crate) fn end(&self) {
        self.stopping.store(true, Release);
        event::signal(&self.stop);
    }

    /// Whether the caller is the control thread, which runs the application's callbacks.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// Gives ethdev the link as it is, and returns whether it went up or down by that.
    pub(crate) fn update_link(&self) -> bool {
        let link = self.state().link();
        self.device.set_link(link.up, link.speed)
    }

    // From here on, the thread.

    /// Keeps the port attached until [`Control::end`].
    pub(crate) fn run(&self) {
        let _first = self.thread.set(std::thread::current().id());
        thread::leave_lcores();
        let mut backoff = Backoff::new();
        let mut limiter = Limiter::default();
        while !self.is_stopping() {
            // What they hold may be memory that the next rings need.
            self.state().collect();
            match Session::open(&self.args.socket, self.hello(), self.stop.as_fd()) {
                Ok((mut session, welcome)) => {
                    limiter.reset();
                    let since = Instant::now();
                    self.attached(welcome, session.protocol());
                    let Err(lost) = self.serve(&mut session);
                    self.detached();
                    if since.elapsed() >= GOOD {
                        backoff = Backoff::new();
                    }
                    if !matches!(lost, Lost::Stopping | Lost::Reset) {
                        warning!("port {}: link down: {lost}; attaching again", self.device.port());
                    }
                }
                Err(error) => self.not_attached(&error, &mut limiter),
            }
            // Whether the pause ends early is seen at the head of the loop.
            let _ended = wait(&[self.stop.as_fd()], backoff.next());
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    fn hello(&self) -> Hello {
        let state = self.state();
        Hello {
            name: state.name.clone(),
            mac: state.want.main_mac(),
            queues: self.args.queues,
            driver: format!("net_kopi {}, {}", env!("CARGO_PKG_VERSION"), abi::running_version()),
        }
    }

    fn attached(&self, welcome: Welcome, protocol: u16) {
        let mut state = self.state();
        state.attach(welcome, protocol);
        let inactive = protocol < FLOW_RULES && !state.want.flow_rules.is_empty();
        let name = state.name.clone();
        if state.first.is_none() {
            state.first = Some(FirstAttempt::Attached);
        } else {
            state.reconnects = state.reconnects.wrapping_add(1);
        }
        drop(state);
        self.handled.notify_all();
        notice!("port {}: attached to {} as {name}", self.device.port(), self.args.socket.display());
        if inactive {
            warning!("port {}: this kopid is too old for flow rules: none is in force", self.device.port());
        }
    }

    fn not_attached(&self, error: &RequestError, limiter: &mut Limiter) {
        let text = format!("{}: {error}", self.args.socket.display());
        let mut state = self.state();
        if state.first.is_none() {
            let absent = matches!(error, RequestError::Lost(Lost::Absent(_) | Lost::Stale | Lost::Silent));
            state.first = Some(if absent { FirstAttempt::Absent(text) } else { FirstAttempt::Failed(text) });
            drop(state);
            self.handled.notify_all();
        } else {
            drop(state);
            if !self.is_stopping() && limiter.passes(&text, Instant::now()) {
                warning!("port {}: {text}; will keep trying", self.device.port());
            }
        }
    }

    fn detached(&self) {
        self.state().detach();
        self.handled.notify_all();
        self.announce();
    }

    /// Serves one connection until it is lost.
    fn serve(&self, session: &mut Session) -> Result<Infallible, Lost> {
        let mut agreed = Agreed::default();
        let mut memory = self.begin_sharing(session);
        let mut backoff = Backoff::new();
        let mut limiter = Limiter::default();
        // What the daemon has refused is not requested again before it has changed, or some time has passed.
        let mut refused: Option<(u64, Instant)> = None;
        loop {
            if self.is_stopping() {
                return Err(Lost::Stopping);
            }
            self.service(session)?;
            if memory.refused.is_some_and(|since| since.elapsed() >= GOOD) {
                memory.refused = None;
                self.lost_sharing.store(false, Release);
            }
            let asked = self.state().asked;
            if refused.is_none_or(|(what, until)| what != asked || Instant::now() >= until) {
                refused = match self.agree(session, &mut agreed, &mut memory)? {
                    None => {
                        backoff = Backoff::new();
                        limiter.reset();
                        None
                    }
                    Some((asked, text)) => {
                        if let Some(text) = text.filter(|text| limiter.passes(text, Instant::now())) {
                            error!("port {}: refused by the daemon: {text}; will keep trying", self.device.port());
                        }
                        Instant::now().checked_add(backoff.next()).map(|until| (asked, until))
                    }
                };
            }
            // A piece at a time, so that operations of the application do not wait for all of it.
            let more = agreed.rings.is_some() && self.share(session, &mut memory)?;
            let timeout = match (more, refused.is_some()) {
                (true, _) => Duration::ZERO,
                (false, true) => FIRST_PAUSE,
                (false, false) => TICK,
            };
            session.recv(self.wake.as_fd(), self.stop.as_fd(), timeout)?;
            event::drain(&self.wake);
        }
    }

    /// Does what is due now and then: drops retired rings, and looks for faults, the daemon's drops and the link.
    fn service(&self, session: &Session) -> Result<(), Lost> {
        let mut state = self.state();
        let fault = state.service();
        state.wire = session.link();
        let reattach = std::mem::take(&mut state.reattach);
        drop(state);
        self.announce();
        match fault {
            Some(fault) => Err(Lost::Fault(fault)),
            None if reattach => Err(Lost::Reset),
            None => Ok(()),
        }
    }

    /// Makes the daemon agree to what is wanted. Returns the change that it refuses, and its reason unless an operation waits for
    /// that.
    fn agree(
        &self,
        session: &mut Session,
        agreed: &mut Agreed,
        memory: &mut Memory,
    ) -> Result<Option<(u64, Option<String>)>, Lost> {
        loop {
            let state = self.state();
            let (want, asked) = (state.want.clone(), state.asked);
            drop(state);
            match self.step(session, agreed, memory, &want) {
                Ok(true) => {}
                Ok(false) => {
                    self.answer(asked, None);
                    return Ok(None);
                }
                Err(RequestError::Refused(text)) => return Ok(Some((asked, self.answer(asked, Some(text))))),
                Err(RequestError::Lost(lost)) => return Err(lost),
            }
        }
    }

    /// Sends the next request, if one is needed, and returns whether it was.
    fn step(
        &self,
        session: &mut Session,
        agreed: &mut Agreed,
        memory: &mut Memory,
        want: &Want,
    ) -> Result<bool, RequestError> {
        let stop = self.stop.as_fd();
        // Before there are rings: so the first frame that comes through them is one that the rules let through.
        if self.step_flow_rules(session, agreed, &want.flow_rules)? {
            return Ok(true);
        }
        let Some(rings) = &want.rings else {
            if agreed.rings.is_none() {
                return Ok(false);
            }
            self.leave_rings();
            session.confirm(Message::Stop, stop)?;
            (agreed.rings, agreed.settings) = (None, None);
            return Ok(true);
        };
        if let Some(sharing) = memory.sharing.as_ref().filter(|_| !memory.announced) {
            // The rings know of the window from the start.
            match session.confirm(Message::Memory(sharing.map().layout()), stop) {
                Ok(()) => memory.announced = true,
                Err(RequestError::Refused(text)) => self.no_sharing(memory, CopyReason::Refused, &text),
                Err(lost) => return Err(lost),
            }
            return Ok(true);
        }
        if agreed.rings != Some(rings.generation) {
            let lanes = lanes::count(rings.rx.len(), session.workers());
            self.leave_rings();
            let rss = self.rss(session, rings, want);
            let (region, doorbell) = match self.set_up(session, rings, lanes, rss.clone()) {
                // Lanes may take more memory than there is.
                Err(RequestError::Refused(_)) if lanes > 1 => self.set_up(session, rings, 1, rss.clone())?,
                answer => answer?,
            };
            (agreed.rings, agreed.rss, agreed.settings) = (Some(rings.generation), rss, None);
            let map = memory.sharing.as_ref().map(Sharing::map);
            self.offer_rings(&region, doorbell.map(Arc::new).as_ref(), map, rings.generation);
            return Ok(true);
        }
        let rss = session.rss_key().map(|usual| want.rss.message(rings, usual));
        if let Some(rss) = rss.filter(|rss| agreed.rss.as_ref() != Some(rss)) {
            session.confirm(Message::Rss(rss.clone()), stop)?;
            agreed.rss = Some(rss);
            return Ok(true);
        }
        let settings = want.settings();
        if agreed.settings.as_ref() != Some(&settings) {
            session.confirm(Message::Settings(settings.clone()), stop)?;
            agreed.settings = Some(settings);
            return Ok(true);
        }
        Ok(false)
    }

    /// The same for flow rules. One that is refused, and that no operation waits for, is warned of, and the port goes on without it.
    fn step_flow_rules(
        &self,
        session: &mut Session,
        agreed: &mut Agreed,
        want: &FlowRules,
    ) -> Result<bool, RequestError> {
        if session.protocol() < FLOW_RULES || agreed.flow_rules == *want {
            return Ok(false);
        }
        if want.is_empty() {
            session.confirm(Message::FlowRuleGone(ALL_FLOW_RULES), self.stop.as_fd())?;
            agreed.flow_rules.clear();
            return Ok(true);
        }
        if let Some(gone) = agreed.flow_rules.keys().copied().find(|slot| !want.contains_key(slot)) {
            session.confirm(Message::FlowRuleGone(gone), self.stop.as_fd())?;
            agreed.flow_rules.remove(&gone);
            return Ok(true);
        }
        let Some((slot, rule)) = want.iter().find(|(slot, rule)| agreed.flow_rules.get(slot) != Some(rule)) else {
            return Ok(false);
        };
        match session.confirm(Message::FlowRule(Box::new(rule.clone())), self.stop.as_fd()) {
            Err(RequestError::Refused(text)) if !self.is_awaited() => {
                if !std::mem::replace(&mut agreed.told_of_refusal, true) {
                    warning!("port {}: flow rules are not in force: refused by the daemon: {text}", self.device.port());
                }
            }
            answer => answer?,
        }
        agreed.flow_rules.insert(*slot, rule.clone());
        Ok(true)
    }

    /// Whether an operation waits for the daemon's answer.
    fn is_awaited(&self) -> bool {
        let state = self.state();
        state.asked > state.answered
    }

    /// How frames are to be spread over these rings; `None` if the daemon does not let the application choose.
    fn rss(&self, session: &Session, rings: &Rings, want: &Want) -> Option<Rss> {
        let Some(usual) = session.rss_key() else {
            if want.rss != RssChoice::default() && (rings.rx.len() > 1 || rings.hashed) {
                warning!(
                    "port {}: this daemon is too old to spread frames as the application has chosen: they are by addresses, protocol and ports",
                    self.device.port()
                );
            }
            return None;
        };
        Some(want.rss.message(rings, usual))
    }

    /// Asks for rings, with so many lanes for each RX queue, over which frames are to be spread like this.
    fn set_up(
        &self,
        session: &mut Session,
        rings: &Rings,
        lanes: u16,
        rss: Option<Rss>,
    ) -> Result<(Region, Option<Doorbell>), RequestError> {
        let each = |slots: &u32| std::iter::repeat_n(lanes::size(*slots, lanes), lanes.into());
        let rx: Vec<_> = rings.rx.iter().flat_map(each).collect();
        let geometry = Geometry::new(&rings.tx, &rx, session.slot_size()).and_then(|rings| rings.with_lanes(lanes));
        let geometry = geometry.map_err(|error| RequestError::Refused(error.to_string()))?;
        session.setup(Setup { geometry, sleeps: rings.sleeps }, rss, self.stop.as_fd())
    }

    /// Takes the rings that there are, if any, out of use: they are about to go.
    fn leave_rings(&self) {
        let mut state = self.state();
        state.agreed = false;
        state.drops.unwatch();
        state.irq_thread.iter().for_each(|irq_thread| irq_thread.unwatch());
    }

    /// Offers the rings that the daemon has made to the queues, unless others are wanted by now.
    fn offer_rings(
        &self,
        region: &Region,
        doorbell: Option<&Arc<Doorbell>>,
        memory: Option<&Arc<MemoryMap>>,
        generation: u64,
    ) {
        let mut state = self.state();
        if state.want.rings.as_ref().is_none_or(|rings| rings.generation != generation) {
            return;
        }
        for (queue, slot) in state.tx.iter().enumerate() {
            let publisher = region.tx_producer(queue).map(|ring| TxPublisher::new(ring, doorbell.cloned()));
            offer(slot.as_ref(), publisher.map(|publisher| publisher.sharing(memory.cloned())), None);
        }
        for (queue, slot) in state.rx.iter().enumerate() {
            offer(slot.as_ref(), Lanes::of(region, queue), Lanes::of(region, queue));
        }
        state.drops.watch(region.status());
        // After the offers: an application that is woken by it finds them.
        state.irq_thread.iter().for_each(|irq_thread| irq_thread.watch(region));
    }

    /// Records that the thread has handled everything up to `asked`. A refusal goes to the operation that waits for it; if there is
    /// none, it is returned.
    fn answer(&self, asked: u64, refused: Option<String>) -> Option<String> {
        let mut state = self.state();
        let awaited = asked > state.answered;
        state.answered = asked;
        let left = match refused {
            // What was agreed before still holds.
            Some(text) if awaited => {
                state.refusal = Some(Refusal { asked, text });
                None
            }
            Some(text) => Some(text),
            None => {
                state.agreed = state.want.rings.is_some();
                None
            }
        };
        drop(state);
        self.handled.notify_all();
        self.announce();
        left
    }

    /// Gives ethdev the link, and calls the application's callbacks if it has changed since they were last called.
    fn announce(&self) {
        if self.is_stopping() {
            // The application's callback may have closed the port: the device must not be touched any more.
            return;
        }
        let mut state = self.state();
        let link = state.link();
        let changed = state.want.rings.is_some() && state.announced != link.up;
        state.announced = link.up;
        drop(state);
        self.device.set_link(link.up, link.speed);
        if changed {
            self.device.announce_link();
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::MFILE)
}

fn offer<E>(slot: Option<&Arc<RingSlot<E>>>, end: Option<E>, view: Option<E>) {
    if let (Some(slot), Some(end)) = (slot, end) {
        slot.collect();
        slot.offer(Box::new(end), view);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that comes back is found well within a second, and one that stays away costs five attempts a second.
    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 200, 200]);
    }
}

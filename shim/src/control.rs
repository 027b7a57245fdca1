//! The thread that keeps a port attached.
//!
//! Operations of the application change what is *wanted*; the thread makes the daemon agree, and takes it all up again
//! with the next daemon when one has gone away. Only the thread talks to the daemon.

use crate::affinity;
use crate::devargs::Args;
use crate::device::Device;
use crate::handoff::Handoff;
use crate::log::{Limiter, error, notice, warning};
use crate::port::{Refusal, State, Want};
use crate::session::{Lost, Made, RequestError, Session, wait};
use crate::tx::Outlet;
use kopi_ring::Geometry;
use kopi_ring::message::{Hello, Settings, Setup};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Longest time that an operation waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(1);
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
    state: Mutex<State>,
    /// Signalled when the thread has dealt with something.
    dealt: Condvar,
    /// Signalled when there is something to deal with.
    wake: OwnedFd,
    /// Signalled, for good, when the thread is to end.
    stop: OwnedFd,
    stopping: AtomicBool,
    thread: OnceLock<ThreadId>,
}

/// How the first attempt to attach went.
#[derive(Clone, Debug)]
pub(crate) enum First {
    /// There is a port.
    Attached,
    /// There is no daemon as yet.
    Absent(String),
    /// There will be no port without the user doing something.
    Failed(String),
}

/// What the daemon has agreed to on this connection.
#[derive(Debug, Default)]
struct Agreed {
    /// Generation of the rings.
    rings: Option<u64>,
    settings: Option<Settings>,
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
        Ok(Self {
            device,
            state: Mutex::new(State::new(&args)),
            args,
            dealt: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopping: AtomicBool::new(false),
            thread: OnceLock::new(),
        })
    }

    /// The device arguments.
    pub(crate) const fn args(&self) -> &Args {
        &self.args
    }

    /// The port's state. Held for short moments only, never while waiting for the daemon.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted, and waits until the daemon has agreed. Without a daemon, or with one that takes its
    /// time, the change stands, and the thread will see to it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the daemon refuses; the change is undone.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Want)) -> Result<(), Refusal> {
        let mut state = self.state();
        let before = state.want.clone();
        change(&mut state.want);
        if state.want == before {
            return Ok(());
        }
        if !state.attached {
            return Ok(());
        }
        let asked = state.ask();
        signal(&self.wake);
        if self.is_own_thread() {
            // A callback of the application, called by the thread, which therefore cannot answer now.
            return Ok(());
        }
        let waiting = |state: &mut State| state.answered < asked;
        let (mut state, _) =
            self.dealt.wait_timeout_while(state, PATIENCE, waiting).unwrap_or_else(PoisonError::into_inner);
        let refusal = state.refusal.take().filter(|refusal| refusal.asked == asked);
        if let Some(refusal) = refusal {
            state.want = before;
            state.ask();
            signal(&self.wake);
            return Err(refusal);
        }
        Ok(())
    }

    /// Waits for the first attempt to attach. A daemon that does not answer counts as absent.
    pub(crate) fn first(&self) -> First {
        let waiting = |state: &mut State| state.first.is_none();
        let patience = PATIENCE.saturating_mul(2);
        let (state, _) =
            self.dealt.wait_timeout_while(self.state(), patience, waiting).unwrap_or_else(PoisonError::into_inner);
        state.first.clone().unwrap_or_else(|| First::Absent("no answer from the daemon in time".into()))
    }

    /// Gives the connection up and makes a new one.
    pub(crate) fn reattach(&self) {
        self.state().reattach = true;
        signal(&self.wake);
    }

    /// Tells the thread to end.
    pub(crate) fn end(&self) {
        self.stopping.store(true, Release);
        signal(&self.stop);
    }

    /// Whether the caller is the control thread, which runs the application's callbacks.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// Shows applications the link as it is, and tells whether it went up or down by that.
    pub(crate) fn show_link(&self) -> bool {
        let link = self.state().link();
        self.device.set_link(link.up, link.speed)
    }

    // From here on, the thread.

    /// Keeps the port attached until [`Control::end`].
    pub(crate) fn run(&self) {
        let _first = self.thread.set(std::thread::current().id());
        affinity::leave_lcores();
        let mut backoff = Backoff::new();
        let mut told = Limiter::default();
        while !self.is_stopping() {
            match Session::open(&self.args.socket, self.hello(), self.stop.as_fd()) {
                Ok(mut session) => {
                    told.reset();
                    let since = Instant::now();
                    self.attached(&session);
                    let lost = self.serve(&mut session);
                    self.detached();
                    if since.elapsed() >= GOOD {
                        backoff = Backoff::new();
                    }
                    if !matches!(lost, Lost::Stopping | Lost::Reset) {
                        warning!("port {}: link down: {lost}; attaching again", self.device.port());
                    }
                }
                Err(error) => self.not_attached(&error, &mut told),
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
            driver: crate::driver::description(),
        }
    }

    fn attached(&self, session: &Session) {
        let welcome = session.welcome();
        let mut state = self.state();
        state.attach(welcome, session.link());
        if state.first.is_none() {
            state.first = Some(First::Attached);
        } else {
            state.reconnects = state.reconnects.wrapping_add(1);
        }
        drop(state);
        self.dealt.notify_all();
        notice!("port {}: attached to {} as {}", self.device.port(), self.args.socket.display(), welcome.name);
    }

    fn not_attached(&self, error: &RequestError, told: &mut Limiter) {
        let text = format!("{}: {error}", self.args.socket.display());
        let mut state = self.state();
        if state.first.is_none() {
            let absent = matches!(error, RequestError::Lost(Lost::Absent(_) | Lost::Stale | Lost::Silent));
            state.first = Some(if absent { First::Absent(text) } else { First::Failed(text) });
            drop(state);
            self.dealt.notify_all();
        } else {
            drop(state);
            if !self.is_stopping() && told.passes(&text, Instant::now()) {
                warning!("port {}: {text}; will keep trying", self.device.port());
            }
        }
    }

    fn detached(&self) {
        self.state().detach();
        self.dealt.notify_all();
        self.announce();
    }

    /// Serves one connection until it is lost.
    fn serve(&self, session: &mut Session) -> Lost {
        let mut agreed = Agreed::default();
        let mut backoff = Backoff::new();
        let mut told = Limiter::default();
        // What the daemon has refused is not asked for again before it has changed, or some time has passed.
        let mut refused: Option<(u64, Instant)> = None;
        loop {
            if self.is_stopping() {
                return Lost::Stopping;
            }
            if let Err(lost) = self.tend(session) {
                return lost;
            }
            let asked = self.state().asked();
            if refused.is_none_or(|(what, until)| what != asked || Instant::now() >= until) {
                refused = match self.agree(session, &mut agreed) {
                    Ok(None) => {
                        backoff = Backoff::new();
                        told.reset();
                        None
                    }
                    Ok(Some((asked, text))) => {
                        if let Some(text) = text.filter(|text| told.passes(text, Instant::now())) {
                            error!("port {}: refused by the daemon: {text}; will keep trying", self.device.port());
                        }
                        Instant::now().checked_add(backoff.next()).map(|until| (asked, until))
                    }
                    Err(lost) => return lost,
                };
            }
            let patience = if refused.is_some() { FIRST_PAUSE } else { TICK };
            if let Err(lost) = session.listen(self.wake.as_fd(), self.stop.as_fd(), patience) {
                return lost;
            }
            drain(&self.wake);
        }
    }

    /// What has to be looked at now and then: rings to be dropped, faults, drops, the link.
    fn tend(&self, session: &Session) -> Result<(), Lost> {
        let mut state = self.state();
        let fault = state.tend();
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

    /// Makes the daemon agree to what is wanted. Returns what it refuses, and its words unless an operation waits for
    /// them.
    fn agree(&self, session: &mut Session, agreed: &mut Agreed) -> Result<Option<(u64, Option<String>)>, Lost> {
        loop {
            let (want, asked) = self.state().wanted();
            match self.step(session, agreed, &want) {
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

    /// Sends the next request, if there is need for one, and tells whether there was.
    fn step(&self, session: &mut Session, agreed: &mut Agreed, want: &Want) -> Result<bool, RequestError> {
        let stop = self.stop.as_fd();
        let Some(rings) = &want.rings else {
            if agreed.rings.is_none() {
                return Ok(false);
            }
            self.leave_rings();
            session.stop(stop)?;
            *agreed = Agreed::default();
            return Ok(true);
        };
        if agreed.rings != Some(rings.generation) {
            let slot_size = session.welcome().slot_size;
            let geometry = Geometry::new(&rings.tx, &rings.rx, slot_size)
                .map_err(|error| RequestError::Refused(error.to_string()))?;
            self.leave_rings();
            let made = session.setup(&Setup { geometry, sleeps: rings.sleeps }, stop)?;
            *agreed = Agreed { rings: Some(rings.generation), settings: None };
            self.hand_over(made, rings.generation);
            return Ok(true);
        }
        let settings = want.settings();
        if agreed.settings.as_ref() != Some(&settings) {
            session.settings(&settings, stop)?;
            agreed.settings = Some(settings);
            return Ok(true);
        }
        Ok(false)
    }

    /// The rings there are, if any, are about to go.
    fn leave_rings(&self) {
        let mut state = self.state();
        state.agreed = false;
        state.drops.unwatch();
        state.relay.iter().for_each(|relay| relay.unwatch());
    }

    /// Offers what the daemon has made to the queues, unless they have meanwhile lost interest.
    fn hand_over(&self, made: Made, generation: u64) {
        let Made { region, doorbell } = made;
        let doorbell = doorbell.map(Arc::new);
        let mut state = self.state();
        if state.want.rings.as_ref().is_none_or(|rings| rings.generation != generation) {
            return;
        }
        for (queue, handoff) in state.tx.iter().enumerate() {
            let outlet = region.tx_producer(queue).map(|ring| Outlet::new(ring, doorbell.clone()));
            offer(handoff.as_ref(), outlet, None);
        }
        for (queue, handoff) in state.rx.iter().enumerate() {
            offer(handoff.as_ref(), region.rx_consumer(queue), region.rx_consumer(queue));
        }
        state.drops.watch(region.status());
        // After the offers: whoever is woken by it finds them.
        state.relay.iter().for_each(|relay| relay.watch(&region));
    }

    /// Records that the thread has dealt with everything up to `asked`. A refusal goes to the operation that waits for
    /// it; if there is none, it is returned.
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
        self.dealt.notify_all();
        self.announce();
        left
    }

    /// Shows the link, and calls the application's callbacks if it has changed since they were last called.
    fn announce(&self) {
        if self.is_stopping() {
            // The application's callback may have closed the port: the device must not be touched any more.
            return;
        }
        let mut state = self.state();
        let link = state.link();
        let news = state.want.rings.is_some() && state.announced != link.up;
        state.announced = link.up;
        drop(state);
        self.device.set_link(link.up, link.speed);
        if news {
            self.device.announce_link();
        }
    }
}

fn offer<E>(handoff: Option<&Arc<Handoff<E>>>, end: Option<E>, view: Option<E>) {
    if let (Some(handoff), Some(end)) = (handoff, end) {
        handoff.collect();
        handoff.offer(Box::new(end), view);
    }
}

/// Makes `event` readable.
fn signal(event: &OwnedFd) {
    // Fails only when it is readable anyway.
    let _written = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Makes `event` unreadable.
fn drain(event: &OwnedFd) {
    // Fails only when it was unreadable anyway.
    let _read = rustix::io::read(event, &mut [0_u8; 8]);
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

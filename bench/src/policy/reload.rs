//! Reloads of a large policy under full load: how long the worker does not look at its rings, and whether frames are
//! lost.

use std::fs;
use std::time::{Duration, Instant};

use super::app::Job;
use super::counts::Counts;
use super::frames::FRAME_LEN;
use super::load::{Load, Pump};
use super::texts;
use crate::contender::Service;
use crate::error::{BenchError, Doing, Result};
use crate::probe::{self, State, Thresholds};
use crate::progress;
use crate::rounds::Experiment;
use crate::setup::Setup;

/// Reloads that count: during which nothing else ran on the worker's core.
const RELOADS: usize = 20;
/// Reloads at most.
const TRIES: u16 = 60;
/// The worker's thread in kopid.
const WORKER: &str = "kopi-worker-0";
/// The application's window, in which one reload takes place. After 950 ms without rest for ordinary threads, the kernel
/// would take the core away from a preferred one (`fair_server`, Linux 6.12).
const WINDOW: Duration = Duration::from_millis(700);
/// The time from its beginning until the load is steady.
const WARM_UP: Duration = Duration::from_millis(100);
/// How long the worker is watched from the reload's answer on.
const WATCH: Duration = Duration::from_millis(150);
/// Within so long what lies in the rings has reached the wire.
const DRAINED: Duration = Duration::from_millis(100);

/// What was seen of the worker for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// Its longest turn, in nanoseconds.
    pub(super) longest_ns: u64,
    /// How often something else ran on its core. Then the longest turn is not its own doing.
    pub(super) preemptions: u64,
}

impl Pause {
    /// Does `work`, and returns what was seen of the worker from now to its end, besides its result.
    fn during<T>(service: &mut dyn Service, work: impl FnOnce(&mut dyn Service) -> Result<T>) -> Result<(Self, T)> {
        Counts::ask(service)?;
        let first = preemptions(service)?;
        let result = work(service)?;
        let longest_ns = Counts::ask(service)?.longest_turn_ns;
        Ok((Self { longest_ns, preemptions: preemptions(service)?.saturating_sub(first) }, result))
    }
}

fn preemptions(service: &dyn Service) -> Result<u64> {
    service.processes().into_iter().map(|process| process.preemptions(WORKER)).sum()
}

/// What one reload did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reload {
    /// The worker while nothing was reloaded, for as long as the reload before was watched.
    pub(super) quiet: Pause,
    /// The worker from the order to reload until [`WATCH`] after the answer.
    pub(super) reload: Pause,
    /// Time from the order to the answer: reading, checking, compiling, putting in force.
    pub(super) took: Duration,
    /// The machine's state, if it was the same before and after.
    pub(super) state: Option<State>,
}

/// What all reloads did.
#[derive(Clone, Debug, Default)]
pub(super) struct Reloads {
    /// One by one.
    pub(super) each: Vec<Reload>,
    /// Frames that the application's port has taken.
    pub(super) sent: u64,
    /// Frames that the wire has sent.
    pub(super) arrived: u64,
    /// Frames that kopid dropped.
    pub(super) dropped: u64,
}

impl Reloads {
    /// The reloads during which nothing else ran on the worker's core.
    pub(super) fn clean(&self) -> impl Iterator<Item = &Reload> {
        self.each.iter().filter(|each| each.reload.preemptions == 0)
    }
}

/// Reloads [`texts::MANY`] again and again, each time with all its rules but the last changed, while the application
/// sends as fast as it can.
///
/// # Errors
///
/// When kopid or the application does not come up or break, or kopid's counters do not agree.
pub(super) fn measure(setup: &Setup, thresholds: &Thresholds) -> Result<Reloads> {
    let text = |error| BenchError::Failed(format!("write a policy: {error}"));
    let contender = texts::contender(texts::MANY).map_err(text)?;
    if let Some(why) = contender.missing(setup) {
        return Err(BenchError::Failed(why));
    }
    let mut service = contender.start(setup, &Load::Tx.wire())?;
    let mut pump = Pump::start(setup, "reload-app", FRAME_LEN, service.as_ref())?;
    // What ordinary threads of the kernel take of a core that is not isolated is not the reload's doing.
    service.processes().into_iter().try_for_each(|process| process.prefer(WORKER))?;
    let policy = setup.path(&format!("{}-policy.toml", texts::MANY));
    let state = || Ok::<_, BenchError>(probe::look(setup.dataplane_core, setup.app_core, thresholds)?.state);

    let mut reloads = Reloads::default();
    // How long the reload before took. Long pauses are the likelier, the longer one watches.
    let mut took = Duration::from_millis(200);
    for edition in 1..=TRIES {
        fs::write(&policy, texts::many(edition, "").map_err(text)?).doing(|| format!("write {}", policy.display()))?;
        let before = paused_probe(service.as_ref(), state)?;
        pump.begin(Job::Send, WINDOW)?;
        setup.interrupt.sleep(WARM_UP)?;
        let (quiet, ()) = Pause::during(service.as_mut(), |_| setup.interrupt.sleep(took + WATCH))?;
        reloads.sent += pump.end(WINDOW)?.frames;
        let between = paused_probe(service.as_ref(), state)?;
        pump.begin(Job::Send, WINDOW)?;
        setup.interrupt.sleep(WARM_UP)?;
        let reload;
        (reload, took) = Pause::during(service.as_mut(), |service| {
            let start = Instant::now();
            service.ask("reload")?;
            let took = start.elapsed();
            setup.interrupt.sleep(WATCH)?;
            Ok(took)
        })?;
        reloads.sent += pump.end(WINDOW)?.frames;
        let after = paused_probe(service.as_ref(), state)?;
        let state = before.filter(|before| Some(*before) == between && Some(*before) == after);
        progress(&format!("reload {edition}: before {quiet:?}, during {reload:?}, done in {took:?}"));
        reloads.each.push(Reload { quiet, reload, took, state });
        if reloads.clean().count() >= RELOADS {
            break;
        }
    }
    setup.interrupt.sleep(DRAINED)?;
    let counts = Counts::ask(service.as_mut())?;
    if counts.came != counts.went + counts.drops {
        return Err(BenchError::Failed(format!("kopid's counters do not agree: {counts:?}")));
    }
    Ok(Reloads { arrived: counts.went, dropped: counts.drops, ..reloads })
}

/// Probes while kopid is stopped, and its core free.
fn paused_probe<T>(service: &dyn Service, probe: impl Fn() -> Result<T>) -> Result<T> {
    service.processes().into_iter().try_for_each(crate::process::Process::pause)?;
    let found = probe();
    service.processes().into_iter().try_for_each(crate::process::Process::resume)?;
    found
}

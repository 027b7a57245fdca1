//! Paired, interleaved samples: every contender in turn, round after round, on a machine that keeps still.

use std::time::{Duration, Instant};

use crate::contender::{Contender, Family, Service};
use crate::error::{BenchError, Result};
use crate::probe::{self, State, Thresholds};
use crate::process::Process;
use crate::progress;
use crate::setup::{Setup, Wire};

/// How often one sample is taken anew when the machine was disturbed or changed its state.
const TRIES: u32 = 8;
/// How long a disturbance is given to pass.
const PATIENCE: Duration = Duration::from_millis(300);
/// The least share of a sample's time that a polling process must have had its core. Less means that somebody else ran
/// there.
const LEAST_SHARE: f64 = 0.95;

/// How samples are taken.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// Rounds of every contender in turn.
    pub(crate) rounds: u32,
    /// Time between letting the processes go on and the window.
    pub(crate) warm_up: Duration,
    /// Time over which something is measured.
    pub(crate) window: Duration,
    /// How the machine's state is told.
    pub(crate) thresholds: Thresholds,
    /// A wire given by the user, which only one contender can own at a time.
    pub(crate) wire: Option<Wire>,
}

impl Default for Method {
    fn default() -> Self {
        let (warm_up, window) = (Duration::from_secs(1), Duration::from_secs(2));
        Self { rounds: 5, warm_up, window, thresholds: Thresholds::default(), wire: None }
    }
}

impl Method {
    /// A look at the numbers in a few minutes.
    pub(crate) fn quick() -> Self {
        let (warm_up, window) = (Duration::from_millis(500), Duration::from_secs(1));
        Self { rounds: 2, warm_up, window, ..Self::default() }
    }
}

/// One measurement that holds.
#[derive(Clone, Debug)]
pub(crate) struct Sample<M> {
    /// The contender's name.
    pub(crate) contender: &'static str,
    /// The contender's family.
    pub(crate) family: Family,
    /// The round in which it was taken.
    pub(crate) round: u32,
    /// The machine's state, before and after.
    pub(crate) state: State,
    /// What was measured.
    pub(crate) measured: M,
}

/// What all rounds of one experiment gave.
#[derive(Clone, Debug)]
pub(crate) struct Samples<M> {
    /// Every sample that holds.
    pub(crate) samples: Vec<Sample<M>>,
    /// Samples thrown away because the state changed under them.
    pub(crate) changed: u32,
    /// Samples thrown away because another process took the cores.
    pub(crate) disturbed: u32,
    /// Contenders that could not be measured, and why.
    pub(crate) skipped: Vec<(&'static str, String)>,
}

impl<M> Default for Samples<M> {
    fn default() -> Self {
        Self { samples: Vec::new(), changed: 0, disturbed: 0, skipped: Vec::new() }
    }
}

/// A system with its application, running or paused. Dropping it ends both.
pub(crate) struct Pair<A: App> {
    /// Dropped before the system that it is attached to.
    pub(crate) app: A,
    /// The system.
    pub(crate) service: Box<dyn Service>,
}

/// An application at the near end of a contender.
pub(crate) trait App {
    /// Its process, which polls while something is measured.
    fn process(&self) -> &Process;
}

impl<A: App> Pair<A> {
    fn processes(&self) -> Vec<&Process> {
        let mut all = self.service.processes();
        all.push(self.app.process());
        all
    }

    /// Stops the application first: it must not meet a system that does not answer.
    fn pause(&self) -> Result<()> {
        self.processes().into_iter().rev().try_for_each(Process::pause)
    }

    fn resume(&self) -> Result<()> {
        self.processes().into_iter().try_for_each(Process::resume)
    }

    fn processor_times(&self) -> Result<Vec<Duration>> {
        self.processes().into_iter().map(Process::processor_time).collect()
    }
}

impl<A: App> Drop for Pair<A> {
    fn drop(&mut self) {
        // An application says good-bye to its system, and would wait for the answer of a paused one.
        let _gone = self.resume();
    }
}

/// What is done with the contenders.
pub(crate) trait Experiment {
    /// The application in it.
    type App: App;
    /// What one sample measures.
    type Measured;

    /// What to call it.
    fn label(&self) -> String;

    /// The wire, unless the user gives one.
    fn wire(&self) -> Wire;

    /// Starts the application, called `name`, on the service's port.
    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Self::App>;

    /// Takes one sample. All processes poll while this runs.
    fn measure(&self, setup: &Setup, method: &Method, pair: &mut Pair<Self::App>) -> Result<Self::Measured>;

    /// What was measured, in a few words.
    fn describe(&self, measured: &Self::Measured) -> String;
}

/// A contender's place in an experiment.
struct Entry<'a, A: App> {
    contender: &'a dyn Contender,
    /// Started and paused, unless only one contender can own the wire at a time.
    pair: Option<Pair<A>>,
    failed: bool,
}

/// Runs all rounds of an experiment.
///
/// A contender that cannot be started or breaks is skipped, with its reason in the result.
///
/// # Errors
///
/// On Ctrl-C.
pub(crate) fn run<E: Experiment>(
    experiment: &E,
    setup: &Setup,
    contenders: &[Box<dyn Contender>],
    method: &Method,
) -> Result<Samples<E::Measured>> {
    let mut run = Run { experiment, setup, method, samples: Samples::default() };
    let mut entries = Vec::new();
    for contender in contenders {
        entries.extend(run.enter(contender.as_ref())?);
    }
    for round in 0..method.rounds {
        for entry in entries.iter_mut().filter(|entry| !entry.failed) {
            let sampled = run.sample(entry, round);
            if run.keep_going(entry.contender, sampled)?.is_none() {
                entry.failed = true;
                entry.pair = None;
            }
        }
        // Another contender goes first in each round, so that none always follows the same disturbance.
        let step = entries.len().min(1);
        entries.rotate_left(step);
    }
    Ok(run.samples)
}

struct Run<'a, E: Experiment> {
    experiment: &'a E,
    setup: &'a Setup,
    method: &'a Method,
    samples: Samples<E::Measured>,
}

/// What a sample says of the machine while it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stillness {
    Still(State),
    Changed,
    Disturbed,
}

impl Stillness {
    /// Judges by the states that the probes found before and after, and by the share of their cores that the processes
    /// had in between.
    fn judge(before: State, after: Option<State>, share: f64) -> Self {
        match after {
            Some(after) if after != before => Self::Changed,
            Some(state) if share >= LEAST_SHARE => Self::Still(state),
            _ => Self::Disturbed,
        }
    }
}

impl<E: Experiment> Run<'_, E> {
    /// Starts and pauses a contender, if it can take part.
    fn enter<'a>(&mut self, contender: &'a dyn Contender) -> Result<Option<Entry<'a, E::App>>> {
        if let Some(why) = contender.missing(self.setup) {
            self.skip(contender, why);
            return Ok(None);
        }
        if self.method.wire.is_some() {
            return Ok(Some(Entry { contender, pair: None, failed: false }));
        }
        let started = self.start(contender, &self.experiment.wire()).and_then(|pair| {
            pair.pause()?;
            Ok(pair)
        });
        let pair = self.keep_going(contender, started)?;
        Ok(pair.map(|pair| Entry { contender, pair: Some(pair), failed: false }))
    }

    fn start(&self, contender: &dyn Contender, wire: &Wire) -> Result<Pair<E::App>> {
        let service = contender.start(self.setup, wire)?;
        let name = format!("{}-app", contender.name());
        let app = self.experiment.start_app(self.setup, &name, service.as_ref())?;
        Ok(Pair { app, service })
    }

    /// Takes one sample, anew when the machine did not keep still, up to [`TRIES`] times.
    fn sample(&mut self, entry: &mut Entry<'_, E::App>, round: u32) -> Result<()> {
        let Entry { contender, pair, .. } = entry;
        let (name, family) = (contender.name(), contender.family());
        let label = self.experiment.label();
        for _ in 0..TRIES {
            let one_way = self.probe()?;
            let Some(before) = State::of(one_way, &self.method.thresholds) else {
                self.samples.disturbed += 1;
                self.setup.interrupt.sleep(PATIENCE)?;
                continue;
            };
            let (measured, share) = match (&mut *pair, &self.method.wire) {
                (Some(pair), _) => {
                    pair.resume()?;
                    let measured = self.measure(pair);
                    pair.pause()?;
                    measured?
                }
                (None, Some(wire)) => self.measure(&mut self.start(*contender, wire)?)?,
                (None, None) => self.measure(&mut self.start(*contender, &self.experiment.wire())?)?,
            };
            let after = State::of(self.probe()?, &self.method.thresholds);
            let state = match Stillness::judge(before, after, share) {
                Stillness::Still(state) => state,
                Stillness::Changed => {
                    self.samples.changed += 1;
                    continue;
                }
                Stillness::Disturbed => {
                    let percent = share * 100.0;
                    progress(&format!(
                        "{label} round {round} {name}: disturbed, a process had {percent:.0} % of its core"
                    ));
                    self.samples.disturbed += 1;
                    continue;
                }
            };
            let text = self.experiment.describe(&measured);
            progress(&format!("{label} round {round} {name}: {text}, {state} ({one_way:.0} ns)"));
            self.samples.samples.push(Sample { contender: name, family, round, state, measured });
            return Ok(());
        }
        progress(&format!("{label} round {round} {name}: the machine did not keep still"));
        Ok(())
    }

    /// Measures, and finds the least share of its core that a process had meanwhile.
    fn measure(&self, pair: &mut Pair<E::App>) -> Result<(E::Measured, f64)> {
        let (start, first) = (Instant::now(), pair.processor_times()?);
        let measured = self.experiment.measure(self.setup, self.method, pair)?;
        let (last, elapsed) = (pair.processor_times()?, start.elapsed());
        let used = last.iter().zip(&first).map(|(last, first)| last.saturating_sub(*first));
        Ok((measured, used.map(|used| used.div_duration_f64(elapsed)).fold(f64::INFINITY, f64::min)))
    }

    fn probe(&self) -> Result<f64> {
        probe::one_way_ns(self.setup.dataplane_core, self.setup.app_core)
    }

    /// Turns a contender's failure into a skip; an interrupt stays an error.
    fn keep_going<T>(&mut self, contender: &dyn Contender, tried: Result<T>) -> Result<Option<T>> {
        match tried {
            Ok(value) => Ok(Some(value)),
            Err(BenchError::Interrupted) => Err(BenchError::Interrupted),
            Err(error) => {
                self.skip(contender, error.to_string());
                Ok(None)
            }
        }
    }

    fn skip(&mut self, contender: &dyn Contender, why: String) {
        progress(&format!("{}: {} is left out: {why}", self.experiment.label(), contender.name()));
        self.samples.skipped.push((contender.name(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_only_in_one_state_and_with_the_cores_to_itself() {
        use State::{Far, Near};
        assert_eq!(Stillness::judge(Near, Some(Near), 0.99), Stillness::Still(Near));
        assert_eq!(Stillness::judge(Near, Some(Far), 0.99), Stillness::Changed);
        assert_eq!(Stillness::judge(Far, Some(Far), 0.5), Stillness::Disturbed);
        assert_eq!(Stillness::judge(Far, Some(Far), f64::NAN), Stillness::Disturbed);
        assert_eq!(Stillness::judge(Far, None, 1.0), Stillness::Disturbed);
    }
}

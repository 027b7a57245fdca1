//! Paired, interleaved samples: every contender in turn, round after round, on a machine that keeps still.

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Family, Service};
use crate::error::{BenchError, Result};
use crate::probe::{self, Found, State, Thresholds};
use crate::process::Process;
use crate::progress;
use crate::setup::{Setup, Wire};
use crate::stats::{Spread, paired_ratios};

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
    /// Whether every sample is of processes started for it. Where memory comes to lie differs from start to start, and
    /// with it the rate, by a tenth and more.
    pub(crate) anew: bool,
}

impl Default for Method {
    fn default() -> Self {
        let (warm_up, window) = (Duration::from_secs(1), Duration::from_secs(2));
        Self { rounds: 5, warm_up, window, thresholds: Thresholds::default(), wire: None, anew: false }
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

impl<M> Samples<M> {
    /// What a contender measured in a state: the round, and a figure of the sample.
    pub(crate) fn figures(&self, name: &str, state: State, figure: impl Fn(&M) -> f64) -> Vec<(u32, f64)> {
        let all = self.samples.iter().filter(|sample| sample.contender == name && sample.state == state);
        all.map(|sample| (sample.round, figure(&sample.measured))).collect()
    }

    /// The spread of a figure of a contender in a state.
    pub(crate) fn spread(&self, name: &str, state: State, figure: impl Fn(&M) -> f64) -> Option<Spread> {
        Spread::of(self.figures(name, state, figure).into_iter().map(|(_, value)| value))
    }

    /// The same, divided by that of another contender, round by round.
    pub(crate) fn ratio(
        &self,
        (ours, theirs): (&str, &str),
        state: State,
        figure: impl Fn(&M) -> f64 + Copy,
    ) -> Option<Spread> {
        let [ours, theirs] = [ours, theirs].map(|name| self.figures(name, state, figure));
        Spread::of(paired_ratios(&ours, &theirs))
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

/// How much of the time is used by those who poll.
pub(crate) struct Watch {
    begun: Instant,
    times: Vec<Duration>,
}

impl Watch {
    /// Begins with the processor time that each has used so far.
    pub(crate) fn begin(times: Vec<Duration>) -> Self {
        Self { begun: Instant::now(), times }
    }

    /// The least share of the time since then that one has used, by what they have used now.
    pub(crate) fn end(&self, times: &[Duration]) -> f64 {
        let elapsed = self.begun.elapsed();
        let used = times.iter().zip(&self.times).map(|(last, first)| last.saturating_sub(*first));
        used.map(|used| used.div_duration_f64(elapsed)).fold(f64::INFINITY, f64::min)
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

    /// The least share of its core that was had by those who poll, if the experiment has looked itself. Otherwise each
    /// process is taken to need a core for all the time that [`measure`](Self::measure) takes.
    fn share(&self, _measured: &Self::Measured) -> Option<f64> {
        None
    }

    /// What was measured, in a few words.
    fn describe(&self, measured: &Self::Measured) -> String;
}

/// A contender's place in an experiment.
struct Entry<'a, A: App> {
    contender: &'a dyn Contender,
    /// Started and paused, unless only one contender can own the wire at a time, or each sample starts its own.
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
    contenders: &[impl Borrow<Box<dyn Contender>>],
    method: &Method,
) -> Result<Samples<E::Measured>> {
    let mut run = Run { experiment, setup, method, samples: Samples::default() };
    let mut entries = Vec::new();
    for contender in contenders {
        entries.extend(run.enter(contender.borrow().as_ref())?);
    }
    for round in 0..method.rounds {
        for entry in entries.iter_mut().filter(|entry| !entry.failed) {
            let Entry { contender, pair, .. } = entry;
            let sampled = run.sample((contender.name(), contender.family()), round, |run| match pair {
                Some(pair) => run.measure_paused(pair),
                None => run.measure_anew(*contender),
            });
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

/// Runs all rounds of experiments that share one contender and its application, which are started once, on a wire of the
/// user's as well. Their names stand for contenders in the samples; they begin with the same application and wire.
///
/// # Errors
///
/// When the contender does not come up or breaks, and on Ctrl-C.
pub(crate) fn run_shared<E: Experiment>(
    experiments: &[(&'static str, E)],
    setup: &Setup,
    contender: &dyn Contender,
    method: &Method,
) -> Result<Samples<E::Measured>> {
    let Some((_, first)) = experiments.first() else { return Ok(Samples::default()) };
    let mut run = Run { experiment: first, setup, method, samples: Samples::default() };
    if let Some(why) = contender.missing(setup) {
        return Err(BenchError::Failed(why));
    }
    let mut pair = run.start(contender, &method.wire.clone().unwrap_or_else(|| first.wire()))?;
    pair.pause()?;
    let mut order: Vec<_> = experiments.iter().collect();
    for round in 0..method.rounds {
        for (name, experiment) in &order {
            run.experiment = experiment;
            run.sample((name, contender.family()), round, |run| run.measure_paused(&mut pair))?;
        }
        order.rotate_left(1);
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
    fn evaluate(before: State, after: Option<State>, share: f64) -> Self {
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
        if self.method.wire.is_some() || self.method.anew {
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

    /// Takes one sample of what `measure` gives, anew when the machine did not keep still, up to [`TRIES`] times.
    fn sample(
        &mut self,
        (name, family): (&'static str, Family),
        round: u32,
        mut measure: impl FnMut(&Self) -> Result<(E::Measured, f64)>,
    ) -> Result<()> {
        let label = self.experiment.label();
        for _ in 0..TRIES {
            let Found { one_way_ns, state: before } = self.probe()?;
            let Some(before) = before else {
                self.samples.disturbed += 1;
                self.setup.interrupt.sleep(PATIENCE)?;
                continue;
            };
            let (measured, share) = measure(self)?;
            let after = self.probe()?.state;
            let state = match Stillness::evaluate(before, after, share) {
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
            progress(&format!("{label} round {round} {name}: {text}, {state} ({one_way_ns:.0} ns)"));
            self.samples.samples.push(Sample { contender: name, family, round, state, measured });
            return Ok(());
        }
        progress(&format!("{label} round {round} {name}: the machine did not keep still"));
        Ok(())
    }

    /// Starts a contender for one measurement.
    fn measure_anew(&self, contender: &dyn Contender) -> Result<(E::Measured, f64)> {
        let wire = self.method.wire.clone().unwrap_or_else(|| self.experiment.wire());
        self.measure(&mut self.start(contender, &wire)?)
    }

    /// Lets a paused pair run for one measurement.
    fn measure_paused(&self, pair: &mut Pair<E::App>) -> Result<(E::Measured, f64)> {
        pair.resume()?;
        let measured = self.measure(pair);
        pair.pause()?;
        measured
    }

    /// Measures, and finds the least share of its core that a process had meanwhile.
    fn measure(&self, pair: &mut Pair<E::App>) -> Result<(E::Measured, f64)> {
        let watch = Watch::begin(pair.processor_times()?);
        let measured = self.experiment.measure(self.setup, self.method, pair)?;
        let share = watch.end(&pair.processor_times()?);
        let share = self.experiment.share(&measured).unwrap_or(share);
        Ok((measured, share))
    }

    fn probe(&self) -> Result<Found> {
        probe::look(self.setup.dataplane_core, self.setup.app_core, &self.method.thresholds)
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
        assert_eq!(Stillness::evaluate(Near, Some(Near), 0.99), Stillness::Still(Near));
        assert_eq!(Stillness::evaluate(Near, Some(Far), 0.99), Stillness::Changed);
        assert_eq!(Stillness::evaluate(Far, Some(Far), 0.5), Stillness::Disturbed);
        assert_eq!(Stillness::evaluate(Far, Some(Far), f64::NAN), Stillness::Disturbed);
        assert_eq!(Stillness::evaluate(Far, None, 1.0), Stillness::Disturbed);
    }
}

//! Frames per second, end to end: every contender in turn, round after round.

use std::fmt;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Family, Service};
use crate::error::{BenchError, Result};
use crate::probe::{self, State, Thresholds};
use crate::progress;
use crate::setup::{Setup, Wire};
use crate::testpmd::{PortStats, Role, Testpmd};

/// How often one sample is taken anew when the machine was disturbed or changed its state.
const TRIES: u32 = 8;
/// How long a disturbance is given to pass.
const PATIENCE: Duration = Duration::from_millis(300);
/// The least share of a window that a polling process must have had its core. Less means that somebody else ran there.
const LEAST_SHARE: f64 = 0.95;

/// Which way the frames go, as the application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// From the application to the wire.
    Tx,
    /// From the wire to the application.
    Rx,
}

impl Direction {
    /// testpmd's mode for an application that only does this.
    fn mode(self) -> &'static str {
        match self {
            Self::Tx => "txonly",
            Self::Rx => "rxonly",
        }
    }

    fn rate(self, stats: &PortStats) -> u64 {
        match self {
            Self::Tx => stats.tx_rate,
            Self::Rx => stats.rx_rate,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tx => "TX",
            Self::Rx => "RX",
        })
    }
}

/// One point of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Which way the frames go.
    pub(crate) direction: Direction,
    /// Length of a frame in bytes, without the checksum.
    pub(crate) frame_len: u16,
}

impl Cell {
    /// A wire that takes and gives frames at no cost. For TX it gives none, lest receiving be measured too.
    pub(crate) fn free_wire(self) -> Wire {
        let no_rx = match self.direction {
            Direction::Tx => ",no-rx=1",
            Direction::Rx => "",
        };
        Wire::new(format!("net_null0,size={}{no_rx}", self.frame_len))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} B", self.direction, self.frame_len)
    }
}

/// How samples are taken.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// Rounds of every contender in turn.
    pub(crate) rounds: u32,
    /// Time between letting the processes go on and the window.
    pub(crate) warm_up: Duration,
    /// Time over which a rate is taken.
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
    /// A look at the numbers in a minute or two.
    pub(crate) fn quick() -> Self {
        let (warm_up, window) = (Duration::from_millis(500), Duration::from_secs(1));
        Self { rounds: 2, warm_up, window, ..Self::default() }
    }
}

/// One measurement that holds.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The contender's name.
    pub(crate) contender: &'static str,
    /// The contender's family.
    pub(crate) family: Family,
    /// The round in which it was taken.
    pub(crate) round: u32,
    /// The machine's state, before and after.
    pub(crate) state: State,
    /// Million frames per second, by the application's count and clock.
    pub(crate) mpps: f64,
    /// For TX, what the wire has sent as a share of what the application has sent, where the system counts it.
    pub(crate) delivered: Option<f64>,
}

/// What one cell gave.
#[derive(Debug)]
pub(crate) struct CellResult {
    /// Which cell.
    pub(crate) cell: Cell,
    /// Every sample that holds.
    pub(crate) samples: Vec<Sample>,
    /// Samples thrown away because the state changed under them.
    pub(crate) changed: u32,
    /// Samples thrown away because another process took the cores.
    pub(crate) disturbed: u32,
    /// Contenders that could not be measured, and why.
    pub(crate) skipped: Vec<(&'static str, String)>,
}

/// A system with its application.
struct Pair {
    app: Testpmd,
    // After the application, which is to end first.
    service: Box<dyn Service>,
}

impl Pair {
    fn start(setup: &Setup, contender: &dyn Contender, cell: Cell, wire: &Wire) -> Result<Self> {
        let service = contender.start(setup, wire)?;
        let name = format!("{}-app", contender.name());
        let role = Role {
            name: &name,
            core: setup.app_core,
            devices: service.app_devices(),
            mode: cell.direction.mode(),
            frame_len: cell.frame_len,
        };
        let mut app = Testpmd::start(setup, &role)?;
        app.forward()?;
        Ok(Self { app, service })
    }

    fn pause(&self) -> Result<()> {
        self.app.process().pause()?;
        self.service.processes().into_iter().try_for_each(|process| process.pause())
    }

    fn resume(&self) -> Result<()> {
        self.service.processes().into_iter().try_for_each(|process| process.resume())?;
        self.app.process().resume()
    }

    /// Processor time used so far by the application, and by the system if it has a process of its own.
    fn processor_times(&self) -> Result<Vec<Duration>> {
        let mut all = self.service.processes();
        all.push(self.app.process());
        all.into_iter().map(|process| process.processor_time()).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // An application says good-bye to its system, and would wait for the answer of a paused one.
        let _gone = self.resume();
    }
}

/// What one window gave, whether it holds or not.
struct Window {
    stats: [PortStats; 2],
    wire: [Option<u64>; 2],
    wire_time: Duration,
    least_share: f64,
}

/// A contender's place in a cell.
struct Entry<'a> {
    contender: &'a dyn Contender,
    /// Started and paused, unless only one contender can own the wire at a time.
    pair: Option<Pair>,
    failed: bool,
}

/// Measures one cell.
///
/// A contender that cannot be started or breaks is skipped, with its reason in the result.
///
/// # Errors
///
/// On Ctrl-C, and when the cores cannot be probed.
pub(crate) fn run(setup: &Setup, contenders: &[Box<dyn Contender>], cell: Cell, method: &Method) -> Result<CellResult> {
    let mut result = CellResult { cell, samples: Vec::new(), changed: 0, disturbed: 0, skipped: Vec::new() };
    let mut entries = Vec::new();
    for contender in contenders {
        let contender = contender.as_ref();
        if let Some(why) = contender.missing(setup) {
            skip(&mut result, contender, why);
            continue;
        }
        let mut entry = Entry { contender, pair: None, failed: false };
        if method.wire.is_none() {
            let started = Pair::start(setup, contender, cell, &cell.free_wire()).and_then(|pair| {
                pair.pause()?;
                Ok(pair)
            });
            entry.pair = keep_going(started, &mut result, contender)?;
            entry.failed = entry.pair.is_none();
        }
        entries.push(entry);
    }
    for round in 0..method.rounds {
        // Another contender goes first in each round, so that none always follows the same one.
        let first = usize::try_from(round).unwrap_or_default() % entries.len().max(1);
        entries.rotate_left(first.min(1));
        for entry in entries.iter_mut().filter(|entry| !entry.failed) {
            let sampled = sample(setup, entry, cell, method, round, &mut result);
            if keep_going(sampled, &mut result, entry.contender)?.is_none() {
                entry.failed = true;
                entry.pair = None;
            }
        }
    }
    Ok(result)
}

/// Turns a contender's failure into a skip; an interrupt stays an error.
fn keep_going<T>(tried: Result<T>, result: &mut CellResult, contender: &dyn Contender) -> Result<Option<T>> {
    match tried {
        Ok(value) => Ok(Some(value)),
        Err(BenchError::Interrupted) => Err(BenchError::Interrupted),
        Err(error) => {
            skip(result, contender, error.to_string());
            Ok(None)
        }
    }
}

fn skip(result: &mut CellResult, contender: &dyn Contender, why: String) {
    progress(&format!("{}: {} is skipped: {why}", result.cell, contender.name()));
    result.skipped.push((contender.name(), why));
}

/// Takes one sample, anew when the machine did not keep still, up to [`TRIES`] times.
fn sample(
    setup: &Setup,
    entry: &mut Entry<'_>,
    cell: Cell,
    method: &Method,
    round: u32,
    result: &mut CellResult,
) -> Result<()> {
    let contender = entry.contender;
    for _ in 0..TRIES {
        let before = probe::one_way_ns(setup.dataplane_core, setup.app_core)?;
        let Some(state) = State::of(before, &method.thresholds) else {
            result.disturbed += 1;
            setup.interrupt.sleep(PATIENCE)?;
            continue;
        };
        let window = match (&mut entry.pair, &method.wire) {
            (Some(pair), _) => {
                pair.resume()?;
                let window = measure(setup, pair, method);
                pair.pause()?;
                window?
            }
            (None, wire) => {
                let wire = wire.clone().unwrap_or_else(|| cell.free_wire());
                measure(setup, &mut Pair::start(setup, contender, cell, &wire)?, method)?
            }
        };
        let after = probe::one_way_ns(setup.dataplane_core, setup.app_core)?;
        match State::of(after, &method.thresholds) {
            Some(now) if now == state && window.least_share >= LEAST_SHARE => {}
            Some(now) if now != state => {
                result.changed += 1;
                continue;
            }
            _ => {
                result.disturbed += 1;
                continue;
            }
        }
        let mpps = window.mpps(cell, contender)?;
        let delivered = (cell.direction == Direction::Tx).then(|| window.delivered(mpps)).flatten();
        let ratio = delivered.map(|share| format!(", {:.1} % reached the wire", share * 100.0)).unwrap_or_default();
        progress(&format!(
            "{cell} round {round} {}: {mpps:.2} Mpps, {state} ({before:.0} ns){ratio}",
            contender.name()
        ));
        let (contender, family) = (contender.name(), contender.family());
        result.samples.push(Sample { contender, family, round, state, mpps, delivered });
        return Ok(());
    }
    progress(&format!("{cell} round {round} {}: the machine did not keep still", contender.name()));
    Ok(())
}

fn measure(setup: &Setup, pair: &mut Pair, method: &Method) -> Result<Window> {
    setup.interrupt.sleep(method.warm_up)?;
    // The wire's count is asked for outside of the application's window: asking costs the system time.
    let (wire_start, wire_first) = (Instant::now(), pair.service.wire_sent()?);
    let first = pair.app.port_stats(0)?;
    let (start, used_first) = (Instant::now(), pair.processor_times()?);
    setup.interrupt.sleep(method.window)?;
    let used_last = pair.processor_times()?;
    let elapsed = start.elapsed();
    let last = pair.app.port_stats(0)?;
    let (wire_time, wire_last) = (wire_start.elapsed(), pair.service.wire_sent()?);

    let shares =
        used_last.iter().zip(&used_first).map(|(last, first)| last.saturating_sub(*first).div_duration_f64(elapsed));
    Ok(Window {
        stats: [first, last],
        wire: [wire_first, wire_last],
        wire_time,
        least_share: shares.fold(f64::INFINITY, f64::min),
    })
}

impl Window {
    /// The rate that the application saw.
    ///
    /// # Errors
    ///
    /// When there was no traffic, or frames of another length than asked for: the numbers would mean something else.
    fn mpps(&self, cell: Cell, contender: &dyn Contender) -> Result<f64> {
        let [first, last] = &self.stats;
        let rate = cell.direction.rate(last);
        if rate == 0 {
            return Err(BenchError::Failed(format!("no traffic went through {}", contender.name())));
        }
        let packets = last.rx_packets.saturating_sub(first.rx_packets);
        let bytes = last.rx_bytes.saturating_sub(first.rx_bytes);
        // net_null counts no bytes. The two counters are read one after the other under traffic, so they differ a bit.
        let asked = packets * u64::from(cell.frame_len);
        let odd = bytes != 0 && bytes.abs_diff(asked) > asked / 100;
        if cell.direction == Direction::Rx && odd {
            return Err(BenchError::Failed(format!("{packets} frames of {} B came as {bytes} B", cell.frame_len)));
        }
        Ok(approximate(rate) / 1e6)
    }

    /// What reached the wire, as a share of what the application sent.
    fn delivered(&self, mpps: f64) -> Option<f64> {
        let [Some(first), Some(last)] = self.wire else { return None };
        Some(approximate(last.saturating_sub(first)) / self.wire_time.as_secs_f64() / (mpps * 1e6))
    }
}

/// A count as a number for arithmetic; exact below 2^53.
fn approximate(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of frames in a run are far below 2^53")]
    let number = count as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Raw;

    fn window(rx_packets: u64, rx_bytes: u64, rate: u64) -> Window {
        let first = PortStats { rx_packets: 5, rx_bytes: 9, tx_packets: 0, rx_rate: 0, tx_rate: 0 };
        let last = PortStats {
            rx_packets: 5 + rx_packets,
            rx_bytes: 9 + rx_bytes,
            tx_packets: 0,
            rx_rate: rate,
            tx_rate: rate,
        };
        let wire = [Some(0), Some(2_000_000)];
        Window { stats: [first, last], wire, wire_time: Duration::from_secs(2), least_share: 1.0 }
    }

    #[test]
    fn only_traffic_of_the_asked_length_gives_a_rate() {
        let cell = Cell { direction: Direction::Rx, frame_len: 64 };
        assert_eq!(window(1000, 64_064, 1_500_000).mpps(cell, &Raw).ok(), Some(1.5));
        assert_eq!(window(10, 0, 1_500_000).mpps(cell, &Raw).ok(), Some(1.5));
        assert!(window(10, 660, 1_500_000).mpps(cell, &Raw).is_err());
        assert!(window(0, 0, 0).mpps(cell, &Raw).is_err());
    }

    #[test]
    fn what_the_wire_sent_is_a_share_of_what_the_application_sent() {
        assert_eq!(window(0, 0, 0).delivered(1.0), Some(1.0));
        assert_eq!(window(0, 0, 0).delivered(2.0), Some(0.5));
        assert_eq!(Window { wire: [Some(0), None], ..window(0, 0, 0) }.delivered(1.0), None);
    }

    #[test]
    fn a_tx_wire_gives_no_frames() {
        let wire = |direction| Cell { direction, frame_len: 512 }.free_wire().device().to_owned();
        assert_eq!(wire(Direction::Tx), "net_null0,size=512,no-rx=1");
        assert_eq!(wire(Direction::Rx), "net_null0,size=512");
    }
}

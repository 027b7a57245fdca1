//! How frames are copied into rings is found out at start, for each direction by itself.
//!
//! Which routine is the quickest depends on the processor, and on what its caches do when the bytes go to another CPU. So a worker's CPU
//! and another one send frames to each other for some milliseconds, by either routine in turn.

use core_affinity::CoreId;
use kopi_ring::layout::{LINE, Notes};
use kopi_ring::{Consumer, CopyRoutine, CopyRoutines, Geometry, HugePages, PeerFault, Producer, Region};
use rustix::thread::sched_getaffinity;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Slots of a ring, and bytes of each.
const SLOTS: u32 = 512;
const SLOT: u32 = 2048;
/// Frames in a burst.
const BURST: u32 = 32;
/// Pairs of samples for each length and direction.
const ROUNDS: usize = 7;
/// Private buffers of either side.
const BUFFERS: usize = 128;
/// CPUs that a thread can be bound to, as glibc's `CPU_SETSIZE` has it.
const SETTABLE: u16 = 1024;
/// How many times as long the routine has to take that CPUID recommends for another one to be chosen. CPUs of virtual machines move
/// about: while two of them are threads of one core, which does not last, a Zen 4 takes 1.05 times as long by string moves, and else
/// 0.6 times or less.
const CLEARLY: f64 = 1.15;
/// After so long, what the processor recommends has to do: somebody else has one of the CPUs.
const TIMEOUT: Duration = Duration::from_millis(250);

/// A private buffer: from the beginning of a cache line on, and as far from the next one as in DPDK's pools, an odd number of lines.
/// Both matter to string moves as much as what is measured.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Buffer([u8; 37 * LINE]);

/// Frames of one length that make up a sample.
#[derive(Clone, Copy, Debug)]
struct Load {
    frames: u32,
    bytes: usize,
}

const SHORT: Load = Load { frames: 2048, bytes: 64 };
const LONG: Load = Load { frames: 512, bytes: 1518 };

/// The routines, and how they were chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyTrial {
    /// The choice.
    pub routines: CopyRoutines,
    /// What was measured, or `None` if the choice is what the processor recommends.
    pub measured: Option<Measured>,
}

/// How long string moves take by the time that registers take, for frames of 64 and of 1,518 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// From the app's side.
    pub tx: [f64; 2],
    /// From the worker's.
    pub rx: [f64; 2],
}

impl CopyTrial {
    /// Measures, on the CPU of a worker and one of `others`, the first that is free for it.
    #[must_use]
    pub fn run(worker: u16, online: &BTreeSet<u16>, busy: &[u16]) -> Self {
        let by_cpuid = CopyRoutine::by_cpuid();
        let mut others = partners(worker, online, busy).into_iter();
        let Some((other, measured)) = others.find_map(|other| Some((other, measure(worker, other)?))) else {
            log::info!(
                "frames are copied into rings by {}, as CPUID has it: no two CPUs were free to try it",
                by_cpuid
            );
            return Self { routines: CopyRoutines::by_cpuid(), measured: None };
        };
        let (tx, rx) = (choose(by_cpuid, measured.tx), choose(by_cpuid, measured.rx));
        let Measured { tx: [tx_short, tx_long], rx: [rx_short, rx_long] } = measured;
        log::info!(
            "frames are copied into TX rings by {tx}, into RX rings by {rx}: string moves take {tx_short:.2} (64 bytes) and \
             {tx_long:.2} (1518) of the time of registers in TX rings, {rx_short:.2} and {rx_long:.2} in RX rings, on CPUs {worker} \
             and {other}"
        );
        Self { routines: CopyRoutines { tx, rx }, measured: Some(measured) }
    }
}

/// The routine for these ratios, where CPUID recommends `by_cpuid`.
fn choose(by_cpuid: CopyRoutine, [short, long]: [f64; 2]) -> CopyRoutine {
    let bearable = |recommended: bool| if recommended { CLEARLY } else { 1.0 / CLEARLY };
    if short < bearable(by_cpuid == CopyRoutine::String) {
        CopyRoutine::String
    } else if long < bearable(by_cpuid != CopyRoutine::Registers) {
        CopyRoutine::LongString
    } else {
        CopyRoutine::Registers
    }
}

/// The CPUs that an app may be on, the likeliest first: near by number, of no worker, and no thread of the worker's own core.
fn partners(worker: u16, online: &BTreeSet<u16>, busy: &[u16]) -> Vec<u16> {
    let path = format!("/sys/devices/system/cpu/cpu{worker}/topology/thread_siblings_list");
    let siblings = fs::read_to_string(path).ok().and_then(|list| kopi_config::parse_cpu_list(list.trim_end()));
    let siblings = siblings.unwrap_or_default();
    let mut others: Vec<u16> = online.iter().copied().filter(|cpu| *cpu != worker && *cpu < SETTABLE).collect();
    // This thread keeps off the CPUs of workers, and off those that kopid may not use at all.
    let allowed = sched_getaffinity(None).ok();
    let is_allowed = |cpu: u16| allowed.as_ref().is_none_or(|allowed| allowed.is_set(cpu.into()));
    others.sort_by_key(|&cpu| (siblings.contains(&cpu), busy.contains(&cpu), !is_allowed(cpu), cpu.abs_diff(worker)));
    others.truncate(2);
    others
}

/// The medians of all pairs of samples, or `None` if these CPUs cannot be had.
fn measure(worker: u16, other: u16) -> Option<Measured> {
    let geometry = Geometry::new(&[SLOTS], &[SLOTS], SLOT).ok()?;
    let region = Region::create(&geometry, HugePages::Off).ok()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (found, results) = mpsc::channel();
    let app = End { out: region.tx_producer(0)?, back: region.rx_consumer(0)?, sends_first: true };
    let dataplane = End { out: region.rx_producer(0)?, back: region.tx_consumer(0)?, sends_first: false };
    for (mut end, cpu) in [(app, other), (dataplane, worker)] {
        let (stopped, found) = (Arc::clone(&stop), found.clone());
        let run = move || {
            let taken = core_affinity::set_for_current(CoreId { id: cpu.into() });
            let samples = if taken { end.samples(&stopped) } else { None };
            // Who has waited long enough has left.
            let _sent = found.send((end.sends_first, samples));
        };
        if thread::Builder::new().name("kopi-copy".to_owned()).spawn(run).is_err() {
            // The other one must not wait for ever.
            stop.store(true, Relaxed);
            return None;
        }
    }
    let end = Instant::now() + TIMEOUT;
    let mut ratios = [None; 2];
    for _ in 0..2 {
        let result = results.recv_timeout(end.saturating_duration_since(Instant::now()));
        let Ok((is_app, Some(samples))) = result else {
            // The other one ends by itself.
            stop.store(true, Relaxed);
            return None;
        };
        // The app's end has timed what came from the daemon's.
        ratios[usize::from(is_app)] = Some(medians(&samples));
    }
    let [tx, rx] = ratios;
    Some(Measured { tx: tx?, rx: rx? })
}

/// Nanoseconds of each sample, by round, load and routine.
type Samples = Vec<[[f64; 2]; 2]>;

fn medians(samples: &Samples) -> [f64; 2] {
    [0, 1].map(|load: usize| {
        let mut ratios: Vec<f64> = samples.iter().map(|round| round[load][1] / round[load][0].max(1.0)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
    })
}

/// One side of the trial.
struct End {
    out: Producer,
    back: Consumer,
    /// Whether it sends before it receives. The other one then does the opposite, so that they take turns.
    sends_first: bool,
}

impl End {
    /// Sends and receives all there is, and times what it receives. `None` if the other side does not answer.
    fn samples(&mut self, stop: &AtomicBool) -> Option<Samples> {
        let mut buffers = vec![Buffer([0; 37 * LINE]); BUFFERS];
        let mut all = Samples::with_capacity(ROUNDS);
        // The first round warms up.
        for round in 0..=ROUNDS {
            let mut samples = [[0.0; 2]; 2];
            for (load, samples) in [SHORT, LONG].into_iter().zip(&mut samples) {
                // Who is first has no advantage.
                for turn in [round % 2, (round + 1) % 2] {
                    let routine = if turn == 0 { CopyRoutine::Registers } else { CopyRoutine::String };
                    self.out.copy_by(routine);
                    if self.sends_first {
                        send(&mut self.out, load, &buffers, stop)?;
                        samples[turn] = receive(&mut self.back, load, &mut buffers, stop)?;
                    } else {
                        samples[turn] = receive(&mut self.back, load, &mut buffers, stop)?;
                        send(&mut self.out, load, &buffers, stop)?;
                    }
                }
            }
            if round > 0 {
                all.push(samples);
            }
        }
        Some(all)
    }
}

/// Sends one sample.
fn send(ring: &mut Producer, load: Load, buffers: &[Buffer], stop: &AtomicBool) -> Option<()> {
    let mut sources = buffers.iter().cycle();
    let mut left = load.frames;
    while left > 0 {
        let free = until(stop, || Ok(ring.free(BURST)?.min(left).min(BURST)))?;
        for buffer in sources.by_ref().take(free as usize) {
            ring.push(buffer.0.get(..load.bytes)?, Notes::NONE);
        }
        ring.publish();
        left -= free;
    }
    Some(())
}

/// Receives one sample, and returns the nanoseconds from the first frame on.
fn receive(ring: &mut Consumer, load: Load, buffers: &mut [Buffer], stop: &AtomicBool) -> Option<f64> {
    let mut left = load.frames;
    let mut at = 0;
    let mut begun = None;
    while left > 0 {
        let ready = until(stop, || Ok(ring.poll()?.min(left).min(BURST)))?;
        begun.get_or_insert_with(Instant::now);
        for _ in 0..ready {
            let frame = ring.next().ok()??;
            let buffer = buffers.get_mut(at)?.0.get_mut(..load.bytes)?;
            ring.copy(&frame, buffer);
            at = (at + 1) % BUFFERS;
        }
        ring.release();
        left -= ready;
    }
    begun.map(|begun| begun.elapsed().as_secs_f64() * 1e9)
}

/// What `look` finds as soon as it finds any, unless it is time to stop.
fn until(stop: &AtomicBool, mut look: impl FnMut() -> Result<u32, PeerFault>) -> Option<u32> {
    while !stop.load(Relaxed) {
        match look().ok()? {
            0 => std::hint::spin_loop(),
            found => return Some(found),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each length counts for itself, and what CPUID recommends is kept unless it is clearly wrong.
    #[test]
    fn the_quicker_routine_is_chosen() {
        use CopyRoutine::{LongString, Registers, String};
        for by_cpuid in CopyRoutine::ALL {
            assert_eq!(choose(by_cpuid, [0.6, 0.8]), String);
            assert_eq!(choose(by_cpuid, [1.5, 0.8]), LongString);
            assert_eq!(choose(by_cpuid, [1.5, 1.8]), Registers);
            assert_eq!(choose(by_cpuid, [1.05, 1.0]), by_cpuid);
        }
    }

    /// A disturbed sample does not decide.
    #[test]
    fn medians_bear_outliers() {
        let round = |short, long| [[100.0, short], [100.0, long]];
        let samples = vec![round(50.0, 200.0), round(9000.0, 1.0), round(60.0, 210.0)];
        assert_eq!(medians(&samples), [0.6, 2.0]);
    }

    /// CPUs of workers and of the same core are the last choice, and a machine with one CPU has none.
    #[test]
    fn partners_are_other_cpus() {
        assert_eq!(partners(0, &BTreeSet::from([0]), &[0]), Vec::<u16>::new());
        let far = BTreeSet::from([1000, 1001, 1002, 1003, 1024]);
        assert_eq!(partners(1001, &far, &[1001, 1002]), [1000, 1003]);
    }

    /// A CPU that does not exist, or not for this process, is no partner; and no thread stays behind.
    #[test]
    fn absent_cpus_measure_nothing() {
        assert_eq!(measure(1022, 1023), None);
    }

    /// Where there are two CPUs, both directions are measured, and no ratio is absurd.
    #[test]
    fn two_cpus_measure() {
        let online = kopi_config::online_cpus().unwrap();
        let mut cpus = online.iter().copied();
        let (Some(worker), Some(_)) = (cpus.next(), cpus.next()) else { return };
        let trial = CopyTrial::run(worker, &online, &[worker]);
        if let Some(Measured { tx, rx }) = trial.measured {
            assert!(tx.iter().chain(&rx).all(|ratio| (0.01..100.0).contains(ratio)), "{trial:?}");
            assert_eq!(
                (trial.routines.tx, trial.routines.rx),
                (choose(CopyRoutine::by_cpuid(), tx), choose(CopyRoutine::by_cpuid(), rx))
            );
        }
    }
}

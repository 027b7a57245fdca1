//! Holes that apps make in unsealed regions, where the kernel does not tell of their touch.
//!
//! A region that lacks a page is found by asking for its size, ten times a second. An app that fills each hole again at once has it
//! for a few microseconds only, and is hardly ever found by that. But each hole costs a worker a page fault, and workers have
//! none otherwise: their memory is all there from the start. So their faults are counted, and while there are many, regions are
//! looked at over and over for a moment.
//!
//! What fills its hole on the very CPU that searches is not met with: the two never run at the same time.

use rustix::thread::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// Page faults of the workers between two looks from which on it is searched. At 50 µs, the cost of the dearest, ten times as many
/// a second are a hundredth of a worker's time.
const MANY: u64 = 20;
/// For how long, at each look. A hole that is filled again at once, five thousand times a second, is met with in a few looks.
const SEARCH: Duration = Duration::from_millis(2);

/// What was counted last.
#[derive(Debug, Default)]
pub struct HoleSearch {
    faults: Option<u64>,
}

impl HoleSearch {
    /// Notes how many page faults the workers have had so far, and calls `look` until it finds something: once, or for a moment if
    /// there were many since the last call.
    pub fn search<T>(&mut self, faults: u64, mut look: impl FnMut() -> Vec<T>) -> Vec<T> {
        let before = self.faults.replace(faults).unwrap_or(faults);
        let begun = Instant::now();
        loop {
            let found = look();
            if !found.is_empty() || faults.saturating_sub(before) < MANY || begun.elapsed() >= SEARCH {
                return found;
            }
        }
    }
}

/// Page faults so far of this thread of our own that needed nothing from a disk; 0 if there is no such thread.
#[must_use]
pub fn faults_of(thread: Pid) -> u64 {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    fs::read_to_string(path).ok().and_then(|stat| minor_faults(&stat)).unwrap_or(0)
}

/// The same by its line there: field 10, see proc_pid_stat(5).
fn minor_faults(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::{Geometry, HugePages, PeerFault, Region};
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;

    /// The right field is read, whatever the thread is called.
    #[test]
    fn faults_are_read() {
        let line = |name: &str| format!("7 ({name}) S 1 7 7 0 -1 4194304 1234 0 5 0 10 11 0 0 20 0 9 0 100 1000 10");
        assert_eq!((minor_faults(&line("kopi-worker-3")), minor_faults(&line(") 7 (x"))), (Some(1234), Some(1234)));
        assert_eq!(minor_faults(""), None);
        let before = faults_of(rustix::thread::gettid());
        let touched = std::hint::black_box(vec![1_u8; 8 << 20]);
        assert!(faults_of(rustix::thread::gettid()) > before, "{} bytes", touched.len());
    }

    /// One look where all is calm, and many while there are faults, until something is found.
    #[test]
    fn it_is_searched_while_there_are_faults() {
        let (mut search, mut looks) = (HoleSearch::default(), 0);
        let mut look = |search: &mut HoleSearch, faults, after| {
            looks = 0;
            let found = search.search(faults, || {
                looks += 1;
                if looks == after { vec![()] } else { Vec::new() }
            });
            (looks, found.len())
        };
        assert_eq!(look(&mut search, 1_000_000, 0), (1, 0), "what was before does not count");
        assert_eq!(look(&mut search, 1_000_000 + MANY - 1, 0), (1, 0));
        assert_eq!(look(&mut search, 1_000_000 + 2 * MANY, 9), (9, 1));
        assert!(look(&mut search, 1_000_000 + 3 * MANY, 0).0 > 10);
    }

    /// An app that fills each hole again itself is found, though the kernel tells nobody of a touch. It shares a CPU with the worker,
    /// and not with the search.
    #[test]
    fn holes_that_are_filled_again_are_found() {
        let allowed = sched_getaffinity(None).unwrap();
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (Some(theirs), Some(ours)) = (cpus.next(), cpus.next()) else { return };
        let stay_on = |cpu| {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(None, &only).unwrap();
        };
        let region = Region::create(&Geometry::new(&[64], &[64], 2048).unwrap(), HugePages::Off).unwrap();
        let at = region.geometry().layout().tx[0].offset as u64;
        let (region, stop) = (&region, &AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                stay_on(theirs);
                while !stop.load(Relaxed) {
                    fallocate(region.fd(), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, 4096).unwrap();
                    fallocate(region.fd(), FallocateFlags::empty(), at, 4096).unwrap();
                    thread::park_timeout(Duration::from_micros(200));
                }
            });
            let (name, number) = std::sync::mpsc::channel();
            scope.spawn(move || {
                stay_on(theirs);
                name.send(rustix::thread::gettid()).unwrap();
                let mut consumer = region.tx_consumer(0).unwrap();
                while !stop.load(Relaxed) {
                    let _holes: Result<u32, PeerFault> = consumer.poll();
                }
            });
            stay_on(ours);
            let worker = number.recv().unwrap();
            let (mut search, begun) = (HoleSearch::default(), Instant::now());
            let look = || if region.is_whole() { Vec::new() } else { vec![()] };
            while search.search(faults_of(worker), look).is_empty() && begun.elapsed() < Duration::from_secs(20) {
                thread::park_timeout(Duration::from_millis(100));
            }
            stop.store(true, Relaxed);
            assert!(begun.elapsed() < Duration::from_secs(20), "it was never found");
        });
    }
}

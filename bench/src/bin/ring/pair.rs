//! A producer and a consumer on two cores, and what a frame costs between them.

use core_affinity::CoreId;
use kopi_ring::layout::{LINE, Notes};
use kopi_ring::{Consumer, PeerFault, Producer};
use std::fs;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// Frames in a burst, as everywhere in kopi.
pub(crate) const BURST: u32 = 32;
/// The consumer's private buffers, taken in turn as a packet pool's are.
const SINKS: usize = 1024;
/// The producer's private buffers, fewer, as an application that sends takes them from its pool's cache.
const SOURCES: usize = 64;
/// Bytes from one private buffer to the next: 2,048 for the frame, and the distance that DPDK's pools keep, an odd
/// number of cache lines.
const BUFFER: usize = 37 * LINE;
/// Bursts between two looks at the clock.
const BURSTS_PER_LOOK: u32 = 256;

/// The two processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
}

impl Cores {
    /// Binds the calling thread to a processor, if it can be done.
    pub(crate) fn pin(core: usize) -> bool {
        core_affinity::set_for_current(CoreId { id: core })
    }

    /// Both processors exist and are two.
    pub(crate) fn check(self) -> Result<(), String> {
        if self.producer == self.consumer {
            return Err("producer and consumer need a processor each".into());
        }
        for core in [self.producer, self.consumer] {
            if !thread::scope(|scope| scope.spawn(|| Self::pin(core)).join().unwrap_or(false)) {
                return Err(format!("cannot run on processor {core}"));
            }
        }
        Ok(())
    }
}

/// Nanoseconds that the calling thread has waited for its processor while ready to run.
fn waited_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// Takes up to a burst of frames, copies each to a buffer of its own, and releases them.
#[inline]
fn drain_burst(ring: &mut Consumer, to: &mut Buffers) -> Result<u32, PeerFault> {
    let ready = ring.poll()?.min(BURST);
    let mut taken = 0;
    while taken < ready {
        let Some(frame) = ring.next()? else { break };
        // The length is known only here, as for a daemon that gives each frame a packet buffer.
        let len = frame.len() as usize;
        if let Some(buffer) = to.current().get_mut(..len) {
            ring.copy(&frame, buffer);
        }
        to.advance();
        taken += 1;
    }
    if taken > 0 {
        ring.release();
    }
    Ok(taken)
}

/// Private packet buffers, taken in turn.
#[derive(Debug)]
pub(crate) struct Buffers {
    memory: Vec<u8>,
    /// Offset of the first, which begins a cache line as frames in packet buffers do.
    first: usize,
    at: usize,
}

impl Buffers {
    fn new(count: usize) -> Self {
        let memory = vec![0x5a; count * BUFFER + LINE];
        let first = memory.as_ptr().align_offset(LINE).min(LINE);
        Self { memory, first, at: first }
    }

    #[inline]
    fn current(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.at..self.at + BUFFER).unwrap_or_default()
    }

    #[inline]
    fn advance(&mut self) {
        self.at += BUFFER;
        if self.at + BUFFER > self.memory.len() {
            self.at = self.first;
        }
    }
}

/// How a sample is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Bytes of each frame.
    pub(crate) len: usize,
    /// Frames after which the producer publishes.
    pub(crate) publish: u32,
    /// How long to count.
    pub(crate) time: Duration,
}

/// What one sample found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Nanoseconds per frame that the consumer saw, which is what the slower side needs.
    pub(crate) nanoseconds: f64,
    /// Milliseconds for which one of the two threads had to wait for its processor: somebody else was running there.
    pub(crate) waited_ms: f64,
}

/// Drives frames through the ring.
pub(crate) fn run(mut fill: Producer, mut drain: Consumer, cores: Cores, load: Load) -> Result<Found, PeerFault> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            Cores::pin(cores.producer);
            let before = waited_ns();
            let filled = fill_until(&stop, &mut fill, load);
            stop.store(true, Relaxed);
            filled.map(|()| waited_ns().saturating_sub(before))
        });
        let consumer = scope.spawn(|| {
            Cores::pin(cores.consumer);
            let before = waited_ns();
            let counted = drain_for(&stop, &mut drain, load.time);
            stop.store(true, Relaxed);
            counted.map(|nanoseconds| (nanoseconds, waited_ns().saturating_sub(before)))
        });
        let (nanoseconds, emptying) = consumer.join().expect("the consumer does not panic")?;
        let filling = producer.join().expect("the producer does not panic")?;
        let waited = Duration::from_nanos(filling.max(emptying));
        Ok(Found { nanoseconds, waited_ms: waited.as_secs_f64() * 1e3 })
    })
}

fn fill_until(stop: &AtomicBool, fill: &mut Producer, load: Load) -> Result<(), PeerFault> {
    let mut sources = Buffers::new(SOURCES);
    while !stop.load(Relaxed) {
        let free = fill.free(BURST)?.min(BURST);
        let mut unpublished = 0;
        for _ in 0..free {
            let len = black_box(load.len);
            fill.push(sources.current().get(..len).unwrap_or_default(), Notes::NONE);
            sources.advance();
            unpublished += 1;
            if unpublished == load.publish {
                fill.publish();
                unpublished = 0;
            }
        }
        if unpublished > 0 {
            fill.publish();
        }
    }
    Ok(())
}

/// Empties the ring and returns the nanoseconds per frame. The first tenth of the time is not counted.
fn drain_for(stop: &AtomicBool, drain: &mut Consumer, time: Duration) -> Result<f64, PeerFault> {
    let mut sinks = Buffers::new(SINKS);
    let mut count = |time: Duration| {
        let start = Instant::now();
        let mut frames = 0_u64;
        loop {
            for _ in 0..BURSTS_PER_LOOK {
                frames += u64::from(drain_burst(drain, &mut sinks)?);
            }
            let elapsed = start.elapsed();
            if elapsed >= time || stop.load(Relaxed) {
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 frames fit into a sample")]
                return Ok(elapsed.as_secs_f64() * 1e9 / frames.max(1) as f64);
            }
        }
    };
    count(time / 10)?;
    count(time)
}

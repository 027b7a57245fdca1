//! Fault 16: two real threads over a real ring, one of which sleeps whenever it finds nothing. It never sleeps while its ring
//! has frames.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use kopi_ring::layout::Notes;
use kopi_ring::need_wakeup::barrier;
use kopi_ring::{Consumer, Geometry, HugePages, Producer, Region};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// Far longer than any machine takes to schedule a thread.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the two sides know of each other beside the ring.
#[derive(Default)]
struct Counts {
    popped: AtomicU64,
    sleeps: AtomicU64,
    done: AtomicBool,
}

/// Pops until all is done; sleeps whenever there is nothing.
fn consume(mut ring: Consumer, region: &Region, counts: &Counts) {
    let (futex, interrupt) = (region.wake_futex(), region.rx_interrupt(0).unwrap());
    let mut popped = 0;
    loop {
        while ring.poll().unwrap() > 0 {
            while ring.next().unwrap().is_some() {
                popped += 1;
            }
            ring.release();
        }
        counts.popped.store(popped, Relaxed);
        let wakeups = futex.count();
        if counts.done.load(Relaxed) {
            return;
        }
        counts.sleeps.fetch_add(1, Relaxed);
        if !interrupt.enable() {
            futex.wait(wakeups, None);
        }
        interrupt.disable();
    }
}

/// Pushes `rounds` bursts, each after the one before was popped and a pause of anything between nothing and the time that it
/// takes to fall asleep. Returns the number of wake-ups.
fn produce(ring: &mut Producer, region: &Region, counts: &Counts, rounds: u64) -> u64 {
    let futex = region.wake_futex();
    let (mut wakeups, mut pushed, mut seed) = (0, 0, 0x9e37_79b9_u64);
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // One round in four comes after the other side is fast asleep.
        let pause = if round % 4 == 0 { 2000 } else { seed >> 33 & 255 };
        (0..pause).for_each(|_| std::hint::spin_loop());
        for _ in 0..=(seed >> 60 & 1) {
            assert!(ring.free(1).unwrap() > 0 && ring.push(&[0; 60], Notes::NONE));
            pushed += 1;
        }
        ring.publish();
        barrier();
        if ring.take_need_wakeup() {
            wakeups += 1;
            futex.wake();
        }
        let mut since = None;
        while counts.popped.load(Relaxed) < pushed {
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            assert!(waited < TIMEOUT, "round {round}: the consumer sleeps with frames in its ring");
            std::hint::spin_loop();
        }
    }
    wakeups
}

/// Ends the consumer when it goes out of scope, so that a failed assertion ends the test instead of hanging it.
struct End<'a>(&'a Region, &'a Counts);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.1.done.store(true, Relaxed);
        self.0.wake_futex().wake();
    }
}

fn play(rounds: u64) {
    let region = Region::create(&Geometry::new(&[64], &[64], 256).unwrap(), HugePages::Off).unwrap();
    let mut producer = region.rx_producer(0).unwrap();
    let consumer = region.rx_consumer(0).unwrap();
    let counts = Counts::default();
    let wakeups = std::thread::scope(|scope| {
        scope.spawn(|| consume(consumer, &region, &counts));
        let _end = End(&region, &counts);
        produce(&mut producer, &region, &counts, rounds)
    });
    let sleeps = counts.sleeps.load(Relaxed);
    assert!(wakeups > rounds / 100, "{wakeups} wake-ups in {rounds} rounds prove little");
    assert!(wakeups <= sleeps, "{wakeups} wake-ups for {sleeps} sleeps");
}

/// A short version of the next one.
#[test]
fn fault_16_no_wake_up_is_lost() {
    play(100_000);
}

/// Ten million rounds: run it with `--release -- --ignored` after any change to `need_wakeup.rs` or `wake_futex.rs`.
#[test]
#[ignore = "takes a minute or two"]
fn fault_16_no_wake_up_is_lost_in_ten_million_rounds() {
    play(10_000_000);
}

/// Two threads, of which the sender's barriers are light: Dekker's pattern with [`kopi_ring::need_wakeup::heavy_barrier`] on the
/// other side. Each round both store and then load; if neither saw the other, a wake-up would have been lost.
#[test]
fn heavy_barrier_makes_up_for_light_ones() {
    use kopi_ring::need_wakeup::{heavy_barrier, light_barrier, register_light};
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    if !register_light() {
        // A kernel without them: then nobody uses them.
        return;
    }
    let (head, need_wakeup) = (AtomicU32::new(0), AtomicU32::new(0));
    let missed = AtomicU32::new(0);
    let (begin, end) = (Barrier::new(2), Barrier::new(2));
    let rounds = 5_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                begin.wait();
                head.store(1, Relaxed);
                light_barrier();
                let wakes = need_wakeup.load(Relaxed) == 1;
                missed.store(u32::from(!wakes), Relaxed);
                end.wait();
            }
        });
        for round in 0..rounds {
            begin.wait();
            // Anything from before the other side's store to after its load.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            need_wakeup.store(1, Relaxed);
            assert!(heavy_barrier());
            let sees = head.load(Relaxed) == 1;
            end.wait();
            assert!(sees || missed.load(Relaxed) == 0, "round {round}: neither saw the other");
            head.store(0, Relaxed);
            need_wakeup.store(0, Relaxed);
        }
    });
}

//! Design decision 6: a worker allocates nothing, neither for a frame nor for a change that the control thread asks for.

use crate::lab::{App, Crew, Lab, MTU, wait_while_moving};
use kopi_dataplane::stages::mirror::Which;
use kopi_ring::message::{Mac, Settings};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Frames in each direction, with one worker and with two. Two of them and the apps are more threads than a small machine
/// has cores.
const FRAMES: [(usize, u64); 2] = [(1, 1_000_000), (2, 100_000)];
/// Frames and copies of them under way at most: no more than a ring, the wire, or the queue between two workers holds,
/// so none is lost even if a worker is off its core for a while.
const WINDOW: u64 = 900;
/// An address of nobody's, so that frames to it take the way over the wire.
const NOBODY: Mac = [2, 9, 9, 9, 9, 9];

/// Every kind of rule, and state by which frames are evaluated.
const POLICY: &str = r#"
default = { egress = "accept", ingress = "accept" }
[[rule]]
match = { proto = "udp" }
action = "count"
[[rule]]
match = { state = "established" }
action = "accept"
[[rule]]
match = { proto = "tcp" }
action = "reject"
"#;

thread_local! {
    /// Allocations of this thread so far.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: everything is passed on to the system's allocator as it came. Counting neither allocates nor unwinds: the
// counter is a constant at first and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sends `frames` frames of many flows from one app, and waits until the two together have received each `times` times.
fn flood(from: &mut App, to: &mut App, destination: &Mac, frames: u64, times: u64) {
    let (pushed, popped) = (from.pushed, from.popped + to.popped);
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(destination);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
    let mut delivered = 0;
    wait_while_moving("all frames are delivered", || {
        while from.pushed - pushed < frames && (from.pushed - pushed) * times < delivered + WINDOW {
            frame[26..30].copy_from_slice(&u32::try_from(from.pushed % 5000).expect("small").to_be_bytes());
            if !from.push(0, &frame) {
                break;
            }
        }
        from.publish();
        to.pop(u64::MAX);
        from.pop(u64::MAX);
        delivered = from.popped + to.popped - popped;
        (delivered, delivered >= frames * times)
    });
}

/// With one worker, and with two that hand frames to each other.
pub(crate) fn check(lab: &Lab) {
    let before = ALLOCATIONS.get();
    drop(vec![1_u8]);
    assert!(ALLOCATIONS.get() > before, "the allocator does not count");
    for (workers, frames) in FRAMES {
        let mut crew = Crew::start(lab, workers, || ALLOCATIONS.get());
        let settings =
            |id, promiscuous| Settings { mtu: MTU, promiscuous, all_multicast: false, macs: vec![App::mac(id)] };
        let mut a = crew.attach(1, settings(1, false), 1, 1024);
        let mut b = crew.attach(2, settings(2, true), 2, 1024);
        // App to wire, and wire to app: what nobody owns comes back from the loop to the promiscuous one.
        flood(&mut a, &mut b, &NOBODY, frames, 1);
        // App to app.
        flood(&mut a, &mut b, &App::mac(2), frames, 1);
        flood(&mut b, &mut a, &App::mac(1), frames, 1);
        // To everybody and the wire, and from there to everybody: the other app gets it twice, the sender once.
        flood(&mut a, &mut b, &[0xff; 6], frames, 3);
        // A capture session looks at everything, and its ring is full most of the time.
        crew.mirror(1, false, Which::All, "");
        crew.mirror(2, true, Which::All, "greater 1");
        flood(&mut a, &mut b, &NOBODY, frames / 10, 1);
        crew.unmirror(2);
        // The same under a policy: the long way for each flow, connections, refusals and answers to the sender.
        crew.enforce(POLICY);
        flood(&mut a, &mut b, &NOBODY, frames, 1);
        flood(&mut a, &mut b, &App::mac(2), frames, 1);
        flood(&mut a, &mut b, &[0xff; 6], frames, 3);
        crew.detach(1);
        let again = crew.attach(1, settings(1, false), 1, 64);
        let (totals, allocations) = crew.stop();
        assert!(totals[0].rx_packets >= 2 * frames && totals[1].tx_packets >= 3 * frames, "{totals:?}");
        assert_eq!(allocations, 0, "the workers have allocated");
        drop((a, b, again));
    }
}

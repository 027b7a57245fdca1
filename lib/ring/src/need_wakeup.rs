//! How the consumer of a ring sleeps without missing a frame.
//!
//! Each ring has one more word, alone on its pair of cache lines: *need_wakeup*, as in AF_XDP. Before it sleeps, the consumer
//! sets the word and looks into the ring once more. After it has published a burst, the producer looks at the word, and wakes
//! the consumer if it is set. Both put a full [`barrier`] between the store and the load. So if the consumer did not see the
//! burst, the producer sees the word (Dekker's pattern). The producer takes the word back before it wakes the consumer, so a
//! sleep costs one wake-up, however many bursts follow.
//!
//! While nobody sleeps the word is not written, and its line stays in the producer's cache. The barrier is paid once for each
//! burst or iteration, and only towards a peer that has announced that it sleeps. Apps do not even pay that: their barrier when
//! sending is [light](light_barrier), and the daemon has the kernel make up for it when it goes to sleep. The other way round
//! would let any app interrupt the daemon's cores.
//!
//! The functions take any [`NeedWakeup`], so that a model checker can stand in for shared memory.

use rustix::thread::{MembarrierCommand, membarrier};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// The consumer is awake. Public like [`SET`].
pub const AWAKE: u32 = 0;
/// The consumer wants to be woken by the next frame. Public for consumers that use the word itself as their futex.
pub const SET: u32 = 1;
/// The producer has woken the consumer, or is about to.
const TAKEN: u32 = 2;

/// The shared word. A peer that writes anything else into it is woken needlessly or not at all; nobody else is affected.
pub trait NeedWakeup {
    /// Reads the word, with no ordering.
    fn load(&self) -> u32;
    /// Writes the word with Release ordering.
    fn store(&self, value: u32);
    /// Writes `to` if the word is `from`, with Acquire and Release ordering, and returns whether it was.
    fn replace(&self, from: u32, to: u32) -> bool;
}

impl NeedWakeup for AtomicU32 {
    #[inline]
    fn load(&self) -> u32 {
        Self::load(self, Relaxed)
    }
    #[inline]
    fn store(&self, value: u32) {
        Self::store(self, value, Release);
    }
    #[inline]
    fn replace(&self, from: u32, to: u32) -> bool {
        self.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }
}

/// Keeps all earlier stores of this thread before all later loads.
#[inline]
pub fn barrier() {
    std::sync::atomic::fence(SeqCst);
}

/// Has the kernel execute a full barrier in every thread whose process is [registered](register_light), so that those threads
/// need only [light](light_barrier) ones (`membarrier(2)`, `GLOBAL_EXPEDITED`). Returns whether the kernel did.
///
/// Whatever such a thread did before the kernel's barrier is visible when this returns; whatever it loads after the barrier
/// sees all that the caller has stored before. So of its store and its load, which the processor may reorder, one is on the
/// right side.
#[must_use]
pub fn heavy_barrier() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// Registers this process for the [`heavy_barrier`]s of others, once and for all. Returns whether it may use light ones.
#[must_use]
pub fn register_light() -> bool {
    membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// Keeps all earlier stores of this thread before all later loads, provided that the thread that has to see them uses a
/// [`heavy_barrier`]. It costs nothing.
#[inline]
pub fn light_barrier() {
    std::sync::atomic::compiler_fence(SeqCst);
}

/// Consumer: asks to be woken. The consumer has to pass a [`barrier`] and look into its ring before it sleeps.
#[inline]
pub fn set(word: &impl NeedWakeup) {
    word.store(SET);
}

/// Consumer: is awake, and wants no wake-up.
#[inline]
pub fn clear(word: &impl NeedWakeup) {
    word.store(AWAKE);
}

/// Producer: takes the word back if it is set, and returns whether it was: then the producer has to wake the consumer. Call it
/// after a burst was published and a [`barrier`] passed. True once for each time that the word was set.
#[inline]
#[must_use]
pub fn take(word: &impl NeedWakeup) -> bool {
    word.load() == SET && word.replace(SET, TAKEN)
}

/// Returns whether the producer has taken the word since it was set. True once. For a thread that wakes the consumer on the
/// producer's behalf.
#[inline]
#[must_use]
pub fn take_wakeup(word: &impl NeedWakeup) -> bool {
    word.load() == TAKEN && word.replace(TAKEN, AWAKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often the producer looks, a word that was set gives one wake-up, taken once; a word that was cleared gives none.
    #[test]
    fn word_that_was_set_gives_one_wakeup() {
        let word = AtomicU32::new(AWAKE);
        assert!(!take(&word) && !take_wakeup(&word));
        for _ in 0..3 {
            set(&word);
            assert!(!take_wakeup(&word));
            assert_eq!([take(&word), take(&word)], [true, false]);
            assert_eq!([take_wakeup(&word), take_wakeup(&word)], [true, false]);
        }
        set(&word);
        clear(&word);
        assert!(!take(&word) && !take_wakeup(&word));
    }

    /// Whatever a peer has written there, the word is only taken for what it can be.
    #[test]
    fn garbage_is_nobody_asleep() {
        for garbage in [3, 1 << 16, u32::MAX] {
            let word = AtomicU32::new(garbage);
            assert!(!take(&word) && !take_wakeup(&word));
            set(&word);
            assert!(take(&word) && take_wakeup(&word));
        }
    }
}

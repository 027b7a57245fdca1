//! How the consumer of a ring sleeps, and never misses a frame by it.
//!
//! Each ring has one more word, alone on its pair of cache lines: the *alarm*. Before it sleeps, the consumer sets the
//! alarm, and looks into the ring once more; the producer, after it has published a burst, looks at the alarm, and wakes the
//! consumer if it is set. Both put a full [`barrier`] between the store and the load: so if the consumer did not see the
//! burst, the producer sees the alarm (Dekker's pattern). The producer takes the alarm back as it rings, so however
//! many bursts follow, a sleeper is woken once.
//!
//! While nobody sleeps the word is not written, and its line stays in the producer's cache. The barrier is paid once for each
//! burst or turn, and only by who was told that the other side sleeps at all. Apps do not even pay that: as they send, theirs
//! are [light](light_barrier), and the daemon has the kernel make up for it when it goes to sleep. The other way round
//! would let any app interrupt the daemon's cores.
//!
//! The functions work on anything that is an [`Alarm`], so that a model checker can stand in for shared memory.

use rustix::thread::{MembarrierCommand, membarrier};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// The consumer is awake. Public like [`SET`].
pub const AWAKE: u32 = 0;
/// The consumer wants to be woken by the next frame. Public for who sleeps on the word itself.
pub const SET: u32 = 1;
/// The producer has woken it, or is about to.
const RUNG: u32 = 2;

/// The shared word. A peer that writes anything else into it gets woken needlessly, or not at all, and nobody else does.
pub trait Alarm {
    /// Reads the word, with no ordering.
    fn load(&self) -> u32;
    /// Writes the word with Release ordering.
    fn store(&self, value: u32);
    /// Writes `to` if the word is `from`, with Acquire and Release ordering, and tells whether it was.
    fn replace(&self, from: u32, to: u32) -> bool;
}

impl Alarm for AtomicU32 {
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

/// Makes every barrier of a thread whose process is [registered](register_light) a [light](light_barrier) one, by having the
/// kernel execute a full one on its behalf (`membarrier(2)`, `GLOBAL_EXPEDITED`). Whether the kernel does.
///
/// Whatever that thread did before the kernel's barrier is visible when this returns; and what it loads after it sees all that
/// the caller has stored before. So of its store and its load, which may change places in the processor, one is on the right
/// side.
#[must_use]
pub fn heavy_barrier() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// Registers this process for [`heavy_barrier`]s of others, once and for all. Whether it may use light ones.
#[must_use]
pub fn register_light() -> bool {
    membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// Keeps all earlier stores of this thread before all later loads, provided that whoever has to see them uses a
/// [`heavy_barrier`]. It costs nothing.
#[inline]
pub fn light_barrier() {
    std::sync::atomic::compiler_fence(SeqCst);
}

/// The consumer wants to be woken. It has to pass a [`barrier`] and look into its ring before it sleeps.
#[inline]
pub fn set(alarm: &impl Alarm) {
    alarm.store(SET);
}

/// The consumer is awake, and wants no call.
#[inline]
pub fn clear(alarm: &impl Alarm) {
    alarm.store(AWAKE);
}

/// Whether the producer has to wake the consumer. To be asked after a burst was published and a [`barrier`] passed; the answer
/// is yes once for each time that the alarm was set.
#[inline]
#[must_use]
pub fn ring(alarm: &impl Alarm) -> bool {
    alarm.load() == SET && alarm.replace(SET, RUNG)
}

/// Whether the producer has rung since the alarm was set. The answer is yes once. For whoever wakes the consumer on the
/// producer's behalf.
#[inline]
#[must_use]
pub fn answer(alarm: &impl Alarm) -> bool {
    alarm.load() == RUNG && alarm.replace(RUNG, AWAKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often the producer looks, an alarm rings once, and is answered once; one that was cleared does neither.
    #[test]
    fn alarm_rings_once() {
        let word = AtomicU32::new(AWAKE);
        assert!(!ring(&word) && !answer(&word));
        for _ in 0..3 {
            set(&word);
            assert!(!answer(&word));
            assert_eq!([ring(&word), ring(&word)], [true, false]);
            assert_eq!([answer(&word), answer(&word)], [true, false]);
        }
        set(&word);
        clear(&word);
        assert!(!ring(&word) && !answer(&word));
    }

    /// Whatever a peer has written there, the word is only taken for what it can be.
    #[test]
    fn garbage_is_nobody_asleep() {
        for garbage in [3, 1 << 16, u32::MAX] {
            let word = AtomicU32::new(garbage);
            assert!(!ring(&word) && !answer(&word));
            set(&word);
            assert!(ring(&word) && answer(&word));
        }
    }
}

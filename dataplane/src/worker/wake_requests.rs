//! What a worker asks of the [thread that wakes applications](crate::control::app_waker): a bit for each port.

use crate::ids::PortId;
use kopi_ring::need_wakeup::{self, barrier};
use rustix::thread::futex;
use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Rings of a doorbell that a worker counts before it has them taken out. A driver rings at most sixteen times for each of
/// these, and there is room for more than 250.
pub(crate) const RINGS: u8 = 8;
/// Bits of a word.
pub(crate) const BITS: usize = 64;

/// What a worker wants of applications: a bit for each port. The worker sets bits, and the thread takes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Sheet {
    pub(crate) calls: Box<[AtomicU64]>,
    pub(crate) quiets: Box<[AtomicU64]>,
}

/// What one worker has of the thread. By default nobody does what is noted.
#[derive(Debug, Default)]
pub struct WakeRequests {
    sheet: Arc<Sheet>,
    need_wakeup: Arc<AtomicU32>,
    asked: bool,
}

impl WakeRequests {
    pub(crate) const fn new(sheet: Arc<Sheet>, need_wakeup: Arc<AtomicU32>) -> Self {
        Self { sheet, need_wakeup, asked: false }
    }

    /// Notes that the application behind port `id` is to be called.
    pub fn call(&mut self, id: PortId) {
        set(&self.sheet.calls, id);
        self.asked = true;
    }

    /// Notes that the doorbell of port `id` was rung `rings` times, as far as this worker knows, and has it quieted now and
    /// then. Returns what is to be given the next time.
    pub fn rung(&mut self, id: PortId, rings: u8) -> u8 {
        if rings + 1 < RINGS {
            return rings + 1;
        }
        set(&self.sheet.quiets, id);
        self.asked = true;
        0
    }

    /// Wakes the thread if something was noted. Called once an iteration.
    #[inline]
    pub fn kick(&mut self) {
        if std::mem::take(&mut self.asked) {
            barrier();
            wake(&self.need_wakeup);
        }
    }
}

fn set(words: &[AtomicU64], id: PortId) {
    if let Some(word) = words.get(usize::from(id) / BITS) {
        word.fetch_or(1 << (usize::from(id) % BITS), AcqRel);
    }
}

/// Wakes the thread that sleeps on `need_wakeup`, if it does.
pub(crate) fn wake(need_wakeup: &AtomicU32) {
    if need_wakeup::take(need_wakeup) {
        // Nobody but this process has it.
        let _woken = futex::wake(need_wakeup, futex::Flags::PRIVATE, 1);
    }
}

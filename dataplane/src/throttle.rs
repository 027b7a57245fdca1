//! Log lines that a peer can provoke, limited in number.

use std::time::{Duration, Instant};

/// Lines let through in one period.
const LINES: u32 = 20;
/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets a few lines through and counts the others.
#[derive(Debug)]
pub struct Throttle {
    since: Instant,
    passed: u32,
    suppressed: u64,
}

impl Throttle {
    /// A throttle that has let nothing through yet.
    #[must_use]
    pub fn new() -> Self {
        Self { since: Instant::now(), passed: 0, suppressed: 0 }
    }

    /// Logs a warning about a peer, or counts it as suppressed.
    pub fn warn(&mut self, line: &dyn std::fmt::Display) {
        if self.since.elapsed() >= PERIOD {
            if self.suppressed > 0 {
                log::warn!("suppressed {} lines about peers", self.suppressed);
            }
            *self = Self::new();
        }
        if self.passed < LINES {
            self.passed += 1;
            log::warn!("{line}");
        } else {
            self.suppressed += 1;
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

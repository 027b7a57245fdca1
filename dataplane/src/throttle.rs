//! Log lines that a peer can provoke, limited in number.

use log::Level;
use std::time::{Duration, Instant};

/// The period in which lines are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets a few lines through and counts the others.
#[derive(Debug)]
pub struct Throttle {
    /// Lines let through in one period.
    lines: u32,
    since: Instant,
    passed: u32,
    suppressed: u64,
}

impl Throttle {
    /// A throttle for `lines` in each period, that has let nothing through yet.
    #[must_use]
    pub fn new(lines: u32) -> Self {
        Self { lines, since: Instant::now(), passed: 0, suppressed: 0 }
    }

    /// Logs a warning about a peer, or counts it as suppressed.
    pub fn warn(&mut self, line: &dyn std::fmt::Display) {
        self.log(Level::Warn, line);
    }

    /// Logs a line about a peer, or counts it as suppressed.
    pub fn log(&mut self, level: Level, line: &dyn std::fmt::Display) {
        if self.pass() {
            log::log!(level, "{line}");
        }
    }

    fn pass(&mut self) -> bool {
        if self.since.elapsed() >= PERIOD {
            if self.suppressed > 0 {
                log::warn!("suppressed {} lines about peers", self.suppressed);
            }
            *self = Self::new(self.lines);
        }
        let passes = self.passed < self.lines;
        if passes {
            self.passed += 1
        } else {
            self.suppressed += 1
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No more lines pass in one period than were allowed, and the others are counted.
    #[test]
    fn lines_of_a_period_are_limited() {
        let mut throttle = Throttle::new(3);
        assert_eq!((0..10).filter(|_| throttle.pass()).count(), 3);
        assert_eq!(throttle.suppressed, 7);
    }
}

//! Ctrl-C as an ordinary error, so that every exit runs the same clean-up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{BenchError, Result};

/// The longest sleep between two looks at the flag.
const STEP: Duration = Duration::from_millis(50);

/// Set once the run has been told to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// An interrupt that SIGINT, SIGTERM and SIGHUP set. A second signal ends the program at once.
    pub(crate) fn from_signals() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_default(signal, Arc::clone(&interrupt.0))?;
            flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    /// Sleeps for `time`.
    ///
    /// # Errors
    ///
    /// [`BenchError::Interrupted`] as soon as the run is told to end.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.0.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(STEP));
        }
    }
}

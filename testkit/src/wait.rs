//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(2);
/// Long enough for anything that takes a moment, on a machine that is busy building something else.
pub const SOON: Duration = Duration::from_secs(20);

/// Looks at `probe` until it gives a value.
///
/// Panics with `what` if there is none within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(STEP);
    }
}

/// Waits until `condition` holds.
///
/// Panics with `what` if it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

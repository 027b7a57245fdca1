//! DPDK's log, under the type `pmd.net.kopi`.

use crate::sys;
use std::fmt::Arguments;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The number that DPDK gave to our log type.
static TYPE: AtomicU32 = AtomicU32::new(sys::RTE_LOGTYPE_EAL);

/// Registers the log type. Called once, from the constructor.
pub(crate) fn register() {
    // SAFETY: the name is a C string, and DPDK copies it.
    let number = unsafe { sys::rte_log_register_type_and_pick_level(c"pmd.net.kopi".as_ptr(), sys::RTE_LOG_NOTICE) };
    if let Ok(number) = u32::try_from(number) {
        TYPE.store(number, Relaxed);
    }
}

/// Writes one line.
pub(crate) fn line(level: u32, text: Arguments<'_>) {
    let text = format!("net_kopi: {text}");
    let len = u32::try_from(text.len()).unwrap_or(0);
    // SAFETY: the pointer and the length are those of `text`.
    unsafe { sys::kopi_log(level, TYPE.load(Relaxed), text.as_ptr().cast(), len) };
}

/// Something the user must act on.
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::line($crate::sys::RTE_LOG_ERR, format_args!($($arg)*)) };
}

/// Something went wrong and is being dealt with.
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::line($crate::sys::RTE_LOG_WARNING, format_args!($($arg)*)) };
}

/// Something worth knowing happened.
macro_rules! notice {
    ($($arg:tt)*) => { $crate::log::line($crate::sys::RTE_LOG_NOTICE, format_args!($($arg)*)) };
}

pub(crate) use {error, notice, warning};

/// Limits how often messages are logged: another text at most once a second, the same text once a minute.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    last: Option<(Instant, String)>,
}

impl Limiter {
    /// Whether `text` is to be logged at `now`.
    pub(crate) fn passes(&mut self, text: &str, now: Instant) -> bool {
        let passes = self.last.as_ref().is_none_or(|(at, last)| {
            let wait = if last == text { Duration::from_secs(60) } else { Duration::from_secs(1) };
            now.saturating_duration_since(*at) >= wait
        });
        if passes {
            self.last = Some((now, text.to_owned()));
        }
        passes
    }

    /// Lets the next message pass in any case.
    pub(crate) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same problem is logged once a minute, another at most once a second, and any of them again after a reset.
    #[test]
    fn repeated_problems_are_logged_rarely() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut limiter = Limiter::default();
        assert!(limiter.passes("a", at(0)));
        assert!(!limiter.passes("a", at(1500)));
        assert!(!limiter.passes("b", at(999)));
        assert!(limiter.passes("b", at(1500)));
        assert!(limiter.passes("b", at(61_500)));
        limiter.reset();
        assert!(limiter.passes("b", at(61_600)));
    }
}

//! Whether a worker's flow table is too small for what passes it.

/// How long evictions are counted for, in seconds.
const PERIOD: u64 = 10;
/// A table is too small if within a period one in so many of its places was taken from a flow that was not idle. Less
/// than that happens by chance, where many hashes fall into one bucket.
const SHARE: u64 = 64;
/// How often the log says so, in periods: every ten minutes.
const SILENCE: u64 = 60;

/// Looks at the evictions of one flow table.
#[derive(Debug, Default)]
pub struct Crowding {
    /// The TSC, and the evictions until then, at the last look.
    last: (u64, u64),
    /// Periods for which the log says nothing more.
    silent: u64,
    /// Whether the table was too small in the last period.
    pub crowded: bool,
}

impl Crowding {
    /// Looks at a table of `places`, from which `evictions` were made since the start, if a period has passed by `now` (TSC, `hz`
    /// ticks a second). Returns the evictions in that period if the log has to say that they are too many.
    pub fn look(&mut self, evictions: u64, places: u64, now: u64, hz: u64) -> Option<u64> {
        let (then, before) = self.last;
        if now.saturating_sub(then) < PERIOD * hz {
            return None;
        }
        self.last = (now, evictions);
        let more = evictions.saturating_sub(before);
        self.crowded = more > places / SHARE;
        self.silent = self.silent.saturating_sub(1);
        if !self.crowded || self.silent > 0 {
            return None;
        }
        self.silent = SILENCE;
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table is crowded for as long as evictions grow fast, and the log hears of it once in ten minutes.
    #[test]
    fn fast_evictions_are_noticed_and_said_once_in_a_while() {
        let (mut crowding, hz, places) = (Crowding::default(), 1000, 64_000);
        let second = |n: u64| 1_000_000 + n * hz;
        assert_eq!(crowding.look(0, places, second(0), hz), None);
        assert_eq!(crowding.look(1000, places, second(10), hz), None, "as many as by chance");
        assert!(!crowding.crowded);
        assert_eq!(crowding.look(5000, places, second(19), hz), None, "not yet");
        assert_eq!(crowding.look(5000, places, second(20), hz), Some(4000));
        assert!(crowding.crowded);
        let said = (3..=80).filter(|n| crowding.look(5000 + n * 2000, places, second(n * 10), hz).is_some());
        assert_eq!(said.collect::<Vec<_>>(), [62]);
        assert_eq!(crowding.look(165_000, places, second(900), hz), None);
        assert!(!crowding.crowded, "it is over");
        assert_eq!(crowding.look(175_000, places, second(910), hz), None, "and begins again within ten minutes");
        assert!(crowding.crowded);
    }
}

//! Names of files that follow each other, by tcpdump's rules for -C, -G and -W.

use jiff::ZonedDateTime;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When a capture goes on with another file, and how that is called.
///
/// | options | names for `-w FILE` |
/// | --- | --- |
/// | `-C` | `FILE`, `FILE1`, `FILE2` and so on |
/// | `-C -W 12` | `FILE00` to `FILE11`, and from the beginning again |
/// | `-G`, a time in `FILE` | `FILE` with the time at which each begins, by strftime(3) |
/// | `-G`, no time in it | as with `-C`; `-W` ends the capture, and gives the numbers their zeros |
/// | `-G -C`, a time in it | the time, and a number that begins anew with each period; `-W` is for each period |
#[derive(Debug)]
pub(crate) struct Rotation {
    file: PathBuf,
    /// Whether there is a time in the name.
    timed: bool,
    by_size: bool,
    /// Length of a period.
    pub(crate) period: Option<Duration>,
    limit: Option<u32>,
    /// Of the current file.
    number: u32,
    /// Periods that have ended.
    periods: u32,
    /// The name with its time.
    base: PathBuf,
}

impl Rotation {
    /// For `-w file`, with -C if `by_size`, -G with `seconds` and -W with `limit`. Begins at `now`.
    ///
    /// # Errors
    ///
    /// A text for people if the time in the name makes no sense.
    pub(crate) fn new(
        file: &Path,
        by_size: bool,
        seconds: Option<u32>,
        limit: Option<u32>,
        now: &ZonedDateTime,
    ) -> Result<Self, String> {
        let timed = seconds.is_some() && file.as_os_str().as_encoded_bytes().contains(&b'%');
        let period = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let mut rotation = Self {
            file: file.into(),
            timed,
            by_size,
            period,
            limit: limit.filter(|_| by_size || period.is_some()),
            number: 0,
            periods: 0,
            base: file.into(),
        };
        rotation.base = rotation.stamped(now)?;
        Ok(rotation)
    }

    /// Name of the current file.
    pub(crate) fn name(&self) -> PathBuf {
        let width = self.limit.filter(|_| self.by_size || !self.timed).map_or(0, digits);
        if self.number == 0 && width == 0 {
            return self.base.clone();
        }
        let mut name = OsString::from(&self.base);
        name.push(format!("{:0width$}", self.number));
        name.into()
    }

    /// Goes on because the current file is full.
    pub(crate) fn full(&mut self) {
        self.advance();
    }

    /// Goes on because a period ends at `now`. False if that was the last one.
    ///
    /// # Errors
    ///
    /// A text for people if this time has no name.
    pub(crate) fn over(&mut self, now: &ZonedDateTime) -> Result<bool, String> {
        self.periods = self.periods.saturating_add(1);
        if !self.by_size && self.limit.is_some_and(|limit| self.periods >= limit) {
            return Ok(false);
        }
        if self.timed {
            self.base = self.stamped(now)?;
            self.number = 0;
        } else {
            self.advance();
        }
        Ok(true)
    }

    fn advance(&mut self) {
        self.number = self.number.saturating_add(1);
        if self.by_size && self.limit.is_some_and(|limit| self.number >= limit) {
            self.number = 0;
        }
    }

    fn stamped(&self, now: &ZonedDateTime) -> Result<PathBuf, String> {
        if !self.timed {
            return Ok(self.file.clone());
        }
        let pattern = self.file.to_str().ok_or("a time in a name that is not UTF-8")?;
        let name = jiff::fmt::strtime::format(pattern, now).map_err(|error| error.to_string())?;
        Ok(name.into())
    }
}

/// Digits of the highest of `limit` numbers that begin at 0; none if there is only one number.
const fn digits(limit: u32) -> usize {
    let (mut highest, mut digits) = (limit.saturating_sub(1), 0);
    while highest > 0 {
        highest /= 10;
        digits += 1;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;

    fn midnight() -> ZonedDateTime {
        "2026-03-04T00:00:00[UTC]".parse().unwrap()
    }

    fn rotation(file: &str, by_size: bool, seconds: Option<u32>, limit: Option<u32>) -> Rotation {
        Rotation::new(Path::new(file), by_size, seconds, limit, &midnight()).unwrap()
    }

    /// The names of the first `count` files, each of which gets full.
    fn by_size(mut rotation: Rotation, count: usize) -> Vec<String> {
        let names = (0..count).map(|_| {
            let name = rotation.name().to_str().unwrap().to_owned();
            rotation.full();
            name
        });
        names.collect()
    }

    /// The names of all files until the end, or the first five, with a minute for each.
    fn by_time(mut rotation: Rotation) -> Vec<String> {
        let mut names = vec![rotation.name().to_str().unwrap().to_owned()];
        while names.len() < 5 && rotation.over(&(&midnight() + i64::try_from(names.len()).unwrap().minutes())).unwrap()
        {
            names.push(rotation.name().to_str().unwrap().to_owned());
        }
        names
    }

    /// Files by size are numbered, the first has no number; with a limit they go round, and sort by their names.
    #[test]
    fn sizes_are_numbered() {
        assert_eq!(by_size(rotation("f%S", true, None, None), 3), ["f%S", "f%S1", "f%S2"]);
        assert_eq!(by_size(rotation("f", true, None, Some(2)), 4), ["f0", "f1", "f0", "f1"]);
        assert_eq!(by_size(rotation("f", true, None, Some(1)), 2), ["f", "f"]);
        for limit in [2, 9, 10, 11, 100, 101] {
            let names = by_size(rotation("f", true, None, Some(limit)), usize::try_from(limit).unwrap() + 1);
            let (round, again) = names.split_at(names.len() - 1);
            assert!(round.is_sorted() && round.iter().all(|name| name.len() == round[0].len()), "{round:?}");
            assert_eq!(again[0], round[0]);
        }
    }

    /// Files by time have their time, or else a number; the limit ends it.
    #[test]
    fn times_are_in_the_names() {
        let timed = ["f-00:00", "f-00:01", "f-00:02", "f-00:03", "f-00:04"];
        assert_eq!(by_time(rotation("f-%H:%M", false, Some(60), None)), timed);
        assert_eq!(by_time(rotation("f-%H:%M", false, Some(60), Some(3))), timed[..3]);
        assert_eq!(by_time(rotation("f", false, Some(60), None)), ["f", "f1", "f2", "f3", "f4"]);
        assert_eq!(by_time(rotation("f", false, Some(60), Some(3))), ["f0", "f1", "f2"]);
        assert_eq!(by_time(rotation("f", false, Some(60), Some(1))), ["f"]);
        assert_eq!(by_size(rotation("f", false, None, Some(3)), 1), ["f"]);
    }

    /// With both, numbers begin anew with each period if the name has its time.
    #[test]
    fn sizes_within_times_begin_anew() {
        let mut rotation = rotation("f-%M.", true, Some(60), Some(20));
        rotation.full();
        rotation.full();
        assert_eq!(rotation.name(), Path::new("f-00.02"));
        assert!(rotation.over(&(&midnight() + 1.minute())).unwrap());
        assert_eq!(rotation.name(), Path::new("f-01.00"));
    }

    /// A time that makes no sense is refused before anything is written.
    #[test]
    fn nonsense_times_are_refused() {
        for bad in ["f-%", "f-%!", "f-%J"] {
            assert!(Rotation::new(Path::new(bad), false, Some(1), None, &midnight()).is_err(), "{bad}");
        }
        assert!(Rotation::new(Path::new("f-%"), true, None, None, &midnight()).is_ok());
    }
}

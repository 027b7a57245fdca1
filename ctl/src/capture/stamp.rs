//! The time in front of a line, in tcpdump's forms.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// What is known about the lines before.
#[derive(Debug)]
pub(crate) struct Stamp {
    form: u8,
    zone: TimeZone,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
}

impl Stamp {
    /// `form` is how often `-t` was said: 0 time of day, 1 nothing, 2 seconds since 1970, 3 since the line before, 4 with
    /// the date, 5 since the first line.
    pub(crate) fn new(form: u8, zone: TimeZone) -> Self {
        Self { form, zone, first_ns: None, last_ns: None }
    }

    /// The time `ns` nanoseconds after 1970, with a space behind it.
    pub(crate) fn of(&mut self, ns: u64) -> String {
        let first = *self.first_ns.get_or_insert(ns);
        let last = self.last_ns.replace(ns).unwrap_or(ns);
        match self.form {
            0 => self.local(ns, "%H:%M:%S%.6f "),
            1 => String::new(),
            2 => format!("{}.{:06} ", ns / NS_PER_SECOND, ns % NS_PER_SECOND / 1000),
            3 => since(last, ns),
            4 => self.local(ns, "%Y-%m-%d %H:%M:%S%.6f "),
            _ => since(first, ns),
        }
    }

    fn local(&self, ns: u64, form: &str) -> String {
        // The last year of jiff is 9999, and 64 bits of nanoseconds end in 2554.
        let time = Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
        jiff::fmt::strtime::format(form, &time.to_zoned_datetime(self.zone.clone())).unwrap_or_default()
    }
}

/// The same moment for programs: RFC 3339, to the nanosecond, in UTC.
pub(crate) fn rfc3339(ns: u64) -> String {
    let time = Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

/// Packets of two interfaces may be a little out of order, so this may be less than nothing.
fn since(before: u64, ns: u64) -> String {
    let sign = if ns < before { "-" } else { "" };
    let (seconds, rest) = (ns.abs_diff(before) / NS_PER_SECOND, ns.abs_diff(before) % NS_PER_SECOND);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{:06} ", rest / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form is tcpdump's, in the zone that is given.
    #[test]
    fn forms_are_those_of_tcpdump() {
        let noon = 1_772_625_600_123_456_789;
        let stamps = |form| {
            let mut stamp = Stamp::new(form, TimeZone::fixed(jiff::tz::offset(2)));
            [stamp.of(noon), stamp.of(noon + 3_661 * NS_PER_SECOND), stamp.of(noon + 3_660 * NS_PER_SECOND)]
        };
        assert_eq!(stamps(0), ["14:00:00.123456 ", "15:01:01.123456 ", "15:01:00.123456 "]);
        assert_eq!(stamps(1), ["", "", ""]);
        assert_eq!(stamps(2)[0], "1772625600.123456 ");
        assert_eq!(stamps(3), ["00:00:00.000000 ", "01:01:01.000000 ", "-00:00:01.000000 "]);
        assert_eq!(stamps(4)[0], "2026-03-04 14:00:00.123456 ");
        assert_eq!(stamps(5), ["00:00:00.000000 ", "01:01:01.000000 ", "01:01:00.000000 "]);
        assert_eq!(rfc3339(noon), "2026-03-04T12:00:00.123456789Z");
        for ns in [0, u64::MAX] {
            assert!(rfc3339(ns).ends_with('Z') && Stamp::new(4, TimeZone::UTC).of(ns).len() == 27);
        }
    }
}

//! Timestamps of any resolution, as nanoseconds.

const NS_PER_SECOND: u64 = 1_000_000_000;

/// What the numbers of an interface's timestamps mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// `if_tsresol`: units are `10^-n` seconds, or `2^-n` if bit 7 is set; `n` is the other bits.
    pub(crate) resolution: u8,
    /// `if_tsoffset`: seconds to add.
    pub(crate) offset_s: i64,
}

impl Default for Clock {
    /// Microseconds since 1970, which holds for interfaces that say nothing else.
    fn default() -> Self {
        Self { resolution: 6, offset_s: 0 }
    }
}

impl Clock {
    /// Nanoseconds since 1970 of the timestamp `units`, fractions cut off. `None` if they are below 0 or above 2^64 - 1.
    pub(crate) fn to_ns(self, units: u64) -> Option<u64> {
        let n = u32::from(self.resolution & 0x7f);
        // Neither product overflows: both are below 2^64 * 2^30.
        let fine = u128::from(units) * u128::from(NS_PER_SECOND);
        let ns = if self.resolution & 0x80 != 0 {
            fine >> n
        } else {
            // Where the power overflows, it is far above any `fine`.
            10_u128.checked_pow(n).map_or(0, |units_per_second| fine / units_per_second)
        };
        let offset = i128::from(self.offset_s) * i128::from(NS_PER_SECOND);
        u64::try_from(i128::try_from(ns).ok()? + offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(resolution: u8, offset_s: i64, units: u64) -> Option<u64> {
        Clock { resolution, offset_s }.to_ns(units)
    }

    /// Nanoseconds are taken as they are, over their whole range.
    #[test]
    fn nanoseconds_stay() {
        for units in [0, 1, 1_700_000_000_123_456_789, u64::MAX] {
            assert_eq!(ns(9, 0, units), Some(units));
        }
    }

    /// Decimal and binary fractions of a second, coarse ones and ones finer than a nanosecond.
    #[test]
    fn units_are_scaled() {
        assert_eq!(ns(0, 0, 3), Some(3_000_000_000));
        assert_eq!(ns(6, 0, 3), Some(3_000));
        assert_eq!(ns(12, 0, 3_999), Some(3));
        assert_eq!(ns(0x80, 0, 3), Some(3_000_000_000));
        assert_eq!(ns(0x81, 0, 3), Some(1_500_000_000));
        assert_eq!(ns(0xa0, 0, 1 << 31), Some(500_000_000));
    }

    /// No resolution and no offset makes a computation overflow, not even those that no clock has.
    #[test]
    fn extremes_are_answered() {
        for resolution in 0..=u8::MAX {
            for offset in [i64::MIN, -1, 0, 1, i64::MAX] {
                for units in [0, 1, u64::MAX] {
                    let with_offset = ns(resolution, offset, units);
                    let plain = u128::from(units) * 1_000_000_000;
                    if resolution & 0x7f > 94 && offset == 0 {
                        assert_eq!(with_offset, Some(0), "resolution {resolution:#x} units {units}");
                    } else if resolution & 0x7f == 0 && offset == 0 {
                        assert_eq!(with_offset, u64::try_from(plain).ok());
                    } else if offset == i64::MIN || offset == i64::MAX {
                        assert_eq!(with_offset, None, "resolution {resolution:#x} units {units}");
                    }
                }
            }
        }
    }

    /// The offset is added, and what falls out of the range is an error instead of another time.
    #[test]
    fn offsets_are_added() {
        assert_eq!(ns(9, 2, 5), Some(2_000_000_005));
        assert_eq!(ns(9, -1, 1_000_000_000), Some(0));
        assert_eq!(ns(9, -1, 999_999_999), None);
        assert_eq!(ns(9, 1, u64::MAX), None);
        assert_eq!(ns(0, 0, 18_446_744_074), None);
    }
}

//! What is known about a number of 32 bits when nothing is known but the flow key of a frame.

use super::program::{Alu, Test};

/// Each bit is zero, is one, is the same in all frames of a flow, or is open: it may differ between frames of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) zero: u32,
    pub(super) one: u32,
    pub(super) open: u32,
}

/// How a comparison goes in frames of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Always(bool),
    /// The same in all of them, but which is not known here.
    Same,
    /// Perhaps not the same.
    Open,
}

impl Bits {
    /// The same in all frames of a flow, and no more is known.
    pub(super) const SAME: Self = Self { zero: 0, one: 0, open: 0 };
    pub(super) const OPEN: Self = Self { zero: 0, one: 0, open: !0 };

    pub(super) fn constant(value: u32) -> Self {
        Self { zero: !value, one: value, open: 0 }
    }

    /// A byte with these open bits, whose other bits are the same in all frames of a flow.
    pub(super) fn byte(open: u8) -> Self {
        Self { zero: !0xff, one: 0, open: u32::from(open) }
    }

    /// The number, if it is the same in every frame.
    pub(super) fn value(self) -> Option<u32> {
        (self.zero | self.one == !0).then_some(self.one)
    }

    pub(super) fn is_same(self) -> bool {
        self.open == 0
    }

    /// The number that has these bits above the byte `low`.
    pub(super) fn then(self, low: Self) -> Self {
        let Self { zero, one, open } = self.shift_left(8);
        Self { zero: zero & (low.zero | !0xff), one: one | low.one, open: open | low.open }
    }

    /// What is known where two paths meet, of which the flow decides which one is taken.
    pub(super) fn join(self, other: Self) -> Self {
        Self { zero: self.zero & other.zero, one: self.one & other.one, open: self.open | other.open }
    }

    fn shift_left(self, by: u32) -> Self {
        let low = !(!0 << by);
        Self { zero: self.zero << by | low, one: self.one << by, open: self.open << by }
    }

    fn shift_right(self, by: u32) -> Self {
        let high = !(!0 >> by);
        Self { zero: self.zero >> by | high, one: self.one >> by, open: self.open >> by }
    }

    /// What the operation makes of it. `None` if it divides by a zero in every frame.
    pub(super) fn apply(self, alu: Alu, other: Self) -> Option<Self> {
        let Some(by) = other.value() else {
            return Some(if self.is_same() && other.is_same() { Self::SAME } else { Self::OPEN });
        };
        if let Some(value) = self.value() {
            return alu.apply(value, by).map(Self::constant);
        }
        let Self { zero, one, open } = self;
        Some(match alu {
            Alu::Div | Alu::Mod if by == 0 => return None,
            Alu::And => Self { zero: zero | !by, one: one & by, open: open & by },
            Alu::Or => Self { zero: zero & !by, one: one | by, open: open & !by },
            Alu::Xor => Self { zero: zero & !by | one & by, one: one & !by | zero & by, open },
            Alu::ShiftLeft | Alu::ShiftRight if by >= u32::BITS => Self::constant(0),
            Alu::ShiftLeft => self.shift_left(by),
            Alu::ShiftRight => self.shift_right(by),
            _ if self.is_same() => Self::SAME,
            _ => Self::OPEN,
        })
    }

    /// How the comparison with another number goes.
    pub(super) fn compare(self, test: Test, with: Self) -> Answer {
        let (least, most) = (self.one, !self.zero);
        let known = with.value().and_then(|with| match test {
            Test::Equal if with & self.zero != 0 || !with & self.one != 0 => Some(false),
            Test::Equal => self.value().map(|value| value == with),
            Test::Greater if least > with => Some(true),
            Test::Greater if most <= with => Some(false),
            Test::GreaterOrEqual if least >= with => Some(true),
            Test::GreaterOrEqual if most < with => Some(false),
            Test::AnyBit if self.one & with != 0 => Some(true),
            Test::AnyBit if most & with == 0 => Some(false),
            _ => None,
        });
        let of_interest = match (test, with.value()) {
            (Test::AnyBit, Some(with)) => self.open & with,
            _ => self.open | with.open,
        };
        match known {
            Some(answer) => Answer::Always(answer),
            None if of_interest == 0 => Answer::Same,
            None => Answer::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bits, and two numbers that frames of one flow may have for them.
    fn numbers() -> impl Strategy<Value = (Bits, u32, u32)> {
        (any::<[u32; 5]>(), any::<bool>()).prop_map(|([fixed, open, value, other, sparse], dense)| {
            let open = if dense { open } else { open & sparse & other };
            let (zero, one) = (fixed & !value & !open, fixed & value & !open);
            (Bits { zero, one, open }, value, value & !open | other & open)
        })
    }

    fn holds(bits: Bits, value: u32) -> bool {
        value & bits.zero == 0 && value & bits.one == bits.one
    }

    /// Whether these can be the numbers of two frames of one flow.
    fn agree(bits: Bits, first: u32, second: u32) -> bool {
        holds(bits, first) && holds(bits, second) && (first ^ second) & !bits.open == 0
    }

    const ALUS: [Alu; 10] = [
        Alu::Add,
        Alu::Sub,
        Alu::Mul,
        Alu::Div,
        Alu::Mod,
        Alu::Or,
        Alu::And,
        Alu::Xor,
        Alu::ShiftLeft,
        Alu::ShiftRight,
    ];

    proptest! {
        /// Operations and comparisons say nothing that is not so of two frames of one flow.
        #[test]
        fn nothing_is_said_that_is_not_so(
            (bits, a, b) in numbers(),
            (other, c, d) in numbers(),
            small in 0_u32..40,
            kind in 0..3,
        ) {
            let (other, c, d) = match kind {
                0 => (Bits::constant(small), small, small),
                1 => (Bits::constant(c), c, c),
                _ => (other, c, d),
            };
            prop_assert!(agree(bits, a, b) && agree(other, c, d));
            for alu in ALUS {
                let results = (alu.apply(a, c), alu.apply(b, d));
                match (bits.apply(alu, other), results) {
                    (Some(bits), (Some(first), Some(second))) => prop_assert!(agree(bits, first, second), "{alu:?}"),
                    (None, results) => prop_assert_eq!(results, (None, None)),
                    // Whoever divides has to look at what divides.
                    (Some(_), (None, None)) => {}
                    (Some(_), _) => prop_assert!(!other.is_same()),
                }
            }
            for test in [Test::Equal, Test::Greater, Test::GreaterOrEqual, Test::AnyBit] {
                let (first, second) = (test.holds(a, c), test.holds(b, d));
                match bits.compare(test, other) {
                    Answer::Always(answer) => prop_assert_eq!((first, second), (answer, answer)),
                    Answer::Same => prop_assert_eq!(first, second),
                    Answer::Open => {}
                }
            }
            let joined = bits.join(other);
            prop_assert!(agree(joined, a, b) && agree(joined, c, d));
        }

        /// Bytes that are put together have the bits of each in its place.
        #[test]
        fn bytes_make_numbers((high, a, b) in numbers(), (low, c, d) in numbers()) {
            let byte = |bits: Bits| bits.apply(Alu::And, Bits::constant(0xff)).expect("no division");
            let word = byte(high).then(byte(low));
            prop_assert!(agree(word, (a & 0xff) << 8 | c & 0xff, (b & 0xff) << 8 | d & 0xff));
            prop_assert_eq!(word.zero >> 16, 0xffff);
            prop_assert_eq!((word.one & 0xff, word.one >> 8), (low.one & 0xff, high.one & 0xff));
        }
    }
}

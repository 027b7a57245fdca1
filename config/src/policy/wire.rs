//! What the wire carries: `[wire]` of a policy.

use super::rate::{Rate, RateForm};
use crate::form::Int;
use crate::size::{Size, SizeForm};
use crate::walk::{AnyKey, Key, Need, Section, Table};

/// `[wire]` of a policy: what the wire carries, so that frames wait in kopid, where classes share it, and not in the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wire {
    /// What kopid sends at most; as much as the device takes if not stated.
    pub rate: Option<Rate>,
    /// Most bytes at once, of which kopid makes a suitable number if not stated.
    pub burst: Option<Size>,
    /// Bytes that each frame takes besides its own, in all rates and bursts of classes too: 24 if not stated, which is
    /// preamble 8, frame check sequence 4, gap 12.
    pub overhead: u16,
}

impl Default for Wire {
    fn default() -> Self {
        Self { rate: None, burst: None, overhead: 24 }
    }
}

impl Wire {
    /// The longest frame of a network with the usual MTU of 1,500, its overhead counted.
    pub(super) const fn full_frame(self) -> u64 {
        1514 + self.overhead as u64
    }

    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let rate = table.optional(&RATE);
        let burst = table.optional(&BURST);
        let overhead = table.get(&OVERHEAD);
        let wire = Self { rate: rate?, burst: burst?, overhead: overhead? };
        if let Some(burst) = wire.burst.filter(|_| wire.rate.is_none()) {
            let message = format!("`burst` in [wire] is \"{burst}\", and there is no `rate`");
            table.warning(&BURST, message, Some("it has no effect: state `rate` too".to_owned()));
        }
        Some(wire)
    }
}

/// Bursts: at least a byte, and what the largest rate carries in a millisecond.
pub(super) const BURST_FORM: SizeForm = SizeForm { min: Size::new(1), max: Size::new(4 << 30) };

pub(super) static WIRE: Section = Section {
    name: "wire",
    doc: "what the wire carries, so that frames wait in kopid and not in the card",
    keys: &[&RATE as &dyn AnyKey, &BURST, &OVERHEAD],
};

static RATE: Key<RateForm> = Key {
    name: "rate",
    doc: "what kopid sends at most; as much as the device takes if not stated",
    form: RateForm,
    need: Need::Optional,
};

static BURST: Key<SizeForm> = Key {
    name: "burst",
    doc: "most bytes at once; what the rate carries in a millisecond if not stated",
    form: BURST_FORM,
    need: Need::Optional,
};

static OVERHEAD: Key<Int<u16>> = Key {
    name: "overhead",
    doc: "bytes that each frame takes besides its own: preamble 8, frame check sequence 4, gap 12",
    form: Int::range(0, 1000),
    need: Need::Default("24"),
};

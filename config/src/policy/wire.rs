//! What the wire carries: `[wire]` of a policy.

use schemars::JsonSchema;
use serde::Deserialize;

use super::rate::Rate;
use crate::document::Place;
use crate::size::{Size, SizeIn};
use crate::value::{As, Int};

/// Bursts: at least a byte, and at most what the largest rate carries in a millisecond.
pub(super) type Burst = SizeIn<1, { 4 << 30 }>;

/// `[wire]` of a policy: what the wire carries, so that frames wait in kopid, where classes share it, and not in the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Wire {
    /// What kopid sends at most; as much as the device takes if not stated.
    #[serde(with = "As::<Rate>")]
    pub rate: Option<Rate>,
    /// Most bytes at once, of which kopid makes a suitable number if not stated.
    #[serde(with = "As::<Burst>")]
    pub burst: Option<Size>,
    /// Bytes that each frame takes besides its own, in all rates and bursts of classes too: 24 if not stated, which is
    /// preamble 8, frame check sequence 4, gap 12.
    #[serde(with = "As::<Int<u16, 0, 1000>>")]
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

    /// Warns of a burst without a rate.
    pub(super) fn warn(self, table: &Place<'_>) {
        if let Some(burst) = self.burst.filter(|_| self.rate.is_none()) {
            let message = format!("`burst` in [wire] is \"{burst}\", and there is no `rate`");
            table.warning("burst", message, "it has no effect: state `rate` too");
        }
    }
}

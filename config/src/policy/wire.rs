//! What the wire carries: `[wire]` of a policy.

use crate::amount::{AnyRate, Rate, Size, SizeIn};
use crate::document::Place;
use crate::value::{As, Int, table};

/// Bursts: at least a byte, and at most what the largest rate carries in a millisecond.
pub(super) type Burst = SizeIn<1, { 4 << 30 }>;

table! {
    /// `[wire]` of a policy: what the wire carries, so that frames wait in kopid, where classes share it, and not in the
    /// NIC.
    #[derive(Copy)]
    pub struct WireLimit {
        /// What kopid sends at most; as much as the device takes if not stated.
        pub rate: Option<Rate> = None, "As::<AnyRate>";
        /// Most bytes at once, of which kopid makes a suitable number if not stated.
        pub burst: Option<Size> = None, "As::<Burst>";
        /// Bytes that each frame takes besides its own, in all rates and bursts of classes too: 24 if not stated, which is
        /// preamble 8, frame check sequence 4, gap 12.
        pub overhead: u16 = 24, "As::<Int<u16, 0, 1000>>";
    }
}

impl WireLimit {
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

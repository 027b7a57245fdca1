//! What is to be decided, and the rings that stand for election.

use crate::pair::{self, BURST, Cores, Found, Load};
use clap::ValueEnum;
use kopi_ring::layout::{Geometry, MIN_RING};
use kopi_ring::{HugePages, Region};
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Lengths of frames, in bytes without FCS.
const LENGTHS: [usize; 3] = [64, 512, 1518];

/// A decision to be made by measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Question {
    /// The ring as applications ask for it, by frame length.
    Ring,
    /// Bytes in one slot.
    Slot,
    /// How often the producer publishes.
    Publish,
    /// Slots in the ring.
    Size,
}

/// One column of a question: a ring and the frames sent through it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) name: String,
    /// Bytes of each frame.
    pub(crate) len: usize,
    slots: u32,
    slot_size: u32,
    /// Frames after which the producer publishes.
    publish: u32,
}

impl Variant {
    /// The ring that applications ask for, from which others differ in one thing.
    fn base(name: impl fmt::Display, len: usize) -> Self {
        Self { name: name.to_string(), len, slots: 512, slot_size: 2048, publish: BURST }
    }
}

impl Question {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The variants, the one to compare with first for each length.
    pub(crate) fn variants(self) -> Vec<Variant> {
        let of = |lengths: &[usize], values: &[u32], differ: fn(&mut Variant, u32)| -> Vec<Variant> {
            let variant = |len, value| {
                let mut variant = Variant::base(value, len);
                differ(&mut variant, value);
                variant
            };
            lengths.iter().flat_map(|len| values.iter().map(move |value| variant(*len, *value))).collect()
        };
        match self {
            Self::Ring => LENGTHS.iter().map(|len| Variant::base("real", *len)).collect(),
            // Frames longer than a slot take several of them.
            Self::Slot => of(&LENGTHS, &[2048, 256, 512, 1024, 1536, 4096], |it, size| it.slot_size = size),
            Self::Publish => of(&[64], &[BURST, 16, 8, 1], |it, frames| it.publish = frames),
            Self::Size => of(&[64, 1518], &[512, 256, 1024, 2048, 4096], |it, slots| it.slots = slots),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Variant {
    /// Nanoseconds per frame over `time`.
    pub(crate) fn measure(&self, cores: Cores, no_huge: bool, time: Duration) -> Result<Found, Box<dyn Error>> {
        let pages = if no_huge { HugePages::Off } else { HugePages::Auto };
        let region = Region::create(&Geometry::new(&[self.slots], &[MIN_RING], self.slot_size)?, pages)?;
        let ends = region.tx_producer(0).zip(region.tx_consumer(0));
        let (fill, drain) = ends.ok_or("a region without its first ring")?;
        Ok(pair::run(fill, drain, cores, Load { len: self.len, publish: self.publish, time })?)
    }
}

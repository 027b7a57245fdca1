//! What is to be decided, and the shapes of ring that stand for election.

use crate::pair::{self, BURST, Cores, Found, Load};
use clap::ValueEnum;
use kopi_ring::lab::{Form, Lab, Mover, Shape};
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
    /// The rings as they are built, by frame length.
    Ring,
    /// Bytes in one slot.
    Slot,
    /// Bytes between slots.
    Colour,
    /// Slots that the consumer prefetches ahead.
    ReadAhead,
    /// Slots that the producer prefetches ahead, for writing.
    WriteAhead,
    /// Where descriptors lie, and who says whose a slot is.
    Form,
    /// How often the producer publishes.
    Publish,
    /// Slots in the ring.
    Size,
    /// How bytes are copied.
    Copy,
    /// Prefetching on both sides, all lines of long frames.
    Long,
}

/// What one variant runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ring {
    /// The product's own code, with so many slots of such a size.
    Real { slots: u32, slot_size: u32 },
    /// A shape of the laboratory's.
    Lab(Form, [Mover; 2], Shape),
}

/// One column of a question: a ring and the frames sent through it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) len: usize,
    ring: Ring,
    publish: u32,
}

/// The real ring's shape, from which variants differ in one thing.
const BASE: Shape = Shape {
    slots: 512,
    slot_size: 2048,
    gap: 64,
    read_ahead: 2,
    read_whole: true,
    write_ahead: 1,
    write_whole: true,
    write_from: 1024,
};

/// Both sides copy as the real ring does.
const REAL: [Mover; 2] = [Mover::Real, Mover::Real];

const fn split(shape: Shape) -> Ring {
    Ring::Lab(Form::Split, REAL, shape)
}

impl Question {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The variants, the one to compare with first for each length.
    pub(crate) fn variants(self) -> Vec<Variant> {
        match self {
            Self::Ring => every(&LENGTHS, &[("real", real(512, 2048)), ("lab", split(BASE))]),
            Self::Slot => slots(),
            Self::Colour => {
                let by = |slots, gap| (format!("+{gap}, {slots} slots"), split(Shape { gap, slots, ..BASE }));
                let all = [512, 4096].into_iter().flat_map(|slots| [64, 0, 128].map(|gap| by(slots, gap)));
                named(&LENGTHS, &all.collect::<Vec<_>>())
            }
            Self::ReadAhead => ahead(|read_ahead, read_whole| Shape { read_ahead, read_whole, ..BASE }),
            Self::WriteAhead => {
                ahead(|write_ahead, write_whole| Shape { write_ahead, write_whole, write_from: 0, ..BASE })
            }
            Self::Form => every(
                &LENGTHS,
                &[
                    ("split", split(BASE)),
                    ("inline", Ring::Lab(Form::Inline, REAL, BASE)),
                    ("flags", Ring::Lab(Form::Flags, REAL, BASE)),
                ],
            ),
            Self::Publish => {
                let often = |publish: u32| {
                    named(&[64], &[(format!("every {publish}"), split(BASE))])
                        .into_iter()
                        .map(move |v| Variant { publish, ..v })
                };
                [BURST, 16, 8, 1].into_iter().flat_map(often).collect()
            }
            Self::Size => {
                let all = [512, 256, 1024, 2048, 4096].map(|slots| (slots.to_string(), real(slots, 2048)));
                named(&[64, 1518], &all)
            }
            Self::Copy => {
                let by = |producer, consumer| {
                    let name = format!("{producer:?} in, {consumer:?} out").to_lowercase();
                    (name, Ring::Lab(Form::Split, [producer, consumer], BASE))
                };
                let mut all = vec![
                    by(Mover::Registers, Mover::Registers),
                    by(Mover::String, Mover::Registers),
                    by(Mover::Stream, Mover::Registers),
                    by(Mover::String, Mover::String),
                ];
                #[cfg(target_arch = "x86_64")]
                {
                    all.extend(is_x86_feature_detected!("avx").then(|| by(Mover::String, Mover::Avx)));
                    all.extend(is_x86_feature_detected!("avx512f").then(|| by(Mover::String, Mover::Avx512)));
                }
                named(&[60, 64, 512, 1518], &all)
            }
            Self::Long => {
                let by = |write_ahead, read_ahead, read_whole| {
                    let name =
                        format!("{write_ahead} in, {read_ahead} {} out", if read_whole { "whole" } else { "first" });
                    (name, split(Shape { write_ahead, write_whole: true, read_ahead, read_whole, ..BASE }))
                };
                let reads = [(0, false), (4, false), (1, true), (2, true), (4, true)];
                let all: Vec<_> =
                    [0, 1, 2, 4].into_iter().flat_map(|w| reads.map(|(ahead, whole)| by(w, ahead, whole))).collect();
                named(&[768, 1024, 1518], &all)
            }
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Distances from 0, the first line or all lines of the frame.
fn ahead(shape: impl Fn(u32, bool) -> Shape) -> Vec<Variant> {
    let first = [0, 1, 2, 4, 8, 16].map(|n| (format!("{n}, first line"), split(shape(n, false))));
    let whole = [1, 2, 4, 8].map(|n| (format!("{n}, all lines"), split(shape(n, true))));
    named(&LENGTHS, &[first.as_slice(), &whole].concat())
}

/// Frames longer than a slot take several of them, as in the real ring.
fn slots() -> Vec<Variant> {
    let all = [2048, 256, 512, 1024, 1536, 4096].map(|size| (size.to_string(), real(512, size)));
    named(&LENGTHS, &all)
}

const fn real(slots: u32, slot_size: u32) -> Ring {
    Ring::Real { slots, slot_size }
}

fn every(lengths: &[usize], rings: &[(&str, Ring)]) -> Vec<Variant> {
    let rings: Vec<(String, Ring)> = rings.iter().map(|(name, ring)| ((*name).to_owned(), *ring)).collect();
    named(lengths, &rings)
}

fn named(lengths: &[usize], rings: &[(String, Ring)]) -> Vec<Variant> {
    let variant = |len: usize| {
        rings.iter().map(move |(name, ring)| Variant { name: name.clone(), len, ring: *ring, publish: BURST })
    };
    lengths.iter().flat_map(|len| variant(*len)).collect()
}

impl Variant {
    /// Nanoseconds per frame over `time`.
    pub(crate) fn measure(
        &self,
        lab: &Lab,
        cores: Cores,
        no_huge: bool,
        time: Duration,
    ) -> Result<Found, Box<dyn Error>> {
        let load = Load { len: self.len, publish: self.publish, time };
        match self.ring {
            Ring::Lab(form, movers, shape) => {
                macro_rules! run {
                    ($($form:ident: $($fill:ident $drain:ident,)*;)*) => {
                        match (form, movers) {
                            $($((Form::$form, [Mover::$fill, Mover::$drain]) => {
                                const FORM: u8 = Form::$form as u8;
                                let (fill, drain) =
                                    lab.ring::<FORM, { Mover::$fill as u8 }, { Mover::$drain as u8 }>(shape);
                                Ok(pair::run(fill, drain, cores, load)?)
                            })*)*
                            _ => Err("this combination is not built".into()),
                        }
                    };
                }
                run! {
                    Split: Real Real, Registers Registers, String Registers, Stream Registers, String String,
                        String Avx, String Avx512,;
                    Inline: Real Real,;
                    Flags: Real Real,;
                }
            }
            Ring::Real { slots, slot_size } => {
                let pages = if no_huge { HugePages::Off } else { HugePages::Auto };
                let region = Region::create(&Geometry::new(&[slots], &[MIN_RING], slot_size)?, pages)?;
                let ends = region.tx_producer(0).zip(region.tx_consumer(0));
                let (fill, drain) = ends.ok_or("a region without its first ring")?;
                Ok(pair::run(fill, drain, cores, load)?)
            }
        }
    }
}

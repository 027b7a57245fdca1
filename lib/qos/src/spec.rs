//! The specification of a scheduler: its classes and options.

use crate::meter::Limit;

/// One class, as [`Scheduler::new`](crate::Scheduler::new) takes it.
#[derive(Clone, Debug)]
pub struct ClassSpec {
    /// Identifies the class in the next scheduler too; unique.
    pub id: u64,
    /// Its parent, as a place in the list of classes, before or after this one; the wire if `None`.
    pub parent: Option<u32>,
    /// Its guarantee, as long as the wire has that much.
    pub rate: Option<Limit>,
    /// Its limit, which it never exceeds.
    pub ceil: Option<Limit>,
    /// Its share of what is left, against its siblings of the same priority: 1 to 1,000.
    pub weight: u16,
    /// Among its siblings, 0 (first) to 7.
    pub priority: u8,
}

impl ClassSpec {
    /// A class under the wire, of weight 1, in the middle of the priorities, without guarantee and ceiling.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self { id, parent: None, rate: None, ceil: None, weight: 1, priority: 4 }
    }
}

/// Options of the whole scheduler.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ticks of a second.
    pub hz: u64,
    /// The longest frame in bytes, its overhead counted.
    pub frame: u32,
    /// Bytes that each frame costs besides its own: preamble, frame check sequence, gap.
    pub overhead: u32,
    /// Most bytes of one [`Pick::Serve`](crate::Pick::Serve), overhead counted. All bounds of fairness and delay are
    /// proportional to it. More for each pick cost less for each frame.
    pub quantum: u32,
    /// The rate of the wire. No limit if `None`.
    pub wire: Option<Limit>,
}

impl Options {
    /// For frames of Ethernet with 1,518 bytes at most (FCS not counted) and 24 bytes of overhead: preamble 8, frame check
    /// sequence 4, gap 12.
    ///
    /// A pick is two full frames, which is 35 short ones.
    ///
    /// # Source
    ///
    /// IEEE 802.3, 3.1.1 and 4.4.2.
    #[must_use]
    pub const fn new(hz: u64) -> Self {
        Self { hz, frame: 1542, overhead: 24, quantum: 3084, wire: None }
    }
}

/// Why there is no scheduler for a list of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There are more classes than indexes of 16 bits, counted from 1.
    #[error("there are {0} classes, 65,535 at most can be scheduled")]
    TooMany(usize),
    /// The class at this place names a parent that there is not.
    #[error("class {0} has a parent that is not in the list")]
    NoParent(usize),
    /// The class at this place is below itself, or has more than seven classes above it.
    #[error("class {0} is below itself, or more than eight levels below the wire")]
    TooDeep(usize),
    /// The class at this place has a weight of 0 or above 1,000, or a priority above 7.
    #[error("class {0} has a weight outside 1 to 1,000 or a priority above 7")]
    Share(usize),
    /// Two classes have this id.
    #[error("two classes have the id {0}")]
    SameId(u64),
    /// A clock without ticks, frames or quanta without bytes, or more than can be counted.
    #[error("ticks of a second, longest frame and quantum have to be at least 1, and at most 2^40, 2^20 and 2^20")]
    Options,
}

/// Most classes.
pub const CLASSES_MAX: usize = 65_535;
/// Most levels of classes below the wire.
pub const DEPTH_MAX: usize = 8;
/// Priorities: 0 is the first.
pub const PRIORITIES: u8 = 8;
/// The largest weight.
pub const WEIGHT_MAX: u16 = 1000;

/// Checks that `classes` are a tree under the wire and that all numbers are in their limits.
pub(crate) fn check(classes: &[ClassSpec], options: &Options) -> Result<(), SpecError> {
    let small = 1..=1 << 20;
    if !(1..=1 << 40).contains(&options.hz) || !small.contains(&options.frame) || !small.contains(&options.quantum) {
        return Err(SpecError::Options);
    }
    if classes.len() > CLASSES_MAX {
        return Err(SpecError::TooMany(classes.len()));
    }
    for (at, class) in classes.iter().enumerate() {
        if !(1..=WEIGHT_MAX).contains(&class.weight) || class.priority >= PRIORITIES {
            return Err(SpecError::Share(at));
        }
        let (mut above, mut levels) = (class.parent, 1);
        while let Some(parent) = above {
            above = classes.get(parent as usize).ok_or(SpecError::NoParent(at))?.parent;
            levels += 1;
            if levels > DEPTH_MAX {
                return Err(SpecError::TooDeep(at));
            }
        }
    }
    Ok(())
}

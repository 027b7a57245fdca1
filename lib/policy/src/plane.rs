//! One field of a frame, compiled: from its value to the set of rules that it allows.
//!
//! The ends of all ranges that rules state cut the values into intervals, within which every rule holds or none does.
//! Intervals with the same set of rules share it, and sets share the blocks in which they are equal. What most intervals
//! have in common is the base; a set is written down as its changes against that. So memory grows with the number of
//! ranges, not with their number times that of the rules, and many rules that exclude a value each cost no more than
//! many that ask for one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use kopi_config::policy::{Field, Scalar};

use crate::bits::{Block, Change, Pool, Set, View};

/// A field that at least one rule states.
#[derive(Debug)]
pub(crate) struct Plane<T> {
    /// Where each interval begins, ascending; the first at the least value.
    starts: Box<[T]>,
    /// The class of each interval.
    class_of: Box<[u32]>,
    /// Which rules the values of a class allow.
    classes: Classes,
    /// The rules that allow most intervals.
    base: Set,
    /// The rules that allow a frame without the field: those that do not state it.
    absent: Set,
}

/// Sets of rules, as changes against one base.
#[derive(Debug, Default)]
struct Classes {
    /// Where the changes of each class end; they begin where those of the class before end.
    ends: Vec<usize>,
    changes: Vec<Change>,
    /// Words of a summary.
    words: usize,
    /// The summary of each class.
    summaries: Vec<u64>,
}

impl<T: Scalar + Hash> Plane<T> {
    /// The plane of a field, or nothing if no rule states it. `stated` is what each rule says of it, in order.
    pub(crate) fn compile<'a>(
        stated: impl Iterator<Item = Option<Cow<'a, Field<T>>>>,
        count: usize,
        pool: &mut Pool,
    ) -> Option<Self>
    where
        T: 'a,
    {
        let mut groups = Groups::default();
        let mut any = vec![Block::EMPTY; count.div_ceil(Block::RULES)];
        for (rule, field) in stated.enumerate() {
            match field {
                Some(field) => groups.push(field, rule),
                None => any[rule / Block::RULES].insert(rule % Block::RULES),
            }
        }
        let groups = groups.list;
        if groups.is_empty() {
            return None;
        }
        let starts = cuts(groups.iter().map(|(field, _)| field.as_ref()));
        let sweep = Sweep::new(&groups, &starts, any.clone());
        let base = Set::new(sweep.base.clone());
        let (class_of, classes) = sweep.run(starts.len(), &base, pool);
        Some(Self { starts: starts.into(), class_of: class_of.into(), classes, base, absent: Set::new(any) })
    }

    /// The rules that `value` allows.
    #[inline]
    pub(crate) fn at(&self, value: T) -> View<'_> {
        let interval = self.starts.partition_point(|start| *start <= value) - 1;
        let class = self.class_of[interval] as usize;
        let Classes { ends, changes, words, summaries } = &self.classes;
        let begin = class.checked_sub(1).map_or(0, |before| ends[before]);
        View {
            blocks: self.base.blocks(),
            summary: &summaries[class * words..(class + 1) * words],
            changes: &changes[begin..ends[class]],
        }
    }

    /// The rules that allow a frame without the field.
    #[inline]
    pub(crate) fn absent(&self) -> View<'_> {
        self.absent.view()
    }
}

/// What is stated of a field, and by which rules.
#[derive(Debug)]
struct Groups<'a, T: Clone> {
    list: Vec<(Cow<'a, Field<T>>, Rules)>,
    /// Places in the list, by what is stated.
    equal: HashMap<Cow<'a, Field<T>>, usize>,
    /// The same by where it lies in memory: a set that many rules name is read but once.
    shared: HashMap<(usize, usize), usize>,
}

impl<T: Clone> Default for Groups<'_, T> {
    fn default() -> Self {
        Self { list: Vec::new(), equal: HashMap::new(), shared: HashMap::new() }
    }
}

impl<'a, T: Scalar + Hash> Groups<'a, T> {
    fn push(&mut self, field: Cow<'a, Field<T>>, rule: usize) {
        let Self { list, equal, shared } = self;
        let mut place = |field: Cow<'a, Field<T>>| {
            *equal.entry(field).or_insert_with_key(|field| {
                list.push((field.clone(), Rules::default()));
                list.len() - 1
            })
        };
        let at = match &field {
            // Borrowed for as long as the groups live, so nothing else can come to lie there.
            Cow::Borrowed(known) => {
                let memory = (known.ranges().as_ptr().addr(), known.ranges().len());
                *shared.entry(memory).or_insert_with(|| place(field))
            }
            Cow::Owned(_) => place(field),
        };
        self.list[at].1.push(rule);
    }
}

/// Rules that state the same of a field: their blocks, in ascending order.
#[derive(Debug, Default)]
struct Rules(Vec<(usize, Block)>);

impl Rules {
    /// Adds a rule that comes after all others.
    fn push(&mut self, rule: usize) {
        if self.0.last().is_none_or(|(at, _)| *at != rule / Block::RULES) {
            self.0.push((rule / Block::RULES, Block::EMPTY));
        }
        if let Some((_, block)) = self.0.last_mut() {
            block.insert(rule % Block::RULES);
        }
    }

    /// Adds the rules to a set that has none of them, or removes them from one that has all.
    fn toggle(&self, blocks: &mut [Block]) {
        for (at, block) in &self.0 {
            blocks[*at].xor(block);
        }
    }
}

/// Where the intervals begin, ascending.
fn cuts<'a, T: Scalar + 'a>(fields: impl Iterator<Item = &'a Field<T>>) -> Vec<T> {
    let ends = fields.flat_map(Field::ranges).flat_map(|range| [Some(*range.start()), range.end().after()]);
    let mut starts: Vec<T> = ends.flatten().chain([T::MIN]).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// The walk over all intervals, from the least value to the greatest.
struct Sweep<'a> {
    groups: Vec<&'a Rules>,
    /// At which interval which group begins or ceases to hold, in the order of the intervals.
    turns: Vec<(usize, usize)>,
    /// What holds in the interval where the walk is; at first what holds without the field.
    now: Vec<Block>,
    base: Vec<Block>,
}

impl<'a> Sweep<'a> {
    fn new<T: Scalar>(groups: &'a [(Cow<'_, Field<T>>, Rules)], starts: &[T], any: Vec<Block>) -> Self {
        let mut sweep = Self { groups: Vec::new(), turns: Vec::new(), base: any.clone(), now: any };
        for (number, (field, rules)) in groups.iter().enumerate() {
            let interval = |start: T| starts.partition_point(|other| *other < start);
            let mut covered = 0;
            for range in field.ranges() {
                let begin = interval(*range.start());
                let end = range.end().after().map_or(starts.len(), interval);
                sweep.turns.push((begin, number));
                sweep.turns.push((end, number));
                covered += end - begin;
            }
            if covered > starts.len() / 2 {
                rules.toggle(&mut sweep.base);
            }
            sweep.groups.push(rules);
        }
        sweep.turns.sort_unstable();
        sweep
    }

    /// The class of each interval, and the classes.
    fn run(mut self, intervals: usize, base: &Set, pool: &mut Pool) -> (Vec<u32>, Classes) {
        let mut classes = Classes { words: base.view().summary.len(), ..Classes::default() };
        let mut known: HashMap<Box<[Change]>, u32> = HashMap::new();
        // What differs from the base in the interval where the walk is.
        let mut changes = BTreeMap::new();
        for at in 0..self.now.len() {
            self.compare(at, &mut changes, pool);
        }
        let mut turns = std::mem::take(&mut self.turns).into_iter().peekable();
        let class_of = (0..intervals).map(|interval| {
            while let Some((_, group)) = turns.next_if(|(at, _)| *at == interval) {
                let rules = self.groups[group];
                rules.toggle(&mut self.now);
                for (at, _) in &rules.0 {
                    self.compare(*at, &mut changes, pool);
                }
            }
            let list: Box<[Change]> = changes.values().copied().collect();
            *known.entry(list).or_insert_with_key(|list| classes.push(list, base, &self.now))
        });
        (class_of.collect(), classes)
    }

    /// Takes down whether block `at` differs from the base.
    fn compare(&self, at: usize, changes: &mut BTreeMap<usize, Change>, pool: &mut Pool) {
        if self.now[at] == self.base[at] {
            changes.remove(&at);
        } else {
            let number = u32::try_from(at).expect("as many blocks as rules / 512");
            changes.insert(at, Change { at: number, block: pool.intern(self.now[at]) });
        }
    }
}

impl Classes {
    /// Adds a class, which holds the rules `now`, and returns its number.
    fn push(&mut self, changes: &[Change], base: &Set, now: &[Block]) -> u32 {
        let begin = self.summaries.len();
        self.summaries.extend_from_slice(base.view().summary);
        for change in changes {
            let at = change.at as usize;
            let bit = 1 << (at % 64);
            let word = &mut self.summaries[begin + at / 64];
            *word = if now[at].is_empty() { *word & !bit } else { *word | bit };
        }
        self.changes.extend_from_slice(changes);
        self.ends.push(self.changes.len());
        u32::try_from(self.ends.len() - 1).expect("fewer classes than 2^32: they would take 32 GB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::intersect;
    use kopi_config::policy::Union;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// What a rule states, from three numbers: nothing, a range, everything beside it, or one of a few equal ones.
    fn stated((kind, a, b): (u8, u16, u16)) -> Option<Field<u16>> {
        let range = Field::new([a.min(b)..=a.max(b)]);
        match kind {
            0 => None,
            1 => Some(range.negated()),
            2 => Some(Field::new([a % 3..=a % 3 + 1, 40..=50])),
            3 => Some(Field::new([a..=a])),
            _ => Some(range),
        }
    }

    /// Rules of all kinds, or of one that leaves most blocks of most values empty, or full.
    fn rules() -> impl Strategy<Value = Vec<(u8, u16, u16)>> {
        let kinds = proptest::sample::select(vec![0..8_u8, 0..4, 3..4, 1..2]);
        kinds.prop_flat_map(|kinds| proptest::collection::vec((kinds, 0_u16..300, 0_u16..300), 1..2500))
    }

    fn config() -> ProptestConfig {
        ProptestConfig {
            cases: 60,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(config())]

        /// Whatever the ranges of some thousand rules are, each value has the rules whose ranges it is in, and a frame
        /// without the field those that do not state it.
        #[test]
        fn plane_holds_the_rules_of_each_value(
            rules in rules(),
            others in proptest::collection::vec(any::<u16>(), 20),
        ) {
            let fields: Vec<_> = rules.into_iter().map(stated).collect();
            let mut pool = Pool::default();
            let stated = fields.iter().map(|field| field.as_ref().map(Cow::Borrowed));
            let plane = Plane::compile(stated, fields.len(), &mut pool);
            let pool = pool.finish();
            prop_assert_eq!(plane.is_none(), fields.iter().all(Option::is_none));
            let Some(plane) = plane else { return Ok(()) };
            let all = |view| {
                let blocks = intersect(&[view], &pool).collect::<Vec<_>>();
                blocks.into_iter().flat_map(|(at, block)| block.bits().map(move |bit| at * Block::RULES + bit))
            };
            for value in (0..310).chain(others).chain([u16::MAX]) {
                let holds = |field: &Option<Field<u16>>| field.as_ref().is_none_or(|field| field.contains(value));
                let expected = (0..fields.len()).filter(|rule| holds(&fields[*rule]));
                prop_assert!(all(plane.at(value)).eq(expected), "{}", value);
            }
            prop_assert!(all(plane.absent()).eq((0..fields.len()).filter(|rule| fields[*rule].is_none())));
        }
    }
}

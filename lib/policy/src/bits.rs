//! Sets of rules as bits, in blocks of one cache line each.
//!
//! Bit `i % 512` of block `i / 512` stands for rule `i`. A summary says with one bit which blocks are not empty, so that
//! sets are intersected by looking only where all of them have something.

use std::collections::HashMap;
use std::fmt;

/// Words in a block.
const WORDS: usize = 8;

/// A run of 512 rules.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(align(64))]
pub(crate) struct Block([u64; WORDS]);

impl Block {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);
    /// How many rules it stands for.
    pub(crate) const RULES: usize = WORDS * 64;

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |any, word| any | word) == 0
    }

    #[inline]
    pub(crate) fn and(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
    }

    pub(crate) fn xor(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word ^= other;
        }
    }

    pub(crate) fn insert(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    #[inline]
    pub(crate) fn contains(&self, bit: usize) -> bool {
        self.0[bit / 64] >> (bit % 64) & 1 != 0
    }

    /// The bits that are set, from the lowest.
    #[inline]
    pub(crate) fn bits(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, word)| Ones(word).map(move |bit| at * 64 + bit))
    }

    /// The lowest bit that is set.
    #[inline]
    pub(crate) fn first(&self) -> Option<usize> {
        let at = self.0.iter().position(|word| *word != 0)?;
        Some(at * 64 + self.0[at].trailing_zeros() as usize)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.bits()).finish()
    }
}

/// The places of the ones in a word, from the lowest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ones(pub(crate) u64);

impl Iterator for Ones {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        (self.0 != 0).then(|| {
            self.0 &= self.0 - 1;
            bit
        })
    }
}

/// A set of rules with all its blocks, and their summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    blocks: Box<[Block]>,
    summary: Box<[u64]>,
}

impl Set {
    /// The set with these blocks.
    pub(crate) fn new(blocks: Vec<Block>) -> Self {
        let mut summary = vec![0; blocks.len().div_ceil(64)];
        for (at, _) in blocks.iter().enumerate().filter(|(_, block)| !block.is_empty()) {
            summary[at / 64] |= 1 << (at % 64);
        }
        Self { blocks: blocks.into(), summary: summary.into() }
    }

    /// The set of those rules below `count` that `holds` is true for.
    pub(crate) fn of(count: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut blocks = vec![Block::EMPTY; count.div_ceil(Block::RULES)];
        for rule in (0..count).filter(|&rule| holds(rule)) {
            blocks[rule / Block::RULES].insert(rule % Block::RULES);
        }
        Self::new(blocks)
    }

    /// The blocks, for a copy that is to be changed.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Whether `rule` is in it.
    pub(crate) fn contains(&self, rule: usize) -> bool {
        self.blocks.get(rule / Block::RULES).is_some_and(|block| block.contains(rule % Block::RULES))
    }

    /// The whole set, as one that is to be intersected with others.
    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        View { blocks: &self.blocks, summary: &self.summary, changes: &[] }
    }
}

/// Where a block of a set differs from the base that it shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    /// Number of the block within the set.
    pub(crate) at: u32,
    /// What stands there instead: its number in the [`Pool`].
    pub(crate) block: u32,
}

/// A set that shares most blocks with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// The shared base.
    pub(crate) blocks: &'a [Block],
    /// Which blocks of this set, not of the base, are not empty.
    pub(crate) summary: &'a [u64],
    /// In ascending order.
    pub(crate) changes: &'a [Change],
}

impl<'a> View<'a> {
    #[inline]
    fn block(&self, at: usize, pool: &'a [Block]) -> &'a Block {
        let next = self.changes.partition_point(|change| (change.at as usize) < at);
        match self.changes.get(next) {
            Some(change) if change.at as usize == at => &pool[change.block as usize],
            _ => &self.blocks[at],
        }
    }
}

/// The intersection of `views`, block by block from the first rule on; empty blocks are left out.
///
/// Blocks that a summary rules out are not looked at, and a block only until nothing is left of it. The number of blocks
/// is that of the smallest view, so views of different rulesets give nonsense, but no panic.
#[inline]
pub(crate) fn intersect<'a>(views: &'a [View<'a>], pool: &'a [Block]) -> impl Iterator<Item = (usize, Block)> {
    let words = views.iter().map(|view| view.summary.len()).min().unwrap_or(0);
    let candidates = (0..words).flat_map(move |word| {
        let all = views.iter().fold(!0, |all, view| all & view.summary[word]);
        Ones(all).map(move |bit| word * 64 + bit)
    });
    candidates.filter_map(move |at| {
        let (first, rest) = views.split_first()?;
        let mut block = *first.block(at, pool);
        for view in rest {
            block.and(view.block(at, pool));
            if block.is_empty() {
                return None;
            }
        }
        (!block.is_empty()).then_some((at, block))
    })
}

/// Blocks of sets that are being compiled, each kept once.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    numbers: HashMap<Block, u32>,
    blocks: Vec<Block>,
}

impl Pool {
    /// The number of `block`.
    pub(crate) fn intern(&mut self, block: Block) -> u32 {
        *self.numbers.entry(block).or_insert_with(|| {
            self.blocks.push(block);
            u32::try_from(self.blocks.len() - 1).expect("fewer blocks than 2^32: they would take 256 GB")
        })
    }

    /// The blocks by their numbers.
    pub(crate) fn finish(self) -> Box<[Block]> {
        self.blocks.into()
    }
}

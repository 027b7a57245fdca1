//! Room between jumps and where they go, because librte_bpf's compiler for x86-64 gets two distances wrong.
//!
//! It takes a jump to a place 127 or 128 bytes before it for a short one, which counts from its own end, two bytes
//! further on, and reaches back only 128 bytes from there. What it emits goes ahead instead. No other short jump goes
//! that far ahead in code that [`translate`](super::translate) has made, so the two bytes of such a jump give it away.
//!
//! A program in whose code they are found is translated once more with a mark at the begin of each block, an
//! instruction that loads the block's number into a register that nobody reads. From then on the mark before a wrong
//! jump tells the block that it is in, and that block is made longer, until no jump is wrong. Now and then the two
//! bytes are a part of a number (port 32,747 is one), and stay; such a program is left to the interpreter.

/// How much longer each block is made than it need be.
#[derive(Debug)]
pub(super) struct Padding {
    /// By the number of the block, which is its first instruction. Zero is not even a mark, one is a mark.
    blocks: Vec<u8>,
}

/// The mark as machine code: `mov esi, imm32`.
const MARK: [u8; 2] = [0xc7, 0xc6];
/// The highest byte of the number in a mark.
const SEAL: u8 = 0xa5;

impl Padding {
    /// None, for a program of so many instructions.
    pub(super) fn none(insns: usize) -> Self {
        Self { blocks: vec![0; insns] }
    }

    /// The number that marks a block, if it is marked, and how many instructions of two bytes come behind it.
    pub(super) fn of(&self, block: usize) -> Option<(u32, u8)> {
        let spare = self.blocks.get(block)?.checked_sub(1)?;
        // Six bits in a byte, so that no number looks like a jump.
        let [a, b, c] = [0, 6, 12].map(|shift| 0x80 | u8::try_from(block >> shift & 0x3f).expect("six bits"));
        Some((u32::from_le_bytes([a, b, c, SEAL]), spare))
    }

    /// Adds to the blocks in whose machine code there are wrong jumps. False if there are none.
    pub(super) fn widen(&mut self, code: &[u8]) -> bool {
        let wrong: Vec<usize> = wrong_jumps(code).collect();
        let blocks: Vec<usize> = wrong.iter().filter_map(|at| block_at(code, *at)).collect();
        if blocks.is_empty() && !wrong.is_empty() {
            self.blocks.iter_mut().for_each(|block| *block = block.saturating_add(1));
        }
        let mut last = None;
        for block in blocks {
            if last.replace(block) != Some(block)
                && let Some(width) = self.blocks.get_mut(block)
            {
                *width = width.saturating_add(1);
            }
        }
        !wrong.is_empty()
    }
}

/// Where there are short jumps by 126 or 127 bytes.
fn wrong_jumps(code: &[u8]) -> impl Iterator<Item = usize> {
    let pairs = code.windows(2).enumerate();
    pairs.filter(|(_, pair)| matches!(pair, [0xeb | 0x70..=0x7f, 0x7e | 0x7f])).map(|(at, _)| at)
}

/// The block whose mark is the last one before that place.
fn block_at(code: &[u8], at: usize) -> Option<usize> {
    code[..at].windows(6).rev().find_map(|bytes| match *bytes {
        [first, second, a, b, c, SEAL] if [first, second] == MARK => {
            Some([c, b, a].iter().fold(0, |number, part| number << 6 | usize::from(part & 0x3f)))
        }
        _ => None,
    })
}

//! Room between jumps and where they go, because librte_bpf's compiler for x86-64 gets two distances wrong.
//!
//! It takes a jump to a place 127 or 128 bytes before it for a short one, which counts from its own end, two bytes
//! further on, and reaches back only 128 bytes from there. What it emits goes ahead instead. No other short jump goes
//! that far ahead in code that [`translate`](super::translate) has made, so the two bytes of such a jump give it away.
//!
//! A program in whose code they are found is translated once more with a mark at the begin of each block, an
//! instruction that loads the block's number into a register that nobody reads. From then on the mark before a wrong
//! jump tells the block that it is in, and that block is made longer, until no jump is wrong. Now and then the two
//! bytes are a part of a number (port 32,747 is one), and stay; such a program is left to the interpreter. They are also
//! in the address of a function of DPDK that is called, wherever one process in fifteen happens to have it, so that
//! address is known here.

/// How much longer each block is made than it need be.
#[derive(Debug)]
pub(super) struct Padding {
    /// By the number of the block, which is its first instruction. Zero is not even a mark, one is a mark.
    blocks: Vec<u8>,
    /// The call of the function that reads from scattered frames, as machine code: `mov rax, imm64` and `call rax`.
    call: [u8; 12],
}

/// The mark as machine code: `mov esi, imm32`.
const MARK: [u8; 2] = [0xc7, 0xc6];
/// The highest byte of the number in a mark.
const SEAL: u8 = 0xa5;

impl Padding {
    /// None, for a program of so many instructions, which calls a function at `address`.
    pub(super) fn none(insns: usize, address: u64) -> Self {
        let mut call = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0];
        call[2..10].copy_from_slice(&address.to_le_bytes());
        Self { blocks: vec![0; insns], call }
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
        let in_call = |at: usize| (2..10).any(|begin| at >= begin && code[at - begin..].starts_with(&self.call));
        let wrong: Vec<usize> = wrong_jumps(code).filter(|at| !in_call(*at)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Code with the marks of blocks 0, 1 and 70,000, and these bytes behind each.
    fn code(behind: [&[u8]; 3]) -> (Padding, Vec<u8>) {
        let mut padding = Padding::none(70_001, 0x7f70_eb7e_7e7f_7fff);
        padding.blocks.fill(1);
        let marked = [0, 1, 70_000].iter().zip(behind).flat_map(|(block, behind)| {
            let (number, spare) = padding.of(*block).expect("a mark");
            assert_eq!(spare, 0);
            [&MARK[..], &number.to_le_bytes(), behind].concat()
        });
        let code = marked.collect();
        (padding, code)
    }

    /// Wrong jumps are found in the right block, once for each attempt, and no others.
    #[test]
    fn blocks_with_wrong_jumps_grow() {
        let (mut padding, clean) = code([&[0xeb, 0x7d], &[0x0f, 0x84, 0x7f, 0x70, 0, 0], &[0x74, 0x80]]);
        assert!(!padding.widen(&clean));
        for wrong in [[0xeb, 0x7e], [0xeb, 0x7f], [0x70, 0x7e], [0x7f, 0x7f]] {
            let (mut padding, code) = code([&[], &[wrong, wrong].concat(), &wrong]);
            assert!(padding.widen(&code));
            let spare = [0, 1, 2, 70_000].map(|block| padding.of(block).map(|(_, spare)| spare));
            assert_eq!(spare, [Some(0), Some(1), Some(0), Some(1)]);
        }
    }

    /// The address of the function that is called is no jump; the same bytes elsewhere are.
    #[test]
    fn the_address_of_a_call_is_no_jump() {
        let call = Padding::none(1, 0x7f70_eb7e_7e7f_7fff).call;
        let (mut padding, called) = code([&call, &[], &[]]);
        assert!(wrong_jumps(&called).next().is_some());
        assert!(!padding.widen(&called));
        let (mut padding, cut) = code([&[], &call[..11], &[]]);
        assert!(padding.widen(&cut));
    }

    /// Without marks, all blocks get one.
    #[test]
    fn marks_come_with_the_first_wrong_jump() {
        let mut padding = Padding::none(3, 0);
        assert_eq!((padding.of(0), padding.of(2)), (None, None));
        assert!(padding.widen(&[0x90, 0xeb, 0x7f]));
        assert!((0..3).all(|block| padding.of(block).is_some_and(|(_, spare)| spare == 0)));
    }
}

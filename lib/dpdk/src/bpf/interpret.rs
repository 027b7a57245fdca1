//! The interpreter of classic programs: what an expression means, in safe code.

use dpdk_sys as sys;

use super::program::{MEMORY, Program, code, jump};
use crate::Mbuf;

/// How often a program may go back. Only `protochain` makes one that does, once for each header of a chain.
const ROUNDS_MAX: u32 = 256;

/// Why a program ends without a return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By what makes every program reject the frame: bytes that it does not have, a division by zero, too many rounds.
    Fails,
    /// It depends on more than the flow.
    Open,
}

/// What a program computes with, and where it loads from: numbers of a frame, or what is known of those of its flow.
pub(super) trait Machine {
    type Word: Copy;

    fn constant(value: u32) -> Self::Word;

    /// Bytes of the whole frame.
    fn length(&self) -> Self::Word;

    /// `N` bytes of the frame at `base` plus `offset`.
    fn load<const N: usize>(&self, base: Self::Word, offset: u32) -> Result<Self::Word, End>;

    /// What the operation, one of `BPF_ADD` and so on, makes of `a` and `b`.
    fn alu(operation: u32, a: Self::Word, b: Self::Word) -> Result<Self::Word, End>;

    /// Whether the test, `BPF_JEQ`, `BPF_JGT`, `BPF_JGE` or `BPF_JSET`, holds for `a` and `b`.
    fn test(test: u32, a: Self::Word, b: Self::Word) -> Result<bool, End>;
}

/// Bytes of a frame.
pub(super) trait Bytes {
    /// `None` if not all of them are there.
    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// The number that they are in network order.
    #[inline]
    fn number<const N: usize>(&self, offset: u32) -> Option<u32> {
        let bytes = self.at::<N>(offset)?;
        Some(bytes.into_iter().fold(0, |number, byte| number << 8 | u32::from(byte)))
    }
}

impl Bytes for [u8] {
    #[inline]
    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

/// Of several segments.
impl Bytes for Mbuf {
    fn at<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes).then_some(bytes)
    }
}

/// One frame.
pub(super) struct Frame<'f, B: ?Sized> {
    pub(super) length: u32,
    pub(super) bytes: &'f B,
}

impl<B: Bytes + ?Sized> Machine for Frame<'_, B> {
    type Word = u32;

    #[inline]
    fn constant(value: u32) -> u32 {
        value
    }

    #[inline]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline]
    fn load<const N: usize>(&self, base: u32, offset: u32) -> Result<u32, End> {
        base.checked_add(offset).and_then(|offset| self.bytes.number::<N>(offset)).ok_or(End::Fails)
    }

    #[inline]
    fn alu(operation: u32, a: u32, b: u32) -> Result<u32, End> {
        let result = match operation {
            sys::BPF_ADD => a.wrapping_add(b),
            sys::BPF_SUB => a.wrapping_sub(b),
            sys::BPF_MUL => a.wrapping_mul(b),
            sys::BPF_DIV => return a.checked_div(b).ok_or(End::Fails),
            sys::BPF_MOD => return a.checked_rem(b).ok_or(End::Fails),
            sys::BPF_OR => a | b,
            sys::BPF_AND => a & b,
            sys::BPF_XOR => a ^ b,
            sys::BPF_LSH => a.checked_shl(b).unwrap_or(0),
            _ => a.checked_shr(b).unwrap_or(0),
        };
        Ok(result)
    }

    #[inline]
    fn test(test: u32, a: u32, b: u32) -> Result<bool, End> {
        Ok(match test {
            sys::BPF_JEQ => a == b,
            sys::BPF_JGT => a > b,
            sys::BPF_JGE => a >= b,
            _ => a & b != 0,
        })
    }
}

impl Program {
    /// Whether the frame in `mbuf` passes.
    #[inline]
    pub(super) fn matches(&self, mbuf: &Mbuf) -> bool {
        let length = mbuf.len();
        let result = if mbuf.segments() == 1 {
            self.run(&Frame { length, bytes: mbuf.data() })
        } else {
            self.run(&Frame { length, bytes: mbuf })
        };
        result.unwrap_or(false)
    }

    /// Whether the frame passes, or why the program ends before it says so.
    ///
    /// Takes at most as many steps as the program has instructions, times [`ROUNDS_MAX`] if there is a loop in it. It has
    /// to have an end here: what libpcap 1.10 makes of `protochain` forgets where it is at each authentication header, and
    /// a frame can have it go round for ever.
    pub(super) fn run<M: Machine>(&self, machine: &M) -> Result<bool, End> {
        let zero = M::constant(0);
        let (mut a, mut x, mut memory, mut at, mut rounds) = (zero, zero, [zero; MEMORY], 0, 0);
        loop {
            let insn = self.insns().get(at).ok_or(End::Fails)?;
            at += 1;
            let (code, k) = (u32::from(insn.code), insn.k);
            let word = k as usize % MEMORY;
            let operand = || if code & sys::BPF_X == 0 { M::constant(k) } else { x };
            let branch = |yes: bool| usize::from(if yes { insn.jt } else { insn.jf });
            match code {
                code::LD_W => a = machine.load::<4>(zero, k)?,
                code::LD_H => a = machine.load::<2>(zero, k)?,
                code::LD_B => a = machine.load::<1>(zero, k)?,
                code::LD_W_X => a = machine.load::<4>(x, k)?,
                code::LD_H_X => a = machine.load::<2>(x, k)?,
                code::LD_B_X => a = machine.load::<1>(x, k)?,
                code::LD_IMM => a = M::constant(k),
                code::LD_MEM => a = memory[word],
                code::LD_LEN => a = machine.length(),
                code::LDX_IMM => x = M::constant(k),
                code::LDX_MEM => x = memory[word],
                code::LDX_LEN => x = machine.length(),
                code::LDX_MSH => {
                    let low = M::alu(sys::BPF_AND, machine.load::<1>(zero, k)?, M::constant(0xf))?;
                    x = M::alu(sys::BPF_LSH, low, M::constant(2))?;
                }
                code::ST => memory[word] = a,
                code::STX => memory[word] = x,
                code::JA => {
                    let to = jump(at, k);
                    rounds += u32::from(to < at);
                    if rounds > ROUNDS_MAX {
                        return Err(End::Fails);
                    }
                    at = to;
                }
                code::JEQ | code::JEQ_X => at += branch(M::test(sys::BPF_JEQ, a, operand())?),
                code::JGT | code::JGT_X => at += branch(M::test(sys::BPF_JGT, a, operand())?),
                code::JGE | code::JGE_X => at += branch(M::test(sys::BPF_JGE, a, operand())?),
                code::JSET | code::JSET_X => at += branch(M::test(sys::BPF_JSET, a, operand())?),
                code::RET => return Ok(k != 0),
                code::RET_A => return M::test(sys::BPF_JEQ, a, zero).map(|rejects| !rejects),
                code::TAX => x = a,
                code::TXA => a = x,
                code::NEG => a = M::alu(sys::BPF_SUB, zero, a)?,
                _ => a = M::alu(code & 0xf0, a, operand())?,
            }
        }
    }
}

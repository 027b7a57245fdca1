//! The interpreter of classic programs: what an expression means, in safe code.

use super::program::{Alu, Insn, MEMORY, Operand, Program, Test, Value, Width};
use crate::Mbuf;

/// How often a program may go back. Only `protochain` makes one that does, once for each header of a chain.
const ROUNDS_MAX: u32 = 256;

impl Program {
    /// Whether the frame in `mbuf` passes.
    ///
    /// Takes at most as many steps as the program has instructions, times [`ROUNDS_MAX`] if there is a loop in it. It has
    /// to have an end here: what libpcap 1.10 makes of `protochain` forgets where it is at each authentication header, and
    /// a frame can have it go round for ever.
    pub(super) fn matches(&self, mbuf: &Mbuf) -> bool {
        if mbuf.segments() == 1 {
            let frame = mbuf.data();
            return self.run(mbuf.len(), |offset, width| load(frame, offset, width)).is_some_and(|value| value != 0);
        }
        let scattered = |offset, width: Width| {
            let mut bytes = [0; 4];
            let wanted = match width {
                Width::Byte => &mut bytes[..1],
                Width::Half => &mut bytes[..2],
                Width::Word => &mut bytes[..],
            };
            if mbuf.read(offset, wanted) { load(&bytes, 0, width) } else { None }
        };
        self.run(mbuf.len(), scattered).is_some_and(|value| value != 0)
    }

    /// Runs over a frame of `length` bytes that `frame` reads. `None` ends it early, which is a result of zero.
    #[inline]
    fn run(&self, length: u32, frame: impl Fn(u32, Width) -> Option<u32>) -> Option<u32> {
        let (mut a, mut x, mut memory, mut at, mut rounds) = (0_u32, 0_u32, [0_u32; MEMORY], 0, 0);
        loop {
            let insn = self.insns().get(at)?;
            at += 1;
            let value = |value: Value, memory: &[u32; MEMORY]| match value {
                Value::Constant(constant) => Some(constant),
                Value::Memory(index) => memory.get(index).copied(),
                Value::Length => Some(length),
                Value::Absolute(offset, width) => frame(offset, width),
                Value::Indirect(offset, width) => frame(x.checked_add(offset)?, width),
                Value::HeaderLength(offset) => Some((frame(offset, Width::Byte)? & 0xf) << 2),
            };
            let operand = |with| match with {
                Operand::Constant(constant) => constant,
                Operand::X => x,
            };
            match *insn {
                Insn::LoadA(from) => a = value(from, &memory)?,
                Insn::LoadX(from) => x = value(from, &memory)?,
                Insn::StoreA(index) => *memory.get_mut(index)? = a,
                Insn::StoreX(index) => *memory.get_mut(index)? = x,
                Insn::Alu(alu, with) => a = alu.apply(a, operand(with))?,
                Insn::Negate => a = a.wrapping_neg(),
                Insn::Jump(to) => {
                    rounds += u32::from(to < at);
                    if rounds > ROUNDS_MAX {
                        return None;
                    }
                    at = to;
                }
                Insn::Branch { test, with, yes, no } => at = if test.holds(a, operand(with)) { yes } else { no },
                Insn::Return(value) => return Some(value),
                Insn::ReturnA => return Some(a),
                Insn::AToX => x = a,
                Insn::XToA => a = x,
            }
        }
    }
}

/// Reads a number in network order; `None` if not all of it is there.
#[inline]
fn load(frame: &[u8], offset: u32, width: Width) -> Option<u32> {
    let bytes = frame.get(usize::try_from(offset).ok()?..)?;
    match width {
        Width::Byte => bytes.first().map(|byte| u32::from(*byte)),
        Width::Half => bytes.first_chunk().map(|half| u32::from(u16::from_be_bytes(*half))),
        Width::Word => bytes.first_chunk().map(|word| u32::from_be_bytes(*word)),
    }
}

impl Alu {
    /// `None` for a division by zero.
    #[inline]
    pub(super) fn apply(self, a: u32, b: u32) -> Option<u32> {
        Some(match self {
            Self::Add => a.wrapping_add(b),
            Self::Sub => a.wrapping_sub(b),
            Self::Mul => a.wrapping_mul(b),
            Self::Div => return a.checked_div(b),
            Self::Mod => return a.checked_rem(b),
            Self::Or => a | b,
            Self::And => a & b,
            Self::Xor => a ^ b,
            Self::ShiftLeft => a.checked_shl(b).unwrap_or(0),
            Self::ShiftRight => a.checked_shr(b).unwrap_or(0),
        })
    }
}

impl Test {
    #[inline]
    pub(super) fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::AnyBit => a & b != 0,
        }
    }
}

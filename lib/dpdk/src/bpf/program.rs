//! The classic program, decoded: one accumulator A, one index register X, sixteen words of memory, and the frame.

use dpdk_sys as sys;

use super::BpfError;

/// A program whose every jump goes to an instruction of it, and whose every end is a return.
#[derive(Clone, Debug)]
pub(super) struct Program(Vec<Insn>);

/// Words of memory that a program has.
pub(super) const MEMORY: usize = sys::BPF_MEMWORDS as usize;

/// Offsets from here on are Linux's, for facts that are not in the frame (`SKF_AD_OFF`).
const NOT_IN_FRAME: u32 = 0xffff_f000;

/// One instruction. Jumps name the instruction that they go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insn {
    /// A becomes that value.
    LoadA(Value),
    /// X becomes that value.
    LoadX(Value),
    /// A goes into that word of memory.
    StoreA(usize),
    StoreX(usize),
    /// A becomes what the operation makes of it and the operand, modulo 2^32.
    Alu(Alu, Operand),
    Negate,
    Jump(usize),
    Branch {
        test: Test,
        with: Operand,
        yes: usize,
        no: usize,
    },
    /// The end: the frame passes unless the number is zero.
    Return(u32),
    ReturnA,
    /// X becomes A.
    AToX,
    XToA,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Constant(u32),
    /// A word of memory.
    Memory(usize),
    /// Bytes of the whole frame.
    Length,
    /// So many bytes of the frame at this offset, in network order. The program ends with zero if they are not there.
    Absolute(u32, Width),
    /// The same at X plus this offset, which does not wrap around.
    Indirect(u32, Width),
    /// Four times the low half of the byte at this offset: the length of an IPv4 header.
    HeaderLength(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Constant(u32),
    X,
}

/// A division by zero ends the program with zero; a shift by 32 and more gives zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// Compares A, unsigned, with the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    /// There is a bit that both have.
    AnyBit,
}

impl Program {
    /// Decodes and checks what libpcap has made.
    pub(super) fn decode(raw: &[sys::bpf_insn]) -> Result<Self, BpfError> {
        let decoded = raw.iter().enumerate();
        let decoded: Vec<Insn> =
            decoded.map(|(at, raw)| insn(at, raw).ok_or(BpfError::Unknown(at))).collect::<Result<_, _>>()?;
        for (at, insn) in decoded.iter().enumerate() {
            if let Insn::LoadA(Value::Absolute(NOT_IN_FRAME.., _)) = insn {
                return Err(BpfError::NotInFrame);
            }
            if insn.next(at).into_iter().flatten().any(|to| to >= decoded.len()) {
                return Err(BpfError::Unknown(at));
            }
        }
        Ok(Self(decoded))
    }

    pub(super) fn insns(&self) -> &[Insn] {
        &self.0
    }
}

impl Insn {
    /// Where the instruction at `at` goes on: nowhere if it is a return, in two places if it is a branch.
    pub(super) fn next(&self, at: usize) -> Option<[usize; 2]> {
        Some(match *self {
            Self::Return(_) | Self::ReturnA => return None,
            Self::Jump(to) => [to, to],
            Self::Branch { yes, no, .. } => [yes, no],
            _ => [at + 1, at + 1],
        })
    }

    pub(super) fn jumps(&self) -> bool {
        matches!(self, Self::Jump(_) | Self::Branch { .. })
    }
}

fn insn(at: usize, raw: &sys::bpf_insn) -> Option<Insn> {
    let (code, k) = (u32::from(raw.code), raw.k);
    // libpcap sets no other bits, and a kernel refuses them.
    let class = code & 0x07;
    let index = || usize::try_from(k).ok().filter(|index| *index < MEMORY);
    Some(match class {
        sys::BPF_LD => Insn::LoadA(value(code & !class, k)?),
        sys::BPF_LDX => match value(code & !class, k)? {
            Value::Absolute(..) | Value::Indirect(..) => return None,
            value => Insn::LoadX(value),
        },
        sys::BPF_ST if code == class => Insn::StoreA(index()?),
        sys::BPF_STX if code == class => Insn::StoreX(index()?),
        sys::BPF_ALU if code & !class == sys::BPF_NEG => Insn::Negate,
        sys::BPF_ALU => alu(code, k)?,
        // A jump without a condition is the only one that may go back: its offset is signed.
        sys::BPF_JMP if code & !class == sys::BPF_JA => {
            Insn::Jump((at + 1).checked_add_signed(isize::try_from(k.cast_signed()).ok()?)?)
        }
        sys::BPF_JMP => {
            let (yes, no) = (at + 1 + usize::from(raw.jt), at + 1 + usize::from(raw.jf));
            Insn::Branch { test: test(code & 0xf0)?, with: operand(code, k), yes, no }
        }
        sys::BPF_RET if code & !class == sys::BPF_K => Insn::Return(k),
        sys::BPF_RET if code & !class == sys::BPF_A => Insn::ReturnA,
        sys::BPF_MISC if code & !class == sys::BPF_TAX => Insn::AToX,
        sys::BPF_MISC if code & !class == sys::BPF_TXA => Insn::XToA,
        _ => return None,
    })
}

/// The value of a load, whose code is `mode` without its class.
fn value(mode: u32, k: u32) -> Option<Value> {
    let width = match mode & 0x18 {
        sys::BPF_W => Width::Word,
        sys::BPF_H => Width::Half,
        sys::BPF_B => Width::Byte,
        _ => return None,
    };
    Some(match (mode & 0xffe0, width) {
        (sys::BPF_IMM, Width::Word) => Value::Constant(k),
        (sys::BPF_MEM, Width::Word) => Value::Memory(usize::try_from(k).ok().filter(|index| *index < MEMORY)?),
        (sys::BPF_LEN, Width::Word) => Value::Length,
        (sys::BPF_MSH, Width::Byte) => Value::HeaderLength(k),
        (sys::BPF_ABS, width) => Value::Absolute(k, width),
        (sys::BPF_IND, width) => Value::Indirect(k, width),
        _ => return None,
    })
}

fn operand(code: u32, k: u32) -> Operand {
    if code & sys::BPF_X == 0 { Operand::Constant(k) } else { Operand::X }
}

fn alu(code: u32, k: u32) -> Option<Insn> {
    let operation = match code & 0xfff0 {
        sys::BPF_ADD => Alu::Add,
        sys::BPF_SUB => Alu::Sub,
        sys::BPF_MUL => Alu::Mul,
        sys::BPF_DIV => Alu::Div,
        sys::BPF_MOD => Alu::Mod,
        sys::BPF_OR => Alu::Or,
        sys::BPF_AND => Alu::And,
        sys::BPF_XOR => Alu::Xor,
        sys::BPF_LSH => Alu::ShiftLeft,
        sys::BPF_RSH => Alu::ShiftRight,
        _ => return None,
    };
    Some(Insn::Alu(operation, operand(code, k)))
}

fn test(operation: u32) -> Option<Test> {
    Some(match operation {
        sys::BPF_JEQ => Test::Equal,
        sys::BPF_JGT => Test::Greater,
        sys::BPF_JGE => Test::GreaterOrEqual,
        sys::BPF_JSET => Test::AnyBit,
        _ => return None,
    })
}

//! The classic program: one accumulator A, one index register X, sixteen words of memory, and the frame.

use dpdk_sys as sys;

use super::BpfError;

/// Words of memory that a program has.
pub(super) const MEMORY: usize = sys::BPF_MEMWORDS as usize;

/// Offsets from here on are Linux's, for facts that are not in the frame (`SKF_AD_OFF`).
const NOT_IN_FRAME: u32 = 0xffff_f000;

/// The codes of instructions, apart from those of arithmetic. `k` is an instruction's number.
pub(super) mod code {
    use dpdk_sys as sys;

    /// A becomes so many bytes of the frame at `k`, in network order.
    pub(in super::super) const LD_W: u32 = sys::BPF_LD | sys::BPF_ABS | sys::BPF_W;
    pub(in super::super) const LD_H: u32 = sys::BPF_LD | sys::BPF_ABS | sys::BPF_H;
    pub(in super::super) const LD_B: u32 = sys::BPF_LD | sys::BPF_ABS | sys::BPF_B;
    /// The same at X plus `k`, which does not wrap around.
    pub(in super::super) const LD_W_X: u32 = sys::BPF_LD | sys::BPF_IND | sys::BPF_W;
    pub(in super::super) const LD_H_X: u32 = sys::BPF_LD | sys::BPF_IND | sys::BPF_H;
    pub(in super::super) const LD_B_X: u32 = sys::BPF_LD | sys::BPF_IND | sys::BPF_B;
    /// A or X becomes `k`, a word of memory, or the length of the whole frame.
    pub(in super::super) const LD_IMM: u32 = sys::BPF_LD | sys::BPF_IMM;
    pub(in super::super) const LD_MEM: u32 = sys::BPF_LD | sys::BPF_MEM;
    pub(in super::super) const LD_LEN: u32 = sys::BPF_LD | sys::BPF_LEN;
    pub(in super::super) const LDX_IMM: u32 = sys::BPF_LDX | sys::BPF_IMM;
    pub(in super::super) const LDX_MEM: u32 = sys::BPF_LDX | sys::BPF_MEM;
    pub(in super::super) const LDX_LEN: u32 = sys::BPF_LDX | sys::BPF_LEN;
    /// X becomes four times the low half of the byte at `k`: the length of an IPv4 header.
    pub(in super::super) const LDX_MSH: u32 = sys::BPF_LDX | sys::BPF_MSH | sys::BPF_B;
    /// A or X goes into a word of memory.
    pub(in super::super) const ST: u32 = sys::BPF_ST;
    pub(in super::super) const STX: u32 = sys::BPF_STX;
    /// The only jump that may go back: its offset is signed.
    pub(in super::super) const JA: u32 = sys::BPF_JMP | sys::BPF_JA;
    /// A, unsigned, is compared with `k` or X; `JSET` is for a bit that both have.
    pub(in super::super) const JEQ: u32 = sys::BPF_JMP | sys::BPF_JEQ;
    pub(in super::super) const JGT: u32 = sys::BPF_JMP | sys::BPF_JGT;
    pub(in super::super) const JGE: u32 = sys::BPF_JMP | sys::BPF_JGE;
    pub(in super::super) const JSET: u32 = sys::BPF_JMP | sys::BPF_JSET;
    pub(in super::super) const JEQ_X: u32 = JEQ | sys::BPF_X;
    pub(in super::super) const JGT_X: u32 = JGT | sys::BPF_X;
    pub(in super::super) const JGE_X: u32 = JGE | sys::BPF_X;
    pub(in super::super) const JSET_X: u32 = JSET | sys::BPF_X;
    /// The end: the frame passes unless `k`, or A, is zero.
    pub(in super::super) const RET: u32 = sys::BPF_RET;
    pub(in super::super) const RET_A: u32 = sys::BPF_RET | sys::BPF_A;
    pub(in super::super) const TAX: u32 = sys::BPF_MISC | sys::BPF_TAX;
    pub(in super::super) const TXA: u32 = sys::BPF_MISC | sys::BPF_TXA;
    pub(in super::super) const NEG: u32 = sys::BPF_ALU | sys::BPF_NEG;
}

/// A program whose every instruction is known, whose every jump goes to an instruction of it, and whose every end is a return.
#[derive(Clone, Debug)]
pub(super) struct Program(Vec<sys::bpf_insn>);

impl Program {
    /// Checks what libpcap has made.
    pub(super) fn check(insns: Vec<sys::bpf_insn>) -> Result<Self, BpfError> {
        for (at, insn) in insns.iter().enumerate() {
            if !is_known(insn) || next(at, insn).into_iter().flatten().any(|to| to >= insns.len()) {
                return Err(BpfError::Unknown(at));
            }
            if matches!(insn.code.into(), code::LD_W | code::LD_H | code::LD_B) && insn.k >= NOT_IN_FRAME {
                return Err(BpfError::NotInFrame);
            }
        }
        Ok(Self(insns))
    }

    pub(super) fn insns(&self) -> &[sys::bpf_insn] {
        &self.0
    }
}

/// Where a jump from before `at` by `k` goes.
pub(super) fn jump(at: usize, k: u32) -> usize {
    at.wrapping_add_signed(k.cast_signed() as isize)
}

/// Where the instruction at `at` goes on: nowhere if it is a return, in two places if it is a branch.
fn next(at: usize, insn: &sys::bpf_insn) -> Option<[usize; 2]> {
    let code = u32::from(insn.code);
    Some(match code & 0x07 {
        sys::BPF_RET => return None,
        sys::BPF_JMP if code == code::JA => [jump(at + 1, insn.k); 2],
        sys::BPF_JMP => [insn.jt, insn.jf].map(|by| at + 1 + usize::from(by)),
        _ => [at + 1; 2],
    })
}

fn is_known(insn: &sys::bpf_insn) -> bool {
    let code = u32::from(insn.code);
    match code {
        code::LD_MEM | code::LDX_MEM | code::ST | code::STX => (insn.k as usize) < MEMORY,
        code::LD_W | code::LD_H | code::LD_B | code::LD_W_X | code::LD_H_X | code::LD_B_X => true,
        code::LD_IMM | code::LD_LEN | code::LDX_IMM | code::LDX_LEN | code::LDX_MSH => true,
        code::JA | code::JEQ | code::JGT | code::JGE | code::JSET => true,
        code::JEQ_X | code::JGT_X | code::JGE_X | code::JSET_X => true,
        code::RET | code::RET_A | code::TAX | code::TXA | code::NEG => true,
        // The rest of arithmetic, with `k` and with X.
        _ => code & !0xf8 == sys::BPF_ALU && code & 0xf0 != sys::BPF_NEG && code & 0xf0 <= sys::BPF_XOR,
    }
}

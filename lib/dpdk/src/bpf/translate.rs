//! From classic programs to those of librte_bpf.
//!
//! The compiler of librte_bpf lays out machine code in passes, until two of them have the same size, and takes the
//! places of what lies ahead from the pass before. Nothing says that these are the places of the last pass. So blocks
//! are emitted from the last one to the first, and every jump but the very first goes back, to what has its place:
//!
//! ```text
//!         goto start
//! zero:   r0 = 0                          loads from beyond the frame, and `ret #0`
//! exit:   exit
//!         ...                             last block
//!         ...                             a block ends with `goto`, or with `if ... goto` and `goto`
//! start:  r0 = r7 = r8 = 0, r6 = mbuf     first block
//! ```
//!
//! The first jump is right as well. In the first pass the compiler does not know which registers to save, so it is much
//! smaller than the second. From then on nothing can change its size but that jump, whose own distance does not include
//! itself: passes of one size are the same.
//!
//! Other things that the compiler and its verifier have to be kept from:
//!
//! - two distances of jumps are wrong: [`padding`](super::padding) avoids them;
//! - `test` with a constant below 128 is emitted as an instruction that is three bytes too short: constants go through a
//!   register;
//! - offsets are added in 64 bits, compared as signed numbers, and then cut to 32: offsets are bounded here, so that
//!   none of them can wrap around or have its highest bit set;
//! - shifts by 32 and more are done modulo 32: the accumulator is cleared for these;
//! - a call from a misaligned stack: four registers are always saved, and words of memory lie 16 bytes apart;
//! - the verifier follows each path on which registers differ, so its time may double with every branch. In programs of
//!   more than a few, all that it knows about them is taken from it where paths join.

use dpdk_sys as sys;

use super::flow::{Fate, Flow, OFFSET_END};
use super::padding::Padding;
use super::program::{Alu, Insn, MEMORY, Operand, Program, Test, Value, Width};

/// The accumulator; the results of loads.
const A: u32 = sys::EBPF_REG_0;
/// Lost by each load.
const SCRATCH: u32 = sys::EBPF_REG_2;
/// Where loads expect the packet buffer.
const MBUF: u32 = sys::EBPF_REG_6;
const X: u32 = sys::EBPF_REG_7;
/// Holds A while X is loaded; otherwise zero.
const SAVED: u32 = sys::EBPF_REG_8;
const STACK: u32 = sys::EBPF_REG_10;

/// Instructions that the verifier gets to see. It takes tens of milliseconds for so many.
const INSNS_MAX: usize = 16_384;
/// Bytes between words of memory.
const STRIDE: usize = 16;

/// Translates a program, or gives up: on one that has a loop or is too long.
pub(super) fn translate(program: &Program, padding: &Padding) -> Option<Vec<sys::ebpf_insn>> {
    let insns = program.insns();
    let flow = Flow::of(insns)?;
    let mut out = Assembler::new(flow, padding, insns.len());
    for at in (0..insns.len()).rev() {
        if out.flow.starts[at] {
            out.block(insns, at)?;
        }
    }
    out.finish()
}

struct Assembler<'a> {
    flow: Flow,
    padding: &'a Padding,
    out: Vec<sys::ebpf_insn>,
    /// Where the block that starts at an instruction of the program has gone.
    labels: Vec<usize>,
    zero: usize,
    exit: usize,
}

impl<'a> Assembler<'a> {
    fn new(flow: Flow, padding: &'a Padding, insns: usize) -> Self {
        let fails = flow.fails;
        let mut new =
            Self { flow, padding, out: Vec::with_capacity(2 * insns), labels: vec![0; insns], zero: 1, exit: 1 };
        new.push(sys::BPF_JMP | sys::BPF_JA, 0, 0, 0, 0);
        if fails {
            new.set(A, 0);
            new.exit = 2;
        }
        new.push(sys::BPF_JMP | sys::EBPF_EXIT, 0, 0, 0, 0);
        new
    }

    fn finish(mut self) -> Option<Vec<sys::ebpf_insn>> {
        self.out[0].off = i16::try_from(self.labels[0] - 1).ok()?;
        (self.out.len() <= INSNS_MAX).then_some(self.out)
    }

    /// Emits the block that starts at `start`. All that it goes to has been emitted.
    fn block(&mut self, insns: &[Insn], start: usize) -> Option<()> {
        self.labels[start] = self.out.len();
        if start == 0 {
            [A, X, SAVED].into_iter().for_each(|register| self.set(register, 0));
            self.move_wide(MBUF, sys::EBPF_REG_1);
        } else if Fate::of(&insns[start]) == Fate::Fails {
            self.labels[start] = self.zero;
            return Some(());
        }
        if let Some((mark, spare)) = self.padding.of(start) {
            self.set(SCRATCH, mark);
            (0..spare).for_each(|_| self.set(SCRATCH, 0));
        }
        if self.flow.many && self.flow.joins[start] {
            self.forget(A, self.flow.a_used[start]);
            self.forget(X, self.flow.x_used[start]);
            self.set(SCRATCH, 0);
        }
        for (at, insn) in insns.iter().enumerate().skip(start) {
            if at > start && self.flow.starts[at] {
                return self.go(self.labels[at]);
            }
            if Fate::of(insn) == Fate::Fails {
                return self.go(self.zero);
            }
            match *insn {
                Insn::Return(value) => {
                    self.set(A, value);
                    return self.go(self.exit);
                }
                Insn::ReturnA => return self.go(self.exit),
                Insn::Jump(to) => return self.go(self.labels[to]),
                Insn::Branch { test, with, yes, no } => return self.branch(test, with, yes, no),
                Insn::LoadA(value) => self.load_a(value)?,
                Insn::LoadX(value) => self.load_x(value),
                Insn::StoreA(index) => self.store(index, A),
                Insn::StoreX(index) => self.store(index, X),
                Insn::Alu(alu, with) => self.alu(alu, with)?,
                Insn::Negate => self.push(sys::BPF_ALU | sys::BPF_NEG, A, 0, 0, 0),
                Insn::AToX => self.move_wide(X, A),
                Insn::XToA => self.move_wide(A, X),
            }
        }
        None
    }

    /// Leaves the verifier with nothing to know about a register but that it is a number of 32 bits, or with a zero.
    fn forget(&mut self, register: u32, used: bool) {
        self.set(SCRATCH, 0);
        if used {
            self.push(sys::BPF_ALU | sys::BPF_OR | sys::BPF_X, SCRATCH, register, 0, 0);
            // Swaps the bytes, and swaps them back.
            self.push(sys::BPF_ALU | sys::EBPF_END | sys::EBPF_TO_BE, SCRATCH, 0, 0, u32::BITS);
            self.push(sys::BPF_ALU | sys::EBPF_END | sys::EBPF_TO_BE, SCRATCH, 0, 0, u32::BITS);
        }
        self.move_wide(register, SCRATCH);
    }

    fn load_a(&mut self, value: Value) -> Option<()> {
        match value {
            Value::Absolute(offset, width) => self.push(sys::BPF_LD | sys::BPF_ABS | size(width), 0, 0, 0, offset),
            Value::Indirect(offset, width) => {
                self.jump(sys::BPF_JGT | sys::BPF_K, X, 0, OFFSET_END, self.zero)?;
                self.push(sys::BPF_LD | sys::BPF_IND | size(width), 0, X, 0, offset);
            }
            Value::HeaderLength(offset) => self.header_length(A, offset),
            value => self.load(A, value),
        }
        Some(())
    }

    fn load_x(&mut self, value: Value) {
        match value {
            Value::HeaderLength(offset) => {
                self.move_wide(SAVED, A);
                self.header_length(X, offset);
                self.move_wide(A, SAVED);
                self.set(SAVED, 0);
            }
            value => self.load(X, value),
        }
    }

    /// What does not come out of the frame.
    fn load(&mut self, into: u32, value: Value) {
        match value {
            Value::Constant(constant) => self.set(into, constant),
            Value::Memory(index) => self.push(sys::BPF_LDX | sys::BPF_MEM | sys::EBPF_DW, into, STACK, word(index), 0),
            _ => self.push(sys::BPF_LDX | sys::BPF_MEM | sys::BPF_W, into, MBUF, PKT_LEN, 0),
        }
    }

    fn header_length(&mut self, into: u32, offset: u32) {
        self.push(sys::BPF_LD | sys::BPF_ABS | sys::BPF_B, 0, 0, 0, offset);
        self.push(sys::BPF_ALU | sys::BPF_AND | sys::BPF_K, A, 0, 0, 0xf);
        self.push(sys::BPF_ALU | sys::BPF_LSH | sys::BPF_K, A, 0, 0, 2);
        if into != A {
            self.move_wide(into, A);
        }
    }

    fn store(&mut self, index: usize, from: u32) {
        self.push(sys::BPF_STX | sys::BPF_MEM | sys::EBPF_DW, STACK, from, word(index), 0);
    }

    fn alu(&mut self, alu: Alu, with: Operand) -> Option<()> {
        let operation = match alu {
            Alu::Add => sys::BPF_ADD,
            Alu::Sub => sys::BPF_SUB,
            Alu::Mul => sys::BPF_MUL,
            Alu::Div => sys::BPF_DIV,
            Alu::Mod => sys::BPF_MOD,
            Alu::Or => sys::BPF_OR,
            Alu::And => sys::BPF_AND,
            Alu::Xor => sys::BPF_XOR,
            Alu::ShiftLeft => sys::BPF_LSH,
            Alu::ShiftRight => sys::BPF_RSH,
        };
        let shift = matches!(alu, Alu::ShiftLeft | Alu::ShiftRight);
        match with {
            Operand::Constant(by) if shift && by >= u32::BITS => self.set(A, 0),
            Operand::Constant(constant) => self.push(sys::BPF_ALU | operation | sys::BPF_K, A, 0, 0, constant),
            Operand::X => {
                if shift {
                    // All ones if X is below 32, else zero.
                    self.move_wide(SCRATCH, X);
                    self.push(sys::EBPF_ALU64 | sys::BPF_SUB | sys::BPF_K, SCRATCH, 0, 0, u32::BITS);
                    self.push(sys::EBPF_ALU64 | sys::EBPF_ARSH | sys::BPF_K, SCRATCH, 0, 0, u64::BITS - 1);
                    self.push(sys::EBPF_ALU64 | sys::BPF_AND | sys::BPF_X, A, SCRATCH, 0, 0);
                } else if matches!(alu, Alu::Div | Alu::Mod) {
                    self.jump(sys::BPF_JEQ | sys::BPF_K, X, 0, 0, self.zero)?;
                }
                self.push(sys::BPF_ALU | operation | sys::BPF_X, A, X, 0, 0);
            }
        }
        Some(())
    }

    fn branch(&mut self, test: Test, with: Operand, yes: usize, no: usize) -> Option<()> {
        let operation = match test {
            Test::Equal => sys::BPF_JEQ,
            Test::Greater => sys::BPF_JGT,
            Test::GreaterOrEqual => sys::BPF_JGE,
            Test::AnyBit => sys::BPF_JSET,
        };
        let (yes, no) = (self.labels[yes], self.labels[no]);
        match with {
            _ if yes == no => return self.go(no),
            // Constants are extended with their sign to 64 bits.
            Operand::Constant(constant) if test != Test::AnyBit && constant <= i32::MAX.cast_unsigned() => {
                self.jump(operation | sys::BPF_K, A, 0, constant, yes)?;
            }
            Operand::Constant(constant) => {
                self.set(SCRATCH, constant);
                self.jump(operation | sys::BPF_X, A, SCRATCH, 0, yes)?;
            }
            Operand::X => self.jump(operation | sys::BPF_X, A, X, 0, yes)?,
        }
        self.go(no)
    }

    fn go(&mut self, to: usize) -> Option<()> {
        self.jump(sys::BPF_JA, 0, 0, 0, to)
    }

    /// A jump back. `None` if it is too far for one.
    fn jump(&mut self, operation: u32, a: u32, b: u32, constant: u32, to: usize) -> Option<()> {
        let next = self.out.len() + 1;
        debug_assert!(to < next, "a jump ahead");
        let back = i16::try_from(next - to).ok()?;
        self.push(sys::BPF_JMP | operation, a, b, -back, constant);
        Some(())
    }

    fn set(&mut self, register: u32, constant: u32) {
        self.push(sys::BPF_ALU | sys::EBPF_MOV | sys::BPF_K, register, 0, 0, constant);
    }

    fn move_wide(&mut self, into: u32, from: u32) {
        self.push(sys::EBPF_ALU64 | sys::EBPF_MOV | sys::BPF_X, into, from, 0, 0);
    }

    fn push(&mut self, code: u32, into: u32, from: u32, offset: i16, constant: u32) {
        let [code, into, from] =
            [code, into, from].map(|part| u8::try_from(part).expect("parts of an instruction are bytes"));
        let registers = sys::ebpf_insn::new_bitfield_1(into, from);
        self.out.push(sys::ebpf_insn { code, _bitfield_1: registers, off: offset, imm: constant.cast_signed() });
    }
}

/// Where a packet buffer has the length of its frame.
const PKT_LEN: i16 = {
    let offset = std::mem::offset_of!(sys::rte_mbuf, pkt_len);
    assert!(offset < 128);
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "asserted")]
    let offset = offset as i16;
    offset
};

/// Where a word of memory lies, from the top of the stack.
fn word(index: usize) -> i16 {
    let depth = (MEMORY - index) * STRIDE;
    -i16::try_from(depth).expect("memory is 256 bytes")
}

fn size(width: Width) -> u32 {
    match width {
        Width::Byte => sys::BPF_B,
        Width::Half => sys::BPF_H,
        Width::Word => sys::BPF_W,
    }
}

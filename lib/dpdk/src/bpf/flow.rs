//! What can be known about a program before it is translated: where paths go, end, and join.

use super::program::{Alu, Insn, Operand, Value};

/// Offsets from here on are beyond every frame, and two of them can be added.
pub(super) const OFFSET_END: u32 = 1 << 30;
/// Branches with which all paths can be followed in no time, four thousand of them.
const BRANCHES_FEW: usize = 12;

/// Branches of a program that keeps something in memory. What the verifier knows about memory cannot be taken from it.
const BRANCHES_WITH_MEMORY: usize = 24;

/// What an instruction does to the flow, apart from where it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    GoesOn,
    /// It may end the program with zero.
    MayFail,
    /// It always does.
    Fails,
}

impl Fate {
    pub(super) fn of(insn: &Insn) -> Self {
        match *insn {
            Insn::Return(0) | Insn::Alu(Alu::Div | Alu::Mod, Operand::Constant(0)) => Self::Fails,
            Insn::Alu(Alu::Div | Alu::Mod, Operand::X) => Self::MayFail,
            Insn::LoadA(value) | Insn::LoadX(value) => match value {
                Value::Absolute(offset, _) | Value::Indirect(offset, _) | Value::HeaderLength(offset)
                    if offset >= OFFSET_END =>
                {
                    Self::Fails
                }
                Value::Indirect(..) => Self::MayFail,
                _ => Self::GoesOn,
            },
            _ => Self::GoesOn,
        }
    }
}

/// Facts about the instructions of a program without loops.
pub(super) struct Flow {
    /// Whether a block starts at an instruction: it is the first, or reached by a jump.
    pub(super) starts: Vec<bool>,
    /// Whether more than one path leads to an instruction.
    pub(super) joins: Vec<bool>,
    /// Whether A has to be kept for an instruction or one behind it.
    pub(super) a_used: Vec<bool>,
    /// Whether X has to be.
    pub(super) x_used: Vec<bool>,
    /// Whether any of them may end the program with zero.
    pub(super) fails: bool,
    /// Whether there are too many branches to follow all paths.
    pub(super) many: bool,
}

impl Flow {
    /// `None` if a jump goes back, or if there are too many branches for a program with memory.
    pub(super) fn of(insns: &[Insn]) -> Option<Self> {
        let none = vec![false; insns.len()];
        let [starts, joins, a_used, x_used] = std::array::from_fn(|_| none.clone());
        let mut flow = Self { starts, joins, a_used, x_used, fails: false, many: false };
        let (mut reached, mut branches, mut memory) = (none, 0, false);
        (flow.starts[0], reached[0]) = (true, true);
        for (at, insn) in insns.iter().enumerate() {
            let fate = Fate::of(insn);
            if !reached[at] || fate == Fate::Fails {
                flow.fails |= reached[at];
                continue;
            }
            flow.fails |= fate == Fate::MayFail;
            branches += usize::from(matches!(insn, Insn::Branch { .. })) + usize::from(fate == Fate::MayFail);
            memory |= matches!(insn, Insn::StoreA(_) | Insn::StoreX(_));
            for to in insn.next(at).into_iter().flat_map(distinct) {
                if to <= at {
                    return None;
                }
                flow.joins[to] |= std::mem::replace(&mut reached[to], true);
                flow.starts[to] |= insn.jumps();
            }
        }
        flow.many = branches > BRANCHES_FEW;
        if memory && branches > BRANCHES_WITH_MEMORY {
            return None;
        }
        flow.follow_registers(insns);
        Some(flow)
    }

    fn follow_registers(&mut self, insns: &[Insn]) {
        for (at, insn) in insns.iter().enumerate().rev() {
            let next = insn.next(at).into_iter().flatten().filter(|to| *to < insns.len());
            let (a, x) = next.fold((false, false), |(a, x), to| (a || self.a_used[to], x || self.x_used[to]));
            self.a_used[at] = insn.reads_a() || (a && !matches!(insn, Insn::LoadA(_) | Insn::XToA));
            self.x_used[at] = insn.reads_x() || (x && !matches!(insn, Insn::LoadX(_) | Insn::AToX));
        }
    }
}

/// The one place that a jump goes to, or the two of a branch.
fn distinct([one, other]: [usize; 2]) -> impl Iterator<Item = usize> {
    [one].into_iter().chain((one != other).then_some(other))
}

impl Insn {
    fn reads_a(&self) -> bool {
        matches!(
            self,
            Self::StoreA(_) | Self::Alu(..) | Self::Negate | Self::Branch { .. } | Self::ReturnA | Self::AToX
        )
    }

    fn reads_x(&self) -> bool {
        matches!(
            self,
            Self::StoreX(_)
                | Self::XToA
                | Self::Alu(_, Operand::X)
                | Self::Branch { with: Operand::X, .. }
                | Self::LoadA(Value::Indirect(..))
        )
    }
}

//! For which frames the answer of a filter is the same in all frames of a flow.
//!
//! The program is walked once for each layout, with [`Bits`] in the place of numbers. Whatever is the same in all frames
//! of a flow decides alike in all of them, so both ways of such a branch may be gone, and what they find may be joined.
//! The walk ends without a result at the first thing that may differ: a branch on an open bit, or a load of bytes that
//! such a frame need not have.

use super::bits::{Answer, Bits};
use super::flow::OFFSET_END;
use super::program::{Alu, Insn, MEMORY, Operand, Program, Test, Value, Width};

/// For which frames the answer of a filter depends on nothing but their flow key (`FlowKey` of kopi-packet), so that it
/// may be asked once for all frames of a flow. All that is said here is about frames as `kopi_packet::parse` reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent, and each is asked for by its name")]
pub struct Layouts {
    /// All frames with an Ethernet header, whatever follows: every shape but `Runt`. Implies the others.
    pub any: bool,
    /// Shape `Ipv4` without VLAN tags and options, that is no fragment.
    pub ipv4: bool,
    /// Shape `Ipv6` without VLAN tags and extension headers (and so no fragment).
    pub ipv6: bool,
    /// Shape `Arp` without VLAN tags.
    pub arp: bool,
}

impl Layouts {
    pub(super) fn of(program: &Program) -> Self {
        let insns = program.insns();
        let any = is_same(insns, Layout::Type) && is_same(insns, Layout::Length);
        let either = |layout| any || is_same(insns, layout);
        Self { any, ipv4: either(Layout::Ipv4), ipv6: either(Layout::Ipv6), arp: either(Layout::Arp) }
    }
}

/// What is known about a frame before the program looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// An Ethernet header with any type in it.
    Type,
    /// One with a length (IEEE 802.3), of which the key says nothing but that it is one.
    Length,
    Ipv4,
    Ipv6,
    Arp,
}

/// What was found out about the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Unknown,
    /// TCP, UDP, UDP-Lite or SCTP: there are eight bytes, and the key has the first four of them.
    Ports,
    /// ICMP of the packet's family: there are four bytes, and the key has the first two.
    Icmp,
}

#[derive(Clone, Debug)]
struct State {
    a: Bits,
    x: Bits,
    memory: [Bits; MEMORY],
    /// Whether A is the protocol.
    a_is_proto: bool,
    transport: Transport,
}

impl State {
    fn join(&mut self, other: &Self) {
        self.a = self.a.join(other.a);
        self.x = self.x.join(other.x);
        self.memory.iter_mut().zip(other.memory).for_each(|(word, other)| *word = word.join(other));
        self.a_is_proto &= other.a_is_proto;
        if self.transport != other.transport {
            self.transport = Transport::Unknown;
        }
    }
}

/// How an instruction goes on in all frames of a flow alike.
enum Step {
    /// With zero.
    Ends,
    On,
    /// Not alike.
    Open,
}

/// Whether all frames of this layout and of one flow get the same answer.
fn is_same(insns: &[Insn], layout: Layout) -> bool {
    let mut states = vec![None; insns.len()];
    let zero = Bits::constant(0);
    states[0] =
        Some(State { a: zero, x: zero, memory: [zero; MEMORY], a_is_proto: false, transport: Transport::Unknown });
    for (at, insn) in insns.iter().enumerate() {
        let Some(mut state) = states[at].take() else { continue };
        let next = match *insn {
            Insn::Branch { test, with, yes, no } => {
                let with = operand(with, &state);
                let answer = match (test, with.value()) {
                    (Test::Equal, Some(value)) if state.a_is_proto && layout.has_no(value) => Answer::Always(false),
                    _ => state.a.compare(test, with),
                };
                match answer {
                    Answer::Always(answer) => [Some((if answer { yes } else { no }, state)), None],
                    Answer::Same => [Some((yes, known_equal(&state, layout, test, with))), Some((no, state))],
                    Answer::Open => return false,
                }
            }
            Insn::Jump(to) => [Some((to, state)), None],
            Insn::Return(_) => continue,
            Insn::ReturnA => match state.a.compare(Test::Equal, zero) {
                Answer::Open => return false,
                _ => continue,
            },
            ref insn => match step(insn, &mut state, layout) {
                Step::Ends => continue,
                Step::On => [Some((at + 1, state)), None],
                Step::Open => return false,
            },
        };
        for (to, state) in next.into_iter().flatten() {
            match states.get_mut(to) {
                // Back into what was walked already.
                Some(_) if to <= at => return false,
                Some(Some(there)) => there.join(&state),
                Some(none) => *none = Some(state),
                None => return false,
            }
        }
    }
    true
}

fn operand(with: Operand, state: &State) -> Bits {
    match with {
        Operand::Constant(constant) => Bits::constant(constant),
        Operand::X => state.x,
    }
}

/// What is known where a test has held.
fn known_equal(state: &State, layout: Layout, test: Test, with: Bits) -> State {
    let mut state = state.clone();
    if let (Test::Equal, Some(value)) = (test, with.value()) {
        state.a = Bits::constant(value);
        if state.a_is_proto {
            state.transport = match (layout, value) {
                (_, 6 | 17 | 132 | 136) => Transport::Ports,
                (Layout::Ipv4, 1) | (Layout::Ipv6, 58) => Transport::Icmp,
                _ => state.transport,
            };
        }
    }
    state
}

/// Does what is neither a jump nor a return.
fn step(insn: &Insn, state: &mut State, layout: Layout) -> Step {
    let (into_a, result) = match *insn {
        Insn::LoadA(value) => (true, load(value, state, layout)),
        Insn::LoadX(value) => (false, load(value, state, layout)),
        Insn::StoreA(index) => {
            state.memory[index] = state.a;
            return Step::On;
        }
        Insn::StoreX(index) => {
            state.memory[index] = state.x;
            return Step::On;
        }
        Insn::Alu(alu, with) => {
            let with = operand(with, state);
            // Whether it divides by zero has to be the same, too.
            let result = if matches!(alu, Alu::Div | Alu::Mod) && !with.is_same() {
                Loaded::Open
            } else {
                state.a.apply(alu, with).map_or(Loaded::Ends, Loaded::Bits)
            };
            (true, result)
        }
        Insn::Negate => (true, Bits::constant(0).apply(Alu::Sub, state.a).map_or(Loaded::Ends, Loaded::Bits)),
        Insn::AToX => (false, Loaded::Bits(state.a)),
        _ => (true, Loaded::Bits(state.x)),
    };
    let bits = match result {
        Loaded::Bits(bits) => bits,
        Loaded::Ends => return Step::Ends,
        Loaded::Open => return Step::Open,
    };
    if into_a {
        state.a = bits;
        let proto = match layout {
            Layout::Ipv4 => Some(23),
            Layout::Ipv6 => Some(20),
            _ => None,
        };
        state.a_is_proto = matches!(*insn, Insn::LoadA(Value::Absolute(offset, Width::Byte)) if Some(offset) == proto);
    } else {
        state.x = bits;
    }
    Step::On
}

/// What a load gives in frames of one flow.
enum Loaded {
    Bits(Bits),
    /// The end with zero, in all of them.
    Ends,
    /// The end in some of them, perhaps.
    Open,
}

fn load(value: Value, state: &State, layout: Layout) -> Loaded {
    match value {
        Value::Constant(constant) => Loaded::Bits(Bits::constant(constant)),
        Value::Memory(index) => Loaded::Bits(state.memory[index]),
        // Padding is not in the key, and neither are lengths.
        Value::Length => Loaded::Bits(Bits::OPEN),
        Value::Absolute(offset, width) => bytes(offset, width, state, layout),
        Value::Indirect(offset, width) => match state.x.value() {
            Some(x) => x.checked_add(offset).map_or(Loaded::Ends, |offset| bytes(offset, width, state, layout)),
            None => Loaded::Open,
        },
        Value::HeaderLength(offset) => match bytes(offset, Width::Byte, state, layout) {
            Loaded::Bits(bits) => {
                let low = bits.apply(Alu::And, Bits::constant(0xf));
                let length = low.and_then(|low| low.apply(Alu::ShiftLeft, Bits::constant(2)));
                length.map_or(Loaded::Ends, Loaded::Bits)
            }
            end => end,
        },
    }
}

fn bytes(offset: u32, width: Width, state: &State, layout: Layout) -> Loaded {
    let len = match width {
        Width::Byte => 1,
        Width::Half => 2,
        Width::Word => 4,
    };
    if offset >= OFFSET_END {
        return Loaded::Ends;
    }
    let bytes = (offset..offset + len).map(|at| layout.byte(at, state.transport));
    let number = bytes.reduce(|number, byte| Some(number?.then(byte?)));
    number.flatten().map_or(Loaded::Open, Loaded::Bits)
}

impl Layout {
    /// Whether the protocol is another one: an IPv6 header without extensions names none of them.
    fn has_no(self, proto: u32) -> bool {
        self == Self::Ipv6 && matches!(proto, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
    }

    /// What is known about the byte at `offset`. `None` if not all frames of this layout have one there.
    fn byte(self, offset: u32, transport: Transport) -> Option<Bits> {
        let constant = |bytes: &[u8], at: u32| {
            let byte = bytes.get(usize::try_from(at).ok()?)?;
            Some(Bits::constant(u32::from(*byte)))
        };
        let (same, open) = (Bits::byte(0), Bits::byte(0xff));
        Some(match (self, offset) {
            (_, 0..12) | (Self::Type, 12 | 13) => same,
            // A length is below 0x0600.
            (Self::Length, 12) => Bits { zero: !0x07, one: 0, open: 0x07 },
            (Self::Length, 13) => open,
            (Self::Type | Self::Length, _) => return None,

            (Self::Arp, 12..20) => return constant(&[0x08, 0x06, 0, 1, 8, 0, 6, 4], offset - 12),
            (Self::Arp, 20..42) => same,
            (Self::Arp, _) => return None,

            (Self::Ipv4, 12..15) => return constant(&[0x08, 0x00, 0x45], offset - 12),
            // Six bits of DSCP, and two of ECN, which routers change.
            (Self::Ipv4, 15) => Bits::byte(0b11),
            (Self::Ipv4, 16..20) => open,
            // One reserved bit, don't fragment, and the rest of a whole packet is zero.
            (Self::Ipv4, 20) => Bits { zero: !0xc0, one: 0, open: 0xc0 },
            (Self::Ipv4, 21) => Bits::constant(0),
            (Self::Ipv4, 23 | 26..34) => same,
            (Self::Ipv4, 22 | 24 | 25) => open,
            (Self::Ipv4, _) => return transport.byte(offset - 34),

            (Self::Ipv6, 12 | 13) => return constant(&[0x86, 0xdd], offset - 12),
            // The version, and the upper four bits of DSCP; then its lower two bits, ECN, and the flow label.
            (Self::Ipv6, 14) => Bits { zero: !0x6f, one: 0x60, open: 0 },
            (Self::Ipv6, 15) => Bits::byte(0b11_1111),
            (Self::Ipv6, 16..20 | 21) => open,
            (Self::Ipv6, 20 | 22..54) => same,
            (Self::Ipv6, _) => return transport.byte(offset - 54),
        })
    }
}

impl Transport {
    fn byte(self, offset: u32) -> Option<Bits> {
        match (self, offset) {
            (Self::Ports, 0..4) | (Self::Icmp, 0..2) => Some(Bits::byte(0)),
            (Self::Ports, 4..8) | (Self::Icmp, 2..4) => Some(Bits::byte(0xff)),
            _ => None,
        }
    }
}

//! Random programs over random frames, against libpcap's interpreter.

mod by_key;
#[path = "../../tests/bpf/frames.rs"]
mod frames;

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use dpdk_sys as sys;

use super::Bpf;
use super::program::Program;
use crate::Mbuf;
use frames::Random;

/// A frame in one buffer or several, outside of any pool.
struct Frame {
    segments: Vec<sys::rte_mbuf>,
    _bytes: Vec<Vec<u8>>,
}

impl Frame {
    fn new(frame: &[u8], cuts: &[usize]) -> Self {
        let ends = cuts.iter().copied().chain([frame.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        // Bytes around those of the frame, so that a load from outside finds something else.
        let mut bytes: Vec<Vec<u8>> =
            starts.zip(ends).map(|(start, end)| [&[0x5a; 32], &frame[start..end], &[0xa5; 32]].concat()).collect();
        let mut segments = Vec::with_capacity(bytes.len());
        for buffer in &mut bytes {
            // SAFETY: all of its fields are numbers and pointers, which may be zero.
            let mut segment: sys::rte_mbuf = unsafe { std::mem::zeroed() };
            segment.buf_addr = buffer.as_mut_ptr().cast();
            segment.data_off = 32;
            segment.data_len = u16::try_from(buffer.len() - 64).expect("a short frame");
            segment.buf_len = u16::try_from(buffer.len()).expect("a short frame");
            segments.push(segment);
        }
        for at in 1..segments.len() {
            segments[at - 1].next = &raw mut segments[at];
        }
        segments[0].nb_segs = u16::try_from(segments.len()).expect("a few");
        segments[0].pkt_len = u32::try_from(frame.len()).expect("a short frame");
        Self { segments, _bytes: bytes }
    }

    fn mbuf(&mut self) -> ManuallyDrop<Mbuf> {
        let raw = NonNull::from(&mut self.segments[0]);
        // SAFETY: a valid packet buffer that stays as long as the test uses it; being in no pool, it is never freed.
        ManuallyDrop::new(unsafe { Mbuf::from_raw(raw) })
    }
}

/// What libpcap's own interpreter says.
fn oracle(program: &[sys::bpf_insn], frame: &[u8]) -> bool {
    let len = u32::try_from(frame.len()).expect("a short frame");
    // SAFETY: the program ends in a return and its jumps stay within it; the frame has that many bytes.
    unsafe { sys::bpf_filter(program.as_ptr(), frame.as_ptr(), len, len) != 0 }
}

fn insn(code: u32, jt: usize, jf: usize, k: u32) -> sys::bpf_insn {
    let byte = |jump| u8::try_from(jump).expect("a short jump");
    sys::bpf_insn { code: u16::try_from(code).expect("a code"), jt: byte(jt), jf: byte(jf), k }
}

/// Any program without loops and without what libpcap leaves undefined: memory that was not written, division by a
/// constant zero, and shifts by constants of 32 and more.
fn random_program(random: &mut Random) -> Vec<sys::bpf_insn> {
    // With memory, or with more branches than a program with memory may have.
    let memory = random.below(2) == 0;
    let mut program: Vec<_> = (0..16).map(|word| insn(sys::BPF_ST, 0, 0, word)).filter(|_| memory).collect();
    let body = 1 + random.below(if memory { 30 } else { 100 });
    for at in 0..body {
        // The return behind the body can be jumped to, too.
        let left = body - at;
        let offset = match random.below(8) {
            0 => random.pick(&[65, 1 << 30, (1 << 30) - 1, i32::MAX.cast_unsigned(), 1 << 31, 0xffff_efff]),
            1..=3 => random.pick(&[12, 12, 14, 20, 23, 23, 34]),
            _ => u32::try_from(random.below(64)).expect("small"),
        };
        let number = random.pick(&[
            0,
            1,
            6,
            6,
            17,
            0x800,
            0x86dd,
            15,
            0x7f,
            0x80,
            0xff,
            0x800,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
        ]);
        let index = u32::try_from(random.below(16)).expect("small");
        let source = random.pick(&[sys::BPF_K, sys::BPF_X]);
        let width = random.pick(&[sys::BPF_B, sys::BPF_H, sys::BPF_W]);
        program.push(match random.below(14) {
            0..=2 => insn(sys::BPF_LD | sys::BPF_ABS | width, 0, 0, offset),
            3 => insn(sys::BPF_LD | sys::BPF_IND | width, 0, 0, offset),
            4 if memory => insn(random.pick(&[sys::BPF_LD, sys::BPF_LDX]) | sys::BPF_MEM, 0, 0, index),
            5 if memory => insn(random.pick(&[sys::BPF_ST, sys::BPF_STX]), 0, 0, index),
            4..=6 => insn(random.pick(&[sys::BPF_LD, sys::BPF_LDX]) | sys::BPF_IMM, 0, 0, number),
            7 => insn(random.pick(&[sys::BPF_LD, sys::BPF_LDX]) | sys::BPF_LEN, 0, 0, 0),
            8 => insn(sys::BPF_LDX | sys::BPF_MSH | sys::BPF_B, 0, 0, offset),
            9 => insn(sys::BPF_MISC | random.pick(&[sys::BPF_TAX, sys::BPF_TXA]), 0, 0, 0),
            10 => random_alu(random, source, number),
            11 => insn(sys::BPF_ALU | sys::BPF_AND | sys::BPF_K, 0, 0, random.pick(&[1, 0xf, 0x3c, 0xff])),
            12 if random.below(3) == 0 => {
                insn(sys::BPF_JMP | sys::BPF_JA, 0, 0, u32::try_from(random.below(left)).expect("small"))
            }
            _ => {
                let test = random.pick(&[sys::BPF_JEQ, sys::BPF_JGT, sys::BPF_JGE, sys::BPF_JSET]);
                insn(sys::BPF_JMP | test | source, random.below(left), random.below(left), number)
            }
        });
    }
    program.push(insn(sys::BPF_RET | random.pick(&[sys::BPF_K, sys::BPF_A]), 0, 0, random.pick(&[0, 1, u32::MAX])));
    program
}

fn random_alu(random: &mut Random, source: u32, number: u32) -> sys::bpf_insn {
    let operations = [
        sys::BPF_ADD,
        sys::BPF_SUB,
        sys::BPF_MUL,
        sys::BPF_DIV,
        sys::BPF_MOD,
        sys::BPF_OR,
        sys::BPF_AND,
        sys::BPF_XOR,
        sys::BPF_LSH,
        sys::BPF_RSH,
        sys::BPF_NEG,
    ];
    match random.pick(&operations) {
        sys::BPF_NEG => insn(sys::BPF_ALU | sys::BPF_NEG, 0, 0, 0),
        shift @ (sys::BPF_LSH | sys::BPF_RSH) => insn(sys::BPF_ALU | shift | source, 0, 0, number % 32),
        division @ (sys::BPF_DIV | sys::BPF_MOD) => insn(sys::BPF_ALU | division | source, 0, 0, number.max(1)),
        operation => insn(sys::BPF_ALU | operation | source, 0, 0, number),
    }
}

/// The interpreter gives libpcap's answer, for every instruction, over frames in one segment and in many.
#[test]
fn every_program_means_what_libpcap_says() {
    let mut random = Random(1);
    let (mut accepted, mut runs) = (0, 0);
    for _ in 0..20_000 {
        let raw = random_program(&mut random);
        let program = Program::check(raw.clone()).expect("a valid program");
        for _ in 0..4 {
            let len = random.below(80);
            let bytes: Vec<u8> = (0..len).map(|_| random.pick(&[0, 1, 4, 0x45, 0x80, 0xff])).collect();
            let mut cuts: Vec<usize> = (0..random.below(4)).map(|_| random.below(len + 1)).collect();
            cuts.sort_unstable();
            let want = oracle(&raw, &bytes);
            let mut frame = Frame::new(&bytes, &cuts);
            assert_eq!(program.matches(&frame.mbuf()), want, "{program:?} {bytes:?} {cuts:?}");
            accepted += usize::from(want);
            runs += 1;
        }
    }
    assert!((runs / 20..runs * 19 / 20).contains(&accepted), "{accepted} of {runs} passed");
}

/// A loop runs to its end.
#[test]
fn loops_end() {
    let filter = Bpf::compile("ip6 protochain 6").expect("it is right");
    let mut frame = vec![0; 14 + 40];
    (frame[12], frame[13], frame[14], frame[20]) = (0x86, 0xdd, 0x60, 0);
    // 150 headers of eight bytes, each followed by another, and one at the end that is followed by `last`.
    for last in [6, 17] {
        let mut frame = frame.clone();
        frame.extend([0_u8; 8].repeat(150));
        frame.extend([last, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend([0; 20]);
        let mut frame = Frame::new(&frame, &[]);
        assert_eq!(filter.matches(&frame.mbuf()), last == 6);
    }
}

/// A frame by which libpcap's program goes round for ever has an end, and does not pass.
#[test]
fn endless_loops_end() {
    let filter = Bpf::compile("ip protochain 6").expect("it is right");
    let mut frame = vec![0; 100];
    // An authentication header that says another one is next, at the place that is 4 * (0 + 2) from the begin: itself.
    (frame[12], frame[14], frame[23]) = (8, 0x42, 51);
    (frame[14 + 8], frame[14 + 8 + 1]) = (51, 0);
    let mut frame = Frame::new(&frame, &[]);
    assert!(!filter.matches(&frame.mbuf()));
}

/// What is no program is an error that names the place: no jump leaves a program, and it does not end without a return.
#[test]
fn broken_programs_are_refused() {
    let end = insn(sys::BPF_RET, 0, 0, 0);
    let refused = [
        insn(sys::BPF_JMP | sys::BPF_JA, 0, 0, 1),
        insn(sys::BPF_JMP | sys::BPF_JA, 0, 0, u32::MAX - 1),
        insn(sys::BPF_JMP | sys::BPF_JA, 0, 0, i32::MAX.cast_unsigned()),
        insn(sys::BPF_JMP | sys::BPF_JEQ, 1, 0, 0),
        insn(sys::BPF_JMP | sys::BPF_JEQ, 0, 255, 0),
        insn(sys::BPF_ST, 0, 0, 16),
        insn(sys::BPF_LD | sys::BPF_MEM, 0, 0, u32::MAX),
        insn(sys::BPF_LDX | sys::BPF_ABS, 0, 0, 0),
        insn(sys::BPF_LD | 0x18, 0, 0, 0),
        insn(sys::BPF_ALU | 0xb0, 0, 0, 0),
        insn(sys::BPF_RET | sys::BPF_X, 0, 0, 0),
        insn(0xff07, 0, 0, 0),
    ];
    for raw in refused {
        assert_eq!(Program::check(vec![raw, end]).err(), Some(super::BpfError::Unknown(0)), "{raw:?}");
    }
    let unfinished = Program::check(vec![insn(sys::BPF_MISC, 0, 0, 0)]);
    assert_eq!(unfinished.err(), Some(super::BpfError::Unknown(0)));
    assert!(Program::check(vec![end]).is_ok());
}

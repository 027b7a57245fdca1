//! Packet filters: libpcap's expressions, run as machine code.
//!
//! ```text
//! expression --libpcap--> classic program --translate--> eBPF program --librte_bpf--> machine code
//!                               |                 (loops, programs that are too long, no JIT)
//!                               '--------------------------------------------------> interpreter
//! ```
//!
//! The classic program (McCanne and Jacobson, "The BSD Packet Filter", 1993) is the meaning of an expression. It is
//! decoded and checked, then translated into what librte_bpf loads. The translation is our own, because
//! `rte_bpf_convert` of DPDK, up to 26.07 at least, takes the wrong register for bytes and words that are loaded
//! relative to a header (`tcp[13]`), lets such offsets wrap around, and reads in front of the frame at offsets with the
//! highest bit set. It also avoids what librte_bpf's compiler for x86-64 gets wrong; the source of `translate` says what.
//!
//! What cannot be translated, and everything on a machine where the JIT may not be used, is run by an interpreter of
//! our own, which gives the same answers at several times the cost. DPDK's own interpreter is never used: it trusts the
//! offsets of a program.

mod bits;
mod flow;
mod interpret;
mod layouts;
mod native;
mod padding;
mod pcap;
mod program;
mod translate;

#[cfg(test)]
mod tests;

pub use layouts::Layouts;

use crate::Mbuf;
use native::Native;
use program::{Insn, Program};

/// Why an expression is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BpfError {
    /// The expression is longer than [`Bpf::EXPRESSION_MAX`].
    #[error("a filter of {0} bytes; at most {max} are allowed", max = Bpf::EXPRESSION_MAX)]
    TooLong(usize),
    /// The expression has a zero byte in it, where C would end it.
    #[error("the filter has a zero byte in it")]
    ZeroByte,
    /// libpcap does not understand it, or cannot do it on Ethernet; this is what it says.
    #[error("{0}")]
    Refused(String),
    /// It asks for something that is not in the frame, but known to the kernel's packet sockets.
    #[error("the filter asks for what only a kernel knows of a packet, such as its direction")]
    NotInFrame,
    /// libpcap made a program that it does not describe.
    #[error("libpcap's program cannot be used: instruction {0} is unknown")]
    Unknown(usize),
    /// libpcap has no memory.
    #[error("no memory for a filter")]
    NoMemory,
}

/// A packet filter: a libpcap expression, compiled. Immutable, and shared by workers through an `Arc`.
///
/// It does not depend on the [`Eal`](crate::Eal).
#[derive(Debug)]
pub struct Bpf {
    program: Program,
    code: Code,
    by_key: Layouts,
}

/// How the program is run.
#[derive(Debug)]
enum Code {
    /// The answer is the same for every frame.
    Constant(bool),
    Native(Native),
    Interpreted,
}

impl Bpf {
    /// Longest expression in bytes.
    pub const EXPRESSION_MAX: usize = 8192;

    /// Compiles `expression` for Ethernet frames. An empty one passes every frame.
    ///
    /// Slow, so only for a control thread: less than a millisecond for what people type, but seconds for some expressions
    /// of several thousand bytes (libpcap's time grows with more than the square of their length; for this reason it
    /// is not asked to optimise above 2,048 bytes, as with `tcpdump -O`). And it blocks while libpcap looks up the
    /// names of hosts, which it does once, here, for names only: by `getaddrinfo`, so with the time limits and attempts
    /// of `/etc/resolv.conf` (by default some ten seconds if no server answers). Names of ports, protocols and Ethernet
    /// hosts come from files under `/etc` unless `/etc/nsswitch.conf` says otherwise. As in `tcpdump -r`, there is no
    /// netmask: `ip broadcast` knows 0.0.0.0 and 255.255.255.255.
    ///
    /// # Errors
    ///
    /// [`BpfError::Refused`] with libpcap's own text for a syntax error, a name that nobody knows, or a primitive that
    /// Ethernet does not have (`wlan`); [`BpfError::NotInFrame`] for `inbound` and `outbound`; [`BpfError::TooLong`] and [`BpfError::ZeroByte`] before libpcap sees
    /// it; [`BpfError::Unknown`] does not happen with the libpcap that we know.
    pub fn compile(expression: &str) -> Result<Self, BpfError> {
        if expression.len() > Self::EXPRESSION_MAX {
            return Err(BpfError::TooLong(expression.len()));
        }
        let program = Program::decode(&pcap::compile(expression)?)?;
        Ok(Self::from(program))
    }

    /// Whether nothing is left to be interpreted.
    ///
    /// False where the system takes the JIT away, as `MemoryDenyWriteExecute=` of systemd does; on machines other than
    /// x86-64; for programs with loops (`ip6 protochain`); and for very long ones, of some 4,000 instructions.
    #[must_use]
    pub fn is_jit(&self) -> bool {
        !matches!(self.code, Code::Interpreted)
    }

    /// For which frames the answer depends on nothing but the flow key, so that one answer is that of a whole run of
    /// frames with equal keys.
    ///
    /// What is false may still be so: `udp port 53` depends on the key of a tagged frame, too, but that is not looked
    /// into. True is never wrong.
    #[must_use]
    #[inline]
    pub fn by_key(&self) -> Layouts {
        self.by_key
    }

    /// Whether the frame in `mbuf` passes. Never allocates, never blocks.
    ///
    /// `protochain` gives up after 256 headers, and the frame does not pass; libpcap and tcpdump would go on, for ever if
    /// the frame is made for it.
    ///
    /// A load from beyond the end of the frame makes it fail, wherever in the expression it is: `ether[100] = 1 or arp`
    /// never passes an ARP frame of 60 bytes. That is what libpcap and kernels do.
    #[must_use]
    #[inline]
    pub fn matches(&self, mbuf: &Mbuf) -> bool {
        match &self.code {
            Code::Constant(answer) => *answer,
            Code::Native(native) => native.run(mbuf),
            Code::Interpreted => self.program.matches(mbuf),
        }
    }
}

impl From<Program> for Bpf {
    fn from(program: Program) -> Self {
        let code = match program.insns() {
            [Insn::Return(value), ..] => Code::Constant(*value != 0),
            _ => Native::compile(&program).map_or(Code::Interpreted, Code::Native),
        };
        let by_key = Layouts::of(&program);
        Self { program, code, by_key }
    }
}

//! Packet filters: libpcap's expressions, interpreted.
//!
//! ```text
//! expression --libpcap--> classic program --check--> interpreter
//! ```
//!
//! The classic program (McCanne and Jacobson, "The BSD Packet Filter", 1993) is the meaning of an expression. The
//! interpreter is safe code, and ends for every program and frame.
//!
//! Before, filters were machine code of librte_bpf. Instructions of kopid's worker for a frame, TX of 1,000 flows, under a capture that
//! matches nothing, are 709.5 for `host 10.0.0.1` where they were 708.7, and 724.6 for a list of 61 hosts and ports where
//! they were 710.7 (675.7 without a capture). These depend on the flow alone, see [`Bpf::decides`], and so are asked once for it. What
//! looks at more is asked for each frame, at some 20 instructions for each of the program's.

mod flow;
mod interpret;
mod pcap;
mod program;

#[cfg(test)]
mod tests;

use crate::Mbuf;
use flow::Flow;
use interpret::End;
use program::Program;

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
}

/// What the flow key (`FlowKey` of kopi-packet) says of a frame, as `kopi_packet::parse` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// It has a header of Ethernet, whatever follows: every shape but `Runt`.
    Ethernet,
    /// Shape `Arp` without VLAN tags.
    Arp,
    /// Shape `Ipv4` without VLAN tags and options, that is no fragment.
    Ipv4,
    /// Shape `Ipv6` without VLAN tags and extension headers (and so no fragment).
    Ipv6,
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
        Ok(Self { program: Program::check(pcap::compile(expression)?)? })
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
        self.program.matches(mbuf)
    }

    /// Whether every frame passes that is of one flow with the frame in `mbuf`, whose key says that it is a `layout`; `None` if that
    /// may depend on more than the key. What is not known here may still be so; an answer is never wrong.
    #[must_use]
    pub fn decides(&self, mbuf: &Mbuf, layout: Layout) -> Option<bool> {
        let result = if mbuf.segments() == 1 {
            self.program.run(&Flow::of(mbuf.data(), layout))
        } else {
            self.program.run(&Flow::of(mbuf, layout))
        };
        match result {
            Ok(answer) => Some(answer),
            Err(End::Fails) => Some(false),
            Err(End::Open) => None,
        }
    }
}

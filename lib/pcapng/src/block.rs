//! What blocks say, as it is written, and the numbers of the format.

/// Most bytes that are kept of a packet: libpcap's `MAXIMUM_SNAPLEN`, beyond which its readers refuse a file.
pub const MAX_CAPTURED: usize = 262_144;

/// Most bytes of a text: what the 16-bit length of an option can say.
pub const MAX_TEXT: usize = u16::MAX as usize;

/// Most bytes of a block that is read. What is written stays far below.
pub const MAX_BLOCK: usize = 1 << 20;

/// Most interfaces of a section that is read: the reader remembers something about each of them.
pub const MAX_INTERFACES: usize = 1 << 20;

/// The link type of every interface that is written (`LINKTYPE_ETHERNET`).
pub const LINK_ETHERNET: u16 = 1;

/// Where a packet went, from the side of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The interface received it.
    Inbound,
    /// The interface sent it.
    Outbound,
}

/// Where and by what a section was captured. Empty texts are left out.
///
/// Of this and all other texts, readers see what is before the first NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section<'a> {
    /// The machine, such as the name of its CPU.
    pub hardware: &'a str,
    /// The operating system.
    pub os: &'a str,
    /// The capturing program and its version.
    pub application: &'a str,
}

/// One interface. Interfaces have no number of their own: they are counted from 0 in each section, as they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface<'a> {
    /// Its name; left out if empty.
    pub name: &'a str,
    /// More about it, for people; left out if empty.
    pub description: &'a str,
    /// Its address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// The libpcap expression that packets were chosen by, if any.
    pub filter: Option<&'a str>,
    /// Most bytes kept of a packet. libpcap reads no file whose interfaces differ in this.
    pub snap: u32,
}

/// One packet, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The number of its interface, which is described earlier in the section.
    pub interface: u32,
    /// When it was seen: nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Its length on the wire in bytes, of which fewer may have been kept.
    pub len: u32,
    /// Where it went.
    pub direction: Direction,
    /// The queue of the interface that it came through, if known.
    pub queue: Option<u32>,
    /// Packets of this interface that were lost since the one before; left out if 0.
    pub drops: u64,
    /// Anything else about it, see [`Note`](crate::Note); left out if empty.
    pub comment: &'a str,
}

/// What became of the packets of an interface, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The number of the interface.
    pub interface: u32,
    /// When this was counted: nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// When the capture began: nanoseconds since 1970.
    pub start_ns: u64,
    /// When it ended: nanoseconds since 1970.
    pub end_ns: u64,
    /// Looked at (`isb_ifrecv`).
    pub received: u64,
    /// Matched the filter (`isb_filteraccept`).
    pub accepted: u64,
    /// Matched, but were lost (`isb_ifdrop`).
    pub dropped: u64,
    /// Written (`isb_usrdeliv`).
    pub delivered: u64,
}

/// Types of blocks.
pub(crate) mod kind {
    /// The same in both byte orders, so that it is recognised before the order is known.
    pub(crate) const SECTION: u32 = 0x0a0d_0d0a;
    pub(crate) const INTERFACE: u32 = 1;
    pub(crate) const STATISTICS: u32 = 5;
    pub(crate) const PACKET: u32 = 6;
}

/// Codes of options. Apart from the first two, they have a meaning only together with the type of their block.
pub(crate) mod option {
    pub(crate) const END: u16 = 0;
    pub(crate) const COMMENT: u16 = 1;

    pub(crate) const SHB_HARDWARE: u16 = 2;
    pub(crate) const SHB_OS: u16 = 3;
    pub(crate) const SHB_USERAPPL: u16 = 4;

    pub(crate) const IF_NAME: u16 = 2;
    pub(crate) const IF_DESCRIPTION: u16 = 3;
    pub(crate) const IF_MACADDR: u16 = 6;
    pub(crate) const IF_TSRESOL: u16 = 9;
    pub(crate) const IF_FILTER: u16 = 11;
    pub(crate) const IF_TSOFFSET: u16 = 14;

    pub(crate) const EPB_FLAGS: u16 = 2;
    pub(crate) const EPB_DROPCOUNT: u16 = 4;
    pub(crate) const EPB_QUEUE: u16 = 6;

    pub(crate) const ISB_STARTTIME: u16 = 2;
    pub(crate) const ISB_ENDTIME: u16 = 3;
    pub(crate) const ISB_IFRECV: u16 = 4;
    pub(crate) const ISB_IFDROP: u16 = 5;
    pub(crate) const ISB_FILTERACCEPT: u16 = 6;
    pub(crate) const ISB_USRDELIV: u16 = 8;
}

/// First body word of a section header, by which its byte order is known.
pub(crate) const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// What the first byte of `if_filter` says of a libpcap expression.
pub(crate) const FILTER_TEXT: u8 = 0;

/// Bits of `epb_flags` that say the direction, and their two known values.
pub(crate) const DIRECTION_MASK: u32 = 0b11;
pub(crate) const INBOUND: u32 = 0b01;
pub(crate) const OUTBOUND: u32 = 0b10;

/// How many bytes of zero follow `len` bytes of content, up to a boundary of four.
pub(crate) const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

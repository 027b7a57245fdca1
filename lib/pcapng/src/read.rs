//! Blocks, from a stream that may hold anything.

use crate::block::{
    BYTE_ORDER, DIRECTION_MASK, Direction, FILTER_TEXT, INBOUND, MAX_BLOCK, MAX_INTERFACES, OUTBOUND, Statistics, kind,
    option,
};
use crate::clock::Clock;
use crate::error::ReadError;
use crate::fields::{Fields, Order};
use std::io::{self, Read};

/// Bytes that every block has: type, length, and the length once more at its end.
const LEAST: usize = 12;

/// Reads a stream, block after block.
///
/// The source has to block while there is nothing to read. It is asked twice for each block, so give it as a
/// [`BufReader`](std::io::BufReader) if that is a system call. The reader's own buffer is as long as the longest block
/// so far, at most [`MAX_BLOCK`].
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    /// The block at hand, and what is left of longer ones.
    buffer: Vec<u8>,
    /// Of the section at hand; `None` before the first.
    order: Option<Order>,
    /// Of the interfaces of the section at hand.
    clocks: Vec<Clock>,
    /// Nothing more is read: the source has ended, or something was wrong.
    over: bool,
}

/// What a block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// A section begins; interfaces count from 0 again.
    Section(SectionInfo),
    /// The next interface of the section.
    Interface(InterfaceInfo),
    /// A packet.
    Packet(ReadPacket<'a>),
    /// The statistics of an interface. Counts that are not stated are 0.
    Statistics(Statistics),
    /// A block of another type, which is skipped.
    Other(u32),
}

/// Where and by what a section was captured. Texts that are not stated are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionInfo {
    /// The machine.
    pub hardware: String,
    /// The operating system.
    pub os: String,
    /// The capturing program.
    pub application: String,
}

/// One interface. Texts that are not stated are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// More about it, for people.
    pub description: String,
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The libpcap expression that packets were chosen by. `None` also for filters of other kinds.
    pub filter: Option<String>,
    /// Most bytes kept of a packet; 0 if there is no limit.
    pub snap: u32,
    /// What its packets begin with, as a `LINKTYPE_` number; see [`LINK_ETHERNET`](crate::LINK_ETHERNET).
    pub link_type: u16,
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPacket<'a> {
    /// The number of its interface, which the section has described.
    pub interface: u32,
    /// Nanoseconds since 1970, whatever the resolution in the stream.
    pub timestamp_ns: u64,
    /// Its length on the wire, in bytes. Nothing keeps a stream from saying less than there is in `data`.
    pub len: u32,
    /// Where it went, if stated.
    pub direction: Option<Direction>,
    /// The queue of the interface that it came through, if stated.
    pub queue: Option<u32>,
    /// Packets of this interface that were lost since the one before; 0 if not stated.
    pub drops: u64,
    /// Its first comment.
    pub comment: Option<&'a str>,
    /// Its kept bytes.
    pub data: &'a [u8],
}

impl<R: Read> Reader<R> {
    /// Reads from `source`, which is at the begin of a section.
    pub fn new(source: R) -> Self {
        Self { source, buffer: vec![0; LEAST], order: None, clocks: Vec::new(), over: false }
    }

    /// The next block, or `None` at the end. Waits for the source.
    ///
    /// # Errors
    ///
    /// [`ReadError`], whatever is wrong. Since nothing behind that can be trusted, the stream is over then.
    #[expect(clippy::should_implement_trait, reason = "a block borrows the reader, which an iterator cannot say")]
    pub fn next(&mut self) -> Result<Option<Block<'_>>, ReadError> {
        if self.over {
            return Ok(None);
        }
        // Until this block has turned out well.
        self.over = true;
        let Some((kind, order, total)) = self.fetch()? else { return Ok(None) };
        let mut fields = Fields::new(&self.buffer[8..total - 4], order, kind);
        let block = match kind {
            kind::SECTION => {
                self.order = Some(order);
                self.clocks.clear();
                Block::Section(section(&mut fields)?)
            }
            kind::INTERFACE => {
                let (info, clock) = interface(&mut fields)?;
                if self.clocks.len() == MAX_INTERFACES {
                    return Err(ReadError::Interfaces);
                }
                self.clocks.push(clock);
                Block::Interface(info)
            }
            kind::PACKET => Block::Packet(packet(&mut fields, &self.clocks)?),
            kind::STATISTICS => Block::Statistics(statistics(&mut fields, &self.clocks)?),
            other => Block::Other(other),
        };
        self.over = false;
        Ok(Some(block))
    }

    /// Reads a block into the buffer. Returns its type, its byte order, and its length.
    fn fetch(&mut self) -> Result<Option<(u32, Order, usize)>, ReadError> {
        match fill(&mut self.source, &mut self.buffer[..LEAST])? {
            0 => return Ok(None),
            LEAST => {}
            _ if self.order.is_none() => return Err(ReadError::NotPcapng),
            _ => return Err(ReadError::Truncated),
        }
        let word = |buffer: &[u8], at| [buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]];
        let magic = word(&self.buffer, 8);
        let order = if word(&self.buffer, 0) != kind::SECTION.to_le_bytes() {
            self.order.ok_or(ReadError::NotPcapng)?
        } else if magic == BYTE_ORDER.to_le_bytes() {
            Order::Little
        } else if magic == BYTE_ORDER.to_be_bytes() {
            Order::Big
        } else {
            return Err(ReadError::NotPcapng);
        };

        let front = order.u32(word(&self.buffer, 4));
        let total = usize::try_from(front).unwrap_or(usize::MAX);
        if !(LEAST..=MAX_BLOCK).contains(&total) || !total.is_multiple_of(4) {
            return Err(ReadError::Length(front));
        }
        if self.buffer.len() < total {
            self.buffer.resize(total, 0);
        }
        let rest = &mut self.buffer[LEAST..total];
        if fill(&mut self.source, rest)? < rest.len() {
            return Err(ReadError::Truncated);
        }
        let back = order.u32(word(&self.buffer, total - 4));
        if front != back {
            return Err(ReadError::Lengths { front, back });
        }
        Ok(Some((order.u32(word(&self.buffer, 0)), order, total)))
    }
}

/// Fills `buffer`, and says how much of it the source had before its end.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn section(fields: &mut Fields<'_>) -> Result<SectionInfo, ReadError> {
    // The byte order, which is known by now.
    fields.skip(4)?;
    let (major, minor) = (fields.u16()?, fields.u16()?);
    // Some writers said 1.2 and meant the same.
    if !matches!((major, minor), (1, 0 | 2)) {
        return Err(ReadError::Version { major, minor });
    }
    // The length of the section, which helps only who wants to skip it.
    fields.skip(8)?;
    let mut info = SectionInfo::default();
    while let Some(opt) = fields.option()? {
        match opt.code {
            option::SHB_HARDWARE => info.hardware = opt.text()?.into(),
            option::SHB_OS => info.os = opt.text()?.into(),
            option::SHB_USERAPPL => info.application = opt.text()?.into(),
            _ => {}
        }
    }
    Ok(info)
}

fn interface(fields: &mut Fields<'_>) -> Result<(InterfaceInfo, Clock), ReadError> {
    let link_type = fields.u16()?;
    fields.skip(2)?;
    let mut info = InterfaceInfo { link_type, snap: fields.u32()?, ..InterfaceInfo::default() };
    let mut clock = Clock::default();
    while let Some(opt) = fields.option()? {
        match opt.code {
            option::IF_NAME => info.name = opt.text()?.into(),
            option::IF_DESCRIPTION => info.description = opt.text()?.into(),
            option::IF_MACADDR => info.mac = Some(opt.array()?),
            option::IF_TSRESOL => [clock.resolution] = opt.array()?,
            option::IF_TSOFFSET => clock.offset_s = opt.i64()?,
            option::IF_FILTER => {
                let (&sort, filter) = opt.value.split_first().ok_or_else(|| opt.malformed())?;
                if sort == FILTER_TEXT {
                    info.filter = Some(opt.text_of(filter)?.into());
                }
            }
            _ => {}
        }
    }
    Ok((info, clock))
}

fn packet<'a>(fields: &mut Fields<'a>, clocks: &[Clock]) -> Result<ReadPacket<'a>, ReadError> {
    let interface = fields.u32()?;
    let clock = clock_of(interface, clocks)?;
    let timestamp_ns = clock.to_ns(fields.timestamp()?).ok_or(ReadError::Timestamp)?;
    let captured = fields.u32()?;
    let len = fields.u32()?;
    let data = fields.padded(usize::try_from(captured).unwrap_or(usize::MAX))?;
    let mut packet =
        ReadPacket { interface, timestamp_ns, len, direction: None, queue: None, drops: 0, comment: None, data };
    while let Some(opt) = fields.option()? {
        match opt.code {
            option::COMMENT if packet.comment.is_none() => packet.comment = Some(opt.text()?),
            option::EPB_FLAGS => packet.direction = direction(opt.u32()?),
            option::EPB_DROPCOUNT => packet.drops = opt.u64()?,
            option::EPB_QUEUE => packet.queue = Some(opt.u32()?),
            _ => {}
        }
    }
    Ok(packet)
}

fn direction(flags: u32) -> Option<Direction> {
    match flags & DIRECTION_MASK {
        INBOUND => Some(Direction::Inbound),
        OUTBOUND => Some(Direction::Outbound),
        _ => None,
    }
}

fn statistics(fields: &mut Fields<'_>, clocks: &[Clock]) -> Result<Statistics, ReadError> {
    let interface = fields.u32()?;
    let clock = clock_of(interface, clocks)?;
    let ns = |units| clock.to_ns(units).ok_or(ReadError::Timestamp);
    let mut statistics = Statistics { interface, timestamp_ns: ns(fields.timestamp()?)?, ..Statistics::default() };
    while let Some(opt) = fields.option()? {
        match opt.code {
            option::ISB_STARTTIME => statistics.start_ns = ns(opt.timestamp()?)?,
            option::ISB_ENDTIME => statistics.end_ns = ns(opt.timestamp()?)?,
            option::ISB_IFRECV => statistics.received = opt.u64()?,
            option::ISB_IFDROP => statistics.dropped = opt.u64()?,
            option::ISB_FILTERACCEPT => statistics.accepted = opt.u64()?,
            option::ISB_USRDELIV => statistics.delivered = opt.u64()?,
            _ => {}
        }
    }
    Ok(statistics)
}

fn clock_of(interface: u32, clocks: &[Clock]) -> Result<Clock, ReadError> {
    let place = usize::try_from(interface).unwrap_or(usize::MAX);
    clocks.get(place).copied().ok_or(ReadError::Interface(interface))
}

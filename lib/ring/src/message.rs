//! The messages of the attach protocol. One message is one packet of a SEQPACKET socket.
//!
//! Integers are little-endian, texts and lists carry their length in front. The 12 bytes of the header, and
//! [`Message::Refused`] with number 1, stay as they are in every version, so that any two versions can report
//! that they do not match.

mod flow_rule;

use crate::layout::{Geometry, GeometryError, MAX_QUEUES, WindowError, WindowLayout};
use crate::{OLDEST_PROTOCOL, PROTOCOL};
use thiserror::Error;

pub use flow_rule::{ALL_FLOW_RULES, FlowAction, FlowRule, FlowRuleError, MAX_FLOW_RULES};

/// "KOPI", the first bytes of every message.
pub const MAGIC: [u8; 4] = *b"KOPI";
/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 2048;
/// Longest name of an app in bytes.
pub const MAX_NAME: usize = 32;
/// Longest text in bytes.
pub const MAX_TEXT: usize = 512;
/// Most MAC addresses of a port, unicast and multicast together.
pub const MAX_MACS: usize = 128;

/// Most segments of memory in one message.
pub const MAX_SEGMENTS: usize = 64;

/// Bytes of a key of the hash that spreads frames over RX queues.
pub const RSS_KEY_SIZE: usize = 40;
/// Entries of a table by which that hash chooses a queue.
pub const RETA_SIZE: usize = 128;

/// Six bytes of a MAC address.
pub type Mac = [u8; 6];

/// A message with the number that pairs a reply with its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The version of the protocol that its sender speaks.
    pub protocol: u16,
    /// Chosen by the client for each request, repeated in the reply; 0 in messages that answer nothing.
    pub sequence: u32,
    /// The message.
    pub message: Message,
}

/// Every message of the attach protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Daemon: a refusal, and the reason as text for people.
    Refused(String),
    /// Client, first message: asks for a port.
    Hello(Hello),
    /// Daemon: the port that the client gets.
    Welcome(Welcome),
    /// Client: make these rings, in place of any there are.
    Setup(Setup),
    /// Daemon, with the region's file descriptor: the rings are in it and being served. If there is a second descriptor, the
    /// daemon sleeps at times, and that one wakes it.
    Ready(Geometry),
    /// Client: what the port is to receive and to carry. Replaces all earlier settings.
    Settings(Settings),
    /// Client: stop serving the rings and release the region.
    Stop,
    /// Daemon: done.
    Done,
    /// Daemon, unasked: the wire's link changed.
    Link(Link),
    /// Client, since version 3: the region that came with Ready is mapped, and no other mapping of it that can be written will be
    /// made. The daemon seals it, and serves its rings from then on.
    Mapped,
    /// Client, since version 3: wants to share memory of its own in a window like this. Once, before the first
    /// [`Setup`](Self::Setup).
    Memory(WindowLayout),
    /// Client, since version 3: how what the port receives is spread over the RX queues of the rings that it has. Replaces what it has
    /// chosen before; other rings begin without a choice.
    Rss(Rss),
    /// Client, with a file descriptor for each segment: shares these.
    Share(Vec<Segment>),
    /// Client: shares these no longer. Nothing in a ring refers to them.
    Unshare(Vec<Span>),
    /// Client, since version 3, at any time after Welcome: this rule holds for the port, in place of any with its number. Rules stay for
    /// as long as the connection, whatever becomes of the rings.
    FlowRule(Box<FlowRule>),
    /// Client: the rule with this number holds no longer, or none does if it is [`ALL_FLOW_RULES`].
    FlowRuleGone(u16),
}

/// A part of a window that the client shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the window it is to lie.
    pub span: Span,
    /// Where in its file it lies.
    pub offset: u64,
}

/// A part of a window: whole pages of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bytes before it.
    pub at: u64,
    /// Its bytes.
    pub length: u64,
}

/// A request for a port.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hello {
    /// The name asked for, or empty for one made from the process's `comm`.
    pub name: String,
    /// The MAC address asked for, or zero for one of the daemon's choice.
    pub mac: Mac,
    /// Most queues that will be asked for in each direction.
    pub queues: u16,
    /// Names the driver and its DPDK, for the operator.
    pub driver: String,
}

/// The port that the app gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The daemon's number for the port.
    pub port: u16,
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest MTU, that of the wire.
    pub max_mtu: u16,
    /// Most queues in each direction.
    pub max_queues: u16,
    /// Most slots in a ring.
    pub max_ring: u32,
    /// The slot size to ask for.
    pub slot_size: u32,
    /// The wire's link.
    pub link: Link,
    /// Whether the client may share memory. Since version 3; before, no client does.
    pub shares: bool,
    /// Threads of the daemon that fill RX rings, each with what the wire's own spreading has brought to it: a client may have as many
    /// lanes. 1 if there is nothing to be gained. Since version 3.
    pub workers: u16,
    /// The key that the hash has which spreads frames over RX queues, until the client chooses another. Since version 3; zeros before.
    pub rss_key: [u8; RSS_KEY_SIZE],
}

/// The rings that a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Their sizes.
    pub geometry: Geometry,
    /// Whether the client may sleep until a frame comes. If not, the daemon ignores the `need_wakeup` words of its RX rings.
    pub sleeps: bool,
}

impl From<Geometry> for Setup {
    /// Rings of a client that always polls.
    fn from(geometry: Geometry) -> Self {
        Self { geometry, sleeps: false }
    }
}

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// Mbit/s; 0 if unknown.
    pub speed: u32,
}

/// The settings of a port: what it receives and carries.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// Largest layer-3 size in bytes.
    pub mtu: u16,
    /// Receive every frame, whatever its destination.
    pub promiscuous: bool,
    /// Receive every multicast frame.
    pub all_multicast: bool,
    /// Unicast addresses that are the port's, the main one first, and multicast addresses that it wants.
    pub macs: Vec<Mac>,
}

/// How what a port receives is spread over its RX queues: by the Toeplitz hash of what is in its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The key of the hash.
    pub key: [u8; RSS_KEY_SIZE],
    /// What is hashed, as `RTE_ETH_RSS_*` of DPDK; the hash of all else is 0.
    pub types: u64,
    /// The RX queue for each value of the hash's low bits.
    pub table: [u8; RETA_SIZE],
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too few bytes for what they claim to be.
    #[error("message ends early")]
    Short,
    /// Bytes left over.
    #[error("message is longer than its content")]
    Long,
    /// It does not start with [`MAGIC`].
    #[error("not a kopi message")]
    Magic,
    /// The peer speaks a version of the protocol that this side does not.
    #[error("peer speaks ring protocol {0}, this side speaks {OLDEST_PROTOCOL} to {PROTOCOL}")]
    Version(u16),
    /// No such message.
    #[error("unknown message kind {0}")]
    Kind(u16),
    /// A list or text is longer than allowed.
    #[error("list or text is longer than {0}")]
    TooMany(usize),
    /// A text is not UTF-8 or has control characters.
    #[error("text is not printable")]
    Text,
    /// A flag is neither 0 nor 1.
    #[error("flag is neither 0 nor 1")]
    Flag,
    /// A table names a queue that no port has.
    #[error("a redirection table with queue {0}, a port has up to {MAX_QUEUES}")]
    Queue(u8),
    /// The sizes in a message are outside the limits.
    #[error("{0}")]
    Geometry(GeometryError),
    /// So are those of a window.
    #[error("{0}")]
    Window(WindowError),
    /// So is a flow rule.
    #[error("{0}")]
    FlowRule(FlowRuleError),
}

impl Envelope {
    /// The bytes of this message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(256));
        out.bytes(&MAGIC);
        out.u16(self.protocol);
        out.u16(self.message.kind());
        out.u32(self.sequence);
        match &self.message {
            Message::Refused(text) => out.text(text, MAX_TEXT),
            Message::Hello(hello) => {
                out.text(&hello.name, MAX_NAME);
                out.bytes(&hello.mac);
                out.u16(hello.queues);
                out.text(&hello.driver, MAX_TEXT);
            }
            Message::Welcome(welcome) => {
                out.u16(welcome.port);
                out.text(&welcome.name, MAX_NAME);
                out.bytes(&welcome.mac);
                out.u16(welcome.max_mtu);
                out.u16(welcome.max_queues);
                out.u32(welcome.max_ring);
                out.u32(welcome.slot_size);
                out.link(welcome.link);
                if self.protocol >= SHARING {
                    out.flag(welcome.shares);
                }
                if self.protocol >= LANES {
                    out.u16(welcome.workers);
                }
                if self.protocol >= RSS {
                    out.bytes(&welcome.rss_key);
                }
            }
            Message::Setup(setup) => {
                out.geometry(&setup.geometry, self.protocol);
                out.flag(setup.sleeps);
            }
            Message::Ready(geometry) => out.geometry(geometry, self.protocol),
            Message::Settings(settings) => {
                out.u16(settings.mtu);
                out.flag(settings.promiscuous);
                out.flag(settings.all_multicast);
                out.count(settings.macs.len());
                settings.macs.iter().for_each(|mac| out.bytes(mac));
            }
            Message::Stop | Message::Done | Message::Mapped => {}
            Message::Link(link) => out.link(*link),
            Message::Memory(window) => {
                out.u64(window.page());
                out.u64(window.size());
            }
            Message::Rss(rss) => {
                out.bytes(&rss.key);
                out.u64(rss.types);
                out.bytes(&rss.table);
            }
            Message::Share(segments) => {
                out.count(segments.len());
                for segment in segments {
                    out.span(segment.span);
                    out.u64(segment.offset);
                }
            }
            Message::Unshare(spans) => {
                out.count(spans.len());
                spans.iter().for_each(|span| out.span(*span));
            }
            Message::FlowRule(rule) => out.flow_rule(rule),
            Message::FlowRuleGone(slot) => out.u16(*slot),
        }
        out.0
    }

    /// Reads a message. The bytes may be anything.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are not exactly one message of a version that this side speaks, within its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        if r.take::<4>()? != MAGIC {
            return Err(DecodeError::Magic);
        }
        let protocol = r.u16()?;
        let kind = r.u16()?;
        let sequence = r.u32()?;
        if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&protocol) && kind != KIND_REFUSED {
            return Err(DecodeError::Version(protocol));
        }
        let message = Message::read(kind, protocol, &mut r)?;
        if message.since() > protocol && kind != KIND_REFUSED {
            return Err(DecodeError::Kind(kind));
        }
        if r.0.is_empty() { Ok(Self { protocol, sequence, message }) } else { Err(DecodeError::Long) }
    }
}

const KIND_REFUSED: u16 = 1;
/// The first version in which a client says that it has mapped its rings.
pub const MAPPED: u16 = 3;
/// The first version in which a client may share memory.
pub const SHARING: u16 = 3;
/// The first version in which an RX queue may have several rings.
const LANES: u16 = 3;
/// The first version in which a client may choose how frames are spread over its RX queues.
pub const RSS: u16 = 3;
/// The first version in which a client may have flow rules.
pub const FLOW_RULES: u16 = 3;

impl Message {
    const fn kind(&self) -> u16 {
        match self {
            Self::Refused(_) => KIND_REFUSED,
            Self::Hello(_) => 2,
            Self::Welcome(_) => 3,
            Self::Setup(_) => 4,
            Self::Ready(_) => 5,
            Self::Settings(_) => 6,
            Self::Stop => 7,
            Self::Done => 8,
            Self::Link(_) => 9,
            Self::Mapped => 10,
            Self::Memory(_) => 11,
            Self::Share(_) => 12,
            Self::Unshare(_) => 13,
            Self::Rss(_) => 14,
            Self::FlowRule(_) => 15,
            Self::FlowRuleGone(_) => 16,
        }
    }

    /// The first version of the protocol that has it.
    const fn since(&self) -> u16 {
        match self {
            Self::Mapped => MAPPED,
            Self::Memory(_) | Self::Share(_) | Self::Unshare(_) => SHARING,
            Self::Rss(_) => RSS,
            Self::FlowRule(_) | Self::FlowRuleGone(_) => FLOW_RULES,
            _ => OLDEST_PROTOCOL,
        }
    }

    fn read(kind: u16, protocol: u16, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            KIND_REFUSED => Self::Refused(r.text(MAX_TEXT)?),
            2 => Self::Hello(Hello {
                name: r.text(MAX_NAME)?,
                mac: r.take()?,
                queues: r.u16()?,
                driver: r.text(MAX_TEXT)?,
            }),
            3 => Self::Welcome(Welcome {
                port: r.u16()?,
                name: r.text(MAX_NAME)?,
                mac: r.take()?,
                max_mtu: r.u16()?,
                max_queues: r.u16()?,
                max_ring: r.u32()?,
                slot_size: r.u32()?,
                link: r.link()?,
                shares: protocol >= SHARING && r.flag()?,
                workers: if protocol >= LANES { r.u16()? } else { 1 },
                rss_key: if protocol >= RSS { r.take()? } else { [0; RSS_KEY_SIZE] },
            }),
            4 => Self::Setup(Setup { geometry: r.geometry(protocol)?, sleeps: r.flag()? }),
            5 => Self::Ready(r.geometry(protocol)?),
            6 => Self::Settings(Settings {
                mtu: r.u16()?,
                promiscuous: r.flag()?,
                all_multicast: r.flag()?,
                macs: r.list(MAX_MACS, Reader::take)?,
            }),
            7 => Self::Stop,
            8 => Self::Done,
            9 => Self::Link(r.link()?),
            10 => Self::Mapped,
            11 => Self::Memory(WindowLayout::new(r.u64()?, r.u64()?).map_err(DecodeError::Window)?),
            12 => Self::Share(r.list(MAX_SEGMENTS, |r| Ok(Segment { span: r.span()?, offset: r.u64()? }))?),
            13 => Self::Unshare(r.list(MAX_SEGMENTS, Reader::span)?),
            14 => Self::Rss(Rss { key: r.take()?, types: r.u64()?, table: r.table()? }),
            15 => Self::FlowRule(Box::new(r.flow_rule()?)),
            16 => Self::FlowRuleGone(r.flow_rule_gone()?),
            other => return Err(DecodeError::Kind(other)),
        })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn span(&mut self, span: Span) {
        self.u64(span.at);
        self.u64(span.length);
    }

    fn flag(&mut self, value: bool) {
        self.bytes(&[value.into()]);
    }

    fn count(&mut self, n: usize) {
        self.u16(u16::try_from(n).unwrap_or(u16::MAX));
    }

    /// Writes the longest prefix of `text` that fits into `max` bytes.
    fn text(&mut self, text: &str, max: usize) {
        let kept = text.char_indices().map(|(at, c)| at.saturating_add(c.len_utf8())).take_while(|end| *end <= max);
        let kept = text.get(..kept.last().unwrap_or(0)).unwrap_or_default();
        self.count(kept.len());
        self.bytes(kept.as_bytes());
    }

    fn link(&mut self, link: Link) {
        self.flag(link.up);
        self.u32(link.speed);
    }

    fn geometry(&mut self, geometry: &Geometry, protocol: u16) {
        self.u32(geometry.slot_size());
        for sizes in [geometry.tx(), geometry.rx()] {
            self.count(sizes.len());
            sizes.iter().for_each(|size| self.u32(*size));
        }
        if protocol >= LANES {
            self.u16(geometry.lanes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A table of queues that a port may have.
    fn table(&mut self) -> Result<[u8; RETA_SIZE], DecodeError> {
        let table = self.take::<RETA_SIZE>()?;
        match table.iter().find(|queue| usize::from(**queue) >= MAX_QUEUES) {
            Some(queue) => Err(DecodeError::Queue(*queue)),
            None => Ok(table),
        }
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }

    fn span(&mut self) -> Result<Span, DecodeError> {
        Ok(Span { at: self.u64()?, length: self.u64()? })
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::Flag),
        }
    }

    fn list<T>(
        &mut self,
        max: usize,
        item: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let n = usize::from(self.u16()?);
        if n > max {
            return Err(DecodeError::TooMany(max));
        }
        (0..n).map(|_| item(self)).collect()
    }

    fn text(&mut self, max: usize) -> Result<String, DecodeError> {
        let bytes = self.list(max, |r| r.take::<1>().map(|[b]| b))?;
        let text = String::from_utf8(bytes).map_err(|_| DecodeError::Text)?;
        if text.chars().any(char::is_control) { Err(DecodeError::Text) } else { Ok(text) }
    }

    fn link(&mut self) -> Result<Link, DecodeError> {
        Ok(Link { up: self.flag()?, speed: self.u32()? })
    }

    fn geometry(&mut self, protocol: u16) -> Result<Geometry, DecodeError> {
        let slot_size = self.u32()?;
        // One more than allowed is read, so that `Geometry` can name its limit.
        let sizes = |r: &mut Self| r.list(MAX_QUEUES.saturating_mul(8), Self::u32);
        let tx = sizes(self)?;
        let rx = sizes(self)?;
        let geometry = Geometry::new(&tx, &rx, slot_size).map_err(DecodeError::Geometry)?;
        let lanes = if protocol >= LANES { self.u16()? } else { 1 };
        geometry.with_lanes(lanes).map_err(DecodeError::Geometry)
    }
}

#[cfg(test)]
mod tests;

//! The messages of the attach protocol. One message is one packet of a SEQPACKET socket.
//!
//! Integers are little-endian, texts and lists carry their length in front. The 12 bytes of the header, and
//! [`Message::Refused`] with number 1, stay as they are in every version, so that any two versions can report
//! that they do not match.

use crate::layout::{Geometry, GeometryError, MAX_QUEUES};
use crate::{OLDEST_PROTOCOL, PROTOCOL};
use thiserror::Error;

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
    /// made. The daemon seals it.
    Mapped,
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
    /// The sizes in a message are outside the limits.
    #[error("{0}")]
    Geometry(GeometryError),
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
            }
            Message::Setup(setup) => {
                out.geometry(&setup.geometry);
                out.flag(setup.sleeps);
            }
            Message::Ready(geometry) => out.geometry(geometry),
            Message::Settings(settings) => {
                out.u16(settings.mtu);
                out.flag(settings.promiscuous);
                out.flag(settings.all_multicast);
                out.count(settings.macs.len());
                settings.macs.iter().for_each(|mac| out.bytes(mac));
            }
            Message::Stop | Message::Done | Message::Mapped => {}
            Message::Link(link) => out.link(*link),
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
        let message = Message::read(kind, &mut r)?;
        if message.since() > protocol && kind != KIND_REFUSED {
            return Err(DecodeError::Kind(kind));
        }
        if r.0.is_empty() { Ok(Self { protocol, sequence, message }) } else { Err(DecodeError::Long) }
    }
}

const KIND_REFUSED: u16 = 1;

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
        }
    }

    /// The first version of the protocol that has it.
    const fn since(&self) -> u16 {
        match self {
            Self::Mapped => 3,
            _ => OLDEST_PROTOCOL,
        }
    }

    fn read(kind: u16, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
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
            }),
            4 => Self::Setup(Setup { geometry: r.geometry()?, sleeps: r.flag()? }),
            5 => Self::Ready(r.geometry()?),
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

    fn geometry(&mut self, geometry: &Geometry) {
        self.u32(geometry.slot_size());
        for sizes in [geometry.tx(), geometry.rx()] {
            self.count(sizes.len());
            sizes.iter().for_each(|size| self.u32(*size));
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

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
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

    fn geometry(&mut self) -> Result<Geometry, DecodeError> {
        let slot_size = self.u32()?;
        // One more than allowed is read, so that `Geometry` can name its limit.
        let sizes = |r: &mut Self| r.list(MAX_QUEUES.saturating_mul(8), Self::u32);
        let tx = sizes(self)?;
        let rx = sizes(self)?;
        Geometry::new(&tx, &rx, slot_size).map_err(DecodeError::Geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_link() -> impl Strategy<Value = Link> {
        (any::<bool>(), any::<u32>()).prop_map(|(up, speed)| Link { up, speed })
    }

    fn any_geometry() -> impl Strategy<Value = Geometry> {
        let ring = || prop::collection::vec((6..=13_u32).prop_map(|bits| 1 << bits), 1..=MAX_QUEUES);
        (ring(), ring(), 2..=128_u32).prop_map(|(tx, rx, slot)| Geometry::new(&tx, &rx, slot * 128).unwrap())
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let name = || "[a-z0-9._-]{0,32}";
        prop_oneof![
            "[ -~]{0,200}".prop_map(Message::Refused),
            (name(), any::<Mac>(), any::<u16>(), "[ -~]{0,60}")
                .prop_map(|(name, mac, queues, driver)| Message::Hello(Hello { name, mac, queues, driver })),
            (any::<u16>(), name(), any::<Mac>(), any::<(u16, u16, u32, u32)>(), any_link()).prop_map(
                |(port, name, mac, (max_mtu, max_queues, max_ring, slot_size), link)| {
                    Message::Welcome(Welcome { port, name, mac, max_mtu, max_queues, max_ring, slot_size, link })
                }
            ),
            (any_geometry(), any::<bool>()).prop_map(|(geometry, sleeps)| Message::Setup(Setup { geometry, sleeps })),
            any_geometry().prop_map(Message::Ready),
            (any::<u16>(), any::<bool>(), any::<bool>(), prop::collection::vec(any::<Mac>(), 0..=MAX_MACS)).prop_map(
                |(mtu, promiscuous, all_multicast, macs)| {
                    Message::Settings(Settings { mtu, promiscuous, all_multicast, macs })
                }
            ),
            Just(Message::Stop),
            Just(Message::Done),
            any_link().prop_map(Message::Link),
            Just(Message::Mapped),
        ]
    }

    proptest! {
        /// What one side sends is what the other receives, in one packet.
        #[test]
        fn every_message_survives_the_wire(sequence in any::<u32>(), message in any_message()) {
            let envelope = Envelope { protocol: PROTOCOL, sequence, message };
            let bytes = envelope.encode();
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            prop_assert_eq!(Envelope::decode(&bytes), Ok(envelope));
        }

        /// Fault 2: flipped bits, cut ends and garbage never panic, and never decode to something that encodes otherwise.
        #[test]
        fn garbage_is_refused_or_harmless(
            message in any_message(), cut in any::<usize>(), flip in any::<(usize, u8)>(),
            garbage in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = Envelope { protocol: PROTOCOL, sequence: 1, message }.encode();
            let at = flip.0 % bytes.len();
            bytes[at] ^= flip.1;
            bytes.truncate(cut % (bytes.len() + 1));
            for candidate in [&bytes, &garbage] {
                if let Ok(envelope) = Envelope::decode(candidate) {
                    prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
                }
            }
        }
    }

    /// Fault 4: the error names both versions, and a refusal is understood whatever version it comes from.
    #[test]
    fn another_version_is_named() {
        let mut hello =
            Envelope { protocol: PROTOCOL, sequence: 1, message: Message::Hello(Hello::default()) }.encode();
        hello[4] = 9;
        let refused = Envelope::decode(&hello).unwrap_err();
        assert_eq!(refused, DecodeError::Version(9));
        let both = format!("peer speaks ring protocol 9, this side speaks {OLDEST_PROTOCOL} to {PROTOCOL}");
        assert_eq!(refused.to_string(), both);
        let mut no = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::Refused("too old".into()) }.encode();
        no[4] = 9;
        let no = Envelope::decode(&no).unwrap();
        assert_eq!((no.protocol, no.message), (9, Message::Refused("too old".into())));
    }

    /// Each message keeps the version that it was sent in, and a version has no messages of later ones.
    #[test]
    fn older_versions_have_their_own_messages() {
        for protocol in OLDEST_PROTOCOL..=PROTOCOL {
            let stop = Envelope { protocol, sequence: 1, message: Message::Stop };
            assert_eq!(Envelope::decode(&stop.encode()), Ok(stop));
            let mapped = Envelope { protocol, sequence: 1, message: Message::Mapped };
            let expected = if protocol < 3 { Err(DecodeError::Kind(10)) } else { Ok(mapped.clone()) };
            assert_eq!(Envelope::decode(&mapped.encode()), expected);
        }
    }

    /// Fault 5: too many queues are named as such, not as garbage.
    #[test]
    fn queue_counts_beyond_the_limit_are_named() {
        let mut out = Writer(Vec::new());
        out.bytes(&MAGIC);
        out.u16(PROTOCOL);
        out.u16(4);
        out.u32(1);
        out.u32(2048);
        out.count(65);
        (0..65).for_each(|_| out.u32(512));
        out.count(1);
        out.u32(512);
        assert_eq!(Envelope::decode(&out.0), Err(DecodeError::Geometry(GeometryError::Queues(65))));
    }
}

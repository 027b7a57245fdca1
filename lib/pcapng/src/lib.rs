//! What kopi writes of the pcapng format, and a reader for it.
//!
//! A stream is a section header, an interface block for each port before its first packet, packets, and at the end the
//! statistics of each interface. kopid appends blocks to a `Vec<u8>` of its own, with no allocation for a packet once
//! that has grown; kopictl reads them from a pipe, where a peer may have put anything.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `block` | what blocks say, as it is written: [`Section`], [`Interface`], [`Packet`], [`Statistics`]; limits |
//! | `write` | [`section`], [`interface`], [`packet`], [`statistics`] |
//! | `read` | [`Reader`] and what it gives: [`Block`] |
//! | `error` | [`ReadError`] |
//! | `fields` | numbers, timestamps and options within a block, in both byte orders |
//! | `clock` | timestamps of any resolution, as nanoseconds |
//! | `note` | [`Note`]: the comment of a packet, which says whose it is and what became of it |
//!
//! # Source
//!
//! draft-ietf-opsawg-pcapng. Section numbers are not cited, since they differ between its revisions.
//!
//! ```
//! use kopi_pcapng::{Block, Direction, Interface, Note, Packet, Reader, Section, read_note};
//!
//! let mut file = Vec::new();
//! kopi_pcapng::section(&mut file, &Section { hardware: "", os: "Linux", application: "kopid" });
//! let web = Interface { name: "web", description: "", mac: None, filter: Some("tcp"), snap: 96 };
//! kopi_pcapng::interface(&mut file, &web);
//! let mut comment = String::new();
//! Note { app: Some("web"), verdict: "accept", ..Note::default() }.write(&mut comment);
//! let packet = Packet {
//!     interface: 0,
//!     timestamp_ns: 1_700_000_000_123_456_789,
//!     len: 60,
//!     direction: Direction::Outbound,
//!     queue: None,
//!     drops: 0,
//!     comment: &comment,
//! };
//! kopi_pcapng::packet(&mut file, &packet, [&[1; 14][..], &[2; 46]].into_iter());
//!
//! let mut reader = Reader::new(file.as_slice());
//! assert!(matches!(reader.next()?, Some(Block::Section(section)) if section.os == "Linux"));
//! assert!(matches!(reader.next()?, Some(Block::Interface(interface)) if interface.name == "web"));
//! let Some(Block::Packet(packet)) = reader.next()? else { panic!("one packet was written") };
//! assert_eq!((packet.timestamp_ns, packet.data.len()), (1_700_000_000_123_456_789, 60));
//! let keys: Vec<_> = read_note(packet.comment.unwrap_or_default()).map(|(key, _)| key).collect();
//! assert_eq!(keys, ["app", "verdict"]);
//! assert!(reader.next()?.is_none());
//! # Ok::<(), kopi_pcapng::ReadError>(())
//! ```
#![forbid(unsafe_code)]

mod block;
mod clock;
mod error;
mod fields;
mod note;
mod read;
mod write;

pub use block::{
    Direction, Interface, LINK_ETHERNET, MAX_BLOCK, MAX_CAPTURED, MAX_INTERFACES, MAX_TEXT, Packet, Section, Statistics,
};
pub use error::ReadError;
pub use note::{Note, read_note};
pub use read::{Block, InterfaceInfo, ReadPacket, Reader, SectionInfo};
pub use write::{interface, packet, section, statistics};

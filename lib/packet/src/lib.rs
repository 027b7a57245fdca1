//! Header parsing and flow keys.
//!
//! [`parse`] looks at one Ethernet frame once and answers two things: where its headers lie ([`Headers`]), and the
//! [`FlowKey`] under which the dataplane caches what it decided about the flow. It never panics, whatever the bytes
//! are, and it reads nothing beyond the length that an IP header claims for itself.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `mac` | [`MacAddr`] |
//! | `headers` | what the parser can find: [`Headers`], [`Shape`], [`Malformed`], [`Fragment`] |
//! | `parse` | the entry point, with the short way for plain TCP and UDP over IPv4 |
//! | `walk` | the general way: VLAN tags, SNAP, IPv4, IPv6 with its extension headers, ARP |
//! | `key` | [`FlowKey`]: the layout of its 64 bytes, and accessors |
//! | `flow_pattern` | [`FlowPattern`]: what flow rules of applications ask of a key |
//! | `display` | how a [`FlowKey`] is printed |
//! | `hash` | the seeded hash of a [`FlowKey`] |
//! | `rss` | another one, the Toeplitz hash, which applications see: it spreads flows over their queues |
//! | `ip` | where a packet ends, and the number that its fragments share |
//! | [`tcp`] | what connection tracking reads of a TCP segment |
//! | `link` | [`LinkProtocol`]: frames that no bridge forwards |
//! | [`icmp`] | the packet that an ICMP error is about |
//! | [`dhcp`] | what a client of DHCP says of itself |
//! | `tunnel` | [`encapsulates`]: frames that carry others |
//! | [`ndp`] | addresses in Neighbor Discovery messages |
//! | [`reply`] | the answer to a packet that is rejected |
//! | [`mark`] | code point and VLAN priority written into frames |
//! | [`checksum`] | the Internet checksum |
//! | [`verify`] | whether the checksums of a received frame are right |
//! | [`vnet`] | the header before frames of a TAP interface |
//! | [`segment`] | what a kernel leaves to its NIC: checksums, and cutting TCP segments |
//! | [`offload`] | what an application leaves to its port: the same, and VLAN tags |
//! | [`crc32c`] | the checksum of SCTP |
//! | [`coalesce`] | the reverse: putting TCP segments together |
//! | [`describe`] | frames from what people write about them |
//!
//! The crate has no `std`, and only `describe` knows of `alloc`, so the compiler sees to it that nothing else allocates.
//!
//! ```
//! use kopi_packet::{Seed, Shape, parse};
//!
//! let mut frame = [0_u8; 64];
//! frame[12..14].copy_from_slice(&[0x88, 0xcc]);
//! let (headers, key) = parse(&frame, 7);
//! assert_eq!(headers.shape, Shape::Other);
//! assert_eq!((key.source(), key.ethertype()), (7, 0x88cc));
//! assert_ne!(key.hash(&Seed::from_bytes([1; 64])), key.hash(&Seed::from_bytes([2; 64])));
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod coalesce;
pub mod crc32c;
pub mod describe;
pub mod dhcp;
mod display;
pub mod ethertype;
mod flow_pattern;
mod hash;
mod headers;
pub mod icmp;
mod ip;
mod key;
mod link;
mod mac;
pub mod mark;
pub mod ndp;
pub mod offload;
mod parse;
pub mod proto;
pub mod reply;
mod rss;
pub mod segment;
pub mod tcp;
mod tunnel;
pub mod verify;
pub mod vnet;
mod walk;

pub use display::Full;
pub use flow_pattern::{
    AddressPattern, CompiledPattern, FlowPattern, IpPattern, Masked, PortsPattern, TransportPattern, VlanPattern,
};
pub use hash::Seed;
pub use headers::{Fragment, Headers, Malformed, Shape};
pub use ip::fragment_id;
pub use key::{FlowKey, VlanTag};
pub use link::{LinkProtocol, LinkProtocols};
pub use mac::{MacAddr, ParseMacError};
pub use parse::{begins_alike, ends_alike, ends_early, is_alike, parse, parse_long, parse_plain, parse_short};
pub use rss::{RSS_KEY_SIZE, RssKey, RssTypes, Toeplitz, rss_key_of_boot};
pub use tunnel::encapsulates;

//! What is made of a frame.

use kopi_packet::MacAddr;
use std::fmt::{self, Write};
use std::net::IpAddr;

/// How much is said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// The Ethernet header, too.
    pub(crate) link: bool,
    /// 0, or 1 for more fields and checksums.
    pub(crate) verbose: u8,
    /// Less of TCP.
    pub(crate) quick: bool,
}

/// Fields of a frame, of its outermost headers.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// From and to.
    pub(crate) macs: Option<(MacAddr, MacAddr)>,
    /// Identifier of the outer tag.
    pub(crate) vlan: Option<u16>,
    /// Behind the tags.
    pub(crate) ethertype: Option<u16>,
    /// Of IP, or of the sender and target of ARP.
    pub(crate) addresses: Option<(IpAddr, IpAddr)>,
    /// IP's number of the protocol inside.
    pub(crate) proto: Option<u8>,
    /// From and to.
    pub(crate) ports: Option<(u16, u16)>,
}

/// A frame as text, while it is being read and after that.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) style: Style,
    /// One line, or several if it is verbose.
    pub(crate) text: String,
    pub(crate) fields: Fields,
}

impl Line {
    pub(super) fn new(style: Style) -> Self {
        Self { style, text: String::new(), fields: Fields::default() }
    }

    /// Whether more is wanted.
    pub(super) const fn is_verbose(&self) -> bool {
        self.style.verbose > 0
    }

    /// Goes on with `text`.
    pub(super) fn say(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        self.text.write_fmt(text).unwrap_or(());
    }

    /// Says that the header of `what` is not there in full.
    pub(super) fn cut(&mut self, what: &str) {
        let gap = if self.text.is_empty() || self.text.ends_with(' ') { "" } else { " " };
        self.say(format_args!("{gap}[|{what}]"));
    }
}

//! The kernel, by way of rtnetlink.

use super::message::{Kind, Message, attributes, name_text};
use netlink_packet_core::{
    Emitable, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use std::fmt::Display;
use std::io;
use thiserror::Error;

/// What the kernel says of an error, in an attribute (`NLMSGERR_ATTR_MSG`), behind the error and the header that it is about.
const ERROR_TEXT: u16 = 1;
const ERROR_HEADER: usize = 20;
/// How often an answer is asked for that changes meanwhile.
const TRIES: usize = 20;

/// What is to be done with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Made, in the place of what is there.
    Replace,
    /// Made, behind what is there.
    Append,
    /// Taken away.
    Delete,
}

impl Act {
    const fn flags(self) -> u16 {
        match self {
            Self::Replace => NLM_F_CREATE | NLM_F_REPLACE,
            Self::Append => NLM_F_CREATE | NLM_F_APPEND,
            Self::Delete => 0,
        }
    }
}

/// Why the kernel did not.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub(crate) struct Fault {
    /// What kind of error it is.
    errno: Option<Errno>,
    text: String,
}

impl Fault {
    pub(crate) fn is(&self, any: &[Errno]) -> bool {
        self.errno.is_some_and(|errno| any.contains(&errno))
    }

    /// What it is about, and what it is.
    pub(crate) fn about(&self, what: impl Display) -> String {
        format!("{what}: {self}")
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { errno: None, text: text.into() }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.text
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::text(format!("rtnetlink: {error}"))
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { errno: Some(errno), text: errno.to_string() }
    }
}

/// What answers and does.
pub(crate) trait Kernel {
    /// Everything of the kind and header of `like`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn dump(&mut self, like: &Message) -> Result<Vec<Message>, Fault>;

    /// Makes what `message` shows, or takes it away.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn change(&mut self, act: Act, message: &Message) -> Result<(), Fault>;

    /// Whether IPv6 is off for an interface; `None` if this kernel has none.
    fn ipv6_off(&mut self, interface: &str) -> Option<bool>;

    /// Turns IPv6 off or on for an interface.
    ///
    /// # Errors
    ///
    /// Why that cannot be.
    fn switch_ipv6(&mut self, interface: &str, off: bool) -> Result<(), Fault>;
}

/// The kernel of this network namespace.
#[derive(Debug)]
pub(crate) struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

impl Rtnetlink {
    /// # Errors
    ///
    /// If there is no such socket.
    pub(crate) fn open() -> Result<Self, Fault> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Since Linux 4.12: errors with words, and without the request.
        drop(socket.set_ext_ack(true).and_then(|()| socket.set_cap_ack(true)));
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, kind: u16, flags: u16, message: &Message) -> Result<(), Fault> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut bytes = [vec![0; header.buffer_len()], message.bytes()].concat();
        header.length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        header.emit(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads until the answer to the last request is complete; returns whether it is of one piece.
    fn receive(&mut self, mut take: impl FnMut(u16, &[u8])) -> Result<bool, Fault> {
        let mut whole = true;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let buffer = NetlinkBuffer::new_checked(rest).map_err(|error| Fault::text(error.to_string()))?;
                let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if buffer.sequence_number() != self.sequence {
                    continue;
                }
                whole &= buffer.flags() & NLM_F_DUMP_INTR == 0;
                match buffer.message_type() {
                    // A list that the kernel could not go on with ends like this, too.
                    NLMSG_DONE | NLMSG_ERROR => return fault(buffer.payload()).map_or(Ok(whole), Err),
                    kind => take(kind, buffer.payload()),
                }
            }
        }
    }
}

/// The error in an answer, or at the end of a list, unless it says that all is well.
fn fault(payload: &[u8]) -> Option<Fault> {
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return None;
    }
    let errno = Errno::from_raw_os_error(code.saturating_neg());
    let mut said = attributes(payload.get(ERROR_HEADER..).unwrap_or_default());
    let text = said
        .find(|(number, _)| number & NLA_TYPE_MASK == ERROR_TEXT)
        .map_or_else(|| errno.to_string(), |(_, text)| format!("{} ({errno})", name_text(text)));
    Some(Fault { errno: Some(errno), text })
}

impl Kernel for Rtnetlink {
    fn dump(&mut self, like: &Message) -> Result<Vec<Message>, Fault> {
        let kind = like.kind();
        for _ in 0..TRIES {
            self.send(kind.new_type() + 2, NLM_F_DUMP, like)?;
            let mut all = Vec::new();
            let whole = self.receive(|of, bytes| {
                if of == kind.new_type() {
                    all.extend(Message::new(kind, bytes));
                }
            })?;
            if whole {
                return Ok(all);
            }
        }
        Err(Fault::text("what the kernel has changes faster than it can be read"))
    }

    fn change(&mut self, act: Act, message: &Message) -> Result<(), Fault> {
        let kind = message.kind().new_type() + u16::from(act == Act::Delete);
        // A link is changed, not made.
        let flags = if message.kind() == Kind::Link { 0 } else { act.flags() };
        self.send(kind, NLM_F_ACK | flags, message)?;
        self.receive(|_, _| {}).map(drop)
    }

    fn ipv6_off(&mut self, interface: &str) -> Option<bool> {
        std::fs::read_to_string(ipv6_switch(interface)).ok().map(|text| text.trim() == "1")
    }

    fn switch_ipv6(&mut self, interface: &str, off: bool) -> Result<(), Fault> {
        let switch = ipv6_switch(interface);
        let written = std::fs::write(&switch, if off { "1" } else { "0" });
        written.map_err(|error| Fault::text(format!("{switch}: {error}")))
    }
}

/// Where the kernel has IPv6 turned off for an interface.
fn ipv6_switch(interface: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
}

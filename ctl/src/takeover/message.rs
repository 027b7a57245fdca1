//! One thing that the kernel knows of an interface, as the message of rtnetlink that shows it and, sent back, makes it again.
//!
//! A message stays the bytes that it is: what this program knows nothing of is carried all the same.

use netlink_packet_core::{NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_TYPE_MASK, NlasIterator};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Address families (`linux/socket.h`), which are bytes here.
pub(crate) const INET: u8 = 2;
pub(crate) const INET6: u8 = 10;
pub(crate) const BRIDGE: u8 = 7;

/// What a message is about. Its types of message follow from the first one (`linux/rtnetlink.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Link,
    Address,
    Route,
    Neighbour,
    Rule,
    Nexthop,
}

impl Kind {
    /// The type that makes one, and that shows one. The next takes it away, the one after that asks.
    pub(crate) const fn new_type(self) -> u16 {
        match self {
            Self::Link => 16,
            Self::Address => 20,
            Self::Route => 24,
            Self::Neighbour => 28,
            Self::Rule => 32,
            Self::Nexthop => 104,
        }
    }

    /// Bytes of the header before the attributes: `ifinfomsg`, `ifaddrmsg`, `rtmsg`, `ndmsg`, `fib_rule_hdr`, `nhmsg`.
    pub(crate) const fn header(self) -> usize {
        match self {
            Self::Link => 16,
            Self::Address | Self::Nexthop => 8,
            Self::Route | Self::Neighbour | Self::Rule => 12,
        }
    }
}

/// A message without the header that all of rtnetlink's have. Its attributes are in the order of their numbers, for comparisons.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub(crate) struct Message {
    kind: Kind,
    header: Vec<u8>,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// A message of `bytes`, if they can be one.
    pub(crate) fn new(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(kind.header())?;
        NlasIterator::new(rest).all(|attribute| attribute.is_ok()).then_some(())?;
        let mut attributes: Vec<_> = attributes(rest).map(|(number, value)| (number, value.to_vec())).collect();
        attributes.sort_by_key(|(number, _)| number & NLA_TYPE_MASK);
        Some(Self { kind, header: header.into(), attributes })
    }

    /// A message with this header and no attributes.
    pub(crate) fn empty(kind: Kind, start: &[u8]) -> Self {
        let mut header = start.to_vec();
        header.resize(kind.header(), 0);
        Self { kind, header, attributes: Vec::new() }
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.clone();
        self.attributes.iter().for_each(|(number, value)| push(&mut bytes, *number, value));
        bytes
    }

    /// A byte of the header.
    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.header.get(at).copied().unwrap_or(0)
    }

    /// Four bytes of the header.
    pub(crate) fn word(&self, at: usize) -> u32 {
        self.header.get(at..).and_then(number).unwrap_or(0)
    }

    /// The same message with other bytes at `at` of its header.
    #[must_use]
    pub(crate) fn with_header(mut self, at: usize, bytes: &[u8]) -> Self {
        if let Some(place) = self.header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    /// Numbers and values of the attributes.
    pub(crate) fn attributes(&self) -> &[(u16, Vec<u8>)] {
        &self.attributes
    }

    pub(crate) fn get(&self, number: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(at, _)| at & NLA_TYPE_MASK == number).map(|(_, value)| value.as_slice())
    }

    /// The number in an attribute.
    pub(crate) fn number(&self, attribute: u16) -> Option<u32> {
        self.get(attribute).and_then(number)
    }

    /// The same message with each attribute as `change` says: as it is, another value, or left out.
    #[must_use]
    pub(crate) fn map(&self, mut change: impl FnMut(u16, &[u8]) -> Option<Vec<u8>>) -> Self {
        let new = |(number, value): &(u16, Vec<u8>)| Some((*number, change(number & NLA_TYPE_MASK, value)?));
        Self {
            kind: self.kind,
            header: self.header.clone(),
            attributes: self.attributes.iter().filter_map(new).collect(),
        }
    }

    /// The same message with `value` for the attribute, which it had or not.
    #[must_use]
    pub(crate) fn with(&self, number: u16, value: &[u8]) -> Self {
        let mut new = self.without(&[number]);
        let place = new.attributes.partition_point(|(at, _)| at & NLA_TYPE_MASK < number);
        new.attributes.insert(place, (number, value.into()));
        new
    }

    /// The same message without some attributes.
    #[must_use]
    pub(crate) fn without(&self, numbers: &[u16]) -> Self {
        self.map(|at, value| (!numbers.contains(&at)).then_some(value.into()))
    }

    /// The same message with no attributes but some.
    #[must_use]
    pub(crate) fn only(&self, numbers: &[u16]) -> Self {
        self.map(|at, value| numbers.contains(&at).then_some(value.into()))
    }
}

/// Numbers and values of the attributes in `bytes`.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let nested = if attribute.nested_flag() { NLA_F_NESTED } else { 0 };
        let order = if attribute.network_byte_order_flag() { NLA_F_NET_BYTEORDER } else { 0 };
        let (kind, length) = (attribute.kind(), attribute.value_length());
        (kind | nested | order, attribute.into_inner().get(4..4 + length).unwrap_or_default())
    })
}

/// Appends an attribute (netlink(7)).
pub(crate) fn push(bytes: &mut Vec<u8>, number: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The first four bytes as a number.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// An IP address, as people write it.
pub(crate) fn address_text(bytes: &[u8]) -> String {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ipv4Addr::from(bytes).to_string();
    }
    <[u8; 16]>::try_from(bytes).map_or_else(|_| "?".to_owned(), |bytes| Ipv6Addr::from(bytes).to_string())
}

/// The name in an attribute, which ends with a NUL.
pub(crate) fn name_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// A message in the file. The text is for people.
#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(default)]
    text: String,
    kind: Kind,
    bytes: String,
}

impl From<Message> for Saved {
    fn from(message: Message) -> Self {
        let bytes = message.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text: message.to_string(), kind: message.kind, bytes }
    }
}

impl TryFrom<Saved> for Message {
    type Error = String;

    fn try_from(saved: Saved) -> Result<Self, String> {
        let digits = saved.bytes.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.map(byte).collect();
        let message = bytes.and_then(|bytes| Self::new(saved.kind, &bytes));
        message.ok_or_else(|| format!("`{}` is no message of the kernel's", saved.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let attribute = (0_u16..=u16::MAX, prop::collection::vec(any::<u8>(), 0..20));
        let kinds = [Kind::Link, Kind::Address, Kind::Route, Kind::Neighbour, Kind::Rule, Kind::Nexthop];
        (prop::sample::select(kinds.to_vec()), prop::collection::vec(attribute, 0..8)).prop_map(|(kind, attributes)| {
            let mut bytes = Message::empty(kind, &[2, 24]).bytes();
            attributes.iter().for_each(|(number, value)| push(&mut bytes, *number, value));
            Message::new(kind, &bytes).unwrap()
        })
    }

    proptest! {
        /// A message comes back from the file as it was, and from its own attributes.
        #[test]
        fn nothing_of_a_message_is_lost(message in message()) {
            let text = serde_json::to_string(&message).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Message>(&text).unwrap(), &message);
            prop_assert_eq!(&message.map(|_, value| Some(value.into())), &message);
            prop_assert_eq!(Message::new(message.kind, &message.bytes()), Some(message));
        }

        /// Whatever is in the file, it is a message or an error.
        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(message) = Message::new(Kind::Route, &bytes) {
                prop_assert!(message.attributes().iter().all(|(_, value)| value.len() <= bytes.len()));
                prop_assert!(!message.to_string().is_empty());
            }
        }
    }

    /// An attribute is replaced, added, and left out.
    #[test]
    fn attributes_are_changed() {
        let message = Message::empty(Kind::Address, &[INET]).with(1, &[1, 2, 3]).with(8, &[7; 4]);
        assert_eq!((message.get(1), message.number(8)), (Some(&[1, 2, 3][..]), Some(0x0707_0707)));
        assert_eq!(message.with(1, &[9]).get(1), Some(&[9][..]));
        assert_eq!(message.without(&[1, 8]), Message::empty(Kind::Address, &[INET]));
    }
}

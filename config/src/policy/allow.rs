//! What an app may send, and hear, that is not for every app: `allow` of an `[[app]]`.

use kopi_packet::{LinkProtocol, LinkProtocols};
use serde_json::{Value as Json, json};

use crate::form::{Choice, read_all};
use crate::walk::{Form, Item, Key, Need};

/// What an app may do beyond what every app may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed {
    /// What it may say to the other end of the wire's link, and hear from there.
    pub link: LinkProtocols,
    /// Whether it may say what only routers say.
    pub router: bool,
    /// Whether it may say what only servers and relay agents of DHCP say.
    pub dhcp_server: bool,
    /// Whether it may send packets and frames inside others, whose addresses nobody checks.
    pub tunnel: bool,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Link(LinkProtocol),
    AllLink,
    Router,
    DhcpServer,
    Tunnel,
}

const WORDS: Choice<Word> = Choice {
    words: &[
        ("lldp", Word::Link(LinkProtocol::Lldp)),
        ("lacp", Word::Link(LinkProtocol::Lacp)),
        ("stp", Word::Link(LinkProtocol::Stp)),
        ("eapol", Word::Link(LinkProtocol::Eapol)),
        ("ptp", Word::Link(LinkProtocol::Ptp)),
        ("cdp", Word::Link(LinkProtocol::Cdp)),
        ("mac-control", Word::Link(LinkProtocol::MacControl)),
        ("link-control", Word::AllLink),
        ("router", Word::Router),
        ("dhcp-server", Word::DhcpServer),
        ("tunnel", Word::Tunnel),
    ],
};

impl Allowed {
    fn with(mut self, word: Word) -> Self {
        match word {
            Word::Link(protocol) => self.link = self.link.with(protocol),
            Word::AllLink => self.link = LinkProtocols::ALL,
            Word::Router => self.router = true,
            Word::DhcpServer => self.dhcp_server = true,
            Word::Tunnel => self.tunnel = true,
        }
        self
    }
}

/// The form of [`Allowed`]: one word or a list of them, which may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllowForm;

impl Form for AllowForm {
    type Value = Allowed;

    fn expected(&self) -> String {
        format!("{}, or a list of such", WORDS.expected())
    }

    fn schema(&self) -> Json {
        let each = WORDS.schema();
        json!({ "anyOf": [each, { "type": "array", "items": each }] })
    }

    fn read(&self, item: &Item<'_>) -> Option<Allowed> {
        let words = match item.elements() {
            None => vec![WORDS.read(item)?],
            Some(elements) => read_all(&WORDS, elements)?,
        };
        Some(words.into_iter().fold(Allowed::default(), Allowed::with))
    }
}

pub(super) static ALLOW: Key<AllowForm> = Key {
    name: "allow",
    doc: "what it may send that is not for every app: link control, which it may hear, too; messages of routers and of DHCP servers; tunnels",
    form: AllowForm,
    need: Need::Default("[]"),
};

//! What an app may send, and hear, that is not for every app: `allow` of an `[[app]]`.

use kopi_packet::{LinkProtocol, LinkProtocols};

use crate::value::Choice;

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

/// One thing that an app may do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Privilege {
    Link(LinkProtocol),
    AllLink,
    Router,
    DhcpServer,
    Tunnel,
}

impl Choice for Privilege {
    type Of = Self;
    const WORDS: &'static [(&'static str, Self)] = &[
        ("lldp", Self::Link(LinkProtocol::Lldp)),
        ("lacp", Self::Link(LinkProtocol::Lacp)),
        ("stp", Self::Link(LinkProtocol::Stp)),
        ("eapol", Self::Link(LinkProtocol::Eapol)),
        ("ptp", Self::Link(LinkProtocol::Ptp)),
        ("cdp", Self::Link(LinkProtocol::Cdp)),
        ("mac-control", Self::Link(LinkProtocol::MacControl)),
        ("link-control", Self::AllLink),
        ("router", Self::Router),
        ("dhcp-server", Self::DhcpServer),
        ("tunnel", Self::Tunnel),
    ];
}

impl From<Vec<Privilege>> for Allowed {
    fn from(privileges: Vec<Privilege>) -> Self {
        let mut allowed = Self::default();
        for privilege in privileges {
            match privilege {
                Privilege::Link(protocol) => allowed.link = allowed.link.with(protocol),
                Privilege::AllLink => allowed.link = LinkProtocols::ALL,
                Privilege::Router => allowed.router = true,
                Privilege::DhcpServer => allowed.dhcp_server = true,
                Privilege::Tunnel => allowed.tunnel = true,
            }
        }
        allowed
    }
}

//! Who may attach: `[[app]]`.

use kopi_packet::MacAddr;

use super::addresses::Cidr;
use super::owner::OwnerMatch;

/// `[[app]]`: who may attach as what, and what is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct App {
    /// Name of the port. A process that asks for no name gets this one.
    pub name: String,
    /// Who it is for. `owner.apps` is always empty here.
    pub owner: OwnerMatch,
    /// Whether they may attach. True if not stated.
    pub admit: bool,
    /// The only unicast address that the port may have and send from.
    pub mac: Option<MacAddr>,
    /// The only addresses that it may send from, by IP and by ARP; empty for any.
    pub addresses: Vec<Cidr>,
    /// The only ports at which it may be reached by new connections, and which no app may use that does not list them.
    pub listen: Vec<Listen>,
    /// Whether it may send only from its own addresses. True if not stated.
    pub spoof_check: bool,
    /// Most queue pairs.
    pub queues: Option<u16>,
    /// Most flows in a worker's flow table that it may have begun.
    pub flows: Option<u32>,
    /// Index into [`Policy::classes`].
    pub class: Option<usize>,
}

impl App {
    /// An entry of that name for `owner`, with everything else as if it were not stated.
    #[must_use]
    pub fn new(name: String, owner: OwnerMatch) -> Self {
        let (mac, queues, flows, class) = (None, None, None, None);
        let (addresses, listen) = (Vec::new(), Vec::new());
        Self { name, owner, admit: true, mac, addresses, listen, spoof_check: true, queues, flows, class }
    }
}

/// One port at which an app may be reached: `"tcp/5432"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listen {
    /// IP protocol: TCP, UDP, UDP-Lite or SCTP.
    pub proto: u8,
    /// Port.
    pub port: u16,
}

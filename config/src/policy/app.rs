//! Who may attach: `[[app]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use kopi_packet::MacAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::addresses::Block;
use super::allow::{Allowed, Privilege};
use super::class_selection::ClassSelection;
use super::mac::Station;
use super::owner::{OwnerMatch, without_app};
use super::set::Names;
use super::words::PORT_PROTOCOLS;
use crate::document::{Document, Entry, Place};
use crate::report::quoted;
use crate::value::{
    As, Fault, Form, Int, Many, MaybeEmpty, Name, Truth, Word, names as words, nearest, pattern, table,
};

table! {
    /// Who may attach as what: the first that matches counts.
    #[schemars(extend("required" = ["name"]))]
    pub struct App {
        /// Name of the port, which no other app has. A process that asks for no name gets this one.
        // As long as the attach protocol takes it.
        pub name: String = String::new(), "As::<Name<32>>";
        /// Whose it is; of each key that is stated, one value has to hold.
        // `owner.apps` is always empty here.
        #[schemars(transform = without_app)]
        pub owner: OwnerMatch = OwnerMatch::default();
        /// Whether they may attach.
        pub admit: bool = true, "As::<Truth>";
        /// Whose MAC and IP address the port has: its own, or that of the host, which takes `[host]` in kopid.toml.
        pub address: Address = Address::Own;
        /// The only unicast address that the port may have and send from.
        #[serde(deserialize_with = "As::<Station>::deserialize")]
        #[schemars(with = "As<Station>")]
        pub mac: Option<MacAddr> = None;
        /// The only addresses that it may send from, by IP and by ARP; any if not stated.
        pub addresses: Vec<IpNet> = Vec::new(), "Many::<Block>";
        /// The only ports for new connections to it, which no app may use that does not list them.
        pub listen: Vec<Listen> = Vec::new(), "Many::<Listen>";
        /// Whether it may send only from its own addresses.
        pub spoof_check: bool = true, "As::<Truth>";
        /// What it may send that is not for every app: link control, which it may hear, too; messages of routers and of
        /// DHCP servers; tunnels.
        pub allow: Allowed = Allowed::default(), "MaybeEmpty::<Word<Privilege>>";
        /// Most queue pairs.
        pub queues: Option<u16> = None, "As::<Int<u16, 1, 16>>";
        /// Whether kopid may read its memory, so that it need not copy long frames for it, where kopid.toml lets apps share memory.
        pub share_memory: bool = true, "As::<Truth>";
        /// Most flows that it may have begun, in the flow table of each worker.
        pub flows: Option<u32> = None, "As::<Int<u32, 1, { 1 << 24 }>>";
        /// Name of the class that its frames are put into; of one for egress and one for ingress in a list.
        #[serde(rename = "class")]
        class_names: Vec<String> = Vec::new(), "Many::<Name<64>>";
        /// The classes of its frames, where no rule gives one.
        #[serde(skip)]
        pub class: ClassSelection = ClassSelection::default();
    }
}

impl App {
    /// Name of the entry that is for the port of the kernel, and for no process.
    pub const HOST: &'static str = "host";

    /// Whether it is for the port of the kernel.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.name == Self::HOST
    }

    /// An entry of that name for `owner`, with everything else as if it were not stated.
    #[must_use]
    pub fn new(name: String, owner: OwnerMatch) -> Self {
        Self { name, owner, ..Self::default() }
    }

    /// Reads every `[[app]]` of `document`.
    pub(super) fn read_all(document: &Document<'_>, names: &Names) -> Vec<Self> {
        let (mut by_name, mut by_mac) = (BTreeSet::new(), BTreeMap::new());
        let read = document.tables::<Self>("app").map(|Entry { value: mut app, is_whole, place }| {
            app.complete(&place, names);
            if let (true, true, Some(hints)) = (is_whole, app.admit, app.owner.is.hints_alone()) {
                let message = format!("the app {} is admitted by {hints}", quoted(&app.name));
                place.warning("owner", message, "state `user`, `cgroup` or `container` too");
            }
            if !app.name.is_empty() && !by_name.insert(app.name.clone()) {
                let help = "one port has one name: list all its owners in one [[app]]";
                place.error("name", format!("there is already an app {}", quoted(&app.name)), help);
            }
            if let Some(other) = app.mac.and_then(|mac| by_mac.insert(mac, app.name.clone())) {
                let what = format!("is that of the app {} already", quoted(&other));
                place.fail("mac", &what, "two ports cannot have one address");
            }
            app
        });
        read.collect()
    }

    /// Looks up what the entry names, and checks its keys against each other.
    fn complete(&mut self, place: &Place<'_>, names: &Names) {
        if self.address == Address::Shared && self.mac.is_some() {
            place.fail("mac", "cannot be stated with `address = \"shared\"`", "leave out one of the two");
        }
        if self.is_host() {
            refuse_of_host(place);
        }
        self.owner.complete(place, names);
        self.class = ClassSelection::read(&std::mem::take(&mut self.class_names), place, names);
        self.listen.sort_unstable();
        self.listen.dedup();
    }
}

/// Whose MAC and IP address a port has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Address {
    /// Its own.
    #[default]
    Own,
    /// That of the host.
    Shared,
}

/// One port at which an app may be reached: `"tcp/5432"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listen {
    /// IP protocol: TCP, UDP, UDP-Lite or SCTP.
    pub proto: u8,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PORT_PROTOCOLS.iter().find(|(_, proto)| *proto == self.proto) {
            Some((name, _)) => write!(f, "{name}/{}", self.port),
            None => write!(f, "{}/{}", self.proto, self.port),
        }
    }
}

/// Refuses the keys of the entry of the kernel's port where there is nothing to choose.
fn refuse_of_host(table: &Place<'_>) {
    let stated =
        ["owner", "admit", "address", "mac", "queues", "share_memory"].into_iter().filter(|key| table.states(key));
    for key in stated {
        let message = format!("`{key}` cannot be stated in the [[app]] of the name `{}`", App::HOST);
        let help = "this is the kernel's port, which is always there, with the wire's address and [host] of kopid.toml";
        table.error(key, message, help);
    }
}

impl Listen {
    fn parse(text: &str) -> Option<Self> {
        let (proto, port) = text.split_once('/')?;
        let (_, proto) = PORT_PROTOCOLS.iter().find(|(name, _)| *name == proto)?;
        let port = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some(Self { proto: *proto, port })
    }
}

/// A protocol and a port.
impl Form for Listen {
    type Value = Self;

    fn expected() -> String {
        "a protocol and a port, such as \"tcp/5432\"".to_owned()
    }

    fn schema() -> Json {
        pattern(&format!("^({})/[0-9]{{1,5}}$", words(PORT_PROTOCOLS).join("|")))
    }

    fn text(text: &str) -> Result<Self, Fault> {
        Self::parse(text).ok_or_else(|| {
            let help = text.split_once('/').and_then(|(proto, port)| {
                let near = nearest(proto, &words(PORT_PROTOCOLS)).filter(|near| *near != proto)?;
                Some(format!("did you mean \"{near}/{port}\"?"))
            });
            Fault::unexpected(help)
        })
    }

    fn number(port: i128) -> Result<Self, Fault> {
        Err(Fault::hint(format!("say of which protocol: \"tcp/{port}\"")))
    }
}

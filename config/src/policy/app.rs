//! Who may attach: `[[app]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kopi_packet::MacAddr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::addresses::Cidr;
use super::allow::{Allowed, Privilege};
use super::class_selection::ClassSelection;
use super::mac::Station;
use super::name::Name;
use super::owner::{AppOwner, OwnerMatch};
use super::set::Names;
use super::words::PORT_PROTOCOLS;
use crate::document::{Document, Entry, Place};
use crate::report::quoted;
use crate::value::{As, Fault, Form, Int, Many, Raw, Truth, Word, names as words, nearest};

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
    /// Whose address the port has.
    pub address: Address,
    /// The only unicast address that the port may have and send from. `None` if the address is shared.
    pub mac: Option<MacAddr>,
    /// The only addresses that it may send from, by IP and by ARP; empty for any.
    pub addresses: Vec<Cidr>,
    /// The only ports at which it may be reached by new connections, and which no app may use that does not list them.
    pub listen: Vec<Listen>,
    /// Whether it may send only from its own addresses. True if not stated.
    pub spoof_check: bool,
    /// What it may do that is not for every app. Nothing if not stated.
    pub allow: Allowed,
    /// Most queue pairs.
    pub queues: Option<u16>,
    /// Most flows in a worker's flow table that it may have begun.
    pub flows: Option<u32>,
    /// The classes of its frames, where no rule gives one.
    pub class: ClassSelection,
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
        let (mac, queues, flows, class) = (None, None, None, ClassSelection::default());
        let (addresses, listen) = (Vec::new(), Vec::new());
        let (address, allow) = (Address::Own, Allowed::default());
        let (admit, spoof_check) = (true, true);
        Self { name, owner, admit, address, mac, addresses, listen, spoof_check, allow, queues, flows, class }
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

/// Who may attach as what: the first that matches counts.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AppEntry {
    /// Name of the port, which no other app has.
    // As long as the attach protocol takes it.
    #[serde(with = "As::<Name<32>>")]
    name: String,
    /// Whose it is; of each key that is stated, one value has to hold.
    #[serde(default)]
    owner: AppOwner,
    /// Whether they may attach.
    #[serde(default = "yes", with = "As::<Truth>")]
    admit: bool,
    /// Whose MAC and IP address the port has: its own, or that of the host, which takes [host] in kopid.toml.
    #[serde(default)]
    address: Address,
    /// The only unicast address that the port may have and send from.
    #[serde(default, deserialize_with = "As::<Station>::deserialize")]
    #[schemars(with = "As<Station>")]
    mac: Option<MacAddr>,
    /// The only addresses that it may send from, by IP and by ARP; any if not stated.
    #[serde(default)]
    addresses: Many<Cidr>,
    /// The only ports for new connections to it, which no app may use that does not list them.
    #[serde(default)]
    listen: Many<Listen>,
    /// Whether it may send only from its own addresses.
    #[serde(default = "yes", with = "As::<Truth>")]
    spoof_check: bool,
    /// What it may send that is not for every app: link control, which it may hear, too; messages of routers and of DHCP
    /// servers; tunnels.
    #[serde(default, deserialize_with = "Many::<Word<Privilege>>::deserialize")]
    allow: Allowed,
    /// Most queue pairs.
    #[serde(default, with = "As::<Int<u16, 1, 16>>")]
    queues: Option<u16>,
    /// Most flows that it may have begun, in the flow table of each worker.
    #[serde(default, with = "As::<Int<u32, 1, { 1 << 24 }>>")]
    flows: Option<u32>,
    /// Name of the class that its frames are put into; of one for egress and one for ingress in a list.
    #[serde(default)]
    class: Many<Name<64>>,
}

const fn yes() -> bool {
    true
}

impl App {
    /// Reads every `[[app]]` of `document`.
    pub(super) fn read_all(document: &Document<'_>, names: &Names) -> Option<Vec<Self>> {
        let mut apps: Vec<Self> = Vec::new();
        let (mut by_name, mut by_mac) = (BTreeSet::new(), BTreeMap::new());
        let mut failed = false;
        for entry in document.tables("app") {
            let place = entry.place.clone();
            let Some(app) = Self::read(entry, names) else {
                failed = true;
                continue;
            };
            if !by_name.insert(app.name.clone()) {
                failed = true;
                let help = "one port has one name: list all its owners in one [[app]]".to_owned();
                place.error("name", format!("there is already an app {}", quoted(&app.name)), Some(help));
            }
            if let Some(other) = app.mac.and_then(|mac| by_mac.insert(mac, app.name.clone())) {
                failed = true;
                let what = format!("is that of the app {} already", quoted(&other));
                place.fail("mac", &what, Some("two ports cannot have one address".to_owned()));
            }
            if let (true, Some(hints)) = (app.admit, app.owner.is.hints_alone()) {
                let message = format!("the app {} is admitted by {hints}", quoted(&app.name));
                place.warning("owner", message, "state `user` or `cgroup` too");
            }
            apps.push(app);
        }
        (!failed).then_some(apps)
    }

    /// Makes an app of `entry`. `None` after an error was reported.
    fn read(entry: Entry<'_, AppEntry>, names: &Names) -> Option<Self> {
        let (place, is_whole) = (entry.place, entry.is_whole);
        let entry = entry.value?;
        if entry.address == Address::Shared && entry.mac.is_some() {
            let help = Some("leave out one of the two".to_owned());
            place.fail("mac", "cannot be stated with `address = \"shared\"`", help);
        }
        if entry.name == Self::HOST {
            refuse_of_host(&place);
        }
        let AppEntry { name, admit, address, mac, addresses, spoof_check, allow, queues, flows, .. } = entry;
        let owner = OwnerMatch::read(entry.owner, &place, names);
        let class = ClassSelection::read(&entry.class.0, &place, names);
        let (addresses, mut listen) = (addresses.0, entry.listen.0);
        listen.sort_unstable();
        listen.dedup();
        let class = class.filter(|_| is_whole)?;
        Some(Self { name, owner, admit, address, mac, addresses, listen, spoof_check, allow, queues, flows, class })
    }
}

/// Refuses the keys of the entry of the kernel's port where there is nothing to choose.
fn refuse_of_host(table: &Place<'_>) {
    let stated = ["owner", "admit", "address", "mac", "queues"].into_iter().filter(|key| table.states(key));
    for key in stated {
        let message = format!("`{key}` cannot be stated in the [[app]] of the name `{}`", App::HOST);
        let help = "this is the kernel's port, which is always there, with the wire's address and [host] of kopid.toml";
        table.error(key, message, Some(help.to_owned()));
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
        json!({ "type": "string", "pattern": format!("^({})/[0-9]{{1,5}}$", words(PORT_PROTOCOLS).join("|")) })
    }

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let help = match raw {
            Raw::Text(text) => match (Self::parse(text), text.split_once('/')) {
                (Some(listen), _) => return Ok(listen),
                (None, Some((proto, port))) => nearest(proto, &words(PORT_PROTOCOLS))
                    .filter(|near| *near != proto)
                    .map(|near| format!("did you mean \"{near}/{port}\"?")),
                (None, None) => None,
            },
            Raw::Number(port) => Some(format!("say of which protocol: \"tcp/{port}\"")),
            Raw::Truth(_) => None,
        };
        Err(Fault::unexpected(help))
    }
}

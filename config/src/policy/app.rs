//! Who may attach: `[[app]]`.

use std::collections::BTreeMap;
use std::fmt;

use kopi_packet::MacAddr;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::addresses::{Cidr, CidrForm};
use super::allow::{ALLOW, Allowed};
use super::assigned::{Assigned, CLASS_FORM, ClassKey};
use super::mac::StationForm;
use super::name::NameForm;
use super::owner::{APP_KEYS, APP_OWNER, OwnerMatch};
use super::set::Names;
use super::words::PORT_PROTOCOLS;
use crate::form::{Choice, Int, OneOrMany, Truth};
use crate::report::quoted;
use crate::walk::{AnyKey, Document, Form, Item, Key, Need, Section, Table, nearest};

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
    pub class: Assigned,
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
        let (mac, queues, flows, class) = (None, None, None, Assigned::default());
        let (addresses, listen) = (Vec::new(), Vec::new());
        let (address, allow) = (Address::Own, Allowed::default());
        let (admit, spoof_check) = (true, true);
        Self { name, owner, admit, address, mac, addresses, listen, spoof_check, allow, queues, flows, class }
    }
}

/// Whose MAC and IP address a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// Its own.
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

impl App {
    /// Reads every `[[app]]` of `document`.
    pub(super) fn read_all(document: &Document<'_>, names: &Names) -> Option<Vec<Self>> {
        let mut apps: Vec<Self> = Vec::new();
        let (mut by_name, mut by_mac) = (BTreeMap::new(), BTreeMap::new());
        let mut failed = false;
        for table in document.tables(&APP) {
            let Some(app) = Self::read(&table, names) else {
                failed = true;
                continue;
            };
            if by_name.insert(app.name.clone(), ()).is_some() {
                failed = true;
                let help = "one port has one name: list all its owners in one [[app]]".to_owned();
                table.error(&NAME, format!("there is already an app {}", quoted(&app.name)), Some(help));
            }
            if let Some(other) = app.mac.and_then(|mac| by_mac.insert(mac, app.name.clone())) {
                failed = true;
                let message = format!("`mac` in [[app]] is that of the app {} already", quoted(&other));
                table.error(&MAC, message, Some("two ports cannot have one address".to_owned()));
            }
            if let (true, Some(hints)) = (app.admit, app.owner.is.hints_alone()) {
                let message = format!("the app {} is admitted by {hints}", quoted(&app.name));
                table.warning(&APP_OWNER, message, Some("state `user` or `cgroup` too".to_owned()));
            }
            apps.push(app);
        }
        (!failed).then_some(apps)
    }

    fn read(table: &Table<'_>, names: &Names) -> Option<Self> {
        let name = table.get(&NAME);
        let owner = match table.nested(&APP_OWNER) {
            None => None,
            Some(None) => Some(OwnerMatch::default()),
            Some(Some(owner)) => OwnerMatch::read(&owner, &APP_KEYS, names),
        };
        let admit = table.get(&ADMIT);
        let address = table.get(&ADDRESS);
        let mac = table.optional(&MAC);
        if let (Some(Address::Shared), Some(Some(_))) = (address, mac) {
            let help = Some("leave out one of the two".to_owned());
            table.error(&MAC, "`mac` in [[app]] cannot be stated with `address = \"shared\"`".to_owned(), help);
        }
        if name.as_deref() == Some(Self::HOST) {
            refuse_of_host(table, &APP_OWNER);
            refuse_of_host(table, &ADMIT);
            refuse_of_host(table, &ADDRESS);
            refuse_of_host(table, &MAC);
            refuse_of_host(table, &QUEUES);
        }
        let addresses = table.optional(&ADDRESSES);
        let listen = table.optional(&LISTEN);
        let spoof_check = table.get(&SPOOF_CHECK);
        let allow = table.get(&ALLOW);
        let queues = table.optional(&QUEUES);
        let flows = table.optional(&FLOWS);
        let class = Assigned::read(table, &CLASS, names);
        let mut listen = listen?.unwrap_or_default();
        listen.sort_unstable();
        listen.dedup();
        Some(Self {
            name: name?,
            owner: owner?,
            admit: admit?,
            address: address?,
            mac: mac?,
            addresses: addresses?.unwrap_or_default(),
            listen,
            spoof_check: spoof_check?,
            allow: allow?,
            queues: queues?,
            flows: flows?,
            class: class?,
        })
    }
}

/// Refuses `key` in the entry of the kernel's port, where there is nothing to choose.
fn refuse_of_host<F>(table: &Table<'_>, key: &'static Key<F>) {
    if table.item(key).is_some() {
        let message = format!("`{}` cannot be stated in the [[app]] of the name `{}`", key.name, App::HOST);
        let help = "this is the kernel's port, which is always there, with the wire's address and [host] of kopid.toml";
        table.error(key, message, Some(help.to_owned()));
    }
}

/// The form of a [`Listen`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenForm;

impl ListenForm {
    fn parse(text: &str) -> Option<Listen> {
        let (proto, port) = text.split_once('/')?;
        let (_, proto) = PORT_PROTOCOLS.iter().find(|(name, _)| *name == proto)?;
        let port = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some(Listen { proto: *proto, port })
    }
}

impl Form for ListenForm {
    type Value = Listen;

    fn expected(&self) -> String {
        "a protocol and a port, such as \"tcp/5432\"".to_owned()
    }

    fn schema(&self) -> Json {
        let names: Vec<_> = PORT_PROTOCOLS.iter().map(|(name, _)| *name).collect();
        json!({ "type": "string", "pattern": format!("^({})/[0-9]{{1,5}}$", names.join("|")) })
    }

    fn read(&self, item: &Item<'_>) -> Option<Listen> {
        let DeValue::String(text) = item.value else {
            let DeValue::Integer(port) = item.value else { return item.refuse(self, None) };
            return item.refuse(self, Some(format!("say of which protocol: \"tcp/{}\"", port.as_str())));
        };
        let help = || {
            let names: Vec<_> = PORT_PROTOCOLS.iter().map(|(name, _)| *name).collect();
            let (proto, port) = text.split_once('/')?;
            nearest(proto, &names).filter(|near| *near != proto).map(|near| format!("did you mean \"{near}/{port}\"?"))
        };
        Self::parse(text).or_else(|| item.refuse(self, help()))
    }
}

pub(super) static APP: Section = Section {
    name: "app",
    doc: "who may attach as what: the first that matches counts",
    keys: &[
        &NAME as &dyn AnyKey,
        &APP_OWNER,
        &ADMIT,
        &ADDRESS,
        &MAC,
        &ADDRESSES,
        &LISTEN,
        &SPOOF_CHECK,
        &ALLOW,
        &QUEUES,
        &FLOWS,
        &CLASS,
    ],
};

static NAME: Key<NameForm> = Key {
    name: "name",
    doc: "name of the port, which no other app has",
    // As long as the attach protocol takes it.
    form: NameForm { max: 32 },
    need: Need::Required,
};

static ADMIT: Key<Truth> =
    Key { name: "admit", doc: "whether they may attach", form: Truth, need: Need::Default("true") };

static ADDRESS: Key<Choice<Address>> = Key {
    name: "address",
    doc: "whose MAC and IP address the port has: its own, or that of the host, which takes [host] in kopid.toml",
    form: Choice { words: &[("own", Address::Own), ("shared", Address::Shared)] },
    need: Need::Default("\"own\""),
};

static MAC: Key<StationForm> = Key {
    name: "mac",
    doc: "the only unicast address that the port may have and send from",
    form: StationForm,
    need: Need::Optional,
};

static ADDRESSES: Key<OneOrMany<CidrForm>> = Key {
    name: "addresses",
    doc: "the only addresses that it may send from, by IP and by ARP; any if not stated",
    form: OneOrMany { each: CidrForm },
    need: Need::Optional,
};

static LISTEN: Key<OneOrMany<ListenForm>> = Key {
    name: "listen",
    doc: "the only ports for new connections to it, which no app may use that does not list them",
    form: OneOrMany { each: ListenForm },
    need: Need::Optional,
};

static SPOOF_CHECK: Key<Truth> = Key {
    name: "spoof_check",
    doc: "whether it may send only from its own addresses",
    form: Truth,
    need: Need::Default("true"),
};

static QUEUES: Key<Int<u16>> =
    Key { name: "queues", doc: "most queue pairs", form: Int::range(1, 16), need: Need::Optional };

static FLOWS: Key<Int<u32>> = Key {
    name: "flows",
    doc: "most flows that it may have begun, in the flow table of each worker",
    form: Int::range(1, 1 << 24),
    need: Need::Optional,
};

static CLASS: ClassKey = Key {
    name: "class",
    doc: "name of the class that its frames are put into; of one for egress and one for ingress in a list",
    form: CLASS_FORM,
    need: Need::Optional,
};

//! `[host]`: the kernel's own port.

use kopi_packet::MacAddr;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::form::{Int, List, Truth};
use crate::policy::mac::StationForm;
use crate::walk::{AnyKey, Form, Item, Key, Need, Section, Table};

/// `[host]`: the kernel's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// Name of the TAP interface that the kernel gets.
    pub tap: String,
    /// Its queues.
    pub queues: u16,
    /// Whether the kernel leaves checksums and segmentation to kopid, and gets segments put together.
    pub offload: bool,
    /// Addresses beside that of the wire which the kernel sends from and gets frames for.
    pub macs: Vec<MacAddr>,
}

/// Most of those.
const MACS_MAX: usize = 127;

impl Host {
    /// What the table says; `Some(None)` if it names no interface.
    pub(crate) fn read(table: &Table<'_>) -> Option<Option<Self>> {
        let tap = table.optional(&TAP);
        let queues = table.get(&QUEUES);
        let offload = table.get(&OFFLOAD);
        let macs = table.get(&MACS);
        let (tap, queues, offload, macs) = (tap?, queues?, offload?, macs?);
        Some(tap.map(|tap| Self { tap, queues, offload, macs }))
    }
}

/// The form of an interface's name that the kernel takes as it is.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceForm;

impl InterfaceForm {
    /// Most bytes of a name: `IFNAMSIZ`, without the NUL.
    ///
    /// # Source
    ///
    /// Linux, `include/uapi/linux/if.h`.
    pub const LEN_MAX: usize = 15;
}

impl Form for InterfaceForm {
    type Value = String;

    fn expected(&self) -> String {
        format!("an interface's name of 1 to {} letters, digits, `.`, `_` and `-`", Self::LEN_MAX)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": Self::LEN_MAX, "pattern": "^[0-9A-Za-z_-][0-9A-Za-z._-]*$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match item.value {
            // "." and ".." are folders in sysfs, so the kernel does not take them.
            DeValue::String(text)
                if (1..=Self::LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.') =>
            {
                Some(text.to_string())
            }
            _ => item.refuse(self, None),
        }
    }
}

pub(crate) static HOST: Section =
    Section { name: "host", doc: "the kernel's own port", keys: &[&TAP as &dyn AnyKey, &QUEUES, &OFFLOAD, &MACS] };

static TAP: Key<InterfaceForm> = Key {
    name: "tap",
    doc: "the interface that the kernel gets for its port on the wire; without it, there is none",
    form: InterfaceForm,
    need: Need::Optional,
};

static QUEUES: Key<Int<u16>> =
    Key { name: "queues", doc: "queues of that interface", form: Int::range(1, 16), need: Need::Default("1") };

static OFFLOAD: Key<Truth> = Key {
    name: "offload",
    doc: "whether the kernel leaves checksums and segmentation to kopid, and gets segments put together",
    form: Truth,
    need: Need::Default("true"),
};

static MACS: Key<List<StationForm>> = Key {
    name: "macs",
    doc: "MAC addresses of others behind that interface, such as macvlan devices, stations on a bridge, or a virtual router",
    form: List { each: StationForm, min: 0, max: MACS_MAX },
    need: Need::Default("[]"),
};

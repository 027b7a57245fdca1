//! `[host]`: the kernel's own port.

use kopi_packet::MacAddr;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::policy::mac::Station;
use crate::value::{As, Fault, Form, Int, List, Raw, Truth};

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

/// The kernel's own port.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HostEntry {
    /// The interface that the kernel gets for its port on the wire; without it, there is none.
    #[serde(with = "As::<Interface>")]
    tap: Option<String>,
    /// Queues of that interface.
    #[serde(with = "As::<Int<u16, 1, 16>>")]
    queues: u16,
    /// Whether the kernel leaves checksums and segmentation to kopid, and gets segments put together.
    #[serde(with = "As::<Truth>")]
    offload: bool,
    /// MAC addresses of others behind that interface, such as macvlan devices, stations on a bridge, or a virtual router.
    #[serde(deserialize_with = "List::<Station, 0, 127>::deserialize")]
    #[schemars(with = "List<Station, 0, 127>", extend("default" = []))]
    macs: Vec<MacAddr>,
}

impl Default for HostEntry {
    fn default() -> Self {
        Self { tap: None, queues: 1, offload: true, macs: Vec::new() }
    }
}

impl HostEntry {
    /// The port, if an interface is named.
    pub(crate) fn host(self) -> Option<Host> {
        let Self { tap, queues, offload, macs } = self;
        tap.map(|tap| Host { tap, queues, offload, macs })
    }
}

/// The form of an interface's name that the kernel takes as it is.
#[derive(Debug)]
pub struct Interface;

impl Interface {
    /// Most bytes of a name: `IFNAMSIZ`, without the NUL.
    ///
    /// # Source
    ///
    /// Linux, `include/uapi/linux/if.h`.
    pub const LEN_MAX: usize = 15;
}

impl Form for Interface {
    type Value = String;

    fn expected() -> String {
        format!("an interface's name of 1 to {} letters, digits, `.`, `_` and `-`", Self::LEN_MAX)
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": Self::LEN_MAX, "pattern": "^[0-9A-Za-z_-][0-9A-Za-z._-]*$" })
    }

    fn read(raw: Raw<'_>) -> Result<String, Fault> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match raw {
            // "." and ".." are folders in sysfs, so the kernel does not take them.
            Raw::Text(text)
                if (1..=Self::LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.') =>
            {
                Ok(text.to_owned())
            }
            _ => Err(Fault::default()),
        }
    }
}

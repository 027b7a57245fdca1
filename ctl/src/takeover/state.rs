//! What an interface had before it was taken over, and the file that it is kept in.

use super::shell::Shell;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Version of the file.
const VERSION: u32 = 1;
/// Longest name of an interface (Linux, `IFNAMSIZ` without the NUL).
const NAME_MAX: usize = 15;
/// Words of a route that tell of its condition and are not for it to be made by.
const CONDITIONS: [&str; 7] = ["linkdown", "dead", "pervasive", "offload", "trap", "notify", "offload_failed"];
/// The same with a word behind them.
const TIMED: [&str; 3] = ["expires", "users", "age"];

/// What an interface had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Of the file.
    pub(crate) version: u32,
    /// The interface that was taken over.
    pub(crate) interface: String,
    /// The interface that has it all meanwhile.
    pub(crate) tap: String,
    /// Its addresses.
    pub(crate) addresses: Vec<Address>,
    /// Its routes but those that come with addresses, as words for `ip route`, without the interface.
    pub(crate) routes: Vec<Route>,
    /// Whether IPv6 was off there; `None` if this kernel has none.
    pub(crate) ipv6_off: Option<bool>,
}

/// An address of an interface, as `ip -json address` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) family: String,
    pub(crate) local: String,
    /// The other end of a point-to-point link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    pub(crate) prefixlen: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) broadcast: Option<String>,
    pub(crate) scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) v6: bool,
    pub(crate) words: Vec<String>,
}

impl Address {
    pub(crate) fn is_v6(&self) -> bool {
        self.family == "inet6"
    }

    /// The words by which `ip address` knows it.
    pub(crate) fn words(&self) -> Vec<String> {
        let block = |address: &str| format!("{address}/{}", self.prefixlen);
        match &self.address {
            Some(peer) => vec![self.local.clone(), "peer".to_owned(), block(peer)],
            None => vec![block(&self.local)],
        }
    }
}

impl State {
    /// What `interface` has now.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub(crate) fn of(interface: &str, tap: &str, shell: &mut dyn Shell) -> Result<Self, String> {
        let shown = shell.ip(&["-json", "address", "show", "dev", interface])?;
        let addresses = addresses(&shown).ok_or_else(|| format!("`ip` shows `{interface}` in an unknown way"))?;
        let mut routes = Vec::new();
        for (family, v6) in [("-4", false), ("-6", true)] {
            // Without IPv6 in the kernel there are none.
            let lines = shell.ip(&[family, "-details", "route", "show", "table", "all", "dev", interface]);
            let lines = if v6 { lines.unwrap_or_default() } else { lines? };
            routes.extend(lines.lines().filter_map(words_of).map(|words| Route { v6, words }));
        }
        // A gateway has to be reachable before routes go through it.
        routes.sort_by_key(|route| route.words.iter().any(|word| word == "via"));
        let ipv6_off = fs::read_to_string(ipv6_switch(interface)).ok().map(|text| text.trim() == "1");
        Ok(Self { version: VERSION, interface: interface.to_owned(), tap: tap.to_owned(), addresses, routes, ipv6_off })
    }

    /// Whether it can be acted on.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_name = |name: &str| {
            (1..=NAME_MAX).contains(&name.len()) && !name.contains(['/', '"', ' ']) && !name.starts_with(['-', '.'])
        };
        if self.version != VERSION {
            return Err(format!("the file is of version {}, and this kopictl knows {VERSION}", self.version));
        }
        match [&self.interface, &self.tap].into_iter().find(|name| !is_name(name)) {
            Some(name) => Err(format!("`{name}` is no name of an interface")),
            None if self.interface == self.tap => Err(format!("`{}` cannot be taken over by itself", self.tap)),
            None => Ok(()),
        }
    }

    /// The state in `file`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be read.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let failed = |reason: String| Failure::File { path: file.into(), reason };
        let text = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| failed(error.to_string()))?,
        };
        let state: Self = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        state.check().map_err(failed)?;
        Ok(Some(state))
    }

    /// Writes it to `file`, as a whole or not at all, and waits until it is there.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be written.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Failure> {
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let new = file.with_extension("json.new");
        let done = DirBuilder::new().recursive(true).mode(0o755).create(folder).and_then(|()| {
            let mut open = OpenOptions::new();
            let mut out = open.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())?;
            out.sync_all()?;
            fs::rename(&new, file)?;
            File::open(folder)?.sync_all()
        });
        done.map_err(|error| Failure::File { path: file.into(), reason: error.to_string() })
    }

    /// Removes `file`.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it stays.
    pub(crate) fn forget(file: &Path) -> Result<(), Failure> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::File { path: file.into(), reason: error.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// Where the kernel has IPv6 turned off for an interface.
pub(crate) fn ipv6_switch(interface: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
}

/// The addresses in what `ip -json address show` says, but link-local ones, which every interface makes for itself.
fn addresses(shown: &str) -> Option<Vec<Address>> {
    let links: serde_json::Value = serde_json::from_str(shown).ok()?;
    let rows = links.as_array()?.iter().find_map(|link| link.get("addr_info"))?;
    let all: Vec<Address> = serde_json::from_value(rows.clone()).ok()?;
    Some(all.into_iter().filter(|address| !(address.is_v6() && address.scope == "link")).collect())
}

/// The words of a route that is to be moved; `None` for one that comes with an address.
fn words_of(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut all = line.split_whitespace();
    while let Some(word) = all.next() {
        if TIMED.contains(&word) {
            all.next();
        } else if !CONDITIONS.contains(&word) {
            words.push(word.to_owned());
        }
    }
    let pair = |a: &str, b: &str| words.windows(2).any(|two| two[0] == a && two[1] == b);
    let moved = !words.is_empty() && !pair("proto", "kernel") && !pair("table", "local");
    moved.then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes that come with addresses are left to the kernel, and what tells of a route's condition is no part of it.
    #[test]
    fn routes_are_read_as_they_are_made() {
        let words = |line: &str| words_of(line).map(|words| words.join(" "));
        let default = "unicast default via 10.1.1.254 proto boot scope global";
        assert_eq!(words(&format!("{default} linkdown")).as_deref(), Some(default));
        assert_eq!(words("unicast 10.1.1.0/24 proto kernel scope link src 10.1.1.1"), None);
        assert_eq!(words("local 10.1.1.1 table local proto kernel scope host src 10.1.1.1"), None);
        assert_eq!(words(""), None);
        let ra = "unicast default via fe80::1 proto ra metric 1024 expires 1797sec pref medium";
        assert_eq!(words(ra).as_deref(), Some("unicast default via fe80::1 proto ra metric 1024 pref medium"));
    }

    /// Of what `ip` shows, the addresses are kept that an interface does not make for itself.
    #[test]
    fn addresses_are_read_from_ip() {
        let shown = r#"[{"ifname":"d0","addr_info":[
            {"family":"inet","local":"10.1.1.1","prefixlen":24,"scope":"global","label":"d0","valid_life_time":4294967295},
            {"family":"inet","local":"10.1.2.1","address":"10.1.2.2","prefixlen":32,"scope":"global","label":"d0:1"},
            {"family":"inet6","local":"2001:db8::1","prefixlen":64,"scope":"global","tentative":true},
            {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}]"#;
        let found: Vec<_> = addresses(shown).unwrap().iter().map(|address| address.words().join(" ")).collect();
        assert_eq!(found, ["10.1.1.1/24", "10.1.2.1 peer 10.1.2.2/32", "2001:db8::1/64"]);
        assert_eq!(addresses("[]"), None);
        assert_eq!(addresses("nonsense"), None);
    }

    /// Names that would be options, paths or more than one word to a program are no names.
    #[test]
    fn names_are_checked_before_they_are_used() {
        let state = |interface: &str, tap: &str| State {
            version: VERSION,
            interface: interface.into(),
            tap: tap.into(),
            addresses: Vec::new(),
            routes: Vec::new(),
            ipv6_off: None,
        };
        assert!(state("eth0", "kopi0").check().is_ok() && state("eth0.7", "k").check().is_ok());
        for bad in ["", "-x", "../a", "a b", "a\"b", "sixteen-letters-", "kopi0"] {
            assert!(state(bad, "kopi0").check().is_err(), "{bad}");
        }
    }
}

//! Files of version 1: what to do with them.
//!
//! Until November 2026 kopictl wrote down the words of `ip` and not the kernel's messages, and this one cannot tell what of an interface is
//! not in them. So it moves nothing by them, and says by which commands the older one would have put back what there is.

use super::cut::table_of;
use super::state::is_name;
use serde::Deserialize;
use std::path::Path;

/// What an interface had.
#[derive(Debug, Deserialize)]
struct FirstVersion {
    interface: String,
    tap: String,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    /// Whether IPv6 was off there; `None` if that kernel had none.
    ipv6_off: Option<bool>,
}

/// An address, as `ip -json address` shows it.
#[derive(Debug, Deserialize)]
struct Address {
    family: String,
    local: String,
    /// The other end of a point-to-point link.
    address: Option<String>,
    prefixlen: u8,
    broadcast: Option<String>,
    scope: String,
    label: Option<String>,
}

/// A route, as words for `ip route`, without the interface.
#[derive(Debug, Deserialize)]
struct Route {
    v6: bool,
    words: Vec<String>,
}

/// What is to be said of such a `text` in `file`: who wrote it, and by which commands it is undone.
pub(super) fn advice(text: &[u8], file: &Path) -> String {
    let who = "it is of version 1, as kopictl wrote it until November 2026; this one reads version 2 alone";
    match serde_json::from_slice::<FirstVersion>(text).ok().and_then(|state| state.undo(file)) {
        Some(commands) => format!(
            "{who}. These commands, as root, put back what it holds (the first or the second fails, and those about the kernel's port if it is gone):\n  {}",
            commands.join("\n  ")
        ),
        None => {
            format!("{who}, and it is damaged: look at the file, give the interface what it had, and remove the file")
        }
    }
}

impl FirstVersion {
    /// The commands; none if something in the file is no word for a command.
    fn undo(&self, file: &Path) -> Option<Vec<String>> {
        let Self { interface, tap, addresses, routes, ipv6_off } = self;
        let mut commands = vec![
            format!("nft delete table netdev {}", table_of(interface)),
            format!("tc filter del dev {interface} ingress protocol all prio 1 handle 1 matchall"),
        ];
        commands.extend(
            ipv6_off.map(|off| format!("echo {} > /proc/sys/net/ipv6/conf/{interface}/disable_ipv6", u8::from(off))),
        );
        commands.push(format!("ip link set dev {interface} up"));
        for address in addresses {
            let text =
                |word: &str, text: Option<&String>| text.map(|text| format!(" {word} {text}")).unwrap_or_default();
            let broadcast = text("broadcast", address.broadcast.as_ref());
            let label = text("label", address.label.as_ref().filter(|label| *label != interface));
            // Nobody else has it but the other interface, which would be taken for somebody else.
            let nodad = if address.family == "inet6" { " nodad" } else { "" };
            let (place, scope) = (address.place(), &address.scope);
            commands.push(format!("ip address add {place}{broadcast} scope {scope} dev {interface}{label}{nodad}"));
        }
        commands.extend(addresses.iter().map(|address| format!("ip address del {} dev {tap}", address.place())));
        commands.extend(routes.iter().map(|route| {
            format!("ip {} route replace {} dev {interface}", if route.v6 { "-6" } else { "-4" }, route.words.join(" "))
        }));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " .:/_@-".contains(c);
        let are_plain = commands.iter().all(|command| command.replacen(" > ", " ", 1).chars().all(is_plain));
        commands.push(format!("rm '{}'", file.display()));
        (are_plain && is_name(interface) && is_name(tap)).then_some(commands)
    }
}

impl Address {
    /// The words by which `ip address` knows it.
    fn place(&self) -> String {
        let Self { local, prefixlen, .. } = self;
        match &self.address {
            Some(peer) => format!("{local} peer {peer}/{prefixlen}"),
            None => format!("{local}/{prefixlen}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"version": 1, "interface": "eth1", "tap": "kopi0", "ipv6_off": false,
        "addresses": [
            {"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "broadcast": "10.0.0.255", "scope": "global", "label": "eth1:7"},
            {"family": "inet", "local": "10.1.0.1", "address": "10.1.0.2", "prefixlen": 32, "scope": "global", "label": "eth1"},
            {"family": "inet6", "local": "fd00::1", "prefixlen": 64, "scope": "global"}],
        "routes": [{"v6": false, "words": ["default", "via", "10.0.0.254", "metric", "100"]}, {"v6": true, "words": ["fd01::/64"]}]}"#;

    /// The commands put back everything that is in the file, and end with its removal.
    #[test]
    fn first_version_is_undone_by_hand() {
        let said = advice(FILE.as_bytes(), Path::new("/run/kopi/takeover-eth1.json"));
        let expected = "\
  nft delete table netdev kopi_takeover_eth1
  tc filter del dev eth1 ingress protocol all prio 1 handle 1 matchall
  echo 0 > /proc/sys/net/ipv6/conf/eth1/disable_ipv6
  ip link set dev eth1 up
  ip address add 10.0.0.1/24 broadcast 10.0.0.255 scope global dev eth1 label eth1:7
  ip address add 10.1.0.1 peer 10.1.0.2/32 scope global dev eth1
  ip address add fd00::1/64 scope global dev eth1 nodad
  ip address del 10.0.0.1/24 dev kopi0
  ip address del 10.1.0.1 peer 10.1.0.2/32 dev kopi0
  ip address del fd00::1/64 dev kopi0
  ip -4 route replace default via 10.0.0.254 metric 100 dev eth1
  ip -6 route replace fd01::/64 dev eth1
  rm '/run/kopi/takeover-eth1.json'";
        assert!(said.contains("until November 2026") && said.ends_with(expected), "{said}");
    }

    /// Nothing of a damaged file is a command.
    #[test]
    fn damaged_file_is_no_command() {
        for bad in ["{}".to_owned(), FILE.replace("via", "; reboot"), FILE.replace("\"eth1\"", "\"../x\"")] {
            let said = advice(bad.as_bytes(), Path::new("f"));
            assert!(said.contains("damaged") && !said.contains("reboot"), "{said}");
        }
    }
}

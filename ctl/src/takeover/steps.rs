//! What is done to take an interface over, in which order, and what undoes it.
//!
//! At every moment the addresses are on at least one of the two interfaces: connections live on.

use super::shell::Shell;
use super::state::{Address, Route, State, ipv6_switch};
use std::fs;
use std::path::Path;

/// Moves everything to the kernel's port. Safe to be done again.
///
/// # Errors
///
/// The first step that failed, in the words of the program that was to do it.
pub(crate) fn take(state: &State, shell: &mut dyn Shell) -> Result<(), String> {
    let Parts { interface, tap, addresses, routes, ipv6_off } = parts(state);
    shell.ip(&["link", "set", "dev", tap, "up"])?;
    for address in addresses {
        add(address, interface, tap, shell)?;
    }
    for route in routes {
        route_by(route, tap, shell)?;
    }
    cut(interface, shell)?;
    for address in addresses {
        remove(address, interface, shell)?;
    }
    for route in routes {
        // Most went with their address.
        drop(change(route, "del", interface, shell));
    }
    // Some routes go with the addresses that they had as their source, on whatever interface.
    for route in routes {
        route_by(route, tap, shell)?;
    }
    // So that the interface makes no addresses for itself.
    if ipv6_off.is_some() { switch_ipv6(interface, true, shell) } else { Ok(()) }
}

/// Moves everything back, as far as possible; returns what was not.
pub(crate) fn give_back(state: &State, shell: &mut dyn Shell) -> Vec<String> {
    let Parts { interface, tap, addresses, routes, ipv6_off } = parts(state);
    let mut problems = Vec::new();
    let mut note = |outcome: Result<(), String>| problems.extend(outcome.err());
    if let Some(off) = ipv6_off {
        note(switch_ipv6(interface, off, shell));
    }
    note(uncut(interface, shell));
    note(shell.ip(&["link", "set", "dev", interface, "up"]).map(drop));
    for address in addresses {
        note(add(address, tap, interface, shell));
    }
    for route in routes {
        note(route_by(route, interface, shell));
    }
    // kopid may be gone, and its interface with it.
    if shell.ip(&["link", "show", "dev", tap]).is_ok() {
        for address in addresses {
            note(remove(address, tap, shell));
        }
        for route in routes {
            drop(change(route, "del", tap, shell));
        }
        for route in routes {
            note(route_by(route, interface, shell));
        }
    }
    problems
}

/// The parts of a state.
struct Parts<'a> {
    interface: &'a str,
    tap: &'a str,
    addresses: &'a [Address],
    routes: &'a [Route],
    ipv6_off: Option<bool>,
}

fn parts(state: &State) -> Parts<'_> {
    let State { interface, tap, addresses, routes, ipv6_off, .. } = state;
    Parts { interface, tap, addresses, routes, ipv6_off: *ipv6_off }
}

/// Whether a program says that something is there already, or is not.
fn is_there(error: &str) -> bool {
    error.contains("File exists") || error.contains("already assigned")
}

fn is_gone(error: &str) -> bool {
    ["Cannot assign requested address", "No such process", "No such file", "Address not found"]
        .iter()
        .any(|said| error.contains(said))
}

/// Gives an address, which `from` has or had, to `to`.
fn add(address: &Address, from: &str, to: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let mut words = vec!["address".to_owned(), "add".to_owned()];
    words.extend(address.words());
    if let Some(broadcast) = &address.broadcast {
        words.extend(["broadcast".to_owned(), broadcast.clone()]);
    }
    words.extend(["scope".to_owned(), address.scope.clone(), "dev".to_owned(), to.to_owned()]);
    // A label begins with the name of its interface.
    let label = address.label.as_deref().and_then(|label| label.split_once(':')).map(|(_, number)| number);
    if let Some(number) = label.filter(|number| to.len() + number.len() < 15) {
        words.extend(["label".to_owned(), format!("{to}:{number}")]);
    }
    if address.is_v6() {
        // Nobody else has it but the other interface, which would be taken for somebody else.
        words.push("nodad".to_owned());
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match shell.ip(&words) {
        Err(error) if !is_there(&error) => Err(format!("`{from}` to `{to}`: {error}")),
        _ => Ok(()),
    }
}

fn remove(address: &Address, interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let mut words = vec!["address".to_owned(), "del".to_owned()];
    words.extend(address.words());
    words.extend(["dev".to_owned(), interface.to_owned()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match shell.ip(&words) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Has a route go by `interface`, wherever it went before.
fn route_by(route: &Route, interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    change(route, "replace", interface, shell)
}

fn change(route: &Route, what: &str, interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let family = if route.v6 { "-6" } else { "-4" };
    let mut words = vec![family, "route", what];
    words.extend(route.words.iter().map(String::as_str));
    words.extend(["dev", interface]);
    shell.ip(&words).map(drop)
}

/// Keeps what arrives at the interface from the kernel's stack. Packet sockets see it before, and XDP takes it before, so
/// kopid gets it all; without this, a wire of `net_af_packet` would give the kernel every frame twice, once past the policy.
fn cut(interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let table = table_of(interface);
    let script = format!(
        "add table netdev {table}\ndelete table netdev {table}\nadd table netdev {table}\n\
         add chain netdev {table} cut {{ type filter hook ingress device \"{interface}\" priority -500; policy drop; }}\n"
    );
    let Err(error) = shell.run("nft", &["-f", "-"], &script) else { return Ok(()) };
    // A kernel or a machine without nftables may have the older way.
    let filter = ["filter", "replace", "dev", interface, "ingress", "protocol", "all", "prio", "1", "handle", "1"];
    let filter = [&filter[..], &["matchall", "action", "drop"]].concat();
    let queued = shell.run("tc", &["qdisc", "add", "dev", interface, "clsact"], "");
    if queued.is_err_and(|said| !is_there(&said) && !said.contains("Exclusivity")) {
        return Err(format!("what arrives cannot be kept from the kernel: {error}"));
    }
    shell.run("tc", &filter, "").map(drop).map_err(|_| format!("what arrives cannot be kept from the kernel: {error}"))
}

/// Undoes [`cut`], in whichever way it was done.
fn uncut(interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let table = table_of(interface);
    let removed = shell.run("nft", &["-f", "-"], &format!("add table netdev {table}\ndelete table netdev {table}\n"));
    let filter = ["filter", "del", "dev", interface, "ingress", "protocol", "all", "prio", "1"];
    if shell.run("tc", &filter, "").is_ok() { Ok(()) } else { removed.map(drop) }
}

/// A name of nftables for the interface.
fn table_of(interface: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("_{:x}_", u32::from(c)) };
    format!("kopi_takeover_{}", interface.chars().map(word).collect::<String>())
}

fn switch_ipv6(interface: &str, off: bool, shell: &mut dyn Shell) -> Result<(), String> {
    let switch = ipv6_switch(interface);
    if !Path::new(&switch).exists() {
        return shell.ip(&["link", "show", "dev", interface]).map(drop);
    }
    fs::write(&switch, if off { "1" } else { "0" }).map_err(|error| format!("{switch}: {error}"))
}

#[cfg(test)]
mod tests;

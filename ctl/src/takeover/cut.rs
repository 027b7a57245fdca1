//! Keeps what arrives at the interface from the kernel's stack, by `nft` or `tc`.

use super::shell::Shell;

/// Keeps what arrives at the interface from the kernel's stack. Packet sockets see it before, and XDP takes it before, so
/// kopid gets it all; without this, a wire of `net_af_packet` would give the kernel every frame twice, once past the policy.
///
/// # Errors
///
/// What the programs say.
pub(crate) fn cut(interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
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
    if queued.is_err_and(|said| !said.contains("File exists") && !said.contains("Exclusivity")) {
        return Err(format!("what arrives cannot be kept from the kernel: {error}"));
    }
    shell.run("tc", &filter, "").map(drop).map_err(|_| format!("what arrives cannot be kept from the kernel: {error}"))
}

/// Undoes [`cut`], in whichever way it was done.
///
/// # Errors
///
/// What the programs say.
pub(crate) fn uncut(interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let table = table_of(interface);
    let removed = shell.run("nft", &["-f", "-"], &format!("add table netdev {table}\ndelete table netdev {table}\n"));
    // That one alone: others may have filters of the same priority.
    let filter =
        ["filter", "del", "dev", interface, "ingress", "protocol", "all", "prio", "1", "handle", "1", "matchall"];
    if shell.run("tc", &filter, "").is_ok() { Ok(()) } else { removed.map(drop) }
}

/// A name of nftables for the interface.
pub(super) fn table_of(interface: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("_{:x}_", u32::from(c)) };
    format!("kopi_takeover_{}", interface.chars().map(word).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names of tables are words of nftables', and differ where the interfaces do.
    #[test]
    fn tables_have_names_that_nftables_takes() {
        let names: BTreeSet<String> = ["eth1", "eth-1", "eth.1", "eth_1", "a@b"].into_iter().map(table_of).collect();
        assert_eq!(names.len(), 5);
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')));
    }
}

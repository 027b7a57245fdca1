//! Left-overs of a takeover: an interface whose addresses are those of a host port that is gone.

use super::Host;
use super::finding::Finding;
use crate::takeover::FOLDER;
use serde_json::Value;

const CHECK: &str = "takeover";

/// Looks at what was written down about each.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    let interface = |name: String| Some(name.strip_prefix("takeover-")?.strip_suffix(".json")?.to_owned());
    let taken: Vec<_> = host.root.names(FOLDER).into_iter().filter_map(interface).collect();
    if taken.is_empty() {
        return vec![Finding::ok(CHECK, "no interface is taken over")];
    }
    taken.iter().map(|interface| check_one(host, interface)).collect()
}

fn check_one(host: &Host, interface: &str) -> Finding {
    let file = format!("{FOLDER}/takeover-{interface}.json");
    let Some(state) = host.root.text(&file).and_then(|text| serde_json::from_str::<Value>(&text).ok()) else {
        let message =
            format!("`{interface}` is taken over; whether that is in force stands in {file}, which cannot be read");
        return Finding::warning(CHECK, message, "sudo kopictl doctor");
    };
    let tap = state["tap"].as_str().unwrap_or_default();
    // As long as its interface is there, somebody serves it.
    if host.kopid.is_none() && host.root.has(format!("/sys/class/net/{tap}")) {
        let message = format!("`{interface}` is taken over by `{tap}`, which is there; kopid was not asked");
        return Finding::warning(CHECK, message, "sudo kopictl doctor");
    }
    let serves = host.kopid.as_ref().and_then(|status| status.host.as_ref()).is_some_and(|host| host.tap == tap);
    if serves && host.root.has(format!("/sys/class/net/{tap}")) {
        return Finding::ok(CHECK, format!("addresses and routes of `{interface}` are those of `{tap}`"));
    }
    let message = format!(
        "{file} is left of a takeover of `{interface}`, and no kopid serves `{tap}`: its addresses are nowhere"
    );
    Finding::warning(CHECK, message, format!("kopictl takeover --undo {interface}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Ok, Warning};
    use super::super::root::Fake;
    use super::*;
    use kopi_api::Status;
    use kopi_api::status::Host as HostPort;

    /// A takeover is in force as long as kopid serves its interface; what is left of one after that is told.
    #[test]
    fn leftovers_are_told() {
        let root = Fake::new()
            .file("/run/kopi/takeover-eth1.json", r#"{"version":2,"tap":"kopi0"}"#)
            .file("/run/kopi/kopi.sock", "")
            .file("/sys/class/net/kopi0/operstate", "up\n");
        let host = || Host { root: root.root(), config: None, kopid: None };
        // Who could not ask kopid is told of nothing that would take a takeover back that is in force.
        assert_eq!(check(&host())[0].remedy.as_deref(), Some("sudo kopictl doctor"));
        let left = Fake::new().file("/run/kopi/takeover-eth1.json", r#"{"version":2,"tap":"kopi0"}"#);
        let left = check(&Host { root: left.root(), config: None, kopid: None });
        assert_eq!((left[0].severity, left[0].remedy.as_deref()), (Warning, Some("kopictl takeover --undo eth1")));
        let secret = Fake::new().file("/run/kopi/takeover-eth1.json", "");
        let secret = check(&Host { root: secret.root(), config: None, kopid: None });
        assert_eq!(secret[0].remedy.as_deref(), Some("sudo kopictl doctor"));
        let port = |tap: &str| Some(HostPort { tap: tap.into(), ..HostPort::default() });
        let serves = |tap| check(&host().with(Status { host: port(tap), ..Status::default() }))[0].severity;
        assert_eq!([serves("kopi0"), serves("kopi1")], [Ok, Warning]);
        let none = Fake::new();
        assert_eq!(check(&Host { root: none.root(), config: None, kopid: None })[0].severity, Ok);
    }
}

//! The running kopid, if there is one.

use super::Host;
use super::finding::Finding;
use crate::failure::Failure;

const CHECK: &str = "kopid";
/// The wire's link in kopid's word.
const UP: &str = "up";

/// What the running kopid says, or why none does.
pub(super) fn check(host: &Host, failure: Option<&Failure>) -> Vec<Finding> {
    let Some(status) = &host.kopid else {
        return vec![match failure {
            Some(refused @ Failure::Refused { .. }) => {
                Finding::warning(CHECK, refused.to_string(), "sudo kopictl doctor")
            }
            Some(silent @ Failure::Silent(_)) => Finding::error(CHECK, silent.to_string(), "systemctl restart kopid"),
            _ => Finding::warning(CHECK, "kopid does not run", "systemctl start kopid"),
        }];
    };
    let mut found = vec![Finding::ok(CHECK, format!("{} runs, pid {}", status.version, status.pid))];
    let own = env!("CARGO_PKG_VERSION");
    if status.version != own {
        let message = format!("kopid is of version {}, this kopictl of {own}", status.version);
        found.push(Finding::warning(CHECK, message, "systemctl restart kopid"));
    }
    if status.wire.link != UP {
        let message = format!("the wire's link is {}", status.wire.link);
        found.push(Finding::warning(CHECK, message, link_up(&status.wire.device)));
    }
    if status.workers.iter().any(|worker| worker.flows_crowded) {
        let message = "the flow tables are too small for the flows there are";
        found.push(Finding::warning(
            CHECK,
            message,
            "raise `flows` in [dataplane] of kopid.toml; systemctl restart kopid",
        ));
    }
    found
}

/// What may bring a link up.
fn link_up(device: &str) -> String {
    match device.split(',').find_map(|part| part.strip_prefix("iface=")) {
        Some(interface) => format!("ip link set {interface} up"),
        None => "look at the cable and the switch: kopictl status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Error, Ok, Warning};
    use super::super::root::Fake;
    use super::*;
    use kopi_api::Status;

    /// A kopid that is not there is no fault of the machine's; one that does not answer is.
    #[test]
    fn kopid_need_not_run() {
        let root = Fake::new();
        let host = Host { root: root.root(), config: None, kopid: None };
        let severity = |failure| check(&host, Some(&failure))[0].severity;
        assert_eq!(severity(Failure::Closed), Warning);
        assert_eq!(severity(Failure::Silent("/x".into())), Error);
    }

    /// A link that is down is told with the interface that it hangs on.
    #[test]
    fn link_that_is_down_is_told() {
        let root = Fake::new();
        let mut status = Status { version: env!("CARGO_PKG_VERSION").into(), ..Status::default() };
        status.wire.device = "net_af_packet0,iface=eth1".into();
        status.wire.link = "down".into();
        let found = check(&Host { root: root.root(), config: None, kopid: Some(status) }, None);
        assert_eq!((found[0].severity, found[1].severity, found.len()), (Ok, Warning, 2));
        assert_eq!(found[1].remedy.as_deref(), Some("ip link set eth1 up"));
    }
}

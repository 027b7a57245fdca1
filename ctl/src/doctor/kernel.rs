//! The kernel's version, and the pid namespace.

use super::Host;
use super::finding::Finding;

/// The first kernel with `pidfd_open`, by which kopid knows who attaches (pidfd_open(2)).
const PIDFD_OPEN: (u32, u32) = (5, 3);
/// The first one that says by itself which process is at the other end (`SO_PEERPIDFD`, unix(7)).
const PEER_PIDFD: (u32, u32) = (6, 5);
/// The first pid namespace of every kernel (Linux, `PROC_PID_INIT_INO` in include/linux/proc_ns.h).
const FIRST: &str = "pid:[4026531836]";

/// Looks at both.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    [version(host), namespace(host)].into_iter().flatten().collect()
}

fn version(host: &Host) -> Option<Finding> {
    let text = host.root.text("/proc/sys/kernel/osrelease")?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let version = (numbers.next()?, numbers.next()?);
    Some(match version {
        old if old < PIDFD_OPEN => {
            let message =
                format!("Linux {text} is too old to know processes by: kopid needs {}.{}", PIDFD_OPEN.0, PIDFD_OPEN.1);
            Finding::error("kernel", message, "apt install linux-image-amd64; reboot")
        }
        old if old < PEER_PIDFD => {
            Finding::ok("kernel", format!("Linux {text}; who attaches is known by pid and start time"))
        }
        _ => Finding::ok("kernel", format!("Linux {text}")),
    })
}

/// The namespace of the running kopid, or else the one that it would have if it was started here.
fn namespace(host: &Host) -> Option<Finding> {
    let who = host.kopid.as_ref().map_or_else(|| "self".to_owned(), |status| status.pid.to_string());
    let own = host.root.link(format!("/proc/{who}/ns/pid"))?;
    Some(if own == FIRST {
        Finding::ok("namespace", "the host's pid namespace")
    } else {
        Finding::warning(
            "namespace",
            format!("{own} is not the host's pid namespace: kopid knows no process that is outside of it"),
            "podman run --pid=host …, or hostPID: true in Kubernetes",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Error, Ok, Warning};
    use super::super::root::Fake;
    use super::*;
    use kopi_api::Status;

    fn host(root: &Fake) -> Host {
        Host { root: root.root(), config: None, kopid: None }
    }

    /// Versions are compared as numbers, whatever a distribution puts behind them.
    #[test]
    fn kernel_has_to_know_processes() {
        for (text, severity) in
            [("5.2.21", Error), ("5.10.0-8-amd64", Ok), ("6.12", Ok), ("10.1.0", Ok), ("4.19.0+", Error)]
        {
            let root = Fake::new().file("/proc/sys/kernel/osrelease", &format!("{text}\n"));
            assert_eq!(check(&host(&root))[0].severity, severity, "{text}");
        }
    }

    /// The namespace that counts is kopid's; without a kopid, ours.
    #[test]
    fn namespace_is_the_hosts() {
        let root = Fake::new().link("/proc/self/ns/pid", FIRST).link("/proc/7/ns/pid", "pid:[4026532999]");
        assert_eq!(check(&host(&root))[0].severity, Ok);
        assert_eq!(check(&host(&root).with(Status { pid: 7, ..Status::default() }))[0].severity, Warning);
    }
}

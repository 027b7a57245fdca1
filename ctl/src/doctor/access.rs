//! Who may use the sockets, and their folders.

use super::Host;
use super::finding::Finding;
use kopi_config::Socket;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const CHECK: &str = "access";
const STICKY: u32 = 0o1000;

/// Looks at both sockets.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    let Some(config) = &host.config else { return Vec::new() };
    let mut found: Vec<_> = [(&config.socket, "applications"), (&config.control, "operators")]
        .into_iter()
        .flat_map(|(socket, whose)| [folder(host, socket), file(host, socket, whose)])
        .flatten()
        .collect();
    found.dedup();
    if config.control.mode.is_world_writable() {
        let message = "every user of this machine may operate kopid, by `mode` in [control]";
        found.push(Finding::warning(
            CHECK,
            message,
            "mode = \"0660\" and a `group` in [control]; systemctl restart kopid",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "sockets and folders are for whom the configuration says"));
    }
    found
}

/// kopid makes a folder that is missing.
fn folder(host: &Host, socket: &Socket) -> Option<Finding> {
    let folder = socket.path.parent()?;
    let name = folder.display();
    let mode = host.root.metadata(folder)?.mode();
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        let message = format!("everybody may write to {name}, and put a socket of their own into the place of kopid's");
        return Some(Finding::warning(CHECK, message, format!("chmod o-w {name}")));
    }
    if socket.mode.bits() & 0o077 != 0 && mode & 0o011 == 0 {
        let message = format!("only its owner may enter {name}, so no other user reaches {}", socket.path.display());
        return Some(Finding::warning(CHECK, message, format!("chmod 0755 {name}")));
    }
    None
}

fn file(host: &Host, socket: &Socket, whose: &str) -> Option<Finding> {
    host.kopid.as_ref()?;
    let name = socket.path.display();
    // A folder that may not be entered says nothing.
    host.root.metadata(socket.path.parent().unwrap_or_else(|| Path::new("/")))?;
    let Some(file) = host.root.metadata(&socket.path) else {
        let message = format!("kopid runs, but the socket for {whose} is gone: {name}");
        return Some(Finding::error(CHECK, message, "systemctl restart kopid"));
    };
    let (mode, wanted) = (file.mode() & 0o777, socket.mode);
    (mode != wanted.bits()).then(|| {
        let message = format!("{name} has mode {mode:04o}, not {wanted} as configured");
        Finding::warning(CHECK, message, format!("chmod {wanted} {name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{self, Error, Ok, Warning};
    use super::super::root::Fake;
    use super::*;
    use kopi_api::Status;

    const CONFIG: &str = "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n";

    fn severities(host: &Host) -> Vec<Severity> {
        check(host).iter().map(|finding| finding.severity).collect()
    }

    /// Before its first start there is nothing to look at; a running kopid has both sockets, with the modes of the configuration.
    #[test]
    fn sockets_are_as_configured() {
        assert_eq!(severities(&Host::fake(&Fake::new(), CONFIG)), [Ok]);
        let with = |apps: u32, operators: u32| {
            let root = Fake::new().file("/run/kopi/kopi.sock", "").file("/run/kopi/control.sock", "");
            root.mode("/run/kopi/kopi.sock", apps).mode("/run/kopi/control.sock", operators)
        };
        let runs = |root: &Fake| severities(&Host::fake(root, CONFIG).with(Status::default()));
        assert_eq!(runs(&with(0o660, 0o600)), [Ok]);
        assert_eq!(runs(&with(0o600, 0o600)), [Warning]);
        assert_eq!(runs(&Fake::new().folder("/run/kopi", 0o755)), [Error, Error]);
    }

    /// A folder in which anybody may replace sockets, one that nobody may enter, and a socket for everybody's orders are told.
    #[test]
    fn folders_and_modes_are_narrow() {
        let folder = |mode| severities(&Host::fake(&Fake::new().folder("/run/kopi", mode), CONFIG));
        assert_eq!([folder(0o755), folder(0o777), folder(0o1777), folder(0o700)], [[Ok], [Warning], [Ok], [Warning]]);
        let open = format!("{CONFIG}[control]\nmode = \"0666\"\n");
        assert_eq!(severities(&Host::fake(&Fake::new(), &open)), [Warning]);
    }
}

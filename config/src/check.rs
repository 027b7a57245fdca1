//! The two files as a start of kopid finds them, on this machine: read, and asked whether what they name is there.
//!
//! `kopid --check` and `kopictl check` are this. kopid alone can say, beyond that, whether DPDK starts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::unistd::{Group, User};
use serde_json::Value as Json;

use crate::cpu::{cpu_list, online_cpus};
use crate::policy::{CgroupPath, NameRef};
use crate::source::Source;
use crate::{Account, Config, Diagnostic, Errors, Policy, Socket, kopid, policy};

/// Where the unified hierarchy of cgroups is mounted, unless the machine says otherwise.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Drivers that take an interface for a wire. Others make the one that they are told of, or mean something else.
const TAKERS: [&str; 3] = ["net_af_packet", "eth_af_packet", "net_af_xdp"];

/// What was found in one file.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub file: PathBuf,
    /// Warnings alone, or errors and warnings.
    pub found: Result<Vec<Diagnostic>, Errors>,
}

impl Checked {
    /// What was found, in the order in which it is to be shown.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match &self.found {
            Ok(warnings) => warnings,
            Err(errors) => errors.diagnostics(),
        }
    }
}

/// Checks the file at `path`: `kopid.toml` and the policy that it names, or a policy.
#[must_use]
pub fn check_file(path: &Path) -> Vec<Checked> {
    match Source::read(path, policy::SIZE_MAX) {
        Err(errors) => vec![Checked { file: path.to_owned(), found: Err(errors) }],
        Ok(source) if is_daemons(source.text()) => check_config(path).1,
        Ok(_) => vec![check_policy(path)],
    }
}

/// Whether a file is `kopid.toml`: by a table that only that one has, or by the wire's device, since both files have a
/// `[wire]`. So its syntax may be broken elsewhere.
fn is_daemons(text: &str) -> bool {
    let knows = |schema: &Json, name: &str| schema["properties"][name]["properties"].is_object();
    text.lines().map(str::trim_start).any(|line| {
        let name = line.strip_prefix('[').and_then(|rest| rest.split(']').next()).map_or("", str::trim);
        let device = line.strip_prefix("device").is_some_and(|rest| rest.trim_start().starts_with('='));
        device || knows(&kopid::SCHEMA, name) && !knows(&policy::SCHEMA, name)
    })
}

/// Checks the `kopid.toml` at `path`, and the policy that it names; and gives the configuration, if a start would take it.
#[must_use]
pub fn check_config(path: &Path) -> (Option<Config>, Vec<Checked>) {
    let checked = |found| Checked { file: path.to_owned(), found };
    let config = match Config::load(path) {
        Err(errors) => return (None, vec![checked(Err(errors))]),
        Ok(config) => config,
    };
    let missing = missing(&config);
    let found = if missing.is_empty() {
        Ok(config.warnings.clone())
    } else {
        Err(Errors::from([missing, config.warnings.clone()].concat()))
    };
    let policy = config.policy.as_deref().map(check_policy);
    let files: Vec<_> = std::iter::once(checked(found)).chain(policy).collect();
    (Some(config).filter(|_| files.iter().all(|file| file.found.is_ok())), files)
}

/// Checks the policy at `path`.
#[must_use]
pub fn check_policy(path: &Path) -> Checked {
    let found = Policy::read(path).map(|policy| {
        let mut warnings = [unknown_names(&policy), policy.warnings].concat();
        warnings.sort_by_key(|warning| warning.position);
        warnings
    });
    Checked { file: path.to_owned(), found }
}

/// Fails if `config` needs something that this machine does not have: CPUs, the wire's interface, owners and groups of the sockets.
///
/// # Errors
///
/// One for each, at its place in the file.
pub fn check_machine(config: &Config) -> Result<(), Errors> {
    let missing = missing(config);
    if missing.is_empty() { Ok(()) } else { Err(Errors::from(missing)) }
}

fn missing(config: &Config) -> Vec<Diagnostic> {
    // Where the machine does not tell, a start will.
    let mut missing = online_cpus().map(|online| offline(config, &online)).unwrap_or_default();
    let device = config.wire.device.devargs();
    if let Err(reason) = find_interface(device) {
        missing.extend(config.error_at("wire.device", format!("the wire `{device}` cannot be used: {reason}"), None));
    }
    let metrics = config.metrics.socket();
    let sockets = [("socket", Some(&config.socket)), ("control", Some(&config.control)), ("metrics", metrics.as_ref())];
    for (table, socket) in sockets.into_iter().filter_map(|(table, socket)| Some((table, socket?))) {
        if let Err(NoAccount { kind, name }) = socket_owners(socket) {
            let key = if kind == "user" { "owner" } else { kind };
            let message = format!("{}: there is no {kind} `{name}` on this system", socket.path.display());
            missing.extend(config.error_at(&format!("{table}.{key}"), message, None));
        }
    }
    missing
}

/// An error for each CPU of the workers that is not among `online`.
#[must_use]
pub fn offline(config: &Config, online: &BTreeSet<u16>) -> Vec<Diagnostic> {
    let missing = config.dataplane.cores.iter().enumerate().filter(|(_, cpu)| !online.contains(cpu));
    let errors = missing.filter_map(|(index, cpu)| {
        let message = format!("CPU {cpu} of `cores` in [dataplane] is not online");
        let help = format!("online are {}", cpu_list(online));
        config.error_at(&format!("dataplane.cores[{index}]"), message, Some(help))
    });
    errors.collect()
}

/// Fails, with a text for people, if `devargs` name an interface with `iface=` that is not there, and their driver is one that
/// takes it for a wire.
fn find_interface(devargs: &str) -> Result<(), String> {
    let takes = TAKERS.iter().any(|driver| devargs.starts_with(driver));
    let Some(name) = interface_of(devargs).filter(|_| takes) else { return Ok(()) };
    match if_nametoindex(name) {
        Err(Errno::ENODEV) => {
            Err(format!("there is no interface `{name}` here; `ip link` lists those of this network namespace"))
        }
        // Whatever else is wrong with it, the driver will say.
        _ => Ok(()),
    }
}

/// The interface that `devargs` name.
#[must_use]
pub fn interface_of(devargs: &str) -> Option<&str> {
    let said = devargs.split(',').skip(1).find_map(|argument| argument.strip_prefix("iface="));
    // `net_vhost` means a socket.
    said.filter(|name| !name.contains('/'))
}

/// The owner or group of a socket does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAccount {
    /// `owner` and `group` name a `user` or a `group`.
    pub kind: &'static str,
    /// The name that was not found.
    pub name: String,
}

/// The configured owner and group of a socket as numbers.
///
/// # Errors
///
/// [`NoAccount`].
pub fn socket_owners(socket: &Socket) -> Result<(Option<u32>, Option<u32>), NoAccount> {
    let number = |account: &Option<Account>, kind, find: &dyn Fn(&str) -> Option<u32>| match account {
        None => Ok(None),
        Some(Account::Id(id)) => Ok(Some(*id)),
        Some(Account::Name(name)) => find(name).map(Some).ok_or_else(|| NoAccount { kind, name: name.clone() }),
    };
    Ok((number(&socket.owner, "user", &user)?, number(&socket.group, "group", &group)?))
}

/// The uid of a user of this machine. May wait for a name service.
#[must_use]
pub fn user(name: &str) -> Option<u32> {
    User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

/// The gid of a group of this machine. May wait for a name service.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// A warning for each user, group and cgroup that a policy names and this machine does not have.
#[must_use]
pub fn unknown_names(policy: &Policy) -> Vec<Diagnostic> {
    policy.check_names(&|name| match name {
        // Where the machine cannot be asked, nothing is missing.
        NameRef::User(name) => !matches!(User::from_name(name), Ok(None)),
        NameRef::Group(name) => !matches!(Group::from_name(name), Ok(None)),
        NameRef::Cgroup(path) => has_cgroup(path),
    })
}

fn has_cgroup(path: &CgroupPath) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let root = Path::new(cgroup_root(&mounts));
    !root.is_dir() || root.join(path.as_str().trim_start_matches('/')).is_dir()
}

/// Where the unified hierarchy is mounted, by the lines of `/proc/self/mounts` (`fstab(5)`). Beside the older hierarchies
/// that is not the usual place.
fn cgroup_root(mounts: &str) -> &str {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let unified = |fields: &Vec<&str>| fields.get(2) == Some(&"cgroup2");
    fields.into_iter().find(unified).and_then(|fields| fields.get(1).copied()).unwrap_or(CGROUPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        on(0, text)
    }

    fn on(cpu: u16, text: &str) -> Config {
        Config::parse(format!("[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [{cpu}]\n{text}"), "test").unwrap()
    }

    /// The unified hierarchy is where the machine has mounted it.
    #[test]
    fn cgroups_are_where_they_are_mounted() {
        let old = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        let hybrid = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_root(&format!("{old}{hybrid}")), "/sys/fs/cgroup/unified");
        assert_eq!(cgroup_root("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"), "/sys/fs/cgroup");
        assert_eq!(cgroup_root(old), CGROUPS);
    }

    /// The machine's own accounts are known, and made-up ones are not.
    #[test]
    fn accounts_are_the_machines() {
        assert_eq!(
            (user("root"), group("root"), user("no-such-user"), group("no-such-group")),
            (Some(0), Some(0), None, None)
        );
        let named = config("[socket]\nowner = \"root\"\ngroup = 7\n");
        assert_eq!(socket_owners(&named.socket), Ok((Some(0), Some(7))));
        let unknown = config("[control]\ngroup = \"no-such-group\"\n");
        assert_eq!(socket_owners(&unknown.control), Err(NoAccount { kind: "group", name: "no-such-group".into() }));
    }

    /// All that is missing is said at once.
    #[test]
    fn what_is_missing_is_said() {
        assert!(missing(&config("")).is_empty());
        let absent = on(1023, "[socket]\nowner = \"no-such-user\"\n[control]\ngroup = \"no-such-group\"\n");
        let places: Vec<_> =
            missing(&absent).iter().map(|error| error.position.map(|at| (at.line, at.column))).collect();
        assert_eq!(places, [Some((4, 10)), Some((6, 9)), Some((8, 9))]);
        let said: Vec<_> = missing(&absent).into_iter().map(|error| error.message).collect();
        assert!(
            said.len() == 3 && said[1].contains("no user `no-such-user`") && said[2].contains("no-such-group"),
            "{said:?}"
        );
        assert!(said[0].contains("CPU 1023"), "{said:?}");
    }

    /// The two files are told apart by their tables, whatever else is wrong in them.
    #[test]
    fn files_are_told_apart_by_their_tables() {
        for text in ["[wire]\ndevice = 1", "x = [\n  [ dataplane ] # cores", "default = 1\n\t[log]\n"] {
            assert!(is_daemons(text), "{text}");
        }
        for text in [
            "",
            "[[rule]]\nname = \"[wire]\"\n",
            "[default]\negress = \"drop\"",
            "[[app]]\n[app.wire]",
            "wire",
            "[wire]\nrate = 1",
        ] {
            assert!(!is_daemons(text), "{text}");
        }
    }

    /// An interface is looked for where it is the wire, whatever else is said of it.
    #[test]
    fn interfaces_are_found_in_devargs() {
        assert_eq!(interface_of("net_af_packet0,iface=eth1,qpairs=1"), Some("eth1"));
        assert_eq!(interface_of("net_af_xdp0,start_queue=1,iface=a.b"), Some("a.b"));
        assert_eq!(interface_of("net_null0,size=64"), None);
        assert_eq!(interface_of("0000:3b:00.0"), None);
        assert_eq!(interface_of("net_vhost0,iface=/tmp/socket"), None);
        assert_eq!(find_interface("net_af_packet0,iface=lo"), Ok(()));
        assert!(find_interface("net_af_xdp0,iface=nowhere0").unwrap_err().contains("no interface `nowhere0`"));
        assert_eq!(find_interface("net_tap0,iface=nowhere0"), Ok(()));
    }
}

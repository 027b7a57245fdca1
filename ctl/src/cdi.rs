//! `kopictl cdi`: a description for the Container Device Interface, by which an engine puts into a container what a DPDK
//! application needs to attach (<https://github.com/cncf-tags/container-device-interface/blob/v0.8.0/SPEC.md>).

use crate::arguments::Cdi;
use crate::check;
use crate::failure::Failure;
use crate::streams::{complain, print};
use kopi_config::Config;
use kopi_config::check::check_config;
use kopi_config::policy::Policy;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What devices are called before their names.
const KIND: &str = "kopi/port";
/// The least that has all that is used here. Engines pass over files of versions that they do not know: Podman 4.3 of Debian 12
/// knows none after this one.
const VERSION: &str = "0.5.0";
/// What a file of a driver is called before its release.
const DRIVER: &str = "librte_net_kopi-";

/// Prints the description.
///
/// # Errors
///
/// [`Failure`], if the files do not say what to describe, or there is no driver.
pub(crate) fn run(options: &Cdi) -> Result<(), Failure> {
    let (config, checked) = check_config(&options.config);
    let Some(config) = config else {
        checked.iter().try_for_each(|file| complain(&check::problems(file)))?;
        return Err(Failure::Checked);
    };
    let names = if options.names.is_empty() { names_of(&config)? } else { options.names.clone() };
    let drivers = drivers(&options.drivers)?;
    print(&format!("{:#}\n", describe(options, &config, &names, &drivers)?))
}

/// The apps of the policy, without the kernel's port.
fn names_of(config: &Config) -> Result<Vec<String>, Failure> {
    let policy = match &config.policy {
        Some(path) => Policy::read(path).map_err(|errors| Failure::Policy(errors.to_string()))?,
        None => Policy::default(),
    };
    let mut names: Vec<_> = policy.apps.iter().filter(|app| !app.is_host()).map(|app| app.name.clone()).collect();
    for name in names.extract_if(.., |name| !is_name(name)) {
        complain(&format!("kopictl: left out, since no engine takes it for a device: {name}\n"))?;
    }
    if names.is_empty() {
        return Err(Failure::Cdi("the policy has no [[app]]: name the ports, as in `kopictl cdi web db`".into()));
    }
    Ok(names)
}

/// Whether engines take it for the name of a device.
fn is_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    ends(name.chars().next()) && ends(name.chars().last()) && name.chars().all(inner)
}

/// The drivers in a folder, each with the folder from which EAL of its release loads drivers by itself.
fn drivers(folder: &Path) -> Result<Vec<(PathBuf, String)>, Failure> {
    let failed = |error| Failure::Cdi(format!("cannot read the drivers in {}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let release = name.strip_prefix(DRIVER).and_then(|rest| rest.strip_suffix(".so"));
        if let Some(pmds) = release.and_then(pmds_of) {
            found.push((path, pmds));
        }
    }
    found.sort();
    let missing = || Failure::Cdi(format!("there is no {DRIVER}YY.MM.so in {}; see --drivers", folder.display()));
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

/// `pmds-23.0` for 22.11: each November's release begins the ABI of the year after it
/// (<https://doc.dpdk.org/guides-22.11/contributing/abi_policy.html>).
fn pmds_of(release: &str) -> Option<String> {
    let year: u32 = release.strip_suffix(".11")?.parse().ok()?;
    Some(format!("pmds-{}.0", year + 1))
}

fn describe(options: &Cdi, config: &Config, names: &[String], drivers: &[(PathBuf, String)]) -> Result<Value, Failure> {
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        let rule = "letters, digits, and within also _ - . and :";
        return Err(Failure::Cdi(format!("`{bad}` can be no device: its name has {rule}")));
    }
    let socket = &config.socket.path;
    let folder = socket.parent().unwrap_or_else(|| Path::new("/"));
    if config.control.path.starts_with(folder) && !options.with_control {
        return Err(Failure::Cdi(format!(
            "the operators' socket {} would be in every container, and root there may use it: give the applications' socket a folder \
             of its own, such as [socket] path = \"/run/kopi/apps/kopi.sock\", or say --with-control",
            config.control.path.display()
        )));
    }
    let mount = |host: &Path, inside: &Path| json!({ "hostPath": host, "containerPath": inside, "type": "none", "options": ["rbind", "ro", "nosuid", "nodev"] });
    // The folder and not the socket, which every kopid makes anew. Read-only: nothing else is to lie there.
    let mut mounts = vec![mount(folder, folder)];
    for dpdk in &options.dpdk {
        let inside = |(path, pmds): &(PathBuf, String)| mount(path, &dpdk.join(pmds).join("librte_net_kopi.so"));
        mounts.extend(drivers.iter().map(inside));
    }
    let device = |name: &String| {
        let vdev = format!("KOPI_VDEV=net_kopi0,name={name},socket={}", socket.display());
        json!({ "name": name, "containerEdits": { "env": [vdev] } })
    };
    let devices: Vec<_> = names.iter().map(device).collect();
    Ok(json!({ "cdiVersion": VERSION, "kind": KIND, "devices": devices, "containerEdits": { "mounts": mounts } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Cdi {
        let dpdk = vec!["/usr/lib/x86_64-linux-gnu/dpdk".into()];
        Cdi { names: Vec::new(), config: "".into(), drivers: "".into(), dpdk, with_control: false }
    }

    fn config(socket: &str) -> Config {
        let text = format!("[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n[socket]\npath = \"{socket}\"\n");
        Config::parse(text, "test").unwrap()
    }

    fn described(names: &[&str]) -> Result<Value, Failure> {
        let drivers = [(PathBuf::from("/d/librte_net_kopi-22.11.so"), pmds_of("22.11").unwrap())];
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        describe(&options(), &config("/run/kopi/apps/kopi.sock"), &names, &drivers)
    }

    /// What the specification asks of a file: its version, `vendor/class`, at least one device, names that it allows, no key that it
    /// does not know, absolute paths in mounts, and `NAME=VALUE` in environments.
    fn assert_valid(cdi: &Value) {
        let keys =
            |value: &Value, known: &[&str]| value.as_object().unwrap().keys().all(|key| known.contains(&key.as_str()));
        assert!(keys(cdi, &["cdiVersion", "kind", "devices", "containerEdits"]), "{cdi}");
        assert!(["0.3.0", "0.4.0", "0.5.0"].contains(&cdi["cdiVersion"].as_str().unwrap()));
        let (vendor, class) = cdi["kind"].as_str().unwrap().split_once('/').unwrap();
        for (word, inner) in [(vendor, "_-."), (class, "_-")] {
            assert!(
                word.starts_with(|c: char| c.is_ascii_alphabetic())
                    && word.ends_with(|c: char| c.is_ascii_alphanumeric())
            );
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(c)));
        }
        let devices = cdi["devices"].as_array().unwrap();
        assert!(!devices.is_empty());
        for device in devices {
            assert!(keys(device, &["name", "containerEdits"]) && is_name(device["name"].as_str().unwrap()));
        }
        for edits in devices.iter().map(|device| &device["containerEdits"]).chain([&cdi["containerEdits"]]) {
            assert!(keys(edits, &["env", "mounts"]));
            for mount in edits["mounts"].as_array().into_iter().flatten() {
                assert!(keys(mount, &["hostPath", "containerPath", "type", "options"]));
                assert!(
                    ["hostPath", "containerPath"].iter().all(|path| mount[path].as_str().unwrap().starts_with('/'))
                );
            }
            let env = edits["env"].as_array().into_iter().flatten();
            assert!(env.map(|word| word.as_str().unwrap()).all(|word| word.find('=').is_some_and(|at| at > 0)));
        }
    }

    /// The description holds to the specification, and has the folder of the socket, the driver where EAL looks, and the arguments.
    #[test]
    fn description_is_what_engines_take() {
        let cdi = described(&["web", "db-1"]).unwrap();
        assert_valid(&cdi);
        assert_eq!(cdi["kind"], "kopi/port");
        let mounts = &cdi["containerEdits"]["mounts"];
        assert_eq!(mounts[0]["containerPath"], "/run/kopi/apps");
        assert_eq!(mounts[1]["containerPath"], "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_kopi.so");
        let vdev = &cdi["devices"][1]["containerEdits"]["env"][0];
        assert_eq!(vdev, "KOPI_VDEV=net_kopi0,name=db-1,socket=/run/kopi/apps/kopi.sock");
    }

    /// The operators' socket gets into no container unasked, and names that engines refuse are refused here.
    #[test]
    fn what_would_fail_later_fails_now() {
        let failure = |result: Result<Value, Failure>| result.unwrap_err().to_string();
        let beside = describe(&options(), &config("/run/kopi/kopi.sock"), &["a".into()], &[]);
        assert!(failure(beside).contains("/run/kopi/control.sock would be in every container"));
        let anyway = Cdi { with_control: true, ..options() };
        assert!(describe(&anyway, &config("/run/kopi/kopi.sock"), &["a".into()], &[]).is_ok());
        for bad in ["", "-a", "a.", "a/b", "a b", "ä"] {
            assert!(failure(described(&["web", bad])).contains("can be no device"), "{bad}");
        }
        assert!(["a", "7", "a_b-c.d:e"].into_iter().all(is_name));
        assert_eq!((pmds_of("25.11").as_deref(), pmds_of("25.07")), (Some("pmds-26.0"), None));
        assert!(
            failure(drivers(Path::new("/proc/self/fd")).map(|_| Value::Null))
                .contains("there is no librte_net_kopi-YY.MM.so")
        );
    }
}

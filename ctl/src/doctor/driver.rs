//! kopi's driver in the folders out of which each DPDK loads drivers by itself.

use super::Host;
use super::finding::Finding;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CHECK: &str = "driver";
/// Where distributions and DPDK's own build put libraries; below them are folders of architectures.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];
/// How folders of drivers begin (DPDK, `driver_install_subdir` of config/meson.build).
const FOLDER: &str = "pmds-";
const LOADER: &str = "librte_net_kopi.so";
const RELEASE: &str = "librte_net_kopi-";

/// Looks into each.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    let folders = folders(host);
    if folders.is_empty() {
        let message =
            "no DPDK with a folder of drivers is installed: applications bring their own, and load the driver with -d";
        return vec![Finding::ok(CHECK, message)];
    }
    folders.iter().map(|folder| check_folder(host, folder)).collect()
}

/// All `pmds-*`, as `/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0`.
fn folders(host: &Host) -> Vec<PathBuf> {
    let architectures = |library: &str| {
        let below = host.root.names(library).into_iter().map(move |name| Path::new(library).join(name));
        below.filter(|folder| folder.to_string_lossy().ends_with("-gnu")).collect::<Vec<_>>()
    };
    let places = LIBRARIES.iter().flat_map(|library| [vec![PathBuf::from(library)], architectures(library)].concat());
    let below = |folder: PathBuf| {
        let names = host.root.names(&folder).into_iter().filter(|name| name.starts_with(FOLDER));
        names.map(move |name| folder.join(name)).collect::<Vec<_>>()
    };
    places.flat_map(|place| below(place.join("dpdk"))).collect()
}

fn check_folder(host: &Host, folder: &Path) -> Finding {
    let name = folder.display();
    let abi = folder.file_name().and_then(|name| name.to_str()?.strip_prefix(FOLDER)).unwrap_or_default();
    let install = format!("apt install librte-net-kopi-{}", abi.trim_end_matches(".0"));
    let loader = folder.join(LOADER);
    let Some(file) = host.root.metadata(&loader) else {
        let message =
            format!("applications of DPDK ABI {abi} need -d for kopi's driver: {} is missing", loader.display());
        return Finding::warning(CHECK, message, install);
    };
    if file.mode() & 0o022 != 0 || host.root.metadata(folder).is_some_and(|folder| folder.mode() & 0o002 != 0) {
        let message = format!("others may write to {name} or {LOADER} in it, so DPDK or the loader refuses it");
        return Finding::warning(CHECK, message, format!("chmod go-w {name} {}", loader.display()));
    }
    // The loader looks beside itself, wherever links to it lie.
    let home = host.root.real(&loader).and_then(|loader| loader.parent().map(Path::to_owned));
    let home = home.unwrap_or_else(|| folder.to_owned());
    let releases: Vec<String> = host.root.names(&home).into_iter().filter_map(release).collect();
    if releases.is_empty() {
        return Finding::warning(
            CHECK,
            format!("{} has {LOADER}, but no {RELEASE}*.so beside it", home.display()),
            install,
        );
    }
    Finding::ok(CHECK, format!("DPDK ABI {abi}: drivers for {}", releases.join(", ")))
}

fn release(name: String) -> Option<String> {
    Some(name.strip_prefix(RELEASE)?.strip_suffix(".so")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Ok, Warning};
    use super::super::root::Fake;
    use super::*;

    fn findings(root: &Fake) -> Vec<Finding> {
        check(&Host { root: root.root(), config: None, kopid: None })
    }

    /// Each DPDK is told whether it finds the driver, and for which releases.
    #[test]
    fn each_abi_is_told() {
        let debian = "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0";
        let own = "/usr/local/lib/dpdk/pmds-26.0";
        let root = Fake::new()
            .file(&format!("{debian}/librte_net_null.so"), "")
            .file(&format!("{own}/{LOADER}"), "")
            .file(&format!("{own}/librte_net_kopi-25.11.so"), "");
        let found = findings(&root);
        assert_eq!((found[0].severity, found[1].severity, found.len()), (Warning, Ok, 2), "{found:?}");
        assert_eq!(found[0].remedy.as_deref(), Some("apt install librte-net-kopi-23"));
        assert!(found[1].message.contains("ABI 26.0: drivers for 25.11"), "{found:?}");
    }

    /// A driver that everybody may write to is not loaded, a loader alone loads nothing, and no DPDK at all is no fault.
    #[test]
    fn drivers_can_be_loaded() {
        let folder = "/usr/lib64/dpdk/pmds-25.0";
        let loader = format!("{folder}/{LOADER}");
        let alone = || Fake::new().file(&loader, "");
        assert_eq!(findings(&alone())[0].severity, Warning);
        let both = || alone().file(&format!("{folder}/librte_net_kopi-24.11.so"), "");
        assert_eq!(findings(&both().mode(&loader, 0o644))[0].severity, Ok);
        assert_eq!(findings(&both().mode(&loader, 0o666))[0].severity, Warning);
        assert_eq!(findings(&both().folder(folder, 0o777))[0].severity, Warning);
        assert_eq!(findings(&Fake::new())[0].severity, Ok);
        // As the packages have it: a link to the loader, which finds the drivers beside itself.
        let packaged = Fake::new()
            .file("/usr/lib/kopi/librte_net_kopi.so", "")
            .file("/usr/lib/kopi/librte_net_kopi-24.11.so", "")
            .link(&loader, "../../../lib/kopi/librte_net_kopi.so");
        assert_eq!(findings(&packaged)[0].severity, Ok, "{:?}", findings(&packaged));
    }
}

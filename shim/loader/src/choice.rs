//! Which driver is opened: the one for the release that runs, if it can be trusted.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How the files begin and end whose middle is a release.
const PREFIX: &str = "librte_net_kopi-";
const SUFFIX: &str = ".so";

/// The driver for an application in which `rte_version` reports `version`, beside the loader at `own`.
///
/// # Errors
///
/// One line for the user.
pub(crate) fn driver_for(version: &str, own: &Path) -> Result<PathBuf, String> {
    let folder = own.parent().unwrap_or_else(|| Path::new("."));
    let number = version.strip_prefix("DPDK ").unwrap_or(version);
    let release = release(number).ok_or_else(|| format!("\"{version}\" is no version of DPDK"))?;
    let driver = folder.join(format!("{PREFIX}{release}{SUFFIX}"));
    match fs::metadata(&driver) {
        Ok(found) => {
            let owners = [0, fs::metadata(own).map_or(0, |own| own.uid())];
            if !is_trusted(&found, &owners) {
                return Err(format!(
                    "{} can be written by others than root and the owner of {}",
                    driver.display(),
                    own.display()
                ));
            }
            Ok(driver)
        }
        Err(error) => {
            let there = releases(folder);
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            Err(format!(
                "this application runs DPDK {number}, and {} cannot be read ({error}); there are drivers for: {there}",
                driver.display()
            ))
        }
    }
}

/// Year and month of "24.11.8" as drivers have them in their names, "24.11".
fn release(number: &str) -> Option<String> {
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u8>);
    let (year, month) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some(format!("{year}.{month:02}"))
}

/// Whether nobody but `owners` can write to this file. Who can write to the folder can replace the driver between this check and the
/// use of the path, and can as well replace the loader. EAL, too, looks at folders only whether everybody may write to them, and only
/// where it is given a path.
fn is_trusted(file: &fs::Metadata, owners: &[u32]) -> bool {
    file.is_file() && owners.contains(&file.uid()) && file.mode() & 0o022 == 0
}

/// The releases for which there is a driver in `folder`.
fn releases(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: Result<fs::DirEntry, _>| entry.ok()?.file_name().into_string().ok();
    let mut found: Vec<_> = entries
        .filter_map(name)
        .filter_map(|name| Some(name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.to_owned()))
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// The driver is that of the year and month, whatever comes behind; without one, the line says which there are; and one that
    /// others may write to is refused.
    #[test]
    fn driver_is_that_of_the_release() {
        let folder = std::env::temp_dir().join(format!("kopi-loader-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let own = folder.join("librte_net_kopi.so");
        for release in ["22.11", "24.11"] {
            fs::write(folder.join(format!("librte_net_kopi-{release}.so")), "").unwrap();
        }
        fs::write(&own, "").unwrap();
        let driver = folder.join("librte_net_kopi-24.11.so");
        for version in ["DPDK 24.11.8", "DPDK 24.11.0-rc1", "DPDK 24.11"] {
            assert_eq!(driver_for(version, &own), Ok(driver.clone()), "{version}");
        }
        let line = driver_for("DPDK 24.07.0", &own).unwrap_err();
        assert!(line.contains("DPDK 24.07.0") && line.ends_with(": 22.11, 24.11") && !line.contains('\n'), "{line}");
        for version in ["", "DPDK", "DPDK x.y", "DPDK 24", "DPDK 2411.8"] {
            assert!(driver_for(version, &own).is_err(), "{version}");
        }
        for (mode, trusted) in [(0o755, true), (0o644, true), (0o775, false), (0o757, false)] {
            fs::set_permissions(&driver, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(driver_for("DPDK 24.11.8", &own).is_ok(), trusted, "{mode:o}");
        }
        let file = fs::metadata(folder.join("librte_net_kopi-22.11.so")).unwrap();
        assert!(is_trusted(&file, &[file.uid()]) && !is_trusted(&file, &[file.uid() + 1]));
        assert!(!is_trusted(&fs::metadata(&folder).unwrap(), &[file.uid()]), "a folder");
        fs::remove_dir_all(&folder).unwrap();
    }
}

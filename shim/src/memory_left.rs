//! How much memory this process can have before somebody is killed for it.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that the machine has left, or a control group (version 2) of this process's if that is less.
pub(crate) fn memory_left() -> u64 {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = groups(&text("/proc/self/cgroup")).into_iter().filter_map(|group| left_in(&group));
    groups.chain(available(&text("/proc/meminfo"))).min().unwrap_or(u64::MAX)
}

/// `MemAvailable` of `/proc/meminfo`, which is in KiB.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The folders of the group of version 2 that `/proc/self/cgroup` names, and of those above.
fn groups(own: &str) -> Vec<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let folder = path.map(|path| Path::new("/sys/fs/cgroup").join(path));
    folder
        .iter()
        .flat_map(|folder| folder.ancestors())
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
        .map(Path::to_owned)
        .collect()
}

fn left_in(group: &Path) -> Option<u64> {
    // `max` is no number, and no limit.
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's texts are understood, and others say nothing.
    #[test]
    fn texts_of_the_kernel_are_read() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   22 kB\nBuffers: 1 kB\n"), Some(22 << 10));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        let paths: Vec<_> = ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"].map(PathBuf::from).into();
        assert_eq!(groups("1:cpu:/x\n0::/a/b\n"), paths);
        assert_eq!((groups("0::/\n").len(), groups("1:memory:/x\n").len()), (1, 0));
        assert!(memory_left() > 0 && memory_left() < u64::MAX);
    }
}

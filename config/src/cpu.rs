//! CPU numbers.

use std::collections::BTreeSet;
use std::{fs, io};

/// The CPUs that are online, as the kernel lists them.
///
/// # Errors
///
/// If sysfs is not mounted, or holds a list that is not one.
///
/// # Source
///
/// The kernel's `Documentation/admin-guide/cputopology.rst`, "online".
pub fn online_cpus() -> io::Result<BTreeSet<u16>> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online")?;
    parse_cpu_list(list.trim_end()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a list of CPUs"))
}

/// Reads the kernel's list format: `0-3,8,10-11`. `None` if it is anything else.
#[must_use]
pub fn parse_cpu_list(list: &str) -> Option<BTreeSet<u16>> {
    let mut cpus = BTreeSet::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// Writes the kernel's list format.
pub(crate) fn cpu_list(cpus: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let range = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's list is read, and written back in the same form.
    #[test]
    fn cpu_lists_read_and_write() {
        for list in ["0", "0-1", "0-3,8,10-11", "", "1023"] {
            assert_eq!(cpu_list(&parse_cpu_list(list).unwrap()), list);
        }
        for list in ["a", "1-", "-1", "1 2", "65536"] {
            assert_eq!(parse_cpu_list(list), None, "{list}");
        }
    }

    /// The machine that runs the tests has a CPU.
    #[test]
    fn a_machine_has_a_cpu() {
        assert!(!online_cpus().unwrap().is_empty());
    }
}

//! CPU numbers.

use std::collections::BTreeSet;
use std::{fs, io};

use crate::document::Place;
use crate::report::{Diagnostic, Errors};

/// The CPUs that the workers run on, by the kernel's numbers: 1 to 64 of them, all different.
///
/// Whether they exist is another question, asked with [`Cores::check_online`] on the machine that runs the daemon, so
/// that a file can be checked anywhere.
#[derive(Clone, Debug)]
pub struct Cores {
    cpus: Vec<u16>,
    /// For each of `cpus`, an error that points at it and has no text yet.
    places: Vec<Diagnostic>,
}

impl Cores {
    /// Most workers.
    pub const COUNT_MAX: usize = 64;
    /// Largest CPU number: one less than `CPU_SETSIZE`, the size of the C library's CPU sets.
    pub const CPU_MAX: u16 = 1023;

    /// The CPU numbers in the order of the file; one worker each.
    #[must_use]
    pub fn cpus(&self) -> &[u16] {
        &self.cpus
    }

    /// Checks that no CPU stands twice in `key` of `table`, and notes where each stands.
    pub(crate) fn locate(&mut self, table: &Place<'_>, key: &str) {
        let mut seen = BTreeSet::new();
        for (index, cpu) in self.cpus.iter().enumerate() {
            let element = table.element(key, index);
            if !seen.insert(cpu) {
                let help = "each worker needs a CPU of its own".to_owned();
                table.fail(&element, &format!("names CPU {cpu} a second time"), Some(help));
            }
            self.places.push(table.locate(&element, key));
        }
    }

    /// Checks that each of them is among `online`.
    ///
    /// # Errors
    ///
    /// One for each CPU that is not.
    pub fn check_online(&self, online: &BTreeSet<u16>) -> Result<(), Errors> {
        let missing = self.cpus.iter().zip(&self.places).filter(|(cpu, _)| !online.contains(cpu));
        let errors: Vec<_> = missing
            .map(|(cpu, place)| Diagnostic {
                message: format!("CPU {cpu} of `cores` in [dataplane] is not online"),
                help: Some(format!("online are {}", cpu_list(online))),
                ..place.clone()
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(Errors::from(errors)) }
    }
}

impl From<Vec<u16>> for Cores {
    fn from(cpus: Vec<u16>) -> Self {
        Self { cpus, places: Vec::new() }
    }
}

impl PartialEq for Cores {
    /// Compares the CPUs; where they stand in the file does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.cpus == other.cpus
    }
}

impl Eq for Cores {}

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

/// Reads the kernel's list format: `0-3,8,10-11`.
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
fn cpu_list(cpus: &BTreeSet<u16>) -> String {
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

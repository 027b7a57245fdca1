//! CPU numbers.

use std::collections::BTreeSet;
use std::{fs, io};

use serde_json::{Value as Json, json};

use crate::form::{Int, List};
use crate::report::{Diagnostic, Errors};
use crate::walk::{Form, Item};

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

/// The form of [`Cores`].
#[derive(Clone, Copy, Debug)]
pub struct CoresForm;

impl CoresForm {
    const LIST: List<Int<u16>> = List { each: Int::range(0, Cores::CPU_MAX), min: 1, max: Cores::COUNT_MAX };
}

impl Form for CoresForm {
    type Value = Cores;

    fn expected(&self) -> String {
        format!("a list of 1 to {} different CPU numbers", Cores::COUNT_MAX)
    }

    fn schema(&self) -> Json {
        let mut schema = Self::LIST.schema();
        schema["uniqueItems"] = json!(true);
        schema
    }

    fn read(&self, item: &Item<'_>) -> Option<Cores> {
        let cpus = Self::LIST.read(item)?;
        let elements = item.elements()?;
        let mut seen = BTreeSet::new();
        let mut places = Vec::new();
        for (cpu, element) in cpus.iter().zip(elements) {
            if !seen.insert(cpu) {
                let help = "each worker needs a CPU of its own".to_owned();
                element.fail::<()>(&format!("names CPU {cpu} a second time"), Some(help));
            }
            let mut place = element.source().error_at(element.span.clone(), String::new());
            place.key = Some("dataplane.cores".to_owned());
            places.push(place);
        }
        (seen.len() == cpus.len()).then_some(Cores { cpus, places })
    }
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

//! What a results page must say about where its numbers come from.

use std::process::Command;
use std::{env, fs};

/// What stands between a processor's name and its family.
const FAMILY: &str = " (family ";

/// The machine, the software and the command line of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// Day of the run, as ISO 8601 in UTC.
    pub(crate) date: String,
    /// The processor's name, with its family and model: names of virtual machines' processors say little.
    pub(crate) cpu: String,
    /// How many processors the kernel sees.
    pub(crate) cpus: usize,
    /// The kernel's name and release.
    pub(crate) kernel: String,
    /// The hypervisor's kind, `none` on bare metal.
    pub(crate) hypervisor: String,
    /// DPDK's version.
    pub(crate) dpdk: String,
    /// Open vSwitch's version.
    pub(crate) ovs: String,
    /// The commit of the sources, marked if they were changed since.
    pub(crate) commit: String,
    /// How the run was started.
    pub(crate) command_line: String,
}

impl Machine {
    /// Looks around. What cannot be found out is `unknown`.
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let changed = !said("git", &["-C", crate::FOLDER, "status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = said("git", &["-C", crate::FOLDER, "rev-parse", "--short=12", "HEAD"]);
        let args: Vec<String> = env::args().skip(1).collect();
        Self {
            date: known(said("date", &["-u", "+%F"])),
            cpu: known(cpu_name(&cpuinfo)),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: known(said("uname", &["-sr"])),
            hypervisor: known(said("systemd-detect-virt", &["--vm"])),
            dpdk: known(said("pkg-config", &["--modversion", "libdpdk"])),
            ovs: known(said("ovs-vsctl", &["--version"]).lines().next().unwrap_or_default().to_owned()),
            commit: known(commit) + if changed { " (with uncommitted changes)" } else { "" },
            command_line: format!("kopi-bench {}", args.join(" ")),
        }
    }

    /// A short name of this kind of machine, fit for a file name.
    pub(crate) fn kind(&self) -> String {
        let words = self.cpu.split(FAMILY).next().unwrap_or_default().to_lowercase();
        let words: Vec<&str> =
            words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let short = words.get(..words.len().min(4)).unwrap_or_default().join("-");
        format!("{short}-{}cpu", self.cpus)
    }
}

fn cpu_name(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(key, value)| (key.trim(), value.trim())).find_map(|(key, value)| (key == name).then_some(value))
    };
    let name = field("model name").unwrap_or_default().to_owned();
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name}{FAMILY}{family}, model {model})"),
        _ => name,
    }
}

/// What a program prints, trimmed; nothing if it cannot be run.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn known(text: String) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_fit_for_a_file_name() {
        let cpu = "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz".to_owned();
        assert_eq!(Machine { cpu, cpus: 64, ..Machine::default() }.kind(), "intel-r-xeon-r-64cpu");
        let cpu = cpu_name("processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n");
        assert_eq!(cpu, "AMD EPYC (family 25, model 17)");
        assert_eq!(Machine { cpu, cpus: 2, ..Machine::default() }.kind(), "amd-epyc-2cpu");
    }
}

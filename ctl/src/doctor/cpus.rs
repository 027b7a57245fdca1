//! The workers' CPUs: that they are there, kept free of other work, share their core with nobody, and run at full speed.

use super::Host;
use super::finding::Finding;
use kopi_config::parse_cpu_list;
use std::collections::BTreeSet;

const CHECK: &str = "cpus";
const FOLDER: &str = "/sys/devices/system/cpu";

/// Looks at each worker's.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    let Some(config) = &host.config else { return Vec::new() };
    let cores: BTreeSet<u16> = config.dataplane.cores.iter().copied().collect();
    let mut found: Vec<_> =
        [online(host, &cores), isolated(host, &cores), siblings(host, &cores), governors(host, &cores)]
            .into_iter()
            .flatten()
            .collect();
    if found.is_empty() {
        found.push(Finding::ok(CHECK, format!("{} of the workers: online, isolated, at full speed", list(&cores))));
    }
    found
}

/// The CPUs in a file of the kernel's.
fn cpus(host: &Host, file: &str) -> Option<BTreeSet<u16>> {
    let text = host.root.text(format!("{FOLDER}/{file}"))?;
    if text.is_empty() { Some(BTreeSet::new()) } else { parse_cpu_list(&text) }
}

fn list(cpus: &BTreeSet<u16>) -> String {
    let numbers = cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    format!("CPU {numbers}")
}

fn numbers(cpus: &BTreeSet<u16>) -> String {
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn online(host: &Host, cores: &BTreeSet<u16>) -> Option<Finding> {
    let online = cpus(host, "online")?;
    let missing: BTreeSet<_> = cores.difference(&online).copied().collect();
    let first = missing.first()?;
    let remedy = if host.root.has(format!("{FOLDER}/cpu{first}/online")) {
        format!("echo 1 >{FOLDER}/cpu{first}/online")
    } else {
        "name others in `cores` of [dataplane]: lscpu -e".to_owned()
    };
    Some(Finding::error(CHECK, format!("{} of [dataplane] is not online", list(&missing)), remedy))
}

fn isolated(host: &Host, cores: &BTreeSet<u16>) -> Option<Finding> {
    let isolated = cpus(host, "isolated").unwrap_or_default();
    let others: BTreeSet<_> = cores.difference(&isolated).copied().collect();
    others.first()?;
    let message =
        format!("{} of the workers is not isolated: the kernel takes workers off it for other work", list(&others));
    // The kernel starts on CPU 0 and keeps work there (Linux, Documentation/timers/no_hz.rst).
    if others.contains(&0) {
        return Some(Finding::warning(
            CHECK,
            message,
            "name others than 0 in `cores` of [dataplane], and isolate those",
        ));
    }
    let all = numbers(&isolated.union(cores).copied().collect());
    let remedy = format!(
        "add isolcpus={all} nohz_full={all} rcu_nocbs={all} to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
    );
    Some(Finding::warning(CHECK, message, remedy))
}

/// Hyper-threads of one core share what makes it fast.
fn siblings(host: &Host, cores: &BTreeSet<u16>) -> Option<Finding> {
    let online = cpus(host, "online").unwrap_or_default();
    for core in cores {
        let Some(threads) = cpus(host, &format!("cpu{core}/topology/thread_siblings_list")) else { continue };
        let others: BTreeSet<_> = threads.into_iter().filter(|cpu| cpu != core && online.contains(cpu)).collect();
        let Some(other) = others.first() else { continue };
        if others.iter().any(|cpu| cores.contains(cpu)) {
            let message = format!("CPU {core} and {} of workers are threads of one core", numbers(&others));
            return Some(Finding::warning(
                CHECK,
                message,
                "name CPUs of different cores in `cores` of [dataplane]: lscpu -e",
            ));
        }
        let message =
            format!("{} is the other thread of the core of worker CPU {core}, and slows it down", list(&others));
        // Most kernels have no such file for CPU 0.
        let switch = format!("{FOLDER}/cpu{other}/online");
        let remedy = if host.root.has(&switch) {
            format!("echo 0 >{switch}")
        } else {
            "name CPUs of other cores in `cores` of [dataplane]: lscpu -e".to_owned()
        };
        return Some(Finding::warning(CHECK, message, remedy));
    }
    None
}

/// Virtual machines have none.
fn governors(host: &Host, cores: &BTreeSet<u16>) -> Option<Finding> {
    let governor = |core: &u16| host.root.text(format!("{FOLDER}/cpu{core}/cpufreq/scaling_governor"));
    let slow = cores.iter().find(|core| governor(core).is_some_and(|governor| governor != "performance"))?;
    let message = format!("CPU {slow} of a worker has the frequency governor `{}`", governor(slow).unwrap_or_default());
    let each = cores.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let remedy = format!("for n in {each}; do echo performance >{FOLDER}/cpu$n/cpufreq/scaling_governor; done");
    Some(Finding::warning(CHECK, message, remedy))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Error, Ok, Warning};
    use super::super::root::Fake;
    use super::*;

    const CONFIG: &str = "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [2, 3]\n";

    fn good() -> Fake {
        let root = Fake::new().file(&format!("{FOLDER}/online"), "0-5\n").file(&format!("{FOLDER}/isolated"), "2-3\n");
        (2..4).fold(root, |root, cpu| {
            root.file(&format!("{FOLDER}/cpu{cpu}/topology/thread_siblings_list"), &format!("{cpu},{}\n", cpu + 4))
                .file(&format!("{FOLDER}/cpu{cpu}/cpufreq/scaling_governor"), "performance\n")
        })
    }

    fn findings(root: &Fake) -> Vec<Finding> {
        check(&Host::fake(root, CONFIG))
    }

    /// Nothing is said of workers that have what they need; CPU 6 and 7 are off.
    #[test]
    fn good_cpus_are_good() {
        let found = findings(&good());
        assert!(found.len() == 1 && found[0].severity == Ok, "{found:?}");
    }

    /// Each fault is found by itself, with its remedy.
    #[test]
    fn each_fault_is_found() {
        let cases = [
            ("online", "0-2\n", Error, "name others"),
            ("isolated", "\n", Warning, "isolcpus=2,3 "),
            ("isolated", "1,3\n", Warning, "isolcpus=1,2,3 "),
            ("online", "0-7\n", Warning, "echo 0 >/sys/devices/system/cpu/cpu6/online"),
            ("cpu2/topology/thread_siblings_list", "2-3\n", Warning, "different cores"),
            ("cpu3/cpufreq/scaling_governor", "powersave\n", Warning, "for n in 2 3; do echo performance"),
        ];
        for (file, text, severity, remedy) in cases {
            let root = good().file(&format!("{FOLDER}/cpu6/online"), "1\n").file(&format!("{FOLDER}/{file}"), text);
            let found = findings(&root);
            assert!(found.len() == 1 && found[0].severity == severity, "{file}: {found:?}");
            assert!(found[0].remedy.as_ref().is_some_and(|text| text.contains(remedy)), "{file}: {found:?}");
        }
        let fixed = findings(&good().file(&format!("{FOLDER}/online"), "0-7\n"));
        assert!(fixed[0].remedy.as_ref().is_some_and(|text| text.contains("name CPUs")), "{fixed:?}");
    }
}

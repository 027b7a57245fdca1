//! The arguments of EAL: CPUs, memory and the wire's device.

use crate::control::memory::free_huge_memory;
use crate::control::wire_device::frame_room;
use kopi_config::{Config, Device, HugePages};
use std::collections::BTreeSet;

/// Bytes of DPDK memory beyond the packet buffers, for its own structures and the drivers'.
const DPDK_MEMORY: u64 = 96 << 20;
/// Bytes of a packet buffer besides the frame: `rte_mbuf`, headroom, the pool's header and padding.
const MBUF_OVERHEAD: u64 = 128 + 128 + 192;

/// Of the CPUs that are `online` those on which no worker runs.
pub(super) fn other_cpus(config: &Config, online: &BTreeSet<u16>) -> Vec<u16> {
    let cores = &config.dataplane.cores;
    online.iter().copied().filter(|cpu| !cores.contains(cpu)).collect()
}

/// The arguments of EAL: kopid's own, and those of `[eal] args`.
pub(super) fn eal_args(config: &Config, online: &BTreeSet<u16>) -> Vec<String> {
    merge(own_args(config, online), &config.eal.args)
}

/// Kopid's own arguments. Memory comes from huge pages without any file system mounted, or from ordinary pages.
fn own_args(config: &Config, online: &BTreeSet<u16>) -> Vec<String> {
    let cores = &config.dataplane.cores;
    let others: Vec<String> = other_cpus(config, online).iter().map(u16::to_string).collect();
    let all: Vec<String> = online.iter().map(u16::to_string).collect();
    // The control thread keeps off the workers' CPUs, if there are any others.
    let control = if others.is_empty() { all } else { others };
    let mut args = vec![format!("--lcores=0@({})", control.join(",")), "--file-prefix=kopid".to_owned()];
    let mbufs = u64::from(config.dataplane.mbufs) * cores.len() as u64;
    let need = mbufs * (u64::from(frame_room(&config.wire)) + MBUF_OVERHEAD) + DPDK_MEMORY;
    let huge = match config.memory.huge_pages {
        HugePages::Off => false,
        HugePages::Require => true,
        HugePages::Auto => free_huge_memory() >= need,
    };
    if huge {
        args.push("--in-memory".into());
    } else {
        if config.memory.huge_pages == HugePages::Auto {
            log::warn!(
                "{} MiB of free huge pages are too few for {} MiB of packet buffers: using 4 KiB pages, which is \
                 slower. `sysctl vm.nr_hugepages` or `dpdk-hugepages.py --setup` makes more",
                free_huge_memory() >> 20,
                need >> 20
            );
        }
        args.push("--no-huge".into());
        args.push(format!("-m{}", need >> 20));
    }
    match &config.wire.device {
        Device::Pci { .. } => args.push(format!("-a{}", config.wire.device.devargs())),
        Device::Virtual { .. } => args.push("--no-pci".into()),
    }
    args
}

/// `own` and then `given`, without what is in `given` anyway: EAL of DPDK 25.11 ends the process when an option comes twice.
fn merge(mut own: Vec<String>, given: &[String]) -> Vec<String> {
    let is_given = |option: &str| given.iter().any(|arg| option_of(arg) == option);
    own.retain(|arg| REPEATED.contains(&option_of(arg)) || !is_given(option_of(arg)));
    own.extend(given.iter().cloned());
    own
}

/// Options of kopid's own that EAL takes more than once.
const REPEATED: [&str; 2] = ["-a", "--log-level"];

/// The option that an argument gives: `--name` of `--name=value`, and `-m` of `-m16` and of `--memory-size`, which is its long name.
fn option_of(arg: &str) -> &str {
    let name = arg.split('=').next().unwrap_or(arg);
    match name {
        "--memory-size" => "-m",
        _ if name.starts_with("--") => name,
        _ => name.get(..2).unwrap_or(name),
    }
}

/// EAL's arguments without the wire, in files of nobody else's, in little memory, and with messages about errors alone.
pub(super) fn check_args(config: &Config, online: &BTreeSet<u16>) -> Vec<String> {
    let is_memory = |arg: &str| arg.starts_with("-m") && arg[2..].bytes().all(|byte| byte.is_ascii_digit());
    let mut args = own_args(config, online);
    for arg in &mut args {
        if arg.starts_with("-a") {
            *arg = "--no-pci".to_owned();
        } else if arg.starts_with("--file-prefix") {
            // EAL leaves a folder of this name behind.
            *arg = "--file-prefix=kopid-check".to_owned();
        } else if is_memory(arg) {
            *arg = "-m16".to_owned();
        }
    }
    args.extend(["--no-shconf".to_owned(), "--log-level=*:error".to_owned()]);
    merge(args, &config.eal.args)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No option comes twice, what the administrator gives is what holds, and lists are added to.
    #[test]
    fn no_option_comes_twice() {
        let merged = |own: &[&str], given: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            merge(words(own), &words(given)).join(" ")
        };
        let own = ["--lcores=0@(1)", "--file-prefix=kopid", "--no-huge", "-m64", "--no-pci"];
        assert_eq!(merged(&own, &[]), own.join(" "));
        assert_eq!(
            merged(&own, &["--no-pci", "--file-prefix", "mine", "-m", "512"]),
            "--lcores=0@(1) --no-huge --no-pci --file-prefix mine -m 512"
        );
        assert_eq!(
            merged(&own, &["--memory-size=512", "--no-huge", "--file-prefix=mine"]),
            "--lcores=0@(1) --no-pci --memory-size=512 --no-huge --file-prefix=mine"
        );
        assert_eq!(
            merged(&["-a0000:01:00.0", "--log-level=*:error"], &["-a0000:02:00.0", "--log-level=lib.eal:debug"]),
            "-a0000:01:00.0 --log-level=*:error -a0000:02:00.0 --log-level=lib.eal:debug"
        );
    }
}

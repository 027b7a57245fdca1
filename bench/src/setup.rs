//! What every contender is given: cores, a private folder, huge pages, programs.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{env, process};

use crate::error::{BenchError, Doing, Result};
use crate::interrupt::Interrupt;

/// Where the kernel keeps the number of 2 MiB huge pages.
const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";

/// The run's surroundings.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Core (kernel CPU number) of the dataplane: the contender's one poll-mode thread.
    pub(crate) dataplane_core: usize,
    /// Core of the application.
    pub(crate) app_core: usize,
    /// Folder for sockets, databases and configuration, gone after the run.
    pub(crate) folder: Folder,
    /// The unmodified DPDK application.
    pub(crate) testpmd: PathBuf,
    /// This program, which is also the latency application.
    pub(crate) program: PathBuf,
    /// Where kopid, kopictl and librte_net_kopi.so lie.
    pub(crate) kopi: PathBuf,
    /// Set by Ctrl-C.
    pub(crate) interrupt: Interrupt,
}

impl Setup {
    /// A name for `--file-prefix` and sockets that no other DPDK process on the machine has.
    pub(crate) fn prefix(&self, program: &str) -> String {
        format!("kopi-bench-{}-{program}", process::id())
    }

    /// A path in the private folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// The cores of `count` workers: the dataplane's, others that this process may use, and the application's if they are not
    /// enough.
    pub(crate) fn worker_cores(&self, count: usize) -> Vec<usize> {
        let all = core_affinity::get_core_ids().unwrap_or_default();
        let others =
            all.into_iter().map(|core| core.id).filter(|core| ![self.dataplane_core, self.app_core].contains(core));
        std::iter::once(self.dataplane_core).chain(others).chain([self.app_core]).take(count).collect()
    }

    /// EAL arguments for a process with its only thread on `core`.
    ///
    /// Both the main lcore, which reads commands, and the polling lcore share the core: the other core belongs to the
    /// other side. Memory comes from huge pages without a mounted hugetlbfs, in a file that can be shared by its
    /// descriptor, as vhost-user needs.
    pub(crate) fn eal_args(&self, program: &str, core: usize) -> Vec<String> {
        let prefix = self.prefix(program);
        let lcores = format!("0@{core},1@{core}");
        ["--lcores", &lcores, "--in-memory", "--single-file-segments", "--no-telemetry", "--file-prefix", &prefix]
            .into_iter()
            .chain(["-m", "64"])
            .map(str::to_owned)
            .collect()
    }
}

/// A private folder under the system's temporary one. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, for this user only.
    pub(crate) fn create() -> Result<Self> {
        let path = env::temp_dir().join(format!("kopi-bench.{}", process::id()));
        DirBuilder::new().mode(0o700).create(&path).doing(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is a few dead sockets; there is nobody to tell.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// The wire that the dataplane owns, as DPDK device arguments.
#[derive(Clone, Debug)]
pub(crate) struct Wire(String);

impl Wire {
    /// A wire from a PCI address or the arguments of a virtual device.
    pub(crate) fn new(device: impl Into<String>) -> Self {
        Self(device.into())
    }

    /// The device arguments as given.
    pub(crate) fn device(&self) -> &str {
        &self.0
    }

    /// Whether this is a PCI device, such as `0000:01:00.0` or `01:00.0`.
    pub(crate) fn is_pci(&self) -> bool {
        let address = self.0.split(',').next().unwrap_or_default();
        address.contains(':') && address.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
    }

    /// Whether this wire needs nothing of the host: neither a PCI device nor a kernel interface.
    pub(crate) fn is_virtual(&self) -> bool {
        let file = self.0.starts_with("net_pcap") && !self.0.contains("iface");
        file || ["net_null", "net_ring"].iter().any(|driver| self.0.starts_with(driver))
    }

    /// The EAL arguments that open this wire and no other PCI device.
    pub(crate) fn eal_args(&self) -> Vec<String> {
        if self.is_pci() {
            vec!["-a".to_owned(), self.0.clone()]
        } else {
            vec!["--no-pci".to_owned(), "--vdev".to_owned(), self.0.clone()]
        }
    }
}

/// A raised number of huge pages. Dropping it puts the number back.
#[derive(Debug)]
pub(crate) struct HugePages {
    before: Option<u64>,
}

impl HugePages {
    /// Sees to it that `pages` huge pages of 2 MiB are free.
    ///
    /// # Errors
    ///
    /// When the kernel does not give them, for lack of memory or of the right.
    pub(crate) fn reserve(pages: u64) -> Result<Self> {
        let free = meminfo("HugePages_Free")?;
        if free >= pages {
            return Ok(Self { before: None });
        }
        let before = fs::read_to_string(NR_HUGEPAGES).doing(|| format!("read {NR_HUGEPAGES}"))?;
        let before =
            before.trim().parse().map_err(|_| BenchError::Failed(format!("{NR_HUGEPAGES} holds no number")))?;
        let wanted: u64 = before + pages - free;
        fs::write(NR_HUGEPAGES, wanted.to_string()).doing(|| format!("set {NR_HUGEPAGES} to {wanted}"))?;
        let raised = Self { before: Some(before) };
        match meminfo("HugePages_Free")? {
            got if got >= pages => Ok(raised),
            got => Err(BenchError::Failed(format!("{pages} free huge pages are needed, the kernel gave {got}"))),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // The pages stay reserved if this fails, as `sysctl vm.nr_hugepages` shows.
            let _restored = fs::write(NR_HUGEPAGES, before.to_string());
        }
    }
}

fn meminfo(key: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").doing(|| "read /proc/meminfo".to_owned())?;
    field(&text, key).ok_or_else(|| BenchError::Failed(format!("/proc/meminfo has no {key}: no huge pages here")))
}

fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Finds `program` in `PATH`, or takes it as a path.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&paths).map(|folder| folder.join(program));
    all.chain([PathBuf::from(program)]).find(|path| is_file(path))
}

/// Whether `path` is a file that can be looked at.
pub(crate) fn is_file(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for (device, pci) in [
            ("0000:01:00.0", true),
            ("01:00.0", true),
            ("0000:01:00.0,rxq_cqe_comp_en=1", true),
            ("net_null0,size=64", false),
            ("net_af_xdp0,iface=eth1", false),
            ("", false),
        ] {
            assert_eq!(Wire::new(device).is_pci(), pci, "{device}");
        }
    }

    #[test]
    fn a_wire_of_a_file_needs_no_interface() {
        assert!(Wire::new("net_pcap0,rx_pcap=flows.pcap,infinite_rx=1").is_virtual());
        assert!(!Wire::new("net_pcap0,rx_iface_in=eth1").is_virtual());
    }

    #[test]
    fn meminfo_fields_are_matched_whole() {
        let text = "HugePages_Total:    1024\nHugePages_Free:      832\nHugePages_Free2:  1\n";
        assert_eq!(field(text, "HugePages_Free"), Some(832));
        assert_eq!(field(text, "HugePages_F"), None);
    }
}

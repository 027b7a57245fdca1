//! Huge pages: those that are reserved, and those that the kernel makes by itself.

use super::Host;
use super::finding::Finding;
use kopi_config::{Config, HugePages};

const CHECK: &str = "huge pages";
const FOLDER: &str = "/sys/kernel/mm/hugepages";
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// Bytes of the pages that `vm.nr_hugepages` counts.
const SMALL: u64 = 2 << 20;
/// Pages of 2 MiB that are enough for kopid and some applications.
const ENOUGH: u64 = 512;
/// Bytes of a packet buffer beside the frame, and of DPDK's own, as kopid reckons.
const MBUF: u64 = 600;
const DPDK: u64 = 96 << 20;

/// Looks at both.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    let wanted = host.config.as_ref().map(|config| config.memory.huge_pages).unwrap_or_default();
    if wanted == HugePages::Off {
        return vec![Finding::ok(CHECK, "switched off by `huge_pages` in [memory]")];
    }
    [Some(reserved(host, wanted)), transparent(host)].into_iter().flatten().collect()
}

fn reserved(host: &Host, wanted: HugePages) -> Finding {
    let (mut total, mut free, mut small_used) = (0, 0, 0);
    for folder in host.root.names(FOLDER) {
        let kib = folder.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB")?.parse::<u64>().ok());
        let of = |file: &str| host.root.number(format!("{FOLDER}/{folder}/{file}")).unwrap_or(0);
        let bytes = kib.unwrap_or(0) << 10;
        total += of("nr_hugepages") * bytes;
        free += of("free_hugepages") * bytes;
        // Those that the remedy is about.
        if bytes == SMALL {
            small_used = of("nr_hugepages").saturating_sub(of("free_hugepages"));
        }
    }
    let need = host.config.as_ref().map_or(0, need);
    let state = format!("{} MiB are reserved, {} MiB of them free", total >> 20, free >> 20);
    // A kopid that runs has its own.
    if total > 0 && (host.kopid.is_some() || free >= need) {
        return Finding::ok(CHECK, state);
    }
    let message = format!("{state}; kopid's packet buffers take about {} MiB", need >> 20);
    let pages = (small_used + need.div_ceil(SMALL)).max(ENOUGH);
    let remedy = format!("sysctl -w vm.nr_hugepages={pages}; echo vm.nr_hugepages={pages} >/etc/sysctl.d/90-kopi.conf");
    match wanted {
        HugePages::Require if host.kopid.is_none() => Finding::error(CHECK, message, remedy),
        _ => Finding::warning(CHECK, format!("{message}. Without huge pages it is slower"), remedy),
    }
}

/// Bytes for the packet buffers.
fn need(config: &Config) -> u64 {
    let mbufs = u64::from(config.dataplane.mbufs) * config.dataplane.cores.len() as u64;
    mbufs * (u64::from(config.wire.mtu) + MBUF) + DPDK
}

/// Flow tables lie in them.
fn transparent(host: &Host) -> Option<Finding> {
    let setting = host.root.text(TRANSPARENT)?;
    setting.contains("[never]").then(|| {
        let message = "the kernel makes no transparent huge pages, in which flow tables are faster";
        Finding::warning(CHECK, message, format!("echo madvise >{TRANSPARENT}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{self, Error, Ok, Warning};
    use super::super::root::Fake;
    use super::*;
    use kopi_api::Status;

    fn machine(total: u64, free: u64) -> Fake {
        Fake::new()
            .file(&format!("{FOLDER}/hugepages-2048kB/nr_hugepages"), &format!("{total}\n"))
            .file(&format!("{FOLDER}/hugepages-2048kB/free_hugepages"), &format!("{free}\n"))
            .file(TRANSPARENT, "always [madvise] never\n")
    }

    fn config(huge_pages: &str) -> String {
        format!("[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n[memory]\nhuge_pages = \"{huge_pages}\"\n")
    }

    /// Too few are a warning, an error where they are required, and nothing where they are not wanted or kopid has them already.
    #[test]
    fn pages_are_enough() {
        let severity = |root: &Fake, setting: &str| check(&Host::fake(root, &config(setting)))[0].severity;
        let expect: [(u64, u64, [Severity; 3]); 3] =
            [(0, 0, [Warning, Error, Ok]), (512, 512, [Ok, Ok, Ok]), (512, 3, [Warning, Error, Ok])];
        for (total, free, severities) in expect {
            let root = machine(total, free);
            assert_eq!(
                ["auto", "require", "off"].map(|setting| severity(&root, setting)),
                severities,
                "{total} {free}"
            );
        }
        let full = machine(512, 0);
        assert_eq!(check(&Host::fake(&full, &config("require")).with(Status::default()))[0].severity, Ok);
    }

    /// The command reserves what is missing beside what others have.
    #[test]
    fn remedy_reserves_enough() {
        let found = check(&Host::fake(&machine(1000, 0), &config("auto")));
        let remedy = found[0].remedy.clone().unwrap();
        let pages: u64 = remedy.split(['=', ';']).nth(1).unwrap().parse().unwrap();
        assert!((1050..1200).contains(&pages), "{remedy}");
    }

    /// A kernel that makes none by itself is told of.
    #[test]
    fn transparent_pages_are_wanted() {
        let root = machine(512, 512).file(TRANSPARENT, "always madvise [never]\n");
        assert_eq!(check(&Host::fake(&root, &config("auto")))[1].severity, Warning);
    }
}

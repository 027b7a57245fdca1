//! The wire's device: who has it now, and for a NIC of its own IOMMU and vfio.

use super::Host;
use super::finding::Finding;
use kopi_config::Device;

const CHECK: &str = "wire";
/// Drivers of the kernel's that give a NIC to DPDK, and those under which DPDK has it beside the kernel.
const GIVERS: [&str; 4] = ["vfio-pci", "igb_uio", "uio_pci_generic", "nfp_uio"];
const SHARERS: [&str; 4] = ["mlx5_core", "mlx4_core", "mlx4_en", "mana"];
const NO_IOMMU: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
/// Where the kernel lists groups of devices that an IOMMU tells apart.
const GROUPS: &str = "/sys/kernel/iommu_groups";

/// Looks at the device that the configuration names.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    match host.config.as_ref().map(|config| &config.wire.device) {
        None => Vec::new(),
        Some(device @ Device::Pci(_)) => pci(host, device.name()),
        Some(device @ Device::Virtual(_)) => vec![interface(host, device)],
    }
}

fn pci(host: &Host, name: &str) -> Vec<Finding> {
    // EAL takes an address without its domain, too.
    let address = if name.matches(':').count() == 1 { format!("0000:{name}") } else { name.to_owned() };
    let device = format!("/sys/bus/pci/devices/{address}");
    if !host.root.has(&device) {
        return vec![Finding::error(
            CHECK,
            format!("there is no PCI device {address}"),
            "dpdk-devbind.py --status-dev net",
        )];
    }
    let bind = format!("modprobe vfio-pci; dpdk-devbind.py --bind=vfio-pci {address}");
    match host.root.link(format!("{device}/driver")) {
        Some(driver) if SHARERS.contains(&driver.as_str()) => {
            vec![Finding::ok(CHECK, format!("{address} is of `{driver}`, which leaves it to DPDK, too"))]
        }
        Some(driver) if GIVERS.contains(&driver.as_str()) => {
            let mut found = vec![Finding::ok(CHECK, format!("{address} is bound to `{driver}`"))];
            found.extend((driver == "vfio-pci").then(|| iommu(host, &device)));
            found
        }
        Some(driver) => {
            vec![Finding::error(CHECK, format!("{address} is the kernel's, under the driver `{driver}`"), bind)]
        }
        None => vec![Finding::error(CHECK, format!("{address} has no driver that gives it to DPDK"), bind)],
    }
}

fn iommu(host: &Host, device: &str) -> Finding {
    if !host.root.has("/dev/vfio/vfio") {
        return Finding::error("iommu", "there is no /dev/vfio/vfio", "modprobe vfio-pci");
    }
    // vfio makes a group of its own for a device without one.
    let is_unsafe = host.root.text(format!("{device}/iommu_group/name")).is_some_and(|name| name == "vfio-noiommu");
    if !is_unsafe && !host.root.names(GROUPS).is_empty() {
        return Finding::ok("iommu", "on");
    }
    let remedy =
        "add intel_iommu=on (amd_iommu=on) iommu=pt to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot";
    match host.root.text(NO_IOMMU).as_deref() {
        Some("Y" | "1") | None if is_unsafe => {
            Finding::warning("iommu", "off: the NIC can write to all memory of this machine", remedy)
        }
        Some("Y" | "1") => Finding::warning("iommu", "off: the NIC can write to all memory of this machine", remedy),
        _ => Finding::error(
            "iommu",
            "off, so vfio opens no device",
            format!("{remedy}; or, unsafely: echo 1 >{NO_IOMMU}"),
        ),
    }
}

fn interface(host: &Host, device: &Device) -> Finding {
    let arguments = device.devargs().split(',').find_map(|part| part.strip_prefix("iface="));
    // Other drivers make the interface that they are told of.
    let takes = ["net_af_packet", "eth_af_packet", "net_af_xdp"].iter().any(|name| device.name().starts_with(name));
    let Some(name) = arguments.filter(|_| takes) else {
        return Finding::ok(CHECK, format!("`{}` needs neither IOMMU nor vfio", device.name()));
    };
    let folder = format!("/sys/class/net/{name}");
    if !host.root.has(&folder) {
        return Finding::error(
            CHECK,
            format!("there is no interface `{name}`"),
            "name another in `device` of [wire]: ip link",
        );
    }
    match host.root.text(format!("{folder}/operstate")).as_deref() {
        Some("down") => {
            Finding::warning(CHECK, format!("interface `{name}` is down"), format!("ip link set {name} up"))
        }
        _ => Finding::ok(CHECK, format!("interface `{name}` is there; it needs neither IOMMU nor vfio")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{self, Error, Ok, Warning};
    use super::super::root::Fake;
    use super::*;

    const NIC: &str = "/sys/bus/pci/devices/0000:3b:00.0";

    fn severities(root: &Fake, device: &str) -> Vec<Severity> {
        let config = format!("[wire]\ndevice = \"{device}\"\n[dataplane]\ncores = [0]\n");
        check(&Host::fake(root, &config)).iter().map(|finding| finding.severity).collect()
    }

    /// A NIC has to be there, bound to a driver for DPDK, and behind an IOMMU, or at the risk of whoever switched that off.
    #[test]
    fn nic_is_bound_and_behind_an_iommu() {
        let bound = |driver: &str| Fake::new().link(&format!("{NIC}/driver"), &format!("/x/{driver}"));
        assert_eq!(severities(&Fake::new(), "3b:00.0"), [Error]);
        assert_eq!(severities(&Fake::new().folder(NIC, 0o755), "3b:00.0"), [Error]);
        assert_eq!(severities(&bound("ixgbe"), "0000:3b:00.0"), [Error]);
        assert_eq!(severities(&bound("mlx5_core"), "3b:00.0"), [Ok]);
        assert_eq!(severities(&bound("vfio-pci"), "3b:00.0,rx=1"), [Ok, Error]);
        let vfio = || bound("vfio-pci").file("/dev/vfio/vfio", "");
        assert_eq!(severities(&vfio().file(NO_IOMMU, "N\n"), "3b:00.0"), [Ok, Error]);
        assert_eq!(severities(&vfio().file(NO_IOMMU, "Y\n"), "3b:00.0"), [Ok, Warning]);
        let grouped = || vfio().folder(&format!("{GROUPS}/7"), 0o755);
        assert_eq!(severities(&grouped(), "3b:00.0"), [Ok, Ok]);
        let group = format!("{NIC}/iommu_group/name");
        assert_eq!(
            severities(&grouped().file(&group, "vfio-noiommu\n").file(NO_IOMMU, "Y\n"), "3b:00.0"),
            [Ok, Warning]
        );
    }

    /// An interface has to be there and up; a driver that makes its own needs none.
    #[test]
    fn interface_is_there_and_up() {
        let root =
            Fake::new().file("/sys/class/net/eth1/operstate", "up\n").file("/sys/class/net/eth2/operstate", "down\n");
        let of = |interface: &str| severities(&root, &format!("net_af_packet0,iface={interface}"));
        assert_eq!([of("eth1"), of("eth2"), of("eth3")], [[Ok], [Warning], [Error]]);
        assert_eq!(severities(&root, "net_tap0,iface=tap7"), [Ok]);
    }
}

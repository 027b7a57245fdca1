//! Binds the DPDK that pkg-config finds: bindgen over `c/wrapper.h`, and `c/inlines.c` compiled for the inline functions.
//!
//! No flag is emitted that links DPDK's libraries. The shim is loaded into applications that already carry DPDK, and
//! must not pull in a second one; a program that wants the libraries links them itself from the metadata given here:
//! `DEP_DPDK_LIBS`, `DEP_DPDK_LINK_PATHS` (both separated by spaces) and `DEP_DPDK_VERSION`.

use std::env;
use std::path::{Path, PathBuf};

/// The oldest DPDK with the driver headers under these names, as year and month.
const OLDEST: (u32, u32) = (22, 11);

/// How the parameters of `eth_dev_supported_ptypes_get_t` begin where there are two.
const WITH_COUNT: &str = "struct rte_eth_dev *dev,";

fn main() {
    for path in ["c/wrapper.h", "c/inlines.h", "c/inlines.c", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=KOPI_DPDK_DRIVER_HEADERS");

    let dpdk = pkg_config::Config::new()
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
        .unwrap_or_else(|error| panic!("no DPDK found: run ci/setup.sh\n{error}"));
    let release = release(&dpdk.version);
    assert!(release >= OLDEST, "DPDK {} is too old: 22.11 is the first that kopi supports", dpdk.version);

    let mut flags = c_flags();
    let headers = driver_headers(&dpdk.version);
    flags.push(format!("-I{}", headers.display()));
    // The driver interface is marked internal, a few functions experimental. Both are compile errors otherwise.
    flags.extend(["-DALLOW_INTERNAL_API".into(), "-DALLOW_EXPERIMENTAL_API".into()]);

    compile_inlines(&flags);
    bind(&flags);
    tell_versions(release, &headers);

    let paths: Vec<_> = dpdk.link_paths.iter().map(|path| path.display().to_string()).collect();
    println!("cargo::metadata=VERSION={}", dpdk.version);
    println!("cargo::metadata=LIBS={}", dpdk.libs.join(" "));
    println!("cargo::metadata=LINK_PATHS={}", paths.join(" "));
}

/// What depends on the release of DPDK is decided here, and shows as a `cfg` or a constant in `src/versions.rs`.
fn tell_versions(release: (u32, u32), driver_headers: &Path) {
    // Later releases tell the length of the list of packet types instead of ending it with a marker. The headers
    // themselves are asked, because distributions carry such changes back.
    println!("cargo::rustc-check-cfg=cfg(ptypes_with_count)");
    let header = driver_headers.join("ethdev_driver.h");
    let text = std::fs::read_to_string(&header).unwrap_or_else(|error| panic!("{}: {error}", header.display()));
    if text.split("eth_dev_supported_ptypes_get_t)(").nth(1).is_some_and(|rest| rest.starts_with(WITH_COUNT)) {
        println!("cargo::rustc-cfg=ptypes_with_count");
    }
    // A new ABI begins with each November release and carries the number of the following year.
    let abi = if release.1 >= 11 { release.0 + 1 } else { release.0 };
    println!("cargo::rustc-env=KOPI_DPDK_ABI={abi}");
}

/// Year and month of a version such as "22.11.11" or "24.11.0-rc1".
fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(year)), Some(Ok(month))) => (year, month),
        _ => panic!("pkg-config gives \"{version}\" as DPDK's version, which is not of the form YEAR.MONTH"),
    }
}

/// What `pkg-config --cflags` says, whole: `-include rte_config.h` and `-march` are part of DPDK's interface, and the
/// pkg-config crate drops them.
fn c_flags() -> Vec<String> {
    let pkg_config = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = std::process::Command::new(pkg_config)
        .args(["--cflags", "libdpdk"])
        .output()
        .unwrap_or_else(|error| panic!("cannot run pkg-config: {error}: run ci/setup.sh"));
    assert!(output.status.success(), "pkg-config --cflags libdpdk failed: run ci/setup.sh");
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

/// The folder with the driver headers of this very version.
///
/// DPDK installs them beside its public headers when it is built with `-Denable_driver_sdk=true`; for Debian's package
/// `ci/setup.sh` unpacks them from the source. `KOPI_DPDK_DRIVER_HEADERS` names another folder.
fn driver_headers(version: &str) -> PathBuf {
    let public = pkg_config::get_variable("libdpdk", "includedir").unwrap_or_default();
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let unpacked = Path::new(&root).join("../..").join(".deps").join(format!("dpdk-{version}")).join("include");
    let named = env::var_os("KOPI_DPDK_DRIVER_HEADERS").map(PathBuf::from);
    named
        .into_iter()
        .chain([PathBuf::from(public), unpacked])
        .find(|folder| folder.join("ethdev_driver.h").exists())
        .unwrap_or_else(|| panic!("the driver headers of DPDK {version} are missing: run ci/setup.sh"))
}

fn compile_inlines(flags: &[String]) {
    let mut build = cc::Build::new();
    // DPDK's headers do not compile without warnings under -Wextra; they are not ours to fix.
    build.file("c/inlines.c").warnings(false).opt_level(3);
    for flag in flags {
        build.flag(flag);
    }
    build.compile("kopi_dpdk_inlines");
}

fn bind(flags: &[String]) {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("bindings.rs");
    let mut builder = bindgen::Builder::default()
        .header("c/wrapper.h")
        .clang_args(flags)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .wrap_unsafe_ops(true)
        .prepend_enum_name(false)
        .derive_default(false)
        .generate_comments(false)
        .allowlist_recursively(true)
        // Our own, with the same field names under every version: see lib.rs.
        .blocklist_type("rte_mbuf(__bindgen.*)?")
        // Only used through pointers, and full of packed structures that Rust cannot nest.
        .opaque_type("rte_mempool_ops.*|rte_flow.*|rte_tm.*|rte_mtr.*|FILE|_IO_FILE")
        .parse_callbacks(Box::new(StripPrefix))
        // Builds anew when a header changes, as it does when DPDK is upgraded.
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for ty in TYPES {
        builder = builder.allowlist_type(ty);
    }
    for constant in CONSTANTS {
        builder = builder.allowlist_var(constant);
    }
    let bindings = builder.generate().unwrap_or_else(|error| panic!("bindgen failed on c/wrapper.h: {error}"));
    bindings.write_to_file(&out).unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
}

/// Gives the constants of `c/wrapper.h` the names of the macros that they stand for.
#[derive(Debug)]
struct StripPrefix;

impl bindgen::callbacks::ParseCallbacks for StripPrefix {
    fn item_name(&self, item: bindgen::callbacks::ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix("KOPI_CONST_").map(str::to_owned)
    }
}

/// Regular expressions over whole names, as bindgen takes them.
const FUNCTIONS: &[&str] = &[
    "kopi_.*",
    // EAL
    "rte_eal_(init|cleanup|process_type|has_hugepages|iova_mode|alarm_set|alarm_cancel)",
    "rte_(version|strerror|socket_id|get_tsc_hz|thread_register|thread_unregister)",
    "rte_lcore_is_enabled",
    "rte_log(|_register|_register_type_and_pick_level|_set_level|_set_global_level|_get_level)",
    "rte_(openlog_stream|malloc|zmalloc|malloc_socket|zmalloc_socket|free)",
    "rte_(dev_probe|dev_remove|vdev_init|vdev_uninit|vdev_register|vdev_unregister|dev_name|dev_bus|dev_bus_info)",
    "rte_(dev_devargs|dev_driver|driver_name|dev_numa_node|bus_name)",
    "rte_epoll_(wait|ctl)",
    "rte_intr_.*",
    "rte_memseg_(walk|list_walk|get_fd_thread_unsafe|get_fd_offset_thread_unsafe)",
    "rte_mem_event_callback_(register|unregister)",
    // pools and buffers
    "rte_pktmbuf_(pool_create|pool_create_by_ops|pool_create_extbuf|clone|copy|free_bulk|init)",
    "rte_mbuf_(check|sanity_check|dynfield_register)",
    "__rte_pktmbuf_read",
    "rte_mempool_(free|lookup|avail_count|in_use_count|obj_iter)",
    // filters
    "pcap_(open_dead|compile|geterr|freecode|close)",
    "bpf_filter",
    // ports, application side
    "rte_eth_dev_(configure|start|stop|close|reset|info_get|adjust_nb_rx_tx_desc|count_avail|count_total|is_valid_port)",
    "rte_eth_dev_(get_name_by_port|get_port_by_name|get_mtu|set_mtu|socket_id|set_link_up|set_link_down)",
    "rte_eth_dev_(get_supported_ptypes|mac_addr_add|mac_addr_remove|default_mac_addr_set|is_removed)",
    "rte_eth_dev_(callback_register|callback_unregister|rx_intr_.*|rss_reta_query|rss_reta_update|owner_get)",
    "rte_eth_(rx|tx)_queue_(setup|info_get)",
    "rte_eth_(rx|tx)_burst_mode_get",
    "rte_eth_(promiscuous|allmulticast)_(enable|disable|get)",
    "rte_eth_(stats_get|stats_reset|xstats_get|xstats_get_names|xstats_reset|xstats_get_by_id|xstats_get_names_by_id)",
    "rte_eth_(macaddr_get|macaddrs_get|find_next|find_next_owned_by|iterator_init|iterator_next|iterator_cleanup)",
    "rte_eth_link_.*",
    // ports, driver side
    "rte_eth_dev_(allocate|allocated|attach_secondary|probing_finish|release_port|create|destroy|get_by_name)",
    "rte_eth_dev_(callback_process|internal_reset)",
    "rte_eth_(pkt_burst_dummy|switch_domain_alloc|switch_domain_free)",
    "rte_eth_random_addr",
];

const TYPES: &[&str] = &[
    "rte_(eth_dev|eth_dev_data|eth_dev_ops|eth_dev_info|eth_conf|eth_rxconf|eth_txconf|eth_link|eth_stats)",
    "eth_.*_t",
    "eth_dev_ops",
    "eth_queue_stats",
    "mtu_set_t",
    "rte_eth_(rxmode|txmode|rss_conf|rxq_info|txq_info|burst_mode|xstat|xstat_name|dev_owner|desc_lim|thresh)",
    "rte_eth_(event_type|dev_state|rx_mq_mode|tx_mq_mode|nb_pool|dev_cb_fn)",
    "rte_ether_addr",
    "rte_vdev_(device|driver)",
    "rte_(device|devargs|dev_iterator|driver|mempool|pktmbuf_pool_private|pktmbuf_extmem)",
    "rte_(mbuf_ext_shared_info|epoll_event|intr_handle|intr_handle_type|proc_type_t|iova_mode|mbuf_dynfield)",
    "rte_intr_(mode|callback_fn)",
    "rte_mem_event",
    "kopi_.*",
];

const CONSTANTS: &[&str] = &[
    "KOPI_.*",
    "RTE_VER_.*",
    "RTE_PTYPE_.*",
    "RTE_ETHER_.*",
    "RTE_ETH_(NAME_MAX_LEN|XSTATS_NAME_SIZE|BURST_MODE_INFO_SIZE|NUM_RECEIVE_MAC_ADDR|QUEUE_STATE_.*|ALL)",
    "RTE_ETH_(LINK|SPEED_NUM|RX_DESC|TX_DESC|EVENT|MQ_RX|MQ_TX|DEV)_.*",
    "RTE_(ETHDEV_QUEUE_STAT_CNTRS|MAX_QUEUES_PER_PORT|MAX_ETHPORTS|PKTMBUF_HEADROOM|MBUF_DEFAULT_DATAROOM)",
    "RTE_(MEMPOOL_CACHE_MAX_SIZE|CACHE_LINE_SIZE|MBUF_PRIV_ALIGN|MEMPOOL_NAMESIZE|MEMZONE_NAMESIZE|MAX_LCORE)",
    "RTE_(PROC_.*|LOG_.*|LOGTYPE_.*|EPOLL_.*|MBUF_PORT_INVALID|EAL_PMD_PATH|DEV_NAME_MAX_LEN)",
    "RTE_INTR_(EVENT_.*|HANDLE_.*|INSTANCE_F_.*|VEC_.*|MODE_.*)",
    "RTE_MEM_EVENT_.*",
    "SOCKET_ID_ANY",
    "BPF_.*",
    "DLT_EN10MB",
];

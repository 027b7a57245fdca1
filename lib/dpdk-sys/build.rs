//! Binds the DPDK that pkg-config finds: bindgen over `c/wrapper.h`, and `c/inlines.c` compiled for the inline functions.
//!
//! No flag is emitted that links DPDK's libraries: a crate that wants them links them itself from the metadata given here:
//! `DEP_DPDK_LIBS`, `DEP_DPDK_LINK_PATHS` (both separated by spaces) and `DEP_DPDK_VERSION`.

#[path = "build/installed.rs"]
mod installed;

use installed::{abi, c_flags, release};
use std::env;
use std::path::PathBuf;

/// The oldest DPDK that this was tried with, as year and month.
const OLDEST: (u32, u32) = (22, 11);

fn main() {
    for path in ["c/wrapper.h", "c/inlines.h", "c/inlines.c", "build.rs", "build"] {
        println!("cargo::rerun-if-changed={path}");
    }

    let dpdk = pkg_config::Config::new()
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
        .unwrap_or_else(|error| panic!("no DPDK found: run ci/setup.sh\n{error}"));
    let release = release(&dpdk.version);
    assert!(release >= OLDEST, "DPDK {} is too old: 22.11 is the first that kopi supports", dpdk.version);

    let mut flags = c_flags();
    // A few functions are marked experimental, which is a compile error otherwise.
    flags.push("-DALLOW_EXPERIMENTAL_API".into());

    compile_inlines(&flags);
    bind(&flags);
    println!("cargo::rustc-env=KOPI_DPDK_ABI={}", abi(release));

    let paths: Vec<_> = dpdk.link_paths.iter().map(|path| path.display().to_string()).collect();
    println!("cargo::metadata=VERSION={}", dpdk.version);
    println!("cargo::metadata=LIBS={}", dpdk.libs.join(" "));
    println!("cargo::metadata=LINK_PATHS={}", paths.join(" "));
}

fn compile_inlines(flags: &[String]) {
    let mut build = cc::Build::new();
    // DPDK's headers do not compile without warnings under -Wextra; they are not ours to fix.
    build.file("c/inlines.c").warnings(false).flag("-Werror=implicit-function-declaration").opt_level(3);
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
        .opaque_type("rte_mempool_ops.*|FILE|_IO_FILE")
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
    "rte_eal_(init|cleanup)",
    "rte_(version|strerror|get_tsc_hz|thread_register|thread_unregister)",
    "rte_dev_(probe|remove)",
    // pools and buffers
    "rte_pktmbuf_pool_create",
    "__rte_pktmbuf_read",
    "rte_mempool_(free|avail_count|in_use_count|obj_iter)",
    // filters
    "pcap_(open_dead|compile|geterr|freecode|close)",
    "bpf_filter",
    // ports
    "rte_eth_dev_(configure|start|stop|close|reset|info_get|adjust_nb_rx_tx_desc|count_avail|is_valid_port)",
    "rte_eth_dev_(get_name_by_port|get_port_by_name|get_mtu|set_mtu|socket_id|default_mac_addr_set)",
    "rte_eth_dev_rx_intr_(enable|disable)",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_promiscuous_(enable|disable|get)",
    "rte_eth_(stats_get|stats_reset|xstats_get|xstats_get_names)",
    "rte_eth_(macaddr_get|iterator_init|iterator_next)",
];

const TYPES: &[&str] = &[
    "rte_eth_(dev_info|conf|desc_lim|stats|xstat|xstat_name)",
    "rte_ether_addr",
    "rte_(dev_iterator|mempool|mbuf_ext_shared_info)",
    "kopi_.*",
];

const CONSTANTS: &[&str] = &[
    "KOPI_.*",
    "RTE_VER_(YEAR|MONTH)",
    "RTE_ETHER_(CRC_LEN|HDR_LEN)",
    "RTE_ETH_(NAME_MAX_LEN|MQ_RX_RSS|SPEED_NUM_NONE)",
    "RTE_(MAX_ETHPORTS|PKTMBUF_HEADROOM)",
    "SOCKET_ID_ANY",
    "BPF_.*",
    "DLT_EN10MB",
];

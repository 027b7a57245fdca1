//! Links libpcap, and the DPDK libraries that this crate calls. Drivers are not linked: EAL loads them when it starts.

use std::env;

/// Libraries of DPDK that this crate, or the inline functions that it calls, take symbols from. One that the installed
/// release does not have is left out: `rte_log` is part of `rte_eal` before 24.03.
const WANTED: &[&str] = &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_log"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let paths = env::var("DEP_DPDK_LINK_PATHS").expect("dpdk-sys gives it");
    let libs = env::var("DEP_DPDK_LIBS").expect("dpdk-sys gives it");
    for path in paths.split_whitespace() {
        println!("cargo::rustc-link-search=native={path}");
    }
    for lib in WANTED.iter().filter(|wanted| libs.split_whitespace().any(|lib| lib == **wanted)) {
        println!("cargo::rustc-link-lib=dylib={lib}");
    }
    println!("cargo::rustc-link-lib=dylib=pcap");
}

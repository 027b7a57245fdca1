//! Makes Rust declarations of `c/dpdk.h` for one release of DPDK, and compiles `c/inlines.c` for it.
//!
//! The packages in `releases` are for the release in their name, and need no DPDK. `kopi-shim` itself, which has the tests, is for
//! the release that pkg-config finds. Wherever DPDK's headers of that release are found, `c/check.c` compares.

#[path = "../lib/dpdk-sys/build/installed.rs"]
mod installed;

use installed::{abi, c_flags, release};
use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The releases of which `c/dpdk.h` knows, as year and month.
const RELEASES: [(u32, u32); 4] = [(22, 11), (23, 11), (24, 11), (25, 11)];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let package = env::var("CARGO_PKG_NAME").expect("cargo sets it");
    let shim = manifest.ancestors().find(|folder| folder.join("c/dpdk.h").exists()).expect("this is below shim");
    println!("cargo::rerun-if-changed={}", shim.join("c").display());
    println!("cargo::rerun-if-changed={}", shim.join("build.rs").display());
    println!("cargo::rerun-if-changed={}", shim.join("../lib/dpdk-sys/build").display());
    println!("cargo::rerun-if-env-changed=KOPI_DPDK_DRIVER_HEADERS");

    let installed = pkg_config::Config::new().cargo_metadata(false).env_metadata(true).probe("libdpdk").ok();
    // What an upgrade of DPDK changes.
    let folders = installed.iter().flat_map(|dpdk| &dpdk.include_paths);
    if let Some(header) = folders.map(|folder| folder.join("rte_build_config.h")).find(|file| file.exists()) {
        println!("cargo::rerun-if-changed={}", header.display());
    }
    let installed = installed.map(|dpdk| release(&dpdk.version));
    let release = package.strip_prefix("kopi-driver-").map_or(installed, |name| Some(release(name)));
    let release = release.expect("no DPDK found: run ci/setup.sh");
    let (year, month) = release;
    assert!(RELEASES.contains(&release), "c/dpdk.h has no declarations for DPDK {year}.{month:02}");

    println!("cargo::rustc-env=KOPI_DPDK_ABI={}", abi(release));
    println!("cargo::rustc-env=KOPI_DPDK_YEAR={year}");
    println!("cargo::rustc-env=KOPI_DPDK_MONTH={month:02}");
    println!("cargo::rustc-check-cfg=cfg(ptypes_with_count, queue_stats_apart, rss_algorithms)");
    if release >= (23, 11) {
        println!("cargo::rustc-cfg=rss_algorithms");
    }
    if release >= (24, 11) {
        println!("cargo::rustc-cfg=ptypes_with_count");
    }
    if release >= (25, 11) {
        println!("cargo::rustc-cfg=queue_stats_apart");
    }

    let define = format!("-DKOPI_RELEASE={year}{month:02}");
    bind(shim, &define);
    compile(shim.join("c/inlines.c"), std::slice::from_ref(&define), "kopi_inlines");
    if installed == Some(release) {
        check(shim, define);
        if package == "kopi-shim" {
            compile(shim.join("c/tests.c"), &installed_flags(), "kopi_tests");
        }
    }
    if package != "kopi-shim" {
        link_name(&package, release);
    }
}

/// How C that includes DPDK's headers, and may use what they call internal, is compiled.
fn installed_flags() -> Vec<String> {
    let own = ["-DALLOW_INTERNAL_API", "-DALLOW_EXPERIMENTAL_API"];
    c_flags().into_iter().chain(own.map(str::to_owned)).collect()
}

/// Compares the declarations with the headers of the DPDK that is installed; with those for drivers, too, where it was built with
/// `-Denable_driver_sdk=true` or `KOPI_DPDK_DRIVER_HEADERS` names their folder.
fn check(shim: &Path, define: String) {
    let public = pkg_config::get_variable("libdpdk", "includedir").unwrap_or_default();
    let named = env::var_os("KOPI_DPDK_DRIVER_HEADERS").map(PathBuf::from);
    let driver = named.into_iter().chain([PathBuf::from(public)]).find(|f| f.join("ethdev_driver.h").exists());
    let mut flags = installed_flags();
    flags.push(define);
    if let Some(folder) = driver {
        flags.extend(["-DKOPI_DRIVER_HEADERS".into(), format!("-I{}", folder.display())]);
    }
    compile(shim.join("c/check.c"), &flags, "kopi_check");
}

fn compile(file: PathBuf, flags: &[String], name: &str) {
    let mut build = cc::Build::new();
    // DPDK's headers do not compile without warnings under -Wextra; they are not ours to fix.
    build.file(file).warnings(false).flag("-Werror=implicit-function-declaration").opt_level(3);
    flags.iter().for_each(|flag| {
        build.flag(flag);
    });
    build.compile(name);
}

fn bind(shim: &Path, define: &str) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("dpdk.rs");
    let bindings = bindgen::Builder::default()
        .header(shim.join("c/inlines.h").display().to_string())
        .clang_arg(define)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .wrap_unsafe_ops(true)
        .prepend_enum_name(false)
        .derive_default(false)
        .generate_comments(false)
        .allowlist_file(".*/c/(dpdk|functions|inlines)\\.h")
        .parse_callbacks(Box::new(StripPrefix))
        .generate();
    let bindings = bindings.unwrap_or_else(|error| panic!("bindgen failed on c/inlines.h: {error}"));
    bindings.write_to_file(&out).unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
}

/// Gives what `c/dpdk.h` declares DPDK's names.
#[derive(Debug)]
struct StripPrefix;

impl bindgen::callbacks::ParseCallbacks for StripPrefix {
    fn item_name(&self, item: bindgen::callbacks::ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix("own_").map(str::to_owned)
    }

    fn enum_variant_name(
        &self,
        _enum: Option<&str>,
        name: &str,
        _value: bindgen::callbacks::EnumVariantValue,
    ) -> Option<String> {
        name.strip_prefix("OWN_").map(str::to_owned)
    }
}

/// Links `librte_net_kopi-YY.MM.so`, where the loader looks, to the file that cargo is about to write: a library of cargo's has neither
/// a dash nor a dot in its name.
fn link_name(package: &str, (year, month): (u32, u32)) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // target/PROFILE/build/PACKAGE-HASH/out
    let profile = out.ancestors().nth(3).expect("cargo builds below a target folder");
    let mut file = String::from("librte_net_");
    let _infallible = write!(file, "{}.so", package.replace('-', "_").replace("kopi_driver", "kopi"));
    let link = profile.join(format!("librte_net_kopi-{year}.{month:02}.so"));
    if std::fs::read_link(&link).is_ok_and(|to| to == Path::new(&file)) {
        return;
    }
    let _absent = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&file, &link).unwrap_or_else(|error| panic!("cannot make {}: {error}", link.display()));
}

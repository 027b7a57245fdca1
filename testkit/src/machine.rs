//! What the machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Fails the test in one clear line unless it runs as root.
pub fn require_root() {
    assert!(rustix::process::geteuid().is_root(), "run as root: these tests make network namespaces");
}

/// The CPUs of this machine that we may use, in order.
#[must_use]
pub fn cpus() -> Vec<u16> {
    let set = rustix::thread::sched_getaffinity(None).expect("sched_getaffinity");
    (0..1024_u16).filter(|cpu| set.is_set(usize::from(*cpu))).collect()
}

/// The CPU that is kept for applications: the last one. Workers get the first ones.
#[must_use]
pub fn app_cpu() -> u16 {
    *cpus().last().expect("a machine has a CPU")
}

/// Huge pages of 2 MiB: all of the pool, and those that are free.
#[must_use]
pub fn huge_pages() -> (u64, u64) {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    (read("nr_hugepages"), read("free_hugepages"))
}

/// A number that no other value of this process has: for names.
#[must_use]
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// Whether a process with this number lives.
#[must_use]
pub fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// A program or library of the product that cargo built, such as `kopid`: the release build, else the one of this test's
/// profile.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let profile = profile();
    let release = profile.parent().map(|target| target.join("release")).unwrap_or_default();
    let places = [release.join(name), profile.join(name)];
    let found = places.iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is in neither of {places:?}: cargo build --release --workspace")).clone()
}

/// A program of this crate, which cargo builds before it runs a test.
#[must_use]
pub fn own(name: &str) -> PathBuf {
    profile().join(name)
}

/// The folder of the running test's profile, such as `target/debug`.
fn profile() -> PathBuf {
    let exe = std::env::current_exe().expect("a process has a program");
    // target/PROFILE/deps/test-123 or target/PROFILE/program
    let mut folders = exe.ancestors().skip(1).filter(|dir| dir.file_name().is_none_or(|name| name != "deps"));
    folders.next().expect("a program lies in a folder").to_owned()
}

/// Runs a command to its end and returns its standard output.
///
/// Panics with its standard error if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {}: {error}", args.join(" "), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

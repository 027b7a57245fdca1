//! Windows without end, in a process of its own: it takes all places for guards.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Window;
use kopi_ring::layout::WindowLayout;

/// KiB of addresses that this process has.
fn addresses() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is one");
    let line = status.lines().find(|line| line.starts_with("VmSize:")).expect("proc_pid_status(5)");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// A window that is refused leaves no addresses reserved.
#[test]
fn refused_windows_leave_nothing_behind() {
    let layout = WindowLayout::new(4096, 4096).expect("a page");
    let windows: Vec<_> = std::iter::from_fn(|| Window::new(layout).ok()).take(10_000).collect();
    assert!(windows.len() < 10_000, "there is no limit");
    let before = addresses();
    for _ in 0..20 {
        assert!(Window::new(layout).is_err());
    }
    // A window takes gigabytes of them.
    assert!(addresses() < before + (1 << 20), "{} KiB were left", addresses() - before);
}

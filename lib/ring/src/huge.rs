//! Huge pages for the daemon's own tables.

use crate::pages::{HUGE_PAGE, PAGE};
use rustix::mm::Advice;

/// Asks the kernel for transparent huge pages behind the `bytes` bytes from `start` on, as far as there are whole ones. They are of
/// the machine's common memory, and take none of the pool that apps' regions come from.
///
/// For a large table before it is touched for the first time. Nothing else changes, whether the kernel has huge pages or not.
pub fn prefer_huge_pages(start: *const u8, bytes: usize) {
    let Some(first) = start.addr().checked_next_multiple_of(PAGE) else { return };
    let end = start.addr().saturating_add(bytes) & !(PAGE - 1);
    let length = end.saturating_sub(first);
    if length < HUGE_PAGE {
        return;
    }
    let from = start.with_addr(first).cast_mut();
    // SAFETY: this advice changes neither what is in memory nor where it may be used, whoever's it is; the kernel refuses addresses
    // at which there is none.
    match unsafe { rustix::mm::madvise(from.cast(), length, Advice::LinuxHugepage) } {
        // A kernel that was built without them says so. The table works as well in small ones.
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in memory stays there, and the kernel has noted the advice for the table, if it knows huge pages at all.
    #[cfg(not(miri))]
    #[test]
    fn advice_is_noted_and_changes_nothing() {
        let mut table: Vec<u64> = Vec::with_capacity(1 << 20);
        prefer_huge_pages(table.as_ptr().cast(), 8 << 20);
        table.extend(0..1 << 20);
        prefer_huge_pages(table.as_ptr().cast(), 8 << 20);
        assert!(table.iter().zip(0..).all(|(found, number)| *found == number));
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        // Each mapping is a line with its addresses, and below it what there is about it; `hg` is the advice (proc_pid_smaps(5)).
        let (middle, mut inside) = (table.as_ptr().addr() + (4 << 20), false);
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let noted = smaps.lines().any(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let hex = |text| usize::from_str_radix(text, 16).ok();
            if let Some((from, to)) = range.and_then(|(from, to)| hex(from).zip(hex(to))) {
                inside = (from..to).contains(&middle);
            }
            inside && line.starts_with("VmFlags:") && line.split_whitespace().any(|flag| flag == "hg")
        });
        assert!(noted, "no mapping around {middle:x} has the advice:\n{smaps}");
    }

    /// What has no whole huge page is left alone, wherever it is.
    #[test]
    fn small_tables_and_nothing_are_left_alone() {
        prefer_huge_pages(std::ptr::null(), 0);
        prefer_huge_pages(std::ptr::without_provenance(usize::MAX - PAGE), usize::MAX);
        prefer_huge_pages([0_u8; 64].as_ptr(), 64);
    }
}

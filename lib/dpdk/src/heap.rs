//! The C library's heaps.

/// Bytes from which a piece of memory is mapped by itself, and above which the free end of a heap goes back to the kernel.
const THRESHOLD: libc::c_int = 128 << 10;

/// Has the C library give freed memory back, whatever it was used for before.
///
/// glibc has a heap for some threads each. By itself it raises its thresholds to the largest piece that was freed, 32 MiB at most,
/// and twice as much stays behind in each heap (mallopt(3), `M_MMAP_THRESHOLD`). Then one large request, a capture's
/// expression or a policy, has a daemon with a thread for each user keep many times its size. Call it before there are threads.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for option in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it sets a number of the allocator's, under the allocator's lock; what it does not know it leaves alone.
        unsafe { libc::mallopt(option, THRESHOLD) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread has freed is not kept in its heap.
    #[cfg_attr(not(target_env = "gnu"), ignore = "says nothing of other C libraries")]
    #[test]
    fn nothing_large_is_kept() {
        give_back();
        let kept = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0)
        };
        let work = || {
            // Raises the thresholds, if they can be; then a heap of many small pieces, which ends in one large free place.
            drop(vec![1_u8; 16 << 20]);
            let pieces: Vec<Box<[u8]>> = (0..6000).map(|_| vec![1; 1000].into()).collect();
            drop(pieces);
        };
        let before = kept();
        std::thread::spawn(move || {
            work();
            let now = kept();
            assert!(now < before + 2048, "{before} KiB became {now}");
        })
        .join()
        .expect("the thread ends");
    }
}

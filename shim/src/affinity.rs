//! On which cores the driver's own threads run: the control thread where the application does not poll.
//!
//! EAL does so for its own control threads, but the function that starts one has changed its name between releases,
//! and a symbol that is missing at load would hide the message about the ABI. So the thread is moved by hand.

use dpdk_sys as sys;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::OnceLock;

/// The processors of this process before EAL bound its main thread to one of them.
static AT_START: OnceLock<CpuSet> = OnceLock::new();

/// Remembers the processors of this process. Called from the constructor, which runs before EAL binds any thread.
pub(crate) fn remember() {
    if let Ok(cpus) = sched_getaffinity(None) {
        let _known = AT_START.set(cpus);
    }
}

/// Lets the calling thread run on every processor of this process. When somebody has to be woken, the one that sleeps has left
/// a processor idle, and the kernel finds it.
pub(crate) fn go_anywhere() {
    if let Some(all) = AT_START.get() {
        // Where the kernel refuses, the thread runs where it is.
        let _moved = sched_setaffinity(None, all);
    }
}

/// Moves the calling thread to the processors of this process on which no lcore runs, or, if there are none, lets it
/// run on any of them.
pub(crate) fn leave_lcores() {
    let Some(all) = AT_START.get() else { return };
    let mut free = *all;
    for lcore in 0..sys::RTE_MAX_LCORE {
        // SAFETY: any number is allowed.
        if unsafe { sys::rte_lcore_is_enabled(lcore) } == 0 {
            continue;
        }
        for cpu in 0..CpuSet::MAX_CPU {
            let number = u32::try_from(cpu).unwrap_or(u32::MAX);
            // SAFETY: the lcore is enabled.
            if free.is_set(cpu) && unsafe { sys::kopi_lcore_has_cpu(lcore, number) } {
                free.unset(cpu);
            }
        }
    }
    let cpus = if free.count() == 0 { all } else { &free };
    // Where the kernel refuses, the thread runs where it is.
    let _moved = sched_setaffinity(None, cpus);
}

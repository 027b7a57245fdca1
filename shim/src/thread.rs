//! The driver's own threads: how they are started, and on which processors they run.
//!
//! The control thread runs where the application does not poll. EAL arranges the same for its own control threads, but the
//! function that starts one has changed its name between releases, and a symbol that is missing at load would hide the message
//! about the ABI. So the thread is moved by hand.

use crate::sys;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::thread::JoinHandle;

/// The processors of this process before EAL bound its main thread to one of them.
static AT_START: OnceLock<CpuSet> = OnceLock::new();

/// Remembers the processors of this process. Called from the constructor, which runs before EAL binds any thread.
pub(crate) fn remember_processors() {
    if let Ok(cpus) = sched_getaffinity(None) {
        let _known = AT_START.set(cpus);
    }
}

/// Starts a thread with all signals blocked: they are the application's business.
///
/// # Errors
///
/// The system's, when threads are short.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set in.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled in; the other receives the old one.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let thread = std::thread::Builder::new().name(name.into()).stack_size(1 << 20).spawn(work);
    if blocked == 0 {
        // SAFETY: `before` was filled in above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    thread
}

/// Lets the calling thread run on every processor of this process. For a thread that wakes another: the thread that sleeps has
/// left a processor idle, and the kernel finds it.
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

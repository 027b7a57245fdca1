//! EAL, DPDK's environment: started once, by the thread that owns [`Eal`].

use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys as sys;

use crate::error::{DpdkError, check, last};

/// Set by the first [`Eal::init`] and never cleared: DPDK does not start twice in one process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// `LCORE_ID_ANY`: the number of a thread that DPDK does not know.
const NOT_REGISTERED: u32 = u32::MAX;

/// DPDK, running. Dropping it is [`Eal::close`] without the answer.
///
/// Belongs to the thread that started it, because that thread has a buffer cache of its own in every pool.
#[derive(Debug)]
pub struct Eal {
    /// `None` only while it is being dropped.
    handle: Option<Handle>,
    not_send: PhantomData<*const ()>,
}

/// A share in the running DPDK: as long as one exists, DPDK stays up.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Every pool there is, for the check at the end.
    pools: Mutex<Vec<RawPool>>,
}

/// A pool that lives until EAL is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawPool(pub(crate) NonNull<sys::rte_mempool>);

// SAFETY: DPDK's pools may be used from every thread; the pointer stays valid until `Eal::close`.
unsafe impl Send for RawPool {}
// SAFETY: as above.
unsafe impl Sync for RawPool {}

impl Eal {
    /// Starts DPDK with `args`, which are those of any DPDK program without its name: `["--in-memory", "-l", "0"]`.
    ///
    /// EAL binds the calling thread to a core; this undoes it, so that threads started later inherit what the
    /// administrator chose. Drivers and messages of EAL write to standard error.
    ///
    /// # Errors
    ///
    /// - [`DpdkError::AlreadyStarted`] the second time in a process, whatever became of the first;
    /// - [`DpdkError::WrongRelease`] if the library is not of the release that this was built for;
    /// - [`DpdkError::Call`] if EAL refuses, which it explains on standard error.
    pub fn init(args: &[String]) -> Result<Self, DpdkError> {
        check_release()?;
        let args: Vec<CString> = std::iter::once("kopi")
            .chain(args.iter().map(String::as_str))
            .map(crate::error::c_string)
            .collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(DpdkError::AlreadyStarted);
        }
        let count = c_int::try_from(args.len()).map_err(|_| DpdkError::Invalid("too many EAL arguments".to_owned()))?;
        // EAL permutes the array and may keep pointers into the strings, so both are left to it for ever.
        let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
        argv.push(std::ptr::null_mut());
        let argv = Vec::leak(argv);

        let affinity = affinity();
        // SAFETY: `argv` holds `count` strings and a null, all of them valid and unshared for ever; it is the first call.
        let result = unsafe { sys::rte_eal_init(count, argv.as_mut_ptr()) };
        if let Some(cpus) = affinity {
            set_affinity(&cpus);
        }
        if result < 0 {
            return Err(last("rte_eal_init"));
        }
        let handle = Handle(Arc::new(Shared { pools: Mutex::new(Vec::new()) }));
        Ok(Self { handle: Some(handle), not_send: PhantomData })
    }

    /// Takes DPDK down and gives its memory back.
    ///
    /// # Errors
    ///
    /// [`DpdkError::InUse`] if a pool, port, queue, guard or handle still exists, and [`DpdkError::BuffersOut`] if buffers are missing in a
    /// pool. Then DPDK stays up until the process ends, because somebody may still touch its memory. A driver can be the reason:
    /// `net_af_xdp` of DPDK 22.11 keeps its socket and the buffers of its fill ring when its port is closed.
    pub fn close(mut self) -> Result<(), DpdkError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), DpdkError> {
        let Some(Handle(shared)) = self.handle.take() else { return Ok(()) };
        let others = Arc::strong_count(&shared) - 1;
        let Some(shared) = Arc::into_inner(shared) else {
            return Err(DpdkError::InUse(format!("{others} handles are left")));
        };
        // Without a handle nobody can make a pool, a port or a buffer. The threads that freed buffers through a cache
        // were registered, and their guards are gone, except for this one, which is busy here. All others put buffers
        // straight back into the pool, so a pool that counts as full is not being touched any more.
        let pools = shared.pools.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing: u64 = pools.iter().map(|pool| u64::from(pool.in_use())).sum();
        if missing > 0 {
            return Err(DpdkError::BuffersOut(missing));
        }
        for pool in pools {
            // SAFETY: every buffer is back, and no `Pool` exists any more.
            unsafe { sys::rte_mempool_free(pool.0.as_ptr()) };
        }
        // SAFETY: EAL is up, and nothing refers to its memory, as shown above.
        check("rte_eal_cleanup", unsafe { sys::rte_eal_cleanup() })?;
        Ok(())
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // Nobody is left to tell; a caller who wants to know calls `close`.
        drop(self.shut_down());
    }
}

impl std::ops::Deref for Eal {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        self.handle.as_ref().expect("it is only taken when `self` is being dropped")
    }
}

impl Handle {
    /// Another share, to be given to another thread.
    #[must_use]
    pub fn handle(&self) -> Self {
        self.clone()
    }

    /// Registers this thread with DPDK, until the guard is dropped.
    ///
    /// A thread that is not registered works too, but takes and returns every buffer through the shared part of the
    /// pool, which costs an atomic operation on a contended line. What lies in the cache of a thread that ends stays there
    /// until another thread gets its place, so pools need that many buffers to spare.
    ///
    /// # Errors
    ///
    /// [`DpdkError::AlreadyRegistered`] if it is, as the thread that started EAL is from the beginning;
    /// [`DpdkError::Call`] if all of DPDK's 128 places are taken.
    pub fn register_thread(&self) -> Result<ThreadGuard, DpdkError> {
        // DPDK would give the thread a second place and lose the first.
        // SAFETY: reads a variable of this thread.
        if unsafe { sys::kopi_lcore_id() } != NOT_REGISTERED {
            return Err(DpdkError::AlreadyRegistered);
        }
        // SAFETY: EAL is up as long as a handle exists.
        if unsafe { sys::rte_thread_register() } < 0 {
            return Err(last("rte_thread_register"));
        }
        Ok(ThreadGuard { _handle: self.clone(), not_send: PhantomData })
    }

    /// Ticks of [`tsc`](crate::tsc()) in a second, as EAL measured them at start.
    #[must_use]
    pub fn tsc_hz(&self) -> u64 {
        // SAFETY: EAL is up as long as a handle exists.
        unsafe { sys::rte_get_tsc_hz() }
    }

    pub(crate) fn keep(&self, pool: RawPool) {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }
}

impl RawPool {
    /// Buffers that are neither in the pool nor in a thread's cache.
    fn in_use(self) -> u32 {
        // SAFETY: the pool lives until EAL is closed.
        unsafe { sys::rte_mempool_in_use_count(self.0.as_ptr()) }
    }
}

/// Keeps the thread that made it registered with DPDK.
#[derive(Debug)]
pub struct ThreadGuard {
    _handle: Handle,
    not_send: PhantomData<*const ()>,
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        // SAFETY: this is the registered thread, as the guard cannot leave it.
        unsafe { sys::rte_thread_unregister() };
    }
}

/// What the loaded library says it is: "DPDK 22.11.11".
#[must_use]
pub fn version() -> String {
    // SAFETY: needs no EAL, and cannot fail.
    let text = unsafe { sys::rte_version() };
    // SAFETY: a string that is never freed.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The release whose headers this was built with: "22.11".
#[must_use]
pub fn built_version() -> String {
    let (year, month) = sys::BUILT_RELEASE;
    format!("{year}.{month:02}")
}

/// Number of the ABI that this was built for: the 23 of `librte_eal.so.23`.
#[must_use]
pub fn abi() -> &'static str {
    sys::BUILT_ABI
}

/// Compares year and month: between two releases of the same ABI number the inline functions may still differ.
fn check_release() -> Result<(), DpdkError> {
    let (running, built) = (version(), built_version());
    let number = running.rsplit(' ').next().unwrap_or_default();
    if number == built || number.starts_with(&format!("{built}.")) {
        return Ok(());
    }
    Err(DpdkError::WrongRelease { built, running })
}

/// The cores that this thread may run on, if the system tells.
fn affinity() -> Option<libc::cpu_set_t> {
    let mut cpus = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `cpus` is as large as we say; 0 is this thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), cpus.as_mut_ptr()) };
    // SAFETY: a set of bits, which was zeroed.
    (result == 0).then(|| unsafe { cpus.assume_init() })
}

/// Best effort: a thread that stays bound to one core is slow, not wrong.
fn set_affinity(cpus: &libc::cpu_set_t) {
    // SAFETY: `cpus` is as large as we say; 0 is this thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus) };
}

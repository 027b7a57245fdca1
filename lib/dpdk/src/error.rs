//! What can go wrong outside of the packet path.

use std::ffi::{CStr, CString, c_int};

/// A failure of DPDK, or a request that it could not fulfil.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DpdkError {
    /// A function of DPDK failed.
    #[error("{call}: {}", describe(*.errno))]
    Call {
        /// Name of the function.
        call: &'static str,
        /// Its error as a positive `errno`, or 0 where it gives none.
        errno: i32,
    },
    /// EAL starts once per process, and not again after it was closed or failed to start.
    #[error("DPDK was already started in this process")]
    AlreadyStarted,
    /// The running library is of another release than the headers that this was built with.
    #[error("built for DPDK {built}, but {running} is loaded")]
    WrongRelease {
        /// Year and month of the headers.
        built: String,
        /// What the library says.
        running: String,
    },
    /// [`Eal::close`](crate::Eal::close) was asked for while ports, pools or handles still exist.
    #[error("DPDK is still in use: {0}")]
    InUse(String),
    /// So many packet buffers are not back in their pools.
    #[error("{0} packet buffers are not back in their pools")]
    BuffersOut(u64),
    /// The thread is registered with DPDK already.
    #[error("this thread is already registered with DPDK")]
    AlreadyRegistered,
    /// No port answers to this name or number.
    #[error("no port \"{0}\"")]
    NoSuchPort(String),
    /// The port belongs to another [`Port`](crate::Port).
    #[error("port {0} is already in use by this program")]
    PortTaken(u16),
    /// The port cannot be stopped or changed while its queues exist.
    #[error("port {0} still has queues in use")]
    QueuesInUse(u16),
    /// The order of calls is wrong: this needs a port that is in another state.
    #[error("port {port} is {state}")]
    WrongState {
        /// The port.
        port: u16,
        /// What it is.
        state: &'static str,
    },
    /// A setting that the device or DPDK does not allow.
    #[error("{0}")]
    Invalid(String),
    /// A text for DPDK has a zero byte in it.
    #[error("\"{0}\" has a zero byte in it")]
    ZeroByte(String),
}

impl DpdkError {
    /// The positive `errno` of a failed DPDK function.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// The text for an error number; DPDK knows its own numbers and the system's.
fn describe(errno: i32) -> String {
    // SAFETY: takes any number, and needs no EAL.
    let text = unsafe { dpdk_sys::rte_strerror(errno) };
    if errno == 0 || text.is_null() {
        return "failed".to_owned();
    }
    // SAFETY: a string that stays until this thread's next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Turns the result of a DPDK function that returns a negative `errno` into ours.
pub(crate) fn check(call: &'static str, result: c_int) -> Result<u32, DpdkError> {
    u32::try_from(result).map_err(|_| DpdkError::Call { call, errno: result.saturating_neg() })
}

/// The error of a DPDK function that leaves its number in `rte_errno`.
pub(crate) fn last(call: &'static str) -> DpdkError {
    // SAFETY: reads a variable of this thread.
    DpdkError::Call { call, errno: unsafe { dpdk_sys::kopi_errno() } }
}

/// A string as C has it.
pub(crate) fn c_string(text: &str) -> Result<CString, DpdkError> {
    CString::new(text).map_err(|_| DpdkError::ZeroByte(text.to_owned()))
}

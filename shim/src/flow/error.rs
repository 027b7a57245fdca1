//! Why a flow rule is not to be had, as `rte_flow` wants it told.

use crate::errno::code;
use crate::sys;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null;

/// What ends an operation on flow rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowError {
    /// An errno, positive.
    pub(crate) errno: c_int,
    /// One of `RTE_FLOW_ERROR_TYPE_*`.
    pub(crate) kind: u32,
    /// The item, action or else that is to blame, in the application's memory.
    cause: *const c_void,
    /// One line for people, which lives for ever.
    pub(crate) text: &'static CStr,
}

impl FlowError {
    pub(crate) const fn new(errno: c_int, kind: u32, text: &'static CStr) -> Self {
        Self { errno, kind, cause: null(), text }
    }

    /// The same, with what is to blame.
    pub(crate) const fn of<T>(self, cause: *const T) -> Self {
        Self { cause: cause.cast(), ..self }
    }

    /// Tells the application, and returns what the operation returns.
    ///
    /// # Safety
    ///
    /// `error` is null or the application's place for an error.
    pub(super) unsafe fn tell(self, error: *mut sys::rte_flow_error) -> c_int {
        // SAFETY: by the caller's word.
        if let Some(error) = unsafe { error.as_mut() } {
            *error = sys::rte_flow_error { type_: self.kind, cause: self.cause, message: self.text.as_ptr() };
        }
        code(self.errno)
    }
}

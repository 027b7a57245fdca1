//! libpcap's compiler.

use std::ffi::{CStr, CString, c_int};
use std::ptr::NonNull;

use dpdk_sys as sys;

use super::BpfError;

/// What libpcap would keep of a frame, which it makes the result of a program that accepts. Zero would reject.
const SNAP: c_int = 262_144;
/// The expression is not about a network whose netmask is known.
const NETMASK: u32 = 0;

/// Bytes of the longest expression that libpcap optimises. It takes a second for the worst of these, a long list of
/// ports, but six times as long for one of twice the length.
const OPTIMIZED_MAX: usize = 2048;

/// A handle to no device, of Ethernet.
struct Dead(NonNull<sys::pcap_t>);

impl Dead {
    fn open() -> Result<Self, BpfError> {
        let link = c_int::try_from(sys::DLT_EN10MB).unwrap_or(c_int::MAX);
        // SAFETY: takes two numbers.
        NonNull::new(unsafe { sys::pcap_open_dead(link, SNAP) }).map(Self).ok_or(BpfError::NoMemory)
    }

    fn error(&self) -> String {
        // SAFETY: the handle is open; the text is part of it.
        let text = unsafe { sys::pcap_geterr(self.0.as_ptr()) };
        // SAFETY: a string within the handle, which nobody changes while it is copied.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody has it after this.
        unsafe { sys::pcap_close(self.0.as_ptr()) };
    }
}

/// A program in libpcap's memory.
struct Compiled(sys::bpf_program);

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: `pcap_compile` has filled it.
        unsafe { sys::pcap_freecode(&raw mut self.0) };
    }
}

/// The classic program of `expression`.
pub(super) fn compile(expression: &str) -> Result<Vec<sys::bpf_insn>, BpfError> {
    let expression = CString::new(expression).map_err(|_| BpfError::ZeroByte)?;
    let optimize = c_int::from(expression.count_bytes() <= OPTIMIZED_MAX);
    let dead = Dead::open()?;
    let mut program = sys::bpf_program { bf_len: 0, bf_insns: std::ptr::null_mut() };
    // SAFETY: the handle is open and ours alone, the expression is a string, and `program` is ours to be filled.
    let result =
        unsafe { sys::pcap_compile(dead.0.as_ptr(), &raw mut program, expression.as_ptr(), optimize, NETMASK) };
    if result != 0 {
        return Err(BpfError::Refused(dead.error()));
    }
    let program = Compiled(program);
    let len = usize::try_from(program.0.bf_len).map_err(|_| BpfError::NoMemory)?;
    if program.0.bf_insns.is_null() || len == 0 {
        return Err(BpfError::Unknown(0));
    }
    // SAFETY: libpcap has written so many instructions there, and they stay until `program` is dropped.
    Ok(unsafe { std::slice::from_raw_parts(program.0.bf_insns, len) }.to_vec())
}

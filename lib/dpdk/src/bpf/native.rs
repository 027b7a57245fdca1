//! Machine code from librte_bpf.

use std::ffi::c_void;
use std::ptr::NonNull;

use dpdk_sys as sys;

use super::padding::Padding;
use super::program::Program;
use super::translate::translate;
use crate::Mbuf;

/// Attempts to find a layout of the machine code that librte_bpf gets right. Few programs take more than three.
const ATTEMPTS: usize = 32;

/// A program in machine code, which takes a packet buffer.
#[derive(Debug)]
pub(super) struct Native {
    raw: NonNull<sys::rte_bpf>,
    run: unsafe extern "C" fn(*mut c_void) -> u64,
    /// Bytes of machine code.
    len: usize,
}

// SAFETY: the code and what is known about it never change, and any thread may free them.
unsafe impl Send for Native {}
// SAFETY: as above; the code has no state but the stack.
unsafe impl Sync for Native {}

impl Native {
    /// Compiles a program. `None` if it cannot be translated, or if there is no machine code for it that is right.
    pub(super) fn compile(program: &Program) -> Option<Self> {
        let called = sys::__rte_pktmbuf_read as *const ();
        let address = u64::try_from(called.addr()).ok()?;
        let mut padding = Padding::none(program.insns().len(), address);
        for _ in 0..ATTEMPTS {
            let native = Self::load(&translate(program, &padding)?)?;
            if !padding.widen(native.code()) {
                return Some(native);
            }
        }
        None
    }

    /// Loads what [`translate`] has made. `None` if librte_bpf refuses it, or has no machine code.
    fn load(code: &[sys::ebpf_insn]) -> Option<Self> {
        // What we know about the compiler, and rely on, is about the one for this architecture.
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let parameters = sys::rte_bpf_prm {
            ins: code.as_ptr(),
            nb_ins: u32::try_from(code.len()).ok()?,
            xsym: std::ptr::null(),
            nb_xsym: 0,
            prog_arg: sys::rte_bpf_arg {
                type_: sys::RTE_BPF_ARG_PTR_MBUF,
                size: size_of::<sys::rte_mbuf>(),
                buf_size: 0,
            },
        };
        // SAFETY: DPDK copies the instructions, all of which are there.
        let raw = NonNull::new(unsafe { sys::rte_bpf_load(&raw const parameters) })?;
        let mut jit = sys::rte_bpf_jit { func: None, sz: 0 };
        // SAFETY: the program is loaded, and `jit` is ours to be filled.
        let result = unsafe { sys::rte_bpf_get_jit(raw.as_ptr(), &raw mut jit) };
        match jit.func {
            Some(run) if result == 0 => Some(Self { raw, run, len: jit.sz }),
            _ => {
                // SAFETY: nobody else knows the program.
                unsafe { sys::rte_bpf_destroy(raw.as_ptr()) };
                None
            }
        }
    }

    fn code(&self) -> &[u8] {
        // SAFETY: librte_bpf has written so many bytes there, which can be read, and stay as they are while we live.
        unsafe { std::slice::from_raw_parts(self.run as *const u8, self.len) }
    }

    #[inline]
    pub(super) fn run(&self, mbuf: &Mbuf) -> bool {
        // SAFETY:
        // - the code was made from a program that takes a packet buffer, and lives as long as we do;
        // - it only reads the buffer, which we borrow: `translate` makes no store but to the stack;
        // - it loads nothing from beyond the frame: librte_bpf checks each offset, and `translate` hands it no offset
        //   that its checks do not hold for.
        unsafe { (self.run)(mbuf.as_ptr().cast()) != 0 }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: nobody runs the code any more, as we are being dropped.
        unsafe { sys::rte_bpf_destroy(self.raw.as_ptr()) };
    }
}

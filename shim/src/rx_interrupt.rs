//! Receive interrupts, as ethdev and EAL see them. A port has them only if it was configured with them.

use crate::device::Device;
use crate::irq_thread::IrqThread;
use crate::log::error;
use crate::{event, thread};
use dpdk_sys as sys;
use rustix::fd::{AsRawFd, OwnedFd};
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes that a reader takes out of an eventfd.
const COUNTER: u8 = 8;

/// The receive interrupts of one port, from its configuration on until the next one.
#[derive(Debug)]
pub(crate) struct RxInterrupts {
    irq_thread: Arc<IrqThread>,
    thread: Option<JoinHandle<()>>,
    handle: Vectors,
}

impl RxInterrupts {
    /// Interrupts for `queues` queues of `device`, to which ethdev has access from now on.
    ///
    /// # Errors
    ///
    /// The system's, when file descriptors, memory or threads are short.
    pub(crate) fn new(device: Device, queues: u16) -> std::io::Result<Self> {
        let events = (0..queues).map(|_| event::new()).collect::<Result<Vec<_>, _>>()?;
        let handle = Vectors::new(device, &events).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let irq_thread = Arc::new(IrqThread::new(events));
        let work = Arc::clone(&irq_thread);
        let thread = thread::spawn("kopi-wake", move || work.run())?;
        Ok(Self { irq_thread, thread: Some(thread), handle })
    }

    /// The thread that passes them on.
    pub(crate) const fn irq_thread(&self) -> &Arc<IrqThread> {
        &self.irq_thread
    }
}

impl Drop for RxInterrupts {
    fn drop(&mut self) {
        self.irq_thread.stop();
        if let Some(thread) = self.thread.take() {
            // Its own panic would have been its end; there is nothing to pass on.
            let _ended = thread.join();
        }
        self.handle.free();
    }
}

/// The eventfds as ethdev and EAL want to have them.
#[derive(Debug)]
struct Vectors {
    device: Device,
    handle: NonNull<sys::rte_intr_handle>,
}

impl Vectors {
    fn new(device: Device, events: &[OwnedFd]) -> Option<Self> {
        // SAFETY: makes a new object.
        let handle = NonNull::new(unsafe { sys::rte_intr_instance_alloc(sys::RTE_INTR_INSTANCE_F_PRIVATE) })?;
        let vectors = Self { device, handle };
        if vectors.fill(events).is_none() {
            error!("port {}: EAL does not take {} receive interrupts", device.port(), events.len());
            vectors.free();
            return None;
        }
        device.set_interrupts(handle.as_ptr());
        Some(vectors)
    }

    /// Enters the eventfds; `None` if EAL refuses something.
    fn fill(&self, events: &[OwnedFd]) -> Option<()> {
        let handle = self.handle.as_ptr();
        let done = |result: c_int| (result == 0).then_some(());
        let count = c_int::try_from(events.len()).ok()?;
        // SAFETY: a handle of ours.
        done(unsafe { sys::rte_intr_type_set(handle, sys::RTE_INTR_HANDLE_VDEV) })?;
        // SAFETY: as above. EAL's own waiting then takes the count out.
        done(unsafe { sys::rte_intr_efd_counter_size_set(handle, COUNTER) })?;
        // SAFETY: as above; the name is a C string that EAL does not keep.
        done(unsafe { sys::rte_intr_vec_list_alloc(handle, c"net_kopi".as_ptr(), count) })?;
        let first = c_int::try_from(sys::RTE_INTR_VEC_RXTX_OFFSET).ok()?;
        for (index, event) in (0..count).zip(events) {
            // SAFETY: as above.
            done(unsafe { sys::rte_intr_efds_index_set(handle, index, event.as_raw_fd()) })?;
            // SAFETY: as above.
            done(unsafe { sys::rte_intr_vec_list_index_set(handle, index, first.checked_add(index)?) })?;
        }
        // SAFETY: as above.
        done(unsafe { sys::rte_intr_nb_efd_set(handle, count) })
    }

    /// Takes everything back. No operation of the port runs now.
    fn free(&self) {
        let handle = self.handle.as_ptr();
        self.device.set_interrupts(std::ptr::null_mut());
        // SAFETY: a handle of ours, which ethdev does not know any more.
        unsafe { sys::rte_intr_free_epoll_fd(handle) };
        // SAFETY: as above.
        unsafe { sys::rte_intr_vec_list_free(handle) };
        // SAFETY: as above, and used no more.
        unsafe { sys::rte_intr_instance_free(handle) };
    }
}

// SAFETY: ethdev's operations, in which it is used, do not overlap; it may be dropped by any of them.
unsafe impl Send for Vectors {}

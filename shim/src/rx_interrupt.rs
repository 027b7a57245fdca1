//! Receive interrupts, as ethdev and EAL see them. A port has them only if it was configured with them.

use crate::device::Device;
use crate::irq_thread::IrqThread;
use crate::log::error;
use crate::sys;
use crate::{event, thread};
use rustix::fd::AsRawFd;
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
    device: Device,
    /// The eventfds as ethdev and EAL want to have them.
    handle: NonNull<sys::rte_intr_handle>,
}

impl RxInterrupts {
    /// Interrupts for `queues` queues of `device`, to which ethdev has access from now on.
    ///
    /// # Errors
    ///
    /// The system's, when file descriptors, memory or threads are short.
    pub(crate) fn new(device: Device, queues: u16) -> std::io::Result<Self> {
        let events = (0..queues).map(|_| event::new()).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: makes a new object.
        let handle = NonNull::new(unsafe { sys::rte_intr_instance_alloc(sys::RTE_INTR_INSTANCE_F_PRIVATE) });
        let handle = handle.ok_or(std::io::ErrorKind::OutOfMemory)?;
        let irq_thread = Arc::new(IrqThread::new(events));
        // Whatever fails from here on, dropping it frees what there is.
        let mut interrupts = Self { irq_thread, thread: None, device, handle };
        if interrupts.fill().is_none() {
            error!("port {}: EAL does not take {queues} receive interrupts", device.port());
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        device.set_interrupts(handle.as_ptr());
        let work = Arc::clone(&interrupts.irq_thread);
        interrupts.thread = Some(thread::spawn("kopi-wake", move || work.run())?);
        Ok(interrupts)
    }

    /// The thread that passes them on.
    pub(crate) const fn irq_thread(&self) -> &Arc<IrqThread> {
        &self.irq_thread
    }

    /// Enters the eventfds; `None` if EAL refuses something.
    fn fill(&self) -> Option<()> {
        let (handle, events) = (self.handle.as_ptr(), self.irq_thread.events());
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
}

impl Drop for RxInterrupts {
    /// Takes everything back. No operation of the port runs now but the one that does this.
    fn drop(&mut self) {
        self.irq_thread.stop();
        if let Some(thread) = self.thread.take() {
            // Its own panic would have been its end; there is nothing to pass on.
            let _ended = thread.join();
        }
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

// SAFETY: ethdev's operations, in which the handle is used, do not overlap; it may be dropped by any of them.
unsafe impl Send for RxInterrupts {}

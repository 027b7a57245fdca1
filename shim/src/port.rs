//! What belongs to one port.

use crate::control::Control;
use crate::device::Device;
use crate::rx::RxQueue;
use crate::rx_interrupt::RxInterrupts;
use crate::tx::TxQueue;
use std::sync::Arc;
use std::thread::JoinHandle;

/// One port. It belongs to its ethdev, from probe to close.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) device: Device,
    pub(crate) control: Arc<Control>,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Receive interrupts, if it was configured with them.
    pub(crate) interrupts: Option<RxInterrupts>,
}

impl Port {
    /// The port of `device`, if it still has one.
    ///
    /// # Safety
    ///
    /// `device` is a port of this driver, and ethdev closes it in no other thread during the use of the result.
    pub(crate) unsafe fn of<'a>(device: Device) -> Option<&'a mut Self> {
        let port = device.private().cast::<Self>();
        // SAFETY: null or the box that probe stored there; ethdev's operations do not overlap.
        unsafe { port.as_mut() }
    }

    /// Makes the receive interrupts that the application has configured, in place of any that there were.
    ///
    /// # Errors
    ///
    /// The system's, when it is short of something; then there are none.
    pub(crate) fn set_interrupts(&mut self) -> std::io::Result<()> {
        let queues = self.device.rx_queues();
        // The old ones go first: ethdev has one place for them.
        self.control.state().irq_thread = None;
        self.interrupts = None;
        if self.device.wants_interrupts() && queues > 0 {
            let interrupts = RxInterrupts::new(self.device, queues)?;
            self.control.state().irq_thread = Some(Arc::clone(interrupts.irq_thread()));
            self.interrupts = Some(interrupts);
        }
        for index in 0..queues {
            let queue = self.device.rx_queue(index).cast::<RxQueue>();
            // SAFETY: null or the queue that was stored there, which no burst function uses now.
            if let Some(queue) = unsafe { queue.as_mut() } {
                queue.set_irq_thread(self.interrupts.as_ref().map(RxInterrupts::irq_thread));
            }
        }
        Ok(())
    }

    /// RX queue `index`, if it is set up.
    pub(crate) fn rx_queue(&self, index: u16) -> Option<&RxQueue> {
        let queue = self.device.rx_queue(index).cast::<RxQueue>();
        // SAFETY: null or the queue that was stored there. What is read of it does not change while it exists.
        unsafe { queue.as_ref() }
    }

    /// TX queue `index`, if it is set up.
    pub(crate) fn tx_queue(&self, index: u16) -> Option<&TxQueue> {
        let queue = self.device.tx_queue(index).cast::<TxQueue>();
        // SAFETY: null or the queue that was stored there. What is read of it does not change while it exists.
        unsafe { queue.as_ref() }
    }

    /// Puts a new RX queue in its place.
    pub(crate) fn set_rx_queue(&self, index: u16, queue: Box<RxQueue>) {
        let mut state = self.control.state();
        if let Some(slot) = state.rx.get_mut(usize::from(index)) {
            *slot = Some(Arc::clone(queue.shared()));
        }
        state.base.forget_rx(index);
        self.device.set_rx_queue(index, Box::into_raw(queue).cast());
    }

    /// Puts a new TX queue in its place.
    pub(crate) fn set_tx_queue(&self, index: u16, queue: Box<TxQueue>) {
        let mut state = self.control.state();
        if let Some(slot) = state.tx.get_mut(usize::from(index)) {
            *slot = Some(Arc::clone(queue.shared()));
        }
        state.base.forget_tx(index);
        self.device.set_tx_queue(index, Box::into_raw(queue).cast());
    }

    /// Frees RX queue `index`, if there is one. The application does not use it now.
    pub(crate) fn release_rx_queue(&self, index: u16) {
        let mut state = self.control.state();
        if let Some(slot) = state.rx.get_mut(usize::from(index)) {
            *slot = None;
        }
        let queue = self.device.rx_queue(index).cast::<RxQueue>();
        self.device.set_rx_queue(index, std::ptr::null_mut());
        if !queue.is_null() {
            // SAFETY: the box that was stored there, and is no more.
            drop(unsafe { Box::from_raw(queue) });
        }
    }

    /// Frees TX queue `index`, if there is one. The application does not use it now.
    pub(crate) fn release_tx_queue(&self, index: u16) {
        let mut state = self.control.state();
        if let Some(slot) = state.tx.get_mut(usize::from(index)) {
            *slot = None;
        }
        let queue = self.device.tx_queue(index).cast::<TxQueue>();
        self.device.set_tx_queue(index, std::ptr::null_mut());
        if !queue.is_null() {
            // SAFETY: the box that was stored there, and is no more.
            drop(unsafe { Box::from_raw(queue) });
        }
    }

    /// Makes all queues drop their rings and buffers. The application does not poll now.
    pub(crate) fn reset_queues(&self) {
        // Held so that the control thread offers no ring meanwhile.
        let state = self.control.state();
        for index in 0..self.device.rx_queues() {
            let queue = self.device.rx_queue(index).cast::<RxQueue>();
            // SAFETY: null or the queue that was stored there, which no burst function uses now.
            if let Some(queue) = unsafe { queue.as_mut() } {
                queue.reset();
            }
        }
        for index in 0..self.device.tx_queues() {
            let queue = self.device.tx_queue(index).cast::<TxQueue>();
            // SAFETY: null or the queue that was stored there, which no burst function uses now.
            if let Some(queue) = unsafe { queue.as_mut() } {
                queue.reset();
            }
        }
        drop(state);
    }

    /// Ends the control thread and frees everything.
    pub(crate) fn close(mut self) {
        self.control.end();
        if let Some(thread) = self.thread.take() {
            // A callback of the application that closes the port runs in this very thread: it ends by itself.
            if !self.control.is_own_thread() {
                // The thread's own panic would have been its end; there is nothing to pass on.
                let _ended = thread.join();
            }
        }
        for index in 0..self.device.rx_queues() {
            self.release_rx_queue(index);
        }
        for index in 0..self.device.tx_queues() {
            self.release_tx_queue(index);
        }
        self.interrupts = None;
    }
}

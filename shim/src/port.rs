//! What belongs to one port.

use crate::control::Control;
use crate::counters::CountersSnapshot;
use crate::device::{Device, QueueArray};
use crate::lanes::Lanes;
use crate::port_state::{PortState, Slots};
use crate::ring_slot::RingSlot;
use crate::rx::RxQueue;
use crate::rx_interrupt::RxInterrupts;
use crate::tx::TxQueue;
use crate::tx_publisher::TxPublisher;
use kopi_ring::layout::MAX_QUEUES;
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

/// A queue of either direction, as ethdev and the port's state keep it.
pub(crate) trait Queue {
    /// Its end of a ring.
    type End;

    /// Where ethdev keeps the queues of this direction.
    fn array(device: Device) -> QueueArray;

    /// What the port's state has of these queues, and what their counters stood at when they were last reset.
    fn state(state: &mut PortState) -> (&mut Slots<Self::End>, &mut [CountersSnapshot; MAX_QUEUES]);

    /// What the queue shares with the control thread.
    fn shared(&self) -> &Arc<RingSlot<Self::End>>;

    /// Slots in its ring.
    fn descriptors(&self) -> u16;

    /// Drops its rings and buffers. The application does not use it now, and the control thread offers no ring.
    fn reset(&mut self);
}

macro_rules! queue {
    ($queue:ty, $end:ty, $array:ident, $direction:ident) => {
        impl Queue for $queue {
            type End = $end;

            fn array(device: Device) -> QueueArray {
                device.$array()
            }

            fn state(state: &mut PortState) -> (&mut Slots<$end>, &mut [CountersSnapshot; MAX_QUEUES]) {
                (&mut state.$direction, &mut state.base.$direction)
            }

            fn shared(&self) -> &Arc<RingSlot<$end>> {
                self.shared()
            }

            fn descriptors(&self) -> u16 {
                self.config().descriptors
            }

            fn reset(&mut self) {
                self.reset();
            }
        }
    };
}

queue!(RxQueue, Lanes, rx_array, rx);
queue!(TxQueue, TxPublisher, tx_array, tx);

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
            // SAFETY: no burst function uses it now.
            if let Some(queue) = unsafe { self.queue_mut::<RxQueue>(index) } {
                queue.set_irq_thread(self.interrupts.as_ref().map(RxInterrupts::irq_thread));
            }
        }
        Ok(())
    }

    /// Queue `index`, if it is set up.
    pub(crate) fn queue<Q: Queue>(&self, index: u16) -> Option<&Q> {
        let queue = Q::array(self.device).get(index).cast::<Q>();
        // SAFETY: null or the queue that was stored there. What is read of it does not change while it exists.
        unsafe { queue.as_ref() }
    }

    /// Queue `index`, if it is set up, to be changed.
    ///
    /// # Safety
    ///
    /// No burst function uses the queue as long as the result lives.
    #[expect(clippy::mut_from_ref, reason = "the queue lies in a box of its own, which ethdev refers to")]
    unsafe fn queue_mut<Q: Queue>(&self, index: u16) -> Option<&mut Q> {
        let queue = Q::array(self.device).get(index).cast::<Q>();
        // SAFETY: null or the queue that was stored there, and nobody else uses it, by the caller's word.
        unsafe { queue.as_mut() }
    }

    /// Puts a new queue in the place of `index`, which is empty.
    pub(crate) fn set_queue<Q: Queue>(&self, index: u16, queue: Q) {
        let shared = Arc::clone(queue.shared());
        let mut state = self.control.state();
        let (slots, base) = Q::state(&mut state);
        if let (Some(slot), Some(base)) = (slots.get_mut(usize::from(index)), base.get_mut(usize::from(index))) {
            *slot = Some(shared);
            // It counts from zero.
            *base = CountersSnapshot::default();
        }
        Q::array(self.device).replace(index, Box::into_raw(Box::new(queue)).cast());
    }

    /// Frees queue `index`, if there is one. The application does not use it now.
    pub(crate) fn release_queue<Q: Queue>(&self, index: u16) {
        let mut state = self.control.state();
        if let Some(slot) = Q::state(&mut state).0.get_mut(usize::from(index)) {
            *slot = None;
        }
        let queue = Q::array(self.device).replace(index, std::ptr::null_mut()).cast::<Q>();
        if !queue.is_null() {
            // SAFETY: the box that was stored there, and is no more.
            drop(unsafe { Box::from_raw(queue) });
        }
    }

    /// Frees all queues. The application does not use them now.
    pub(crate) fn release_queues(&self) {
        (0..self.device.rx_queues()).for_each(|index| self.release_queue::<RxQueue>(index));
        (0..self.device.tx_queues()).for_each(|index| self.release_queue::<TxQueue>(index));
    }

    /// Makes all queues drop their rings and buffers. The application does not poll now.
    pub(crate) fn reset_queues(&self) {
        // Held so that the control thread offers no ring meanwhile.
        let state = self.control.state();
        self.reset_all::<RxQueue>();
        self.reset_all::<TxQueue>();
        drop(state);
    }

    fn reset_all<Q: Queue>(&self) {
        for index in 0..Q::array(self.device).len() {
            // SAFETY: no burst function uses it now.
            if let Some(queue) = unsafe { self.queue_mut::<Q>(index) } {
                queue.reset();
            }
        }
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
        self.release_queues();
        self.interrupts = None;
    }
}

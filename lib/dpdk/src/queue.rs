//! The queues of a started port: what a worker polls.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use dpdk_sys as sys;

use crate::batch::Batch;
use crate::error::{DpdkError, check};
use crate::mbuf::{Broken, Mbuf};
use crate::port::Shared;

/// Receive side of one queue of a started port. Keeps the port started.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Shared>,
    queue: u16,
    /// Bytes that a frame can have in every buffer of the queue's pool.
    room: u16,
    refused: Option<Refused>,
}

/// Frames that a driver gave, and that could not be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Frames whose lengths contradict each other, or reach out of their buffers. How many bytes they had nobody knows.
    pub malformed: u32,
    /// Frames in several segments that did not fit one buffer.
    pub oversize: u32,
    /// Bytes of these.
    pub oversize_bytes: u64,
}

/// Transmit side of one queue of a started port. Keeps the port started.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Shared>,
    queue: u16,
    /// The only pool whose buffers this queue may send, where the driver was promised that there is only one.
    only: Option<OnlyPool>,
}

/// Compared, never followed.
#[derive(Clone, Copy, Debug)]
struct OnlyPool(*mut sys::rte_mempool);

// SAFETY: only the address is used.
unsafe impl Send for OnlyPool {}
// SAFETY: as above.
unsafe impl Sync for OnlyPool {}

impl RxQueue {
    /// Makes the handle of one queue, whose pool has buffers with `room` bytes behind the headroom.
    ///
    /// # Safety
    ///
    /// The port is started with this queue and such a pool, stops only when `port` has no other owner, and no other handle of
    /// this queue exists.
    pub(crate) unsafe fn new(port: Arc<Shared>, queue: u16, room: u16) -> Self {
        Self { port, queue, room, refused: None }
    }

    /// Number of the queue in its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Puts received frames at the end of `batch`, as many as fit and are there, and returns how many.
    ///
    /// Zero means that the queue was empty or the batch full. Never blocks, never allocates. Drivers that receive in
    /// vectors want room for at least four.
    ///
    /// The lengths that a driver says are not believed: behind `net_memif` or `net_vhost` there is a peer, and they may be
    /// the peer's. Each frame is in one segment afterwards, within its buffer; what is not and cannot be made so is freed and
    /// counted ([`take_refused`](Self::take_refused)). Where a buffer is, how large it is and where in it frames begin is the
    /// driver's own doing, which is believed as the rest of the driver is.
    #[inline]
    pub fn receive(&mut self, batch: &mut Batch) -> u16 {
        let spare = batch.spare();
        let room = u16::try_from(spare.len()).unwrap_or(u16::MAX);
        if room == 0 {
            return 0;
        }
        let places = spare.as_mut_ptr().cast();
        // SAFETY:
        // - the port is started, and stays so while we hold a share of it;
        // - only one thread may poll a queue: there is one `RxQueue` for it, not `Clone`, and we hold it by `&mut`;
        // - `places` has room for `room` pointers, and `Mbuf` is a transparent pointer.
        let n = unsafe { sys::kopi_eth_rx_burst(self.port.id(), self.queue, places, room) };
        if n == 0 {
            return 0;
        }
        let first = batch.len();
        // SAFETY: DPDK has written, and given us, exactly the first `n` places. They are looked at before anybody else sees
        // them.
        unsafe { batch.grow(usize::from(n)) };
        let room = self.room;
        if batch.get(first..).is_some_and(|frames| are_plain(frames, room)) { n } else { self.mend(batch, first) }
    }

    /// Has each frame from `first` on lie in one segment, within its buffer, and takes out what cannot.
    #[cold]
    fn mend(&mut self, batch: &mut Batch, first: usize) -> u16 {
        let mut kept = Batch::new();
        let refused = self.refused.get_or_insert_default();
        for (at, mut mbuf) in batch.drain().enumerate() {
            match if at < first { Ok(()) } else { mbuf.mend() } {
                // There is as much room as in the batch that it comes from.
                Ok(()) => drop(kept.push(mbuf)),
                Err(Broken::Malformed) => refused.malformed += 1,
                Err(Broken::Oversize(len)) => {
                    refused.oversize += 1;
                    refused.oversize_bytes += u64::from(len);
                }
            }
        }
        *batch = kept;
        u16::try_from(batch.len() - first).unwrap_or(u16::MAX)
    }

    /// The frames that [`receive`](Self::receive) freed since this was last asked; `None` if all was well.
    #[inline]
    pub fn take_refused(&mut self) -> Option<Refused> {
        // There hardly ever are any, and nothing is to be moved then.
        if self.refused.is_some() { self.refused.take() } else { None }
    }

    /// A descriptor of its own that becomes readable when frames come, if the driver has one and the port was configured with
    /// [`PortConfig::rx_interrupts`](crate::PortConfig::rx_interrupts). Where the driver wants to be asked for each of its
    /// signals, [`set_interrupt`](Self::set_interrupt) does so.
    #[must_use]
    pub fn interrupt(&self) -> Option<OwnedFd> {
        // SAFETY: the port is started, and stays so while we hold a share of it.
        let fd = unsafe { sys::kopi_eth_rx_intr_fd(self.port.id(), self.queue) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the driver's descriptor, which is open as long as the port is started.
        unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().ok()
    }

    /// Asks the driver to signal the next frame, or not to. Drivers that signal every frame, or none, are left alone.
    pub fn set_interrupt(&mut self, on: bool) {
        let (port, queue) = (self.port.id(), self.queue);
        // Those without the function refuse, which is of no consequence.
        if on {
            // SAFETY: the port is started, and the queue ours.
            unsafe { sys::rte_eth_dev_rx_intr_enable(port, queue) };
        } else {
            // SAFETY: as above.
            unsafe { sys::rte_eth_dev_rx_intr_disable(port, queue) };
        }
    }

    /// Frames that wait to be received, if the driver can tell.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if it cannot.
    pub fn waiting(&self) -> Result<u32, DpdkError> {
        // SAFETY: the port is started, as above; drivers allow this beside `receive`.
        check("rte_eth_rx_queue_count", unsafe { sys::kopi_eth_rx_queue_count(self.port.id(), self.queue) })
    }
}

impl TxQueue {
    /// Makes the handle of one queue. With `only`, the driver was promised that all buffers come from that pool.
    ///
    /// # Safety
    ///
    /// As for [`RxQueue::new`].
    pub(crate) unsafe fn new(port: Arc<Shared>, queue: u16, only: Option<*mut sys::rte_mempool>) -> Self {
        Self { port, queue, only: only.map(OnlyPool) }
    }

    /// Number of the queue in its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Sends frames from the front of `batch`, and returns how many; the others stay, in order.
    ///
    /// Fewer than asked means that the queue is full. Never blocks, never allocates.
    ///
    /// # Panics
    ///
    /// If the port was configured with [`PortConfig::one_pool`](crate::PortConfig::one_pool), its driver relies on
    /// that, and a frame comes from another pool or has several segments.
    #[inline]
    pub fn send(&mut self, batch: &mut Batch) -> u16 {
        if let Some(OnlyPool(pool)) = self.only {
            assert!(batch.iter().all(|mbuf| mbuf.is_plain_of(pool)), "a frame from another pool than was promised");
        }
        let len = u16::try_from(batch.len()).unwrap_or(u16::MAX);
        if len == 0 {
            return 0;
        }
        let mbufs = batch.as_mut_ptr().cast();
        // SAFETY:
        // - the port is started, and stays so while we hold a share of it;
        // - only one thread may use a queue: there is one `TxQueue` for it, not `Clone`, and we hold it by `&mut`;
        // - `mbufs` has `len` pointers to buffers that we own.
        let n = unsafe { sys::kopi_eth_tx_burst(self.port.id(), self.queue, mbufs, len) };
        // SAFETY: the driver has taken the first `n` buffers, and `n` is at most `len`.
        unsafe { batch.forget_front(usize::from(n)) };
        n
    }
}

/// Whether each frame lies in one segment, of at most `room` bytes. Four at a time, which takes most of the loop's cost away;
/// apart from `receive`, which is small enough to be inlined then.
#[inline(never)]
fn are_plain(frames: &[Mbuf], room: u16) -> bool {
    let (fours, rest) = frames.as_chunks::<4>();
    let is_plain = |mbuf: &Mbuf| mbuf.is_plain(room);
    fours.iter().all(|[a, b, c, d]| is_plain(a) && is_plain(b) && is_plain(c) && is_plain(d))
        && rest.iter().all(is_plain)
}

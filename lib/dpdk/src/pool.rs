//! Pools of packet buffers, made at start.

use std::ffi::{c_uint, c_void};
use std::ptr::NonNull;

use dpdk_sys as sys;

use crate::batch::{Batch, Fresh};
use crate::eal::{Handle, RawPool};
use crate::error::{DpdkError, c_string, check, last};
use crate::mbuf::Mbuf;

/// What a [`Pool`] is to be.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig<'a> {
    /// Unique in this process, at most 25 bytes.
    pub name: &'a str,
    /// Number of buffers. One less than a power of two uses memory best.
    pub mbufs: u32,
    /// Buffers that each registered thread may keep to itself: 0 to 512, and at most two thirds of `mbufs`.
    pub cache: u32,
    /// Bytes of the largest frame. Headroom comes on top, so such a frame is always one segment.
    pub frame_max: u16,
    /// NUMA node of the memory; `None` for any.
    pub socket: Option<u16>,
}

/// Where packet buffers come from, and go back to when they are dropped. Lives until [`Eal`](crate::Eal) is closed.
///
/// Any thread may use it; a registered one ([`Handle::register_thread`]) has a cache of its own in it.
#[derive(Clone, Debug)]
pub struct Pool {
    raw: RawPool,
    mbufs: u32,
    frame_max: u16,
    _handle: Handle,
}

impl Pool {
    /// Makes a pool and writes all of its memory once.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if there is not enough memory, if the name is taken or too long, or if the cache is too large;
    /// [`DpdkError::Invalid`] if headroom and frame exceed the 65,535 bytes that a buffer can have.
    pub fn new(handle: &Handle, config: PoolConfig<'_>) -> Result<Self, DpdkError> {
        let PoolConfig { name, mbufs, cache, frame_max, socket } = config;
        let headroom = u16::try_from(sys::RTE_PKTMBUF_HEADROOM).unwrap_or(u16::MAX);
        let data_room = headroom
            .checked_add(frame_max)
            .ok_or_else(|| DpdkError::Invalid(format!("a frame of {frame_max} bytes does not fit a buffer")))?;
        let name = c_string(name)?;
        let socket = socket.map_or(sys::SOCKET_ID_ANY, i32::from);
        // SAFETY: EAL is up as long as a handle exists; DPDK checks the rest and copies the name.
        let pool = unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), mbufs, cache, 0, data_room, socket) };
        let pool = NonNull::new(pool).ok_or_else(|| last("rte_pktmbuf_pool_create"))?;
        // SAFETY: nobody else knows the pool yet, and `erase` takes its objects as they are: packet buffers.
        let erased = unsafe { sys::rte_mempool_obj_iter(pool.as_ptr(), Some(erase), std::ptr::null_mut()) };
        debug_assert_eq!(erased, mbufs);
        handle.keep(RawPool(pool));
        Ok(Self { raw: RawPool(pool), mbufs, frame_max, _handle: handle.clone() })
    }

    /// Takes `n` buffers at once and puts them at the end of `batch`, empty. All or nothing.
    ///
    /// Returns false, and takes none, if the pool has fewer left or `batch` has less room.
    pub fn fill(&self, batch: &mut Batch, n: usize) -> bool {
        let first = batch.len();
        let Some(fresh) = self.fresh(batch, n) else { return false };
        fresh.keep_empty();
        batch.len() == first + n
    }

    /// Takes `n` buffers at once, to be made frames one by one at the end of `batch`. `None`, and nothing taken, if the pool has
    /// fewer left or `batch` has less room.
    #[inline]
    pub fn fresh<'a>(&self, batch: &'a mut Batch, n: usize) -> Option<Fresh<'a>> {
        let spare = batch.spare().get_mut(..n)?;
        let count = c_uint::try_from(n).unwrap_or(c_uint::MAX);
        // SAFETY: `spare` has room for `n` pointers, and `Mbuf` is a transparent pointer.
        let result = unsafe { sys::kopi_mempool_get_bulk(self.raw.0.as_ptr(), spare.as_mut_ptr().cast(), count) };
        check("rte_mempool_get_bulk", result).ok()?;
        // SAFETY: DPDK has written, and given us, exactly `n` buffers, which have room for a frame of the pool's size behind the
        // headroom.
        Some(unsafe { Fresh::new(batch, n, self.frame_max) })
    }

    /// Takes one buffer, empty; `None` if there is none left.
    #[must_use]
    pub fn take(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as our handle.
        let raw = unsafe { sys::kopi_pktmbuf_alloc(self.raw.0.as_ptr()) };
        // SAFETY: a buffer that the pool has just given to us alone.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Buffers that are free now, those in the caches of other threads included. Slow: for statistics.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as our handle.
        unsafe { sys::rte_mempool_avail_count(self.raw.0.as_ptr()) }
    }

    /// Buffers in all.
    #[must_use]
    pub fn mbufs(&self) -> u32 {
        self.mbufs
    }

    /// Bytes of the largest frame that fits one buffer.
    #[must_use]
    pub fn frame_max(&self) -> u16 {
        self.frame_max
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.raw.0.as_ptr()
    }
}

/// Writes zeros over the buffer of one packet, so that no byte of it is uninitialised when it is lent as a slice.
unsafe extern "C" fn erase(_: *mut sys::rte_mempool, _: *mut c_void, object: *mut c_void, _: c_uint) {
    let mbuf = object.cast::<sys::rte_mbuf>();
    // SAFETY: an object of a packet pool is an `rte_mbuf`, initialised by DPDK, and nobody else has it.
    let buffer = unsafe { (*mbuf).buf_addr }.cast::<u8>();
    // SAFETY: as above.
    let len = usize::from(unsafe { (*mbuf).buf_len });
    // SAFETY: the buffer of that packet: `buf_len` bytes at `buf_addr`.
    unsafe { buffer.write_bytes(0, len) };
}

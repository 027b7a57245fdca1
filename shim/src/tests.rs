//! What the tests of the burst functions share: an EAL of this process, pools, rings, and a count of allocations.

use crate::ring_slot::RingSlot;
use crate::sys;
use crate::sys::rte_mbuf;
use kopi_ring::{Geometry, HugePages, Region};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Allocations and frees of this thread so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// EAL, without huge pages, for one test at a time.
pub(crate) struct TestEal {
    _turn: MutexGuard<'static, ()>,
}

impl TestEal {
    pub(crate) fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        static EAL: Once = Once::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        EAL.call_once(|| {
            let prefix = format!("shimunit{}", std::process::id());
            let words = ["shim", "--no-huge", "-m", "64", "--no-pci", "--no-telemetry", "--file-prefix", &prefix];
            let words = words.map(|word| CString::new(word).unwrap());
            let mut pointers = words.each_ref().map(|word| word.as_ptr().cast_mut());
            // SAFETY: the words outlive the call, which comes once.
            let used = unsafe { sys::rte_eal_init(8, pointers.as_mut_ptr()) };
            assert!(used >= 0, "EAL does not start");
        });
        Self { _turn: turn }
    }

    /// A pool of `n` buffers with `room` bytes behind the headroom.
    pub(crate) fn pool(&self, n: u32, room: u16) -> Pool {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = CString::new(format!("pool{}", NEXT.fetch_add(1, Relaxed))).unwrap();
        let size = room + u16::try_from(sys::RTE_PKTMBUF_HEADROOM).unwrap();
        // SAFETY: EAL runs, and the name is a C string that DPDK copies.
        let pool = unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), n, 0, 0, size, 0) };
        assert!(!pool.is_null(), "no pool");
        Pool(pool)
    }
}

/// A pool that is freed at the end, and must be complete by then.
pub(crate) struct Pool(pub(crate) *mut sys::rte_mempool);

impl Pool {
    /// Buffers in use.
    pub(crate) fn used(&self) -> u32 {
        // SAFETY: a valid pool.
        unsafe { sys::rte_mempool_in_use_count(self.0) }
    }

    /// A packet whose segments hold `pieces`.
    pub(crate) fn packet(&self, pieces: &[&[u8]]) -> *mut rte_mbuf {
        let mut head = std::ptr::null_mut::<rte_mbuf>();
        for piece in pieces {
            // SAFETY: a valid pool.
            let mbuf = unsafe { sys::kopi_pktmbuf_alloc(self.0) };
            assert!(!mbuf.is_null());
            fill(mbuf, piece);
            if head.is_null() {
                head = mbuf;
            } else {
                // SAFETY: two valid packets of ours.
                assert_eq!(unsafe { sys::kopi_pktmbuf_chain(head, mbuf) }, 0);
            }
        }
        head
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let used = self.used();
        // SAFETY: nobody uses the pool any more; of a leak, the assertion tells.
        unsafe { sys::rte_mempool_free(self.0) };
        assert!(used == 0 || std::thread::panicking(), "{used} buffers were not given back");
    }
}

/// Writes `bytes` into an empty packet.
pub(crate) fn fill(mbuf: *mut rte_mbuf, bytes: &[u8]) {
    // SAFETY: a valid packet of ours.
    let mbuf = unsafe { &mut *mbuf };
    assert!(bytes.len() + usize::from(mbuf.data_off) <= usize::from(mbuf.buf_len));
    mbuf.data_len = u16::try_from(bytes.len()).unwrap();
    mbuf.pkt_len = bytes.len().try_into().unwrap();
    let to = mbuf.buf_addr.cast::<u8>().wrapping_add(mbuf.data_off.into());
    // SAFETY: the buffer has room.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

/// The bytes of a packet, over all its segments, which must add up to what its head says.
pub(crate) fn bytes(packet: *const rte_mbuf) -> Vec<u8> {
    let mut all = Vec::new();
    let (mut at, mut segments) = (packet, 0);
    while !at.is_null() {
        // SAFETY: a valid segment.
        let mbuf = unsafe { &*at };
        let from = mbuf.buf_addr.cast::<u8>().wrapping_add(mbuf.data_off.into());
        // SAFETY: the data of a valid segment.
        all.extend_from_slice(unsafe { std::slice::from_raw_parts(from, mbuf.data_len.into()) });
        at = mbuf.next;
        segments += 1;
    }
    // SAFETY: a valid packet.
    let head = unsafe { &*packet };
    assert_eq!((head.pkt_len as usize, head.nb_segs), (all.len(), segments));
    all
}

/// A region with one ring of `slots` in each direction.
pub(crate) fn region(slots: u32, slot_size: u32) -> Region {
    Region::create(&Geometry::new(&[slots], &[slots], slot_size).unwrap(), HugePages::Off).unwrap()
}

/// A region of one RX queue, with this many lanes of `slots` slots.
pub(crate) fn lanes(lanes: usize, slots: u32) -> Region {
    let geometry = Geometry::new(&[slots], &vec![slots; lanes], 256).unwrap();
    Region::create(&geometry.with_lanes(lanes.try_into().unwrap()).unwrap(), HugePages::Off).unwrap()
}

/// `len` bytes that differ with `seed`.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + seed) % 251).unwrap()).collect()
}

/// Whether the queue has reported a fault.
pub(crate) fn reported<E>(shared: &Arc<RingSlot<E>>) -> bool {
    shared.take_fault().is_some()
}

//! What is sent by reference, with EAL's real memory in a real window.

use super::*;
use crate::memory::{MemoryWatch, Step};
use crate::memory_map::MemoryMap;
use crate::tests::{Pool, TestEal, allocations, fill as write, pattern, region};
use kopi_ring::{Consumer, Region, Window};

/// All of this process's memory, shared with a daemon in the same process.
struct Shared {
    watch: MemoryWatch,
    map: Arc<MemoryMap>,
    window: Arc<Window>,
}

impl Shared {
    fn new() -> Self {
        let watch = MemoryWatch::new(7, crate::event::new().unwrap());
        let mut sharing = watch.begin().unwrap();
        let window = Arc::new(Window::new(sharing.map().layout()).unwrap());
        while let Some(step) = sharing.next() {
            match step {
                Step::Share(segments) => {
                    segments.iter().for_each(|(segment, file)| window.map(file, segment).unwrap());
                }
                Step::Unshare(spans) => spans.iter().for_each(|span| window.unmap(*span).unwrap()),
            }
            sharing.done();
        }
        assert!(sharing.bytes() >= 32 << 20, "{sharing:?}");
        Self { watch, map: Arc::clone(sharing.map()), window }
    }

    fn queue(&self, region: &Region, offloads: u64) -> (TxQueue, Consumer) {
        let queue = TxQueue::new(TxConfig { descriptors: 64, offloads });
        self.offer(&queue, region);
        (queue, region.tx_consumer(0).unwrap().sharing(Some(Arc::clone(&self.window))))
    }

    fn offer(&self, queue: &TxQueue, region: &Region) {
        let publisher = TxPublisher::new(region.tx_producer(0).unwrap(), None).sharing(Some(Arc::clone(&self.map)));
        queue.shared().offer(Box::new(publisher), None);
    }
}

/// Everything in the ring, released or not.
fn drain(ring: &mut Consumer, release: bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    ring.poll().unwrap();
    while let Some(frame) = ring.next().unwrap() {
        let mut bytes = vec![0; frame.len() as usize];
        ring.copy_from(&frame, 0, &mut bytes);
        frames.push(bytes);
    }
    if release {
        ring.release();
    }
    frames
}

fn by_reference(queue: &TxQueue) -> u64 {
    queue.shared().counters().by_reference.get()
}

/// Packets of all lengths arrive whole and in order. Those with more than a head are held until their slots are empty, all others are
/// freed at once, and in the end none is held, none lost and none freed twice.
#[test]
fn long_packets_are_held_until_they_are_read() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    for offloads in [0, sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE] {
        let pool = eal.pool(511, 2048);
        let region = region(64, 256);
        let (mut queue, mut ring) = shared.queue(&region, offloads);
        let whole = pattern(1522, 3);
        for round in 0..50 {
            let lens = [60, 128, 129, 1522, 60, 255, 256, 257, 14, 1000 + round];
            let mut packets = lens.map(|len| pool.packet(&[&whole[..len]]));
            assert_eq!(queue.send(&mut packets), 10);
            assert_eq!(pool.used(), 6);
            let frames = drain(&mut ring, false);
            assert!(frames.iter().zip(lens).all(|(frame, len)| *frame == whole[..len]), "{round}");
            assert_eq!((frames.len(), queue.clean(usize::MAX), pool.used()), (10, 0, 6), "nothing is passed yet");
            ring.release();
            assert_eq!((queue.clean(2), queue.clean(usize::MAX), queue.clean(usize::MAX)), (2, 4, 0));
            assert_eq!(pool.used(), 0);
        }
        assert_eq!(by_reference(&queue), 300);
        assert_eq!(queue.shared().counters().packets.get(), 500);
    }
}

/// A checksum and a tag are written into the head alone, the rest is read where it lies, and neither changes the application's buffer. A
/// packet that is cut is copied.
#[test]
fn heads_are_finished_in_their_slots() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(255, 2048);
    let region = region(64, 256);
    let offloads = crate::limits::TX_OFFLOADS;
    let (mut queue, mut ring) = shared.queue(&region, offloads);
    for (payload, tag, refers) in [(60, false, false), (87, false, true), (1000, false, true), (1001, true, true)] {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(u16::try_from(28 + payload).unwrap().to_be_bytes());
        frame.extend([0, 7, 0x40, 0, 64, 17, 0xde, 0xad, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4]);
        frame.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
        frame.extend([0xde, 0xad]);
        frame.extend(pattern(payload, 3));
        let mut right = frame.clone();
        kopi_packet::checksum::complete(&mut right, &kopi_packet::parse(&frame, 1).0);
        if tag {
            right.splice(12..12, [0x81, 0, 0x60, 5]);
        }
        let packet = pool.packet(&[&frame]);
        let flags = sys::RTE_MBUF_F_TX_IP_CKSUM | sys::RTE_MBUF_F_TX_UDP_CKSUM;
        // SAFETY: a packet of ours.
        unsafe { (*packet).ol_flags = flags | if tag { sys::RTE_MBUF_F_TX_VLAN } else { 0 } };
        // SAFETY: as above.
        unsafe { (*packet).tx_offload = 14 | 20 << 7 };
        // SAFETY: as above.
        unsafe { (*packet).vlan_tci = 0x6005 };
        let before = by_reference(&queue);
        assert_eq!(queue.send(&mut [packet]), 1);
        assert_eq!(by_reference(&queue) - before, u64::from(refers), "{payload}");
        if refers {
            assert_eq!(crate::tests::bytes(packet), frame);
        }
        assert_eq!(drain(&mut ring, true), [right], "{payload}");
        assert_eq!((queue.clean(usize::MAX), pool.used()), (usize::from(refers), 0));
    }
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 4, 0, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend(pattern(900, 1));
    let packet = pool.packet(&[&frame]);
    // SAFETY: a packet of ours.
    unsafe { (*packet).ol_flags = sys::RTE_MBUF_F_TX_TCP_SEG };
    // SAFETY: as above.
    unsafe { (*packet).tx_offload = 14 | 20 << 7 | 20 << 16 | 400 << 24 };
    let before = by_reference(&queue);
    assert_eq!((queue.send(&mut [packet]), by_reference(&queue) - before, pool.used()), (1, 0, 0));
    assert_eq!(drain(&mut ring, true).iter().map(Vec::len).collect::<Vec<_>>(), [454, 454, 154]);
}

/// Bursts free what was read by themselves, whatever is in them, and a full ring holds no packet that it did not take.
#[test]
fn bursts_free_what_was_read() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(2047, 2048);
    let region = region(64, 256);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let (long, short) = (pattern(600, 1), pattern(60, 2));
    let mut packets: Vec<_> = (0..100).map(|_| pool.packet(&[&long])).collect();
    assert_eq!((queue.send(&mut packets), queue.send(&mut packets[64..])), (64, 0), "a slot for each, however long");
    assert_eq!(pool.used(), 100);
    assert_eq!(drain(&mut ring, true), vec![long.clone(); 64]);
    assert_eq!((queue.send(&mut packets[64..]), pool.used()), (36, 36));
    assert_eq!(drain(&mut ring, true).len(), 36);
    assert_eq!((queue.send(&mut [pool.packet(&[&short])]), pool.used()), (1, 0));
    assert_eq!(drain(&mut ring, true), [short]);
    // One at a time, as well.
    for _ in 0..200 {
        assert_eq!(queue.send(&mut [pool.packet(&[&long])]), 1);
        assert_eq!(drain(&mut ring, true), std::slice::from_ref(&long));
        assert!(pool.used() <= 32, "{}", pool.used());
    }
}

/// An application with few packets gets them back: at most a quarter of a pool is held, and the rest is copied.
#[test]
fn small_pools_are_not_used_up() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(64, 2048);
    let region = region(64, 2048);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let frame = pattern(600, 1);
    for round in 0..3 {
        let mut packets: Vec<_> = (0..40).map(|_| pool.packet(&[&frame])).collect();
        assert_eq!((queue.send(&mut packets), pool.used()), (40, 16), "{round}");
        assert_eq!(drain(&mut ring, true), vec![frame.clone(); 40]);
        assert_eq!(queue.clean(usize::MAX), 16);
    }
    assert_eq!(by_reference(&queue), 48);
}

/// However many queues send out of a pool, a quarter of it is held by all of them together; and a pool that was made at the place of another
/// one is no longer that.
#[test]
fn queues_share_what_may_be_held_of_a_pool() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(256, 2048);
    let regions = [(); 4].map(|()| region(64, 2048));
    let mut queues = regions.each_ref().map(|region| shared.queue(region, 0));
    let frame = pattern(600, 1);
    for (queue, _) in &mut queues {
        let mut packets: Vec<_> = (0..40).map(|_| pool.packet(&[&frame])).collect();
        assert_eq!((queue.send(&mut packets), by_reference(queue)), (40, 16));
    }
    assert_eq!(pool.used(), 64);
    let [(mut queue, mut ring), others @ ..] = queues;
    drop(others);
    assert_eq!((drain(&mut ring, true).len(), queue.clean(usize::MAX), pool.used()), (40, 16, 0));
    let mut packets: Vec<_> = (0..40).map(|_| pool.packet(&[&frame])).collect();
    assert_eq!((queue.send(&mut packets), by_reference(&queue)), (40, 16 + 40), "it is alone now");
    queue.reset();
    assert_eq!(pool.used(), 0);
    // What a queue remembers of a pool does not hold for another one that is made at its place while the port is stopped.
    // SAFETY: all zeros is a valid description, of which the size alone is looked at.
    let mut place: sys::rte_mempool = unsafe { std::mem::zeroed() };
    place.size = 64;
    assert!(queue.held.takes(&raw mut place));
    queue.reset();
    place.size = 0;
    assert!(!queue.held.takes(&raw mut place));
}

/// A queue whose link the application has taken down frees what the daemon has read meanwhile.
#[test]
fn queues_that_are_down_free_what_was_read() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(255, 2048);
    let region = region(64, 2048);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let mut packets: Vec<_> = (0..10).map(|_| pool.packet(&[&pattern(600, 1)])).collect();
    assert_eq!((queue.send(&mut packets), pool.used()), (10, 10));
    queue.shared().set_down(true);
    assert_eq!((queue.send(&mut []), pool.used()), (0, 10), "the daemon has read none");
    assert_eq!(drain(&mut ring, true).len(), 10);
    let mut refused = [pool.packet(&[&pattern(600, 1)])];
    assert_eq!((queue.send(&mut refused), pool.used()), (0, 1));
    queue.shared().set_down(false);
    assert_eq!((queue.send(&mut refused), drain(&mut ring, true).len()), (1, 1));
}

/// Packets in memory that is not EAL's, in several segments, or in memory that is about to be freed, are copied.
#[test]
fn other_memory_is_copied() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(255, 2048);
    let region = region(64, 2048);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let payload = pattern(400, 5);
    let mut outside = [0_u8; 512];
    unsafe extern "C" fn forget(_at: *mut c_void, _argument: *mut c_void) {}
    // SAFETY: all zeros is a valid description, and is filled in below.
    let mut description: sys::rte_mbuf_ext_shared_info = unsafe { std::mem::zeroed() };
    description.free_cb = Some(forget);
    description.refcnt = 1;
    // SAFETY: a valid pool.
    let external = unsafe { sys::kopi_pktmbuf_alloc(pool.0) };
    // SAFETY: the memory and its description outlive the packet.
    unsafe { sys::kopi_pktmbuf_attach_extbuf(external, outside.as_mut_ptr().cast(), 0, 512, &raw mut description) };
    // SAFETY: a packet of ours.
    unsafe { (*external).data_off = 0 };
    write(external, &payload);
    let segments = pool.packet(&[&payload[..200], &payload[200..]]);
    assert_eq!(queue.send(&mut [external, segments]), 2);
    assert_eq!((pool.used(), by_reference(&queue)), (0, 0));
    assert_eq!(drain(&mut ring, true), [&payload[..], &payload]);

    let packet = pool.packet(&[&payload]);
    // SAFETY: a packet of ours.
    let at = unsafe { (*packet).buf_addr };
    shared.watch.pretend(sys::RTE_MEM_EVENT_FREE, at.addr() & !4095, 4096);
    assert_eq!((queue.send(&mut [packet]), pool.used(), by_reference(&queue)), (1, 0, 0));
    assert_eq!(drain(&mut ring, true), [payload]);
}

/// Whichever way the daemon goes away, or the queue ends, every packet goes back to its pool once.
#[test]
fn held_packets_outlive_nobody() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(511, 2048);
    let frame = pattern(600, 1);
    let send = |queue: &mut TxQueue, pool: &Pool| {
        assert_eq!((queue.send(&mut [pool.packet(&[&frame]), pool.packet(&[&frame])]), pool.used()), (2, 2));
    };
    // A daemon that is gone reads nothing any more.
    let (first, second) = (region(64, 256), region(64, 256));
    let (mut queue, _ring) = shared.queue(&first, 0);
    send(&mut queue, &pool);
    queue.shared().set_away();
    assert_eq!((queue.send(&mut []), pool.used()), (0, 0));
    queue.shared().collect();
    // One that is replaced before the queue has noticed.
    shared.offer(&queue, &second);
    send(&mut queue, &pool);
    queue.shared().set_away();
    queue.shared().collect();
    let third = region(64, 256);
    shared.offer(&queue, &third);
    assert_eq!((queue.send(&mut []), pool.used()), (0, 0));
    queue.shared().collect();
    // Asked for by the application.
    send(&mut queue, &pool);
    queue.shared().set_away();
    assert_eq!((queue.clean(usize::MAX), pool.used()), (0, 0));
    queue.shared().collect();
    // Stopped, and closed.
    let fourth = region(64, 256);
    shared.offer(&queue, &fourth);
    send(&mut queue, &pool);
    queue.reset();
    assert_eq!(pool.used(), 0);
    let fifth = region(64, 256);
    shared.offer(&queue, &fifth);
    send(&mut queue, &pool);
    drop(queue);
    assert_eq!(pool.used(), 0);
    // A daemon that lies about what it has read.
    let sixth = region(64, 256);
    let (mut queue, _ring) = shared.queue(&sixth, 0);
    send(&mut queue, &pool);
    rustix::io::pwrite(sixth.fd(), &[0xff; 1024], 4096).unwrap();
    assert_eq!(queue.clean(usize::MAX), 0);
    drop(queue);
    assert_eq!(pool.used(), 0);
}

/// A daemon that was only slow, and reads on in a ring whose packets were freed, meets a fault there: it sends nothing of what their
/// buffers hold by then. What was copied stays as it was.
#[test]
fn what_is_freed_unread_is_not_sent() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(511, 2048);
    let (short, long) = (pattern(60, 2), pattern(600, 1));
    let ways: [fn(&mut TxQueue, &Shared, &Region); 4] = [
        |queue, _, _| {
            queue.shared().set_away();
            queue.send(&mut []);
        },
        |queue, _, _| {
            queue.shared().set_away();
            queue.clean(usize::MAX);
        },
        |queue, shared, next| {
            shared.offer(queue, next);
            queue.send(&mut []);
        },
        |queue, _, _| queue.reset(),
    ];
    for leave in ways {
        let (first, next) = (region(64, 256), region(64, 256));
        let (mut queue, mut ring) = shared.queue(&first, 0);
        let mut packets = [&long, &short, &long].map(|bytes| pool.packet(&[bytes]));
        assert_eq!((queue.send(&mut packets), pool.used()), (3, 2));
        ring.poll().unwrap();
        assert_eq!(ring.next().unwrap().map(|frame| frame.len()), Some(600));
        leave(&mut queue, &shared, &next);
        assert_eq!(pool.used(), 0);
        assert_eq!(ring.next().unwrap().map(|frame| frame.len()), Some(60));
        let read = ring.next();
        assert!(matches!(read, Err(PeerFault::Length { length: 0, .. })), "{read:?}");
    }
}

/// Packets whose bytes are in another one's buffer, or in one of the application's, are copied, wherever that lies.
#[test]
fn borrowed_buffers_are_copied() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(255, 2048);
    let region = region(64, 2048);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let payload = pattern(400, 5);
    let owner = pool.packet(&[&payload]);
    // SAFETY: a valid pool.
    let clone = unsafe { sys::kopi_pktmbuf_alloc(pool.0) };
    // SAFETY: two packets of ours.
    unsafe { sys::kopi_pktmbuf_attach(clone, owner) };
    assert_eq!((queue.send(&mut [clone]), pool.used(), by_reference(&queue)), (1, 1, 0));
    let external = pool.packet(&[&payload]);
    // SAFETY: a packet of ours, which says so for the length of the call alone.
    unsafe { (*external).ol_flags |= sys::RTE_MBUF_F_EXTERNAL };
    assert!(!owns_buffer(external));
    // SAFETY: as above.
    unsafe { (*external).ol_flags &= !sys::RTE_MBUF_F_EXTERNAL };
    assert_eq!((queue.send(&mut [owner]), by_reference(&queue)), (1, 1));
    assert_eq!(drain(&mut ring, true), [&payload[..], &payload]);
    assert_eq!((queue.clean(usize::MAX), pool.used()), (1, 1));
    // SAFETY: a packet of ours.
    unsafe { sys::kopi_pktmbuf_free(external) };
}

/// A packet that somebody else holds as well loses our hold alone.
#[test]
fn shared_packets_stay_with_the_others() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(255, 2048);
    let region = region(64, 256);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let held = pool.packet(&[&pattern(300, 5)]);
    // SAFETY: a packet of ours.
    unsafe { sys::kopi_mbuf_refcnt_update(held, 1) };
    assert_eq!((queue.send(&mut [held]), by_reference(&queue)), (1, 1));
    assert_eq!(drain(&mut ring, true), [pattern(300, 5)]);
    assert_eq!((queue.clean(usize::MAX), pool.used()), (1, 1));
    // SAFETY: the hold that is left is ours.
    assert_eq!(unsafe { sys::kopi_mbuf_refcnt_read(held) }, 1);
    // SAFETY: as above.
    unsafe { sys::kopi_pktmbuf_free(held) };
}

/// The status of a descriptor says that it is done only when the daemon has passed it.
#[test]
fn descriptors_are_done_when_they_are_passed() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(511, 2048);
    let region = region(64, 256);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let mut packets: Vec<_> = (0..64).map(|_| pool.packet(&[&pattern(300, 5)])).collect();
    assert_eq!(queue.send(&mut packets), 64);
    // SAFETY: a queue, which nobody else uses.
    let mut is_done = || unsafe { descriptor_status((&raw mut queue).cast(), 0) } == status(sys::RTE_ETH_TX_DESC_DONE);
    assert!(!is_done());
    assert_eq!(drain(&mut ring, false).len(), 64);
    assert!(!is_done());
    ring.release();
    assert!(is_done());
}

/// No allocation per packet.
#[test]
fn sending_by_reference_allocates_nothing() {
    let (eal, shared) = (TestEal::new(), Shared::new());
    let pool = eal.pool(1023, 2048);
    let region = region(64, 256);
    let (mut queue, mut ring) = shared.queue(&region, 0);
    let frame = pattern(1000, 1);
    queue.send(&mut [pool.packet(&[&frame])]);
    let before = allocations();
    for _ in 0..5_000 {
        let mut packets = [pool.packet(&[&frame]), pool.packet(&[&frame[..60]]), pool.packet(&[&frame[..500]])];
        let taken = usize::from(queue.send(&mut packets));
        // SAFETY: packets that the queue has not taken.
        packets[taken..].iter().for_each(|packet| unsafe { sys::kopi_pktmbuf_free(*packet) });
        ring.poll().unwrap();
        while ring.next().unwrap().is_some() {}
        ring.release();
    }
    assert_eq!(allocations(), before);
    assert!(by_reference(&queue) > 9_000);
}

//! Memory for queued packets, of all classes of a worker together.

use crate::codel::Codel;

/// Nothing, where an index is.
pub(crate) const NIL: u32 = u32::MAX;
/// Groups of flows by what they hold, each for twice as much as the one before.
pub(crate) const LEVELS: usize = 20;

/// The packets and flows of all [`Queue`](crate::Queue)s of one worker.
///
/// All memory is allocated at the start. Queues without packets have none of it, however many there are.
#[derive(Debug)]
pub struct PacketStore<T> {
    packets: Vec<Packet<T>>,
    /// The first of the packets that are free, each of which has the next one.
    free_packet: u32,
    pub(crate) flows: Vec<Flow>,
    free_flow: u32,
    /// The first flow of each chain. The length is a power of two.
    table: Vec<u32>,
    queues: u32,
}

/// A packet in a flow, or a free place.
#[derive(Debug)]
struct Packet<T> {
    item: Option<T>,
    arrival: u64,
    length: u32,
    /// The packet behind it.
    next: u32,
}

/// A packet that was taken out.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) item: T,
    pub(crate) length: u32,
    pub(crate) arrival: u64,
}

/// The packets of one queue whose flow hashes are the same, as far as they are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    queue: u32,
    bucket: u32,
    head: u32,
    tail: u32,
    pub(crate) bytes: u64,
    /// Bytes that it may still send in this round.
    pub(crate) deficit: i64,
    pub(crate) codel: Codel,
    /// The flow behind it in its queue's list; the next free one.
    pub(crate) next: u32,
    /// The next one in its chain of the table.
    chain: u32,
    /// Its neighbours among those of its queue that hold about as much, if it holds anything.
    pub(crate) before: u32,
    pub(crate) after: u32,
}

impl<T> PacketStore<T> {
    /// Room for so many packets and flows.
    ///
    /// # Panics
    ///
    /// If either is zero or 2^31 or more.
    #[must_use]
    pub fn new(packets: usize, flows: usize) -> Self {
        assert!([packets, flows].iter().all(|count| (1..1 << 31).contains(count)), "{packets} packets, {flows} flows");
        let following = |at: usize, count: usize| if at + 1 < count { index(at + 1) } else { NIL };
        let packet = |at| Packet { item: None, arrival: 0, length: 0, next: following(at, packets) };
        let flow = |at| Flow { next: following(at, flows), ..Flow::new(0, 0) };
        Self {
            packets: (0..packets).map(packet).collect(),
            free_packet: 0,
            flows: (0..flows).map(flow).collect(),
            free_flow: 0,
            table: vec![NIL; (2 * flows).next_power_of_two()],
            queues: 0,
        }
    }

    /// A number for a new queue, which distinguishes its flows from those of others.
    pub(crate) fn number(&mut self) -> u32 {
        self.queues = self.queues.wrapping_add(1).max(1);
        self.queues
    }

    /// Whether there is room for one more packet.
    #[inline]
    pub(crate) const fn has_room(&self) -> bool {
        self.free_packet != NIL
    }

    /// The flow of `queue` for `bucket`, if it has one.
    #[inline]
    pub(crate) fn find(&self, queue: u32, bucket: u32) -> Option<u32> {
        let mut at = self.table[self.chain_of(queue, bucket)];
        while at != NIL {
            let flow = &self.flows[at as usize];
            if flow.queue == queue && flow.bucket == bucket {
                return Some(at);
            }
            at = flow.chain;
        }
        None
    }

    /// A new flow of `queue` for `bucket`, unless there is no room.
    pub(crate) fn begin(&mut self, queue: u32, bucket: u32) -> Option<u32> {
        let at = self.free_flow;
        if at == NIL {
            return None;
        }
        let chain = self.chain_of(queue, bucket);
        let flow = &mut self.flows[at as usize];
        self.free_flow = flow.next;
        *flow = Flow { chain: self.table[chain], ..Flow::new(queue, bucket) };
        self.table[chain] = at;
        Some(at)
    }

    /// Frees flow `at`, which has no packets and is in no list.
    pub(crate) fn end(&mut self, at: u32) {
        let Flow { queue, bucket, chain, .. } = self.flows[at as usize];
        let first = self.chain_of(queue, bucket);
        if self.table[first] == at {
            self.table[first] = chain;
        } else {
            let mut other = self.table[first];
            while self.flows[other as usize].chain != at {
                other = self.flows[other as usize].chain;
            }
            self.flows[other as usize].chain = chain;
        }
        self.flows[at as usize].next = self.free_flow;
        self.free_flow = at;
    }

    /// Puts a packet at the end of flow `at`. There has to be room.
    #[inline]
    pub(crate) fn append(&mut self, at: u32, taken: Taken<T>) {
        let place = self.free_packet;
        let packet = &mut self.packets[place as usize];
        self.free_packet = packet.next;
        let Taken { item, length, arrival } = taken;
        *packet = Packet { item: Some(item), arrival, length, next: NIL };
        let flow = &mut self.flows[at as usize];
        flow.bytes += u64::from(length);
        let tail = flow.tail;
        flow.tail = place;
        if tail == NIL {
            flow.head = place;
        } else {
            self.packets[tail as usize].next = place;
        }
    }

    /// Takes the oldest packet out of flow `at`.
    #[inline]
    pub(crate) fn take(&mut self, at: u32) -> Option<Taken<T>> {
        let flow = &mut self.flows[at as usize];
        let place = flow.head;
        if place == NIL {
            return None;
        }
        let packet = &mut self.packets[place as usize];
        flow.head = packet.next;
        if flow.head == NIL {
            flow.tail = NIL;
        }
        flow.bytes -= u64::from(packet.length);
        packet.next = self.free_packet;
        self.free_packet = place;
        packet.item.take().map(|item| Taken { item, length: packet.length, arrival: packet.arrival })
    }

    /// The chain that a flow is in. Multiplying spreads what is often near to each other (Knuth, volume 3, 6.4).
    #[inline]
    const fn chain_of(&self, queue: u32, bucket: u32) -> usize {
        let mixed = (queue.wrapping_mul(0x9e37_79b1) ^ bucket).wrapping_mul(0x85eb_ca6b);
        (mixed ^ mixed >> 15) as usize & (self.table.len() - 1)
    }
}

impl Flow {
    fn new(queue: u32, bucket: u32) -> Self {
        let codel = Codel::default();
        let [head, tail, next, chain, before, after] = [NIL; 6];
        Self { queue, bucket, head, tail, bytes: 0, deficit: 0, codel, next, chain, before, after }
    }

    /// The group of flows that hold about as much, if it holds anything.
    #[inline]
    pub(crate) fn level(&self) -> Option<usize> {
        (self.head != NIL).then(|| ((self.bytes / 256 + 1).ilog2() as usize).min(LEVELS - 1))
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^31 places")
}

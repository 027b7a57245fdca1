//! The queue of a class that holds packets: fair between its flows, short by CoDel, and bounded.

use crate::codel::CodelConfig;
use crate::packet_store::{Flow, LEVELS, NIL, PacketStore, Taken};

/// How a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Most packets.
    pub packets: u32,
    /// Most bytes, but for one packet.
    pub bytes: u64,
    /// Bytes of each flow in a round: the longest frame, so that every flow sends one in each round.
    pub quantum: u32,
    /// What keeps the queue short; nothing if `None`.
    pub codel: Option<CodelConfig>,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The queue was full.
    Full,
    /// It and those before it waited too long, as [`Codel`](crate::Codel) has it.
    Codel,
}

/// A packet that leaves a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popped<T> {
    /// The packet.
    pub item: T,
    /// Its length in bytes, as it was pushed.
    pub length: u32,
    /// How many ticks it has waited.
    pub sojourn: u64,
}

/// A packet that enters a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed<T> {
    /// The packet.
    pub item: T,
    /// Its length in bytes.
    pub length: u32,
    /// The hash of its flow. The lowest ten bits count.
    pub hash: u32,
}

/// The queue of one class.
///
/// Packets are put into one of 1,024 flows by their hash. Flows take turns, by deficit round robin; one that begins to have
/// packets goes before those that have had some for longer, for one quantum, so that what is sparse hardly waits. Within
/// each flow CoDel drops, from the front. A full queue drops the oldest packet of a flow that holds most, to within a factor of
/// two, so that a flood pushes out itself.
///
/// Packets and flows lie in a [`PacketStore`], which all queues of a worker share. A queue belongs to the store of its
/// first packet, and has to be drained before it is dropped. If the store has no room for another flow, flows are put together; if it
/// has none for another packet, the queue gives up one of its own, and if it has none the packet is refused.
///
/// # Bounds
///
/// A push drops at most 64 packets, and does no other work that grows with anything. A pop drops at most 64; it looks at a
/// flow once for each quantum that the flow is given, and once more when it is empty.
///
/// # Source
///
/// RFC 8290, 4 (new and old flows, quanta, dropping from the flow that holds most), RFC 8289 for each flow. Different from 4.1: the
/// fattest flow is found by lists for powers of two instead of a search through all flows, and a flow that has fallen
/// silent for a round forgets what CoDel knew of it.
#[derive(Debug)]
pub struct Queue {
    /// Distinguishes its flows from those of other queues; 0 before its first packet.
    number: u32,
    config: QueueConfig,
    packets: u32,
    bytes: u64,
    /// Flows that have just begun to have packets, and those that had their turn.
    young: List,
    old: List,
    /// The flows that hold anything by how much, as doubly linked lists, and a bit for each list that is not empty.
    levels: [u32; LEVELS],
    filled: u32,
}

/// Flows in a row.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// Flows of a queue. Ten bits of their hash distinguish them.
const BUCKETS: u32 = 1 << 10;
/// Most drops of a push or pop.
const DROPS_MAX: u32 = 64;

impl Queue {
    /// An empty queue. Its packets will be in the store that its first one is put into.
    #[must_use]
    pub const fn new(config: QueueConfig) -> Self {
        let empty = List { head: NIL, tail: NIL };
        Self { number: 0, config, packets: 0, bytes: 0, young: empty, old: empty, levels: [NIL; LEVELS], filled: 0 }
    }

    /// Changes the configuration. Packets above the new limits are dropped as others come.
    pub const fn reconfigure(&mut self, config: QueueConfig) {
        self.config = config;
    }

    /// Packets in it.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.packets
    }

    /// Whether it has no packets.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a packet at tick `now`. Packets that are dropped for it are given to `sink`.
    ///
    /// # Errors
    ///
    /// The packet itself, if the store is full and this queue has none to drop.
    #[inline]
    pub fn push<T>(
        &mut self,
        store: &mut PacketStore<T>,
        packet: Pushed<T>,
        now: u64,
        mut sink: impl FnMut(T, Cause),
    ) -> Result<(), T> {
        let Pushed { item, length, hash } = packet;
        if self.number == 0 {
            self.number = store.number();
        }
        let mut drops = 0;
        while !self.is_empty() && drops < DROPS_MAX && (self.is_full(length) || !store.has_room()) {
            self.drop_one(store, &mut sink);
            drops += 1;
        }
        if !store.has_room() {
            return Err(item);
        }
        let Some(flow) = self.flow(store, hash % BUCKETS) else { return Err(item) };
        let level = store.flows[flow as usize].level();
        store.append(flow, Taken { item, length, arrival: now });
        self.relevel(store, flow, level);
        self.packets += 1;
        self.bytes += u64::from(length);
        Ok(())
    }

    /// Takes the next packet at tick `now`. Packets that CoDel drops on the way are given to `sink`; they may be all that there
    /// are.
    #[inline]
    pub fn pop<T>(
        &mut self,
        store: &mut PacketStore<T>,
        now: u64,
        mut sink: impl FnMut(T, Cause),
    ) -> Option<Popped<T>> {
        loop {
            let young = self.young.head != NIL;
            let list = if young { &mut self.young } else { &mut self.old };
            let at = list.head;
            if at == NIL {
                return None;
            }
            let flow = &mut store.flows[at as usize];
            if flow.deficit <= 0 {
                flow.deficit += i64::from(self.config.quantum.max(1));
                list.shift(store);
                self.old.push(store, at);
                continue;
            }
            if let Some(popped) = self.pop_from(store, at, now, &mut sink) {
                return Some(popped);
            }
            // An empty flow waits for a round, so that it cannot come back as a young one at once.
            let list = if young { &mut self.young } else { &mut self.old };
            list.shift(store);
            if young && self.old.head != NIL {
                self.old.push(store, at);
            } else {
                store.end(at);
            }
        }
    }

    /// Takes all packets out, in no order.
    pub fn drain<T>(&mut self, store: &mut PacketStore<T>, mut sink: impl FnMut(T)) {
        let config = QueueConfig { codel: None, ..self.config };
        let config = std::mem::replace(&mut self.config, config);
        while let Some(popped) = self.pop(store, 0, |item, _| drop(item)) {
            sink(popped.item);
        }
        self.config = config;
    }

    /// Whether there is no room for another packet of `length` bytes.
    const fn is_full(&self, length: u32) -> bool {
        self.packets >= self.config.packets || self.bytes + length as u64 > self.config.bytes
    }

    /// The flow for `bucket`, a new one if need be; any flow if there is no room for a new one.
    #[inline]
    fn flow<T>(&mut self, store: &mut PacketStore<T>, bucket: u32) -> Option<u32> {
        if let Some(at) = store.find(self.number, bucket) {
            return Some(at);
        }
        let Some(at) = store.begin(self.number, bucket) else {
            return [self.old.head, self.young.head].into_iter().find(|at| *at != NIL);
        };
        store.flows[at as usize].deficit = self.config.quantum.max(1).into();
        self.young.push(store, at);
        Some(at)
    }

    /// Takes packets out of flow `at` until one may go.
    #[inline]
    fn pop_from<T>(
        &mut self,
        store: &mut PacketStore<T>,
        at: u32,
        now: u64,
        sink: &mut impl FnMut(T, Cause),
    ) -> Option<Popped<T>> {
        let mut drops = 0;
        loop {
            let Some(Taken { item, length, arrival }) = self.take(store, at) else {
                store.flows[at as usize].codel.idle();
                return None;
            };
            let flow = &mut store.flows[at as usize];
            let sojourn = now.saturating_sub(arrival);
            if let Some(codel) = &self.config.codel
                && drops < DROPS_MAX
                && flow.codel.should_drop(codel, (sojourn, flow.bytes), now)
            {
                drops += 1;
                sink(item, Cause::Codel);
                continue;
            }
            flow.deficit -= i64::from(length.max(1));
            return Some(Popped { item, length, sojourn });
        }
    }

    /// Drops the oldest packet of a flow that holds most. There has to be one.
    fn drop_one<T>(&mut self, store: &mut PacketStore<T>, sink: &mut impl FnMut(T, Cause)) {
        let fattest = self.levels[self.filled.ilog2() as usize];
        if let Some(taken) = self.take(store, fattest) {
            sink(taken.item, Cause::Full);
        }
    }

    /// Takes the oldest packet out of flow `at`.
    #[inline]
    fn take<T>(&mut self, store: &mut PacketStore<T>, at: u32) -> Option<Taken<T>> {
        let level = store.flows[at as usize].level();
        let taken = store.take(at)?;
        self.relevel(store, at, level);
        self.packets -= 1;
        self.bytes -= u64::from(taken.length);
        Some(taken)
    }

    /// Puts flow `at` among those that hold about as much, after it stood in `level`.
    #[inline]
    fn relevel<T>(&mut self, store: &mut PacketStore<T>, at: u32, level: Option<usize>) {
        let now = store.flows[at as usize].level();
        if now == level {
            return;
        }
        let flows = &mut store.flows;
        if let Some(level) = level {
            let Flow { before, after, .. } = flows[at as usize];
            match before {
                NIL => self.levels[level] = after,
                before => flows[before as usize].after = after,
            }
            if after != NIL {
                flows[after as usize].before = before;
            }
            if self.levels[level] == NIL {
                self.filled &= !(1 << level);
            }
        }
        if let Some(level) = now {
            let head = self.levels[level];
            let flow = &mut flows[at as usize];
            (flow.before, flow.after) = (NIL, head);
            if head != NIL {
                flows[head as usize].before = at;
            }
            self.levels[level] = at;
            self.filled |= 1 << level;
        }
    }
}

impl List {
    /// Puts flow `at` at the end.
    fn push<T>(&mut self, store: &mut PacketStore<T>, at: u32) {
        store.flows[at as usize].next = NIL;
        match self.tail {
            NIL => self.head = at,
            tail => store.flows[tail as usize].next = at,
        }
        self.tail = at;
    }

    /// Takes the first one out. There has to be one.
    fn shift<T>(&mut self, store: &mut PacketStore<T>) {
        self.head = store.flows[self.head as usize].next;
        if self.head == NIL {
            self.tail = NIL;
        }
    }
}

//! Counters with one writer each.

pub use kopi_ring::Counter;
use kopi_ring::DropReason;

/// What one worker counts for one port. TX and RX are named from the app's side; for the wire they are the NIC's own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortCounters {
    /// Frames taken from the app's TX rings, or sent on the wire.
    pub tx_packets: Counter,
    /// Bytes of those frames, FCS not counted.
    pub tx_bytes: Counter,
    /// Frames put into the app's RX rings, or received from the wire.
    pub rx_packets: Counter,
    /// Bytes of those frames, FCS not counted.
    pub rx_bytes: Counter,
    /// Frames made here by copying a multicast frame from this port to more than one receiver.
    pub copies: Counter,
    /// Frames dropped on this port's account, by [`DropReason::index`].
    pub drops: [Counter; DropReason::ALL.len()],
}

impl PortCounters {
    /// Counts `frames` dropped for `reason`.
    #[inline]
    pub fn drop(&self, reason: DropReason, frames: u64) {
        if let Some(counter) = self.drops.get(reason.index()) {
            counter.add(frames);
        }
    }
}

/// The longest iteration of a worker since somebody last asked: how long frames have waited because the worker did something
/// else, or because the kernel let something else run there.
#[derive(Debug, Default)]
pub struct LongestIteration {
    /// Cycles. Written by the worker.
    cycles: Counter,
    /// What `asked` was when `cycles` began anew. Written by the worker.
    answered: Counter,
    /// How often somebody asked. Written by the control thread.
    asked: Asked,
}

/// Apart from what the worker writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Asked(Counter);

impl LongestIteration {
    /// Notes an iteration of `cycles`. Only the worker may call this, once an iteration.
    #[inline]
    pub fn note(&self, cycles: u64) {
        let asked = self.asked.0.get();
        if asked != self.answered.get() {
            self.answered.set(asked);
            self.cycles.set(cycles);
        } else if cycles > self.cycles.get() {
            self.cycles.set(cycles);
        }
    }

    /// The cycles of the longest iteration that has ended since the last call. Only the control thread may call this.
    ///
    /// An iteration that is going on will be one of the next call's. Of two calls within one iteration, the second gives what the
    /// first gave.
    #[must_use]
    pub fn take(&self) -> u64 {
        let longest = self.cycles.get();
        self.asked.0.add(1);
        longest
    }
}

/// Everything that one worker counts.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// By port number; 0 is the wire.
    pub ports: Box<[PortCounters]>,
    /// Iterations of the worker's loop.
    pub iterations: Counter,
    /// Iterations in which it moved at least one frame.
    pub busy_iterations: Counter,
    /// Cycles spent in busy iterations.
    pub busy_cycles: Counter,
    /// Times that it went to sleep.
    pub sleeps: Counter,
    /// Cycles spent asleep.
    pub asleep_cycles: Counter,
    /// Flow-table entries in use. A gauge.
    pub flows: Counter,
    /// Packets whose flow was not in the table.
    pub flow_misses: Counter,
    /// Live flows pushed out of a full bucket by a new one.
    pub flow_evictions: Counter,
    /// Rejected frames that were not answered, because there were too many answers or their checksum was wrong.
    pub answers_withheld: Counter,
    /// Frames of the wire whose checksum was left to a card, and was finished here.
    pub checksums_finished: Counter,
    /// Frames handed over to another worker, which has the ring or the queue that they go to.
    pub handed_over: Counter,
    /// The longest of the iterations.
    pub longest_iteration: LongestIteration,
}

impl WorkerCounters {
    /// Counters for `ports` ports, the wire included.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            iterations: Counter::default(),
            busy_iterations: Counter::default(),
            busy_cycles: Counter::default(),
            sleeps: Counter::default(),
            asleep_cycles: Counter::default(),
            flows: Counter::default(),
            flow_misses: Counter::default(),
            flow_evictions: Counter::default(),
            answers_withheld: Counter::default(),
            checksums_finished: Counter::default(),
            handed_over: Counter::default(),
            longest_iteration: LongestIteration::default(),
        }
    }
}

/// The sum of one port's counters over all workers, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    /// See [`PortCounters::tx_packets`].
    pub tx_packets: u64,
    /// See [`PortCounters::tx_bytes`].
    pub tx_bytes: u64,
    /// See [`PortCounters::rx_packets`].
    pub rx_packets: u64,
    /// See [`PortCounters::rx_bytes`].
    pub rx_bytes: u64,
    /// See [`PortCounters::copies`].
    pub copies: u64,
    /// See [`PortCounters::drops`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl PortTotals {
    /// Adds up what the workers counted for port `port`.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>, port: u16) -> Self {
        let mut sum = Self::default();
        for counters in workers.into_iter().filter_map(|w| w.ports.get(usize::from(port))) {
            sum.tx_packets += counters.tx_packets.get();
            sum.tx_bytes += counters.tx_bytes.get();
            sum.rx_packets += counters.rx_packets.get();
            sum.rx_bytes += counters.rx_bytes.get();
            sum.copies += counters.copies.get();
            for (to, from) in sum.drops.iter_mut().zip(&counters.drops) {
                *to += from.get();
            }
        }
        sum
    }

    /// What was counted since `base`, an earlier moment of the same port.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        let mut difference = Self {
            tx_packets: self.tx_packets.wrapping_sub(base.tx_packets),
            tx_bytes: self.tx_bytes.wrapping_sub(base.tx_bytes),
            rx_packets: self.rx_packets.wrapping_sub(base.rx_packets),
            rx_bytes: self.rx_bytes.wrapping_sub(base.rx_bytes),
            copies: self.copies.wrapping_sub(base.copies),
            drops: self.drops,
        };
        for (to, from) in difference.drops.iter_mut().zip(&base.drops) {
            *to = to.wrapping_sub(*from);
        }
        difference
    }

    /// Frames dropped for any reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each call tells of the turns since the one before.
    #[test]
    fn the_longest_turn_begins_anew_when_asked_for() {
        let longest = LongestIteration::default();
        [5, 9, 7].into_iter().for_each(|cycles| longest.note(cycles));
        assert_eq!(longest.take(), 9);
        [3, 4].into_iter().for_each(|cycles| longest.note(cycles));
        assert_eq!(longest.take(), 4);
    }

    /// Totals add the workers up, and a later reading minus an earlier one is what happened in between.
    #[test]
    fn totals_are_sums_and_differences() {
        let workers = [WorkerCounters::new(2), WorkerCounters::new(2)];
        workers[0].ports[1].tx_packets.add(3);
        workers[1].ports[1].tx_packets.add(4);
        workers[1].ports[1].drop(DropReason::NoMbuf, 2);
        let before = PortTotals::of(&workers, 1);
        assert_eq!((before.tx_packets, before.dropped()), (7, 2));
        workers[0].ports[1].drop(DropReason::Runt, 1);
        let after = PortTotals::of(&workers, 1).since(&before);
        assert_eq!((after.tx_packets, after.dropped()), (0, 1));
        assert_eq!(PortTotals::of(&workers, 9), PortTotals::default());
    }
}

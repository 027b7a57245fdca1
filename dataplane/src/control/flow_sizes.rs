//! How large the tables of flows and of connections are.

use crate::control::memory::{Bytes, MachineMemory};
use crate::worker::flow_table::FlowTable;
use kopi_config::Config;
use kopi_policy::Connections;

/// Of the machine's memory, one part in so many is for these tables unless the configuration says how large they are.
const SHARE: u64 = 32;
/// Flows of each worker in any case, and at most: room for a million and as many again, since a bucket is full long before the
/// table is.
const LEAST: usize = 1 << 16;
const MOST: usize = 1 << 21;

/// The sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSizes {
    /// Entries of each worker's flow table.
    pub flows: usize,
    /// Connections of all workers: as many as there can be flows.
    pub connections: usize,
}

impl FlowSizes {
    /// Those that `config` states, or what is right for the machine.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let workers = config.dataplane.cores.len();
        let stated = config.dataplane.flows.and_then(|flows| usize::try_from(flows).ok());
        let sizes = Self::of(stated.unwrap_or_else(|| default_flows(MachineMemory::new().total(), workers)), workers);
        log::info!(
            "room for {} flows of each worker and {} connections, in {} of memory",
            sizes.flows,
            sizes.connections,
            Bytes(sizes.bytes(workers))
        );
        sizes
    }

    const fn of(flows: usize, workers: usize) -> Self {
        Self { flows, connections: (flows * workers).next_power_of_two() }
    }

    /// Bytes of all tables.
    const fn bytes(self, workers: usize) -> u64 {
        (self.flows * workers * FlowTable::ENTRY_SIZE + self.connections * Connections::ENTRY_SIZE) as u64
    }
}

/// The flows for which each of some workers has room on a machine with `memory` bytes: the power of two with which all tables take
/// at most a 32nd of the memory, within limits.
#[must_use]
pub fn default_flows(memory: u64, workers: usize) -> usize {
    let mut flows = MOST;
    while flows > LEAST && FlowSizes::of(flows, workers).bytes(workers) > memory / SHARE {
        flows /= 2;
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 24 GiB has room for a million flows, however few workers there are; a small one has what it always had.
    #[test]
    fn sizes_follow_the_memory() {
        let flows = |gib: u64, workers| default_flows(gib << 30, workers);
        assert_eq!([1, 2, 4, 8].map(|workers| flows(24, workers)), [1 << 21, 1 << 20, 1 << 19, 1 << 18]);
        assert_eq!([1, 2, 4].map(|workers| flows(4, workers)), [1 << 19, 1 << 18, 1 << 17]);
        assert_eq!([1, 2, 64].map(|workers| flows(1, workers)), [1 << 17, 1 << 16, 1 << 16]);
        assert_eq!((flows(0, 1), flows(1 << 10, 4)), (LEAST, MOST));
        // A user may have half of the connections: on that machine, a million.
        assert_eq!([1, 2, 3].map(|workers| FlowSizes::of(flows(24, workers), workers).connections), [1 << 21; 3]);
        for (gib, workers) in [(4, 1), (4, 3), (24, 2), (24, 5), (96, 16), (1024, 64)] {
            let sizes = FlowSizes::of(flows(gib, workers), workers);
            assert!(sizes.bytes(workers) <= (gib << 30) / SHARE, "{gib} GiB, {workers} workers: {sizes:?}");
        }
    }
}

//! A stage to copy: drops the frames of one EtherType, and counts them.
//!
//! A stage is a structure with its settings and its state, which one worker owns, and `run` over a burst. It neither blocks,
//! allocates, logs nor reads a clock. To put this one into kopid, move the file to `dataplane/src/stages`, give the worker a
//! [`Block`], and call it in `run_stages` of `dataplane/src/worker.rs`, between policy and deliver. Then the drops are charged to
//! the sender, counted, and seen by captures like all others.
#![forbid(unsafe_code)]

use kopi_dataplane::ids::Verdict;
use kopi_dataplane::worker::burst::Burst;
use kopi_ring::DropReason;

/// Drops the frames of one EtherType.
#[derive(Debug)]
pub struct Block {
    /// EtherType of what is dropped, behind VLAN tags.
    ethertype: u16,
    /// Frames dropped. Written by this worker alone.
    dropped: u64,
}

impl Block {
    /// A stage that drops frames of `ethertype`.
    #[must_use]
    pub const fn new(ethertype: u16) -> Self {
        Self { ethertype, dropped: 0 }
    }

    /// Frames dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Looks at a burst that was parsed and evaluated. Nobody parses twice: the burst has the key of each frame.
    #[inline]
    pub fn run(&mut self, burst: &mut Burst) {
        for at in 0..burst.batch.len() {
            if burst.key(at).ethertype() == self.ethertype {
                burst.amend(at, Verdict::Drop(DropReason::Policy));
                self.dropped += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpdk::{Eal, Pool, PoolConfig};
    use kopi_config::policy::Tracking;
    use kopi_dataplane::fib::{Fib, FibPort};
    use kopi_dataplane::ids::WIRE;
    use kopi_dataplane::policy_counters::PolicyCounters;
    use kopi_dataplane::snapshot::Snapshot;
    use kopi_dataplane::stages::policy::PolicyStage;
    use kopi_dataplane::stages::{parse, policy};
    use kopi_dataplane::worker::flow_table::FlowTable;
    use kopi_packet::{LinkProtocols, Seed};
    use kopi_policy::Connections;
    use kopi_ring::message::Settings;
    use std::path::Path;
    use std::sync::Arc;

    /// The folder that EAL leaves behind.
    struct Folder(String);

    impl Drop for Folder {
        fn drop(&mut self) {
            for base in [std::env::var("XDG_RUNTIME_DIR").unwrap_or_default(), "/var/run".into()] {
                drop(std::fs::remove_dir_all(Path::new(&base).join("dpdk").join(&self.0)));
            }
        }
    }

    const ARP: u16 = 0x0806;
    const IPV4: u16 = 0x0800;
    /// Ticks of the clock in a second.
    const HZ: u64 = 1_000_000_000;

    /// Frames of the EtherType are dropped, and all others keep the verdict that they had, in a burst as a worker has it.
    #[test]
    fn drops_one_ethertype_and_no_other() {
        let folder = Folder(format!("kopi-example-stage-{}", std::process::id()));
        let prefix = format!("--file-prefix={}", folder.0);
        let args = ["--no-huge", "-m", "64", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
        let eal = Eal::init(&args.map(str::to_owned)).expect("DPDK starts");
        let config = PoolConfig { name: "stage", mbufs: 63, cache: 0, frame_max: 2048, socket: None };
        let pool = Pool::new(&eal, config).expect("there is memory for the pool");

        let settings = Settings { mtu: 1500, macs: vec![[2, 0, 0, 0, 0, 1]], ..Settings::default() };
        let ports = [FibPort { id: 1, settings, link: LinkProtocols::NONE }];
        let snapshot = Snapshot::new(1, Fib::new(true, 1500, &ports));
        let mut flows = FlowTable::new(1024, 4, Seed::from_bytes([7; 64]));
        let connections = Connections::new(1024, Seed::from_bytes([8; 64]), &Tracking::default(), HZ);
        let counters = Arc::new(PolicyCounters::new(0));
        let (events, _) = rtrb::RingBuffer::new(1);
        let mut stage = PolicyStage::new(Arc::new(connections), counters, Seed::from_bytes([9; 64]), HZ, events);

        let mut burst = Burst::new();
        let types = [IPV4, ARP, ARP, IPV4];
        assert!(pool.fill(&mut burst.batch, types.len()));
        for (mbuf, ethertype) in burst.batch.iter_mut().zip(types) {
            let mut frame = [0; 60];
            frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            assert!(mbuf.fill(&frame));
        }
        parse::run(&mut burst, WIRE, &flows, None);
        policy::run(&mut burst, WIRE, &mut stage, &mut flows, &snapshot, HZ);
        assert_eq!(burst.run(0), Some((Verdict::App(1), types.len())));

        let mut stage = Block::new(ARP);
        stage.run(&mut burst);

        assert_eq!(burst.run(0), Some((Verdict::App(1), 1)));
        assert_eq!(burst.run(1), Some((Verdict::Drop(DropReason::Policy), 3)));
        assert_eq!(burst.run(3), Some((Verdict::App(1), 4)));
        assert_eq!(stage.dropped(), 2);
    }
}

//! Commands of the control thread.

use super::Worker;
use crate::ids::PortId;
use crate::snapshot::Snapshot;
use crate::stages::mirror::PacketRecord;
use crate::worker::command::{Change, Command, Reply};
use kopi_ring::{DropReason, PeerFault};
use std::sync::Arc;

impl Worker {
    pub(super) fn handle(&mut self, command: Command, now: u64) {
        match command {
            Command::Attach(port) => {
                let (id, user) = (port.id, port.user);
                let serves = !port.tx.is_empty();
                let old = self.outputs.insert(port);
                debug_assert!(old.is_none(), "port {id} has rings that were not detached");
                match serves {
                    true => self.rounds.insert(id, user),
                    false => self.rounds.remove(id),
                }
            }
            Command::Detach(id) => {
                self.rounds.remove(id);
                let port = self.outputs.remove(id);
                self.reply(Reply::Detached(id, port));
            }
            Command::Forward(change) => self.adopt(change, now),
            Command::Dump(list) => self.flow_dump = Some(list),
            Command::Mirror(mirror) => {
                if let Err(mirror) = self.outputs.mirrors.insert(mirror) {
                    self.reply(Reply::Unmirrored(mirror));
                }
            }
            Command::Select(mut selections) => {
                self.outputs.mirrors.select(&mut selections);
                self.reply(Reply::Selected(selections));
            }
            Command::Unmirror(session) => {
                if let Some(mirror) = self.outputs.mirrors.remove(session) {
                    self.reply(Reply::Unmirrored(mirror));
                }
            }
            Command::Stop => self.running = false,
        }
    }

    /// Takes another snapshot, and gives the one before back.
    #[cold]
    fn adopt(&mut self, change: Change, now: u64) {
        let Change { snapshot, policy_counters, mut selections, shaper } = change;
        let snapshot = std::mem::replace(&mut self.snapshot, snapshot);
        let rules = |snapshot: &Snapshot| snapshot.policies().map(|filter| Arc::as_ptr(filter.ruleset()));
        let policy_counters = self.policy_stage.turn_over(policy_counters, rules(&snapshot) != rules(&self.snapshot));
        self.outputs.mirrors.select(&mut selections);
        let shaper = shaper.map(|shaper| self.outputs.reshape(shaper, now));
        self.reply(Reply::Retired(Change { snapshot, policy_counters, selections, shaper }));
    }

    /// Ends an app that broke the contract, and no other.
    #[cold]
    pub(super) fn detach(&mut self, id: PortId, fault: PeerFault, now: u64) {
        self.rounds.remove(id);
        // What it sent before its fault, and what was taken of this burst, goes with it.
        if let Some(counters) = self.counters.ports.get(usize::from(id)) {
            counters.tx_packets.add(self.burst.batch.len() as u64);
            counters.drop(DropReason::PortGone, self.burst.batch.len() as u64);
        }
        let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
        for mbuf in self.burst.batch.iter() {
            let gone = PacketRecord::dropped(id, true, id, DropReason::PortGone);
            self.outputs.mirrors.mirror_one(gone, 0, mbuf, 0, &view);
        }
        self.burst.batch.free_all();
        if let Some(port) = self.outputs.remove(id) {
            self.reply(Reply::Fault(port, fault));
        }
    }

    /// The queue has room for an answer to every command and for a fault of every port. If it ever had not, a port's
    /// number would stay taken, and memory would be freed here.
    fn reply(&mut self, reply: Reply) {
        let pushed = self.replies.push(reply);
        debug_assert!(pushed.is_ok(), "the control thread does not read its replies");
    }

    /// Goes on with a piece of a dump of flows, a few in each iteration.
    #[cold]
    pub(super) fn dump_flows(&mut self) {
        if let Some(mut dump) = self.flow_dump.take() {
            if dump.proceed(&self.flows, self.policy_stage.policy_counters(), &self.snapshot) {
                self.reply(Reply::Dumped(dump));
            } else {
                self.flow_dump = Some(dump);
            }
        }
    }
}

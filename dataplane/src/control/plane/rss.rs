//! How what ports receive is spread over their RX queues: as their apps have chosen, or as is usual; and their flow rules.

use super::ControlPlane;
use crate::control::app::App;
use crate::flow_rules::FlowRules;
use crate::ids::PortId;
use crate::rss::{Rss, RssTable};
use kopi_packet::{RssKey, RssTypes, Toeplitz, rss_key_of_boot};
use kopi_ring::message;
use kopi_ring::message::{ALL_FLOW_RULES, FlowRule};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;

/// Why a choice was refused. The text goes to the app.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RssRefusal {
    /// Its table is over queues, and there are none yet.
    #[error("this port has no RX queues that frames could be spread over: ask for rings first")]
    NoQueues,
    /// Its table has a queue that there is not.
    #[error("the redirection table has queue {asked}, this port has {queues} RX queues")]
    Queue {
        /// The queue.
        asked: u8,
        /// RX queues of the port.
        queues: usize,
    },
    /// Packets of a kind that is not known here.
    #[error("hash types {asked:#x} asked for, there are {:#x}", RssTypes::ALL_BITS)]
    Types {
        /// The bits.
        asked: u64,
    },
}

/// Most flow rules of all apps of one user. A frame for many has each receiver's rules looked through, on the time of who sends it.
const FLOW_RULES_PER_USER: usize = 1024;

/// Why a flow rule was refused. The text goes to the app.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the apps of this user have {FLOW_RULES_PER_USER} flow rules, more than that they may not have")]
pub struct TooManyFlowRules;

/// What ports have whose apps have chosen nothing.
#[derive(Debug)]
pub(super) struct UsualRss {
    toeplitz: Arc<Toeplitz>,
    one_queue: Arc<Rss>,
}

impl UsualRss {
    /// That of this start of the host.
    ///
    /// # Errors
    ///
    /// As [`key`].
    pub(super) fn of_host() -> Result<Self, Errno> {
        Ok(Self::new(key()?))
    }

    fn new(key: RssKey) -> Self {
        let toeplitz = Arc::new(Toeplitz::new(key));
        let one_queue = Arc::new(Rss::usual(Arc::clone(&toeplitz), 1));
        Self { toeplitz, one_queue }
    }

    /// The key.
    pub(super) fn key(&self) -> RssKey {
        *self.toeplitz.key()
    }

    /// That of a port with `queues` RX queues.
    pub(super) fn of_queues(&self, queues: usize) -> Arc<Rss> {
        match queues {
            1 => Arc::clone(&self.one_queue),
            _ => Arc::new(Rss::usual(Arc::clone(&self.toeplitz), queues)),
        }
    }

    /// What an app has chosen for a port with `queues` RX queues.
    fn chosen(&self, chosen: &message::Rss, queues: usize) -> Result<Arc<Rss>, RssRefusal> {
        if let Some(asked) = chosen.table.iter().copied().find(|queue| usize::from(*queue) >= queues) {
            return Err(RssRefusal::Queue { asked, queues });
        }
        let types = RssTypes::from_bits(chosen.types).ok_or(RssRefusal::Types { asked: chosen.types })?;
        let toeplitz = match chosen.key == *self.toeplitz.key() {
            true => Arc::clone(&self.toeplitz),
            false => Arc::new(Toeplitz::new(chosen.key)),
        };
        Ok(Arc::new(Rss::chosen(toeplitz, types, chosen.table, &self.toeplitz)))
    }
}

/// The key by which flows are spread over the queues of apps that choose none: the same in all kopids until the host starts anew. So a
/// connection stays on its queue when kopid comes back, as it does with a NIC whose link was down.
///
/// # Errors
///
/// The kernel's, if it neither says which start of the host this is nor has random bytes.
fn key() -> Result<RssKey, Errno> {
    if let Ok(boot) = std::fs::read("/proc/sys/kernel/random/boot_id") {
        return Ok(rss_key_of_boot(&boot));
    }
    let mut key = [0; kopi_packet::RSS_KEY_SIZE];
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
    Ok(key)
}

impl ControlPlane {
    /// Changes how what a port receives is spread over its RX queues, until it has others.
    ///
    /// # Errors
    ///
    /// [`RssRefusal`], and it stays as it was.
    pub fn change_rss(&mut self, id: PortId, chosen: message::Rss) -> Result<(), RssRefusal> {
        let app = self.ports.get_mut(id).ok_or(RssRefusal::NoQueues)?;
        let region = app.region.as_ref().ok_or(RssRefusal::NoQueues)?;
        if app.chosen_rss.as_ref() == Some(&chosen) {
            return Ok(());
        }
        app.rss = Some(self.usual_rss.chosen(&chosen, region.geometry().rx_queues())?);
        app.chosen_rss = Some(chosen);
        // Of rings that are not served yet, workers will learn with the rest.
        if app.is_served() {
            self.change_by(id);
        }
        Ok(())
    }

    /// Gives a port a flow rule, in place of the one with this number.
    ///
    /// # Errors
    ///
    /// [`TooManyFlowRules`], and all rules stay as they are.
    pub fn set_flow_rule(&mut self, id: PortId, rule: FlowRule) -> Result<(), TooManyFlowRules> {
        let Some(app) = self.ports.get(id) else { return Ok(()) };
        let of_user = self.ports.apps().filter(|other| other.account == app.account);
        let rules: usize = of_user.map(|other| other.flow_rules.len()).sum();
        if !app.flow_rules.contains_key(&rule.slot) && rules >= FLOW_RULES_PER_USER {
            return Err(TooManyFlowRules);
        }
        self.change_flow_rules(id, |rules| rules.insert(rule.slot, rule.clone()).as_ref() != Some(&rule));
        Ok(())
    }

    /// Takes a flow rule away from a port, or all of them.
    pub fn remove_flow_rule(&mut self, id: PortId, slot: u16) {
        self.change_flow_rules(id, |rules| match slot {
            ALL_FLOW_RULES => !std::mem::take(rules).is_empty(),
            slot => rules.remove(&slot).is_some(),
        });
    }

    /// Has `change` change the rules of a port, which says whether it has.
    fn change_flow_rules(&mut self, id: PortId, change: impl FnOnce(&mut BTreeMap<u16, FlowRule>) -> bool) {
        let Some(app) = self.ports.get_mut(id) else { return };
        if change(&mut app.flow_rules) {
            app.compiled_rules = None;
            // Of rings that are not served yet, workers will learn with the rest.
            if app.is_served() {
                self.change_rules_by(id);
            }
        }
    }

    /// Notes that the flow rules of port `id` have changed. Each change is a snapshot of its own as long as the user has many left, so
    /// its app may count on a rule for the next frame. Of more than that in a row, all that come in a tenth of a second share one.
    fn change_rules_by(&mut self, id: PortId) {
        let Some(account) = self.ports.get(id).map(|app| app.account) else { return };
        if self.changes.has_half(account) {
            self.change_by(id);
        } else {
            self.rules_changed_by.insert(account);
        }
    }

    /// Has workers learn of changed flow rules of which they have not, if who has changed them has a change left.
    pub(super) fn publish_rules(&mut self) {
        let changes = &self.changes;
        let due = |user: &u32| changes.has(*user);
        let (due, later): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.rules_changed_by).into_iter().partition(due);
        self.rules_changed_by = later;
        self.stale |= !due.is_empty();
        self.changed_by.extend(due);
    }

    /// That of all ports, for workers.
    pub(super) fn rss_table(&mut self) -> RssTable {
        let served = self.ports.apps_mut().filter(|app| app.is_served());
        let ports: Vec<_> = served.filter_map(|app| Some((app.id, rss_of(app)?))).collect();
        RssTable::new(Arc::clone(&self.usual_rss.one_queue), ports)
    }
}

/// How an app's frames are spread, with its flow rules.
fn rss_of(app: &mut App) -> Option<Arc<Rss>> {
    let rss = app.rss.as_ref()?;
    if app.flow_rules.is_empty() {
        return Some(Arc::clone(rss));
    }
    let queues = app.region.as_ref()?.geometry().rx_queues();
    let compile = || Arc::new(FlowRules::new(app.flow_rules.values(), queues));
    let rules = app.compiled_rules.get_or_insert_with(compile);
    Some(Arc::new(Rss::clone(rss).with_rules(Arc::clone(rules))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::message::RETA_SIZE;

    fn choice() -> message::Rss {
        message::Rss { key: [9; 40], types: RssTypes::ALL_BITS, table: [0; RETA_SIZE] }
    }

    /// What an app may say and cannot be is refused, and the limit is named.
    #[test]
    fn hostile_choices_are_refused() {
        let usual = UsualRss::new([1; 40]);
        for (queues, asked) in [(1, 1), (4, 4), (4, 5), (16, 16), (16, 255)] {
            for at in [0, 1, 127] {
                let mut choice = choice();
                choice.table[at] = asked;
                let refused = usual.chosen(&choice, queues).unwrap_err();
                assert_eq!(refused, RssRefusal::Queue { asked, queues });
                assert!(refused.to_string().contains(&format!("{queues} RX queues")));
                choice.table[at] = u8::try_from(queues - 1).unwrap();
                assert_eq!(usual.chosen(&choice, queues).unwrap().queue(u32::try_from(at).unwrap()), choice.table[at]);
            }
        }
        for types in [1, 1 << 14, 1 << 18, 1 << 60, 1 << 63, u64::MAX] {
            let refused = usual.chosen(&message::Rss { types, ..choice() }, 4).unwrap_err();
            assert_eq!(refused, RssRefusal::Types { asked: types });
        }
    }

    /// Who chooses the key of the host has the same tables, and others have their own.
    #[test]
    fn key_of_the_host_is_shared() {
        let usual = UsualRss::new([9; 40]);
        let before = Arc::strong_count(&usual.toeplitz);
        let same = usual.chosen(&choice(), 4).unwrap();
        assert_eq!(Arc::strong_count(&usual.toeplitz), before + 1);
        let other = usual.chosen(&message::Rss { key: [8; 40], ..choice() }, 4).unwrap();
        assert_eq!(Arc::strong_count(&usual.toeplitz), before + 1);
        drop((same, other));
        assert_eq!(Arc::strong_count(&usual.toeplitz), before);
    }
}

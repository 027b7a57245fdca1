//! What the application wants of a port, and how far the daemon has agreed to it.

use crate::counters::Drops;
use crate::devargs::Args;
use crate::flow::list::FlowList;
use crate::irq_thread::IrqThread;
use crate::lanes::Lanes;
use crate::limits::frame_for;
use crate::ring_slot::RingSlot;
use crate::rss::RssChoice;
use crate::stats::Totals;
use crate::steering::{Steering, Telling};
use crate::tx_publisher::TxPublisher;
use kopi_ring::layout::MAX_QUEUES;
use kopi_ring::message::{FlowAction, FlowRule, Link, Mac, Settings, Welcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// Unicast addresses of a port.
pub(crate) const MAX_UNICAST: usize = 64;
/// Multicast addresses of a port.
pub(crate) const MAX_GROUPS: usize = 64;
/// The MTU of a port until the application sets another.
const DEFAULT_MTU: u16 = 1500;

/// How the first attempt to attach went.
#[derive(Clone, Debug)]
pub(crate) enum FirstAttempt {
    /// There is a port.
    Attached,
    /// There is no daemon yet.
    Absent(String),
    /// There will be no port until the user does something.
    Failed(String),
}

/// The daemon's refusal of a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("refused by the daemon: {text}")]
pub(crate) struct Refusal {
    /// The number of the change.
    pub(crate) asked: u64,
    /// Why, for people.
    pub(crate) text: String,
}

/// What the application wants of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// The rings, while the port is started.
    pub(crate) rings: Option<Rings>,
    /// The generation of the rings that were wanted last.
    pub(crate) last_generation: u64,
    /// Whether the application has taken the link down. The daemon does not learn of it.
    pub(crate) down: bool,
    /// Largest layer-3 size in bytes.
    pub(crate) mtu: u16,
    /// Receive every frame.
    pub(crate) promiscuous: bool,
    /// Receive every multicast frame.
    pub(crate) all_multicast: bool,
    /// The port's own addresses, the main one first. Zero where there is none.
    pub(crate) unicast: [Mac; MAX_UNICAST],
    /// Multicast addresses to be received.
    pub(crate) groups: Vec<Mac>,
    /// How frames are spread over RX queues.
    pub(crate) rss: RssChoice,
    /// The flow rules.
    pub(crate) flow_rules: Arc<FlowRules>,
}

/// Flow rules by their numbers.
pub(crate) type FlowRules = BTreeMap<u16, FlowRule>;

/// The rings of a started port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rings {
    /// Grows with each start.
    pub(crate) generation: u64,
    /// Slots of each TX ring.
    pub(crate) tx: Vec<u32>,
    /// Slots of each RX queue, to be shared out among its lanes.
    pub(crate) rx: Vec<u32>,
    /// Whether the RX queues may sleep.
    pub(crate) sleeps: bool,
    /// Whether packets carry the RSS hash.
    pub(crate) hashed: bool,
}

impl Default for Want {
    fn default() -> Self {
        Self {
            rings: None,
            last_generation: 0,
            down: false,
            mtu: DEFAULT_MTU,
            promiscuous: false,
            all_multicast: false,
            unicast: [Mac::default(); MAX_UNICAST],
            groups: Vec::new(),
            rss: RssChoice::default(),
            flow_rules: Arc::default(),
        }
    }
}

impl Want {
    /// What is wanted of a new port with this address.
    pub(crate) fn new(mac: Mac) -> Self {
        let mut want = Self::default();
        want.set_mac(0, mac);
        want
    }

    /// The port's main address, or zero while it has none.
    pub(crate) fn main_mac(&self) -> Mac {
        self.unicast.first().copied().unwrap_or_default()
    }

    /// Gives unicast slot `index` another address; zero for none.
    pub(crate) fn set_mac(&mut self, index: usize, mac: Mac) {
        if let Some(slot) = self.unicast.get_mut(index) {
            *slot = mac;
        }
    }

    /// Undoes the change that has made `after` of `before`. What has become something else since then stays, and so does the
    /// generation of rings, of which none is ever used again.
    pub(crate) fn undo(&mut self, before: Self, after: &Self) {
        fn back<T: PartialEq>(now: &mut T, before: T, after: &T) {
            if *now == *after {
                *now = before;
            }
        }
        back(&mut self.rings, before.rings, &after.rings);
        back(&mut self.down, before.down, &after.down);
        back(&mut self.mtu, before.mtu, &after.mtu);
        back(&mut self.promiscuous, before.promiscuous, &after.promiscuous);
        back(&mut self.all_multicast, before.all_multicast, &after.all_multicast);
        let macs = self.unicast.iter_mut().zip(before.unicast).zip(&after.unicast);
        macs.for_each(|((now, before), after)| back(now, before, after));
        back(&mut self.groups, before.groups, &after.groups);
        back(&mut self.rss, before.rss, &after.rss);
        let rules = Arc::make_mut(&mut self.flow_rules);
        let slots = before.flow_rules.keys().chain(after.flow_rules.keys());
        for slot in slots.filter(|slot| rules.get(*slot) == after.flow_rules.get(*slot)).copied().collect::<Vec<_>>() {
            match before.flow_rules.get(&slot) {
                Some(rule) => rules.insert(slot, rule.clone()),
                None => rules.remove(&slot),
            };
        }
    }

    /// The settings to be sent to the daemon.
    pub(crate) fn settings(&self) -> Settings {
        let own = self.unicast.iter().filter(|mac| **mac != Mac::default());
        Settings {
            mtu: self.mtu,
            promiscuous: self.promiscuous,
            all_multicast: self.all_multicast,
            macs: own.chain(&self.groups).copied().collect(),
        }
    }
}

/// What the control thread shares with the queues of one direction, by number.
pub(crate) type Slots<E> = [Option<Arc<RingSlot<E>>>; MAX_QUEUES];

/// Which way long packets are sent, for the application to read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SharingState {
    /// Bytes of the application's memory that the daemon reads.
    pub(crate) bytes: u64,
    /// Why that is not all, or none.
    pub(crate) copy_reason: CopyReason,
}

/// Why long packets are copied, by the numbers that applications read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CopyReason {
    /// They are not, as far as they lie in EAL's memory; or it is not known yet.
    #[default]
    None = 0,
    /// The daemon does not want to read memory, or is of an older release.
    NotWanted = 1,
    /// EAL has no memory that could be read, or some that could not.
    Unfit = 2,
    /// The daemon has refused to read it, or more of it.
    Refused = 3,
}

/// What changes in the life of a port. Shared between its operations and its control thread.
#[derive(Debug, Default)]
pub(crate) struct PortState {
    /// What the application wants.
    pub(crate) want: Want,
    /// Changes of `want` so far, and how many of them have been dealt with.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// The refusal of a change that some operation waits for.
    pub(crate) refusal: Option<Refusal>,
    /// How the first attempt to attach went.
    pub(crate) first: Option<FirstAttempt>,
    /// The name to attach under.
    pub(crate) name: String,
    /// The last daemon's answer to the attach.
    pub(crate) welcome: Option<Welcome>,
    /// The version of the protocol that it speaks with us.
    pub(crate) protocol: u16,
    /// Whether there is a daemon now.
    pub(crate) attached: bool,
    /// Whether it has agreed to everything wanted of a started port.
    pub(crate) agreed: bool,
    /// The wire's link.
    pub(crate) wire: Link,
    /// What the application's callbacks were last called for.
    pub(crate) announced: bool,
    /// A new connection is to take the place of this one.
    pub(crate) reattach: bool,
    /// The queues that are set up.
    pub(crate) tx: Slots<TxPublisher>,
    pub(crate) rx: Slots<Lanes>,
    /// The thread that passes interrupts on to the RX queues, if they have any.
    pub(crate) irq_thread: Option<Arc<IrqThread>>,
    /// The flow rules that there are, and what they have queues do with frames.
    pub(crate) flows: FlowList,
    pub(crate) steering: Arc<Steering>,
    /// What the daemon dropped on the port's behalf.
    pub(crate) drops: Drops,
    /// What the counters stood at when they were last reset.
    pub(crate) base: Totals,
    /// Which way long packets go.
    pub(crate) sharing: SharingState,
    /// Times that the port was attached anew.
    pub(crate) reconnects: u64,
    /// Times that the daemon broke the contract of the rings.
    pub(crate) peer_faults: u64,
}

impl PortState {
    /// The state of a port that is not attached yet.
    pub(crate) fn new(args: &Args) -> Self {
        Self { want: Want::new(args.mac.unwrap_or_default()), name: args.name.clone(), ..Self::default() }
    }

    /// Notes that `want` has changed, and returns the number of the change.
    pub(crate) const fn ask(&mut self) -> u64 {
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// The link as applications see it: up when frames can pass.
    pub(crate) fn link(&self) -> Link {
        let up = self.attached && self.agreed && self.want.rings.is_some() && !self.want.down && self.wire.up;
        Link { up, speed: self.wire.speed }
    }

    /// There is a daemon, with which version `protocol` is spoken.
    pub(crate) fn attach(&mut self, welcome: Welcome, protocol: u16) {
        self.protocol = protocol;
        self.attached = true;
        self.agreed = false;
        self.reattach = false;
        self.wire = welcome.link;
        self.name.clone_from(&welcome.name);
        if self.want.main_mac() == Mac::default() {
            self.want.set_mac(0, welcome.mac);
        }
        self.welcome = Some(welcome);
    }

    /// The daemon is gone.
    pub(crate) fn detach(&mut self) {
        self.attached = false;
        self.agreed = false;
        self.sharing = SharingState::default();
        self.answered = self.asked;
        self.drops.carry();
        self.irq_thread.iter().for_each(|irq_thread| irq_thread.unwatch());
        self.tx.iter().flatten().for_each(|slot| slot.set_away());
        self.rx.iter().flatten().for_each(|slot| slot.set_away());
    }

    /// Drops ring ends that queues have retired.
    pub(crate) fn collect(&self) {
        self.tx.iter().flatten().for_each(|slot| slot.collect());
        self.rx.iter().flatten().for_each(|slot| slot.collect());
    }

    /// Reads the daemon's counters, drops ring ends that queues have retired, and returns a fault that a queue has run into.
    pub(crate) fn service(&mut self) -> Option<&'static str> {
        self.drops.refresh();
        self.collect();
        let tx = self.tx.iter().flatten().filter_map(|slot| slot.take_fault());
        let rx = self.rx.iter().flatten().filter_map(|slot| slot.take_fault());
        // All of them are taken, and the first one is told of.
        let fault = tx.chain(rx).reduce(|first, _| first);
        if fault.is_some() {
            self.peer_faults = self.peer_faults.wrapping_add(1);
        }
        fault
    }

    /// Frames of this rule are about to come, with which this is to be done, if the daemon does not drop them.
    pub(crate) fn steer(&self, rule: &FlowRule, telling: Telling) {
        if steers(rule) {
            self.steering.set(rule.slot, telling);
            self.set_steering(true);
        }
    }

    /// The port is about to start: its queues need not look for steered frames unless there are rules that have some.
    pub(crate) fn restart_steering(&self) {
        self.set_steering(self.want.flow_rules.values().any(steers));
    }

    fn set_steering(&self, active: bool) {
        self.steering.set_active(active);
        self.rx.iter().flatten().for_each(|slot| slot.set_changed());
    }

    /// The port is made new: its flow rules are gone.
    pub(crate) fn forget_flows(&mut self) {
        self.flows.slots().for_each(|slot| self.steering.set(slot, Telling::default()));
        self.flows.clear();
    }

    /// Takes the link of all queues down or up, as the application wants it.
    pub(crate) fn apply_link(&self) {
        let down = self.want.down;
        self.tx.iter().flatten().for_each(|slot| slot.set_down(down));
        self.rx.iter().flatten().for_each(|slot| slot.set_rx_down(down));
    }

    /// Sets the longest frame of every TX queue.
    pub(crate) fn limit_frames(&self) {
        let max_frame = frame_for(self.want.mtu);
        self.tx.iter().flatten().for_each(|slot| slot.set_max_frame(max_frame));
    }
}

/// Whether the daemon passes frames on that tell of this rule.
fn steers(rule: &FlowRule) -> bool {
    rule.action == FlowAction::Pass && (rule.queue.is_some() || rule.told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::FlowPattern;

    fn rule(slot: u16) -> FlowRule {
        let pattern = FlowPattern::default();
        FlowRule { slot, priority: 0, pattern, action: FlowAction::Pass, queue: None, told: false }
    }

    /// Queues look for steered frames if some rule has them: not for rules by which the daemon drops frames, or leaves them to RSS.
    #[test]
    fn steering_is_for_rules_that_steer() {
        let dropping = FlowRule { action: FlowAction::Drop, ..rule(0) };
        let kinds = [
            (dropping, false),
            (rule(0), false),
            (FlowRule { queue: Some(3), ..rule(0) }, true),
            (FlowRule { told: true, ..rule(0) }, true),
        ];
        for (rule, active) in kinds {
            let mut state = state();
            state.steer(&rule, Telling::default().flag());
            assert_eq!(state.steering.is_active(), active, "{rule:?}, made");
            state.steering.set_active(!active);
            Arc::make_mut(&mut state.want.flow_rules).insert(0, rule.clone());
            state.restart_steering();
            assert_eq!(state.steering.is_active(), active, "{rule:?}, at start");
        }
    }

    /// A change that the daemon has refused is undone, and none that another thread has made meanwhile.
    #[test]
    fn refused_changes_are_undone_alone() {
        let mut now = state().want;
        Arc::make_mut(&mut now.flow_rules).extend([(1, rule(1)), (2, rule(2))]);
        let before = now.clone();
        Arc::make_mut(&mut now.flow_rules).insert(3, rule(3));
        Arc::make_mut(&mut now.flow_rules).remove(&2);
        now.mtu = 9000;
        now.set_mac(1, [2, 0, 0, 0, 0, 1]);
        let after = now.clone();
        Arc::make_mut(&mut now.flow_rules).insert(4, rule(4));
        Arc::make_mut(&mut now.flow_rules).remove(&1);
        now.promiscuous = true;
        now.set_mac(2, [2, 0, 0, 0, 0, 2]);
        now.last_generation = 7;
        now.undo(before.clone(), &after);
        let mut expected = before;
        Arc::make_mut(&mut expected.flow_rules).insert(4, rule(4));
        Arc::make_mut(&mut expected.flow_rules).remove(&1);
        expected.promiscuous = true;
        expected.set_mac(2, [2, 0, 0, 0, 0, 2]);
        expected.last_generation = 7;
        assert_eq!(now, expected);
    }

    fn state() -> PortState {
        PortState::new(&Args { mac: Some([2, 0, 0, 0, 0, 9]), ..Args::default() })
    }

    /// The daemon gets the main address first, then the others, then the groups, and no empty slots.
    #[test]
    fn settings_list_the_main_address_first() {
        let mut want = state().want;
        want.set_mac(5, [2, 0, 0, 0, 0, 5]);
        want.set_mac(MAX_UNICAST, [2; 6]);
        want.groups = vec![[1, 0, 0x5e, 0, 0, 1]];
        let macs = want.settings().macs;
        assert_eq!(macs, [[2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 5], [1, 0, 0x5e, 0, 0, 1]]);
        assert_eq!(frame_for(want.mtu), 1522);
    }

    /// The link is up only with a daemon that has agreed, a started port and a wire that is up.
    #[test]
    fn link_needs_everything() {
        let rings = Rings { generation: 1, tx: vec![64], rx: vec![64], sleeps: false, hashed: false };
        for bits in 0_u32..16 {
            let mut state = state();
            state.attached = bits & 1 != 0;
            state.agreed = bits & 2 != 0;
            state.want.rings = (bits & 4 != 0).then(|| rings.clone());
            state.wire.up = bits & 8 != 0;
            assert_eq!(state.link().up, bits == 15, "{bits:04b}");
        }
    }
}

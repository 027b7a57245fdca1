//! What belongs to one port.

use crate::control::Control;
use crate::devargs::Args;
use crate::device::Device;
use crate::handoff::Handoff;
use crate::interrupt::{Interrupts, Relay};
use crate::rx::RxQueue;
use crate::stats::{Base, Drops};
use crate::tx::{Outlet, TxQueue};
use kopi_ring::Consumer;
use kopi_ring::layout::{L2_OVERHEAD, MAX_QUEUES};
use kopi_ring::message::{Link, Mac, Settings, Welcome};
use std::sync::Arc;
use std::thread::JoinHandle;
use thiserror::Error;

/// Unicast addresses of a port.
pub(crate) const MAX_UNICAST: usize = 64;
/// Multicast addresses of a port.
pub(crate) const MAX_GROUPS: usize = 64;
/// The MTU of a port until it is told another.
const DEFAULT_MTU: u16 = 1500;

/// One port. It belongs to its ethdev, from probe to close.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) device: Device,
    pub(crate) control: Arc<Control>,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Receive interrupts, if it was configured with them.
    pub(crate) interrupts: Option<Interrupts>,
}

/// The daemon said no.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("refused by the daemon: {text}")]
pub(crate) struct Refusal {
    /// Which change it is about.
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
    /// Whether the application has taken the link down. The daemon is not told.
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
}

/// The rings of a started port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rings {
    /// Grows with each start.
    pub(crate) generation: u64,
    /// Slots of each TX ring.
    pub(crate) tx: Vec<u32>,
    /// Slots of each RX ring.
    pub(crate) rx: Vec<u32>,
    /// Whether the RX queues may sleep.
    pub(crate) sleeps: bool,
}

impl Want {
    /// What is wanted of a new port with this address.
    pub(crate) fn new(mac: Mac) -> Self {
        let mut want = Self {
            rings: None,
            last_generation: 0,
            down: false,
            mtu: DEFAULT_MTU,
            promiscuous: false,
            all_multicast: false,
            unicast: [Mac::default(); MAX_UNICAST],
            groups: Vec::new(),
        };
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

    /// What to tell the daemon.
    pub(crate) fn settings(&self) -> Settings {
        let own = self.unicast.iter().filter(|mac| **mac != Mac::default());
        Settings {
            mtu: self.mtu,
            promiscuous: self.promiscuous,
            all_multicast: self.all_multicast,
            macs: own.chain(&self.groups).copied().collect(),
        }
    }

    /// The longest frame to be sent, in bytes.
    pub(crate) fn max_frame(&self) -> u32 {
        u32::from(self.mtu).saturating_add(L2_OVERHEAD.into())
    }
}

/// What changes in the life of a port.
#[derive(Debug)]
pub(crate) struct State {
    /// What the application wants.
    pub(crate) want: Want,
    /// Changes of `want` so far, and how many of them have been dealt with.
    asked: u64,
    pub(crate) answered: u64,
    /// The refusal of a change that some operation waits for.
    pub(crate) refusal: Option<Refusal>,
    /// How the first attempt to attach went.
    pub(crate) first: Option<crate::control::First>,
    /// The name to attach under.
    pub(crate) name: String,
    /// What the daemon said when last attached to.
    pub(crate) welcome: Option<Welcome>,
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
    pub(crate) tx: [Option<Arc<Handoff<Outlet>>>; MAX_QUEUES],
    pub(crate) rx: [Option<Arc<Handoff<Consumer>>>; MAX_QUEUES],
    /// What wakes the RX queues, if they have interrupts.
    pub(crate) relay: Option<Arc<Relay>>,
    /// What the daemon dropped on the port's behalf.
    pub(crate) drops: Drops,
    /// What the counters stood at when they were last reset.
    pub(crate) base: Base,
    /// Times that the port was attached anew.
    pub(crate) reconnects: u64,
    /// Times that the daemon broke the contract of the rings.
    pub(crate) peer_faults: u64,
}

impl State {
    /// The state of a port that is not attached yet.
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            want: Want::new(args.mac.unwrap_or_default()),
            asked: 0,
            answered: 0,
            refusal: None,
            first: None,
            name: args.name.clone(),
            welcome: None,
            attached: false,
            agreed: false,
            wire: Link { up: false, speed: 0 },
            announced: false,
            reattach: false,
            tx: [const { None }; MAX_QUEUES],
            rx: [const { None }; MAX_QUEUES],
            relay: None,
            drops: Drops::default(),
            base: Base::default(),
            reconnects: 0,
            peer_faults: 0,
        }
    }

    /// Notes that `want` has changed, and returns the number of the change.
    pub(crate) const fn ask(&mut self) -> u64 {
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// The number of the last change.
    pub(crate) const fn asked(&self) -> u64 {
        self.asked
    }

    /// What is wanted, and the number of the last change.
    pub(crate) fn wanted(&self) -> (Want, u64) {
        (self.want.clone(), self.asked)
    }

    /// The link as applications see it: up when frames can pass.
    pub(crate) fn link(&self) -> Link {
        let up = self.attached && self.agreed && self.want.rings.is_some() && !self.want.down && self.wire.up;
        Link { up, speed: self.wire.speed }
    }

    /// There is a daemon.
    pub(crate) fn attach(&mut self, welcome: &Welcome, link: Link) {
        self.attached = true;
        self.agreed = false;
        self.reattach = false;
        self.wire = link;
        self.name.clone_from(&welcome.name);
        if self.want.main_mac() == Mac::default() {
            self.want.set_mac(0, welcome.mac);
        }
        self.welcome = Some(welcome.clone());
    }

    /// The daemon is gone.
    pub(crate) fn detach(&mut self) {
        self.attached = false;
        self.agreed = false;
        self.answered = self.asked;
        self.drops.carry();
        self.relay.iter().for_each(|relay| relay.unwatch());
        self.tx.iter().flatten().for_each(|handoff| handoff.set_away());
        self.rx.iter().flatten().for_each(|handoff| handoff.set_away());
    }

    /// Drops ring ends that queues have put aside, and returns a fault that one of them has run into.
    pub(crate) fn tend(&mut self) -> Option<&'static str> {
        self.drops.look();
        let mut fault = None;
        for handoff in self.tx.iter().flatten() {
            handoff.collect();
            let found = handoff.take_fault();
            fault = fault.or(found);
        }
        for handoff in self.rx.iter().flatten() {
            handoff.collect();
            let found = handoff.take_fault();
            fault = fault.or(found);
        }
        if fault.is_some() {
            self.peer_faults = self.peer_faults.wrapping_add(1);
        }
        fault
    }

    /// Has all queues pass frames or not, as the application wants the link.
    pub(crate) fn bar_queues(&self) {
        let down = self.want.down;
        self.tx.iter().flatten().for_each(|handoff| handoff.set_down(down));
        self.rx.iter().flatten().for_each(|handoff| handoff.bar(down));
    }

    /// Tells every TX queue how long a frame may be.
    pub(crate) fn limit_frames(&self) {
        let max_frame = self.want.max_frame();
        self.tx.iter().flatten().for_each(|handoff| handoff.set_max_frame(max_frame));
    }
}

impl Port {
    /// The port of `device`, if it still has one.
    ///
    /// # Safety
    ///
    /// `device` is a port of this driver, and ethdev closes it in no other thread during the use of the result.
    pub(crate) unsafe fn of<'a>(device: Device) -> Option<&'a mut Self> {
        let port = device.private().cast::<Self>();
        // SAFETY: null or the box that probe stored there; ethdev's operations do not overlap.
        unsafe { port.as_mut() }
    }

    /// Has the receive interrupts that the application has configured, and no others.
    ///
    /// # Errors
    ///
    /// The system's, when it is short of something; then there are none.
    pub(crate) fn set_interrupts(&mut self) -> std::io::Result<()> {
        let queues = self.device.rx_queues();
        // The old ones go first: ethdev has one place for them.
        self.control.state().relay = None;
        self.interrupts = None;
        if self.device.wants_interrupts() && queues > 0 {
            let interrupts = Interrupts::new(self.device, queues)?;
            self.control.state().relay = Some(Arc::clone(interrupts.relay()));
            self.interrupts = Some(interrupts);
        }
        for index in 0..queues {
            let queue = self.device.rx_queue(index).cast::<RxQueue>();
            // SAFETY: null or the queue that was stored there, which no burst function uses now.
            if let Some(queue) = unsafe { queue.as_mut() } {
                queue.set_relay(self.interrupts.as_ref().map(Interrupts::relay));
            }
        }
        Ok(())
    }

    /// RX queue `index`, if it is set up.
    pub(crate) fn rx_queue(&self, index: u16) -> Option<&RxQueue> {
        let queue = self.device.rx_queue(index).cast::<RxQueue>();
        // SAFETY: null or the queue that was stored there. What is read of it does not change while it exists.
        unsafe { queue.as_ref() }
    }

    /// TX queue `index`, if it is set up.
    pub(crate) fn tx_queue(&self, index: u16) -> Option<&TxQueue> {
        let queue = self.device.tx_queue(index).cast::<TxQueue>();
        // SAFETY: null or the queue that was stored there. What is read of it does not change while it exists.
        unsafe { queue.as_ref() }
    }

    /// Puts a new RX queue in its place.
    pub(crate) fn set_rx_queue(&self, index: u16, queue: Box<RxQueue>) {
        let mut state = self.control.state();
        if let Some(slot) = state.rx.get_mut(usize::from(index)) {
            *slot = Some(Arc::clone(queue.shared()));
        }
        state.base.forget_rx(index);
        self.device.set_rx_queue(index, Box::into_raw(queue).cast());
    }

    /// Puts a new TX queue in its place.
    pub(crate) fn set_tx_queue(&self, index: u16, queue: Box<TxQueue>) {
        let mut state = self.control.state();
        if let Some(slot) = state.tx.get_mut(usize::from(index)) {
            *slot = Some(Arc::clone(queue.shared()));
        }
        state.base.forget_tx(index);
        self.device.set_tx_queue(index, Box::into_raw(queue).cast());
    }

    /// Frees RX queue `index`, if there is one. The application does not use it now.
    pub(crate) fn release_rx_queue(&self, index: u16) {
        let mut state = self.control.state();
        if let Some(slot) = state.rx.get_mut(usize::from(index)) {
            *slot = None;
        }
        let queue = self.device.rx_queue(index).cast::<RxQueue>();
        self.device.set_rx_queue(index, std::ptr::null_mut());
        if !queue.is_null() {
            // SAFETY: the box that was stored there, and is no more.
            drop(unsafe { Box::from_raw(queue) });
        }
    }

    /// Frees TX queue `index`, if there is one. The application does not use it now.
    pub(crate) fn release_tx_queue(&self, index: u16) {
        let mut state = self.control.state();
        if let Some(slot) = state.tx.get_mut(usize::from(index)) {
            *slot = None;
        }
        let queue = self.device.tx_queue(index).cast::<TxQueue>();
        self.device.set_tx_queue(index, std::ptr::null_mut());
        if !queue.is_null() {
            // SAFETY: the box that was stored there, and is no more.
            drop(unsafe { Box::from_raw(queue) });
        }
    }

    /// Lets all queues go of rings and buffers. The application does not poll now.
    pub(crate) fn reset_queues(&self) {
        // Held so that the control thread makes no offer meanwhile.
        let state = self.control.state();
        for index in 0..self.device.rx_queues() {
            let queue = self.device.rx_queue(index).cast::<RxQueue>();
            // SAFETY: null or the queue that was stored there, which no burst function uses now.
            if let Some(queue) = unsafe { queue.as_mut() } {
                queue.reset();
            }
        }
        for index in 0..self.device.tx_queues() {
            let queue = self.device.tx_queue(index).cast::<TxQueue>();
            // SAFETY: null or the queue that was stored there, which no burst function uses now.
            if let Some(queue) = unsafe { queue.as_mut() } {
                queue.reset();
            }
        }
        drop(state);
    }

    /// Ends the control thread and frees everything.
    pub(crate) fn close(mut self) {
        self.control.end();
        if let Some(thread) = self.thread.take() {
            // A callback of the application that closes the port runs in this very thread: it ends by itself.
            if !self.control.is_own_thread() {
                // The thread's own panic would have been its end; there is nothing to pass on.
                let _ended = thread.join();
            }
        }
        for index in 0..self.device.rx_queues() {
            self.release_rx_queue(index);
        }
        for index in 0..self.device.tx_queues() {
            self.release_tx_queue(index);
        }
        self.interrupts = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(&Args { mac: Some([2, 0, 0, 0, 0, 9]), ..Args::default() })
    }

    /// The daemon is told the main address first, then the others, then the groups, and no empty slots.
    #[test]
    fn settings_list_the_main_address_first() {
        let mut want = state().want;
        want.set_mac(5, [2, 0, 0, 0, 0, 5]);
        want.set_mac(MAX_UNICAST, [2; 6]);
        want.groups = vec![[1, 0, 0x5e, 0, 0, 1]];
        let macs = want.settings().macs;
        assert_eq!(macs, [[2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 5], [1, 0, 0x5e, 0, 0, 1]]);
        assert_eq!(want.max_frame(), 1522);
    }

    /// The link is up only with a daemon that has agreed, a started port and a wire that is up.
    #[test]
    fn link_needs_everything() {
        let rings = Rings { generation: 1, tx: vec![64], rx: vec![64], sleeps: false };
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

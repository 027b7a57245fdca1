//! The flow rules of a port, as the application knows them.

use crate::steering::{Hits, Telling};
use crate::sys;
use kopi_packet::FlowPattern;
use kopi_ring::message::MAX_FLOW_RULES;
use std::collections::BTreeMap;

/// The rules of one port, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct FlowList {
    rules: BTreeMap<u16, Flow>,
    /// Numbers are given out in turn: frames that still carry one of a rule that went are not taken for those of the next rule.
    next: u16,
    /// Rules made so far.
    serial: u64,
}

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// What the application has instead of it.
    handle: FlowHandle,
    pub(crate) priority: u32,
    pub(crate) pattern: FlowPattern,
    pub(crate) telling: Telling,
    /// What was counted before it, or before its counter was last set back.
    pub(crate) base: Hits,
}

/// A rule for the application: a number that looks like an address, and is none. It is looked for and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowHandle(usize);

impl FlowHandle {
    /// Bits of a rule's number.
    const SLOT_BITS: u32 = 8;

    pub(crate) fn of(flow: *const sys::rte_flow) -> Self {
        Self(flow.addr())
    }

    pub(crate) const fn as_ptr(self) -> *mut sys::rte_flow {
        std::ptr::without_provenance_mut(self.0)
    }

    /// The number of the rule that it may be for.
    fn slot(self) -> u16 {
        let [slot, ..] = self.0.to_le_bytes();
        slot.into()
    }
}

impl FlowList {
    /// Whether there is a rule that has the same frames and priority.
    pub(crate) fn has(&self, priority: u32, pattern: &FlowPattern) -> bool {
        self.rules.values().any(|flow| flow.priority == priority && flow.pattern == *pattern)
    }

    /// The number for the next rule, if there is room.
    pub(crate) fn free_slot(&self) -> Option<u16> {
        (self.next..MAX_FLOW_RULES).chain(0..self.next).find(|slot| !self.rules.contains_key(slot))
    }

    /// Adds a rule under a number that is free.
    pub(crate) fn insert(
        &mut self,
        slot: u16,
        priority: u32,
        pattern: FlowPattern,
        telling: Telling,
        base: Hits,
    ) -> FlowHandle {
        self.serial = self.serial.wrapping_add(1);
        // Never null, since the first one is 1.
        let serial = usize::try_from(self.serial).unwrap_or(usize::MAX);
        let handle = FlowHandle(serial.wrapping_shl(FlowHandle::SLOT_BITS) | usize::from(slot));
        self.rules.insert(slot, Flow { handle, priority, pattern, telling, base });
        let next = slot.wrapping_add(1);
        self.next = if next < MAX_FLOW_RULES { next } else { 0 };
        handle
    }

    /// The rule of `handle` and its number, if it is one that there is.
    pub(crate) fn get_mut(&mut self, handle: FlowHandle) -> Option<(u16, &mut Flow)> {
        let slot = handle.slot();
        self.rules.get_mut(&slot).filter(|flow| flow.handle == handle).map(|flow| (slot, flow))
    }

    /// Takes rule `slot` away.
    pub(crate) fn remove(&mut self, slot: u16) {
        self.rules.remove(&slot);
    }

    /// The numbers of all rules.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u16> {
        self.rules.keys().copied()
    }

    /// Takes all rules away.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(list: &mut FlowList, priority: u32) -> FlowHandle {
        let slot = list.free_slot().unwrap();
        list.insert(slot, priority, FlowPattern::default(), Telling::default(), Hits::default())
    }

    /// There are 256 rules, no number is used twice, and none is used again at once.
    #[test]
    fn numbers_go_round() {
        let mut list = FlowList::default();
        let handles: Vec<_> = (0..256).map(|n| insert(&mut list, n)).collect();
        assert_eq!(list.free_slot(), None);
        assert!(list.has(255, &FlowPattern::default()) && !list.has(256, &FlowPattern::default()));
        let slots: Vec<_> = handles.iter().map(|handle| list.get_mut(*handle).unwrap().0).collect();
        assert_eq!(slots, (0..256).collect::<Vec<_>>());
        list.remove(3);
        list.remove(200);
        assert_eq!(list.free_slot(), Some(3));
        insert(&mut list, 1000);
        list.remove(4);
        assert_eq!(list.free_slot(), Some(4));
        list.remove(3);
        assert_eq!(list.free_slot(), Some(4), "not the one that has just gone");
        assert_eq!(list.slots().count(), 253);
        list.clear();
        assert_eq!(list.slots().count(), 0);
    }

    /// Fault 29: what is no handle, or that of a rule that went, finds no rule, even where another one has its number.
    #[test]
    fn stale_handles_find_nothing() {
        let mut list = FlowList::default();
        let first = insert(&mut list, 0);
        assert!(!first.as_ptr().is_null());
        assert_eq!(FlowHandle::of(first.as_ptr()), first);
        list.remove(0);
        list.next = 0;
        let second = insert(&mut list, 0);
        assert_eq!(list.get_mut(second).unwrap().0, 0);
        for stale in [first, FlowHandle(0), FlowHandle(1), FlowHandle(usize::MAX)] {
            assert!(list.get_mut(stale).is_none(), "{stale:?}");
        }
    }
}

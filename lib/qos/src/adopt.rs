//! How a scheduler takes over the state of the one before it.

use std::mem;

use crate::meter::Meter;
use crate::scheduler::Scheduler;
use crate::tree::Node;

impl Scheduler {
    /// Takes over from `old` what it knows of the classes that this one has too, by their ids: tokens and debts, how far
    /// they are ahead of their siblings, and whether they have packets.
    ///
    /// The new scheduler is made aside, by a thread that may allocate; this is for the worker, between two bursts, and allocates
    /// nothing. It looks at each class of both twice. A leaf that has become a parent is active no more: its packets are
    /// for the caller to put elsewhere. `old` has given its share of shared buckets back, and is not to be asked again. Both
    /// have to be of the same clock.
    pub fn adopt(&mut self, old: &mut Self, now: u64) {
        if let (Some(wire), Some(before)) = (&mut self.wire, &mut old.wire) {
            wire.adopt(before, now);
        }
        let (mine, theirs) = (mem::take(&mut self.ids), mem::take(&mut old.ids));
        for (at, old_at) in matches(&mine, &theirs) {
            let leads = old.tree.leads(old_at);
            let before = &mut old.tree.nodes[old_at as usize];
            match at {
                Some(at) => self.tree.nodes[at as usize].adopt(before, leads, now),
                None => before.meters().for_each(Meter::release),
            }
        }
        // Only now, since a node is put into its place by what it and its parents have taken over.
        for (at, old_at) in matches(&mine, &theirs) {
            if let Some(at) = at.filter(|at| old.is_active(old_at) && self.is_leaf(*at)) {
                self.activate(at, now);
            }
        }
        (self.ids, old.ids) = (mine, theirs);
    }
}

impl Node {
    fn adopt(&mut self, before: &mut Self, leads: [u64; 2], now: u64) {
        for (mine, theirs) in [(&mut self.ceil, &mut before.ceil), (&mut self.rate, &mut before.rate)] {
            match (mine, theirs) {
                (Some(meter), Some(meter_before)) => meter.adopt(meter_before, now),
                (None, Some(meter_before)) => meter_before.release(),
                (_, None) => {}
            }
        }
        // Virtual time begins at zero.
        self.tags = leads;
        self.overlimits = before.overlimits;
    }
}

/// For each class of `theirs`, its place here, if there is one, and there. Both are sorted.
fn matches(mine: &[(u64, u32)], theirs: &[(u64, u32)]) -> impl Iterator<Item = (Option<u32>, u32)> {
    let mut rest = mine;
    theirs.iter().map(move |&(id, old_at)| {
        while let Some((_, later)) = rest.split_first().filter(|(first, _)| first.0 < id) {
            rest = later;
        }
        (rest.first().filter(|first| first.0 == id).map(|first| first.1), old_at)
    })
}

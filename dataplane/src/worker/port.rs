//! An app's port as one worker holds it: the ends of the rings that this worker serves.

use crate::ids::{Generation, PortId};
use crate::rss::Rss;
use crate::worker::wake_requests::WakeRequests;
use kopi_ring::layout::{MAX_QUEUES, Notes};
use kopi_ring::{Consumer, Doorbell, Producer, Region, Window};
use std::sync::Arc;

/// Who shares a worker's time with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The user with this uid, as the kernel told it when the app attached.
    Id(u32),
    /// The kernel, whose port is everybody's.
    Host,
}

/// The rings of one port that one worker serves. The control thread makes it, the worker owns it, and it goes back to
/// the control thread to be dropped.
#[derive(Debug)]
pub struct WorkerPort {
    /// The port's number.
    pub id: PortId,
    /// Which use of that number.
    pub generation: Generation,
    /// On whose time it is served.
    pub user: User,
    /// The app's TX rings that this worker drains.
    pub tx: Vec<Consumer>,
    /// The one of `tx` to be looked at first, so that all get their turn.
    pub next_tx: usize,
    /// The app's RX rings by number; `None` where another worker fills it.
    pub rx: [Option<RxRing>; MAX_QUEUES],
    /// RX queues of the port, on all workers.
    rx_queues: u16,
    /// Rings of each queue, and which of them this worker fills, if each worker has one.
    lanes: u16,
    lane: u16,
    /// The ring that all frames go into, if it is one of this worker's. Else more than there are.
    sole: usize,
    /// Those of this worker, if flows that the wire brings to it stay here, whatever RSS says.
    own: Option<OwnQueues>,
    /// What wakes the app, if its RX queues may sleep.
    pub caller: Option<Caller>,
    /// By what the host's thread wakes the worker, if that sleeps at times.
    pub doorbell: Option<Arc<Doorbell>>,
    /// How often the app's doorbell was rung since it was last to be quieted.
    pub rings: u8,
    /// Whether frames were published since somebody last looked for sleepers.
    pub pending_kick: bool,
}

/// The RX queues of a port that one worker serves.
#[derive(Clone, Copy, Debug)]
struct OwnQueues {
    /// The first one, and how far it is from each to the next.
    first: u16,
    step: u16,
    /// How many.
    count: u16,
}

/// What wakes whoever sleeps behind a port.
#[derive(Clone, Debug)]
pub enum Caller {
    /// An app, in another process: the [waker](crate::control::app_waker) calls it.
    App,
    /// The host port's thread. It is kopid's own, so nobody can make its descriptor block.
    Host(Arc<Doorbell>),
}

/// An RX ring with frames that may not be published yet.
#[derive(Debug)]
pub struct RxRing {
    /// The filling end.
    pub ring: Producer,
    /// Whether there are unpublished frames in it.
    pub dirty: bool,
}

/// The worker, of `workers`, that serves ring `ring` of port `id`, in both directions. So each worker serves one of as many rings
/// in a row.
#[inline]
#[must_use]
pub fn worker_of(id: PortId, ring: u16, workers: usize) -> usize {
    (usize::from(id) + usize::from(ring)) % workers
}

/// The ring that lies at place `at` among those of port `id` that worker `worker` of `workers` serves: the inverse of
/// [`worker_of`].
#[must_use]
pub fn ring_at(id: PortId, at: usize, worker: usize, workers: usize) -> usize {
    let first = (worker + workers - usize::from(id) % workers) % workers;
    first + at * workers
}

impl WorkerPort {
    /// The part of `region`'s rings that worker `worker` of `workers` serves, for an app whose RX queues always poll. The app is
    /// served on the host's time until it [is said](Self::of_user) on whose.
    #[must_use]
    pub fn new(region: &Region, id: PortId, generation: Generation, worker: usize, workers: usize) -> Self {
        let mine = |queue: &usize| u16::try_from(*queue).is_ok_and(|q| worker_of(id, q, workers) == worker);
        let geometry = region.geometry();
        let tx = (0..geometry.tx().len()).filter(mine).filter_map(|q| region.tx_consumer(q)).collect();
        let mut rx = [const { None }; MAX_QUEUES];
        for queue in (0..geometry.rx().len()).filter(mine) {
            if let Some(slot) = rx.get_mut(queue) {
                *slot = region.rx_producer(queue).map(|ring| RxRing { ring, dirty: false });
            }
        }
        let rx_queues = u16::try_from(geometry.rx_queues()).unwrap_or(1);
        let lanes = geometry.lanes();
        let lane = if lanes == 1 { 0 } else { u16::try_from(ring_at(id, 0, worker, workers)).unwrap_or(0) };
        debug_assert!(lanes == 1 || usize::from(lanes) == workers, "every worker has a lane of every queue");
        let sole = usize::from(lane);
        let is_sole = rx_queues == 1 && rx.get(sole).is_some_and(Option::is_some);
        let user = User::Host;
        Self {
            id,
            generation,
            user,
            tx,
            next_tx: 0,
            rx,
            rx_queues,
            lanes,
            lane,
            sole: if is_sole { sole } else { usize::MAX },
            own: None,
            caller: None,
            doorbell: None,
            rings: 0,
            pending_kick: false,
        }
    }

    /// The same, for an app that can choose neither RSS nor lanes, where the wire spreads flows over all workers: those that it brings to
    /// worker `worker` of `workers` stay on the queues that this worker serves, and no frame of theirs is handed over. Only where
    /// each worker serves as many queues, so that all queues get the same.
    #[must_use]
    pub fn keeping(self, worker: usize, workers: usize) -> Self {
        let number = |n: usize| u16::try_from(n).unwrap_or(0);
        let (queues, first) = (usize::from(self.rx_queues), ring_at(self.id, 0, worker, workers));
        let even = workers > 1 && self.lanes == 1 && queues.is_multiple_of(workers);
        let own = OwnQueues { first: number(first), step: number(workers), count: number(queues / workers.max(1)) };
        Self { own: even.then_some(own).filter(|own| own.count > 0), ..self }
    }

    /// The same, for an app of `user`.
    #[must_use]
    pub fn of_user(self, user: User) -> Self {
        Self { user, ..self }
    }

    /// The same, whose frames may refer to what is shared in `window`.
    #[must_use]
    pub fn sharing(self, window: Option<&Arc<Window>>) -> Self {
        let tx = self.tx.into_iter().map(|ring| ring.sharing(window.cloned())).collect();
        Self { tx, ..self }
    }

    /// The same, for a port that is woken by `caller`, and for the host's, if it wakes the worker, by `doorbell`.
    #[must_use]
    pub fn waking(self, caller: Option<Caller>, doorbell: Option<Arc<Doorbell>>) -> Self {
        Self { caller, doorbell, ..self }
    }

    /// Has the app woken if one of its RX queues here sleeps and has frames: one call at most, for all of them. A
    /// [barrier](kopi_ring::need_wakeup::barrier) has to be passed between the publication of frames and this.
    pub fn wake(&mut self, requests: &mut WakeRequests) {
        self.pending_kick = false;
        let Some(caller) = &self.caller else { return };
        // Each of them, since one call is for all.
        let called = self.rx.iter().flatten().fold(false, |called, rx| rx.ring.take_need_wakeup() | called);
        match caller {
            Caller::App if called => requests.call(self.id),
            Caller::Host(doorbell) if called => doorbell.ring(),
            Caller::App | Caller::Host(_) => {}
        }
    }

    /// The RX queue for a frame with these notes, which comes by the wire or from another app: that of the flow rule that has held for
    /// it, or else as the port's `rss` has it. A queue that there is not, or no longer, stands for the first one.
    #[inline]
    #[must_use]
    pub fn queue_for(&self, rss: &Rss, notes: Notes, from_wire: bool) -> u16 {
        let hash = notes.hash();
        let queue = match self.own {
            _ if notes.is_steered() => notes.queue(),
            Some(own) if from_wire && hash != 0 => return own.first.saturating_add(own.step * share(hash, own.count)),
            _ => rss.queue(hash),
        };
        Some(queue.into()).filter(|queue| *queue < self.rx_queues).unwrap_or(0)
    }

    /// The ring by which what is delivered here gets into RX queue `queue`: this worker's, if it has one of that queue.
    #[inline]
    #[must_use]
    pub const fn ring_of(&self, queue: u16) -> u16 {
        queue.saturating_mul(self.lanes).saturating_add(self.lane)
    }

    /// The RX queue that ring `ring` is one of.
    #[must_use]
    pub const fn queue_of(&self, ring: u16) -> u16 {
        match ring.checked_div(self.lanes) {
            Some(queue) => queue,
            None => 0,
        }
    }

    /// Whether there is only one ring that frames from here go into, and this worker fills it.
    #[inline]
    #[must_use]
    pub const fn has_sole_ring(&self) -> bool {
        self.sole < MAX_QUEUES
    }

    /// The ring that all frames go into, if there is only one for them and this worker fills it.
    #[inline]
    pub fn sole_ring(&mut self) -> Option<&mut RxRing> {
        self.rx.get_mut(self.sole).and_then(Option::as_mut)
    }
}

/// Which of `count` parts of all hashes this one is in.
#[expect(clippy::cast_possible_truncation, reason = "the product's high half is below the number of parts")]
const fn share(rss: u32, count: u16) -> u16 {
    ((rss as u64 * count as u64) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::Toeplitz;
    use kopi_ring::{Geometry, HugePages};

    /// The notes of a frame with this hash.
    fn of(hash: u32) -> Notes {
        Notes::new(0x211, hash)
    }

    fn rss(queues: usize) -> Rss {
        Rss::usual(Arc::new(Toeplitz::new([7; 40])), queues)
    }

    /// Every ring of a port is served by exactly one worker.
    #[test]
    fn rings_are_spread_without_overlap() {
        let geometry = Geometry::new(&[64; 5], &[64; 3], 256).unwrap();
        let region = Region::create(&geometry, HugePages::Off).unwrap();
        for workers in 1..=4 {
            let ports: Vec<_> = (0..workers).map(|w| WorkerPort::new(&region, 7, 1, w, workers)).collect();
            assert_eq!(ports.iter().map(|p| p.tx.len()).sum::<usize>(), 5);
            for queue in 0..3 {
                let served = ports.iter().enumerate().filter(|(_, p)| p.rx[queue].is_some()).map(|(w, _)| w);
                let place = queue / workers;
                assert_eq!(ring_at(7, place, worker_of(7, u16::try_from(queue).unwrap(), workers), workers), queue);
                let expected = worker_of(7, u16::try_from(queue).unwrap(), workers);
                assert_eq!(served.collect::<Vec<_>>(), [expected]);
            }
            assert!(ports.iter().all(|p| p.rx[3..].iter().all(Option::is_none)));
        }
    }

    /// The table says which queue, and none beyond the last is meant.
    #[test]
    fn hashes_spread_over_all_queues() {
        let geometry = Geometry::new(&[64], &[64; 3], 256).unwrap();
        let region = Region::create(&geometry, HugePages::Off).unwrap();
        let port = WorkerPort::new(&region, 1, 1, 0, 1);
        for from_wire in [false, true] {
            assert_eq!([0, 1, 2, 3, 126, 128].map(|h| port.queue_for(&rss(3), of(h), from_wire)), [0, 1, 2, 0, 0, 0]);
            assert_eq!([0, 1, 2, 3, 4].map(|h| port.queue_for(&rss(5), of(h), from_wire)), [0, 1, 2, 0, 0]);
        }
    }

    /// With lanes, each worker has a ring of each queue, no two have the same, the queue is what the hash says, and where a frame
    /// comes from makes no difference.
    #[test]
    fn every_worker_reaches_every_queue() {
        let hashes = || (0..200_u32).map(|n| n.wrapping_mul(0x9e37_79b9)).chain([0, u32::MAX]);
        for workers in 1..=MAX_QUEUES {
            for queues in 1..=MAX_QUEUES / workers {
                let (lanes, rss) = (u16::try_from(workers).unwrap(), rss(queues));
                let rings = Geometry::new(&[64], &vec![64; queues * workers], 256).unwrap();
                let region = Region::create(&rings.with_lanes(lanes).unwrap(), HugePages::Off).unwrap();
                let plain = Region::create(&Geometry::new(&[64], &vec![64; queues], 256).unwrap(), HugePages::Off);
                let plain = plain.unwrap();
                for id in [1, 7, 64] {
                    let mut seen = [false; MAX_QUEUES];
                    for worker in 0..workers {
                        let expected = WorkerPort::new(&plain, id, 1, worker, workers);
                        let mut port = WorkerPort::new(&region, id, 1, worker, workers).keeping(worker, workers);
                        for (hash, from_wire) in hashes().flat_map(|hash| [(hash, false), (hash, true)]) {
                            let queue = port.queue_for(&rss, of(hash), from_wire);
                            assert_eq!(queue, expected.queue_for(&rss, of(hash), false));
                            let ring = port.ring_of(queue);
                            assert_eq!((port.queue_of(ring), worker_of(id, ring, workers)), (queue, worker));
                            assert!(port.rx[usize::from(ring)].is_some());
                        }
                        for queue in 0..u16::try_from(queues).unwrap() {
                            let ring = usize::from(port.ring_of(queue));
                            assert!(!std::mem::replace(&mut seen[ring], true), "ring {ring} is of two workers");
                        }
                        assert_eq!((port.has_sole_ring(), port.sole_ring().is_some()), (queues == 1, queues == 1));
                    }
                    assert!(seen.iter().take(queues * workers).all(|seen| *seen));
                }
            }
        }
    }

    /// What the wire brings to a worker stays on its queues, each of which gets as much; what has no hash, or comes from an app, is
    /// spread as ever. So is all of it where some workers have more queues than others.
    #[test]
    fn flows_of_the_wire_stay_at_their_worker() {
        let hashes = || (0..1000_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) | 1).rotate_right(16));
        for (id, queues, workers) in [(7, 4, 2), (1, 2, 2), (4, 16, 4), (3, 3, 3), (2, 3, 2), (5, 1, 4), (5, 2, 4)] {
            let region =
                Region::create(&Geometry::new(&[64], &vec![64; queues], 256).unwrap(), HugePages::Off).unwrap();
            let (mut counts, rss) = (vec![0; queues], rss(queues));
            for worker in 0..workers {
                let plain = WorkerPort::new(&region, id, 1, worker, workers);
                let port = WorkerPort::new(&region, id, 1, worker, workers).keeping(worker, workers);
                assert_eq!(port.queue_for(&rss, of(0), true), 0);
                for hash in hashes() {
                    assert_eq!(port.queue_for(&rss, of(hash), false), plain.queue_for(&rss, of(hash), false));
                    let queue = port.queue_for(&rss, of(hash), true);
                    counts[usize::from(queue)] += 1;
                    if queues % workers == 0 {
                        assert_eq!(
                            worker_of(id, queue, workers),
                            worker,
                            "queue {queue} of {queues}, {workers} workers"
                        );
                    } else {
                        assert_eq!(queue, plain.queue_for(&rss, of(hash), true));
                    }
                }
            }
            let even = 1000 * workers / queues;
            assert!(
                counts.iter().all(|count| count * 10 > even * 9),
                "{counts:?} of {queues} queues, {workers} workers"
            );
        }
    }
}

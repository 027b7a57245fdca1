//! Users share a wire that is slower than what they send, by the time that it takes to send what each gives it.
//!
//! Time is a number here, and the wire a ring that this thread empties at 100 Mbit/s of it: so what each gets is exact, whatever
//! else this machine does.

use crate::lab::Lab;
use crate::shares::{HONEST, Kind, Rig};
use dpdk::Batch;
use kopi_dataplane::ids::PortId;
use kopi_dataplane::worker::wire::Wire;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds, of which a turn of the worker takes so many. Its bursts take none.
static CLOCK: AtomicU64 = AtomicU64::new(0);
const TURN: u64 = 5_000;
/// Nanoseconds that a byte takes at 100 Mbit/s.
const BYTE: u64 = 80;
const SECOND: u64 = 1_000_000_000;

/// Which part of the wire's time the honest app has beside `others`, of one other user, and how many frames of its wait.
fn share(lab: &Lab, number: usize, others: &[Kind], readers: u16) -> f64 {
    let mut drain = None;
    let clock = || CLOCK.load(Relaxed);
    let mut rig = Rig::by(lab, &format!("net_ring_slow{number}"), (clock, SECOND), |rx, tx| {
        drain = rx;
        Wire::new(None, tx)
    });
    let mut drain = drain.expect("a ring has a queue");
    rig.attach(HONEST, Kind::Flood(1000), 1, false);
    (2..).zip(others).for_each(|(id, kind)| rig.attach(id, *kind, 1, false));
    (40..40 + readers).for_each(|id| rig.attach(id, Kind::Silent, 1, true));
    rig.publish();
    rig.senders.iter_mut().for_each(|sender| sender.on = true);
    let (mut honest, mut all, mut credit) = (0, 0, 0_i64);
    let mut batch = Batch::new();
    let begun = CLOCK.load(Relaxed);
    loop {
        let now = CLOCK.fetch_add(TURN, Relaxed) + TURN;
        if now - begun > 3 * SECOND / 2 {
            break;
        }
        rig.senders.iter_mut().for_each(crate::shares::Sender::fill);
        rig.worker.poll_once(now);
        credit = (credit + 1).min(0) + i64::try_from(TURN / BYTE).expect("few");
        while credit > 0 && drain.receive(&mut batch) > 0 {
            for mbuf in batch.drain() {
                let len = i64::from(mbuf.len());
                credit -= len;
                // The first half second is for the worker to find out what a byte costs.
                if now - begun > SECOND / 2 {
                    all += len;
                    let from = mbuf.data().get(10..12).and_then(|end| end.try_into().ok()).map(PortId::from_be_bytes);
                    honest += if from == Some(HONEST) { len } else { 0 };
                }
            }
        }
    }
    rig.worker.poll_once(CLOCK.load(Relaxed));
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let share = honest as f64 / all as f64;
    share
}

/// Runs all checks.
pub(crate) fn check(lab: &Lab) {
    let cases = [
        ("short frames", vec![Kind::Flood(60)], 0),
        ("frames of new flows", vec![Kind::Fresh; 2], 0),
        ("long frames", vec![Kind::Flood(1514)], 0),
        ("long frames of sixteen apps", vec![Kind::Flood(1514); 16], 0),
        ("broadcasts", vec![Kind::Broadcast(1514); 2], 16),
        ("all of that", [vec![Kind::Flood(60)], vec![Kind::Flood(1514); 8], vec![Kind::Broadcast(1514)]].concat(), 8),
    ];
    for (number, (what, others, readers)) in cases.into_iter().enumerate() {
        let share = share(lab, number, &others, readers);
        assert!((0.45..0.55).contains(&share), "beside {what}, the honest user has {share:.3} of the wire");
    }
}

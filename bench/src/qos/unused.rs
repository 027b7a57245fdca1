//! How soon an app has what another one leaves of the wire, and how soon that one has its share back.
//!
//! Two equal apps saturate the wire, and the first is silent in the second third of the window. What kopid takes from the
//! other one, whose ring is always full, is what it sends. Its rate is looked at over a millisecond, so nothing below that is
//! told apart.

use std::time::Duration;

use dpdk::{Pool, tsc};
use serde_json::{Value, json};

use super::app::{Sender, Work};
use super::load::{OVERHEAD, PATIENCE, Senders};
use super::texts;
use crate::contender::Service;
use crate::error::{BenchError, Result};
use crate::rounds::{Experiment, Method, Pair};
use crate::setup::{Setup, Wire};
use crate::throughput::approximate;

/// Length of the frames of both apps in bytes. A ring full of longer ones is a backlog of milliseconds, which is no unused
/// share.
const LENGTHS: [u16; 2] = [64; 2];
/// What frames are counted by, in a second.
const SLOTS: u64 = 10_000;
/// So many slots make a rate.
const STRETCH: usize = 10;
/// The part of the wire from which on an app is said to have all of it, and below which to have its half.
const ALL: f64 = 0.95;
const HALF: f64 = 0.55;

/// Two equal apps, of which one is silent for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unused;

/// How long it took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handover {
    /// From the first app's last frame until the other one had the wire.
    pub(super) taken_us: u64,
    /// From the first app's next frame until the other one was back at its half.
    pub(super) back_us: u64,
}

impl Handover {
    fn answer(self) -> String {
        json!({ "taken_us": self.taken_us, "back_us": self.back_us }).to_string()
    }

    fn parse(line: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(line).ok()?;
        let number = |key| answer.get(key).and_then(Value::as_u64);
        Some(Self { taken_us: number("taken_us")?, back_us: number("back_us")? })
    }

    /// Reads it off the frames that each app sent in each slot, of which the first one was silent from `left` to `back`. `None` if
    /// they did not share the wire equally before and after, or the other one did not have all of it in between.
    fn read(slots: &[[u64; 2]], left: usize, back: usize) -> Option<Self> {
        let frame = (f64::from(LENGTHS[1]) + OVERHEAD) * 8.0;
        let whole = approximate(texts::WIRE) / frame / approximate(SLOTS);
        // The part of the wire that an app had in some slots.
        let part = |app: usize, slots: &[[u64; 2]]| {
            let frames = slots.iter().map(|slot| slot[app]).sum();
            approximate(frames) / whole / approximate(slots.len() as u64)
        };
        let until = |from: usize, holds: &dyn Fn(f64) -> bool| {
            slots.get(from..)?.windows(STRETCH).position(|stretch| holds(part(1, stretch)))
        };
        let taken = until(left, &|part| part >= ALL)?;
        let given = until(back, &|part| part <= HALF)?;
        let (before, between, after) =
            (slots.get(left / 2..left)?, slots.get(left + taken..back)?, slots.get(back + given + STRETCH..)?);
        let halves = |slots: &[[u64; 2]]| [0, 1].iter().all(|&app| (1.0 - HALF..=HALF).contains(&part(app, slots)));
        let us = |slots: usize| slots as u64 * (1_000_000 / SLOTS);
        (halves(before) && halves(after) && part(1, between) >= ALL)
            .then(|| Self { taken_us: us(taken), back_us: us(given) })
    }
}

/// Sends for so long, by a clock of `hz`, and says how the wire changed hands.
///
/// # Errors
///
/// When it did not.
pub(super) fn watch(pool: &Pool, senders: &mut [Sender], hz: u64, milliseconds: u64) -> Result<String> {
    let [first, other] = senders else {
        return Err(BenchError::Failed("two apps are needed for one to leave something to".to_owned()));
    };
    let total = usize::try_from(milliseconds * SLOTS / 1000).unwrap_or(0);
    let mut slots = vec![[0; 2]; total];
    let (mut left, mut back) = (0, None);
    let start = tsc();
    loop {
        let slot = usize::try_from(u128::from(tsc() - start) * u128::from(SLOTS) / u128::from(hz)).unwrap_or(total);
        let Some([of_first, of_other]) = slots.get_mut(slot) else { break };
        *of_other += other.send(pool);
        if slot >= total * 2 / 3 {
            back.get_or_insert(slot);
            *of_first += first.send(pool);
        } else if slot < total / 3 {
            let sent = first.send(pool);
            *of_first += sent;
            left = if sent > 0 { slot } else { left };
        }
    }
    let handover = back.and_then(|back| Handover::read(&slots, left, back));
    let none = || BenchError::Failed(format!("the wire did not change hands: silent from {left} to {back:?}"));
    handover.map(Handover::answer).ok_or_else(none)
}

impl Experiment for Unused {
    type App = Senders;
    type Measured = Handover;

    fn label(&self) -> String {
        "unused shares".to_owned()
    }

    fn wire(&self) -> Wire {
        Wire::new("net_null0,no-rx=1")
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Senders> {
        Senders::start(setup, name, service, Work::Leave, &LENGTHS)
    }

    fn measure(&self, _setup: &Setup, method: &Method, pair: &mut Pair<Senders>) -> Result<Handover> {
        let mut watch = |time: Duration| {
            let line = pair.app.ask(&time.as_millis().to_string(), time + PATIENCE)?;
            Handover::parse(&line).ok_or_else(|| BenchError::Failed(format!("the application said {line}")))
        };
        watch(method.warm_up)?;
        watch(method.window)
    }

    fn describe(&self, handover: &Handover) -> String {
        format!("taken after {} us, back after {} us", handover.taken_us, handover.back_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A millisecond of a wire of 1 Gbit/s is 1,420 frames of 64 bytes.
    #[test]
    fn the_wire_changes_hands() {
        let stretch = |frames: [u64; 2], slots: usize| vec![frames; slots];
        let silent = [stretch([0, 71], 3), stretch([0, 142], 30)].concat();
        let slots = [stretch([71, 71], 20), silent.clone(), stretch([71, 142], 2), stretch([71, 71], 30)].concat();
        let handover = Handover::read(&slots, 20, 53).expect("it does");
        assert_eq!(handover, Handover { taken_us: 300, back_us: 100 });
        assert_eq!(Handover::parse(&handover.answer()), Some(handover));
        assert_eq!(Handover::read(&stretch([71, 71], 60), 20, 40), None, "nobody takes it");
        let kept = [stretch([71, 71], 20), silent.clone(), stretch([0, 71], 30)].concat();
        assert_eq!(Handover::read(&kept, 20, 53), None, "the first one does not get its half");
        let alone = [stretch([0, 71], 20), silent, stretch([71, 71], 30)].concat();
        assert_eq!(Handover::read(&alone, 20, 53), None, "it had none before");
    }
}

//! A worker's turn under classes: who is served is for the scheduler to say.

use super::{SLICES_PER_SECOND, Share, Took, Worker};
use crate::ids::PortId;
use crate::stages::shape::{Sample, Source, Turn};
use crate::worker::port::User;
use kopi_config::policy::Direction;
use kopi_packet::mark::Mark;
use kopi_ring::PeerFault;

/// Bursts that leave in one turn, so that the wire and the other workers get their turn, too.
const BURSTS: usize = 8;

/// What was found at an app.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// Nothing.
    Empty,
    /// Frames, which were taken.
    Took(Took),
    /// Frames that wait for the turn of their class.
    Waits,
    /// The wire takes no more.
    Blocked,
}

impl Look {
    fn of(took: Took) -> Self {
        if took.frames > 0 { Self::Took(took) } else { Self::Empty }
    }
}

impl Worker {
    /// One turn of the apps, under classes. Returns how many frames moved.
    pub(super) fn serve_shaped(&mut self, now: u64) -> usize {
        let until = self.mark + self.tsc_hz / SLICES_PER_SECOND;
        let (mut moved, mut over) = (0, true);
        self.given = self.delivery.given();
        while let Some(id) = self.rounds.next() {
            match self.look_at(id, now) {
                Ok(Look::Empty) => self.rounds.empty(),
                Ok(Look::Took(took)) => {
                    moved += took.frames;
                    self.charge(took);
                    if self.mark >= until {
                        break;
                    }
                }
                Ok(Look::Waits) => self.rounds.sent(0, false),
                Ok(Look::Blocked) => {
                    over = false;
                    break;
                }
                Err(fault) => self.expel(id, fault, now),
            }
        }
        let waits = self.rounds.busy_users() > 0;
        if over && moved == 0 && !waits {
            self.delivery.note_idle();
        }
        moved + self.serve_lane(Direction::Egress, now) + self.serve_lane(Direction::Ingress, now)
    }

    /// Lets the scheduler know of an app that has something to send, or has its frames wait in the queues of their classes.
    fn look_at(&mut self, id: PortId, now: u64) -> Result<Look, PeerFault> {
        // Only the snapshot knows where the frames of a new port wait.
        if self.snapshot.fib().max_frame(id) == 0 {
            return Ok(Look::Empty);
        }
        let source = self.snapshot.policies().map_or(Source::Ring(0), |filter| filter.source(id));
        self.delivery.source = source;
        let Source::Ring(leaf) = source else {
            self.delivery.mark = Mark::NONE;
            return self.serve_app(id, Share::ALL, now).map(Look::of);
        };
        let Some(lane) = self.delivery.lane(Direction::Egress) else {
            // Only ingress has classes.
            return if self.takes_burst() {
                self.serve_app(id, Share::ALL, now).map(Look::of)
            } else {
                Ok(Look::Blocked)
            };
        };
        if lane.is_linked(id) {
            return Ok(Look::Waits);
        }
        if !self.delivery.has_frames(id)? {
            return Ok(Look::Empty);
        }
        let user = self.delivery.port_mut(id).map_or(User::Host, |port| port.user);
        self.delivery.lane(Direction::Egress).into_iter().for_each(|lane| lane.link(id, user, leaf, now));
        Ok(Look::Waits)
    }

    /// Serves one direction's classes as the scheduler says.
    fn serve_lane(&mut self, direction: Direction, now: u64) -> usize {
        let mut moved = 0;
        for _ in 0..BURSTS {
            if direction == Direction::Egress && !self.delivery.takes_burst() {
                break;
            }
            let Some(turn) = self.delivery.lane(direction).map(|lane| lane.next(now)) else { break };
            let n = match turn {
                Turn::Nobody => break,
                Turn::Queue { leaf, bytes } => {
                    let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
                    let (n, sample) = self.delivery.serve_queue(direction, leaf, bytes, &view);
                    self.note(sample);
                    if n == 0 {
                        break;
                    }
                    n
                }
                Turn::Ring { leaf, port, bytes } => self.serve_ring(leaf, port, bytes, now),
            };
            moved += n;
        }
        moved
    }

    /// Takes a burst from the rings of an app, whose turn it is.
    fn serve_ring(&mut self, leaf: u32, id: PortId, bytes: u32, now: u64) -> usize {
        let Some(lane) = self.delivery.lane(Direction::Egress) else { return 0 };
        let share = Share { bytes: bytes.into(), overhead: lane.overhead() };
        self.delivery.mark = lane.mark(leaf);
        self.delivery.source = Source::Ring(leaf);
        self.delivery.sent = (0, 0);
        let took = self.serve_app(id, share, now);
        let sent = self.delivery.sent;
        let Some(lane) = self.delivery.lane(Direction::Egress) else { return 0 };
        let n = match took {
            Ok(Took { frames, bytes: taken, more }) => {
                if !more {
                    lane.unlink(id);
                }
                // What went nowhere, or to other apps.
                let missed = frames.saturating_sub(sent.0 as usize) as u64;
                lane.passed(leaf, taken.saturating_sub(sent.1) + missed * u64::from(lane.overhead()));
                frames
            }
            Err(fault) => {
                self.expel(id, fault, now);
                0
            }
        };
        let sample = self.delivery.lane(Direction::Egress).and_then(|lane| lane.sent(leaf, sent, now));
        self.note(sample);
        if n > 0 {
            self.delivery.note_sent(n, self.rounds.busy_users());
        }
        n
    }

    /// Tells the control thread how long something has waited. If it does not keep up, it does without.
    #[inline]
    fn note(&mut self, sample: Option<Sample>) {
        if let Some(sample) = sample {
            let _lost = self.samples.push(sample);
        }
    }
}

//! An iteration under classes: who is served is for the scheduler to say.

use super::app_rx::{Share, Took};
use super::{SLICES_PER_SECOND, Worker};
use crate::ids::Backlog;
use crate::ids::PortId;
use crate::worker::port::User;
use crate::worker::sched_tree::{Dequeue, Sample};
use kopi_config::policy::Direction;
use kopi_packet::mark::Mark;
use kopi_ring::PeerFault;

/// Bursts that leave in one iteration, so that the wire and the other workers get their turn, too.
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
    /// One iteration of the apps, under classes. Returns how many frames moved.
    #[inline(never)]
    pub(super) fn serve_shaped(&mut self, now: u64) -> usize {
        let until = self.mark + self.tsc_hz / SLICES_PER_SECOND;
        let (mut moved, mut over) = (0, true);
        self.given = self.outputs.given();
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
                Err(fault) => self.detach(id, fault, now),
            }
        }
        let waits = self.rounds.busy_users() > 0;
        if over && moved == 0 && !waits {
            self.outputs.note_idle();
        }
        moved + self.serve_tree(Direction::Egress, now) + self.serve_tree(Direction::Ingress, now)
    }

    /// Lets the scheduler know of an app that has something to send, or has its frames wait in the queues of their classes.
    fn look_at(&mut self, id: PortId, now: u64) -> Result<Look, PeerFault> {
        // Only the snapshot knows where the frames of a new port wait.
        if self.snapshot.fib().max_frame(id) == 0 {
            return Ok(Look::Empty);
        }
        let backlog = self.snapshot.policies().map_or(Backlog::AppRing(0), |filter| filter.backlog(id));
        self.outputs.backlog = backlog;
        let Backlog::AppRing(leaf) = backlog else {
            self.outputs.mark = Mark::NONE;
            return self.serve_app(id, Share::ALL, now).map(Look::of);
        };
        let Some(tree) = self.outputs.tree(Direction::Egress) else {
            // Only ingress has classes.
            return if self.takes_burst() {
                self.serve_app(id, Share::ALL, now).map(Look::of)
            } else {
                Ok(Look::Blocked)
            };
        };
        if tree.is_linked(id) {
            return Ok(Look::Waits);
        }
        if !self.outputs.has_frames(id)? {
            return Ok(Look::Empty);
        }
        let user = self.outputs.port_mut(id).map_or(User::Host, |port| port.user);
        self.outputs.tree(Direction::Egress).into_iter().for_each(|tree| tree.link(id, user, leaf, now));
        Ok(Look::Waits)
    }

    /// Serves one direction's classes as the scheduler says.
    fn serve_tree(&mut self, direction: Direction, now: u64) -> usize {
        let mut moved = 0;
        for _ in 0..BURSTS {
            if direction == Direction::Egress && !self.outputs.takes_burst() {
                break;
            }
            let Some(next) = self.outputs.tree(direction).map(|tree| tree.next(now)) else { break };
            let n = match next {
                Dequeue::Nothing => break,
                Dequeue::ClassQueue { leaf, bytes } => {
                    let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
                    let (n, sample) = self.outputs.serve_queue(direction, leaf, bytes, &view);
                    self.note(sample);
                    if n == 0 {
                        break;
                    }
                    n
                }
                Dequeue::AppRing { leaf, port, bytes } => self.serve_ring(leaf, port, bytes, now),
            };
            moved += n;
        }
        moved
    }

    /// Takes a burst from the rings of an app, whose turn it is.
    fn serve_ring(&mut self, leaf: u32, id: PortId, bytes: u32, now: u64) -> usize {
        let Some(tree) = self.outputs.tree(Direction::Egress) else { return 0 };
        let share = Share { bytes: bytes.into(), overhead: tree.overhead() };
        self.outputs.mark = tree.mark(leaf);
        self.outputs.backlog = Backlog::AppRing(leaf);
        self.outputs.sent = (0, 0);
        let took = self.serve_app(id, share, now);
        let sent = self.outputs.sent;
        let Some(tree) = self.outputs.tree(Direction::Egress) else { return 0 };
        let n = match took {
            Ok(Took { frames, bytes: taken, more }) => {
                if !more {
                    tree.unlink(id);
                }
                // What went nowhere, or to other apps.
                let missed = frames.saturating_sub(sent.0 as usize) as u64;
                tree.passed(leaf, taken.saturating_sub(sent.1) + missed * u64::from(tree.overhead()));
                frames
            }
            Err(fault) => {
                self.detach(id, fault, now);
                0
            }
        };
        let sample = self.outputs.tree(Direction::Egress).and_then(|tree| tree.sent(leaf, sent, now));
        self.note(sample);
        if n > 0 {
            self.outputs.note_sent(n, self.rounds.busy_users());
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

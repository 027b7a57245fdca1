//! Connection tracking: one table of connections that all workers share.
//!
//! A worker asks for every frame that its flow table does not answer for, and for every TCP segment with SYN, FIN or RST:
//!
//! 1. [`Connections::look`] says the [`State`](kopi_config::policy::State) of the frame and changes nothing;
//! 2. the rules judge it by that state;
//! 3. if it was accepted, [`Connections::accept`] begins the connection or moves it on, and gives the [`Ref`] under which
//!    the flow table remembers it.
//!
//! From then on [`Connections::holds`] tells, by one load, whether the connection is still in the condition of which the
//! flow table keeps a [`Stamp`], so that packets need no look, and [`Connections::touch`], called at most once a second, keeps the connection alive. A `Ref` whose connection is gone
//! is told by its generation.
//!
//! # Memory and time
//!
//! The table has a fixed size. A hash under a secret seed chooses one of its buckets, of eight connections each: one
//! cache line for what changes of the eight, and one line for each connection's tuple. So a lookup reads two lines, and
//! a full bucket is searched for something to evict in one. All memory is atomics: packets of known connections take no
//! lock; only a new connection takes its bucket's spin lock, for as long as it takes to write one entry. Times are kept
//! in units of one or two milliseconds, so a time-out is at most some days.
//!
//! # Eviction
//!
//! When the bucket of a new connection is full, it takes the place of, in this order:
//!
//! 1. one whose time is up;
//! 2. one that both sides have ended (`TIME_WAIT`, `CLOSE`), the one without packets for longest;
//! 3. one that was never answered, the oldest;
//! 4. one whose originator has not shown yet that it got the answer, the oldest: a server answers every SYN of a flood,
//!    but nobody answers the server.
//!
//! A connection whose originator went on after an answer is never evicted. If all eight are such, the new one is not
//! tracked: its packets pass as `new` as long as rules let them, but their answers are not `established`.
//! [`Stats::refused`] counts that.
//!
//! So a flood of SYNs from random addresses, answered or not, pushes out itself and half-open connections of others, but
//! no established connection. A half-open one has to begin again if it became the oldest of its bucket before it was
//! through: nearly all live through a third as many new connections as the table has places, and few through half as many
//! again as it has (`cargo bench -p kopi-policy --bench connections`). A flood by which both ends talk to each other in
//! earnest can fill the table; see [`Connections::in_zone`] for a limit to each app.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `tuple` | what a frame is to connection tracking: [`Sort`], [`Tuple`] |
//! | `table` | [`Connections`]: find, judge, begin, move on, evict |
//! | `look` | both steps for a whole frame: [`Look`] |
//! | `upkeep` | what the control thread does: sweep, forget, list |
//! | `entry` | the layout in memory |
//! | `phase` | how far a connection has come, and time-outs |
//! | `numbers` | what a TCP segment does, by its numbers |
//! | `window` | the numbers of TCP, and its window |

mod entry;
mod look;
mod numbers;
mod phase;
mod table;
mod tuple;
mod upkeep;
mod window;

#[cfg(test)]
mod tests;

pub use look::Look;
pub(crate) use phase::Phase;
pub use table::{Connections, Ref, Stamp, TOUCH_SHIFT};
pub use tuple::{Sort, Tuple};
pub use upkeep::{Connection, Stats};

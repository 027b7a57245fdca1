//! Connection tracking: one table of connections that all workers share.
//!
//! A worker asks for every frame that its flow table does not answer for, and for every TCP segment with SYN, FIN or RST:
//!
//! 1. [`Connections::lookup`] says the [`State`](kopi_config::policy::State) of the frame and changes nothing;
//! 2. the rules evaluate it with that state;
//! 3. if it was accepted, [`Connections::accept`] begins the connection or moves it on, and gives the [`Ref`] under which
//!    the flow table remembers it.
//!
//! From then on the flow table keeps a [`CtVersion`], and [`Connections::holds`] says by one load whether the connection is still
//! in that version, so that its packets need no lookup. [`Connections::touch`], called at most once a second, keeps the
//! connection alive. A `Ref` whose connection is gone is known by its generation.
//!
//! # Memory and time
//!
//! The table has a fixed size. A hash under a secret seed chooses one of its buckets, of eight connections each: one
//! cache line for what changes of the eight, one line for each connection's tuple, and half a line for whose they are. So a
//! lookup reads two lines, and a full bucket is searched for something to evict in two. All memory is atomics: packets of known connections take no
//! lock; only a new connection takes its bucket's spin lock, for as long as it takes to write one entry. Times are kept
//! in units of one or two milliseconds, so a time-out is at most some days.
//!
//! # Limits and eviction
//!
//! Each application has its connections, and each user those of its applications; how many there are is counted
//! ([`zones`]). Who has as many as it may have gives up one of its own for each new one, the first of its bucket or of some
//! others in the order below; if there is none, the new one is refused.
//!
//! When the bucket of a new connection is full, it takes the place of, in this order:
//!
//! 1. one whose application has gone;
//! 2. one whose time is up;
//! 3. one that both sides have ended (`TIME_WAIT`, `CLOSE`), the one without packets for longest;
//! 4. of a user that has more connections than that of the new one, or of another application of the same user that has more:
//!    one that was never answered, or whose originator has not shown yet that it got the answer. A server answers every SYN
//!    of a flood, but nobody answers the server. Who has most gives first, the oldest;
//! 5. the same of its own application;
//! 6. the same of one that has at least half as many;
//! 7. of a user, or application, as in 4, any other, the one without packets for longest.
//!
//! So a connection whose originator went on after an answer is evicted for nobody but those who have less, and then only
//! where a bucket is full of such. If all eight are to stay, the new one is not tracked: its packets pass as `new` as long as
//! rules let them, but their answers are not `established`. [`Stats::refused`] counts that. Nobody can do that to
//! somebody who has less: whatever fills the table, or one bucket of it, gives way.
//!
//! A flood of SYNs from random addresses, answered or not, pushes out itself and half-open connections of the same
//! application, but no established one. A half-open one has to begin again if it became the oldest of its bucket before it
//! was through: nearly all live through a third as many new connections as the application may have, and few through half
//! as many again (`cargo bench -p kopi-policy --bench connections`).
//!
//! | module | what is in it |
//! | --- | --- |
//! | `tuple` | what a frame is to connection tracking: [`Sort`], [`Tuple`] |
//! | `table` | [`Connections`]: find, evaluate, begin, move on |
//! | `room` | who has to go for a new one |
//! | `zones` | whose connections there are, and how many each may have |
//! | `ct_lookup` | both steps for a whole frame: [`CtLookup`] |
//! | `ct_ref` | what a flow table keeps of a connection: [`Ref`], [`CtVersion`] |
//! | `upkeep` | what the control thread does: sweep, forget, list |
//! | `entry` | the layout in memory |
//! | `timeouts` | how long a connection may stay in its state |
//! | `numbers` | what a TCP segment does, by its numbers |
//! | `window` | the numbers of TCP, and its window |

mod ct_lookup;
mod ct_ref;
mod entry;
mod numbers;
mod room;
mod table;
mod timeouts;
mod tuple;
mod upkeep;
mod window;
mod zones;

#[cfg(test)]
mod tests;

pub use ct_lookup::CtLookup;
pub use ct_ref::{CtVersion, Ref};
pub use table::{Connections, TOUCH_SHIFT};
pub use tuple::{Sort, Tuple};
pub use upkeep::{Connection, Stats};
pub use zones::{Holder, Limits, ZONES};

//! Connection tracking of a whole frame, in two steps with the rules between them.

use std::sync::atomic::Ordering::Relaxed;

use kopi_config::policy::{Direction, State};
use kopi_packet::tcp::Segment;
use kopi_packet::{FlowKey, Headers, checksum, icmp};

use super::ct_ref::Ref;
use super::table::Connections;
use super::tuple::{Sort, Tuple};
use super::zones::Holder;

/// What was found out about a frame, for the rules and for [`Connections::accept`].
#[derive(Clone, Copy, Debug)]
pub struct CtLookup {
    state: State,
    direction: Direction,
    /// The tuple of the connection that would begin with the frame and to whom it is charged, or the connection it belongs to.
    of: Of,
    segment: Option<Segment>,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Nothing,
    Begins(Tuple, Holder),
    Known(Ref),
}

impl CtLookup {
    /// The state of the frame, by which the rules evaluate it.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The connection it belongs to; `None` if there is none yet.
    #[must_use]
    pub const fn connection(&self) -> Option<Ref> {
        match self.of {
            Of::Known(of) => Some(of),
            Of::Nothing | Of::Begins(..) => None,
        }
    }

    const fn clear(state: State, direction: Direction) -> Self {
        Self { state, direction, of: Of::Nothing, segment: None }
    }
}

impl Connections {
    /// Finds out the state of a frame at the policy hook of app `zone`, which it leaves or reaches, and changes nothing.
    ///
    /// `headers` and `key` are what [`parse`](kopi_packet::parse) found in `frame`. Never panics, whatever the frame is.
    #[must_use]
    pub fn lookup(
        &self,
        zone: u16,
        direction: Direction,
        (frame, headers, key): (&[u8], &Headers, &FlowKey),
        now: u64,
    ) -> CtLookup {
        let tuple = match Sort::of(zone, key, direction) {
            Sort::Tracked(tuple) => tuple,
            Sort::Clear(state) => return CtLookup::clear(state, direction),
            Sort::Error if !checksum::is_intact(frame, headers) => return self.damaged(zone, direction),
            Sort::Error => {
                let about = icmp::embedded(frame, headers)
                    .and_then(|quoted| Tuple::quoted(zone, key, direction, &quoted))
                    .and_then(|tuple| self.find(&tuple, now));
                let state = if about.is_some() { State::Related } else { State::Invalid };
                return CtLookup::clear(state, direction);
            }
        };
        let segment = Segment::of(frame, headers);
        let (state, changes, of) = match self.find(&tuple, now) {
            Some(of) => {
                let (state, changes) = self.foresee(of, direction, segment.as_ref());
                (state, changes, Of::Known(of))
            }
            None if self.opening(&tuple, direction, segment.as_ref()).is_some() => {
                (State::New, true, Of::Begins(tuple, self.charged(zone, key.source())))
            }
            None => (State::Invalid, false, Of::Nothing),
        };
        // Its receiver will not take it, so it neither begins a connection nor moves one on. What changes nothing is not
        // summed up.
        if changes && !checksum::is_intact(frame, headers) {
            return self.damaged(zone, direction);
        }
        CtLookup { state, direction, of, segment }
    }

    #[cold]
    fn damaged(&self, zone: u16, direction: Direction) -> CtLookup {
        let stripes = self.stripes();
        if let Some(stripe) = stripes.get(usize::from(zone) % stripes.len()) {
            stripe.damaged.fetch_add(1, Relaxed);
        }
        CtLookup::clear(State::Invalid, direction)
    }

    /// Takes down that the frame of this [`lookup`](Self::lookup) was accepted, and returns its connection.
    ///
    /// `None` if it has none: connections are no notion of it, it is invalid, or there is no room for a new one.
    pub fn accept(&self, lookup: &CtLookup, now: u64) -> Option<Ref> {
        let segment = lookup.segment.as_ref();
        match lookup.of {
            Of::Nothing => None,
            Of::Known(of) => self.advance(of, lookup.direction, segment, now),
            Of::Begins(tuple, holder) => self.begin(&tuple, holder, lookup.direction, segment, now),
        }
    }
}

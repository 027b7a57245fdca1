//! A capture that was asked for and has not begun: its filter is being compiled.
//!
//! That is done on the session's own thread, since it takes seconds for a long expression, and while names of hosts are
//! looked up. Only the control thread can give workers taps, so the two tell each other when it is time to.

use super::output::Output;
use super::request::Request;
use super::roster::Roster;
use super::session::{Bell, Parts, Session};
use super::stream::Picture;
use super::talk::Talk;
use crate::tap::{Line, PortCounts};
use dpdk::Bpf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SyncSender};

/// A filter; `None` for one that lets everything pass.
pub type Filter = Option<Arc<Bpf>>;

/// What a session begins with.
#[derive(Debug)]
pub struct Start {
    /// From each worker.
    pub rings: Vec<rtrb::Consumer<Line>>,
    /// How many workers look for it already.
    pub begun: Arc<AtomicUsize>,
    /// What each worker's tap counts.
    pub counts: Vec<Arc<[PortCounts]>>,
    /// Who is behind each port now.
    pub roster: Arc<Roster>,
    /// The same, whenever it changes.
    pub pictures: Receiver<Picture>,
}

/// A capture that has not begun.
#[derive(Debug)]
pub struct Draft {
    /// What is asked.
    pub request: Arc<Request>,
    /// The client's connection.
    pub talk: Talk,
    /// Where to write to.
    pub output: Output,
    /// Takes the filter.
    pub compiled: SyncSender<Filter>,
    /// Gives what it begins with.
    pub start: Receiver<Start>,
    /// Ticks of the TSC in a second.
    pub hz: u64,
    /// How to have the control thread look.
    pub bell: Arc<Bell>,
}

impl Draft {
    /// Compiles the filter, waits for the taps, and is a session from then on. A filter that cannot be compiled ends it.
    pub fn run(self) {
        let Self { request, talk, output, compiled, start, hz, bell } = self;
        let filter = match request.compile() {
            Ok(filter) => filter,
            Err(why) => return talk.refuse(&why),
        };
        let talk = talk.with_jit(filter.as_ref().is_none_or(|filter| filter.is_jit()));
        if compiled.send(filter).is_err() {
            return;
        }
        bell.wake();
        // Without an answer kopid ends.
        let Ok(start) = start.recv() else { return };
        let Start { rings, begun, counts, roster, pictures } = start;
        Session::new(Parts { request, talk, output, rings, begun, counts, roster, pictures, hz, bell }).run();
    }
}

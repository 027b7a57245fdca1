//! A capture that was asked for and has not begun: its filter is being compiled.
//!
//! That is done on the thread of the operator's connection, which becomes the session's, since it takes seconds for a long expression,
//! and while names of hosts are looked up. Only the control thread can give workers taps, so the two tell each other when it is
//! time to.

use super::output::Output;
use super::request::Request;
use super::roster::Roster;
use super::session::{Bell, Parts, Session};
use super::stream::EpochNames;
use super::talk::Talk;
use crate::stages::mirror::{Line, PortCounts};
use dpdk::Bpf;
use rustix::fd::OwnedFd;
use rustix::process::setpriority_process;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender};

/// Niceness of a session's thread: beside an application that polls on the same CPU it gets a tenth of it. Capture is the
/// guest there, and says what it has lost.
const NICE: i32 = 10;

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
    pub snapshots: Receiver<EpochNames>,
}

/// A capture that has not begun: what its thread is given.
#[derive(Debug)]
pub struct Place {
    /// Its number.
    pub id: u32,
    /// What is asked.
    pub request: Arc<Request>,
    /// Takes the filter.
    pub compiled: SyncSender<Filter>,
    /// Gives what it begins with.
    pub start: Receiver<Start>,
    /// Ticks of the TSC in a second.
    pub hz: u64,
    /// How to have the control thread look.
    pub bell: Arc<Bell>,
    /// Goes with the thread's last work.
    pub here: Here,
}

/// Notes that a session is over, however it ends.
#[derive(Debug)]
pub struct Here {
    /// What is set then.
    pub gone: Arc<AtomicBool>,
    /// How to have the control thread look.
    pub bell: Arc<Bell>,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.gone.store(true, Relaxed);
        self.bell.wake();
    }
}

impl Place {
    /// Compiles the filter, waits for the taps, and is a session from then on, which writes to `output` and whose client is at the
    /// other end of `socket`. A filter that cannot be compiled ends it.
    pub fn run(self, output: Output, socket: OwnedFd) {
        self.settle();
        let Self { id, request, compiled, start, hz, bell, here: _here, .. } = self;
        let talk = Talk::new(id, socket);
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
        let Start { rings, begun, counts, roster, snapshots } = start;
        Session::new(Parts { request, talk, output, rings, begun, counts, roster, snapshots, hz, bell }).run();
    }

    /// Makes the thread that of a session.
    fn settle(&self) {
        if let Err(errno) = setpriority_process(None, NICE) {
            log::debug!("a capture session runs with the same priority as others: {errno}");
        }
        let name = CString::new(format!("kopi-capture-{}", self.id)).unwrap_or_default();
        if let Err(errno) = rustix::thread::set_name(&name) {
            log::debug!("a capture session has no name: {errno}");
        }
    }
}

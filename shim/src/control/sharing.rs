//! What a port's control thread shares of the application's memory with the daemon.

use super::Control;
use crate::log::notice;
use crate::memory::{Sharing, Step};
use crate::port_state::{CopyReason, SharingState};
use crate::session::{Lost, RequestError, Session};
use kopi_ring::message::Message;
use rustix::fd::AsFd;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::time::Instant;

/// What the daemon of this connection has of the application's memory.
#[derive(Debug)]
pub(super) struct Memory {
    /// What is shared; `None` if nothing is.
    pub(super) sharing: Option<Sharing>,
    /// Whether the daemon knows the window.
    pub(super) announced: bool,
    /// Whether the log has it which way packets are sent.
    logged: bool,
    /// When the daemon refused a part of it last.
    pub(super) refused: Option<Instant>,
}

impl Control {
    /// Finds out whether memory can be shared with the daemon of this connection.
    pub(super) fn begin_sharing(&self, session: &Session) -> Memory {
        let mut memory = Memory { sharing: None, announced: false, logged: false, refused: None };
        // Once only: a daemon that cannot receive files would be lost again and again.
        let lost = self.lost_sharing.swap(false, AcqRel);
        if !session.shares() {
            let why = "kopid's configuration, policy or kernel says so, or it is of an older release";
            self.no_sharing(&mut memory, CopyReason::NotWanted, why);
            return memory;
        }
        if lost {
            let why = "the connection before was lost while memory was shared";
            self.no_sharing(&mut memory, CopyReason::Refused, why);
            return memory;
        }
        memory.sharing = self.memory.begin();
        if memory.sharing.is_none() {
            self.no_sharing(&mut memory, CopyReason::Unfit, "EAL has no memory of its own that could be shared");
        }
        memory
    }

    /// Shares nothing on this connection any more, for this reason.
    pub(super) fn no_sharing(&self, memory: &mut Memory, reason: CopyReason, why: &str) {
        if let Some(sharing) = memory.sharing.take() {
            sharing.end();
        }
        memory.logged = true;
        self.state().sharing = SharingState { bytes: 0, copy_reason: reason };
        notice!("port {}: what it sends is copied twice: {why}", self.device.port());
    }

    /// Shares a piece of the application's memory, or takes one back, if there is any to be; returns whether there was.
    pub(super) fn share(&self, session: &mut Session, memory: &mut Memory) -> Result<bool, Lost> {
        let Some(sharing) = memory.sharing.as_mut().filter(|_| memory.announced) else { return Ok(false) };
        let (message, files) = match sharing.next() {
            None => {
                let (bytes, unfit) = (sharing.bytes(), sharing.unfit());
                if bytes == 0
                    && let Some(why) = unfit
                {
                    self.no_sharing(memory, CopyReason::Unfit, why);
                    return Ok(false);
                }
                self.note_sharing(bytes, unfit.map(|_| CopyReason::Unfit));
                if bytes > 0 && !std::mem::replace(&mut memory.logged, true) {
                    let port = self.device.port();
                    notice!(
                        "port {port}: what it sends is read where it lies, in {} MiB that kopid may read",
                        bytes >> 20
                    );
                }
                return Ok(false);
            }
            Some(Step::Unshare(spans)) => (Message::Unshare(spans.clone()), Vec::new()),
            Some(Step::Share(segments)) => (
                Message::Share(segments.iter().map(|(segment, _)| *segment).collect()),
                segments.iter().map(|(_, file)| file.as_fd()).collect(),
            ),
        };
        let shares = !files.is_empty();
        match session.share(message, &files, self.stop.as_fd()) {
            Ok(()) => {
                sharing.done();
                Ok(true)
            }
            Err(RequestError::Refused(text)) => {
                memory.refused = Some(Instant::now());
                self.lost_sharing.store(shares, Release);
                if sharing.refused() {
                    self.note_sharing(sharing.bytes(), Some(CopyReason::Refused));
                    memory.logged = true;
                    let (port, shared) = (self.device.port(), sharing.bytes() >> 20);
                    notice!(
                        "port {port}: what it sends is read where it lies in {shared} MiB, and copied twice elsewhere: {text}"
                    );
                } else {
                    self.no_sharing(memory, CopyReason::Refused, &text);
                }
                Ok(false)
            }
            Err(RequestError::Lost(lost)) => {
                let by_us = matches!(lost, Lost::Stopping | Lost::Reset);
                self.lost_sharing.store(shares && !by_us, Release);
                Err(lost)
            }
        }
    }

    /// Notes how much of the application's memory the daemon reads, and why not more if there is a reason that is new.
    fn note_sharing(&self, bytes: u64, why: Option<CopyReason>) {
        let mut state = self.state();
        state.sharing.bytes = bytes;
        if let Some(why) = why.filter(|_| state.sharing.copy_reason == CopyReason::None) {
            state.sharing.copy_reason = why;
        }
    }
}

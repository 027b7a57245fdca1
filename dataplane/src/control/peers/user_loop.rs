//! What a user's thread does.

use super::{
    EVENTS, HURRY, JOBS, Job, LONG, LONGEST_PAUSE, Object, PAUSE, PeerEvent, PeerEventKind, SHUN_TIME, Shared,
    VERY_LONG, thread_time,
};
use crate::control::identity;
use crate::control::mailbox::MailSender;
use kopi_ring::message::{Message, Segment};
use kopi_ring::socket::{self, ReceiveError};
use kopi_ring::{Region, Window};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::mpsc::Receiver;
use std::thread::park_timeout;
use std::time::Instant;

/// A user's thread.
#[derive(Debug)]
pub(super) struct UserLoop {
    pub(super) epoll: OwnedFd,
    pub(super) jobs: Receiver<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: MailSender<PeerEvent>,
    pub(super) objects: BTreeMap<u64, Object>,
    /// The files that came with the last message of a connection, until they are mapped. They are closed here and nowhere else.
    pub(super) files: BTreeMap<u64, Vec<OwnedFd>>,
    /// What very long calls were made on.
    pub(super) suspects: BTreeSet<u64>,
    /// What is not to be touched until then.
    pub(super) shunned: Vec<(Instant, Object)>,
}

impl UserLoop {
    pub(super) fn run(&mut self) {
        loop {
            let mut room = [const { MaybeUninit::uninit() }; EVENTS];
            let events = epoll::wait(&self.epoll, &mut room, None).map(|(events, _)| &*events).unwrap_or_default();
            for event in events {
                let serial = { event.data }.u64();
                if serial != JOBS {
                    self.timed(serial, |thread| thread.receive(serial));
                    continue;
                }
                self.shared.wake.clear();
                while let Ok(job) = self.jobs.try_recv() {
                    // Takes as long as the memory is large, and keeps nobody from the CPU meanwhile: no reason for a pause.
                    if let Job::Map(..) | Job::Unmap(..) | Job::CloseWindow(..) | Job::EndRegion(_) = job {
                        self.handle(job);
                        self.shared.backlog.fetch_sub(1, AcqRel);
                        continue;
                    }
                    let serial = match &job {
                        Job::End => return,
                        Job::Send(serial, ..) | Job::Quiet(serial, _) | Job::Listen(serial) => *serial,
                        _ => JOBS,
                    };
                    self.timed(serial, |thread| thread.handle(job));
                    self.shared.backlog.fetch_sub(1, AcqRel);
                }
            }
            self.shunned.retain(|(until, _)| Instant::now() < *until);
        }
    }

    fn send(&self, serial: u64, kind: PeerEventKind) {
        self.events.send(PeerEvent { serial, kind });
    }

    /// Does something for connection or doorbell `serial`, if for any, and pauses if it took long.
    fn timed(&mut self, serial: u64, work: impl FnOnce(&mut Self)) {
        let begun = thread_time();
        work(self);
        let spent = thread_time().saturating_sub(begun);
        self.shared.note_time(spent);
        if spent >= VERY_LONG
            && self.objects.contains_key(&serial)
            && !self.suspects.insert(serial)
            && let Some(object) = self.objects.remove(&serial)
        {
            self.shunned.push((Instant::now() + SHUN_TIME, object));
            self.shared.extend(&self.shared.shuns_until, SHUN_TIME);
            self.send(serial, PeerEventKind::Slow(spent));
        }
        if spent >= LONG && self.shared.backlog.load(Relaxed) < HURRY {
            park_timeout((spent * PAUSE).min(LONGEST_PAUSE));
        }
    }

    fn handle(&mut self, job: Job) {
        match job {
            Job::Open(serial, object) => drop(self.objects.insert(serial, object)),
            Job::Send(serial, envelope, fds) => {
                let Some(Object::Socket(socket)) = self.objects.get(&serial) else { return };
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                if let Err(errno) = socket::send(socket, &envelope, &fds) {
                    self.send(serial, PeerEventKind::Unsent(errno));
                }
            }
            Job::Listen(serial) => {
                // What was not wanted.
                self.files.remove(&serial);
                let Some(Object::Socket(socket)) = self.objects.get(&serial) else { return };
                let (data, flags) = (EventData::new_u64(serial), EventFlags::IN | EventFlags::ONESHOT);
                let watched = match epoll::modify(&self.epoll, socket, data, flags) {
                    Err(Errno::NOENT) => epoll::add(&self.epoll, socket, data, flags),
                    other => other,
                };
                if let Err(errno) = watched {
                    self.send(serial, PeerEventKind::Received(Err(ReceiveError::System(errno))));
                }
            }
            Job::Quiet(serial, asked) => {
                asked.store(false, Relaxed);
                if let Some(Object::Doorbell(doorbell)) = self.objects.get(&serial) {
                    doorbell.quiet();
                }
            }
            Job::Call(futex, asked) => {
                // First, so that who asks from now on is called for that, too.
                asked.store(false, Relaxed);
                futex.wake();
            }
            Job::Attest(serial, accepted) => {
                let Some(Object::Socket(socket)) = self.objects.get(&serial) else { return };
                let attested = identity::attest(socket, accepted).map(Box::new);
                self.send(serial, PeerEventKind::Attested(attested));
            }
            Job::Look(serial, identity, handle, asked) => {
                asked.store(false, Relaxed);
                if let Some(identity) = identity.refreshed(&handle) {
                    self.send(serial, PeerEventKind::Changed(Box::new(identity)));
                }
            }
            Job::RefuseOperator(socket, text) => {
                // It may be gone or not listening.
                let _sent = kopi_api::transport::send(&socket, text.as_bytes(), None, SendFlags::DONTWAIT);
            }
            Job::Pass(serial) => {
                let Some(Object::Socket(socket)) = self.objects.get(&serial) else { return };
                let _passed = socket::pass_descriptors(socket, true);
            }
            Job::Map(serial, window, segments) => self.share(serial, &window, &segments),
            Job::Unmap(serial, window, spans) => {
                let unmapped = spans.iter().try_for_each(|span| window.unmap(*span));
                self.send(serial, PeerEventKind::Shared(unmapped.map_err(|error| error.to_string())));
            }
            Job::CloseWindow(window, closing) => {
                drop(window);
                drop(closing);
            }
            Job::Seal(serial, file) => self.seal(serial, &file),
            Job::EndRegion(ending) => ending.carry_out(),
            Job::Close(serial) => {
                self.files.remove(&serial);
                self.suspects.remove(&serial);
                drop(self.objects.remove(&serial));
            }
            Job::End => {}
        }
    }

    /// Maps what came with the last message, and closes its files.
    fn share(&mut self, serial: u64, window: &Window, segments: &[Segment]) {
        let files = self.files.remove(&serial).unwrap_or_default();
        let mapped = map_all(window, &files, segments);
        // Each may take long to close, as what comes with any message.
        files.into_iter().for_each(|file| self.timed(serial, |_| drop(file)));
        self.send(serial, PeerEventKind::Shared(mapped));
    }

    fn seal(&self, serial: u64, file: &OwnedFd) {
        self.send(serial, PeerEventKind::Sealed(Region::seal_file(file)));
    }

    fn receive(&mut self, serial: u64) {
        let Some(Object::Socket(socket)) = self.objects.get(&serial) else { return };
        let received = match socket::receive(socket) {
            Ok((envelope, fds)) if fds.is_empty() => Ok(envelope),
            Ok((envelope, fds)) if is_sharing(&envelope.message, fds.len()) => {
                self.files.insert(serial, fds);
                Ok(envelope)
            }
            // They are closed here. A kernel that lets them be refused gives none.
            Ok(_) => Err(ReceiveError::Descriptors),
            Err(ReceiveError::WouldBlock) => return self.handle(Job::Listen(serial)),
            Err(error) => Err(error),
        };
        self.send(serial, PeerEventKind::Received(received));
    }
}

/// Maps each file as one of the segments: all of them, or none.
fn map_all(window: &Window, files: &[OwnedFd], segments: &[Segment]) -> Result<(), String> {
    if files.len() != segments.len() {
        return Err("not each segment has a file".into());
    }
    for (mapped, (file, segment)) in files.iter().zip(segments).enumerate() {
        if let Err(error) = window.map(file, segment) {
            for Segment { span, .. } in segments.iter().take(mapped) {
                // What cannot be unmapped is counted until the window goes.
                let _unmapped = window.unmap(*span);
            }
            return Err(error.to_string());
        }
    }
    Ok(())
}

/// Whether `files` file descriptors belong to a message.
fn is_sharing(message: &Message, files: usize) -> bool {
    matches!(message, Message::Share(segments) if segments.len() == files)
}

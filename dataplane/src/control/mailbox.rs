//! Queues from other threads of kopid's to the control thread, which wake it.

use crate::control::helper::Wake;
use rustix::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// The control thread's end. It becomes readable when there is something to be received.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Receiver<T>,
    wake: Wake,
}

/// The other threads' end.
#[derive(Debug)]
pub struct MailSender<T> {
    queue: Sender<T>,
    wake: Wake,
}

impl<T> Mailbox<T> {
    /// An empty queue, and its other end.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors are short.
    pub fn new() -> std::io::Result<(MailSender<T>, Self)> {
        let (wake, (sender, queue)) = (Wake::new()?, channel());
        Ok((MailSender { queue: sender, wake: wake.clone() }, Self { queue, wake }))
    }

    /// The next message, if there is one. Never waits.
    pub fn receive(&self) -> Option<T> {
        if let Ok(message) = self.queue.try_recv() {
            return Some(message);
        }
        // It only says that there may be some. What comes after this is found by the second look.
        self.wake.clear();
        self.queue.try_recv().ok()
    }

    /// The next message, if it comes in time.
    pub fn receive_within(&self, timeout: Duration) -> Option<T> {
        self.queue.recv_timeout(timeout).ok()
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl<T> MailSender<T> {
    /// Sends a message. Never waits; at the end of the daemon nobody receives any more.
    pub fn send(&self, message: T) {
        if self.queue.send(message).is_ok() {
            self.wake.wake();
        }
    }
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wake: self.wake.clone() }
    }
}

//! Signals as events, with their senders.

use crate::control::operator::Operator;
use rustix::fd::{AsFd, BorrowedFd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// The signals that kopid handles.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
}

/// What a signal asks for, and its sender. The sender is unknown if the kernel itself sent the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGHUP: read the policy again.
    Reload(Option<Operator>),
    /// SIGTERM or SIGINT: end.
    Stop(Option<Operator>),
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors are short.
    pub fn catch() -> Result<Self, std::io::Error> {
        // What other programs take for a request for a report must not end this one.
        for signal in [SIGUSR1, SIGUSR2] {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), [SIGTERM, SIGINT, SIGHUP])?;
        Ok(Self { delivery })
    }

    /// Takes the signals that have come. Of several SIGHUP in a row, one may be left out.
    pub fn take(&mut self) -> Vec<SignalRequest> {
        let request = |signal: signal_hook::low_level::siginfo::Origin| {
            // A process outside our pid namespace has pid 0.
            let sender = signal.process.map(|of| Operator { pid: (of.pid > 0).then_some(of.pid), uid: of.uid });
            if signal.signal == SIGHUP { SignalRequest::Reload(sender) } else { SignalRequest::Stop(sender) }
        };
        self.delivery.pending().map(request).collect()
    }
}

impl AsFd for Signals {
    /// Readable when a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

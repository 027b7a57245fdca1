//! The process that asks for something: the one at the other end of the control socket, or the sender of a signal.

use kopi_ring::socket::peer_credentials;
use nix::unistd::User;
use rustix::fd::OwnedFd;

/// A process that operates kopid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its pid; `None` outside our pid namespace.
    pub pid: Option<i32>,
    /// Its real uid.
    pub uid: u32,
}

impl Operator {
    /// The process at the other end of `socket`.
    #[must_use]
    pub fn of_peer(socket: &OwnedFd) -> Option<Self> {
        let peer = peer_credentials(socket).ok()?;
        Some(Self { pid: (peer.pid > 0).then_some(peer.pid), uid: peer.uid })
    }

    /// User and pid, as the log shows them. Asks the name service, which may take its time.
    #[must_use]
    pub fn name(&self) -> String {
        let uid = self.uid;
        let user = match uid {
            // Nobody needs to be asked what this user is called.
            0 => "user root (0)".to_owned(),
            _ => match User::from_uid(uid.into()) {
                Ok(Some(user)) => format!("user {} ({uid})", user.name),
                _ => format!("uid {uid}"),
            },
        };
        match self.pid {
            Some(pid) => format!("{user}, pid {pid}"),
            None => user,
        }
    }
}

//! Unix sockets that the daemon listens on.

use crate::control::poller::{Poller, Token};
use kopi_config::Socket;
use kopi_config::check::{NoAccount, socket_owners};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Pause of accepting when file descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file, to tell it from one that took its place.
    file: Option<(u64, u64)>,
    /// When accepting goes on, if it is paused.
    paused_until: Option<Instant>,
}

/// Why nobody can listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another kopid serves the socket.
    #[error("{}: already running (pid {pid})", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
        /// The process behind it.
        pid: i32,
    },
    /// Somebody serves the socket who cannot be asked: another kind of program, or one that does not accept.
    #[error("{}: another process serves it already", .0.display())]
    Taken(PathBuf),
    /// Something is there that is no socket.
    #[error("{}: is in the way, it is no socket", .0.display())]
    NotASocket(PathBuf),
    /// The owner or group does not exist.
    #[error("{}: there is no {kind} `{name}` on this system", path.display())]
    NoAccount {
        /// The socket.
        path: PathBuf,
        /// `user` or `group`.
        kind: &'static str,
        /// The name that was not found.
        name: String,
    },
    /// An address cannot be listened at.
    #[error("{address}: cannot listen: {error}; `listen` in [metrics] names another")]
    Address {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The system refused.
    #[error("{}: {action}: {error}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        error: std::io::Error,
    },
}

impl Listener {
    /// Fails if another process serves the socket at `path`, whatever kind it is of.
    ///
    /// # Errors
    ///
    /// [`ListenError::Running`] names the process; [`ListenError::Taken`] if there is one that does not tell.
    pub fn check_free(path: &Path, kind: SocketType) -> Result<(), ListenError> {
        let failed = |action| move |e: Errno| system(path, action, e.into());
        // A process that is stopped has a full backlog, for which a blocking socket would wait.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let probe =
            rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(failed("cannot make a socket"))?;
        let address = SocketAddrUnix::new(path).map_err(failed("not a socket path"))?;
        match rustix::net::connect(&probe, &address) {
            Ok(()) => {
                let pid = kopi_ring::socket::peer_credentials(&probe).map_or(0, |peer| peer.pid);
                Err(ListenError::Running { path: path.into(), pid })
            }
            // What is not a socket refuses connections too; `bind` sees to that.
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(()),
            // A full backlog, or a socket of another kind: either way somebody has it open.
            Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(ListenError::Taken(path.into())),
            Err(errno) => Err(failed("cannot tell whether anybody serves it")(errno)),
        }
    }

    /// Listens at the configured path. A socket that nobody serves any more is replaced, and a missing folder made.
    ///
    /// # Errors
    ///
    /// [`ListenError`] says what is in the way.
    pub fn bind(config: &Socket, kind: SocketType) -> Result<Self, ListenError> {
        let path = config.path.as_path();
        Self::check_free(path, kind)?;
        let failed = |action| move |e: std::io::Error| system(path, action, e);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("cannot make its folder"))?;
        }
        if let Ok(found) = fs::symlink_metadata(path) {
            use std::os::unix::fs::FileTypeExt;
            if !found.file_type().is_socket() {
                return Err(ListenError::NotASocket(path.into()));
            }
            fs::remove_file(path).map_err(failed("cannot replace the stale socket"))?;
        }
        let no_account = |NoAccount { kind, name }| ListenError::NoAccount { path: path.into(), kind, name };
        let (owner, group) = socket_owners(config).map_err(no_account)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
            .map_err(|e| failed("cannot make a socket")(e.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|e| failed("not a socket path")(e.into()))?;
        // Nobody may connect before owner and mode are set.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o777));
        let bound = rustix::net::bind(&socket, &address);
        rustix::process::umask(mask);
        bound.map_err(|e| failed("cannot bind")(e.into()))?;
        // Whoever may write to the folder may have put something else there meanwhile, as a link to a file of root's.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed("cannot find the socket")(e.into()))?;
        let found = rustix::fs::fstat(&file).map_err(|e| failed("cannot look at the socket")(e.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
            return Err(ListenError::NotASocket(path.into()));
        }
        let listener = Self { socket, path: path.into(), file: Some((found.st_dev, found.st_ino)), paused_until: None };
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        rustix::fs::chownat(&file, "", owner, group, AtFlags::EMPTY_PATH)
            .map_err(|e| failed("cannot set owner and group")(e.into()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(config.mode.bits());
        fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
            .map_err(failed("cannot set the mode"))?;
        rustix::net::listen(&listener.socket, BACKLOG).map_err(|e| failed("cannot listen")(e.into()))?;
        Ok(listener)
    }

    /// The next waiting connection, which does not block; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors or memory are short.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for no connections for a moment, because [`accept`](Self::accept) failed: events that tell of a level
    /// would keep the thread busy for nothing.
    pub fn pause(&mut self, poller: &Poller, token: Token) {
        if poller.change(&self.socket, token, false, false).is_ok() {
            self.paused_until = Some(Instant::now() + PAUSE);
        }
    }

    /// Goes on waiting for connections after a pause that is over. To be called now and then.
    pub fn resume(&mut self, poller: &Poller, token: Token) {
        if self.paused_until.is_some_and(|until| Instant::now() >= until)
            && poller.change(&self.socket, token, true, false).is_ok()
        {
            self.paused_until = None;
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The path may be another daemon's by now.
        let found = fs::symlink_metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        if found.is_none() || found != self.file {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{}: cannot remove the socket: {error}", self.path.display());
        }
    }
}

fn system(path: &Path, action: &'static str, error: std::io::Error) -> ListenError {
    ListenError::System { path: path.into(), action, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of its own for each test, without its file.
    struct Place(PathBuf);

    impl Place {
        fn new(label: &str) -> Self {
            let name = format!("kopi-listener-{}-{label}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        /// Listens there, for `backlog` connections.
        fn listen(&self, kind: SocketType, backlog: i32) -> OwnedFd {
            let socket = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
            rustix::net::bind(&socket, &SocketAddrUnix::new(&self.0).unwrap()).unwrap();
            rustix::net::listen(&socket, backlog).unwrap();
            socket
        }

        fn check(&self) -> Result<(), ListenError> {
            Listener::check_free(&self.0, SocketType::SEQPACKET)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    /// Fault 8: a socket without a process behind it is free, as is a path where nothing is.
    #[test]
    fn stale_socket_is_free() {
        let place = Place::new("stale");
        place.check().unwrap();
        let socket = place.listen(SocketType::SEQPACKET, 1);
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(place.check(), Err(ListenError::Running { pid: found, .. }) if found == pid));
        drop(socket);
        place.check().unwrap();
    }

    /// Fault 8: a daemon that accepts nobody, as one that is stopped, is found at once and not waited for.
    #[test]
    fn full_backlog_is_not_free() {
        let place = Place::new("full");
        let _socket = place.listen(SocketType::SEQPACKET, 0);
        // Each probe leaves a connection behind that nobody accepts.
        let taken = (0..10).any(|_| matches!(place.check(), Err(ListenError::Taken(_))));
        assert!(taken, "ten connections fit a backlog of none");
    }

    /// Another program's socket of another kind is in use as well.
    #[test]
    fn socket_of_another_kind_is_not_free() {
        let place = Place::new("kind");
        let _socket = place.listen(SocketType::STREAM, 1);
        assert!(matches!(place.check(), Err(ListenError::Taken(_))));
    }
}

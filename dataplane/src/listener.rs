//! Unix sockets that the daemon listens on.

use kopi_config::{Account, Socket};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
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
    /// [`ListenError::Running`] names the process.
    pub fn check_free(path: &Path, kind: SocketType) -> Result<(), ListenError> {
        let failed = |action| move |e: Errno| system(path, action, e.into());
        let probe = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(failed("cannot make a socket"))?;
        let address = SocketAddrUnix::new(path).map_err(failed("not a socket path"))?;
        match rustix::net::connect(&probe, &address) {
            Ok(()) => {
                let pid = kopi_ring::socket::peer_credentials(&probe).map_or(0, |peer| peer.pid);
                Err(ListenError::Running { path: path.into(), pid })
            }
            // A daemon that is stopped or flooded has a full backlog, and lives. It cannot be asked for its pid.
            Err(Errno::AGAIN) => Err(ListenError::Running { path: path.into(), pid: 0 }),
            Err(_) => Ok(()),
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
        let (owner, group) = owners(config)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
            .map_err(|e| failed("cannot make a socket")(e.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|e| failed("not a socket path")(e.into()))?;
        // Nobody may connect before owner and mode are set.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o777));
        let bound = rustix::net::bind(&socket, &address);
        rustix::process::umask(mask);
        bound.map_err(|e| failed("cannot bind")(e.into()))?;
        let listener = Self { socket, path: path.into() };
        std::os::unix::fs::chown(path, owner, group).map_err(failed("cannot set owner and group"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(config.mode.bits());
        fs::set_permissions(path, mode).map_err(failed("cannot set the mode"))?;
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
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{}: cannot remove the socket: {error}", self.path.display());
        }
    }
}

fn system(path: &Path, action: &'static str, error: std::io::Error) -> ListenError {
    ListenError::System { path: path.into(), action, error }
}

/// The configured owner and group as numbers.
fn owners(config: &Socket) -> Result<(Option<u32>, Option<u32>), ListenError> {
    let missing =
        |kind, name: &str| ListenError::NoAccount { path: config.path.as_path().into(), kind, name: name.to_owned() };
    let owner = match &config.owner {
        None => None,
        Some(Account::Id(id)) => Some(*id),
        Some(Account::Name(name)) => match User::from_name(name) {
            Ok(Some(user)) => Some(Uid::as_raw(user.uid)),
            _ => return Err(missing("user", name)),
        },
    };
    let group = match &config.group {
        None => None,
        Some(Account::Id(id)) => Some(*id),
        Some(Account::Name(name)) => match Group::from_name(name) {
            Ok(Some(group)) => Some(Gid::as_raw(group.gid)),
            _ => return Err(missing("group", name)),
        },
    };
    Ok((owner, group))
}

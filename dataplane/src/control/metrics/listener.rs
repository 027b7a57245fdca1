//! Where metrics are listened for.

use crate::control::listener::{ListenError, Listener};
use kopi_config::{Endpoint, Metrics};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt};
use std::net::{SocketAddr, TcpListener};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket of either kind. Neither blocks.
#[derive(Debug)]
pub enum MetricsListener {
    /// At an address.
    Tcp(TcpListener),
    /// At a Unix socket.
    Unix(Listener),
}

impl MetricsListener {
    /// Listens where `config` says; `None` if it does not.
    ///
    /// # Errors
    ///
    /// [`ListenError`] says what is in the way.
    pub fn bind(config: &Metrics) -> Result<Option<Self>, ListenError> {
        if let Some(socket) = config.socket() {
            return Listener::bind(&socket, SocketType::STREAM).map(|listener| Some(Self::Unix(listener)));
        }
        let Some(Endpoint::Address(address)) = config.listen else { return Ok(None) };
        let listener = at(address).map_err(|errno| ListenError::Address { address, error: errno.into() })?;
        Ok(Some(Self::Tcp(listener)))
    }

    /// The next waiting connection, which does not block; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors or memory are short.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match self {
            Self::Unix(listener) => listener.accept(),
            Self::Tcp(listener) => match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => Ok(Some(socket)),
                Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => Err(errno),
                // accept(2): errors of the new connection itself are passed on, and mean only that it is gone.
                Err(_) => Ok(None),
            },
        }
    }
}

/// Listens at an address, whether the machine has it yet or not: kopid may start before its networks, and serve one of them itself.
fn at(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // As the standard library does.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

impl AsFd for MetricsListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

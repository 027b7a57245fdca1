//! The Unix SEQPACKET socket that carries the attach protocol.

use crate::message::{DecodeError, Envelope, MAX_MESSAGE, MAX_SEGMENTS};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use thiserror::Error;

/// Why nothing was received.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The peer has closed the connection.
    #[error("connection closed by the peer")]
    Closed,
    /// Nothing there yet, on a socket that does not block, or within its time limit.
    #[error("no message in time")]
    WouldBlock,
    /// The peer's bytes are not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// More file descriptors came than belong to any message.
    #[error("unexpected file descriptors")]
    Descriptors,
    /// The socket failed.
    #[error("{0}")]
    System(Errno),
}

/// Connects to the daemon at `path`. The socket blocks and is closed on exec.
///
/// # Errors
///
/// The kernel's: `ENOENT` or `ECONNREFUSED` if no daemon listens, `EACCES` without the right, `ENAMETOOLONG` above 107
/// bytes.
pub fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = new_socket(SocketFlags::CLOEXEC)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// A new, unbound socket of the protocol's kind.
///
/// # Errors
///
/// The kernel's, when file descriptors or memory are short.
pub fn new_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Most file descriptors that belong to one message: one for each segment that a client shares.
pub const MAX_FDS: usize = MAX_SEGMENTS;

/// Sends one message with the file descriptors `fds`, at most [`MAX_FDS`]. Never raises SIGPIPE.
///
/// # Errors
///
/// The kernel's: `EPIPE` if the peer is gone, `EAGAIN` if it does not read. `EINVAL` for too many descriptors.
pub fn send(socket: impl AsFd, envelope: &Envelope, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if fds.len() > MAX_FDS {
        return Err(Errno::INVAL);
    }
    let bytes = envelope.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let _fits = control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// `SO_PASSRIGHTS` of `asm-generic/socket.h`, which the architectures that DPDK's releases are built for use. Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Has the kernel refuse messages with file descriptors that are sent to `socket`, or to what it accepts if it listens: the
/// sender gets `EPERM`. Whether the kernel does; before Linux 6.16 it does not.
///
/// The receiver of a descriptor has to close it, and its sender decides how long that takes: a TCP connection that lingers takes
/// minutes (`SO_LINGER`, socket(7)).
pub fn refuse_descriptors(socket: impl AsFd) -> bool {
    pass_descriptors(socket, false)
}

/// Has the kernel pass messages with file descriptors to `socket` again, or not, where it can [refuse](refuse_descriptors) them.
pub fn pass_descriptors(socket: impl AsFd, pass: bool) -> bool {
    let pass = libc::c_int::from(pass);
    let len: libc::socklen_t = u32::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `pass` is ours, and `len` says how long it is.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const pass).cast(), len) };
    done == 0
}

/// Receives one message and the file descriptors that came with it, at most [`MAX_FDS`]. Those beyond are closed, which may take
/// as long as their sender likes, unless the socket [refuses](refuse_descriptors) them.
///
/// # Errors
///
/// [`ReceiveError`]; after anything but `WouldBlock` the connection is of no more use.
pub fn receive(socket: impl AsFd) -> Result<(Envelope, Vec<OwnedFd>), ReceiveError> {
    let mut bytes = [0_u8; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    };
    let got = got.map_err(|errno| match errno {
        Errno::AGAIN | Errno::INTR => ReceiveError::WouldBlock,
        Errno::CONNRESET => ReceiveError::Closed,
        other => ReceiveError::System(other),
    })?;
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds: Vec<_> = fds.collect();
    if fds.len() > MAX_FDS || got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(ReceiveError::Descriptors);
    }
    if got.bytes == 0 {
        return Err(ReceiveError::Closed);
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(DecodeError::Long.into());
    }
    let envelope = Envelope::decode(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok((envelope, fds))
}

/// The process that connected, as the kernel recorded it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id in our pid namespace; 0 if the process is not in it.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The credentials of the process that connected (`SO_PEERCRED`, `unix(7)`).
///
/// # Errors
///
/// The kernel's, if this is no connected Unix socket.
pub fn peer_credentials(socket: impl AsFd) -> Result<Credentials, Errno> {
    // Not by way of rustix, which has no room for the pid 0 of a process outside our namespace.
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len: libc::socklen_t = u32::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `peer` and `len` are ours, and `len` says how long `peer` is.
    let done =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len) };
    if done != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok(Credentials { pid: peer.pid, uid: peer.uid, gid: peer.gid })
}

/// A pidfd of the process that connected, or `None` if the kernel (before 6.5) or the process's state does not give one.
#[must_use]
pub fn peer_pidfd(socket: impl AsFd) -> Option<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut len: libc::socklen_t = u32::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let option = libc::SO_PEERPIDFD;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `fd` and `len` are ours, and `len` says how long `fd` is.
    let done = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, (&raw mut fd).cast(), &raw mut len) };
    if done != 0 || fd < 0 {
        return None;
    }
    // SAFETY: the kernel has just made this file descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Supplementary groups of the process that connected, as they were then (`SO_PEERGROUPS`, Linux 4.13). `None` if the kernel does
/// not say.
#[must_use]
pub fn peer_groups(socket: impl AsFd) -> Option<Vec<u32>> {
    let bytes = peer_bytes(socket.as_fd(), libc::SO_PEERGROUPS)?;
    Some(bytes.chunks_exact(4).filter_map(|id| id.try_into().ok()).map(u32::from_ne_bytes).collect())
}

/// The security context of the process that connected, as it was then (`SO_PEERSEC`, `unix(7)`): SELinux's context, AppArmor's or
/// Smack's label. `None` if no security module gives one.
#[must_use]
pub fn peer_security(socket: impl AsFd) -> Option<Vec<u8>> {
    let mut label = peer_bytes(socket.as_fd(), libc::SO_PEERSEC)?;
    // Some modules count the zero at its end, others do not.
    label.truncate(label.iter().position(|byte| *byte == 0).unwrap_or(label.len()));
    (!label.is_empty()).then_some(label)
}

/// What the kernel has recorded of the peer of a Unix socket under `option`, of any length.
fn peer_bytes(socket: BorrowedFd<'_>, option: libc::c_int) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; 256];
    loop {
        let mut len = libc::socklen_t::try_from(bytes.len()).ok()?;
        let (socket, room) = (socket.as_raw_fd(), bytes.as_mut_ptr().cast());
        // SAFETY: `bytes` and `len` are ours, and `len` says how long `bytes` is.
        let done = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, room, &raw mut len) };
        let needed = usize::try_from(len).ok()?;
        if done == 0 {
            bytes.truncate(needed);
            return Some(bytes);
        }
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::ERANGE) || needed <= bytes.len() {
            return None;
        }
        bytes.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn envelope(message: Message) -> Envelope {
        Envelope { protocol: crate::PROTOCOL, sequence: 3, message }
    }

    /// File descriptors arrive with their message, in order, as new ones that lead to the same files.
    #[test]
    fn descriptors_travel_with_their_message() {
        let (a, b) = pair();
        for fds in [&[][..], &[a.as_fd()], &[a.as_fd(), b.as_fd()], &[b.as_fd(); MAX_FDS]] {
            send(&a, &envelope(Message::Done), fds).unwrap();
            let (got, came) = receive(&b).unwrap();
            assert_eq!(got, envelope(Message::Done));
            assert_eq!(came.len(), fds.len());
            for (came, sent) in came.iter().zip(fds) {
                assert_ne!(came.as_raw_fd(), sent.as_raw_fd());
                let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
                assert_eq!(inode(came.as_fd()), inode(*sent));
            }
        }
        assert_eq!(send(&a, &envelope(Message::Done), &[a.as_fd(); MAX_FDS + 1]), Err(Errno::INVAL));
    }

    /// Fault 3: any number of unexpected descriptors is closed, not kept.
    #[test]
    fn surplus_descriptors_are_closed() {
        let (a, b) = pair();
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        for n in [MAX_FDS + 1, MAX_FDS + 2, 100, 250] {
            let fds = vec![a.as_fd(); n];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let bytes = envelope(Message::Stop).encode();
            rustix::net::sendmsg(&a, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
            assert!(matches!(receive(&b), Err(ReceiveError::Descriptors)), "{n} descriptors");
        }
        // Other tests of this process open files too; only a leak of all of them would be far off.
        assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() < before + 50);
    }

    /// A socket that refuses descriptors gets none, and everything else as before; what a listener accepts does as it does.
    #[test]
    fn descriptors_are_refused_before_they_arrive() {
        let place = std::env::temp_dir().join(format!("kopi-passrights-{}", std::process::id()));
        let listener = new_socket(SocketFlags::CLOEXEC).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&place).unwrap()).unwrap();
        // Kernels before 6.16 cannot.
        if refuse_descriptors(&listener) {
            rustix::net::listen(&listener, 1).unwrap();
            let client = connect(&place).unwrap();
            let daemon = rustix::net::accept(&listener).unwrap();
            assert_eq!(send(&client, &envelope(Message::Done), &[client.as_fd()]), Err(Errno::PERM));
            send(&client, &envelope(Message::Stop), &[]).unwrap();
            assert_eq!(receive(&daemon).unwrap().0, envelope(Message::Stop));
            send(&daemon, &envelope(Message::Done), &[daemon.as_fd()]).unwrap();
            assert_eq!(receive(&client).unwrap().1.len(), 1, "the other way they are passed");
        }
        std::fs::remove_file(&place).unwrap();
    }

    /// Fault 2: too long, empty and closed are different errors.
    #[test]
    fn odd_packets_are_refused() {
        let (a, b) = pair();
        let no_flags = SendFlags::NOSIGNAL;
        let mut none = SendAncillaryBuffer::default();
        rustix::net::sendmsg(&a, &[IoSlice::new(&[0; MAX_MESSAGE + 1])], &mut none, no_flags).unwrap();
        assert!(matches!(receive(&b), Err(ReceiveError::Decode(DecodeError::Long))));
        rustix::net::sendmsg(&a, &[IoSlice::new(b"KO")], &mut none, no_flags).unwrap();
        assert!(matches!(receive(&b), Err(ReceiveError::Decode(DecodeError::Short))));
        drop(a);
        assert!(matches!(receive(&b), Err(ReceiveError::Closed)));
    }

    /// The groups are those of the process at the other end, here our own; a label there is only under a security module.
    #[test]
    fn groups_and_label_are_the_peers() {
        let (a, _b) = pair();
        let mine: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(peer_groups(&a), Some(mine));
        let mine = std::fs::read("/proc/self/attr/current").unwrap_or_default();
        let mine = mine.split(|byte| *byte == 0 || *byte == b'\n').next().unwrap_or_default();
        assert_eq!(peer_security(&a).unwrap_or_default(), mine);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!((peer_groups(&file), peer_security(&file)), (None, None));
    }

    /// The pidfd is that of the process at the other end, here our own.
    #[test]
    fn pidfd_is_the_peers() {
        let (a, _b) = pair();
        // Kernels before 6.5 have none.
        if let Some(pidfd) = peer_pidfd(&a) {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
            assert_eq!(pid, Some(std::process::id().to_string().as_str()));
        }
    }
}

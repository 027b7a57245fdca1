//! Lines over a Unix socket, of which each may bring a file descriptor (`SCM_RIGHTS`, unix(7)).
//!
//! Whether a call waits is up to the socket and to the flags: kopid passes `DONTWAIT`, so none of its threads waits for a peer.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use thiserror::Error;

/// Bytes read at a time.
const READ: usize = 16 << 10;

/// Sends what the socket takes of `bytes`, and `file` with the first of them. Returns how many bytes that were.
///
/// # Errors
///
/// [`Errno::AGAIN`] if nothing is taken now, with `DONTWAIT`, or within the socket's time limit; the kernel's, if the connection is
/// broken.
pub fn send(socket: impl AsFd, bytes: &[u8], file: Option<BorrowedFd<'_>>, flags: SendFlags) -> Result<usize, Errno> {
    let files = file.map(|file| [file]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // One fits.
    let _fits = files.as_ref().is_none_or(|files| control.push(SendAncillaryMessage::ScmRights(files)));
    // A peer that has gone is an error, not the end of the process.
    let flags = flags | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags))
}

/// Sends all of `bytes` over a socket that waits, and `file` with the first of them.
///
/// # Errors
///
/// As [`send`]. Some bytes may be sent by then.
pub fn send_all(socket: impl AsFd, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut sent = send(&socket, bytes, file, SendFlags::empty())?;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += send(&socket, rest, None, SendFlags::empty())?;
    }
    Ok(())
}

/// Why no more lines come.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TransportError {
    /// A line is longer than this number of bytes.
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
    /// The system's.
    #[error(transparent)]
    System(#[from] Errno),
}

/// What a peer sends, line by line.
#[derive(Debug)]
pub struct Lines {
    max: usize,
    input: Vec<u8>,
    /// Bytes of `input` in which there is no end of a line.
    searched: usize,
    /// Descriptors that came with `input`: one for a line at most, with the offset of its last byte so far.
    files: Vec<(usize, OwnedFd)>,
}

impl Lines {
    /// Nothing yet. Lines of more than `max` bytes are refused, so that a peer cannot fill the memory.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, input: Vec::new(), searched: 0, files: Vec::new() }
    }

    /// Receives some bytes and returns how many: 0 at the end of the connection. To be called when there is no [line](Self::take).
    ///
    /// # Errors
    ///
    /// [`TransportError::TooLong`] if a line does not end; [`Errno::AGAIN`] if nothing is there, with `DONTWAIT`, or comes within the
    /// socket's time limit; the kernel's, if the connection is broken.
    pub fn receive(&mut self, socket: impl AsFd, flags: RecvFlags) -> Result<usize, TransportError> {
        let mut bytes = [0_u8; READ];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let got = retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
        self.input.extend_from_slice(bytes.get(..got.bytes).unwrap_or_default());
        // The kernel closes those that find no room, and the rest is closed here.
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                files.for_each(|file| self.keep(file));
            }
        }
        if self.input.len() > self.max && self.end().is_none() {
            return Err(TransportError::TooLong(self.max));
        }
        Ok(got.bytes)
    }

    /// The next line without its end, and the descriptor that came with it, if it is complete.
    pub fn take(&mut self) -> Option<(Vec<u8>, Option<OwnedFd>)> {
        let end = self.end()?;
        let of_this = self.files.partition_point(|(at, _)| *at <= end);
        let file = self.files.drain(..of_this).next().map(|(_, file)| file);
        for (at, _) in &mut self.files {
            *at -= end + 1;
        }
        let rest = self.input.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.input, rest);
        line.truncate(end);
        self.searched = 0;
        Some((line, file))
    }

    /// Whether nothing has come that was not taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// Where the next line ends, if it does.
    fn end(&mut self) -> Option<usize> {
        let end = self.input.get(self.searched..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
        let end = end.map(|end| end + self.searched);
        self.searched = end.unwrap_or(self.input.len());
        end
    }

    /// Keeps a descriptor that came with the last bytes of the input, if it is the first of its line.
    ///
    /// The kernel ends what one call reads with the data that a descriptor was sent with. So the descriptor belongs to the line that
    /// the last byte is of, unless its sender has put several lines into one message.
    fn keep(&mut self, file: OwnedFd) {
        let last = self.input.len().saturating_sub(1);
        let is_first =
            self.files.last().is_none_or(|(at, _)| self.input.get(*at..last).unwrap_or_default().contains(&b'\n'));
        if is_first {
            self.files.push((last, file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// Sends `text` and, with its first byte, `files`.
    fn send_with(peer: &UnixStream, text: &str, files: &[&UnixStream]) {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(peer, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    fn receive(lines: &mut Lines, socket: &UnixStream) -> Result<usize, TransportError> {
        lines.receive(socket, RecvFlags::DONTWAIT)
    }

    /// The next line, and what the descriptor that came with it leads to.
    fn next(lines: &mut Lines, socket: &UnixStream) -> (String, Option<u64>) {
        loop {
            match lines.take() {
                Some((line, file)) => return (String::from_utf8(line).unwrap(), file.map(inode)),
                None => assert_ne!(receive(lines, socket).unwrap(), 0),
            }
        }
    }

    fn inode(file: impl AsFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    /// Whether every copy of the other end is closed.
    fn is_over(end: &UnixStream) -> bool {
        matches!(rustix::net::recv(end, &mut [0; 1][..], RecvFlags::DONTWAIT), Ok((0, _)))
    }

    /// A descriptor goes with the line that it was sent with, however lines are cut into messages.
    #[test]
    fn descriptors_go_with_their_lines() {
        let (socket, peer) = UnixStream::pair().unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        send_with(&peer, "plain\n", &[]);
        send_with(&peer, "one\nt", &[&a]);
        send_with(&peer, "wo\n", &[&b]);
        send_with(&peer, "three\n", &[&b]);
        send_with(&peer, "four\n", &[]);
        send_with(&peer, "fi", &[]);
        send_with(&peer, "ve\n", &[&a]);
        let mut lines = Lines::new(100);
        let got = [(); 6].map(|()| next(&mut lines, &socket));
        let (a, b) = (Some(inode(&a)), Some(inode(&b)));
        // The second message ends within the line `two`, so its descriptor is that one's.
        let expected = [("plain", None), ("one", None), ("two", a), ("three", b), ("four", None), ("five", a)];
        assert_eq!(got, expected.map(|(line, file)| (line.to_owned(), file)));
        assert!(lines.is_empty() && lines.take().is_none());
    }

    /// Fault 3 and 9: of any number of descriptors one is kept for a line, and none after it.
    #[test]
    fn surplus_descriptors_are_closed() {
        let (socket, peer) = UnixStream::pair().unwrap();
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(1000);
        let many = [&theirs; 250];
        send_with(&peer, "c", &many);
        for _ in 0..100 {
            send_with(&peer, " ", &many[..2]);
            receive(&mut lines, &socket).unwrap();
        }
        assert_eq!(lines.files.len(), 1);
        send_with(&peer, "c\nd\n", &[]);
        let (first, second) = (next(&mut lines, &socket), next(&mut lines, &socket));
        assert_eq!((first.1, second), (Some(inode(&theirs)), ("d".into(), None)));
        drop(theirs);
        assert!(is_over(&ours));
    }

    /// Fault 9: a line that never ends takes no more memory than the longest.
    #[test]
    fn input_is_bounded() {
        const MAX: usize = 64 << 10;
        let (socket, peer) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(MAX);
        let outcome = (0..1000).find_map(|_| {
            send_with(&peer, &"x".repeat(1000), &[]);
            receive(&mut lines, &socket).err()
        });
        assert_eq!(outcome, Some(TransportError::TooLong(MAX)));
        assert!(lines.input.capacity() <= 2 * (MAX + READ));
    }

    /// What is sent arrives with its descriptor, in as many pieces as the socket takes it in; who does not wait is told.
    #[test]
    fn long_lines_arrive_whole() {
        let (socket, peer) = UnixStream::pair().unwrap();
        let (file, _other) = UnixStream::pair().unwrap();
        let text = "x".repeat(1 << 20);
        let line = format!("{text}\n");
        let sent = {
            let (peer, file) = (peer.try_clone().unwrap(), file.try_clone().unwrap());
            std::thread::spawn(move || send_all(&peer, line.as_bytes(), Some(file.as_fd())))
        };
        let mut lines = Lines::new(2 << 20);
        while lines.take().is_none_or(|(line, got)| {
            assert_eq!((line.len(), got.map(inode)), (text.len(), Some(inode(&file))));
            false
        }) {
            lines.receive(&socket, RecvFlags::empty()).unwrap();
        }
        sent.join().unwrap().unwrap();
        let refused = std::iter::repeat_with(|| send(&peer, text.as_bytes(), None, SendFlags::DONTWAIT));
        assert_eq!(refused.take(1000).find_map(Result::err), Some(Errno::AGAIN));
        assert_eq!(receive(&mut Lines::new(10), &peer), Err(TransportError::System(Errno::AGAIN)));
        drop(socket);
        assert_eq!(send_all(&peer, b"x", None), Err(Errno::PIPE));
    }
}

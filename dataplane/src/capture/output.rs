//! Where a session writes to: the file, pipe or socket that its client has brought.
//!
//! A file gets whole blocks or none: when the disk is full, what does not fit is given up, and room that was kept aside takes
//! the statistics at the end. A pipe or socket takes what its reader has room for, and the rest waits.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// Bytes kept aside on the disk for the statistics at the end.
const RESERVE: u64 = 64 << 10;
/// With so many bytes free on the disk nothing is kept aside: to give it back may take a busy file system seconds.
const PLENTY: u64 = 256 << 20;
/// What a pipe takes at once without waiting, when it says that it takes something: its pages (pipe(7), `PIPE_BUF`).
const PIPE_BUF: usize = 4096;
/// What a pipe should hold, if the kernel lets us have that much.
const PIPE_SIZE: usize = 1 << 20;

/// What became of bytes that were to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of them are written.
    Written,
    /// So many are; the reader has no room for more now.
    Partly(usize),
    /// None of them is: the disk is full.
    Full,
}

/// Why nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody reads any more.
    Reader,
    /// The system refuses.
    System(Errno),
}

/// An open file, pipe or socket.
#[derive(Debug)]
pub struct Output {
    file: OwnedFd,
    kind: Kind,
    written: u64,
    /// Whether room behind the file's end was kept aside.
    reserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A regular file, written from `start` on. `reserves` until the file system says that it cannot.
    File { start: u64, reserves: bool },
    /// A pipe, a terminal or another device.
    Stream,
    /// A socket.
    Socket,
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Output {
    /// Writes to `file` from where it stands.
    ///
    /// # Errors
    ///
    /// A text for people: it is not open for writing, or of a kind that cannot be written to.
    pub fn new(file: OwnedFd) -> Result<Self, String> {
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|errno| errno.to_string())?;
        if flags.contains(OFlags::PATH) || !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err("the file is not open for writing".into());
        }
        let stat = rustix::fs::fstat(&file).map_err(|errno| errno.to_string())?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let whence = if flags.contains(OFlags::APPEND) { SeekFrom::End(0) } else { SeekFrom::Current(0) };
                let start = rustix::fs::seek(&file, whence).map_err(|errno| errno.to_string())?;
                Kind::File { start, reserves: true }
            }
            FileType::Fifo => {
                if let Err(errno) = rustix::pipe::fcntl_setpipe_size(&file, PIPE_SIZE) {
                    log::debug!("the pipe of a capture stays as large as it is: {errno}");
                }
                Kind::Stream
            }
            FileType::CharacterDevice => Kind::Stream,
            FileType::Socket => Kind::Socket,
            _ => return Err("the file is neither a regular file nor a pipe, a socket or a device".into()),
        };
        Ok(Self { file, kind, written: 0, reserved: false })
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether what cannot be written now is given up, not kept: so it is for files.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }

    /// Writes `bytes`, which are whole blocks for a file, or as much as the reader has room for. Never waits for a reader.
    ///
    /// # Errors
    ///
    /// [`Broken`], and nothing more can be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Progress, Broken> {
        match self.kind {
            Kind::File { start, reserves } => {
                if reserves && !self.reserve(start + self.written, bytes.len() as u64)? {
                    return Ok(Progress::Full);
                }
                self.write_file(start + self.written, bytes)
            }
            Kind::Stream | Kind::Socket => self.write_stream(bytes),
        }
    }

    /// Writes `bytes` into the room that was kept aside. Best effort, at the end of a file.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_last(&mut self, bytes: &[u8]) -> Result<Progress, Broken> {
        match self.kind {
            Kind::File { start, .. } => {
                let outcome = self.write_file(start + self.written, bytes);
                // Gives back what was kept aside and not needed.
                if self.reserved
                    && let Err(errno) = rustix::fs::ftruncate(&self.file, start + self.written)
                {
                    log::debug!("the room behind a capture's file stays taken: {errno}");
                }
                outcome
            }
            Kind::Stream | Kind::Socket => self.write_stream(bytes),
        }
    }

    /// Whether the disk has room for `more` bytes at `at`, and for the statistics behind them.
    fn reserve(&mut self, at: u64, more: u64) -> Result<bool, Broken> {
        if rustix::fs::fstatvfs(&self.file).is_ok_and(|disk| disk.f_bavail * disk.f_frsize >= more + PLENTY) {
            return Ok(true);
        }
        self.reserved = true;
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, at, more + RESERVE) {
            Ok(()) => Ok(true),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Ok(false),
            // Not every file system can: then the last bytes that do fit have to make room.
            Err(_) => {
                if let Kind::File { reserves, .. } = &mut self.kind {
                    *reserves = false;
                }
                Ok(true)
            }
        }
    }

    fn write_file(&mut self, at: u64, bytes: &[u8]) -> Result<Progress, Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
                    self.take_back(at)?;
                    return Ok(Progress::Full);
                }
                Err(errno) => return Err(Broken::System(errno)),
            }
        }
        self.written += bytes.len() as u64;
        Ok(Progress::Written)
    }

    /// Takes back what was written behind `at`, so that the file ends with a whole block.
    fn take_back(&self, at: u64) -> Result<(), Broken> {
        rustix::fs::ftruncate(&self.file, at).map_err(Broken::System)?;
        rustix::fs::seek(&self.file, SeekFrom::Start(at)).map(|_| ()).map_err(Broken::System)
    }

    fn write_stream(&mut self, bytes: &[u8]) -> Result<Progress, Broken> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let outcome = if self.kind == Kind::Socket {
                rustix::net::send(&self.file, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            } else if self.has_room() {
                rustix::io::write(&self.file, rest.get(..PIPE_BUF).unwrap_or(rest))
            } else {
                Err(Errno::AGAIN)
            };
            match outcome {
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Broken::Reader),
                Err(errno) => return Err(Broken::System(errno)),
            }
        }
        self.written += done as u64;
        Ok(if done == bytes.len() { Progress::Written } else { Progress::Partly(done) })
    }

    /// Whether a pipe takes a page, or says that it is broken. Its flags are its client's too, so it is asked instead of
    /// being made non-blocking.
    fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&none)).is_ok_and(|ready| ready > 0)
    }

    /// Whether the reader is gone. Always false for a file.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.is_file()
            && poll(&mut fds, Some(&none)).is_ok_and(|ready| ready > 0)
            && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A pipe takes what it has room for without anybody waiting, goes on where it stopped, and says when nobody reads.
    #[test]
    fn pipes_never_keep_the_writer_waiting() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut output = Output::new(writer).unwrap();
        let bytes: Vec<u8> = (0..4 << 20).map(|n: u32| u8::try_from(n % 251).unwrap()).collect();
        let Progress::Partly(done) = output.write(&bytes).unwrap() else { panic!("a pipe of 4 MiB") };
        assert!(done > 0 && output.written() == done as u64);
        assert_eq!(output.write(&bytes[done..]), Ok(Progress::Partly(0)));
        assert!(!output.is_abandoned());
        let mut reader = std::fs::File::from(reader);
        let mut read = vec![0; done];
        reader.read_exact(&mut read).unwrap();
        assert!(read == bytes[..done]);
        assert!(matches!(output.write(&bytes[done..done + 10]), Ok(Progress::Written)));
        drop(reader);
        assert!(output.is_abandoned());
        assert_eq!(output.write(&bytes), Err(Broken::Reader));
    }

    /// A file that can only be read, a folder and a path without access are refused.
    #[test]
    fn what_cannot_be_written_is_refused() {
        let open = |path: &str, flags| rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        assert!(Output::new(open("/dev/null", OFlags::RDONLY)).is_err());
        assert!(Output::new(open("/", OFlags::RDONLY)).is_err());
        assert!(Output::new(open("/dev/null", OFlags::PATH)).is_err());
        assert!(Output::new(open("/dev/null", OFlags::WRONLY)).is_ok());
    }

    /// What was in a file before stays, and what comes is put behind it; nothing of the room kept aside is left.
    #[test]
    fn files_grow_from_where_they_stand() {
        let path = std::env::temp_dir().join(format!("kopi-output-{}", std::process::id()));
        std::fs::write(&path, b"before").unwrap();
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut output = Output::new(file.into()).unwrap();
        assert_eq!(output.write(b" and"), Ok(Progress::Written));
        assert_eq!(output.write_last(b" after"), Ok(Progress::Written));
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, b"before and after");
    }
}

//! One operator's connection, and the thread that serves it and nobody else.
//!
//! What the operator holds is touched here alone: its socket, the files that it sends along, the policy that it names, the name
//! service that a policy or a capture asks. Whatever of it takes long, or never ends, holds up this operator. The control thread gets
//! a [`Question`] in memory, and gives an [`Answer`] in memory.

use super::{Answer, Asked, Brought, Desk, News, Part, Question, Request, Rows, Shared, read};
use crate::capture::Place;
use crate::capture::output::Output;
use crate::capture::request::Request as Capture;
use crate::operator::Operator;
use crate::reload::Wanted;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use serde_json::{Map, Value, json};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Longest request in bytes.
pub(super) const REQUEST: usize = 64 << 10;
/// Bytes read at a time.
pub(super) const READ: usize = 16 << 10;
/// How long an operator may take to read the next piece of a reply; and of a long one, whose reader may be somebody at a pager. Then it
/// has no more of kopid's than a part of the answer, and leaves when others need its place.
const PATIENCE: Duration = Duration::from_secs(10);
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// What is wrong with a capture without one.
const NO_FILE: &str = "`capture` comes with a file to write to";

/// What the thread has.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    pub(super) input: Vec<u8>,
    /// Descriptors that came with `input`: one for a request at most, with the offset of its last byte so far.
    pub(super) files: Vec<(usize, OwnedFd)>,
}

/// What becomes of a request.
#[derive(Debug)]
enum Made {
    /// This is the reply.
    Reply(Value),
    /// The list of this name begins with this.
    List(String, Part),
    /// The connection is that of a capture from now on.
    Capture(Box<Place>, Output),
}

/// What becomes of a connection after a request.
#[derive(Debug)]
enum Next {
    /// There may be more.
    Request,
    /// It is that of a capture from now on.
    Capture(Box<Place>, Output),
}

impl Connection {
    pub(super) const fn new(socket: OwnedFd, shared: Arc<Shared>, desk: Arc<Desk>) -> Self {
        Self { socket, shared, desk, input: Vec::new(), files: Vec::new() }
    }

    /// Serves it to its end. An empty error is an end like others.
    pub(super) fn run(mut self) {
        loop {
            match self.serve() {
                Ok(Next::Request) => {}
                Ok(Next::Capture(place, output)) => {
                    self.shared.capture();
                    return place.run(output, self.socket);
                }
                Err(reason) => {
                    if !reason.is_empty() {
                        self.desk.tell(News::Closed(reason));
                    }
                    return;
                }
            }
        }
    }

    /// Answers one request.
    fn serve(&mut self) -> Result<Next, String> {
        while !self.has_request() {
            self.wait(PollFlags::IN, None)?;
            self.read()?;
        }
        self.shared.heard();
        let (line, file) = self.take();
        let reply = match read(&line) {
            Ok(request) => match self.answer(request, file)? {
                Made::Reply(reply) => reply,
                Made::List(name, part) => {
                    self.list(name, part)?;
                    self.shared.rest();
                    return Ok(Next::Request);
                }
                Made::Capture(place, output) => return Ok(Next::Capture(place, output)),
            },
            Err(error) => json!({ "error": error }),
        };
        let text = format!("{reply}\n").into_bytes();
        // It is several times as large, and an operator may take its time to read.
        drop(reply);
        self.shared.rest();
        self.write(&text, PATIENCE)?;
        Ok(Next::Request)
    }

    /// Sends a list, part by part: of its text there is no more at a time.
    fn list(&self, name: String, first: Part) -> Result<(), String> {
        // Parts of other lists hold the rules that they are of, and who reads slowly must not keep old ones.
        let ahead = name == "flows";
        let mut rows = Rows::new(name);
        let mut part = first;
        let error = loop {
            let next = match part.make(&mut rows) {
                Ok(Some(next)) => next,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            let ask = || self.ask(String::new(), Map::new(), Brought::Next(next));
            let answer = if ahead {
                // It is made ready while the operator reads this one.
                let answer = ask();
                self.write_long(&rows.take_some())?;
                answer
            } else {
                self.write_long(&rows.take_some())?;
                ask()
            };
            part = match answer.recv().map_err(|_| String::new())? {
                Answer::Part(part) => part,
                Answer::Reply(reply) => break reply["error"].as_str().map(str::to_owned),
                other => break Some(format!("{other:?} is no part of a list")),
            };
        };
        self.write_long(&rows.end(error))
    }

    /// Sends a part of a long answer. Meanwhile the connection waits for its operator.
    fn write_long(&self, text: &[u8]) -> Result<(), String> {
        self.shared.rest();
        self.write(text, LONG_PATIENCE)?;
        self.shared.heard();
        Ok(())
    }

    /// What becomes of a request. Fails if kopid ends.
    fn answer(&self, request: Request, file: Option<OwnedFd>) -> Result<Made, String> {
        let refused = |error: String| Ok(Made::Reply(json!({ "error": error })));
        let Request { command, arguments } = request;
        let (brought, output) = match command.as_str() {
            "reload" => match Wanted::read(&arguments, file, self.desk.source()) {
                Ok(wanted) => (
                    Brought::Policy(
                        Box::new(wanted),
                        Operator::of_peer(&self.socket).map_or_else(|| "somebody".to_owned(), |of| of.name()),
                    ),
                    None,
                ),
                Err(error) => return refused(error),
            },
            "capture" => {
                let output = file.ok_or_else(|| NO_FILE.to_owned()).and_then(Output::new);
                match output.and_then(|output| Ok((Capture::read(&arguments)?, output))) {
                    Ok((request, output)) => (Brought::Capture(Arc::new(request)), Some(output)),
                    Err(error) => return refused(error),
                }
            }
            _ => {
                // What is of no use here is closed here.
                drop(file);
                (Brought::Nothing, None)
            }
        };
        if self.is_abandoned() {
            // Whoever has given up does not want a policy to come into force after all.
            return Err(String::new());
        }
        let answer = self.ask(command.clone(), arguments, brought);
        match (answer.recv().map_err(|_| String::new())?, output) {
            (Answer::Reply(reply) | Answer::InForce(_, reply), _) => Ok(Made::Reply(reply)),
            (Answer::Part(part), _) => Ok(Made::List(command, part)),
            (Answer::Place(place), Some(output)) => Ok(Made::Capture(place, output)),
            (Answer::Place(_), None) => refused(NO_FILE.to_owned()),
        }
    }

    /// Asks the control thread.
    fn ask(&self, command: String, arguments: Map<String, Value>, brought: Brought) -> Receiver<Answer> {
        let (to, answer) = sync_channel(1);
        let question = Question { command, arguments, account: self.shared.account(), brought };
        self.desk.tell(News::Asked(Asked { question, answer: to }));
        answer
    }

    /// Waits until the socket is ready. An error ends the connection: it was told to leave, or takes too long.
    fn wait(&self, wants: PollFlags, patience: Option<Duration>) -> Result<(), String> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        loop {
            let mut fds = [PollFd::new(&self.socket, wants), PollFd::new(self.shared.leave(), PollFlags::IN)];
            match poll(&mut fds, patience.as_ref()) {
                Ok(0) => return Err("does not read its answer".to_owned()),
                Ok(_) if !fds[1].revents().is_empty() => return Err(String::new()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.to_string()),
            }
        }
    }

    /// Whether the other end is closed.
    fn is_abandoned(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Whether a complete request waits to be answered.
    fn has_request(&self) -> bool {
        self.input.contains(&b'\n')
    }

    /// Reads a bounded amount. The error is empty at the end of the connection.
    pub(super) fn read(&mut self) -> Result<(), String> {
        let mut bytes = [0_u8; READ];
        match receive(&self.socket, &mut bytes) {
            Ok((0, _)) => Err(String::new()),
            Ok((n, file)) => {
                self.input.extend_from_slice(bytes.get(..n).unwrap_or_default());
                self.keep(file);
                if self.input.len() > REQUEST && !self.has_request() {
                    return Err(format!("a request of more than {REQUEST} bytes"));
                }
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::CONNRESET | Errno::PIPE) => Err(String::new()),
            Err(errno) => Err(errno.to_string()),
        }
    }

    /// Keeps a descriptor that came with the last bytes of the input, if it is the first of its request.
    ///
    /// The kernel ends what one call reads with the data that a descriptor was sent with. So the descriptor belongs to
    /// the request that the last byte is of, unless its sender has put several requests into one message.
    fn keep(&mut self, file: Option<OwnedFd>) {
        let Some(file) = file else { return };
        let last = self.input.len().saturating_sub(1);
        let is_first =
            self.files.last().is_none_or(|(at, _)| self.input.get(*at..last).unwrap_or_default().contains(&b'\n'));
        if is_first {
            self.files.push((last, file));
        }
    }

    /// Takes one complete line out of the input, and the descriptor that came with it.
    fn take(&mut self) -> (Vec<u8>, Option<OwnedFd>) {
        let end = self.input.iter().position(|byte| *byte == b'\n').unwrap_or_default();
        let of_this = self.files.partition_point(|(at, _)| *at <= end);
        let file = self.files.drain(..of_this).next().map(|(_, file)| file);
        for (at, _) in &mut self.files {
            *at -= end + 1;
        }
        (self.input.drain(..=end).collect(), file)
    }

    fn write(&self, reply: &[u8], patience: Duration) -> Result<(), String> {
        let mut rest = reply;
        while !rest.is_empty() {
            match rustix::net::send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, Some(patience))?,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(String::new()),
                Err(errno) => return Err(errno.to_string()),
            }
        }
        Ok(())
    }
}

/// Reads what is there, and the first descriptor that came with it. The kernel closes those that find no room, and the
/// rest is closed here.
pub(crate) fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut file = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            for other in files {
                file.get_or_insert(other);
            }
        }
    }
    Ok((got.bytes, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::Wake;
    use crate::reload::Source;
    use rustix::fd::{AsFd, AsRawFd};
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType, socketpair};
    use std::io::IoSlice;
    use std::os::unix::net::UnixStream;

    /// A connection without a thread, and its operator's end.
    fn connected() -> (Connection, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let desk = Arc::new(Desk::new(Wake::new().unwrap(), Arc::new(Source::new(None))).0);
        let shared = Arc::new(Shared::new(1, &desk).unwrap());
        (Connection::new(ours, shared, desk), theirs)
    }

    /// Sends `text` and, with its first byte, `files`.
    fn send(operator: &OwnedFd, text: &str, files: &[&UnixStream]) {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files)));
        let text = [IoSlice::new(text.as_bytes())];
        rustix::net::sendmsg(operator, &text, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    /// The next request, read as the thread does, and what the descriptor that came with it leads to.
    fn next(connection: &mut Connection) -> (String, Option<u64>) {
        while !connection.has_request() {
            connection.read().unwrap();
        }
        let (line, file) = connection.take();
        (read(&line).unwrap().command, file.map(inode))
    }

    fn inode(file: impl AsFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    /// Whether every copy of the other end is closed.
    fn is_over(end: &UnixStream) -> bool {
        matches!(rustix::net::recv(end, &mut [0; 1][..], RecvFlags::DONTWAIT), Ok((0, _)))
    }

    /// A descriptor goes with the request that it was sent with, however the requests are cut into messages.
    #[test]
    fn descriptors_go_with_their_requests() {
        let (mut connection, operator) = connected();
        let (a, b) = UnixStream::pair().unwrap();
        send(&operator, "{\"command\": \"plain\"}\n", &[]);
        send(&operator, "{\"command\": \"one\"}\n{\"comm", &[&a]);
        send(&operator, "and\": \"two\"}\n", &[&b]);
        send(&operator, "{\"command\": \"three\"}\n", &[&b]);
        send(&operator, "{\"command\": \"four\"}\n", &[]);
        send(&operator, "{\"comm", &[]);
        send(&operator, "and\": \"five\"}\n", &[&a]);
        let files = [(); 6].map(|()| next(&mut connection).1);
        let (a, b) = (Some(inode(&a)), Some(inode(&b)));
        // The second message ends within the second request, so its descriptor is that one's.
        assert_eq!(files, [None, None, a, b, None, a]);
    }

    /// Fault 3 and 9: of any number of descriptors one is kept for a request, and none after it.
    #[test]
    fn surplus_descriptors_are_closed() {
        let (mut connection, operator) = connected();
        let (theirs, ours) = UnixStream::pair().unwrap();
        let many = [&theirs; 250];
        send(&operator, "{\"command\":", &many);
        for _ in 0..100 {
            send(&operator, " ", &many[..2]);
            connection.read().unwrap();
        }
        assert_eq!(connection.files.len(), 1);
        assert_ne!(connection.files[0].1.as_raw_fd(), theirs.as_raw_fd());
        send(&operator, "\"c\"}\n{\"command\": \"d\"}\n", &[]);
        assert_eq!([(); 2].map(|()| next(&mut connection)), [("c".into(), Some(inode(&theirs))), ("d".into(), None)]);
        drop(theirs);
        assert!(is_over(&ours));
    }

    /// An operator that goes takes its descriptors along.
    #[test]
    fn descriptors_go_with_their_operator() {
        let (mut connection, operator) = connected();
        let (theirs, ours) = UnixStream::pair().unwrap();
        send(&operator, "{\"command\":", &[&theirs]);
        connection.read().unwrap();
        drop((operator, theirs));
        assert!(!is_over(&ours));
        connection.run();
        assert!(is_over(&ours));
    }

    /// Fault 9: a request that never ends takes no more memory than the longest.
    #[test]
    fn input_is_bounded() {
        let (mut connection, operator) = connected();
        let outcome = (0..1000).find_map(|_| {
            send(&operator, &"x".repeat(1000), &[]);
            connection.read().err()
        });
        assert_eq!(outcome, Some(format!("a request of more than {REQUEST} bytes")));
        assert!(connection.input.capacity() <= 2 * (REQUEST + READ));
    }

    /// An operator that is told to leave does, also while it does not read its answer.
    #[test]
    fn who_is_told_to_leave_does() {
        let (connection, _operator) = connected();
        connection.shared.leave().wake();
        assert_eq!(connection.write(&vec![b'x'; 10 << 20], PATIENCE), Err(String::new()));
    }
}

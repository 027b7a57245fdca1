//! One operator's connection, and the thread that serves it and nobody else.
//!
//! What the operator holds is touched here alone: its socket, the files that it sends along, the policy that it names, the name
//! service that a policy or a capture asks. Whatever of it takes long, or never ends, holds up this operator. The control thread gets
//! a [`Question`] in memory, and gives an [`Answer`] in memory.

use super::{Answer, Asked, Brought, Inbox, Message, Part, Question, Rows, Shared};
use crate::capture::PendingCapture;
use crate::capture::output::Output;
use crate::capture::request::Request as Capture;
use crate::control::logging;
use crate::control::operator::Operator;
use crate::control::reload::Wanted;
use kopi_api::request::{SetLog, arguments};
use kopi_api::transport::{Lines, TransportError, send};
use kopi_api::{Log, Request, refusal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Longest request in bytes.
const REQUEST: usize = 64 << 10;
/// Timeout for an operator to read the next piece of a reply; and of a long one, whose reader may be somebody at a pager. Then it
/// has no more of kopid's than a part of the answer, and leaves when others need its place.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const LONG_WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// What is wrong with a capture without one.
const NO_FILE: &str = "`capture` comes with a file to write to";

/// What the thread has.
#[derive(Debug)]
pub(super) struct OperatorConnection {
    socket: OwnedFd,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    lines: Lines,
}

/// What becomes of a request.
#[derive(Debug)]
enum Made {
    /// This line is the reply.
    Reply(String),
    /// The list of this name begins with this.
    List(String, Part),
    /// The connection is that of a capture from now on.
    Capture(Box<PendingCapture>, Output),
}

impl OperatorConnection {
    pub(super) const fn new(socket: OwnedFd, shared: Arc<Shared>, inbox: Arc<Inbox>) -> Self {
        Self { socket, shared, inbox, lines: Lines::new(REQUEST) }
    }

    /// Serves it to its end. An empty error is an end like others.
    pub(super) fn run(mut self) {
        loop {
            match self.serve() {
                Ok(None) => {}
                Ok(Some((capture, output))) => {
                    self.shared.capture();
                    return capture.run(output, self.socket);
                }
                Err(reason) => {
                    if !reason.is_empty() {
                        self.inbox.messages.send(Message::Closed(reason));
                    }
                    return;
                }
            }
        }
    }

    /// Answers one request, unless it makes the connection that of a capture.
    fn serve(&mut self) -> Result<Option<(Box<PendingCapture>, Output)>, String> {
        let (line, file) = loop {
            match self.lines.take() {
                Some(request) => break request,
                None => self.read()?,
            }
        };
        self.shared.begin_request();
        let made = match Request::read(&line) {
            Ok(request) => self.answer(request, file)?,
            Err(error) => Made::Reply(refusal(&error)),
        };
        let reply = match made {
            Made::Reply(reply) => reply,
            Made::List(name, part) => {
                self.list(name, part)?;
                self.shared.end_request();
                return Ok(None);
            }
            Made::Capture(capture, output) => return Ok(Some((capture, output))),
        };
        self.shared.end_request();
        self.write(reply.as_bytes(), WRITE_TIMEOUT)?;
        Ok(None)
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
                Answer::Refused(error) => break Some(error),
                other => break Some(format!("{other:?} is no part of a list")),
            };
        };
        self.write_long(&rows.end(error))
    }

    /// Sends a part of a long answer. Meanwhile the connection waits for its operator.
    fn write_long(&self, text: &[u8]) -> Result<(), String> {
        self.shared.end_request();
        self.write(text, LONG_WRITE_TIMEOUT)?;
        self.shared.begin_request();
        Ok(())
    }

    /// What becomes of a request. Fails if kopid ends.
    fn answer(&self, request: Request, file: Option<OwnedFd>) -> Result<Made, String> {
        let refused = |error: String| Ok(Made::Reply(refusal(&error)));
        let Request { command, arguments } = request;
        let (brought, output) = match command.as_str() {
            "reload" => match Wanted::read(&arguments, file, &self.inbox.source) {
                Ok(wanted) => (Brought::Policy(Box::new(wanted), self.operator()), None),
                Err(error) => return refused(error),
            },
            "capture" => {
                let output = file.ok_or_else(|| NO_FILE.to_owned()).and_then(Output::new);
                match output.and_then(|output| Ok((Capture::read(&arguments)?, output))) {
                    Ok((request, output)) => (Brought::Capture(Arc::new(request)), Some(output)),
                    Err(error) => return refused(error),
                }
            }
            "log" => return Ok(Made::Reply(self.log(&arguments).unwrap_or_else(|error| refusal(&error)))),
            _ => {
                // What is of no use here is closed here.
                drop(file);
                (Brought::Nothing, None)
            }
        };
        if self.is_abandoned() {
            // An operator that has given up does not want its policy to come into force.
            return Err(String::new());
        }
        let answer = self.ask(command.clone(), arguments, brought);
        match (answer.recv().map_err(|_| String::new())?, output) {
            (Answer::Reply(reply) | Answer::InForce(_, reply), _) => Ok(Made::Reply(reply)),
            (Answer::Refused(error), _) => refused(error),
            (Answer::Part(part), _) => Ok(Made::List(command, part)),
            (Answer::Capture(capture), Some(output)) => Ok(Made::Capture(capture, output)),
            (Answer::Capture(_), None) => refused(NO_FILE.to_owned()),
        }
    }

    /// Whoever asks, for the log.
    fn operator(&self) -> String {
        Operator::of_peer(&self.socket).map_or_else(|| "somebody".to_owned(), |of| of.name())
    }

    /// Tells the log's level, after a change if one is asked for. It belongs to no thread, so the control thread has nothing to do
    /// with it.
    fn log(&self, given: &Map<String, Value>) -> Result<String, String> {
        let wanted: SetLog = arguments("log", given)?;
        if let Some(level) = wanted.level.and_then(|level| level.as_str().parse().ok()) {
            logging::set_level(level, &self.operator());
        }
        let (level, configured) = logging::levels();
        let word = |level: log::LevelFilter| level.as_str().to_lowercase();
        Ok(kopi_api::answer("log", &[Log { level: word(level), configured: word(configured) }]))
    }

    /// Asks the control thread.
    fn ask(&self, command: String, arguments: Map<String, Value>, brought: Brought) -> Receiver<Answer> {
        let (to, answer) = sync_channel(1);
        let question = Question { command, arguments, account: self.shared.account, brought };
        self.inbox.messages.send(Message::Asked(Asked { question, answer: to }));
        answer
    }

    /// Waits until the socket is ready. An error ends the connection: it was told to leave, or takes too long.
    fn wait(&self, wants: PollFlags, timeout: Option<Duration>) -> Result<(), String> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            let mut fds = [PollFd::new(&self.socket, wants), PollFd::new(&self.shared.leave, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
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

    /// Waits for some of a request. The error is empty at the end of the connection.
    fn read(&mut self) -> Result<(), String> {
        self.wait(PollFlags::IN, None)?;
        match self.lines.receive(&self.socket, RecvFlags::DONTWAIT) {
            Ok(0) | Err(TransportError::System(Errno::CONNRESET | Errno::PIPE)) => Err(String::new()),
            Ok(_) | Err(TransportError::System(Errno::AGAIN)) => Ok(()),
            Err(TransportError::TooLong(_)) => Err(format!("a request of more than {REQUEST} bytes")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn write(&self, reply: &[u8], timeout: Duration) -> Result<(), String> {
        let mut rest = reply;
        while !rest.is_empty() {
            match send(&self.socket, rest, None, SendFlags::DONTWAIT) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, Some(timeout))?,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(String::new()),
                Err(errno) => return Err(errno.to_string()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::reload::PolicySource;
    use rustix::fd::AsFd;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::unix::net::UnixStream;

    /// A connection without a thread, and its operator's end.
    fn connected() -> (OperatorConnection, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let inbox = Arc::new(Inbox::new(Arc::new(PolicySource::new(None))).unwrap().0);
        let shared = Arc::new(Shared::new(1, &inbox).unwrap());
        (OperatorConnection::new(ours, shared, inbox), theirs)
    }

    /// Whether every copy of the other end is closed.
    fn is_over(end: &UnixStream) -> bool {
        matches!(rustix::net::recv(end, &mut [0; 1][..], RecvFlags::DONTWAIT), Ok((0, _)))
    }

    /// An operator that goes takes its descriptors along.
    #[test]
    fn descriptors_go_with_their_operator() {
        let (mut connection, operator) = connected();
        let (theirs, ours) = UnixStream::pair().unwrap();
        send(&operator, b"{\"command\":", Some(theirs.as_fd()), SendFlags::empty()).unwrap();
        connection.read().unwrap();
        drop((operator, theirs));
        assert!(!is_over(&ours));
        connection.run();
        assert!(is_over(&ours));
    }

    /// Fault 9: a request that never ends ends the connection.
    #[test]
    fn input_is_bounded() {
        let (mut connection, operator) = connected();
        let outcome = (0..1000).find_map(|_| {
            send(&operator, &[b'x'; 1000], None, SendFlags::empty()).unwrap();
            connection.read().err()
        });
        assert_eq!(outcome, Some(format!("a request of more than {REQUEST} bytes")));
    }

    /// An operator that is told to leave does, also while it does not read its answer.
    #[test]
    fn who_is_told_to_leave_does() {
        let (connection, _operator) = connected();
        connection.shared.leave.wake();
        assert_eq!(connection.write(&vec![b'x'; 10 << 20], WRITE_TIMEOUT), Err(String::new()));
    }
}

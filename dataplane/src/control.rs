//! The operators' socket: one JSON object a line, in both directions.
//!
//! `{"command": "apps"}` is answered by an object with one array of that name, or by `{"error": "…"}`. Other keys of a
//! request are the arguments of its command, and one file descriptor may come with it (`SCM_RIGHTS`, unix(7)). Whoever
//! may connect may ask: the socket's owner, group and mode decide. Input, output, descriptors and connections are
//! bounded.

use crate::listener::Listener;
use crate::poller::{Poller, Token};
use crate::throttle::Throttle;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slab::Slab;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::time::Instant;

/// Operators at one time. One more takes the place of the one that was silent for longest.
const OPERATORS: usize = 64;
/// Longest request in bytes.
const REQUEST: usize = 64 << 10;
/// Bytes read before other events get their turn.
const READ: usize = 16 << 10;
/// Lines about operators in the log in ten seconds.
const LOG_LINES: u32 = 20;

/// A line of an operator's.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// What is to be done.
    pub command: String,
    /// The other keys. Nobody has looked at them yet.
    #[serde(flatten)]
    pub arguments: Map<String, Value>,
}

/// Reads one line.
///
/// # Errors
///
/// A text for people.
pub fn read(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

/// What an operator asks.
#[derive(Debug)]
pub struct Question<'a> {
    /// What is to be done.
    pub command: &'a str,
    /// The other keys of the request. Nobody has looked at them yet.
    pub arguments: &'a Map<String, Value>,
    /// The first file descriptor that came with the request, of any kind: it may be one whose reading blocks.
    pub file: Option<OwnedFd>,
}

/// What becomes of a question.
#[derive(Debug)]
pub enum Answer {
    /// This is the reply.
    Reply(Value),
    /// Somebody else has the connection from now on, and answers.
    Taken,
}

impl From<Value> for Answer {
    fn from(reply: Value) -> Self {
        Self::Reply(reply)
    }
}

impl Question<'_> {
    /// The reply that refuses an argument which is not one of `known`, if there is one. What is misspelled must not be
    /// passed over: a filter would show everything.
    #[must_use]
    pub fn stranger(&self, known: &[&str]) -> Option<Value> {
        let stranger = self.arguments.keys().find(|name| !known.contains(&name.as_str()))?;
        Some(json!({ "error": format!("`{}` has no argument `{stranger}`", self.command) }))
    }
}

/// The operators' socket and everybody on it.
#[derive(Debug)]
pub struct Control {
    listener: Listener,
    operators: Slab<Operator>,
    throttle: Throttle,
}

#[derive(Debug)]
struct Operator {
    socket: OwnedFd,
    input: Vec<u8>,
    /// Descriptors that came with `input`: one for a request at most, with the offset of its last byte so far.
    files: Vec<(usize, OwnedFd)>,
    /// Not yet sent. Nothing more is read until it is.
    output: Vec<u8>,
    /// When it last asked something, or came.
    heard: Instant,
    open: bool,
    /// Somebody else has the connection.
    taken: bool,
}

impl Control {
    /// Serves `listener`.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn new(listener: Listener, poller: &Poller) -> Result<Self, Errno> {
        poller.add(&listener, Token::ControlListener)?;
        Ok(Self { listener, operators: Slab::new(), throttle: Throttle::new(LOG_LINES) })
    }

    /// Accepts one operator.
    pub fn accept(&mut self, poller: &Poller) {
        let socket = match self.listener.accept() {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(errno) => {
                self.throttle.warn(&format_args!("cannot accept operators for now: {errno}"));
                self.listener.rest(poller, Token::ControlListener);
                return;
            }
        };
        self.make_room();
        let at = self.operators.insert(Operator::new(socket));
        let watched = self.operators.get(at).map(|operator| poller.add(&operator.socket, Token::Operator(at)));
        if !matches!(watched, Some(Ok(()))) {
            self.operators.remove(at);
        }
    }

    /// Lets go of the operator that was silent for longest, if there are as many as there may be. So nobody who
    /// connects and says nothing keeps others out.
    fn make_room(&mut self) {
        let open = || self.operators.iter().filter(|(_, operator)| operator.open);
        if open().count() < OPERATORS {
            return;
        }
        let longest = open().min_by_key(|(_, operator)| operator.heard).map(|(at, _)| at);
        if let Some(operator) = longest.and_then(|at| self.operators.get_mut(at)) {
            operator.open = false;
            self.throttle.warn(&format_args!("let go of an operator that was silent: {OPERATORS} are connected"));
        }
    }

    /// Lets a resting listener go on. To be called now and then.
    pub fn tick(&mut self, poller: &Poller) {
        self.listener.wake(poller, Token::ControlListener);
    }

    /// Reads from and writes to an operator; `answer` gives the reply to a question that came by a connection, or `None`
    /// if there is no such command. Of several requests, one is answered, and the next with the operator's next event.
    pub fn serve(&mut self, at: usize, poller: &Poller, answer: impl FnMut(Question<'_>, &OwnedFd) -> Option<Answer>) {
        let Some(operator) = self.operators.get_mut(at).filter(|operator| operator.open) else { return };
        let outcome = operator.write().and_then(|()| operator.read()).and_then(|()| {
            operator.answer(answer);
            operator.write()
        });
        if operator.taken {
            // The other holder keeps the connection, and so the kernel would go on telling of it.
            operator.open = false;
            if let Err(errno) = poller.remove(&operator.socket) {
                log::debug!("an operator's connection stays watched: {errno}");
            }
            return;
        }
        // A request that is here already is waited for by way of the room for its reply.
        let write = !operator.output.is_empty() || operator.has_request();
        let waiting = outcome.and_then(|()| {
            poller.change(&operator.socket, Token::Operator(at), !write, write).map_err(|errno| errno.to_string())
        });
        if let Err(reason) = waiting {
            operator.open = false;
            if !reason.is_empty() {
                self.throttle.warn(&format_args!("closed an operator's connection: {reason}"));
            }
        }
    }

    /// Forgets the closed connections; see [`crate::attach::Attach::sweep`].
    pub fn sweep(&mut self) {
        self.operators.retain(|_, operator| operator.open);
    }
}

impl Operator {
    fn new(socket: OwnedFd) -> Self {
        let (input, output, files) = (Vec::new(), Vec::new(), Vec::new());
        Self { socket, input, files, output, heard: Instant::now(), open: true, taken: false }
    }

    /// Whether a complete request waits to be answered.
    fn has_request(&self) -> bool {
        self.input.contains(&b'\n')
    }

    /// Reads a bounded amount, when all that came before is dealt with. The error is empty at the end of the connection.
    fn read(&mut self) -> Result<(), String> {
        if !self.output.is_empty() || self.has_request() {
            return Ok(());
        }
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

    /// The descriptor of the request that ends at `end`, which is about to be taken out of the input.
    fn take_file(&mut self, end: usize) -> Option<OwnedFd> {
        let of_this = self.files.partition_point(|(at, _)| *at <= end);
        let file = self.files.drain(..of_this).next().map(|(_, file)| file);
        for (at, _) in &mut self.files {
            *at -= end + 1;
        }
        file
    }

    /// Answers one complete line, if the reply to the one before is on its way.
    fn answer(&mut self, mut answer: impl FnMut(Question<'_>, &OwnedFd) -> Option<Answer>) {
        if !self.output.is_empty() {
            return;
        }
        let Some(end) = self.input.iter().position(|b| *b == b'\n') else { return };
        self.heard = Instant::now();
        let file = self.take_file(end);
        let line: Vec<u8> = self.input.drain(..=end).collect();
        let reply = match read(&line) {
            Ok(Request { command, arguments }) => {
                let unknown = || json!({ "error": format!("unknown command `{command}`") }).into();
                let question = Question { command: &command, arguments: &arguments, file };
                match answer(question, &self.socket).unwrap_or_else(unknown) {
                    Answer::Reply(reply) => reply,
                    Answer::Taken => {
                        self.taken = true;
                        return;
                    }
                }
            }
            Err(error) => json!({ "error": error }),
        };
        self.output = reply.to_string().into_bytes();
        self.output.push(b'\n');
    }

    fn write(&mut self) -> Result<(), String> {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
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
    use rustix::fd::{AsFd, AsRawFd};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SocketType};
    use std::io::{BufRead, BufReader, IoSlice, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// A control socket with one operator on it, and the operator's end.
    fn connected(label: &str) -> (Control, Poller, UnixStream, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("kopi-control-{}-{label}", std::process::id()));
        let text = format!(
            "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n[control]\npath = \"{}\"\n",
            path.display()
        );
        let config = kopi_config::Config::parse(text, "test").unwrap();
        let listener = Listener::bind(&config.control, SocketType::STREAM).unwrap();
        let poller = Poller::new().unwrap();
        let control = Control::new(listener, &poller).unwrap();
        let operator = UnixStream::connect(&path).unwrap();
        operator.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (control, poller, operator, path)
    }

    /// Handles events, as the daemon does, until there are none; returns how many there were. Every reply is of `size`
    /// bytes or more.
    fn turn(control: &mut Control, poller: &Poller, size: usize) -> usize {
        let tokens = poller.wait(Duration::from_millis(1)).unwrap();
        for token in &tokens {
            match token {
                Token::ControlListener => control.accept(poller),
                Token::Operator(at) => control.serve(*at, poller, |question, _| {
                    let file = question.file.map(|file| inode(&file));
                    let reply =
                        json!({ question.command: "x".repeat(size), "arguments": question.arguments, "file": file });
                    Some(reply.into())
                }),
                other => panic!("{other:?}"),
            }
        }
        control.sweep();
        tokens.len()
    }

    /// Requests that come in one packet are all answered, in order.
    #[test]
    fn requests_in_one_packet_are_answered_in_order() {
        let (mut control, poller, mut operator, _) = connected("order");
        let lines: String = (0..100).map(|n| format!("{{\"command\": \"c{n}\"}}\n")).collect();
        operator.write_all(lines.as_bytes()).unwrap();
        let answered = std::thread::spawn(|| BufReader::new(operator).lines().take(100).map(Result::unwrap).collect());
        while !answered.is_finished() {
            turn(&mut control, &poller, 1);
        }
        let replies: Vec<String> = answered.join().unwrap();
        assert!(replies.iter().enumerate().all(|(n, reply)| reply.contains(&format!("\"c{n}\""))), "{replies:?}");
    }

    /// Fault 9: an operator that asks without end, and reads a little now and then, takes no more memory for it.
    #[test]
    fn input_is_bounded() {
        let (mut control, poller, mut operator, _) = connected("input");
        operator.set_nonblocking(true).unwrap();
        let lines = "{\"command\": \"c\"}\n".repeat(10_000);
        let mut bytes = vec![0; 100_000];
        for _ in 0..200 {
            drop(operator.write(lines.as_bytes()));
            turn(&mut control, &poller, 100_000);
            drop(std::io::Read::read(&mut operator, &mut bytes));
        }
        let kept: usize = control.operators.iter().map(|(_, operator)| operator.input.capacity()).sum();
        assert!(kept > 0 && kept <= 2 * (REQUEST + READ), "{kept} bytes of input");
    }

    /// Fault 9: however many operators connect and say nothing, one that asks is answered.
    #[test]
    fn silent_operators_make_room() {
        let (mut control, poller, first, path) = connected("room");
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let operator = UnixStream::connect(&path).unwrap();
                turn(&mut control, &poller, 1);
                operator
            })
            .collect();
        let mut last = UnixStream::connect(&path).unwrap();
        last.write_all(b"{\"command\": \"c\"}\n").unwrap();
        while turn(&mut control, &poller, 1) > 0 {}
        let mut reply = String::new();
        BufReader::new(&last).read_line(&mut reply).unwrap();
        assert!(reply.contains("\"c\""), "{reply}");
        assert_eq!(control.operators.len(), OPERATORS);
        drop((first, crowd));
    }

    /// Fault 40: with accepting at rest, a waiting operator is no event, and after the rest it is one.
    #[test]
    fn resting_listener_is_quiet() {
        let (mut control, poller, _operator, _) = connected("rest");
        control.listener.rest(&poller, Token::ControlListener);
        assert_eq!(turn(&mut control, &poller, 1), 0);
        let begun = Instant::now();
        while control.operators.is_empty() && begun.elapsed() < Duration::from_secs(5) {
            control.tick(&poller);
            turn(&mut control, &poller, 1);
        }
        assert_eq!(control.operators.len(), 1);
    }

    /// What a descriptor leads to.
    fn inode(file: impl AsFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    /// Sends `text` and, with its first byte, `files`.
    fn send(operator: &UnixStream, text: &str, files: &[&UnixStream]) {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files)));
        let text = [IoSlice::new(text.as_bytes())];
        rustix::net::sendmsg(operator, &text, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    /// The replies to everything that `operator` has asked.
    fn replies(control: &mut Control, poller: &Poller, operator: &UnixStream) -> Vec<Value> {
        while turn(control, poller, 1) > 0 {}
        operator.set_nonblocking(true).unwrap();
        let lines = BufReader::new(operator).lines().map_while(Result::ok);
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    /// Every key but the command is an argument, and only unknown ones are refused.
    #[test]
    fn arguments_reach_the_command() {
        let (mut control, poller, operator, _) = connected("arguments");
        send(&operator, "{\"app\": \"b\", \"command\": \"c\", \"n\": [1]}\n{\"app\": \"b\"}\n", &[]);
        let got = replies(&mut control, &poller, &operator);
        assert_eq!(got[0], json!({ "c": "x", "arguments": { "app": "b", "n": [1] }, "file": null }));
        assert!(got[1]["error"].as_str().unwrap().contains("missing field `command`"), "{got:?}");

        let arguments = Map::from_iter([("app".to_owned(), json!("b")), ("n".to_owned(), json!(1))]);
        let question = Question { command: "c", arguments: &arguments, file: None };
        assert_eq!(question.stranger(&["n", "app"]), None);
        assert_eq!(question.stranger(&["app"]), Some(json!({ "error": "`c` has no argument `n`" })));
    }

    /// A descriptor goes with the request that it was sent with, however the requests are cut into messages.
    #[test]
    fn descriptors_go_with_their_requests() {
        let (mut control, poller, operator, _) = connected("files");
        let (a, b) = UnixStream::pair().unwrap();
        send(&operator, "{\"command\": \"plain\"}\n", &[]);
        send(&operator, "{\"command\": \"one\"}\n{\"comm", &[&a]);
        send(&operator, "and\": \"two\"}\n", &[&b]);
        send(&operator, "{\"command\": \"three\"}\n", &[&b]);
        send(&operator, "{\"command\": \"four\"}\n", &[]);
        send(&operator, "{\"comm", &[]);
        send(&operator, "and\": \"five\"}\n", &[&a]);
        let files: Vec<_> =
            replies(&mut control, &poller, &operator).iter().map(|reply| reply["file"].as_u64()).collect();
        let (a, b) = (Some(inode(&a)), Some(inode(&b)));
        // The second message ends within the second request, so its descriptor is that one's.
        assert_eq!(files, [None, None, a, b, None, a]);
    }

    /// Fault 3 and 9: of any number of descriptors one is kept for a request, and none after it.
    #[test]
    fn surplus_descriptors_are_closed() {
        let (mut control, poller, operator, _) = connected("surplus");
        let (theirs, ours) = UnixStream::pair().unwrap();
        let many = [&theirs; 250];
        send(&operator, "{\"command\":", &many);
        for _ in 0..100 {
            send(&operator, " ", &many[..2]);
            turn(&mut control, &poller, 1);
        }
        let kept: Vec<_> = control.operators.iter().flat_map(|(_, operator)| &operator.files).collect();
        assert_eq!(kept.len(), 1);
        assert_ne!(kept[0].1.as_raw_fd(), theirs.as_raw_fd());
        send(&operator, "\"c\"}\n{\"command\": \"d\"}\n", &[]);
        let got = replies(&mut control, &poller, &operator);
        assert_eq!((got[0]["file"].as_u64(), got[1]["file"].as_u64()), (Some(inode(&theirs)), None));
        // Once every copy is closed, the other end hears it.
        drop(theirs);
        assert_eq!(rustix::net::recv(&ours, &mut [0; 1][..], RecvFlags::DONTWAIT).unwrap().0, 0);
        assert!(got[1].get("d").is_some());
    }

    /// An operator that goes takes its descriptors along.
    #[test]
    fn descriptors_go_with_their_operator() {
        let (mut control, poller, operator, _) = connected("gone");
        let (theirs, ours) = UnixStream::pair().unwrap();
        send(&operator, "{\"command\":", &[&theirs]);
        turn(&mut control, &poller, 1);
        turn(&mut control, &poller, 1);
        drop((operator, theirs));
        while turn(&mut control, &poller, 1) > 0 {}
        assert_eq!(rustix::net::recv(&ours, &mut [0; 1][..], RecvFlags::DONTWAIT).unwrap().0, 0);
    }
}

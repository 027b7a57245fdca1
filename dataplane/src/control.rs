//! The operators' socket: one JSON object a line, in both directions.
//!
//! `{"command": "apps"}` is answered by an object with one array of that name, or by `{"error": "…"}`. Whoever may
//! connect may ask: the socket's owner, group and mode decide. Input, output and connections are bounded.

use crate::listener::Listener;
use crate::poller::{Poller, Token};
use crate::throttle::Throttle;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use slab::Slab;

/// Operators at one time.
const OPERATORS: usize = 64;
/// Longest request in bytes.
const REQUEST: usize = 64 << 10;
/// Bytes read before other events get their turn.
const READ: usize = 16 << 10;

/// What an operator asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: String,
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
    /// Not yet sent. Nothing more is read until it is.
    output: Vec<u8>,
    open: bool,
}

impl Control {
    /// Serves `listener`.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn new(listener: Listener, poller: &Poller) -> Result<Self, Errno> {
        poller.add(&listener, Token::ControlListener)?;
        Ok(Self { listener, operators: Slab::new(), throttle: Throttle::new() })
    }

    /// Accepts one operator.
    pub fn accept(&mut self, poller: &Poller) {
        let socket = match self.listener.accept() {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(errno) => {
                self.throttle.warn(&format_args!("cannot accept operators for now: {errno}"));
                return;
            }
        };
        if self.operators.len() >= OPERATORS {
            self.throttle.warn(&format_args!("refused an operator: {OPERATORS} are connected already"));
            return;
        }
        let at = self.operators.insert(Operator { socket, input: Vec::new(), output: Vec::new(), open: true });
        let watched = self.operators.get(at).map(|operator| poller.add(&operator.socket, Token::Operator(at)));
        if !matches!(watched, Some(Ok(()))) {
            self.operators.remove(at);
        }
    }

    /// Reads from and writes to an operator; `answer` gives the reply to a command, or `None` if there is no such one.
    pub fn serve(&mut self, at: usize, poller: &Poller, answer: impl Fn(&str) -> Option<Value>) {
        let Some(operator) = self.operators.get_mut(at).filter(|operator| operator.open) else { return };
        let outcome = operator.write().and_then(|()| operator.read()).and_then(|()| {
            operator.answer(&answer);
            operator.write()
        });
        let write = !operator.output.is_empty();
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
    /// Reads a bounded amount. The error is empty at the end of the connection.
    fn read(&mut self) -> Result<(), String> {
        if !self.output.is_empty() {
            return Ok(());
        }
        let mut bytes = [0_u8; READ];
        match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(String::new()),
            Ok((n, _)) => {
                self.input.extend_from_slice(bytes.get(..n).unwrap_or_default());
                if self.input.len() > REQUEST && !self.input.contains(&b'\n') {
                    return Err(format!("a request of more than {REQUEST} bytes"));
                }
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::CONNRESET | Errno::PIPE) => Err(String::new()),
            Err(errno) => Err(errno.to_string()),
        }
    }

    /// Answers the complete lines, one at a time: the next one waits until the reply to this one is on its way.
    fn answer(&mut self, answer: &impl Fn(&str) -> Option<Value>) {
        while self.output.is_empty() {
            let Some(end) = self.input.iter().position(|b| *b == b'\n') else { return };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let reply = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => {
                    let unknown = || json!({ "error": format!("unknown command `{}`", request.command) });
                    answer(&request.command).unwrap_or_else(unknown)
                }
                Err(error) => json!({ "error": format!("not a request: {error}") }),
            };
            self.output = reply.to_string().into_bytes();
            self.output.push(b'\n');
            if self.write().is_err() {
                return;
            }
        }
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

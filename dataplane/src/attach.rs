//! The apps' socket: connections, handshakes, requests.
//!
//! Every connection is one app, or somebody who has yet to say hello. Whatever a peer does wrong ends its own
//! connection with a refusal that says why, and costs the others nothing: connections, half-open ones of each user,
//! and changes in a given time are limited.

use crate::forwarding::PortId;
use crate::identity::{self, Identity};
use crate::listener::Listener;
use crate::poller::{Poller, Token};
use crate::switch::Switch;
use crate::throttle::Throttle;
use kopi_ring::PeerFault;
use kopi_ring::message::{Envelope, Link, Message};
use kopi_ring::socket::{self, ReceiveError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use slab::Slab;
use std::time::{Duration, Instant};

/// How long a peer may take to say hello.
const GREETING: Duration = Duration::from_secs(2);
/// Peers that have not said hello yet, of all users and of one.
const GREETING_MAX: usize = 256;
const GREETING_MAX_PER_USER: usize = 64;
/// Connections accepted before other events get their turn.
const ACCEPT_BURST: usize = 64;
/// How long accepting rests when file descriptors or memory are short.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Requests that an app may make at once, and that it gets back with each tick.
const REQUESTS: u32 = 256;
const REQUESTS_PER_TICK: u32 = 10;

/// The apps' socket and everybody on it.
#[derive(Debug)]
pub struct Attach {
    listener: Listener,
    clients: Slab<Client>,
    /// When accepting may go on, if it rests.
    resting: Option<Instant>,
    throttle: Throttle,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// Readable once the process has ended.
    process: Option<OwnedFd>,
    identity: Identity,
    state: State,
    /// Requests that it may still make before it has to wait for the next tick.
    requests: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has until then to say hello.
    Greeting(Instant),
    /// It has this port.
    Attached(PortId),
    /// It goes at the end of this round of events.
    Closed,
}

impl Client {
    fn describe(&self) -> String {
        describe(&self.identity)
    }

    /// Says something; a peer that does not read its replies is of no use.
    fn say(&self, sequence: u32, message: Message, fd: Option<BorrowedFd<'_>>) -> Result<(), String> {
        let sent = socket::send(&self.socket, &Envelope { sequence, message }, fd);
        sent.map_err(|errno| format!("does not take a message: {errno}"))
    }
}

/// How a process is named in the log.
#[must_use]
pub fn describe(identity: &Identity) -> String {
    let user = identity.user.clone().unwrap_or_else(|| identity.uid.to_string());
    format!("`{}` (pid {}, user {user})", identity.comm, identity.pid)
}

impl Attach {
    /// Serves `listener`.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn new(listener: Listener, poller: &Poller) -> Result<Self, Errno> {
        poller.add(&listener, Token::AppListener)?;
        Ok(Self { listener, clients: Slab::new(), resting: None, throttle: Throttle::new() })
    }

    /// Connections, half-open ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Accepts who waits.
    pub fn accept(&mut self, poller: &Poller) {
        for _ in 0..ACCEPT_BURST {
            match self.listener.accept() {
                Ok(Some(socket)) => self.greet(socket, poller),
                Ok(None) => return,
                Err(errno) => {
                    self.throttle.warn(&format_args!("cannot accept apps for now: {errno}"));
                    // Level-triggered events would keep this thread busy for nothing.
                    if poller.change(&self.listener, Token::AppListener, false, false).is_ok() {
                        self.resting = Some(Instant::now() + ACCEPT_REST);
                    }
                    return;
                }
            }
        }
    }

    fn greet(&mut self, socket: OwnedFd, poller: &Poller) {
        let (identity, process) = match identity::attest(&socket) {
            Ok(found) => found,
            Err(error) => {
                refuse(&socket, 0, &format!("kopid could not find out who you are: {error}"));
                self.throttle.warn(&format_args!("refused a connection: {error}"));
                return;
            }
        };
        let greeting = |client: &&Client| matches!(client.state, State::Greeting(_));
        let of_user = |client: &&Client| client.identity.uid == identity.uid;
        let waiting = self.clients.iter().map(|(_, client)| client).filter(greeting).count();
        let of_same_user = self.clients.iter().map(|(_, client)| client).filter(greeting).filter(of_user).count();
        if waiting >= GREETING_MAX || of_same_user >= GREETING_MAX_PER_USER {
            refuse(&socket, 0, "too many connections have not said hello yet");
            self.throttle.warn(&format_args!("refused {}: too many silent connections", describe(&identity)));
            return;
        }
        let deadline = Instant::now() + GREETING;
        let client = Client { socket, process, identity, state: State::Greeting(deadline), requests: REQUESTS };
        let at = self.clients.insert(client);
        let Some(client) = self.clients.get(at) else { return };
        let watched = poller.add(&client.socket, Token::Client(at)).and_then(|()| match &client.process {
            Some(process) => poller.add(process, Token::Exit(at)),
            None => Ok(()),
        });
        if let Err(errno) = watched {
            self.throttle.warn(&format_args!("refused {}: {errno}", client.describe()));
            self.clients.remove(at);
        }
    }

    /// Hears what a client has to say.
    pub fn hear(&mut self, at: usize, switch: &mut Switch, poller: &Poller) {
        loop {
            let Some(client) = self.clients.get_mut(at).filter(|client| client.state != State::Closed) else { return };
            if client.requests == 0 {
                // It is heard again at the next tick.
                if poller.change(&client.socket, Token::Client(at), false, false).is_err() {
                    self.close(at, switch, "cannot be made to wait");
                }
                return;
            }
            client.requests -= 1;
            match socket::receive(&client.socket) {
                Ok((envelope, None)) => {
                    if let Err(reason) = respond(client, envelope, switch) {
                        self.close(at, switch, &reason);
                    }
                }
                Ok((envelope, Some(_))) => {
                    refuse(&client.socket, envelope.sequence, "unexpected file descriptors");
                    self.close(at, switch, "sent unexpected file descriptors");
                }
                Err(ReceiveError::WouldBlock) => {
                    client.requests += 1;
                    return;
                }
                Err(ReceiveError::Closed) => self.close(at, switch, ""),
                Err(error) => {
                    refuse(&client.socket, 0, &error.to_string());
                    self.close(at, switch, &format!("was refused: {error}"));
                }
            }
        }
    }

    /// A client's process has ended: its port goes, whoever else may hold its socket.
    pub fn ended(&mut self, at: usize, switch: &mut Switch) {
        self.close(at, switch, "");
    }

    /// Ends the connections of apps that broke the contract of the rings.
    pub fn expel(&mut self, faults: &[(PortId, PeerFault)], switch: &mut Switch) {
        for (id, fault) in faults {
            let found = self.clients.iter().find(|(_, client)| client.state == State::Attached(*id));
            if let Some((at, client)) = found {
                refuse(&client.socket, 0, &fault.to_string());
                self.close(at, switch, &format!("broke the contract of its rings: {fault}"));
            }
        }
    }

    /// Tells every app about the wire's link.
    pub fn tell_link(&mut self, link: Link, switch: &mut Switch) {
        let attached = |(at, client): (usize, &Client)| matches!(client.state, State::Attached(_)).then_some(at);
        for at in self.clients.iter().filter_map(attached).collect::<Vec<_>>() {
            let said = self.clients.get(at).map(|client| client.say(0, Message::Link(link), None));
            if let Some(Err(reason)) = said {
                self.close(at, switch, &reason);
            }
        }
    }

    /// Called ten times a second: ends late greetings, lets waiting clients and a resting listener go on.
    pub fn tick(&mut self, switch: &mut Switch, poller: &Poller) {
        let now = Instant::now();
        if self.resting.is_some_and(|until| now >= until)
            && poller.change(&self.listener, Token::AppListener, true, false).is_ok()
        {
            self.resting = None;
        }
        let mut late = Vec::new();
        for (at, client) in &mut self.clients {
            if matches!(client.state, State::Greeting(deadline) if now >= deadline) {
                late.push(at);
            }
            let waited = client.requests == 0;
            client.requests = (client.requests + REQUESTS_PER_TICK).min(REQUESTS);
            if waited && poller.change(&client.socket, Token::Client(at), true, false).is_err() {
                late.push(at);
            }
        }
        for at in late {
            if let Some(client) = self.clients.get(at) {
                refuse(&client.socket, 0, "no hello in time");
            }
            self.close(at, switch, "did not say hello in time");
        }
    }

    /// Forgets the closed connections. Called after each round of events, so that an event of this round is never taken
    /// for one of a new connection with the same number.
    pub fn sweep(&mut self) {
        self.clients.retain(|_, client| client.state != State::Closed);
    }

    /// Takes a client's port away and marks it closed. `reason` is logged unless it is empty, as for a normal end.
    fn close(&mut self, at: usize, switch: &mut Switch, reason: &str) {
        let Some(client) = self.clients.get_mut(at) else { return };
        let state = std::mem::replace(&mut client.state, State::Closed);
        if !reason.is_empty() {
            self.throttle.warn(&format_args!("{} {reason}", client.describe()));
        }
        if let State::Attached(id) = state
            && let Some(app) = switch.remove(id)
        {
            log::info!("{} left port {id} `{}`", client.describe(), app.name);
        }
    }
}

/// Says no. The peer may be gone or not listening, which changes nothing: it is let go of anyway.
fn refuse(socket: impl AsFd, sequence: u32, why: &str) {
    let envelope = Envelope { sequence, message: Message::Refused(why.into()) };
    if let Err(errno) = socket::send(socket, &envelope, None) {
        log::debug!("a refusal was not taken: {errno}");
    }
}

/// Answers one request.
///
/// # Errors
///
/// Why the connection has to end, for the log; the peer has been told.
fn respond(client: &mut Client, envelope: Envelope, switch: &mut Switch) -> Result<(), String> {
    let Envelope { sequence, message } = envelope;
    match (client.state, message) {
        (State::Greeting(_), Message::Hello(hello)) => match switch.admit(&hello, client.identity.clone()) {
            Ok(welcome) => {
                log::info!("{} has port {} `{}`", client.describe(), welcome.port, welcome.name);
                client.state = State::Attached(welcome.port);
                client.say(sequence, Message::Welcome(welcome), None)
            }
            Err(refusal) => {
                refuse(&client.socket, sequence, &refusal.to_string());
                Err(format!("was refused: {refusal}"))
            }
        },
        (State::Attached(id), Message::Setup(geometry)) => match switch.setup(id, &geometry) {
            Ok(region) => client.say(sequence, Message::Ready(geometry), Some(region.fd())),
            Err(error) => client.say(sequence, Message::Refused(error.to_string()), None),
        },
        (State::Attached(id), Message::Settings(settings)) => match switch.change(id, settings) {
            Ok(()) => client.say(sequence, Message::Done, None),
            Err(refusal) => client.say(sequence, Message::Refused(refusal.to_string()), None),
        },
        (State::Attached(id), Message::Stop) => {
            switch.halt(id);
            client.say(sequence, Message::Done, None)
        }
        _ => {
            refuse(&client.socket, sequence, "this message does not belong here");
            Err("sent a message out of order".into())
        }
    }
}

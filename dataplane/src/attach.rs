//! The apps' socket: connections, handshakes, requests.
//!
//! Every connection is one app, or somebody who has yet to say hello. Whatever a peer does wrong ends its own
//! connection with a refusal that says why, and costs the others nothing: connections, half-open ones of each user,
//! and changes in a given time are limited. Nothing is sent or received here: that is for [the thread of the peer's
//! user](crate::peers), so that nobody else waits for what a peer has made slow.

use crate::forwarding::PortId;
use crate::identity::{self, Identity};
use crate::listener::Listener;
use crate::peers::{Connection, Event, Peers, What};
use crate::poller::{Poller, Token};
use crate::switch::{Notice, Switch};
use crate::throttle::Throttle;
use kopi_ring::PeerFault;
use kopi_ring::message::{Envelope, Link, Message};
use kopi_ring::socket::{self, ReceiveError};
use log::Level;
use rustix::fd::OwnedFd;
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
/// Requests that an app may make at once, and that it gets back with each tick.
const REQUESTS: u32 = 256;
const REQUESTS_PER_TICK: u32 = 10;
/// Lines in the log in ten seconds about what the processes of a user do wrong, and about those that come and go.
const LOG_LINES: u32 = 20;
const LOG_LINES_LIVES: u32 = 100;

/// The apps' socket and everybody on it.
#[derive(Debug)]
pub struct Attach {
    listener: Listener,
    clients: Slab<Client>,
    throttle: Throttle,
    lives: Throttle,
}

#[derive(Debug)]
struct Client {
    connection: Connection,
    /// Readable once the process has ended.
    process: Option<OwnedFd>,
    identity: Identity,
    state: State,
    /// Requests that it may still make before it has to wait for the next tick.
    requests: u32,
    /// What it is to be told next, and which picture of the ports the workers have to use before. Until then it is not
    /// heard: so a client has no more than one request under way, and no more than two regions.
    reply: Option<(Envelope, u64)>,
    /// Whether its next request is waited for.
    heard: bool,
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

    /// Whether its next request may be heard, and is not yet waited for.
    const fn may_go_on(&self) -> bool {
        !self.heard && self.reply.is_none() && self.requests > 0 && !matches!(self.state, State::Closed)
    }

    /// Says something; a peer that does not read its replies is of no use.
    fn say(&self, sequence: u32, message: Message, fds: Vec<OwnedFd>) -> Result<(), String> {
        self.connection.send(Envelope { sequence, message }, fds)
    }
}

/// How a process is named in the log.
#[must_use]
pub fn describe(identity: &Identity) -> String {
    format!("`{}` (pid {}, user {})", identity.comm, identity.pid, identity.user_name())
}

impl Attach {
    /// Serves `listener`.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn new(listener: Listener, poller: &Poller) -> Result<Self, Errno> {
        poller.add(&listener, Token::AppListener)?;
        if !socket::refuse_descriptors(&listener) {
            log::debug!("this kernel lets apps send file descriptors: they are closed as they come");
        }
        // Now, while there are file descriptors to find it out with.
        if !identity::gives_handles() {
            log::debug!("this kernel gives no handle on a peer, so processes are told apart by their start");
        }
        let (throttle, lives) = (Throttle::new(LOG_LINES), Throttle::new(LOG_LINES_LIVES));
        Ok(Self { listener, clients: Slab::new(), throttle, lives })
    }

    /// Connections, half-open ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Accepts who waits.
    pub fn accept(&mut self, switch: &mut Switch, poller: &Poller) {
        for _ in 0..ACCEPT_BURST {
            match self.listener.accept() {
                Ok(Some(socket)) => self.greet(socket, switch.peers_mut(), poller),
                Ok(None) => return,
                Err(errno) => {
                    self.throttle.warn(&format_args!("cannot accept apps for now: {errno}"));
                    self.listener.rest(poller, Token::AppListener);
                    return;
                }
            }
        }
    }

    fn greet(&mut self, socket: OwnedFd, peers: &mut Peers, poller: &Poller) {
        let attested = identity::attest(&socket);
        let uid = socket::peer_credentials(&socket).ok().map(|peer| peer.uid);
        let connection = peers.connect(uid, socket);
        if connection.user().is_swamped() {
            // Each takes a file descriptor until its turn has come. Others wait for a moment, too.
            self.listener.rest(poller, Token::AppListener);
        }
        let (identity, process) = match attested {
            Ok(found) => found,
            Err(error) => {
                connection.refuse(0, &format!("kopid could not find out who you are: {error}"));
                self.throttle.warn(&format_args!("refused a connection: {error}"));
                return;
            }
        };
        let greeting = |client: &&Client| matches!(client.state, State::Greeting(_));
        let of_user = |client: &&Client| client.identity.uid == identity.uid;
        let waiting = self.clients.iter().map(|(_, client)| client).filter(greeting).count();
        let of_same_user = self.clients.iter().map(|(_, client)| client).filter(greeting).filter(of_user).count();
        if waiting >= GREETING_MAX || of_same_user >= GREETING_MAX_PER_USER {
            connection.refuse(0, "too many connections have not said hello yet");
            self.throttle
                .warn_of(&identity, &format_args!("refused {}: too many silent connections", describe(&identity)));
            return;
        }
        let deadline = Instant::now() + GREETING;
        let state = State::Greeting(deadline);
        connection.listen();
        let client = Client { connection, process, identity, state, requests: REQUESTS, reply: None, heard: true };
        let at = self.clients.insert(client);
        let Some(client) = self.clients.get(at) else { return };
        let watched = client.process.as_ref().map_or(Ok(()), |process| poller.add(process, Token::Exit(at)));
        if let Err(errno) = watched {
            self.throttle.warn_of(&client.identity, &format_args!("refused {}: {errno}", client.describe()));
            self.clients.remove(at);
        }
    }

    /// Takes in what the peers' threads have to tell.
    pub fn receive(&mut self, switch: &mut Switch) {
        while let Some(event) = switch.peers().event() {
            self.handle(event, switch);
        }
    }

    /// Hears one request of a client. Its reply comes with [`answer`](Self::answer), and only then its next request.
    fn handle(&mut self, event: Event, switch: &mut Switch) {
        let mut open = self.clients.iter_mut().filter(|(_, client)| client.state != State::Closed);
        let Some((at, client)) = open.find(|(_, client)| client.connection.serial() == event.serial) else { return };
        match event.what {
            What::Received(Ok(envelope)) => {
                client.requests = client.requests.saturating_sub(1);
                // Not even its end is of interest before it has its reply.
                client.heard = false;
                if let Err(reason) = respond(client, envelope, switch, &mut self.lives) {
                    self.close(at, switch, &reason);
                }
            }
            What::Received(Err(ReceiveError::Closed)) => self.close(at, switch, ""),
            What::Received(Err(error)) => {
                client.connection.refuse(0, &error.to_string());
                self.close(at, switch, &format!("was refused: {error}"));
            }
            What::Slow(spent) => {
                let reason = format!("makes system calls on its socket slow: one took {} ms", spent.as_millis());
                self.close(at, switch, &reason);
            }
            What::Unsent(errno) => self.close(at, switch, &format!("does not take a message: {errno}")),
        }
    }

    /// Sends the replies whose effect all workers have taken up: an app that was told that its rings are served, or its
    /// address changed, may count on it for its next frame. Clients that may make another request are heard again.
    pub fn answer(&mut self, switch: &mut Switch) {
        let mut failed = Vec::new();
        for (at, client) in &mut self.clients {
            let due = client.reply.take_if(|(_, picture)| switch.uses(*picture));
            let said = due.map_or(Ok(()), |(envelope, _)| {
                let (doorbell, rings) = match (&envelope.message, client.state) {
                    (Message::Ready(_), State::Attached(id)) => {
                        (switch.take_doorbell(id), switch.app(id).and_then(|app| app.region.as_ref()))
                    }
                    _ => (None, None),
                };
                let rings = rings.map(|region| region.fd().try_clone_to_owned()).transpose();
                let rings = rings.map_err(|error| format!("cannot be given its rings: {error}"))?;
                // Our end of the way to the client's goes with the message, and is closed by whoever sends it.
                let fds = rings.into_iter().chain(doorbell.map(OwnedFd::from)).collect();
                client.say(envelope.sequence, envelope.message, fds)
            });
            if said.is_ok() && client.may_go_on() {
                client.connection.listen();
                client.heard = true;
            }
            if let (Err(reason), true) = (said, client.state != State::Closed) {
                failed.push((at, reason));
            }
        }
        for (at, reason) in failed {
            self.close(at, switch, &reason);
        }
    }

    /// Whether a client waits for its reply.
    #[must_use]
    pub fn owes_replies(&self) -> bool {
        self.clients.iter().any(|(_, client)| client.reply.is_some())
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
                client.connection.refuse(0, &fault.to_string());
                self.close(at, switch, &format!("broke the contract of its rings: {fault}"));
            }
        }
    }

    /// Ends the connections of apps that the policy does not let stay as they are. Their drivers attach again, on the
    /// terms of the policy in force, or hear why they may not.
    pub fn dismiss(&mut self, notices: &[Notice], switch: &mut Switch) {
        for (id, why) in notices {
            let found = self.clients.iter().find(|(_, client)| client.state == State::Attached(*id));
            if let Some((at, client)) = found {
                client.connection.refuse(0, why);
                self.close(at, switch, &format!("has to attach again: {why}"));
            }
        }
    }

    /// Looks whether processes have changed their name or cgroup, which the policy follows.
    pub fn look(&self, switch: &mut Switch) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (_, client) in &self.clients {
            let (State::Attached(id), Some(process)) = (client.state, &client.process) else { continue };
            if let Some(identity) = switch.app(id).and_then(|app| app.identity.refreshed(process)) {
                notices.extend(switch.reidentify(id, identity));
            }
        }
        notices
    }

    /// Tells every app about the wire's link.
    pub fn tell_link(&mut self, link: Link, switch: &mut Switch) {
        let attached = |(at, client): (usize, &Client)| matches!(client.state, State::Attached(_)).then_some(at);
        for at in self.clients.iter().filter_map(attached).collect::<Vec<_>>() {
            let said = self.clients.get(at).map(|client| client.say(0, Message::Link(link), Vec::new()));
            if let Some(Err(reason)) = said {
                self.close(at, switch, &reason);
            }
        }
    }

    /// Called ten times a second: ends late greetings, grants further requests, lets a resting listener go on.
    pub fn tick(&mut self, switch: &mut Switch, poller: &Poller) {
        self.listener.wake(poller, Token::AppListener);
        self.throttle.tick();
        self.lives.tick();
        let now = Instant::now();
        let mut late = Vec::new();
        for (at, client) in &mut self.clients {
            if matches!(client.state, State::Greeting(deadline) if now >= deadline) {
                late.push(at);
            }
            client.requests = (client.requests + REQUESTS_PER_TICK).min(REQUESTS);
        }
        for at in late {
            if let Some(client) = self.clients.get(at) {
                client.connection.refuse(0, "no hello in time");
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
        client.reply = None;
        if !reason.is_empty() {
            self.throttle.warn_of(&client.identity, &format_args!("{} {reason}", client.describe()));
        }
        if let State::Attached(id) = state
            && let Some(app) = switch.remove(id)
        {
            self.lives.log_of(
                Level::Info,
                &client.identity,
                &format_args!("{} left port {id} `{}`", client.describe(), app.name),
            );
        }
    }
}

/// Does what one request asks for, and prepares the reply.
///
/// # Errors
///
/// Why the connection has to end, for the log; the peer has been told.
fn respond(client: &mut Client, envelope: Envelope, switch: &mut Switch, lives: &mut Throttle) -> Result<(), String> {
    let Envelope { sequence, message } = envelope;
    let reply = match (client.state, message) {
        (State::Greeting(_), Message::Hello(hello)) => match switch.admit(&hello, client.identity.clone()) {
            Ok(welcome) => {
                let line = format_args!("{} has port {} `{}`", client.describe(), welcome.port, welcome.name);
                lives.log_of(Level::Info, &client.identity, &line);
                client.state = State::Attached(welcome.port);
                Message::Welcome(welcome)
            }
            Err(refusal) => {
                client.connection.refuse(sequence, &refusal.to_string());
                return Err(format!("was refused: {refusal}"));
            }
        },
        (State::Attached(id), Message::Setup(setup)) => match switch.setup(id, &setup) {
            Ok(()) => Message::Ready(setup.geometry),
            Err(error) => Message::Refused(error.to_string()),
        },
        (State::Attached(id), Message::Settings(settings)) => match switch.change(id, settings) {
            Ok(()) => Message::Done,
            Err(refusal) => Message::Refused(refusal.to_string()),
        },
        (State::Attached(id), Message::Stop) => {
            switch.halt(id);
            Message::Done
        }
        _ => {
            client.connection.refuse(sequence, "this message does not belong here");
            return Err("sent a message out of order".into());
        }
    };
    client.reply = Some((Envelope { sequence, message: reply }, switch.next_picture()));
    Ok(())
}

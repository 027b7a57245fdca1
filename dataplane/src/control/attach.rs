//! The apps' socket: connections, handshakes, requests.
//!
//! Every connection is one app, or a peer that has not sent its hello yet. Whatever a peer does wrong ends its own
//! connection with a refusal that gives the reason, and costs the others nothing: connections, half-open ones of each user,
//! and changes in a given time are limited. Nothing is sent or received here: that is for [the thread of the peer's
//! user](crate::control::peers), so that nobody else waits for what a peer has made slow.

mod counts;
mod respond;

pub use counts::{AttachCounts, TOO_MANY};

use crate::control::budgets::Budgets;
use crate::control::detach::DetachReason;
use crate::control::helper::Wake;
use crate::control::identity::{self, Accepted, Identity, IdentityError};
use crate::control::listener::Listener;
use crate::control::peers::{PeerConnection, PeerEvent, PeerEventKind};
use crate::control::plane::{Asked, ControlPlane};
use crate::control::poller::{Poller, Token};
use crate::control::ratelimit::RatelimitedLog;
use crate::control::user_names::{UserName, UserNames};
use crate::ids::PortId;
use kopi_ring::message::{Envelope, Link, Message, Setup};
use kopi_ring::socket::{self, ReceiveError};
use log::Level;
use respond::respond;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Timeout for a peer to send its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeouts for identifying a peer, and for the name of its user after that: the latter is for people, and known later
/// if the name service does not answer.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(2);
const NAME_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout for an app whose process cannot be read again: longer than the longest pause of its user's thread.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(70);
/// Time between two ticks after which this process has been away, and not its peers.
const AWAY: Duration = Duration::from_millis(200);
/// Peers that have not said hello yet, of all users and of one.
const SILENT_MAX: usize = 256;
const SILENT_MAX_PER_USER: usize = 64;
/// Connections accepted before other events get their turn.
const ACCEPT_BURST: usize = 16;
/// Lines in the log in ten seconds about what the processes of a user do wrong, and about those that come and go.
const LOG_LINES: u32 = 20;
const LOG_LINES_ATTACH: u32 = 100;

/// The apps' socket and everybody on it.
#[derive(Debug)]
pub struct Attach {
    listener: Listener,
    clients: Slab<Client>,
    /// What users may ask for: a connection is a request, too.
    requests: Budgets,
    names: UserNames,
    peer_log: RatelimitedLog,
    attach_log: RatelimitedLog,
    counts: AttachCounts,
}

#[derive(Debug)]
struct Client {
    connection: PeerConnection,
    /// Readable once the process has ended.
    process: Option<Arc<OwnedFd>>,
    identity: Identity,
    /// Its user, as limits know it.
    account: u32,
    /// The version of the protocol that it speaks, once it has said hello.
    protocol: u16,
    state: State,
    /// The next message to it, and which snapshot of the ports the workers have to use before. Until then nothing is received
    /// from it: so a client has no more than one request under way, and no more than two regions.
    reply: Option<(Envelope, u64)>,
    /// The rings that it has asked for and that are being made, or wait for memory.
    asked: Option<Rings>,
    /// Its request that its user's thread is at, and the answer if that goes well: to share memory, not to any more, or to seal its
    /// rings.
    working: Option<(u32, Message)>,
    /// Whether its next request is waited for.
    receiving: bool,
    /// When it was last begun to look at its process.
    refreshed: Instant,
}

/// A request for rings that has no reply yet.
#[derive(Debug)]
struct Rings {
    sequence: u32,
    setup: Setup,
    /// Whether they have to be asked for again, when there is more memory.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is being found out who it is, until then at most.
    Unknown(Instant),
    /// Only what its user is called is not known, until then at most.
    Nameless(Instant),
    /// It has until then to send its hello.
    AwaitsHello(Instant),
    /// It has this port.
    Attached(PortId),
    /// It goes at the end of this round of events.
    Closed,
}

impl Client {
    /// Whether its next request may be received, and is not yet waited for.
    const fn is_next(&self) -> bool {
        let waits = self.receiving || self.reply.is_some() || self.asked.is_some() || self.working.is_some();
        !waits && !matches!(self.state, State::Closed)
    }

    /// When its time is up, before it has a port.
    const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Unknown(deadline) | State::Nameless(deadline) | State::AwaitsHello(deadline) => Some(deadline),
            State::Attached(_) | State::Closed => None,
        }
    }

    /// Waits for its hello.
    fn await_hello(&mut self) {
        self.state = State::AwaitsHello(Instant::now() + HELLO_TIMEOUT);
        self.connection.listen();
    }

    /// Sends a message; a peer that does not read its replies is of no use.
    fn send(&self, sequence: u32, message: Message, fds: Vec<OwnedFd>) -> Result<(), String> {
        self.connection.send(Envelope { protocol: self.protocol, sequence, message }, fds)
    }
}

impl Attach {
    /// Serves `listener`. The apps of a user may make `requests_per_user` requests at once, and as many a second. `wake` is used
    /// when names of users [have been found](Self::take_names).
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn new(listener: Listener, requests_per_user: u32, wake: Wake, poller: &Poller) -> Result<Self, Errno> {
        poller.add(&listener, Token::AppListener)?;
        if !socket::refuse_descriptors(&listener) {
            log::debug!("this kernel lets apps send file descriptors: they are closed as they come");
        }
        // Now, while there are file descriptors to find it out with.
        if !identity::gives_handles() {
            log::debug!("this kernel gives no handle on a peer, so processes are distinguished by their start");
        }
        let (peer_log, attach_log) = (RatelimitedLog::new(LOG_LINES), RatelimitedLog::new(LOG_LINES_ATTACH));
        let requests = Budgets::new(requests_per_user, requests_per_user);
        let (names, counts) = (UserNames::new(wake), AttachCounts::default());
        Ok(Self { listener, clients: Slab::new(), requests, names, peer_log, attach_log, counts })
    }

    /// What has become of those who connected.
    #[must_use]
    pub const fn counts(&self) -> &AttachCounts {
        &self.counts
    }

    /// Connections, half-open ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Accepts the connections that wait.
    pub fn accept(&mut self, plane: &mut ControlPlane, poller: &Poller) {
        for _ in 0..ACCEPT_BURST {
            match self.listener.accept() {
                Ok(Some(socket)) => self.accept_one(socket, plane, poller),
                Ok(None) => return,
                Err(errno) => {
                    self.peer_log.warn(&format_args!("cannot accept apps for now: {errno}"));
                    self.listener.pause(poller, Token::AppListener);
                    return;
                }
            }
        }
    }

    fn accept_one(&mut self, socket: OwnedFd, plane: &mut ControlPlane, poller: &Poller) {
        // The user is known at once; the rest about a peer takes time.
        let peer = socket::peer_credentials(&socket).ok();
        let accepted = Accepted::now(peer.as_ref());
        let account = peer.map(|peer| plane.account(peer.uid));
        let connection = plane.peers_mut().connect(account, socket);
        if connection.user().is_swamped() {
            // Each takes a file descriptor until its turn has come. Others wait for a moment, too.
            self.listener.pause(poller, Token::AppListener);
        }
        let identity = Identity::unknown(peer.as_ref());
        if account.is_some_and(|account| !self.requests.has(account)) {
            connection
                .refuse(0, "the applications of this user have asked for too much of late: try again in a second");
            self.peer_log.warn(&format_args!("refused a connection: too many requests of uid {}", identity.uid));
            self.counts.note_too_many();
            return;
        }
        account.into_iter().for_each(|account| self.requests.spend(account));
        let account = plane.account(identity.uid);
        self.make_room(account, plane);
        connection.attest(accepted);
        let state = State::Unknown(Instant::now() + IDENTIFY_TIMEOUT);
        let (process, reply, asked, receiving, refreshed) = (None, None, None, true, Instant::now());
        self.clients.insert(Client {
            connection,
            process,
            identity,
            account,
            protocol: kopi_ring::PROTOCOL,
            state,
            reply,
            asked,
            working: None,
            receiving,
            refreshed,
        });
    }

    /// Takes in who a peer is. Its hello is received once its user has a name.
    fn identify(
        &mut self,
        at: usize,
        attested: Result<Box<(Identity, Option<OwnedFd>)>, IdentityError>,
        plane: &mut ControlPlane,
        poller: &Poller,
    ) {
        let Some(client) = self.clients.get_mut(at) else { return };
        let (identity, process) = match attested {
            Ok(found) => *found,
            Err(error) => return self.detach(at, error.into(), plane),
        };
        client.identity = identity;
        client.process = process.map(Arc::new);
        let watched = client.process.as_ref().map_or(Ok(()), |process| poller.add(process, Token::Exit(at)));
        if let Err(errno) = watched {
            return self.detach(at, DetachReason::Refused(errno.to_string()), plane);
        }
        // A uid that means nobody has no name.
        let name = client.identity.known_uid().map_or(UserName::Is(None), |uid| self.names.of(uid, client.account));
        match name {
            UserName::Is(name) => {
                client.identity.user = name;
                client.await_hello();
            }
            UserName::Later => client.state = State::Nameless(Instant::now() + NAME_TIMEOUT),
        }
    }

    /// Takes in names of users that have been found, and receives the hellos of clients that waited for theirs.
    pub fn take_names(&mut self, plane: &mut ControlPlane) {
        for (uid, name) in self.names.take() {
            plane.name(uid, name.as_deref());
            for (_, client) in self.clients.iter_mut().filter(|(_, client)| client.identity.known_uid() == Some(uid)) {
                client.identity.user.clone_from(&name);
                if let State::Nameless(_) = client.state {
                    client.await_hello();
                }
            }
        }
    }

    /// Lets go of a connection that has no port yet, if there are as many as there may be: of this user, or else of the one
    /// that has most. So a peer that connects and sends nothing keeps nobody out, under however many names.
    fn make_room(&mut self, account: u32, plane: &mut ControlPlane) {
        let silent = || self.clients.iter().filter_map(|(at, client)| Some((client.deadline()?, client.account, at)));
        let silent: Vec<_> = silent().collect();
        let Some(user) = fullest(silent.iter().map(|(deadline, user, _)| (*deadline, *user)), account) else { return };
        let of_user = silent.into_iter().filter(|(_, other, _)| *other == user);
        let Some((_, _, at)) = of_user.min() else { return };
        self.detach(at, DetachReason::MadeRoom, plane);
    }

    /// Handles the events that the peers' threads have sent. Returns the apps that may not stay as what their processes have
    /// become.
    pub fn receive(&mut self, plane: &mut ControlPlane, poller: &Poller) -> Vec<(PortId, DetachReason)> {
        let mut notices = Vec::new();
        while let Some(event) = plane.peers().events().receive() {
            notices.extend(self.handle(event, plane, poller));
        }
        notices
    }

    /// Handles one event, such as a request of a client. The reply comes with [`answer`](Self::answer), and the next request is
    /// received only after that.
    fn handle(&mut self, event: PeerEvent, plane: &mut ControlPlane, poller: &Poller) -> Vec<(PortId, DetachReason)> {
        let mut open = self.clients.iter_mut().filter(|(_, client)| client.state != State::Closed);
        let Some((at, client)) = open.find(|(_, client)| client.connection.serial() == event.serial) else {
            return Vec::new();
        };
        match event.kind {
            PeerEventKind::Attested(attested) => self.identify(at, attested, plane, poller),
            PeerEventKind::Changed(identity) => {
                // Its user's name may have been found meanwhile.
                let identity = Identity { user: client.identity.user.clone(), ..*identity };
                if let State::Attached(id) = client.state {
                    return plane.reidentify(id, identity);
                }
            }
            PeerEventKind::Shared(outcome) => {
                if let (Some((sequence, answer)), State::Attached(id)) = (client.working.take(), client.state) {
                    plane.shared(id);
                    let message = outcome.map_or_else(Message::Refused, |()| answer);
                    client.reply = Some((Envelope { protocol: client.protocol, sequence, message }, 0));
                }
            }
            PeerEventKind::Sealed(outcome) => {
                if let (Some((sequence, message)), State::Attached(id)) = (client.working.take(), client.state) {
                    match plane.sealed(id, outcome) {
                        Ok(()) => {
                            let envelope = Envelope { protocol: client.protocol, sequence, message };
                            client.reply = Some((envelope, plane.next_snapshot()));
                        }
                        Err(reason) => self.detach(at, reason, plane),
                    }
                }
            }
            PeerEventKind::Received(Ok(envelope)) => {
                self.requests.spend(client.account);
                // Not even its end is of interest before it has its reply.
                client.receiving = false;
                let had_port = matches!(client.state, State::Attached(_));
                let answered = respond(client, envelope, plane, &mut self.attach_log);
                self.counts.attached += u64::from(!had_port && matches!(client.state, State::Attached(_)));
                if let Err(reason) = answered {
                    self.detach(at, DetachReason::Failed(reason), plane);
                }
            }
            PeerEventKind::Received(Err(ReceiveError::Closed)) => self.detach(at, DetachReason::Ended, plane),
            PeerEventKind::Received(Err(error)) => self.detach(at, DetachReason::Refused(error.to_string()), plane),
            PeerEventKind::Slow(spent) => {
                let reason = format!("makes system calls on its socket slow: one took {} ms", spent.as_millis());
                self.detach(at, DetachReason::Failed(reason), plane);
            }
            PeerEventKind::Unsent(errno) => {
                self.detach(at, DetachReason::Failed(format!("does not take a message: {errno}")), plane);
            }
        }
        Vec::new()
    }

    /// Sends the replies whose effect all workers have taken up: an app that was told that its rings are served, or its
    /// address changed, may count on it for its next frame. The next requests of clients that may make another are received.
    pub fn answer(&mut self, plane: &mut ControlPlane) {
        let mut failed = Vec::new();
        for (at, client) in &mut self.clients {
            let due = client.reply.take_if(|(_, snapshot)| plane.uses(*snapshot));
            let sent = due.map_or(Ok(()), |(envelope, _)| {
                let (doorbell, rings) = match (&envelope.message, client.state) {
                    (Message::Ready(_), State::Attached(id)) => {
                        (plane.take_doorbell(id), plane.app(id).and_then(|app| app.region.as_ref()))
                    }
                    _ => (None, None),
                };
                let rings = rings.map(|region| region.fd().try_clone_to_owned()).transpose();
                let rings = rings.map_err(|error| format!("cannot be given its rings: {error}"))?;
                // Our end of the way to the client's goes with the message, and is closed by whoever sends it.
                let fds = rings.into_iter().chain(doorbell.map(OwnedFd::from)).collect();
                client.send(envelope.sequence, envelope.message, fds)
            });
            let may_ask = self.requests.has(client.account) && plane.may_change(client.account);
            if sent.is_ok() && client.is_next() && may_ask {
                client.connection.listen();
                client.receiving = true;
            }
            if let (Err(reason), true) = (sent, client.state != State::Closed) {
                failed.push((at, reason));
            }
        }
        for (at, reason) in failed {
            self.detach(at, DetachReason::Failed(reason), plane);
        }
    }

    /// Takes in what has become of rings that were being made, and asks again for those that wait for memory.
    pub fn take_regions(&mut self, plane: &mut ControlPlane) {
        let made = plane.take_regions();
        for (_, client) in &mut self.clients {
            let State::Attached(id) = client.state else { continue };
            let outcome = made.iter().find(|(port, _)| *port == id).map(|(_, outcome)| outcome.as_ref());
            let outcome = match (outcome, &mut client.asked) {
                (Some(outcome), Some(_)) => outcome.map_err(ToString::to_string),
                (None, Some(rings)) if rings.again => match plane.setup(id, &rings.setup) {
                    Ok(asked) => {
                        rings.again = asked == Asked::Later;
                        continue;
                    }
                    Err(error) => Err(error.to_string()),
                },
                _ => continue,
            };
            let Some(Rings { sequence, setup, .. }) = client.asked.take() else { continue };
            let message = outcome.map_or_else(Message::Refused, |()| Message::Ready(setup.geometry));
            client.reply = Some((Envelope { protocol: client.protocol, sequence, message }, plane.next_snapshot()));
        }
    }

    /// Whether a client waits for its reply.
    #[must_use]
    pub fn owes_replies(&self) -> bool {
        self.clients.iter().any(|(_, client)| client.reply.is_some())
    }

    /// Ends the connections of apps, each for its reason.
    pub fn detach_ports<R: Into<DetachReason>>(
        &mut self,
        ports: impl IntoIterator<Item = (PortId, R)>,
        plane: &mut ControlPlane,
    ) {
        for (id, reason) in ports {
            let found = self.clients.iter().find(|(_, client)| client.state == State::Attached(id));
            if let Some((at, _)) = found {
                self.detach(at, reason.into(), plane);
            }
        }
    }

    /// Reads again the names and cgroups of processes, which the policy follows. Apps that cannot be looked at any
    /// more go: what the policy says of them may be of somebody that they no longer are.
    pub fn look(&mut self, plane: &mut ControlPlane) {
        let mut unseen = Vec::new();
        for (at, client) in &mut self.clients {
            let (State::Attached(id), Some(process)) = (client.state, &client.process) else { continue };
            if plane.app(id).is_some_and(|app| client.connection.look(&app.identity, process)) {
                client.refreshed = Instant::now();
            } else if client.refreshed.elapsed() >= REFRESH_TIMEOUT {
                unseen.push(at);
            }
        }
        for at in unseen {
            self.detach(at, DetachReason::RefreshTimeout, plane);
        }
    }

    /// Sends the wire's link to every app.
    pub fn send_link(&mut self, link: Link, plane: &mut ControlPlane) {
        let attached = |(at, client): (usize, &Client)| matches!(client.state, State::Attached(_)).then_some(at);
        for at in self.clients.iter().filter_map(attached).collect::<Vec<_>>() {
            let sent = self.clients.get(at).map(|client| client.send(0, Message::Link(link), Vec::new()));
            if let Some(Err(reason)) = sent {
                self.detach(at, DetachReason::Failed(reason), plane);
            }
        }
    }

    /// Called ten times a second, `passed` after the last time: closes connections without a hello, grants further requests, lets a
    /// paused listener go on.
    pub fn tick(&mut self, passed: Duration, plane: &mut ControlPlane, poller: &Poller) {
        self.listener.resume(poller, Token::AppListener);
        self.peer_log.tick();
        self.attach_log.tick();
        self.requests.grant(passed);
        if let Some(away) = passed.checked_sub(AWAY) {
            // No peer is late while its messages could not be received.
            for (_, client) in &mut self.clients {
                if let State::Unknown(deadline) | State::Nameless(deadline) | State::AwaitsHello(deadline) =
                    &mut client.state
                {
                    *deadline += away;
                }
            }
        }
        let now = Instant::now();
        let is_late = |client: &Client| client.deadline().is_some_and(|deadline| now >= deadline);
        let late: Vec<_> = self.clients.iter().filter(|(_, client)| is_late(client)).map(|(at, _)| at).collect();
        for at in late {
            self.give_up(at, plane);
        }
    }

    /// A client's time is up.
    fn give_up(&mut self, at: usize, plane: &mut ControlPlane) {
        let Some(client) = self.clients.get_mut(at) else { return };
        match client.state {
            State::Nameless(_) => {
                let Identity { uid, .. } = client.identity;
                let line =
                    format_args!("the name service does not say what user {uid} is called: it is shown by its number");
                self.peer_log.warn_of(&client.identity, &line);
                client.await_hello();
            }
            State::Unknown(_) => self.detach(at, DetachReason::IdentifyTimeout, plane),
            State::AwaitsHello(_) => self.detach(at, DetachReason::HelloTimeout, plane),
            State::Attached(_) | State::Closed => {}
        }
    }

    /// Forgets the closed connections. Called after each round of events, so that an event of this round is never taken
    /// for one of a new connection with the same number.
    pub fn sweep(&mut self, poller: &Poller) {
        self.clients.retain(|_, client| {
            let stays = client.state != State::Closed;
            if !stays && let Some(process) = &client.process {
                // Its user's thread may hold it, too, so it would not leave by itself, and its number becomes another's.
                let _added = poller.remove(process);
            }
            stays
        });
    }

    /// Takes a client's port away and marks it closed. It is told the reason, and so is the log unless this is a normal end.
    pub fn detach(&mut self, at: usize, reason: DetachReason, plane: &mut ControlPlane) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if client.state == State::Closed {
            return;
        }
        if let Some(refusal) = reason.refusal() {
            client.connection.refuse(0, &refusal);
        }
        let state = std::mem::replace(&mut client.state, State::Closed);
        self.counts.note_end(matches!(state, State::Attached(_)), &reason);
        client.reply = None;
        client.asked = None;
        match &reason {
            DetachReason::Ended => {}
            // It has no name yet.
            DetachReason::Unidentified(_) => self.peer_log.warn_of(&client.identity, &reason),
            _ => self.peer_log.warn_of(&client.identity, &format_args!("{} {reason}", client.identity)),
        }
        if let State::Attached(id) = state
            && let Some(app) = plane.remove(id)
        {
            self.attach_log.log_of(
                Level::Info,
                &client.identity,
                &format_args!("{} left port {id} `{}`", client.identity, app.name),
            );
        }
    }
}

/// Of which user a silent connection has to go for one of `account`, if any has to. `silent` are those there are, with their
/// users and since when.
fn fullest(silent: impl Iterator<Item = (Instant, u32)> + Clone, account: u32) -> Option<u32> {
    if silent.clone().filter(|(_, user)| *user == account).count() >= SILENT_MAX_PER_USER {
        return Some(account);
    }
    if silent.clone().count() < SILENT_MAX {
        return None;
    }
    let mut users: BTreeMap<u32, (usize, Instant)> = BTreeMap::new();
    for (since, user) in silent {
        let (count, oldest) = users.entry(user).or_insert((0, since));
        *count += 1;
        *oldest = since.min(*oldest);
    }
    // With as many of each, the one that was silent for longest.
    users.into_iter().max_by_key(|(_, (count, oldest))| (*count, Reverse(*oldest))).map(|(user, _)| user)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections of `users`, each as many as said, one millisecond after the other.
    fn silent(begin: Instant, users: impl IntoIterator<Item = (u32, usize)>) -> Vec<(Instant, u32)> {
        let users = users.into_iter().flat_map(|(user, count)| std::iter::repeat_n(user, count));
        users.zip(0..).map(|(user, at)| (begin + Duration::from_millis(at), user)).collect()
    }

    /// A newcomer is never refused: who has most makes room, a user with its limit for itself; and where all have one, as under
    /// many uids, the one that was silent for longest.
    #[test]
    fn who_has_most_silent_connections_makes_room() {
        let now = Instant::now();
        let goes = |table: &[(Instant, u32)], newcomer| fullest(table.iter().copied(), newcomer);
        assert_eq!(goes(&silent(now, [(1, 63), (2, 64)]), 1), None);
        assert_eq!(goes(&silent(now, [(1, 63), (2, 64)]), 2), Some(2));
        assert_eq!(goes(&silent(now, [(1, 62), (2, 63), (3, 63), (4, 60), (5, 8)]), 9), Some(2));
        assert_eq!(goes(&silent(now, (1..=256).map(|user| (user, 1))), 999), Some(1));
        let mut many = silent(now, (1..=255).map(|user| (user, 1)));
        many.push((now + Duration::from_secs(1), 77));
        assert_eq!(goes(&many, 999), Some(77));
    }
}

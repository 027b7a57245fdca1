//! The operators' socket: one JSON object a line, in both directions.
//!
//! `{"command": "apps"}` is answered by an object with one array of that name, or by `{"error": "…"}`. Other keys of a
//! request are the arguments of its command, and one file descriptor may come with it (`SCM_RIGHTS`, unix(7)). Whoever
//! may connect may ask: the socket's owner, group and mode decide.
//!
//! Each connection has a thread of its own (`connection`), which has the socket, what comes with requests, and who asks. The control
//! thread accepts connections and answers questions, one at a time, of the user that has had least of its time: so much of a second is
//! the most that the operators of a user may have. Input, descriptors, connections and threads are bounded.

mod answer;
pub(crate) mod connection;

pub use answer::{Answer, Next, Part, Rows};

use crate::capture::PendingCapture;
use crate::capture::request::Request as Capture;
use crate::control::budgets::Budgets;
use crate::control::helper::Wake;
use crate::control::listener::Listener;
use crate::control::mailbox::{MailSender, Mailbox};
use crate::control::peers::Peers;
use crate::control::poller::{Poller, Token};
use crate::control::ratelimit::RatelimitedLog;
use crate::control::reload::{PolicySource, Wanted};
use crate::control::stats::Sources;
use connection::OperatorConnection;
use kopi_api::refusal;
use kopi_ring::socket::peer_credentials;
use rustix::fd::OwnedFd;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Operators at one time, and those of one user. One more takes the place of the one that was silent for longest: of this user, or of
/// the one that has most.
const OPERATORS: usize = 128;
const OPERATORS_PER_USER: usize = 64;
/// Threads that a user's operators may have, those included that were let go of and hang. So many may be there for a moment, too:
/// who has just come is about to ask.
const THREADS_PER_USER: usize = 2 * OPERATORS_PER_USER;
const MOMENT: Duration = Duration::from_secs(1);
/// Timeout for workers to evaluate by a new policy before an operator is told that it is in force. One that is off its core for
/// long is not waited for.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(100);
/// Milliseconds of the control thread that the operators of a user may have in a second, and save.
const TIME: u32 = 250;
/// Lines about operators in the log in ten seconds.
const LOG_LINES: u32 = 20;
/// Whose time kopid's own questions take: that of a uid which nobody can have.
const OWN_ACCOUNT: u32 = u32::MAX;

/// What an operator asks. There is nothing in it that the operator holds, too.
#[derive(Debug)]
pub struct Question {
    /// What is to be done.
    pub command: String,
    /// The other keys of the request.
    pub arguments: Map<String, Value>,
    /// Whose it is: the user, as limits know it.
    pub account: u32,
    /// What its connection's thread has made ready.
    pub brought: Brought,
}

/// What comes with a question.
#[derive(Debug)]
pub enum Brought {
    /// Nothing.
    Nothing,
    /// What comes after a part of an answer.
    Next(Next),
    /// For `reload`, and who asks for it, for the log.
    Policy(Box<Wanted>, String),
    /// For `capture`.
    Capture(Arc<Capture>),
}

impl Question {
    /// Refuses an argument which is not one of `known`. What is misspelled must not be passed over: a filter would show everything.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub fn check(&self, known: &[&str]) -> Result<(), String> {
        match self.arguments.keys().find(|name| !known.contains(&name.as_str())) {
            Some(stranger) => Err(format!("`{}` has no argument `{stranger}`", self.command)),
            None => Ok(()),
        }
    }
}

/// The operators' socket and everybody on it.
#[derive(Debug)]
pub struct Control {
    listener: Listener,
    operators: Vec<Arc<Shared>>,
    inbox: Arc<Inbox>,
    messages: Mailbox<Message>,
    waiting: Vec<Asked>,
    coming: Vec<Coming>,
    time: Budgets,
    peer_log: RatelimitedLog,
}

/// Has the control thread tell something to a thread of kopid's own, in its turn among the operators.
#[derive(Debug)]
pub struct Asker(MailSender<Message>);

impl Asker {
    /// What `take` gives, which runs on the control thread and must not take long. `None` if kopid ends, or does not come to it
    /// within `timeout`.
    pub fn ask<T: Send + 'static>(
        &self,
        timeout: Duration,
        take: impl FnOnce(&mut Sources<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (to, taken) = sync_channel(1);
        let next = Next::new(move |sources| {
            drop(to.try_send(take(sources)));
            Answer::Reply(String::new())
        });
        let (command, arguments, brought) = (String::new(), Map::new(), Brought::Next(next));
        let question = Question { command, arguments, account: OWN_ACCOUNT, brought };
        // What the control thread replies is nothing.
        self.0.send(Message::Asked(Asked { question, answer: sync_channel(1).0 }));
        taken.recv_timeout(timeout).ok()
    }
}

/// Where the threads of connections ask.
#[derive(Debug)]
struct Inbox {
    messages: MailSender<Message>,
    source: Arc<PolicySource>,
    begun: Instant,
}

/// What the thread of a connection has to say.
#[derive(Debug)]
enum Message {
    /// A question.
    Asked(Asked),
    /// The connection is closed, for this reason.
    Closed(String),
}

/// A question that waits to be answered.
#[derive(Debug)]
struct Asked {
    question: Question,
    answer: SyncSender<Answer>,
}

/// A reply that waits for workers.
#[derive(Debug)]
struct Coming {
    snapshot: u64,
    until: Instant,
    reply: String,
    answer: SyncSender<Answer>,
}

/// What the control thread and a connection's have in common.
#[derive(Debug)]
struct Shared {
    account: u32,
    inbox: Arc<Inbox>,
    leave: Wake,
    /// Milliseconds from the beginning until it last asked something, or came.
    last_request: AtomicU64,
    stage: AtomicU8,
}

/// What a connection's thread does: it waits for its operator; it works on a request; it is a capture's; it was told to leave; it has
/// ended. Only the first two know of each other.
const WAITS: u8 = 0;
const WORKS: u8 = 1;
const CAPTURES: u8 = 2;
const LEAVES: u8 = 3;
const ENDED: u8 = 4;

impl Inbox {
    /// An inbox, and where what is sent there comes out.
    fn new(source: Arc<PolicySource>) -> std::io::Result<(Self, Mailbox<Message>)> {
        let (sender, messages) = Mailbox::new()?;
        Ok((Self { messages: sender, source, begun: Instant::now() }, messages))
    }

    fn since(&self, then: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(then))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Shared {
    fn new(account: u32, inbox: &Arc<Inbox>) -> std::io::Result<Self> {
        let last_request = AtomicU64::new(inbox.now());
        Ok(Self { account, inbox: Arc::clone(inbox), leave: Wake::new()?, last_request, stage: AtomicU8::new(WAITS) })
    }

    /// Notes that a request is there.
    fn begin_request(&self) {
        self.last_request.store(self.inbox.now(), Relaxed);
        let _changed = self.change(WAITS, WORKS);
    }

    /// Notes that it waits for its operator.
    fn end_request(&self) {
        let _changed = self.change(WORKS, WAITS);
    }

    fn capture(&self) {
        self.stage.store(CAPTURES, Relaxed);
    }

    /// Whether it was in stage `from`. Who was told to leave does.
    fn change(&self, from: u8, to: u8) -> bool {
        self.stage.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    fn is(&self, stages: &[u8]) -> bool {
        stages.contains(&self.stage.load(Relaxed))
    }
}

/// Notes that a connection's thread has ended, however it does.
struct Here(Arc<Shared>);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.stage.store(ENDED, Relaxed);
    }
}

impl Control {
    /// Serves `listener`. `source` is what operators reload.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory or file descriptors are short.
    pub fn new(listener: Listener, source: Arc<PolicySource>, poller: &Poller) -> std::io::Result<Self> {
        let (inbox, messages) = Inbox::new(source)?;
        let inbox = Arc::new(inbox);
        poller.add(&listener, Token::ControlListener)?;
        poller.add(&messages, Token::Operators)?;
        let (time, peer_log) = (Budgets::new(TIME, TIME), RatelimitedLog::new(LOG_LINES));
        Ok(Self {
            listener,
            operators: Vec::new(),
            inbox,
            messages,
            waiting: Vec::new(),
            coming: Vec::new(),
            time,
            peer_log,
        })
    }

    /// A way to ask for another thread of kopid's.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker(self.inbox.messages.clone())
    }

    /// Accepts one operator. `account` says which user a uid is.
    pub fn accept(&mut self, account: impl Fn(u32) -> u32, peers: &mut Peers, poller: &Poller) {
        let socket = match self.listener.accept() {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(errno) => {
                self.peer_log.warn(&format_args!("cannot accept operators for now: {errno}"));
                self.listener.pause(poller, Token::ControlListener);
                return;
            }
        };
        let uid = peer_credentials(&socket).ok().map(|peer| account(peer.uid));
        let account = uid.unwrap_or(crate::control::identity::OVERFLOW_ID);
        let refused = match self.make_room(account) {
            Ok(()) => match self.start(account) {
                Ok(serve) => return serve(socket),
                Err(error) => format!("no thread for an operator: {error}"),
            },
            Err(why) => why,
        };
        self.peer_log.warn(&format_args!("refused an operator: {refused}"));
        if peers.is_behind(uid) {
            // Each takes a file descriptor until its turn has come. Others wait for a moment, too.
            self.listener.pause(poller, Token::ControlListener);
        }
        // Nothing of it is touched here.
        peers.refuse_operator(uid, socket, refusal(&refused));
    }

    /// A thread for an operator, which is to be given the connection.
    fn start(&mut self, account: u32) -> std::io::Result<impl FnOnce(OwnedFd) + use<>> {
        let inbox = Arc::clone(&self.inbox);
        let shared = Arc::new(Shared::new(account, &inbox)?);
        let here = Here(Arc::clone(&shared));
        let (give, given) = channel();
        let own = Arc::clone(&shared);
        // It inherits the control thread's CPUs: those without a worker, if there are any.
        std::thread::Builder::new().name(format!("kopi-operator-{account}")).spawn(move || {
            let _here = here;
            if let Ok(socket) = given.recv() {
                OperatorConnection::new(socket, own, inbox).run();
            }
        })?;
        self.operators.push(shared);
        // The thread waits for it.
        Ok(move |socket| drop(give.send(socket)))
    }

    /// Lets go of the operator that was silent for longest, if there are as many as there may be: of this user, or else of the one
    /// that has most. So nobody who connects and says nothing keeps others out.
    ///
    /// # Errors
    ///
    /// A text for people, if there is no room to be made.
    fn make_room(&mut self, account: u32) -> Result<(), String> {
        self.sweep();
        let hang = self
            .operators
            .iter()
            .filter(|operator| operator.account == account && operator.is(&[WORKS, CAPTURES, LEAVES]));
        if hang.count() >= THREADS_PER_USER {
            return Err(format!(
                "{THREADS_PER_USER} connections of this user hang, at files or a name service that do not answer"
            ));
        }
        let mut users: BTreeMap<u32, usize> = BTreeMap::new();
        for operator in self.operators.iter().filter(|operator| operator.is(&[WAITS, WORKS])) {
            *users.entry(operator.account).or_default() += 1;
        }
        let own = users.get(&account).copied().unwrap_or(0);
        let is_full = own >= OPERATORS_PER_USER;
        if !is_full && users.values().sum::<usize>() < OPERATORS {
            return Ok(());
        }
        let silent = self.operators.iter().filter(|operator| operator.is(&[WAITS]));
        let silent = silent.filter(|operator| !is_full || operator.account == account);
        let most = |operator: &&Arc<Shared>| {
            (users.get(&operator.account).copied(), Reverse(operator.last_request.load(Relaxed)))
        };
        let threads = self.operators.iter().filter(|operator| operator.account == account).count();
        match silent.max_by_key(most) {
            Some(operator)
                if self.inbox.since(operator.last_request.load(Relaxed)) < MOMENT && threads < THREADS_PER_USER - 1 =>
            {
                Ok(())
            }
            Some(operator) => {
                // If a request of it has come just now, it stays.
                if operator.change(WAITS, LEAVES) {
                    operator.leave.wake();
                }
                self.peer_log.warn(&format_args!("let go of an operator that was silent: there are too many"));
                Ok(())
            }
            // A user that has none is let in.
            None if own == 0 => Ok(()),
            None => Err("too many connections, and all of them wait for an answer".to_owned()),
        }
    }

    /// Lets a paused listener go on, and grants users time, `passed` after the last time. To be called now and then.
    pub fn tick(&mut self, passed: Duration, poller: &Poller) {
        self.listener.resume(poller, Token::ControlListener);
        self.time.grant(passed);
        self.peer_log.tick();
        self.sweep();
    }

    /// Takes in what the threads of connections have to say.
    pub fn receive(&mut self) {
        while let Some(message) = self.messages.receive() {
            match message {
                Message::Asked(asked) => self.waiting.push(asked),
                Message::Closed(reason) => {
                    self.peer_log.warn(&format_args!("closed an operator's connection: {reason}"));
                }
            }
        }
    }

    /// Whether a question waits that may be answered now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.waiting.iter().any(|asked| self.time.has(asked.question.account))
    }

    /// Answers one question: of the user that has most time left, if it has any. `answer` returns `None` if there is no such command.
    pub fn serve(&mut self, answer: impl FnOnce(Question) -> Option<Answer>) {
        let due = self.waiting.iter().enumerate().filter(|(_, asked)| self.time.has(asked.question.account));
        let next =
            due.max_by_key(|(at, asked)| (self.time.left(asked.question.account), Reverse(*at))).map(|(at, _)| at);
        let Some(next) = next else { return };
        let Asked { question, answer: reply } = self.waiting.remove(next);
        let account = question.account;
        let begun = Instant::now();
        let unknown = format!("unknown command `{}`", question.command);
        let answered = answer(question).unwrap_or(Answer::Refused(unknown));
        self.time.spend_time(account, begun.elapsed());
        match answered {
            Answer::InForce(snapshot, line) => {
                let until = Instant::now() + PUBLISH_TIMEOUT;
                self.coming.push(Coming { snapshot, until, reply: line, answer: reply });
            }
            // There is room for it. Whoever has gone does not need it.
            answered => drop(reply.try_send(answered)),
        }
    }

    /// Gives the replies whose snapshot all workers use.
    pub fn reply_in_force(&mut self, uses: impl Fn(u64) -> bool) {
        let come = |coming: &mut Coming| uses(coming.snapshot) || Instant::now() >= coming.until;
        for Coming { reply, answer, .. } in self.coming.extract_if(.., come) {
            drop(answer.try_send(Answer::Reply(reply)));
        }
    }

    /// Whether a reply waits for workers.
    #[must_use]
    pub const fn awaits_replies(&self) -> bool {
        !self.coming.is_empty()
    }

    /// Forgets connections that have ended.
    fn sweep(&mut self) {
        self.operators.retain(|operator| !operator.is(&[ENDED]));
    }
}

#[cfg(test)]
mod tests;

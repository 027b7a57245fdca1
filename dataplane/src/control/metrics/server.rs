//! The thread that serves metrics: everybody in turn, and nobody for long.

use super::connection::{Outcome, ScrapeConnection};
use super::encode::Format;
use super::figures::Figures;
use super::http::{OK, Refused, ScrapeRequest, UNAVAILABLE, head};
use super::listener::MetricsListener;
use crate::control::helper::Wake;
use crate::control::server::Asker;
use kopi_config::Metrics;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections at one time. One more takes the place of the oldest: a scrape is over within milliseconds, and whoever is slow is at fault.
const CONNECTIONS: usize = 32;
/// Connections accepted before those that are there get their turn.
const ACCEPT_BURST: usize = 8;
/// Figures that are younger are shown again: however many ask, the control thread is asked ten times a second.
const FRESH: Duration = Duration::from_millis(100);
/// Pause of accepting when file descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";
const INDEX: &str = "kopid: /metrics\n";

/// What the thread has.
#[derive(Debug)]
pub(super) struct Server {
    listener: MetricsListener,
    leave: Wake,
    asker: Asker,
    config: Metrics,
    connections: Vec<ScrapeConnection>,
    /// When accepting goes on, if it is paused.
    paused_until: Option<Instant>,
    /// The last figures, when they were taken, and as texts.
    figures: Option<(Instant, Arc<Figures>)>,
    texts: Vec<(Format, Arc<str>)>,
}

impl Server {
    pub(super) fn new(listener: MetricsListener, leave: Wake, asker: Asker, config: Metrics) -> Self {
        let (connections, texts) = (Vec::new(), Vec::new());
        Self { listener, leave, asker, config, connections, paused_until: None, figures: None, texts }
    }

    /// Serves until it is told to leave.
    pub(super) fn run(mut self) {
        loop {
            match self.wait() {
                Ok((true, ..)) => return,
                Ok((false, accepts, ready)) => {
                    self.serve(&ready);
                    if accepts {
                        self.accept();
                    }
                }
                // Nothing of this thread's is ever wrong with a poll but memory, which may be there later.
                Err(_) => std::thread::park_timeout(PAUSE),
            }
            let now = Instant::now();
            self.connections.retain(|connection| connection.deadline() > now);
            self.paused_until = self.paused_until.filter(|until| *until > now);
            if self.stale_at().is_some_and(|stale| stale <= now) {
                // They may be large, and hold on to rules that are not in force any more.
                self.texts.clear();
                self.figures = None;
            }
        }
    }

    /// When the figures are too old to be shown again.
    fn stale_at(&self) -> Option<Instant> {
        self.figures.as_ref().map(|(taken, _)| *taken + FRESH)
    }

    /// Waits for whatever comes first. Returns whether to leave, whether somebody connects, and whose turn it is.
    fn wait(&self) -> rustix::io::Result<(bool, bool, Vec<bool>)> {
        let accepts = if self.paused_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&self.leave, PollFlags::IN), PollFd::new(&self.listener, accepts)];
        fds.extend(self.connections.iter().map(|connection| PollFd::new(connection, connection.wants())));
        let until = self
            .connections
            .iter()
            .map(ScrapeConnection::deadline)
            .chain(self.paused_until)
            .chain(self.stale_at())
            .min();
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        match poll(&mut fds, timeout.and_then(|timeout| Timespec::try_from(timeout).ok()).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let (leave, accepts) = (ready.next().unwrap_or_default(), ready.next().unwrap_or_default());
        Ok((leave, accepts && self.paused_until.is_none(), ready.collect()))
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_BURST {
            match self.listener.accept() {
                Ok(Some(socket)) => {
                    if self.connections.len() >= CONNECTIONS {
                        self.connections.remove(0);
                    }
                    self.connections.push(ScrapeConnection::new(socket, Instant::now()));
                }
                Ok(None) => return,
                Err(errno) => {
                    log::debug!("cannot accept who asks for metrics for now: {errno}");
                    self.paused_until = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    /// Gives those that are `ready` their turn.
    fn serve(&mut self, ready: &[bool]) {
        let mut connections = std::mem::take(&mut self.connections);
        let mut ready = ready.iter().copied();
        connections.retain_mut(|connection| !ready.next().unwrap_or_default() || self.proceed(connection));
        self.connections = connections;
    }

    /// Goes on with one connection. Returns whether it stays.
    fn proceed(&mut self, connection: &mut ScrapeConnection) -> bool {
        match connection.proceed(Instant::now()) {
            Outcome::Waits => return true,
            Outcome::Over => return false,
            Outcome::Refuses(refused) => refuse(connection, refused),
            Outcome::Asks(ScrapeRequest::Index) => {
                connection.answer(head(OK, PLAIN, INDEX.len()), INDEX.into(), Instant::now());
            }
            Outcome::Asks(ScrapeRequest::Metrics { format, head_only }) => match self.text(format) {
                Some(text) => {
                    let head = head(OK, format.content_type(), text.len());
                    connection.answer(head, if head_only { "".into() } else { text }, Instant::now());
                }
                None => refuse(connection, UNAVAILABLE),
            },
        }
        // Mostly the answer fits the socket.
        connection.proceed(Instant::now()) != Outcome::Over
    }

    /// The metrics, as they were within the last moment. `None` if the control thread does not tell.
    fn text(&mut self, format: Format) -> Option<Arc<str>> {
        if self.stale_at().is_none_or(|stale| stale <= Instant::now()) {
            self.texts.clear();
            let figures = Figures::collect(&self.asker, &self.config)?;
            self.figures = Some((Instant::now(), Arc::new(figures)));
        }
        if let Some((_, text)) = self.texts.iter().find(|(of, _)| *of == format) {
            return Some(Arc::clone(text));
        }
        let (_, figures) = self.figures.as_ref()?;
        let text: Arc<str> = format.encode(figures).ok()?.into();
        self.texts.push((format, Arc::clone(&text)));
        Some(text)
    }
}

fn refuse(connection: &mut ScrapeConnection, refused: Refused) {
    let Refused(number, words) = refused;
    let text = format!("{number} {words}\n");
    connection.answer(head(refused, PLAIN, text.len()), text.into(), Instant::now());
}

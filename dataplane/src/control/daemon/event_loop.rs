//! The event loop of the control thread.

use super::DaemonError;
use crate::control::attach::Attach;
use crate::control::detach::DetachReason;
use crate::control::helper::Wake;
use crate::control::operator::Operator;
use crate::control::plane::ControlPlane;
use crate::control::poller::{Poller, Token};
use crate::control::reload::{Hangup, Reload};
use crate::control::server::Control;
use crate::control::signals::{SignalRequest, Signals};
use crate::control::stats::{self, Facts};
use crate::control::wire_device::WireDevice;
use crate::host::Host;
use crate::ids::WIRE;
use dpdk::Pool;
use kopi_ring::Region;
use std::time::{Duration, Instant};

/// Period in which counters are shown, the link is read, and late peers are closed.
const TICK: Duration = Duration::from_millis(100);
/// Period in which processes and accounts are read again: the policy follows them within a second.
pub(super) const REFRESH_PERIOD: Duration = Duration::from_millis(500);
/// Period in which workers' replies are received while one is outstanding.
const REPLY_PERIOD: Duration = Duration::from_millis(1);

/// The event loop's state.
pub(super) struct Events<'a> {
    pub(super) poller: Poller,
    pub(super) wake: Wake,
    pub(super) plane: ControlPlane,
    pub(super) attach: Attach,
    pub(super) control: Control,
    pub(super) hangup: Hangup,
    pub(super) host: Option<Host>,
    pub(super) device: &'a mut WireDevice,
    pub(super) pool: &'a Pool,
    pub(super) since: Instant,
    pub(super) ticked: Instant,
    pub(super) next_refresh: Instant,
    pub(super) hz: u64,
}

impl Events<'_> {
    pub(super) fn run(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let (mut next_tick, mut stops) = (Instant::now() + TICK, false);
        loop {
            let until_tick = next_tick.saturating_duration_since(Instant::now());
            let awaits = self.plane.awaits_replies() || self.attach.owes_replies() || self.control.awaits_replies();
            let timeout = if awaits { REPLY_PERIOD.min(until_tick) } else { until_tick };
            let timeout = self.plane.until_published().map_or(timeout, |until| until.min(timeout));
            let timeout = if self.control.is_due() { Duration::ZERO } else { timeout };
            for token in self.poller.wait(timeout)? {
                match token {
                    Token::Signal => stops |= self.handle_signals(signals),
                    token => self.handle(token),
                }
            }
            if stops {
                return Ok(());
            }
            let faults = self.plane.handle_replies();
            if let Some((_, fault)) = faults.iter().find(|(id, _)| Some(*id) == self.plane.host()) {
                return Err(DaemonError::HostGone(format!("the rings of the host port are broken: {fault}")));
            }
            self.attach.detach_ports(faults, &mut self.plane);
            self.plane.publish();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick()?;
            }
            self.attach.answer(&mut self.plane);
            self.attach.sweep(&self.poller);
            self.serve();
            self.control.reply_in_force(|snapshot| self.plane.uses(snapshot));
        }
    }

    fn handle(&mut self, token: Token) {
        let Self { poller, plane, attach, control, hangup, wake, .. } = self;
        match token {
            Token::Signal => {}
            Token::AppListener => attach.accept(plane, poller),
            Token::ControlListener => {
                let users = plane.users();
                control.accept(|uid| users.of(uid), plane.peers_mut(), poller);
            }
            Token::Peers => {
                let detached = attach.receive(plane, poller);
                attach.detach_ports(detached, plane);
            }
            Token::Helpers => {
                wake.clear();
                attach.take_names(plane);
                plane.take_host_sockets();
                let detached = plane.refresh();
                attach.detach_ports(detached, plane);
                if let Some((read, who)) = hangup.take() {
                    reload(read, &who, plane, attach);
                }
            }
            Token::Exit(at) => attach.detach(at, DetachReason::Ended, plane),
            Token::Operators => control.receive(),
            Token::Captures => plane.handle_captures(),
            Token::Regions => attach.take_regions(plane),
            // Whose hole it was is found out before the next event is waited for.
            Token::Hole => Region::hush_holes(),
        }
    }

    /// Answers one operator. Others and applications have their turn before the next.
    fn serve(&mut self) {
        let Self { plane, attach, control, hangup, host, device, .. } = self;
        let (since, hz, pool) = (self.since, self.hz, self.pool);
        control.serve(|question| {
            let attaches = attach.counts().clone();
            let facts = Facts {
                uptime_seconds: since.elapsed().as_secs(),
                tsc_hz: hz,
                device: device.stats(),
                mbufs: (pool.mbufs(), pool.available()),
                connections: attach.connections(),
                attaches: &attaches,
                unread_policies: hangup.failed(),
                host: host.as_ref(),
            };
            stats::answer(question, plane, attach, &facts)
        });
    }

    /// Handles the signals that have come. Returns whether kopid is to end.
    fn handle_signals(&mut self, signals: &mut Signals) -> bool {
        let mut stops = false;
        for request in signals.take() {
            match request {
                SignalRequest::Reload(sender) => self.hang_up(sender),
                SignalRequest::Stop(sender) => {
                    // Without the name of the user: a name service would have to be waited for.
                    let uid = sender.map_or_else(|| "the kernel".to_owned(), |sender| format!("uid {}", sender.uid));
                    let pid =
                        sender.and_then(|sender| sender.pid).map(|pid| format!(", pid {pid}")).unwrap_or_default();
                    log::info!("stopping: {uid}{pid} has sent SIGTERM or SIGINT");
                    stops = true;
                }
            }
        }
        stops
    }

    /// Reads the configured policy again, on another thread, after a SIGHUP of `sender`.
    fn hang_up(&mut self, sender: Option<Operator>) {
        if self.plane.policy().path().is_none() {
            log::info!("SIGHUP: there is no `policy` in kopid.toml to read again; kopid.toml itself needs a restart");
        } else if let Err(error) = self.hangup.read(sender) {
            log::error!("SIGHUP: the policy in force stays: {error}");
        }
    }

    fn tick(&mut self) -> Result<(), DaemonError> {
        let passed = self.ticked.elapsed();
        self.ticked = Instant::now();
        self.plane.grant(passed);
        self.attach.tick(passed, &mut self.plane, &self.poller);
        self.control.tick(passed, &self.poller);
        let holes = self.plane.holes();
        self.attach.detach_ports(holes, &mut self.plane);
        self.plane.peers_mut().sweep();
        self.plane.show_drops();
        self.plane.handle_captures();
        let detached = self.plane.tick(dpdk::tsc(), self.hz);
        if Instant::now() >= self.next_refresh {
            self.next_refresh = Instant::now() + REFRESH_PERIOD;
            self.plane.check_accounts();
            self.attach.look(&mut self.plane);
            self.plane.read_host_sockets();
        }
        self.attach.detach_ports(detached, &mut self.plane);
        self.device.tick(&self.plane.dataplane().totals(WIRE), self.plane.dataplane().finished());
        let link = self.device.link();
        if !self.plane.set_link(link) {
            self.device.log_reason(link);
        } else {
            self.device.log_link(link);
            // The workers first, so that nobody counts on a link that they do not know of.
            self.plane.publish_now();
            self.attach.send_link(link, &mut self.plane);
        }
        if let Some(host) = &mut self.host {
            host.tick(link.up).map_err(DaemonError::HostGone)?;
        }
        if self.plane.dataplane().is_alive() { Ok(()) } else { Err(DaemonError::WorkerGone) }
    }
}

/// Puts the policy that was read after a SIGHUP of `who` in force. Whatever is wrong with it, the one in force stays.
fn reload(read: Result<Reload, String>, who: &str, plane: &mut ControlPlane, attach: &mut Attach) {
    let outcome = read.and_then(|reload| {
        // Only the log can tell the sender of a signal.
        reload.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        stats::put_in_force(&reload, None, who, plane, attach)
    });
    if let Err(error) = outcome {
        log::error!("{who}: the policy in force stays: {error}");
    }
}

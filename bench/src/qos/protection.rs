//! How long frames of a priority class are under way while bulk apps saturate the wire, and while they do not.
//!
//! The trips are those of the latency benchmark: application, kopid, a wire that gives back what it takes, kopid,
//! application. Nothing waits on the way back, and kopid keeps to the rate of the wire, so what a trip takes longer
//! beside bulk apps is what its frame waited for them. The same thread sends for all apps, and its rounds are longer with
//! more of them, which counts as waiting, too.

use std::time::Duration;

use super::app::{self, Work};
use super::load::{PATIENCE, Senders};
use crate::contender::{Kopi, Service};
use crate::error::{BenchError, Result};
use crate::latency::Trips;
use crate::rounds::{Experiment, Method, Pair};
use crate::setup::{Setup, Wire};

/// Trips per second.
pub(crate) const RATE: u32 = 20_000;
/// Length of the bulk frames of each app.
pub(crate) const BULK: [u16; 4] = [1518; 4];
/// Rates of the wire, by name.
pub(super) const WIRES: [&str; 2] = ["1gbit", "10gbit"];
/// What the experiments are called: without bulk frames, again, and with them.
pub(crate) const IDLE: &str = "idle";
pub(super) const AGAIN: &str = "again";
pub(crate) const BUSY: &str = "busy";

/// One app whose frames come first, and those of [`BULK`], which send or do not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protection {
    wire: &'static str,
    busy: bool,
}

/// The experiments on a wire of rate `wire`, by their names.
pub(crate) const fn experiments(wire: &'static str) -> [(&'static str, Protection); 3] {
    let [idle, busy] = [Protection { wire, busy: false }, Protection { wire, busy: true }];
    [(IDLE, idle), (AGAIN, idle), (BUSY, busy)]
}

/// kopid with the policy of the experiments on a wire of rate `wire`. What comes back of the bulk frames goes no further
/// than to kopid.
pub(crate) fn contender(wire: &'static str) -> Kopi {
    let mut text = format!(
        "[wire]\nrate = \"{wire}\"\n\
         [[rule]]\nname = \"bulk\"\nmatch = {{ direction = \"ingress\", proto = \"udp\", src_port = {port} }}\naction = \"drop\"\n\
         [[class]]\nname = \"c0\"\npriority = 0\n\
         [[app]]\nname = \"app0\"\nclass = \"c0\"\n",
        port = super::frames::PORT,
    );
    for app in 1..=BULK.len() {
        text += &format!("[[class]]\nname = \"c{app}\"\n[[app]]\nname = \"app{app}\"\nclass = \"c{app}\"\n");
    }
    Kopi { name: wire, policy: Some(text), ..Kopi::PLAIN }
}

impl Experiment for Protection {
    type App = Senders;
    type Measured = Trips;

    fn label(&self) -> String {
        format!("protection, {}", self.wire)
    }

    fn wire(&self) -> Wire {
        Wire::new("net_ring0")
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Senders> {
        Senders::start(setup, name, service, Work::Trips, &BULK)
    }

    fn measure(&self, _setup: &Setup, method: &Method, pair: &mut Pair<Senders>) -> Result<Trips> {
        measure(self.busy, method, pair)
    }

    fn describe(&self, trips: &Trips) -> String {
        describe(trips)
    }
}

/// Takes one sample, while the bulk apps are busy or not.
///
/// # Errors
///
/// When the application does not answer, or nothing came back.
pub(crate) fn measure(busy: bool, method: &Method, pair: &mut Pair<Senders>) -> Result<Trips> {
    let mut trips = |time: Duration| {
        let line = pair.app.ask(&app::trips(RATE, busy, time), time + PATIENCE)?;
        Trips::parse(&line).ok_or_else(|| BenchError::Failed(format!("the application said {line}")))
    };
    trips(method.warm_up)?;
    match trips(method.window)? {
        Trips { count: 0, lost, .. } => Err(BenchError::Failed(format!("none of {lost} frames came back"))),
        trips => Ok(trips),
    }
}

/// Trips in a few words.
pub(crate) fn describe(trips: &Trips) -> String {
    let Trips { count, lost, p50_ns, p99_ns, p999_ns } = trips;
    format!("p50 {p50_ns} ns, p99 {p99_ns} ns, p99.9 {p999_ns} ns of {count} trips, {lost} lost")
}

//! What the control thread knows, taken out of it to be written elsewhere.
//!
//! It is away for what a copy of some numbers takes. What grows with the policy is taken by reference, or some at a time, and summed up
//! by whoever writes it.

use crate::capture::CaptureTotals;
use crate::control::app::App;
use crate::control::attach::AttachCounts;
use crate::control::classes::{ClassPart, DelayCounts};
use crate::control::plane::ControlPlane;
use crate::control::policy::{Counted, ReloadCounts};
use crate::control::server::Asker;
use crate::control::stats::{self, Facts, Sources};
use crate::ids::WIRE;
use crate::worker::counters::PortTotals;
use dpdk::Stats;
use kopi_api::Status;
use kopi_config::Metrics;
use kopi_policy::Ruleset;
use std::sync::Arc;
use std::time::Duration;

/// Timeout for the control thread.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Classes taken at one time.
const CLASSES: usize = 512;

/// Everything that metrics tell of, at one moment, or at a few that follow each other.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) status: Status,
    /// The wire first.
    pub(super) ports: Vec<PortFigures>,
    pub(super) device: Stats,
    /// What lies between the host port's rings and the kernel.
    pub(super) host_lost: Vec<(&'static str, u64)>,
    pub(super) attaches: AttachCounts,
    pub(super) captures: CaptureTotals,
    pub(super) reloads: ReloadCounts,
    /// The policy in force, and what its rules have counted.
    pub(super) rules: Option<(Arc<Ruleset>, Counted)>,
    /// How many rules and classes have series of their own.
    pub(super) limits: (usize, usize),
    pub(super) class_count: usize,
    pub(super) classes: Vec<(ClassPart, Vec<Option<DelayCounts>>)>,
}

/// One port.
#[derive(Debug)]
pub(super) struct PortFigures {
    pub(super) name: String,
    pub(super) totals: PortTotals,
    /// `None` of the wire.
    pub(super) app: Option<AppFigures>,
}

/// What only apps have.
#[derive(Debug)]
pub(super) struct AppFigures {
    pub(super) user: String,
    pub(super) running: bool,
    pub(super) memory: u64,
    pub(super) connections: u32,
    pub(super) connections_refused: u64,
}

impl Figures {
    /// Asks the control thread. `None` if it does not answer in time, or kopid ends.
    pub(super) fn collect(asker: &Asker, config: &Metrics) -> Option<Self> {
        let large = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = (large(config.rules), large(config.classes));
        let mut figures = asker.ask(TIMEOUT, move |sources| Self::take(sources, limits))?;
        let classes = figures.class_count.min(limits.1);
        for from in (0..classes).step_by(CLASSES) {
            let count = CLASSES.min(classes - from);
            // Another policy may have come into force meanwhile, with fewer classes.
            let part = asker.ask(TIMEOUT, move |sources| sources.plane.classes().part_for_metrics(from, count))?;
            figures.classes.extend(part);
        }
        Some(figures)
    }

    fn take(sources: &Sources<'_>, limits: (usize, usize)) -> Self {
        let Sources { plane, facts } = sources;
        let wire = PortFigures { name: "wire".to_owned(), totals: plane.dataplane().totals(WIRE), app: None };
        Self {
            status: stats::status(plane, facts, plane.dataplane().longest_of_late()),
            ports: std::iter::once(wire).chain(plane.apps().map(|app| port(app, plane))).collect(),
            device: facts.device,
            host_lost: facts.host.iter().flat_map(|host| host.lost()).collect(),
            attaches: facts.attaches.clone(),
            captures: plane.captures().totals(),
            reloads: reloads(plane, facts),
            rules: plane.policy().ruleset().map(|ruleset| (Arc::clone(ruleset), plane.counted())),
            limits,
            class_count: plane.classes().count(),
            classes: Vec::new(),
        }
    }
}

fn reloads(plane: &ControlPlane, facts: &Facts<'_>) -> ReloadCounts {
    let counts = plane.policy().reloads();
    ReloadCounts { failed: counts.failed + facts.unread_policies, ..counts }
}

fn port(app: &App, plane: &ControlPlane) -> PortFigures {
    let tracked = plane.tracked(app);
    let uid = || app.identity.known_uid().map(|uid| uid.to_string()).unwrap_or_default();
    PortFigures {
        name: app.name.clone(),
        totals: stats::totals_of(app, plane),
        app: Some(AppFigures {
            user: app.identity.user.clone().unwrap_or_else(uid),
            running: app.is_served(),
            memory: app.region.as_ref().map_or(0, |region| region.size() as u64),
            connections: tracked.own,
            connections_refused: tracked.refused,
        }),
    }
}

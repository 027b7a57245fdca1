//! How long frames of a first priority are under way while others flood the wire: in kopi and in the kernel.

use super::trips;
use crate::contender::{Echo, Service};
use crate::error::{BenchError, Result};
use crate::latency::Trips;
use crate::qos::Senders;
use crate::qos::protection::{self, BULK, BUSY, IDLE};
use crate::rounds::{self, Experiment, Method, Pair, Samples};
use crate::setup::{Setup, Wire};

/// Rate of the wire.
pub(super) const WIRE: &str = "1gbit";

/// Trips in the kernel, while the bulk sockets send or do not.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    busy: bool,
}

/// Measures kopi.
///
/// # Errors
///
/// When it does not come up, and on Ctrl-C.
pub(super) fn kopi(setup: &Setup, method: &Method) -> Result<Samples<Trips>> {
    let experiments: Vec<_> =
        protection::experiments(WIRE).into_iter().filter(|(name, _)| [IDLE, BUSY].contains(name)).collect();
    rounds::run_shared(&experiments, setup, &protection::contender(WIRE), method)
}

/// Measures the kernel.
///
/// # Errors
///
/// When it lacks something, and on Ctrl-C.
pub(super) fn kernel(setup: &Setup, method: &Method) -> Result<Samples<Trips>> {
    let experiments = [(IDLE, Kernel { busy: false }), (BUSY, Kernel { busy: true })];
    let echo = Echo { rate: WIRE, bulk: u16::try_from(BULK.len()).unwrap_or(u16::MAX) };
    rounds::run_shared(&experiments, setup, &echo, method)
}

impl Experiment for Kernel {
    type App = Senders;
    type Measured = Trips;

    fn label(&self) -> String {
        format!("victim in the kernel, {WIRE}")
    }

    /// The kernel has its own.
    fn wire(&self) -> Wire {
        Wire::new("")
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Senders> {
        let space = service.namespace().ok_or_else(|| BenchError::Failed("sockets need a namespace".to_owned()))?;
        let (program, core) = (setup.program.display().to_string(), setup.app_core.to_string());
        let lengths = BULK.map(|length| length.to_string()).join(",");
        let words = space.arguments(&[&program, trips::COMMAND, &core, &lengths]);
        let args: Vec<String> = words.into_iter().map(str::to_owned).collect();
        Senders::spawn(setup, name, "env", &args)
    }

    fn measure(&self, _setup: &Setup, method: &Method, pair: &mut Pair<Senders>) -> Result<Trips> {
        protection::measure(self.busy, method, pair)
    }

    fn describe(&self, trips: &Trips) -> String {
        protection::describe(trips)
    }
}

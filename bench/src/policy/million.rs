//! A million flows beside a thousand, without a policy and with one of state, and how long kopid takes to start.
//!
//! The flow table and that of connections are as large as kopid makes them on this machine by itself.

use std::time::{Duration, Instant};

use super::load::{Load, Rate};
use super::texts;
use crate::error::{BenchError, Result};
use crate::rounds::{self, Experiment as _, Method, Samples};
use crate::setup::Setup;

/// What the loads are called.
pub(super) const THOUSAND: &str = "1,000";
pub(super) const MILLION: &str = "1,000,000";
/// The policies.
const POLICIES: [&str; 2] = [texts::NONE, texts::STATE];
/// Starts of kopid that are timed.
const STARTS: usize = 5;

/// What one policy gave.
#[derive(Debug)]
pub(super) struct Million {
    pub(super) policy: &'static str,
    /// From the start of the process until it takes applications.
    pub(super) starts: Vec<Duration>,
    /// By the names of the loads.
    pub(super) samples: Samples<Rate>,
}

/// Measures each policy: one kopid, which both loads take in turn.
///
/// # Errors
///
/// When kopid does not come up, and on Ctrl-C.
pub(super) fn measure(setup: &Setup, method: &Method) -> Result<Vec<Million>> {
    let one = |policy| {
        let contender = texts::contender(policy);
        let contender = contender.map_err(|error| BenchError::Failed(format!("write a policy: {error}")))?;
        if let Some(why) = contender.missing(setup) {
            return Err(BenchError::Failed(why));
        }
        let start = |_| {
            let begun = Instant::now();
            let _service = contender.start(setup, &Load::Tx.wire())?;
            Ok(begun.elapsed())
        };
        let starts = (0..STARTS).map(start).collect::<Result<_>>()?;
        let loads = [(THOUSAND, Load::Tx), (MILLION, Load::Million)];
        let samples = rounds::run_shared(&loads, setup, contender.as_ref(), method)?;
        Ok(Million { policy, starts, samples })
    };
    POLICIES.into_iter().map(one).collect()
}

//! Raw bypass: the application opens the wire device itself.

use super::{Contender, Family, Service};
use crate::error::Result;
use crate::process::Process;
use crate::setup::{Setup, Wire};

/// No system at all between application and wire.
#[derive(Debug)]
pub(crate) struct Raw;

impl Contender for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn family(&self) -> Family {
        Family::Raw
    }

    fn missing(&self, _setup: &Setup) -> Option<String> {
        None
    }

    fn start(&self, _setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>> {
        Ok(Box::new(Bypass(wire.clone())))
    }
}

struct Bypass(Wire);

impl Service for Bypass {
    fn app_devices(&self) -> Vec<String> {
        self.0.eal_args()
    }

    fn processes(&self) -> Vec<&Process> {
        Vec::new()
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }
}

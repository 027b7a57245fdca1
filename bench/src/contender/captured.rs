//! kopi with a capture session that runs all the time.

use std::path::Path;

use serde_json::Value;

use super::{Contender, Family, Kopi, Service};
use crate::capture::{Session, Target};
use crate::error::{BenchError, Result};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::setup::{Setup, Wire};

/// A session that looks at every frame and wants none of the load.
const REQUEST: &str = r#"{"filter": "udp port 53"}"#;

/// kopid beside a session whose filter none of the load passes.
#[derive(Debug)]
pub(crate) struct Captured(pub(crate) Kopi);

impl Contender for Captured {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn family(&self) -> Family {
        self.0.family()
    }

    fn missing(&self, setup: &Setup) -> Option<String> {
        self.0.missing(setup)
    }

    fn start(&self, setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>> {
        let service = self.0.start(setup, wire)?;
        let control = service.control().ok_or_else(|| BenchError::Failed("kopid has no control socket".to_owned()))?;
        let session = Session::begin(control, REQUEST, Target::Null)?;
        Ok(Box::new(Watched { _session: session, service }))
    }
}

struct Watched {
    /// Dropped before the kopid that it is of.
    _session: Session,
    service: Box<dyn Service>,
}

impl Service for Watched {
    fn app_devices(&self) -> Vec<String> {
        self.service.app_devices()
    }

    fn namespace(&self) -> Option<&Namespace> {
        self.service.namespace()
    }

    fn processes(&self) -> Vec<&Process> {
        self.service.processes()
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        self.service.wire_sent()
    }

    fn control(&self) -> Option<&Path> {
        self.service.control()
    }

    fn ask(&mut self, command: &str) -> Result<Option<Value>> {
        self.service.ask(command)
    }
}

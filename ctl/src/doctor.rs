//! `kopictl doctor`: what of this machine keeps kopid from working, or from working well, and the command that mends it.
//!
//! - [`finding`]: what was found; [`root`]: files of the machine, or of one that a test plays;
//! - a file for each group of checks, of which each is a function of [`Host`]: [`config`], [`kopid`], [`kernel`], [`huge_pages`],
//!   [`cpus`], [`wire`], [`access`], [`driver`], [`leftovers`].
//!
//! Nothing is changed, and whatever may not be read is passed over: without root's rights there are fewer findings.

mod access;
mod config;
mod cpus;
mod driver;
mod finding;
mod huge_pages;
mod kernel;
mod kopid;
mod leftovers;
mod root;
mod wire;

pub(crate) use finding::Finding;

use crate::arguments::Doctor;
use crate::client::{Client, Request};
use crate::failure::Failure;
use crate::streams::print;
use crate::text::as_json;
use finding::Severity;
use kopi_api::Status;
use kopi_config::Config;
use root::Root;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What checks look at.
#[derive(Debug)]
pub(crate) struct Host {
    root: Root,
    /// kopid's configuration, if it is one.
    config: Option<Config>,
    /// The running kopid, if it answers.
    kopid: Option<Status>,
}

/// Shows what is found.
///
/// # Errors
///
/// [`Failure::Checked`] if something keeps kopid from working.
pub(crate) fn run(options: &Doctor, socket: &Path, json: bool) -> Result<(), Failure> {
    let found = examine(options.config.as_deref(), socket);
    print(&if json { as_json(&json!({ "doctor": found })) } else { finding::shown(&found) })?;
    if found.iter().any(|finding| finding.severity == Severity::Error) { Err(Failure::Checked) } else { Ok(()) }
}

/// The file that kopid has, as [`examine`] looks for it.
pub(crate) fn configuration(given: Option<&Path>, kopid: Option<&Status>) -> PathBuf {
    config::file_of(given, kopid, &Root::machine())
}

/// Looks at everything. `config` is the file that kopid is to have.
pub(crate) fn examine(config: Option<&Path>, socket: &Path) -> Vec<Finding> {
    let root = Root::machine();
    let asked = Client::connect(socket).and_then(|mut kopid| kopid.rows::<Status>(&Request::plain("status")));
    let kopid = asked.map(|rows| rows.into_iter().next());
    let status = kopid.as_ref().ok().cloned().flatten();
    let file = config::file_of(config, status.as_ref(), &root);
    let (config, mut found) = config::check(&file, status.is_some());
    let host = Host { root, config, kopid: status };
    found.extend(kopid::check(&host, kopid.err().as_ref()));
    let checks: [fn(&Host) -> Vec<Finding>; 7] =
        [kernel::check, huge_pages::check, cpus::check, wire::check, access::check, driver::check, leftovers::check];
    found.extend(checks.iter().flat_map(|check| check(&host)));
    found
}

#[cfg(test)]
impl Host {
    /// A machine that a test plays, with this text in `kopid.toml`.
    fn fake(root: &root::Fake, config: &str) -> Self {
        let config = Config::parse(config, "kopid.toml").expect("the test's configuration is right");
        Self { root: root.root(), config: Some(config), kopid: None }
    }

    /// With a kopid that runs there.
    fn with(self, kopid: Status) -> Self {
        Self { kopid: Some(kopid), ..self }
    }
}

//! A policy on its way from a file into force.
//!
//! The file is read and compiled by whoever asks for it, on a thread that nobody waits for: it may lie where nobody answers, and names
//! of users and groups are asked of a name service. The control thread gets compiled rules, and puts them in force or does not. Of
//! two that are asked for, the one that was asked for later stays, whichever is there first.

use crate::control::helper::{Helper, Wake};
use crate::control::operator::Operator;
use crate::control::policy::compile;
use kopi_api::request;
use kopi_config::Policy;
use kopi_config::check::unknown_names;
use kopi_config::policy::SIZE_MAX;
use kopi_policy::Ruleset;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, fstat};
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Longest time in which a policy may be confirmed, in seconds.
const CONFIRM_MAX: u32 = 86_400;
/// Readings of the configured file after a SIGHUP that may hang at a time.
const READINGS: usize = 4;

/// The configured file, and how often a policy has been asked for.
#[derive(Debug)]
pub struct PolicySource {
    path: Option<PathBuf>,
    asked: AtomicU64,
    /// Policies that could not be read or compiled. Any thread writes.
    failed: AtomicU64,
}

/// A policy that is ready to come into force.
#[derive(Debug)]
pub struct Reload {
    /// The compiled rules.
    pub ruleset: Arc<Ruleset>,
    /// What the file is called.
    pub name: String,
    /// What is to be said about it.
    pub warnings: Vec<String>,
    /// How many had been asked for before.
    pub turn: u64,
}

/// What an operator wants of the policy.
#[derive(Debug)]
pub enum Wanted {
    /// The one that waits to be confirmed is to stay.
    Keep,
    /// Another one is to come into force, and to be confirmed within this time if one is given.
    Replace(Reload, Option<Duration>),
}

impl PolicySource {
    /// The configured file, if there is one.
    #[must_use]
    pub const fn new(path: Option<PathBuf>) -> Self {
        Self { path, asked: AtomicU64::new(1), failed: AtomicU64::new(0) }
    }

    /// Policies that could not be read or compiled.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Notes whether a policy could be had.
    fn noted(&self, read: Result<Reload, String>) -> Result<Reload, String> {
        if read.is_err() {
            self.failed.fetch_add(1, Relaxed);
        }
        read
    }

    /// Reads and compiles the configured file, which was asked for at `turn`. May take as long as who serves the file likes.
    ///
    /// # Errors
    ///
    /// A text for people.
    fn configured(&self, turn: u64) -> Result<Reload, String> {
        let path = self.path.as_deref().ok_or("kopid.toml names no `policy`: name a file")?;
        let policy = Policy::read(path).map_err(|errors| errors.to_string())?;
        Reload::of(policy, path.display().to_string(), turn)
    }

    /// The same with a file that an operator has sent, which it calls `name`.
    fn sent(&self, file: OwnedFd, name: &str) -> Result<Reload, String> {
        let turn = self.turn();
        let policy = Policy::parse(content(file.into(), name)?, name).map_err(|errors| errors.to_string())?;
        Reload::of(policy, name.to_owned(), turn)
    }

    fn turn(&self) -> u64 {
        self.asked.fetch_add(1, Relaxed)
    }
}

impl Reload {
    fn of(policy: Policy, name: String, turn: u64) -> Result<Self, String> {
        let warnings = policy.warnings.iter().chain(&unknown_names(&policy)).map(ToString::to_string).collect();
        Ok(Self { ruleset: compile(policy)?, name, warnings, turn })
    }
}

impl Wanted {
    /// What `reload` with `arguments` wants, reading `file` or the configured one.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub fn read(arguments: &Map<String, Value>, file: Option<OwnedFd>, source: &PolicySource) -> Result<Self, String> {
        let request::Reload { file: name, confirm, keep } = request::arguments("reload", arguments)?;
        if keep == Some(true) {
            return Ok(Self::Keep);
        }
        if confirm.is_some_and(|seconds| !(1..=CONFIRM_MAX).contains(&seconds)) {
            return Err(format!("`confirm` is a number of seconds from 1 to {CONFIRM_MAX}"));
        }
        let confirm = confirm.map(|seconds| Duration::from_secs(seconds.into()));
        let reload = match (file, name) {
            (Some(file), name) => source.noted(source.sent(file, name.as_deref().unwrap_or("the file")))?,
            (None, Some(_)) => return Err("the file itself has to come along, as a descriptor".into()),
            (None, None) => source.noted(source.configured(source.turn()))?,
        };
        Ok(Self::Replace(reload, confirm))
    }
}

/// The whole of a regular file. Reading anything else could block for ever.
fn content(mut file: File, name: &str) -> Result<Vec<u8>, String> {
    let stat = fstat(&file).map_err(|errno| format!("{name}: {errno}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(format!("{name}: is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = (&mut file).take(SIZE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{name}: {error}"))?;
    Ok(bytes)
}

/// How a file that was asked for at some turn is read.
type Reading = dyn Fn(u64) -> Result<Reload, String> + Send + Sync;

/// What was read after a SIGHUP, and who asked for it, as the log shows it.
type Outcome = (Result<Reload, String>, String);

/// Reads the configured file after a SIGHUP.
pub struct Hangup {
    source: Arc<PolicySource>,
    read: Arc<Reading>,
    wake: Wake,
    reader: Option<Helper<Option<Operator>, Outcome>>,
    /// As many copies as there are threads that read, and this one.
    readings: Arc<()>,
}

impl fmt::Debug for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hangup").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Hangup {
    /// No SIGHUP yet. `wake` is used when there is something to [take](Self::take).
    #[must_use]
    pub fn new(source: Arc<PolicySource>, wake: Wake) -> Self {
        let own = Arc::clone(&source);
        Self::by(source, wake, Arc::new(move |turn| own.noted(own.configured(turn))))
    }

    fn by(source: Arc<PolicySource>, wake: Wake, read: Arc<Reading>) -> Self {
        Self { source, read, wake, reader: None, readings: Arc::new(()) }
    }

    /// Begins to read the file for `sender`. A reading before this one that is not over is given up, though its thread may hang on.
    ///
    /// # Errors
    ///
    /// A text for people, and nothing is read.
    pub fn read(&mut self, sender: Option<Operator>) -> Result<(), String> {
        if Arc::strong_count(&self.readings) > READINGS {
            return Err(format!("{READINGS} readings of the configured file hang: whoever serves it does not answer"));
        }
        let (read, reading) = (Arc::clone(&self.read), Arc::clone(&self.readings));
        // Whatever an operator asks for after the signal comes after it.
        let turn = self.source.turn();
        let work = move |sender: Option<Operator>| {
            let _counts = &reading;
            let read = read(turn);
            // A name service that hangs holds up neither the next SIGHUP nor anybody else, see `READINGS`; and mostly it is not asked.
            let who = sender.map_or_else(|| "the kernel".to_owned(), |sender| sender.name());
            (read, format!("{who} (SIGHUP)"))
        };
        let reader = Helper::start("kopi-reload", self.wake.clone(), work);
        let mut reader = reader.map_err(|error| format!("no thread to read it: {error}"))?;
        reader.ask(sender);
        self.reader = Some(reader);
        Ok(())
    }

    /// Policies that could not be read or compiled, whoever asked for them.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.source.failed()
    }

    /// What was read, once, and who asked for it, as the log shows it.
    pub fn take(&mut self) -> Option<Outcome> {
        let read = self.reader.as_mut()?.answer()?;
        self.reader = None;
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    /// A file that nobody serves holds up nobody; so many readings may hang, and they go on when somebody does.
    #[test]
    fn file_that_nobody_serves_holds_up_nobody() {
        let (source, served) = (Arc::new(PolicySource::new(None)), Arc::new(AtomicBool::new(false)));
        let open = Arc::clone(&served);
        let read = move |turn| {
            while !open.load(Relaxed) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Reload::of(Policy::parse("", "test").unwrap(), "test".into(), turn)
        };
        let mut hangup = Hangup::by(Arc::clone(&source), Wake::new().unwrap(), Arc::new(read));
        for _ in 0..READINGS {
            hangup.read(None).unwrap();
            assert!(hangup.take().is_none());
        }
        assert!(hangup.read(None).unwrap_err().contains("does not answer"));
        let later = source.turn();
        served.store(true, Relaxed);
        let begun = Instant::now();
        let reload = loop {
            if let Some((reload, _)) = hangup.take() {
                break reload.unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "it was not read");
            std::thread::yield_now();
        };
        assert!(reload.ruleset.rules().is_empty() && reload.turn < later, "its turn is that of the signal");
        while Arc::strong_count(&hangup.readings) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(10), "threads stay");
            std::thread::yield_now();
        }
        assert!(hangup.take().is_none() && hangup.read(None).is_ok());
    }

    /// What an operator says is checked before any file is read.
    #[test]
    fn arguments_are_checked_first() {
        let source = PolicySource::new(None);
        let read = |text: &str| Wanted::read(&serde_json::from_str(text).unwrap(), None, &source);
        assert!(matches!(read(r#"{"keep": true}"#), Ok(Wanted::Keep)));
        let refused = |text| read(text).unwrap_err();
        assert_eq!(refused(r#"{"kep": true}"#), "`reload` has no argument `kep`");
        assert!(refused(r#"{"confirm": 0}"#).contains("from 1 to"));
        assert!(refused(r#"{"file": "x"}"#).contains("as a descriptor"));
        assert!(refused("{}").contains("names no `policy`"));
    }
}

//! What kopid is asked.

use super::TIMEOUT;
use crate::arguments::{Command, Explain, Reload};
use crate::failure::Failure;
use kopi_api::request::{self, Direction};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How long it may take to read, check and compile a policy: the largest take some seconds.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    line: kopi_api::Request,
    /// The file that goes with it.
    file: Option<OwnedFd>,
    /// How long the answer may take.
    pub(crate) timeout: Duration,
}

impl Request {
    /// A request without arguments.
    pub(crate) fn plain(command: &str) -> Self {
        Self::new(command, &())
    }

    fn new(command: &str, arguments: &impl Serialize) -> Self {
        Self { line: kopi_api::Request::new(command, arguments), file: None, timeout: TIMEOUT }
    }

    /// What `command` asks for; `None` of one that asks something else, or nothing.
    ///
    /// # Errors
    ///
    /// [`Failure::File`] if a file that goes with it cannot be opened.
    pub(crate) fn of(command: &Command) -> Result<Option<Self>, Failure> {
        Ok(Some(match command {
            Command::Flows(flows) => Self::new("flows", flows),
            Command::Explain(explain) => Self::explain(explain),
            Command::Reload(reload) => Self::reload(reload)?,
            Command::Status => Self::plain("status"),
            Command::Apps { .. } => Self::plain("apps"),
            Command::Stats { .. } => Self::plain("stats"),
            Command::Drops => Self::plain("drops"),
            Command::Rules { .. } => Self::plain("rules"),
            Command::Classes { .. } => Self::plain("classes"),
            Command::Log { level } => Self::new("log", &request::SetLog { level: *level }),
            Command::Check { .. }
            | Command::Capture(_)
            | Command::Cdi(_)
            | Command::Takeover(_)
            | Command::Doctor(_)
            | Command::Support(_)
            | Command::Top(_) => return Ok(None),
        }))
    }

    /// A capture into `file`, with these arguments.
    pub(crate) fn capture(arguments: &request::Capture, file: OwnedFd) -> Self {
        Self { file: Some(file), ..Self::new("capture", arguments) }
    }

    fn explain(explain: &Explain) -> Self {
        let direction = if explain.ingress { Direction::Ingress } else { Direction::Egress };
        let Explain { app, packet, state, .. } = explain.clone();
        Self::new("explain", &request::Explain { app, packet, direction, state })
    }

    fn reload(reload: &Reload) -> Result<Self, Failure> {
        let file = reload.file.as_deref().map(open).transpose()?.map(OwnedFd::from);
        let name = reload.file.as_ref().map(|path| path.to_string_lossy().into_owned());
        let arguments = request::Reload { file: name, confirm: reload.confirm, keep: reload.keep.then_some(true) };
        Ok(Self { file, timeout: RELOAD_TIMEOUT, ..Self::new("reload", &arguments) })
    }

    /// The command, and the name of the list in its answer.
    pub(crate) fn command(&self) -> &str {
        &self.line.command
    }

    /// The request as kopid reads it.
    pub(crate) fn line(&self) -> String {
        self.line.line()
    }

    /// The file that goes with it.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }
}

/// Opens a policy with the rights of whoever runs kopictl. Does not wait for a FIFO's writer: kopid could wait for ever.
fn open(path: &Path) -> Result<File, Failure> {
    let failure = |reason: String| Failure::File { path: path.into(), reason };
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| failure(error.to_string()))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(failure("not a regular file".into())),
        Err(error) => Err(failure(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use clap::Parser;

    fn line(arguments: &[&str]) -> String {
        let arguments = Arguments::try_parse_from(["kopictl"].iter().chain(arguments)).unwrap();
        Request::of(&arguments.command).unwrap().unwrap().line().trim_end().to_owned()
    }

    /// What is not asked for is not in the request.
    #[test]
    fn requests_have_the_arguments_of_the_command_line() {
        assert_eq!(line(&["rules"]), r#"{"command":"rules"}"#);
        assert_eq!(line(&["log"]), r#"{"command":"log"}"#);
        assert_eq!(line(&["log", "debug"]), r#"{"command":"log","level":"debug"}"#);
        assert_eq!(line(&["classes", "--watch"]), r#"{"command":"classes"}"#);
        assert_eq!(line(&["flows"]), r#"{"command":"flows"}"#);
        assert_eq!(
            line(&[
                "flows",
                "--app=a",
                "--user",
                "bob",
                "--pid",
                "7",
                "--comm",
                "c",
                "--port",
                "80",
                "--address",
                "::1"
            ]),
            r#"{"address":"::1","app":"a","comm":"c","command":"flows","pid":7,"port":80,"user":"bob"}"#
        );
        assert_eq!(
            line(&["flows", "--state", "new", "--proto", "tcp"]),
            r#"{"command":"flows","proto":"tcp","state":"new"}"#
        );
        assert_eq!(
            line(&["flows", "--limit", "20", "--sort", "rate"]),
            r#"{"command":"flows","limit":20,"sort":"rate"}"#
        );
        assert_eq!(line(&["reload"]), r#"{"command":"reload"}"#);
        assert_eq!(line(&["reload", "--confirm", "60"]), r#"{"command":"reload","confirm":60}"#);
        assert_eq!(line(&["reload", "--keep"]), r#"{"command":"reload","keep":true}"#);
        assert_eq!(
            line(&["explain", "--app", "a", "udp 10.0.0.1:1 > 10.0.0.2:2"]),
            r#"{"app":"a","command":"explain","direction":"egress","packet":"udp 10.0.0.1:1 > 10.0.0.2:2","state":"new"}"#
        );
        assert_eq!(
            line(&["explain", "--app", "a", "--ingress", "--state", "established", "runt"]),
            r#"{"app":"a","command":"explain","direction":"ingress","packet":"runt","state":"established"}"#
        );
    }

    /// Only regular files are handed over, and a FIFO does not keep kopictl waiting.
    #[test]
    fn only_regular_files_are_opened() {
        let reason = |path: &str| match open(Path::new(path)) {
            Err(Failure::File { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason("/dev/null"), "not a regular file");
        assert_eq!(reason("/"), "not a regular file");
        assert!(reason("/nonexistent").contains("No such file"));
        assert!(open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).is_ok());
    }
}

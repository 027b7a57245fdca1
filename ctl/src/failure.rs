//! What can go wrong, and the exit code for it.

use crate::text::{clean, clean_lines};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Nobody serves the socket.
    #[error("cannot reach kopid at {}: {reason}; {hint}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: String,
        /// What may help.
        hint: &'static str,
    },
    /// The socket is not for this user.
    #[error("{}: permission denied; {hint}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Who may use it.
        hint: String,
    },
    /// Nothing came in time.
    #[error("kopid at {} does not answer: is it stopped, or very busy?", .0.display())]
    Silent(PathBuf),
    /// The daemon ended the conversation.
    #[error("kopid closed the connection before its answer was complete; its log may say why")]
    Closed,
    /// The daemon refuses a capture, with what libpcap says of its expression.
    #[error("{0}")]
    Refusal(String),
    /// The daemon has gone while it captured.
    #[error("kopid has gone, and the capture is over; what was captured until then is there")]
    Lost,
    /// A capture ended by itself, and not well.
    #[error("the capture has failed: {0}")]
    Capture(String),
    /// A file of packets cannot be read.
    #[error("kopid's packets cannot be read: {0}")]
    Packets(String),
    /// The command line is wrong, in a way that its parser does not see.
    #[error("{0}; see kopictl capture --help")]
    Usage(String),
    /// There is nothing that a container could be given.
    #[error("{0}")]
    Cdi(String),
    /// `top` cannot be shown here, or not so.
    #[error("{0}")]
    Top(String),
    /// Wireshark wants what there is not.
    #[error("{0}")]
    Extcap(String),
    /// The system does not give what is needed.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// The connection broke.
    #[error("the connection to kopid failed: {0}")]
    Connection(#[source] io::Error),
    /// More came than any answer, or any row of a long one, should have.
    #[error("kopid's answer, or a row of it, is longer than {0} bytes")]
    TooLong(usize),
    /// Something came that is no answer.
    #[error("this is no answer of kopid's: {0}")]
    Garbage(String),
    /// The daemon refuses a policy, with the lines that are wrong.
    #[error("{0}")]
    Policy(String),
    /// A file has errors, which are shown already.
    #[error("the file has errors")]
    Checked,
    /// An interface is not taken over, or not given back.
    #[error("{0}")]
    Takeover(String),
    /// A file cannot be handed to kopid.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The daemon says no.
    #[error("kopid says: {0}")]
    Daemon(String),
    /// Nothing has this name.
    #[error("there is no `{0}`")]
    Nameless(String),
    /// Standard output did not take the result.
    #[error("cannot write the result: {0}")]
    Output(#[source] io::Error),
}

impl Failure {
    /// For a socket that may not be used, with the reason that its file shows.
    pub(crate) fn refused(path: &Path) -> Self {
        Self::Refused { path: path.into(), hint: who_may_connect(path) }
    }

    /// For a row that is none of kopid's.
    pub(crate) fn foreign(error: serde_json::Error) -> Self {
        Self::Garbage(format!("{error}; is kopid of another version?"))
    }

    /// For what kopid has against a request. One that does not know the command is of an older release.
    pub(crate) fn said(error: &str) -> Self {
        let hint = if error.starts_with("unknown command `") { "; it is older than this kopictl" } else { "" };
        Self::Daemon(format!("{error}{hint}"))
    }

    /// The exit code. Scripts rely on these.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Top(_) | Self::Extcap(_) => 2,
            Self::Unreachable { .. } | Self::Silent(_) | Self::Lost => 3,
            Self::Refused { .. } => 4,
            // A new failure has to be placed here: scripts rely on these numbers.
            Self::Closed
            | Self::Cdi(_)
            | Self::Refusal(_)
            | Self::Capture(_)
            | Self::Packets(_)
            | Self::System { .. }
            | Self::Connection(_)
            | Self::TooLong(_)
            | Self::Garbage(_)
            | Self::Policy(_)
            | Self::Checked
            | Self::Takeover(_)
            | Self::File { .. }
            | Self::Daemon(_)
            | Self::Nameless(_)
            | Self::Output(_) => 1,
        }
    }

    /// What standard error is told. Nothing of it is acted on by a terminal.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Checked => String::new(),
            Self::Policy(text) => format!("{}\n", clean_lines(text)),
            Self::Refusal(text) => format!("kopictl: {}\n", clean_lines(text)),
            _ => format!("kopictl: {}\n", clean(&self.to_string())),
        }
    }

    /// Whether this is a reader that has seen enough, as in `kopictl apps | head`: no failure at all.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Who may use the socket: connecting takes the right to write to it (unix(7)).
fn who_may_connect(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(file) = std::fs::metadata(path) else {
        return "its folder may not be searched by this user: run kopictl as root".into();
    };
    let user = nix::unistd::User::from_uid(file.uid().into()).ok().flatten();
    let user = user.map_or_else(|| file.uid().to_string(), |user| user.name);
    let group = nix::unistd::Group::from_gid(file.gid().into()).ok().flatten();
    let group = group.map_or_else(|| file.gid().to_string(), |group| group.name);
    let mode = file.mode() & 0o7777;
    let advice = match mode & 0o020 {
        0 if user == "root" => "run kopictl as root".to_owned(),
        0 => format!("run kopictl as `{user}` or as root"),
        _ => format!("run kopictl as root or as a member of the group `{group}`"),
    };
    format!("the socket has owner `{user}`, group `{group}`, mode {mode:04o}: {advice}")
}

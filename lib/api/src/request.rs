//! What kopid is asked.
//!
//! Arguments that kopictl passes on as they are are those of its command line, too, and their comments its help.

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A line of an operator's. One file descriptor may come with it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Request {
    /// What is to be done, and the name of the list in its answer.
    pub command: String,
    /// The other keys. Nobody has looked at them yet.
    #[serde(flatten)]
    pub arguments: Map<String, Value>,
}

impl Request {
    /// A request for `command`. What of `arguments` is nothing, or an empty list, is not in it.
    #[must_use]
    pub fn new(command: &str, arguments: &impl Serialize) -> Self {
        // Arguments are structures, and those are objects.
        let mut arguments = match serde_json::to_value(arguments) {
            Ok(Value::Object(arguments)) => arguments,
            _ => Map::new(),
        };
        arguments.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
        Self { command: command.to_owned(), arguments }
    }

    /// A request without arguments.
    #[must_use]
    pub fn plain(command: &str) -> Self {
        Self::new(command, &())
    }

    /// Reads one line.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
    }

    /// Writes it as a line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut object = self.arguments.clone();
        object.insert("command".to_owned(), json!(self.command));
        format!("{}\n", Value::Object(object))
    }
}

/// Reads the `arguments` of `command`. One that is null is none.
///
/// # Errors
///
/// A text for people, if one is not known, is missing or is of another type.
pub fn arguments<T: DeserializeOwned>(command: &str, arguments: &Map<String, Value>) -> Result<T, String> {
    let fault = |given: &Map<String, Value>| {
        serde_json::from_value::<T>(Value::Object(given.clone())).map_err(|error| error.to_string())
    };
    // What serde says of these two names more than the one at fault.
    let named = |text: &str, what: &str| Some(text.strip_prefix(what)?.split('`').next()?.to_owned());
    let unknown =
        |text: &str| named(text, "unknown field `").map(|name| format!("`{command}` has no argument `{name}`"));
    // Also one that is null must be known.
    if let Some(text) = fault(arguments).err().and_then(|text| unknown(&text)) {
        return Err(text);
    }
    let mut given = arguments.clone();
    given.retain(|_, value| !value.is_null());
    fault(&given).map_err(|text| {
        if let Some(name) = named(&text, "missing field `") {
            return format!("`{name}` is missing");
        }
        // It is the one without which this is not said.
        let at_fault = given.keys().find(|name| {
            let mut others = given.clone();
            others.remove(*name);
            fault(&others).err().as_ref() != Some(&text)
        });
        at_fault.map_or_else(|| format!("`{command}`: {text}"), |name| format!("`{command}`, `{name}`: {text}"))
    })
}

/// Which flows: those for which all of this holds.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct Flows {
    /// Of the app with this name
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// Of this user, by name or number
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Of this process
    #[arg(long)]
    pub pid: Option<u32>,
    /// Of processes that call themselves so
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Of this container: its id, 12 digits of it or more, or * for any
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// Of this pod: its UID, Podman's id of it, or * for any
    #[arg(long, value_name = "ID")]
    pub pod: Option<String>,
    /// With this port at either end
    #[arg(long)]
    pub port: Option<u16>,
    /// With this address at either end
    #[arg(long)]
    pub address: Option<String>,
    /// In this state
    #[arg(long)]
    pub state: Option<String>,
    /// Of this protocol, by name or number
    #[arg(long)]
    pub proto: Option<String>,
    /// No more than so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Those with the highest rate over their whole age, the highest first: a thousand at most, or as many as --limit says
    #[arg(long, value_enum)]
    pub sort: Option<Sort>,
}

/// By what flows are sorted.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Bits per second
    Rate,
}

/// Which frame is evaluated, and at whose side.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The app's name.
    pub app: String,
    /// The frame, as `kopi-packet` describes it.
    pub packet: String,
    /// From the app or to it.
    #[serde(default)]
    pub direction: Direction,
    /// What connection tracking says of it.
    #[serde(default)]
    pub state: ConnectionState,
}

/// Which way a frame goes, from the side of the app.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the app.
    #[default]
    Egress,
    /// To the app.
    Ingress,
}

/// What connection tracking can say of a packet.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// It begins a connection
    #[default]
    New,
    /// It belongs to a connection that was answered
    Established,
    /// It is an error about a connection
    Related,
    /// It fits no connection
    Invalid,
    /// Connections are not a notion of its protocol
    Untracked,
}

/// Which policy is to come into force. The file itself comes along as a descriptor; without one it is the configured file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// What the file is called.
    pub file: Option<String>,
    /// Seconds after which the policy of before comes back, unless this one is kept.
    pub confirm: Option<u32>,
    /// Keep the one on trial.
    pub keep: Option<bool>,
}

/// What the log is to have from now on; without a level, only what it has is told.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetLog {
    /// The least important lines that are written.
    pub level: Option<LogLevel>,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something does not work
    Error,
    /// Something works worse than it should
    Warn,
    /// Starts, stops, apps that come and go
    Info,
    /// What helps to find a fault
    Debug,
    /// Everything
    Trace,
}

impl LogLevel {
    /// The level's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What is captured, into the file that comes along as a descriptor. Within one list one is enough; all stated lists have to hold.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[command(next_help_heading = "Owners and verdicts")]
#[group(skip)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// libpcap's expression.
    #[arg(skip)]
    pub filter: Option<String>,
    /// Names of ports; none for all.
    #[arg(skip)]
    pub interfaces: Vec<String>,
    /// By what became of it.
    #[arg(skip)]
    pub which: Option<Which>,
    /// Only frames that the app or wire receives (in), or sends (out)
    #[arg(short = 'Q', long, value_enum, value_name = "DIRECTION", display_order = 1)]
    pub direction: Option<Way>,
    /// Of apps with such a name
    #[arg(long, value_name = "GLOB")]
    pub app: Vec<String>,
    /// Of this user, by name or number
    #[arg(long, value_name = "USER")]
    pub user: Vec<String>,
    /// Of this group, by name or number
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Of this process
    #[arg(long)]
    pub pid: Vec<u32>,
    /// Of processes that call themselves so
    #[arg(long, value_name = "GLOB")]
    pub comm: Vec<String>,
    /// Of processes that run such a program
    #[arg(long, value_name = "GLOB")]
    pub exe: Vec<String>,
    /// Of processes in this cgroup or below
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Of processes in this container: its id, 12 digits of it or more, or * for any
    #[arg(long, value_name = "ID")]
    pub container: Vec<String>,
    /// Of processes in this pod: its UID, Podman's id of it, or * for any
    #[arg(long, value_name = "ID")]
    pub pod: Vec<String>,
    /// Only what this rule has decided
    #[arg(long, value_name = "NAME")]
    pub rule: Vec<String>,
    /// Only what was dropped for this reason; `kopictl drops` has their names
    #[arg(long, value_name = "NAME")]
    pub reason: Vec<String>,
    /// Keep one of N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,
    /// Bytes kept of a frame.
    #[arg(skip)]
    pub snap: Option<u32>,
    /// Packets after which it ends.
    #[arg(skip)]
    pub count: Option<u64>,
    /// Bytes of the file after which it ends.
    #[arg(skip)]
    pub bytes: Option<u64>,
    /// Time after which it ends.
    #[arg(skip)]
    pub seconds: Option<f64>,
    /// Bytes of the ring between a worker and the session.
    #[arg(skip)]
    pub buffer: Option<usize>,
    /// Size of a file in bytes from which on another one is asked for.
    #[arg(skip)]
    pub file_bytes: Option<u64>,
}

/// Which way frames go, from the side of the app or wire.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[clap(rename_all = "lower")]
pub enum Way {
    /// Received.
    In,
    /// Sent.
    Out,
    /// Both.
    #[default]
    InOut,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// Anything.
    #[default]
    All,
    /// They were let through.
    Passed,
    /// They were dropped, for whatever reason.
    Dropped,
}

//! What kopid is asked.

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

/// Which flows: those for which all of this holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Flows {
    /// Of the app with this name.
    pub app: Option<String>,
    /// Of this user, by name or number.
    pub user: Option<String>,
    /// Of this process.
    pub pid: Option<u32>,
    /// Of processes that call themselves so.
    pub comm: Option<String>,
    /// With this port at either end.
    pub port: Option<u16>,
    /// With this address at either end.
    pub address: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// Of this protocol, by name or number.
    pub proto: Option<String>,
    /// No more than so many.
    pub limit: Option<u32>,
    /// `rate` for those with the highest rate, the highest first.
    pub sort: Option<&'static str>,
}

/// What frame is judged, and at whose side.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Explain {
    /// The app's name.
    pub app: Option<String>,
    /// The frame, as `kopi-packet` describes it.
    pub packet: Option<String>,
    /// `egress` or `ingress`.
    pub direction: Option<String>,
    /// What connection tracking says of it, `new` if nothing is stated.
    pub state: Option<String>,
}

/// Which policy is to come into force. The file itself comes along as a descriptor; without one it is the configured file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Reload {
    /// What the file is called.
    pub file: Option<String>,
    /// Seconds after which the policy of before comes back, unless this one is kept.
    pub confirm: Option<u64>,
    /// Keep the one on trial.
    pub keep: Option<bool>,
}

/// What is captured, into the file that comes along as a descriptor. Within one list one is enough; all stated lists have to hold.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// libpcap's expression.
    pub filter: Option<String>,
    /// Names of ports; none for all.
    pub interfaces: Vec<String>,
    /// From the side of the app or wire.
    pub direction: Option<Way>,
    /// By what became of it.
    pub which: Option<Which>,
    /// Patterns of names of apps.
    pub app: Vec<String>,
    /// Users, by name or number.
    pub user: Vec<String>,
    /// Groups, by name or number.
    pub group: Vec<String>,
    /// Patterns of what processes call themselves.
    pub comm: Vec<String>,
    /// Patterns of programs.
    pub exe: Vec<String>,
    /// Paths of cgroups.
    pub cgroup: Vec<String>,
    /// Processes.
    pub pid: Vec<u32>,
    /// Names of rules that have decided.
    pub rule: Vec<String>,
    /// Names of reasons for a drop.
    pub reason: Vec<String>,
    /// Bytes kept of a frame.
    pub snap: Option<u32>,
    /// Packets after which it ends.
    pub count: Option<u64>,
    /// Bytes of the file after which it ends.
    pub bytes: Option<u64>,
    /// Time after which it ends.
    pub seconds: Option<f64>,
    /// Keep one of so many.
    pub sample: Option<u64>,
    /// Bytes of the ring between a worker and the session.
    pub buffer: Option<usize>,
    /// Size of a file in bytes from which on another one is asked for.
    pub file_bytes: Option<u64>,
}

/// Which way frames go, from the side of the app or wire.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
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

//! Flows that pass.

use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

/// A row of `flows`, in the order of the keys as they are sent: a flow from the side of an app. There may be millions, so kopid does
/// not copy names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Flow<'a> {
    /// The app's name.
    pub app: Cow<'a, str>,
    /// `egress` if the app sends it, else `ingress`.
    pub direction: Option<Cow<'a, str>>,
    /// The protocol, by its number if it has no name.
    pub proto: Cow<'a, str>,
    /// Where it comes from.
    pub src: Option<IpAddr>,
    /// The port there.
    pub src_port: Option<u16>,
    /// Where it goes to.
    pub dst: Option<IpAddr>,
    /// The port there.
    pub dst_port: Option<u16>,
    /// The outer VLAN.
    pub vlan: Option<u16>,
    /// What `explain` takes.
    pub packet: Cow<'a, str>,
    /// State of its connection.
    pub state: Option<Cow<'a, str>>,
    /// By what state it was judged, if the policy asks for it.
    pub ct_state: Option<Cow<'a, str>>,
    /// The direction of the frame that began its connection.
    pub begun: Option<Cow<'a, str>>,
    /// Since it began.
    #[serde(deserialize_with = "seconds")]
    pub age_seconds: u64,
    /// Since its last frame.
    #[serde(deserialize_with = "seconds")]
    pub idle_seconds: u64,
    /// Its frames.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Since it began.
    pub bits_per_second: Option<u64>,
    /// The class that it is in.
    pub class: Option<Cow<'a, str>>,
    /// The rule that decided.
    pub rule: Option<Cow<'a, str>>,
    /// `rule`, `default`, the name of what was wrong with its frames, or `outdated`: it was judged before ports or policy changed.
    pub cause: Option<Cow<'a, str>>,
    /// `accept`, `drop` or `reject`.
    pub verdict: Option<Cow<'a, str>>,
    /// The app's process.
    pub pid: Option<i32>,
    /// The app's user.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<Cow<'a, str>>,
    /// What the process calls itself.
    pub comm: Option<Cow<'a, str>>,
    /// The container of the process.
    pub container: Option<Cow<'a, str>>,
    /// The pod of that container.
    pub pod: Option<Cow<'a, str>>,
}

/// Whole seconds, of a number that may have a fraction: older daemons sent one.
fn seconds<'d, D: Deserializer<'d>>(source: D) -> Result<u64, D::Error> {
    let seconds = f64::deserialize(source)?;
    Duration::try_from_secs_f64(seconds).map(|time| time.as_secs()).map_err(serde::de::Error::custom)
}

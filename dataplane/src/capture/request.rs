//! What an operator wants to capture.

use super::port_names::{Member, PortNames};
use crate::control::policy::Machine;
use crate::control::ports::ANY_NAME;
use crate::ids::WIRE;
use crate::stages::mirror::{Rules, Selection};
use dpdk::Bpf;
use kopi_api::request::{Capture, Way};
use kopi_config::Account;
use kopi_config::policy::{CgroupPath, ContainerId, Glob, Owners};
use kopi_policy::Selector;
use kopi_ring::DropReason;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Most bytes kept of a frame: what libpcap takes for unlimited.
const SNAP_MAX: u32 = 262_144;
/// Bytes of the ring between a worker and a session, at least and at most.
const BUFFER: std::ops::RangeInclusive<usize> = 64 << 10..=256 << 20;
/// The same, if nothing is said of it and there is room.
const BUFFER_DEFAULT: usize = 8 << 20;
/// Longest session in seconds: a year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// What one session is to see, and where it ends.
#[derive(Debug)]
pub struct Request {
    /// As it was asked for, and within its limits. No interfaces are all of them.
    pub wanted: Capture,
    selector: Selector,
    /// Whether anything is asked of owners.
    owned: bool,
    reasons: Option<u64>,
}

impl Request {
    /// Reads what an operator asks. May wait for a name service.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub fn read(arguments: &Map<String, Value>) -> Result<Self, String> {
        let mut wanted: Capture =
            serde_json::from_value(Value::Object(arguments.clone())).map_err(|error| format!("`capture`: {error}"))?;
        check(&wanted)?;
        let owners = owners(&wanted)?;
        let selector =
            Selector::new(&owners, &Machine).map_err(|name| format!("there is no user or group `{name}`"))?;
        let reasons = wanted.reason.iter().map(|name| reason(name)).collect::<Result<Vec<_>, _>>()?;
        let reasons = (!reasons.is_empty()).then(|| reasons.iter().fold(0, |bits, reason| bits | 1 << reason.index()));
        if wanted.interfaces.iter().any(|name| name == ANY_NAME) {
            wanted.interfaces.clear();
        }
        let owned = !owners.is_empty() || !wanted.pid.is_empty();
        Ok(Self { wanted, selector, owned, reasons })
    }

    /// The expression by which frames are filtered; empty for all of them.
    #[must_use]
    pub fn expression(&self) -> &str {
        self.wanted.filter.as_deref().unwrap_or_default().trim()
    }

    /// Bytes kept of a frame.
    #[must_use]
    pub fn snap(&self) -> u32 {
        self.wanted.snap.unwrap_or(SNAP_MAX)
    }

    /// Fails if it asks for a rule that there is not.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub fn check(&self, names: &PortNames) -> Result<(), String> {
        let known = |name: &String| names.ruleset.iter().flat_map(|set| set.rules()).any(|rule| rule.name == *name);
        match self.wanted.rule.iter().find(|name| !known(name)) {
            Some(name) => Err(format!("the policy has no rule `{name}`; `kopictl rules` lists them")),
            None => Ok(()),
        }
    }

    /// Bytes of the ring between each of `workers` workers and the session, if all of them may have `room`.
    ///
    /// # Errors
    ///
    /// A text for people, with what there is room for.
    pub fn buffer(&self, workers: usize, room: usize) -> Result<usize, String> {
        // A size is given in KiB.
        let most = room / workers.max(1) / 1024 * 1024;
        let buffer = self.wanted.buffer.unwrap_or_else(|| BUFFER_DEFAULT.min(most));
        if (*BUFFER.start()..=most).contains(&buffer) {
            return Ok(buffer);
        }
        Err(if most < *BUFFER.start() {
            format!(
                "{} KiB of buffer for each worker are left for this user, and a capture takes {}: end another one",
                most >> 10,
                BUFFER.start() >> 10
            )
        } else {
            format!(
                "`buffer` can be {} KiB: no user has more of the buffers of all captures than is left for others",
                most >> 10
            )
        })
    }

    /// Compiles the expression; `None` for one that lets everything pass. Takes seconds for a long one, or while names of
    /// hosts are looked up.
    ///
    /// # Errors
    ///
    /// A text for people, libpcap's own where it does not understand.
    pub fn compile(&self) -> Result<Option<Arc<Bpf>>, String> {
        match self.expression() {
            "" => Ok(None),
            text => Bpf::compile(text).map(|filter| Some(Arc::new(filter))).map_err(|error| error.to_string()),
        }
    }

    /// Whether frames at this port are wanted. Those of the wire that no app gets may be, if the port itself is not.
    #[must_use]
    pub fn wants_port(&self, member: &Member) -> bool {
        match self.wanted.interfaces.as_slice() {
            [] => member.id != WIRE,
            names => names.contains(&member.name),
        }
    }

    /// Whether frames of this process are wanted.
    #[must_use]
    pub fn wants_owner(&self, member: &Member) -> bool {
        let pid = || member.identity.as_ref().is_some_and(|of| self.wanted.pid.contains(&of.pid.cast_unsigned()));
        self.selector.holds(&member.owner()) && (self.wanted.pid.is_empty() || pid())
    }

    /// Whether an interface of the file is this port from the beginning.
    #[must_use]
    pub fn lists(&self, member: &Member) -> bool {
        match member.id {
            WIRE => self.wants_port(member) || self.wants_strays(),
            _ => self.wants_port(member) && (!self.owned || self.wants_owner(member)),
        }
    }

    /// Whether frames from the wire are wanted that no app gets, though the wire is not asked for.
    const fn wants_strays(&self) -> bool {
        self.wanted.interfaces.is_empty() && !self.owned && !matches!(self.wanted.direction, Some(Way::Out))
    }

    /// What workers are to show session `session` under the snapshot of `names`.
    #[must_use]
    pub fn selection(&self, session: u32, names: &PortNames) -> Selection {
        let direction = self.wanted.direction.unwrap_or_default();
        let wants = [direction != Way::Out, direction != Way::In];
        let mut ports = vec![[false; 2]; names.ports()];
        let mut owners = vec![false; names.ports()];
        for member in names.members() {
            let at = usize::from(member.id);
            if self.wants_port(member) {
                ports[at] = wants;
            }
            owners[at] = member.id != WIRE && self.wants_owner(member);
        }
        Selection {
            session,
            ports: ports.into(),
            strays: self.wants_strays(),
            owners: self.owned.then(|| owners.into()),
            which: self.wanted.which.unwrap_or_default(),
            rules: (!self.wanted.rule.is_empty()).then(|| self.rules_in(names)),
            reasons: self.reasons,
            snap: self.snap(),
            sample: self.wanted.sample.map_or(1, |sample| sample.try_into().unwrap_or(u32::MAX)),
        }
    }

    fn rules_in(&self, names: &PortNames) -> Rules {
        let Some(ruleset) = &names.ruleset else { return Rules::default() };
        let named = |rule: &u32| names.rule(*rule).is_some_and(|name| self.wanted.rule.iter().any(|rule| rule == name));
        let rules = (0..).zip(ruleset.rules()).map(|(number, _)| number);
        let passing = ruleset.passing_rules().iter().enumerate().filter(|(_, rule)| named(rule));
        Rules { deciding: rules.filter(named).collect(), passing: passing.fold(0, |bits, (bit, _)| bits | 1 << bit) }
    }
}

/// What is out of bounds, or means nothing.
fn check(arguments: &Capture) -> Result<(), String> {
    if arguments.snap.is_some_and(|snap| !(1..=SNAP_MAX).contains(&snap)) {
        return Err(format!("`snap` is from 1 to {SNAP_MAX} bytes"));
    }
    if arguments.buffer.is_some_and(|buffer| !BUFFER.contains(&buffer)) {
        return Err(format!("`buffer` is from {} KiB to {} MiB", BUFFER.start() >> 10, BUFFER.end() >> 20));
    }
    if arguments.sample == Some(0) {
        return Err("`sample` is 1 for every packet, 2 for every other one, and so on".to_owned());
    }
    if arguments.seconds.is_some_and(|seconds| !(seconds > 0.0 && seconds <= SECONDS_MAX)) {
        return Err(format!("`seconds` is more than 0 and at most {SECONDS_MAX}"));
    }
    for (name, limit) in [("count", arguments.count), ("bytes", arguments.bytes), ("file_bytes", arguments.file_bytes)]
    {
        if limit == Some(0) {
            return Err(format!("`{name}` is at least 1"));
        }
    }
    Ok(())
}

fn owners(arguments: &Capture) -> Result<Owners, String> {
    let glob = |name: &String| Glob::new(name).ok_or_else(|| format!("`{name}` is no pattern: a bracket is open"));
    let globs = |names: &[String]| names.iter().map(glob).collect::<Result<Vec<_>, _>>();
    let cgroup = |path: &String| {
        CgroupPath::new(path).ok_or_else(|| format!("`{path}` is no path of a cgroup, such as /system.slice/a.service"))
    };
    let ids = |ids: &[String]| {
        let id = |id: &String| {
            let error = || format!("`{id}` is no id of a container or pod: 12 to 64 hexadecimal digits, or * for any");
            ContainerId::new(id).ok_or_else(error)
        };
        ids.iter().map(id).collect::<Result<Vec<_>, _>>()
    };
    let mut owners = Owners::default();
    owners.containers = ids(&arguments.container)?;
    owners.pods = ids(&arguments.pod)?;
    owners.apps = globs(&arguments.app)?;
    owners.comms = globs(&arguments.comm)?;
    owners.exes = globs(&arguments.exe)?;
    owners.users = arguments.user.iter().map(|name| account(name)).collect();
    owners.groups = arguments.group.iter().map(|name| account(name)).collect();
    owners.cgroups = arguments.cgroup.iter().map(cgroup).collect::<Result<_, _>>()?;
    Ok(owners)
}

/// A number is an id, as for chown(1).
fn account(name: &str) -> Account {
    name.parse().map_or_else(|_| Account::Name(name.to_owned()), Account::Id)
}

fn reason(name: &str) -> Result<DropReason, String> {
    let found = DropReason::ALL.iter().find(|reason| reason.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        format!("`{name}` is no reason for a drop; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{MEMORY, share};
    use serde_json::json;

    fn request(buffer: Option<usize>) -> Request {
        Request::read(json!({ "buffer": buffer }).as_object().unwrap()).unwrap()
    }

    /// However many workers there are, the first captures of six users, one after the other, are not refused, and are within their room.
    /// On few workers they have the buffers that they always had.
    #[test]
    fn buffers_are_shared_out_by_user() {
        for workers in [1, 2, 32, 33, 34, 64, 100, 128] {
            let mut taken = 0;
            for user in 0..6 {
                let mut own = 0;
                for capture in 0..if user == 0 { 16 } else { 1 } {
                    let room = share(MEMORY, taken, own);
                    let buffer = match request(None).buffer(workers, room) {
                        Ok(buffer) => buffer,
                        // Who has some already may have to do with that.
                        Err(_) if capture > 0 => break,
                        Err(error) => panic!("{workers} workers, user {user}: {error}"),
                    };
                    assert!(buffer * workers <= room && BUFFER.contains(&buffer) && buffer % 1024 == 0);
                    assert!(buffer == BUFFER_DEFAULT || workers > 2, "{workers} workers: {buffer}");
                    own += buffer * workers;
                    taken += buffer * workers;
                }
            }
        }
    }

    /// A size that is asked for is taken or refused, with one that would be taken.
    #[test]
    fn buffer_that_is_asked_for_is_not_changed() {
        let room = 33 * (4 << 20);
        assert_eq!(request(None).buffer(33, room), Ok(4 << 20));
        assert_eq!(request(Some(4 << 20)).buffer(33, room), Ok(4 << 20));
        let refused = request(Some(8 << 20)).buffer(33, room).unwrap_err();
        assert!(refused.starts_with("`buffer` can be 4096 KiB: "), "{refused}");
        let refused = request(None).buffer(33, 33 << 10).unwrap_err();
        assert!(refused.contains("1 KiB of buffer") && refused.contains("takes 64"), "{refused}");
    }
}

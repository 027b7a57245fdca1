//! The policy as workers see it: compiled rules, and what the attached apps are under them. Part of a snapshot.

use crate::ids::Backlog;
use crate::ids::{Generation, PortId};
use kopi_packet::{FlowKey, Fragment, Headers, icmp, ndp, proto, tcp};
use kopi_policy::{PortPolicy, Ruleset};
use std::sync::Arc;

/// What one app is under the policy.
#[derive(Clone, Debug)]
pub struct PolicyPort {
    /// Number of its port.
    pub id: PortId,
    /// Which use of the number.
    pub generation: Generation,
    /// What the rules know of it.
    pub port_policy: PortPolicy,
    /// Flows of a worker that it may have begun.
    pub flows: u32,
    /// Where its frames to the wire wait, if classes are kept to.
    pub backlog: Backlog,
}

/// An immutable policy with its apps.
#[derive(Debug)]
pub struct PolicyTable {
    ruleset: Arc<Ruleset>,
    /// By port number.
    port_policies: Box<[Option<PortPolicy>]>,
    flows: Box<[u32]>,
    generations: Box<[Generation]>,
    backlogs: Box<[Backlog]>,
    tracks: bool,
}

impl PolicyTable {
    /// The policy `ruleset` over `members`, whose policies are of that ruleset.
    #[must_use]
    pub fn new(ruleset: Arc<Ruleset>, members: Vec<PolicyPort>) -> Self {
        let ports = members.iter().map(|member| usize::from(member.id) + 1).max().unwrap_or(1);
        let mut port_policies: Vec<Option<PortPolicy>> = Vec::new();
        port_policies.resize_with(ports, || None);
        let mut flows = vec![u32::MAX; ports];
        let mut generations = vec![0; ports];
        let mut backlogs = vec![Backlog::AppRing(0); ports];
        for member in members {
            let at = usize::from(member.id);
            port_policies[at] = Some(member.port_policy);
            flows[at] = member.flows;
            generations[at] = member.generation;
            backlogs[at] = member.backlog;
        }
        let tracks = ruleset.uses_state();
        let (flows, generations, backlogs) = (flows.into(), generations.into(), backlogs.into());
        Self { ruleset, port_policies: port_policies.into(), flows, generations, backlogs, tracks }
    }

    /// The rules.
    #[must_use]
    pub const fn ruleset(&self) -> &Arc<Ruleset> {
        &self.ruleset
    }

    /// What app `id` is under them.
    #[inline]
    #[must_use]
    pub fn port_policy(&self, id: PortId) -> Option<&PortPolicy> {
        self.port_policies.get(usize::from(id)).and_then(Option::as_ref)
    }

    /// Flows of a worker that app `id` may have begun.
    #[inline]
    #[must_use]
    pub fn flow_limit(&self, id: PortId) -> u32 {
        self.flows.get(usize::from(id)).copied().unwrap_or(u32::MAX)
    }

    /// Where frames of app `id` to the wire wait, if classes are kept to.
    #[inline]
    #[must_use]
    pub fn backlog(&self, id: PortId) -> Backlog {
        self.backlogs.get(usize::from(id)).copied().unwrap_or(Backlog::AppRing(0))
    }

    /// Which use of port number `id` is meant; 0 if there is no such app.
    #[must_use]
    pub fn generation(&self, id: PortId) -> Generation {
        self.generations.get(usize::from(id)).copied().unwrap_or(0)
    }

    /// Whether connections are tracked: only if the policy looks at them.
    #[inline]
    #[must_use]
    pub const fn tracks(&self) -> bool {
        self.tracks
    }

    /// What of a frame has to be looked at beyond its flow key.
    #[must_use]
    pub fn watch(&self) -> Inspection {
        Inspection { flags: self.ruleset.tcp_flags_mask(), tracks: self.tracks }
    }
}

/// What of frames has to be looked at beyond their flow key.
#[derive(Clone, Copy, Debug)]
pub struct Inspection {
    /// Flags of TCP that belong to the key.
    pub flags: u8,
    /// Whether connections are tracked.
    pub tracks: bool,
}

impl Inspection {
    /// Whether [`complete`](Self::complete) has anything to do for a frame with this key.
    #[inline]
    #[must_use]
    pub fn has_more(self, key: &FlowKey) -> bool {
        // Of UDP the key says all that there is to be said.
        key.proto() != proto::UDP || key.fragment() != Fragment::None
    }

    /// Puts into `key` what the policy looks at beyond what the parser has put there. Returns whether the frame is to be
    /// evaluated by itself: it says something that its key does not, and the policy looks at it.
    #[inline]
    #[must_use]
    pub fn complete(self, key: &mut FlowKey, frame: &[u8], headers: &Headers) -> bool {
        if !self.has_more(key) {
            return false;
        }
        *key = key.with_tcp_flags(tcp::flags_of(frame, headers) & self.flags);
        let turns = self.tracks && tcp::is_special(frame, headers);
        turns || key.fragment() != Fragment::None || icmp::is_error(key) || ndp::is_ndp(key)
    }
}

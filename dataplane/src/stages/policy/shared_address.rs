//! Whose a frame is that comes for an address which apps share with the host, and whether one of these may begin what it begins.

use super::PolicyStage;
use super::evaluate::ParsedFrame;
use crate::ids::{PortId, Verdict};
use crate::shared_address::{SharedAddress, tells_of_neighbour};
use crate::snapshot::Snapshot;
use kopi_config::policy::{Direction, State};
use kopi_packet::{Fragment, fragment_id};
use kopi_policy::{CtLookup, FragmentKey, Tuple};
use kopi_ring::DropReason;

impl PolicyStage {
    /// Where a frame of port `source` goes that is for the shared address.
    ///
    /// To the app to which the port is leased; to the app that knows the connection, or the packet that an ICMP error is about,
    /// or the first fragment; else to the host. What tells of a neighbour is for all of them.
    pub(super) fn owner_of(&self, sharing: &SharedAddress, source: PortId, seen: ParsedFrame<'_>) -> Verdict {
        if sharing.has(source) {
            return Verdict::Drop(DropReason::SamePort);
        }
        if tells_of_neighbour(seen.key) {
            return Verdict::Promiscuous;
        }
        let owner = sharing.listener(seen.key).or_else(|| {
            let mut apps = sharing.apps().iter().copied();
            apps.find(|id| self.knows(*id, seen))
        });
        Verdict::App(owner.unwrap_or_else(|| sharing.host()))
    }

    /// Whether a frame that arrives is of what app `id` has to do with.
    fn knows(&self, id: PortId, ParsedFrame { frame, headers, key, now }: ParsedFrame<'_>) -> bool {
        if key.fragment() == Fragment::Later {
            let part = fragment_id(frame, headers)
                .and_then(|part| FragmentKey::of(self.connections.holder(id), Direction::Ingress, key, part));
            return part.is_some_and(|part| self.fragments.recall(&part, now).is_some());
        }
        let lookup = self.connections.lookup(id, Direction::Ingress, (frame, headers, key), now);
        lookup.connection().is_some() || lookup.state() == State::Related
    }

    /// Whether what port `source` would begin with a frame, or answer for the first time, is another's already, of those who
    /// share its address: one that it has begun itself, or has answered. What was only sent to it is nobody's.
    pub(super) fn is_of_another(
        &self,
        sharing: &SharedAddress,
        source: PortId,
        lookup: Option<&CtLookup>,
        seen: ParsedFrame<'_>,
    ) -> bool {
        let first_answer = |lookup: &CtLookup| lookup.connection().is_none_or(|own| self.connections.is_unasked(own));
        let begins = lookup.is_some_and(first_answer);
        begins
            && sharing.has(source)
            && sharing.all().iter().any(|other| {
                let tuple = if *other == source { None } else { Tuple::of(*other, seen.key, Direction::Egress) };
                let theirs = tuple.and_then(|tuple| self.connections.find(&tuple, seen.now));
                theirs.is_some_and(|theirs| !self.connections.is_unasked(theirs))
            })
    }
}

/// Whether another app may come to be the one that a flow with this verdict belongs to, without anything that the flow
/// remembers telling of it: what the host gets, as long as it has not answered.
#[inline]
pub(crate) fn may_move(snapshot: &Snapshot, verdict: Verdict, state: Option<State>) -> bool {
    snapshot.shared_address().is_some_and(|sharing| {
        let of_host = match verdict {
            Verdict::App(id) | Verdict::Refuse(id, _) | Verdict::Reject(id) => id == sharing.host(),
            _ => false,
        };
        of_host && matches!(state, Some(State::New | State::Invalid))
    })
}

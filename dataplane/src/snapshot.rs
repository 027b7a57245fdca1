//! All that workers judge frames by, in one object.
//!
//! The control thread builds a new [`Snapshot`] aside whenever a port comes, goes or changes, or the policy does, and hands it to the
//! workers. Its epoch makes the verdicts cached in the flow tables stale.

use crate::fib::Fib;
use crate::ids::PortId;
use crate::policy_table::PolicyTable;
use crate::rss::RssTable;
use crate::shared_address::SharedAddress;
use kopi_packet::{FlowKey, LinkProtocol};
use kopi_ring::message::Mac;

/// Forwarding table, RSS and policy at one moment. Immutable: a change replaces it as a whole.
#[derive(Debug)]
pub struct Snapshot {
    epoch: u32,
    fib: Fib,
    rss: RssTable,
    policies: Option<PolicyTable>,
    shared_address: Option<SharedAddress>,
}

impl Snapshot {
    /// A snapshot without a policy, in which no port has several RX queues. `epoch` must differ from the one before; 0 is never used.
    #[must_use]
    pub fn new(epoch: u32, fib: Fib) -> Self {
        Self { epoch, fib, rss: RssTable::default(), policies: None, shared_address: None }
    }

    /// The same snapshot, where what ports receive is spread like this.
    #[must_use]
    pub fn with_rss(self, rss: RssTable) -> Self {
        Self { rss, ..self }
    }

    /// The same snapshot, with a policy.
    #[must_use]
    pub fn with_policies(self, policies: Option<PolicyTable>) -> Self {
        Self { policies, ..self }
    }

    /// The same snapshot, with apps that have their address together with the host. It takes a policy, as whose a frame is
    /// depends on connections.
    #[must_use]
    pub fn with_shared_address(mut self, shared_address: Option<SharedAddress>) -> Self {
        if let Some(shared) = &shared_address {
            // Without a closer look, it is the host's.
            self.fib.set_owner(shared.mac(), shared.host());
        }
        Self { shared_address, ..self }
    }

    /// Tells verdicts made under this snapshot from older ones.
    #[inline]
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The forwarding table.
    #[inline]
    #[must_use]
    pub const fn fib(&self) -> &Fib {
        &self.fib
    }

    /// How what each port receives is spread over its RX queues.
    #[inline]
    #[must_use]
    pub const fn rss(&self) -> &RssTable {
        &self.rss
    }

    /// The policy, if there is one.
    #[inline]
    #[must_use]
    pub const fn policies(&self) -> Option<&PolicyTable> {
        self.policies.as_ref()
    }

    /// The apps that have their address together with the host, if there are any.
    #[inline]
    #[must_use]
    pub const fn shared_address(&self) -> Option<&SharedAddress> {
        self.shared_address.as_ref()
    }

    /// Whether port `id` is to have its copy of a frame for several, which is of link control if `protocol` says so.
    #[inline]
    #[must_use]
    pub fn hears(&self, id: PortId, key: &FlowKey, protocol: Option<LinkProtocol>) -> bool {
        protocol.is_none_or(|protocol| self.fib.may_link(id, protocol))
            && self.shared_address.as_ref().is_none_or(|shared| shared.hears(id, key))
    }

    /// The apps that get a unicast frame which is for none of them alone: those that share the address, or want what is
    /// nobody's.
    #[must_use]
    pub fn takers(&self, destination: &Mac) -> &[PortId] {
        match &self.shared_address {
            Some(shared) if shared.mac() == destination => shared.all(),
            _ => self.fib.promiscuous(),
        }
    }
}

//! One attached app, and what the policy grants to it.

use crate::control::app_waker::Reach;
use crate::control::identity::Identity;
use crate::control::kept_regions::Watch;
use crate::control::regions::{Charge, Making};
use crate::flow_rules::FlowRules;
use crate::ids::{Generation, PortId};
use crate::rss::Rss;
use crate::worker::counters::PortTotals;
use kopi_packet::LinkProtocols;
use kopi_policy::PortPolicy;
use kopi_ring::message::{self, FlowRule, Mac, Settings};
use kopi_ring::status::DaemonStatus;
use kopi_ring::{Doorbell, PROTOCOL, Region, Window};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One attached app.
#[derive(Debug)]
pub struct App {
    /// Number of its port.
    pub id: PortId,
    /// Which use of the number.
    pub generation: Generation,
    /// Its name, unique among the apps.
    pub name: String,
    /// The name it asked for; empty if it did not.
    pub asked: String,
    /// Its process.
    pub identity: Identity,
    /// Its user, as limits know it.
    pub account: u32,
    /// What the policy says of it.
    pub grant: AttachGrant,
    /// What its driver says of itself, for the operator.
    pub driver: String,
    /// The version of the protocol that this speaks.
    pub protocol: u16,
    /// What its port is to receive and to carry. The first address is the main one.
    pub settings: Settings,
    /// How what it receives is spread over its RX queues, while there are such.
    pub rss: Option<Arc<Rss>>,
    /// What it has chosen of that, if it has.
    pub chosen_rss: Option<message::Rss>,
    /// Its flow rules by number, which stay when its rings go.
    pub flow_rules: BTreeMap<u16, FlowRule>,
    /// The same for workers, for the rings that it has; `None` when that has to be worked out.
    pub compiled_rules: Option<Arc<FlowRules>>,
    /// Whether it has had rings before.
    pub started: bool,
    /// Whether the log says already that it has as many connections as it may have.
    pub limit_logged: bool,
    /// Its rings, while it is started.
    pub region: Option<Region>,
    /// How it is to be reached when workers serve its rings, as long as they do not yet.
    pub waiting: Option<Reach>,
    /// Their memory.
    pub charge: Charge,
    /// What tells when they are gone, if they can be sealed.
    pub watch: Option<Watch>,
    /// Whether it can make no holes in them.
    pub sealed: bool,
    /// The rings that it waits for.
    pub pending: Option<Pending>,
    /// Where it shares memory, if it does.
    pub window: Option<Arc<Window>>,
    /// The client's end of the doorbell, until it is sent.
    pub doorbell: Option<Doorbell>,
    /// Where its counters are shown to it.
    pub status: Option<DaemonStatus>,
    /// What the counters of its number stood at when it came.
    pub base: PortTotals,
}

/// Rings that are being made for an app.
#[derive(Debug)]
pub struct Pending {
    /// The order.
    pub making: Making,
    /// Their memory.
    pub charge: Charge,
    /// Whether the app may sleep.
    pub sleeps: bool,
}

/// What the policy says of an app.
#[derive(Clone, Debug, Default)]
pub struct AttachGrant {
    /// The `[[app]]` by which it has attached, as an index into the policy's.
    pub entry: Option<usize>,
    /// The name that the policy gives to it.
    pub name: Option<String>,
    /// The only address that its port may have.
    pub mac: Option<Mac>,
    /// Whether that is the host's, too.
    pub shared: bool,
    /// Most queue pairs.
    pub queues: Option<u16>,
    /// Whether its memory is not to be read where it lies.
    pub keeps_memory: bool,
    /// Protocols of the wire's link that it may take part in.
    pub link: LinkProtocols,
    /// What the rules know of it; `None` when that has to be worked out.
    pub port_policy: Option<PortPolicy>,
}

impl App {
    /// An app that has no rings yet. `identity` is the process, and `account` its user, as limits know it.
    #[must_use]
    pub fn new(id: PortId, generation: Generation, (identity, account): (Identity, u32), grant: AttachGrant) -> Self {
        Self {
            id,
            generation,
            name: String::new(),
            asked: String::new(),
            identity,
            account,
            grant,
            driver: String::new(),
            protocol: PROTOCOL,
            settings: Settings::default(),
            rss: None,
            chosen_rss: None,
            flow_rules: BTreeMap::new(),
            compiled_rules: None,
            started: false,
            limit_logged: false,
            region: None,
            waiting: None,
            charge: Charge::default(),
            watch: None,
            sealed: false,
            pending: None,
            window: None,
            doorbell: None,
            status: None,
            base: PortTotals::default(),
        }
    }

    /// Whether workers serve its rings.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        self.region.is_some() && self.waiting.is_none()
    }
}

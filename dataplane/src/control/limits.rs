//! Limits of apps and users.

use crate::control::memory::{Bytes, MachineMemory, free_huge_memory};
use kopi_config::Config;
use kopi_ring::HugePages;

/// What an app may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Apps at one time.
    pub apps: usize,
    /// Queues in each direction.
    pub queues: u16,
    /// Slots in a ring.
    pub ring: u32,
    /// Apps of one user.
    pub apps_per_user: usize,
    /// Requests of one user's apps in a second.
    pub requests_per_user: u32,
    /// Changes of the ports that one user's apps may make in a second.
    pub changes_per_user: u32,
    /// Bytes of shared memory of an app.
    pub memory: u64,
    /// Bytes of shared memory of all apps.
    pub memory_total: u64,
    /// Bytes of shared memory of the apps of one user.
    pub memory_per_user: u64,
    /// Where that memory comes from.
    pub huge_pages: HugePages,
    /// Whether apps may share memory of their own.
    pub share_memory: bool,
    /// Tracked connections.
    pub connections: kopi_policy::Limits,
}

impl Limits {
    /// The limits in `config`. There is room for `connections`; without another limit, a user may have half of that: as many as have a
    /// flow in each direction in the flow tables, and no more than all others together.
    #[must_use]
    pub fn new(config: &Config, connections: usize) -> Self {
        let half = u32::try_from(connections / 2).unwrap_or(u32::MAX);
        let per_user = config.limits.connections_per_user.unwrap_or(half);
        let per_app = config.limits.connections_per_app.unwrap_or(per_user);
        let (memory_total, memory_per_user) = memory_limits(config);
        Self {
            apps: config.limits.apps.into(),
            apps_per_user: config.limits.apps_per_user.into(),
            requests_per_user: config.limits.requests_per_user,
            changes_per_user: config.limits.changes_per_user,
            memory_total,
            memory_per_user,
            queues: config.limits.queues,
            ring: config.limits.ring_size,
            memory: config.limits.memory.bytes(),
            share_memory: config.memory.share_memory,
            connections: kopi_policy::Limits { per_app, per_user },
            huge_pages: match config.memory.huge_pages {
                kopi_config::HugePages::Auto => HugePages::Auto,
                kopi_config::HugePages::Off => HugePages::Off,
                kopi_config::HugePages::Require => HugePages::Require,
            },
        }
    }
}

/// Bytes of rings that all apps may have, and those of one user: as configured, or half of what there is at the start, and three
/// quarters of that.
fn memory_limits(config: &Config) -> (u64, u64) {
    let limits = &config.limits;
    let (left, pool) = (MachineMemory::new().left(), free_huge_memory());
    let left = match config.memory.huge_pages {
        kopi_config::HugePages::Off => left / 2,
        kopi_config::HugePages::Auto => (left / 2).saturating_add(pool),
        kopi_config::HugePages::Require => pool,
    };
    let total = limits.memory_total.map_or(left, kopi_config::Size::bytes);
    let per_user = limits.memory_per_user.map_or(total / 4 * 3, kopi_config::Size::bytes);
    log::info!("rings may take {}, those of one user {}", Bytes(total), Bytes(per_user));
    if total > left {
        log::warn!(
            "[limits] memory_total is {}, and kopid should not give more than {} of what its machine and cgroup have: applications \
             may be refused rings before that",
            Bytes(total),
            Bytes(left)
        );
    }
    (total, per_user)
}

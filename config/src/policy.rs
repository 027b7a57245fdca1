//! `policy.toml`: who may attach, and who may send and receive what. Reloadable.
//!
//! Types that are valid by construction: a [`Policy`] that exists can be enforced. Names of users and groups stay names
//! here, since what they stand for may change while the policy does not; sets are resolved, since they stand in the
//! same file.

mod addresses;
mod app;
mod class;
mod field;
mod matches;
mod owner;
mod rule;
mod tracking;

pub use addresses::{Addresses, Cidr};
pub use app::{App, Listen};
pub use class::Class;
pub use field::{Field, Scalar};
pub use matches::{Direction, Match, State, States, TcpFlags};
pub use owner::{CgroupPath, Glob, OwnerMatch, Owners};
pub use rule::{Action, Decision, Rule};
pub use tracking::Tracking;

use crate::report::Diagnostic;

/// Most rules of a policy.
pub const MAX_RULES: usize = 100_000;
/// Most rules whose action goes on to the next rule: each has a bit in a word.
pub const MAX_PASSING_RULES: usize = 64;

/// A whole policy.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Policy {
    /// What happens to what no rule decides.
    pub default: Defaults,
    /// Who may attach, in the order of the file: the first that matches counts.
    pub apps: Vec<App>,
    /// What happens to frames, in the order of the file: the first that matches and decides counts.
    pub rules: Vec<Rule>,
    /// Names of the classes that apps and rules refer to, in the order of the file.
    pub classes: Vec<Class>,
    /// How connections are tracked.
    pub tracking: Tracking,
    /// What is allowed and probably not intended, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// `default`: what happens to what no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defaults {
    /// Frames from apps. Accepted if not stated.
    pub egress: Decision,
    /// Frames to apps. Accepted if not stated.
    pub ingress: Decision,
    /// Processes that no `[[app]]` matches: whether they may attach. They may if not stated.
    pub attach: bool,
    /// Later fragments of IP packets whose first fragment was not seen. `Accept` or `Drop`; dropped if not stated.
    pub fragments: Decision,
    /// Frames that cannot be parsed to their end. `Accept` means that the rules decide by what could be read; dropped
    /// if not stated.
    pub malformed: Decision,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            egress: Decision::Accept,
            ingress: Decision::Accept,
            attach: true,
            fragments: Decision::Drop,
            malformed: Decision::Drop,
        }
    }
}

//! `policy.toml`: who may attach, and who may send and receive what. Reloadable.
//!
//! Types that are valid by construction: a [`Policy`] that exists can be enforced. Names of users and groups stay names
//! here, since what they stand for may change while the policy does not; sets are resolved, since they stand in the
//! same file.

mod addresses;
mod allow;
mod app;
mod class;
mod class_selection;
mod class_tree;
mod defaults;
mod field;
mod flags;
mod glob;
mod icmp;
pub(crate) mod mac;
mod matches;
mod name;
mod number;
mod owner;
mod protocol_check;
mod rate;
mod rule;
mod set;
mod shadow;
mod show;
mod strangers;
mod time;
mod tracking;
mod values;
mod wire;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;

pub use addresses::{Addresses, Cidr};
pub use allow::Allowed;
pub use app::{Address, App, Listen};
pub use class::Class;
pub use class_selection::ClassSelection;
pub use defaults::Defaults;
pub use field::{Field, Scalar};
pub use glob::Glob;
pub use matches::{Direction, Match, State, States, TcpFlags};
pub use owner::{CgroupPath, OwnerMatch, Owners};
pub use rate::{ParseRateError, Rate};
pub use rule::{Action, Decision, Rule};
pub use set::Set;
pub use show::Brief;
pub use tracking::Tracking;
pub use wire::Wire;

use crate::document::{Document, Layout};
use crate::report::{Diagnostic, Errors, Report, Severity, quoted};
use crate::schema;
use crate::source::Source;
use app::AppEntry;
use class::ClassEntry;
use rule::RuleEntry;
use set::{Names, SetEntry};

/// Most rules of a policy.
pub const MAX_RULES: usize = 100_000;
/// Most rules whose action goes on to the next rule: each has a bit in a word.
pub const MAX_PASSING_RULES: usize = 64;
/// Largest policy, in bytes.
pub const SIZE_MAX: u64 = 16 << 20;

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
    /// The classes that apps and rules refer to, in the order of the file: a tree under the wire.
    pub classes: Vec<Class>,
    /// The named sets, in the order of the file. Rules share the ranges of those that they use.
    pub sets: Vec<Set>,
    /// What the wire carries.
    pub wire: Wire,
    /// How connections are tracked.
    pub tracking: Tracking,
    /// What is allowed and probably not intended, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// What only the machine knows, and where it stands first.
    name_refs: BTreeMap<NameRef, Diagnostic>,
}

/// Something that a policy names and only the machine knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameRef {
    /// A user's name.
    User(String),
    /// A group's name.
    Group(String),
    /// A cgroup.
    Cgroup(CgroupPath),
}

/// Every table and key of `policy.toml`.
pub static LAYOUT: Layout = Layout {
    keys: &[],
    tables: &["default", "wire", "tracking"],
    lists: &["set", "class", "app", "rule"],
    schema: || schema::schema::<File>("policy.toml"),
};

/// Who may attach, and who may send and receive what.
#[derive(Default, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
struct File {
    default: Defaults,
    wire: Wire,
    tracking: Tracking,
    /// Addresses and ports under a name, for rules to use as "@name".
    set: Vec<SetEntry>,
    /// Traffic under a name, its share of the wire or of its parent, and how it waits.
    class: Vec<ClassEntry>,
    /// Who may attach as what: the first that matches counts.
    app: Vec<AppEntry>,
    /// What happens to frames: the first rule that matches and decides counts.
    rule: Vec<RuleEntry>,
}

impl Policy {
    /// Reads and checks the file at `path`. Never blocks, whatever kind of file it is.
    ///
    /// # Errors
    ///
    /// Every problem of the file: see [`Source::read`] for those of reading it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Errors> {
        Self::from_source(&Source::read_up_to(path.as_ref(), SIZE_MAX)?)
    }

    /// Checks `text` as the content of a file that messages call `file_name`.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse(text: impl AsRef<[u8]>, file_name: &str) -> Result<Self, Errors> {
        Self::from_source(&Source::from_bytes_up_to(file_name, text.as_ref(), SIZE_MAX)?)
    }

    fn from_source(source: &Source) -> Result<Self, Errors> {
        let report = Report::new(source);
        let policy = Self::walk(&Document::parse(&LAYOUT, &report));
        let (policy, warnings) = report.finish(policy)?;
        Ok(Self { warnings, ..policy })
    }

    fn walk(document: &Document<'_>) -> Option<Self> {
        // Everything is read before the first `?`, so that one run reports the problems of all.
        let default = document.table::<Defaults>("default").whole();
        let tracking = document.table("tracking").whole();
        let wire = document.table::<Wire>("wire");
        let place = wire.place.clone();
        let wire = wire.whole().inspect(|wire| wire.warn(&place));
        let mut names = Names::read(document);
        let classes = Class::read_all(document, &mut names, wire.unwrap_or_default());
        let apps = App::read_all(document, &names);
        // Whoever is not in the list does not attach.
        let all = default.as_ref().is_some_and(|default| !default.attach);
        let rules = Rule::read_all(document, &names, apps.as_deref().filter(|_| all));
        let name_refs = names.name_refs.take();
        Some(Self {
            default: default?,
            apps: apps?,
            rules: rules?,
            classes: classes?,
            sets: names.into_sets(),
            wire: wire?,
            tracking: tracking?,
            warnings: Vec::new(),
            name_refs,
        })
    }

    /// Warns of each name in the policy that `is_known` denies, at its first place in the file.
    ///
    /// A name that nobody has is no error: it matches nobody, and the user may come to be later. Of more than 4,096
    /// different names, the first are asked for.
    #[must_use]
    pub fn check_names(&self, is_known: &dyn Fn(&NameRef) -> bool) -> Vec<Diagnostic> {
        let unknown = self.name_refs.iter().filter(|(name, _)| !is_known(name));
        let mut warnings: Vec<_> = unknown.map(|(name, place)| name.warning(place)).collect();
        warnings.sort_by_key(|warning| warning.position);
        warnings
    }
}

impl NameRef {
    fn warning(&self, place: &Diagnostic) -> Diagnostic {
        let (message, help) = match self {
            Self::User(name) => (format!("there is no user {}", quoted(name)), "it matches nobody until there is one"),
            Self::Group(name) => {
                (format!("there is no group {}", quoted(name)), "it matches nobody until there is one")
            }
            Self::Cgroup(path) => {
                (format!("there is no cgroup {}", quoted(path.as_str())), "it matches nobody until there is one")
            }
        };
        Diagnostic { severity: Severity::Warning, message, help: Some(help.to_owned()), ..place.clone() }
    }
}

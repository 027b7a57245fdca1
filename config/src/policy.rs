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
mod container;
mod defaults;
mod field;
mod flags;
mod frames;
mod glob;
mod icmp;
pub(crate) mod mac;
mod matches;
mod number;
mod owner;
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
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde_json::Value as Json;

pub use addresses::Addresses;
pub use allow::Allowed;
pub use app::{Address, App, Listen};
pub use class::Class;
pub use class_selection::ClassSelection;
pub use container::ContainerId;
pub use defaults::Defaults;
pub use field::{Field, Scalar, Union};
pub use glob::Glob;
pub use matches::{Direction, Match, State, States, TcpFlags};
pub use owner::{CgroupPath, OwnerMatch, Owners};
pub use rule::{Action, Decision, Rule};
pub use set::Set;
pub use tracking::Tracking;
pub use wire::WireLimit;

pub use crate::amount::Rate;
pub use ipnet::IpNet;

use crate::document::{Document, Entry};
use crate::report::{Diagnostic, Errors, Report, Severity, quoted};
use crate::schema;
use crate::source::Source;
use rule::RuleEntry;
use set::{Names, SetEntry};

/// Most rules of a policy.
pub const MAX_RULES: usize = 100_000;
/// Most rules whose action goes on to the next rule: each has a bit in a word.
pub const MAX_PASSING_RULES: usize = 64;
/// Largest policy, in bytes.
pub const SIZE_MAX: u64 = 16 << 20;

/// Who may attach, and who may send and receive what.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Policy {
    /// What happens to what no rule decides.
    pub default: Defaults,
    /// What the wire carries, so that frames wait in kopid, where classes share it, and not in the NIC.
    pub wire: WireLimit,
    /// How connections are tracked, and how long they are remembered while idle, in seconds.
    pub tracking: Tracking,
    /// Addresses and ports under a name, for rules to use as "@name".
    // Rules share the ranges of those that they use.
    #[schemars(rename = "set", with = "Vec<SetEntry>")]
    pub sets: Vec<Set>,
    /// Traffic under a name, its share of the wire or of its parent, and how it waits.
    // A tree under the wire.
    #[schemars(rename = "class")]
    pub classes: Vec<Class>,
    /// Who may attach as what: the first that matches counts.
    #[schemars(rename = "app")]
    pub apps: Vec<App>,
    /// What happens to frames: the first rule that matches and decides counts.
    #[schemars(rename = "rule", with = "Vec<RuleEntry>")]
    pub rules: Vec<Rule>,
    /// What is allowed and probably not intended, in the order of the file.
    #[schemars(skip)]
    pub warnings: Vec<Diagnostic>,
    /// What only the machine knows, and where it stands first.
    #[schemars(skip)]
    name_refs: BTreeMap<NameRef, Diagnostic>,
}

/// What a file may have.
pub(crate) static SCHEMA: LazyLock<Json> = LazyLock::new(|| schema::schema::<Policy>("policy.toml"));

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

impl Policy {
    /// Reads and checks the file at `path`. Never blocks, whatever kind of file it is.
    ///
    /// # Errors
    ///
    /// Every problem of the file, and those of reading it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Errors> {
        Self::from_source(&Source::read(path.as_ref(), SIZE_MAX)?)
    }

    /// Checks `text` as the content of a file that messages call `file_name`.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse(text: impl AsRef<[u8]>, file_name: &str) -> Result<Self, Errors> {
        Self::from_source(&Source::from_bytes(file_name, text.as_ref(), SIZE_MAX)?)
    }

    fn from_source(source: &Source) -> Result<Self, Errors> {
        let report = Report::new(source);
        let policy = Self::walk(&Document::parse(&SCHEMA, &report));
        let warnings = report.finish()?;
        Ok(Self { warnings, ..policy })
    }

    fn walk(document: &Document<'_>) -> Self {
        let default = document.table::<Defaults>("default").value;
        let tracking = document.table("tracking").value;
        let Entry { value: wire, place, .. } = document.table::<WireLimit>("wire");
        wire.warn(&place);
        let mut names = Names::read(document);
        let classes = Class::read_all(document, &mut names, wire);
        let apps = App::read_all(document, &names);
        // Whoever is not in the list does not attach.
        let all = !default.attach && document.faults() == 0;
        let rules = Rule::read_all(document, &names, Some(&apps[..]).filter(|_| all));
        let name_refs = names.name_refs.take();
        let sets = names.into_sets();
        Self { default, wire, tracking, sets, classes, apps, rules, warnings: Vec::new(), name_refs }
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
        let (kind, name) = match self {
            Self::User(name) => ("user", name.as_str()),
            Self::Group(name) => ("group", name.as_str()),
            Self::Cgroup(path) => ("cgroup", path.as_str()),
        };
        let message = format!("there is no {kind} {}", quoted(name));
        let help = Some("it matches nobody until there is one".to_owned());
        Diagnostic { severity: Severity::Warning, message, help, ..place.clone() }
    }
}

//! Who may attach, and as what.

use kopi_config::policy::App;
use thiserror::Error;

use crate::owner::{Names, Owner, Test};

/// Why a process may not attach.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The first `[[app]]` that is for the process has `admit = false`.
    #[error("the policy does not admit this process: `admit` is false in [[app]] `{entry}`")]
    NotAdmitted {
        /// Its name.
        entry: String,
    },
    /// The name that was asked for stands in an `[[app]]` that is for others.
    #[error("the policy gives the name `{asked}` to another process")]
    NameOfOther {
        /// The name.
        asked: String,
    },
    /// There is an `[[app]]` for the process, and the process asks for another name: so it would evade its port security.
    #[error("the policy has the name `{entry}` for this process, not `{asked}`")]
    OtherName {
        /// The name that was asked for.
        asked: String,
        /// The name that it may have.
        entry: String,
    },
    /// No `[[app]]` is for the process, and `default.attach` is `"refuse"`.
    #[error("no [[app]] of the policy is for this process")]
    NoEntry,
}

/// The `[[app]]` entries, with their names resolved.
#[derive(Debug)]
pub(crate) struct Entries {
    tests: Vec<Test>,
    /// Whether a process that none is for may attach.
    others: bool,
}

impl Entries {
    pub(crate) fn compile(apps: &[App], others: bool, names: &Names) -> Self {
        Self { tests: apps.iter().map(|app| Test::new(&app.owner, app.admit, names)).collect(), others }
    }

    /// The entry by which `owner` may attach, `None` if it may without one.
    ///
    /// The first entry counts that is for the owner and has the name that was asked for, if one was; an entry that does
    /// not admit counts whatever was asked for. The entry of the kernel's port is for no process.
    pub(crate) fn admit(&self, apps: &[App], owner: &Owner<'_>, asked: &str) -> Result<Option<usize>, Refusal> {
        let asked = Some(asked).filter(|asked| !asked.is_empty());
        let holds = |((_, app), test): &((usize, &App), &Test)| !app.is_host() && test.holds(owner);
        let matching = || apps.iter().enumerate().zip(&self.tests).filter(holds).map(|(app, _)| app);
        match matching().find(|(_, app)| !app.admit || asked.is_none_or(|asked| app.name == asked)) {
            Some((index, app)) if app.admit => return Ok(Some(index)),
            Some((_, app)) => return Err(Refusal::NotAdmitted { entry: app.name.clone() }),
            None => {}
        }
        if let Some(asked) = asked {
            let asked = asked.to_owned();
            if apps.iter().any(|app| app.name == asked) {
                return Err(Refusal::NameOfOther { asked });
            }
            if let Some((_, app)) = matching().next() {
                return Err(Refusal::OtherName { asked, entry: app.name.clone() });
            }
        }
        if self.others { Ok(None) } else { Err(Refusal::NoEntry) }
    }
}

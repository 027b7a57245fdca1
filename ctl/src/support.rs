//! `kopictl support`: one archive of all that helps with a fault, for a report, without secrets.
//!
//! - [`collect`]: what goes into it; [`redact`]: what does not; [`mask`]: addresses that are nobody's business;
//! - [`archive`]: the file.
//!
//! Never taken: environment and command lines of processes, contents of packets, flows, comments of configuration files, and parameters
//! of the kernel that have nothing to do with kopi.

mod archive;
mod collect;
mod mask;
mod redact;

use crate::arguments::Support;
use crate::failure::Failure;
use crate::streams::print;
use jiff::Timestamp;
use mask::Mask;
use std::path::{Path, PathBuf};

/// Makes the archive.
///
/// # Errors
///
/// [`Failure::File`] if it is there already, or cannot be written.
pub(crate) fn run(options: &Support, socket: &Path) -> Result<(), Failure> {
    let name = format!("kopi-support-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let file = options.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    archive::check_absent(&file)?;
    let mut mask = Mask::default();
    let parts = collect::parts(options, socket).into_iter().map(|part| {
        let text = redact::secrets(&part.text);
        let text = if options.mask { mask.hide(&text) } else { text };
        collect::Part { text, ..part }
    });
    archive::write(&file, &name, &parts.collect::<Vec<_>>())?;
    print(&format!("{}\n", file.display()))
}

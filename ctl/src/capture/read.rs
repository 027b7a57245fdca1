//! Packets of a file: -r.

use super::output::form;
use super::printer;
use crate::arguments::Capture;
use crate::failure::Failure;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Prints the packets of `file`.
///
/// # Errors
///
/// [`Failure`] if it cannot be read, or is no pcapng.
pub(crate) fn read(options: &Capture, file: &Path, json: bool) -> Result<(), Failure> {
    if options.selectors() != kopi_api::request::Capture::default() {
        return Err(Failure::Usage("packets of a file were chosen when it was written: -r takes no selectors".into()));
    }
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(file);
        Box::new(opened.map_err(|error| Failure::File { path: file.into(), reason: error.to_string() })?)
    };
    printer::print(source, form(options, json), options.limits.count).map_err(|failure| match failure {
        Failure::Packets(reason) => {
            Failure::File { path: file.into(), reason: format!("not pcapng, or cut: {reason}") }
        }
        other => other,
    })
}

//! kopictl, the operator's tool: the program, all of which is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kopi_ctl::run()
}

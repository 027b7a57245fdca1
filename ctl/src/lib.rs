//! kopictl, the operator's tool: asks kopid over its control socket, and shows what it answers.
//!
//! - `arguments`: the command line, which knows nothing of the rest; `command`: what each command does;
//! - `names`: those that rows are wanted of; `client`: the control socket, and what is asked over it; `failure`: what can go wrong, and the exit codes;
//! - `completion`: words for shells, names among them that kopid knows;
//! - `check`: kopid's files, without kopid; `cdi`: ports for containers; `doctor`: the machine, `support`: all of it for who is to help;
//! - `capture`: packets with their owners, to a file or as lines; `print`: what a packet says;
//! - `extcap`: the same for Wireshark;
//! - `takeover`: an interface's addresses and routes to the kernel's port, and back;
//! - `top`: what kopid answers, live;
//! - `view`: kopid's answers for people; `text`, `streams`: text that is safe on a terminal, and where it goes.
#![forbid(unsafe_code)]

mod arguments;
mod capture;
mod cdi;
mod check;
mod client;
mod command;
mod completion;
mod doctor;
mod extcap;
mod failure;
mod names;
mod print;
mod streams;
mod support;
mod takeover;
mod text;
mod top;
mod view;

use clap::Parser;
use std::io::{self, Write};
use std::process::ExitCode;

pub use completion::command_line;

/// Does what the command line says, and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    let done = if extcap::is_meant(std::env::args_os()) {
        extcap::run()
    } else {
        // A shell that wants completions is answered, and that is all.
        completion::answer_shell();
        command::run(&arguments::Arguments::parse())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_quiet() => ExitCode::SUCCESS,
        Err(failure) => {
            // With standard error gone there is nobody left to tell.
            drop(io::stderr().write_all(failure.shown().as_bytes()));
            ExitCode::from(failure.exit_code())
        }
    }
}

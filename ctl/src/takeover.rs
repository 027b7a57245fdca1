//! `kopictl takeover`: what an interface has is moved to the kernel's port of kopid's, and back.
//!
//! - [`state`]: what the interface had, and the file that it is kept in;
//! - [`shell`]: the programs by which the kernel is told;
//! - [`steps`]: what is done in which order.
//!
//! The file is written before anything is touched, and removed when everything is back. So whatever happens in between, to
//! kopictl, to kopid or to the interfaces, `--undo` knows what has to be there, and needs no kopid.

mod shell;
mod state;
mod steps;

use crate::arguments::Takeover;
use crate::client::Client;
use crate::failure::Failure;
use crate::request::Request;
use crate::streams::{complain, print};
use shell::{Shell, System};
use state::State;
use std::path::{Path, PathBuf};

/// Where what was taken over is written down, unless the command line says otherwise.
const FOLDER: &str = "/run/kopi";

/// Takes an interface over, or gives it back.
///
/// # Errors
///
/// [`Failure`]; then everything is as it was before, or the error says what is not.
pub(crate) fn run(options: &Takeover, socket: &Path) -> Result<(), Failure> {
    let name = options.interface.as_str();
    let file = options.state.clone().unwrap_or_else(|| PathBuf::from(FOLDER).join(format!("takeover-{name}.json")));
    let mut shell = System;
    if options.undo {
        return undo(name, &file, &mut shell);
    }
    let tap = options.tap.clone().map_or_else(|| tap_of_kopid(socket), Ok)?;
    let known = State::read(&file)?;
    let again = known.is_some();
    let state = match known {
        Some(state) if state.interface != name => {
            return Err(Failure::Takeover(format!("{} is about `{}`", file.display(), state.interface)));
        }
        // The interface of the kernel's port may be another one by now, that has nothing yet.
        Some(state) => State { tap: tap.clone(), ..state },
        None => State::of(name, &tap, &mut shell).map_err(Failure::Takeover)?,
    };
    state.check().map_err(Failure::Takeover)?;
    state.write(&file)?;
    if let Err(error) = steps::take(&state, &mut shell) {
        let back = if again { Ok(()) } else { give_back(&state, &file, &mut shell) };
        return Err(Failure::Takeover(match back {
            Ok(()) if again => format!("{error}; what was taken over before stays so"),
            Ok(()) => format!("{error}; everything is as it was"),
            Err(second) => format!("{error}; and not everything is back: {second}"),
        }));
    }
    let (addresses, routes) = (state.addresses.len(), state.routes.len());
    print(&format!("{addresses} addresses and {routes} routes of `{name}` are those of `{tap}` now\n"))
}

fn undo(name: &str, file: &Path, shell: &mut dyn Shell) -> Result<(), Failure> {
    let Some(state) = State::read(file)? else {
        return complain(&format!("nothing of `{name}` was taken over: there is no {}\n", file.display()));
    };
    give_back(&state, file, shell)?;
    let (addresses, routes) = (state.addresses.len(), state.routes.len());
    print(&format!("{addresses} addresses and {routes} routes are those of `{}` again\n", state.interface))
}

/// Puts everything back, and forgets it if that was possible.
fn give_back(state: &State, file: &Path, shell: &mut dyn Shell) -> Result<(), Failure> {
    let problems = steps::give_back(state, shell);
    if problems.is_empty() {
        return State::forget(file);
    }
    let text = problems.join("; ");
    Err(Failure::Takeover(format!("{text}; {} still says what has to be there", file.display())))
}

/// The interface of the kernel's port, as kopid says.
fn tap_of_kopid(socket: &Path) -> Result<String, Failure> {
    let answer = Client::connect(socket)?.ask(&Request::new("status"))?;
    let tap = answer.pointer("/status/0/host/tap").and_then(serde_json::Value::as_str);
    tap.map(str::to_owned).ok_or_else(|| {
        Failure::Takeover("kopid has no port for the kernel: state `tap` in [host] of kopid.toml".to_owned())
    })
}

//! `kopictl takeover`: what an interface has is moved to the kernel's port of kopid's, and back.
//!
//! - [`message`]: what the kernel shows, which sent back makes it again; [`kernel`]: the kernel itself; [`mod@form`]: what of a
//!   message counts, and how it is moved; `text`: what people call it;
//! - [`survey`]: what an interface has, and what of it cannot be carried; [`state`]: the file that it is kept in, and [`first_version`] an older one;
//! - [`steps`]: what is done in which order; [`mod@arrange`]: routes and rules among those of others; [`mod@cut`]: what arrives
//!   is kept from the kernel.
//!
//! The file is written before anything is touched, and removed when everything is back. So whatever happens in between, to
//! kopictl, to kopid or to the interfaces, `--undo` knows what has to be there, and needs no kopid.

mod arrange;
mod cut;
mod first_version;
mod form;
mod kernel;
mod message;
mod state;
mod steps;
mod survey;
mod text;

use crate::arguments::Takeover;
use crate::client::{Client, Request};
use crate::failure::Failure;
use crate::streams::{complain, print};
use cut::System;
use kernel::{Fault, Rtnetlink};
use kopi_api::Status;
use rustix::time::{ClockId, clock_gettime};
use state::State;
use std::path::{Path, PathBuf};
use steps::Tools;

/// Where what was taken over is written down, unless the command line says otherwise.
pub(crate) const FOLDER: &str = "/run/kopi";

/// Takes an interface over, or gives it back.
///
/// # Errors
///
/// [`Failure`]; then everything is as it was before, or the error says what is not.
pub(crate) fn run(options: &Takeover, socket: &Path) -> Result<(), Failure> {
    let name = options.interface.as_str();
    let file = options.state.clone().unwrap_or_else(|| PathBuf::from(FOLDER).join(format!("takeover-{name}.json")));
    let mut kernel = Rtnetlink::open().map_err(failed)?;
    let mut tools = Tools { kernel: &mut kernel, shell: &mut System, now: now() };
    if options.undo {
        return undo(name, &file, &mut tools);
    }
    let tap = options.tap.clone().map_or_else(|| tap_of_kopid(socket), Ok)?;
    let known = State::read(&file)?;
    let again = known.is_some();
    let state = match known {
        Some(state) if state.interface.name != name => {
            return Err(Failure::Takeover(format!("{} is about `{}`", file.display(), state.interface.name)));
        }
        // The interface of the kernel's port may be another one by now, that has nothing yet.
        Some(state) => {
            survey::still_stands_alone(name, tools.kernel).map_err(failed)?;
            State { tap: tap.clone(), ..state }
        }
        None => survey::survey(name, &tap, tools.now, tools.kernel).map_err(failed)?,
    };
    state.check().map_err(Failure::Takeover)?;
    state.write(&file)?;
    if let Err(error) = steps::take(&state, &mut tools) {
        let back = if again { Ok(()) } else { give_back(&state, &file, &mut tools) };
        return Err(Failure::Takeover(match back {
            Ok(()) if again => format!("{error}; what was taken over before stays so"),
            Ok(()) => format!("{error}; everything is as it was"),
            Err(second) => format!("{error}; and not everything is back: {second}"),
        }));
    }
    let (addresses, routes) = state.sizes();
    print(&format!("{addresses} addresses and {routes} routes of `{name}` are those of `{tap}` now\n"))
}

fn undo(name: &str, file: &Path, tools: &mut Tools<'_>) -> Result<(), Failure> {
    let Some(state) = State::read(file)? else {
        return complain(&format!("nothing of `{name}` was taken over: there is no {}\n", file.display()));
    };
    give_back(&state, file, tools)?;
    let (addresses, routes) = state.sizes();
    print(&format!("{addresses} addresses and {routes} routes are those of `{}` again\n", state.interface.name))
}

/// Puts everything back, and forgets it if that was possible.
fn give_back(state: &State, file: &Path, tools: &mut Tools<'_>) -> Result<(), Failure> {
    let problems = steps::give_back(state, tools);
    if problems.is_empty() {
        return State::forget(file);
    }
    let text = problems.join("; ");
    Err(Failure::Takeover(format!("{text}; {} still says what has to be there", file.display())))
}

/// Seconds since the machine was started, sleep included.
fn now() -> u32 {
    u32::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

fn failed(fault: Fault) -> Failure {
    Failure::Takeover(fault.to_string())
}

/// The interface of the kernel's port, as kopid says.
fn tap_of_kopid(socket: &Path) -> Result<String, Failure> {
    let rows: Vec<Status> = Client::connect(socket)?.rows(&Request::plain("status"))?;
    rows.into_iter().find_map(|status| status.host).map(|host| host.tap).ok_or_else(|| {
        Failure::Takeover("kopid has no port for the kernel: state `tap` in [host] of kopid.toml".to_owned())
    })
}

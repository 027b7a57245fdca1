//! `kopictl capture`: packets with the process behind each, as lines or as pcapng.
//!
//! kopid writes the packets straight to a file, pipe or standard output that comes from here, so none of them takes a way
//! through kopictl, unless they are to be printed.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`session`], [`signals`] | what kopid and the user say meanwhile |
//! | [`mod@run`] | a capture from its start to its end |
//! | [`output`], [`rotation`] | where packets go, and names of files that follow each other |
//! | [`printer`], [`record`], [`lines`], [`stamp`] | from pcapng to a line |
//! | [`mod@read`] | the same from a file |
//! | [`finished`] | a command for each file that is complete |

mod finished;
mod lines;
mod output;
mod printer;
mod read;
mod record;
mod rotation;
mod run;
mod session;
mod signals;
mod stamp;

pub(crate) use output::open_file;
pub(crate) use run::{Ended, Run};
pub(crate) use session::{Session, Watched};
pub(crate) use signals::Signals;

use crate::arguments::Capture;
use crate::client::{Client, Request};
use crate::failure::Failure;
use crate::streams::{mention, print};
use crate::text::{as_json, clean, counted};
use kopi_api::App;
use output::{Output, Printer};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::Path;

/// Captures until the user, a limit or a failure ends it.
///
/// # Errors
///
/// [`Failure`], whose exit code is kopictl's.
pub(crate) fn run(options: &Capture, socket: &Path, json: bool) -> Result<(), Failure> {
    if let Some(file) = &options.output.read {
        return read::read(options, file, json);
    }
    let expression = options.expression()?;
    let output = Output::of(options, json)?;
    let mut client = Client::connect(socket)?;
    if options.list_interfaces {
        return list(&mut client, json);
    }
    let apps = apps(&mut client)?;
    let (opened, files) = output.open()?;
    // From here on a signal ends the capture in good order. Before, it was free to end the process in the wait for a FIFO.
    let signals = Signals::new()?;
    let filters = expression.is_some();
    let request = Request::capture(&options.request(expression), opened.file);
    let (session, first) = Session::start(client, &request)?;
    // What kopid has, it has of its own; a pipe ends with its last writer.
    drop(request);
    mention(&heading(options, &apps, filters && first.row.jit == Some(false)));

    let writes = options.output.file.is_some();
    let ticks = files.is_some() && options.printing.verbose > 0 && io::stderr().is_terminal();
    let watched = Watched { signals, outputs: opened.watched };
    let ended = Run::new(session, watched, files, ticks).until_end();
    let printed = opened.printer.map_or(Ok(()), finish);
    // That kopid has gone is the reason for a stream that breaks off, not the other way round.
    let Ended { progress, abandoned } = ended?;
    printed?;
    let reader_gone = progress.row.why.as_deref() == Some("reader");
    if abandoned || reader_gone {
        return Ok(());
    }
    mention(&summary(&progress.row));
    if json && writes {
        print(&as_json(&progress.whole))?;
    }
    match progress.row.error {
        Some(error) => Err(Failure::Capture(error)),
        None if progress.row.why.as_deref() == Some("error") => Err(Failure::Capture("kopid does not say why".into())),
        None => Ok(()),
    }
}

/// Waits for the printer, which ends when it has printed everything.
fn finish(printer: Printer) -> Result<(), Failure> {
    printer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
}

/// Names of the attached apps.
pub(crate) fn apps(client: &mut Client) -> Result<Vec<String>, Failure> {
    let rows: Vec<App> = client.rows(&Request::plain("apps"))?;
    Ok(rows.into_iter().map(|app| app.name).collect())
}

fn list(client: &mut Client, json: bool) -> Result<(), Failure> {
    let apps = apps(client)?;
    let names = ["any", "wire"].into_iter().chain(apps.iter().map(String::as_str));
    if json {
        return print(&as_json(&json!({ "interfaces": names.collect::<Vec<_>>() })));
    }
    let about = |name: &str| match name {
        "any" => " (all applications, and what is no application's)".to_owned(),
        "wire" => " (the physical port)".to_owned(),
        _ => String::new(),
    };
    let lines = names.enumerate().map(|(at, name)| format!("{}.{}{}\n", at + 1, clean(name), about(name)));
    print(&lines.collect::<String>())
}

/// What is said at the start.
fn heading(options: &Capture, apps: &[String], interpreted: bool) -> String {
    let any = ["any".to_owned()];
    let chosen = if options.interfaces.is_empty() { &any[..] } else { &options.interfaces[..] };
    let about = |name: &String| match name.as_str() {
        "any" => format!("any ({})", counted(apps.len(), "application")),
        "wire" => "wire".to_owned(),
        name if apps.iter().any(|app| app == name) => name.to_owned(),
        name => format!("{} (not attached yet)", clean(name)),
    };
    let names: Vec<String> = chosen.iter().map(about).collect();
    let snap = options.limits.snap;
    let heading = format!("kopictl: listening on {}, snapshot length {snap} bytes\n", names.join(", "));
    let note = "kopictl: the filter is interpreted, since it cannot be compiled on this machine: it costs more time\n";
    if interpreted { heading + note } else { heading }
}

/// What is said at the end.
fn summary(row: &kopi_api::capture::Session) -> String {
    let kopi_api::capture::Session { captured, received, dropped, disk_full, .. } = row;
    let packets = |count: &u64| counted(*count, "packet");
    let disk = if *disk_full { " (the disk was full)" } else { "" };
    format!(
        "{} captured\n{} received by filter\n{} dropped by kopid{disk}\n",
        packets(captured),
        packets(received),
        packets(dropped)
    )
}

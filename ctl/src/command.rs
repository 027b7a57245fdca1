//! What each command does.

use crate::arguments::{Arguments, Command};
use crate::check;
use crate::client::{self, Client, Request};
use crate::failure::Failure;
use crate::names::Names;
use crate::streams::{complain, print};
use crate::text::{as_json, escaped_json};
use crate::{capture, cdi, doctor, support, takeover, text, top, view};
use kopi_api::Reloaded;
use kopi_config::check::check_file;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows that are shown together.
const BLOCK: usize = 256;
/// Moves the cursor home and clears the screen (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Does what the command line says.
///
/// # Errors
///
/// [`Failure`], whose exit code is kopictl's.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { socket, json, command } = arguments;
    // Before connecting, so that a file that is not there is no reason to look for kopid.
    let Some(request) = Request::of(command)? else {
        return match command {
            Command::Check { file } => check(file, *json),
            Command::Capture(options) => capture::run(options, socket, *json),
            Command::Takeover(options) => takeover::run(options, socket),
            Command::Doctor(options) => doctor::run(options, socket, *json),
            Command::Support(options) => support::run(options, socket),
            Command::Cdi(options) => cdi::run(options),
            Command::Top(options) => top::run(options, socket, *json),
            _ => Ok(()),
        };
    };
    let names = match command {
        Command::Rules { names } | Command::Classes { names, .. } => Names::new(names),
        _ => Names::default(),
    };
    let asked = Asked { client: Client::connect(socket)?, request, json: *json, names };
    match command {
        Command::Status => asked.show(view::status),
        Command::Apps { wide } => asked.show(|apps| view::apps(apps, *wide)),
        Command::Stats { watch: None } => asked.show(view::stats),
        Command::Stats { watch: Some(interval) } => {
            let mut rates = view::Rates::default();
            asked.watch(*interval, |ports| view::rates(&rates.since_last(ports, Instant::now())))
        }
        Command::Drops => asked.show(view::drops),
        Command::Rules { .. } => {
            let mut table = view::rules();
            asked.list(|rules| table.block(rules))
        }
        Command::Classes { watch: None, .. } => asked.show(view::classes),
        Command::Classes { watch: Some(interval), .. } => asked.watch(*interval, |classes| view::classes(&classes)),
        Command::Flows(_) => {
            let mut flows = view::Flows::new();
            asked.list(|rows| flows.block(rows))
        }
        Command::Explain(_) => asked.show(view::explained),
        Command::Reload(options) => reload(asked, options.keep),
        Command::Log { .. } => asked.show(view::log_level),
        _ => Ok(()),
    }
}

/// A request, and who answers it.
struct Asked {
    client: Client,
    request: Request,
    json: bool,
    names: Names,
}

impl Asked {
    /// Shows the answer as `view` does, or as JSON.
    fn show<T: DeserializeOwned>(mut self, view: impl FnOnce(&[T]) -> String) -> Result<(), Failure> {
        let answer = self.names.only(self.client.ask(&self.request)?)?;
        print(&if self.json { as_json(&answer) } else { view(&client::rows(answer, &self.request)?) })
    }

    /// Asks again and again, and shows each answer. On a terminal each look replaces the one before.
    fn watch<T: DeserializeOwned>(
        mut self,
        interval: Duration,
        mut view: impl FnMut(Vec<T>) -> String,
    ) -> Result<(), Failure> {
        let mut next = Instant::now();
        let clear = if io::stdout().is_terminal() && !self.json { CLEAR } else { "" };
        for look in 0_u64.. {
            let answer = self.names.only(self.client.ask(&self.request)?)?;
            let now = Instant::now();
            if self.json {
                print(&as_json(&answer))?;
            } else {
                let gap = if look > 0 && clear.is_empty() { "\n" } else { "" };
                print(&format!("{clear}{gap}{}", view(client::rows(answer, &self.request)?)))?;
            }
            // A look that comes late does not make the following ones come early.
            next = (next + interval).max(now);
            std::thread::sleep(next.saturating_duration_since(now));
        }
        Ok(())
    }

    /// Shows an answer that may be long while it comes, some rows at a time; none if there are none at all.
    fn list<T: DeserializeOwned>(mut self, mut view: impl FnMut(&[T]) -> String) -> Result<(), Failure> {
        if self.json {
            return self.list_json();
        }
        let (mut block, mut any) = (Vec::new(), false);
        let names = &mut self.names;
        client::for_each_row(&mut self.client, &self.request, &mut |row| {
            if !names.wants(&row) {
                return Ok(());
            }
            block.push(serde_json::from_str::<T>(row.get()).map_err(Failure::foreign)?);
            if block.len() == BLOCK {
                any = true;
                print(&view(&block))?;
                block.clear();
            }
            Ok(())
        })?;
        self.names.all_found()?;
        if any && block.is_empty() { Ok(()) } else { print(&view(&block)) }
    }

    /// The same as JSON: the object that kopid sends.
    fn list_json(mut self) -> Result<(), Failure> {
        let mut text = format!("{{\"{}\":[", self.request.command());
        let mut count = 0_usize;
        let names = &mut self.names;
        let others = client::for_each_row(&mut self.client, &self.request, &mut |row| {
            if !names.wants(&row) {
                return Ok(());
            }
            if count > 0 {
                text.push(',');
            }
            text.push_str(&escaped_json(row.get()));
            count += 1;
            if count.is_multiple_of(BLOCK) {
                print(&text)?;
                text.clear();
            }
            Ok(())
        })?;
        self.names.all_found()?;
        let others = others.iter().map(|(key, value)| format!(",{}:{value}", json!(key))).collect::<String>();
        print(&format!("{text}]{}}}\n", escaped_json(&others)))
    }
}

/// Checks kopid's files: problems to standard error, what became of each file to standard output.
fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let files = check_file(path);
    if json {
        print(&as_json(&check::as_json(&files)))?;
    } else {
        for file in &files {
            complain(&check::problems(file))?;
            print(&check::summary(file))?;
        }
    }
    check::outcome(&files)
}

/// Puts a policy in force: warnings to standard error, the rest to standard output.
fn reload(mut asked: Asked, kept: bool) -> Result<(), Failure> {
    let answer = asked.client.ask(&asked.request).map_err(|failure| match failure {
        Failure::Daemon(text) => Failure::Policy(text),
        other => other,
    })?;
    if asked.json {
        return print(&as_json(&answer));
    }
    let rows: Vec<Reloaded> = client::rows(answer, &asked.request)?;
    for warning in rows.iter().flat_map(|row| &row.warnings) {
        complain(&format!("{}\n", text::clean_lines(warning)))?;
    }
    print(&view::reloaded(&rows, kept))
}

//! What each command does.

use crate::arguments::{Arguments, Classes, Command, Reload, Stats};
use crate::check;
use crate::client::Client;
use crate::failure::Failure;
use crate::rates::Rates;
use crate::request::Request;
use crate::streams::{complain, print};
use crate::text::{as_json, escaped_json};
use crate::view::Listing;
use crate::{capture, list, takeover, text, view};
use kopi_api::{App, Class, Drops, Explained, Port, Reloaded, Status};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

/// Moves the cursor home and clears the screen (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Does what the command line says.
///
/// # Errors
///
/// [`Failure`], whose exit code is kopictl's.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Command::Check(options) = &arguments.command {
        return check(&options.file, arguments.json);
    }
    if let Command::Capture(options) = &arguments.command {
        return capture::run(options, &arguments.socket, arguments.json);
    }
    if let Command::Takeover(options) = &arguments.command {
        return takeover::run(options, &arguments.socket);
    }
    // Before connecting, so that a file that is not there is no reason to look for kopid.
    let Some(request) = Request::of(&arguments.command)? else { return Ok(()) };
    let mut client = Client::connect(&arguments.socket)?;
    match &arguments.command {
        Command::Stats(Stats { watch: Some(interval) }) => {
            let mut rates = Rates::default();
            return watch(&mut client, &request, *interval, arguments.json, |answer| {
                Ok(view::rates(&rates.since_last(rows::<Port>(answer, "stats")?, Instant::now())))
            });
        }
        Command::Classes(Classes { watch: Some(interval) }) => {
            return watch(&mut client, &request, *interval, arguments.json, |answer| {
                Ok(view::classes(&rows::<Class>(answer, "classes")?))
            });
        }
        Command::Flows(_) => return list(&mut client, &request, arguments.json, &mut view::Flows::new()),
        Command::Rules => return list(&mut client, &request, arguments.json, &mut view::Rules::new()),
        _ => {}
    }
    let answer = client.ask(&request).map_err(|failure| match (&arguments.command, failure) {
        (Command::Reload(_), Failure::Daemon(text)) => Failure::Policy(text),
        (_, failure) => failure,
    })?;
    if arguments.json {
        return print(&as_json(&answer));
    }
    let name = request.command();
    print(&match &arguments.command {
        Command::Status => view::status(&rows::<Status>(&answer, name)?),
        Command::Apps(options) => view::apps(&rows::<App>(&answer, name)?, options.wide),
        Command::Stats(_) => view::stats(&rows::<Port>(&answer, name)?),
        Command::Drops => view::drops(&rows::<Drops>(&answer, name)?),
        Command::Classes(_) => view::classes(&rows::<Class>(&answer, name)?),
        Command::Explain(_) => view::explained(&rows::<Explained>(&answer, name)?),
        Command::Reload(options) => reloaded(&rows::<Reloaded>(&answer, name)?, options)?,
        Command::Flows(_) | Command::Rules | Command::Check(_) | Command::Capture(_) | Command::Takeover(_) => {
            String::new()
        }
    })
}

/// Rows that are shown together.
const BLOCK: usize = 256;

/// Shows a list that may be long, while it comes.
fn list<L: Listing>(client: &mut Client, request: &Request, json: bool, view: &mut L) -> Result<(), Failure> {
    if json {
        return list_json(client, request);
    }
    let (mut block, mut any) = (Vec::new(), false);
    let foreign = |error| Failure::Garbage(format!("{error}; is kopid of another version?"));
    list::rows(client, request, &mut |row| {
        block.push(serde_json::from_str::<L::Row>(row.get()).map_err(foreign)?);
        if block.len() == BLOCK {
            any = true;
            print(&view.block(&block))?;
            block.clear();
        }
        Ok(())
    })?;
    match (block.is_empty(), any) {
        (true, true) => Ok(()),
        (true, false) => print(&view.nothing()),
        (false, _) => print(&view.block(&block)),
    }
}

/// The same as JSON: the object that kopid sends.
fn list_json(client: &mut Client, request: &Request) -> Result<(), Failure> {
    let mut text = format!("{{\"{}\":[", request.command());
    let mut count = 0_usize;
    let others = list::rows(client, request, &mut |row| {
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
    let others = others.iter().map(|(key, value)| format!(",{}:{value}", json!(key))).collect::<String>();
    print(&format!("{text}]{}}}\n", escaped_json(&others)))
}

/// Checks kopid's files: problems to standard error, what became of each file to standard output.
fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let files = check::check(path);
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

/// Tells the warnings of a policy to standard error, and returns the rest.
fn reloaded(rows: &[Reloaded], options: &Reload) -> Result<String, Failure> {
    for warning in rows.iter().flat_map(|row| &row.warnings) {
        complain(&format!("{}\n", text::clean_lines(warning)))?;
    }
    Ok(view::reloaded(rows, options.keep))
}

/// Asks again and again, and shows each answer as `show` does, or as JSON. On a terminal each look replaces the one before.
fn watch(
    client: &mut Client,
    request: &Request,
    interval: Duration,
    json: bool,
    mut show: impl FnMut(&Value) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut next = Instant::now();
    let clear = if io::stdout().is_terminal() && !json { CLEAR } else { "" };
    for look in 0_u64.. {
        let answer = client.ask(request)?;
        let now = Instant::now();
        if json {
            print(&as_json(&answer))?;
        } else {
            let gap = if look > 0 && clear.is_empty() { "\n" } else { "" };
            print(&format!("{clear}{gap}{}", show(&answer)?))?;
        }
        // A look that comes late does not make the following ones come early.
        next = (next + interval).max(now);
        std::thread::sleep(next.saturating_duration_since(now));
    }
    Ok(())
}

/// The rows of an answer.
fn rows<T: DeserializeOwned>(answer: &Value, name: &str) -> Result<Vec<T>, Failure> {
    let rows = answer.get(name).cloned().unwrap_or_default();
    serde_json::from_value(rows).map_err(|error| Failure::Garbage(format!("{error}; is kopid of another version?")))
}

//! What each command does.

use crate::arguments::{Arguments, Command};
use crate::client::Client;
use crate::failure::Failure;
use crate::rates::Rates;
use crate::report::{App, Drops, Port, Status};
use crate::{text, view};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Moves the cursor home and clears the screen (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Does what the command line says.
///
/// # Errors
///
/// [`Failure`], whose exit code is kopictl's.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.socket)?;
    if let Command::Stats(options) = &arguments.command
        && let Some(interval) = options.watch
    {
        return watch(&mut client, interval, arguments.json);
    }
    let name = match arguments.command {
        Command::Status => "status",
        Command::Apps(_) => "apps",
        Command::Stats(_) => "stats",
        Command::Drops => "drops",
    };
    let answer = client.ask(name)?;
    if arguments.json {
        return print(&as_json(&answer));
    }
    print(&match &arguments.command {
        Command::Status => view::status(&rows::<Status>(&answer, name)?),
        Command::Apps(options) => view::apps(&rows::<App>(&answer, name)?, options.wide),
        Command::Stats(_) => view::stats(&rows::<Port>(&answer, name)?),
        Command::Drops => view::drops(&rows::<Drops>(&answer, name)?),
    })
}

/// Looks at the counters for ever. On a terminal each look replaces the one before.
fn watch(client: &mut Client, interval: Duration, json: bool) -> Result<(), Failure> {
    let mut rates = Rates::default();
    let mut next = Instant::now();
    let clear = if io::stdout().is_terminal() && !json { CLEAR } else { "" };
    for look in 0_u64.. {
        let answer = client.ask("stats")?;
        let now = Instant::now();
        if json {
            print(&as_json(&answer))?;
        } else {
            let gap = if look > 0 && clear.is_empty() { "\n" } else { "" };
            let ports = rates.since_last(rows::<Port>(&answer, "stats")?, now);
            print(&format!("{clear}{gap}{}", view::rates(&ports)))?;
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

/// The answer as it came, on one line. Control characters can only be left inside strings, where they may be escaped.
fn as_json(answer: &Value) -> String {
    let line = text::replace(&answer.to_string(), |c| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    });
    format!("{line}\n")
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// JSON comes out with the same meaning, on one line, and without anything that a terminal acts on.
    #[test]
    fn json_passes_through_escaped() {
        let answer = json!({ "apps": [{ "comm": "a\u{1b}[31m\u{7f}\u{9b}\u{202e}\nb", "tx_packets": u64::MAX }] });
        let line = as_json(&answer);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), answer);
        assert!(line.trim_end_matches('\n').chars().all(|c| !text::is_unsafe(c)), "{line:?}");
    }
}

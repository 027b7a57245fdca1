//! Which pages there are, and what is in each.

use crate::arguments::Arguments as Kopid;
use crate::markdown::{self, section};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use jiff::Timestamp;
use std::error::Error;

const KOPID: &str = include_str!("../../../docs/kopid.md");
const KOPICTL: &str = include_str!("../../../docs/kopictl.md");
const POLICY: &str = include_str!("../../../docs/policy.md");
const EXAMPLE: &str = include_str!("../../../config/examples/kopid.toml");
/// What of `docs/kopid.md` is about the file. Its other sections are about the program.
const FILE: [&str; 3] = ["kopid.toml", "Cores and memory", "Wires"];
/// What of `docs` is about a command, with the section if it is not the whole document. Those of `docs/kopictl.md` are in no other page.
const COMMANDS: [(&str, &str, Option<&str>); 6] = [
    ("capture", include_str!("../../../docs/capture.md"), None),
    ("takeover", include_str!("../../../docs/takeover.md"), None),
    ("drops", include_str!("../../../docs/drops.md"), None),
    ("log", KOPICTL, Some("The level of the log")),
    ("doctor", KOPICTL, Some("Doctor")),
    ("support", KOPICTL, Some("Support")),
];

/// A manual page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) section: u8,
    pub(crate) text: String,
}

impl Page {
    /// What its file is called.
    pub(crate) fn file(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }
}

/// All of them.
pub(crate) fn all() -> Result<Vec<Page>, Box<dyn Error>> {
    let mut pages = vec![kopid()?, kopid_toml()?, policy()?];
    let mut kopictl = kopi_ctl::command_line().disable_help_subcommand(true);
    kopictl.build();
    let commands: Vec<_> = kopictl.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    pages.push(program(&kopictl, &commands)?);
    for command in commands {
        pages.push(command_page(command)?);
    }
    Ok(pages)
}

fn kopid() -> Result<Page, Box<dyn Error>> {
    let mut command = Kopid::command();
    command.build();
    let rest = markdown::sections(KOPID).into_iter().filter(|(title, _)| !FILE.contains(title));
    let rest: String = rest.map(|(_, text)| markdown::roff(text)).collect();
    let usage = markdown::roff(&format!("## USAGE\n\n{}", after_synopsis(markdown::introduction(KOPID))));
    page(
        "kopid",
        8,
        &[options(command)?, usage, rest, files("kopid.toml"), see(&["kopictl(8)", "kopid.toml(5)", "kopi-policy(5)"])],
    )
}

fn kopid_toml() -> Result<Page, Box<dyn Error>> {
    let about = "NAME\nkopid.toml \\- what kopid needs to start";
    let mut parts = vec![format!(".SH {about}\n")];
    for title in FILE {
        let text = section(KOPID, title).ok_or("docs/kopid.md has lost a section")?;
        let text =
            if title == "kopid.toml" { text.replacen("## kopid.toml", "## DESCRIPTION", 1) } else { text.to_owned() };
        parts.push(markdown::roff(&text));
    }
    parts.push(markdown::roff(&format!("## EXAMPLE\n\n```toml\n{EXAMPLE}```\n")));
    parts.push(files("kopid.toml"));
    parts.push(see(&["kopid(8)", "kopictl-check(8)", "kopi-policy(5)"]));
    page("kopid.toml", 5, &parts)
}

fn policy() -> Result<Page, Box<dyn Error>> {
    let about = ".SH NAME\nkopi\\-policy \\- who may attach to kopid, and send and receive what\n".to_owned();
    let introduction = markdown::roff(&format!("## DESCRIPTION\n\n{}", markdown::introduction(POLICY)));
    let rest: String = markdown::sections(POLICY).into_iter().map(|(_, text)| markdown::roff(text)).collect();
    let see = see(&["kopid(8)", "kopid.toml(5)", "kopictl-check(8)", "kopictl-reload(8)", "kopictl-explain(8)"]);
    page("kopi-policy", 5, &[about, introduction, rest, files("policy.toml"), see])
}

fn program(kopictl: &Command, commands: &[Command]) -> Result<Page, Box<dyn Error>> {
    let elsewhere = |title: &str| COMMANDS.iter().any(|(_, text, of)| *text == KOPICTL && *of == Some(title));
    let usage = markdown::roff(&format!("## COMMANDS\n\n{}", after_synopsis(markdown::introduction(KOPICTL))));
    let rest = markdown::sections(KOPICTL).into_iter().filter(|(title, _)| !elsewhere(title));
    let rest: String = rest.map(|(_, text)| markdown::roff(text)).collect();
    let names: Vec<_> = commands.iter().map(|command| format!("kopictl-{}(8)", command.get_name())).collect();
    let names: Vec<_> =
        names.iter().map(String::as_str).chain(["kopid(8)", "kopid.toml(5)", "kopi-policy(5)"]).collect();
    page("kopictl", 8, &[options(kopictl.clone())?, usage, rest, see(&names)])
}

fn command_page(command: Command) -> Result<Page, Box<dyn Error>> {
    let name = command.get_name().to_owned();
    let more = COMMANDS.iter().filter(|(of, ..)| *of == name).map(|(_, text, part)| match part {
        Some(title) => {
            section(text, title).map(markdown::roff).ok_or_else(|| format!("docs/kopictl.md has no `{title}`"))
        }
        None => {
            let introduction = markdown::roff(&format!("## NOTES\n\n{}", markdown::introduction(text)));
            Ok([introduction]
                .into_iter()
                .chain(markdown::sections(text).into_iter().map(|(_, text)| markdown::roff(text)))
                .collect())
        }
    });
    let more = more.collect::<Result<String, _>>()?;
    page(&format!("kopictl-{name}"), 8, &[options(command)?, more, see(&["kopictl(8)", "kopid(8)"])])
}

/// What a command line says of itself: name, synopsis, description, options.
fn options(command: Command) -> Result<String, Box<dyn Error>> {
    let man = Man::new(command).section("8");
    let mut text = Vec::new();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    // What roff puts before each part of it is meant for its beginning.
    let text = String::from_utf8(text)?;
    let text = text.replace("\\*(Aq", "\\(aq").replace("\n.br\n\n.br\n", "\n.sp\n");
    Ok(text
        .lines()
        .filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el "))
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

fn files(name: &str) -> String {
    let others = "\n.TP\n\\fB/run/kopi/kopi.sock\\fR, \\fB/run/kopi/control.sock\\fR\nThe sockets for applications and operators.\n";
    format!(".SH FILES\n.TP\n\\fB/etc/kopi/{name}\\fR\nWhere it is unless stated otherwise.{others}")
}

fn see(pages: &[&str]) -> String {
    let references = pages.iter().map(|page| {
        let (name, section) = page.split_once('(').unwrap_or((page, ")"));
        format!("\\fB{}\\fR({section}", name.replace('-', "\\-"))
    });
    format!(".SH SEE ALSO\n{}\n", references.collect::<Vec<_>>().join(",\n"))
}

/// A document's introduction without the block that shows how a program is called, which its own command line does, too.
fn after_synopsis(text: &str) -> &str {
    text.splitn(3, "```").nth(2).unwrap_or(text)
}

fn page(name: &str, section: u8, parts: &[String]) -> Result<Page, Box<dyn Error>> {
    let today = Timestamp::now().as_second();
    let date = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(today);
    let date = Timestamp::from_second(date)?.strftime("%Y-%m-%d");
    let title = name.to_uppercase().replace('-', "\\-");
    let head = format!(".TH \"{title}\" {section} {date} \"kopi {}\" kopi\n", env!("CARGO_PKG_VERSION"));
    Ok(Page { name: name.to_owned(), section, text: [head].into_iter().chain(parts.iter().cloned()).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_config::schemas;
    use serde_json::Value;

    /// A page as it is read, more or less.
    fn plain(text: &str) -> String {
        ["\\fB", "\\fI", "\\fR", "\\&"].iter().fold(text.replace("\\-", "-"), |text, font| text.replace(font, ""))
    }

    /// All keys of a schema, those of tables in tables too.
    fn keys(schema: &Value, into: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                let own = object.get("properties").and_then(Value::as_object);
                into.extend(own.into_iter().flat_map(|own| own.keys().cloned()));
                object.values().for_each(|value| keys(value, into));
            }
            Value::Array(list) => list.iter().for_each(|value| keys(value, into)),
            _ => {}
        }
    }

    /// Both files' pages name every key that there is.
    #[test]
    fn pages_name_every_key() {
        let pages = all().unwrap();
        for ((kind, schema), name) in schemas().into_iter().zip(["kopid.toml", "kopi-policy"]) {
            let page = plain(&pages.iter().find(|page| page.name == name).unwrap().text);
            let words: Vec<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
            let mut wanted = Vec::new();
            keys(schema, &mut wanted);
            assert!(wanted.len() > 20, "{kind}");
            let missing: Vec<_> = wanted.iter().filter(|key| !words.contains(&key.as_str())).collect();
            assert!(missing.is_empty(), "{name}(5) does not name {missing:?}");
        }
    }

    /// Each command has a page, and the page each of its options; kopid's, too.
    #[test]
    fn pages_name_every_option() {
        let pages = all().unwrap();
        let check = |name: &str, command: &Command| {
            let page = pages.iter().find(|page| page.name == name && page.section == 8);
            let page = plain(&page.unwrap_or_else(|| panic!("there is no {name}(8)")).text);
            let options =
                command.get_arguments().filter(|option| !option.is_hide_set()).filter_map(clap::Arg::get_long);
            for option in options {
                assert!(page.contains(&format!("--{option}")), "{name}(8) does not name --{option}");
            }
        };
        check("kopid", &Kopid::command());
        let kopictl = kopi_ctl::command_line();
        check("kopictl", &kopictl);
        kopictl.get_subcommands().for_each(|command| check(&format!("kopictl-{}", command.get_name()), command));
    }
}

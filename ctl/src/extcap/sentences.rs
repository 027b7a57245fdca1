//! What a plugin answers: lines of a word and `{key=value}` pairs (Wireshark's `doc/README.extcap`).

use super::{APP, Port};
use crate::arguments::SNAP;
use std::path::Path;

/// The plugin and its interfaces.
pub(super) fn interfaces(apps: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("extcap {{version={version}}}{{display=kopi}}\n");
    let fixed = [
        ("kopi:any".to_owned(), "kopi: every application".to_owned()),
        ("kopi:wire".into(), "kopi: the wire".into()),
        ("kopi:dropped".into(), "kopi: what was dropped".into()),
    ];
    let named = apps.iter().map(|app| (format!("{APP}{app}"), format!("kopi: application {app}")));
    for (value, display) in fixed.into_iter().chain(named) {
        text.push_str(&format!("interface {{value={}}}{{display={}}}\n", plain(&value), plain(&display)));
    }
    text
}

/// What packets begin with.
pub(super) fn links() -> String {
    "dlt {number=1}{name=EN10MB}{display=Ethernet}\n".into()
}

/// One field of the dialogue: its option, name, group and tooltip, and what can be filled in.
struct Field(&'static str, &'static str, &'static str, &'static str, Kind);

/// What can be filled in.
enum Kind {
    /// Where kopid listens.
    Socket,
    /// Texts with commas between them, each as this expression says.
    List(&'static str),
    /// A number from 1 to the first one; the second one if nothing is filled in.
    Number(u64, u64),
    /// One of several; the first one if nothing is chosen.
    Choice(&'static [(&'static str, &'static str)]),
}

/// At least something that is no blank.
const ANY: &str = ".*\\S.*";
/// Absolute paths.
const PATHS: &str = " */.*";
/// Names of users and groups, or their numbers.
const ACCOUNTS: &str = "[^:/]+";
const NUMBERS: &str = "[0-9]+( *, *[0-9]+)*";
/// Names of rules and reasons.
const NAMES: &str = "[A-Za-z0-9._-]+( *, *[A-Za-z0-9._-]+)*";
const WHICH: &[(&str, &str)] = &[
    ("all", "All, with what became of them"),
    ("passed", "Only what was let through"),
    ("dropped", "Only what was dropped"),
];
const WAYS: &[(&str, &str)] = &[("inout", "Both"), ("in", "Received"), ("out", "Sent")];
const MANY: &str = "Names or numbers, with commas between them";

/// The fields of the dialogue.
const FIELDS: [Field; 16] = [
    Field("--which", "Packets", "Packets", "What became of the packets that are shown", Kind::Choice(WHICH)),
    Field(
        "--direction",
        "Direction",
        "Packets",
        "From the side of the application, or of the wire",
        Kind::Choice(WAYS),
    ),
    Field("--rule", "Rule", "Packets", "Only what these rules have decided", Kind::List(NAMES)),
    Field("--reason", "Reason", "Packets", "Only what was dropped for these reasons", Kind::List(NAMES)),
    Field("--sample", "One of", "Packets", "Keep one of so many packets", Kind::Number(1_000_000_000, 1)),
    Field("--snap", "Bytes", "Packets", "Keep so many bytes of a packet", Kind::Number(SNAP as u64, SNAP as u64)),
    Field("--user", "User", "Owner", MANY, Kind::List(ACCOUNTS)),
    Field("--group", "Group", "Owner", MANY, Kind::List(ACCOUNTS)),
    Field("--pid", "Process", "Owner", "Process numbers, with commas between them", Kind::List(NUMBERS)),
    Field("--comm", "Command", "Owner", "What processes call themselves, such as post*", Kind::List(ANY)),
    Field("--exe", "Program", "Owner", "The program's file, such as /usr/bin/*", Kind::List(ANY)),
    Field("--cgroup", "Control group", "Owner", "A cgroup's path; those below it belong to it", Kind::List(PATHS)),
    Field("--container", "Container", "Owner", "Ids of containers, or * for any", Kind::List(ANY)),
    Field("--pod", "Pod", "Owner", "UIDs of pods, or * for any", Kind::List(ANY)),
    Field("--app", "Application", "Owner", "Names of applications, such as web-*", Kind::List(ANY)),
    Field("--socket", "Control socket", "kopid", "Where kopid listens for kopictl", Kind::Socket),
];

/// The fields of the dialogue for `port`.
pub(super) fn options(socket: &Path, port: &Port) -> String {
    let fields = FIELDS.iter().filter(|field| !(port.dropped && field.0 == "--which"));
    fields.enumerate().map(|(number, field)| sentence(number, field, socket)).collect()
}

fn sentence(number: usize, field: &Field, socket: &Path) -> String {
    let Field(call, display, group, tooltip, kind) = field;
    let ends = format!("{{tooltip={tooltip}}}{{group={group}}}\n");
    let head = format!("arg {{number={number}}}{{call={call}}}{{display={display}}}");
    match kind {
        Kind::Socket => {
            let default = plain(&socket.display().to_string());
            format!("{head}{{type=string}}{{default={default}}}{{validation=^/.+$}}{{required=true}}{ends}")
        }
        Kind::List(validation) => format!("{head}{{type=string}}{{validation=^({validation})?$}}{ends}"),
        Kind::Number(max, default) => {
            format!("{head}{{type=unsigned}}{{range=1,{max}}}{{default={default}}}{ends}")
        }
        Kind::Choice(values) => {
            let values = values.iter().enumerate().map(|(at, (value, display))| {
                let default = if at == 0 { "true" } else { "false" };
                format!("value {{arg={number}}}{{value={value}}}{{display={display}}}{{default={default}}}\n")
            });
            format!("{head}{{type=selector}}{ends}{}", values.collect::<String>())
        }
    }
}

/// A value that does not end before its end: nothing escapes a brace.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !"{}".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line is a word and pairs in braces, whatever an app or socket is called.
    #[test]
    fn answers_are_sentences() {
        let apps = ["a".to_owned(), "x}{display=y}\ninterface {value=z".into()];
        let socket = Path::new("/run/{x}\n.sock");
        let any = Port { name: None, dropped: false };
        for text in [interfaces(&apps), links(), options(socket, &any)] {
            for line in text.lines() {
                let (word, pairs) = line.split_once(' ').unwrap();
                assert!(["extcap", "interface", "dlt", "arg", "value"].contains(&word), "{line}");
                let inner = pairs.strip_prefix('{').and_then(|pairs| pairs.strip_suffix('}')).unwrap();
                assert!(inner.split("}{").all(|pair| pair.contains('=') && !pair.contains(['{', '}'])), "{line}");
            }
        }
        assert_eq!(interfaces(&apps).lines().count(), 6);
    }

    /// Each field is in the plugin's own command line, with every value that it offers and the default that it shows.
    #[test]
    fn fields_are_options_of_the_plugin() {
        use clap::Parser;
        let value = |line: &str, key: &str| {
            let (_, rest) = line.split_once(&format!("{{{key}=")).unwrap();
            rest.split_once('}').unwrap().0.to_owned()
        };
        let text = options(Path::new("/s"), &Port { name: None, dropped: false });
        let mut calls = Vec::new();
        for line in text.lines() {
            let (call, value) = if line.starts_with("arg") {
                calls.push(value(line, "call"));
                let known = ["{default=", "{type=selector}"].map(|what| line.contains(what));
                let default = if known[0] { value(line, "default") } else { "all".into() };
                (calls[calls.len() - 1].clone(), if known == [false, true] { continue } else { default })
            } else {
                (calls[value(line, "arg").parse::<usize>().unwrap()].clone(), value(line, "value"))
            };
            let parsed = super::super::Plugin::try_parse_from(["kopi-extcap", &call, &value]);
            assert!(parsed.is_ok(), "{call} {value}");
        }
        assert_eq!(calls.len(), 16);
        assert!(!options(Path::new("/s"), &Port { name: None, dropped: true }).contains("--which"));
    }
}

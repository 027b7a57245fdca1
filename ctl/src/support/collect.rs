//! What goes into the archive. What cannot be had says so in its place.

use super::redact;
use crate::arguments::Support;
use crate::client::{Client, Request};
use crate::doctor;
use crate::failure::Failure;
use kopi_api::Status;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Lines of the log.
const LOG_LINES: usize = 2000;
/// Most bytes of a text that somebody else has written.
const TEXT: usize = 4 << 20;
/// What kopid is asked. Flows say who talks to whom, and are left out.
const ASKED: [&str; 7] = ["status", "apps", "stats", "drops", "classes", "rules", "log"];
/// Files of the kernel's that are taken as they are.
const KERNEL: [&str; 5] = [
    "/proc/version",
    "/proc/meminfo",
    "/proc/interrupts",
    "/sys/devices/system/cpu/isolated",
    "/proc/sys/kernel/tainted",
];
/// The unit of systemd's under which kopid logs.
const UNIT: &str = "kopid";

/// What is said about all of it.
const README: &str = "\
Made by `kopictl support` for a report about kopi. All files are text.

versions.txt    kopictl, kopid, DPDK, Linux
*.json          kopid's answers, as `kopictl --json` prints them, and the findings of `kopictl doctor`
kernel.txt      memory, interrupts, huge pages, CPUs; parameters of the kernel that have to do with kopi
kopid.toml, policy.toml   the configuration without its comments
kopid.log       the last lines of the log

Left out: environment and command lines of processes, contents of packets, flows, and values of keys such as secret, password,
token (they read [redacted]). Names of users, applications, programs, cgroups and interfaces are in it; MAC and IP addresses too,
unless --mask was given. Read it before you send it.
";

/// One file of the archive.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) text: String,
}

impl Part {
    fn new(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into() }
    }
}

/// All of it.
pub(super) fn parts(options: &Support, socket: &Path) -> Vec<Part> {
    let mut parts = vec![Part::new("README.txt", README)];
    let answers: Vec<_> = ASKED.iter().map(|command| (*command, ask(socket, command))).collect();
    let status = answers.iter().find(|(command, _)| *command == "status").and_then(|(_, answer)| status(answer));
    parts.push(Part::new("versions.txt", versions(status.as_ref())));
    parts.extend(answers.iter().map(|(command, answer)| Part::new(&format!("{command}.json"), answer_text(answer))));
    let findings = doctor::examine(options.config.as_deref(), socket);
    parts.push(Part::new("doctor.json", format!("{:#}\n", json!({ "doctor": findings }))));
    parts.push(Part::new("kernel.txt", kernel()));
    parts.extend(configuration(options, status.as_ref()));
    parts.push(Part::new("kopid.log", log(options.log.as_deref())));
    parts
}

fn ask(socket: &Path, command: &str) -> Result<Value, Failure> {
    Client::connect(socket)?.ask(&Request::plain(command))
}

fn status(answer: &Result<Value, Failure>) -> Option<Status> {
    serde_json::from_value(answer.as_ref().ok()?["status"][0].clone()).ok()
}

fn answer_text(answer: &Result<Value, Failure>) -> String {
    match answer {
        Ok(answer) => format!("{answer:#}\n"),
        Err(failure) => format!("{:#}\n", json!({ "error": failure.to_string() })),
    }
}

fn versions(status: Option<&Status>) -> String {
    let kopid = status.map_or_else(
        || "kopid      does not answer\n".to_owned(),
        |status| {
            format!(
                "kopid      {}\ndpdk       {} (built for {})\nprotocol   {}\n",
                status.version, status.dpdk, status.dpdk_built, status.protocol
            )
        },
    );
    format!(
        "kopictl    {}\n{kopid}linux      {}\n",
        env!("CARGO_PKG_VERSION"),
        read("/proc/sys/kernel/osrelease").trim_end()
    )
}

fn kernel() -> String {
    let mut text = String::new();
    let mut section = |name: &str, content: &str| text.push_str(&format!("==== {name}\n{}\n\n", content.trim_end()));
    for file in KERNEL {
        section(file, &read(file));
    }
    section("/proc/cmdline, of it", &redact::kernel_parameters(&read("/proc/cmdline")));
    section("huge pages", &huge_pages());
    section("lscpu", &output("lscpu", &[]));
    text
}

fn huge_pages() -> String {
    let folder = Path::new("/sys/kernel/mm/hugepages");
    let sizes = fs::read_dir(folder).into_iter().flatten().flatten().map(|size| {
        let of = |name: &str| read(&size.path().join(name).to_string_lossy()).trim_end().to_owned();
        format!("{}: {} reserved, {} free\n", size.file_name().display(), of("nr_hugepages"), of("free_hugepages"))
    });
    sizes.collect()
}

/// Both files, without comments: what people write there is for themselves.
fn configuration(options: &Support, status: Option<&Status>) -> Vec<Part> {
    let file = doctor::configuration(options.config.as_deref(), status);
    let text = fs::read_to_string(&file);
    let mut parts = vec![Part::new("kopid.toml", toml(&file, &text))];
    let policy = kopi_config::Config::load(&file).ok().and_then(|config| config.policy);
    let running = || Some(status?.policy.as_ref()?.file.clone()?.into());
    if let Some(policy) = policy.or_else(running) {
        parts.push(Part::new("policy.toml", toml(&policy, &fs::read_to_string(&policy))));
    }
    parts
}

fn toml(file: &Path, text: &std::io::Result<String>) -> String {
    match text {
        Ok(text) => format!("# {}, without its comments\n{}", file.display(), redact::without_comments(text)),
        Err(error) => format!("# {}: {error}\n", file.display()),
    }
}

fn log(file: Option<&Path>) -> String {
    let Some(file) = file else {
        let lines = LOG_LINES.to_string();
        return output("journalctl", &["--no-pager", "-o", "short-iso", "-u", UNIT, "-n", &lines]);
    };
    let lines = File::open(file).map(|file| last_lines(BufReader::new(file)));
    lines.unwrap_or_else(|error| format!("{}: {error}\n", file.display()))
}

/// The last lines, of whatever length the file is.
fn last_lines(file: impl BufRead) -> String {
    let mut last = VecDeque::new();
    for line in file.split(b'\n').map_while(Result::ok) {
        if last.len() == LOG_LINES {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line).into_owned() + "\n");
    }
    last.into_iter().collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| format!("{file}: {error}\n"))
}

/// What a program prints. One that is not there is no fault.
fn output(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output();
    match ran {
        Ok(output) => {
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.truncate(text.floor_char_boundary(TEXT));
            text + &String::from_utf8_lossy(&output.stderr)
        }
        Err(error) => format!("{program}: {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a long log the end is taken.
    #[test]
    fn log_is_cut_at_its_beginning() {
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        let last = last_lines(text.as_bytes());
        assert_eq!((last.lines().count(), last.lines().last()), (LOG_LINES, Some("line 4999")));
        assert_eq!(last_lines(&b"a\n\xff"[..]), "a\n\u{fffd}\n");
    }
}

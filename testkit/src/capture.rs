//! Captures: those of the real kopictl, and sessions that a test holds by itself.

use crate::kopid::Kopid;
use crate::machine::{built, unique};
use crate::process::{Launch, Process};
use crate::recording::Sums;
use crate::temp::TempDir;
use crate::wait::{SOON, wait_until};
use kopi_api::transport::{Lines, send_all};
use rustix::net::RecvFlags;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;

/// A running `kopictl capture`. It is killed with its value.
#[derive(Debug)]
pub struct Capture {
    process: Process,
}

impl Capture {
    /// Starts one with these arguments, separated by blanks, and waits until it says that it listens.
    #[must_use]
    pub fn start(dir: &TempDir, kopid: &Kopid, args: &str) -> Self {
        let mut capture = Self::launch(dir, kopid, args);
        capture.process.expect(0, "listening on", SOON);
        capture
    }

    /// Starts one without waiting.
    #[must_use]
    pub fn launch(dir: &TempDir, kopid: &Kopid, args: &str) -> Self {
        let socket = kopid.control().display().to_string();
        let words = ["--socket", &socket, "capture"].into_iter().chain(args.split_whitespace());
        let words: Vec<String> = words.map(str::to_owned).collect();
        let log = dir.join(&format!("capture-{}.log", unique()));
        Self { process: Process::start(&Launch::default(), built("kopictl"), &words, log) }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it as Ctrl-C does, and returns what it says that it has counted.
    pub fn stop(&mut self) -> Sums {
        self.process.signal(Signal::INT);
        self.finish()
    }

    /// Waits for its end by itself, and returns what it says that it has counted.
    pub fn finish(&mut self) -> Sums {
        let status = self.end();
        assert!(status.success(), "kopictl ended with {status}:\n{}", self.process.log());
        self.sums()
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        self.process.wait(SOON)
    }

    /// What it says at its end.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let log = self.process.log();
        let number = |words: &str| {
            let line = log.lines().find(|line| line.contains(words));
            let number = line.and_then(|line| line.split(' ').next()).and_then(|word| word.parse().ok());
            number.unwrap_or_else(|| panic!("no `{words}` in:\n{log}"))
        };
        Sums {
            captured: number(" captured"),
            received: number(" received by filter"),
            dropped: number(" dropped by kopid"),
        }
    }
}

/// A session on kopid's control socket. It ends with its value.
#[derive(Debug)]
pub struct Session {
    socket: UnixStream,
    lines: Lines,
}

impl Session {
    /// Begins one that writes to `file`.
    #[must_use]
    pub fn start(kopid: &Kopid, arguments: &Value, file: &File) -> Self {
        Self::try_start(kopid, arguments, file).unwrap_or_else(|error| panic!("kopid refuses {arguments}: {error}"))
    }

    /// Begins one if kopid lets us.
    ///
    /// # Errors
    ///
    /// kopid's reason.
    pub fn try_start(kopid: &Kopid, arguments: &Value, file: &File) -> Result<Self, String> {
        let socket = UnixStream::connect(kopid.control()).expect("kopid listens");
        socket.set_read_timeout(Some(SOON)).expect("a time limit");
        let mut session = Self { socket, lines: Lines::new(1 << 20) };
        let mut request = arguments.clone();
        request["command"] = json!("capture");
        session.tell(&request, Some(file.as_fd()));
        let answer = session.line().ok_or("kopid hangs up")?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(session),
        }
    }

    fn tell(&self, request: &Value, file: Option<BorrowedFd<'_>>) {
        send_all(&self.socket, format!("{request}\n").as_bytes(), file).expect("kopid listens");
    }

    /// The next thing that kopid says, `None` at the end.
    fn line(&mut self) -> Option<Value> {
        let line = loop {
            if let Some((line, _)) = self.lines.take() {
                break line;
            }
            if self.lines.receive(&self.socket, RecvFlags::empty()).expect("kopid answers in time") == 0 {
                return None;
            }
        };
        Some(serde_json::from_slice(&line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
    }

    /// What kopid says next of the session.
    fn hear(&mut self) -> Value {
        let line = self.line().expect("kopid says how the session ends");
        line["capture"][0].clone()
    }

    /// Its counts now.
    pub fn counts(&mut self) -> Value {
        self.tell(&json!({ "command": "counts" }), None);
        self.hear()
    }

    /// Has it end.
    pub fn ask_stop(&self) {
        self.tell(&json!({ "command": "stop" }), None);
    }

    /// Ends it, and returns the last counts.
    pub fn stop(self) -> Value {
        self.ask_stop();
        self.ended()
    }

    /// Waits for its end, and returns the last counts.
    pub fn ended(mut self) -> Value {
        loop {
            let row = self.hear();
            if row["state"] == "ended" {
                assert!(self.line().is_none(), "kopid says more after the end");
                return row;
            }
        }
    }

    /// Waits until it has taken `count` packets.
    pub fn await_received(&mut self, count: u64) {
        wait_until(&format!("{count} packets are received"), SOON, || self.counts()["received"] == count);
    }
}

//! A capture session of a running kopid, over its control socket.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};

use crate::error::{BenchError, Doing, Result};
use crate::interrupt::Interrupt;

/// How long kopid may take to begin or end a session.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Where a session writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/dev/null`.
    Null,
    /// Files in memory, a new one whenever kopid says that one is full. They have no names, so nothing stays behind.
    Memory,
}

impl Target {
    fn open(self) -> Result<File> {
        match self {
            Self::Null => OpenOptions::new().write(true).open("/dev/null").doing(|| "open /dev/null".to_owned()),
            Self::Memory => {
                let made = rustix::fs::memfd_create("kopi-bench", MemfdFlags::CLOEXEC);
                made.map(File::from).map_err(Into::into).doing(|| "make a file in memory".to_owned())
            }
        }
    }
}

/// What kopid says of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Frames at a port that were wanted.
    pub(super) received: u64,
    /// Those written.
    pub(super) captured: u64,
    /// Those lost.
    pub(super) lost: u64,
    /// From the session's beginning to its end.
    pub(super) seconds: f64,
}

/// A session that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Session {
    stream: UnixStream,
    begun: Instant,
    /// Reads what kopid says, and gives it files.
    follower: Option<JoinHandle<Result<Told>>>,
}

impl Session {
    /// Begins a session at the kopid whose control socket is at `control`, by the JSON of `request`.
    ///
    /// # Errors
    ///
    /// When kopid does not answer, or refuses.
    pub(super) fn begin(control: &Path, request: &str, target: Target) -> Result<Self> {
        let doing = || format!("ask kopid for a capture through {}", control.display());
        let mut request: Value =
            serde_json::from_str(request).map_err(|error| BenchError::Failed(format!("{request}: {error}")))?;
        if let Some(keys) = request.as_object_mut() {
            keys.insert("command".to_owned(), "capture".into());
        }
        let stream = UnixStream::connect(control).doing(doing)?;
        stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
        post(&stream, &request, Some(target.open()?))?;
        let mut answers = BufReader::new(stream.try_clone().doing(doing)?);
        hear(&mut answers)?;
        stream.set_read_timeout(None).doing(doing)?;
        let writer = stream.try_clone().doing(doing)?;
        let follower = Some(thread::spawn(move || follow(answers, &writer, target)));
        Ok(Self { stream, begun: Instant::now(), follower })
    }

    /// Ends it, and returns what it has counted.
    ///
    /// # Errors
    ///
    /// When it had ended before, kopid does not answer, and on Ctrl-C.
    pub(super) fn end(mut self, interrupt: &Interrupt) -> Result<Told> {
        post(&self.stream, &json!({ "command": "stop" }), None)?;
        let seconds = self.begun.elapsed().as_secs_f64();
        let asked = Instant::now();
        while self.follower.as_ref().is_some_and(|follower| !follower.is_finished()) {
            if asked.elapsed() > PATIENCE {
                return Err(BenchError::Failed("kopid does not end a capture".to_owned()));
            }
            interrupt.sleep(POLL)?;
        }
        let told = self.follower.take().and_then(|follower| follower.join().ok());
        let told = told.unwrap_or_else(|| Err(BenchError::Failed("nobody listened to kopid".to_owned())))?;
        Ok(Told { seconds, ..told })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // kopid sees it and ends the session; it may have done so already.
        let _gone = self.stream.shutdown(Shutdown::Both);
    }
}

/// Sends a line of JSON, with a file if there is one.
fn post(stream: &UnixStream, line: &Value, file: Option<File>) -> Result<()> {
    let line = format!("{line}\n");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = file.as_ref().map(|file| [file.as_fd()]);
    let fits = files.as_ref().is_none_or(|files| control.push(SendAncillaryMessage::ScmRights(files)));
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL);
    match sent.map_err(Into::into).doing(|| "tell kopid of a capture".to_owned())? {
        n if n == line.len() && fits => Ok(()),
        n => Err(BenchError::Failed(format!("kopid takes only {n} bytes"))),
    }
}

/// The next thing that kopid says.
fn hear(answers: &mut impl BufRead) -> Result<Value> {
    let mut line = String::new();
    answers.read_line(&mut line).doing(|| "hear from kopid's capture".to_owned())?;
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    match said.get("capture").and_then(|sessions| sessions.get(0)) {
        Some(session) => Ok(session.clone()),
        None => Err(BenchError::Failed(format!("kopid says of a capture: {line:?}"))),
    }
}

/// Gives kopid a file whenever one is full, until the session ends.
fn follow(mut answers: impl BufRead, stream: &UnixStream, target: Target) -> Result<Told> {
    loop {
        let said = hear(&mut answers)?;
        let word = |key: &str| said.get(key).and_then(Value::as_str);
        match (word("state"), word("why")) {
            (Some("full"), _) => post(stream, &json!({ "command": "rotate" }), Some(target.open()?))?,
            (Some("ended"), Some("stopped")) => {
                let number = |key: &str| said.get(key).and_then(Value::as_u64);
                let read = || {
                    let (received, captured, lost) = (number("received")?, number("captured")?, number("dropped")?);
                    Some(Told { received, captured, lost, seconds: 0.0 })
                };
                return read().ok_or_else(|| BenchError::Failed(format!("kopid does not count: {said}")));
            }
            (Some("running"), _) => {}
            _ => return Err(BenchError::Failed(format!("a capture has ended by itself: {said}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(state: &str, why: &str) -> String {
        let session = json!({ "state": state, "why": why, "received": 7, "captured": 5, "dropped": 2 });
        format!("{}\n", json!({ "capture": [session] }))
    }

    /// A full file is answered by one request for another, and the counts are those of the last line.
    #[test]
    fn a_full_file_is_followed_by_another() {
        let (ours, mut kopid) = UnixStream::pair().expect("a pair");
        kopid
            .write_all((line("full", "") + &line("running", "") + &line("ended", "stopped")).as_bytes())
            .expect("room");
        let answers = BufReader::new(ours.try_clone().expect("a second handle"));
        let told = follow(answers, &ours, Target::Memory).expect("an orderly end");
        assert_eq!(told, Told { received: 7, captured: 5, lost: 2, seconds: 0.0 });
        drop(ours);
        let said: Vec<String> = BufReader::new(kopid).lines().map_while(std::result::Result::ok).collect();
        assert_eq!(said, [r#"{"command":"rotate"}"#]);
    }

    /// What ends before it is told to has measured something else.
    #[test]
    fn an_early_end_is_an_error() {
        let (ours, mut kopid) = UnixStream::pair().expect("a pair");
        kopid.write_all(line("ended", "reader").as_bytes()).expect("room");
        let answers = BufReader::new(ours.try_clone().expect("a second handle"));
        assert!(follow(answers, &ours, Target::Null).is_err());
    }
}

//! A capture session of a running kopid, over its control socket.

use std::fs::{File, OpenOptions};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kopi_api::Request;
use kopi_api::capture::{Session as Said, State};
use kopi_api::request::Capture;
use kopi_api::transport::{Lines, send_all};
use rustix::fs::MemfdFlags;
use rustix::net::RecvFlags;
use serde_json::Value;

use crate::error::{BenchError, Doing, Result};
use crate::interrupt::Interrupt;

/// How long kopid may take to begin or end a session.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest line that kopid may say, in bytes.
const LINE: usize = 1 << 20;
/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Where a session writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
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
pub(crate) struct Told {
    /// Frames at a port that were wanted.
    pub(crate) received: u64,
    /// Those written.
    pub(crate) captured: u64,
    /// Those lost.
    pub(crate) lost: u64,
    /// From the session's beginning to its end.
    pub(crate) seconds: f64,
}

/// A session that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Session {
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
    pub(crate) fn begin(control: &Path, request: &str, target: Target) -> Result<Self> {
        let doing = || format!("ask kopid for a capture through {}", control.display());
        let arguments: Capture =
            serde_json::from_str(request).map_err(|error| BenchError::Failed(format!("{request}: {error}")))?;
        let stream = UnixStream::connect(control).doing(doing)?;
        stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
        post(&stream, &Request::new("capture", &arguments), Some(target.open()?))?;
        let mut lines = Lines::new(LINE);
        hear(&stream, &mut lines)?;
        stream.set_read_timeout(None).doing(doing)?;
        let own = stream.try_clone().doing(doing)?;
        let follower = Some(thread::spawn(move || follow(&own, lines, target)));
        Ok(Self { stream, begun: Instant::now(), follower })
    }

    /// Ends it, and returns what it has counted.
    ///
    /// # Errors
    ///
    /// When it had ended before, kopid does not answer, and on Ctrl-C.
    pub(crate) fn end(mut self, interrupt: &Interrupt) -> Result<Told> {
        post(&self.stream, &Request::plain("stop"), None)?;
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

/// Sends a request, with a file if there is one.
fn post(stream: &UnixStream, request: &Request, file: Option<File>) -> Result<()> {
    let sent = send_all(stream, request.line().as_bytes(), file.as_ref().map(AsFd::as_fd));
    sent.map_err(Into::into).doing(|| "tell kopid of a capture".to_owned())
}

/// The next thing that kopid says.
fn hear(stream: &UnixStream, lines: &mut Lines) -> Result<Said> {
    let failed = |what: String| BenchError::Failed(format!("kopid says of a capture: {what}"));
    let line = loop {
        if let Some((line, _)) = lines.take() {
            break line;
        }
        match lines.receive(stream, RecvFlags::empty()) {
            Ok(1..) => {}
            Ok(0) => return Err(failed("nothing".to_owned())),
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    let said: Value = serde_json::from_slice(&line).unwrap_or_default();
    let row = said.get("capture").and_then(|sessions| sessions.get(0)).cloned().unwrap_or_default();
    serde_json::from_value(row).map_err(|_| failed(said.to_string()))
}

/// Gives kopid a file whenever one is full, until the session ends.
fn follow(stream: &UnixStream, mut lines: Lines, target: Target) -> Result<Told> {
    loop {
        let said = hear(stream, &mut lines)?;
        match (said.state, said.why.as_deref()) {
            (State::Full, _) => post(stream, &Request::plain("rotate"), Some(target.open()?))?,
            (State::Ended, Some("stopped")) => {
                let Said { received, captured, dropped: lost, .. } = said;
                return Ok(Told { received, captured, lost, seconds: 0.0 });
            }
            (State::Running, _) => {}
            _ => return Err(BenchError::Failed(format!("a capture has ended by itself: {said:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{BufRead, BufReader, Write};

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
        let told = follow(&ours, Lines::new(LINE), Target::Memory).expect("an orderly end");
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
        assert!(follow(&ours, Lines::new(LINE), Target::Null).is_err());
    }
}

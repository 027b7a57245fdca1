//! An app that sends what the test writes to it and tells the test what it receives, a frame in hexadecimal on each line.
//!
//! There are two of them: `kopi-seq pipe`, which is a DPDK application with the shim, and `kopi-client attach`, which
//! speaks the attach protocol by itself and starts at once.

use crate::app::{AppOptions, launch};
use crate::frames::{from_hex, to_hex};
use crate::kopid::Kopid;
use crate::machine::{own, unique};
use crate::process::{Launch, Process};
use crate::temp::TempDir;
use crate::testpmd::HugeMount;
use crate::wait::{SOON, wait_for};
use serde_json::Value;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What a line with a received frame begins with.
pub const RECEIVED: &str = "rx ";

/// Frames from our standard input, one on each line; the channel ends with the input. For the programs of this crate.
#[must_use]
pub fn frames_of_stdin() -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    let work = move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.filter_map(|line| from_hex(&line)).try_for_each(|frame| sender.send(frame).ok())
    };
    drop(std::thread::spawn(work));
    receiver
}

/// A line that tells of a received frame.
#[must_use]
pub fn line_of(frame: &[u8]) -> String {
    format!("{RECEIVED}{}", to_hex(frame))
}

/// A running app of this kind. It is killed with its value.
#[derive(Debug)]
pub struct Piped {
    process: Process,
    /// Bytes of its output that were looked at.
    seen: usize,
    _mount: Option<HugeMount>,
}

impl Piped {
    /// Starts a DPDK application, and waits until kopid serves it.
    #[must_use]
    pub fn application(dir: &TempDir, kopid: &Kopid, options: &AppOptions) -> Self {
        let (process, mount) = launch(dir, kopid, options, &["pipe".to_owned()]);
        drop(kopid.await_app(&options.name));
        Self { process, seen: 0, _mount: mount }
    }

    /// Starts a process that attaches as `name` with MAC address `mac` and whatever else `args` say, without waiting.
    #[must_use]
    pub fn client(dir: &TempDir, kopid: &Kopid, name: &str, mac: &str, how: &Launch, args: &[&str]) -> Self {
        let mut words = vec!["attach".to_owned(), "--socket".to_owned(), kopid.socket().display().to_string()];
        words.extend(["--name", name, "--mac", mac].map(str::to_owned));
        words.extend(args.iter().map(|word| (*word).to_owned()));
        let log = dir.join(&format!("client-{}.log", unique()));
        Self { process: Process::start(how, dir.stage(&own("kopi-client")), &words, log), seen: 0, _mount: None }
    }

    /// Starts a process that sends raw IP packets, in the place of an app on a host without kopid.
    #[must_use]
    pub fn raw(dir: &TempDir, how: &Launch) -> Self {
        let log = dir.join(&format!("raw-{}.log", unique()));
        let process = Process::start(how, dir.stage(&own("kopi-client")), &["raw".to_owned()], log);
        let mut raw = Self { process, seen: 0, _mount: None };
        raw.process.expect(0, "ready", SOON);
        raw
    }

    /// Sends a frame, or an IP packet if it is a raw one.
    pub fn send(&mut self, frame: &[u8]) {
        let line = to_hex(frame);
        writeln!(self.process.input(), "{line}").unwrap_or_else(|e| panic!("it does not read: {e}"));
    }

    /// Frames received since the last call.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let log = self.process.log();
        let new = log.get(self.seen..).unwrap_or_default();
        // What has no end of line yet is not whole.
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        self.seen += whole;
        new[..whole].lines().filter_map(|line| from_hex(line.strip_prefix(RECEIVED)?)).collect()
    }

    /// Waits for the next frame that `wanted` likes; frames before it are left out.
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        wait_for(what, SOON, || self.received().into_iter().find(|frame| wanted(frame)))
    }

    /// What kopid said to its hello: the reason of a refusal, or nothing if it got a port.
    pub fn answer(&mut self) -> Option<String> {
        let find = |log: String| log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let answer = wait_for("kopid answers the client", SOON, || {
            let over = self.process.ended();
            find(self.process.log()).or_else(|| {
                assert!(over.is_none(), "the client ended ({over:?}):\n{}", self.process.log());
                None
            })
        });
        answer["refused"].as_str().map(str::to_owned)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Closes its input, upon which it ends.
    pub fn finish(mut self) {
        self.process.close_input();
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "it ended with {status}:\n{}", self.process.log());
    }
}

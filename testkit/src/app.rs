//! The program `kopi-seq`: a DPDK application that sends, receives or echoes sequence-numbered frames.

use crate::kopid::Kopid;
use crate::machine::{own, unique};
use crate::process::Process;
use crate::temp::TempDir;
use crate::testpmd::{EalArguments, HugeMount, Memory};
use crate::wait::SOON;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The frames of one run. Sender and receiver must be given the same.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Frames in all.
    pub count: u64,
    /// Flows that they belong to.
    pub flows: u16,
    /// Shortest and longest frame in bytes without FCS.
    pub lengths: RangeInclusive<u16>,
    /// Frames that may be unacknowledged.
    pub window: u64,
}

impl Transfer {
    /// `count` frames of `lengths` bytes in 8 flows, 256 of them under way at most.
    #[must_use]
    pub const fn new(count: u64, lengths: RangeInclusive<u16>) -> Self {
        Self { count, flows: 8, lengths, window: 256 }
    }
}

/// What the program is to be.
#[derive(Clone, Debug)]
pub struct AppOptions {
    /// Its name as an app.
    pub name: String,
    /// Its MAC address.
    pub mac: String,
    /// Queues in each direction.
    pub queues: u16,
    /// MTU in bytes.
    pub mtu: u16,
    /// Where its memory comes from.
    pub memory: Memory,
    /// The user it runs as; root if `None`.
    pub user: Option<u32>,
    /// A receiver with so few packet buffers, which keeps all it gets until there is none left.
    pub hoard: Option<u32>,
}

impl AppOptions {
    /// An app with this name and MAC address, one queue, and memory from ordinary pages.
    #[must_use]
    pub fn new(name: &str, mac: &str) -> Self {
        Self {
            name: name.into(),
            mac: mac.into(),
            queues: 1,
            mtu: 1500,
            memory: Memory::NoHuge,
            user: None,
            hoard: None,
        }
    }
}

/// A running `kopi-seq`. It is killed with its value.
#[derive(Debug)]
pub struct App {
    process: Process,
    _mount: Option<HugeMount>,
}

impl App {
    /// Starts one that sends `load` to `destination`, and waits until kopid serves it.
    #[must_use]
    pub fn send(dir: &TempDir, kopid: &Kopid, options: &AppOptions, load: &Transfer, destination: &str) -> Self {
        Self::start(dir, kopid, options, "send", load, &["--to", destination])
    }

    /// Starts one that receives and checks `load`, and waits until kopid serves it.
    #[must_use]
    pub fn receive(dir: &TempDir, kopid: &Kopid, options: &AppOptions, load: &Transfer) -> Self {
        Self::start(dir, kopid, options, "receive", load, &[])
    }

    /// Starts one that sends every frame back to where it came from, until it is killed.
    #[must_use]
    pub fn echo(dir: &TempDir, kopid: &Kopid, options: &AppOptions) -> Self {
        Self::start(dir, kopid, options, "echo", &Transfer::new(0, 60..=1514), &[])
    }

    fn start(dir: &TempDir, kopid: &Kopid, options: &AppOptions, mode: &str, load: &Transfer, more: &[&str]) -> Self {
        let AppOptions { name, hoard, .. } = options;
        let Transfer { count, flows, lengths, window } = load;
        let (min, max) = (lengths.start(), lengths.end());
        let ours = format!("{mode} --count {count} --flows {flows} --min {min} --max {max} --window {window}");
        let mut args: Vec<String> = ours.split_whitespace().map(str::to_owned).collect();
        if let Some(mbufs) = hoard {
            args.extend(["--hoard".to_owned(), mbufs.to_string()]);
        }
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let (process, mount) = launch(dir, kopid, options, &args);
        drop(kopid.await_app(name));
        Self { process, _mount: mount }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for its end and returns its report. Panics with its first problem if it found one.
    pub fn finish(&mut self, limit: Duration) -> Value {
        let status = self.process.wait(limit);
        let log = self.process.log();
        let report = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let report = report.unwrap_or_else(|| panic!("kopi-seq ended with {status} and no report:\n{log}"));
        assert!(status.success(), "kopi-seq: {report}");
        report
    }
}

/// Starts `kopi-seq` with these arguments of its own, and waits until its port is started.
pub(crate) fn launch(
    dir: &TempDir,
    kopid: &Kopid,
    options: &AppOptions,
    own_args: &[String],
) -> (Process, Option<HugeMount>) {
    let AppOptions { name, mac, queues, mtu, memory, user, .. } = options;
    let eal = EalArguments::new(dir, kopid, *memory, &format!("name={name},mac={mac}"), *user);
    let EalArguments { mut args, launch, mount } = eal;
    args.push("--".to_owned());
    args.extend(own_args.iter().cloned());
    args.extend(format!("--queues {queues} --mtu {mtu}").split(' ').map(str::to_owned));
    let log = dir.join(&format!("{name}-{}.log", unique()));
    let mut process = Process::start(&launch, dir.stage(&own("kopi-seq")), &args, log);
    process.expect(0, "\"ready\"", SOON);
    (process, mount)
}

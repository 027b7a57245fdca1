//! A kopid for one capture. It is stricter than the real one: every line of kopictl's has to be the one that is expected.

use crate::folder::Folder;
use kopi_pcapng::{Direction, Interface, Note, Packet, Section, Statistics};
use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long kopictl may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// 2026-03-04, 12:00:00 UTC, in nanoseconds.
pub(crate) const NOON: u64 = 1_772_625_600_123_456_000;

/// kopid's end of a capture.
#[derive(Debug)]
pub(crate) struct Kopid {
    stream: UnixStream,
    /// What it is to write to; `None` once it has closed that.
    file: Option<File>,
    /// What it was asked.
    pub(crate) request: Value,
    captured: u64,
}

/// Plays kopid for the next capture in another thread: two apps are attached, and `play` has the capture.
pub(crate) fn kopid(folder: &Folder, play: impl FnOnce(Kopid) + Send + 'static) -> JoinHandle<()> {
    let listener = UnixListener::bind(folder.socket()).unwrap();
    std::thread::spawn(move || play(Kopid::accept(&listener)))
}

/// Answers the next connection, which asks only what apps there are.
pub(crate) fn tell_apps(listener: &UnixListener) {
    let mut kopid = Kopid::connection(listener);
    kopid.expect("apps");
    kopid.say_apps();
}

impl Kopid {
    fn connection(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, file: None, request: Value::Null, captured: 0 }
    }

    fn say_apps(&mut self) {
        let recorded: Value = serde_json::from_str(include_str!("../recorded.json")).unwrap();
        writeln!(self.stream, "{}", json!({ "apps": recorded["apps"] })).unwrap();
    }

    fn accept(listener: &UnixListener) -> Self {
        let mut kopid = Self::connection(listener);
        let (mut request, mut file) = kopid.hear().unwrap();
        if request["command"] == "apps" {
            assert!(file.is_none());
            kopid.say_apps();
            (request, file) = kopid.hear().unwrap();
        }
        assert_eq!(request.as_object_mut().unwrap().remove("command"), Some(json!("capture")));
        (kopid.request, kopid.file) = (request, Some(file.expect("a file comes with a capture").into()));
        kopid
    }

    /// The next line of kopictl's, with the file that comes along; `None` if it has gone.
    fn hear(&mut self) -> Option<(Value, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; 16_384];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(&self.stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        if got.bytes == 0 {
            return None;
        }
        let files = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut files: Vec<OwnedFd> = files.collect();
        assert!(files.len() <= 1);
        let line = std::str::from_utf8(&bytes[..got.bytes]).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        Some((serde_json::from_str(line).unwrap(), files.pop()))
    }

    /// Refuses.
    pub(crate) fn refuse(mut self, error: &str) {
        writeln!(self.stream, "{}", json!({ "error": error })).unwrap();
    }

    /// Begins, with a section of two ports: 0 is the app `batch`, 1 is the wire.
    pub(crate) fn start(mut self) -> Self {
        self.say("running", None);
        self.section();
        self
    }

    /// Begins a file.
    fn section(&mut self) {
        let mut bytes = Vec::new();
        kopi_pcapng::section(&mut bytes, &Section { hardware: "cpu", os: "Linux", application: "kopid 0.1.0" });
        for name in ["batch", "wire"] {
            let interface = Interface { name, description: "a port", mac: Some([2; 6]), filter: None, snap: 262_144 };
            kopi_pcapng::interface(&mut bytes, &interface);
        }
        self.write(&bytes);
    }

    /// Writes what `batch` has sent, a microsecond after the one before: ARP, dropped, of a process that calls itself
    /// strangely.
    pub(crate) fn packet(&mut self) {
        let note = Note {
            app: Some("batch"),
            pid: Some(4711),
            uid: Some(1001),
            user: Some("bob"),
            comm: Some("evil] \u{1b}[2J"),
            container: None,
            pod: None,
            verdict: "drop",
            reason: Some("spoofed"),
            rule: None,
            queue: Some(1),
        };
        let mut comment = String::new();
        note.write(&mut comment);
        let frame = kopi_packet::describe::frame_of("arp request 10.9.0.66 > 10.9.0.1").unwrap();
        let packet = Packet {
            interface: 0,
            timestamp_ns: NOON + self.captured * 1000,
            len: frame.len().try_into().unwrap(),
            direction: Direction::Outbound,
            queue: Some(1),
            drops: 0,
            comment: &comment,
        };
        let mut bytes = Vec::new();
        kopi_pcapng::packet(&mut bytes, &packet, std::iter::once(&frame[..]));
        self.captured += 1;
        self.write(&bytes);
    }

    /// Writes some bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.file.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Ends the current file, as a file that ends well.
    pub(crate) fn close(&mut self) {
        let mut bytes = Vec::new();
        let statistics = Statistics { interface: 0, delivered: self.captured, ..Statistics::default() };
        kopi_pcapng::statistics(&mut bytes, &statistics);
        // The reader of a pipe may have gone.
        drop(self.file.take().unwrap().write_all(&bytes));
    }

    /// Says where it is. Three packets more than were captured are lost.
    pub(crate) fn say(&mut self, state: &str, why: Option<&str>) {
        self.say_with(&json!({ "state": state, "why": why }));
    }

    /// The same with other keys.
    pub(crate) fn say_with(&mut self, keys: &Value) {
        let mut row = json!({ "session": 3, "state": "running", "why": null, "error": null, "jit": true,
            "captured": self.captured, "received": self.captured + 3, "dropped": 3, "seen": 99, "file_bytes": 1,
            "disk_full": false });
        row.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        writeln!(self.stream, "{}", json!({ "capture": [row] })).unwrap();
    }

    /// Ends by itself.
    pub(crate) fn end(mut self, why: &str) {
        self.close();
        self.say("ended", Some(why));
    }

    /// Expects to be told `command`, and returns the file that comes along.
    pub(crate) fn expect(&mut self, command: &str) -> Option<OwnedFd> {
        let (line, file) = self.hear().unwrap_or_else(|| panic!("kopictl has gone instead of `{command}`"));
        assert_eq!(line, json!({ "command": command }));
        file
    }

    /// Expects to be told to stop, and does.
    pub(crate) fn expect_stop(mut self) {
        assert!(self.expect("stop").is_none());
        self.end("stopped");
    }

    /// Expects the next file, and goes on with it.
    pub(crate) fn expect_rotate(&mut self) {
        let file = self.expect("rotate").expect("a file comes with it");
        self.close();
        self.file = Some(file.into());
        self.section();
        self.say("running", None);
    }

    /// Expects kopictl to go.
    pub(crate) fn expect_gone(mut self) {
        assert!(self.hear().is_none());
    }
}

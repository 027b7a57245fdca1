//! Runs `dpdk-testpmd` with the driver, and talks to its prompt.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What testpmd says when it is called for a change of the link.
const LINK_EVENT: &str = "Port 0: link state change event";

/// A private folder, removed at the end. EAL loads no plugin from below a folder that everybody may write to, so it
/// lies in the user's home.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
        let name = format!("kopi-shim-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = Path::new(&home).join(".cache").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(driver(), folder.join("librte_net_kopi.so")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn driver(&self) -> PathBuf {
        self.path("librte_net_kopi.so")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("kopi.sock")
    }

    /// The usual device of a test.
    pub(crate) fn device(&self) -> String {
        format!("net_kopi0,socket={}", self.socket().display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// The driver as it is now: cargo builds a library that no test can be linked with only when asked to.
fn driver() -> PathBuf {
    static BUILT: Once = Once::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--lib",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    });
    profile.join("libkopi_shim.so")
}

/// A running testpmd.
pub(crate) struct Testpmd {
    child: Child,
    stdin: ChildStdin,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    /// The threads that gather them.
    readers: Vec<JoinHandle<()>>,
    /// Bytes of standard output that have been searched.
    read: usize,
    prefix: String,
}

impl Testpmd {
    /// Starts testpmd with EAL's arguments `eal` and its own arguments `own`, on the device `device`.
    pub(crate) fn start(folder: &Folder, device: &str, eal: &[&str], own: &[&str]) -> Self {
        Self::start_with(folder, &[device], eal, own, &[])
    }

    pub(crate) fn start_with(
        folder: &Folder,
        devices: &[&str],
        eal: &[&str],
        own: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("shim{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd", "-l", "0,1", "--no-pci", "--file-prefix", &prefix, "-d"]);
        command.arg(folder.driver());
        devices.iter().for_each(|device| {
            command.args(["--vdev", device]);
        });
        command.args(eal).args(["--", "-i", "--total-num-mbufs=4096", "--no-flush-rx"]).args(own);
        command.envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, out) = collect(child.stdout.take().unwrap());
        let (stderr, err) = collect(child.stderr.take().unwrap());
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, stdout, stderr, readers: vec![out, err], read: 0, prefix }
    }

    /// Waits until the prompt is there for the first time.
    pub(crate) fn ready(mut self) -> Self {
        self.expect("testpmd> ");
        self
    }

    /// Waits for `text` in the output that has not been searched yet, and returns what came before it.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            let output = self.stdout.lock().unwrap().clone();
            if let Some((begin, end)) = find(&output[self.read..], text) {
                let before = output[self.read..self.read + begin].to_owned();
                self.read += end;
                return before;
            }
            assert!(Instant::now() < end, "no `{text}` in:\n{}", self.output());
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(100));
                let output = self.stdout.lock().unwrap().clone();
                assert!(find(&output[self.read..], text).is_some(), "{status}; no `{text}` in:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Types a command, and returns what testpmd says until the next prompt.
    pub(crate) fn command(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{command}").unwrap();
        self.expect("testpmd> ")
    }

    /// The value of an extended statistic of port 0.
    pub(crate) fn xstat(&mut self, name: &str) -> u64 {
        let text = self.command("show port xstats 0");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).trim().parse().unwrap()
    }

    /// Waits until `done` says so.
    pub(crate) fn wait_for(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !done(self) {
            assert!(Instant::now() < end, "no {what} in time:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What its files are named after.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Times that the application was called for a change of the link.
    pub(crate) fn link_events(&self) -> usize {
        self.output().matches(LINK_EVENT).count()
    }

    /// Everything said so far, logs last.
    pub(crate) fn output(&self) -> String {
        format!("{}\n{}", self.stdout.lock().unwrap(), self.stderr.lock().unwrap())
    }

    /// Leaves testpmd the orderly way, and returns everything it said.
    pub(crate) fn quit(mut self) -> String {
        writeln!(self.stdin, "quit").unwrap();
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.readers.drain(..).for_each(|reader| reader.join().unwrap());
                assert!(status.success(), "{status}:\n{}", self.output());
                return self.output();
            }
            assert!(Instant::now() < end, "does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for an end that was not asked for, and returns everything it said.
    pub(crate) fn fail(mut self) -> String {
        let end = Instant::now() + TIMEOUT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.output()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Gathers what `from` says, in a thread of its own.
fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let gathered = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&gathered);
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    });
    (gathered, reader)
}

/// Where `wanted` begins and ends in `text`, even if news about the link fell into the middle of it.
fn find(text: &str, wanted: &str) -> Option<(usize, usize)> {
    let first = wanted.chars().next()?;
    text.match_indices(first).find_map(|(begin, _)| {
        let mut rest = &text[begin..];
        for c in wanted.chars() {
            while !rest.starts_with(c) {
                rest = rest.strip_prefix('\n').or_else(|| rest.strip_prefix(LINK_EVENT))?;
            }
            rest = &rest[c.len_utf8()..];
        }
        Some((begin, text.len() - rest.len()))
    })
}

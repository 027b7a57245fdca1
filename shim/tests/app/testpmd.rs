//! Runs `dpdk-testpmd` with the driver, and talks to its prompt.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

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
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// The driver that cargo built along with this test.
fn driver() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().with_file_name("librte_net_kopi.so");
    assert!(built.exists(), "{} is missing", built.display());
    built
}

/// A running testpmd.
pub(crate) struct Testpmd {
    child: Child,
    stdin: ChildStdin,
    output: Arc<Mutex<String>>,
    /// How much of the output has been looked at.
    read: usize,
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
        command.args(["-o0", "dpdk-testpmd", "-l", "0,1", "--no-pci", "--file-prefix", &prefix, "-d"]);
        command.arg(folder.driver());
        devices.iter().for_each(|device| {
            command.args(["--vdev", device]);
        });
        command.args(eal).args(["--", "-i", "--total-num-mbufs=4096", "--no-flush-rx"]).args(own);
        command.envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, output, read: 0 }
    }

    /// Waits until the prompt is there for the first time.
    pub(crate) fn ready(mut self) -> Self {
        self.expect("testpmd> ");
        self
    }

    /// Waits for `text` in the output that has not been looked at, and returns what came before it.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let output = self.output.lock().unwrap().clone();
            if let Some(at) = output[self.read..].find(text) {
                let before = output[self.read..self.read + at].to_owned();
                self.read += at + text.len();
                return before;
            }
            assert!(Instant::now() < end, "no `{text}` in:\n{output}");
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(100));
                let output = self.output.lock().unwrap().clone();
                assert!(output[self.read..].contains(text), "{status}; no `{text}` in:\n{output}");
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
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "no {what} in time:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything said so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Leaves testpmd the orderly way, and returns everything it said.
    pub(crate) fn quit(mut self) -> String {
        writeln!(self.stdin, "quit").unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(50));
                assert!(status.success(), "{status}:\n{}", self.output());
                return self.output();
            }
            assert!(Instant::now() < end, "does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for an end that was not asked for, and returns everything it said.
    pub(crate) fn fail(mut self) -> String {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(50));
        self.output()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Adds what `from` says to `to`, in a thread of its own.
fn collect(mut from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    });
}

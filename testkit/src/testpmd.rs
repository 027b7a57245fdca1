//! Debian's dpdk-testpmd with the shim, told what to do line by line.

use crate::kopid::Kopid;
use crate::machine::{app_cpu, built, run, unique};
use crate::process::{Launch, Process};
use crate::temp::TempDir;
use crate::wait::SOON;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Where EAL takes an app's memory from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// `--no-huge`: ordinary pages. The mode of ordinary users.
    NoHuge,
    /// `--in-memory`: huge pages without files.
    InMemory,
    /// `--legacy-mem`: all at start, with files in hugetlbfs.
    Legacy,
    /// `--single-file-segments`, with files in hugetlbfs.
    SingleFile,
    /// Huge pages with files in hugetlbfs, EAL's default.
    HugePages,
}

impl Memory {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::NoHuge, Self::InMemory, Self::Legacy, Self::SingleFile, Self::HugePages];

    /// Its EAL arguments; `mount` is where a hugetlbfs is mounted, if the mode needs one.
    fn arguments(self, mount: &str) -> Vec<String> {
        let words = match self {
            Self::NoHuge => "--no-huge -m 192".to_owned(),
            Self::InMemory => "--in-memory".to_owned(),
            Self::Legacy => format!("--legacy-mem -m 192 --huge-dir {mount}"),
            Self::SingleFile => format!("--single-file-segments --huge-dir {mount}"),
            Self::HugePages => format!("--huge-dir {mount}"),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    const fn needs_mount(self) -> bool {
        matches!(self, Self::Legacy | Self::SingleFile | Self::HugePages)
    }
}

/// A hugetlbfs in the folder of a test.
#[derive(Debug)]
pub struct HugeMount(PathBuf);

impl HugeMount {
    /// Mounts one.
    #[must_use]
    pub fn new(dir: &TempDir) -> Self {
        let path = dir.join(&format!("huge-{}", unique()));
        fs::create_dir(&path).expect("the folder is new");
        run("mount", &["-t", "hugetlbfs", "none", &path.display().to_string()]);
        Self(path)
    }
}

impl Drop for HugeMount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

/// The EAL arguments of an application that loads the shim, whatever program it is.
#[derive(Debug)]
pub struct EalArguments {
    /// The arguments.
    pub args: Vec<String>,
    /// How the process is to be started.
    pub launch: Launch,
    /// What its memory lies in, if that is a file system of ours.
    pub mount: Option<HugeMount>,
}

impl EalArguments {
    /// Arguments for memory mode `memory` and the shim's `devargs` without the socket, run as `user`.
    #[must_use]
    pub fn new(dir: &TempDir, kopid: &Kopid, memory: Memory, devargs: &str, user: Option<u32>) -> Self {
        let mount = memory.needs_mount().then(|| HugeMount::new(dir));
        let place = mount.as_ref().map(|mount| mount.0.display().to_string()).unwrap_or_default();
        let cpu = app_cpu();
        let mut args = vec![format!("--lcores=0@{cpu},1@{cpu}"), "--no-pci".to_owned(), "--no-telemetry".to_owned()];
        args.push(format!("--file-prefix=kopi-test-{}-{}", std::process::id(), unique()));
        args.extend(memory.arguments(&place));
        args.extend(["-d".to_owned(), stage_driver(dir).display().to_string()]);
        args.push(format!("--vdev=net_kopi0,socket={},{devargs}", kopid.socket().display()));
        let mut launch = Launch { user, unbuffered: true, ..Launch::default() };
        let runtime = dir.folder_of(user.unwrap_or(0), &format!("run-{}", unique()));
        // Where EAL keeps its lock and sockets, which it leaves behind; otherwise /var/run/dpdk for root.
        launch.env.push(("RUNTIME_DIRECTORY".into(), runtime.display().to_string()));
        Self { args, launch, mount }
    }
}

/// Copies the driver into `dir`: the loader, whose path this returns, and the drivers of all releases, which it looks for beside itself.
fn stage_driver(dir: &TempDir) -> PathBuf {
    let loader = built("librte_net_kopi.so");
    let folder = loader.parent().expect("a file lies in a folder");
    for entry in fs::read_dir(folder).expect("cargo has built here").filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("librte_net_kopi-") {
            let _beside = dir.stage(&entry.path());
        }
    }
    dir.stage(&loader)
}

/// What a testpmd is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name as an app.
    pub name: String,
    /// More devargs of the shim, such as `mac=…`.
    pub devargs: String,
    /// The user it runs as; root if `None`.
    pub user: Option<u32>,
    /// Where its memory comes from.
    pub memory: Memory,
    /// Its `--forward-mode`.
    pub forward: &'static str,
    /// More arguments for testpmd itself.
    pub args: Vec<String>,
    /// More environment variables.
    pub env: Vec<(String, String)>,
}

impl Options {
    /// An app named `name` in forward mode `forward`, as root on ordinary pages.
    #[must_use]
    pub fn new(name: &str, forward: &'static str) -> Self {
        Self {
            name: name.into(),
            devargs: String::new(),
            user: None,
            memory: Memory::NoHuge,
            forward,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// With this MAC address.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.devargs = format!("{},mac={mac}", self.devargs);
        self
    }

    /// With these further arguments for testpmd, separated by blanks.
    #[must_use]
    pub fn with(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// With memory from there.
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }
}

/// A running dpdk-testpmd at its prompt. It is killed with its value.
#[derive(Debug)]
pub struct Testpmd {
    process: Process,
    /// Bytes of its output before the last command.
    seen: usize,
    _mount: Option<HugeMount>,
}

impl Testpmd {
    /// Starts one without waiting for anything, for those that are meant to fail.
    #[must_use]
    pub fn launch(dir: &TempDir, kopid: &Kopid, options: &Options) -> Self {
        let devargs = format!("name={}{}", options.name, options.devargs);
        let eal = EalArguments::new(dir, kopid, options.memory, &devargs, options.user);
        Self::launch_with(dir, eal, options)
    }

    /// Starts one with EAL arguments of the caller's.
    #[must_use]
    pub fn launch_with(dir: &TempDir, eal: EalArguments, options: &Options) -> Self {
        let EalArguments { mut args, mut launch, mount } = eal;
        launch.env.extend(options.env.iter().cloned());
        let own = ["--", "-i", "--total-num-mbufs=4096", "--forward-mode"];
        args.extend(own.iter().map(|word| (*word).to_owned()));
        args.push(options.forward.into());
        args.extend(options.args.iter().cloned());
        let log = dir.join(&format!("{}-{}.log", options.name, unique()));
        Self { process: Process::start(&launch, "dpdk-testpmd", &args, log), seen: 0, _mount: mount }
    }

    /// Starts one and waits for its prompt.
    #[must_use]
    pub fn start(dir: &TempDir, kopid: &Kopid, options: &Options) -> Self {
        let mut testpmd = Self::launch(dir, kopid, options);
        testpmd.process.expect(0, "testpmd> ", SOON);
        testpmd
    }

    /// Starts one, has it forward, and waits until kopid serves it.
    #[must_use]
    pub fn forwarding(dir: &TempDir, kopid: &Kopid, options: &Options) -> Self {
        let mut testpmd = Self::start(dir, kopid, options);
        testpmd.begin();
        drop(kopid.await_app(&options.name));
        testpmd
    }

    /// Has it forward, and waits until it does: it throws away what comes while it is starting.
    pub fn begin(&mut self) {
        let said = self.ask("start");
        assert!(said.contains("packet forwarding"), "testpmd does not start:\n{said}");
    }

    /// Types a command and waits until `answer` is in what comes after; returns everything that came.
    pub fn tell(&mut self, command: &str, answer: &str) -> String {
        self.seen = self.process.log().len();
        writeln!(self.process.input(), "{command}").unwrap_or_else(|e| panic!("testpmd does not read: {e}"));
        self.process.expect(self.seen, answer, SOON)
    }

    /// Types a command and waits until everything that it says has been said.
    pub fn ask(&mut self, command: &str) -> String {
        self.seen = self.process.log().len();
        // An unknown word is answered at once, and after what was typed before it.
        writeln!(self.process.input(), "{command}\nsync").unwrap_or_else(|e| panic!("testpmd does not read: {e}"));
        self.process.expect(self.seen, "Command not found", SOON)
    }

    /// One number of `show port stats 0`, such as `RX-packets`.
    pub fn stat(&mut self, key: &str) -> u64 {
        let text = self.ask("show port stats 0");
        let value = text.split(&format!("{key}:")).nth(1).and_then(|rest| rest.split_whitespace().next());
        value.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key} in:\n{text}"))
    }

    /// Extended statistics that are not zero, by name.
    pub fn xstats(&mut self) -> Vec<(String, u64)> {
        let text = self.ask("show port xstats 0");
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.trim().to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(pair).filter(|(_, value)| *value != 0).collect()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it as a user does, and panics unless it ends well.
    pub fn quit(mut self) {
        writeln!(self.process.input(), "quit").unwrap_or_else(|e| panic!("testpmd does not read: {e}"));
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "testpmd ended with {status}");
    }
}

//! The real daemon over a configuration of the test's.

use crate::machine::{built, cpus};
use crate::process::{Launch, Process};
use crate::temp::TempDir;
use crate::wait::{SOON, wait_for, wait_until};
use kopi_api::transport::{Lines, send_all};
use rustix::net::RecvFlags;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

/// What `kopid.toml` says, as far as tests change it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The wire's devargs.
    pub wire: String,
    /// The wire's MTU in bytes.
    pub mtu: u16,
    /// Workers; they get the first CPUs.
    pub workers: usize,
    /// Apps allowed at a time.
    pub apps: u32,
    /// More lines of `[limits]`. Most tests come and go as one user, faster than users may.
    pub limits: String,
    /// `auto`, `off` or `require`.
    pub huge_pages: &'static str,
    /// Packet buffers for each worker.
    pub mbufs: u32,
    /// What idle workers do: `poll` or `adaptive`.
    pub idle: &'static str,
    /// Log level.
    pub log: &'static str,
    /// What `policy.toml` says; no policy if `None`.
    pub policy: Option<String>,
    /// What `[host]` says; no port for the kernel if `None`.
    pub host: Option<String>,
    /// Whether apps may share memory.
    pub share_memory: bool,
    /// What `[metrics]` says; none are served if `None`.
    pub metrics: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wire: "net_null0,no-rx=1".into(),
            mtu: 1500,
            workers: 1,
            apps: 64,
            limits: "apps_per_user = 1024\nrequests_per_user = 1000000\nchanges_per_user = 1000000\n".into(),
            huge_pages: "auto",
            mbufs: 16384,
            idle: "poll",
            log: "info",
            policy: None,
            host: None,
            share_memory: false,
            metrics: None,
        }
    }
}

impl Settings {
    /// With interface `iface` as the wire, through packet sockets, one pair of queues for each worker.
    #[must_use]
    pub fn on_interface(iface: &str, workers: usize) -> Self {
        Self { wire: format!("net_af_packet0,iface={iface},qpairs={workers}"), workers, ..Self::default() }
    }

    /// With this policy.
    #[must_use]
    pub fn policy(self, text: &str) -> Self {
        Self { policy: Some(text.to_owned()), ..self }
    }

    /// With a port for the kernel, as the interface `tap`.
    #[must_use]
    pub fn host(self, tap: &str) -> Self {
        Self { host: Some(format!("tap = \"{tap}\"\n")), ..self }
    }

    fn toml(&self, dir: &Path) -> String {
        let Self { wire, mtu, workers, apps, limits, huge_pages, mbufs, idle, log, policy, host, .. } = self;
        let share_memory = self.share_memory;
        let host = host.as_ref().map(|host| format!("[host]\n{host}")).unwrap_or_default();
        let metrics = self.metrics.as_ref().map(|metrics| format!("[metrics]\n{metrics}\n")).unwrap_or_default();
        let policy = if policy.is_some() { "policy = \"policy.toml\"\n" } else { "" };
        let cores: Vec<u16> = cpus().into_iter().take(*workers).collect();
        assert_eq!(cores.len(), *workers, "this machine has too few CPUs");
        let dir = dir.display();
        format!(
            "{policy}[wire]\ndevice = \"{wire}\"\nmtu = {mtu}\n\
             [dataplane]\ncores = {cores:?}\nflows = 65536\nmbufs = {mbufs}\nidle = \"{idle}\"\n\
             [limits]\napps = {apps}\n{limits}\
             [memory]\nhuge_pages = \"{huge_pages}\"\nshare_memory = {share_memory}\n\
             [eal]\nargs = [\"--no-telemetry\"]\n\
             [socket]\npath = \"{dir}/kopi.sock\"\nmode = \"0666\"\n\
             [control]\npath = \"{dir}/control.sock\"\n\
             [log]\nlevel = \"{log}\"\n{metrics}{host}"
        )
    }
}

/// A running kopid. It is killed with its value.
#[derive(Debug)]
pub struct Kopid {
    process: Process,
    dir: PathBuf,
    how: Launch,
}

impl Kopid {
    /// Starts kopid and waits until it answers.
    #[must_use]
    pub fn start(dir: &TempDir, settings: &Settings) -> Self {
        Self::start_as(dir, settings, &Launch::default())
    }

    /// Starts kopid in a way of the test's, and waits until it answers.
    #[must_use]
    pub fn start_as(dir: &TempDir, settings: &Settings, how: &Launch) -> Self {
        let dir = dir.path().to_owned();
        write(&dir, settings);
        let mut kopid = Self { process: launch(&dir, how), dir, how: how.clone() };
        kopid.await_ready();
        kopid
    }

    /// Starts a kopid that must not come up, and returns how it ends.
    #[must_use]
    pub fn start_refused(dir: &TempDir, settings: &Settings) -> Output {
        write(dir.path(), settings);
        run_to_end(dir.path(), &[])
    }

    /// What `kopid --check` says of these settings, in which `edit` has changed the text of `kopid.toml`.
    #[must_use]
    pub fn check(dir: &TempDir, settings: &Settings, edit: impl FnOnce(String) -> String) -> Output {
        write(dir.path(), settings);
        let config = dir.join("kopid.toml");
        let text = fs::read_to_string(&config).expect("it was written");
        fs::write(&config, edit(text)).expect("the folder can be written");
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "20"]).arg(built("kopid")).args(["--check", "--config"]).arg(config);
        command.env("RUNTIME_DIRECTORY", dir.path()).output().expect("kopid can be run")
    }

    /// Starts a kopid that must not come up, by way of the words of a program before it, and returns how it ends.
    #[must_use]
    pub fn start_refused_by(dir: &TempDir, settings: &Settings, wrapper: &[&str]) -> Output {
        write(dir.path(), settings);
        run_to_end(dir.path(), wrapper)
    }

    fn await_ready(&mut self) {
        let limit = SOON;
        wait_until("kopid answers", limit, || {
            let ended = self.process.ended();
            assert!(ended.is_none(), "kopid ended at its start: {ended:?}\n{}", self.process.log());
            self.try_ask("status").is_some()
        });
    }

    /// Starts another kopid in the same way, after this one has ended, and waits until it answers.
    pub fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "kopid still runs");
        self.process = launch(&self.dir, &self.how);
        self.await_ready();
    }

    /// The same with other settings.
    pub fn restart_with(&mut self, settings: &Settings) {
        write(&self.dir, settings);
        self.restart();
    }

    /// Frames that workers have handed over to each other.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        let status = self.status();
        let workers = status["workers"].as_array().into_iter().flatten();
        workers.filter_map(|worker| worker["handed_over"].as_u64()).sum()
    }

    /// Starts a second kopid beside this one, on the same configuration, and returns how it fails.
    #[must_use]
    pub fn start_second(&self) -> Output {
        run_to_end(&self.dir, &[])
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged, restarts included.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has logged `text`: a thread of its own writes the log.
    pub fn await_log(&self, text: &str) {
        self.process.expect_more(text);
    }

    /// Kills it as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(SOON);
    }

    /// Asks it to stop as an administrator does, and returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(SOON)
    }

    /// Where apps attach.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("kopi.sock")
    }

    /// Where operators ask.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The policy file.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.dir.join("policy.toml")
    }

    /// Writes the policy file and has kopid read it, as `kopictl reload` does.
    ///
    /// # Errors
    ///
    /// What kopid has against it.
    pub fn reload(&self, text: &str) -> Result<(), String> {
        // A new file in the place of the old one, so that kopid never reads half of it.
        let new = self.dir.join("policy.toml.new");
        fs::write(&new, text).expect("the folder can be written");
        fs::rename(&new, self.policy()).expect("the folder can be written");
        self.reload_again()
    }

    /// Has kopid read the policy file, whatever is there.
    ///
    /// # Errors
    ///
    /// What kopid has against it.
    pub fn reload_again(&self) -> Result<(), String> {
        // A large file takes seconds on a busy machine, and asking again would have it read once more.
        let asked = json!({ "command": "reload" });
        let reply = wait_for("kopid answers `reload`", SOON, || self.exchange_within(&asked, SOON));
        reply["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()))
    }

    /// Packets that the rule of this name has seen. Panics if there is no such rule.
    #[must_use]
    pub fn rule(&self, name: &str) -> u64 {
        let rows = self.ask("rules");
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no rule {name}: {rows:?}"));
        row["packets"].as_u64().unwrap_or_else(|| panic!("{row}"))
    }

    /// The answer to a command on the control socket: the array of that name.
    #[must_use]
    pub fn ask(&self, command: &str) -> Vec<Value> {
        let what = format!("kopid answers `{command}`");
        wait_for(&what, SOON, || self.try_ask(command))
    }

    fn try_ask(&self, command: &str) -> Option<Vec<Value>> {
        Some(self.exchange(&json!({ "command": command }))?.get(command)?.as_array()?.clone())
    }

    /// One request and its reply, or `None` if kopid does not answer.
    #[must_use]
    pub fn exchange(&self, request: &Value) -> Option<Value> {
        self.exchange_within(request, Duration::from_secs(2))
    }

    /// The same for an answer that may take `limit`.
    #[must_use]
    pub fn exchange_within(&self, request: &Value, limit: Duration) -> Option<Value> {
        let socket = UnixStream::connect(self.control()).ok()?;
        socket.set_read_timeout(Some(limit)).ok()?;
        send_all(&socket, format!("{request}\n").as_bytes(), None).ok()?;
        let mut lines = Lines::new(usize::MAX);
        loop {
            if let Some((line, _)) = lines.take() {
                return serde_json::from_slice(&line).ok();
            }
            lines.receive(&socket, RecvFlags::empty()).ok().filter(|n| *n > 0)?;
        }
    }

    /// Runs `kopictl` with `args`.
    #[must_use]
    pub fn kopictl(&self, args: &[&str]) -> Output {
        let program = built("kopictl");
        let output = Command::new(&program).arg("--socket").arg(self.control()).args(args).output();
        output.unwrap_or_else(|e| panic!("{}: {e}", program.display()))
    }

    /// The one row of `status`.
    #[must_use]
    pub fn status(&self) -> Value {
        self.ask("status").into_iter().next().expect("status has a row")
    }

    /// The app of this name, if it is attached.
    #[must_use]
    pub fn app(&self, name: &str) -> Option<Value> {
        self.ask("apps").into_iter().find(|app| app["name"] == name)
    }

    /// Waits until the app of this name is attached and its rings are served, and returns its row.
    #[must_use]
    pub fn await_app(&self, name: &str) -> Value {
        let what = format!("app `{name}` runs");
        wait_for(&what, SOON, || self.app(name).filter(|app| app["state"] == "running"))
    }

    /// Waits until no app of this name is attached.
    pub fn await_no_app(&self, name: &str) {
        wait_until(&format!("app `{name}` is gone"), SOON, || self.app(name).is_none());
    }

    /// Frames dropped for `reason`, on everybody's account.
    #[must_use]
    pub fn drops(&self, reason: &str) -> u64 {
        let rows = self.ask("drops");
        rows.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["packets"].as_u64()).sum()
    }

    /// The same, charged to app `app`.
    #[must_use]
    pub fn app_drops(&self, app: &str, reason: &str) -> u64 {
        self.dropped(app, |why| why == reason)
    }

    /// Frames that app `app` has sent and that were not dropped as charged to it.
    #[must_use]
    pub fn passed(&self, app: &str) -> u64 {
        let dropped = self.dropped(app, |_| true);
        self.counter(app, "tx_packets").saturating_sub(dropped)
    }

    fn dropped(&self, app: &str, counts: impl Fn(&str) -> bool) -> u64 {
        let rows = self.ask("drops");
        let of_app = rows.iter().filter(|row| row["app"] == app && row["reason"].as_str().is_some_and(&counts));
        of_app.filter_map(|row| row["packets"].as_u64()).sum()
    }

    /// The counter `key` of port `port` in `stats`.
    #[must_use]
    pub fn counter(&self, port: &str, key: &str) -> u64 {
        let rows = self.ask("stats");
        rows.iter().find(|row| row["port"] == port).and_then(|row| row[key].as_u64()).unwrap_or(0)
    }

    /// Waits until no connection, app or flow change is under way: the moment to compare what it uses.
    pub fn await_no_connections(&self) {
        wait_until("all connections are gone", SOON, || self.status()["connections"] == 0);
    }
}

impl Drop for Kopid {
    fn drop(&mut self) {
        if std::thread::panicking() && self.process.ended().is_none() {
            for command in ["status", "apps", "stats", "drops", "rules"] {
                let rows = self.try_ask(command).unwrap_or_default();
                rows.iter().for_each(|row| drop(writeln!(std::io::stderr(), "{command}: {row}")));
            }
        }
    }
}

fn write(dir: &Path, settings: &Settings) {
    fs::write(dir.join("kopid.toml"), settings.toml(dir)).expect("the folder can be written");
    if let Some(policy) = &settings.policy {
        fs::write(dir.join("policy.toml"), policy).expect("the folder can be written");
    }
}

/// Runs a kopid that is not expected to stay.
fn run_to_end(dir: &Path, wrapper: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "20"]).args(wrapper).arg(built("kopid"));
    command.arg("--config").arg(dir.join("kopid.toml")).env("RUNTIME_DIRECTORY", dir);
    command.output().expect("kopid can be run")
}

fn launch(dir: &Path, how: &Launch) -> Process {
    let config = dir.join("kopid.toml").display().to_string();
    let mut how = how.clone();
    // Where EAL keeps its lock, which it leaves behind; otherwise /var/run/dpdk.
    how.env.push(("RUNTIME_DIRECTORY".to_owned(), dir.display().to_string()));
    Process::start(&how, built("kopid"), &["--config".into(), config], dir.join("kopid.log"))
}

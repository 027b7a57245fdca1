//! kopi: kopid owns the wire, the application loads the driver.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Contender, Family, Service};
use crate::error::{BenchError, Doing, Result};
use crate::process::Process;
use crate::setup::{Setup, Wire, is_file};

const START: Duration = Duration::from_secs(20);

/// kopid with one worker, or more.
#[derive(Debug)]
pub(crate) struct Kopi {
    /// Name of the variant.
    pub(crate) name: &'static str,
    /// Where its programs lie, if not where those of the run do.
    pub(crate) folder: Option<PathBuf>,
    /// What stands in `policy.toml`, if there is one.
    pub(crate) policy: Option<String>,
    /// The address that the application's port is to have, if not one that kopid makes up.
    pub(crate) mac: Option<&'static str>,
    /// How many workers it has. The first one has the dataplane's core, the last one the application's if there are no more.
    pub(crate) workers: usize,
    /// What its workers do when there is nothing to do.
    pub(crate) idle: &'static str,
    /// Whether kopid may read long frames out of the application's memory; `None` leaves it to the build.
    pub(crate) share_memory: Option<bool>,
}

impl Kopi {
    /// kopid without a policy, as the build has it.
    pub(crate) const PLAIN: Self =
        Self { name: "kopi", folder: None, policy: None, mac: None, workers: 1, idle: "poll", share_memory: None };
    /// The same, but kopid reads long frames out of the application's memory.
    pub(crate) const SHARED: Self = Self { name: "kopi-shared", share_memory: Some(true), ..Self::PLAIN };
    /// kopid without a policy, whose worker may sleep.
    pub(crate) const ADAPTIVE: Self = Self { name: "kopi-adaptive", idle: "adaptive", ..Self::PLAIN };

    const DAEMON: &str = "kopid";
    const DRIVER: &str = "librte_net_kopi.so";

    fn program(&self, setup: &Setup, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap_or(&setup.kopi).join(name)
    }
}

impl Contender for Kopi {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Kopi
    }

    fn missing(&self, setup: &Setup) -> Option<String> {
        let absent = [Self::DAEMON, Self::DRIVER].into_iter().find(|file| !is_file(&self.program(setup, file)))?;
        Some(format!("{absent} is not there; `cargo build --release` makes it"))
    }

    fn start(&self, setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>> {
        let file = |suffix: &str| setup.path(&format!("{}{suffix}", self.name));
        let (socket, control, config) = (file(".sock"), file("-control.sock"), file("-kopid.toml"));
        let policy = match &self.policy {
            Some(text) => {
                let path = file("-policy.toml");
                fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
                format!("policy = \"{}\"\n", path.display())
            }
            None => String::new(),
        };
        // Builds from before there was a choice do not know these keys.
        let memory = self.share_memory.map(|share| format!("[memory]\nshare_memory = {share}\n")).unwrap_or_default();
        let idle = if self.idle == Self::PLAIN.idle { String::new() } else { format!("idle = \"{}\"\n", self.idle) };
        let no_pci = if wire.is_pci() { "" } else { ", \"--no-pci\"" };
        let text = format!(
            "{policy}[wire]\ndevice = \"{wire}\"\n\
             [dataplane]\ncores = {cores:?}\n{idle}\
             [eal]\nargs = [\"--in-memory\", \"--no-telemetry\", \"--file-prefix\", \"{prefix}\"{no_pci}]\n\
             [socket]\npath = \"{socket}\"\n\
             [control]\npath = \"{control}\"\n{memory}",
            wire = wire.device(),
            cores = setup.worker_cores(self.workers),
            prefix = setup.prefix(self.name),
            socket = socket.display(),
            control = control.display(),
        );
        fs::write(&config, text).doing(|| format!("write {}", config.display()))?;
        let daemon = self.program(setup, Self::DAEMON);
        let args = ["--config".as_ref(), config.as_os_str()];
        let mut process = Process::spawn(&format!("kopid of {}", self.name), daemon, args, &[], &setup.interrupt)?;
        wait_for_socket(setup, &socket, &mut process)?;
        let mac = self.mac.map(|mac| format!(",mac={mac}")).unwrap_or_default();
        let device = format!("net_kopi0,socket={}{mac}", socket.display());
        Ok(Box::new(Daemon { process, device, control, driver: self.program(setup, Self::DRIVER) }))
    }
}

fn wait_for_socket(setup: &Setup, socket: &Path, process: &mut Process) -> Result<()> {
    let step = Duration::from_millis(5);
    for _ in 0..START.as_millis() / step.as_millis() {
        if socket.exists() {
            return Ok(());
        }
        process.alive()?;
        setup.interrupt.sleep(step)?;
    }
    Err(BenchError::Failed(format!("kopid made no socket:\n{}", process.tail())))
}

struct Daemon {
    process: Process,
    /// What gives an application its port.
    device: String,
    control: PathBuf,
    driver: PathBuf,
}

impl Service for Daemon {
    fn app_devices(&self) -> Vec<String> {
        let driver = self.driver.display().to_string();
        ["--no-pci", "-d", &driver, "--vdev", &self.device].map(str::to_owned).into()
    }

    fn processes(&self) -> Vec<&Process> {
        vec![&self.process]
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        Ok(self.ask("stats")?.as_ref().and_then(wire_sent))
    }

    fn control(&self) -> Option<&Path> {
        Some(&self.control)
    }

    fn ask(&mut self, command: &str) -> Result<Option<Value>> {
        let doing = || format!("ask kopid through {}", self.control.display());
        let mut stream = UnixStream::connect(&self.control).doing(doing)?;
        stream.set_read_timeout(Some(START)).doing(doing)?;
        stream.write_all(kopi_api::Request::plain(command).line().as_bytes()).doing(doing)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).doing(doing)?;
        match serde_json::from_str::<Value>(&answer) {
            Ok(answer) if answer.get("error").is_none() => Ok(Some(answer)),
            _ => Err(BenchError::Failed(format!("kopid answered {command} with {answer}"))),
        }
    }
}

/// The wire's count of sent frames, in kopid's answer to `stats`.
fn wire_sent(answer: &Value) -> Option<u64> {
    let ports = answer.get("stats")?.as_array()?;
    ports.iter().find(|port| port.get("port").is_some_and(|name| name == "wire"))?.get("tx_packets")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wires_count_is_read_or_absent() {
        let stats = json!({"stats": [{"port": "app", "tx_packets": 7}, {"port": "wire", "tx_packets": 12}]});
        assert_eq!(wire_sent(&stats), Some(12));
        assert_eq!(wire_sent(&json!({"stats": []})), None);
    }
}

//! kopi: kopid owns the wire, the application loads the driver.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Contender, Family, Service};
use crate::error::{BenchError, Doing, Result};
use crate::process::Process;
use crate::setup::{Setup, Wire, is_file};

const START: Duration = Duration::from_secs(20);

/// kopid with one worker.
#[derive(Debug)]
pub(crate) struct Kopi;

impl Kopi {
    const DAEMON: &str = "kopid";
    const DRIVER: &str = "librte_net_kopi.so";
}

impl Contender for Kopi {
    fn name(&self) -> &'static str {
        "kopi"
    }

    fn family(&self) -> Family {
        Family::Kopi
    }

    fn missing(&self, setup: &Setup) -> Option<String> {
        let absent = [Self::DAEMON, Self::DRIVER].into_iter().find(|file| !is_file(&setup.kopi.join(file)))?;
        Some(format!("{absent} is not there; `cargo build --release` makes it"))
    }

    fn start(&self, setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>> {
        let socket = setup.path("kopi.sock");
        let control = setup.path("kopi-control.sock");
        let config = setup.path("kopid.toml");
        let no_pci = if wire.is_pci() { "" } else { ", \"--no-pci\"" };
        let text = format!(
            "[wire]\ndevice = \"{wire}\"\n\
             [dataplane]\ncores = [{core}]\n\
             [eal]\nargs = [\"--in-memory\", \"--no-telemetry\", \"--file-prefix\", \"{prefix}\"{no_pci}]\n\
             [socket]\npath = \"{socket}\"\n\
             [control]\npath = \"{control}\"\n",
            wire = wire.device(),
            core = setup.dataplane_core,
            prefix = setup.prefix("kopid"),
            socket = socket.display(),
            control = control.display(),
        );
        fs::write(&config, text).doing(|| format!("write {}", config.display()))?;
        let daemon = setup.kopi.join(Self::DAEMON);
        let args = ["--config".as_ref(), config.as_os_str()];
        let mut process = Process::spawn(Self::DAEMON, daemon, args, &[], &setup.interrupt)?;
        wait_for_socket(setup, &socket, &mut process)?;
        Ok(Box::new(Daemon { process, socket, control, programs: setup.kopi.clone() }))
    }
}

fn wait_for_socket(setup: &Setup, socket: &Path, process: &mut Process) -> Result<()> {
    let step = Duration::from_millis(50);
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
    socket: PathBuf,
    control: PathBuf,
    programs: PathBuf,
}

impl Service for Daemon {
    fn app_devices(&self) -> Vec<String> {
        let driver = self.programs.join(Kopi::DRIVER);
        let device = format!("net_kopi0,socket={}", self.socket.display());
        let driver = driver.display().to_string();
        ["--no-pci", "-d", &driver, "--vdev", &device].map(str::to_owned).into()
    }

    fn processes(&self) -> Vec<&Process> {
        vec![&self.process]
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        let doing = || format!("ask kopid through {}", self.control.display());
        let mut stream = UnixStream::connect(&self.control).doing(doing)?;
        stream.set_read_timeout(Some(START)).doing(doing)?;
        stream.write_all(b"{\"command\": \"stats\"}\n").doing(doing)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).doing(doing)?;
        Ok(wire_sent(&answer))
    }
}

/// The wire's count of sent frames, in kopid's answer to `stats`.
fn wire_sent(json: &str) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_str(json).ok()?;
    let ports = answer.get("stats")?.as_array()?;
    ports.iter().find(|port| port.get("port").is_some_and(|name| name == "wire"))?.get("tx_packets")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wires_count_is_read_or_absent() {
        let stats = r#"{"stats": [{"port": "app", "tx_packets": 7}, {"port": "wire", "tx_packets": 12}]}"#;
        assert_eq!(wire_sent(stats), Some(12));
        assert_eq!(wire_sent(r#"{"stats": []}"#), None);
        assert_eq!(wire_sent(r#"{"error": "no such command"}"#), None);
    }
}

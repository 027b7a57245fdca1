//! A `dpdk-testpmd` at its interactive prompt.

use std::time::Duration;

use crate::error::{BenchError, Result};
use crate::process::Process;
use crate::setup::Setup;

/// How long testpmd may take to open its devices.
const START: Duration = Duration::from_secs(20);
/// How long it may take to answer a command. Its main thread shares a core with its polling thread.
const ANSWER: Duration = Duration::from_secs(10);
const PROMPT: &str = "testpmd> ";
/// The last words of one port's statistics.
const LAST_RATE: &str = "Tx-bps:";

/// What a testpmd is to do.
#[derive(Debug)]
pub(crate) struct Role<'a> {
    /// Name of the process in this run.
    pub(crate) name: &'a str,
    /// Core of both its threads.
    pub(crate) core: usize,
    /// EAL arguments that give it its ports.
    pub(crate) devices: Vec<String>,
    /// testpmd's forwarding mode: `io`, `txonly`, `rxonly`.
    pub(crate) mode: &'a str,
    /// Length of the frames that `txonly` sends, in bytes without the checksum.
    pub(crate) frame_len: u16,
}

/// A running testpmd.
#[derive(Debug)]
pub(crate) struct Testpmd {
    process: Process,
}

impl Testpmd {
    /// Starts testpmd and waits for its prompt. It does not forward yet.
    ///
    /// # Errors
    ///
    /// When it does not come up, with what it said.
    pub(crate) fn start(setup: &Setup, role: &Role<'_>) -> Result<Self> {
        let mut args = setup.eal_args(role.name, role.core);
        args.extend(role.devices.iter().cloned());
        args.extend(
            ["--", "-i", "--nb-cores=1", "--total-num-mbufs=16384", "--rxd=1024", "--txd=1024"].map(str::to_owned),
        );
        args.push(format!("--forward-mode={}", role.mode));
        args.push(format!("--txpkts={}", role.frame_len));
        let mut process = Process::spawn(role.name, &setup.testpmd, &args, &[], &setup.interrupt)?;
        process.expect(PROMPT, START)?;
        Ok(Self { process })
    }

    /// Begins to forward.
    pub(crate) fn forward(&mut self) -> Result<()> {
        self.process.send_line("start")?;
        self.process.expect("packets/burst", ANSWER).map(drop)
    }

    /// Statistics of port `port`, with the rates since the last call.
    ///
    /// # Errors
    ///
    /// When testpmd ended or printed something else.
    pub(crate) fn port_stats(&mut self, port: u16) -> Result<PortStats> {
        self.process.send_line(&format!("show port stats {port}"))?;
        let mut text = self.process.expect(LAST_RATE, ANSWER)?;
        // The rest of the block, so that the next answer does not begin in this one.
        text.push_str(&self.process.expect("####\n", ANSWER)?);
        let stats = PortStats::parse(&text, port);
        stats.ok_or_else(|| BenchError::Failed(format!("statistics of port {port} are not understood:\n{text}")))
    }

    /// The process, to pause, resume and weigh.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}

/// One port's counters, and its rates by testpmd's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortStats {
    /// Frames received so far.
    pub(crate) rx_packets: u64,
    /// Bytes received so far.
    pub(crate) rx_bytes: u64,
    /// Frames sent so far.
    pub(crate) tx_packets: u64,
    /// Frames received per second since the statistics were last shown.
    pub(crate) rx_rate: u64,
    /// Frames sent per second since the statistics were last shown.
    pub(crate) tx_rate: u64,
}

impl PortStats {
    /// Reads what `show port stats` printed for `port`. The last block wins.
    fn parse(text: &str, port: u16) -> Option<Self> {
        let title = format!("NIC statistics for port {port} ");
        let (_, block) = text.rsplit_once(&title)?;
        let number = |key: &str| -> Option<u64> {
            let (_, rest) = block.split_once(key)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            rx_packets: number("RX-packets:")?,
            rx_bytes: number("RX-bytes:")?,
            tx_packets: number("TX-packets:")?,
            rx_rate: number("Rx-pps:")?,
            tx_rate: number("Tx-pps:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "show port stats 0\r

  ######################## NIC statistics for port 0  ########################
  RX-packets: 12         RX-missed: 3          RX-bytes:  768
  RX-errors: 4
  RX-nombuf:  5         
  TX-packets: 9313120    TX-errors: 6          TX-bytes:  596039680

  Throughput (since last show)
  Rx-pps:           17          Rx-bps:            8704
  Tx-pps:      4662104          Tx-bps:            9
  ############################################################################
";

    #[test]
    fn statistics_are_read() {
        let stats = PortStats { rx_packets: 12, rx_bytes: 768, tx_packets: 9_313_120, rx_rate: 17, tx_rate: 4_662_104 };
        assert_eq!(PortStats::parse(SHOWN, 0), Some(stats));
    }

    #[test]
    fn another_port_and_a_cut_text_are_no_statistics() {
        assert_eq!(PortStats::parse(SHOWN, 1), None);
        assert_eq!(PortStats::parse(SHOWN.split("Tx-pps").next().expect("a first part"), 0), None);
    }
}

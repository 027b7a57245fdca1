//! Frames per second, end to end.
//!
//! The application is testpmd, which leaves payload alone. Where payload is to be touched it is one of this crate, which does the same
//! and writes, or sums, all of it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::contender::{Kopi, Service};
use crate::error::{BenchError, Result};
use crate::policy::{Job, Pump};
use crate::process::Process;
use crate::rounds::{App, Experiment, Method, Pair, Samples};
use crate::setup::{Setup, Wire};
use crate::testpmd::{PortStats, Role, Testpmd};

/// Bytes up to which a frame is copied, whether an application shares its memory or not.
pub(crate) const SHORT: u16 = 128;

/// Which way the frames go, as the application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// From the application to the wire.
    Tx,
    /// From the wire to the application.
    Rx,
}

impl Direction {
    /// testpmd's mode for an application that only does this.
    fn mode(self) -> &'static str {
        match self {
            Self::Tx => "txonly",
            Self::Rx => "rxonly",
        }
    }

    /// What an application does that touches all payload, behind a cell's name.
    pub(crate) const fn touch(self, touched: bool) -> &'static str {
        match (touched, self) {
            (false, _) => "",
            (true, Self::Tx) => ", written",
            (true, Self::Rx) => ", read",
        }
    }

    fn rate(self, stats: &PortStats) -> u64 {
        match self {
            Self::Tx => stats.tx_rate,
            Self::Rx => stats.rx_rate,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tx => "TX",
            Self::Rx => "RX",
        })
    }
}

/// One point of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Which way the frames go.
    pub(crate) direction: Direction,
    /// Length of a frame in bytes, without the checksum.
    pub(crate) frame_len: u16,
    /// Whether the application writes, or reads, all of each frame's payload.
    pub(crate) touched: bool,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} B{}", self.direction, self.frame_len, self.direction.touch(self.touched))
    }
}

/// What one sample measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Million frames per second, by the application's count and clock.
    pub(crate) mpps: f64,
    /// For TX, what the wire has sent as a share of what the application has sent, where the system counts it.
    pub(crate) delivered: Option<f64>,
}

/// What one cell gave.
#[derive(Debug)]
pub(crate) struct CellResult {
    /// Which cell.
    pub(crate) cell: Cell,
    /// What was measured in it.
    pub(crate) samples: Samples<Rate>,
}

/// What loads the system.
#[derive(Debug)]
pub(crate) enum Load {
    /// Leaves payload alone.
    Testpmd(Testpmd),
    /// Touches it.
    Pump(Pump),
}

impl App for Load {
    fn process(&self) -> &Process {
        match self {
            Self::Testpmd(app) => app.process(),
            Self::Pump(app) => app.process(),
        }
    }
}

impl Experiment for Cell {
    type App = Load;
    type Measured = Rate;

    fn label(&self) -> String {
        self.to_string()
    }

    /// A wire that takes and gives frames at no cost. For TX it gives none, lest receiving be measured too.
    fn wire(&self) -> Wire {
        let no_rx = match self.direction {
            Direction::Tx => ",no-rx=1",
            Direction::Rx => "",
        };
        Wire::new(format!("net_null0,size={}{no_rx}", self.frame_len))
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Load> {
        if self.touched {
            return Pump::start_promiscuous(setup, name, self.frame_len, service).map(Load::Pump);
        }
        let (mode, frame_len) = (self.direction.mode(), self.frame_len);
        let role = Role { name, core: setup.app_core, devices: service.app_devices(), mode, frame_len };
        let mut app = Testpmd::start(setup, &role)?;
        app.forward()?;
        Ok(Load::Testpmd(app))
    }

    fn measure(&self, setup: &Setup, method: &Method, pair: &mut Pair<Load>) -> Result<Rate> {
        let Pair { app, service } = pair;
        let app = match app {
            Load::Testpmd(app) => app,
            Load::Pump(pump) => return self.pump(method, pump, service.as_mut()),
        };
        setup.interrupt.sleep(method.warm_up)?;
        // The wire's count is asked for outside of the application's window: asking costs the system time.
        let wire_first = (Instant::now(), service.wire_sent()?);
        let first = app.port_stats(0)?;
        setup.interrupt.sleep(method.window)?;
        let last = app.port_stats(0)?;
        let (elapsed, wire_last) = (wire_first.0.elapsed(), service.wire_sent()?);

        let mpps = self.mpps(&first, &last)?;
        let wire = wire_first.1.zip(wire_last).filter(|_| self.direction == Direction::Tx);
        let delivered = wire.map(|(first, last)| delivered(last.saturating_sub(first), elapsed, mpps));
        Ok(Rate { mpps, delivered })
    }

    fn describe(&self, rate: &Rate) -> String {
        let Rate { mpps, delivered } = rate;
        let share = delivered.map(|share| format!(", {:.1} % reached the wire", share * 100.0));
        format!("{mpps:.2} Mpps{}", share.unwrap_or_default())
    }
}

impl Cell {
    /// Whether a contender of this name has anything to show: one that shares memory does the same as the other one where frames are
    /// short or received.
    pub(crate) fn wants(&self, contender: &str) -> bool {
        contender != Kopi::SHARED.name || (self.direction == Direction::Tx && self.frame_len > SHORT)
    }

    /// Takes a sample with an application that touches payload.
    fn pump(&self, method: &Method, pump: &mut Pump, service: &mut dyn Service) -> Result<Rate> {
        let job = match self.direction {
            Direction::Tx => Job::SendOneWritten,
            Direction::Rx => Job::ReceiveRead,
        };
        let sends = self.direction == Direction::Tx;
        pump.begin(job, method.warm_up)?;
        pump.end(method.warm_up)?;
        // Between windows nothing is sent, so that the wire's count is that of the window.
        let first = if sends { service.wire_sent()? } else { None };
        // What came meanwhile waits in the rings. It is a small part of a window.
        pump.begin(job, method.window)?;
        let window = pump.end(method.window)?;
        let last = if sends { service.wire_sent()? } else { None };
        if window.frames == 0 || window.nanoseconds == 0 {
            return Err(BenchError::Failed("no traffic went through".to_owned()));
        }
        let wire = first.zip(last).map(|(first, last)| last.saturating_sub(first));
        Ok(Rate {
            mpps: approximate(window.frames) / approximate(window.nanoseconds) * 1e3,
            delivered: wire.map(|frames| approximate(frames) / approximate(window.frames)),
        })
    }

    /// The rate that the application saw between two looks.
    ///
    /// # Errors
    ///
    /// When there was no traffic, or frames of another length than asked for: the numbers would mean something else.
    fn mpps(&self, first: &PortStats, last: &PortStats) -> Result<f64> {
        let rate = self.direction.rate(last);
        if rate == 0 {
            return Err(BenchError::Failed("no traffic went through".to_owned()));
        }
        let packets = last.rx_packets.saturating_sub(first.rx_packets);
        let bytes = last.rx_bytes.saturating_sub(first.rx_bytes);
        // net_null counts no bytes. The two counters are read one after the other under traffic, so they differ a bit.
        let asked = packets * u64::from(self.frame_len);
        let odd = bytes != 0 && bytes.abs_diff(asked) > asked / 100;
        if self.direction == Direction::Rx && odd {
            return Err(BenchError::Failed(format!("{packets} frames of {} B came as {bytes} B", self.frame_len)));
        }
        Ok(approximate(rate) / 1e6)
    }
}

/// What reached the wire in `elapsed`, as a share of what an application sent that sends `mpps`.
fn delivered(frames: u64, elapsed: Duration, mpps: f64) -> f64 {
    approximate(frames) / elapsed.as_secs_f64() / (mpps * 1e6)
}

/// A count as a number for arithmetic; exact below 2^53, which no run's count reaches.
pub(crate) fn approximate(count: u64) -> f64 {
    let (high, low) = (u32::try_from(count >> 32), u32::try_from(count & u64::from(u32::MAX)));
    f64::from(high.unwrap_or_default()) * 4_294_967_296.0 + f64::from(low.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate of a cell of 64 bytes that received this much on top of what it had.
    fn mpps(rx_packets: u64, rx_bytes: u64, rx_rate: u64) -> Option<f64> {
        let cell = Cell { direction: Direction::Rx, frame_len: 64, touched: false };
        let first = PortStats { rx_packets: 5, rx_bytes: 9, tx_packets: 0, rx_rate: 0, tx_rate: 0 };
        let last = PortStats { rx_packets: 5 + rx_packets, rx_bytes: 9 + rx_bytes, rx_rate, ..first };
        cell.mpps(&first, &last).ok()
    }

    #[test]
    fn only_traffic_of_the_asked_length_gives_a_rate() {
        assert_eq!(mpps(1000, 64_000, 1_500_000), Some(1.5));
        assert_eq!(mpps(1000, 64_128, 1_500_000), Some(1.5));
        assert_eq!(mpps(1000, 0, 1_500_000), Some(1.5));
        assert_eq!(mpps(1000, 68_000, 1_500_000), None);
        assert_eq!(mpps(0, 0, 0), None);
    }

    #[test]
    fn what_the_wire_sent_is_a_share_of_what_the_application_sent() {
        assert_eq!(delivered(2_000_000, Duration::from_secs(2), 1.0), 1.0);
        assert_eq!(delivered(2_000_000, Duration::from_secs(2), 2.0), 0.5);
    }

    #[test]
    fn counts_keep_their_high_half() {
        assert_eq!(approximate(5), 5.0);
        assert_eq!(approximate(3 << 40), 3.0 * 2.0_f64.powi(40));
    }

    #[test]
    fn a_tx_wire_gives_no_frames() {
        let wire = |direction| Cell { direction, frame_len: 512, touched: false }.wire().device().to_owned();
        assert_eq!(wire(Direction::Tx), "net_null0,size=512,no-rx=1");
        assert_eq!(wire(Direction::Rx), "net_null0,size=512");
    }
}

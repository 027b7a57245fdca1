//! The kernel's shapers, for a look beside: UDP of one socket through `tbf` or `htb` on a veth interface in a namespace of
//! its own.
//!
//! The program that sends runs in the namespace, takes one line with the milliseconds of warm-up and window, and answers
//! with what the interface has sent meanwhile. Frames end at the other end of the pair, which has another address.

use std::fs;
use std::io::{self, BufRead};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::load::PATIENCE;
use super::texts;
use crate::app::{pin, say};
use crate::error::{BenchError, Doing, Result};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::progress;
use crate::rounds::Method;
use crate::setup::Setup;
use crate::throughput::approximate;

/// The subcommand of this program that sends.
pub(crate) const COMMAND: &str = "qos-socket";
/// What it prints before its answer.
const ANSWER: &str = "qos-socket: sent ";
/// The shapers.
pub(super) const SHAPERS: [&str; 2] = ["tbf", "htb"];
/// The interface that sends, the other end of the pair, and who is said to be there (RFC 2544).
const NEAR: &str = "near";
const FAR: &str = "far";
const ADDRESS: &str = "198.18.0.1/30";
const PEER: &str = "198.18.0.2";
/// Headers of Ethernet, IPv4 and UDP.
const HEADERS: u16 = 42;

/// What a shaper let pass.
#[derive(Clone, Debug)]
pub(super) struct Shaped {
    /// Which of [`SHAPERS`].
    pub(super) shaper: &'static str,
    /// Length of the frames in bytes, without the checksum.
    pub(super) length: u16,
    /// Which of [`texts::CEILINGS`].
    pub(super) ceiling: &'static str,
    /// Bits per second of these frames, without overhead, as these shapers count.
    pub(super) bits: f64,
}

/// Takes one window of each shaper, ceiling and length.
///
/// # Errors
///
/// When the system lacks `ip` or `tc`, or the right to make a namespace, and on Ctrl-C.
pub(super) fn measure(setup: &Setup, method: &Method, lengths: &[u16]) -> Result<Vec<Shaped>> {
    let space = Shapers::create()?;
    let mut all = Vec::new();
    for &length in lengths {
        for shaper in SHAPERS {
            for (ceiling, rate) in texts::CEILINGS {
                space.shape(shaper, rate)?;
                let bits = space.send(setup, method, length)?;
                progress(&format!("{shaper} {length} B {ceiling}: {:.3} Mbit/s", bits / 1e6));
                all.push(Shaped { shaper, length, ceiling, bits });
            }
        }
    }
    Ok(all)
}

/// A network namespace with a pair of interfaces in it.
struct Shapers(Namespace);

impl Shapers {
    fn create() -> Result<Self> {
        let space = Namespace::create("tc")?;
        space.run(&["ip", "link", "add", NEAR, "mtu", "2000", "type", "veth", "peer", "name", FAR])?;
        space.run(&["ip", "link", "set", FAR, "mtu", "2000", "up"])?;
        space.run(&["ip", "link", "set", NEAR, "up"])?;
        space.run(&["ip", "address", "add", ADDRESS, "dev", NEAR])?;
        // Nobody answers there, and nobody needs to.
        space.run(&["ip", "neighbour", "add", PEER, "lladdr", "02:00:00:99:99:99", "dev", NEAR])?;
        Ok(Self(space))
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        self.0.run(words).map(drop)
    }

    /// Puts a shaper in the place of the one before, with the same burst as kopid gets.
    fn shape(&self, shaper: &str, rate: u64) -> Result<()> {
        let (burst, rate) = (texts::burst(rate).to_string(), format!("{rate}bit"));
        // The first time there is none, and another kind cannot take its place.
        let _none = self.run(&["tc", "qdisc", "delete", "dev", NEAR, "root"]);
        let root = ["tc", "qdisc", "add", "dev", NEAR, "root", "handle", "1:"];
        if shaper == "tbf" {
            return self.run(&[&root[..], &["tbf", "rate", &rate, "burst", &burst, "latency", "50ms"]].concat());
        }
        self.run(&[&root[..], &["htb", "default", "1"]].concat())?;
        let class = ["tc", "class", "add", "dev", NEAR, "parent", "1:", "classid", "1:1"];
        self.run(&[&class[..], &["htb", "rate", &rate, "burst", &burst, "cburst", &burst]].concat())
    }

    fn send(&self, setup: &Setup, method: &Method, length: u16) -> Result<f64> {
        let core = setup.app_core.to_string();
        let program = setup.program.display().to_string();
        let length = length.to_string();
        let args = self.0.arguments(&[&program, COMMAND, &core, &length]);
        let mut sender = Process::spawn("the sender", "env", args, &[], &setup.interrupt)?;
        let (warm_up, window) = (method.warm_up.as_millis(), method.window.as_millis());
        sender.send_line(&format!("{warm_up} {window}"))?;
        sender.expect(ANSWER, method.warm_up + method.window + PATIENCE)?;
        let line = sender.expect("\n", PATIENCE)?;
        line.trim().parse().map_err(|_| BenchError::Failed(format!("the sender said {line}")))
    }
}

/// Sends frames of `length` bytes on core `core` until the window is over that standard input asks for.
///
/// # Errors
///
/// When there is no such interface, or a line is not understood.
pub(crate) fn run_sender(core: usize, length: u16) -> Result<()> {
    pin(core)?;
    let socket = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect((PEER, 9)).map(|()| socket));
    let socket = socket.doing(|| "make a socket".to_owned())?;
    let payload = vec![0; length.saturating_sub(HEADERS).into()];
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).doing(|| "read a command".to_owned())?;
    let times: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[warm_up, window] = times.as_slice() else {
        return Err(BenchError::Failed(format!("{line:?} is not understood")));
    };
    flood(&socket, &payload, Duration::from_millis(warm_up));
    let (first, begun) = (sent()?, Instant::now());
    flood(&socket, &payload, Duration::from_millis(window));
    let (last, took) = (sent()?, begun.elapsed());
    let bits = approximate(last.saturating_sub(first)) * 8.0 / took.as_secs_f64();
    say(&format!("{ANSWER}{bits}\n"))
}

fn flood(socket: &UdpSocket, payload: &[u8], time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        // A full queue refuses frames, which is what it is for.
        let _refused = socket.send(payload);
    }
}

/// Bytes that the interface has sent, behind its shaper.
fn sent() -> Result<u64> {
    let path = format!("/sys/class/net/{NEAR}/statistics/tx_bytes");
    let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    text.trim().parse().map_err(|_| BenchError::Failed(format!("{path} has {text:?} in it")))
}

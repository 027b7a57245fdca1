//! Options of `capture`, after tcpdump's.

use crate::failure::Failure;
use clap::{ArgAction, Args};
use kopi_api::request::{self, Which};
use std::ffi::OsString;
use std::path::PathBuf;

/// Bytes kept of a frame unless stated otherwise, and the most: what tcpdump and kopid have.
pub(crate) const SNAP: u32 = 262_144;
/// KiB of each worker's ring.
const BUFFER_KIB: std::ops::RangeInclusive<i64> = 64..=262_144;
/// Bytes of an expression that kopid takes.
const EXPRESSION_MAX: usize = 8192;

/// Heading of options that select frames.
const VERDICTS: &str = "Owners and verdicts";

/// Options of `capture`.
#[derive(Args, Debug)]
pub(crate) struct Capture {
    /// Where to look: any (all apps, and what is no app's), wire, or an app by name
    #[arg(short = 'i', long = "interface", value_name = "NAME")]
    pub(crate) interfaces: Vec<String>,
    /// List where -i can look
    #[arg(short = 'D', long)]
    pub(crate) list_interfaces: bool,
    /// Only what was let through
    #[arg(long, conflicts_with = "dropped", help_heading = VERDICTS)]
    pub(crate) passed: bool,
    /// Only what was dropped, for whatever reason
    #[arg(long, help_heading = VERDICTS)]
    pub(crate) dropped: bool,
    #[command(flatten)]
    selectors: request::Capture,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) printing: Printing,
    /// Read the expression from FILE, and not from the command line
    #[arg(short = 'F', value_name = "FILE")]
    pub(crate) filter_file: Option<PathBuf>,
    /// Which frames, in libpcap's language (pcap-filter(7)): words, or one quoted text. As with tcpdump, 'udp port 53' is for frames
    /// without a VLAN tag: write 'vlan and udp port 53' for those with one, 'udp port 53 or (vlan and udp port 53)' for both
    #[arg(value_name = "EXPRESSION")]
    pub(crate) expression: Vec<String>,
}

/// Where frames go to.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(crate) struct Output {
    /// Write pcapng to FILE, or to standard output for -
    #[arg(short = 'w', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Go on with the next file when one has SIZE: millions of bytes, or with a unit (k, M, G, KiB, MB...)
    #[arg(short = 'C', value_name = "SIZE", value_parser = millions, requires = "file")]
    pub(crate) file_size: Option<u64>,
    /// Go on with the next file every SECONDS; FILE may have a time in it, as in strftime(3)
    #[arg(short = 'G', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..), requires = "file")]
    pub(crate) file_seconds: Option<u32>,
    /// Print the packets of FILE, pcapng as -w writes it, or of standard input for -; asks no kopid
    #[arg(short = 'r', value_name = "FILE", conflicts_with_all = ["file", "interfaces", "list_interfaces", "expression", "filter_file"])]
    pub(crate) read: Option<PathBuf>,
    /// Run COMMAND with the name of each file of -C or -G once it is complete, the last one too; kopictl ends when all have ended
    #[arg(short = 'z', value_name = "COMMAND", requires = "file")]
    pub(crate) command: Option<OsString>,
    /// At most COUNT files: with -C begin again with the first, with -G alone end
    #[arg(short = 'W', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), requires = "file")]
    pub(crate) file_count: Option<u32>,
}

/// When to end, and what to keep.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// End after COUNT packets
    #[arg(short = 'c', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after SIZE of pcapng: bytes, or with a unit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) bytes: Option<u64>,
    /// End after SECONDS
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<f64>,
    /// Keep SNAP bytes of a frame; 0 is the default
    #[arg(short = 's', value_name = "SNAP", default_value_t = SNAP, value_parser = snap)]
    pub(crate) snap: u32,
    /// Size of the ring between each worker and the file, in KiB
    #[arg(short = 'B', value_name = "KiB", value_parser = clap::value_parser!(i64).range(BUFFER_KIB))]
    pub(crate) buffer_kib: Option<i64>,
}

/// How packets are printed, without -w.
#[derive(Args, Debug)]
#[command(next_help_heading = "Printing")]
#[expect(clippy::struct_excessive_bools, reason = "these are tcpdump's flags")]
pub(crate) struct Printing {
    /// The Ethernet header, too
    #[arg(short = 'e')]
    pub(crate) link: bool,
    /// More of IP, checksums, and the verdict also if it is accept; with -w, how many packets there are by now
    #[arg(short = 'v', action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Less of TCP
    #[arg(short = 'q')]
    pub(crate) quick: bool,
    /// Bytes in hexadecimal; twice: with the Ethernet header
    #[arg(short = 'x', action = ArgAction::Count)]
    pub(crate) hex: u8,
    /// Bytes in hexadecimal and ASCII; twice: with the Ethernet header
    #[arg(short = 'X', action = ArgAction::Count)]
    pub(crate) hex_ascii: u8,
    /// Bytes in ASCII
    #[arg(short = 'A')]
    pub(crate) ascii: bool,
    /// Time: -t none, -tt seconds since 1970, -ttt since the line before, -tttt with the date, -ttttt since the first line
    #[arg(short = 't', action = ArgAction::Count)]
    pub(crate) time: u8,
    /// The number of each packet before its line
    #[arg(short = '#', long = "number")]
    pub(crate) number: bool,
    /// Changes nothing: addresses and ports are never looked up
    #[arg(short = 'n', action = ArgAction::Count)]
    numeric: u8,
    /// Changes nothing: names are never looked up, with a domain or without
    #[arg(short = 'N')]
    no_domains: bool,
    /// Changes nothing: no card is put into another mode
    #[arg(short = 'p', long = "no-promiscuous-mode")]
    no_promiscuous: bool,
    /// Changes nothing: checksums are looked at with -v alone, and of what an application leaves to its card none is said to be wrong
    #[arg(short = 'K', long = "dont-verify-checksums")]
    no_checksums: bool,
    /// Changes nothing: what the expression is compiled to is the same
    #[arg(short = 'O', long = "no-optimize")]
    no_optimize: bool,
    /// Changes nothing: this runs with the rights of whoever has started it, and has opened its files by then
    #[arg(short = 'Z', long = "relinquish-privileges", value_name = "USER")]
    relinquish: Option<String>,
    /// Changes nothing: sequence numbers are never made relative
    #[arg(short = 'S')]
    absolute: bool,
    /// Changes nothing: lines go out as soon as there is no further packet
    #[arg(short = 'l')]
    line_buffered: bool,
    /// Changes nothing: files are written as packets come
    #[arg(short = 'U')]
    packet_buffered: bool,
}

impl Capture {
    /// The expression, if there is one.
    ///
    /// # Errors
    ///
    /// [`Failure`] if its file cannot be read, or it is longer than kopid takes.
    pub(crate) fn expression(&self) -> Result<Option<String>, Failure> {
        let text = match &self.filter_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::File { path: path.clone(), reason: error.to_string() })?,
            None => self.expression.join(" "),
        };
        if text.len() > EXPRESSION_MAX {
            return Err(Failure::Usage(format!("the expression is longer than {EXPRESSION_MAX} bytes")));
        }
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// Which frames, beside the expression: by owner, direction and what became of them.
    pub(crate) fn selectors(&self) -> request::Capture {
        let which = self.passed.then_some(Which::Passed).or_else(|| self.dropped.then_some(Which::Dropped));
        request::Capture { which, ..self.selectors.clone() }
    }

    /// The request, with this expression.
    pub(crate) fn request(&self, expression: Option<String>) -> request::Capture {
        let Limits { count, bytes, duration, snap, buffer_kib } = self.limits;
        request::Capture {
            filter: expression,
            interfaces: self.interfaces.clone(),
            snap: Some(snap).filter(|snap| *snap != SNAP),
            count,
            bytes,
            seconds: duration,
            buffer: buffer_kib.and_then(|kib| usize::try_from(kib << 10).ok()),
            file_bytes: self.output.file_size,
            ..self.selectors()
        }
    }
}

/// A number of bytes.
fn size(text: &str) -> Result<u64, String> {
    scaled(text, 1)
}

/// The same, with a plain number for millions of bytes.
fn millions(text: &str) -> Result<u64, String> {
    scaled(text, 1_000_000)
}

fn scaled(text: &str, plain: u64) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let scale = match unit {
        "" => plain,
        "b" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        _ => return Err("unknown unit; there are B, k, M, G (1024 each), KiB, MiB, GiB, kB, MB, GB".into()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "not a size".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    seconds.ok_or_else(|| "not a number of seconds".into())
}

fn snap(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Ok(SNAP),
        Ok(snap @ 1..=SNAP) => Ok(snap),
        _ => Err(format!("not a number up to {SNAP}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;
    use serde_json::{Value, json};

    fn parse(line: &str) -> Result<Capture, String> {
        let arguments = Arguments::try_parse_from(["kopictl", "capture"].into_iter().chain(line.split_whitespace()));
        match arguments.map_err(|error| error.to_string())?.command {
            Command::Capture(capture) => Ok(*capture),
            other => Err(format!("{other:?}")),
        }
    }

    fn request(line: &str) -> Value {
        let capture = parse(line).unwrap();
        let expression = capture.expression().unwrap();
        kopi_api::Request::new("capture", &capture.request(expression)).arguments.into()
    }

    /// A line as tcpdump users type it means the same; what is not asked for is not in the request.
    #[test]
    fn lines_of_tcpdump_users_are_understood() {
        assert_eq!(request(""), json!({}));
        assert_eq!(request("-nni any -s0 -lU arp"), json!({ "interfaces": ["any"], "filter": "arp" }));
        assert_eq!(
            request("-i wire -c5 -Qin -s 96 -B 4096 -w - udp port 53"),
            json!({ "interfaces": ["wire"], "count": 5, "direction": "in", "snap": 96, "buffer": 4 << 20,
                    "filter": "udp port 53" })
        );
        assert_eq!(request("-C 1 -w f")["file_bytes"], 1_000_000);
        assert_eq!(request("-C 1k -w f")["file_bytes"], 1024);
        assert_eq!(request("--bytes 10MB --duration 0.5"), json!({ "bytes": 10_000_000, "seconds": 0.5 }));
        assert_eq!(
            parse("-tttt -vv -XX").map(|c| (c.printing.time, c.printing.verbose, c.printing.hex_ascii)),
            Ok((4, 2, 2))
        );
    }

    /// Owner selectors are lists, and passing and dropping exclude each other.
    #[test]
    fn owners_are_lists() {
        let line = "--user bob --user 7 --pid 3 --comm post* --exe /usr/* --cgroup /x --container * --pod * --app a* --group g --rule r --reason \
                    spoofed --dropped --sample 10";
        let expected = json!({ "user": ["bob", "7"], "pid": [3], "comm": ["post*"], "exe": ["/usr/*"], "cgroup": ["/x"], "container": ["*"], "pod": ["*"],
            "app": ["a*"], "group": ["g"], "rule": ["r"], "reason": ["spoofed"], "which": "dropped", "sample": 10 });
        assert_eq!(request(line), expected);
        assert_eq!(request("--passed"), json!({ "which": "passed" }));
        assert!(parse("--passed --dropped").is_err());
    }

    /// What makes no sense is refused before anything is done.
    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "-c 0",
            "-C 5",
            "-G 5",
            "-W 5",
            "-C 0 -w f",
            "-C 5x -w f",
            "-s 262145",
            "-s -1",
            "-B 1",
            "-B 300000",
            "-Q sideways",
            "--sample 0",
            "--pid x",
            "--duration 0",
            "--duration nan",
            "--bytes 0",
            "--bytes 99999999999999999999",
            "-C 99999999999999GiB -w f",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let long = parse(&"x".repeat(EXPRESSION_MAX + 1)).unwrap();
        assert!(matches!(long.expression(), Err(Failure::Usage(_))));
    }
}

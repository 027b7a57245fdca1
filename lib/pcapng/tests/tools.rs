//! What tshark, capinfos and tcpdump find in a stream that was written. `ci/setup.sh` installs them.
#![expect(clippy::tests_outside_test_module, reason = "the whole file is tests, which the lint does not see")]

use kopi_pcapng::{Direction, Interface, MAX_CAPTURED, MAX_TEXT, Note, Packet, Section, Statistics};
use std::io::Write;
use std::process::{Command, Stdio};

const SNAP: u32 = 64;

/// Broadcast, and then bytes of a protocol for experiments, so that no dissector is asked.
const FRAME: [u8; 64] = {
    let mut frame = [7; 64];
    let mut at = 0;
    while at < 12 {
        frame[at] = 0xff;
        at += 1;
    }
    frame[12] = 0x88;
    frame[13] = 0xb5;
    frame
};

const INTERFACES: [Interface<'_>; 3] = [
    Interface {
        name: "wire",
        description: "0000:01:00.0",
        mac: Some([2, 0, 0, 0, 0, 1]),
        filter: Some("tcp port 80 or arp"),
        snap: SNAP,
    },
    Interface {
        name: "größe",
        description: "user bob (1001), pid 4711, /usr/bin/dpdk-testpmd",
        mac: Some([2, 0, 0, 0, 0, 2]),
        filter: None,
        snap: SNAP,
    },
    Interface { name: "web", description: "", mac: None, filter: None, snap: SNAP },
];

/// A packet and how many bytes are kept of it.
type PacketRecord = (Packet<'static>, usize);

fn records() -> Vec<PacketRecord> {
    let packet = |interface, ns, len, direction, queue, drops, comment, kept| {
        let timestamp_ns = 1_700_000_000_000_000_000_u64 + ns;
        (Packet { interface, timestamp_ns, len, direction, queue, drops, comment }, kept)
    };
    let mut note = String::new();
    let (reason, rule) = (Some("policy"), Some("no web\\proxy"));
    Note { app: Some("web"), pid: Some(9), verdict: "drop", reason, rule, ..Note::default() }.write(&mut note);
    let note: &'static str = note.leak();
    vec![
        packet(0, 123_456_789, 1500, Direction::Inbound, Some(3), 0, note, 64),
        packet(2, 123_456_790, 60, Direction::Outbound, None, 1 << 40, "", 60),
        packet(1, 123_456_791, 61, Direction::Outbound, Some(0), 1, "verdict=accept", 61),
        packet(1, 123_456_791, 62, Direction::Inbound, None, 0, "", 62),
        packet(2, 123_456_792, 9000, Direction::Inbound, Some(u32::MAX), u64::MAX, "verdict=reject", 0),
        packet(0, 999_999_999, 0, Direction::Outbound, None, 0, "", 0),
    ]
}

fn header() -> Vec<u8> {
    let mut out = Vec::new();
    kopi_pcapng::section(&mut out, &Section { hardware: "A Fine CPU", os: "Linux 6.1", application: "kopid 0.1.0" });
    for interface in &INTERFACES {
        kopi_pcapng::interface(&mut out, interface);
    }
    out
}

/// A whole file: three interfaces, packets, statistics.
fn file() -> Vec<u8> {
    let mut out = header();
    for (packet, kept) in records() {
        kopi_pcapng::packet(&mut out, &packet, FRAME[..kept].chunks(50));
    }
    for interface in 0..3 {
        let count = u64::from(interface) * 1000;
        kopi_pcapng::statistics(
            &mut out,
            &Statistics {
                interface,
                timestamp_ns: 1_700_000_002_000_000_000,
                start_ns: 1_700_000_000_000_000_000,
                end_ns: 1_700_000_001_000_000_000,
                received: count + 40,
                accepted: count + 30,
                dropped: count + 20,
                delivered: count + 10,
            },
        );
    }
    out
}

/// What `tool` says of a file that it reads from its standard input, to succeed.
fn ask(tool: &str, arguments: &[&str], file: &[u8]) -> String {
    let mut child = Command::new(tool)
        .args(arguments)
        // Nobody's settings, and times as they are.
        .envs([("HOME", "/nonexistent"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")])
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool}: {error}; ci/setup.sh installs it"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // A tool that ends early says why by itself.
        scope.spawn(move || drop(stdin.write_all(file)));
        child.wait_with_output().expect("a child of ours")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {}\n{errors}", output.status);
    // Some complaints are no failures to the tool.
    for complaint in ["damaged", "corrupt", "malformed", "cut short", "truncated", "bogus"] {
        assert!(!errors.contains(complaint), "{tool} {arguments:?}: {errors}");
    }
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The values of `fields` as tshark prints them: a line for each packet, separated by tabs.
fn tshark(fields: &[&str], options: &[&str], file: &[u8]) -> Vec<Vec<String>> {
    let mut arguments = vec!["-n", "-r", "-", "-T", "fields"];
    arguments.extend(options);
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    let columns = |line: &str| line.split('\t').map(String::from).collect();
    ask("tshark", &arguments, file).lines().map(columns).collect()
}

/// tshark finds every packet, with all that was said about it.
#[test]
fn tshark_reads_packets() {
    let fields = [
        "frame.interface_id",
        "frame.interface_name",
        "frame.interface_description",
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.packet_flags_direction",
        "frame.interface_queue",
        "frame.drop_count",
        "frame.comment",
    ];
    let expected: Vec<Vec<String>> = records()
        .iter()
        .map(|(packet, kept)| {
            let interface = INTERFACES[usize::try_from(packet.interface).expect("one of three")];
            vec![
                packet.interface.to_string(),
                interface.name.into(),
                interface.description.into(),
                seconds(packet.timestamp_ns),
                packet.len.to_string(),
                kept.to_string(),
                if packet.direction == Direction::Inbound { "0x00000001" } else { "0x00000002" }.into(),
                packet.queue.map(|queue| queue.to_string()).unwrap_or_default(),
                if packet.drops == 0 { String::new() } else { packet.drops.to_string() },
                packet.comment.into(),
            ]
        })
        .collect();
    assert_eq!(tshark(&fields, &[], &file()), expected);
}

/// `timestamp_ns` as seconds with nine digits.
fn seconds(timestamp_ns: u64) -> String {
    format!("{}.{:09}", timestamp_ns / 1_000_000_000, timestamp_ns % 1_000_000_000)
}

/// tshark's dissector of the format itself finds the texts of the section and the interfaces, and all statistics, and
/// takes offence at nothing.
#[test]
fn tshark_reads_what_is_around_packets() {
    let of = |field: &str| {
        let lines = tshark(&[field], &["-X", "read_format:MIME Files Format"], &file());
        assert_eq!(lines.len(), 1, "the file is the only packet");
        lines[0][0].clone()
    };
    let option = |name: &str| of(&format!("pcapng.options.option.data.{name}"));
    assert_eq!(option("hardware"), "A Fine CPU");
    assert_eq!(option("os"), "Linux 6.1");
    assert_eq!(option("user_application"), "kopid 0.1.0");
    assert_eq!(option("interface.name"), "wire,größe,web");
    assert_eq!(option("mac"), "02:00:00:00:00:01,02:00:00:00:00:02");
    assert_eq!(option("interface.timestamp_resolution.value"), "9,9,9");
    assert_eq!(option("interface.filter.string"), "tcp port 80 or arp");
    assert_eq!(of("pcapng.interface_description.snap_length"), "64,64,64");
    assert_eq!(option("interface.received"), "40,1040,2040");
    assert_eq!(option("interface.accepted_by_filter"), "30,1030,2030");
    assert_eq!(option("interface.dropped"), "20,1020,2020");
    assert_eq!(option("interface.delivered_to_user"), "10,1010,2010");
    assert_eq!(of("pcapng.invalid_option_length"), "");
    assert_eq!(of("_ws.malformed"), "");
}

/// capinfos counts packets and statistics for each interface, and takes the times for nanoseconds.
#[test]
fn capinfos_sums_up() {
    let report = ask("capinfos", &["-M", "-"], &file());
    let values = |key: &str| {
        let value =
            |line: &str| line.trim().strip_prefix(key)?.trim_start().strip_prefix([':', '=']).map(str::to_owned);
        report.lines().filter_map(value).map(|value| value.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values("File type"), ["pcapng"]);
    assert_eq!(values("File timestamp precision"), ["nanoseconds (9)"]);
    assert_eq!(values("Number of packets"), ["6", "2", "2", "2"]);
    assert_eq!(values("First packet time"), ["2023-11-14 22:13:20.123456789"]);
    assert_eq!(values("Last packet time"), ["2023-11-14 22:13:20.999999999"]);
    assert_eq!(values("Capture application"), ["kopid 0.1.0"]);
    assert_eq!(values("Name"), ["wire", "größe", "web"]);
    assert_eq!(values("Filter string"), ["tcp port 80 or arp"]);
    assert_eq!(values("Capture length"), ["64"; 3]);
    assert_eq!(values("Number of stat entries"), ["1"; 3]);
}

/// tcpdump prints every packet, with nanoseconds, and does not mind those of which nothing is kept.
#[test]
fn tcpdump_reads_packets() {
    let printed = ask("tcpdump", &["-r", "-", "-n", "-e", "-q", "-tt", "--time-stamp-precision=nano"], &file());
    // The bytes of frames that it does not know are in lines of their own, which begin with a tab.
    let lines: Vec<_> = printed.lines().filter(|line| !line.starts_with('\t')).collect();
    let seen = records();
    assert_eq!(lines.len(), seen.len(), "{printed}");
    for (line, (packet, kept)) in lines.iter().zip(&seen) {
        if *kept == 0 {
            assert!(line.contains("caplen==0"), "{line}");
        } else {
            let begin = format!("{} ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff", seconds(packet.timestamp_ns));
            assert!(line.starts_with(&begin), "{line}");
            assert!(line.contains(&format!("length {}:", packet.len)), "{line}");
        }
    }
}

/// A capture in which nothing was seen is a file that both open.
#[test]
fn files_without_packets_are_read() {
    assert_eq!(ask("tcpdump", &["-r", "-"], &header()), "");
    assert!(tshark(&["frame.number"], &[], &header()).is_empty());
}

/// The most that is written of a packet is not too much for either reader.
#[test]
fn the_largest_packet_is_read() {
    let snap = u32::try_from(MAX_CAPTURED).expect("a constant");
    let comment = "x".repeat(MAX_TEXT + 1);
    let mut file = Vec::new();
    kopi_pcapng::section(&mut file, &Section::default());
    kopi_pcapng::interface(&mut file, &Interface { name: &comment, description: &comment, snap, ..INTERFACES[0] });
    let mut packet = records()[0].0;
    (packet.len, packet.comment) = (snap, &comment);
    for _ in 0..2 {
        kopi_pcapng::packet(&mut file, &packet, std::iter::repeat_n(&FRAME[..], MAX_CAPTURED / FRAME.len()));
    }
    let fields = ["frame.cap_len", "frame.comment"];
    let expected = [MAX_CAPTURED.to_string(), "x".repeat(MAX_TEXT)];
    assert_eq!(tshark(&fields, &[], &file), [&expected, &expected]);
    let printed = ask("tcpdump", &["-r", "-", "-n", "-e", "-q", "-tt"], &file);
    let lines = printed.lines().filter(|line| line.starts_with("1700000000.") && line.contains("length 262144:"));
    assert_eq!(lines.count(), 2);
}

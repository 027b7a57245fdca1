//! A session selects what tcpdump selects.

use crate::corpus::corpus;
use crate::expressions::EXPRESSIONS;
use kopi_ring::layout::Notes;
use kopi_testkit::capture::{Capture, Session};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Recording, Settings, TempDir, wait_until};
use serde_json::json;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

/// Sessions at a time, beside the one that takes everything.
const BATCH: usize = 14;
/// The least that is to be compared.
const ENOUGH: (usize, usize) = (200, 250);

/// What tcpdump says to each of some expressions over a file.
fn tcpdump(file: &Path, expressions: &[&str]) -> Vec<Output> {
    let run = |expression: &&str| {
        let mut command = Command::new("tcpdump");
        command.arg("-r").arg(file).args(["-w", "-", "--", expression]);
        command.output().unwrap_or_else(|e| panic!("tcpdump: {e}; ci/setup.sh installs it"))
    };
    let half = expressions.len().div_ceil(2);
    let (first, second) = expressions.split_at(half);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| second.iter().map(run).collect::<Vec<_>>());
        let mut outputs: Vec<Output> = first.iter().map(run).collect();
        outputs.extend(others.join().expect("a thread of ours"));
        outputs
    })
}

/// Packets of a file of the older format: whole length, and bytes.
fn packets_of_pcap(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let kept = usize::try_from(word(at + 8)).expect("short");
        packets.push((word(at + 12), bytes[at + 16..at + 16 + kept].to_vec()));
        at += 16 + kept;
    }
    packets
}

/// Packets of one of kopid's files, in the same form.
fn packets_of(file: &Path) -> Vec<(u32, Vec<u8>)> {
    Recording::load(file).packets.into_iter().map(|packet| (packet.len, packet.data)).collect()
}

/// Runs a session for each of `expressions` and one for everything while `play` sends frames, which `port` sees in
/// `direction`. Returns where they differ from tcpdump, how many frames there were, and how many were selected in all.
fn compare(
    dir: &TempDir,
    kopid: &Kopid,
    expressions: &[&str],
    (port, direction): (&str, &str),
    play: impl FnOnce() -> usize,
) -> (Vec<String>, usize, usize) {
    let whole = dir.join("all.pcapng");
    let name = |at: usize| dir.join(&format!("{at}.pcapng"));
    let session = |file: &Path, filter: &str| {
        let arguments = json!({ "interfaces": [port], "direction": direction, "filter": filter });
        Session::start(kopid, &arguments, &File::create(file).expect("the folder can be written"))
    };
    let mut all = session(&whole, "");
    let sessions: Vec<Session> = expressions.iter().enumerate().map(|(at, text)| session(&name(at), text)).collect();
    let sent = play();
    all.await_received(sent as u64);
    let sessions: Vec<Session> = sessions.into_iter().chain([all]).collect();
    sessions.iter().for_each(Session::ask_stop);
    sessions.into_iter().for_each(|session| {
        let end = session.ended();
        assert_eq!((&end["why"], &end["dropped"]), (&json!("stopped"), &json!(0)), "{end}");
    });
    let mut lines = Vec::new();
    let mut selected = 0;
    for ((at, expression), theirs) in expressions.iter().enumerate().zip(tcpdump(&whole, expressions)) {
        assert!(theirs.status.success(), "kopid takes `{expression}`, but tcpdump does not");
        let (ours, theirs) = (packets_of(&name(at)), packets_of_pcap(&theirs.stdout));
        selected += ours.len();
        if ours != theirs {
            let only = |a: &[(u32, Vec<u8>)], b: &[(u32, Vec<u8>)]| {
                a.iter().find(|packet| !b.contains(packet)).map(|(_, data)| frames::to_hex(data))
            };
            let (here, there) = (only(&ours, &theirs), only(&theirs, &ours));
            let counts = (ours.len(), theirs.len());
            lines.push(format!("`{expression}`: {counts:?} of {sent}; only here: {here:?}; only there: {there:?}"));
        }
    }
    (lines, packets_of(&whole).len(), selected)
}

/// Expressions that libpcap takes, and those that it refuses, with what tcpdump says of them.
fn sorted(dir: &TempDir) -> (Vec<&'static str>, Vec<(&'static str, String)>) {
    // A file without packets, whose link type is Ethernet.
    let file = dir.join("empty.pcap");
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1].map(u32::to_le_bytes).concat();
    fs::write(&file, header).expect("the folder can be written");
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (expression, output) in EXPRESSIONS.iter().zip(tcpdump(&file, EXPRESSIONS)) {
        match output.status.success() {
            true => good.push(*expression),
            false => bad.push((*expression, String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }
    (good, bad)
}

/// Compares `good` expressions, batch after batch, over frames that `play` sends each time.
fn compare_all(dir: &TempDir, kopid: &Kopid, good: &[&str], at: (&str, &str), mut play: impl FnMut() -> usize) {
    let (mut lines, mut picks) = (Vec::new(), 0);
    for batch in good.chunks(BATCH) {
        let (different, frames, selected) = compare(dir, kopid, batch, at, &mut play);
        assert!(frames >= ENOUGH.1, "only {frames} frames");
        lines.extend(different);
        picks += selected;
    }
    assert!(lines.is_empty(), "{} of {} differ:\n{}", lines.len(), good.len(), lines.join("\n"));
    assert!(picks > 20 * good.len(), "{} expressions have selected only {picks} frames", good.len());
}

/// Whether a frame comes out of the wire as it went in. Linux puts IPv4 fragments together before DPDK's packet sockets get
/// them (`PACKET_FANOUT_FLAG_DEFRAG`), and drops what ends within a tag.
fn crosses_the_wire(frame: &[u8]) -> bool {
    let tagged = frame[12..14] == [0x81, 0];
    let packet = if tagged { frame.get(16..) } else { frame.get(12..) };
    let Some(packet) = packet.filter(|packet| packet.len() > 2) else { return !tagged };
    let field = packet.get(8..10).filter(|_| packet[..2] == [8, 0]);
    field.is_none_or(|field| (field[0] & 0x3f, field[1]) == (0, 0))
}

/// For hundreds of expressions over frames of every kind, a session on the wire writes the very packets that tcpdump
/// selects from a session that takes everything.
#[test]
fn sessions_on_the_wire_select_what_tcpdump_selects() {
    let dir = TempDir::new("selection");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let peer = Peer::new(&netns);
    let frames: Vec<Vec<u8>> = corpus().into_iter().filter(|frame| crosses_the_wire(frame)).collect();
    let (good, _) = sorted(&dir);
    assert!(good.len() >= ENOUGH.0, "only {} expressions", good.len());
    let mut sent = 0;
    compare_all(&dir, &kopid, &good, ("wire", "in"), || {
        for (n, frame) in frames.iter().enumerate() {
            peer.transmit(frame);
            sent += 1;
            if n % 128 == 127 {
                // The wire's own ring does not hold many more.
                wait_until("kopid has seen them", SOON, || kopid.counter("wire", "rx_packets") == sent);
            }
        }
        frames.len()
    });
    assert!(kopid.stop().success());
}

/// The same for what an app sends, with fragments, and with tags as it has sent them; for expressions that care.
#[test]
fn sessions_on_an_app_select_what_tcpdump_selects() {
    let dir = TempDir::new("selection-app");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let (client, region) = Client::attach(&kopid.socket(), "bob", [2, 0, 0, 0, 0, 0xb], &small());
    let mut producer = region.tx_producer(0).expect("a ring");
    let frames = corpus();
    let (good, _) = sorted(&dir);
    let about = |text: &&str| ["vlan", "port", "ip[6", "ether"].iter().any(|word| text.contains(word));
    let good: Vec<&str> = good.into_iter().filter(about).collect();
    compare_all(&dir, &kopid, &good, ("bob", "out"), || {
        for frame in &frames {
            wait_until("there is room", SOON, || producer.free(1).is_ok_and(|free| free > 0));
            assert!(producer.push(frame, Notes::NONE));
            producer.publish();
        }
        frames.len()
    });
    drop(client);
    assert!(kopid.stop().success());
}

/// Fault 35: what libpcap refuses, kopictl refuses with libpcap's words and exit code 1; what is too long is refused
/// before it is read. The daemon goes on, with nothing left of it.
#[test]
fn fault_35_wrong_expressions_are_refused() {
    let dir = TempDir::new("refused");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    let null = File::options().write(true).open("/dev/null").expect("there is one");
    // What the allocator keeps for threads is there after some of them, and what a long expression takes after one.
    (0..20).for_each(|_| drop(Session::start(&kopid, &json!({}), &null).stop()));
    let arps = vec!["arp"; 1024].join(" or ");
    (0..4).for_each(|_| drop(Session::start(&kopid, &json!({ "filter": arps }), &null).stop()));
    let before = kopid.process().usage();
    let (_, bad) = sorted(&dir);
    assert!(bad.len() >= 15, "{bad:?}");
    let file = dir.join("refused.pcapng");
    let path = file.display().to_string();
    for (expression, theirs) in &bad {
        let output = kopid.kopictl(&["capture", "--duration", "1", "-w", &path, expression]);
        let ours = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "`{expression}`: {ours}");
        // "reading from file …" and such come before, and "tcpdump: " in front of the reason.
        let reason = theirs.lines().find_map(|line| line.strip_prefix("tcpdump: ")).expect("a reason");
        match *expression {
            // What libpcap says of these is about files, and on no device it takes them.
            "inbound" | "outbound" => assert!(ours.contains("only a kernel knows"), "{ours}"),
            _ => assert_eq!(ours.trim_end(), format!("kopictl: {reason}"), "`{expression}`"),
        }
    }
    let long = dir.join("long");
    fs::write(&long, format!("arp{}", " or arp".repeat((1 << 20) / 7))).expect("the folder can be written");
    let output = kopid.kopictl(&["capture", "-w", &path, "-F", &long.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("longer than 8192 bytes"), "{said}");
    // Not by way of kopictl.
    let text = "arp or ".repeat(2000) + "arp";
    let refused = Session::try_start(&kopid, &json!({ "filter": text }), &null).map(drop);
    assert!(refused.as_ref().is_err_and(|why| why.contains("at most 8192 are allowed")), "{refused:?}");

    let mut long = Capture::start(&dir, &kopid, &format!("-w {path} {arps}"));
    assert_eq!(long.stop().captured, 0);
    kopid.process().await_usage(&before);
    assert!(kopid.stop().success());
}

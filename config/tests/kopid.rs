//! `kopid.toml` from the outside: what is accepted, and what every fault says.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use std::fmt::Write as _;

use kopi_config::check::offline;
use kopi_config::{Account, Config, Device, Diagnostic, Errors, HugePages, Idle, Level, Position, Severity};
use proptest::prelude::*;

const MINIMAL: &str = "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n";

fn errors(text: impl AsRef<[u8]>) -> Errors {
    Config::parse(text, "kopid.toml").expect_err("the file has a fault")
}

/// The only error of `text`.
fn error(text: &str) -> Diagnostic {
    let errors = errors(text);
    assert_eq!(errors.count(), 1, "{errors}");
    errors.diagnostics()[0].clone()
}

/// The only error of `text`, checked to stand at `line` and `column` and to say all of `parts`.
fn assert_error(text: &str, (line, column): (usize, usize), parts: &[&str]) {
    let error = error(text);
    assert_eq!(error.position, Some(Position { line, column }), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "no {part:?} in:\n{error}");
    }
}

/// A minimal file with `lines` added to the end of `[section]`, and the line number of the first of them.
fn with(section: &str, lines: &str) -> (String, usize) {
    let header = format!("[{section}]\n");
    let text = match MINIMAL.find(&header) {
        Some(at) => {
            let (before, after) = MINIMAL.split_at(at + header.len());
            // Behind the key that is there already.
            let (key, after) = after.split_once('\n').expect("each section of the minimal file has a key");
            format!("{before}{key}\n{lines}\n{after}")
        }
        None => format!("{MINIMAL}{header}{lines}\n"),
    };
    let line = text.lines().position(|line| Some(line) == lines.lines().next()).expect("the line was added") + 1;
    (text, line)
}

/// A file with the two required keys has the documented defaults.
#[test]
fn defaults_are_as_documented() {
    let config = Config::parse(MINIMAL, "kopid.toml").unwrap();
    assert_eq!(config.wire.device, Device::Virtual("net_null0".to_owned()));
    assert_eq!((config.wire.mtu, config.wire.rx_ring, config.wire.tx_ring), (1500, 1024, 1024));
    assert_eq!(config.dataplane.cores, [0]);
    assert_eq!((config.dataplane.idle, config.dataplane.flows, config.dataplane.mbufs), (Idle::Poll, None, 16384));
    assert_eq!((config.limits.apps, config.limits.queues, config.limits.ring_size), (64, 16, 4096));
    assert_eq!(config.limits.memory.bytes(), 256 << 20);
    assert_eq!(config.memory.huge_pages, HugePages::Auto);
    assert_eq!(config.eal.args, [""; 0]);
    assert_eq!(config.socket.path.display().to_string(), "/run/kopi/kopi.sock");
    assert_eq!(config.control.path.display().to_string(), "/run/kopi/control.sock");
    assert_eq!((config.socket.mode.bits(), config.control.mode.bits()), (0o660, 0o600));
    assert_eq!((config.socket.owner, config.socket.group), (None, None));
    assert_eq!(config.log.level, Level::Info);
    assert_eq!(config.warnings, []);
}

/// The shipped examples are right, and an administrator who takes a comment's `# key = value` away gets a right file too.
#[test]
fn examples_are_right() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("policy") {
            continue;
        }
        let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.warnings, []);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#:schema ../schema/kopid.schema.json\n"), "{path:?} names no schema");
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ").filter(|line| line.contains(" = ")) {
                Some(line) => format!("{line}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        Config::parse(uncommented, "uncommented").unwrap_or_else(|errors| panic!("{errors}"));
        seen += 1;
    }
    assert!(seen >= 2);
}

/// One run reports every fault of a file, in the order of the file.
#[test]
fn all_faults_are_reported_at_once() {
    let text = "[wire]\nmtu = \"1500\"\n[dataplane]\ncoers = [2]\nidle = \"asleep\"\n[log]\nlevel = 3\n";
    let errors = errors(text);
    let keys: Vec<_> = errors.diagnostics().iter().map(|error| error.key.as_deref().unwrap()).collect();
    let expected = ["wire.device", "wire.mtu", "dataplane.cores", "dataplane.coers", "dataplane.idle", "log.level"];
    assert_eq!(keys, expected, "{errors}");
    assert_eq!(errors.count(), keys.len());
}

/// Fault 31, unknown key: the message as the administrator sees it.
#[test]
fn unknown_key_is_shown_with_its_line_and_the_right_name() {
    let text = "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [2]\nflwos = 1024\n";
    let expected = "error: unknown key `flwos` in [dataplane]
  --> kopid.toml:5:1
   |
 5 | flwos = 1024
   | ^^^^^
   = help: did you mean `flows`?";
    assert_eq!(errors(text).to_string(), expected);
}

/// Fault 31, unknown names elsewhere: at the top, tables, nested ones, and such as belong somewhere else.
#[test]
fn unknown_names_are_errors() {
    for (text, at, help) in [
        (format!("mtu = 1500\n{MINIMAL}"), (1, 1), "it belongs into [wire]"),
        (format!("[wires]\n{MINIMAL}"), (1, 2), "did you mean `wire`?"),
        (format!("speed = 1\n{MINIMAL}"), (1, 1), "known are [control], [dataplane], [eal]"),
        (format!("{MINIMAL}[[rule]]\n"), (5, 3), "known are [control], [dataplane], [eal]"),
        (format!("{MINIMAL}[log.file]\n"), (5, 6), "known are `level`"),
        (format!("{MINIMAL}log.levle = \"info\"\n"), (5, 1), "known are `cores`"),
        (format!("{MINIMAL}\"\\u001b[31m\" = 1\n"), (5, 1), "`\u{fffd}[31m`"),
    ] {
        assert_error(&text, at, &["unknown", help]);
    }
}

/// The kernel's port is there if it has a name that the kernel takes.
#[test]
fn host_port_has_a_name_or_is_not_there() {
    let host = |text: &str| Config::parse(format!("{MINIMAL}{text}"), "f").unwrap().host;
    assert_eq!((host(""), host("[host]\n"), host("[host]\nqueues = 2\n")), (None, None, None));
    let found = host("[host]\ntap = \"kopi0\"\n").unwrap();
    assert_eq!((found.tap.as_str(), found.queues, found.offload), ("kopi0", 1, true));
    assert!(found.macs.is_empty());
    let found = host("[host]\ntap = \"k\"\nmacs = [\"00:00:5e:00:01:07\", \"02:00:00:00:00:0a\"]\n").unwrap();
    assert_eq!(
        found.macs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["00:00:5e:00:01:07", "02:00:00:00:00:0a"]
    );
    assert_error(&format!("{MINIMAL}[host]\nmacs = [\"01:00:5e:00:00:01\"]\n"), (6, 9), &["group of stations"]);
    let found = host("[host]\ntap = \"a.b_c-0\"\nqueues = 16\noffload = false\n").unwrap();
    assert_eq!((found.tap.as_str(), found.queues, found.offload), ("a.b_c-0", 16, false));
    for bad in ["", ".", "..", "a/b", "a b", "sixteen-letters-", "%d"] {
        assert_error(&format!("{MINIMAL}[host]\ntap = \"{bad}\"\n"), (6, 7), &["`tap` in [host]", "name"]);
    }
    assert_error(&format!("{MINIMAL}[host]\nqueues = 17\n"), (6, 10), &["from 1 to 16"]);
}

/// What is required and absent is reported where it should be.
#[test]
fn missing_keys_are_errors() {
    assert_error(
        "[wire]\n[dataplane]\ncores = [0]\n",
        (1, 1),
        &["`device` is missing in [wire]", "PCI address", "or a virtual device ("],
    );
    assert_error("[wire]\ndevice = \"net_null0\"\n", (3, 1), &["`cores` is missing: there is no [dataplane]"]);
    assert_eq!(errors("").count(), 2);
}

/// Fault 31, wrong type, and values out of their limits: what was found, and what would be right.
#[test]
fn wrong_values_say_what_would_be_right() {
    for (section, line, column, parts) in [
        (
            "wire",
            "mtu = \"1500\"",
            7,
            ["a whole number from 68 to 9000, found the string `\"1500\"`", "without quotes: 1500"],
        ),
        ("wire", "mtu = 67", 7, ["found the whole number `67`", "the least is 68"]),
        ("wire", "mtu = 0x10000", 7, ["found the whole number `0x10000`", "the most is 9000"]),
        ("wire", "mtu = -1500", 7, ["from 68 to 9000", "found the whole number `-1500`"]),
        ("wire", "mtu = 1e3", 7, ["whole number", "found the fraction `1e3`"]),
        ("wire", "mtu = 99999999999999999999999999", 7, ["from 68 to 9000", "found the whole number `9999"]),
        ("wire", "mtu = true", 7, ["found the truth value `true`", ""]),
        ("wire", "mtu = 2026-01-01", 7, ["found a date or time", ""]),
        ("wire", "rx_ring = 1000", 11, ["a power of two from 64 to 16384", "the nearest are 512 and 1024"]),
        ("wire", "tx_ring = 32768", 11, ["a power of two from 64 to 16384", "the most is 16384"]),
        ("dataplane", "flows = 0", 9, ["a power of two from 1024 to 16777216", "the least is 1024"]),
        ("dataplane", "mbufs = 4095", 9, ["from 4096 to 1048576", "the least is 4096"]),
        ("dataplane", "idle = \"pol\"", 8, ["must be \"poll\" or \"adaptive\", found", "did you mean \"poll\"?"]),
        ("limits", "apps = 1025", 8, ["from 1 to 1024", "the most is 1024"]),
        ("limits", "queues = 0", 10, ["from 1 to 16", "the least is 1"]),
        ("limits", "ring_size = 16384", 13, ["a power of two from 64 to 8192", "the most is 8192"]),
        ("limits", "memory = \"256mib\"", 10, ["a size from \"1mb\" to \"64gb\"", "the units are b, kb, mb and gb"]),
        ("limits", "memory = \"1kb\"", 10, ["a size from \"1mb\" to \"64gb\"", "found the string `\"1kb\"`"]),
        ("limits", "memory = [1]", 10, ["a size from \"1mb\" to \"64gb\"", "found a list"]),
        ("memory", "huge_pages = true", 14, ["\"auto\", \"off\" or \"require\"", "found the truth value"]),
        ("eal", "args = \"--in-memory\"", 8, ["a list of 0 to 64 elements", "put it into brackets"]),
        ("eal", "args = [\"-v\", 7]", 15, ["`args[1]` in [eal] must be a string", "found the whole number `7`"]),
        ("eal", "args = [\"--lcores=\\u0007\"]", 9, ["must not be `--lcores=\u{fffd}`", ""]),
        ("eal", "args = [\"-l\", \"1\"]", 9, ["must not be `-l`", "`cores` in [dataplane] chooses the CPUs"]),
        ("socket", "path = \"kopi.sock\"", 8, ["an absolute path of at most 107 bytes", "must begin with /"]),
        ("socket", "path = \"/run/kopi/\"", 8, ["an absolute path", "must end in a file's name"]),
        ("socket", "owner = \"a b\"", 9, ["a name or a number", "found the string `\"a b\"`"]),
        ("socket", "group = 4294967295", 9, ["a name or a number up to 4294967294", "found the whole number"]),
        ("control", "mode = 660", 8, ["permission bits in octal", "write it as a string: \"0660\""]),
        ("control", "mode = 0o660", 8, ["permission bits in octal", "write it as a string: \"0660\""]),
        ("control", "mode = \"0668\"", 8, ["permission bits in octal", "found the string `\"0668\"`"]),
        ("control", "mode = \"04755\"", 8, ["permission bits in octal", "found the string"]),
        (
            "log",
            "level = \"Warning\"",
            9,
            ["\"error\", \"warn\", \"info\", \"debug\" or \"trace\"", "found the string"],
        ),
    ] {
        let (text, at) = with(section, line);
        assert_error(&text, (at, column), &parts);
    }
}

/// The two required keys, wrong in every way.
#[test]
fn required_keys_are_judged_too() {
    let dataplane = "[dataplane]\ncores = [0]\n";
    for (device, help) in [
        ("\"eth1\"", "net_af_packet0,iface=eth1"),
        ("\"\"", "a PCI address"),
        ("7", "a virtual device"),
        ("\"net_null0, size=64\"", "must not contain blanks"),
        ("\"net_null0\\u0000\"", "must not contain blanks or control"),
    ] {
        assert_error(&format!("[wire]\ndevice = {device}\n{dataplane}"), (2, 10), &[help]);
    }
    let wire = "[wire]\ndevice = \"net_null0\"\n[dataplane]\n";
    for (cores, column, help) in [
        ("2", 9, "put it into brackets"),
        ("[]", 9, "found 0 elements"),
        ("[2, 2]", 13, "names CPU 2 a second time"),
        ("[2, \"3\"]", 13, "write it without quotes: 3"),
        ("[1024]", 10, "the most is 1023"),
        ("[-1]", 10, "from 0 to 1023"),
    ] {
        assert_error(&format!("{wire}cores = {cores}\n"), (4, column), &[help]);
    }
    let many: Vec<u16> = (0..65).collect();
    assert_error(&format!("{wire}cores = {many:?}\n"), (4, 9), &["1 to 64 elements", "found 65 elements"]);
    let most: Vec<u16> = (0..64).collect();
    assert!(Config::parse(format!("{wire}cores = {most:?}\n"), "f").is_ok());
}

/// A socket's path may fill its address, and not pass it.
#[test]
fn socket_path_is_limited_to_its_address() {
    let (text, _) = with("socket", &format!("path = \"/{}\"", "p".repeat(106)));
    assert_eq!(Config::parse(text, "f").unwrap().socket.path.as_path().as_os_str().len(), 107);
    let (text, line) = with("socket", &format!("path = \"/{}\"", "p".repeat(107)));
    assert_error(&text, (line, 8), &["an absolute path of at most 107 bytes", "and this has 108"]);
}

/// What is right alone and wrong together.
#[test]
fn keys_are_checked_against_each_other() {
    let (text, _) = with("wire", "rx_ring = 8192\ntx_ring = 8192");
    assert_error(
        &text,
        (5, 1),
        &["`mbufs` in [dataplane] must be at least rx_ring + tx_ring + 512 = 16896, found 16384"],
    );
    let (text, line) = with("control", "path = \"/run/kopi/kopi.sock\"");
    assert_error(&text, (line, 8), &["`path` in [control] is the same as in [socket]"]);
}

/// A control socket for everybody is allowed, with a warning; one error more makes it part of the errors.
#[test]
fn world_writable_control_is_a_warning() {
    let (text, line) = with("control", "mode = \"0666\"");
    let config = Config::parse(&text, "kopid.toml").unwrap();
    assert_eq!(config.control.mode.bits(), 0o666);
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert_eq!((warning.severity, warning.position), (Severity::Warning, Some(Position { line, column: 8 })));
    assert!(warning.to_string().starts_with("warning: `mode` 0666 in [control] lets every user"), "{warning}");
    let errors = errors(format!("{text}[x]\n"));
    assert_eq!((errors.count(), errors.diagnostics().len()), (1, 2), "{errors}");
}

/// The policy's file may be named at the top, and nowhere else.
#[test]
fn policy_is_a_file_beside_this_one() {
    assert_eq!(Config::parse(MINIMAL, "f").unwrap().policy, None);
    let config = Config::parse(format!("policy = \"policy.toml\"\n{MINIMAL}"), "/etc/kopi/kopid.toml").unwrap();
    assert_eq!(config.policy, Some("policy.toml".into()));
    assert_error(&format!("policy = 7\n{MINIMAL}"), (1, 10), &["`policy` at the top of the file must be the path"]);
    assert_error(&format!("policy = \"a/\"\n{MINIMAL}"), (1, 10), &["must end in a file's name"]);
    assert_error(&format!("policy = \"\"\n{MINIMAL}"), (1, 10), &["of 1 to 4095 bytes"]);
    let (text, line) = with("wire", "policy = \"p\"");
    assert_error(&text, (line, 1), &["unknown key `policy` in [wire]"]);
}

/// Accounts by name and by number; a name of digits is a number.
#[test]
fn accounts_are_names_or_numbers() {
    let (text, _) = with("socket", "owner = \"1000\"\ngroup = \"kopi\"");
    let socket = Config::parse(text, "f").unwrap().socket;
    assert_eq!((socket.owner, socket.group), (Some(Account::Id(1000)), Some(Account::Name("kopi".to_owned()))));
    let (text, _) = with("control", "owner = 0");
    assert_eq!(Config::parse(text, "f").unwrap().control.owner, Some(Account::Id(0)));
}

/// A CPU that is not online is reported where it stands in the file, each one.
#[test]
fn offline_cores_are_reported_at_their_place() {
    let text = "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [1, 7,\n  9]\n";
    let config = Config::parse(text, "kopid.toml").unwrap();
    assert_eq!(offline(&config, &[0, 1, 7, 9].into()), []);
    let errors = Errors::from(offline(&config, &[0, 1, 2, 4].into()));
    let places: Vec<_> = errors.diagnostics().iter().map(|error| error.position.unwrap()).collect();
    assert_eq!(errors.diagnostics()[0].key.as_deref(), Some("dataplane.cores"));
    assert_eq!(places, [Position { line: 4, column: 13 }, Position { line: 5, column: 3 }]);
    assert!(errors.to_string().contains("CPU 7 of `cores` in [dataplane] is not online"), "{errors}");
    assert!(errors.to_string().contains("help: online are 0-2,4"), "{errors}");
}

/// Fault 31, duplicate key and duplicate table.
#[test]
fn duplicates_are_errors() {
    assert_error(&format!("{MINIMAL}cores = [1]\n"), (5, 1), &["`cores` is set twice", "only once"]);
    assert_error(&format!("{MINIMAL}[wire]\n"), (5, 2), &["`wire` is set twice"]);
    assert_error(
        &format!("{MINIMAL}[[log]]\n"),
        (5, 1),
        &["`log` must be a table, found a list", "write it once, as [log]"],
    );
    assert_error(
        &format!("wire = 3\n{}", &MINIMAL[MINIMAL.find("[data").unwrap()..]),
        (1, 8),
        &["`wire` must be a table"],
    );
}

/// Tables may be written in every way that TOML has.
#[test]
fn tables_may_be_inline_or_dotted() {
    let text = "wire = { device = \"net_null0\", mtu = 9000 }\ndataplane.cores = [0]\n";
    assert_eq!(Config::parse(text, "f").unwrap().wire.mtu, 9000);
    assert_error("wire = { mtu = 9000 }\ndataplane.cores = [0]\n", (1, 8), &["`device` is missing in [wire]"]);
}

/// Fault 31, errors of syntax: one for each line, and no complaint about what they swallowed.
#[test]
fn syntax_errors_are_reported_once_per_line() {
    let text = "[wire]\ndevice = net_null0\nmtu =\n[dataplane]\ncores = [0] x\nidle \"poll\"\n";
    let errors = errors(text);
    let lines: Vec<_> = errors.diagnostics().iter().map(|error| error.position.unwrap().line).collect();
    assert_eq!(lines, [2, 3, 5, 6], "{errors}");
    let shown = errors.to_string();
    assert!(shown.contains("`net_null0` is not a value\n  --> kopid.toml:2:10"), "{shown}");
    assert!(shown.contains("a string needs quotes"), "{shown}");
    assert!(shown.contains("a value is missing after `=`\n  --> kopid.toml:3:6"), "{shown}");
}

/// Fault 31, truncated file: every prefix of an example is a right file or has an error with a place.
#[test]
fn truncated_files_are_judged() {
    let text = include_str!("../examples/kopid.toml");
    for end in 0..text.len() {
        if let Err(errors) = Config::parse(&text[..end], "kopid.toml") {
            assert!(errors.diagnostics().iter().all(|error| error.position.is_some()), "{end}: {errors}");
        }
    }
}

/// Fault 31, a byte order mark and `\r\n`: both work, and columns do not count them.
#[test]
fn byte_order_mark_and_crlf_are_accepted() {
    let dos = MINIMAL.replace('\n', "\r\n");
    assert!(Config::parse(format!("\u{feff}{dos}"), "f").is_ok());
    assert_error(&format!("\u{feff}x = 1\r\n{dos}"), (1, 1), &["unknown key `x`", "1 | x = 1\n   | ^\n"]);
    assert_error(&format!("{dos}idle = 7\r\n"), (5, 8), &["5 | idle = 7\n   |        ^"]);
    assert_error(&format!("{dos}idle = \r\n"), (5, 8), &["a value is missing"]);
    assert_error(&MINIMAL.replace('\n', "\r"), (1, 8), &["carriage return"]);
}

/// Fault 31, NUL and other control characters, wherever they stand.
#[test]
fn control_characters_are_named() {
    for (line, column) in [("idle\0 = 1", 5), ("# \0", 3), ("idle = \"\0\"", 9), ("idle = 1\0", 9), ("\0", 1)] {
        assert_error(&format!("{MINIMAL}{line}\n"), (5, column), &["control character U+0000 (NUL)"]);
    }
    assert_error(&format!("{MINIMAL}# \u{1b}[31m\n"), (5, 3), &["control character U+001B", "# \u{fffd}[31m"]);
}

/// Fault 31, not UTF-8: line and column of the bad byte.
#[test]
fn other_encodings_are_refused_with_the_place() {
    let mut text = MINIMAL.as_bytes().to_vec();
    text.extend(b"# caf\xe9 au lait\n");
    let errors = errors(text);
    assert_eq!(errors.diagnostics()[0].position, Some(Position { line: 5, column: 6 }), "{errors}");
    assert!(errors.to_string().contains("byte 0xe9 is not UTF-8"), "{errors}");
}

/// Fault 31, deep nesting of every kind, 200,000 levels: refused, on an ordinary test thread's stack.
#[test]
fn deep_nesting_is_refused() {
    const DEEP: usize = 200_000;
    for text in [
        format!("a = {}", "[".repeat(DEEP)),
        format!("a = {}{}", "[".repeat(DEEP), "]".repeat(DEEP)),
        format!("a = {}", "{a=".repeat(DEEP)),
        format!("{}a = 1", "a.".repeat(DEEP)),
        format!("[{}a]", "a.".repeat(DEEP)),
        format!("[[{}a]]", "a.".repeat(DEEP)),
        format!("a = {{{}a = 1}}", "a.".repeat(DEEP)),
    ] {
        let errors = errors(&text);
        assert!(errors.to_string().contains("recurs"), "{errors}");
        assert!(errors.to_string().len() < 50_000);
    }
}

/// Fault 31, a large file of garbage: the list of errors stays short, and says how many it leaves out.
#[test]
fn many_errors_are_counted_not_shown() {
    let mut text = MINIMAL.to_owned();
    for key in 0..20_000 {
        writeln!(text, "key_{key} = 1").unwrap();
    }
    let errors = errors(&text);
    assert_eq!((errors.diagnostics().len(), errors.count()), (50, 20_000));
    assert_eq!(errors.diagnostics()[49].position, Some(Position { line: 54, column: 1 }));
    assert!(errors.to_string().ends_with("error: 19950 more errors are not shown"));
    let garbage = "=\n".repeat(1 << 21);
    assert_eq!(self::errors(&garbage).diagnostics().len(), 1);
    assert!(self::errors(&garbage[..100_000]).to_string().len() < 20_000);
}

/// Any value within the limits, written as a file.
fn any_file() -> impl Strategy<Value = (String, [u64; 9], Vec<u16>)> {
    let power = |low: u32, high: u32| (low..=high).prop_map(|bit| 1_u64 << bit);
    let numbers = (
        68_u64..=9000,
        power(6, 12),
        power(6, 12),
        power(10, 24),
        16_384_u64..=1 << 20,
        1_u64..=1024,
        1_u64..=16,
        power(6, 13),
        1_u64 << 20..=64 << 30,
    );
    let cores = proptest::collection::btree_set(0_u16..1024, 1..=64).prop_map(Vec::from_iter).prop_shuffle();
    (numbers, cores, any::<bool>()).prop_map(|((mtu, rx, tx, flows, mbufs, apps, queues, ring, memory), cores, dos)| {
        let text = format!(
            "[limits]\napps = {apps}\nqueues = {queues}\nring_size = 0x{ring:x}\nmemory = \"{}\"\n\
             [wire]\ndevice = \"net_null0\"\nmtu = {mtu}\nrx_ring = {rx}\ntx_ring = {tx}\n\
             [dataplane]\ncores = {cores:?}\nflows = {flows}\nmbufs = {mbufs}\n",
            kopi_config::Size::new(memory)
        );
        let text = if dos { text.replace('\n', "\r\n") } else { text };
        (text, [mtu, rx, tx, flows, mbufs, apps, queues, ring, memory], cores)
    })
}

proptest! {
    // A failure prints its input; it becomes a test of its own, not a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every value within its limits is read as what was written.
    #[test]
    fn right_values_are_read_back((text, numbers, cores) in any_file()) {
        let config = Config::parse(&text, "f").map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        let (wire, dataplane, limits) = (config.wire, config.dataplane, config.limits);
        let read = [
            wire.mtu.into(), wire.rx_ring.into(), wire.tx_ring.into(), dataplane.flows.unwrap_or(0).into(), dataplane.mbufs.into(),
            limits.apps.into(), limits.queues.into(), limits.ring_size.into(), limits.memory.bytes(),
        ];
        prop_assert_eq!(read, numbers);
        prop_assert_eq!(dataplane.cores, cores);
    }

    /// No bytes make the parser panic, and what is refused can be shown.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(errors) = Config::parse(&bytes, "f") {
            prop_assert!(errors.count() > 0 && !errors.to_string().is_empty());
        }
    }

    /// Nor does text made of the pieces of such files, put together anyhow.
    #[test]
    fn any_pieces_are_judged(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        judge(&pieces.concat())?;
    }

    /// Nor an example with a part cut out, doubled, or moved.
    #[test]
    fn any_mutation_is_judged(cuts in proptest::collection::vec(0..EXAMPLE.len(), 4)) {
        let part = |from: usize, to: usize| EXAMPLE.get(from.min(to)..to.max(from)).unwrap_or_default();
        judge(&format!("{}{}{}", part(0, cuts[0]), part(cuts[1], cuts[2]), part(cuts[3], EXAMPLE.len())))?;
    }
}

const EXAMPLE: &str = include_str!("../examples/kopid.toml");

const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "\"\"\"",
    "#",
    "\n",
    "\r\n",
    "\r",
    "\0",
    "\\",
    "ä",
    "\u{202e}",
    "wire",
    "device",
    "dataplane",
    "cores",
    "mtu",
    "limits",
    "memory",
    "socket",
    "path",
    "mode",
    "policy",
    "host",
    "log",
    "[wire]\n",
    "[dataplane]\n",
    "[limits]\n",
    "[eal]\n",
    "args=[\"-l\"]\n",
    "\"net_null0\"",
    "\"256mb\"",
    "1500",
    "-1",
    "0x10",
    "1_0",
    "1.5",
    "true",
    "1979-05-27",
    "inf",
    "device=\"net_null0\"\n",
    "cores=[0]\n",
    "cores=[0,0]\n",
    " ",
];

/// Parses `text`; every error must have a place inside it, and be shown.
fn judge(text: &str) -> Result<(), TestCaseError> {
    let Err(errors) = Config::parse(text, "f") else { return Ok(()) };
    let lines = text.split('\n').count();
    for error in errors.diagnostics() {
        let place = error.position.ok_or_else(|| TestCaseError::fail(format!("no place: {error}")))?;
        prop_assert!((1..=lines).contains(&place.line), "{}", error);
        prop_assert!(place.column >= 1 && place.column <= text.len() + 1, "{}", error);
        prop_assert!(!error.to_string().contains(['\0', '\r', '\u{202e}']), "{}", error);
    }
    Ok(())
}

//! Debian's tools for files of packets.

use std::path::Path;
use std::process::Command;

/// What a tool says of a file, to succeed and without a complaint.
fn ask(tool: &str, args: &[&str]) -> String {
    // Nobody's settings.
    let output = Command::new(tool).args(args).env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|e| panic!("{tool}: {e}; ci/setup.sh installs it"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {}: {complaints}", output.status);
    for word in ["damaged", "corrupt", "malformed", "cut short", "truncated"] {
        assert!(!complaints.contains(word), "{tool} {args:?}: {complaints}");
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn name(file: &Path) -> &str {
    file.to_str().expect("tests have plain names")
}

/// Fields of each packet as tshark sees them.
pub(crate) fn tshark(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut args = vec!["-n", "-r", name(file), "-T", "fields"];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    ask("tshark", &args).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// How many packets each of the tools finds in a file.
pub(crate) fn counts(file: &Path) -> [usize; 3] {
    let tcpdump = ask("tcpdump", &["-n", "-q", "-t", "-r", name(file)]);
    let capinfos = ask("capinfos", &["-M", "-c", "-T", "-r", name(file)]);
    let capinfos = capinfos.split_whitespace().last().and_then(|word| word.parse().ok());
    // Bytes of what it does not know are in lines of their own, which begin with a tab.
    let lines = tcpdump.lines().filter(|line| !line.starts_with(['\t', ' ']));
    [tshark(file, &["frame.number"]).len(), lines.count(), capinfos.expect("a number")]
}

/// The statistics of a file's interfaces, as the dissector of the format in tshark finds them: received, accepted,
/// dropped, delivered.
pub(crate) fn statistics(file: &Path) -> [Vec<u64>; 4] {
    let fields = ["received", "accepted_by_filter", "dropped", "delivered_to_user"];
    let fields = fields.map(|field| format!("pcapng.options.option.data.interface.{field}"));
    let mut args = vec!["-n", "-X", "read_format:MIME Files Format", "-r", name(file), "-T", "fields"];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    let text = ask("tshark", &args);
    let number = |number: &str| number.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    let lists: Vec<Vec<u64>> = text.trim().split('\t').map(|list| list.split(',').map(number).collect()).collect();
    lists.try_into().unwrap_or_else(|_| panic!("not four fields: {text}"))
}

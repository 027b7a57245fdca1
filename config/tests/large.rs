//! Policies as large as they may be: read in seconds, in bounded memory (fault 31).
//!
//! One process for all of them, one after the other, so that the memory is that of the largest.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use std::fmt::Write as _;
use std::time::Instant;

use kopi_config::policy::{MAX_RULES, Policy, SIZE_MAX};

/// The most memory that this process ever had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// `count` rules of one form, that differ in address and port.
fn rules(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
        let port = number % 60_000;
        writeln!(
            text,
            "[[rule]]\nmatch = {{ proto = \"tcp\", dst = \"10.{a}.{b}.{c}\", dst_port = {port} }}\naction = \"accept\""
        )
        .unwrap();
    }
    text
}

/// Pads `text` with comments to `size` bytes.
fn padded(mut text: String, size: usize) -> String {
    while text.len() + 100 < size {
        text.push_str(
            "# a comment of a hundred bytes: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
        );
    }
    text
}

/// As many tables, values and words as a file may have.
fn everything() -> String {
    let values = "1,".repeat(1_999_000 - 2 * 590_000);
    format!("x = [{}]\ny = [{values}]\n{}", "{a=1},".repeat(590_000), "\n".repeat(2_000_000))
}

/// Measured with the settings of the development profile: at most four seconds and 1,300 MiB, the texts themselves among it.
#[test]
fn large_policies_take_seconds_and_bounded_memory() {
    let set: Vec<_> = (0..400_000_u32).map(|n| format!("\"10.{}.{}.{}\"", n >> 16, n >> 8 & 255, n & 255)).collect();
    let uses = "[[rule]]\nmatch = { src = \"@s\", not = { dst = \"@s\" } }\naction = \"drop\"\n".repeat(10_000);
    let names: Vec<_> = (0..1_000_000).map(|n| format!("\"user-{n}\"")).collect();
    let size = usize::try_from(SIZE_MAX).unwrap();
    let cases = [
        ("rules", rules(MAX_RULES), 0),
        ("rules in 16 MB", padded(rules(MAX_RULES), size), 0),
        ("one rule too many", rules(MAX_RULES + 50_000), 1),
        ("a set", format!("[[set]]\nname = \"s\"\naddresses = [{}]\n{uses}", set.join(",")), 0),
        ("errors", "[[rule]]\nx = 1\naction = \"acept\"\n".repeat(300_000), 3),
        ("no names", "[[app]]\n".repeat(250_000), 250_000),
        ("a list", format!("[[set]]\nname = \"s\"\nports = [{}]\n", "1,".repeat(1_999_000)), 0),
        ("a list too long", format!("[[set]]\nname = \"s\"\nports = [{}]\n", "1,".repeat(7_000_000)), 1),
        ("many tables", format!("x = [{}]\n", "{a=1},".repeat(590_000)), 1),
        ("too many tables", format!("x = [{}]\n", "{a=1},".repeat(2_700_000)), 1),
        ("garbage", "= ] \"".repeat(3_000_000), 1),
        ("one line", format!("[[rule]]\nname = \"{}\"\naction = \"x\"\n", "y".repeat(15_000_000)), 2),
        ("empty lines", "\n".repeat(7_990_000), 0),
        ("too many empty lines", "\n".repeat(size), 1),
        ("control characters", "\0".repeat(size), 1),
        ("control characters on lines", "\0\n".repeat(size / 2), 1),
        ("everything at once", everything(), 1),
        ("names on one line", format!("[[rule]]\nowner = {{ user = [{}] }}\naction = \"drop\"\n", names.join(",")), 0),
        ("brackets", "[".repeat(size), 1),
        ("tables deep", "a.".repeat(8_000_000), 1),
    ];
    for (what, text, errors) in cases {
        let start = Instant::now();
        let found = Policy::parse(&text, "f").err().map_or(0, |errors| errors.count());
        let (taken, peak) = (start.elapsed(), peak());
        assert!(taken.as_secs() < 20, "{what}: {taken:?}");
        assert!(peak < 1500, "{what}: {peak} MiB");
        assert!(found >= errors && (errors > 0 || found == 0), "{what}: {found} errors");
    }
}

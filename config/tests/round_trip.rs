//! What is displayed reads back as the same; and no text makes the reader panic.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use kopi_config::policy::{Policy, Rule};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn rule(matches: &str, owner: &str) -> Option<Rule> {
    let text = format!("{SETS}[[rule]]\nmatch = {matches}\nowner = {owner}\naction = \"drop\"\n");
    Some(Policy::parse(text, "f").ok()?.rules.remove(0))
}

const SETS: &str = "[[set]]\nname = \"s\"\naddresses = [\"10.0.0.0/8\", \"::1\"]\nports = [1, 2, \"4-9\"]\n";

/// Entries of a match that may stand plainly and under `not`.
const ENTRIES: &[&str] = &[
    "ethertype = \"arp\"",
    "ethertype = [\"ipv4\", 0x86dd, \"lldp\", \"0x0000-0x05ff\"]",
    "vlan = 0",
    "vlan = [\"10-20\", 4095]",
    "inner_vlan = \"0-4095\"",
    "src_mac = [\"02:00:00:00:00:01\", \"00:00:00:00:00:00\"]",
    "dst_mac = \"02:00:00:00:00:00-ff:ff:ff:ff:ff:ff\"",
    "proto = \"icmp\"",
    "proto = [\"tcp\", \"icmp\", 17, \"200-255\"]",
    "proto = \"icmp6\"",
    "dscp = [\"ef\", \"af11\", \"8-9\", 63]",
    "dscp = \"be\"",
    "src = \"10.1.0.0/16\"",
    "src = [\"0.0.0.0/0\", \"::1-::7\"]",
    "src = \"@s\"",
    "dst = [\"@s\", \"255.255.255.255\"]",
    "dst = [\"10.0.0.1-10.0.0.2\", \"2001:db8::/32\"]",
    "src_port = \"1024-65535\"",
    "src_port = [\"@s\", 10]",
    "dst_port = [0, 65535]",
    "dst_port = \"@s\"",
    "icmp_type = [\"echo-request\", \"3/1-3/5\", 5, \"9-20\"]",
    "icmp6_type = [\"nd-redirect\", \"1/0\", \"255/255\"]",
    "arp_op = [\"request\", 7]",
    "arp_src = \"@s\"",
    "arp_dst = \"10.0.0.0/24\"",
    "arp_src_mac = \"02:00:00:00:00:01\"",
    "state = [\"new\", \"untracked\"]",
    "state = \"established\"",
];

/// Entries that only stand plainly.
const PLAIN: &[&str] = &[
    "direction = \"egress\"",
    "direction = \"ingress\"",
    "tcp_flags = \"syn/syn,ack,rst,fin\"",
    "tcp_flags = \"none/all\"",
    "fragment = true",
    "fragment = false",
];

const OWNERS: &[&str] = &[
    "user = [\"bob\", 7, \"eve\"]",
    "uid = 0",
    "group = \"wheel\"",
    "gid = [1, 2]",
    "comm = \"a'b*\"",
    "exe = [\"/bin/[a-z]\\\\\", \"/opt/\\\"x\\\"\"]",
    "cgroup = \"/\"",
    "container = [\"3f2a0c1b2d3e\", \"user-7/*\"]",
    "pod = \"2c48913c-b29f-11e7-9350-020968147796\"",
    "app = \"db-?\"",
];

fn key(entry: &str) -> &str {
    entry.split(' ').next().unwrap_or_default()
}

/// A table of entries whose keys differ.
fn table(mut entries: Vec<&'static str>, not: Vec<&'static str>) -> String {
    let unique = |mut entries: Vec<&'static str>| {
        entries.dedup_by_key(|entry| key(entry));
        entries
    };
    entries = unique(entries);
    let not = unique(not).join(", ");
    let not = if not.is_empty() { String::new() } else { format!("not = {{ {not} }}") };
    let mut parts: Vec<&str> = entries;
    if !not.is_empty() {
        parts.push(&not);
    }
    format!("{{ {} }}", parts.join(", "))
}

fn any_match() -> impl Strategy<Value = String> {
    (subsequence(ENTRIES, 0..4), subsequence(PLAIN, 0..3), subsequence(ENTRIES, 0..3)).prop_map(|(a, b, not)| {
        let mut entries = a;
        entries.extend(b);
        table(entries, not)
    })
}

fn any_owner() -> impl Strategy<Value = String> {
    (subsequence(OWNERS, 0..5), subsequence(OWNERS, 0..3)).prop_map(|(is, not)| table(is, not))
}

proptest! {
    // A failure prints its input; it becomes a test of its own, not a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    /// A match that is displayed reads back as itself.
    #[test]
    fn matches_read_back(text in any_match()) {
        let Some(read) = rule(&text, "{}") else { return Ok(()) };
        let shown = read.matches.to_string();
        let again = rule(&shown, "{}").map(|rule| rule.matches);
        prop_assert_eq!(again.as_ref(), Some(&read.matches), "{} became {}", text, shown);
        prop_assert_eq!(again.map(|again| again.to_string()), Some(shown));
    }

    /// An owner that is displayed reads back as itself.
    #[test]
    fn owners_read_back(text in any_owner()) {
        let read = rule("{}", &text).expect("any owner is possible");
        let shown = read.owner.to_string();
        let again = rule("{}", &shown).map(|rule| rule.owner);
        // Users by number stand behind those by name afterwards; a number in quotes is one too.
        prop_assert_eq!(again.map(|again| again.to_string()), Some(shown));
    }

    /// The ports that a rule is for are those that its text says, one by one.
    #[test]
    fn ports_are_those_that_are_stated(
        is in proptest::collection::vec((0..200_u16, 0..9_u16), 0..4),
        not in proptest::collection::vec((0..200_u16, 0..9_u16), 0..4),
    ) {
        let list = |ranges: &[(u16, u16)]| {
            let texts: Vec<_> = ranges.iter().map(|(first, more)| format!("\"{first}-{}\"", first + more)).collect();
            format!("dst_port = [{}]", texts.join(", "))
        };
        let entries = [(!is.is_empty()).then(|| list(&is)), (!not.is_empty()).then(|| format!("not = {{ {} }}", list(&not)))];
        let text = format!("{{ {} }}", entries.into_iter().flatten().collect::<Vec<_>>().join(", "));
        let within = |ranges: &[(u16, u16)], port: u16| ranges.iter().any(|(first, more)| (*first..=first + more).contains(&port));
        let expected = |port: u16| (is.is_empty() || within(&is, port)) && !within(&not, port);
        match rule(&text, "{}") {
            None => prop_assert!((0..=u16::MAX).all(|port| !expected(port)), "{text} is refused"),
            Some(rule) => {
                for port in (0..300).chain([u16::MAX]) {
                    let found = rule.matches.dst_port.as_ref().is_none_or(|ports| ports.contains(port));
                    prop_assert_eq!(found, expected(port), "{} {}", text, port);
                }
            }
        }
    }

    /// No bytes make the reader panic, and what is refused can be shown.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(errors) = Policy::parse(&bytes, "f") {
            prop_assert!(errors.count() > 0 && !errors.to_string().is_empty());
        }
    }

    /// Nor does text made of the pieces of such files, put together anyhow; each error has a place inside it.
    #[test]
    fn any_pieces_are_judged(pieces in proptest::collection::vec(select(PIECES), 0..40)) {
        let text = pieces.concat();
        if let Err(errors) = Policy::parse(&text, "f") {
            for error in errors.diagnostics() {
                let place = error.position.expect("an error of the text has a place");
                prop_assert!((1..=text.split('\n').count()).contains(&place.line), "{}", error);
            }
        }
    }
}

const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "\n",
    "\0",
    "ä",
    "[[rule]]\n",
    "[[app]]\n",
    "[[set]]\n",
    "[[class]]\n",
    "[default]\n",
    "[tracking]\n",
    "[rule.match]\n",
    "[rule.owner.not]\n",
    "name = \"a\"\n",
    "action = \"drop\"\n",
    "action = \"class\"\n",
    "match = {}\n",
    "match = { src = \"@a\" }\n",
    "owner = { user = \"bob\" }\n",
    "match.",
    "owner.",
    "not.",
    "src = ",
    "dst_port = ",
    "icmp_type = ",
    "tcp_flags = ",
    "\"10.0.0.0/8\"\n",
    "\"1-2\"\n",
    "\"@\"\n",
    "\"-\"\n",
    "\"/\"\n",
    "\"a/-/b\"\n",
    "\"[\"\n",
    "[1, 2]\n",
    "-1\n",
    "99999999999999999999\n",
    "1.5\n",
    "true\n",
    "ports = [1]\n",
    "addresses = \"::/0\"\n",
    "listen = \"tcp/1\"\n",
    "mac = \"02:00:00:00:00:01\"\n",
    "class = \"a\"\n",
    "class = [\"a\", \"b\"]\n",
    "[wire]\n",
    "parent = \"a\"\n",
    "name = \"b\"\n",
    "direction = \"ingress\"\n",
    "rate = \"1mbit\"\n",
    "burst = \"1kb\"\n",
];

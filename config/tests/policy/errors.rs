//! What is wrong, where, and what would be right.

use crate::{SETS, SETS_LINES, assert_error, errors, matches, policy};
use kopi_config::policy::MAX_PASSING_RULES;

/// The whole picture of an error, as the administrator sees it.
#[test]
fn errors_look_like_a_compilers() {
    let text = "[[rule]]\nname = \"postgres\"\nmatch = { proto = \"tcp\", dst_prot = 5432 }\naction = \"drop\"\n";
    let expected = "error: unknown key `match.dst_prot` in [[rule]]
  --> policy.toml:3:26
   |
 3 | match = { proto = \"tcp\", dst_prot = 5432 }
   |                          ^^^^^^^^
   = help: did you mean `dst_port`?";
    assert_eq!(errors(text).to_string(), expected);
    let text =
        "[[rule]]\nmatch.src = [\"10.0.0.1\", \"@lan\"]\naction = \"drop\"\n[[set]]\nname = \"lam\"\nports = 1\n";
    let expected = "error: `match.src[1]` in [[rule]] names the set `@lan`, which there is not
  --> policy.toml:2:26
   |
 2 | match.src = [\"10.0.0.1\", \"@lan\"]
   |                          ^^^^^^
   = help: did you mean \"@lam\"?";
    assert_eq!(errors(text).to_string(), expected);
}

/// One run reports every fault of a file, in the order of the file.
#[test]
fn all_faults_are_reported_at_once() {
    let text = "default = { egress = \"acept\" }
[[rule]]
match = { proto = \"tpc\", dst_prot = 1, src = \"10.0.0.1/8\", state = \"nwe\", not = { state = \"odl\", vlna = 5, vlan = 5000 } }
owner = { user = \"a b\", not = { uid = -1 } }
action = \"dorp\"
log = \"yes\"
class = \"none\"
[[app]]
listen = 80
[[set]]
name = \"s\"
ports = [1, 70000]
[[class]]
name = \"c\"
rate = \"fast\"
";
    let errors = errors(text);
    let keys: Vec<_> = errors.diagnostics().iter().map(|error| error.key.as_deref().unwrap()).collect();
    let expected = [
        "default.egress",
        "rule.match.proto",
        "rule.match.dst_prot",
        "rule.match.src",
        "rule.match.state",
        "rule.match.not.state",
        "rule.match.not.vlna",
        "rule.match.not.vlan",
        "rule.owner.user",
        "rule.owner.not.uid",
        "rule.action",
        "rule.log",
        "rule.class",
        "app.name",
        "app.listen",
        "set.ports[1]",
        "class.rate",
    ];
    assert_eq!(keys, expected, "{errors}");
}

/// Fault 31, wrong values of a match: what was found, and what would be right.
#[test]
fn wrong_matches_say_what_would_be_right() {
    for (key, value, parts) in [
        ("direction", "\"in\"", ["must be \"egress\" or \"ingress\"", ""]),
        ("ethertype", "\"ivp4\"", ["must be an ethertype from 0 to 65535", "did you mean \"ipv4\"?"]),
        ("vlan", "4096", ["a VLAN from 0 to 4095", "found the whole number `4096`"]),
        ("vlan", "\"9-1\"", ["a range such as \"2047-4095\"", "the smaller one comes first: \"1-9\""]),
        ("proto", "\"tpc\"", ["or a word such as \"tcp\"", "did you mean \"tcp\"?"]),
        ("proto", "300", ["an IP protocol from 0 to 255", "found the whole number `300`"]),
        ("dscp", "64", ["a code point from 0 to 63", "found the whole number `64`"]),
        ("dscp", "\"af44\"", ["or a word such as \"ef\"", "did you mean \"af41\"?"]),
        ("src_mac", "\"02:00\"", ["an Ethernet address", "found 2 bytes instead of 6"]),
        ("src", "\"10.0.0.1/8\"", ["an IP address, a block", "did you mean \"10.0.0.0/8\"?"]),
        ("src", "\"10.0.0.0/33\"", ["an IP address, a block", "a number from 0 to 32"]),
        ("src", "\"10.0.0.256\"", ["an IP address, a block", "found the string"]),
        ("src", "\"10.0.0.9-10.0.0.1\"", ["an IP address", "the smaller address comes first"]),
        ("src", "\"10.0.0.9-::1\"", ["an IP address", "of one family"]),
        ("src", "\"example.org\"", ["an IP address", "found the string"]),
        ("src", "\"@web\"", ["names a set that holds nothing for this key", ""]),
        ("dst", "7", ["an IP address", "found the whole number `7`"]),
        ("src_port", "\"http\"", ["a port from 0 to 65535", "or a set such as \"@name\""]),
        ("src_port", "\"1-+2\"", ["a port from 0 to 65535", "found the string"]),
        ("src_port", "65536", ["a port from 0 to 65535", "found the whole number `65536`"]),
        ("dst_port", "\"@wed\"", ["names the set `@wed`", "did you mean \"@web\"?"]),
        ("dst_port", "\"@other\"", ["names the set `@other`", "write a [[set]] with this `name`"]),
        ("dst_port", "[]", ["is an empty list, which nothing matches", "leave the key out"]),
        ("icmp_type", "\"echo-requset\"", ["a type of ICMP", "did you mean \"echo-request\"?"]),
        ("icmp_type", "\"3/256\"", ["type and code such as \"3/1\"", ""]),
        ("icmp_type", "256", ["a type of ICMP", "found the whole number"]),
        ("tcp_flags", "\"sny\"", ["flags that are set", "did you mean \"syn\"?"]),
        ("tcp_flags", "\"syn,fin/syn\"", ["flags that are set", "fin must be behind the slash too"]),
        ("tcp_flags", "\"none\"", ["flags that are set", "to look at no flag, leave the key out"]),
        ("arp_op", "\"ask\"", ["an operation of ARP", "\"request\""]),
        ("state", "\"establised\"", ["must be \"new\", \"established\"", "did you mean \"established\"?"]),
        ("fragment", "\"true\"", ["must be true or false", "write it without quotes: true"]),
        ("not", "true", ["must be a table such as { ethertype = ..., vlan = ... }", "found the truth value"]),
    ] {
        let text = format!("{SETS}[[rule]]\nmatch = {{ {key} = {value} }}\naction = \"drop\"\n");
        assert_error(&text, (SETS_LINES + 2, key.len() + 14), &parts);
        assert_error(&text, (SETS_LINES + 2, key.len() + 14), &[&format!("`match.{key}` in [[rule]] ")]);
    }
}

/// Fault 31, wrong values elsewhere.
#[test]
fn wrong_values_say_what_would_be_right() {
    for (table, line, column, parts) in [
        ("[default]", "attach = \"drop\"", 10, ["must be \"accept\" or \"refuse\"", ""]),
        ("[default]", "fragments = \"reject\"", 13, ["must be \"accept\" or \"drop\"", ""]),
        ("[tracking]", "udp = \"30\"", 7, ["a time from \"1s\" to \"365d\"", "found the string"]),
        ("[tracking]", "udp = 0", 7, ["a time from \"1s\" to \"365d\"", "found the whole number `0`"]),
        ("[tracking]", "udp = \"366d\"", 7, ["a time from", ""]),
        ("[[set]]\nname = \"s\"", "ports = \"@web\"", 9, ["a port from 0 to 65535", ""]),
        ("[[set]]\nname = \"s\"", "addresses = [\"@lan\"]", 14, ["an IP address", "found the string"]),
        ("[[set]]", "name = \"a b\"", 8, ["a name of 1 to 64 letters, digits", "found the string `\"a b\"`"]),
        ("[[class]]\nname = \"c\"", "rate = \"2gb\"", 8, ["a rate from \"8bit\"", "the units are bit, kbit"]),
        ("[[class]]\nname = \"c\"", "weight = 0", 10, ["from 1 to 1000", "the least is 1"]),
        ("[[app]]", "name = \"\"", 8, ["a name of 1 to 32 letters", ""]),
        ("[[app]]\nname = \"a\"", "mac = \"01:00:00:00:00:01\"", 7, ["one station", "an odd first byte"]),
        ("[[app]]\nname = \"a\"", "mac = \"00:00:00:00:00:00\"", 7, ["one station", "zero"]),
        ("[[app]]\nname = \"a\"", "addresses = \"10.0.0.1-10.0.0.2\"", 13, ["or a block such as", ""]),
        ("[[app]]\nname = \"a\"", "listen = 80", 10, ["\"tcp/5432\", found the whole number", "\"tcp/80\""]),
        ("[[app]]\nname = \"a\"", "listen = \"tpc/80\"", 10, ["a protocol and a port", "did you mean \"tcp/80\"?"]),
        ("[[app]]\nname = \"a\"", "listen = \"icmp/8\"", 10, ["a protocol and a port", ""]),
        ("[[app]]\nname = \"a\"", "queues = 17", 10, ["from 1 to 16", "the most is 16"]),
        ("[[app]]\nname = \"a\"", "class = \"gold\"", 9, ["names the class `gold`", "write a [[class]]"]),
        ("[[app]]\nname = \"a\"", "owner.app = \"x\"", 7, ["unknown key `owner.app` in [[app]]", "known are `cgroup`"]),
        (
            "[[rule]]\naction = \"drop\"",
            "owner.comm = \"a-very-long-name\"",
            14,
            ["the kernel keeps 15 bytes", "\"a-very-long-nam\""],
        ),
        ("[[rule]]\naction = \"drop\"", "owner.exe = \"postgres\"", 13, ["the path of a program", "\"*/postgres\""]),
        (
            "[[rule]]\naction = \"drop\"",
            "owner.container = \"3f2a\"",
            19,
            ["the id of a container or pod", "too short to mean one container"],
        ),
        ("[[rule]]\naction = \"drop\"", "owner.pod = \"web\"", 13, ["the id of a container", "names can be given"]),
        ("[[rule]]\naction = \"drop\"", "owner.exe = \"/a[b\"", 13, ["the path of a program", "after [ come"]),
        (
            "[[rule]]\naction = \"drop\"",
            "owner.cgroup = \"a\"",
            16,
            ["from the root of the cgroups", "must begin with /"],
        ),
        (
            "[[rule]]\naction = \"drop\"",
            "owner.cgroup = \"/sys/fs/cgroup/a\"",
            16,
            ["cgroups", "leave the mount point out: \"/a\""],
        ),
        ("[[rule]]\naction = \"drop\"", "owner.cgroup = \"/a/../b\"", 16, ["cgroups", "neither . nor .."]),
        ("[[rule]]\naction = \"drop\"", "owner.uid = \"bob\"", 13, ["a whole number from 0 to", "found the string"]),
        ("[[rule]]\naction = \"drop\"", "owner.not.not.uid = 1", 11, ["unknown key `owner.not.not`", ""]),
        ("[[rule]]\naction = \"drop\"", "match = \"tcp\"", 9, ["must be a table such as", "found the string"]),
        ("[[rule]]", "action = \"acept\"", 10, ["must be \"accept\", \"drop\"", "did you mean \"accept\"?"]),
        ("[[rule]]", "action = \"class\"", 10, ["no `class` is stated", "the name of a [[class]]"]),
    ] {
        let text = format!("{table}\n{line}\n");
        assert_error(&text, (table.lines().count() + 1, column), &parts);
    }
}

/// What a help repeats of the file does not play with the terminal either.
#[test]
fn helps_repeat_no_control_characters() {
    let text = "[[app]]\nname = \"a\"\nlisten = \"tpc/80\\u001b[31m\"\n";
    assert_error(text, (3, 10), &["did you mean \"tcp/80\u{fffd}[31m\"?"]);
}

/// Tables that should be lists, and the other way round.
#[test]
fn tables_and_lists_are_told_apart() {
    assert_error(
        "[rule]\naction = \"drop\"\n",
        (1, 1),
        &["`rule` must be a list of tables", "write [[rule]] above each"],
    );
    assert_error("rule = [1]\n", (1, 9), &["`rule` must be a list of tables, found the whole number"]);
    assert_error("[[default]]\n", (1, 1), &["`default` must be a table, found a list"]);
    assert_error("[[rules]]\naction = \"drop\"\n", (1, 3), &["unknown key `rules`", "did you mean `rule`?"]);
    assert_error("egress = \"drop\"\n", (1, 1), &["unknown key `egress`", "it belongs into [default]"]);
    assert_error("[[rule]]\nmatch = {}\n", (1, 1), &["`action` is missing in [[rule]]", "\"accept\", \"drop\""]);
    let text = "[[rule]]\naction = \"drop\"\n[[rule.match]]\nvlan = 1\n";
    assert_error(text, (3, 1), &["`match` in [[rule]] must be a table such as", "found a list"]);
}

/// What is right alone and wrong together.
#[test]
fn keys_are_checked_against_each_other() {
    let class = "[[class]]\nname = \"c\"\n";
    for (text, at, parts) in [
        (
            format!("{class}rate = \"2gbit\"\nceil = \"1gbit\"\n"),
            (4, 8),
            ["at least `rate` = \"2gbit\"", "found \"1gbit\""],
        ),
        (format!("{class}[[class]]\nname = \"c\"\n"), (4, 8), ["there is already a class `c`", ""]),
        (format!("{class}[[rule]]\naction = \"drop\"\nclass = \"c\"\n"), (5, 9), ["the rule's frames go nowhere", ""]),
        ("[[set]]\nname = \"s\"\n".to_owned(), (2, 8), ["the set `s` holds nothing", "addresses = [...]"]),
        ("[[set]]\nname = \"s\"\nports = 1\n".repeat(2), (5, 8), ["there is already a set `s`", ""]),
        ("[[app]]\nname = \"a\"\n".repeat(2), (4, 8), ["there is already an app `a`", "all its owners"]),
        (
            "[[app]]\nname = \"host\"\nadmit = true\n".to_owned(),
            (3, 9),
            ["`admit` cannot be stated", "the kernel's port"],
        ),
        (
            "[[app]]\nname = \"host\"\nowner = { user = \"root\" }\n".to_owned(),
            (3, 9),
            ["`owner` cannot be stated", "the kernel's port"],
        ),
        (
            "[[app]]\nname = \"a\"\naddress = \"shared\"\nmac = \"02:00:00:00:00:01\"\n".to_owned(),
            (4, 7),
            ["with `address = \"shared\"`", "leave out one"],
        ),
        (
            "[[app]]\nname = \"a\"\nmac = \"02:00:00:00:00:01\"\n[[app]]\nname = \"b\"\nmac = \"02:00:00:00:00:01\"\n"
                .to_owned(),
            (6, 7),
            ["that of the app `a` already", ""],
        ),
        ("[[rule]]\nname = \"r\"\naction = \"drop\"\n".repeat(2), (5, 8), ["already a rule `r`, on line 1", ""]),
        (
            "[[rule]]\nname = \"rule-2\"\naction = \"drop\"\n[[rule]]\naction = \"drop\"\n".to_owned(),
            (4, 1),
            ["already a rule `rule-2`, on line 1", ""],
        ),
    ] {
        assert_error(&text, at, &parts);
    }
}

/// An entry without a name is checked like any other.
#[test]
fn a_missing_name_hides_nothing() {
    let text = "[[app]]
address = \"shared\"
mac = \"02:00:00:00:00:01\"
class = \"none\"
[[class]]
rate = \"2gbit\"
ceil = \"1gbit\"
target = \"1s\"
parent = \"none\"
[[set]]
ports = \"@web\"
";
    let errors = errors(text);
    let keys: Vec<_> = errors.diagnostics().iter().map(|error| error.key.as_deref().unwrap()).collect();
    let expected = [
        "app.name",
        "app.mac",
        "app.class",
        "class.name",
        "class.interval",
        "class.ceil",
        "class.parent",
        "set.name",
        "set.ports",
    ];
    assert_eq!(keys, expected, "{errors}");
}

/// A match that no frame can be is an error, and says why.
#[test]
fn impossible_matches_are_errors() {
    for (matches, column, parts) in [
        ("{ proto = \"icmp\", dst_port = 80 }", 38, ["`match.dst_port` in [[rule]] and `proto` never hold together"]),
        ("{ not = { proto = [\"tcp\", \"udp\", \"sctp\", \"udplite\"] }, dst_port = 8 }", 75, ["`proto` never hold"]),
        ("{ proto = \"udp\", tcp_flags = \"syn\" }", 38, ["`match.tcp_flags` in [[rule]] and `proto` never hold"]),
        ("{ ethertype = \"arp\", src = \"10.0.0.1\" }", 36, ["`match.src` in [[rule]] and `ethertype` never hold"]),
        ("{ ethertype = \"ipv6\", src = \"10.0.0.1\" }", 37, ["and `ethertype` never hold together"]),
        ("{ src = \"10.0.0.1\", dst = \"::1\" }", 35, ["`match.dst` in [[rule]] and `src` never hold together"]),
        ("{ arp_op = 1, dscp = \"ef\" }", 20, ["`match.arp_op` in [[rule]] and `dscp` never hold together"]),
        ("{ icmp_type = 8, icmp6_type = 128 }", 39, ["and `icmp_type` never hold together"]),
        ("{ arp_op = 1, dst_port = 80 }", 20, ["`match.arp_op` in [[rule]] and `dst_port` never hold"]),
        ("{ arp_src = \"::1\" }", 21, ["ARP speaks of IPv4 addresses"]),
        ("{ fragment = true, arp_op = 1 }", 22, ["`match.fragment` in [[rule]] and `arp_op` never"]),
        ("{ vlan = 5, not = { vlan = \"1-9\" } }", 36, ["`match.not.vlan` in [[rule]] leaves nothing"]),
        ("{ not = { src = [\"0.0.0.0/0\", \"::/0\"] } }", 25, ["leaves nothing that could match"]),
        (
            "{ not = { state = [\"new\", \"established\", \"related\", \"invalid\", \"untracked\"] } }",
            27,
            ["leaves nothing"],
        ),
    ] {
        assert_error(&format!("[[rule]]\nmatch = {matches}\naction = \"drop\"\n"), (2, column), &parts);
    }
    // Possible, if only just.
    for possible in
        ["{ proto = [\"icmp\", \"tcp\"], dst_port = 80 }", "{ dst_port = 80 }", "{ src = \"::1\", proto = 58 }"]
    {
        matches(possible);
    }
}

/// What goes on to the next rule is limited in number; what decides is not.
#[test]
fn passing_rules_are_limited() {
    let text = "[[rule]]\naction = \"count\"\n".repeat(MAX_PASSING_RULES);
    assert_eq!(policy(&format!("{text}[[rule]]\naction = \"drop\"\n")).rules.len(), 65);
    assert_error(&text.repeat(2), (130, 10), &["at most 64 rules that only log, count or class", "`log = true`"]);
}

//! `policy.toml` from the outside: what is accepted, and what every fault says.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use std::fmt::Write as _;
use std::net::IpAddr;

use kopi_config::policy::{
    Action, Assigned, Cidr, Decision, Direction, Listen, MAX_PASSING_RULES, Match, Mention, OwnerMatch, Policy, Rule,
    State, Tracking,
};
use kopi_config::{Account, Diagnostic, Errors, Position, Severity};

fn policy(text: &str) -> Policy {
    Policy::parse(text, "policy.toml").unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn errors(text: impl AsRef<[u8]>) -> Errors {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    Policy::parse(text, "policy.toml").map(|_| ()).expect_err(&shown)
}

/// Checks that the only error of `text` stands at `line` and `column` and says all of `parts`.
fn assert_error(text: &str, (line, column): (usize, usize), parts: &[&str]) {
    let errors = errors(text);
    assert_eq!(errors.count(), 1, "{errors}");
    let error = &errors.diagnostics()[0];
    assert_eq!(error.position, Some(Position { line, column }), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "no {part:?} in:\n{error}");
    }
}

/// The one rule of a file, with this match.
fn rule(matches: &str) -> Rule {
    policy(&format!("{SETS}[[rule]]\nmatch = {matches}\naction = \"drop\"\n")).rules.remove(0)
}

fn matches(text: &str) -> Match {
    rule(text).matches
}

fn owner(text: &str) -> OwnerMatch {
    policy(&format!("[[rule]]\nowner = {text}\naction = \"drop\"\n")).rules.remove(0).owner
}

/// Sets for tests: seven lines.
const SETS: &str = "[[set]]
name = \"lan\"
addresses = [\"10.0.0.0/8\", \"2001:db8::/32\"]
[[set]]
name = \"web\"
ports = [80, \"8000-8100\"]
\n";
const SETS_LINES: usize = 7;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An empty file is a policy that allows everything.
#[test]
fn nothing_stated_is_everything_allowed() {
    let policy = policy("");
    assert_eq!((policy.default.egress, policy.default.ingress), (Decision::Accept, Decision::Accept));
    assert_eq!((policy.default.fragments, policy.default.malformed), (Decision::Drop, Decision::Drop));
    assert!(policy.default.attach && policy.rules.is_empty() && policy.apps.is_empty());
    assert_eq!(policy.tracking, Tracking::default());
    assert_eq!(policy.warnings, []);
}

/// The shipped examples are right, without a warning.
#[test]
fn examples_are_right() {
    for (name, text) in EXAMPLES {
        let policy = Policy::parse(text, name).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(policy.warnings, []);
    }
}

const EXAMPLES: [(&str, &str); 3] = [
    ("policy-minimal.toml", include_str!("../examples/policy-minimal.toml")),
    ("policy-paper.toml", include_str!("../examples/policy-paper.toml")),
    ("policy-lockdown.toml", include_str!("../examples/policy-lockdown.toml")),
];

/// Every key outside rules has its meaning.
#[test]
fn tables_are_read() {
    let policy = policy(
        "default = { egress = \"drop\", ingress = \"reject\", attach = \"refuse\", fragments = \"accept\", malformed = \"accept\" }
         [tracking]
         tcp_window = true
         tcp_loose = false
         tcp_syn = 7
         tcp_established = \"1d\"
         udp_stream = \"3min\"
         [[class]]
         name = \"gold\"
         [[class]]
         name = \"bob\"
         [[app]]
         name = \"db\"
         owner = { user = \"bob\", not = { gid = 7 } }
         admit = false
         mac = \"02:00:00:00:00:01\"
         addresses = [\"10.0.0.0/24\", \"2001:db8::1\"]
         listen = [\"udp/53\", \"tcp/53\", \"tcp/53\"]
         spoof_check = false
         queues = 2
         flows = 1000
         class = \"bob\"",
    );
    assert_eq!((policy.default.egress, policy.default.ingress), (Decision::Drop, Decision::Reject));
    assert_eq!((policy.default.fragments, policy.default.malformed), (Decision::Accept, Decision::Accept));
    assert!(!policy.default.attach);
    let tracking = policy.tracking;
    assert!(tracking.tcp_window && !tracking.tcp_loose);
    assert_eq!((tracking.tcp_syn, tracking.tcp_established, tracking.udp_stream), (7, 86_400, 180));
    assert_eq!((tracking.tcp_closing, tracking.other), (120, 600));
    let app = &policy.apps[0];
    assert_eq!((app.name.as_str(), app.admit, app.spoof_check), ("db", false, false));
    assert_eq!(app.owner, owner("{ user = \"bob\", not = { gid = 7 } }"));
    assert_eq!(app.mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert_eq!(app.addresses, [Cidr::new(ip("10.0.0.0"), 24).unwrap(), Cidr::new(ip("2001:db8::1"), 128).unwrap()]);
    assert_eq!(app.listen, [Listen { proto: 6, port: 53 }, Listen { proto: 17, port: 53 }]);
    assert_eq!((app.queues, app.flows, app.class), (Some(2), Some(1000), Assigned { egress: Some(1), ingress: None }));
}

/// Every key of a match has its meaning.
#[test]
fn matches_are_read() {
    let read = matches(
        "{ direction = \"egress\", ethertype = [\"ipv4\", 0x86dd], vlan = \"1-10\", inner_vlan = 0, \
           src_mac = \"02:00:00:00:00:01\", dst_mac = \"02:00:00:00:00:00-02:00:00:00:00:ff\", proto = \"tcp\", \
           src = [\"@lan\", \"192.0.2.1\"], dst = \"10.0.0.1-10.0.0.9\", src_port = [\"1024-65535\", 80], \
           dst_port = \"@web\", tcp_flags = \"syn/syn,ack\", state = [\"new\", \"related\"], fragment = false }",
    );
    assert_eq!(read.direction, Some(Direction::Egress));
    assert_eq!(read.ethertype.unwrap().ranges(), [0x0800..=0x0800, 0x86dd..=0x86dd]);
    assert_eq!((read.vlan.unwrap().ranges(), read.inner_vlan.unwrap().ranges()), (&[1..=10][..], &[0..=0][..]));
    assert_eq!(read.src_mac.unwrap().ranges(), [0x0200_0000_0001..=0x0200_0000_0001]);
    assert_eq!(read.dst_mac.unwrap().ranges(), [0x0200_0000_0000..=0x0200_0000_00ff]);
    assert_eq!(read.proto.unwrap().ranges(), [6..=6]);
    let src = read.src.unwrap();
    for (address, inside) in [("10.9.9.9", true), ("192.0.2.1", true), ("192.0.2.2", false), ("2001:db8::1", true)] {
        assert_eq!(src.contains(ip(address)), inside, "{address}");
    }
    assert_eq!(read.dst.unwrap().v4.ranges(), [0x0a00_0001..=0x0a00_0009]);
    assert_eq!(read.src_port.unwrap().ranges(), [80..=80, 1024..=65535]);
    assert_eq!(read.dst_port.unwrap().ranges(), [80..=80, 8000..=8100]);
    assert_eq!(read.tcp_flags.map(|flags| (flags.value, flags.mask)), Some((2, 18)));
    let states = read.state.unwrap();
    assert!(states.contains(State::New) && states.contains(State::Related) && !states.contains(State::Established));
    assert_eq!(read.fragment, Some(false));
    let arp = matches(
        "{ arp_op = \"reply\", arp_src = \"10.0.0.1\", arp_dst = \"@lan\", arp_src_mac = \"02:00:00:00:00:01\" }",
    );
    assert_eq!(arp.arp_op.unwrap().ranges(), [2..=2]);
    assert!(arp.arp_src.unwrap().contains(ip("10.0.0.1")) && arp.arp_dst.unwrap().contains(ip("10.1.1.1")));
    assert_eq!(arp.arp_src_mac.unwrap().ranges().len(), 1);
    assert_eq!(matches("{ icmp_type = [\"echo-request\", 3, \"5/1\"] }").icmp.unwrap().ranges().len(), 3);
    assert_eq!(matches("{ icmp_type = \"3/1-3/5\" }").icmp.unwrap().ranges(), [0x0301..=0x0305]);
    assert_eq!(matches("{ icmp6_type = \"echo-request\" }").icmp6.unwrap().ranges(), [0x8000..=0x80ff]);
    assert_eq!(matches("{ dscp = [\"ef\", \"8-10\", 0] }").dscp.unwrap().ranges(), [0..=0, 8..=10, 46..=46]);
    assert_eq!(matches("{ proto = [\"icmp\", 17] }").proto.unwrap().ranges(), [1..=1, 17..=17, 58..=58]);
}

/// `not` takes away from what is stated plainly, or from everything.
#[test]
fn not_takes_away() {
    assert_eq!(matches("{ vlan = \"1-10\", not = { vlan = [5, \"10-20\"] } }").vlan.unwrap().ranges(), [1..=4, 6..=9]);
    assert_eq!(matches("{ not = { vlan = 0 } }").vlan.unwrap().ranges(), [1..=4095]);
    assert_eq!(
        matches("{ not = { dst_port = \"@web\" } }").dst_port.unwrap().ranges(),
        [0..=79, 81..=7999, 8101..=65535]
    );
    let src = matches("{ not = { src = \"@lan\" } }").src.unwrap();
    for (address, inside) in [("10.0.0.1", false), ("11.0.0.0", true), ("2001:db8::1", false), ("::1", true)] {
        assert_eq!(src.contains(ip(address)), inside, "{address}");
    }
    let src = matches("{ src = \"10.0.0.0/8\", not = { src = \"10.1.0.0/16\" } }").src.unwrap();
    for (address, inside) in [("10.0.0.1", true), ("10.1.0.1", false), ("11.0.0.1", false), ("::1", false)] {
        assert_eq!(src.contains(ip(address)), inside, "{address}");
    }
    let state = matches("{ not = { state = \"new\" } }").state.unwrap();
    assert!(!state.contains(State::New) && state.contains(State::Established) && state.contains(State::Untracked));
}

/// Rules that say no more than a set share its ranges, and so does their negation.
#[test]
fn rules_share_sets() {
    let text = "[[rule]]\nmatch = { src = \"@lan\", not = { dst = \"@lan\" } }\naction = \"drop\"\n".repeat(2);
    let policy = policy(&format!("{SETS}{text}"));
    let [a, b] = &policy.rules[..] else { panic!() };
    let (src, dst) = (|rule: &Rule| rule.matches.src.clone().unwrap(), |rule: &Rule| rule.matches.dst.clone().unwrap());
    assert!(src(a).v4.is_shared_with(&src(b).v4) && src(a).v4.is_shared_with(&policy.sets[0].addresses().unwrap().v4));
    assert!(dst(a).v6.is_shared_with(&dst(b).v6));
    assert_eq!(a.matches.brief(&policy.sets).to_string(), "{ src = \"@lan\", not = { dst = \"@lan\" } }");
}

/// Owners by every property, and what they are not.
#[test]
fn owners_are_read() {
    let read = owner(
        "{ app = \"a*\", user = [\"bob\", 7], uid = 8, group = \"g\", gid = [9], comm = \"c\", exe = \"/bin/*\", \
           cgroup = \"/a/b/\", not = { user = \"eve\", app = [\"x\", \"y\"] } }",
    );
    assert_eq!(read.is.users, [Account::Name("bob".to_owned()), Account::Id(7), Account::Id(8)]);
    assert_eq!(read.is.groups, [Account::Name("g".to_owned()), Account::Id(9)]);
    assert!(read.is.apps[0].matches("abc") && !read.is.apps[0].matches("b"));
    assert!(read.is.comms[0].matches("c") && read.is.exes[0].matches("/bin/sh"));
    assert!(read.is.cgroups[0].contains("/a/b/c") && !read.is.cgroups[0].contains("/a/bc"));
    assert_eq!((read.not.users.len(), read.not.apps.len()), (1, 2));
    assert!(!read.is_any() && owner("{}").is_any());
}

const fn egress(class: usize) -> Assigned {
    Assigned { egress: Some(class), ingress: None }
}

/// Actions, and what goes with them.
#[test]
fn actions_are_read() {
    let of = |lines: &str| policy(&format!("[[class]]\nname = \"c\"\n[[rule]]\n{lines}\n")).rules.remove(0);
    assert_eq!(of("action = \"accept\"\nclass = \"c\"").class, egress(0));
    assert_eq!(of("action = \"reject\"").action, Action::Decide(Decision::Reject));
    let log = of("action = \"log\"");
    assert!(log.log && log.action == Action::Log);
    assert!(of("action = \"drop\"\nlog = true").log && !of("action = \"count\"").log);
    assert_eq!(of("action = \"class\"\nclass = \"c\"").class, egress(0));
    assert_eq!((of("action = \"drop\"").name.as_str(), of("action = \"drop\"").line), ("rule-1", 3));
}

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
match = { proto = \"tpc\", src = \"10.0.0.1/8\", not = { vlan = 5000 } }
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
        "rule.match.src",
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
        ("[[app]]\nname = \"a\"", "owner.app = \"x\"", 7, ["unknown key `owner.app` in [[app]]", "known are `user`"]),
        (
            "[[rule]]\naction = \"drop\"",
            "owner.comm = \"a-very-long-name\"",
            14,
            ["the kernel keeps 15 bytes", "\"a-very-long-nam\""],
        ),
        ("[[rule]]\naction = \"drop\"", "owner.exe = \"postgres\"", 13, ["the path of a program", "\"*/postgres\""]),
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

/// The only warning of `text`.
fn warning(text: &str) -> Diagnostic {
    let mut warnings = policy(text).warnings;
    assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
    assert_eq!(warnings[0].severity, Severity::Warning);
    warnings.remove(0)
}

/// What lets somebody pass for what he calls himself is a warning.
#[test]
fn trust_in_comm_is_a_warning() {
    for (text, at, part) in [
        ("[[rule]]\nowner = { comm = \"x\" }\naction = \"accept\"\n", (2, 9), "`rule-1` accepts by `comm` alone"),
        ("[[rule]]\nowner.not.comm = \"x\"\naction = \"drop\"\n", (2, 1), "`rule-1` spares by `comm` alone"),
        ("[[app]]\nname = \"a\"\nowner = { comm = \"x\" }\n", (3, 9), "`a` is admitted by `comm` alone"),
    ] {
        let warning = warning(text);
        assert!(warning.message.contains(part), "{warning}");
        assert_eq!(warning.position, Some(Position { line: at.0, column: at.1 }), "{warning}");
    }
    for text in [
        "[[rule]]\nowner = { comm = \"x\", user = \"bob\" }\naction = \"accept\"\n",
        "[[rule]]\nowner = { comm = \"x\" }\naction = \"drop\"\n",
        "[[rule]]\nowner = { not = { comm = \"x\", uid = 1 } }\naction = \"drop\"\n",
        "[[app]]\nname = \"a\"\nowner = { comm = \"x\" }\nadmit = false\n",
    ] {
        assert_eq!(policy(text).warnings, [], "{text}");
    }
}

/// A rule that never has its turn is a warning, once for each rule that takes it away.
#[test]
fn shadowed_rules_are_warnings() {
    let two = |a: &str, b: &str| {
        format!("{SETS}[[rule]]\nname = \"a\"\n{a}\n[[rule]]\nname = \"b\"\n{b}\naction = \"drop\"\n")
    };
    let accept = "action = \"accept\"";
    for (a, b) in [
        ("", ""),
        ("", "match = { src = \"10.0.0.1\" }"),
        ("match.src = \"10.0.0.0/8\"", "match = { src = \"10.0.0.1\", dst_port = 80 }"),
        ("match.src = \"@lan\"", "match = { src = \"@lan\", proto = \"udp\" }"),
        ("match.dst_port = \"@web\"", "match = { dst_port = [80, \"8000-8001\"] }"),
        ("match.state = [\"new\", \"invalid\"]", "match = { state = \"new\" }"),
        ("match.src_port = 1\nowner.user = \"bob\"", "match = { src_port = 1, dst_port = 2 }\nowner.user = \"bob\""),
        (
            "match = { src = \"10.0.0.1\", dst = \"10.0.0.2\", proto = \"tcp\" }\nowner.uid = 1",
            "match = { src = \"10.0.0.1\", dst = \"10.0.0.2\", proto = 6 }\nowner.uid = 1",
        ),
    ] {
        let warning = warning(&two(&format!("{a}\n{accept}"), b));
        assert!(warning.message.starts_with("the rule `b` never matches: `a` on line 8 comes first"), "{warning}");
    }
    for (a, b) in [
        ("match.src = \"10.0.0.0/8\"", "match = { src = \"11.0.0.1\" }"),
        ("match.src = \"10.0.0.0/8\"", ""),
        ("match.src = \"10.0.0.0/8\"", "match.dst = \"10.0.0.0/8\""),
        ("owner.user = \"bob\"", ""),
        ("owner.user = \"bob\"", "owner.user = \"eve\""),
        ("match.state = \"new\"", "match = { state = [\"new\", \"invalid\"] }"),
    ] {
        assert_eq!(policy(&two(&format!("{a}\n{accept}"), b)).warnings, [], "{a} {b}");
    }
    // What passes on takes nothing away.
    assert_eq!(policy(&two("action = \"count\"", "")).warnings, []);
    let many = format!("{}{}", two(accept, ""), "[[rule]]\naction = \"drop\"\n".repeat(7));
    assert!(warning(&many).help.unwrap().contains("as it does for 7 more rules below"));
}

/// Many warnings leave room for the error.
#[test]
fn warnings_hide_no_error() {
    let text = "[[rule]]\nowner = { comm = \"x\" }\naction = \"accept\"\n".repeat(200);
    let errors = errors(format!("{text}[[rule]]\naction = \"x\"\n"));
    assert_eq!(errors.count(), 1);
    assert!(errors.to_string().contains("policy.toml:602:10"), "{errors}");
}

/// Fault 33: users, groups and cgroups that the machine does not have are warnings, at their first place.
#[test]
fn unknown_names_are_warnings() {
    let policy = policy(
        "[[app]]\nname = \"a\"\nowner = { user = [\"bob\", \"eve\"], group = \"wheel\" }\n\
         [[rule]]\nowner = { user = \"eve\", uid = 1, not = { cgroup = \"/x\" } }\naction = \"drop\"\n",
    );
    assert_eq!(policy.warnings, []);
    let warnings = policy.check_names(&|mention| *mention == Mention::User("bob".to_owned()));
    let shown: Vec<_> = warnings.iter().map(|w| (w.message.as_str(), w.position.unwrap(), w.severity)).collect();
    let at = |line, column| Position { line, column };
    assert_eq!(
        shown,
        [
            ("there is no user `eve`", at(3, 26), Severity::Warning),
            ("there is no group `wheel`", at(3, 42), Severity::Warning),
            ("there is no cgroup `/x`", at(5, 51), Severity::Warning),
        ]
    );
    assert!(warnings[0].to_string().contains("3 | owner = { user = [\"bob\", \"eve\"]"), "{}", warnings[0]);
    assert_eq!(policy.check_names(&|_| true), []);
}

/// Fault 31, duplicate keys and tables.
#[test]
fn duplicates_are_errors() {
    assert_error("[[rule]]\naction = \"drop\"\naction = \"drop\"\n", (3, 1), &["`action` is set twice"]);
    assert_error("[[rule]]\nmatch = { vlan = 1, vlan = 2 }\naction = \"drop\"\n", (2, 21), &["`vlan` is set twice"]);
    assert_error("[tracking]\n[tracking]\n", (2, 2), &["`tracking` is set twice"]);
}

/// Fault 31, truncated file: every prefix of an example is a right file or has an error with a place.
#[test]
fn truncated_files_are_judged() {
    let text = EXAMPLES[1].1;
    for end in 0..text.len() {
        if let Err(errors) = Policy::parse(&text.as_bytes()[..end], "policy.toml") {
            assert!(errors.diagnostics().iter().all(|error| error.position.is_some()), "{end}: {errors}");
        }
    }
}

/// Fault 31, a byte order mark, `\r\n`, NUL, not UTF-8, deep nesting.
#[test]
fn odd_bytes_are_judged() {
    let rule = "[[rule]]\r\nmatch = { vlan = 1 }\r\naction = \"drop\"\r\n";
    assert_eq!(policy(&format!("\u{feff}{rule}")).rules.len(), 1);
    assert_error(&format!("\u{feff}{rule}x = 1\r\n"), (4, 1), &["4 | x = 1\n   | ^\n"]);
    assert!(errors("[[rule]]\naction = \"dr\0op\"\n").to_string().contains("policy.toml:2:13"));
    assert!(errors(b"[[rule]]\naction = \"\xff\"\n").to_string().contains("byte 0xff is not UTF-8"));
    assert!(errors(format!("x = {}", "[".repeat(100_000))).to_string().contains("policy.toml:1:"));
    assert!(errors(format!("x = {}", "{a=".repeat(100_000))).to_string().contains("policy.toml:1:"));
    assert!(errors(format!("{}x = 1", "a.".repeat(100_000))).to_string().contains("policy.toml:1:"));
    assert!(errors(vec![b'#'; (16 << 20) + 1]).to_string().contains("larger than 16 MiB"));
}

/// Ten thousand names, each mistyped, do not make the search for the right one slow.
#[test]
fn mistakes_in_large_policies_are_found_fast() {
    let mut text = String::new();
    for n in 0..10_000 {
        writeln!(text, "[[set]]\nname = \"set-{n}\"\nports = {n}").unwrap();
        writeln!(text, "[[rule]]\nmatch.src_port = \"@sat-{n}\"\naction = \"drop\"").unwrap();
    }
    assert_eq!(errors(&text).count(), 10_000);
}

//! What is accepted, and what it means.

use crate::{EXAMPLES, SETS, ip, matches, owner, policy};
use kopi_config::Account;
use kopi_config::policy::{
    Action, ClassSelection, Decision, Direction, IpNet, Listen, Policy, Rule, State, Tracking, Union,
};

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
    assert_eq!(app.addresses, [IpNet::new(ip("10.0.0.0"), 24).unwrap(), IpNet::new(ip("2001:db8::1"), 128).unwrap()]);
    assert_eq!(app.listen, [Listen { proto: 6, port: 53 }, Listen { proto: 17, port: 53 }]);
    assert_eq!(
        (app.queues, app.flows, app.class),
        (Some(2), Some(1000), ClassSelection { egress: Some(1), ingress: None })
    );
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
    assert_eq!(a.matches.brief(&policy.sets), "{ src = \"@lan\", not = { dst = \"@lan\" } }");
}

/// Owners by every property, and what they are not.
#[test]
fn owners_are_read() {
    let read = owner(
        "{ app = \"a*\", user = [\"bob\", 7], uid = 8, group = \"g\", gid = [9], comm = \"c\", exe = \"/bin/*\", \
           cgroup = \"/a/b/\", container = \"3f2a0c1b2d3e\", pod = [\"*\"], not = { user = \"eve\", app = [\"x\", \"y\"] } }",
    );
    assert_eq!(read.is.users, [Account::Name("bob".to_owned()), Account::Id(7), Account::Id(8)]);
    assert_eq!(read.is.groups, [Account::Name("g".to_owned()), Account::Id(9)]);
    assert!(read.is.apps[0].matches("abc") && !read.is.apps[0].matches("b"));
    assert!(read.is.comms[0].matches("c") && read.is.exes[0].matches("/bin/sh"));
    assert!(read.is.cgroups[0].contains("/a/b/c") && !read.is.cgroups[0].contains("/a/bc"));
    assert!(read.is.containers[0].matches(&"3f2a0c1b2d3e".repeat(2)) && read.is.pods[0].matches("x"));
    assert_eq!((read.not.users.len(), read.not.apps.len()), (1, 2));
    assert!(!read.is_any() && owner("{}").is_any());
}

const fn egress(class: usize) -> ClassSelection {
    ClassSelection { egress: Some(class), ingress: None }
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

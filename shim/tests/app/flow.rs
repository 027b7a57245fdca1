//! Flow rules: what an application says reaches the daemon, each next one too, and what the daemon says reaches packets.

use crate::daemon::{Behaviour, Daemon};
use crate::testpmd::{Folder, Testpmd};
use kopi_packet::{AddressPattern, IpPattern, Masked, PortsPattern, TransportPattern};
use kopi_ring::OLDEST_PROTOCOL;
use kopi_ring::message::FlowAction;

fn flooding() -> Behaviour {
    Behaviour { flood: Some(64), ..Behaviour::default() }
}

fn start(folder: &Folder) -> Testpmd {
    let mut app = Testpmd::start(folder, &folder.device(), &["--in-memory"], &["--rxq=4", "--txq=4"]).ready();
    app.command("start");
    app
}

fn create(app: &mut Testpmd, rule: &str) -> String {
    app.command(&format!("flow create 0 {rule}"))
}

/// Types a command that fails, and waits for the reason, which comes on another way than answers.
fn refused(app: &mut Testpmd, command: &str, reason: &str) {
    let before = app.output().matches(reason).count();
    let answer = app.command(command);
    assert!(!answer.contains("created"), "{answer}");
    app.wait_for(reason, |app| app.output().matches(reason).count() > before);
}

/// A number that testpmd prints behind `key`.
fn number(text: &str, key: &str) -> u64 {
    let word = text.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key} in:\n{text}"))
}

/// A rule arrives at the daemon as it was typed, goes when it is destroyed or flushed, and is there again for the next daemon, before
/// that makes rings.
#[test]
fn rules_reach_each_daemon() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = start(&folder);
    let rule =
        "priority 3 ingress pattern eth / ipv4 src is 10.0.0.1 / udp dst is 53 / end actions queue index 3 / end";
    assert!(create(&mut app, rule).contains("Flow rule #0 created"));
    assert!(create(&mut app, "ingress pattern eth / end actions drop / end").contains("Flow rule #1 created"));
    let rules = daemon.flow_rules();
    let [first, second] = &rules[..] else { panic!("{rules:?}") };
    let addresses = AddressPattern::V4 { src: Masked::new(0x0a00_0001, !0), dst: Masked::default() };
    let ports = PortsPattern { src: Masked::default(), dst: Masked::new(53, !0) };
    assert_eq!(first.pattern.ip, Some(IpPattern { addresses, transport: TransportPattern::Udp(ports) }));
    assert_eq!((first.slot, first.priority, first.queue, first.told), (0, 3, Some(3), false));
    assert_eq!((first.action, second.action), (FlowAction::Pass, FlowAction::Drop));

    drop(daemon);
    let daemon = Daemon::start(&folder.socket(), flooding());
    app.wait_for("the rules", |_| daemon.flow_rules().len() == 2 && daemon.setups() == 1);
    assert_eq!(daemon.flow_rules(), rules);
    assert_eq!(daemon.early_flow_rules(), 2);
    assert!(app.command("flow destroy 0 rule 0").contains("Flow rule #0 destroyed"));
    assert_eq!(daemon.flow_rules(), rules[1..]);
    app.command("flow flush 0");
    assert_eq!(daemon.flow_rules(), []);
    app.quit();
}

/// What a rule counts is what the application gets while it holds, or would have got; the rest of the port goes on.
#[test]
fn packets_are_counted_and_dropped() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = start(&folder);
    let rule = "ingress pattern eth / end actions count / mark id 7 / end";
    assert!(create(&mut app, rule).contains("created"));
    app.wait_for("hits", |app| number(&app.command("flow query 0 0 count"), "hits: ") > 1000);
    let text = app.command("flow query 0 0 count");
    assert_eq!(number(&text, "bytes: "), 64 * number(&text, "hits: "));
    app.command("flow destroy 0 rule 0");
    assert_eq!(app.xstat("rx_kopi_flow_dropped"), 0);

    assert!(create(&mut app, "ingress pattern eth / end actions drop / count / end").contains("created"));
    assert_eq!(daemon.flow_rules()[0].action, FlowAction::Pass);
    app.wait_for("drops", |app| app.xstat("rx_kopi_flow_dropped") > 1000);
    assert!(number(&app.command("flow query 0 0 count"), "hits: ") > 1000);
    // testpmd takes its rules away when it stops a port.
    app.command("stop");
    app.command("port stop 0");
    assert_eq!(daemon.flow_rules(), []);
    app.command("port start 0");
    app.command("start");
    let (dropped, packets) = (app.xstat("rx_kopi_flow_dropped"), app.xstat("rx_good_packets"));
    app.wait_for("packets", |app| app.xstat("rx_good_packets") > packets + 1000);
    assert_eq!(app.xstat("rx_kopi_flow_dropped"), dropped);
    assert_eq!(app.xstat("kopi_peer_faults"), 0);
    app.quit();
}

/// What cannot be is refused at once, and so is what the daemon refuses; a daemon of before has no rules, and gets none.
#[test]
fn refusals_reach_the_application() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = start(&folder);
    for (rule, text) in [
        ("egress pattern eth / end actions drop / end", "rules are for ingress"),
        ("ingress group 1 pattern eth / end actions drop / end", "only group 0"),
        ("ingress pattern eth / ipv4 ttl is 3 / end actions drop / end", "protocol and addresses"),
        ("ingress pattern eth / end actions queue index 4 / end", "RX queues"),
        ("ingress pattern eth / end actions rss queues 0 1 end / end", "all RX queues"),
        ("ingress pattern eth / sctp / end actions drop / end", "items are"),
    ] {
        refused(&mut app, &format!("flow create 0 {rule}"), text);
    }
    let rule = "ingress pattern eth / ipv6 / end actions drop / end";
    assert!(app.command(&format!("flow validate 0 {rule}")).contains("Flow rule validated"));
    assert_eq!(daemon.flow_rules(), []);
    assert!(create(&mut app, rule).contains("created"));
    refused(&mut app, &format!("flow create 0 {rule}"), "there is a rule of this priority");
    daemon.refuse_flow_rules();
    let other = "flow create 0 ingress pattern eth / ipv4 / end actions drop / end";
    refused(&mut app, other, "refused by the daemon, which says why in the log");
    assert!(app.output().contains("flow rule: refused by the daemon: no such rules here"));
    assert_eq!(daemon.flow_rules().len(), 1);
    refused(&mut app, "flow isolate 0 1", "it cannot be isolated");

    drop(daemon);
    let daemon = Daemon::start(&folder.socket(), Behaviour { protocol: OLDEST_PROTOCOL, ..flooding() });
    app.wait_for("the older daemon", |_| daemon.setups() == 1);
    app.wait_for("a warning", |app| app.output().contains("too old for flow rules: none is in force"));
    refused(&mut app, other, "this kopid is too old for flow rules: ");
    drop(daemon);
    let daemon = Daemon::start(&folder.socket(), flooding());
    app.wait_for("the rule again", |_| daemon.flow_rules().len() == 1 && daemon.setups() == 1);
    app.quit();
}

/// All rules that a port can have are made, one more is refused, and the next daemon gets them.
#[test]
fn a_port_has_256_rules() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = start(&folder);
    let rule =
        |n: u32| format!("ingress pattern eth / ipv4 src is 10.0.{}.{} / end actions drop / end", n / 256, n % 256);
    for n in 0..256 {
        assert!(create(&mut app, &rule(n)).contains("created"), "rule {n}");
    }
    refused(&mut app, &format!("flow create 0 {}", rule(256)), "up to 256 flow rules");
    drop(daemon);
    let daemon = Daemon::start(&folder.socket(), flooding());
    app.wait_for("the rules", |_| daemon.setups() == 1);
    assert_eq!(daemon.early_flow_rules(), 256);
    app.quit();
}

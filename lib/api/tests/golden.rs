//! The keys of every answer and request are an interface: scripts and kopictl of other releases read them.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test, which the lints do not see")]

use kopi_api::capture::Session;
use kopi_api::explain::Missed;
use kopi_api::request::{self, Way, Which};
use kopi_api::stats::Device;
use kopi_api::status::{Host, InForce, Worker};
use kopi_api::{App, Class, Drops, Explained, Flow, Log, Port, Reloaded, Request, Rule, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Answers as kopid gave them, some of them long ago.
const RECORDED: &str = include_str!("../../../ctl/tests/recorded.json");

/// The keys of `row` in the order in which they are sent, with those below them as `above.key`.
fn keys(row: &impl Serialize) -> String {
    let text = serde_json::to_string(row).expect("rows are JSON");
    let (mut keys, mut above, mut last) = (Vec::new(), Vec::new(), "");
    // No text in these rows has a quotation mark or a brace in it.
    for (at, part) in text.split('"').enumerate() {
        if at % 2 == 1 {
            last = part;
            continue;
        }
        if part.starts_with(':') {
            keys.push([above.as_slice(), &[last]].concat().join("."));
        }
        for brace in part.chars() {
            match brace {
                '{' => above.push(last),
                '}' => drop(above.pop()),
                _ => {}
            }
        }
    }
    keys.iter().map(|key| key.trim_start_matches('.')).collect::<Vec<_>>().join(" ")
}

/// kopid sends exactly these keys.
#[test]
fn answers_have_their_keys() {
    let device = Some(Device::default());
    assert_eq!(
        keys(&App::default()),
        "all_multicast cgroup comm connections connections_limit connections_refused container driver drops exe flow_rules \
         fragments fragments_shared gid huge_pages label mac macs memory mtu name pid pod port promiscuous queues queues.rx queues.tx \
         runtime rx_bytes rx_packets sealed state tx_bytes tx_packets uid user user_connections user_connections_limit"
    );
    assert_eq!(keys(&Port::default()), "copies drops port rx_bytes rx_packets tx_bytes tx_packets");
    assert_eq!(
        keys(&Port { device, ..Port::default() }),
        "copies device device.rx_errors device.rx_missed device.rx_no_mbuf device.tx_errors drops port rx_bytes rx_packets \
         tx_bytes tx_packets"
    );
    assert_eq!(keys(&Log::default()), "level configured");
    assert_eq!(keys(&Drops::default()), "app packets reason rule stage");
    assert_eq!(keys(&Rule::default()), "action bytes class line log match name owner packets");
    assert_eq!(
        keys(&Class::default()),
        "backlog_bytes backlog_packets bits_per_second bytes ceil delay_p50_ns delay_p99_ns direction dropped dropped_codel \
         dropped_full leaf name overlimits packets parent priority rate weight"
    );
    assert_eq!(
        keys(&Flow::default()),
        "app direction proto src src_port dst dst_port vlan packet state ct_state begun age_seconds idle_seconds packets \
         bytes bits_per_second class rule cause verdict pid uid user comm container pod"
    );
}

/// The same for answers of one row, whose keys are sorted when they are sent.
#[test]
fn single_rows_have_their_keys() {
    let whole = Status {
        host: Some(Host::default()),
        policy: Some(InForce::default()),
        workers: vec![Worker::default()],
        ..Status::default()
    };
    assert_eq!(
        sorted(&whole),
        "apps captures connections copies copies.measured copies.rx copies.tx dpdk dpdk_built flows host host.from_kernel host.state host.tap host.to_kernel idle mbufs \
         mbufs.free mbufs.total pid policy policy.apps policy.confirm_seconds policy.connections \
         policy.connections.bad_checksums policy.connections.begun policy.connections.capacity policy.connections.evicted \
         policy.connections.per_app policy.connections.per_user policy.connections.refused policy.connections.swept \
         policy.connections.used policy.file policy.rules policy.tracks protocol ring_memory ring_memory.kept ring_memory.total \
         ring_memory.used snapshots uptime_seconds version wire wire.checksums_finished wire.device wire.driver wire.link \
         wire.mac wire.mtu wire.speed_mbps workers workers.answers_withheld workers.asleep workers.asleep_seconds \
         workers.busy workers.busy_seconds workers.busy_turns workers.cpu workers.flow_capacity workers.flow_evictions \
         workers.flow_misses workers.flows workers.flows_crowded workers.handed_over workers.longest_turn_ns \
         workers.sleeps workers.turns"
    );
    assert!(serde_json::to_string(&Status::default()).is_ok_and(|text| text.contains("\"host\":null")));
    assert_eq!(sorted(&Reloaded::default()), "confirm_seconds file rules warnings");
    let missed = vec![Missed::default()];
    assert_eq!(
        sorted(&Explained { missed, ..Explained::default() }),
        "app cause class decision direction line missed missed.fields missed.rule packet passed payload rule state"
    );
    assert_eq!(
        sorted(&Session::default()),
        "captured disk_full dropped error file_bytes jit received seen session state why"
    );
}

fn sorted(row: &impl Serialize) -> String {
    keys(&serde_json::to_value(row).expect("rows are JSON"))
}

/// What older daemons have said is understood, and what they did not say has a default value.
#[test]
fn recorded_answers_are_read() {
    let recorded: Value = serde_json::from_str(RECORDED).expect("it is JSON");
    fn rows<T: DeserializeOwned>(recorded: &Value, name: &str) -> Vec<T> {
        serde_json::from_value(recorded[name].clone()).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
    let status: Vec<Status> = rows(&recorded, "status");
    assert_eq!((status[0].flows, status[0].captures, &*status[0].idle), (7, 0, "adaptive"));
    assert_eq!(status[0].policy.as_ref().map(|policy| (policy.connections.used, policy.rules)), Some((7, 3)));
    assert_eq!(rows::<App>(&recorded, "apps")[1].uid, Some(4242));
    assert_eq!(rows::<Port>(&recorded, "stats").iter().filter(|port| port.device.is_some()).count(), 1);
    assert_eq!(rows::<Drops>(&recorded, "drops")[2].rule.as_deref(), Some("no-smtp"));
    assert_eq!(rows::<Rule>(&recorded, "rules")[0].line, Some(12));
    let flows: Vec<Flow<'_>> = rows(&recorded, "flows");
    assert_eq!((flows[1].age_seconds, flows[1].bits_per_second, &*flows[1].packet), (1, None, ""));
    assert_eq!(rows::<Reloaded>(&recorded, "reload")[0].confirm_seconds, Some(60));
    assert_eq!(rows::<Explained>(&recorded, "explain")[0].missed[1].fields, ["src", "owner"]);
}

/// A key that is not known means nothing, whichever release has it.
#[test]
fn strange_keys_are_passed_over() {
    let drops: Drops = serde_json::from_str(r#"{"packets":3,"colour":["red"]}"#).expect("a row");
    assert_eq!((drops.packets, &*drops.app), (3, ""));
}

/// What is wrong with an argument is said in the words of operators.
#[test]
fn arguments_are_read_or_refused() {
    let read = |text: &str| {
        let arguments = serde_json::from_str(text).expect("it is JSON");
        request::arguments::<request::Explain>("explain", &arguments)
    };
    let asked = read(r#"{"app":"a","packet":"p","state":null}"#).expect("all is there");
    assert_eq!((asked.direction, asked.state), (request::Direction::Egress, request::ConnectionState::New));
    let asked = read(r#"{"app":"a","packet":"p","direction":"ingress","state":"established"}"#).expect("all is there");
    assert_eq!((asked.direction, asked.state), (request::Direction::Ingress, request::ConnectionState::Established));
    for (text, error) in [
        (r#"{"app":"a","packet":"p","stat":"new"}"#, "`explain` has no argument `stat`"),
        (r#"{"app":"a"}"#, "`packet` is missing"),
        (r#"{"app":7,"packet":"p"}"#, "`explain`, `app`: invalid type: integer `7`, expected a string"),
        (r#"{"app":"a","packet":"p","wire":null}"#, "`explain` has no argument `wire`"),
    ] {
        assert_eq!(read(text).unwrap_err(), error);
    }
    assert!(read(r#"{"app":"a","packet":"p","state":"x"}"#).is_err_and(|error| error.contains("`established`")));
}

/// A request has what is asked for and nothing else, and every argument keeps its key.
#[test]
fn requests_have_their_keys() {
    assert_eq!(Request::plain("apps").line(), "{\"command\":\"apps\"}\n");

    let nothing = request::Capture::default();
    assert_eq!(Request::new("capture", &nothing).line(), "{\"command\":\"capture\"}\n");
    let names = || vec!["x".to_owned()];
    let whole = request::Capture {
        filter: Some(String::new()),
        interfaces: names(),
        direction: Some(Way::InOut),
        which: Some(Which::Passed),
        app: names(),
        user: names(),
        group: names(),
        comm: names(),
        exe: names(),
        cgroup: names(),
        container: names(),
        pod: names(),
        pid: vec![7],
        rule: names(),
        reason: names(),
        snap: Some(1),
        count: Some(1),
        bytes: Some(1),
        seconds: Some(0.5),
        sample: Some(1),
        buffer: Some(1),
        file_bytes: Some(1),
    };
    let request = Request::new("capture", &whole);
    let known: Vec<&str> = request.arguments.keys().map(String::as_str).collect();
    assert_eq!(
        known.join(" "),
        "app buffer bytes cgroup comm container count direction exe file_bytes filter group interfaces pid pod reason rule sample seconds \
         snap user which"
    );
    assert_eq!((&request.arguments["direction"], &request.arguments["which"]), (&"inout".into(), &"passed".into()));
    let read = Request::read(request.line().as_bytes()).expect("a request");
    assert_eq!(serde_json::from_value::<request::Capture>(Value::Object(read.arguments)).ok(), Some(whole));
    assert!(serde_json::from_str::<request::Capture>(r#"{"colour":"red"}"#).is_err());
    assert!(Request::read(b"{\"app\":1}").is_err_and(|error| error.contains("missing field `command`")));
}

//! Long lists that operators read, quickly or slowly.

use crate::operators::{LIMIT, ends, operator_of_eve, others_go_on};
use kopi_testkit::frames::{Ends, framed};
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Piped, Settings, TempDir, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;

/// Flows of a list that is far longer than what is in memory of it.
const MANY: usize = 20_000;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A kopid with so many flows of an app, but for a few that a full bucket had no room for.
struct Flows {
    kopid: Kopid,
    app: Piped,
    /// How many there are.
    count: usize,
    sent: usize,
}

impl Flows {
    fn begin(dir: &TempDir, policy: Option<&str>) -> Self {
        let policy = policy.map(str::to_owned);
        let settings = Settings { huge_pages: "off", log: "warn", policy, ..Settings::default() };
        let kopid = Kopid::start(dir, &settings);
        let app = Piped::client(dir, &kopid, "many", "02:00:00:00:00:0b", &Launch::default(), &[]);
        drop(kopid.await_app("many"));
        let mut flows = Self { kopid, app, count: 0, sent: 0 };
        flows.refresh();
        // On a busy machine the first ones may be forgotten before the last ones come.
        flows.refresh();
        flows.count = flows.kopid.status()["flows"].as_u64().and_then(|n| n.try_into().ok()).expect("a number");
        assert!(flows.count > MANY - 200, "{}", flows.count);
        flows
    }

    /// Sends a frame of each flow, and waits until kopid has them. A flow is forgotten after 30 idle seconds, and on a busy machine a
    /// list can take as long.
    fn refresh(&mut self) {
        for n in 0..MANY {
            let [.., high, low] = (n / 5000 + 1).to_be_bytes();
            let ends = Ends { source: Ipv4Addr::new(10, 0, high, low), destination: Ipv4Addr::new(10, 9, 9, 9), id: 0 };
            let port = u16::try_from(1024 + n % 5000).expect("a port");
            // Some are longer than others, so that rates differ.
            self.app.send(&framed([2, 9, 9, 9, 9, 9], MAC, &ends.udp((port, 7), &[0; 99][..n % 100])));
        }
        self.sent += MANY;
        let sent = u64::try_from(self.sent).expect("a number");
        wait_until("all frames are there", SOON, || self.kopid.counter("many", "tx_packets") >= sent);
    }

    /// The answer to this request, for flows that are all there.
    fn ask(&mut self, request: &Value) -> Vec<Value> {
        self.refresh();
        let answer = self.kopid.exchange_within(request, SOON).expect("kopid answers");
        answer["flows"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }

    /// What `kopictl` prints with these arguments.
    fn kopictl(&mut self, arguments: &[&str]) -> Vec<u8> {
        self.refresh();
        self.kopid.kopictl(arguments).stdout
    }
}

/// A list of flows comes in parts, whole, as one object on one line, each flow once; so many of them, or those with the highest rate, if
/// that is asked for. kopictl shows the same. Meanwhile others are answered.
#[test]
fn long_lists_come_whole() {
    let dir = TempDir::new("operators-lists");
    let mut flows = Flows::begin(&dir, None);
    let many = flows.count;
    let all = flows.ask(&json!({ "command": "flows" }));
    let names: BTreeSet<_> = all.iter().map(|flow| flow["packet"].as_str().map(str::to_owned)).collect();
    assert_eq!((all.len(), names.len()), (many, many));
    assert_eq!(flows.ask(&json!({ "command": "flows", "limit": 700 })).len(), 700);
    let rate = |flow: &Value| flow["bits_per_second"].as_u64();
    let highest = flows.ask(&json!({ "command": "flows", "limit": 50, "sort": "rate" }));
    assert!(highest.len() == 50 && highest.is_sorted_by(|a, b| rate(a) >= rate(b)), "{highest:?}");
    let of_port = flows.ask(&json!({ "command": "flows", "port": 1025 }));
    assert!(matches!(of_port.len(), 1..=4) && of_port.iter().all(|flow| flow["src_port"] == 1025), "{of_port:?}");

    assert_eq!(String::from_utf8_lossy(&flows.kopictl(&["flows"])).lines().count(), many + 1);
    let listed: Value = serde_json::from_slice(&flows.kopictl(&["--json", "flows"])).expect("JSON");
    assert_eq!(listed["flows"].as_array().map(Vec::len), Some(many));
    let sorted = flows.kopictl(&["--json", "flows", "--sort", "rate", "--limit", "5"]);
    let sorted = serde_json::from_slice::<Value>(&sorted).expect("JSON");
    assert_eq!(sorted["flows"].as_array().map(Vec::len), Some(5));
    flows.app.finish();
    ends(flows.kopid, "lists were read");
}

/// Memory of a process that is its own, in bytes.
fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Operators of a user begin to read long lists from as many connections as they may have, and stop. kopid has a part of a list for each,
/// and not a list; who reads on later gets the rest; another user is answered.
#[test]
fn lists_that_are_not_read_take_little() {
    /// What kopid may have for a connection: a part of the list as text, the next one, and a thread's stack.
    const EACH: u64 = 1 << 20;
    let dir = TempDir::new("operators-slow");
    let mut flows = Flows::begin(&dir, None);
    let pid = u32::try_from(flows.kopid.status()["pid"].as_u64().expect("a number")).expect("a pid");
    // What a list takes once, such as memory that the workers fill in, is there before.
    assert_eq!(flows.ask(&json!({ "command": "flows" })).len(), flows.count);
    flows.refresh();
    let before = memory_of(pid);
    let crowd: Vec<_> = (0..48).map(|_| operator_of_eve(&flows.kopid)).collect();
    for mut operator in &crowd {
        operator.write_all(b"{\"command\": \"flows\"}\n").expect("it is taken");
        operator.set_read_timeout(Some(LIMIT)).expect("a socket");
        operator.read_exact(&mut [0; 1000]).expect("a list begins");
    }
    others_go_on(&flows.kopid, "lists are not read");
    let grown = memory_of(pid).saturating_sub(before);
    assert!(grown < EACH * 48, "kopid has taken {grown} bytes for 48 lists that nobody reads");
    // Of a list that is held in memory as text there would be more.
    let list = flows.kopictl(&["--json", "flows"]).len();
    assert!(u64::try_from(list).is_ok_and(|list| list > 4 * EACH), "the list has {list} bytes");
    let mut rest = String::new();
    BufReader::new(&crowd[7]).read_line(&mut rest).expect("the list goes on");
    assert!(rest.ends_with("]}\n") && rest.len() + 1000 > list / 2, "{} bytes of {list}", rest.len());
    drop(crowd);
    flows.app.finish();
    ends(flows.kopid, "lists were not read");
}

/// A policy that comes into force while an operator reads a list takes no rule and no class from flows that were copied before, and of the
/// others it is said that they were judged before. None is said to pass that was dropped.
#[test]
fn lists_know_the_policy_that_they_are_of() {
    const POLICY: &str = "[[class]]\nname = \"slow\"\n[[rule]]\nname = \"in-slow\"\nmatch = { proto = \"udp\" }\n\
                          action = \"class\"\nclass = \"slow\"\n[[rule]]\nname = \"mine\"\nmatch = { dst_port = 7 }\naction = \"drop\"\n";
    let dir = TempDir::new("operators-reload");
    let mut flows = Flows::begin(&dir, Some(POLICY));
    let operator = operator_of_eve(&flows.kopid);
    flows.refresh();
    (&operator).write_all(b"{\"command\": \"flows\"}\n").expect("it is taken");
    operator.set_read_timeout(Some(LIMIT)).expect("a socket");
    let mut answer = vec![0; 1000];
    (&operator).read_exact(&mut answer).expect("a list begins");
    flows.kopid.reload("[[class]]\nname = \"other\"\n").expect("the policy is good");
    BufReader::new(&operator).read_until(b'\n', &mut answer).expect("the list goes on");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let rows = answer["flows"].as_array().expect("a list");
    assert!(answer["error"].is_null() && rows.len() > 600, "{} flows, {}", rows.len(), answer["error"]);
    let (before, after): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["cause"] == "rule");
    assert!(before.len() > 256 && !after.is_empty(), "{} and {}", before.len(), after.len());
    for row in before {
        assert_eq!(
            (&row["rule"], &row["class"], &row["verdict"]),
            (&json!("mine"), &json!("slow"), &json!("drop")),
            "{row}"
        );
    }
    for row in after {
        assert_eq!(
            (&row["cause"], &row["rule"], &row["class"]),
            (&json!("outdated"), &Value::Null, &Value::Null),
            "{row}"
        );
        assert_eq!(row["verdict"], "drop", "{row}");
    }
    let text = flows.kopid.kopictl(&["flows", "--limit", "1"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("(outdated)"), "{text:?}");
    flows.app.finish();
    ends(flows.kopid, "a policy was replaced");
}

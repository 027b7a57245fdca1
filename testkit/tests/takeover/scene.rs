//! A network namespace with an interface that is taken over, one that takes it over, and a third one.

use kopi_testkit::TempDir;
use kopi_testkit::machine::{built, require_root, run, unique};
use kopi_testkit::wait::{SOON, wait_for};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The interface that is taken over, and the one that stands for the kernel's port.
pub(crate) const NEAR: &str = "near";
pub(crate) const TAP: &str = "kopi0";
/// All interfaces, each pair of them in a row.
const PAIRS: [[&str; 2]; 3] = [[NEAR, "far"], [TAP, "wire"], ["other", "else"]];
/// What changes with time, or with the making of an interface.
const PASSING: [&str; 3] = ["ifindex", "link_index", "peer_ifindex"];
/// Times that are left, in seconds.
const TIMES: [&str; 3] = ["valid_life_time", "preferred_life_time", "expires"];
/// Without an end.
const FOREVER: u64 = 0xffff_ffff;

pub(crate) struct Scene {
    name: String,
    dir: TempDir,
}

/// What `ip` shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) addresses: Vec<Value>,
    /// Of all tables but those that the kernel makes for its own addresses, and those to link-local addresses, which are below.
    pub(crate) routes: Vec<Value>,
    /// Those whose order counts for nobody, sorted.
    local: Vec<String>,
    others: Vec<Value>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        require_root();
        let scene = Self {
            name: format!("kopi-test-{}-{}-takeover", std::process::id(), unique()),
            dir: TempDir::new("takeover"),
        };
        run("ip", &["netns", "add", &scene.name]);
        // Addresses are not checked for duplicates here, which takes a second for each interface.
        let all = ["all", "default"].map(|of| format!("net.ipv6.conf.{of}.accept_dad=0"));
        scene.inside("sysctl", &["-qw", &all[0], &all[1], "net.ipv4.ip_forward=0"]);
        let mut script = "link set lo up\n".to_owned();
        for [one, two] in PAIRS {
            script += &format!("link add {one} type veth peer name {two}\nlink set {one} up\nlink set {two} up\n");
        }
        script += "address add 172.16.0.1/24 dev other\naddress add fdaa::1/64 dev other\n";
        assert!(scene.batch(&script), "the interfaces can be made");
        scene
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn inside(&self, program: &str, args: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.name, program], args].concat())
    }

    /// Runs commands of `ip`, each on a line; those that fail keep the others from nothing. Returns whether none did.
    pub(crate) fn batch(&self, commands: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["-netns", &self.name, "-force", "-batch", "-"]).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).spawn().expect("ip can be run");
        child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("ip reads");
        child.wait().expect("ip ends").success()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("takeover.json")
    }

    pub(crate) fn takeover(&self, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(built("kopictl"));
        command.args(["takeover", NEAR, "--tap", TAP, "--state"]).arg(self.state()).args(args);
        command.output().expect("kopictl can be run")
    }

    fn ip(&self, words: &str) -> Vec<Value> {
        let all = format!("-netns {} -json -details {words}", self.name);
        let shown = run("ip", &all.split(' ').collect::<Vec<_>>());
        // Of nothing, it shows nothing.
        if shown.trim().is_empty() { Vec::new() } else { serde_json::from_str(&shown).expect("it is JSON") }
    }

    /// What there is, once the kernel has come to rest.
    pub(crate) fn shown(&self) -> Shown {
        let links = wait_for("addresses are checked", SOON, || {
            let links = self.ip("address show");
            let settled = |of: &Value| {
                of["addr_info"].as_array().is_some_and(|all| all.iter().all(|of| of.get("tentative").is_none()))
            };
            links.iter().all(settled).then_some(links)
        });
        let [near, tap] = [NEAR, TAP].map(|name| links.iter().position(|link| link["ifname"] == name));
        let of = |at: Option<usize>| at.map_or(Value::Null, |at| links[at]["addr_info"].clone());
        let own =
            |route: &Value| route["table"] == "local" && route["protocol"] == "kernel" && route["type"] != "unicast";
        let mut routes: Vec<Value> = [self.ip("-4 route show table all"), self.ip("-6 route show table all")].concat();
        routes.retain(|route| !own(route));
        let unordered =
            |route: &Value| route["dst"].as_str().is_some_and(|to| to.starts_with("fe80:") || to.starts_with("ff"));
        let (local, routes): (Vec<_>, Vec<_>) = routes.into_iter().partition(unordered);
        let mut local: Vec<String> = local.iter().map(Value::to_string).collect();
        local.sort();
        let others = [
            "nexthop show",
            "rule show",
            "-6 rule show",
            "neigh show nud permanent",
            "-6 neigh show proxy",
            "neigh show proxy",
        ];
        let mut others: Vec<Value> = others.iter().map(|words| Value::from(self.ip(words))).collect();
        // Neighbours are shown in the order of a hash that is seeded.
        others.iter_mut().skip(3).for_each(|rows| rows.as_array_mut().expect("an array").sort_by_key(Value::to_string));
        Shown { addresses: vec![of(near), of(tap)], routes, local, others }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

impl Shown {
    /// With every time as one of three: none, some, all. And the times by themselves.
    pub(crate) fn timeless(self) -> (Self, Vec<u64>) {
        let mut times = Vec::new();
        let mut of = |rows: Vec<Value>| rows.into_iter().map(|row| timeless(row, &mut times)).collect::<Vec<_>>();
        let addresses = of(self.addresses);
        let (routes, others) = (of(self.routes), of(self.others));
        let rows = self.local.iter().map(|row| serde_json::from_str(row).expect("it was JSON")).collect();
        let mut local: Vec<String> = of(rows).iter().map(Value::to_string).collect();
        local.sort();
        // Which of those without an order comes first is not to be compared.
        (Self { addresses, routes, local, others }, times)
    }

    /// As if all of the one interface were the other's.
    pub(crate) fn on_tap(&self) -> Vec<Value> {
        let text = Value::from(self.routes.clone()).to_string().replace("\"dev\":\"near\"", "\"dev\":\"kopi0\"");
        serde_json::from_str(&text).expect("it is JSON")
    }
}

/// Fails with what only one of them has, if they differ.
pub(crate) fn same(before: &Shown, after: &Shown, about: &str) {
    let lines = |shown: &Shown| -> Vec<String> {
        let rows = |rows: &[Value]| rows.iter().map(Value::to_string).collect::<Vec<_>>();
        let nested = shown.addresses.iter().chain(&shown.others).filter_map(Value::as_array).flat_map(|of| rows(of));
        nested.chain(rows(&shown.routes)).chain(shown.local.clone()).collect()
    };
    same_lines(&lines(before), &lines(after), about);
    assert_eq!(before, after, "{about}");
}

/// The same for rows.
pub(crate) fn same_rows(before: &[Value], after: &[Value], about: &str) {
    let lines = |rows: &[Value]| rows.iter().map(Value::to_string).collect::<Vec<_>>();
    same_lines(&lines(before), &lines(after), about);
}

fn same_lines(before: &[String], after: &[String], about: &str) {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("\n    {line}")).collect::<String>()
    };
    let (gone, new) = (only(before, after), only(after, before));
    let order = before.iter().zip(after).find(|(a, b)| a != b);
    assert!(before == after, "{about}\ngone:{gone}\nnew:{new}\nthe first that differ:\n{order:#?}");
}

fn timeless(value: Value, times: &mut Vec<u64>) -> Value {
    match value {
        Value::Object(map) => {
            let mut new = Map::new();
            for (key, value) in map {
                if TIMES.contains(&key.as_str()) {
                    let seconds = value.as_u64().unwrap_or(FOREVER);
                    if seconds != FOREVER && seconds != 0 {
                        times.push(seconds);
                    }
                    new.insert(
                        key,
                        json!(if seconds == FOREVER {
                            "ever"
                        } else if seconds == 0 {
                            "none"
                        } else {
                            "some"
                        }),
                    );
                } else if !PASSING.contains(&key.as_str()) {
                    new.insert(key, timeless(value, times));
                }
            }
            Value::Object(new)
        }
        Value::Array(rows) => rows.into_iter().map(|row| timeless(row, times)).collect(),
        other => other,
    }
}

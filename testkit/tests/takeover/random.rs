//! Random configurations.

use super::scene::{NEAR, Scene, TAP, same, same_rows};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use std::time::Instant;

/// Configurations that are tried, and how often a bad one is made smaller.
const CASES: u32 = 40;
const SHRINKS: u32 = 60;

fn words(all: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    select(all)
}

fn pick(all: &'static [&'static str]) -> BoxedStrategy<&'static str> {
    // Most attributes are not given.
    prop_oneof![2 => Just(""), 1 => words(all)].boxed()
}

fn joined(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

fn address() -> impl Strategy<Value = String> {
    let times =
        ["valid_lft 3600 preferred_lft 1800", "valid_lft 7200 preferred_lft 0", "valid_lft forever preferred_lft 0"];
    let times = prop_oneof![3 => Just(""), 1 => select(times.to_vec())];
    let four = (0..3_u8, 1..4_u8, words(&["/24", "/32", "/30"]), pick(&["brd +", "brd 10.1.0.200"]), times.clone());
    let four = (four, pick(&["noprefixroute"]), pick(&["metric 50"]), pick(&["scope link"]), pick(&["label near:web"]));
    let four = four.prop_map(|((net, host, len, brd, times), prefix, metric, scope, label)| {
        let address = format!("address add 10.1.{net}.{host}{len} dev near");
        joined(&[&address, brd, times, prefix, metric, scope, label])
    });
    let six =
        (0..3_u8, 1..4_u8, words(&["/64", "/128"]), times, pick(&["noprefixroute", "home", "nodad", "mngtmpaddr"]));
    let six = (six, pick(&["metric 50", "metric 512"])).prop_map(|((net, host, len, times, flag), metric)| {
        joined(&[&format!("address add fd01:{net}::{host}{len} dev near"), times, flag, metric])
    });
    let others = [
        "address add 10.1.9.1 peer 10.1.9.2/32 dev near",
        "address add fd01:9::1 peer fd01:9::2/128 dev near",
        "address add fe80::77/64 dev near nodad",
        "address add fe80::78/64 dev near noprefixroute",
        "address add 10.1.0.7/24 dev kopi0",
        "address add 10.1.0.8/24 dev other",
        "address add fd01::8/64 dev other",
    ];
    prop_oneof![4 => four, 4 => six, 1 => select(others.to_vec()).prop_map(str::to_owned)]
}

fn route() -> impl Strategy<Value = String> {
    let to = words(&["default", "10.20.0.0/16", "10.21.0.0/16", "10.1.0.0/24", "10.1.1.0/24"]);
    let by = [
        "via 10.1.0.9 dev near",
        "via 10.1.1.9 dev near",
        "via 10.1.2.9 dev near onlink",
        "via 10.20.0.1 dev near",
        "dev near",
        "dev near scope link",
        "via 172.16.0.9",
        "dev other",
        "via inet6 fe80::9 dev near",
        "nhid 1",
        "nhid 10",
        "nhid 11",
        "nexthop via 10.1.0.9 dev near nexthop via 10.1.1.9 dev near weight 4",
        "nexthop via 172.16.0.9 dev other nexthop via 10.1.0.9 dev near onlink",
        "nexthop dev near nexthop via 172.16.0.9",
    ];
    let more = (
        pick(&["metric 100", "metric 200"]),
        pick(&["proto static", "proto dhcp", "proto zebra", "proto kernel", "proto bgp"]),
        pick(&["src 10.1.0.1", "src 10.1.1.1", "src 10.1.0.2"]),
        pick(&["table 100", "table local"]),
        pick(&["mtu lock 1400", "mtu 1300 advmss 1200", "initcwnd 20 rto_min 50ms", "congctl cubic quickack 1"]),
        pick(&["tos 0x10"]),
    );
    let what = words(&["route add", "route append", "route prepend"]);
    let four =
        (what, to, select(by.to_vec()), more).prop_map(|(what, to, by, (metric, proto, src, table, size, tos))| {
            // What begins with next hops ends with them.
            let (behind, before) = if by.starts_with("nexthop") { (by, "") } else { ("", by) };
            joined(&[what, tos, to, before, metric, proto, src, table, size, behind])
        });
    let to = words(&["default", "fd20::/32", "fd21::/32", "fd01::/64", "fd20::/32 from fd01::/16"]);
    let by = [
        "via fd01::9 dev near",
        "via fd01:1::9 dev near",
        "via fe80::9 dev near",
        "via fd01:2::9 dev near onlink",
        "dev near",
        "dev other",
        "via fdaa::9",
        "nhid 2",
        "nhid 12",
        "nexthop via fe80::9 dev near nexthop via fe80::a dev near weight 3",
        "nexthop via fdaa::9 dev other nexthop via fe80::9 dev near",
    ];
    let more = (
        pick(&["metric 100", "metric 2000"]),
        pick(&["proto static", "proto ra", "proto bgp"]),
        pick(&["src fd01::1", "expires 1800", "pref high", "pref low expires 900"]),
        pick(&["table 100"]),
        pick(&["mtu 1400", "hoplimit 10 mtu lock 1300"]),
    );
    let six = (words(&["-6 route add", "-6 route append"]), to, select(by.to_vec()), more);
    let six = six.prop_map(|(what, to, by, (metric, proto, other, table, size))| {
        let what = what.trim_start_matches("-6 ");
        let (behind, before) = if by.starts_with("nexthop") { (by, "") } else { ("", by) };
        joined(&[what, to, before, metric, proto, other, table, size, behind])
    });
    let others = [
        "route del 10.1.0.0/24 dev near proto kernel",
        "route del fd01::/64 dev near",
        "route del fe80::/64 dev near",
        "route add blackhole 10.22.0.0/16",
        "route add local 10.23.0.0/24 dev near",
        "route add throw default table 100",
        "route add 10.24.0.0/16 via 172.16.0.9 src 10.1.0.1",
    ];
    prop_oneof![5 => four, 5 => six, 1 => select(others.to_vec()).prop_map(str::to_owned)]
}

fn other() -> impl Strategy<Value = String> {
    words(&[
        "nexthop add id 1 via 10.1.0.9 dev near proto zebra",
        "nexthop add id 2 via fe80::9 dev near proto zebra",
        "nexthop add id 3 via 172.16.0.9 dev other",
        "nexthop add id 4 via 10.1.1.9 dev near onlink",
        "nexthop add id 5 dev near",
        "nexthop add id 6 via fdaa::9 dev other",
        "nexthop add id 10 group 1/3,7",
        "nexthop add id 11 group 1/4/3 type resilient buckets 8 idle_timer 60",
        "nexthop add id 12 group 2,3/6",
        "neigh add 10.1.0.50 lladdr 02:00:00:00:00:50 dev near",
        "neigh add fd01::50 lladdr 02:00:00:00:00:51 dev near router",
        "neigh add proxy 10.1.0.60 dev near",
        "neigh add proxy fd01::60 dev near",
        "rule add iif near lookup 100 pref 100",
        "rule add oif near lookup 100 pref 100",
        "rule add from 10.1.0.1 lookup 100 pref 100",
        "rule add not fwmark 7 iif near lookup 200 pref 50 suppress_prefixlength 0",
        "rule add iif other lookup 100 pref 100",
        "link set near down",
    ])
    .prop_map(str::to_owned)
}

/// What happens between the takeover and the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Again,
    TapIsDeleted,
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    select(vec![Meanwhile::Nothing, Meanwhile::Again, Meanwhile::TapIsDeleted])
}

fn check(commands: &[Vec<String>; 4], meanwhile: Meanwhile) {
    let scene = Scene::new();
    // Objects for next hops need addresses, and routes need both.
    let commands: String = commands.concat().iter().map(|line| format!("{line}\n")).collect();
    scene.batch(&commands);
    let begun = Instant::now();
    let (before, times) = scene.shown().timeless();
    let taken = scene.takeover(&[]);
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    let (after, _) = scene.shown().timeless();
    if !taken.status.success() {
        let known = ["there are several of ", "`near` is set down", "of its own, in the network of "];
        let refused = known.iter().any(|known| said.contains(known));
        assert!(refused, "only what is known not to be possible is refused: {said}\n{commands}");
        same(&before, &after, &commands);
        return;
    }
    assert_eq!(after.addresses[0].as_array().map(Vec::len), Some(0), "{NEAR} has no address\n{commands}");
    let mut wanted = before.on_tap();
    // What the port had before, and what was the same on both.
    wanted.dedup();
    same_rows(&wanted, &after.routes, &format!("on {TAP}\n{commands}"));
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::Again => {
            assert!(scene.takeover(&[]).status.success(), "a second time changes nothing\n{commands}");
            same(&after, &scene.shown().timeless().0, &commands);
        }
        Meanwhile::TapIsDeleted => assert!(scene.batch("link del kopi0\n")),
    }
    let undone = scene.takeover(&["--undo"]);
    assert!(undone.status.success(), "{}\n{commands}", String::from_utf8_lossy(&undone.stderr));
    let (after, left) = scene.shown().timeless();
    if meanwhile == Meanwhile::TapIsDeleted {
        let rows = |of: &Value| of.as_array().expect("an array").clone();
        same_rows(&rows(&before.addresses[0]), &rows(&after.addresses[0]), &commands);
        let others = |routes: &[Value]| -> Vec<Value> {
            routes.iter().filter(|route| !route.to_string().contains(TAP)).cloned().collect()
        };
        same_rows(&others(&before.routes), &after.routes, &commands);
    } else {
        same(&before, &after, &commands);
        let passed = begun.elapsed().as_secs() + 3;
        let kept = times.iter().zip(&left).all(|(before, after)| after <= before && after + passed >= *before);
        assert!(kept && times.len() == left.len(), "{times:?} {left:?}\n{commands}");
    }
    assert!(!scene.state().exists());
}

/// Whatever an interface has, it is on the kernel's port, in its place among what others have, and comes back with nothing lost and
/// nothing added, also when the port was deleted meanwhile. What is refused is untouched.
#[test]
fn random_configurations_come_back() {
    let lists = (
        prop::collection::vec(address(), 0..6),
        prop::collection::vec(other(), 0..6),
        prop::collection::vec(route(), 0..10),
        prop::collection::vec(other(), 0..3),
    );
    // More of them if `PROPTEST_CASES` says so.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, max_shrink_iters: SHRINKS, failure_persistence: None, ..Config::default() };
    // The same ones each time, or others for whoever asks for more.
    let mut runner = match std::env::var_os("PROPTEST_CASES") {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(config),
    };
    let outcome = runner.run(&(lists, meanwhile()), |((addresses, first, routes, second), meanwhile)| {
        check(&[addresses, first, routes, second], meanwhile);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

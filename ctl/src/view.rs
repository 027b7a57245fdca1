//! kopid's answers for people.

mod classes;
mod policy;
mod rates;
pub(crate) mod table;

pub(crate) use classes::classes;
pub(crate) use policy::{Flows, explained, reloaded, rules};
pub(crate) use rates::Rates;

use crate::text::{clean, size, span};
use kopi_api::status::{Copies, InForce, Tracked};
use kopi_api::{App, Drops, Log, Port, Status};
use rates::{Rate, Rated};
use table::Align::{Left, Right};
use table::{Column, table};

/// What stands where nothing is known.
const NONE: &str = "-";

/// Key and value lines.
pub(crate) fn status(rows: &[Status]) -> String {
    rows.iter().map(one_status).collect::<Vec<_>>().join("\n")
}

fn one_status(status: &Status) -> String {
    let wire = &status.wire;
    let speed = if wire.speed_mbps > 0 { format!(", {} Mbit/s", wire.speed_mbps) } else { String::new() };
    let mut lines = vec![
        ("version".to_owned(), status.version.clone()),
        ("pid".into(), status.pid.to_string()),
        ("uptime".into(), span(status.uptime_seconds)),
        ("dpdk".into(), format!("{} (built for {})", status.dpdk, status.dpdk_built)),
        ("protocol".into(), status.protocol.to_string()),
        ("wire".into(), format!("{} ({})", wire.device, wire.driver)),
        ("wire mac".into(), wire.mac.clone()),
        ("wire mtu".into(), wire.mtu.to_string()),
        ("wire link".into(), format!("{}{speed}", wire.link)),
        ("apps".into(), format!("{} (connections: {})", status.apps, status.connections)),
        ("mbufs".into(), format!("{} free of {}", status.mbufs.free, status.mbufs.total)),
        ("flows".into(), status.flows.to_string()),
        ("policy".into(), status.policy.as_ref().map_or_else(|| "none".into(), in_force)),
    ];
    let tracked = status.policy.as_ref().filter(|policy| policy.tracks).map(|policy| &policy.connections);
    // An older daemon does not tell.
    if let Some(Tracked { used, capacity: capacity @ 1.., per_user, per_app, refused, .. }) = tracked {
        let text = format!("{used} of {capacity}, at most {per_user} a user and {per_app} an app, {refused} refused");
        lines.push(("tracked".into(), text));
    }
    if let Some(host) = &status.host {
        lines.push(("host".into(), format!("{}, {}", host.tap, host.state)));
    }
    // An older daemon does not tell.
    if let Copies { tx, rx, measured } = &status.copies
        && !tx.is_empty()
    {
        let why = if *measured { "measured" } else { "not measured" };
        lines.push(("copies".into(), format!("tx by {tx}, rx by {rx}, {why}")));
    }
    for (number, worker) in status.workers.iter().enumerate() {
        let busy = busy_percent(worker.busy_seconds, status.uptime_seconds);
        // An older daemon does not tell.
        let capacity = if worker.flow_capacity > 0 { format!(" of {}", worker.flow_capacity) } else { String::new() };
        let text = format!(
            "cpu {}, busy {:.1} %, asleep {:.1} %, busy {busy} since start, {}{capacity} flows, {} flow misses, {} evictions{}",
            worker.cpu,
            worker.busy * 100.0,
            worker.asleep * 100.0,
            worker.flows,
            worker.flow_misses,
            worker.flow_evictions,
            if worker.flows_crowded { ", too many now: raise `flows` in [dataplane]" } else { "" }
        );
        // One alone has nobody to hand anything to.
        let handed =
            if status.workers.len() > 1 { format!(", {} handed over", worker.handed_over) } else { String::new() };
        lines.push((format!("worker {number}"), text + &handed));
    }
    let width = lines.iter().map(|(key, _)| key.len() + 1).max().unwrap_or(0);
    lines.iter().map(|(key, value)| format!("{:<width$} {}\n", format!("{key}:"), clean(value))).collect()
}

/// The log's level, and the one of the next start if that is another.
pub(crate) fn log_level(rows: &[Log]) -> String {
    let line = |row: &Log| {
        let next =
            if row.level == row.configured { String::new() } else { format!(" (`{}` is configured)", row.configured) };
        format!("{}\n", clean(&format!("{}{next}", row.level)))
    };
    rows.iter().map(line).collect()
}

fn in_force(policy: &InForce) -> String {
    let InForce { file, rules, apps, tracks, confirm_seconds, .. } = policy;
    let file = file.as_deref().unwrap_or("not configured, put in force by an operator");
    let tracked = if *tracks { ", connections are tracked" } else { "" };
    let trial = confirm_seconds.map(|left| format!(", on trial for {left} s")).unwrap_or_default();
    format!("{file}: {rules} rules, {apps} app entries{tracked}{trial}")
}

/// How much memory an app shares with kopid, in what pages, and whether it could make holes in it.
fn memory(app: &App) -> String {
    let pages = if app.huge_pages { ", huge" } else { "" };
    let seals = if app.sealed || app.memory == 0 { "" } else { ", unsealed" };
    format!("{}{pages}{seals}", size(app.memory))
}

/// Share of the time in which a worker moved frames. kopid tells its age in whole seconds, so a young one may seem to
/// have been busy for longer than it lives.
fn busy_percent(busy_seconds: f64, uptime_seconds: u64) -> String {
    match u32::try_from(uptime_seconds) {
        Ok(0) | Err(_) => NONE.into(),
        Ok(uptime) => format!("{:.1} %", (busy_seconds / f64::from(uptime) * 100.0).min(100.0)),
    }
}

/// A row for each app.
pub(crate) fn apps(apps: &[App], wide: bool) -> String {
    if apps.is_empty() {
        return "no apps are attached\n".into();
    }
    let mut columns: Vec<Column<App>> = vec![
        ("PORT", Right, |app| app.port.to_string()),
        ("NAME", Left, |app| app.name.clone()),
        ("PID", Right, |app| pid_of(Some(app.pid))),
        ("USER", Left, |app| user_of(app.user.as_ref(), app.uid)),
        ("COMM", Left, |app| app.comm.clone()),
        ("MAC", Left, |app| or_none(app.mac.as_ref())),
        ("STATE", Left, |app| app.state.clone()),
        ("QUEUES", Left, |app| format!("{}/{}", app.queues.tx, app.queues.rx)),
        ("TX-PKTS", Right, |app| app.tx_packets.to_string()),
        ("RX-PKTS", Right, |app| app.rx_packets.to_string()),
        ("DROPS", Right, |app| app.drops.to_string()),
    ];
    if wide {
        columns.extend::<[Column<App>; 10]>([
            ("MTU", Right, |app| app.mtu.to_string()),
            ("MODES", Left, modes),
            ("MEMORY", Right, memory),
            ("CONNS", Right, |app| format!("{}/{}", app.connections, app.connections_limit)),
            ("USER-CONNS", Right, |app| format!("{}/{}", app.user_connections, app.user_connections_limit)),
            ("REFUSED", Right, |app| app.connections_refused.to_string()),
            ("RULES", Right, |app| app.flow_rules.to_string()),
            ("FRAGS", Right, |app| format!("{}/{}", app.fragments, app.fragments_shared)),
            ("EXE", Left, |app| or_none(app.exe.as_ref())),
            ("CGROUP", Left, |app| or_none(app.cgroup.as_ref())),
        ]);
    }
    // Ids take 64 columns: on machines without containers they are nobody's.
    if wide && apps.iter().any(|app| app.container.is_some()) {
        columns.push(("CONTAINER", Left, |app| or_none(app.container.as_ref())));
    }
    if wide && apps.iter().any(|app| app.pod.is_some()) {
        columns.push(("POD", Left, |app| or_none(app.pod.as_ref())));
    }
    // Most machines have no security module that gives labels.
    if wide && apps.iter().any(|app| app.label.is_some()) {
        columns.push(("LABEL", Left, |app| or_none(app.label.as_ref())));
    }
    table(&columns, apps)
}

/// A process; `?` if it is in another pid namespace.
fn pid_of(pid: Option<i32>) -> String {
    pid.filter(|pid| *pid > 0).map_or_else(|| "?".into(), |pid| pid.to_string())
}

/// Who a user is, by name if there is one.
fn user_of(user: Option<&impl ToString>, uid: Option<u32>) -> String {
    user.map(ToString::to_string).or_else(|| Some(uid?.to_string())).unwrap_or_else(|| NONE.into())
}

fn modes(app: &App) -> String {
    let modes = [(app.promiscuous, "promisc"), (app.all_multicast, "allmulti")];
    let set: Vec<&str> = modes.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if set.is_empty() { NONE.into() } else { set.join(",") }
}

fn or_none(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| NONE.into(), ToString::to_string)
}

/// A row for each port.
pub(crate) fn stats(ports: &[Port]) -> String {
    let columns: [Column<Port>; 7] = [
        ("PORT", Left, |port| port.port.clone()),
        ("RX-PKTS", Right, |port| port.rx_packets.to_string()),
        ("RX-BYTES", Right, |port| port.rx_bytes.to_string()),
        ("TX-PKTS", Right, |port| port.tx_packets.to_string()),
        ("TX-BYTES", Right, |port| port.tx_bytes.to_string()),
        ("COPIES", Right, |port| port.copies.to_string()),
        ("DROPS", Right, |port| port.drops.to_string()),
    ];
    table(&columns, ports)
}

/// A row for each port, with what happened since the last look.
pub(crate) fn rates(ports: &[Rated]) -> String {
    let columns: [Column<Rated>; 9] = [
        ("PORT", Left, |row| row.port.port.clone()),
        ("RX-PKTS/S", Right, |row| rate(row, 0, |rate| rate.rx_packets)),
        ("RX-MBIT/S", Right, |row| rate(row, 1, |rate| rate.rx_bytes * MEGABITS)),
        ("TX-PKTS/S", Right, |row| rate(row, 0, |rate| rate.tx_packets)),
        ("TX-MBIT/S", Right, |row| rate(row, 1, |rate| rate.tx_bytes * MEGABITS)),
        ("DROPS/S", Right, |row| rate(row, 0, |rate| rate.drops)),
        ("RX-PKTS", Right, |row| row.port.rx_packets.to_string()),
        ("TX-PKTS", Right, |row| row.port.tx_packets.to_string()),
        ("DROPS", Right, |row| row.port.drops.to_string()),
    ];
    table(&columns, ports)
}

/// A byte in megabits.
const MEGABITS: f64 = 8e-6;

fn rate(row: &Rated, digits: usize, of: fn(&Rate) -> f64) -> String {
    row.rate.as_ref().map_or_else(|| NONE.into(), |rate| format!("{:.digits$}", of(rate)))
}

/// A row for each reason, and their sum.
pub(crate) fn drops(rows: &[Drops]) -> String {
    if rows.is_empty() {
        return "no frame was dropped\n".into();
    }
    let columns: [Column<Drops>; 5] = [
        ("APP", Left, |row| row.app.clone()),
        ("STAGE", Left, |row| row.stage.clone()),
        ("REASON", Left, |row| row.reason.clone()),
        ("RULE", Left, |row| or_none(row.rule.as_ref())),
        ("PACKETS", Right, |row| row.packets.to_string()),
    ];
    let packets = rows.iter().map(|row| row.packets).fold(0, u64::saturating_add);
    let total = Drops { app: "total".into(), rule: Some(String::new()), packets, ..Drops::default() };
    table(&columns, &[rows, &[total]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_api::status::{Copies, Worker};
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    /// Answers as kopid gave them.
    const RECORDED: &str = include_str!("../tests/recorded.json");

    pub(super) fn recorded<T: DeserializeOwned>(name: &str) -> Vec<T> {
        let recorded: Value = serde_json::from_str(RECORDED).unwrap();
        serde_json::from_value(recorded[name].clone()).unwrap()
    }

    /// The status names what runs, on what, and how busy it is.
    #[test]
    fn status_is_keys_and_values() {
        let expected = "\
version:   0.1.0
pid:       20259
uptime:    2 min 5 s
dpdk:      DPDK 22.11.11 (built for 22.11)
protocol:  2
wire:      net_null0,size=64,no-rx=1 (net_null)
wire mac:  e6:b0:bf:04:9d:51
wire mtu:  1500
wire link: up, 10000 Mbit/s
apps:      2 (connections: 3)
mbufs:     8128 free of 8192
flows:     7
policy:    /etc/kopi/policy.toml: 3 rules, 2 app entries, connections are tracked, on trial for 12 s
tracked:   7 of 65536, at most 32768 a user and 16384 an app, 1 refused
worker 0:  cpu 0, busy 3.1 %, asleep 90.2 %, busy 25.0 % since start, 7 flows, 12 flow misses, 0 evictions
";
        let mut answer: Vec<Status> = recorded("status");
        assert_eq!(status(&answer), expected);
        (answer[0].workers[0].flow_capacity, answer[0].workers[0].flows_crowded) = (8, true);
        let crowded = "7 of 8 flows, 12 flow misses, 0 evictions, too many now: raise `flows` in [dataplane]";
        assert_eq!(status(&answer), expected.replace("7 flows, 12 flow misses, 0 evictions", crowded));
    }

    /// The status says how frames are copied.
    #[test]
    fn copies_are_shown() {
        let mut rows: Vec<Status> = recorded("status");
        rows[0].copies = Copies { tx: "rep movsb".into(), rx: "registers".into(), measured: true };
        let text = status(&rows);
        assert!(text.contains("\ncopies:    tx by rep movsb, rx by registers, measured\n"), "{text}");
    }

    /// Of several workers each says how many frames it has handed over.
    #[test]
    fn several_workers_show_their_hand_overs() {
        let mut rows: Vec<Status> = recorded("status");
        let worker = Worker { handed_over: 17, ..rows[0].workers[0].clone() };
        rows[0].workers.push(worker);
        let text = status(&rows);
        let ends = |end: &str| text.lines().filter(|line| line.ends_with(end)).count();
        assert_eq!((ends("0 evictions, 0 handed over"), ends("0 evictions, 17 handed over")), (1, 1), "{text}");
    }

    /// Apps are shown with what the kernel says of them; an unknown user by number, a hostile name escaped.
    #[test]
    fn apps_are_a_table() {
        let expected = "\
PORT  NAME      PID  USER    COMM             MAC                STATE    QUEUES  TX-PKTS  RX-PKTS  DROPS
   1  bob      4711  nobody  dpdk-testpmd     02:00:00:00:00:01  running  4/4        1000      990     10
   2  batch-2     ?  4242    evil\\u{1b}[2J x  02:00:00:00:00:02  stopped  0/0           0        0      0
";
        assert_eq!(apps(&recorded("apps"), false), expected);
        assert_eq!(apps(&[], true), "no apps are attached\n");
    }

    /// The wide form adds what only fits a wide terminal.
    #[test]
    fn wide_apps_show_program_and_cgroup() {
        let text = apps(&recorded("apps"), true);
        let added = |line: &'_ str| {
            let (_, tail) = line.split_once("  DROPS").or_else(|| line.split_once("  1500  ")).unwrap();
            tail.trim().to_owned()
        };
        let tails: Vec<_> = text.lines().map(added).collect();
        let expected = [
            "MTU  MODES                     MEMORY    CONNS  USER-CONNS  REFUSED  RULES   FRAGS  EXE                    CGROUP",
            "promisc,allmulti  18.0 MiB, huge  5/16384     7/32768        1      3  2/4096  /usr/bin/dpdk-testpmd  /user.slice/bob",
            "-                            0 B      0/0         0/0        0      0     0/0  -                      -",
        ];
        assert_eq!(tails, expected);
        let mut contained = recorded::<App>("apps");
        (contained[0].container, contained[0].pod) = (Some("user-7/3f2a".into()), Some("user-7/2c48".into()));
        let lines: Vec<String> = apps(&contained, true).lines().map(added).collect();
        assert!(
            lines[0].ends_with("  CONTAINER    POD") && lines[1].ends_with("  user-7/3f2a  user-7/2c48"),
            "{lines:?}"
        );
    }

    /// Every port has its row, the wire first, and no number loses a digit.
    #[test]
    fn stats_are_a_table() {
        let expected = "\
PORT  RX-PKTS              RX-BYTES  TX-PKTS  TX-BYTES  COPIES  DROPS
wire        0                     0      990     63360       1      0
bob       990  18446744073709551615     1000     64000       0     10
";
        assert_eq!(stats(&recorded("stats")), expected);
    }

    /// Rates stand beside the totals that they come from.
    #[test]
    fn rates_are_shown_once_known() {
        let ports = recorded::<Port>("stats");
        let mut looks = Rates::default();
        let start = std::time::Instant::now();
        let first = rates(&looks.since_last(ports.clone(), start));
        assert!(first.lines().skip(1).all(|line| line.contains("-          -")), "{first}");
        let mut next = ports;
        next[0].tx_packets += 2_000_000;
        next[0].tx_bytes += 128_000_000;
        let second = rates(&looks.since_last(next, start + std::time::Duration::from_secs(2)));
        let expected = "\
PORT  RX-PKTS/S  RX-MBIT/S  TX-PKTS/S  TX-MBIT/S  DROPS/S  RX-PKTS  TX-PKTS  DROPS
wire          0        0.0    1000000      512.0        0        0  2000990      0
bob           0        0.0          0        0.0        0      990     1000     10
";
        assert_eq!(second, expected);
    }

    /// Drops end with their sum.
    #[test]
    fn drops_are_summed_up() {
        let expected = "\
APP    STAGE    REASON           RULE     PACKETS
wire   forward  unknown_unicast  -              3
bob    deliver  rx_ring_full     -             10
bob    filter   denied           no-smtp        1
total                                          14
";
        assert_eq!(drops(&recorded("drops")), expected);
        assert_eq!(drops(&[]), "no frame was dropped\n");
    }

    /// A worker cannot be busier than all the time, and the first second gives no ratio.
    #[test]
    fn busy_share_is_bounded() {
        assert_eq!([busy_percent(0.5, 0), busy_percent(1.9, 1), busy_percent(1.0, 8)], ["-", "100.0 %", "12.5 %"]);
    }
}

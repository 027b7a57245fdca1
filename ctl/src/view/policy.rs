//! The policy and what comes of it.

use super::classes::bits;
use super::table::Align::{Left, Right};
use super::table::{Column, Table};
use super::{NONE, or_none, pid_of, user_of};
use crate::text::{clean, counted, span};
use kopi_api::{Explained, Flow, Reloaded, Rule};
use std::net::{IpAddr, SocketAddr};

/// What stands where a rule asks for nothing.
const ANY: &str = "any";

/// A table with a row for each rule, in the order in which they are asked.
pub(crate) fn rules() -> Table<Rule> {
    Table::new(&[
        ("PKTS", Right, |rule| rule.packets.to_string()),
        ("BYTES", Right, |rule| rule.bytes.to_string()),
        ("NAME", Left, |rule| rule.name.clone()),
        ("ACTION", Left, action),
        ("MATCH", Left, |rule| stated(rule.matches.as_ref())),
        ("OWNER", Left, |rule| stated(rule.owner.as_ref())),
    ])
}

fn stated(text: Option<&String>) -> String {
    text.filter(|text| *text != "{}").map_or_else(|| ANY.into(), Clone::clone)
}

/// The action with what else the rule does.
fn action(rule: &Rule) -> String {
    let log = (rule.log && rule.action != "log").then(|| "log".to_owned());
    let class = rule.class.as_ref().map(|class| match rule.action.as_str() {
        "class" => class.clone(),
        _ => format!("class {class}"),
    });
    std::iter::once(rule.action.clone()).chain(class).chain(log).collect::<Vec<_>>().join(" ")
}

/// A row for each flow.
#[derive(Debug)]
pub(crate) struct Flows {
    table: Table<Flow<'static>>,
    /// Whether there is a column for VLANs: only where there are any.
    tagged: bool,
}

impl Flows {
    /// No flows yet.
    pub(crate) fn new() -> Self {
        Self { table: Self::table(false), tagged: false }
    }

    fn table(tagged: bool) -> Table<Flow<'static>> {
        let mut columns: Vec<Column<Flow<'static>>> = vec![
            ("PROTO", Left, |flow| flow.proto.to_string()),
            ("STATE", Left, |flow| or_none(flow.state.as_ref())),
            ("SRC", Left, |flow| endpoint(flow.src, flow.src_port)),
            ("DST", Left, |flow| endpoint(flow.dst, flow.dst_port)),
        ];
        if tagged {
            columns.push(("VLAN", Right, |flow| or_none(flow.vlan.as_ref())));
        }
        columns.extend::<[Column<Flow<'static>>; 13]>([
            ("DIR", Left, |flow| or_none(flow.direction.as_ref())),
            ("APP", Left, |flow| flow.app.to_string()),
            ("PID", Right, |flow| pid_of(flow.pid)),
            ("USER", Left, |flow| user_of(flow.user.as_ref(), flow.uid)),
            ("COMM", Left, |flow| or_none(flow.comm.as_ref())),
            ("AGE", Right, |flow| span(flow.age_seconds)),
            ("IDLE", Right, |flow| span(flow.idle_seconds)),
            ("PKTS", Right, |flow| flow.packets.to_string()),
            ("BYTES", Right, |flow| flow.bytes.to_string()),
            ("RATE", Right, |flow| flow.bits_per_second.map_or_else(|| NONE.into(), bits)),
            ("CLASS", Left, |flow| or_none(flow.class.as_ref())),
            ("VERDICT", Left, |flow| or_none(flow.verdict.as_ref())),
            ("RULE", Left, |flow| match (&flow.rule, flow.cause.as_deref()) {
                // Which rule it was nobody knows any more.
                (None, Some("outdated")) => "(outdated)".into(),
                (rule, _) => or_none(rule.as_ref()),
            }),
        ]);
        Table::new(&columns)
    }

    /// Some more flows; without any, that there are none.
    pub(crate) fn block(&mut self, flows: &[Flow<'static>]) -> String {
        if flows.is_empty() {
            return "no flows\n".into();
        }
        if !self.tagged && flows.iter().any(|flow| flow.vlan.is_some()) {
            // From here on it is another table.
            *self = Self { table: Self::table(true), tagged: true };
        }
        self.table.block(flows)
    }
}

/// An address with its port, in brackets if it has colons itself.
fn endpoint(address: Option<IpAddr>, port: Option<u16>) -> String {
    match (address, port) {
        (None, None) => NONE.into(),
        (None, Some(port)) => format!("*:{port}"),
        (Some(address), None) => address.to_string(),
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
    }
}

/// What is in force now, and until when. Warnings are told elsewhere.
pub(crate) fn reloaded(rows: &[Reloaded], kept: bool) -> String {
    let one = |row: &Reloaded| {
        let (what, rules) = (if kept { "kept" } else { "in force" }, counted(row.rules, "rule"));
        let warnings = row.warnings.len();
        let warnings = if warnings > 0 { format!(", {}", counted(warnings, "warning")) } else { String::new() };
        let confirm = row.confirm_seconds.map(|seconds| {
            format!(
                "the policy of before comes back in {}, unless `kopictl reload --keep` keeps this one\n",
                span(seconds)
            )
        });
        format!("{what}: {rules}{warnings}\n{}", confirm.unwrap_or_default())
    };
    rows.iter().map(one).collect()
}

/// What would become of a packet, why, and which rules came close.
pub(crate) fn explained(rows: &[Explained]) -> String {
    rows.iter().map(explained_one).collect::<Vec<_>>().join("\n")
}

fn explained_one(row: &Explained) -> String {
    let line = row.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    let because = match (&row.rule, row.cause.as_str()) {
        (Some(rule), _) => format!("rule {rule}{line}"),
        (None, "default") => format!("no rule decides, so the default of {} does", row.direction),
        (None, cause) => format!("{cause}, before any rule"),
    };
    let missed = row.missed.iter().map(|miss| format!("{} (differs in {})", miss.rule, miss.fields.join(", ")));
    let mut lines = vec![
        ("packet", format!("{}, {}, {}", row.packet, row.direction, row.state)),
        ("decision", row.decision.clone()),
        ("because", because),
    ];
    lines.extend(row.class.clone().map(|class| ("class", class)));
    lines.extend((!row.passed.is_empty()).then(|| ("passed", row.passed.join(", "))));
    lines.extend(missed.enumerate().map(|(at, miss)| (if at == 0 { "missed" } else { "" }, miss)));
    lines.extend(row.payload.clone().map(|payload| ("payload", payload)));
    let key = |key: &str| if key.is_empty() { String::new() } else { format!("{key}:") };
    lines.iter().map(|(name, value)| format!("{:<9} {}\n", key(name), clean(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::recorded;
    use super::*;

    /// Rules stand in their order, with what they ask for as the policy has it.
    #[test]
    fn rules_are_a_table() {
        let expected = r#"PKTS  BYTES  NAME              ACTION      MATCH                               OWNER
  14    840  postgres-is-bobs  drop log    { proto = "tcp", dst_port = 5432 }  { not = { user = "bob" } }
   0      0  rule-2            class bulk  any                                 { user = "batch" }
 100   6400  default egress    accept      any                                 any
   0      0  default ingress   accept      any                                 any
"#;
        assert_eq!(rules().block(&recorded("rules")), expected);
    }

    /// A flow is shown with the process behind it; a VLAN only where there are any.
    #[test]
    fn flows_are_a_table() {
        let expected = "\
PROTO  STATE        SRC              DST            DIR      APP       PID  USER  COMM          AGE        IDLE  PKTS  BYTES  RATE  CLASS  VERDICT  RULE
tcp    established  10.0.0.1:40000   10.0.0.2:5432  ingress  bob      4711  bob   postgres      1 min 1 s  0 s   1000  64000  -  gold   accept   postgres
udp    new          [fe80::1]:999    [fe80::2]:53   egress   batch-2     ?  4242  evil\\u{1b}[2J        1 s  1 s      1     60  -  -      drop     -
";
        let normal = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let mut list: Vec<Flow<'_>> = recorded("flows");
        assert_eq!(normal(&Flows::new().block(&list)), normal(expected));
        let mut flows = Flows::new();
        assert!(!flows.block(&list[..1]).contains("VLAN"));
        list[1].vlan = Some(7);
        let tagged = normal(&flows.block(&list));
        assert!(tagged[0].contains("DST VLAN DIR"), "{}", tagged[0]);
        assert!(tagged[1].contains(":5432 - ingress") && tagged[2].contains(":53 7 egress"), "{tagged:?}");
        assert_eq!(Flows::new().block(&[]), "no flows\n");
    }

    /// Addresses without ports stay as they are, and ports without addresses are shown.
    #[test]
    fn endpoints_are_read_back_as_written() {
        let endpoints = [(Some("10.0.0.1"), None), (Some("::1"), None), (None, Some(1)), (None, None)];
        assert_eq!(
            endpoints.map(|(address, port)| endpoint(address.map(|text: &str| text.parse().unwrap()), port)),
            ["10.0.0.1", "::1", "*:1", "-"]
        );
    }

    /// A reload says what is in force, and how to keep it.
    #[test]
    fn reloads_say_how_long_they_hold() {
        let mut rows: Vec<Reloaded> = recorded("reload");
        let expected = "\
in force: 2 rules, 1 warning
the policy of before comes back in 1 min 0 s, unless `kopictl reload --keep` keeps this one
";
        assert_eq!(reloaded(&rows, false), expected);
        rows[0] = serde_json::from_str(r#"{"rules":1}"#).unwrap();
        assert_eq!(reloaded(&rows, true), "kept: 1 rule\n");
    }

    /// Every reason for a decision has its words.
    #[test]
    fn explanations_give_the_reason() {
        let expected = "\
packet:   tcp 10.0.0.1:5432 > 10.0.0.2:999, egress, new
decision: drop
because:  rule postgres-is-bobs (line 12)
class:    bob
passed:   count-all
missed:   web (differs in dst_port)
          ssh (differs in src, owner)
";
        let mut rows: Vec<Explained> = recorded("explain");
        assert_eq!(explained(&rows), expected);
        rows[0] = Explained { rule: None, line: None, cause: "default".into(), ..recorded("explain").remove(0) };
        assert!(explained(&rows).contains("because:  no rule decides, so the default of egress does\n"));
        rows[0].cause = "spoofed_ip".into();
        assert!(explained(&rows).contains("because:  spoofed_ip, before any rule\n"));
        rows[0].payload = Some("it has one".into());
        assert!(explained(&rows).ends_with("\npayload:  it has one\n"));
    }
}

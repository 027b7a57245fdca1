//! The classes of the policy, as a tree.

use super::table::Align::{Left, Right};
use super::table::{Column, table};
use super::{NONE, or_none};
use kopi_api::Class;

/// A row for each class, below that of its parent.
pub(crate) fn classes(classes: &[Class]) -> String {
    if classes.is_empty() {
        return "the policy has no classes\n".into();
    }
    let columns: [Column<(usize, &Class)>; 14] = [
        ("CLASS", Left, |(depth, class)| format!("{}{}", "  ".repeat(*depth), class.name)),
        ("DIR", Left, |(_, class)| class.direction.clone()),
        ("RATE", Right, |(_, class)| or_none(class.rate.as_ref())),
        ("CEIL", Right, |(_, class)| or_none(class.ceil.as_ref())),
        ("WEIGHT", Right, |(_, class)| class.weight.to_string()),
        ("PRIO", Right, |(_, class)| class.priority.to_string()),
        ("NOW", Right, |(_, class)| bits(class.bits_per_second)),
        ("SENT", Right, |(_, class)| class.packets.to_string()),
        ("BYTES", Right, |(_, class)| class.bytes.to_string()),
        ("DROPPED", Right, |(_, class)| class.dropped.to_string()),
        ("OVERLIMITS", Right, |(_, class)| class.overlimits.to_string()),
        ("BACKLOG", Right, |(_, class)| class.backlog_packets.to_string()),
        ("DELAY-P50", Right, |(_, class)| delay(class.delay_p50_ns)),
        ("DELAY-P99", Right, |(_, class)| delay(class.delay_p99_ns)),
    ];
    let mut rows = Vec::new();
    for direction in ["egress", "ingress"] {
        let of: Vec<&Class> = classes.iter().filter(|class| class.direction == direction).collect();
        below(None, 0, &of, &mut rows);
    }
    table(&columns, &rows)
}

/// The classes whose parent is `parent`, each with those below it. A class is nowhere but below its own parent, so this
/// ends unless kopid tells of a tree without a root, and then those are left out.
fn below<'a>(parent: Option<&str>, depth: usize, classes: &[&'a Class], rows: &mut Vec<(usize, &'a Class)>) {
    let (children, rest): (Vec<_>, Vec<_>) = classes.iter().partition(|class| class.parent.as_deref() == parent);
    for class in children {
        rows.push((depth, class));
        below(Some(&class.name), depth + 1, &rest, rows);
    }
}

/// A rate as tc writes it, with three digits or more.
pub(super) fn bits(rate: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("Kbit", 1000)];
    match UNITS.iter().find(|(_, unit)| rate >= *unit) {
        Some((name, unit)) => {
            let hundredths = u128::from(rate) * 100 / u128::from(*unit);
            format!("{}.{:02}{name}", hundredths / 100, hundredths % 100)
        }
        None => format!("{rate}bit"),
    }
}

/// A time from nanoseconds to seconds.
fn delay(ns: Option<u64>) -> String {
    let Some(ns) = ns else { return NONE.into() };
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}.{}us", ns / 1000, ns % 1000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{}ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
        _ => format!("{}.{}s", ns / 1_000_000_000, ns % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, parent: Option<&str>) -> Class {
        Class {
            name: name.into(),
            parent: parent.map(str::to_owned),
            direction: "egress".into(),
            bits_per_second: 123_456_789,
            delay_p50_ns: Some(1500),
            ..Class::default()
        }
    }

    /// Children stand below their parents, whatever the order, and a circle does not keep anybody.
    #[test]
    fn classes_are_a_tree() {
        let rows = [class("b", Some("a")), class("a", None), class("c", Some("b")), class("x", Some("x"))];
        let text = classes(&rows);
        let names: Vec<&str> =
            text.lines().skip(1).map(|line| line.split("egress").next().unwrap().trim_end()).collect();
        assert_eq!(names, ["a", "  b", "    c"]);
        assert!(text.contains("123.45Mbit") && text.contains("1.5us"), "{text}");
    }

    /// Every size of rate and delay has its unit.
    #[test]
    fn units_fit() {
        assert_eq!([0, 999, 1000, 10_000_000_000].map(bits), ["0bit", "999bit", "1.00Kbit", "10.00Gbit"]);
        assert_eq!([999, 20_000_000, 1_500_000_000].map(|ns| delay(Some(ns))), ["999ns", "20.0ms", "1.5s"]);
    }
}

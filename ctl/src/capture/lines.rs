//! A line for each packet: tcpdump's, with the port in front and the owner and the verdict behind.

use super::record::PacketRecord;
use super::stamp::{Stamp, rfc3339};
use crate::print::{self, Dump, Style};
use crate::text::{as_json, is_unsafe};
use serde_json::{Value, json};
use std::fmt::Write;

/// How packets are shown.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) style: Style,
    /// Bytes, and whether the Ethernet header is among them.
    pub(crate) dump: Option<(Dump, bool)>,
    /// Packets so far, if they are numbered.
    pub(crate) number: Option<u64>,
    pub(crate) stamp: Stamp,
    pub(crate) json: bool,
}

impl Form {
    /// The line, or lines, for one packet.
    pub(crate) fn line(&mut self, record: &PacketRecord<'_>) -> String {
        if self.json {
            return as_json(&json!({ "capture": [self.object(record)] }));
        }
        let direction = record.direction.unwrap_or("?");
        let packet = print::frame(record.data, record.length, self.style).text;
        let stamp = self.stamp.of(record.time_ns);
        let end = self.end(record);
        let number = self.number.as_mut().map(|number| {
            *number += 1;
            format!("{number:5}  ")
        });
        let number = number.unwrap_or_default();
        let mut line = format!("{number}{stamp}{} {direction} {packet}{end}\n", word(record.port));
        if let Some((form, whole)) = self.dump {
            line.push_str(&print::dump(record.data, form, whole));
        }
        line
    }

    /// Owner and verdict. Passing is nothing to speak of, unless much is wanted.
    fn end(&self, record: &PacketRecord<'_>) -> String {
        let PacketRecord { port, app, pid, uid, user, comm, container, verdict, reason, rule, queue, .. } = record;
        let verbose = self.style.verbose > 0;
        let mut words = Vec::new();
        words.extend(app.as_ref().filter(|app| app != port).map(|app| format!("app {}", word(app))));
        // The kernel is no process, and nobody in particular.
        words.extend(pid.filter(|pid| *pid != 0).map(|pid| format!("pid {pid}")));
        words.extend(uid.filter(|_| verbose || user.is_none()).map(|uid| format!("uid {uid}")));
        words.extend(user.iter().chain(comm).map(|name| word(name)));
        words.extend(container.iter().filter(|_| verbose).map(|id| format!("container {}", word(id))));
        words.extend(queue.filter(|_| verbose).map(|queue| format!("queue {queue}")));
        let mut end = String::new();
        // Writing to a string does not fail.
        if !words.is_empty() {
            write!(end, " [{}]", words.join(" ")).unwrap_or(());
        }
        if let Some(verdict) = verdict.as_ref().filter(|verdict| verbose || *verdict != "accept") {
            let reason = reason.as_ref().map(|reason| format!(" {}", word(reason))).unwrap_or_default();
            let rule = rule.as_ref().map(|rule| format!(" by {}", word(rule))).unwrap_or_default();
            write!(end, " {}{reason}{rule}", word(verdict)).unwrap_or(());
        }
        if record.lost > 0 {
            write!(end, " ({} lost before)", record.lost).unwrap_or(());
        }
        end
    }

    fn object(&self, record: &PacketRecord<'_>) -> Value {
        let PacketRecord {
            port,
            direction,
            length,
            lost,
            app,
            pid,
            uid,
            user,
            comm,
            container,
            pod,
            verdict,
            reason,
            rule,
            queue,
            ..
        } = record;
        let packet = print::frame(record.data, record.length, self.style);
        let fields = &packet.fields;
        let owner = record
            .is_owned()
            .then(|| json!({ "pid": pid, "uid": uid, "user": user, "comm": comm, "container": container, "pod": pod }));
        let mut object = json!({
            "time": rfc3339(record.time_ns),
            "port": port,
            "app": app,
            "direction": direction,
            "length": length,
            "src_mac": fields.macs.map(|(src, _)| src.to_string()),
            "dst_mac": fields.macs.map(|(_, dst)| dst.to_string()),
            "vlan": fields.vlan,
            "ethertype": fields.ethertype.map(|kind| format!("{kind:#06x}")),
            "proto": fields.proto.map(print::proto),
            "src": fields.addresses.map(|(src, _)| src),
            "src_port": fields.ports.map(|(src, _)| src),
            "dst": fields.addresses.map(|(_, dst)| dst),
            "dst_port": fields.ports.map(|(_, dst)| dst),
            "owner": owner,
            "verdict": verdict,
            "reason": reason,
            "rule": rule,
            "queue": queue,
            "lost": lost,
            "packet": packet.text,
        });
        if self.dump.is_some() {
            let hex = record.data.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap_or(());
                hex
            });
            object["data"] = Value::String(hex);
        }
        object
    }
}

/// A name as one word that can be no other part of the line, whatever a process calls itself.
fn word(name: &str) -> String {
    name.chars().fold(String::with_capacity(name.len()), |mut out, c| {
        if c.is_whitespace() || is_unsafe(c) || "[]\\".contains(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use kopi_packet::describe::frame_of;

    const NOON: u64 = 1_772_625_600_123_456_789;

    fn form(verbose: u8, json: bool) -> Form {
        let style = Style { verbose, ..Style::default() };
        Form { style, dump: None, number: None, stamp: Stamp::new(0, TimeZone::UTC), json }
    }

    fn record(frame: &[u8]) -> PacketRecord<'_> {
        PacketRecord {
            time_ns: NOON,
            port: "batch",
            direction: Some("out"),
            data: frame,
            length: frame.len(),
            app: Some("batch".into()),
            pid: Some(4711),
            uid: Some(1001),
            user: Some("bob".into()),
            comm: Some("dpdk-testpmd".into()),
            verdict: Some("drop".into()),
            reason: Some("spoofed".into()),
            queue: Some(3),
            ..PacketRecord::default()
        }
    }

    /// The culprit of an ARP flood can be read off the line; what passes is not spoken of.
    #[test]
    fn lines_name_the_owner_and_the_verdict() {
        let frame = frame_of("arp request 10.9.0.66 > 10.9.0.1").unwrap();
        let words = "ARP, Request who-has 10.9.0.1 tell 10.9.0.66, length 28";
        let line = |record: &PacketRecord<'_>| form(0, false).line(record);
        let owner = "[pid 4711 bob dpdk-testpmd]";
        let dropped = record(&frame);
        assert_eq!(line(&dropped), format!("12:00:00.123456 batch out {words} {owner} drop spoofed\n"));
        let passed =
            PacketRecord { verdict: Some("accept".into()), reason: None, rule: Some("r".into()), ..dropped.clone() };
        assert_eq!(line(&passed), format!("12:00:00.123456 batch out {words} {owner}\n"));
        let verbose = form(1, false).line(&passed);
        assert!(verbose.ends_with(" [pid 4711 uid 1001 bob dpdk-testpmd queue 3] accept by r\n"), "{verbose}");
        let wire = PacketRecord { port: "wire", user: None, rule: Some("no-smtp".into()), lost: 2, ..dropped };
        let expected = "[app batch pid 4711 uid 1001 dpdk-testpmd] drop spoofed by no-smtp (2 lost before)";
        assert_eq!(line(&wire), format!("12:00:00.123456 wire out {words} {expected}\n"));
        let kernel = PacketRecord { port: "host", app: Some("host".into()), pid: Some(0), uid: None, ..passed };
        let kernel = PacketRecord { user: None, comm: Some("kernel".into()), rule: None, ..kernel };
        assert_eq!(line(&kernel), format!("12:00:00.123456 host out {words} [kernel]\n"));
        let nobody = PacketRecord { port: "wire", data: &frame, length: frame.len(), ..PacketRecord::default() };
        assert_eq!(line(&nobody), format!("00:00:00.000000 wire ? {words}\n"));
    }

    /// No name can look like another part of the line, or be more than one line.
    #[test]
    fn names_cannot_forge_a_line() {
        let frame = frame_of("arp request 10.9.0.66 > 10.9.0.1").unwrap();
        let comm = "x] drop spoofed\n12:00 \u{1b}[2J\\";
        let line = form(0, false).line(&PacketRecord { comm: Some(comm.into()), ..record(&frame) });
        assert_eq!((line.matches(']').count(), line.lines().count()), (1, 1), "{line}");
        assert!(line.contains(r"bob x\u{5d}\u{20}drop\u{20}spoofed\u{a}12:00\u{20}\u{1b}\u{5b}2J\u{5c}]"), "{line}");
    }

    /// JSON has what the line has, in fields, with the names as they are.
    #[test]
    fn json_has_fields() {
        let frame = frame_of("vlan 5 tcp 10.0.0.1:5432 > 10.0.0.2:999").unwrap();
        let line = form(0, true).line(&PacketRecord {
            comm: Some("a b\n".into()),
            container: Some("3f2a".into()),
            ..record(&frame)
        });
        let object: Value = serde_json::from_str(&line).unwrap();
        let row = &object["capture"][0];
        assert_eq!(row["time"], "2026-03-04T12:00:00.123456789Z");
        assert_eq!(
            row["owner"],
            json!({ "pid": 4711, "uid": 1001, "user": "bob", "comm": "a b\n", "container": "3f2a", "pod": null })
        );
        assert_eq!((&row["src"], &row["src_port"], &row["proto"]), (&json!("10.0.0.1"), &json!(5432), &json!("tcp")));
        assert_eq!((&row["verdict"], &row["rule"], &row["vlan"]), (&json!("drop"), &Value::Null, &json!(5)));
        assert!(row["packet"].as_str().unwrap().starts_with("vlan 5, p 0, IP 10.0.0.1.5432 > 10.0.0.2.999: Flags [S]"));
        assert_eq!(line.lines().count(), 1);
    }

    /// Bytes follow their line.
    #[test]
    fn bytes_follow_their_line() {
        let frame = frame_of("arp request 10.9.0.66 > 10.9.0.1").unwrap();
        let mut form = Form { dump: Some((Dump::Hex, true)), ..form(0, false) };
        assert_eq!(form.line(&record(&frame)).lines().count(), 1 + frame.len().div_ceil(16));
        form.json = true;
        let object: Value = serde_json::from_str(&form.line(&record(&frame))).unwrap();
        assert_eq!(object["capture"][0]["data"].as_str().unwrap().len(), frame.len() * 2);
    }
}

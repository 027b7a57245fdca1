//! The flows that pass, for operators: each with its owner.

use super::policy::{cause, state_name};
use crate::control::{Answer, Question};
use crate::forwarding::{PortId, Verdict, WIRE};
use crate::identity::Identity;
use crate::listing::Listed;
use crate::switch::{Switch, way, word};
use kopi_config::policy::{Decision, Direction};
use kopi_packet::FlowKey;
use kopi_policy::{Connection, Ruleset};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Arguments by which flows are chosen.
const FILTERS: [&str; 8] = ["app", "user", "pid", "comm", "port", "address", "state", "proto"];

/// What identifies a connection of an app in a snapshot: zone, protocol, local and remote end.
type End = (u16, u8, IpAddr, IpAddr, Option<(u16, u16)>);

/// All flows that fit the question's arguments. There may be millions, so the rows are made elsewhere.
pub(super) fn flows(question: Question, switch: &mut Switch, now: u64, hz: u64) -> Answer {
    if let Some(refused) = question.stranger(&FILTERS) {
        return refused.into();
    }
    let list = switch.flows();
    let apps = switch.apps().map(|app| (app.id, (app.name.clone(), app.identity.clone()))).collect();
    let (tracked, ruleset) = (Arc::clone(switch.connections()), switch.policy().ruleset().cloned());
    Answer::later(move || {
        // Without an answer kopid ends.
        let Ok(list) = list.recv() else { return json!({ "error": "kopid ends" }) };
        // A number of a rule means something under one policy.
        let same = ruleset.as_ref().map(Arc::as_ptr) == list.ruleset.as_ref().map(Arc::as_ptr);
        let ruleset = ruleset.filter(|_| same);
        let connections = tracked.snapshot(now).map(|c| (end_of(&c), c)).collect();
        let scene = Scene { apps, ruleset, connections, now, hz: hz.max(1) };
        let flows = list.parts.iter().flat_map(|part| &part.flows);
        let rows = flows.flat_map(|flow| scene.rows(flow)).filter(|row| fits(row, &question.arguments));
        json!({ "flows": rows.collect::<Vec<_>>() })
    })
}

fn end_of(c: &Connection) -> End {
    (c.zone, c.proto, c.local, c.remote, c.ports)
}

struct Scene {
    apps: BTreeMap<PortId, (String, Identity)>,
    ruleset: Option<Arc<Ruleset>>,
    connections: BTreeMap<End, Connection>,
    now: u64,
    hz: u64,
}

impl Scene {
    /// A flow at its sender's side, and at its receiver's if that is an app as well.
    fn rows(&self, flow: &Listed) -> Vec<Value> {
        let source = flow.key.source();
        let receiver = match flow.flow.verdict {
            Verdict::App(id) | Verdict::Refuse(id, _) => Some(id),
            Verdict::Reject(id) if id != source => Some(id),
            _ => None,
        };
        let egress = (source != WIRE).then_some((source, Direction::Egress));
        let ingress = receiver.map(|id| (id, Direction::Ingress));
        let sides = [egress, ingress].into_iter().flatten();
        sides.filter_map(|(id, direction)| self.row(flow, id, direction)).collect()
    }

    fn row(&self, listed: &Listed, id: PortId, direction: Direction) -> Option<Value> {
        let (name, owner) = self.apps.get(&id)?;
        let Listed { key, flow, outcomes } = listed;
        let ruleset = self.ruleset.as_deref();
        let at = usize::from(direction == Direction::Ingress);
        let outcome = outcomes[at];
        let why = outcome.zip(ruleset).map(|(outcome, ruleset)| cause(outcome.cause, ruleset));
        let class = usize::from(flow.points.classes[at]).checked_sub(1);
        let class = class.and_then(|class| ruleset?.policy().classes.get(class)).map(|class| &class.name);
        let connection = self.connection(key, id, direction);
        let seconds = |ticks: u64| ticks / self.hz;
        let verdict = outcome.map_or(Decision::Accept, |outcome| outcome.decision);
        Some(json!({
            "app": name,
            "direction": way(direction),
            "proto": proto_name(key),
            "src": key.src_addr(),
            "src_port": key.src_port(),
            "dst": key.dst_addr(),
            "dst_port": key.dst_port(),
            "vlan": key.outer_vlan().map(|tag| tag.id()),
            "packet": key.to_string(),
            "state": connection.and_then(|c| c.tcp_state).map(str::to_lowercase).or_else(|| {
                flow.states[at].map(|state| state_name(state).to_owned())
            }),
            "begun": connection.map(|c| way(c.begun)),
            "age_seconds": seconds(flow.age(self.now)),
            "idle_seconds": seconds(flow.idle(self.now)),
            "packets": flow.packets,
            "bytes": flow.bytes,
            "class": class,
            "rule": why.as_ref().and_then(|(_, rule)| rule.map(|rule| &rule.name)),
            "cause": why.as_ref().map(|(cause, _)| cause),
            "verdict": word(verdict),
            "pid": owner.pid,
            "uid": owner.uid,
            "user": owner.user,
            "comm": owner.comm,
        }))
    }

    fn connection(&self, key: &FlowKey, zone: PortId, direction: Direction) -> Option<&Connection> {
        let (src, dst) = (key.src_addr()?, key.dst_addr()?);
        let ports = key.src_port().zip(key.dst_port());
        let end = match direction {
            Direction::Egress => (zone, key.proto(), src, dst, ports),
            Direction::Ingress => (zone, key.proto(), dst, src, ports.map(|(a, b)| (b, a))),
        };
        self.connections.get(&end)
    }
}

/// The protocol, as people call it.
fn proto_name(key: &FlowKey) -> String {
    let text = key.to_string();
    let skip = |word: &&str| !matches!(*word, "vlan" | "service-vlan" | "malformed") && word.parse::<u16>().is_err();
    text.split(' ').find(skip).unwrap_or("?").to_owned()
}

/// Whether a row has everything that the arguments ask for. Texts and numbers are compared as they are written.
fn fits(row: &Value, arguments: &Map<String, Value>) -> bool {
    let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    arguments.iter().filter(|(_, wanted)| !wanted.is_null()).all(|(name, wanted)| {
        let wanted = written(wanted);
        let any = |keys: &[&str]| keys.iter().any(|key| written(&row[*key]) == wanted);
        match name.as_str() {
            "port" => any(&["src_port", "dst_port"]),
            "address" => any(&["src", "dst"]),
            "user" => any(&["user", "uid"]),
            other => any(&[other]),
        }
    })
}

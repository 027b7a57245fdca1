//! The flows that pass, for operators: each with its owner.

mod query;

use super::Sources;
use super::policy::{cause_name, state_name};
use crate::control::flow_dumps::{Piece, RuleNames, Who};
use crate::control::server::{Answer, Next, Question};
use crate::ids::{PortId, WIRE};
use crate::worker::flow_dump::{DumpedFlow, Position};
use crate::worker::flow_table::AGE_UNIT;
use kopi_api::Flow;
use kopi_config::policy::Direction;
use kopi_packet::FlowKey;
use kopi_policy::{Connection, Connections, Sort, Tuple};
use query::Query;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The cause of flows that were evaluated before the ports or the policy changed last: by which rule is not known any more.
const OUTDATED: &str = "outdated";

/// All flows that fit the question's arguments. There may be millions, so they come in parts.
pub(super) fn flows(question: &Question, sources: &mut Sources<'_>) -> Answer {
    match Query::read(&question.arguments) {
        Ok(query) => part(query, question.account, Position::default(), sources),
        Err(error) => Answer::Refused(error),
    }
}

/// The flows from `position` on, for user `account`.
fn part(mut query: Query, account: u32, position: Position, sources: &mut Sources<'_>) -> Answer {
    let piece = sources.plane.flows(account, position);
    let connections = Arc::clone(sources.plane.connections());
    let (now, hz) = (dpdk::tsc(), sources.facts.tsc_hz.max(1));
    Answer::part(move |rows| {
        let piece: Piece = piece.recv().map_err(|_| "kopid ends".to_owned())??;
        let view = View { who: &piece.who, names: piece.names.as_ref(), connections: &connections, now, hz };
        for listed in &piece.flows {
            let packet = || listed.key.full(piece.names.as_ref().map_or(0, |names| names.tcp_flags)).to_string();
            view.rows(listed).for_each(|row| query.take(row, &listed.key, packet, rows));
            if query.is_done(rows) {
                return Ok(None);
            }
        }
        let Some(position) = piece.next else {
            query.finish(rows);
            return Ok(None);
        };
        Ok(Some(Next::new(move |sources| part(query, account, position, sources))))
    })
}

/// The protocol, as people call it: by its number if it has no name.
fn proto_of(key: &FlowKey) -> String {
    let text = key.to_string();
    let mut words = text.split(' ');
    loop {
        match words.next() {
            // What follows is the number of the VLAN, what is wrong with the frame, or the protocol's number.
            Some("vlan" | "service-vlan" | "malformed") => drop(words.next()),
            Some("proto") => {}
            word => return word.unwrap_or("?").to_owned(),
        }
    }
}

/// What rows are made from.
struct View<'a> {
    who: &'a BTreeMap<PortId, Who>,
    names: Option<&'a RuleNames>,
    connections: &'a Connections,
    now: u64,
    hz: u64,
}

impl<'a> View<'a> {
    /// A flow at its sender's side, and at its receiver's if that is an app as well. What is costly to write is left out.
    fn rows(&self, listed: &'a DumpedFlow) -> impl Iterator<Item = Flow<'a>> {
        let source = listed.key.source();
        let egress = (source != WIRE).then_some((source, Direction::Egress));
        let ingress = listed.receiver().map(|id| (id, Direction::Ingress));
        [egress, ingress].into_iter().flatten().filter_map(|(id, direction)| self.row(listed, id, direction))
    }

    fn row(&self, listed: &'a DumpedFlow, id: PortId, direction: Direction) -> Option<Flow<'a>> {
        let who = self.who.get(&id)?;
        let DumpedFlow { key, flow, outcomes, outdated } = listed;
        let at = usize::from(direction == Direction::Ingress);
        let outcome = outcomes[at];
        let cause = match outcome {
            Some(outcome) => Some(cause_name(outcome.cause)),
            None => outdated.then_some(OUTDATED),
        };
        let rule = outcome.and_then(|outcome| self.names?.rule(outcome.cause.rule()?));
        let connection = self.connection(key, id, direction);
        let seconds = |ticks: u64| ticks / self.hz;
        let age = flow.age(self.now);
        let judged = self.names.filter(|names| names.uses_state).and_then(|_| match Sort::of(id, key, direction) {
            // The worker may have noted another one, so as to look at each of its frames.
            Sort::Clear(state) => Some(state_name(state)),
            Sort::Tracked(_) | Sort::Error => flow.states[at].map(state_name),
        });
        let state = connection.and_then(|c| c.tcp_state).map(|state| state.to_lowercase().into());
        Some(Flow {
            app: who.name.as_str().into(),
            direction: Some(direction.as_str().into()),
            src: key.src_addr(),
            src_port: key.src_port(),
            dst: key.dst_addr(),
            dst_port: key.dst_port(),
            vlan: key.outer_vlan().map(|tag| tag.id()),
            state: state.or_else(|| judged.map(Into::into)),
            ct_state: judged.map(Into::into),
            begun: connection.map(|c| c.begun.as_str().into()),
            age_seconds: seconds(age),
            idle_seconds: seconds(flow.idle(self.now)),
            packets: flow.packets(),
            bytes: flow.bytes(),
            bits_per_second: Some(bits_per_second(flow.bytes(), age, self.hz)),
            class: listed.class(at).and_then(|class| self.names?.class(class)).map(Into::into),
            rule: rule.map(Into::into),
            cause: cause.filter(|_| self.names.is_some()).map(Into::into),
            verdict: Some(outcome.map_or_else(|| listed.decision(id), |outcome| outcome.decision).as_str().into()),
            pid: Some(who.pid),
            uid: who.uid,
            user: who.user.as_deref().map(Into::into),
            comm: Some(who.comm.as_str().into()),
            container: who.container.as_deref().map(Into::into),
            pod: who.pod.as_deref().map(Into::into),
            ..Flow::default()
        })
    }

    fn connection(&self, key: &FlowKey, zone: PortId, direction: Direction) -> Option<Connection> {
        self.connections.connection(&Tuple::of(zone, key, direction)?, self.now)
    }
}

/// What `bytes` in `age` ticks make in a second. Ages are not known better than to a unit.
fn bits_per_second(bytes: u64, age: u64, hz: u64) -> u64 {
    let bits = (u128::from(bytes) * 8).saturating_mul(hz.into()) / u128::from(age.max(AGE_UNIT));
    u64::try_from(bits).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::describe::frame_of;

    /// Every protocol has its name, or its number, whatever stands before it.
    #[test]
    fn protocols_are_named() {
        let texts = [
            ("tcp 10.0.0.1:1 > 10.0.0.2:2", "tcp"),
            ("vlan 7 udp [::1]:1 > [::2]:2", "udp"),
            ("service-vlan 3 vlan 4 proto 47 10.0.0.1 > 10.0.0.2", "47"),
            ("arp request 10.0.0.1 > 10.0.0.2", "arp"),
            ("0x88cc 02:00:00:00:00:01 > 01:80:c2:00:00:0e", "0x88cc"),
        ];
        for (text, proto) in texts {
            assert_eq!(proto_of(&kopi_packet::parse(&frame_of(text).unwrap(), 1).1), proto, "{text}");
        }
        let mut broken = frame_of("vlan 7 tcp 10.0.0.1:1 > 10.0.0.2:2").unwrap();
        broken.truncate(40);
        let key = kopi_packet::parse(&broken, 1).1;
        assert!(key.to_string().contains("malformed"), "{key}");
        assert_eq!(proto_of(&key), "tcp", "{key}");
        assert_eq!(proto_of(&kopi_packet::parse(&[0; 5], 1).1), "runt");
    }

    /// A rate is that of the whole age, and a flow of this moment has one, too.
    #[test]
    fn rates_are_finite() {
        let hz = AGE_UNIT * 10;
        assert_eq!(bits_per_second(1000, hz, hz), 8000);
        assert_eq!(bits_per_second(1000, 0, hz), 80_000);
        assert_eq!(bits_per_second(u64::MAX, 0, u64::MAX), u64::MAX);
    }
}

//! What operators are told about the policy, and how they change it.

use super::{Sources, apps_from, drops_of_app, other_drops, totals_of};
use crate::control::app::App;
use crate::control::attach::Attach;
use crate::control::classes::{ClassRow, ClassTotals};
use crate::control::plane::ControlPlane;
use crate::control::policy::{Counted, Decider, Sum};
use crate::control::reload::{Reload, Wanted};
use crate::control::server::{Answer, Next, Question};
use crate::ids::{Generation, PortId};
use kopi_api::explain::Missed;
use kopi_api::{Class, Drops, Explained, Reloaded, request};
use kopi_config::policy::{Action, ClassSelection, Decision, Direction, Policy, Rule, State};
use kopi_packet::describe::key_between;
use kopi_packet::{FlowKey, Fragment, Headers, LinkProtocol, LinkProtocols, MacAddr, dhcp, icmp, ndp};
use kopi_policy::{Cause, Packet, PortPolicy, RuleId, Ruleset};
use kopi_ring::DropReason;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Rules that did not match and are told of.
const MISSES: usize = 5;

/// Classes of one part of an answer: what is known of their delays is looked through by the control thread.
const CLASSES: usize = 128;

/// What each class is to get and has got, in the order of the file; what has no class last in its direction.
pub(super) fn classes(sources: &Sources<'_>) -> Answer {
    match sources.plane.policy().ruleset() {
        Some(ruleset) if !sources.plane.classes().is_empty() => classes_from(0, &Arc::downgrade(ruleset), sources),
        _ => Answer::Reply(kopi_api::answer("classes", &[(); 0])),
    }
}

/// The classes from number `from` on, of `ruleset` if that is still in force.
fn classes_from(from: usize, ruleset: &Weak<Ruleset>, sources: &Sources<'_>) -> Answer {
    let Some(in_force) = still_in_force(ruleset, sources) else { return replaced() };
    let Some((part, has_more)) = sources.plane.classes().part(from, CLASSES) else { return replaced() };
    let known = ruleset.clone();
    Answer::part(move |text| {
        part.rows().for_each(|row| text.push(&class(&row, in_force.policy())));
        Ok(has_more.then(|| Next::new(move |sources| classes_from(from + CLASSES, &known, sources))))
    })
}

/// The rules of an answer, if they are still in force: who reads slowly does not keep an old policy.
fn still_in_force(ruleset: &Weak<Ruleset>, sources: &Sources<'_>) -> Option<Arc<Ruleset>> {
    sources.plane.policy().ruleset().filter(|in_force| ruleset.as_ptr() == Arc::as_ptr(in_force)).cloned()
}

fn replaced() -> Answer {
    Answer::Refused("another policy has come into force meanwhile: ask again".to_owned())
}

fn class(row: &ClassRow, policy: &Policy) -> Class {
    let class = row.index.and_then(|index| policy.classes.get(index));
    let ClassTotals { packets, bytes, full, late, backlog, overlimits } = row.totals;
    Class {
        name: row.name.clone(),
        parent: row.parent.clone(),
        direction: row.direction.as_str().to_owned(),
        leaf: row.is_leaf,
        rate: class.and_then(|class| class.rate).map(|rate| rate.to_string()),
        ceil: class.and_then(|class| class.ceiling()).map(|ceil| ceil.to_string()),
        weight: class.map_or(1, |class| class.weight),
        priority: class.map_or(4, |class| class.priority),
        bits_per_second: row.bits_per_second,
        packets,
        bytes,
        dropped: full + late,
        dropped_full: full,
        dropped_codel: late,
        overlimits,
        backlog_packets: backlog.0,
        backlog_bytes: backlog.1,
        delay_p50_ns: row.delay_ns.map(|(median, _)| median),
        delay_p99_ns: row.delay_ns.map(|(_, late)| late),
    }
}

/// Rules of one part of an answer. Each part looks through everything that was counted.
const RULES: usize = 512;

/// What each rule has counted, in the order of the file; the defaults last. There may be a hundred thousand.
pub(super) fn rules(sources: &Sources<'_>) -> Answer {
    match sources.plane.policy().ruleset() {
        Some(ruleset) => rules_from(0, &Arc::downgrade(ruleset), sources),
        None => Answer::Reply(kopi_api::answer("rules", &[(); 0])),
    }
}

/// The rules from number `from` on, of `ruleset` if that is still in force.
fn rules_from(from: usize, ruleset: &Weak<Ruleset>, sources: &Sources<'_>) -> Answer {
    let Some(in_force) = still_in_force(ruleset, sources) else { return replaced() };
    let (counted, known) = (sources.plane.counted(), ruleset.clone());
    Answer::part(move |text| {
        let rules = in_force.rules().iter().zip(in_force.ids()).skip(from).take(RULES);
        let ids: Vec<_> = rules.clone().map(|(_, id)| *id).collect();
        let sums = counted.rules(&ids);
        for (rule, id) in rules {
            text.push(&rule_row(rule, sums.get(id).copied().unwrap_or_default(), in_force.policy()));
        }
        let next = from + RULES;
        if next < in_force.rules().len() {
            return Ok(Some(Next::new(move |sources| rules_from(next, &known, sources))));
        }
        let default = &in_force.policy().default;
        for (direction, decision) in [(Direction::Egress, default.egress), (Direction::Ingress, default.ingress)] {
            text.push(&default_row(direction, decision, counted.default(direction)));
        }
        Ok(None)
    })
}

fn rule_row(rule: &Rule, sum: Sum, policy: &Policy) -> kopi_api::Rule {
    kopi_api::Rule {
        name: rule.name.clone(),
        line: Some(rule.line),
        action: action(rule.action).to_owned(),
        matches: Some(rule.matches.brief(&policy.sets)),
        owner: Some(if rule.owner.is_any() { String::new() } else { rule.owner.to_string() }),
        class: names_of(rule.class, policy),
        log: rule.log,
        packets: sum.packets,
        bytes: sum.bytes,
    }
}

fn default_row(direction: Direction, decision: Decision, sum: Sum) -> kopi_api::Rule {
    kopi_api::Rule {
        name: format!("default {}", direction.as_str()),
        action: decision.as_str().to_owned(),
        matches: Some(format!("{{ direction = \"{}\" }}", direction.as_str())),
        owner: Some(String::new()),
        packets: sum.packets,
        bytes: sum.bytes,
        ..kopi_api::Rule::default()
    }
}

/// Every reason for which frames were dropped, by port.
pub(super) fn drops(sources: &Sources<'_>) -> Answer {
    drops_from(0, other_drops(sources), sources)
}

fn drops_from(from: PortId, first: Vec<Drops>, sources: &Sources<'_>) -> Answer {
    let plane = &sources.plane;
    let (apps, next) = apps_from(from, plane);
    let apps: Vec<_> = apps.map(|app| (app.generation, app.name.clone(), totals_of(app, plane))).collect();
    let (counted, ruleset) = (plane.counted(), plane.policy().ruleset().cloned());
    Answer::part(move |text| {
        first.iter().for_each(|row| text.push(row));
        let refusals = Refusals::of(&counted, ruleset.as_deref(), apps.iter().map(|(app, ..)| *app).collect());
        for (generation, name, totals) in &apps {
            drops_of_app(name, totals, &refusals.of_app(*generation)).iter().for_each(|row| text.push(row));
        }
        Ok(next.map(|from| Next::new(move |sources| drops_from(from, Vec::new(), sources))))
    })
}

/// The names of the classes that frames are put into, with a comma between them if there is one for each direction.
fn names_of(assigned: ClassSelection, policy: &Policy) -> Option<String> {
    let classes = [assigned.egress, assigned.ingress].into_iter().flatten().filter_map(|at| policy.classes.get(at));
    let names: Vec<_> = classes.map(|class| class.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Decide(decision) => decision.as_str(),
        Action::Log => "log",
        Action::Count => "count",
        Action::Class => "class",
    }
}

/// Name of what decided.
pub(super) const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Rule(_) => "rule",
        Cause::Default => "default",
        Cause::PortSecurity(violation) => violation.name(),
        Cause::Malformed => "malformed",
        Cause::Fragment => "fragment",
    }
}

/// Puts another policy in force for `who`, or confirms the one that is.
///
/// # Errors
///
/// A text for people; the policy in force stays.
pub(super) fn reload(
    wanted: &Wanted,
    who: &str,
    plane: &mut ControlPlane,
    attach: &mut Attach,
) -> Result<Answer, String> {
    let Wanted::Replace(reload, confirm_within) = wanted else {
        if !plane.confirm() {
            return Err("no policy waits to be confirmed".into());
        }
        log::info!("{who} has confirmed the policy");
        return Ok(Answer::Reply(summary(plane, "", &[])));
    };
    let snapshot = put_in_force(reload, *confirm_within, who, plane, attach)?;
    Ok(Answer::InForce(snapshot, summary(plane, &reload.name, &reload.warnings)))
}

/// Puts a policy in force for `who`, to be confirmed within a time if one is given, and logs it. Returns the snapshot by which workers evaluate when
/// they have taken it.
///
/// # Errors
///
/// A text for people; the policy in force stays.
pub(crate) fn put_in_force(
    reload: &Reload,
    confirm_within: Option<Duration>,
    who: &str,
    plane: &mut ControlPlane,
    attach: &mut Attach,
) -> Result<u64, String> {
    let detached = plane.reload(reload, confirm_within)?;
    attach.detach_ports(detached, plane);
    let snapshot = plane.next_snapshot();
    plane.publish_now();
    let rules = plane.policy().ruleset().map_or(0, |ruleset| ruleset.rules().len());
    let confirm = confirm_within.map(|time| format!(", on trial for {} s", time.as_secs())).unwrap_or_default();
    log::info!("{who} has put {:?} in force, {rules} rules{confirm}", reload.name);
    Ok(snapshot)
}

fn summary(plane: &ControlPlane, file: &str, warnings: &[String]) -> String {
    let rules = plane.policy().ruleset().map_or(0, |ruleset| ruleset.rules().len());
    let confirm_seconds = plane.policy().confirm_seconds();
    let row = Reloaded { file: file.to_owned(), rules, warnings: warnings.to_vec(), confirm_seconds };
    kopi_api::answer("reload", &[row])
}

/// What the policy would do with a frame, and why.
///
/// # Errors
///
/// A text for people, if the question is not understood.
pub(super) fn explain(question: &Question, plane: &ControlPlane) -> Result<Answer, String> {
    let request::Explain { app, packet, direction, state } = request::arguments("explain", &question.arguments)?;
    let ruleset = plane.policy().ruleset().ok_or("no policy is in force: every frame is accepted")?;
    let app = find(plane, &app)?;
    let direction = match direction {
        request::Direction::Egress => Direction::Egress,
        request::Direction::Ingress => Direction::Ingress,
    };
    let state = match state {
        request::ConnectionState::New => State::New,
        request::ConnectionState::Established => State::Established,
        request::ConnectionState::Related => State::Related,
        request::ConnectionState::Invalid => State::Invalid,
        request::ConnectionState::Untracked => State::Untracked,
    };
    let (frame, headers, key) = describe(&packet, app, direction)?;
    let flags = kopi_packet::tcp::flags_of(&frame, &headers);
    let key = key.with_tcp_flags(flags & ruleset.tcp_flags_mask());
    let ndp = if ndp::is_ndp(&key) { ndp::message(&frame, &headers) } else { None };
    // A description has nothing behind its ports: a client of DHCP is taken to speak of itself.
    let client = dhcp::Request { hardware: key.src_mac(), address: Ipv4Addr::UNSPECIFIED, identifier: None };
    let dhcp = dhcp::is_for_server(&key).then(|| dhcp::request(&frame, &headers).unwrap_or(client));
    let port_policy = plane.port_policy(app.id).ok_or("the app has gone")?;
    let asked = Asked { app: app.name.clone(), link: app.grant.link, direction, key, state, ndp, dhcp };
    let ruleset = Arc::clone(ruleset);
    // Every rule is looked at, and there may be a hundred thousand.
    Ok(Answer::part(move |rows| {
        rows.push(&asked.explain(&ruleset, &port_policy));
        Ok(None)
    }))
}

/// A question that was understood.
struct Asked {
    app: String,
    link: LinkProtocols,
    direction: Direction,
    key: FlowKey,
    state: State,
    ndp: Option<ndp::Message>,
    dhcp: Option<dhcp::Request>,
}

impl Asked {
    fn explain(self, ruleset: &Ruleset, port_policy: &PortPolicy) -> Explained {
        let Self { app, link, direction, key, state, ndp, dhcp } = self;
        let trace = ruleset.trace(port_policy, &Packet { direction, key: &key, state, ndp, dhcp }, MISSES);
        let cause = trace.evaluation.cause;
        let rule = cause.rule().and_then(|rule| ruleset.rules().get(usize::try_from(rule).ok()?));
        let refused = LinkProtocol::of(&key).is_some_and(|protocol| !link.contains(protocol));
        let (decision, why, rule) = match trace.evaluation.decision {
            Decision::Accept if refused => (Decision::Drop, DropReason::LinkControl.name(), None),
            decision => (decision, cause_name(cause), rule),
        };
        let class = trace.evaluation.class.and_then(|class| ruleset.policy().classes.get(usize::from(class)));
        let missed = trace.missed.iter().map(|miss| Missed {
            rule: miss.rule.name.clone(),
            fields: miss.fields.iter().map(ToString::to_string).collect(),
        });
        Explained {
            app,
            packet: key.to_string(),
            direction: direction.as_str().to_owned(),
            state: state_name(state).to_owned(),
            decision: decision.as_str().to_owned(),
            cause: why.to_owned(),
            rule: rule.map(|rule| rule.name.clone()),
            line: rule.map(|rule| rule.line),
            class: class.map(|class| class.name.clone()),
            passed: trace.passed.iter().map(|rule| rule.name.clone()).collect(),
            missed: missed.collect(),
            payload: payload(&key).map(ToOwned::to_owned),
        }
    }
}

/// What kopid looks at behind the headers of such a frame, and a description does not have: why the frame itself may be decided otherwise.
fn payload(key: &FlowKey) -> Option<&'static str> {
    if key.fragment() == Fragment::Later {
        Some(
            "a later fragment is judged as the first one of its packet was; this is what becomes of one whose first was not seen",
        )
    } else if icmp::is_error(key) {
        Some(
            "an ICMP error is judged by the packet that it is about: by its connection, and whether the app may speak of it",
        )
    } else if ndp::is_ndp(key) {
        Some("neighbour discovery is judged by its options, too: this message has none")
    } else if dhcp::is_for_server(key) {
        Some("a request to a DHCP server is judged by the client that it names, too: here that is the sender itself")
    } else {
        None
    }
}

/// The app of that name.
///
/// # Errors
///
/// Which ones there are.
fn find<'a>(plane: &'a ControlPlane, name: &str) -> Result<&'a App, String> {
    let found = plane.apps().find(|app| app.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = plane.apps().map(|app| app.name.as_str()).collect();
        format!("no app is called {name:?}; there are: {}", names.join(", "))
    })
}

/// The described frame. What is not said of its addresses is what the app itself would send, or receive.
fn describe(packet: &str, app: &App, direction: Direction) -> Result<(Vec<u8>, Headers, FlowKey), String> {
    let own = app.settings.macs.first().map_or_else(MacAddr::default, |mac| MacAddr::new(*mac));
    let other = MacAddr::new([2, 0, 0, 0, 0, 0xfe]);
    let (from, to) = if direction == Direction::Egress { (own, other) } else { (other, own) };
    key_between(packet, from, to, app.id).map_err(|error| format!("{packet:?}: {error}"))
}

const STATES: [(State, &str); 5] = [
    (State::New, "new"),
    (State::Established, "established"),
    (State::Related, "related"),
    (State::Invalid, "invalid"),
    (State::Untracked, "untracked"),
];

/// A state's name, as the policy file has it.
pub(super) fn state_name(state: State) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("?", |(_, name)| name)
}

/// What the rules have refused to some apps, by what decided it.
struct Refusals<'a> {
    ruleset: Option<&'a Ruleset>,
    refused: BTreeMap<(Generation, Decider), u64>,
    names: BTreeMap<RuleId, &'a Rule>,
}

impl<'a> Refusals<'a> {
    /// Everything up to now.
    fn of(counted: &Counted, ruleset: Option<&'a Ruleset>, apps: BTreeSet<Generation>) -> Self {
        let refused = counted.refused(&apps);
        let of_rule = |(_, decider): &(_, Decider)| if let Decider::Rule(id) = decider { Some(*id) } else { None };
        let rules: BTreeSet<_> = refused.keys().filter_map(of_rule).collect();
        let named = ruleset.into_iter().flat_map(|ruleset| ruleset.ids().iter().copied().zip(ruleset.rules()));
        Self { ruleset, refused, names: named.filter(|(id, _)| rules.contains(id)).collect() }
    }

    /// Frames of `app` dropped or rejected by rules and defaults: name, reason and frames. Port security and the like have
    /// reasons of their own.
    fn of_app(&self, app: Generation) -> Vec<(String, &'static str, u64)> {
        let Some(ruleset) = self.ruleset else { return Vec::new() };
        let of_app = self.refused.iter().filter(|((generation, _), _)| *generation == app);
        let rows = of_app.filter_map(|((_, decider), packets)| {
            let (name, decision) = match decider {
                Decider::Rule(id) => {
                    let rule = self.names.get(id)?;
                    (rule.name.clone(), rule.action.decision()?)
                }
                Decider::Default(direction) => {
                    let default = &ruleset.policy().default;
                    let egress = *direction == Direction::Egress;
                    (format!("default {}", direction.as_str()), if egress { default.egress } else { default.ingress })
                }
                _ => return None,
            };
            let reason = if decision == Decision::Reject { DropReason::Rejected } else { DropReason::Policy };
            Some((name, reason.name(), *packets))
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::describe::frame_of;

    /// Frames that are decided by more than their headers are told apart from all others.
    #[test]
    fn what_is_decided_by_its_payload_is_said() {
        let said = |text: &str| payload(&kopi_packet::parse(&frame_of(text).unwrap(), 1).1);
        let by_payload = [
            ("udp 10.0.0.1 > 10.0.0.2 later fragment", "fragment"),
            ("icmp 10.0.0.1 > 10.0.0.2 type 3 code 1", "ICMP error"),
            ("icmp6 fe80::1 > fe80::2 type 2", "ICMP error"),
            ("icmp6 fe80::1 > fe80::2 type 135 target fe80::2", "neighbour discovery"),
            ("udp 0.0.0.0:68 > 255.255.255.255:67", "DHCP"),
        ];
        for (text, word) in by_payload {
            assert!(said(text).is_some_and(|said| said.contains(word)), "{text}: {:?}", said(text));
        }
        for text in [
            "tcp 10.0.0.1:1 > 10.0.0.2:2",
            "udp 10.0.0.1:1 > 10.0.0.2:2 first fragment",
            "icmp 10.0.0.1 > 10.0.0.2 type 8",
            "arp request 10.0.0.1 > 10.0.0.2",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }
}

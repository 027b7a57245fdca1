//! Which flows an operator wants, how many, and in which order.

use super::proto_of;
use crate::control::server::Rows;
use kopi_api::Flow;
use kopi_config::policy::ContainerId;
use kopi_packet::FlowKey;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

/// Flows in an order at most: they are in memory until the last one is known.
const SORTED: usize = 1000;

/// What a flow has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    App(String),
    /// A name, or a number as it is written.
    User(String),
    Pid(String),
    Comm(String),
    Container(ContainerId),
    Pod(ContainerId),
    Port(u16),
    Address(IpAddr),
    State(String),
    /// A name, or a number as it is written.
    Proto(String),
}

/// Bits per second of a flow, its number among those that were kept, and its row as text. The lowest, and of equals the last, is the
/// first to go.
type Kept = (u64, Reverse<usize>, Vec<u8>);

/// What is asked for.
#[derive(Debug)]
pub(super) struct Query {
    wants: Vec<Want>,
    limit: usize,
    /// Those with most bits per second, if they are wanted.
    highest: Option<BinaryHeap<Reverse<Kept>>>,
    seen: usize,
}

impl Query {
    /// What `arguments` say.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub(super) fn read(arguments: &Map<String, Value>) -> Result<Self, String> {
        let mut query = Self { wants: Vec::new(), limit: usize::MAX, highest: None, seen: 0 };
        let mut limit = None;
        for (name, value) in arguments.iter().filter(|(_, value)| !value.is_null()) {
            // Texts and numbers are compared as they are written.
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let wrong = |what: &str| format!("`{name}` is {what}, not {text:?}");
            let id = || ContainerId::new(&text).ok_or_else(|| wrong("the id of one, 12 digits of it or more, or *"));
            query.wants.push(match name.as_str() {
                "app" => Want::App(text),
                "user" => Want::User(text),
                "pid" => Want::Pid(text),
                "comm" => Want::Comm(text),
                "container" => Want::Container(id()?),
                "pod" => Want::Pod(id()?),
                "state" => Want::State(text),
                "proto" => Want::Proto(text),
                "port" => Want::Port(text.parse().map_err(|_| wrong("a port number"))?),
                "address" => Want::Address(text.parse().map_err(|_| wrong("an IP address"))?),
                "limit" => {
                    let number = text.parse().ok().filter(|number| *number > 0);
                    limit = Some(number.ok_or_else(|| wrong("a number of flows, at least 1"))?);
                    continue;
                }
                "sort" if text == "rate" => {
                    query.highest = Some(BinaryHeap::new());
                    continue;
                }
                "sort" => return Err(wrong("rate")),
                _ => return Err(format!("`flows` has no argument `{name}`")),
            });
        }
        query.limit = match (limit, &query.highest) {
            (Some(limit), Some(_)) if limit > SORTED => {
                return Err(format!("`limit` is at most {SORTED} with `sort`, not {limit}"));
            }
            (limit, Some(_)) => limit.unwrap_or(SORTED),
            (limit, None) => limit.unwrap_or(usize::MAX),
        };
        Ok(query)
    }

    /// Whether `row` of the flow with `key` is wanted.
    fn fits(&self, row: &Flow<'_>, key: &FlowKey) -> bool {
        self.wants.iter().all(|want| match want {
            Want::App(name) => row.app == *name,
            Want::User(user) => {
                row.user.as_deref() == Some(user) || row.uid.is_some_and(|uid| uid.to_string() == *user)
            }
            Want::Pid(pid) => row.pid.is_some_and(|own| own.to_string() == *pid),
            Want::Comm(comm) => row.comm.as_deref() == Some(comm),
            Want::Container(id) => row.container.as_deref().is_some_and(|own| id.matches(own)),
            Want::Pod(id) => row.pod.as_deref().is_some_and(|own| id.matches(own)),
            Want::Port(port) => [row.src_port, row.dst_port].contains(&Some(*port)),
            Want::Address(address) => [row.src, row.dst].contains(&Some(*address)),
            Want::State(state) => row.state.as_deref() == Some(state),
            Want::Proto(proto) => {
                let number = || row.src.is_some() && key.proto().to_string() == *proto;
                proto_of(key) == *proto || number()
            }
        })
    }

    /// Puts `row` of the flow with `key` into `rows`, or where those with the highest rate are, if it is wanted. Only then is it written
    /// out what `packet` and its protocol are.
    pub(super) fn take(&mut self, row: Flow<'_>, key: &FlowKey, packet: impl FnOnce() -> String, rows: &mut Rows) {
        if !self.fits(&row, key) {
            return;
        }
        let rate = row.bits_per_second.unwrap_or(0);
        let whole = || Flow { proto: proto_of(key).into(), packet: packet().into(), ..row };
        let Some(highest) = &mut self.highest else {
            if rows.count() < self.limit {
                rows.push(&whole());
            }
            return;
        };
        if highest.len() >= self.limit {
            if highest.peek().is_some_and(|Reverse((lowest, ..))| *lowest >= rate) {
                return;
            }
            drop(highest.pop());
        }
        self.seen += 1;
        let text = serde_json::to_vec(&whole()).unwrap_or_default();
        highest.push(Reverse((rate, Reverse(self.seen), text)));
    }

    /// Whether there are as many as were asked for.
    pub(super) fn is_done(&self, rows: &Rows) -> bool {
        self.highest.is_none() && rows.count() >= self.limit
    }

    /// Puts what is in an order into `rows`, once all flows are known.
    pub(super) fn finish(&mut self, rows: &mut Rows) {
        let highest = self.highest.take().unwrap_or_default();
        highest.into_sorted_vec().iter().for_each(|Reverse((.., text))| rows.push_text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(arguments: Value) -> Result<Query, String> {
        Query::read(arguments.as_object().expect("an object"))
    }

    const KEY: &str = "tcp 10.0.0.1:5 > 10.0.0.2:80";

    fn key() -> FlowKey {
        kopi_packet::parse(&kopi_packet::describe::frame_of(KEY).unwrap(), 1).1
    }

    /// A row of so many bits a second.
    fn row(bits_per_second: u64) -> Flow<'static> {
        let key = key();
        Flow {
            app: "a".into(),
            src: key.src_addr(),
            src_port: key.src_port(),
            dst: key.dst_addr(),
            dst_port: key.dst_port(),
            state: Some("new".into()),
            bits_per_second: Some(bits_per_second),
            pid: Some(7),
            uid: Some(1000),
            user: Some("bob".into()),
            comm: Some("c".into()),
            container: Some("3f2a0c1b2d3e4f50".into()),
            pod: Some("user-7/aaaaaaaaaaaa".into()),
            ..Flow::default()
        }
    }

    /// Every argument is asked about, by itself and with others, whether it is written as a text or as a number.
    #[test]
    fn flows_are_chosen_by_what_they_have() {
        let fitting = [
            ("app", json!("a")),
            ("user", json!("bob")),
            ("user", json!("1000")),
            ("user", json!(1000)),
            ("pid", json!(7)),
            ("comm", json!("c")),
            ("container", json!("3f2a0c1b2d3e")),
            ("pod", json!("user-7/*")),
            ("port", json!(5)),
            ("port", json!("80")),
            ("address", json!("10.0.0.2")),
            ("state", json!("new")),
            ("proto", json!("tcp")),
            ("proto", json!(6)),
            ("app", Value::Null),
        ];
        let others = [
            ("app", json!("b")),
            ("user", json!(7)),
            ("pid", json!(70)),
            ("comm", json!("cc")),
            ("container", json!("4f2a0c1b2d3e")),
            ("pod", json!("*")),
            ("port", json!(6)),
            ("address", json!("10.0.0.3")),
            ("state", json!("established")),
            ("proto", json!("udp")),
        ];
        let fits = |arguments: &[&(&str, Value)]| {
            let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let query = Query::read(&arguments).unwrap();
            query.fits(&row(1), &key())
        };
        for one in &fitting {
            assert!(fits(&[one]), "{one:?}");
            for other in others.iter().filter(|(name, _)| *name != one.0) {
                assert!(!fits(&[one, other]) && !fits(&[other]), "{one:?} {other:?}");
            }
        }
    }

    /// What is not understood is refused, and says what would be right.
    #[test]
    fn nonsense_is_refused() {
        let error = |arguments| read(arguments).unwrap_err();
        assert_eq!(error(json!({ "apps": "a" })), "`flows` has no argument `apps`");
        assert_eq!(error(json!({ "port": 65536 })), "`port` is a port number, not \"65536\"");
        assert_eq!(error(json!({ "address": "10.0.0" })), "`address` is an IP address, not \"10.0.0\"");
        assert!(error(json!({ "container": "web" })).starts_with("`container` is the id of one"));
        assert_eq!(error(json!({ "sort": "age" })), "`sort` is rate, not \"age\"");
        assert_eq!(error(json!({ "limit": 0 })), "`limit` is a number of flows, at least 1, not \"0\"");
        assert_eq!(error(json!({ "limit": 1001, "sort": "rate" })), "`limit` is at most 1000 with `sort`, not 1001");
        assert!(read(json!({ "limit": 1_000_000 })).is_ok());
    }

    fn rates(arguments: Value, rates: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut query = read(arguments).unwrap();
        let mut rows = Rows::new("flows".to_owned());
        for rate in rates {
            query.take(row(rate), &key(), String::new, &mut rows);
        }
        query.finish(&mut rows);
        let value: Value = serde_json::from_slice(&rows.finished()).unwrap();
        value["flows"].as_array().unwrap().iter().map(|row| row["bits_per_second"].as_u64().unwrap()).collect()
    }

    /// The first so many, or those with the highest rates, the highest first; never more than are allowed.
    #[test]
    fn flows_are_limited_and_sorted() {
        let given = || (0..5000).map(|n| n * 7919 % 5003);
        let mut sorted: Vec<u64> = given().collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(rates(json!({}), given()).len(), 5000);
        assert_eq!(rates(json!({ "limit": 3 }), given()), given().take(3).collect::<Vec<_>>());
        assert_eq!(rates(json!({ "limit": 3, "sort": "rate" }), given()), sorted[..3]);
        assert_eq!(rates(json!({ "sort": "rate" }), given()), sorted[..SORTED]);
        assert_eq!(rates(json!({ "sort": "rate" }), [5, 5, 9]), [9, 5, 5]);
        assert_eq!(rates(json!({ "sort": "rate" }), []), [0; 0]);
    }
}

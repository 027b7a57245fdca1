//! What a frame has to be for a rule: `match`.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::addresses::{AddressIn, Addresses};
use super::field::{Field, Union};
use super::frames;
use super::icmp::Icmp;
use super::mac::MacRange;
use super::number::{ArpOperation, Dscp, Ethertype, Numbers, Port, Protocol, Vlan};
use super::set::Names;
use super::values::{Negatable, Values};
use crate::document::Place;
use crate::value::{As, Choice, Many, Truth, Word};

/// Which way a frame goes, from the app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Direction {
    /// From the app.
    Egress,
    /// To the app.
    Ingress,
}

impl Choice for Direction {
    type Of = Self;
    const WORDS: &'static [(&'static str, Self)] = &[("egress", Self::Egress), ("ingress", Self::Ingress)];
}

impl Direction {
    /// As it stands in a file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// What is done with each key that takes many values.
pub(super) trait Visit {
    /// `union` is what the key `name` says, if it is stated.
    fn key<V: Values>(&mut self, name: &'static str, union: Option<&V::Union>);
}

/// Whether what is stated, if anything, leaves room for what the other states.
fn open<T>(own: Option<&T>, other: Option<&T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    own.is_none_or(|own| other.is_some_and(|other| covers(own, other)))
}

/// Declares `match` by its keys that take many values: for each the field of [`Match`], its type, the name in the file,
/// the form of a value, and for which kinds of frames it can hold.
macro_rules! matches {
    ($($(#[$doc:meta])* $field:ident: $union:ty, $key:tt, $form:ty, $kinds:expr;)*) => {
        /// What a frame has to be. Everything that is stated has to hold.
        ///
        /// MAC addresses are as [`to_u64`](kopi_packet::MacAddr::to_u64) has them; of ICMP it is `type << 8 | code`.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub struct Match {
            /// Which way it goes; both if not stated.
            pub direction: Option<Direction>,
            $($(#[$doc])* pub $field: Option<$union>,)*
            /// Flags of TCP: `(flags & mask) == value`.
            pub tcp_flags: Option<TcpFlags>,
            /// State of the connection.
            pub state: Option<States>,
            /// Whether it is a fragment of an IP packet, the first one too.
            pub fragment: Option<bool>,
        }

        /// What a frame must not be; a frame without the field does not match either.
        #[derive(Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        struct Keys {
            $($(#[$doc])* #[serde(rename = $key)] $field: Many<$form>,)*
            /// State of the connection, as conntrack has it.
            state: Many<Word<State>>,
        }

        impl Match {
            /// What the table under `match` of `rule` says. `None` after an error was reported.
            pub(super) fn read(entry: MatchEntry, rule: &Place<'_>, names: &Names) -> Option<Self> {
                let MatchEntry { is, direction, tcp_flags, fragment, not } = entry;
                let reader = Reader { rule, names };
                // Every key is read before the first `?`, so that the faults of all are shown.
                $(let $field = reader.values::<$form>($key, is.$field, not.$field);)*
                let state = reader.states(is.state, not.state)?;
                let read = Self { direction, $($field: $field?,)* tcp_flags, state, fragment };
                let kinds = [
                    $(($key, read.$field.as_ref().map($kinds)),)*
                    ("tcp_flags", tcp_flags.map(|_| frames::TCP)),
                    ("fragment", fragment.filter(|&fragment| fragment).map(|_| frames::IP)),
                ];
                frames::check(&kinds, rule).map(|()| read)
            }

            /// Visits each key that takes many values.
            pub(super) fn visit(&self, visit: &mut impl Visit) {
                $(visit.key::<$form>($key, self.$field.as_ref());)*
            }

            /// Whether every frame that `other` matches is matched by `self` too. May say no where it is so.
            pub(super) fn covers(&self, other: &Self) -> bool {
                open(self.direction.as_ref(), other.direction.as_ref(), PartialEq::eq)
                    $(&& open(self.$field.as_ref(), other.$field.as_ref(), Union::covers))*
                    && open(self.tcp_flags.as_ref(), other.tcp_flags.as_ref(), PartialEq::eq)
                    && open(self.state.as_ref(), other.state.as_ref(), |a, b| b.and(a.negated()).is_empty())
                    && open(self.fragment.as_ref(), other.fragment.as_ref(), PartialEq::eq)
            }

            /// A bit for each key that is stated.
            pub(super) fn stated(&self) -> u32 {
                let plain = [self.direction.is_some(), self.tcp_flags.is_some(), self.state.is_some(), self.fragment.is_some()];
                let keys = plain.into_iter() $(.chain([self.$field.is_some()]))*;
                keys.enumerate().fold(0, |bits, (bit, stated)| bits | u32::from(stated) << bit)
            }
        }
    };
}
matches! {
    /// Ethertype after VLAN tags.
    ethertype: Field<u16>, "ethertype", Numbers<Ethertype>, frames::of_ethertypes;
    /// VLAN of the outermost tag; 0 for a frame without one.
    vlan: Field<u16>, "vlan", Numbers<Vlan>, |_| frames::ANY;
    /// VLAN of the second tag; 0 for a frame without one.
    inner_vlan: Field<u16>, "inner_vlan", Numbers<Vlan>, |_| frames::ANY;
    /// Source address of the frame.
    src_mac: Field<u64>, "src_mac", MacRange, |_| frames::ANY;
    /// Destination address of the frame.
    dst_mac: Field<u64>, "dst_mac", MacRange, |_| frames::ANY;
    /// IP protocol; "icmp" is both that of IPv4 and that of IPv6.
    proto: Field<u8>, "proto", Numbers<Protocol>, frames::of_protocols;
    /// Differentiated services code point of IP.
    dscp: Field<u8>, "dscp", Numbers<Dscp>, |_| frames::IP;
    /// Source address of IP.
    src: Addresses, "src", AddressIn<true, false>, frames::of_ip;
    /// Destination address of IP.
    dst: Addresses, "dst", AddressIn<true, false>, frames::of_ip;
    /// Source port; of TCP, UDP, UDP-Lite and SCTP if no `proto` is stated.
    src_port: Field<u16>, "src_port", Numbers<Port>, |_| frames::PORTS;
    /// Destination port; of TCP, UDP, UDP-Lite and SCTP if no `proto` is stated.
    dst_port: Field<u16>, "dst_port", Numbers<Port>, |_| frames::PORTS;
    /// Type of ICMP in IPv4, and its code behind a slash.
    icmp: Field<u16>, "icmp_type", Icmp<false>, |_| frames::ICMP;
    /// Type of ICMP in IPv6, and its code behind a slash.
    icmp6: Field<u16>, "icmp6_type", Icmp<true>, |_| frames::ICMP6;
    /// Operation of ARP.
    arp_op: Field<u16>, "arp_op", Numbers<ArpOperation>, |_| frames::ARP;
    /// Sender's IP address of ARP.
    arp_src: Addresses, "arp_src", AddressIn<true, true>, frames::of_arp;
    /// Target's IP address of ARP.
    arp_dst: Addresses, "arp_dst", AddressIn<true, true>, frames::of_arp;
    /// Sender's hardware address of ARP.
    arp_src_mac: Field<u64>, "arp_src_mac", MacRange, |_| frames::ARP;
}

/// What a frame has to be; everything that is stated has to hold.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MatchEntry {
    #[serde(rename = ".")]
    is: Keys,
    /// Which way it goes, from the app's side; both if not stated.
    #[serde(with = "As::<Word<Direction>>")]
    direction: Option<Direction>,
    /// Flags of TCP that are set, and behind a slash all that are looked at.
    #[serde(deserialize_with = "As::<TcpFlags>::deserialize")]
    #[schemars(with = "As<TcpFlags>")]
    tcp_flags: Option<TcpFlags>,
    /// Whether it is a fragment of an IP packet, the first one too.
    #[serde(with = "As::<Truth>")]
    fragment: Option<bool>,
    not: Keys,
}

impl Match {
    /// Hashes what is stated; of each list the length and the ends.
    pub(super) fn hash_ends(&self, hasher: &mut FxHasher) {
        struct Ends<'h>(&'h mut FxHasher);

        impl Visit for Ends<'_> {
            fn key<V: Values>(&mut self, _: &'static str, union: Option<&V::Union>) {
                union.iter().for_each(|union| union.hash_ends(self.0));
            }
        }

        hasher.write_u32(self.stated());
        (self.direction, self.tcp_flags, self.state, self.fragment).hash(hasher);
        self.visit(&mut Ends(hasher));
    }
}

/// What a key says: `None` after an error was reported, `Some(None)` if it is not there.
type Stated<T> = Option<Option<T>>;

/// Reads the keys of a match and of its `not` together.
struct Reader<'n, 'r> {
    rule: &'n Place<'r>,
    names: &'n Names,
}

impl<'n> Reader<'n, '_> {
    /// What `key` says plainly, without what it says under `not`.
    fn values<V: Values>(&self, key: &str, is: Many<V>, not: Many<V>) -> Stated<V::Union> {
        let is = self.stated::<V>("match", key, is.0, false);
        let not = self.stated::<V>("match.not", key, not.0, true);
        let left = match (is?, not?) {
            (is, None) => return Some(is),
            (None, Some(not)) => not,
            (Some(is), Some(not)) => {
                let left = is.and(&not);
                self.names.limit_ranges(left.size(), self.rule, || format!("match.not.{key}"))?;
                left
            }
        };
        if left.size() == 0 { self.nothing_left(&format!("match.not.{key}")) } else { Some(Some(left)) }
    }

    /// What `parts` in `table` say.
    fn stated<V: Values>(&self, table: &str, key: &str, parts: Vec<V::Value>, negate: bool) -> Stated<V::Union> {
        if parts.is_empty() {
            return Some(None);
        }
        let path = || format!("{table}.{key}");
        let sets = self.sets::<V>(&parts, &path)?;
        if let ([_], [set]) = (&parts[..], &sets[..]) {
            // Every rule that says no more than a set shares its ranges.
            return Some(Some(if negate { set.not(V::negated) } else { &set.is }.clone()));
        }
        let sets: Vec<_> = sets.iter().map(|set| &set.is).collect();
        let ranges = parts.len() + sets.iter().map(|set| set.size()).sum::<usize>();
        self.names.limit_ranges(ranges, self.rule, path)?;
        let union = V::union(parts, &sets);
        Some(Some(if negate { V::negated(&union) } else { union }))
    }

    /// The sets among `parts`. Each that is not there, or holds nothing for the key, is reported.
    fn sets<V: Values>(&self, parts: &[V::Value], path: &impl Fn() -> String) -> Option<Vec<&'n Negatable<V::Union>>> {
        let (mut sets, mut failed) = (Vec::new(), false);
        for (index, part) in parts.iter().enumerate() {
            let Some(name) = V::set_name(part) else { continue };
            let element = || self.rule.element(&path(), index);
            let set = self.names.set(name).or_else(|| self.names.refuse_set(name, self.rule, &element()));
            let union = set.and_then(V::of_set);
            if set.is_some_and(|set| union.is_none() && !set.is_broken) {
                self.rule.fail(&element(), "names a set that holds nothing for this key", "");
            }
            failed |= union.is_none();
            sets.extend(union);
        }
        (!failed).then_some(sets)
    }

    fn states(&self, is: Many<Word<State>>, not: Many<Word<State>>) -> Stated<States> {
        let states = |many: Many<_>| (!many.0.is_empty()).then(|| States::of(many.0));
        let is = states(is);
        let Some(not) = states(not) else { return Some(is) };
        let left = is.unwrap_or_else(|| States::default().negated()).and(not.negated());
        if left.is_empty() { self.nothing_left("match.not.state") } else { Some(Some(left)) }
    }

    fn nothing_left<T>(&self, path: &str) -> Option<T> {
        self.rule.fail(path, "leaves nothing that could match", "leave the key out, or the rule");
        None
    }
}

/// Flags of TCP that have to be set and clear: `"syn/syn,ack"` is `value` 2 under `mask` 18 (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Flags that are looked at.
    pub mask: u8,
    /// Which of them are set.
    pub value: u8,
}

/// What connection tracking says of a frame. The words are those of nftables' `ct state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// It belongs to no connection yet, or to one that has not been answered.
    New = 0,
    /// It belongs to a connection with packets in both directions.
    Established = 1,
    /// It belongs to no connection itself, but is about one: an ICMP error.
    Related = 2,
    /// It fits no connection and cannot begin one.
    Invalid = 3,
    /// Connections are not a notion of its protocol: ARP and other frames that are not IP, and multicast.
    Untracked = 4,
}

impl Choice for State {
    type Of = Self;
    const WORDS: &'static [(&'static str, Self)] = &[
        ("new", Self::New),
        ("established", Self::Established),
        ("related", Self::Related),
        ("invalid", Self::Invalid),
        ("untracked", Self::Untracked),
    ];
}

/// A set of [`State`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct States(u8);

impl States {
    /// The set of `states`.
    #[must_use]
    pub fn of(states: impl IntoIterator<Item = State>) -> Self {
        Self(states.into_iter().fold(0, |set, state| set | 1 << state as u8))
    }

    /// Whether `state` is in it.
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state as u8 != 0
    }

    /// Every state that is not in it.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(!self.0 & 0b1_1111)
    }

    /// What is in both `self` and `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether no state is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

//! Reading `match = { ... }`.

use super::kinds;
use super::match_keys as key;
use super::matches::{Match, States};
use super::set::{Names, set_name};
use super::values::{Negatable, Union, Values, ValuesKey};
use crate::walk::{Item, Table};

impl Match {
    /// Reads the table under `match`.
    pub(super) fn read(table: &Table<'_>, names: &Names) -> Option<Self> {
        let not = table.nested(&key::NOT);
        let is_broken = not.is_none();
        let reader = Reader { table, not: not.flatten(), names };
        let direction = table.optional(&key::DIRECTION);
        let ethertype = reader.values(&key::ETHERTYPE);
        let vlan = reader.values(&key::VLAN);
        let inner_vlan = reader.values(&key::INNER_VLAN);
        let src_mac = reader.values(&key::SRC_MAC);
        let dst_mac = reader.values(&key::DST_MAC);
        let proto = reader.values(&key::PROTO);
        let dscp = reader.values(&key::DSCP);
        let src = reader.values(&key::SRC);
        let dst = reader.values(&key::DST);
        let src_port = reader.values(&key::SRC_PORT);
        let dst_port = reader.values(&key::DST_PORT);
        let icmp = reader.values(&key::ICMP_TYPE);
        let icmp6 = reader.values(&key::ICMP6_TYPE);
        let tcp_flags = table.optional(&key::TCP_FLAGS);
        let arp_op = reader.values(&key::ARP_OP);
        let arp_src = reader.values(&key::ARP_SRC);
        let arp_dst = reader.values(&key::ARP_DST);
        let arp_src_mac = reader.values(&key::ARP_SRC_MAC);
        let state = reader.states();
        let fragment = table.optional(&key::FRAGMENT);
        let read = Self {
            direction: direction?,
            ethertype: ethertype?,
            vlan: vlan?,
            inner_vlan: inner_vlan?,
            src_mac: src_mac?,
            dst_mac: dst_mac?,
            proto: proto?,
            dscp: dscp?,
            src: src?,
            dst: dst?,
            src_port: src_port?,
            dst_port: dst_port?,
            icmp: icmp?,
            icmp6: icmp6?,
            tcp_flags: tcp_flags?,
            arp_op: arp_op?,
            arp_src: arp_src?,
            arp_dst: arp_dst?,
            arp_src_mac: arp_src_mac?,
            state: state?,
            fragment: fragment?,
        };
        kinds::check(&read, table).filter(|()| !is_broken).map(|()| read)
    }
}

/// What a key says: `None` after an error was reported, `Some(None)` if it is not there.
type Stated<T> = Option<Option<T>>;

/// The two tables of a match, while their keys are taken.
struct Reader<'n, 'r> {
    table: &'n Table<'r>,
    not: Option<Table<'r>>,
    names: &'n Names,
}

impl<'n, 'r> Reader<'n, 'r> {
    /// What `key` says plainly, without what it says under `not`.
    fn values<V: Values>(&self, key: &'static ValuesKey<V>) -> Stated<V::Union> {
        let is = self.stated(Some(self.table), key, false);
        let not = self.stated(self.not.as_ref(), key, true);
        match (is?, not?) {
            (is, None) => Some(is.map(|(union, _)| union)),
            (None, Some((not, item))) => some_of(&item, not),
            (Some((is, _)), Some((not, item))) => {
                let left = is.and(&not);
                self.names.spend(&item, left.size())?;
                some_of(&item, left)
            }
        }
    }

    /// What `key` says in `table`, and where.
    fn stated<V: Values>(
        &self,
        table: Option<&Table<'r>>,
        key: &'static ValuesKey<V>,
        negate: bool,
    ) -> Stated<(V::Union, Item<'r>)> {
        let Some((table, item)) = table.and_then(|table| Some((table, table.item(key)?))) else { return Some(None) };
        let form = &key.form.each;
        let parts = table.optional(key)??;
        let sets = self.sets(&item, form)?;
        if let ([_], [set]) = (&parts[..], &sets[..]) {
            // Every rule that says no more than a set shares its ranges.
            let shared = if negate { set.not(|is| form.negated(is)) } else { &set.is };
            return Some(Some((shared.clone(), item)));
        }
        let sets: Vec<_> = sets.iter().map(|set| &set.is).collect();
        self.names.spend(&item, parts.len() + sets.iter().map(|set| set.size()).sum::<usize>())?;
        let union = form.union(parts, &sets);
        Some(Some((if negate { form.negated(&union) } else { union }, item)))
    }

    /// The sets that the elements of `item` name. Each that is not there, or holds nothing for the key, is reported.
    fn sets<V: Values>(&self, item: &Item<'r>, form: &V) -> Option<Vec<&'n Negatable<V::Union>>> {
        let names = self.names;
        let (mut sets, mut failed) = (Vec::new(), false);
        item.each(|element| {
            let Some(name) = set_name(element) else { return };
            let found = names.set(name).or_else(|| names.refuse_set(element, name));
            let union = found.and_then(|set| match form.of_set(set) {
                None if !set.is_broken => element.fail("names a set that holds nothing for this key", None),
                union => union,
            });
            failed |= union.is_none();
            sets.extend(union);
        });
        (!failed).then_some(sets)
    }

    fn states(&self) -> Stated<States> {
        // Both, for the faults of both to be shown.
        let is = self.table.optional(&key::STATE);
        let not = self.not.as_ref().map(|table| (table, table.optional(&key::STATE)));
        let is = is?.map(States::of);
        let Some((table, not)) = not else { return Some(is) };
        let Some(not) = not?.map(States::of) else { return Some(is) };
        let left = is.unwrap_or_else(|| States::default().negated()).and(not.negated());
        if left.is_empty() { nothing_left(&table.item(&key::STATE)?) } else { Some(Some(left)) }
    }
}

/// `union`, unless nothing is in it.
fn some_of<U: Union>(item: &Item<'_>, union: U) -> Stated<U> {
    if union.size() == 0 { nothing_left(item) } else { Some(Some(union)) }
}

fn nothing_left<T>(item: &Item<'_>) -> Option<T> {
    item.fail("leaves nothing that could match", Some("leave the key out, or the rule".to_owned()))
}

//! What of a message is sent back, what makes two of them the same, and how it is moved to another interface.

use super::message::{INET6, Kind, Message, attributes, name_text, number, push};
use super::state::NAME_MAX;
use nix::libc::{
    IFA_ADDRESS, IFA_CACHEINFO, IFA_F_DEPRECATED, IFA_F_HOMEADDRESS, IFA_F_MANAGETEMPADDR, IFA_F_MCAUTOJOIN,
    IFA_F_NODAD, IFA_F_NOPREFIXROUTE, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VLAN,
    NDA_VNI, RTA_CACHEINFO, RTA_DST, RTA_ENCAP, RTA_ENCAP_TYPE, RTA_EXPIRES, RTA_GATEWAY, RTA_MULTIPATH, RTA_OIF,
    RTA_PRIORITY, RTA_SRC, RTA_TABLE, RTA_VIA,
};
use std::collections::BTreeMap;

/// Attributes of addresses that `libc` has not (`linux/if_addr.h`).
const IFA_TARGET_NETNSID: u16 = 10;
pub(crate) const IFA_PROTO: u16 = 11;
/// Flags of addresses that are for whoever makes one to say, by family.
const SET_FLAGS: u32 = IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN;
const SET_FLAGS6: u32 = SET_FLAGS | IFA_F_NODAD | IFA_F_HOMEADDRESS | IFA_F_MANAGETEMPADDR;
/// A lifetime without an end.
const FOREVER: u32 = u32::MAX;

/// The same of routes (`linux/rtnetlink.h`).
pub(crate) const RTA_NH_ID: u16 = 30;
/// What a nexthop object says in the place of the route.
const OF_NEXTHOP: [u16; 6] = [RTA_OIF, RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, RTA_ENCAP_TYPE, RTA_ENCAP];
/// Flags of a route that are no condition that it is in: `RTNH_F_PERVASIVE`, `RTNH_F_ONLINK`.
const ROUTE_FLAGS: u8 = 0x2 | 0x4;
/// Ticks of a route's expiry in a second (`USER_HZ`).
const TICKS: u32 = 100;
/// Bytes of a `rtnexthop`.
const HOP: usize = 8;

/// Attributes of nexthop objects (`linux/nexthop.h`).
pub(crate) const NHA_ID: u16 = 1;
pub(crate) const NHA_GROUP: u16 = 2;
pub(crate) const NHA_OIF: u16 = 5;
const NHA_RES_GROUP: u16 = 12;
const NEXTHOP_SET: [u16; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 11, NHA_RES_GROUP];
/// What is told of a resilient group, and not set.
const UNBALANCED_TIME: u16 = 4;

/// Attributes of neighbours that are set (`linux/neighbour.h`).
const NDA_PROTOCOL: u16 = 12;
const NDA_FLAGS_EXT: u16 = 15;
const NEIGHBOUR_SET: [u16; 7] = [NDA_DST, NDA_LLADDR, NDA_VLAN, NDA_PORT, NDA_VNI, NDA_PROTOCOL, NDA_FLAGS_EXT];

/// Attributes of rules (`linux/fib_rules.h`).
pub(crate) const FRA_IIFNAME: u16 = 3;
pub(crate) const FRA_PRIORITY: u16 = 6;
pub(crate) const FRA_OIFNAME: u16 = 17;
/// `FIB_RULE_INVERT`; the other flags are conditions.
const RULE_FLAGS: u32 = 0x2;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) index: u32,
}

/// A message in the form in which it makes what it shows: without conditions, and with what is left of its time in seconds.
pub(crate) fn canonical(message: &Message) -> Message {
    match message.kind() {
        Kind::Link => message.clone(),
        Kind::Address => canonical_address(message),
        Kind::Route => canonical_route(message),
        Kind::Neighbour => message.only(&NEIGHBOUR_SET),
        Kind::Rule => message.clone().with_header(8, &(message.word(8) & RULE_FLAGS).to_ne_bytes()),
        Kind::Nexthop => {
            let flags = message.word(4) & u32::from(ROUTE_FLAGS);
            let new = message.map(|at, value| match at {
                NHA_RES_GROUP => {
                    let mut group = Vec::new();
                    let set = attributes(value).filter(|(at, _)| *at != UNBALANCED_TIME);
                    set.for_each(|(at, value)| push(&mut group, at, value));
                    Some(group)
                }
                at => NEXTHOP_SET.contains(&at).then_some(value.into()),
            });
            new.with_header(1, &[0]).with_header(4, &flags.to_ne_bytes())
        }
    }
}

fn canonical_address(message: &Message) -> Message {
    let set = if message.byte(0) == INET6 { SET_FLAGS6 } else { SET_FLAGS };
    let flags = flags(message);
    let new = message.map(|at, value| match at {
        IFA_FLAGS | IFA_TARGET_NETNSID => None,
        // How long it is preferred, how long it is valid (`ifa_cacheinfo`). When it was made and changed is for the kernel to say, and
        // of an IPv4 address without an end it does not say that it is not preferred.
        IFA_CACHEINFO if flags & IFA_F_DEPRECATED != 0 => {
            Some([&[0; 4], value.get(4..8).unwrap_or_default(), &[0; 8]].concat())
        }
        IFA_CACHEINFO => Some([value.get(..8).unwrap_or_default(), &[0; 8]].concat()),
        _ => Some(value.into()),
    });
    new.with(IFA_FLAGS, &(flags & set).to_ne_bytes()).with_header(2, &[0])
}

fn canonical_route(message: &Message) -> Message {
    let by_object = message.get(RTA_NH_ID).is_some();
    let mut expires = None;
    let new = message.map(|at, value| match at {
        RTA_CACHEINFO => {
            // The third number (`rta_cacheinfo`).
            expires = value.get(8..).and_then(number).filter(|ticks| *ticks > 0 && i32::try_from(*ticks).is_ok());
            None
        }
        RTA_EXPIRES => None,
        at if by_object && OF_NEXTHOP.contains(&at) => None,
        RTA_MULTIPATH => Some(hops(value, |flags, index| (flags & ROUTE_FLAGS, index))),
        _ => Some(value.into()),
    });
    let new = match expires.map(|ticks| ticks.div_ceil(TICKS)).or_else(|| message.number(RTA_EXPIRES)) {
        Some(seconds) => new.with(RTA_EXPIRES, &seconds.to_ne_bytes()),
        None => new,
    };
    let flags = message.word(8) & if by_object { 0 } else { u32::from(ROUTE_FLAGS) };
    new.with_header(8, &flags.to_ne_bytes())
}

/// Several next hops with other flags and interfaces (`rtnexthop`: length, flags, weight, interface).
fn hops(value: &[u8], mut change: impl FnMut(u8, u32) -> (u8, u32)) -> Vec<u8> {
    let mut new = value.to_vec();
    let mut at = 0;
    while let Some(hop) = new.get_mut(at..).filter(|rest| rest.len() >= HOP) {
        let (length, flags) = (u16::from_ne_bytes([hop[0], hop[1]]), hop[2]);
        let (flags, index) = change(flags, hop.get(4..).and_then(number).unwrap_or(0));
        hop[2] = flags;
        hop[4..HOP].copy_from_slice(&index.to_ne_bytes());
        at += usize::from(length).max(HOP).next_multiple_of(4);
    }
    new
}

/// Flags of an address.
pub(crate) fn flags(address: &Message) -> u32 {
    address.number(IFA_FLAGS).unwrap_or_else(|| address.byte(2).into())
}

/// What two canonical messages have in common that show the same: how much time is left differs.
pub(crate) fn identity(message: &Message) -> Message {
    let class = |seconds: Option<u32>| match seconds {
        Some(0) => 0,
        Some(FOREVER) | None => 2,
        Some(_) => 1,
    };
    message.map(|at, value| match (message.kind(), at) {
        (Kind::Address, IFA_CACHEINFO) => Some(vec![class(number(value)), class(value.get(4..).and_then(number))]),
        (Kind::Route, RTA_EXPIRES) => Some(Vec::new()),
        _ => Some(value.into()),
    })
}

/// What is left of it after some seconds; `None` if that is nothing.
pub(crate) fn aged(message: &Message, seconds: u32) -> Option<Message> {
    let left = |all: Option<u32>| match all {
        Some(FOREVER) | None => FOREVER,
        Some(all) => all.saturating_sub(seconds),
    };
    match message.kind() {
        Kind::Address => {
            let Some(times) = message.get(IFA_CACHEINFO) else { return Some(message.clone()) };
            let (preferred, valid) = (left(number(times)), left(times.get(4..).and_then(number)));
            let times = [preferred.to_ne_bytes(), valid.to_ne_bytes(), [0; 4], [0; 4]].concat();
            (valid > 0).then(|| message.with(IFA_CACHEINFO, &times))
        }
        Kind::Route => {
            let Some(all) = message.number(RTA_EXPIRES) else { return Some(message.clone()) };
            let seconds = left(Some(all));
            (seconds > 0).then(|| message.with(RTA_EXPIRES, &seconds.to_ne_bytes()))
        }
        _ => Some(message.clone()),
    }
}

/// The interfaces that a message names by number.
pub(crate) fn interfaces(message: &Message) -> Vec<u32> {
    match message.kind() {
        Kind::Link | Kind::Address | Kind::Neighbour => vec![message.word(4)],
        Kind::Nexthop => message.number(NHA_OIF).into_iter().collect(),
        Kind::Rule => Vec::new(),
        Kind::Route => {
            let mut all: Vec<u32> = message.number(RTA_OIF).into_iter().collect();
            hops(message.get(RTA_MULTIPATH).unwrap_or_default(), |flags, index| {
                all.push(index);
                (flags, index)
            });
            all
        }
    }
}

/// Whether it is about the interface, as a whole or in part.
pub(crate) fn names(message: &Message, link: &Link) -> bool {
    let by_name = [FRA_IIFNAME, FRA_OIFNAME].into_iter().filter_map(|at| message.get(at));
    interfaces(message).contains(&link.index)
        || message.kind() == Kind::Rule && by_name.map(name_text).any(|name| name == link.name)
}

/// What becomes of the interfaces in a message.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Their numbers; those that are not here stay.
    pub(crate) indexes: BTreeMap<u32, u32>,
    /// The name of one of them.
    pub(crate) from: String,
    pub(crate) to: String,
}

impl Mapping {
    fn index(&self, old: u32) -> u32 {
        self.indexes.get(&old).copied().unwrap_or(old)
    }

    /// A name, or the label of an address, which begins with one.
    fn name(&self, old: &[u8], is_label: bool) -> Vec<u8> {
        let old = name_text(old);
        let new = match old.strip_prefix(&self.from) {
            Some("") => self.to.clone(),
            // A label is no longer than a name.
            Some(rest) if is_label && rest.starts_with(':') => {
                let long = self.to.len() + rest.len() > NAME_MAX;
                if long { self.to.clone() } else { format!("{}{rest}", self.to) }
            }
            _ => old,
        };
        [new.as_bytes(), &[0]].concat()
    }
}

/// The same for other interfaces.
pub(crate) fn moved(message: &Message, by: &Mapping) -> Message {
    let index = |value: &[u8]| by.index(number(value).unwrap_or(0)).to_ne_bytes().to_vec();
    let new = message.map(|at, value| match (message.kind(), at) {
        (Kind::Address, IFA_LABEL) => Some(by.name(value, true)),
        (Kind::Rule, FRA_IIFNAME | FRA_OIFNAME) => Some(by.name(value, false)),
        (Kind::Route, RTA_OIF) | (Kind::Nexthop, NHA_OIF) => Some(index(value)),
        (Kind::Route, RTA_MULTIPATH) => Some(hops(value, |flags, old| (flags, by.index(old)))),
        _ => Some(value.into()),
    });
    match message.kind() {
        Kind::Address | Kind::Neighbour => new.with_header(4, &by.index(message.word(4)).to_ne_bytes()),
        _ => new,
    }
}

/// What an address is known by: family, prefix, and the addresses of both ends.
pub(crate) fn address_key(message: &Message) -> (u8, u8, Vec<u8>, Vec<u8>) {
    let at = |number| message.get(number).unwrap_or_default().to_vec();
    (message.byte(0), message.byte(1), at(IFA_LOCAL), at(IFA_ADDRESS))
}

/// Table, destination and the like, and metric of a route; family and priority of a rule. Of those that share these, the order counts.
pub(crate) type GroupKey = (Kind, u8, u32, u32, Vec<u8>);

pub(crate) fn group_key(message: &Message) -> GroupKey {
    let family = message.byte(0);
    if message.kind() == Kind::Rule {
        return (Kind::Rule, family, 0, message.number(FRA_PRIORITY).unwrap_or(0), Vec::new());
    }
    let ends = [RTA_DST, RTA_SRC].map(|at| message.get(at).unwrap_or_default());
    let header: Vec<u8> = [1, 2, 3].map(|at| message.byte(at)).to_vec();
    let rest = [&header[..], ends[0], ends[1]].concat();
    (Kind::Route, family, table(message), message.number(RTA_PRIORITY).unwrap_or(0), rest)
}

/// The table of a route.
pub(crate) fn table(route: &Message) -> u32 {
    route.number(RTA_TABLE).unwrap_or_else(|| route.byte(4).into())
}

/// Whether a route goes by a router.
pub(crate) fn has_gateway(route: &Message) -> bool {
    [RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH].iter().any(|at| route.get(*at).is_some())
}

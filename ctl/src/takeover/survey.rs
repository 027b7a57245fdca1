//! What an interface has, and whether all of that can be carried to another one and back.
//!
//! Nothing is touched here. What cannot be carried is named, and then nothing is touched at all.

use super::form::{
    self, IFA_PROTO, Link, NHA_GROUP, NHA_ID, RTA_NH_ID, canonical, group_key, has_gateway, names, table,
};
use super::kernel::{Fault, Kernel};
use super::message::{BRIDGE, INET, INET6, Kind, Message, address_text, attributes, name_text, number};
use super::state::{Row, State, VERSION};
use nix::libc::{
    IFA_ADDRESS, IFA_F_DADFAILED, IFA_F_STABLE_PRIVACY, IFA_F_TEMPORARY, IFA_F_TENTATIVE, IFA_LOCAL, IFLA_ADDRESS,
    IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, NDA_LLADDR,
    NTF_PROXY, NUD_PERMANENT, RT_TABLE_LOCAL, RTA_DST, RTA_IIF, RTA_PREFSRC, RTM_F_CLONED, RTN_UNICAST, RTPROT_KERNEL,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

/// The interface below, in what VXLAN says of itself (`IFLA_VXLAN_LINK`).
const VXLAN_LINK: u16 = 3;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFAPROT_KERNEL_LL`: a link-local address that the interface has made for itself.
const BY_ITSELF: u8 = 3;
/// How often, and at which distance, an address is looked at that is being checked for duplicates.
const LOOKS: u32 = 30;
const DISTANCE: Duration = Duration::from_millis(100);

/// Interface `name`.
///
/// # Errors
///
/// If there is none.
pub(crate) fn link(name: &str, kernel: &mut dyn Kernel) -> Result<Link, Fault> {
    let links = links(kernel)?;
    let found = links.iter().find(|link| name_of(link) == name);
    let index = found.ok_or_else(|| Fault::text(format!("there is no interface `{name}`")))?.word(4);
    Ok(Link { name: name.to_owned(), index })
}

fn links(kernel: &mut dyn Kernel) -> Result<Vec<Message>, Fault> {
    kernel.dump(&Message::empty(Kind::Link, &[0]))
}

fn name_of(link: &Message) -> String {
    link.get(IFLA_IFNAME).map(name_text).unwrap_or_default()
}

/// Names of all interfaces by number.
pub(crate) fn link_names(kernel: &mut dyn Kernel) -> Result<BTreeMap<u32, String>, Fault> {
    Ok(links(kernel)?.iter().map(|link| (link.word(4), name_of(link))).collect())
}

/// The addresses of an interface, as the kernel shows them.
pub(crate) fn addresses(link: &Link, kernel: &mut dyn Kernel) -> Result<Vec<Message>, Fault> {
    let mut all = kernel.dump(&Message::empty(Kind::Address, &[0]))?;
    all.retain(|address| names(address, link) && [INET, INET6].contains(&address.byte(0)));
    Ok(all)
}

/// Whether an interface has made a link-local address for itself.
pub(crate) fn is_own(address: &Message) -> bool {
    address.get(IFA_PROTO) == Some(&[BY_ITSELF])
}

/// All routes and rules that are somebody's to make. Those by which the kernel knows its own addresses come and go with these.
pub(crate) fn rows(kernel: &mut dyn Kernel) -> Result<Vec<Message>, Fault> {
    let mut all = kernel.dump(&Message::empty(Kind::Route, &[0]))?;
    all.retain(|route| {
        let own =
            table(route) == u32::from(RT_TABLE_LOCAL) && route.byte(5) == RTPROT_KERNEL && route.byte(7) != RTN_UNICAST;
        // A cloned route is one that the kernel has made of another for one destination.
        [INET, INET6].contains(&route.byte(0)) && !own && route.word(8) & RTM_F_CLONED == 0
    });
    all.extend(kernel.dump(&Message::empty(Kind::Rule, &[0]))?);
    Ok(all.iter().map(canonical).collect())
}

/// All objects for next hops.
pub(crate) fn nexthops(kernel: &mut dyn Kernel) -> Result<Vec<Message>, Fault> {
    match kernel.dump(&Message::empty(Kind::Nexthop, &[0])) {
        Ok(all) => Ok(all.iter().map(canonical).collect()),
        // Before Linux 5.3.
        Err(fault) if fault.is(&[Errno::OPNOTSUPP, Errno::INVAL]) => Ok(Vec::new()),
        Err(fault) => Err(fault),
    }
}

/// Permanent neighbours of an interface, and those that it answers for.
pub(crate) fn neighbours(link: &Link, kernel: &mut dyn Kernel) -> Result<Vec<Message>, Fault> {
    let mut all = kernel.dump(&Message::empty(Kind::Neighbour, &[0]))?;
    all.retain(|of| u16::from_ne_bytes([of.byte(8), of.byte(9)]) & NUD_PERMANENT != 0);
    let proxy = Message::empty(Kind::Neighbour, &[0]).with_header(10, &[NTF_PROXY]);
    all.extend(kernel.dump(&proxy)?.into_iter().filter(|of| of.byte(10) & NTF_PROXY != 0));
    all.retain(|of| names(of, link) && [INET, INET6].contains(&of.byte(0)));
    Ok(all.iter().map(canonical).collect())
}

/// What `interface` has now, to be taken over by `tap`.
///
/// # Errors
///
/// What cannot be carried, or what the kernel says.
pub(crate) fn survey(interface: &str, tap: &str, now: u32, kernel: &mut dyn Kernel) -> Result<State, Fault> {
    let link = link(interface, kernel)?;
    let port = self::link(tap, kernel)?;
    let links = links(kernel)?;
    if links.iter().any(|of| of.word(4) == link.index && of.word(8) & UP == 0) {
        return Err(Fault::text(format!("`{interface}` is set down, and has none of its routes: set it up first")));
    }
    stands_alone(&link, &links, kernel)?;
    let addresses = settled(&link, kernel)?;
    for own in self::addresses(&port, kernel)? {
        // There, what comes second to a network's first address is of another kind.
        if let Some(ours) = addresses.iter().find(|ours| network(ours).is_some_and(|net| network(&own) == Some(net))) {
            return Err(Fault::text(format!(
                "`{tap}` has {own} of its own, in the network of {ours}: take it away first"
            )));
        }
    }
    let all = nexthops(kernel)?;
    let hops: BTreeSet<u32> = all.iter().filter(|of| names(of, &link)).filter_map(|of| of.number(NHA_ID)).collect();
    let is_ours = |of: &Message| {
        // Entries of eight bytes, of which the first four are the number.
        let members = of.get(NHA_GROUP).unwrap_or_default().chunks(8).filter_map(number);
        members.chain(of.number(NHA_ID)).any(|id| hops.contains(&id))
    };
    let nexthops: Vec<Message> = all.into_iter().filter(is_ours).collect();
    let rows = routes(&link, &addresses, &nexthops, kernel)?;
    Ok(State {
        version: VERSION,
        taken: now,
        ipv6_off: kernel.ipv6_off(interface),
        tap: tap.to_owned(),
        links: links.iter().map(|link| (link.word(4), name_of(link))).collect(),
        neighbours: neighbours(&link, kernel)?,
        addresses: addresses.iter().map(canonical).collect(),
        nexthops,
        rows,
        interface: link,
    })
}

/// The addresses of an interface, once the kernel has checked them for duplicates.
fn settled(link: &Link, kernel: &mut dyn Kernel) -> Result<Vec<Message>, Fault> {
    let mut all = addresses(link, kernel)?;
    let checks = |address: &Message| form::flags(address) & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == IFA_F_TENTATIVE;
    for _ in 0..LOOKS {
        if !all.iter().any(checks) {
            break;
        }
        sleep(DISTANCE);
        all = addresses(link, kernel)?;
    }
    for address in all.iter().filter(|address| address.byte(0) == INET6) {
        let flags = form::flags(address);
        let made = flags & IFA_F_TEMPORARY != 0 || flags & IFA_F_STABLE_PRIVACY != 0 && !is_own(address);
        let fault = if flags & IFA_F_DADFAILED != 0 {
            "is somebody else's, too (dadfailed): take it away first"
        } else if flags & IFA_F_TENTATIVE != 0 {
            "is still being checked for duplicates (tentative): has the link a carrier?"
        } else if made {
            "is made by the kernel alone for privacy, and would not come back as such: see `use_tempaddr` and \
             `addr_gen_mode` in /proc/sys/net/ipv6/conf"
        } else {
            continue;
        };
        return Err(Fault::text(format!("{address} of `{}` {fault}", link.name)));
    }
    Ok(all)
}

/// Whether nothing stands on an interface that is taken over again.
///
/// # Errors
///
/// What does.
pub(crate) fn still_stands_alone(name: &str, kernel: &mut dyn Kernel) -> Result<(), Fault> {
    let link = link(name, kernel)?;
    stands_alone(&link, &links(kernel)?, kernel)
}

/// The network of an IPv4 address.
fn network(address: &Message) -> Option<(u8, u32)> {
    let (length, local) = (address.byte(1), *address.get(IFA_ADDRESS)?.first_chunk()?);
    let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    (address.byte(0) == INET).then_some((length, u32::from_be_bytes(local) & !host))
}

/// Refuses an interface that is part of another device: neither would get what is kopid's from now on, nor pass it.
fn stands_alone(link: &Link, links: &[Message], kernel: &mut dyn Kernel) -> Result<(), Fault> {
    let name = &link.name;
    let named = |index: u32| links.iter().find(|of| of.word(4) == index).map_or_else(|| "?".to_owned(), name_of);
    let own = links.iter().find(|of| of.word(4) == link.index);
    if let Some(master) = own.and_then(|of| of.number(IFLA_MASTER)) {
        let master = named(master);
        return Err(Fault::text(format!(
            "`{name}` is a port of `{master}`, whose frames would not pass kopid: take it out of `{master}` first"
        )));
    }
    // Two ends of a pair name each other. In another namespace, the number is one of another device.
    let pair = own.filter(|of| of.get(IFLA_LINK_NETNSID).is_none()).and_then(|of| of.number(IFLA_LINK));
    if let Some(upper) = links.iter().find(|of| stands_on(of, link) && pair != Some(of.word(4))) {
        let upper = name_of(upper);
        return Err(Fault::text(format!(
            "`{upper}` stands on `{name}`, and its frames would not pass kopid: delete it, and make it anew on the \
             kernel's port afterwards"
        )));
    }
    let own = own.and_then(|of| of.get(IFLA_ADDRESS)).unwrap_or_default();
    let others = kernel.dump(&Message::empty(Kind::Neighbour, &[BRIDGE])).unwrap_or_default();
    let mut others =
        others.iter().filter(|of| of.byte(0) == BRIDGE && names(of, link)).filter_map(|of| of.get(NDA_LLADDR));
    if let Some(mac) = others.find(|mac| mac.first().is_some_and(|first| first & 1 == 0) && *mac != own) {
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        return Err(Fault::text(format!(
            "`{name}` receives for {} as well, a device in another network namespace for instance, whose frames would \
             not pass kopid: delete that first",
            mac.join(":")
        )));
    }
    Ok(())
}

/// Whether a device sends by way of the interface.
fn stands_on(upper: &Message, link: &Link) -> bool {
    let info = upper.get(IFLA_LINKINFO).unwrap_or_default();
    let said = |what: u16| attributes(info).find(|(at, _)| at & 0xff == what).map(|(_, value)| value);
    let vxlan = said(IFLA_INFO_KIND).is_some_and(|kind| name_text(kind) == "vxlan");
    let data = said(IFLA_INFO_DATA).filter(|_| vxlan).unwrap_or_default();
    let below = attributes(data).find(|(at, _)| at & 0xff == VXLAN_LINK).and_then(|(_, value)| number(value));
    let direct = upper.number(IFLA_LINK).filter(|_| upper.get(IFLA_LINK_NETNSID).is_none());
    upper.word(4) != link.index && (below == Some(link.index) || direct == Some(link.index))
}

/// Routes and rules by the interface, those that depend on its addresses, and all that stand in one order with these.
fn routes(
    link: &Link,
    addresses: &[Message],
    nexthops: &[Message],
    kernel: &mut dyn Kernel,
) -> Result<Vec<Row>, Fault> {
    let locals: BTreeSet<&[u8]> = addresses.iter().filter_map(|of| of.get(IFA_LOCAL)).collect();
    let ids: BTreeSet<u32> = nexthops.iter().filter_map(|of| of.number(NHA_ID)).collect();
    let is_ours = |of: &Message| {
        let by_object = of.kind() == Kind::Route && of.number(RTA_NH_ID).is_some_and(|id| ids.contains(&id));
        let source = of.get(RTA_PREFSRC).filter(|_| of.kind() == Kind::Route && of.byte(0) == INET);
        names(of, link) || by_object || source.is_some_and(|source| locals.contains(source))
    };
    refuse_other_families(link, kernel)?;
    let mut groups: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    let mut keys = Vec::new();
    for message in rows(kernel)? {
        let (key, ours) = (group_key(&message), is_ours(&message));
        if !groups.contains_key(&key) {
            keys.push(key.clone());
        }
        groups.entry(key).or_default().push(Row { ours, message });
    }
    let mut rows = Vec::new();
    for key in keys {
        let Some(group) = groups.remove(&key).filter(|group| group.iter().any(|row| row.ours)) else { continue };
        let by_router = |row: &&Row| row.message.byte(0) == INET6 && has_gateway(&row.message) && key.0 == Kind::Route;
        if let (Some(first), Some(_)) = (group.iter().find(by_router), group.iter().filter(by_router).nth(1)) {
            return Err(Fault::text(format!(
                "there are several of {} apart, by router advertisements for instance, which only the kernel can keep so: \
                 leave one of them, or none (`accept_ra_defrtr` in /proc/sys/net/ipv6/conf/{})",
                first.message, link.name
            )));
        }
        rows.extend(group);
    }
    Ok(rows)
}

/// Refuses what is no route of IP: labels of MPLS and the tables of a multicast router are for their daemons to move.
fn refuse_other_families(link: &Link, kernel: &mut dyn Kernel) -> Result<(), Fault> {
    let all = kernel.dump(&Message::empty(Kind::Route, &[0]))?;
    let other = |of: &&Message| ![INET, INET6].contains(&of.byte(0));
    let found = all.iter().filter(other).find(|of| names(of, link) || of.number(RTA_IIF) == Some(link.index));
    let Some(route) = found else { return Ok(()) };
    let to = route.get(RTA_DST).map(address_text).unwrap_or_default();
    let family = match route.byte(0) {
        28 => "MPLS",
        128 | 129 => "multicast",
        _ => "unknown",
    };
    Err(Fault::text(format!("a route of family {family} ({to}) goes by `{}`: take it away first", link.name)))
}

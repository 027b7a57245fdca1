//! What people call what the kernel knows of an interface.

use super::form::{
    FRA_IIFNAME, FRA_OIFNAME, FRA_PRIORITY, IFA_ADDRESS, IFA_LOCAL, NDA_DST, NHA_ID, RTA_DST, RTA_GATEWAY,
    RTA_MULTIPATH, RTA_NH_ID, RTA_PRIORITY, table,
};
use super::message::{INET, Kind, Message, address_text, name_text};

/// Number of the main table of routes.
const MAIN: u32 = 254;
/// Where the kernel keeps which addresses are its own.
const LOCAL: u32 = 255;

/// It in a few words.
pub(crate) fn of(message: &Message) -> String {
    let address = |number| message.get(number).map(address_text);
    match message.kind() {
        Kind::Link => format!("interface {}", message.word(4)),
        Kind::Address => {
            let own = address(IFA_LOCAL).or_else(|| address(IFA_ADDRESS)).unwrap_or_default();
            format!("address {own}/{}", message.byte(1))
        }
        Kind::Route => route(message),
        Kind::Neighbour => format!("neighbour {}", address(NDA_DST).unwrap_or_default()),
        Kind::Rule => {
            let name = |number, word: &str| message.get(number).map(|name| format!(" {word} {}", name_text(name)));
            let names = [name(FRA_IIFNAME, "iif"), name(FRA_OIFNAME, "oif")].into_iter().flatten();
            format!("rule {}:{}", message.number(FRA_PRIORITY).unwrap_or(0), names.collect::<String>())
        }
        Kind::Nexthop => format!("nexthop {}", message.number(NHA_ID).unwrap_or(0)),
    }
}

fn route(message: &Message) -> String {
    let all = if message.byte(0) == INET { "default" } else { "IPv6 default" };
    let to = message.get(RTA_DST).map(|to| format!("{}/{}", address_text(to), message.byte(1)));
    let mut text = format!("route {}", to.unwrap_or_else(|| all.to_owned()));
    if let Some(via) = message.get(RTA_GATEWAY) {
        text += &format!(" via {}", address_text(via));
    } else if message.get(RTA_MULTIPATH).is_some() {
        text += " by several next hops";
    } else if let Some(id) = message.number(RTA_NH_ID) {
        text += &format!(" by nexthop {id}");
    }
    if let Some(metric) = message.number(RTA_PRIORITY) {
        text += &format!(" metric {metric}");
    }
    match table(message) {
        MAIN => text,
        LOCAL => text + " of table local",
        other => text + &format!(" of table {other}"),
    }
}

//! What people call what the kernel knows of an interface.

use super::form::{FRA_IIFNAME, FRA_OIFNAME, FRA_PRIORITY, NHA_ID, RTA_NH_ID, table};
use super::message::{INET, Kind, Message, address_text, name_text};
use nix::libc::{
    IFA_ADDRESS, IFA_LOCAL, NDA_DST, RT_TABLE_LOCAL, RT_TABLE_MAIN, RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_PRIORITY,
};
use std::fmt;

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |number| self.get(number).map(address_text);
        match self.kind() {
            Kind::Link => write!(f, "interface {}", self.word(4)),
            Kind::Address => {
                let own = address(IFA_LOCAL).or_else(|| address(IFA_ADDRESS)).unwrap_or_default();
                write!(f, "address {own}/{}", self.byte(1))
            }
            Kind::Route => f.write_str(&route(self)),
            Kind::Neighbour => write!(f, "neighbour {}", address(NDA_DST).unwrap_or_default()),
            Kind::Rule => {
                let name = |number, word: &str| self.get(number).map(|name| format!(" {word} {}", name_text(name)));
                let names = [name(FRA_IIFNAME, "iif"), name(FRA_OIFNAME, "oif")].into_iter().flatten();
                write!(f, "rule {}:{}", self.number(FRA_PRIORITY).unwrap_or(0), names.collect::<String>())
            }
            Kind::Nexthop => write!(f, "nexthop {}", self.number(NHA_ID).unwrap_or(0)),
        }
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
    match u8::try_from(table(message)) {
        Ok(RT_TABLE_MAIN) => text,
        Ok(RT_TABLE_LOCAL) => text + " of table local",
        _ => text + &format!(" of table {}", table(message)),
    }
}

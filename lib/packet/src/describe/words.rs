//! A description, word by word.

use super::alloc::borrow::ToOwned;
use super::alloc::string::String;
use super::alloc::vec::Vec;
use core::iter::Peekable;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::{FromStr, SplitWhitespace};

use super::DescribeError;
use super::build::{Arp, Body, Description, Icmp, Ip};
use crate::proto::{ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
use crate::tcp::flags;
use crate::{Fragment, MacAddr, Malformed, VlanTag};

/// Most characters of a word that an error repeats.
const WORD_MAX: usize = 48;
/// Most tags that are parsed.
const TAGS_MAX: usize = 2;
/// Highest differentiated services code point (RFC 2474).
const DSCP_MAX: u8 = 63;
/// Names of flags; the first is for none of them.
pub(crate) const FLAGS: [(&str, u8); 9] = [
    ("none", 0),
    ("fin", flags::FIN),
    ("syn", flags::SYN),
    ("rst", flags::RST),
    ("psh", flags::PSH),
    ("ack", flags::ACK),
    ("urg", flags::URG),
    ("ece", flags::ECE),
    ("cwr", flags::CWR),
];

type Result<T> = core::result::Result<T, DescribeError>;
/// What stands behind the tags: with source and destination of the frame, if they are said, and the DSCP.
type Read = (Body, Option<MacAddr>, Option<MacAddr>, u8);

/// Reads a whole description.
pub(super) fn read(text: &str) -> Result<Description> {
    let mut words = Words(text.split_whitespace().peekable());
    let mut tags = Vec::new();
    loop {
        let service = match words.peek() {
            Some("vlan") => false,
            Some("service-vlan") => true,
            _ => break,
        };
        words.skip();
        let tci = words.number("the number of a VLAN, 0 to 4095", 0x0fff)?;
        if tags.len() == TAGS_MAX {
            return Err(DescribeError::Conflict("there can be two VLAN tags"));
        }
        tags.push(VlanTag { tci, service });
    }
    let malformed = words.malformed()?;
    let (body, from, to, dscp) = words.body(malformed.is_some())?;
    Ok(Description { tags, malformed, body, from, to, dscp })
}

/// What stands at the end of a description, in any order.
#[derive(Debug, Default)]
struct Tail {
    flags: Option<u8>,
    icmp_type: Option<u8>,
    code: Option<u8>,
    id: Option<u16>,
    target: Option<Ipv6Addr>,
    fragment: Option<Fragment>,
    dscp: Option<u8>,
    from: Option<MacAddr>,
    to: Option<MacAddr>,
}

impl Tail {
    const fn is_icmp(&self) -> bool {
        self.icmp_type.is_some() || self.code.is_some() || self.id.is_some() || self.target.is_some()
    }

    const fn is_ip(&self) -> bool {
        self.is_icmp() || self.flags.is_some() || self.fragment.is_some() || self.dscp.is_some()
    }
}

struct Words<'a>(Peekable<SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn peek(&mut self) -> Option<&'a str> {
        self.0.peek().copied()
    }

    fn skip(&mut self) {
        self.0.next();
    }

    fn next(&mut self, expected: &'static str) -> Result<&'a str> {
        self.0.next().ok_or(DescribeError::End { expected })
    }

    /// The next word, as whatever type it can be parsed into.
    fn parsed<T: FromStr>(&mut self, expected: &'static str) -> Result<T> {
        let word = self.next(expected)?;
        word.parse().map_err(|_| wrong(word, expected))
    }

    fn number<T: FromStr + PartialOrd>(&mut self, expected: &'static str, max: T) -> Result<T> {
        let word = self.next(expected)?;
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse().ok().filter(|number| digits && *number <= max).ok_or_else(|| wrong(word, expected))
    }

    fn byte(&mut self) -> Result<u8> {
        self.number("a number up to 255", u8::MAX)
    }

    /// Takes the word that must come here.
    fn fixed(&mut self, word: &'static str) -> Result<()> {
        match self.next(word)? {
            found if found == word => Ok(()),
            found => Err(wrong(found, word)),
        }
    }

    /// What is wrong with the frame, if that is said.
    fn malformed(&mut self) -> Result<Option<Malformed>> {
        const REASON: &str = "what is wrong with the frame, as `kopictl flows` prints it,";
        if self.peek() != Some("malformed") {
            return Ok(None);
        }
        self.skip();
        let word = self.next(REASON)?;
        let reason = Malformed::ALL.into_iter().find(|reason| reason.name() == word);
        reason.map(Some).ok_or_else(|| wrong(word, REASON))
    }

    /// Everything behind the tags, with the addresses of the frame and its DSCP. Of a malformed frame less is known.
    fn body(&mut self, is_malformed: bool) -> Result<Read> {
        const PROTOCOL: &str =
            "a protocol (tcp, udp, udplite, sctp, icmp, icmp6, proto N, arp) or an ethertype (0x88cc)";
        match self.next(PROTOCOL)? {
            "tcp" => self.ip(TCP, None, is_malformed),
            "udp" => self.ip(UDP, None, is_malformed),
            "udplite" => self.ip(UDP_LITE, None, is_malformed),
            "sctp" => self.ip(SCTP, None, is_malformed),
            "icmp" => self.ip(ICMP, Some(false), is_malformed),
            "icmp6" => self.ip(ICMPV6, Some(true), is_malformed),
            "proto" => {
                let proto = self.byte()?;
                self.ip(proto, None, is_malformed)
            }
            "arp" => self.arp(),
            "runt" => {
                let tail = self.tail()?;
                let addressed = tail.is_ip() || tail.from.is_some() || tail.to.is_some();
                if addressed {
                    Err(DescribeError::Conflict("a runt has no fields"))
                } else {
                    Ok((Body::Runt, None, None, 0))
                }
            }
            word => match word.strip_prefix("0x").and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
                Some(ethertype) => self.other(ethertype),
                None => Err(wrong(word, PROTOCOL)),
            },
        }
    }

    /// A frame of which only type and addresses are known.
    fn other(&mut self, ethertype: u16) -> Result<Read> {
        let from = self.mac()?;
        self.fixed(">")?;
        let to = self.mac()?;
        match self.0.next() {
            None => Ok((Body::Other(ethertype), Some(from), Some(to), 0)),
            Some(word) => Err(wrong(word, "the end")),
        }
    }

    fn arp(&mut self) -> Result<Read> {
        const OPERATION: &str = "request, reply or operation N";
        let operation = match self.next(OPERATION)? {
            "request" => 1,
            "reply" => 2,
            "operation" => self.number("a number up to 65535", u16::MAX)?,
            word => return Err(wrong(word, OPERATION)),
        };
        let sender = self.arp_station()?;
        self.fixed(">")?;
        let target = self.arp_station()?;
        let tail = self.tail()?;
        if tail.is_ip() {
            return Err(DescribeError::Conflict("ARP has no fields of IP"));
        }
        Ok((Body::Arp(Arp { operation, sender, target }), tail.from, tail.to, 0))
    }

    /// An address, and a hardware address in parentheses if one is there.
    fn arp_station(&mut self) -> Result<(Ipv4Addr, Option<MacAddr>)> {
        let address = self.parsed("an IPv4 address")?;
        let Some(word) = self.peek().filter(|word| word.starts_with('(')) else { return Ok((address, None)) };
        self.skip();
        let mac = word.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).and_then(|mac| mac.parse().ok());
        mac.map(|mac| (address, Some(mac))).ok_or_else(|| wrong(word, "a MAC address in parentheses"))
    }

    /// IP; `v6` is the version that the protocol's name implies.
    fn ip(&mut self, proto: u8, v6: Option<bool>, is_malformed: bool) -> Result<Read> {
        let (src, src_port) = self.endpoint()?;
        self.fixed(">")?;
        let (dst, dst_port) = self.endpoint()?;
        let tail = self.tail()?;
        if src.is_ipv6() != dst.is_ipv6() {
            return Err(DescribeError::Conflict("the addresses are of different versions of IP"));
        }
        match (v6, src.is_ipv6()) {
            (Some(false), true) => return Err(DescribeError::Conflict("between IPv6 addresses it is icmp6")),
            (Some(true), false) => return Err(DescribeError::Conflict("between IPv4 addresses it is icmp")),
            _ => {}
        }
        let fragment = tail.fragment.unwrap_or_default();
        let later = fragment == Fragment::Later;
        let is_icmp = matches!((src.is_ipv6(), proto), (false, ICMP) | (true, ICMPV6));
        let ports = match (matches!(proto, TCP | UDP | UDP_LITE | SCTP), src_port, dst_port) {
            (true, Some(_), _) | (true, _, Some(_)) if later => {
                return Err(DescribeError::Conflict("a later fragment has no ports"));
            }
            (true, ..) if later => None,
            (true, None, None) if is_malformed => None,
            (true, Some(src_port), Some(dst_port)) => Some((src_port, dst_port)),
            (true, ..) => {
                return Err(DescribeError::Conflict("ports are missing: write 10.0.0.1:80, or [fe80::1]:80 for IPv6"));
            }
            (false, None, None) => None,
            (false, ..) => return Err(DescribeError::Conflict("this protocol has no ports")),
        };
        if tail.flags.is_some() && (proto != TCP || later) {
            return Err(DescribeError::Conflict("only TCP has flags, and no later fragment"));
        }
        if (tail.is_icmp() && (!is_icmp || later)) || (tail.target.is_some() && src.is_ipv4()) {
            return Err(DescribeError::Conflict(
                "only ICMP has types, codes and ids, ICMPv6 a target, and no later fragment any of them",
            ));
        }
        let echo = if src.is_ipv6() { 128 } else { 8 };
        let icmp = Icmp {
            kind: tail.icmp_type.unwrap_or(echo),
            code: tail.code.unwrap_or(0),
            id: tail.id.unwrap_or(0),
            target: tail.target,
        };
        let body = Ip { proto, src, dst, ports, fragment, flags: tail.flags.unwrap_or(flags::SYN), icmp };
        Ok((Body::Ip(body), tail.from, tail.to, tail.dscp.unwrap_or(0)))
    }

    /// An address with a port or without; IPv6 in brackets or, without a port, not.
    fn endpoint(&mut self) -> Result<(IpAddr, Option<u16>)> {
        const ENDPOINT: &str = "an IP address, with `:PORT` if the protocol has ports";
        let word = self.next(ENDPOINT)?;
        if let Ok(address) = word.parse::<SocketAddr>() {
            return Ok((address.ip(), Some(address.port())));
        }
        let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bare {
            Some(bare) => bare.parse().map(IpAddr::V6).ok(),
            None => word.parse().ok(),
        };
        address.map(|address| (address, None)).ok_or_else(|| wrong(word, ENDPOINT))
    }

    fn mac(&mut self) -> Result<MacAddr> {
        self.parsed("a MAC address such as 02:00:00:00:00:01")
    }

    fn tail(&mut self) -> Result<Tail> {
        let mut tail = Tail::default();
        while let Some(word) = self.0.next() {
            match word {
                "flags" => put(&mut tail.flags, self.flags()?)?,
                "type" => put(&mut tail.icmp_type, self.byte()?)?,
                "code" => put(&mut tail.code, self.byte()?)?,
                "id" => put(&mut tail.id, self.number("a number up to 65535", u16::MAX)?)?,
                "target" => put(&mut tail.target, self.parsed("an IPv6 address")?)?,
                "dscp" => put(&mut tail.dscp, self.number("a number up to 63", DSCP_MAX)?)?,
                "from" => put(&mut tail.from, self.mac()?)?,
                "to" => put(&mut tail.to, self.mac()?)?,
                "first" | "later" => {
                    self.fixed("fragment")?;
                    let part = if word == "first" { Fragment::First } else { Fragment::Later };
                    put(&mut tail.fragment, part)?;
                }
                _ => {
                    return Err(wrong(
                        word,
                        "flags, type, code, id, target, first fragment, later fragment, dscp, from or to",
                    ));
                }
            }
        }
        Ok(tail)
    }

    /// Names of flags, with commas between.
    fn flags(&mut self) -> Result<u8> {
        const NAMES: &str = "none, or some of fin,syn,rst,psh,ack,urg,ece,cwr with commas between,";
        let word = self.next(NAMES)?;
        word.split(',').try_fold(0, |flags, name| {
            let flag = FLAGS.iter().find(|(other, _)| *other == name);
            flag.map(|(_, flag)| flags | flag).ok_or_else(|| wrong(word, NAMES))
        })
    }
}

fn put<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DescribeError::Conflict("something is said twice")),
    }
}

fn wrong(word: &str, expected: &'static str) -> DescribeError {
    let found: String = word.chars().take(WORD_MAX).collect();
    DescribeError::Word { found: if found.len() < word.len() { found + "..." } else { word.to_owned() }, expected }
}

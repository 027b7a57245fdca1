//! MAC and IP addresses, with a number for each in its place: who reads still sees which are the same.

use kopi_packet::MacAddr;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The numbers that addresses have had.
#[derive(Debug, Default)]
pub(super) struct Mask {
    macs: HashMap<MacAddr, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl Mask {
    /// `text` with `MAC-1`, `IP-1` and so on in the place of addresses. What belongs to no host stays: `::`, loopback, broadcast.
    pub(super) fn hide(&mut self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '.' || c == '%';
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (head, tail) = rest.split_at(word);
            out.push_str(&self.word(head));
            let gap = tail.find(is_part).unwrap_or(tail.len());
            let (head, tail) = tail.split_at(gap);
            out.push_str(head);
            rest = tail;
        }
        out
    }

    /// A word, or what stands for it; a stop or colon behind it is of the sentence.
    fn word(&mut self, word: &str) -> String {
        // No address is shorter, and most words are.
        if word.len() < 2 || !word.contains(['.', ':']) {
            return word.to_owned();
        }
        let bare = word.trim_end_matches(['.']);
        let candidates = [word, bare, bare.strip_suffix(':').unwrap_or(bare)];
        let found = candidates.iter().find_map(|text| Some((self.address(text)?, &word[text.len()..])));
        found.map_or_else(|| word.to_owned(), |(name, end)| format!("{name}{end}"))
    }

    fn address(&mut self, text: &str) -> Option<String> {
        if let Ok(mac) = text.parse::<MacAddr>() {
            let next = self.macs.len() + 1;
            let number = self.macs.entry(mac).or_insert(next);
            return (mac != MacAddr::ZERO && mac != MacAddr::BROADCAST).then(|| format!("MAC-{number}"));
        }
        // A scope is the name of an interface.
        let (bare, scope) =
            text.split_once('%').map_or((text, String::new()), |(bare, scope)| (bare, format!("%{scope}")));
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(format!("{}{scope}", self.ip(address)?));
        }
        let with_port = text.parse::<SocketAddr>().ok()?;
        Some(format!("{}:{}", self.ip(with_port.ip())?, with_port.port()))
    }

    fn ip(&mut self, address: IpAddr) -> Option<String> {
        let is_nobodys = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        let next = self.addresses.len() + 1;
        (!is_nobodys).then(|| format!("IP-{}", self.addresses.entry(address).or_insert(next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each address has one number wherever it stands, and whatever is no address stays.
    #[test]
    fn addresses_are_numbered() {
        let text = "tcp 10.0.0.1:5432 > [fe80::1]:53, 10.0.0.1/24 fe80::1%eth0. \"02:00:00:00:00:0A\" 10.0.0.2: x 12:30:45 std::fs 1.2.3 ::1";
        let masked = "tcp IP-1:5432 > [IP-2]:53, IP-1/24 IP-2%eth0. \"MAC-1\" IP-3: x 12:30:45 std::fs 1.2.3 ::1";
        assert_eq!(Mask::default().hide(text), masked);
        assert_eq!(
            Mask::default().hide("ff:ff:ff:ff:ff:ff 0.0.0.0 ü 10.0.0.1-10.0.0.9"),
            "ff:ff:ff:ff:ff:ff 0.0.0.0 ü IP-1-IP-2"
        );
    }
}

//! What the kernel has in kopid's network namespace: for the apps that share its address, addresses of its port and ports of its
//! sockets; for operators, what it lost on the way to its port.
//!
//! Read twice a second, by a [helper](crate::control::helper): the lists are as long as users make them. A port that a socket got since then
//! is not known yet.

use kopi_config::policy::Listen;
use kopi_policy::HostSockets;
use nix::ifaddrs::getifaddrs;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The kernel's lists of sockets, with their protocols (proc_net(5)).
const LISTS: [(&str, u8); 6] =
    [("tcp", 6), ("tcp6", 6), ("udp", 17), ("udp6", 17), ("udplite", 136), ("udplite6", 136)];
/// Most bytes that are read of one list: some hundred thousand sockets.
const LIST_MAX: u64 = 64 << 20;
/// Which of an interface's numbers says what it has lost of what it was to send: there are eight for each direction.
const TX_DROPPED: usize = 8 + 3;
/// What the kernel chooses from unless it is told otherwise.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// What the kernel has now; `tap` is the interface of its port.
#[must_use]
pub fn read(tap: &str) -> HostSockets {
    let text = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let ephemeral = range_of(&text("ip_local_port_range")).unwrap_or(EPHEMERAL);
    let sockets = LISTS.iter().flat_map(|(list, proto)| ports_of(list).into_iter().map(|port| (*proto, port)));
    let sockets = sockets.map(|(proto, port)| Listen { proto, port });
    HostSockets::new(addresses_of(tap), ephemeral, ranges_of(&text("ip_local_reserved_ports")), sockets)
}

/// Packets that the kernel has lost because nobody took them from `interface` in time, as the interface counts them.
#[must_use]
pub fn tx_dropped(interface: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    table.lines().find_map(|line| dropped_in(line, interface)).unwrap_or(0)
}

/// `  kopi0: 26302 291 0 0 0 0 0 0 40429 491 0 1 0 0 0 0`: what is lost of what is sent (proc_net(5)).
fn dropped_in(line: &str, interface: &str) -> Option<u64> {
    let (name, numbers) = line.rsplit_once(':')?;
    let dropped = numbers.split_whitespace().nth(TX_DROPPED).filter(|_| name.trim() == interface)?;
    dropped.parse().ok()
}

fn addresses_of(interface: &str) -> BTreeSet<IpAddr> {
    let all = getifaddrs().into_iter().flatten().filter(|found| found.interface_name == interface);
    let address = all.filter_map(|found| {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    address.collect()
}

/// The local ports of a list of sockets. What cannot be read has none.
fn ports_of(list: &str) -> BTreeSet<u16> {
    let Ok(file) = File::open(format!("/proc/thread-self/net/{list}")) else { return BTreeSet::new() };
    let lines = BufReader::new(file.take(LIST_MAX)).lines().map_while(Result::ok);
    lines.skip(1).filter_map(|line| local_port(&line)).collect()
}

/// `   1: 0100007F:1F90 00000000:0000 0A …`: the port of the first pair.
fn local_port(line: &str) -> Option<u16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)
}

/// Two numbers with a tab between.
fn range_of(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.trim().split_once(char::is_whitespace)?;
    Some(low.parse().ok()?..=high.trim().parse().ok()?)
}

/// `8080,50000-50009`
fn ranges_of(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse().ok()?..=high.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    /// The kernel's own formats are read, and nonsense is nothing.
    #[test]
    fn formats_of_the_kernel_are_read() {
        assert_eq!(local_port("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000"), Some(8080));
        let v6 = "   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A";
        assert_eq!(local_port(v6), Some(22));
        assert_eq!([local_port(""), local_port("  sl  local_address"), local_port("1: x:y")], [None; 3]);
        assert_eq!(range_of("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(ranges_of("8080,50000-50009\n"), [8080..=8080, 50_000..=50_009]);
        let line = "  kopi0: 26302     291    0    0    0     0          0         0    40429     491    0   17    0     0       0          0";
        assert_eq!(
            [dropped_in(line, "kopi0"), dropped_in(line, "kopi"), dropped_in("", "kopi0")],
            [Some(17), None, None]
        );
        assert_eq!((range_of(""), ranges_of("\n"), ranges_of("x,1-")), (None, Vec::new(), Vec::new()));
    }

    /// A socket's port is found as long as it is open, with its protocol.
    #[test]
    fn live_sockets_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(!ports_of("tcp").contains(&tcp), "closed again");
        let (listener, socket) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (tcp, udp) = (listener.local_addr().unwrap().port(), socket.local_addr().unwrap().port());
        assert!(ports_of("tcp").contains(&tcp) && ports_of("udp").contains(&udp));
        assert_eq!(ports_of("no-such-list"), BTreeSet::new());
    }
}

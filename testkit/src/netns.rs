//! A network namespace with a kernel behind a veth pair.

use crate::machine::{self, is_alive, run, unique};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

/// Room for frames that a test has not read yet. The kernel counts at least 768 bytes for each.
const SOCKET_ROOM: usize = 256 << 20;
/// The name of the kernel's end inside a namespace.
pub const INSIDE: &str = "wire0";

/// A namespace with one end of a veth pair, named `wire0`; the other end is with us, for kopid. Both go with the value.
#[derive(Debug)]
pub struct Netns {
    name: String,
    outside: String,
}

impl Netns {
    /// Makes one whose end has address 10.77.0.1/24 and MAC 02:77:00:00:00:01.
    ///
    /// Offloads are off on both ends, because a frame on this wire never meets the hardware that would finish it, and
    /// IPv6 is off inside, so that nothing is on the wire but what the test sends.
    #[must_use]
    pub fn new(mtu: u16) -> Self {
        machine::require_root();
        remove_stale();
        let (pid, number) = (std::process::id(), unique());
        let netns = Self { name: format!("kopi-test-{pid}-{number}"), outside: format!("kt{pid}x{number}") };
        let Self { name, outside } = &netns;
        run("ip", &["netns", "add", name]);
        netns.inside("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
        let mtu = mtu.to_string();
        let pair: Vec<&str> = vec!["link", "add", outside, "mtu", &mtu, "numtxqueues", "4", "numrxqueues", "4"];
        let pair = [pair, vec!["type", "veth", "peer", "name", INSIDE, "mtu", &mtu, "netns", name]].concat();
        run("ip", &pair);
        fs::write(format!("/proc/sys/net/ipv6/conf/{outside}/disable_ipv6"), "1").unwrap_or(());
        netns.inside("ip", &["link", "set", INSIDE, "address", "02:77:00:00:00:01"]);
        netns.inside("ip", &["address", "add", "10.77.0.1/24", "dev", INSIDE]);
        let offloads = ["rx", "tx", "sg", "tso", "gso", "gro", "rxvlan", "txvlan"];
        let off: Vec<&str> = offloads.iter().flat_map(|offload| [*offload, "off"]).collect();
        // Ethtool complains about those that a veth device cannot change, and turns off the others.
        drop(Command::new("ethtool").args(["-K", outside]).args(&off).output());
        drop(Command::new("ip").args(["netns", "exec", name, "ethtool", "-K", INSIDE]).args(&off).output());
        netns.inside("ip", &["link", "set", INSIDE, "up"]);
        run("ip", &["link", "set", outside, "up"]);
        netns
    }

    /// The MAC address of the kernel's end.
    pub const MAC: [u8; 6] = [0x02, 0x77, 0, 0, 0, 1];

    /// Name of the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the interface at our end, the one that kopid takes.
    #[must_use]
    pub fn outside(&self) -> &str {
        &self.outside
    }

    /// Runs a command inside and returns its output.
    pub fn inside(&self, program: &str, args: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.name, program], args].concat())
    }

    /// Tells the kernel inside which MAC address has IP address `ip`, as ARP would.
    pub fn neighbour(&self, ip: &str, mac: &str) {
        self.inside("ip", &["neigh", "replace", ip, "lladdr", mac, "dev", INSIDE]);
    }

    /// Pings `ip` from inside, `count` times, 10 ms apart; returns how many answers came.
    #[must_use]
    pub fn ping(&self, ip: &str, count: u32) -> u32 {
        let count = count.to_string();
        let words = ["netns", "exec", &self.name, "ping", "-n", "-q", "-i", "0.01", "-W", "1", "-c", &count, ip];
        let output = Command::new("ip").args(words).output().expect("ping runs");
        let text = String::from_utf8_lossy(&output.stdout);
        // "5 packets transmitted, 5 received, 0% packet loss, time 40ms"
        let before = text.split(" received").next().unwrap_or_default();
        before.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// A packet socket inside, bound to `wire0`, that sees every frame and has room for many.
    #[must_use]
    pub fn packet_socket(&self) -> OwnedFd {
        self.enter(|| packet_socket_in(INSIDE))
    }

    /// A packet socket at our end, for tests in which no kopid has it.
    #[must_use]
    pub fn packet_socket_outside(&self) -> OwnedFd {
        packet_socket_in(&self.outside)
    }

    /// Does `work` on a thread inside. Sockets that it makes stay inside, wherever they are used.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.name, work)
    }
}

/// Does `work` on a thread in the namespace `name`. Sockets that it makes stay there, wherever they are used.
pub fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = Path::new("/run/netns").join(name);
    // A thread changes its namespace, not a process.
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            let namespace = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The pair goes with either end.
        drop(Command::new("ip").args(["link", "del", &self.outside]).output());
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

/// A packet socket bound to `interface` of the namespace that the calling thread is in.
#[must_use]
pub fn packet_socket_in(interface: &str) -> OwnedFd {
    let every = SockProtocol::EthAll;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, every).expect("a socket");
    setsockopt(&fd, sockopt::RcvBufForce, &SOCKET_ROOM).expect("root may have large buffers");
    let address = getifaddrs().expect("a list of addresses").find_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        (entry.interface_name == interface).then_some(link)
    });
    bind(fd.as_raw_fd(), &address.expect("the interface has a link address")).expect("it can be bound to");
    fd
}

fn remove_stale() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("kopi-test-").and_then(|rest| rest.split('-').next()).unwrap_or_default();
        if owner.parse::<u32>().is_ok() && !is_alive(owner) {
            drop(Command::new("ip").args(["netns", "del", &name]).output());
        }
    }
}

//! What an application leaves to its port, by an unmodified testpmd between two kernels, of which one checks all that arrives.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::netns::INSIDE;
use kopi_testkit::testpmd::{EalArguments, Options};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Memory, Netns, Settings, TempDir, Testpmd};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

const FAR_IP: &str = "10.77.0.1";
const NEAR_IP: &str = "10.77.0.5";
const NEAR_MAC: &str = "02:77:00:00:00:05";
const FAR_MAC: &str = "02:77:00:00:00:01";
const APP_MAC: &str = "02:00:00:00:00:09";

/// Two kernels: testpmd forwards between the near one, by a packet socket, and kopid's wire, at whose other end the far one is.
struct Path {
    near: Netns,
    far: Netns,
    testpmd: Testpmd,
    _kopid: Kopid,
    _dir: TempDir,
}

impl Path {
    /// With testpmd's engine for checksums, which these commands configure while its port is stopped. The near kernel leaves what
    /// `offloads` says to its card.
    fn new(test: &str, offloads: &[&str], commands: &[&str]) -> Self {
        let dir = TempDir::new(test);
        let (near, far) = (Netns::new(1500), Netns::new(1500));
        near.inside("ip", &["link", "set", INSIDE, "address", NEAR_MAC]);
        near.inside("ip", &["address", "flush", "dev", INSIDE]);
        near.inside("ip", &["address", "add", &format!("{NEAR_IP}/24"), "dev", INSIDE]);
        // So that a packet fits a buffer of testpmd's.
        near.inside("ip", &["link", "set", INSIDE, "gso_max_size", "57000"]);
        for offload in offloads {
            near.inside("ethtool", &["-K", INSIDE, offload, "on"]);
        }
        near.neighbour(FAR_IP, APP_MAC);
        far.neighbour(NEAR_IP, APP_MAC);
        let kopid = Kopid::start(&dir, &Settings::on_interface(far.outside(), 1));
        let mut eal = EalArguments::new(&dir, &kopid, Memory::NoHuge, &format!("name=between,mac={APP_MAC}"), None);
        let socket = format!("--vdev=net_af_packet1,iface={},blocksz=61440,framesz=61440,framecnt=64", near.outside());
        eal.args.push(socket);
        let options = Options::new("between", "csum")
            .with(&format!("--mbuf-size=65535 --total-num-mbufs=1500 --eth-peer=0,{FAR_MAC} --eth-peer=1,{NEAR_MAC}"));
        let mut testpmd = Testpmd::launch_with(&dir, eal, &options);
        testpmd.process().expect(0, "testpmd> ", SOON);
        testpmd.ask("port stop 0");
        for command in commands {
            let text = testpmd.ask(command);
            assert!(!text.contains("not supported"), "{text}");
        }
        testpmd.ask("port start 0");
        testpmd.begin();
        drop(kopid.await_app("between"));
        Self { near, far, testpmd, _kopid: kopid, _dir: dir }
    }

    /// Sends `bytes` from the near kernel by TCP, and returns what arrives at the far one.
    fn transfer(&self, bytes: &[u8]) -> Vec<u8> {
        let listener = self.far.enter(|| TcpListener::bind((FAR_IP, 0)).expect("a port is free"));
        let address = listener.local_addr().expect("it is bound");
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("somebody connects");
                stream.set_read_timeout(Some(SOON)).expect("a time limit");
                let mut got = Vec::new();
                stream.read_to_end(&mut got).expect("all of it arrives");
                got
            });
            let mut stream = self.near.enter(|| TcpStream::connect_timeout(&address, SOON).expect("it answers"));
            stream.write_all(bytes).expect("all of it is sent");
            drop(stream);
            reader.join().expect("the reader ends")
        })
    }

    /// Sends a datagram from the near kernel, and returns what arrives at the far one.
    fn datagram(&self, bytes: &[u8]) -> Vec<u8> {
        let to = self.far.enter(|| UdpSocket::bind((FAR_IP, 0)).expect("a port is free"));
        to.set_read_timeout(Some(SOON)).expect("a time limit");
        let address: SocketAddr = to.local_addr().expect("it is bound");
        let from = self.near.enter(|| UdpSocket::bind((NEAR_IP, 0)).expect("a port is free"));
        from.send_to(bytes, address).expect("it is sent");
        let mut room = [0; 2048];
        let length = to.recv(&mut room).expect("it arrives");
        room[..length].to_vec()
    }

    /// What the far kernel has counted of damaged packets.
    fn damaged(&self) -> Vec<(String, u64)> {
        let names = ["TcpInCsumErrors", "TcpInErrs", "UdpInCsumErrors", "IpInHdrErrors"];
        let text = self.far.inside("nstat", &[&["-asz"][..], &names].concat());
        let counts: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
            })
            .collect();
        assert_eq!(counts.len(), names.len(), "{text}");
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Frames that testpmd has received from the near kernel, and sent to kopid; what it could not send is an error.
    fn counts(&mut self) -> (u64, u64) {
        let sent = self.testpmd.stat("TX-packets");
        let text = self.testpmd.ask("show port stats 1");
        let received = text.split("RX-packets:").nth(1).and_then(|rest| rest.split_whitespace().next());
        let received = received.and_then(|word| word.parse().ok()).expect("it is counted");
        let dropped: Vec<_> =
            self.testpmd.xstats().into_iter().filter(|(name, _)| name.starts_with("tx_kopi_m")).collect();
        assert!(dropped.is_empty(), "{dropped:?}");
        (received, sent)
    }
}

/// Bytes that do not repeat soon, so that any that are lost, doubled or swapped are found.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

/// Checksums of IPv4, TCP and UDP that testpmd leaves to its port are right for a kernel that checks them.
#[test]
fn checksums_are_right_for_a_kernel() {
    let commands = ["csum set ip hw 0", "csum set tcp hw 0", "csum set udp hw 0", "csum set sctp hw 0"];
    // The near kernel leaves them to its card as well, so that there is none that is right by chance.
    let path = &mut Path::new("offloads-sums", &["tx"], &commands);
    let sent = pattern(500_000);
    assert!(path.transfer(&sent) == sent);
    for length in [0, 1, 2, 1001, 1472] {
        let datagram = &sent[..length];
        assert_eq!(path.datagram(datagram), datagram);
    }
    let damaged = path.damaged();
    assert!(damaged.is_empty(), "{damaged:?}");
    let (_, frames) = path.counts();
    assert!(frames > 500_000 / 1500, "{frames}");
}

/// Packets of some 57,000 bytes are cut to frames of the wire, whole and in order, and frames of the wire are what is counted.
#[test]
fn large_packets_arrive_whole() {
    let commands = ["csum set ip hw 0", "csum set tcp hw 0", "tso set 1400 0"];
    let path = &mut Path::new("offloads-tso", &["tx", "sg", "tso", "gso"], &commands);
    let sent = pattern(8_000_000);
    assert!(path.transfer(&sent) == sent);
    let damaged = path.damaged();
    assert!(damaged.is_empty(), "{damaged:?}");
    let (received, frames) = path.counts();
    assert!(frames >= 8_000_000 / 1400 && received < frames / 4, "{received} packets became {frames} frames");
}

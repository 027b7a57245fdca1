//! What tools learn of a port: DPDK's telemetry, and testpmd's questions that ethtool asks, too.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Producer;
use kopi_ring::layout::Notes;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Mac, ethernet};
use kopi_testkit::testpmd::{EalArguments, Options};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Memory, Settings, TempDir, Testpmd, wait_until};
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, SendFlags};
use serde_json::{Value, json};
use std::path::Path;

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 9];
const MAC: &str = "02:00:00:00:00:09";
/// Checksums of IPv4, TCP, UDP and SCTP, VLAN_STRIP, TIMESTAMP and RSS_HASH.
const OFFLOADS: &str = "--rx-offloads=0xa400f";

/// A connection to an application's telemetry.
struct Telemetry(OwnedFd);

impl Telemetry {
    fn connect(path: &Path) -> Self {
        let socket = kopi_ring::socket::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let limit = Some(std::time::Duration::from_secs(20));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)
            .expect("a socket has timeouts");
        let telemetry = Self(socket);
        let greeting = telemetry.receive();
        assert!(greeting["version"].is_string(), "{greeting}");
        telemetry
    }

    fn receive(&self) -> Value {
        let mut answer = vec![0; 64 << 10];
        let (len, _) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty()).expect("DPDK answers");
        serde_json::from_slice(&answer[..len]).expect("DPDK answers in JSON")
    }

    /// What it says of `command`; null if the port has no such thing.
    fn ask(&self, command: &str) -> Value {
        rustix::net::send(&self.0, command.as_bytes(), SendFlags::NOSIGNAL).expect("DPDK listens");
        let name = command.split(',').next().unwrap_or_default();
        self.receive()[name].clone()
    }
}

fn sender(kopid: &Kopid) -> (Client, Producer) {
    let (client, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
    drop(kopid.await_app("sender"));
    (client, region.tx_producer(0).expect("a region has a ring"))
}

/// Every command of telemetry about ports, in whatever release, tells the truth of the port, or that it has no such thing.
#[test]
fn telemetry_shows_the_port_right() {
    let dir = TempDir::new("tele");
    let kopid = Kopid::start(&dir, &Settings::default());
    let mut eal = EalArguments::new(&dir, &kopid, Memory::NoHuge, &format!("name=seen,queues=2,mac={MAC}"), None);
    eal.args.retain(|arg| arg != "--no-telemetry");
    let value = |key: &str| eal.args.iter().find_map(|arg| arg.strip_prefix(key)).map(str::to_owned);
    let prefix = value("--file-prefix=").expect("EAL has a prefix");
    let (_, folder) = eal.launch.env.iter().find(|(name, _)| name == "RUNTIME_DIRECTORY").expect("EAL has a folder");
    let socket = Path::new(folder).join("dpdk").join(prefix).join("dpdk_telemetry.v2");
    let options = Options::new("seen", "rxonly").with("--rxq=2 --txq=2 --rxd=512 --txd=256").with(OFFLOADS);
    let mut testpmd = Testpmd::launch_with(&dir, eal, &options);
    testpmd.process().expect(0, "testpmd> ", SOON);
    testpmd.begin();
    drop(kopid.await_app("seen"));
    let (_client, mut ring) = sender(&kopid);
    ring.free(3).expect("kopid keeps to the contract");
    for _ in 0..3 {
        assert!(ring.push(&ethernet(RECEIVER, SENDER, 0x88b5, &[0; 46]), Notes::NONE), "the ring has room");
    }
    ring.publish();
    wait_until("frames arrive", SOON, || testpmd.stat("RX-packets") == 3);

    let telemetry = Telemetry::connect(&socket);
    let commands = telemetry.ask("/");
    let names: Vec<_> = commands.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let mut seen = 0;
    for name in names.iter().filter(|name| name.starts_with("/ethdev/")) {
        let with = if matches!(*name, "/ethdev/rx_queue" | "/ethdev/tx_queue") { ",0,1" } else { ",0" };
        let answer = telemetry.ask(&format!("{name}{with}"));
        match *name {
            "/ethdev/list" => assert_eq!(answer, json!([0])),
            "/ethdev/stats" => {
                assert_eq!((&answer["ipackets"], &answer["ibytes"]), (&json!(3), &json!(180)), "{answer}");
                assert_eq!(answer["opackets"], json!(0));
            }
            "/ethdev/xstats" => assert_eq!(answer["rx_good_packets"], json!(3), "{answer}"),
            "/ethdev/link_status" => {
                assert_eq!((&answer["status"], &answer["duplex"]), (&json!("UP"), &json!("full-duplex")), "{answer}");
            }
            "/ethdev/info" => is_info(&answer),
            "/ethdev/macs" => assert_eq!(answer, json!([MAC])),
            "/ethdev/rx_queue" => {
                assert_eq!((&answer["nb_desc"], &answer["rx_drop_en"]), (&json!(512), &json!("on")), "{answer}");
                assert_eq!(answer["burst_mode"], json!("Shared-memory ring"));
            }
            "/ethdev/tx_queue" => assert_eq!(answer["nb_desc"], json!(256), "{answer}"),
            "/ethdev/vlan" => {
                assert_eq!((&answer["VLAN_STRIP"], &answer["VLAN_FILTER"]), (&json!("on"), &json!("off")))
            }
            "/ethdev/rss_info" => assert!(answer["rss_hf"].is_string() || answer["rss_hf"].is_u64(), "{answer}"),
            // What a port here does not have, each of them null or empty: modules, flow control, DCB, FEC, registers, traffic management.
            _ => assert!(answer.is_null() || answer == json!({}), "{name}: {answer}"),
        }
        seen += 1;
    }
    assert!(seen >= 6, "{commands}");
    testpmd.quit();
}

fn is_info(info: &Value) {
    let expected = json!({
        "name": "net_kopi0",
        "nb_rx_queues": 2,
        "nb_tx_queues": 2,
        "port_id": 0,
        "mtu": 1500,
        "mac_addr": MAC,
        "scattered_rx": 0,
        "all_multicast": 0,
        "dev_started": 1,
        "lro": 0,
        "dev_configured": 1,
        "rxq_state": [1, 1],
        "txq_state": [1, 1],
    });
    for (key, value) in expected.as_object().expect("an object") {
        // Releases differ in capitals.
        let found = info[key].as_str().map_or_else(|| info[key].clone(), |text| json!(text.to_lowercase()));
        assert_eq!(&found, value, "{key} of {info}");
    }
}

/// What ethtool would ask a card: the port answers, or says that it cannot, and does not fail over it.
#[test]
fn questions_are_answered_or_refused() {
    let dir = TempDir::new("asked");
    let kopid = Kopid::start(&dir, &Settings::default());
    let options = Options::new("asked", "rxonly").mac(MAC).with("--rxd=512 --txd=256").with(OFFLOADS);
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options);
    let info = testpmd.ask("show port info 0");
    for text in
        ["Link status: up", "MTU: 1500", "Driver name: net_kopi", "strip on, filter off, extend off, qinq strip off"]
    {
        assert!(info.contains(text), "{text} is not in {info}");
    }
    let queue = testpmd.ask("show rxq info 0 0");
    for text in ["Number of RXDs: 512", "RX drop packets: on", "RX deferred start: off", "RX scattered packets: off"] {
        assert!(queue.contains(text), "{text} is not in {queue}");
    }
    assert!(testpmd.ask("show txq info 0 0").contains("Number of TXDs: 256"));
    let offloads = testpmd.ask("show port 0 rx_offload configuration");
    for name in ["VLAN_STRIP", "IPV4_CKSUM", "UDP_CKSUM", "TCP_CKSUM", "SCTP_CKSUM", "TIMESTAMP", "RSS_HASH"] {
        assert!(offloads.contains(name), "{name} is not in {offloads}");
    }
    assert!(!testpmd.ask("show port 0 rx_offload capabilities").contains("KEEP_CRC"));
    // testpmd's words for ENOTSUP, and for an offload that the port has not said that it has.
    for (question, refusal) in [
        ("show port 0 module_eeprom", "not supported"),
        ("show port 0 eeprom", "not supported"),
        ("show port 0 flow_ctrl", "err = -95"),
        ("show port 0 fec_mode", "not implemented"),
        ("show port dcb_tc 0", "Failed to get dcb infos"),
        ("vlan set filter on 0", "must be within Rx offloads capabilities"),
        ("rx_vlan add 7 0", "VLAN-filtering disabled"),
        ("show port 0 rxq 0 desc 512 status", "Invalid"),
    ] {
        let text = testpmd.ask(question);
        assert!(text.contains(refusal), "{question}: {text}");
    }
    for (question, answer) in [
        ("show port 0 macs", MAC),
        ("show port 0 ptypes", "L2_ETHER_QINQ"),
        ("show device info all", "Driver name: net_kopi"),
        ("show port 0 rxq 0 desc 0 status", "AVAILABLE"),
        ("show port 0 txq 0 desc 255 status", "DONE"),
        ("show port 0 rxq 0 desc used count", "Used desc count = 0"),
    ] {
        let text = testpmd.ask(question);
        assert!(text.contains(answer), "{question}: {text}");
    }
    testpmd.tell("stop", "Accumulated forward statistics");
    let text = testpmd.ask("port cleanup 0 txq 0 0");
    assert!(text.contains("Cleanup port 0 Tx queue 0 mbuf nums: 0"), "{text}");
    assert!(kopid.app("asked").is_some());
    testpmd.quit();
}

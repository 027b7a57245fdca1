//! What the driver answers to an application's questions and orders, in an unmodified testpmd.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Producer;
use kopi_ring::layout::Notes;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{Mac, ethernet};
use kopi_testkit::testpmd::{EalArguments, Options};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Memory, Settings, TempDir, Testpmd, wait_until};

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 9];
const MAC: &str = "02:00:00:00:00:09";

/// An app that sends frames to `RECEIVER`, as long as its connection lives.
fn sender(kopid: &Kopid) -> (Client, Producer) {
    let (client, region) = Client::attach(&kopid.socket(), "sender", SENDER, &small());
    drop(kopid.await_app("sender"));
    (client, region.tx_producer(0).expect("a region has a ring"))
}

fn send(ring: &mut Producer, frames: u32) {
    ring.free(frames).expect("kopid keeps to the contract");
    for _ in 0..frames {
        assert!(ring.push(&ethernet(RECEIVER, SENDER, 0x88b5, &[0; 46]), Notes::NONE), "the ring has room");
    }
    ring.publish();
}

/// Frames are counted, and descriptors have their status, before anybody has polled: after the first start, after another one,
/// and after kopid has come back, to an application that has polled before and to one that has not.
#[test]
fn frames_are_counted_before_the_first_burst() {
    let dir = TempDir::new("counted");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    let mut testpmd = Testpmd::start(&dir, &kopid, &Options::new("gated", "rxonly").mac(MAC));
    let count = |kopid: &Kopid, testpmd: &mut Testpmd, when: &str| {
        drop(kopid.await_app("gated"));
        let (client, mut ring) = sender(kopid);
        // kopid lists an application before the application has its rings.
        wait_until(&format!("there is room to send {when}"), SOON, || {
            testpmd.ask("show port 0 txq 0 desc 0 status").contains("DONE")
        });
        assert!(testpmd.ask("show port 0 rxq 0 desc used count").contains("Used desc count = 0"), "{when}");
        send(&mut ring, 3);
        wait_until(&format!("three frames are counted {when}"), SOON, || {
            testpmd.ask("show port 0 rxq 0 desc used count").contains("Used desc count = 3")
        });
        assert!(testpmd.ask("show port 0 rxq 0 desc 2 status").contains("DONE"), "{when}");
        assert!(testpmd.ask("show port 0 rxq 0 desc 3 status").contains("AVAILABLE"), "{when}");
        drop(client);
        kopid.await_no_app("sender");
    };
    count(&kopid, &mut testpmd, "after a start");
    testpmd.ask("port stop 0");
    testpmd.ask("port start 0");
    count(&kopid, &mut testpmd, "after another start");
    kopid.kill();
    kopid.restart();
    count(&kopid, &mut testpmd, "after a restart of kopid");
    testpmd.tell("start", "packet forwarding");
    wait_until("they are received", SOON, || testpmd.stat("RX-packets") == 3);
    testpmd.tell("stop", "Accumulated forward statistics");
    kopid.kill();
    kopid.restart();
    count(&kopid, &mut testpmd, "after another restart");
    testpmd.quit();
}

/// The application takes its link down and up again, and nothing passes in between; what the port cannot do is refused, and its
/// firmware's name fits where tools put it.
#[test]
fn orders_are_kept_or_refused() {
    let dir = TempDir::new("orders");
    let kopid = Kopid::start(&dir, &Settings::default());
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &Options::new("ordered", "rxonly").mac(MAC));
    let (_client, mut ring) = sender(&kopid);
    let received = |testpmd: &mut Testpmd, frames: u64| {
        wait_until("frames arrive", SOON, || testpmd.stat("RX-packets") == frames);
    };
    send(&mut ring, 2);
    received(&mut testpmd, 2);
    testpmd.ask("set link-down port 0");
    assert!(testpmd.ask("show port info 0").contains("Link status: down"));
    send(&mut ring, 5);
    wait_until("kopid has delivered them", SOON, || kopid.await_app("ordered")["rx_packets"] == 7);
    let thrown_away = |testpmd: &mut Testpmd, frames: u64| {
        let thrown = ("rx_kopi_link_down".to_owned(), frames);
        wait_until(&format!("{frames} are thrown away"), SOON, || testpmd.xstats().contains(&thrown));
    };
    thrown_away(&mut testpmd, 5);
    assert_eq!(testpmd.stat("RX-packets"), 2);
    testpmd.tell("set link-up port 0", "link state change event");
    let info = testpmd.ask("show port info 0");
    assert!(info.contains("Link status: up"), "{info}");
    let firmware = format!("Firmware-version: kopid, protocol {}, port {}", kopi_ring::PROTOCOL, 1);
    assert!(info.contains(&firmware), "{info}");
    send(&mut ring, 1);
    wait_until("a frame arrives", SOON, || testpmd.stat("RX-packets") >= 3);
    assert_eq!(testpmd.stat("RX-packets"), 3);

    // The same for an application that polls only when the link is up again.
    testpmd.tell("stop", "Accumulated forward statistics");
    testpmd.ask("set link-down port 0");
    send(&mut ring, 4);
    wait_until("kopid has delivered them", SOON, || kopid.await_app("ordered")["rx_packets"] == 12);
    // Not until the event is told of: that may be the one of the link that went down.
    testpmd.ask("set link-up port 0");
    send(&mut ring, 1);
    wait_until("one is told of", SOON, || {
        testpmd.ask("show port 0 rxq 0 desc used count").contains("Used desc count = 1")
    });
    testpmd.tell("start", "packet forwarding");
    thrown_away(&mut testpmd, 9);
    wait_until("another arrives", SOON, || testpmd.stat("RX-packets") >= 4);
    assert_eq!(testpmd.stat("RX-packets"), 4);

    testpmd.tell("stop", "Accumulated forward statistics");
    assert!(testpmd.ask("port 0 rxq 0 stop").contains("not supported"));
    assert!(testpmd.ask("port 0 txq 0 start").contains("not supported"));
    testpmd.ask("port stop 0");
    let text = testpmd.ask("set link-up port 0");
    assert!(text.contains("it is stopped; its link comes up when it is started"), "{text}");
    // A link that was taken down comes up with the next start.
    testpmd.ask("port start 0");
    testpmd.ask("set link-down port 0");
    testpmd.ask("port stop 0");
    testpmd.ask("port start 0");
    drop(kopid.await_app("ordered"));
    wait_until("the link is up", SOON, || testpmd.ask("show port info 0").contains("Link status: up"));

    testpmd.ask("port stop 0");
    testpmd.ask("port config 0 speed 10000 duplex full");
    let text = testpmd.ask("port start 0");
    assert!(text.contains("the speed of the link is that of the wire"), "{text}");
    testpmd.quit();
}

/// A secondary process knows the ports and their links, passes nothing, and stands in nobody's way: ports are plugged in and out
/// beside it, and the primary goes on when it ends.
#[test]
fn ports_are_plugged_beside_a_secondary_process() {
    let dir = TempDir::new("secondary");
    let kopid = Kopid::start(&dir, &Settings::default());
    let eal = EalArguments::new(&dir, &kopid, Memory::HugePages, &format!("name=primary,mac={MAC}"), None);
    let (mut args, launch) = (eal.args.clone(), eal.launch.clone());
    let of = |number: u8| Options::new("primary", "rxonly").with(&format!("--num-procs=2 --proc-id={number}"));
    let mut primary = Testpmd::launch_with(&dir, eal, &of(0));
    primary.process().expect(0, "testpmd> ", SOON);
    args.retain(|arg| !arg.starts_with("--vdev"));
    args.push("--proc-type=secondary".into());
    let mut secondary = Testpmd::launch_with(&dir, EalArguments { args, launch, mount: None }, &of(1));
    secondary.process().expect(0, "testpmd> ", SOON);
    assert!(secondary.ask("show port info 0").contains("Link status: up"));

    let socket = kopid.socket().display().to_string();
    primary.tell(&format!("port attach net_kopi1,socket={socket},name=plugged"), "Port 1 is attached");
    assert!(kopid.app("plugged").is_some());
    assert!(secondary.ask("show port summary all").contains("net_kopi1"));
    assert!(secondary.ask("show port info 1").contains("Driver name: net_kopi"));
    primary.tell("port detach 1", "is detached");
    kopid.await_no_app("plugged");
    assert!(!secondary.ask("show port summary all").contains("net_kopi1"));

    secondary.quit();
    primary.tell("start", "packet forwarding");
    let (_client, mut ring) = sender(&kopid);
    send(&mut ring, 3);
    wait_until("the primary receives", SOON, || primary.stat("RX-packets") == 3);
    primary.quit();
}

/// An application in a container that was given the socket's folder finds the next kopid by itself. One that was given the socket
/// alone never does, and is told so.
#[test]
fn containers_need_the_folder_of_the_socket() {
    let dir = TempDir::new("container");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    let [folder, file] = ["folder", "file"].map(|name| dir.join(name));
    std::fs::create_dir(&folder).expect("the folder is ours");
    std::fs::write(&file, "").expect("the folder is ours");
    let contained = |from: &std::path::Path, to: &std::path::Path, socket: &std::path::Path, name: &str| {
        let mut eal = EalArguments::new(&dir, &kopid, Memory::NoHuge, "", None);
        eal.args.retain(|arg| !arg.starts_with("--vdev"));
        eal.args.push(format!("--vdev=net_kopi0,socket={},name={name}", socket.display()));
        // Mounts of its own, as a container has.
        let script = format!("mount --bind {} {} && exec \"$@\"", from.display(), to.display());
        eal.launch.wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        let mut testpmd = Testpmd::launch_with(&dir, eal, &Options::new(name, "rxonly"));
        testpmd.process().expect(0, "testpmd> ", SOON);
        drop(kopid.await_app(name));
        testpmd
    };
    let whole = contained(dir.path(), &folder, &folder.join("kopi.sock"), "whole");
    let mut alone = contained(&kopid.socket(), &file, &file, "alone");
    assert!(kopid.stop().success());
    kopid.restart();
    drop(kopid.await_app("whole"));
    alone.process().expect(0, "mount the folder that it lies in", SOON);
    assert!(kopid.app("alone").is_none());
    whole.quit();
    alone.quit();
}

//! The kernel has no uid: captures and lists of the user `nobody` have that user's traffic, and nothing of the kernel's.

use super::{FAR_IP, HOME_IP, settings};
use kopi_testkit::frames::{Ends, Mac, framed};
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Capture, Home, Netns, Piped, Recording, TempDir, wait_until};
use serde_json::Value;
use std::net::Ipv4Addr;

/// The uid that `nobody` has everywhere, and that the kernel gives to users whom it cannot name.
const NOBODY: u32 = 65_534;
const MAC: Mac = [2, 0, 0, 0, 0, 0xb];
const SENT: usize = 10;

/// `capture --user nobody` and `flows --user nobody` agree, while the kernel is as busy as an app of that user.
#[test]
fn nobody_is_a_user_and_not_the_kernel() {
    let dir = TempDir::new("host-nobody");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home));
    let how = Launch { user: Some(NOBODY), ..Launch::default() };
    let mut app = Piped::client(&dir, &kopid, "nobodys", "02:00:00:00:00:0b", &how, &[]);
    assert_eq!(kopid.await_app("nobodys")["user"], "nobody");
    let files = [dir.join("user.pcapng"), dir.join("uid.pcapng"), dir.join("all.pcapng")];
    let selectors = ["--user nobody".to_owned(), format!("--user {NOBODY}"), String::new()];
    let mut captures = [0, 1, 2].map(|at| {
        Capture::start(&dir, &kopid, &format!("-w {} {} icmp or udp port 7", files[at].display(), selectors[at]))
    });
    wait_until("the kernel is reached", SOON, || far.ping(HOME_IP, 1) == 1);
    assert_eq!(far.ping(HOME_IP, 20), 20);
    let source = Ipv4Addr::new(10, 77, 0, 11);
    for id in 0..SENT {
        let destination = FAR_IP.parse().expect("an address");
        let ends = Ends { source, destination, id: u16::try_from(id).expect("few") };
        app.send(&framed(Netns::MAC, MAC, &ends.udp((4000, 7), b"of nobody's")));
    }
    wait_until("all of it is sent", SOON, || kopid.counter("nobodys", "tx_packets") == SENT as u64);
    let listed = |user: &str| {
        let output = kopid.kopictl(&["--json", "flows", "--user", user]).stdout;
        let listed: Value = serde_json::from_slice(&output).expect("JSON");
        let apps = listed["flows"].as_array().expect("a list").iter().map(|flow| flow["app"].clone());
        apps.collect::<Vec<_>>()
    };
    assert_eq!((listed("nobody"), listed(&NOBODY.to_string())), (vec!["nobodys".into()], vec!["nobodys".into()]));
    assert!(kopid.ask("flows").iter().any(|flow| flow["app"] == "host"), "the kernel has flows");
    let packets = [0, 1, 2].map(|at| {
        let _sums = captures[at].stop();
        Recording::load(&files[at]).packets
    });
    for of_nobody in &packets[..2] {
        assert_eq!(of_nobody.len(), SENT);
        assert!(of_nobody.iter().all(|shot| shot.says("user") == "nobody"), "{of_nobody:?}");
    }
    assert!(packets[2].len() >= SENT + 40, "the kernel's pings and answers are there for who asks for all");
    app.finish();
    assert!(kopid.stop().success());
}

//! What an interface has, moved to the kernel's port and back.

use super::{HOME_IP, is_reached, settings};
use kopi_testkit::home::TAP;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Home, Kopid, Netns, TempDir, wait_until};

/// What an interface has is moved to the kernel's port, which gets each frame once, and back to the letter; both may be done twice.
/// After a kill of kopid either goes on, the one with another kopid and the other with none.
#[test]
fn takeover_has_a_way_back() {
    let dir = TempDir::new("takeover");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let near = home.interface().to_owned();
    let before = home.shows(&near);
    let mut kopid = home.kopid(&dir, &settings(&home));
    for _ in 0..2 {
        assert_eq!(home.shows(&near), (String::new(), String::new()));
        assert_eq!(home.shows(TAP), before);
        wait_until("the kernel is reached", SOON, || is_reached(&far));
        let pinged = far.inside("ping", &["-n", "-q", "-i", "0.01", "-c", "20", HOME_IP]);
        assert!(pinged.contains(" 20 received") && !pinged.contains("duplicates"), "{pinged}");
        assert!(home.takeover(&dir, &kopid, &[]).status.success());
    }
    assert!(home.takeover(&dir, &kopid, &["--undo"]).status.success());
    assert_eq!((home.shows(&near), home.shows(TAP)), (before.clone(), (String::new(), String::new())));
    assert!(home.takeover(&dir, &kopid, &["--undo"]).status.success());

    assert!(home.takeover(&dir, &kopid, &[]).status.success());
    kopid.kill();
    assert!(!is_reached(&far), "nobody has the address");
    kopid.restart();
    home.await_carrier();
    assert!(home.takeover(&dir, &kopid, &[]).status.success());
    assert_eq!(home.shows(TAP), before);
    wait_until("the kernel is reached as before the kill", SOON, || is_reached(&far));
    kopid.kill();
    let undone = home.takeover(&dir, &kopid, &["--undo"]);
    assert!(undone.status.success(), "{}", String::from_utf8_lossy(&undone.stderr));
    assert_eq!(home.shows(&near), before);
    wait_until("the kernel is reached as before kopid", SOON, || is_reached(&far));
    assert!(!home.takeover(&dir, &kopid, &[]).status.success(), "there is nobody to ask for its interface");
    assert_eq!(home.shows(&near), before);
}

/// A takeover that cannot be finished leaves everything as it was.
#[test]
fn takeover_that_fails_changes_nothing() {
    let dir = TempDir::new("takeover-fails");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let near = home.interface().to_owned();
    let before = home.shows(&near);
    let mut kopid = Kopid::start_as(&dir, &settings(&home).host(TAP), &home.launch());
    home.await_carrier();
    let refused = home.takeover(&dir, &kopid, &["--tap", "no-such-tap"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no interface `no-such-tap`"), "{said}");
    assert_eq!(home.shows(&near), before);
    assert!(!dir.join("takeover.json").exists());
    let rules = home.inside("nft", &["list", "ruleset"]);
    assert!(!rules.contains("kopi"), "{rules}");
    assert!(kopid.stop().success());
}

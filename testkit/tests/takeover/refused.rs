//! What cannot be carried is refused by name, with nothing touched.

use super::scene::{Scene, TAP, same};

/// Has takeover refused after these commands, for a reason that has `said` in it.
fn is_refused(scene: &Scene, commands: &str, said: &[&str]) {
    assert!(scene.batch(commands), "{commands}");
    let (before, _) = scene.shown().timeless();
    let refused = scene.takeover(&[]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.iter().all(|part| error.contains(part)), "{error}");
    same(&before, &scene.shown().timeless().0, commands);
    assert!(!scene.state().exists(), "nothing is left to be undone");
}

/// Devices that stand on the interface, or on which it stands, are named; without them it is taken over.
#[test]
fn devices_on_top() {
    let scene = Scene::new();
    let address = "address add 10.88.0.2/24 dev near\n";
    assert!(scene.batch(address));
    is_refused(&scene, "link add mac0 link near type macvlan\n", &["`mac0` stands on `near`"]);
    is_refused(&scene, "link del mac0\nlink add br7 type bridge\nlink set near master br7\n", &["port of `br7`"]);
    is_refused(&scene, "link set near nomaster\nlink add vx0 type vxlan id 4 dev near dstport 4789\n", &["`vx0`"]);
    assert!(scene.batch("link del vx0\n"));
    let done = scene.takeover(&[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let again = "link add mac0 link near type macvlan\n";
    assert!(scene.batch(again));
    let again = scene.takeover(&[]);
    assert!(!again.status.success(), "it is no different when it is taken over again");
    assert!(scene.batch("link del mac0\n") && scene.takeover(&["--undo"]).status.success());
}

/// A device in another namespace cannot be seen, but the address that the interface receives for it.
#[test]
fn devices_elsewhere() {
    let (scene, elsewhere) = (Scene::new(), Scene::new());
    let commands = "link add mac0 link near address 02:00:00:00:0a:0b type macvlan\n";
    assert!(scene.batch(commands));
    assert!(scene.batch(&format!("link set mac0 netns {}\n", elsewhere.name())));
    assert!(elsewhere.batch("link set mac0 up\n"));
    is_refused(&scene, "", &["02:00:00:00:0a:0b", "another network namespace"]);
}

/// What only the kernel can make, and what is not there.
#[test]
fn what_does_not_come_back() {
    let scene = Scene::new();
    scene.inside("sysctl", &["-qw", "net.ipv6.conf.near.use_tempaddr=2"]);
    is_refused(
        &scene,
        "address add fd88::2/64 dev near mngtmpaddr valid_lft 86400 preferred_lft 43200\n",
        &["address fd88:", "privacy", "use_tempaddr"],
    );
    assert!(scene.batch("address flush dev near scope global\nlink del kopi0\n"));
    is_refused(&scene, "", &["no interface", TAP]);
}

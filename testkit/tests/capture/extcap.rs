//! kopi's ports as interfaces of tshark.

use crate::scene::{BOB, BOB_MAC, NOBODYS_MAC, Scene, send};
use kopi_testkit::machine::built;
use kopi_testkit::wait_until;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long tshark, which starts its plugins several times, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// tshark of a user who has kopi's plugin in the personal folder for plugins, which is what Debian's tshark looks into
/// beside the system's.
fn tshark(scene: &Scene, args: &[&str]) -> Command {
    let plugins = scene.path("wireshark/extcap");
    if !plugins.exists() {
        std::fs::create_dir_all(&plugins).expect("the folder is new");
        symlink(built("kopictl"), plugins.join("kopi-extcap")).expect("the folder can be written");
    }
    let mut command = Command::new("tshark");
    command.args(args).env("XDG_CONFIG_HOME", scene.dir.path()).env("KOPI_CONTROL", scene.kopid.control());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Sends until tshark has seen enough, and returns what it has printed.
fn while_running(mut child: Child, mut traffic: impl FnMut()) -> String {
    wait_until("tshark has enough", PATIENCE, || {
        traffic();
        std::thread::sleep(Duration::from_millis(50));
        child.try_wait().expect("a child of ours").is_some()
    });
    let output = child.wait_with_output().expect("a child of ours");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// tshark lists kopi's interfaces, the apps that are attached among them, and captures on them, with owners in the
/// comments, filters of its own and the plugin's options.
#[test]
fn tshark_captures_on_kopis_interfaces() {
    let mut scene = Scene::new("extcap", "");
    let mut bob = scene.app("bob", BOB_MAC, BOB, &[]);
    let pid = bob.process().pid();
    let listed = tshark(&scene, &["-D"]).output().expect("tshark runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["kopi:any", "kopi:wire", "kopi:dropped", "kopi:app/bob"] {
        assert!(listed.contains(name), "no {name} in\n{listed}");
    }
    let fields = ["-n", "-l", "-c", "5", "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"];
    let of_bob = format!("bob\tapp=bob pid={pid} uid={BOB} comm=kopi-client verdict=accept queue=0");
    for (args, expected) in [
        (&["-i", "kopi:any", "-f", "udp dst port 5000"][..], of_bob.as_str()),
        (&["-i", "kopi:app/bob", "-f", "udp dst port 5000"], &of_bob),
        (&["-i", "kopi:wire", "-f", "udp dst port 7000"], "wire\tapp=bob"),
    ] {
        let child = tshark(&scene, &[args, &fields].concat()).spawn().expect("tshark runs");
        let printed = while_running(child, || {
            send(&mut bob, BOB_MAC, NOBODYS_MAC, 5000, 2);
            scene.arrive(BOB_MAC, 7000, 2);
        });
        assert_eq!(printed.lines().count(), 5, "{args:?}: {printed}");
        assert!(printed.lines().all(|line| line.starts_with(expected)), "{args:?}: {printed}");
    }
    wait_until("the captures have ended", PATIENCE, || scene.kopid.status()["connections"] == 1);
    bob.finish();
    assert!(scene.kopid.stop().success());
}

//! A network namespace at the near end of the wire, with kopid in it: the machine whose kernel gets a port.

use crate::kopid::{Kopid, Settings};
use crate::machine::{built, run, unique};
use crate::netns::{Netns, enter};
use crate::process::Launch;
use crate::temp::TempDir;
use crate::wait::{SOON, wait_until};
use std::process::{Command, Output};

/// The interface that the kernel gets.
pub const TAP: &str = "kopi0";

/// A namespace with the near end of a wire in it. It goes with its value, and the wire with it.
#[derive(Debug)]
pub struct Home {
    name: String,
    interface: String,
}

impl Home {
    /// Moves the near end of `far`'s wire into a new namespace, and gives it 10.77.0.2/24 and a route by the far end, as a
    /// machine has before kopid comes.
    #[must_use]
    pub fn new(far: &Netns) -> Self {
        let name = format!("kopi-test-{}-{}-home", std::process::id(), unique());
        let home = Self { name, interface: far.outside().to_owned() };
        let Self { name, interface } = &home;
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "set", "dev", interface, "netns", name]);
        home.inside("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
        home.inside("ip", &["link", "set", "lo", "up"]);
        home.inside("ip", &["address", "add", "10.77.0.2/24", "dev", interface]);
        home.inside("ip", &["link", "set", interface, "up"]);
        home.inside("ip", &["route", "add", "10.99.0.0/16", "via", "10.77.0.1", "dev", interface]);
        home
    }

    /// Name of the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The near end of the wire.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// How a process is started here.
    #[must_use]
    pub fn launch(&self) -> Launch {
        Launch { netns: Some(self.name.clone()), ..Launch::default() }
    }

    /// Starts kopid here, with the wire and a port for the kernel, and has the kernel's port take the wire's place.
    #[must_use]
    pub fn kopid(&self, dir: &TempDir, settings: &Settings) -> Kopid {
        let kopid = Kopid::start_as(dir, &settings.clone().host(TAP), &self.launch());
        self.await_carrier();
        let done = self.takeover(dir, &kopid, &[]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        kopid
    }

    /// Waits until the kernel's port has a link.
    pub fn await_carrier(&self) {
        wait_until("the kernel's port has a link", SOON, || {
            self.inside("ip", &["link", "show", TAP]).contains("LOWER_UP")
        });
    }

    /// Runs `kopictl takeover` of the wire's interface here.
    #[must_use]
    pub fn takeover(&self, dir: &TempDir, kopid: &Kopid, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(built("kopictl")).arg("--socket").arg(kopid.control());
        command.arg("takeover").arg(&self.interface).arg("--state").arg(dir.join("takeover.json")).args(args);
        command.output().expect("kopictl can be run")
    }

    /// Runs a command here and returns its output.
    pub fn inside(&self, program: &str, args: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.name, program], args].concat())
    }

    /// Addresses and routes of `interface`, as the kernel shows them.
    #[must_use]
    pub fn shows(&self, interface: &str) -> (String, String) {
        let addresses = self.inside("ip", &["-brief", "address", "show", "dev", interface]);
        // Without the name, the state, and the other end of the pair.
        let addresses = addresses.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        (addresses, self.inside("ip", &["route", "show", "dev", interface]))
    }

    /// Does `work` on a thread here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.name, work)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

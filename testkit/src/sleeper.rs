//! The example application `examples/sleeper`: it sleeps until there are frames, and echoes UDP.

use crate::kopid::Kopid;
use crate::machine::run;
use crate::process::Process;
use crate::temp::TempDir;
use crate::testpmd::{EalArguments, HugeMount, Memory};
use crate::wait::SOON;
use std::path::Path;

/// A running sleeper. It is killed with its value.
#[derive(Debug)]
pub struct Sleeper {
    process: Process,
    _mount: Option<HugeMount>,
}

impl Sleeper {
    /// Builds it and starts it as `name` with address `mac`, and waits until kopid serves it. It waits with poll(2) if `poll`,
    /// else with EAL's epoll.
    #[must_use]
    pub fn start(dir: &TempDir, kopid: &Kopid, name: &str, mac: &str, poll: bool) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/sleeper");
        let build = dir.join("sleeper-build");
        run("make", &["-s", "-C", &source.display().to_string(), &format!("BUILD={}", build.display())]);
        let eal = EalArguments::new(dir, kopid, Memory::NoHuge, &format!("name={name},mac={mac}"), None);
        let EalArguments { mut args, launch, mount } = eal;
        args.extend(["--".to_owned(), if poll { "poll" } else { "epoll" }.to_owned()]);
        let mut process = Process::start(&launch, build.join("sleeper"), &args, dir.join(&format!("{name}.log")));
        process.expect(0, "ready", SOON);
        drop(kopid.await_app(name));
        Self { process, _mount: mount }
    }

    /// The process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

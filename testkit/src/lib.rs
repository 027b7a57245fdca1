//! Processes, namespaces and peers for kopi's integration tests.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`machine`] | what the machine has: root, CPUs, huge pages, the built programs |
//! | [`wait`] | waiting for a condition instead of for a time |
//! | [`temp`] | [`TempDir`], a folder of one test, with the shim in it |
//! | [`process`] | [`Process`], a child with its log, which dies with its owner |
//! | [`netns`] | [`Netns`], a network namespace with a kernel behind a veth pair |
//! | [`home`] | [`Home`], another one with kopid in it, at the near end |
//! | [`kopid`] | [`Kopid`], the real daemon over a configuration of the test's |
//! | [`testpmd`] | [`Testpmd`], Debian's dpdk-testpmd with the shim, told what to do line by line |
//! | [`seq`] | frames with sequence numbers, how to make and how to check them |
//! | [`app`] | [`App`], the program `kopi-seq`: a DPDK application that sends, receives or echoes such frames |
//! | [`cgroup`] | a control group with a limit on memory |
//! | [`frames`] | frames as hosts send them: ARP, TCP, UDP, ICMP, neighbour discovery |
//! | [`piped`] | [`Piped`], an app that sends what the test tells it to and tells what it receives |
//! | [`sleeper`] | [`Sleeper`], the example application that sleeps until there are frames, and echoes UDP |
//! | [`load`] | [`Load`], apps of several users that load kopid, in one process |
//! | [`peer`] | [`Peer`], a packet socket at the kernel's end of the wire that does the same |
//! | [`capture`] | [`Capture`], a running `kopictl capture`, and [`capture::Session`], a session by hand |
//! | [`recording`] | [`Recording`], what is in a file of packets |
//! | [`evil`] | [`evil::Client`], an app that speaks the attach protocol by hand and breaks it where a test wants |
//!
//! Everything that outlives a function is owned by a value whose `Drop` ends it, so a failing test leaves nothing
//! behind; what a killed test run left is removed by the next one. All of it needs root.
#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "every helper panics with what went wrong: that is how a test fails")]

pub mod app;
pub mod capture;
pub mod cgroup;
pub mod evil;
pub mod frames;
pub mod home;
pub mod kopid;
pub mod load;
pub mod machine;
pub mod netns;
pub mod peer;
pub mod piped;
pub mod process;
pub mod recording;
pub mod seq;
pub mod sleeper;
pub mod temp;
pub mod testpmd;
pub mod wait;

pub use app::App;
pub use capture::Capture;
pub use home::Home;
pub use kopid::{Kopid, Settings};
pub use load::Load;
pub use netns::Netns;
pub use peer::Peer;
pub use piped::Piped;
pub use process::Process;
pub use recording::Recording;
pub use sleeper::Sleeper;
pub use temp::TempDir;
pub use testpmd::{Memory, Testpmd};
pub use wait::{wait_for, wait_until};

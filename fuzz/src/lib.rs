//! What must hold for everything that reads bytes of somebody else: one target for each reader.
//!
//! A target is a function that panics if a property does not hold for the bytes it is given. The same functions are run by
//! libFuzzer (`fuzz/libfuzzer`, `fuzz/run.sh`) and, over the committed corpora, by an ordinary test.
//!
//! | target | the bytes are | whose they would be |
//! | --- | --- | --- |
//! | `ring` | what a peer writes into its region, and when | an app's |
//! | `attach` | a message of the attach protocol | an app's, or kopid's |
//! | `control` | a request of an operator's | an operator's |
//! | `kopid_toml` | `kopid.toml` | an operator's |
//! | `policy_toml` | `policy.toml` | an operator's |
//! | `policy` | a policy, and frames to be judged | an operator's, and anybody's |
//! | `track` | frames that pass connection tracking | anybody's |
//! | `describe` | the description of a packet | an operator's |
//! | `parse` | an Ethernet frame | anybody's |
//! | `packet` | a frame to be marked, cut, put together | anybody's |
//! | `pcapng` | a capture, or the blocks of one | kopid's, or anybody's |
#![forbid(unsafe_code)]

mod attach;
mod control;
mod describe;
mod files;
mod input;
mod packet;
mod parse;
mod pcapng;
mod policy;
mod ring;
mod track;

/// One reader, and what must hold for it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its corpus too.
    pub name: &'static str,
    /// Panics if something that must hold does not, for these bytes.
    pub check: fn(&[u8]),
    /// Longest input that is worth trying, in bytes.
    pub max_len: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "ring", check: ring::check, max_len: 4096 },
    Target { name: "attach", check: attach::check, max_len: 2100 },
    Target { name: "control", check: control::check, max_len: 1024 },
    Target { name: "kopid_toml", check: files::check_kopid, max_len: 1024 },
    Target { name: "policy_toml", check: files::check_policy, max_len: 1024 },
    Target { name: "policy", check: policy::check, max_len: 2048 },
    Target { name: "track", check: track::check, max_len: 4096 },
    Target { name: "describe", check: describe::check, max_len: 256 },
    Target { name: "parse", check: parse::check, max_len: 2200 },
    Target { name: "packet", check: packet::check, max_len: 4096 },
    Target { name: "pcapng", check: pcapng::check, max_len: 4096 },
];

//! Capture sessions of the real kopid, by the real kopictl: what they select, what they count, and what they survive.
//!
//! | module | what it tests |
//! | --- | --- |
//! | `selection` | a filter selects what tcpdump's does, for the `expressions` over the `corpus` |
//! | `counts` | a capture has what kopid has counted, and says whose it is; `tools` read it |
//! | `selectors` | owners, rules, reasons, limits; apps and rules that change meanwhile |
//! | `rotation` | files that follow each other |
//! | `faults` | faults 36 and 37: readers, disks, clients and daemons that fail |
//! | `clock` | times are those of the kernel |
//! | `extcap` | tshark captures on kopi's interfaces |
//! | `scene` | what most of them need: a wire, the daemon, apps |
#![expect(clippy::tests_outside_test_module, reason = "this whole program is a test")]
#![forbid(unsafe_code)]

mod clock;
mod corpus;
mod counts;
mod expressions;
mod extcap;
mod faults;
mod rotation;
mod scene;
mod selection;
mod selectors;
mod tools;

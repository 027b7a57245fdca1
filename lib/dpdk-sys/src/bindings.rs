//! What bindgen makes of `c/wrapper.h`.

#![expect(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    missing_debug_implementations,
    nonstandard_style,
    unused_qualifications,
    reason = "generated code under C names; DPDK documents them"
)]

use crate::rte_mbuf;

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

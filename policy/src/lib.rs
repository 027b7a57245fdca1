//! Who may send and receive what: compiled rules and tracked connections.
//!
//! Nothing here knows of DPDK, so it builds and is tested anywhere. The dataplane asks it once for the first packet of a
//! flow, and keeps the answer in its flow table.
#![forbid(unsafe_code)]

mod connection;
mod fragment;
mod tcp;

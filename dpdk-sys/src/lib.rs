//! Raw bindings to the installed DPDK.

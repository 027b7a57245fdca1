//! The safe face of DPDK that kopi uses.

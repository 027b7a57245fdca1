//! The shared-memory contract between the poll-mode driver and kopid.

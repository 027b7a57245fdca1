//! Connection tracking: one table of connections that all workers share.

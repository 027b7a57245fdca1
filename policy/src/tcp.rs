//! The states of a TCP connection, as a firewall in the middle sees them.

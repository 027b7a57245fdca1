//! Header parsing and flow keys.

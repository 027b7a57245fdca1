//! The configuration files of kopid.

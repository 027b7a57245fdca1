//! kopid, the software SmartNIC.

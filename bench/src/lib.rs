//! Benchmarks, alone and side by side with other systems.
#![forbid(unsafe_code)]

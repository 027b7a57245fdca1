//! Benchmarks, alone and side by side with other systems.

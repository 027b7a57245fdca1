//! Processes, namespaces and peers for kopi's integration tests.

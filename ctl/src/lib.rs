//! kopictl, the operator's tool.

//! Options of `doctor`.

use clap::Args;
use std::path::PathBuf;

/// Where kopid's configuration is unless stated otherwise.
pub(crate) const CONFIG: &str = "/etc/kopi/kopid.toml";

/// Options of `doctor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Doctor {
    /// kopid's configuration [default: that of the running kopid, or else /etc/kopi/kopid.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

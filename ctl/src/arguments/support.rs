//! Options of `doctor` and `support`.

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

/// Options of `support`.
#[derive(Args, Debug)]
pub(crate) struct Support {
    /// kopid's configuration [default: that of the running kopid, or else /etc/kopi/kopid.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The archive [default: kopi-support-DATE.tar.gz in this folder]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Numbers in the place of MAC and IP addresses, the same for the same address
    #[arg(long)]
    pub(crate) mask: bool,
    /// File with kopid's log, whose last lines are taken; without it, they are asked of journald
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

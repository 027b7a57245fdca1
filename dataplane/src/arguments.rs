//! The command line. The manual page is made of it, by an example of kopi-ctl's.

use clap::Parser;
use std::path::PathBuf;

/// The software SmartNIC: owns the wire, gives every attached DPDK application its own port.
#[derive(Debug, Parser)]
#[command(name = "kopid", disable_version_flag = true)]
pub(crate) struct Arguments {
    /// The daemon's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/kopi/kopid.toml")]
    pub(crate) config: PathBuf,
    /// Check the configuration and do nothing else
    #[arg(long)]
    pub(crate) check: bool,
    /// Show the versions of kopi, DPDK and the ring protocol
    #[arg(long, short = 'V')]
    pub(crate) version: bool,
}

//! The control side: one thread that owns apps, ports, policy and workers, and the threads that work for it.
//!
//! It waits for nobody: whatever a peer can delay has a thread of its own. Begin with [`daemon`], whose event loop calls all else.
//!
//! - apps: [`listener`], [`attach`], [`identity`], [`container`], [`ports`], [`app`], [`detach`], and the threads that they need, [`peers`], [`app_waker`],
//!   [`regions`];
//! - what workers get: [`plane`] keeps apps, ports and [`workers`] consistent, and publishes snapshots; [`classes`], [`wire_device`], [`copy_trial`];
//! - the policy: [`policy`], [`reload`], [`signals`];
//! - operators: [`server`], [`operator`], [`stats`], [`flow_dumps`];
//! - figures for Prometheus: [`metrics`];
//! - limits by user: [`limits`], [`memory`], [`windows`], [`users`], [`budgets`], [`ratelimit`];
//! - tools: [`poller`], [`mailbox`], [`helper`], [`user_names`], [`logging`].

pub mod app;
pub mod app_waker;
pub mod attach;
pub mod budgets;
pub mod classes;
pub mod container;
pub mod copy_trial;
pub mod daemon;
pub mod detach;
pub mod flow_dumps;
pub mod flow_sizes;
pub mod helper;
pub mod hole_search;
pub mod identity;
pub mod kept_regions;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod mailbox;
pub mod memory;
pub mod metrics;
pub mod operator;
pub mod peers;
pub mod plane;
pub mod policy;
pub mod poller;
pub mod ports;
pub mod ratelimit;
pub mod regions;
pub mod reload;
pub mod server;
pub mod signals;
pub mod stats;
pub mod user_names;
pub mod users;
pub mod windows;
pub mod wire_device;
pub mod workers;

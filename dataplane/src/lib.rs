//! kopid, the software SmartNIC: a poll-mode daemon between the apps' shared-memory rings and the wire.
//!
//! The dataplane, one worker for each core, sharing nothing:
//!
//! - [`worker`]: the loop; [`rest`]: what it does when there is nothing to do; [`burst`]: frames under way, and the stages parse and evaluate; [`deliver`]: the last stage;
//! - [`flow`]: the flow table; [`snapshot`]: all that workers judge frames by; [`fib`]: which port has which address; [`shared_address`]: who has the
//!   host's; [`ids`]: numbers and verdicts;
//! - [`policy_stage`]: the policy, asked once for each flow; [`policy_table`]: the policy with its apps; [`policy_counters`]: what it has counted;
//!   [`listing`]: flows, for operators;
//! - [`wire`], [`port`]: where frames come from and go to; [`handoff`]: between workers;
//! - [`shaper`]: the policy's classes, who may send next and what waits;
//! - [`tap`]: what workers show to capture sessions;
//! - [`counters`]: what is counted, one writer each; [`load`]: how workers spend their time; [`command`]: what the control thread and workers tell each other.
//!
//! The control side, one thread:
//!
//! - [`daemon`]: start, event loop, end; [`poller`]: what it waits for; [`listener`]: its sockets;
//! - [`wire_device`]: the wire's device; [`netdev`]: the kernel's interface under a virtual one;
//! - [`host`]: the kernel's own port, with a thread of its own; [`kernel`]: its addresses and ports;
//! - [`peers`]: a thread for each user, which has the sockets; [`app_waker`]: a thread that wakes sleeping apps;
//! - [`helper`]: threads for what may take long; [`names`]: what users are called;
//! - [`attach`]: the apps' socket; [`identity`]: who is at the other end; [`throttle`]: what peers may make it log; [`logging`]: how it logs; [`budgets`]: what users may ask for;
//! - [`switch`]: apps, ports and workers kept consistent; [`registry`]: apps and their ports; [`dataplane`]: the workers;
//! - [`regions`]: the rings' memory, with a thread of its own; [`memory`]: how much there may be; [`users`]: of whom;
//! - [`reload`]: a policy on its way from its file into force;
//! - [`policy`]: the policy in force, replaced while traffic goes on, and what its rules have counted;
//! - [`classes`]: the policy's classes made ready for workers, and what they have counted;
//! - [`capture`]: capture sessions, a thread each; [`clock`]: the time of day of frames;
//! - [`control`]: the operators' socket, with a thread for each connection; [`report`]: what they are told; [`operator`]: who they are;
//! - [`signals`]: signals as events, with their senders.
#![forbid(unsafe_code)]

pub mod app_waker;
pub mod attach;
pub mod budgets;
pub mod burst;
pub mod capture;
pub mod classes;
pub mod clock;
pub mod command;
pub mod control;
pub mod counters;
pub mod daemon;
pub mod dataplane;
pub mod deliver;
pub mod fib;
pub mod flow;
pub mod handoff;
pub mod helper;
pub mod host;
pub mod identity;
pub mod ids;
pub mod kernel;
pub mod listener;
pub mod listing;
pub mod load;
pub mod logging;
pub mod memory;
pub mod names;
pub mod netdev;
pub mod notes;
pub mod operator;
pub mod peers;
pub mod policy;
pub mod policy_counters;
pub mod policy_stage;
pub mod policy_table;
pub mod poller;
pub mod port;
pub mod regions;
pub mod registry;
pub mod reload;
pub mod report;
pub mod rest;
pub mod shaper;
pub mod shared_address;
pub mod signals;
pub mod snapshot;
pub mod switch;
pub mod tap;
pub mod throttle;
pub mod users;
pub mod wire;
pub mod wire_device;
pub mod worker;

//! Nobody costs anybody else: what an app may do that would slow others down, and what becomes of them meanwhile.
//!
//! | module | what an app does |
//! | --- | --- |
//! | `descriptors` | sends file descriptors that take their time to be closed |
//! | `log` | causes lines in the log, which nobody reads |
//! | `connections` | ends others' connections, takes their places, or has kopid answer for it |
//! | `memory` | takes memory and ports, has large rings made |
//! | `neighbours` | speaks to the switch, or in the name of others |
//! | `operators` | as an operator: does not read, sends what lingers, names files that nobody serves |
//! | `lists` | as an operator: reads long lists, slowly |
//! | `pages` | takes pages out of its own region |
//! | `requests` | connects, asks and changes its port without pause |
//! | `time` | sends more, costlier frames, by more apps, than its share of a worker's time or of the wire |
//! | `together` | all of that at once |
//! | `wakeups` | makes it expensive to wake it, or is woken often |
#![expect(clippy::tests_outside_test_module, reason = "this whole program is a test")]
#![forbid(unsafe_code)]

mod connections;
mod descriptors;
mod lists;
mod log;
mod memory;
mod neighbours;
mod operators;
mod pages;
mod requests;
mod time;
mod together;
mod wakeups;

//! Nobody costs anybody else: what an app may do that would slow others down, and what becomes of them meanwhile.
//!
//! | module | what an app does |
//! | --- | --- |
//! | `pages` | takes pages out of its own region |
#![expect(clippy::tests_outside_test_module, reason = "this whole program is a test")]
#![forbid(unsafe_code)]

mod pages;

//! How connections are tracked: `[tracking]`.

use super::time::Seconds;
use crate::value::{As, Truth, table};

table! {
    /// `[tracking]`: how connections are tracked, and how long they are remembered while idle, in seconds.
    #[derive(Copy)]
    pub struct Tracking {
        /// Whether a TCP segment has to fit the window. It need not if not stated.
        pub tcp_window: bool = false, "As::<Truth>";
        /// Whether a connection may be picked up in its middle. It may if not stated, as in Linux.
        pub tcp_loose: bool = true, "As::<Truth>";
        /// SYN seen, not answered: 120 if not stated.
        pub tcp_syn: u32 = 120, "As::<Seconds>";
        /// Established: 432,000 (five days) if not stated.
        pub tcp_established: u32 = 432_000, "As::<Seconds>";
        /// Being closed by one side or both: 120 if not stated.
        pub tcp_closing: u32 = 120, "As::<Seconds>";
        /// Closed by a reset: 10 if not stated.
        pub tcp_closed: u32 = 10, "As::<Seconds>";
        /// UDP with packets one way only: 30 if not stated.
        pub udp: u32 = 30, "As::<Seconds>";
        /// UDP with packets both ways: 120 if not stated.
        pub udp_stream: u32 = 120, "As::<Seconds>";
        /// ICMP echo: 30 if not stated.
        pub icmp: u32 = 30, "As::<Seconds>";
        /// Every other protocol: 600 if not stated.
        pub other: u32 = 600, "As::<Seconds>";
    }
}

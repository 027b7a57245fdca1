//! How connections are tracked: `[tracking]`.

use super::seconds::SecondsForm;
use crate::form::Truth;
use crate::walk::{AnyKey, Key, Need, Section, Table};

/// `[tracking]`: how connections are tracked. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tracking {
    /// Whether a TCP segment has to fit the window. It need not if not stated.
    pub tcp_window: bool,
    /// Whether a connection may be picked up in its middle. It may if not stated, as in Linux.
    pub tcp_loose: bool,
    /// SYN seen, not answered: 120 if not stated.
    pub tcp_syn: u32,
    /// Established: 432,000 (five days) if not stated.
    pub tcp_established: u32,
    /// Being closed by one side or both: 120 if not stated.
    pub tcp_closing: u32,
    /// Closed by a reset: 10 if not stated.
    pub tcp_closed: u32,
    /// UDP with packets one way only: 30 if not stated.
    pub udp: u32,
    /// UDP with packets both ways: 120 if not stated.
    pub udp_stream: u32,
    /// ICMP echo: 30 if not stated.
    pub icmp: u32,
    /// Every other protocol: 600 if not stated.
    pub other: u32,
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            tcp_window: false,
            tcp_loose: true,
            tcp_syn: 120,
            tcp_established: 432_000,
            tcp_closing: 120,
            tcp_closed: 10,
            udp: 30,
            udp_stream: 120,
            icmp: 30,
            other: 600,
        }
    }
}

impl Tracking {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let tcp_window = table.get(&TCP_WINDOW);
        let tcp_loose = table.get(&TCP_LOOSE);
        let tcp_syn = table.get(&TCP_SYN);
        let tcp_established = table.get(&TCP_ESTABLISHED);
        let tcp_closing = table.get(&TCP_CLOSING);
        let tcp_closed = table.get(&TCP_CLOSED);
        let udp = table.get(&UDP);
        let udp_stream = table.get(&UDP_STREAM);
        let icmp = table.get(&ICMP);
        let other = table.get(&OTHER);
        Some(Self {
            tcp_window: tcp_window?,
            tcp_loose: tcp_loose?,
            tcp_syn: tcp_syn?,
            tcp_established: tcp_established?,
            tcp_closing: tcp_closing?,
            tcp_closed: tcp_closed?,
            udp: udp?,
            udp_stream: udp_stream?,
            icmp: icmp?,
            other: other?,
        })
    }
}

pub(super) static TRACKING: Section = Section {
    name: "tracking",
    doc: "how connections are tracked, and how long they are remembered while idle",
    keys: &[
        &TCP_WINDOW as &dyn AnyKey,
        &TCP_LOOSE,
        &TCP_SYN,
        &TCP_ESTABLISHED,
        &TCP_CLOSING,
        &TCP_CLOSED,
        &UDP,
        &UDP_STREAM,
        &ICMP,
        &OTHER,
    ],
};

static TCP_WINDOW: Key<Truth> = Key {
    name: "tcp_window",
    doc: "whether a TCP segment has to fit the window",
    form: Truth,
    need: Need::Default("false"),
};
static TCP_LOOSE: Key<Truth> = Key {
    name: "tcp_loose",
    doc: "whether a connection may be picked up in its middle",
    form: Truth,
    need: Need::Default("true"),
};

const fn time(name: &'static str, doc: &'static str, default: &'static str) -> Key<SecondsForm> {
    Key { name, doc, form: SecondsForm, need: Need::Default(default) }
}

static TCP_SYN: Key<SecondsForm> = time("tcp_syn", "how long an unanswered SYN is remembered", "\"2m\"");
static TCP_ESTABLISHED: Key<SecondsForm> = time("tcp_established", "how long an idle TCP connection is", "\"5d\"");
static TCP_CLOSING: Key<SecondsForm> = time("tcp_closing", "how long one is that is being closed", "\"2m\"");
static TCP_CLOSED: Key<SecondsForm> = time("tcp_closed", "how long one is that was reset", "\"10s\"");
static UDP: Key<SecondsForm> = time("udp", "how long UDP with packets one way only is", "\"30s\"");
static UDP_STREAM: Key<SecondsForm> = time("udp_stream", "how long UDP with packets both ways is", "\"2m\"");
static ICMP: Key<SecondsForm> = time("icmp", "how long an echo of ICMP is", "\"30s\"");
static OTHER: Key<SecondsForm> = time("other", "how long every other protocol is", "\"10m\"");

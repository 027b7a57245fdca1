//! `policy.toml`: who may attach, and who may send and receive what. Reloadable.
//!
//! Types that are valid by construction: a [`Policy`] that exists can be enforced. Names of users and groups stay names
//! here, since what they stand for may change while the policy does not; sets are resolved, since they stand in the
//! same file.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use kopi_packet::MacAddr;

use crate::account::Account;
use crate::report::Diagnostic;

/// Most rules of a policy.
pub const MAX_RULES: usize = 100_000;
/// Most rules whose action goes on to the next rule: each has a bit in a word.
pub const MAX_PASSING_RULES: usize = 64;

/// A whole policy.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Policy {
    /// What happens to what no rule decides.
    pub default: Defaults,
    /// Who may attach, in the order of the file: the first that matches counts.
    pub apps: Vec<App>,
    /// What happens to frames, in the order of the file: the first that matches and decides counts.
    pub rules: Vec<Rule>,
    /// Names of the classes that apps and rules refer to, in the order of the file.
    pub classes: Vec<Class>,
    /// How connections are tracked.
    pub tracking: Tracking,
    /// What is allowed and probably not intended, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// `default`: what happens to what no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defaults {
    /// Frames from apps. Accepted if not stated.
    pub egress: Decision,
    /// Frames to apps. Accepted if not stated.
    pub ingress: Decision,
    /// Processes that no `[[app]]` matches: whether they may attach. They may if not stated.
    pub attach: bool,
    /// Later fragments of IP packets whose first fragment was not seen. `Accept` or `Drop`; dropped if not stated.
    pub fragments: Decision,
    /// Frames that cannot be parsed to their end. `Accept` means that the rules decide by what could be read; dropped
    /// if not stated.
    pub malformed: Decision,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            egress: Decision::Accept,
            ingress: Decision::Accept,
            attach: true,
            fragments: Decision::Drop,
            malformed: Decision::Drop,
        }
    }
}

/// The end of a frame's walk through the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It goes on its way.
    Accept,
    /// It goes nowhere, and its sender is not told.
    Drop,
    /// It goes nowhere, and its sender is told: by a reset for TCP, by an ICMP error for other IP.
    Reject,
}

/// `[[app]]`: who may attach as what, and what is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct App {
    /// Name of the port. A process that asks for no name gets this one.
    pub name: String,
    /// Who it is for. `owner.apps` is always empty here.
    pub owner: OwnerMatch,
    /// Whether they may attach. True if not stated.
    pub admit: bool,
    /// The only unicast address that the port may have and send from.
    pub mac: Option<MacAddr>,
    /// The only addresses that it may send from, by IP and by ARP; empty for any.
    pub addresses: Vec<Cidr>,
    /// The only ports at which it may be reached by new connections, and which no app may use that does not list them.
    pub listen: Vec<Listen>,
    /// Whether it may send only from its own addresses. True if not stated.
    pub spoof_check: bool,
    /// Most queue pairs.
    pub queues: Option<u16>,
    /// Most flows in a worker's flow table that it may have begun.
    pub flows: Option<u32>,
    /// Index into [`Policy::classes`].
    pub class: Option<usize>,
}

impl App {
    /// An entry of that name for `owner`, with everything else as if it were not stated.
    #[must_use]
    pub fn new(name: String, owner: OwnerMatch) -> Self {
        let (mac, queues, flows, class) = (None, None, None, None);
        let (addresses, listen) = (Vec::new(), Vec::new());
        Self { name, owner, admit: true, mac, addresses, listen, spoof_check: true, queues, flows, class }
    }
}

/// One port at which an app may be reached: `"tcp/5432"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listen {
    /// IP protocol: TCP, UDP, UDP-Lite or SCTP.
    pub proto: u8,
    /// Port.
    pub port: u16,
}

/// `[[class]]`: a name that traffic is counted under. Its rate and its share come with the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// Its name, unique.
    pub name: String,
}

impl Class {
    /// A class of that name.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name }
    }
}

/// `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// Line of the file, from 1.
    pub line: u32,
    /// Which frames it is for.
    pub matches: Match,
    /// Whose frames it is for.
    pub owner: OwnerMatch,
    /// What it does.
    pub action: Action,
    /// Whether matching frames are logged, besides the action. Always for [`Action::Log`].
    pub log: bool,
    /// Class that matching frames are put into: index into [`Policy::classes`]. Always for [`Action::Class`].
    pub class: Option<usize>,
}

impl Rule {
    /// A rule that stands on no line of a file, does not log and has no class.
    #[must_use]
    pub const fn new(name: String, matches: Match, owner: OwnerMatch, action: Action) -> Self {
        Self { name, line: 0, matches, owner, action, log: false, class: None }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It decides.
    Decide(Decision),
    /// It logs, and the next rule is asked.
    Log,
    /// It counts, and the next rule is asked.
    Count,
    /// It puts the frame into its class, and the next rule is asked.
    Class,
}

impl Action {
    /// The end of the walk, unless the next rule is asked.
    #[must_use]
    pub const fn decision(self) -> Option<Decision> {
        match self {
            Self::Decide(decision) => Some(decision),
            Self::Log | Self::Count | Self::Class => None,
        }
    }
}

/// Which way a frame goes, from the app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the app.
    Egress,
    /// To the app.
    Ingress,
}

/// What a frame has to be for a rule to match. Every field that is stated has to hold.
///
/// A frame without the field, such as ARP for a port, matches neither a field nor its negation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Match {
    /// Which way it goes; both if `None`.
    pub direction: Option<Direction>,
    /// Ethertype after VLAN tags.
    pub ethertype: Option<Field<u16>>,
    /// VLAN of the outermost tag; 0 for a frame without one.
    pub vlan: Option<Field<u16>>,
    /// VLAN of the second tag; 0 for a frame without one.
    pub inner_vlan: Option<Field<u16>>,
    /// Source MAC address, as [`MacAddr::to_u64`].
    pub src_mac: Option<Field<u64>>,
    /// Destination MAC address, as [`MacAddr::to_u64`].
    pub dst_mac: Option<Field<u64>>,
    /// IP protocol. `icmp` in a file is both 1 in IPv4 and 58 in IPv6.
    pub proto: Option<Field<u8>>,
    /// Source address of IP.
    pub src: Option<Addresses>,
    /// Destination address of IP.
    pub dst: Option<Addresses>,
    /// Source port.
    pub src_port: Option<Field<u16>>,
    /// Destination port.
    pub dst_port: Option<Field<u16>>,
    /// Type and code of ICMP, `type << 8 | code`.
    pub icmp: Option<Field<u16>>,
    /// The same for ICMPv6.
    pub icmp6: Option<Field<u16>>,
    /// Flags of TCP: `(flags & mask) == value`.
    pub tcp_flags: Option<TcpFlags>,
    /// Operation of ARP.
    pub arp_op: Option<Field<u16>>,
    /// Sender's protocol address of ARP.
    pub arp_src: Option<Addresses>,
    /// Target's protocol address of ARP.
    pub arp_dst: Option<Addresses>,
    /// Sender's hardware address of ARP, as [`MacAddr::to_u64`].
    pub arp_src_mac: Option<Field<u64>>,
    /// State of the connection.
    pub state: Option<States>,
    /// Whether it is a fragment of an IP packet, the first one too.
    pub fragment: Option<bool>,
}

/// Values of one field: a frame matches if its value is in one of the ranges.
///
/// A negation in the file is resolved here into the ranges that are left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Field<T> {
    ranges: Vec<RangeInclusive<T>>,
}

/// IP addresses of both families: a frame matches if its address is in a range of its own family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// IPv4.
    pub v4: Field<u32>,
    /// IPv6.
    pub v6: Field<u128>,
}

/// A type that ranges can be made of.
pub trait Scalar: Copy + Ord {
    /// The least value.
    const MIN: Self;
    /// The greatest value.
    const MAX: Self;
    /// The next greater value, unless there is none.
    fn after(self) -> Option<Self>;
    /// The next smaller value, unless there is none.
    fn before(self) -> Option<Self>;
}

macro_rules! scalars {
    ($($t:ty)*) => { $(
        impl Scalar for $t {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )* };
}
scalars!(u8 u16 u32 u64 u128);

impl<T: Scalar> Field<T> {
    /// The union of `ranges`: sorted, neither overlapping nor touching.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<T>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| r.start() <= r.end()).collect();
        sorted.sort_unstable_by_key(|r| *r.start());
        let mut merged: Vec<RangeInclusive<T>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if last.end().after().is_none_or(|next| *range.start() <= next) => {
                    if range.end() > last.end() {
                        *last = *last.start()..=*range.end();
                    }
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }

    /// Everything that `self` is not.
    #[must_use]
    pub fn negated(&self) -> Self {
        let mut next = Some(T::MIN);
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        for range in &self.ranges {
            if let (Some(start), Some(end)) = (next, range.start().before())
                && start <= end
            {
                ranges.push(start..=end);
            }
            next = range.end().after();
        }
        ranges.extend(next.map(|start| start..=T::MAX));
        Self { ranges }
    }

    /// The ranges: sorted, neither overlapping nor touching.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<T>] {
        &self.ranges
    }

    /// Whether `value` is in one of the ranges.
    #[must_use]
    pub fn contains(&self, value: T) -> bool {
        let at = self.ranges.partition_point(|range| *range.end() < value);
        self.ranges.get(at).is_some_and(|range| *range.start() <= value)
    }
}

impl Addresses {
    /// Whether `address` is in one of the ranges of its family.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.contains(v6.to_bits()),
        }
    }

    /// Everything that `self` is not, in both families.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { v4: self.v4.negated(), v6: self.v6.negated() }
    }
}

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address. No bit is set beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block of `address` with `prefix` leading bits; `None` if the prefix is too long or bits are set beyond it.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let stray = match address {
            IpAddr::V4(v4) => v4.to_bits() & u32::MAX.checked_shr(prefix.into()).unwrap_or(0) != 0,
            IpAddr::V6(v6) => v6.to_bits() & u128::MAX.checked_shr(prefix.into()).unwrap_or(0) != 0,
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits && !stray).then_some(Self { address, prefix })
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Leading bits that count.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |shift: u32, a: u128, b: u128| (a ^ b).checked_shr(shift).unwrap_or(0) == 0;
        let prefix = u32::from(self.prefix);
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(32 - prefix, a.to_bits().into(), b.to_bits().into()),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(128 - prefix, a.to_bits(), b.to_bits()),
            _ => false,
        }
    }
}

/// Flags of TCP that have to be set and clear: `"syn/syn,ack"` is `value` 2 under `mask` 18 (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Flags that are looked at.
    pub mask: u8,
    /// Which of them are set.
    pub value: u8,
}

/// What connection tracking says of a frame. The words are those of nftables' `ct state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// It belongs to no connection yet, or to one that has not been answered.
    New = 0,
    /// It belongs to a connection with packets in both directions.
    Established = 1,
    /// It belongs to no connection itself, but is about one: an ICMP error.
    Related = 2,
    /// It fits no connection and cannot begin one.
    Invalid = 3,
    /// Connections are not a notion of its protocol: ARP and other frames that are not IP, and multicast.
    Untracked = 4,
}

/// A set of [`State`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct States(u8);

impl States {
    /// The set of `states`.
    #[must_use]
    pub fn of(states: impl IntoIterator<Item = State>) -> Self {
        Self(states.into_iter().fold(0, |set, state| set | 1 << state as u8))
    }

    /// Whether `state` is in it.
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state as u8 != 0
    }
}

/// Whose frames a rule is for: the app whose port the frame leaves or reaches. Every list that is not empty has to have
/// an element that matches, and no element of a list under `not` may match.
///
/// An app without the property, such as one whose program could not be read, matches neither a property nor its negation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OwnerMatch {
    /// What has to hold.
    pub is: Owners,
    /// What must not hold.
    pub not: Owners,
}

/// Properties of apps. Within a list, one that matches is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Owners {
    /// Name of the port.
    pub apps: Vec<Glob>,
    /// User, by name or number: keys `user` and `uid`.
    pub users: Vec<Account>,
    /// Group, by name or number: keys `group` and `gid`.
    pub groups: Vec<Account>,
    /// What the process calls itself.
    pub comms: Vec<Glob>,
    /// Path of its program.
    pub exes: Vec<Glob>,
    /// Path of its cgroup: this one and those below it, as `meta cgroup` and `-m cgroup --path` have it.
    pub cgroups: Vec<CgroupPath>,
}

impl OwnerMatch {
    /// Whether it holds for every app.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// A pattern of names: `*` is any number of characters, `?` one, `[a-z]` one of them; everything else is itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(String);

/// A path below the root of the cgroup hierarchy, with one slash at the start and none at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CgroupPath(String);

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

impl Glob {
    /// The pattern `text`, whose brackets are closed.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('[') {
            rest = after.split_once(']')?.1;
        }
        Some(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CgroupPath {
    /// The path `text`, if it begins with a slash and has no empty, `.` or `..` part.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let parts = text.strip_prefix('/')?;
        let parts = parts.strip_suffix('/').unwrap_or(parts);
        let ok = parts.is_empty() || parts.split('/').all(|part| !matches!(part, "" | "." | ".."));
        ok.then(|| Self(format!("/{parts}")))
    }

    /// Whether `path` is this one or below it.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.0 == "/" || path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

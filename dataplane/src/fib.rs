//! The forwarding table: a switch that does not learn.
//!
//! Every address is known from the apps' own settings, so nothing that an app sends can move another's traffic.

use crate::ids::{PortId, Verdict, WIRE};
use kopi_packet::{LinkProtocol, LinkProtocols};
use kopi_ring::DropReason;
use kopi_ring::layout::L2_OVERHEAD;
use kopi_ring::message::{Mac, Settings};

/// One port as the forwarding table sees it.
#[derive(Clone, Debug)]
pub struct FibPort {
    /// Its number.
    pub id: PortId,
    /// What it wants to receive and to carry.
    pub settings: Settings,
    /// What it may say to the other end of the wire's link, and hear from there.
    pub link: LinkProtocols,
}

/// Which port has which address, and what each carries. Immutable: a change replaces the whole table.
#[derive(Debug)]
pub struct Fib {
    wire_up: bool,
    /// Unicast addresses, sorted.
    unicast: Box<[(Mac, PortId)]>,
    /// Group addresses that somebody asked for, sorted, each with everybody who gets it.
    groups: Box<[(Mac, Box<[PortId]>)]>,
    /// Who gets a group address that nobody asked for.
    all_multicast: Box<[PortId]>,
    /// Who gets broadcasts.
    everyone: Box<[PortId]>,
    /// Who gets unicast frames from the wire that nobody owns.
    promiscuous: Box<[PortId]>,
    /// Longest frame in bytes by port number; 0 where there is no port.
    max_frame: Box<[u16]>,
    /// What each may say to the other end of the wire's link and hear from there, by port number.
    link: Box<[LinkProtocols]>,
}

impl Fib {
    /// The table of these ports. `wire_mtu` is in bytes of layer 3.
    #[must_use]
    pub fn new(wire_up: bool, wire_mtu: u16, members: &[FibPort]) -> Self {
        let picked = |wants: &dyn Fn(&Settings) -> bool| -> Box<[PortId]> {
            members.iter().filter(|m| wants(&m.settings)).map(|m| m.id).collect()
        };
        let addresses = members.iter().flat_map(|m| m.settings.macs.iter().map(|mac| (*mac, m.id)));
        let (groups, unicast): (Vec<_>, Vec<_>) = addresses.partition(|(mac, _)| is_group(mac));
        let mut unicast = unicast;
        unicast.sort_unstable();
        unicast.dedup_by_key(|(mac, _)| *mac);
        let all_multicast = picked(&|s| s.promiscuous || s.all_multicast);
        let mut asked = groups;
        asked.sort_unstable();
        // One pass over what was asked for: many apps may each ask for many groups.
        let groups = asked.chunk_by(|(a, _), (b, _)| a == b).filter_map(|askers| {
            let (mac, _) = askers.first()?;
            let mut ports: Vec<PortId> =
                askers.iter().map(|(_, id)| *id).chain(all_multicast.iter().copied()).collect();
            ports.sort_unstable();
            ports.dedup();
            Some((*mac, ports.into_boxed_slice()))
        });
        let ports = members.iter().map(|m| usize::from(m.id) + 1).max().unwrap_or(1);
        let mut max_frame = vec![0; ports];
        let mut link = vec![LinkProtocols::NONE; ports];
        for member in members {
            link[usize::from(member.id)] = member.link;
        }
        let lengths = members.iter().map(|m| (m.id, m.settings.mtu)).chain([(WIRE, wire_mtu)]);
        for (id, mtu) in lengths {
            if let Some(slot) = max_frame.get_mut(usize::from(id)) {
                *slot = mtu.saturating_add(L2_OVERHEAD);
            }
        }
        Self {
            wire_up,
            unicast: unicast.into(),
            groups: groups.collect(),
            all_multicast,
            everyone: picked(&|_| true),
            promiscuous: picked(&|s| s.promiscuous),
            max_frame: max_frame.into(),
            link: link.into(),
        }
    }

    /// Gives an address another owner, if it has one.
    pub fn set_owner(&mut self, mac: &Mac, owner: PortId) {
        if let Some((_, id)) = self.unicast.iter_mut().find(|(other, _)| other == mac) {
            *id = owner;
        }
    }

    /// Whether the wire takes frames.
    #[must_use]
    pub const fn wire_up(&self) -> bool {
        self.wire_up
    }

    /// Where a frame from `source` to `destination` goes. The slow path: once for each flow and epoch.
    ///
    /// [`Verdict::Group`] and [`Verdict::Promiscuous`] are for frames that may have to be copied; a frame from the wire
    /// that one app alone gets is that app's.
    #[must_use]
    pub fn lookup(&self, source: PortId, destination: &Mac) -> Verdict {
        if is_group(destination) {
            return match self.listeners(destination) {
                [one] if source == WIRE => Verdict::App(*one),
                _ => Verdict::Group,
            };
        }
        let owner = self.unicast.binary_search_by_key(destination, |(mac, _)| *mac);
        match owner.ok().and_then(|at| self.unicast.get(at)) {
            Some((_, id)) if *id == source => Verdict::Drop(DropReason::SamePort),
            Some((_, id)) => Verdict::App(*id),
            None if source != WIRE => self.towards_wire(),
            None => match *self.promiscuous {
                [] => Verdict::Drop(DropReason::UnknownUnicast),
                [one] => Verdict::App(one),
                _ => Verdict::Promiscuous,
            },
        }
    }

    /// Where a frame of link control goes: between the wire and those who may say and hear that, and nowhere else. What an app
    /// says is for the other end of the wire's link, so no other app gets it, not even one that owns its destination.
    #[must_use]
    pub fn lookup_link(&self, source: PortId, destination: &Mac, protocol: LinkProtocol) -> Verdict {
        const REFUSED: Verdict = Verdict::Drop(DropReason::LinkControl);
        if source != WIRE {
            return if self.may_link(source, protocol) { self.towards_wire() } else { REFUSED };
        }
        if !is_group(destination) {
            return match self.lookup(source, destination) {
                Verdict::App(id) if self.may_link(id, protocol) => Verdict::App(id),
                _ => REFUSED,
            };
        }
        let mut hearers = self.listeners(destination).iter().filter(|id| self.may_link(**id, protocol));
        match (hearers.next(), hearers.next()) {
            (None, _) => REFUSED,
            (Some(one), None) => Verdict::App(*one),
            _ => Verdict::Group,
        }
    }

    /// Whether port `id` may say `protocol` to the other end of the wire's link, and hear it.
    #[inline]
    #[must_use]
    pub fn may_link(&self, id: PortId, protocol: LinkProtocol) -> bool {
        self.link.get(usize::from(id)).is_some_and(|allowed| allowed.contains(protocol))
    }

    fn towards_wire(&self) -> Verdict {
        if self.wire_up { Verdict::Wire } else { Verdict::Drop(DropReason::WireDown) }
    }

    /// The apps that a multicast or broadcast frame goes to, the sender possibly among them.
    #[must_use]
    pub fn listeners(&self, group: &Mac) -> &[PortId] {
        if *group == [0xff; 6] {
            return &self.everyone;
        }
        let asked = self.groups.binary_search_by_key(group, |(mac, _)| *mac);
        asked.ok().and_then(|at| self.groups.get(at)).map_or(&*self.all_multicast, |(_, ports)| ports)
    }

    /// Who gets unicast frames from the wire that nobody owns.
    #[must_use]
    pub const fn promiscuous(&self) -> &[PortId] {
        &self.promiscuous
    }

    /// Longest frame in bytes that `port` carries, without FCS.
    #[inline]
    #[must_use]
    pub fn max_frame(&self, port: PortId) -> u16 {
        self.max_frame.get(usize::from(port)).copied().unwrap_or(0)
    }
}

/// Whether `mac` is a multicast or broadcast address: the low bit of its first byte (IEEE 802-2014, 8.2.2).
#[must_use]
pub const fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;
    use kopi_packet::FlowKey;

    const BOB: Mac = [2, 0, 0, 0, 0, 1];
    const CAROL: Mac = [2, 0, 0, 0, 0, 2];
    const NOBODY: Mac = [2, 0, 0, 0, 0, 9];
    const GROUP: Mac = [1, 0, 0x5e, 0, 0, 5];

    fn settings(macs: &[Mac]) -> Settings {
        Settings { mtu: 1500, macs: macs.to_vec(), ..Settings::default() }
    }

    fn member(id: PortId, settings: Settings) -> FibPort {
        FibPort { id, settings, link: LinkProtocols::NONE }
    }

    fn two(change: impl Fn(&mut Settings)) -> Fib {
        let mut carol = settings(&[CAROL]);
        change(&mut carol);
        Fib::new(true, 1500, &[member(1, settings(&[BOB])), member(2, carol)])
    }

    /// Unicast goes to the owner of the address, else to the wire, and never back.
    #[test]
    fn unicast_follows_ownership() {
        let f = two(|_| {});
        assert_eq!(f.lookup(1, &CAROL), Verdict::App(2));
        assert_eq!(f.lookup(WIRE, &BOB), Verdict::App(1));
        assert_eq!(f.lookup(1, &NOBODY), Verdict::Wire);
        assert_eq!(f.lookup(1, &BOB), Verdict::Drop(DropReason::SamePort));
        assert_eq!(f.lookup(WIRE, &NOBODY), Verdict::Drop(DropReason::UnknownUnicast));
    }

    /// A promiscuous app sees what nobody owns, and nothing of what somebody else owns.
    #[test]
    fn promiscuous_app_gets_only_unowned_unicast() {
        let f = two(|s| s.promiscuous = true);
        assert_eq!(f.lookup(WIRE, &NOBODY), Verdict::App(2));
        assert_eq!(f.promiscuous(), [2]);
        assert_eq!(f.lookup(WIRE, &BOB), Verdict::App(1));
        assert_eq!(f.lookup(1, &NOBODY), Verdict::Wire);
        let open = |mac| Settings { promiscuous: true, ..settings(&[mac]) };
        let both = Fib::new(true, 1500, &[member(1, open(BOB)), member(2, open(CAROL))]);
        assert_eq!(both.lookup(WIRE, &NOBODY), Verdict::Promiscuous);
    }

    /// A group frame from the wire for one app alone is not copied; one from an app goes to the wire as well.
    #[test]
    fn group_of_one_is_unicast() {
        let f = two(|s| s.macs.push(GROUP));
        assert_eq!(f.lookup(WIRE, &GROUP), Verdict::App(2));
        assert_eq!(f.lookup(1, &GROUP), Verdict::Group);
        assert_eq!(f.lookup(WIRE, &[0xff; 6]), Verdict::Group);
    }

    /// Broadcast reaches everybody; multicast those that asked, want all, or are promiscuous.
    #[test]
    fn groups_reach_those_that_want_them() {
        assert_eq!(two(|_| {}).listeners(&[0xff; 6]), [1, 2]);
        assert_eq!(two(|_| {}).listeners(&GROUP), [0_u16; 0]);
        assert_eq!(two(|s| s.macs.push(GROUP)).listeners(&GROUP), [2]);
        assert_eq!(two(|s| s.all_multicast = true).listeners(&GROUP), [2]);
        assert_eq!(two(|s| s.promiscuous = true).listeners(&GROUP), [2]);
        let mixed = Fib::new(
            true,
            1500,
            &[member(1, Settings { all_multicast: true, ..settings(&[BOB]) }), member(2, settings(&[CAROL, GROUP]))],
        );
        assert_eq!(mixed.listeners(&GROUP), [1, 2]);
        assert_eq!(mixed.listeners(&[1, 0, 0x5e, 0, 0, 6]), [1]);
    }

    /// The listeners of a group are those whose settings say so, each once, whatever the others ask for.
    #[test]
    fn listeners_are_those_that_ask() {
        let group = |n: u8| [1, 0, 0x5e, 0, 0, n];
        let ask = |id: u8| Settings {
            all_multicast: id.is_multiple_of(5),
            promiscuous: id == 7,
            macs: (0..id).flat_map(|n| [group(n % 4), group(n * id % 8)]).collect(),
            ..Settings::default()
        };
        let members: Vec<_> = (1..12).map(|id| member(id.into(), ask(id))).collect();
        let f = Fib::new(true, 1500, &members);
        for mac in (0..10).map(group) {
            let wants = |s: &Settings| s.promiscuous || s.all_multicast || s.macs.contains(&mac);
            let expected: Vec<_> = members.iter().filter(|m| wants(&m.settings)).map(|m| m.id).collect();
            assert_eq!(f.listeners(&mac), expected);
        }
    }

    /// A thousand apps that ask for as many groups as they may do not hold the control thread up.
    #[test]
    fn many_groups_are_cheap() {
        let macs = |id: u16| {
            let [high, low] = id.to_be_bytes();
            (0..128).map(|n| [1, 0, 0, high, low, n]).collect::<Vec<Mac>>()
        };
        let members: Vec<_> = (1..1024).map(|id| member(id, settings(&macs(id)))).collect();
        let begun = std::time::Instant::now();
        let f = Fib::new(true, 1500, &members);
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(f.listeners(&[1, 0, 0, 2, 9, 5]), [2 * 256 + 9]);
    }

    /// Link control passes between the wire and those who may: an app without leave neither says nor hears any of it,
    /// whatever addresses it asks for, and one with leave for one protocol has that one.
    #[test]
    fn link_control_is_for_those_who_may() {
        const LLDP: Mac = [1, 0x80, 0xc2, 0, 0, 0xe];
        const REFUSED: Verdict = Verdict::Drop(DropReason::LinkControl);
        let everything = |mac| Settings { promiscuous: true, all_multicast: true, ..settings(&[mac, LLDP]) };
        let table = |bob, carol| {
            let member = |id, mac, link| FibPort { id, settings: everything(mac), link };
            Fib::new(true, 1500, &[member(1, BOB, bob), member(2, CAROL, carol)])
        };
        let lldp = LinkProtocols::NONE.with(LinkProtocol::Lldp);
        let none = table(LinkProtocols::NONE, LinkProtocols::NONE);
        for source in [WIRE, 1, 2] {
            for destination in [LLDP, BOB, CAROL, NOBODY, [0xff; 6]] {
                assert_eq!(
                    none.lookup_link(source, &destination, LinkProtocol::Lldp),
                    REFUSED,
                    "{source} {destination:?}"
                );
            }
        }
        let one = table(lldp, LinkProtocols::NONE);
        assert_eq!(one.lookup_link(1, &LLDP, LinkProtocol::Lldp), Verdict::Wire);
        assert_eq!(one.lookup_link(1, &CAROL, LinkProtocol::Lldp), Verdict::Wire, "no app gets it from another");
        assert_eq!(one.lookup_link(WIRE, &LLDP, LinkProtocol::Lldp), Verdict::App(1));
        assert_eq!(one.lookup_link(WIRE, &CAROL, LinkProtocol::Lldp), REFUSED);
        assert_eq!(one.lookup_link(2, &LLDP, LinkProtocol::Lldp), REFUSED);
        for other in [LinkProtocol::MacControl, LinkProtocol::Stp, LinkProtocol::Other] {
            assert_eq!((one.lookup_link(1, &LLDP, other), one.lookup_link(WIRE, &LLDP, other)), (REFUSED, REFUSED));
        }
        let both = table(lldp, LinkProtocols::ALL);
        assert_eq!(both.lookup_link(WIRE, &LLDP, LinkProtocol::Lldp), Verdict::Group);
        assert_eq!([1, 2].map(|id| both.may_link(id, LinkProtocol::Lldp)), [true, true]);
        assert_eq!([1, 2].map(|id| both.may_link(id, LinkProtocol::Stp)), [false, true]);
        let both = Snapshot::new(1, both);
        assert_eq!([1, 2].map(|id| both.hears(id, &FlowKey::default(), Some(LinkProtocol::Stp))), [false, true]);
        assert_eq!([1, 2].map(|id| both.hears(id, &FlowKey::default(), None)), [true, true]);
        let both = both.fib();
        assert_eq!(both.lookup_link(WIRE, &LLDP, LinkProtocol::Stp), Verdict::App(2));
        // Who does not listen does not hear, and what goes to a link that is down goes nowhere.
        let deaf = FibPort { id: 1, settings: settings(&[BOB]), link: LinkProtocols::ALL };
        let deaf = Fib::new(false, 1500, &[deaf]);
        assert_eq!(deaf.lookup_link(WIRE, &LLDP, LinkProtocol::Lldp), REFUSED);
        assert_eq!(deaf.lookup_link(WIRE, &BOB, LinkProtocol::MacControl), Verdict::App(1));
        assert_eq!(deaf.lookup_link(1, &LLDP, LinkProtocol::Lldp), Verdict::Drop(DropReason::WireDown));
    }

    /// With the link down, what would go to the wire is dropped under its own name, and apps still reach each other.
    #[test]
    fn wire_down_stops_only_the_wire() {
        let f = Fib::new(false, 1500, &[member(1, settings(&[BOB])), member(2, settings(&[CAROL]))]);
        assert_eq!(f.lookup(1, &NOBODY), Verdict::Drop(DropReason::WireDown));
        assert_eq!(f.lookup(1, &CAROL), Verdict::App(2));
    }

    /// Frame lengths follow each port's MTU; a port that is not there carries nothing.
    #[test]
    fn frame_length_follows_the_mtu() {
        let f = Fib::new(true, 9000, &[member(3, settings(&[BOB]))]);
        assert_eq!([f.max_frame(WIRE), f.max_frame(3), f.max_frame(2), f.max_frame(99)], [9022, 1522, 0, 0]);
    }
}

use super::*;
use kopi_packet::{
    AddressPattern, FlowPattern, IpPattern, MacAddr, Masked, PortsPattern, TransportPattern, VlanPattern,
};
use proptest::prelude::*;
use std::fmt::Debug;
use std::ops::BitAnd;

fn any_link() -> impl Strategy<Value = Link> {
    (any::<bool>(), any::<u32>()).prop_map(|(up, speed)| Link { up, speed })
}

fn any_span() -> impl Strategy<Value = Span> {
    any::<(u64, u64)>().prop_map(|(at, length)| Span { at, length })
}

fn any_bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    prop::collection::vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().unwrap())
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    let ring = || prop::collection::vec((6..=13_u32).prop_map(|bits| 1 << bits), 1..=MAX_QUEUES);
    (ring(), ring(), 2..=128_u32, any::<prop::sample::Index>()).prop_map(|(tx, rx, slot, lanes)| {
        let lanes_of: Vec<u16> = (1..=16).filter(|lanes| rx.len() % usize::from(*lanes) == 0).collect();
        Geometry::new(&tx, &rx, slot * 128).unwrap().with_lanes(lanes_of[lanes.index(lanes_of.len())]).unwrap()
    })
}

fn any_masked<T: Arbitrary + Copy + Debug + BitAnd<Output = T>>() -> impl Strategy<Value = Masked<T>> {
    any::<(T, T)>().prop_map(|(value, mask)| Masked::new(value, mask))
}

fn any_pattern() -> impl Strategy<Value = FlowPattern> {
    let mac = || any::<([u8; 6], [u8; 6])>().prop_map(|(a, b)| Masked::new(MacAddr::new(a), MacAddr::new(b)));
    let vlan =
        prop_oneof![
            Just(VlanPattern::Any),
            Just(VlanPattern::Untagged),
            (any_masked(), any::<bool>(), any::<Option<bool>>())
                .prop_map(|(tci, customer, more)| VlanPattern::Tagged { tci, customer, more }),
        ];
    let addresses = prop_oneof![
        (any_masked(), any_masked()).prop_map(|(src, dst)| AddressPattern::V4 { src, dst }),
        (any_masked(), any_masked()).prop_map(|(src, dst)| AddressPattern::V6 { src, dst }),
    ];
    let ports = || (any_masked(), any_masked()).prop_map(|(src, dst)| PortsPattern { src, dst });
    let transport = prop_oneof![
        Just(TransportPattern::Any),
        any::<u8>().prop_map(TransportPattern::Protocol),
        ports().prop_map(TransportPattern::Tcp),
        ports().prop_map(TransportPattern::Udp),
        (any_masked(), any_masked()).prop_map(|(kind, code)| TransportPattern::Icmp { kind, code }),
    ];
    let ip =
        prop::option::of((addresses, transport).prop_map(|(addresses, transport)| IpPattern { addresses, transport }));
    (mac(), mac(), any::<Option<u16>>(), vlan, ip).prop_map(|(dst_mac, src_mac, ether_type, vlan, ip)| FlowPattern {
        dst_mac,
        src_mac,
        ether_type,
        vlan,
        ip,
    })
}

fn any_flow_rule() -> impl Strategy<Value = FlowRule> {
    let action = prop_oneof![Just(FlowAction::Drop), Just(FlowAction::Pass)];
    (0..MAX_FLOW_RULES, any::<u32>(), any_pattern(), action, prop::option::of(0..16_u16), any::<bool>()).prop_map(
        |(slot, priority, pattern, action, queue, told)| FlowRule { slot, priority, pattern, action, queue, told },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let name = || "[a-z0-9._-]{0,32}";
    prop_oneof![
        "[ -~]{0,200}".prop_map(Message::Refused),
        (name(), any::<Mac>(), any::<u16>(), "[ -~]{0,60}")
            .prop_map(|(name, mac, queues, driver)| Message::Hello(Hello { name, mac, queues, driver })),
        (any::<u16>(), name(), any::<Mac>(), any::<(u16, u16, u32, u32, bool, u16)>(), any_link(), any_bytes())
            .prop_map(
                |(port, name, mac, (max_mtu, max_queues, max_ring, slot_size, shares, workers), link, rss_key)| {
                    Message::Welcome(Welcome {
                        port,
                        name,
                        mac,
                        max_mtu,
                        max_queues,
                        max_ring,
                        slot_size,
                        link,
                        shares,
                        workers,
                        rss_key,
                    })
                }
            ),
        (any_geometry(), any::<bool>()).prop_map(|(geometry, sleeps)| Message::Setup(Setup { geometry, sleeps })),
        any_geometry().prop_map(Message::Ready),
        (any::<u16>(), any::<bool>(), any::<bool>(), prop::collection::vec(any::<Mac>(), 0..=MAX_MACS)).prop_map(
            |(mtu, promiscuous, all_multicast, macs)| {
                Message::Settings(Settings { mtu, promiscuous, all_multicast, macs })
            }
        ),
        Just(Message::Stop),
        Just(Message::Done),
        any_link().prop_map(Message::Link),
        Just(Message::Mapped),
        (12..=30_u32, 1..=1_u64 << 10)
            .prop_map(|(bits, pages)| { Message::Memory(WindowLayout::new(1 << bits, pages << bits).unwrap()) }),
        (any_bytes(), any::<u64>(), any_bytes()).prop_map(|(key, types, table)| {
            let queues = u8::try_from(MAX_QUEUES).unwrap();
            Message::Rss(Rss { key, types, table: table.map(|queue| queue % queues) })
        }),
        prop::collection::vec((any_span(), any::<u64>()), 0..=MAX_SEGMENTS).prop_map(|segments| {
            Message::Share(segments.into_iter().map(|(span, offset)| Segment { span, offset }).collect())
        }),
        prop::collection::vec(any_span(), 0..=MAX_SEGMENTS).prop_map(Message::Unshare),
        any_flow_rule().prop_map(|rule| Message::FlowRule(Box::new(rule))),
        prop_oneof![0..MAX_FLOW_RULES, Just(ALL_FLOW_RULES)].prop_map(Message::FlowRuleGone),
    ]
}

proptest! {
    /// What one side sends is what the other receives, in one packet.
    #[test]
    fn every_message_survives_the_wire(sequence in any::<u32>(), message in any_message()) {
        let envelope = Envelope { protocol: PROTOCOL, sequence, message };
        let bytes = envelope.encode();
        prop_assert!(bytes.len() <= MAX_MESSAGE);
        prop_assert_eq!(Envelope::decode(&bytes), Ok(envelope));
    }

    /// Fault 2: flipped bits, cut ends and garbage never panic, and never decode to something that encodes otherwise.
    #[test]
    fn garbage_is_refused_or_harmless(
        message in any_message(), cut in any::<usize>(), flip in any::<(usize, u8)>(),
        garbage in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = Envelope { protocol: PROTOCOL, sequence: 1, message }.encode();
        let at = flip.0 % bytes.len();
        bytes[at] ^= flip.1;
        bytes.truncate(cut % (bytes.len() + 1));
        for candidate in [&bytes, &garbage] {
            if let Ok(envelope) = Envelope::decode(candidate) {
                prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
            }
        }
    }
}

/// Fault 4: the error names both versions, and a refusal is understood whatever version it comes from.
#[test]
fn another_version_is_named() {
    let mut hello = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::Hello(Hello::default()) }.encode();
    hello[4] = 9;
    let refused = Envelope::decode(&hello).unwrap_err();
    assert_eq!(refused, DecodeError::Version(9));
    let both = format!("peer speaks ring protocol 9, this side speaks {OLDEST_PROTOCOL} to {PROTOCOL}");
    assert_eq!(refused.to_string(), both);
    let mut no = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::Refused("too old".into()) }.encode();
    no[4] = 9;
    let no = Envelope::decode(&no).unwrap();
    assert_eq!((no.protocol, no.message), (9, Message::Refused("too old".into())));
}

/// Each message keeps the version that it was sent in, and a version has no messages of later ones.
#[test]
fn older_versions_have_their_own_messages() {
    for protocol in OLDEST_PROTOCOL..=PROTOCOL {
        let stop = Envelope { protocol, sequence: 1, message: Message::Stop };
        assert_eq!(Envelope::decode(&stop.encode()), Ok(stop));
        let mapped = Envelope { protocol, sequence: 1, message: Message::Mapped };
        let expected = if protocol < 3 { Err(DecodeError::Kind(10)) } else { Ok(mapped.clone()) };
        assert_eq!(Envelope::decode(&mapped.encode()), expected);
    }
}

/// An older version has one hash for all, of which nobody learns the key.
#[test]
fn older_versions_have_no_choice_of_rss() {
    let rss = Message::Rss(Rss { key: [7; RSS_KEY_SIZE], types: 4, table: [0; RETA_SIZE] });
    let welcome = Welcome {
        port: 1,
        name: "app".into(),
        mac: [2; 6],
        max_mtu: 1500,
        max_queues: 4,
        max_ring: 512,
        slot_size: 2048,
        link: Link::default(),
        shares: false,
        workers: 1,
        rss_key: [7; RSS_KEY_SIZE],
    };
    for protocol in OLDEST_PROTOCOL..=PROTOCOL {
        let sent = Envelope { protocol, sequence: 1, message: rss.clone() };
        let expected = if protocol < RSS { Err(DecodeError::Kind(14)) } else { Ok(sent.clone()) };
        assert_eq!(Envelope::decode(&sent.encode()), expected);
        let sent = Envelope { protocol, sequence: 1, message: Message::Welcome(welcome.clone()) };
        let key = if protocol < RSS { [0; RSS_KEY_SIZE] } else { [7; RSS_KEY_SIZE] };
        let expected = Message::Welcome(Welcome { rss_key: key, ..welcome.clone() });
        assert_eq!(Envelope::decode(&sent.encode()).unwrap().message, expected);
    }
}

/// Fault 2: a table with a queue that no port can have is named as such, wherever it is.
#[test]
fn tables_of_impossible_queues_are_refused() {
    let rss = Rss { key: [7; RSS_KEY_SIZE], types: u64::MAX, table: [15; RETA_SIZE] };
    let envelope = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::Rss(rss) };
    assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope.clone()));
    for (at, queue) in (1..=RETA_SIZE).flat_map(|at| [(at, 16), (at, 255)]) {
        let mut bytes = envelope.encode();
        let at = bytes.len() - at;
        bytes[at] = queue;
        assert_eq!(Envelope::decode(&bytes), Err(DecodeError::Queue(queue)));
    }
}

/// Numbers of rules and queues that a port cannot have are refused by name, and so are kinds that there are none of.
#[test]
fn flow_rules_outside_their_limits_are_refused() {
    let rule = FlowRule {
        slot: 255,
        priority: 1,
        pattern: FlowPattern::default(),
        action: FlowAction::Pass,
        queue: Some(15),
        told: true,
    };
    let bytes = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::FlowRule(Box::new(rule)) }.encode();
    assert!(Envelope::decode(&bytes).is_ok());
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        Envelope::decode(&bytes)
    };
    // Behind the header: slot, priority, action, queue, told, 24 bytes of MAC addresses, three of a type, VLAN, IP.
    for slot in [256, u16::MAX] {
        assert_eq!(with(12, &slot.to_le_bytes()), Err(FlowRuleError::Slot(slot).into()));
    }
    for queue in [16, 0xfffe_u16] {
        assert_eq!(with(19, &queue.to_le_bytes()), Err(FlowRuleError::Queue(queue).into()));
    }
    assert_eq!(with(18, &[2]), Err(DecodeError::Flag));
    assert_eq!(with(49, &[5]), Err(FlowRuleError::Kind(5).into()));
    assert_eq!(with(50, &[5]), Err(FlowRuleError::Kind(5).into()));
    assert_eq!(bytes.len(), 51);

    let gone = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::FlowRuleGone(256) }.encode();
    assert_eq!(Envelope::decode(&gone), Err(FlowRuleError::Slot(256).into()));
}

/// A value has no bits that do not count, whatever is sent.
#[test]
fn what_does_not_count_in_a_flow_rule_is_cleared() {
    let rule = FlowRule {
        slot: 0,
        priority: 0,
        pattern: FlowPattern::default(),
        action: FlowAction::Pass,
        queue: None,
        told: false,
    };
    let mut bytes = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::FlowRule(Box::new(rule)) }.encode();
    // The destination's value and mask.
    bytes[22..34].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0x0f, 0, 0, 1]);
    let Message::FlowRule(read) = Envelope::decode(&bytes).unwrap().message else { panic!() };
    assert_eq!(read.pattern.dst_mac.value(), MacAddr::new([0, 0xff, 0x0f, 0, 0, 1]));
    assert_eq!(read.pattern.dst_mac.value(), read.pattern.dst_mac.mask());
}

/// An older version has no lanes: its rings are its queues.
#[test]
fn older_versions_have_no_lanes() {
    let geometry = Geometry::new(&[64], &[64; 6], 2048).unwrap();
    for protocol in OLDEST_PROTOCOL..=PROTOCOL {
        let laned = geometry.clone().with_lanes(3).unwrap();
        assert_eq!(laned.rx_queues(), 2);
        let sent = Envelope { protocol, sequence: 1, message: Message::Ready(laned.clone()) };
        let expected = if protocol < 3 { geometry.clone() } else { laned };
        assert_eq!(Envelope::decode(&sent.encode()).unwrap().message, Message::Ready(expected));
    }
}

/// Every queue has as many lanes, and one at least.
#[test]
fn lanes_that_do_not_go_into_the_rings_are_refused() {
    let geometry = Geometry::new(&[64], &[64; 6], 2048).unwrap();
    let envelope = Envelope { protocol: PROTOCOL, sequence: 1, message: Message::Ready(geometry) };
    for lanes in [0, 4, 5, 7, 12, u16::MAX] {
        let mut bytes = envelope.encode();
        let at = bytes.len() - 2;
        bytes[at..].copy_from_slice(&lanes.to_le_bytes());
        let refused = Err(DecodeError::Geometry(GeometryError::Lanes { lanes, rings: 6 }));
        assert_eq!(Envelope::decode(&bytes), refused);
    }
}

/// Fault 5: too many queues are named as such, not as garbage.
#[test]
fn queue_counts_beyond_the_limit_are_named() {
    let mut out = Writer(Vec::new());
    out.bytes(&MAGIC);
    out.u16(PROTOCOL);
    out.u16(4);
    out.u32(1);
    out.u32(2048);
    out.count(65);
    (0..65).for_each(|_| out.u32(512));
    out.count(1);
    out.u32(512);
    assert_eq!(Envelope::decode(&out.0), Err(DecodeError::Geometry(GeometryError::Queues(65))));
}

use super::*;
use std::ffi::c_void;
use std::ptr::null;

const ETH: u32 = sys::RTE_FLOW_ITEM_TYPE_ETH;
const VLAN: u32 = sys::RTE_FLOW_ITEM_TYPE_VLAN;
const IPV4: u32 = sys::RTE_FLOW_ITEM_TYPE_IPV4;
const IPV6: u32 = sys::RTE_FLOW_ITEM_TYPE_IPV6;
const TCP: u32 = sys::RTE_FLOW_ITEM_TYPE_TCP;
const UDP: u32 = sys::RTE_FLOW_ITEM_TYPE_UDP;
const ICMP: u32 = sys::RTE_FLOW_ITEM_TYPE_ICMP;
const ICMP6: u32 = sys::RTE_FLOW_ITEM_TYPE_ICMP6;
const VOID: u32 = sys::RTE_FLOW_ITEM_TYPE_VOID;

/// An item as an application builds it: what some fields are to be, and which of their bits count; longer than any structure.
#[derive(Clone)]
struct Built {
    kind: u32,
    spec: Option<[u8; 64]>,
    mask: Option<[u8; 64]>,
}

impl Built {
    fn new(kind: u32) -> Self {
        Self { kind, spec: None, mask: None }
    }

    /// These bytes at this place are to be so.
    fn field(mut self, at: usize, value: &[u8], mask: &[u8]) -> Self {
        self.spec.get_or_insert([0; 64])[at..at + value.len()].copy_from_slice(value);
        self.mask.get_or_insert([0; 64])[at..at + mask.len()].copy_from_slice(mask);
        self
    }

    /// All bits of these bytes count.
    fn exact(self, at: usize, value: &[u8]) -> Self {
        self.field(at, value, &vec![0xff; value.len()])
    }

    /// Without a mask.
    fn unmasked(self) -> Self {
        Self { mask: None, ..self }
    }

    fn item(&self) -> rte_flow_item {
        let pointer = |bytes: &Option<[u8; 64]>| bytes.as_ref().map_or(null(), |bytes| bytes.as_ptr().cast::<c_void>());
        rte_flow_item { type_: self.kind, spec: pointer(&self.spec), last: null(), mask: pointer(&self.mask) }
    }
}

fn read_all(items: &[Built]) -> Result<FlowPattern, FlowError> {
    let mut raw: Vec<_> = items.iter().map(Built::item).collect();
    raw.push(Built::new(sys::RTE_FLOW_ITEM_TYPE_END).item());
    // SAFETY: complete items, and an end.
    unsafe { read(raw.as_ptr()) }
}

fn refused(items: &[Built]) -> (i32, u32, String) {
    let error = read_all(items).unwrap_err();
    (error.errno, error.kind, error.text.to_string_lossy().into_owned())
}

fn new(kind: u32) -> Built {
    Built::new(kind)
}

fn v4(src: Masked<u32>, dst: Masked<u32>, transport: TransportPattern) -> Option<IpPattern> {
    Some(IpPattern { addresses: AddressPattern::V4 { src, dst }, transport })
}

const ANY: TransportPattern = TransportPattern::Any;

/// Each field of each item becomes the same field of the pattern, with its mask.
#[test]
fn items_become_a_pattern() {
    let none = FlowPattern::default();
    assert_eq!(read_all(&[]), Ok(none));
    assert_eq!(read_all(&[new(ETH), new(VOID)]), Ok(none));
    let (a, b) = ([2, 0, 0, 0, 0, 1], [0xff, 0xff, 0xff, 0, 0, 0]);
    let eth = read_all(&[new(ETH).exact(0, &a).field(6, &a, &b)]).unwrap();
    assert_eq!(eth.dst_mac, Masked::new(MacAddr::new(a), MacAddr::BROADCAST));
    assert_eq!(eth.src_mac, Masked::new(MacAddr::new(a), MacAddr::new(b)));
    assert_eq!((eth.ether_type, eth.vlan, eth.ip), (None, VlanPattern::Any, None));

    let (host, net) = (Masked::new(0x0a00_0001, !0), Masked::new(0xc0a8_0000, 0xffff_0000));
    let ip = new(IPV4).exact(12, &[10, 0, 0, 1]).field(16, &[192, 168, 3, 4], &[255, 255, 0, 0]);
    assert_eq!(read_all(&[new(ETH), ip.clone()]), Ok(FlowPattern { ip: v4(host, net, ANY), ..none }));
    let carried = |item| read_all(&[new(ETH), ip.clone(), item]).unwrap().ip;
    let ports = PortsPattern { src: Masked::new(53, !0), dst: Masked::new(0x1200, 0xff00) };
    let with_ports = |kind| new(kind).exact(0, &[0, 53]).field(2, &[0x12, 0x34], &[0xff, 0]);
    assert_eq!(carried(with_ports(UDP)), v4(host, net, TransportPattern::Udp(ports)));
    assert_eq!(carried(with_ports(TCP)), v4(host, net, TransportPattern::Tcp(ports)));
    let icmp = TransportPattern::Icmp { kind: Masked::new(8, !0), code: Masked::default() };
    assert_eq!(carried(new(ICMP).exact(0, &[8])), v4(host, net, icmp));
    let proto = new(IPV4).exact(9, &[47]);
    let any = Masked::default();
    assert_eq!(read_all(&[proto]).unwrap().ip, v4(any, any, TransportPattern::Protocol(47)));

    let mut address = [0; 16];
    (address[0], address[15]) = (0xfe, 1);
    let number = u128::from_be_bytes(address);
    let ip = new(IPV6).exact(24, &address).exact(6, &[58]);
    let addresses = AddressPattern::V6 { src: any_v6(), dst: Masked::new(number, !0) };
    let transport = TransportPattern::Icmp { kind: Masked::new(135, !0), code: Masked::new(0, !0) };
    assert_eq!(read_all(&[ip, new(ICMP6).exact(0, &[135, 0])]).unwrap().ip, Some(IpPattern { addresses, transport }));
}

fn any_v6() -> Masked<u128> {
    Masked::default()
}

/// An item without a mask has ethdev's own, which leaves out what is seldom meant: type and priority.
#[test]
fn items_without_a_mask_have_the_usual_one() {
    let full = [0x12; 64];
    let eth = read_all(&[new(ETH).exact(0, &full[..20]).unmasked()]).unwrap();
    let mac = Masked::new(MacAddr::new([0x12; 6]), MacAddr::BROADCAST);
    assert_eq!((eth.dst_mac, eth.src_mac, eth.ether_type, eth.vlan), (mac, mac, None, VlanPattern::Any));
    let vlan = read_all(&[new(VLAN).exact(0, &full[..8]).unmasked()]).unwrap().vlan;
    assert_eq!(vlan, VlanPattern::Tagged { tci: Masked::new(0x0212, 0x0fff), customer: false, more: None });
    for (ip, size, transport, length) in [(IPV4, 20, TCP, 20), (IPV6, 44, UDP, 8), (IPV4, 20, ICMP, 8)] {
        let items = [new(ip).exact(0, &full[..size]).unmasked(), new(transport).exact(0, &full[..length]).unmasked()];
        let ip = read_all(&items).unwrap().ip.unwrap();
        let ports = PortsPattern { src: Masked::new(0x1212, !0), dst: Masked::new(0x1212, !0) };
        let byte = Masked::new(0x12, !0);
        let expected = match transport {
            TCP => TransportPattern::Tcp(ports),
            UDP => TransportPattern::Udp(ports),
            _ => TransportPattern::Icmp { kind: byte, code: byte },
        };
        assert_eq!(ip.transport, expected);
        let (v4, v6) = (Masked::new(0x1212_1212, !0), Masked::new(u128::from_be_bytes([0x12; 16]), !0));
        let addresses = match ip.addresses {
            AddressPattern::V4 { .. } => AddressPattern::V4 { src: v4, dst: v4 },
            AddressPattern::V6 { .. } => AddressPattern::V6 { src: v6, dst: v6 },
        };
        assert_eq!(ip.addresses, addresses);
    }
}

/// Types and tags say what DPDK says that they do: a type without an item for a tag is that behind the addresses.
#[test]
fn types_and_tags_go_together() {
    let typed = |ether_type: u16| new(ETH).exact(12, &ether_type.to_be_bytes());
    let has_vlan = |eth: Built, has: u8| eth.field(14, &[has], &[1]);
    let vlan = |id: u16| new(VLAN).field(0, &id.to_be_bytes(), &[0x0f, 0xff]);
    let found = |items: &[Built]| read_all(items).map(|pattern| (pattern.vlan, pattern.ether_type)).unwrap();
    let tagged = |tci, customer, more| VlanPattern::Tagged { tci, customer, more };
    let (seven, any) = (Masked::new(7, 0x0fff), Masked::default());
    assert_eq!(found(&[typed(0x0806)]), (VlanPattern::Untagged, Some(0x0806)));
    assert_eq!(found(&[typed(0x8100)]), (tagged(any, true, None), None));
    assert_eq!(found(&[has_vlan(new(ETH), 0)]), (VlanPattern::Untagged, None));
    assert_eq!(found(&[has_vlan(new(ETH), 1)]), (tagged(any, false, None), None));
    assert_eq!(found(&[vlan(7)]), (tagged(seven, false, None), None));
    assert_eq!(found(&[has_vlan(typed(0x8100), 1), vlan(7)]), (tagged(seven, true, None), None));
    assert_eq!(found(&[new(ETH), vlan(7).field(4, &[1], &[1])]), (tagged(seven, false, Some(true)), None));
    assert_eq!(found(&[new(ETH), vlan(7).field(4, &[0], &[1])]), (tagged(seven, false, Some(false)), None));
    assert_eq!(found(&[vlan(7).exact(2, &[8, 6])]), (tagged(seven, false, Some(false)), Some(0x0806)));
    assert_eq!(found(&[vlan(7).exact(2, &[8, 0]), new(IPV4)]).1, Some(0x0800));

    let einval: [&[Built]; 7] = [
        &[has_vlan(typed(0x8100), 0)],
        &[has_vlan(typed(0x0800), 1)],
        &[has_vlan(new(ETH), 0), vlan(7)],
        &[typed(0x0800), vlan(7)],
        &[vlan(7).exact(2, &[8, 0]).field(4, &[1], &[1])],
        &[typed(0x0800), new(IPV6)],
        &[vlan(7).exact(2, &[0x86, 0xdd]), new(IPV4)],
    ];
    for items in einval {
        let (errno, kind, text) = refused(items);
        assert_eq!((errno, kind), (libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC), "{text}");
    }
    for items in [&[typed(0x88a8)][..], &[typed(0x9100), vlan(7)], &[vlan(7).exact(2, &[0x81, 0])], &[typed(46)]] {
        let (errno, kind, text) = refused(items);
        assert_eq!((errno, kind), (libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC), "{text}");
    }
}

/// A bit that a flow key does not have is refused, wherever it is; every bit of every header is either matched or refused.
#[test]
fn every_bit_is_matched_or_refused() {
    let before = |kind| match kind {
        TCP | UDP | ICMP => vec![new(IPV4)],
        ICMP6 => vec![new(IPV6)],
        _ => vec![],
    };
    // Which bytes of each header are matched, bit by bit.
    for (kind, size, matched) in
        [(IPV4, 20, 12..20), (IPV6, 40, 8..40), (TCP, 20, 0..4), (UDP, 8, 0..4), (ICMP, 8, 0..2), (ICMP6, 4, 0..2)]
    {
        for (at, bit) in (0..size).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit))) {
            let mut items = before(kind);
            items.push(new(kind).field(at, &[bit], &[bit]));
            let read = read_all(&items);
            assert_eq!(read.is_ok(), matched.contains(&at), "byte {at} of {kind}");
            if let Err(error) = read {
                assert_eq!((error.errno, error.kind), (libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_MASK));
            } else {
                let mut all = before(kind);
                all.push(new(kind));
                assert_ne!(read, read_all(&all), "byte {at} of {kind} makes a difference");
            }
        }
    }
    for at in 40..42 {
        assert!(read_all(&[new(IPV6).exact(at, &[1])]).is_err(), "an extension header");
    }
    assert!(read_all(&[new(ETH).field(12, &[8, 0], &[0xff, 0])]).is_err());
    assert!(read_all(&[new(VLAN).field(2, &[8, 0], &[0xff, 0])]).is_err());
}

/// Items out of order, without what is below them, twice or unknown are refused, and so are ranges and masks of nothing.
#[test]
fn senseless_patterns_are_refused() {
    let einval: [&[Built]; 11] = [
        &[new(ETH), new(ETH)],
        &[new(IPV4), new(ETH)],
        &[new(IPV4), new(VLAN)],
        &[new(IPV4), new(IPV6)],
        &[new(IPV4), new(TCP), new(UDP)],
        &[new(UDP)],
        &[new(ETH), new(TCP)],
        &[new(IPV6), new(ICMP)],
        &[new(IPV4), new(ICMP6)],
        &[new(IPV4).exact(9, &[6]), new(UDP)],
        &[new(VLAN), new(ICMP)],
    ];
    for items in einval {
        let (errno, kind, text) = refused(items);
        assert_eq!((errno, kind), (libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM), "{text}");
    }
    for items in [&[new(VLAN), new(VLAN)][..], &[new(5)], &[new(IPV4), new(13)], &[new(u32::MAX)]] {
        let (errno, kind, text) = refused(items);
        assert_eq!((errno, kind), (libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM), "{text}");
    }
    assert_eq!(refused(&vec![new(VOID); MOST]).1, sys::RTE_FLOW_ERROR_TYPE_ITEM_NUM);
    // SAFETY: null is allowed.
    assert_eq!(unsafe { read(null()) }.unwrap_err().errno, libc::EINVAL);

    let (bytes, built) = ([0_u8; 64], new(IPV4).exact(12, &[1]));
    let ranged = rte_flow_item { last: bytes.as_ptr().cast(), ..built.item() };
    let masked = rte_flow_item { mask: bytes.as_ptr().cast(), ..new(IPV4).item() };
    let end = new(sys::RTE_FLOW_ITEM_TYPE_END).item();
    for (item, kind) in [(ranged, sys::RTE_FLOW_ERROR_TYPE_ITEM_LAST), (masked, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC)] {
        // SAFETY: items whose bytes live as long, and an end.
        assert_eq!(unsafe { read([item, end].as_ptr()) }.unwrap_err().kind, kind);
    }
}

use super::*;
use crate::devargs::Args;
use crate::steering::Hits;
use kopi_packet::{AddressPattern, IpPattern, Masked, TransportPattern};
use std::ffi::CStr;

unsafe extern "C" {
    fn kopi_flow_bit(which: u32, to: *mut c_void) -> usize;
}

/// DPDK's bit fields are the bits that the driver takes for them.
#[test]
fn bit_fields_are_where_dpdk_has_them() {
    let sizes = [
        size_of::<sys::rte_flow_item_eth>(),
        size_of::<sys::rte_flow_item_vlan>(),
        size_of::<rte_flow_attr>(),
        size_of::<sys::rte_flow_query_count>(),
    ];
    // By number: which structure, the byte, and the value of that.
    let fields = [(0, 14, 1), (1, 4, 1), (2, 8, 1), (2, 8, 2), (2, 8, 4), (3, 0, 1), (3, 0, 2), (3, 0, 4)];
    for (which, (structure, at, value)) in (0..).zip(fields) {
        let mut bytes = [0_u8; 64];
        // SAFETY: more room than any of them needs.
        let size = unsafe { kopi_flow_bit(which, bytes.as_mut_ptr().cast()) };
        assert_eq!(size, sizes[structure]);
        let mut expected = [0_u8; 64];
        expected[at] = value;
        assert_eq!(bytes, expected, "bit field {which}");
    }
}

fn attr(group: u32, flags: u32) -> rte_flow_attr {
    rte_flow_attr { group, priority: 9, flags }
}

/// Rules are for ingress in group 0, and the attribute that is wrong is named.
#[test]
fn other_attributes_than_ingress_are_refused() {
    assert_eq!(attributes(Some(&attr(0, 1))), Ok(9));
    let refused = [
        (attr(1, 1), libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_GROUP),
        (attr(0, 2), libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_EGRESS),
        (attr(0, 3), libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_EGRESS),
        (attr(0, 5), libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_TRANSFER),
        (attr(0, 0), libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ATTR_INGRESS),
    ];
    for (attr, errno, kind) in refused {
        let error = attributes(Some(&attr)).unwrap_err();
        assert_eq!((error.errno, error.kind), (errno, kind));
    }
    assert_eq!(attributes(None).unwrap_err().errno, libc::EINVAL);
}

fn pattern(host: u32) -> FlowPattern {
    let addresses = AddressPattern::V4 { src: Masked::new(host, !0), dst: Masked::default() };
    FlowPattern { ip: Some(IpPattern { addresses, transport: TransportPattern::Any }), ..FlowPattern::default() }
}

/// A rule more than 256, one that is there, and any with a daemon of before are refused as `rte_flow` says.
#[test]
fn there_is_room_for_256_rules() {
    let mut state = PortState::new(&Args::default());
    for host in 0..256 {
        let slot = room(&state, 0, &pattern(host)).unwrap();
        state.flows.insert(slot, 0, pattern(host), Telling::default(), Hits::default());
        assert_eq!(room(&state, 0, &pattern(host)).unwrap_err().errno, libc::EEXIST);
    }
    assert_eq!(room(&state, 0, &pattern(256)).unwrap_err().errno, libc::ENOSPC);
    state.forget_flows();
    assert!(room(&state, 0, &pattern(256)).is_ok());
    (state.attached, state.protocol) = (true, 2);
    assert_eq!(room(&state, 0, &pattern(256)).unwrap_err().errno, libc::ENOTSUP);
}

/// A counter counts from its rule's begin, or from the last reset; the application gets an error for what has none.
#[test]
fn counts_begin_with_the_rule_and_can_be_set_back() {
    let mut state = PortState::new(&Args::default());
    let base = Hits { frames: u64::MAX, bytes: u64::MAX - 99 };
    let counted = state.flows.insert(7, 0, pattern(1), Telling::default().count(), base).as_ptr();
    let silent = state.flows.insert(8, 0, pattern(2), Telling::default().flag(), Hits::default()).as_ptr();
    let mut ask = |flow: *const rte_flow, reset: u32| {
        let mut data = sys::rte_flow_query_count { flags: reset, hits: 77, bytes: 77 };
        count(&mut state, flow, &mut data).map(|()| (data.flags, data.hits, data.bytes))
    };
    assert_eq!(ask(counted, 0), Ok((6, 1, 100)));
    assert_eq!(ask(counted, 1), Ok((7, 1, 100)));
    assert_eq!(ask(counted, 0), Ok((6, 0, 0)));
    assert_eq!(ask(silent, 0).unwrap_err().kind, sys::RTE_FLOW_ERROR_TYPE_ACTION);
    assert_eq!(ask(null_mut(), 0).unwrap_err().kind, sys::RTE_FLOW_ERROR_TYPE_HANDLE);
}

/// An error says what is to blame, and needs no place to be told.
#[test]
fn errors_are_told() {
    let attr = attr(1, 1);
    let refusal = attributes(Some(&attr)).unwrap_err();
    let mut error = rte_flow_error { type_: 0, cause: std::ptr::null(), message: std::ptr::null() };
    // SAFETY: a place of ours.
    assert_eq!(unsafe { refusal.tell(&raw mut error) }, -libc::ENOTSUP);
    assert_eq!((error.type_, error.cause), (sys::RTE_FLOW_ERROR_TYPE_ATTR_GROUP, (&raw const attr).cast()));
    // SAFETY: a text of ours.
    assert_eq!(unsafe { CStr::from_ptr(error.message) }, c"there is only group 0");
    // SAFETY: null is allowed.
    assert_eq!(unsafe { refusal.tell(null_mut()) }, -libc::ENOTSUP);
}

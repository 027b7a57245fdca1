//! The keys of `match = { ... }`.

use super::addresses::AddressForm;
use super::flags::TcpFlagsForm;
use super::icmp::IcmpForm;
use super::mac::MacForm;
use super::matches::{Direction, State, States};
use super::number::{NumberForm, PortForm};
use super::values::ValuesKey;
use super::words;
use crate::form::{Choice, OneOrMany, Truth};
use crate::walk::{AnyKey, Key, Need, Nested, Section};

/// `match`, as the one key of a rule that holds it.
pub(super) static MATCH: Key<Nested> = Key {
    name: "match",
    doc: "what a frame has to be; everything that is stated has to hold",
    form: Nested(&MATCH_SECTION),
    need: Need::Optional,
};

static MATCH_SECTION: Section = Section {
    name: "rule.match",
    doc: "what a frame has to be; everything that is stated has to hold",
    keys: &[
        &DIRECTION as &dyn AnyKey,
        &ETHERTYPE,
        &VLAN,
        &INNER_VLAN,
        &SRC_MAC,
        &DST_MAC,
        &PROTO,
        &DSCP,
        &SRC,
        &DST,
        &SRC_PORT,
        &DST_PORT,
        &ICMP_TYPE,
        &ICMP6_TYPE,
        &TCP_FLAGS,
        &ARP_OP,
        &ARP_SRC,
        &ARP_DST,
        &ARP_SRC_MAC,
        &STATE,
        &FRAGMENT,
        &NOT,
    ],
};

pub(super) static NOT: Key<Nested> =
    Key { name: "not", doc: "what a frame must not be", form: Nested(&NOT_SECTION), need: Need::Optional };

static NOT_SECTION: Section = Section {
    name: "rule.match.not",
    doc: "what a frame must not be; a frame without the field does not match either",
    keys: &[
        &ETHERTYPE as &dyn AnyKey,
        &VLAN,
        &INNER_VLAN,
        &SRC_MAC,
        &DST_MAC,
        &PROTO,
        &DSCP,
        &SRC,
        &DST,
        &SRC_PORT,
        &DST_PORT,
        &ICMP_TYPE,
        &ICMP6_TYPE,
        &ARP_OP,
        &ARP_SRC,
        &ARP_DST,
        &ARP_SRC_MAC,
        &STATE,
    ],
};

pub(super) static DIRECTION: Key<Choice<Direction>> = Key {
    name: "direction",
    doc: "which way it goes, from the app's side; both if not stated",
    form: Choice { words: &Direction::WORDS },
    need: Need::Optional,
};

/// A key that takes many values of `form`.
const fn values<V>(name: &'static str, doc: &'static str, form: V) -> ValuesKey<V> {
    Key { name, doc, form: OneOrMany { each: form }, need: Need::Optional }
}

const VLAN_FORM: NumberForm<u16> = NumberForm { what: "a VLAN", max: 4095, words: &[], hex: false };
/// Code points, and their names.
pub(super) const DSCP_FORM: NumberForm<u8> =
    NumberForm { what: "a code point", max: 63, words: words::DSCP, hex: false };
const ADDRESS: AddressForm = AddressForm { sets: true, v4_only: false };
const ARP_ADDRESS: AddressForm = AddressForm { sets: true, v4_only: true };
const PORT: PortForm = PortForm { sets: true };

pub(super) static ETHERTYPE: ValuesKey<NumberForm<u16>> = values(
    "ethertype",
    "ethertype after VLAN tags",
    NumberForm { what: "an ethertype", max: u16::MAX, words: words::ETHERTYPES, hex: true },
);
pub(super) static VLAN: ValuesKey<NumberForm<u16>> =
    values("vlan", "VLAN of the outermost tag; 0 for a frame without one", VLAN_FORM);
pub(super) static INNER_VLAN: ValuesKey<NumberForm<u16>> =
    values("inner_vlan", "VLAN of the second tag; 0 for a frame without one", VLAN_FORM);
pub(super) static SRC_MAC: ValuesKey<MacForm> = values("src_mac", "source address of the frame", MacForm);
pub(super) static DST_MAC: ValuesKey<MacForm> = values("dst_mac", "destination address of the frame", MacForm);
pub(super) static PROTO: ValuesKey<NumberForm<u8>> = values(
    "proto",
    "IP protocol; \"icmp\" is that of IPv4 and of IPv6",
    NumberForm { what: "an IP protocol", max: u8::MAX, words: words::PROTOCOLS, hex: false },
);
pub(super) static DSCP: ValuesKey<NumberForm<u8>> =
    values("dscp", "differentiated services code point of IP", DSCP_FORM);
pub(super) static SRC: ValuesKey<AddressForm> = values("src", "source address of IP", ADDRESS);
pub(super) static DST: ValuesKey<AddressForm> = values("dst", "destination address of IP", ADDRESS);
pub(super) static SRC_PORT: ValuesKey<PortForm> =
    values("src_port", "source port; of TCP, UDP, UDP-Lite and SCTP if no `proto` is stated", PORT);
pub(super) static DST_PORT: ValuesKey<PortForm> =
    values("dst_port", "destination port; of TCP, UDP, UDP-Lite and SCTP if no `proto` is stated", PORT);
pub(super) static ICMP_TYPE: ValuesKey<IcmpForm> =
    values("icmp_type", "type of ICMP in IPv4, and its code behind a slash", IcmpForm { words: words::ICMP_TYPES });
pub(super) static ICMP6_TYPE: ValuesKey<IcmpForm> =
    values("icmp6_type", "type of ICMP in IPv6, and its code behind a slash", IcmpForm { words: words::ICMP6_TYPES });
pub(super) static TCP_FLAGS: Key<TcpFlagsForm> = Key {
    name: "tcp_flags",
    doc: "flags of TCP that are set, and behind a slash all that are looked at",
    form: TcpFlagsForm,
    need: Need::Optional,
};
pub(super) static ARP_OP: ValuesKey<NumberForm<u16>> = values(
    "arp_op",
    "operation of ARP",
    NumberForm { what: "an operation of ARP", max: u16::MAX, words: words::ARP_OPERATIONS, hex: false },
);
pub(super) static ARP_SRC: ValuesKey<AddressForm> = values("arp_src", "sender's IP address of ARP", ARP_ADDRESS);
pub(super) static ARP_DST: ValuesKey<AddressForm> = values("arp_dst", "target's IP address of ARP", ARP_ADDRESS);
pub(super) static ARP_SRC_MAC: ValuesKey<MacForm> = values("arp_src_mac", "sender's hardware address of ARP", MacForm);
pub(super) static STATE: Key<OneOrMany<Choice<State>>> = Key {
    name: "state",
    doc: "state of the connection, as conntrack has it",
    form: OneOrMany { each: Choice { words: &States::ALL } },
    need: Need::Optional,
};
pub(super) static FRAGMENT: Key<Truth> = Key {
    name: "fragment",
    doc: "whether it is a fragment of an IP packet, the first one too",
    form: Truth,
    need: Need::Optional,
};

//! From the items of a flow rule to the pattern that the daemon gets.
//!
//! Only what a flow key has can be matched: the rest of a header's fields is refused, so that no rule is for more frames than it says.

use super::error::FlowError;
use crate::sys;
use crate::sys::{rte_flow_item, rte_flow_item_eth, rte_flow_item_ipv6, rte_flow_item_vlan};
use kopi_packet::{
    AddressPattern, FlowPattern, IpPattern, MacAddr, Masked, PortsPattern, TransportPattern, VlanPattern, ethertype,
    proto,
};
use std::ffi::CStr;
use std::mem::offset_of;
use std::ops::Range;

/// Most items of a pattern, with those that say nothing.
const MOST: usize = 64;
/// The lowest value of a type field that is a type (IEEE 802.3, 3.2.6).
const LOWEST_TYPE: u16 = 0x0600;

/// Reads a pattern.
///
/// # Errors
///
/// [`FlowError`] if it cannot be matched, or makes no sense.
///
/// # Safety
///
/// `items` is null or an array of items that ends with `RTE_FLOW_ITEM_TYPE_END`, as `rte_flow` describes it.
pub(super) unsafe fn read(items: *const rte_flow_item) -> Result<FlowPattern, FlowError> {
    let mut reader = PatternReader::default();
    if items.is_null() {
        return Err(FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM_NUM, c"there is no pattern"));
    }
    for at in 0..MOST {
        let item = items.wrapping_add(at);
        // SAFETY: the end has not come yet.
        let fields = unsafe { &*item };
        if fields.type_ == sys::RTE_FLOW_ITEM_TYPE_END {
            return reader.finish();
        }
        // SAFETY: an item of the application's.
        unsafe { reader.item(fields) }?;
    }
    Err(FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_NUM, c"more than 64 items"))
}

/// What was read so far.
#[derive(Default)]
struct PatternReader {
    pattern: FlowPattern,
    /// How far up the headers are read.
    layer: Layer,
    /// The type in the Ethernet header, whether there is a tag, and the items to blame.
    ether_type: Masked<u16>,
    has_vlan: Option<bool>,
    eth: Cause,
    /// The same of a VLAN item.
    vlan: Option<Vlan>,
    /// The protocol that an item of IP asks for.
    proto: Option<u8>,
}

/// The item that is to blame.
#[derive(Clone, Copy)]
struct Cause(*const rte_flow_item);

impl Default for Cause {
    fn default() -> Self {
        Self(std::ptr::null())
    }
}

struct Vlan {
    tci: Masked<u16>,
    inner_type: Masked<u16>,
    has_more: Option<bool>,
    cause: Cause,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    #[default]
    Nothing,
    Ethernet,
    Vlan,
    Ip,
    Transport,
}

/// Bytes of a header, and which of their bits count. What has been taken counts no more.
struct Header<const N: usize> {
    value: [u8; N],
    mask: [u8; N],
    cause: *const rte_flow_item,
}

impl<const N: usize> Header<N> {
    /// What `item` asks for, with `usual` as the mask of an item that has none.
    ///
    /// # Safety
    ///
    /// What the item refers to has `N` bytes.
    unsafe fn of(item: &rte_flow_item, usual: [u8; N]) -> Result<Self, FlowError> {
        let cause = std::ptr::from_ref(item);
        if !item.last.is_null() {
            let error =
                FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_LAST, c"there are no ranges (last)");
            return Err(error.of(cause));
        }
        if item.spec.is_null() {
            if !item.mask.is_null() {
                let error =
                    FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, c"a mask without a value (spec)");
                return Err(error.of(cause));
            }
            return Ok(Self { value: [0; N], mask: [0; N], cause });
        }
        // SAFETY: by the caller's word.
        let value = unsafe { item.spec.cast::<[u8; N]>().read_unaligned() };
        // SAFETY: null, or by the caller's word.
        let mask = unsafe { item.mask.cast::<[u8; N]>().as_ref() };
        Ok(Self { value, mask: mask.copied().unwrap_or(usual), cause })
    }

    /// The next `M` bytes from `at` on: value and mask.
    fn take<const M: usize>(&mut self, at: usize) -> [[u8; M]; 2] {
        let value = self.value.get(at..).and_then(|rest| rest.first_chunk::<M>()).copied().unwrap_or([0; M]);
        let mask = self.mask.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<M>());
        [value, mask.map(|mask| std::mem::replace(mask, [0; M])).unwrap_or([0; M])]
    }

    fn mac(&mut self, at: usize) -> Masked<MacAddr> {
        let [value, mask] = self.take(at).map(MacAddr::new);
        Masked::new(value, mask)
    }

    fn byte(&mut self, at: usize) -> Masked<u8> {
        let [[value], [mask]] = self.take(at);
        Masked::new(value, mask)
    }

    fn be16(&mut self, at: usize) -> Masked<u16> {
        let [value, mask] = self.take(at).map(u16::from_be_bytes);
        Masked::new(value, mask)
    }

    fn be32(&mut self, at: usize) -> Masked<u32> {
        let [value, mask] = self.take(at).map(u32::from_be_bytes);
        Masked::new(value, mask)
    }

    fn be128(&mut self, at: usize) -> Masked<u128> {
        let [value, mask] = self.take(at).map(u128::from_be_bytes);
        Masked::new(value, mask)
    }

    /// A bit field of one bit, the lowest of the byte at `at`. The other bits are nothing.
    fn bit(&mut self, at: usize) -> Option<bool> {
        let [[value], [mask]] = self.take(at);
        (mask & 1 != 0).then_some(value & 1 != 0)
    }

    /// A number that has to be asked for as a whole, or not at all.
    fn proto(&mut self, at: usize) -> Result<Option<u8>, FlowError> {
        let proto = self.byte(at);
        match proto.mask() {
            0 => Ok(None),
            u8::MAX => Ok(Some(proto.value())),
            _ => Err(self.refuse(c"a protocol is matched as a whole or not at all")),
        }
    }

    fn refuse(&self, text: &'static CStr) -> FlowError {
        FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_MASK, text).of(self.cause)
    }

    /// Refuses everything that was not taken.
    fn nothing_else(self, text: &'static CStr) -> Result<(), FlowError> {
        if self.mask == [0; N] { Ok(()) } else { Err(self.refuse(text)) }
    }
}

/// A mask with all bits of these bytes.
fn usual<const N: usize>(bytes: Range<usize>) -> [u8; N] {
    let mut mask = [0; N];
    mask.get_mut(bytes).into_iter().flatten().for_each(|byte| *byte = 0xff);
    mask
}

impl PatternReader {
    /// Reads the next item.
    ///
    /// # Safety
    ///
    /// An item as `rte_flow` describes it: what it refers to is as long as its type says.
    unsafe fn item(&mut self, item: &rte_flow_item) -> Result<(), FlowError> {
        let cause = std::ptr::from_ref(item);
        let refuse = |errno, text| FlowError::new(errno, sys::RTE_FLOW_ERROR_TYPE_ITEM, text).of(cause);
        let layer = match item.type_ {
            sys::RTE_FLOW_ITEM_TYPE_VOID => return Ok(()),
            sys::RTE_FLOW_ITEM_TYPE_ETH => Layer::Ethernet,
            sys::RTE_FLOW_ITEM_TYPE_VLAN => Layer::Vlan,
            sys::RTE_FLOW_ITEM_TYPE_IPV4 | sys::RTE_FLOW_ITEM_TYPE_IPV6 => Layer::Ip,
            sys::RTE_FLOW_ITEM_TYPE_TCP
            | sys::RTE_FLOW_ITEM_TYPE_UDP
            | sys::RTE_FLOW_ITEM_TYPE_ICMP
            | sys::RTE_FLOW_ITEM_TYPE_ICMP6 => Layer::Transport,
            _ => return Err(refuse(libc::ENOTSUP, c"items are eth, vlan, ipv4, ipv6, tcp, udp, icmp and icmp6")),
        };
        if self.layer == Layer::Vlan && layer == Layer::Vlan {
            return Err(refuse(libc::ENOTSUP, c"only the outer VLAN tag is matched"));
        }
        if layer <= self.layer {
            return Err(refuse(libc::EINVAL, c"items go from eth over vlan and IP to what IP carries, each once"));
        }
        if layer == Layer::Transport && self.layer != Layer::Ip {
            return Err(refuse(libc::EINVAL, c"tcp, udp, icmp and icmp6 come behind ipv4 or ipv6"));
        }
        self.layer = layer;
        let read = match item.type_ {
            sys::RTE_FLOW_ITEM_TYPE_ETH => Self::eth,
            sys::RTE_FLOW_ITEM_TYPE_VLAN => Self::vlan,
            sys::RTE_FLOW_ITEM_TYPE_IPV4 => Self::ipv4,
            sys::RTE_FLOW_ITEM_TYPE_IPV6 => Self::ipv6,
            _ => Self::transport,
        };
        // SAFETY: what it refers to is as long as the structure of its type, by the caller's word.
        unsafe { read(self, item) }
    }

    unsafe fn eth(&mut self, item: &rte_flow_item) -> Result<(), FlowError> {
        // What is behind are reserved bits.
        const USED: usize = offset_of!(rte_flow_item_eth, flags) + 1;
        // SAFETY: by the caller's word.
        let mut header = unsafe { Header::<USED>::of(item, usual(0..12)) }?;
        self.pattern.dst_mac = header.mac(0);
        self.pattern.src_mac = header.mac(6);
        self.ether_type = header.be16(12);
        self.has_vlan = header.bit(offset_of!(rte_flow_item_eth, flags));
        self.eth = Cause(item);
        if matches!(self.ether_type.mask(), 0 | u16::MAX) {
            return Ok(());
        }
        Err(header.refuse(c"a type is matched as a whole or not at all"))
    }

    unsafe fn vlan(&mut self, item: &rte_flow_item) -> Result<(), FlowError> {
        const USED: usize = offset_of!(rte_flow_item_vlan, flags) + 1;
        // The number of the VLAN.
        // SAFETY: by the caller's word.
        let mut header = unsafe { Header::<USED>::of(item, [0x0f, 0xff, 0, 0, 0]) }?;
        let (tci, inner_type) = (header.be16(0), header.be16(2));
        let has_more = header.bit(offset_of!(rte_flow_item_vlan, flags));
        if !matches!(inner_type.mask(), 0 | u16::MAX) {
            return Err(header.refuse(c"a type is matched as a whole or not at all"));
        }
        self.vlan = Some(Vlan { tci, inner_type, has_more, cause: Cause(item) });
        Ok(())
    }

    unsafe fn ipv4(&mut self, item: &rte_flow_item) -> Result<(), FlowError> {
        // SAFETY: by the caller's word.
        let mut header = unsafe { Header::<20>::of(item, usual(12..20)) }?;
        self.proto = header.proto(9)?;
        let addresses = AddressPattern::V4 { src: header.be32(12), dst: header.be32(16) };
        self.pattern.ip = Some(IpPattern { addresses, transport: TransportPattern::Any });
        header.nothing_else(c"of ipv4, protocol and addresses are matched, and nothing else")
    }

    unsafe fn ipv6(&mut self, item: &rte_flow_item) -> Result<(), FlowError> {
        const USED: usize = offset_of!(rte_flow_item_ipv6, extensions) + 2;
        // SAFETY: by the caller's word.
        let mut header = unsafe { Header::<USED>::of(item, usual(8..40)) }?;
        self.proto = header.proto(6)?;
        let addresses = AddressPattern::V6 { src: header.be128(8), dst: header.be128(24) };
        self.pattern.ip = Some(IpPattern { addresses, transport: TransportPattern::Any });
        header.nothing_else(c"of ipv6, protocol and addresses are matched, and nothing else")
    }

    unsafe fn transport(&mut self, item: &rte_flow_item) -> Result<(), FlowError> {
        let cause = std::ptr::from_ref(item);
        let wrong = |text| Err(FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM, text).of(cause));
        let Some(ip) = &mut self.pattern.ip else { return Ok(()) };
        let is_v4 = matches!(ip.addresses, AddressPattern::V4 { .. });
        let number = match item.type_ {
            sys::RTE_FLOW_ITEM_TYPE_TCP => {
                // SAFETY: by the caller's word.
                let mut header = unsafe { Header::<20>::of(item, usual(0..4)) }?;
                ip.transport = TransportPattern::Tcp(PortsPattern { src: header.be16(0), dst: header.be16(2) });
                header.nothing_else(c"of tcp, the ports are matched, and nothing else")?;
                proto::TCP
            }
            sys::RTE_FLOW_ITEM_TYPE_UDP => {
                // SAFETY: by the caller's word.
                let mut header = unsafe { Header::<8>::of(item, usual(0..4)) }?;
                ip.transport = TransportPattern::Udp(PortsPattern { src: header.be16(0), dst: header.be16(2) });
                header.nothing_else(c"of udp, the ports are matched, and nothing else")?;
                proto::UDP
            }
            kind => {
                let is_icmp = kind == sys::RTE_FLOW_ITEM_TYPE_ICMP;
                if is_icmp != is_v4 {
                    return wrong(c"icmp comes behind ipv4, icmp6 behind ipv6");
                }
                // SAFETY: by the caller's word; the shorter of both.
                let mut header = unsafe { Header::<4>::of(item, usual(0..2)) }?;
                ip.transport = TransportPattern::Icmp { kind: header.byte(0), code: header.byte(1) };
                header.nothing_else(c"of icmp and icmp6, type and code are matched, and nothing else")?;
                if is_icmp {
                    // SAFETY: by the caller's word.
                    let mut header = unsafe { Header::<8>::of(item, [0; 8]) }?;
                    let _taken: [[u8; 4]; 2] = header.take(0);
                    header.nothing_else(c"of icmp and icmp6, type and code are matched, and nothing else")?;
                }
                if is_icmp { proto::ICMP } else { proto::ICMPV6 }
            }
        };
        match self.proto {
            Some(other) if other != number => wrong(c"another protocol than the item of IP says"),
            _ => Ok(()),
        }
    }

    /// The pattern, with what only shows when all items are known.
    fn finish(mut self) -> Result<FlowPattern, FlowError> {
        if let (Some(number), Some(ip)) = (self.proto, &mut self.pattern.ip)
            && ip.transport == TransportPattern::Any
        {
            ip.transport = TransportPattern::Protocol(number);
        }
        match self.vlan.take() {
            Some(vlan) => self.tagged(&vlan)?,
            None => self.untagged()?,
        }
        let wanted = self.pattern.ip.map(|ip| match ip.addresses {
            AddressPattern::V4 { .. } => ethertype::IPV4,
            AddressPattern::V6 { .. } => ethertype::IPV6,
        });
        match (self.pattern.ether_type, wanted) {
            (Some(ether_type), Some(wanted)) if ether_type != wanted => {
                Err(self.conflict(c"a type that is not that of the IP behind it"))
            }
            _ => Ok(self.pattern),
        }
    }

    fn conflict(&self, text: &'static CStr) -> FlowError {
        FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, text).of(self.eth.0)
    }

    /// Without an item for a tag, the type is what stands behind the addresses.
    fn untagged(&mut self) -> Result<(), FlowError> {
        if self.ether_type.mask() == 0 {
            self.pattern.vlan = match self.has_vlan {
                None => VlanPattern::Any,
                Some(false) => VlanPattern::Untagged,
                Some(true) => VlanPattern::Tagged { tci: Masked::default(), customer: false, more: None },
            };
            return Ok(());
        }
        if self.tag_type(self.ether_type.value(), self.eth)? {
            if self.has_vlan == Some(false) {
                return Err(self.conflict(c"the type of a VLAN tag, and no tag"));
            }
            self.pattern.vlan = VlanPattern::Tagged { tci: Masked::default(), customer: true, more: None };
            return Ok(());
        }
        if self.has_vlan == Some(true) {
            return Err(self.conflict(c"a VLAN tag, and the type of something else"));
        }
        self.pattern.vlan = VlanPattern::Untagged;
        self.pattern.ether_type = Some(self.ether_type.value());
        Ok(())
    }

    fn tagged(&mut self, vlan: &Vlan) -> Result<(), FlowError> {
        if self.has_vlan == Some(false) {
            return Err(self.conflict(c"a VLAN tag, and none"));
        }
        let customer = self.ether_type.mask() != 0;
        if customer && !self.tag_type(self.ether_type.value(), self.eth)? {
            return Err(self.conflict(c"a VLAN tag behind another type"));
        }
        let wrong = |text| FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, text).of(vlan.cause.0);
        let mut more = vlan.has_more;
        if vlan.inner_type.mask() != 0 {
            if self.tag_type(vlan.inner_type.value(), vlan.cause)? {
                let text = c"only the type behind all VLAN tags is matched: ask for has_more_vlan";
                return Err(FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, text).of(vlan.cause.0));
            }
            if more == Some(true) {
                return Err(wrong(c"one more VLAN tag, and the type of something else"));
            }
            more = Some(false);
            self.pattern.ether_type = Some(vlan.inner_type.value());
        }
        self.pattern.vlan = VlanPattern::Tagged { tci: vlan.tci, customer, more };
        Ok(())
    }

    /// Whether a type is that of a customer's tag. Those of others cannot be told apart, and a length is no type.
    fn tag_type(&self, ether_type: u16, cause: Cause) -> Result<bool, FlowError> {
        let text = match ether_type {
            ethertype::VLAN => return Ok(true),
            ethertype::SERVICE_VLAN | 0x9100 | 0x9200 => {
                c"of VLAN tags, only those of type 0x8100 are told from others: leave the type out"
            }
            LOWEST_TYPE.. => return Ok(false),
            _ => c"a type below 0x0600 is a length, which is not matched",
        };
        Err(FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, text).of(cause.0))
    }
}

#[cfg(test)]
mod tests;

//! A flow rule of a port, as it is sent. The bytes come from the client: what is read is within all limits, and no value
//! has bits that do not count.

use super::{DecodeError, Reader, Writer};
use crate::layout::MAX_QUEUES;
use kopi_packet::{
    AddressPattern, FlowPattern, IpPattern, MacAddr, Masked, PortsPattern, TransportPattern, VlanPattern,
};
use std::ops::BitAnd;
use thiserror::Error;

/// Most flow rules of a port: they have the numbers below.
pub const MAX_FLOW_RULES: u16 = 256;
/// Stands for all of them where rules go.
pub const ALL_FLOW_RULES: u16 = u16::MAX;

/// What becomes of frames for a port. It is applied to frames that the policy has let through, and to no others.
///
/// Of the rules that match a frame, the one with the lowest priority holds, of several such the one with the lowest slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRule {
    /// Its number, 0 to 255.
    pub slot: u16,
    /// Its priority: lower ones come first.
    pub priority: u32,
    /// The frames that it is for.
    pub pattern: FlowPattern,
    /// What becomes of them.
    pub action: FlowAction,
    /// The RX queue that they go to. `None` if that is left to RSS, as it also is if the port does not have that queue.
    pub queue: Option<u16>,
    /// Whether the client wants to know of each frame that this rule has held for it: see
    /// [`Notes::steered`](crate::layout::Notes::steered).
    pub told: bool,
}

/// What a flow rule does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// The daemon drops it.
    Drop,
    /// The client gets it.
    Pass,
}

/// Why something is not a flow rule. The text names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FlowRuleError {
    /// There is no rule with this number.
    #[error("flow rule {0}: a port has rules 0 to 255")]
    Slot(u16),
    /// There is no such queue.
    #[error("flow rule for queue {0}: a port has up to {MAX_QUEUES} queues")]
    Queue(u16),
    /// A choice between kinds of something is none of those that there are.
    #[error("flow rule with an unknown kind {0}")]
    Kind(u8),
}

impl From<FlowRuleError> for DecodeError {
    fn from(error: FlowRuleError) -> Self {
        Self::FlowRule(error)
    }
}

/// No queue.
const RSS: u16 = u16::MAX;

impl Writer {
    pub(super) fn flow_rule(&mut self, rule: &FlowRule) {
        self.u16(rule.slot);
        self.u32(rule.priority);
        self.flag(rule.action == FlowAction::Drop);
        self.u16(rule.queue.unwrap_or(RSS));
        self.flag(rule.told);
        self.pattern(&rule.pattern);
    }

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Value and mask, each as these bytes.
    fn masked<T: Copy + BitAnd<Output = T>, const N: usize>(&mut self, masked: Masked<T>, bytes: fn(T) -> [u8; N]) {
        self.bytes(&bytes(masked.value()));
        self.bytes(&bytes(masked.mask()));
    }

    fn pattern(&mut self, pattern: &FlowPattern) {
        self.masked(pattern.dst_mac, MacAddr::bytes);
        self.masked(pattern.src_mac, MacAddr::bytes);
        self.flag(pattern.ether_type.is_some());
        self.u16(pattern.ether_type.unwrap_or(0));
        match pattern.vlan {
            VlanPattern::Any => self.u8(0),
            VlanPattern::Untagged => self.u8(1),
            VlanPattern::Tagged { tci, customer, more } => {
                self.u8(match more {
                    None => 2,
                    Some(false) => 3,
                    Some(true) => 4,
                });
                self.flag(customer);
                self.masked(tci, u16::to_le_bytes);
            }
        }
        let Some(ip) = &pattern.ip else { return self.u8(0) };
        match ip.addresses {
            AddressPattern::V4 { src, dst } => {
                self.u8(4);
                self.masked(src, u32::to_le_bytes);
                self.masked(dst, u32::to_le_bytes);
            }
            AddressPattern::V6 { src, dst } => {
                self.u8(6);
                self.masked(src, u128::to_le_bytes);
                self.masked(dst, u128::to_le_bytes);
            }
        }
        match ip.transport {
            TransportPattern::Any => self.u8(0),
            TransportPattern::Protocol(proto) => {
                self.u8(1);
                self.u8(proto);
            }
            TransportPattern::Tcp(ports) => {
                self.u8(2);
                self.ports(ports);
            }
            TransportPattern::Udp(ports) => {
                self.u8(3);
                self.ports(ports);
            }
            TransportPattern::Icmp { kind, code } => {
                self.u8(4);
                self.masked(kind, u8::to_le_bytes);
                self.masked(code, u8::to_le_bytes);
            }
        }
    }

    fn ports(&mut self, ports: PortsPattern) {
        self.masked(ports.src, u16::to_le_bytes);
        self.masked(ports.dst, u16::to_le_bytes);
    }
}

impl Reader<'_> {
    pub(super) fn flow_rule(&mut self) -> Result<FlowRule, DecodeError> {
        let slot = self.u16()?;
        if slot >= MAX_FLOW_RULES {
            return Err(FlowRuleError::Slot(slot).into());
        }
        let priority = self.u32()?;
        let action = if self.flag()? { FlowAction::Drop } else { FlowAction::Pass };
        let queue = match self.u16()? {
            RSS => None,
            queue if usize::from(queue) < MAX_QUEUES => Some(queue),
            other => return Err(FlowRuleError::Queue(other).into()),
        };
        Ok(FlowRule { slot, priority, action, queue, told: self.flag()?, pattern: self.pattern()? })
    }

    /// The number of a rule, or [`ALL_FLOW_RULES`].
    pub(super) fn flow_rule_gone(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            slot if slot < MAX_FLOW_RULES || slot == ALL_FLOW_RULES => Ok(slot),
            other => Err(FlowRuleError::Slot(other).into()),
        }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(|[byte]| byte)
    }

    fn masked<T: Copy + BitAnd<Output = T>, const N: usize>(
        &mut self,
        of: fn([u8; N]) -> T,
    ) -> Result<Masked<T>, DecodeError> {
        Ok(Masked::new(of(self.take()?), of(self.take()?)))
    }

    fn pattern(&mut self) -> Result<FlowPattern, DecodeError> {
        Ok(FlowPattern {
            dst_mac: self.masked(MacAddr::new)?,
            src_mac: self.masked(MacAddr::new)?,
            ether_type: self.ether_type()?,
            vlan: self.vlan()?,
            ip: self.ip()?,
        })
    }

    fn ether_type(&mut self) -> Result<Option<u16>, DecodeError> {
        let (wanted, ether_type) = (self.flag()?, self.u16()?);
        Ok(wanted.then_some(ether_type))
    }

    fn vlan(&mut self) -> Result<VlanPattern, DecodeError> {
        let more = match self.u8()? {
            0 => return Ok(VlanPattern::Any),
            1 => return Ok(VlanPattern::Untagged),
            2 => None,
            3 => Some(false),
            4 => Some(true),
            other => return Err(FlowRuleError::Kind(other).into()),
        };
        Ok(VlanPattern::Tagged { customer: self.flag()?, tci: self.masked(u16::from_le_bytes)?, more })
    }

    fn ip(&mut self) -> Result<Option<IpPattern>, DecodeError> {
        let addresses = match self.u8()? {
            0 => return Ok(None),
            4 => AddressPattern::V4 { src: self.masked(u32::from_le_bytes)?, dst: self.masked(u32::from_le_bytes)? },
            6 => AddressPattern::V6 { src: self.masked(u128::from_le_bytes)?, dst: self.masked(u128::from_le_bytes)? },
            other => return Err(FlowRuleError::Kind(other).into()),
        };
        let transport = match self.u8()? {
            0 => TransportPattern::Any,
            1 => TransportPattern::Protocol(self.u8()?),
            2 => TransportPattern::Tcp(self.ports()?),
            3 => TransportPattern::Udp(self.ports()?),
            4 => {
                TransportPattern::Icmp { kind: self.masked(u8::from_le_bytes)?, code: self.masked(u8::from_le_bytes)? }
            }
            other => return Err(FlowRuleError::Kind(other).into()),
        };
        Ok(Some(IpPattern { addresses, transport }))
    }

    fn ports(&mut self) -> Result<PortsPattern, DecodeError> {
        Ok(PortsPattern { src: self.masked(u16::from_le_bytes)?, dst: self.masked(u16::from_le_bytes)? })
    }
}

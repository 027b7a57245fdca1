//! The flow rules of one app (`rte_flow`): which of the frames that it gets go to which queue, or nowhere.
//!
//! They are applied once a flow, to what the policy has let through, and never let anything through by themselves.

use crate::rss::Rss;
use kopi_packet::{CompiledPattern, FlowKey};
use kopi_ring::DropReason;
use kopi_ring::layout::Notes;
use kopi_ring::message::{FlowAction, FlowRule};

/// The rules of one port, in the order in which they are looked at. Immutable: a change replaces them.
#[derive(Clone, Debug)]
pub struct FlowRules(Box<[CompiledRule]>);

/// One rule.
#[derive(Clone, Copy, Debug)]
struct CompiledRule {
    pattern: CompiledPattern,
    drops: bool,
    /// The queue; `None` if that is left to RSS.
    queue: Option<u8>,
    /// What the client knows it by, or [`Notes::NOT_TOLD`].
    slot: u16,
}

impl FlowRules {
    /// The rules of a port with `queues` RX queues.
    #[must_use]
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a FlowRule>, queues: usize) -> Self {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by_key(|rule| (rule.priority, rule.slot));
        let compile = |rule: &FlowRule| CompiledRule {
            pattern: rule.pattern.compile(),
            drops: rule.action == FlowAction::Drop,
            queue: rule.queue.and_then(|queue| u8::try_from(queue).ok()).filter(|queue| usize::from(*queue) < queues),
            slot: if rule.told { rule.slot } else { Notes::NOT_TOLD },
        };
        Self(rules.into_iter().map(compile).collect())
    }

    /// What the app is told of a frame, by the first rule that matches it. `notes` are those without rules, by `rss`.
    ///
    /// # Errors
    ///
    /// Why it does not get the frame.
    pub fn apply(&self, key: &FlowKey, notes: Notes, rss: &Rss) -> Result<Notes, DropReason> {
        match self.0.iter().find(|rule| rule.pattern.matches(key)) {
            Some(rule) if rule.drops => Err(DropReason::FlowRule),
            Some(CompiledRule { queue: None, slot: Notes::NOT_TOLD, .. }) | None => Ok(notes),
            Some(rule) => {
                let queue = rule.queue.unwrap_or_else(|| rss.queue(notes.hash()));
                Ok(Notes::steered(u16::try_from(notes.packet_type()).unwrap_or(0), rule.slot, queue))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::{
        AddressPattern, FlowPattern, IpPattern, Masked, PortsPattern, RssTypes, Toeplitz, TransportPattern, describe,
        parse,
    };
    use kopi_ring::message::RETA_SIZE;
    use std::sync::Arc;

    fn key(text: &str) -> FlowKey {
        parse(&describe::frame_of(text).unwrap(), 0).1
    }

    /// UDP over IPv4 to this port.
    fn udp_to(port: u16) -> FlowPattern {
        let ports = PortsPattern { src: Masked::default(), dst: Masked::new(port, 0xffff) };
        let addresses = AddressPattern::V4 { src: Masked::default(), dst: Masked::default() };
        FlowPattern {
            ip: Some(IpPattern { addresses, transport: TransportPattern::Udp(ports) }),
            ..FlowPattern::default()
        }
    }

    /// A rule for everything, that does nothing.
    fn rule() -> FlowRule {
        let pattern = FlowPattern::default();
        FlowRule { slot: 0, priority: 0, pattern, action: FlowAction::Pass, queue: None, told: false }
    }

    fn rss() -> Rss {
        let toeplitz = Arc::new(Toeplitz::new([3; 40]));
        Rss::chosen(Arc::clone(&toeplitz), RssTypes::ALL, [2; RETA_SIZE], &toeplitz)
    }

    /// The rule with the lowest priority holds, then the lowest number; without one all is as it was.
    #[test]
    fn first_rule_holds() {
        let rules = [
            FlowRule { slot: 9, priority: 1, pattern: udp_to(53), queue: Some(1), ..rule() },
            FlowRule { slot: 3, priority: 7, pattern: udp_to(53), action: FlowAction::Drop, ..rule() },
            FlowRule { slot: 4, priority: 7, pattern: udp_to(80), queue: Some(3), told: true, ..rule() },
            FlowRule { slot: 5, priority: 7, pattern: udp_to(80), action: FlowAction::Drop, ..rule() },
            FlowRule { slot: 6, priority: 0, pattern: udp_to(99), action: FlowAction::Drop, ..rule() },
        ];
        let (rules, rss, plain) = (FlowRules::new(&rules, 4), rss(), Notes::new(0x211, 77));
        let of = |port| rules.apply(&key(&format!("udp 10.0.0.1:1 > 10.0.0.2:{port}")), plain, &rss);
        assert_eq!(of(53), Ok(Notes::steered(0x211, Notes::NOT_TOLD, 1)));
        assert_eq!(of(80), Ok(Notes::steered(0x211, 4, 3)));
        assert_eq!(of(99), Err(DropReason::FlowRule));
        assert_eq!(of(54), Ok(plain));
    }

    /// Where a rule names no queue, or one that the port has not, RSS chooses; and if nobody is to be told, nothing is different.
    #[test]
    fn rss_chooses_what_rules_do_not() {
        let (rss, plain, key) = (rss(), Notes::new(0x211, 77), key("udp 10.0.0.1:1 > 10.0.0.2:53"));
        let with = |queue, told, queues| {
            FlowRules::new(&[FlowRule { slot: 255, queue, told, ..rule() }], queues).apply(&key, plain, &rss)
        };
        assert_eq!(with(None, false, 4), Ok(plain));
        assert_eq!(with(None, true, 4), Ok(Notes::steered(0x211, 255, 2)));
        assert_eq!(with(Some(4), true, 4), Ok(Notes::steered(0x211, 255, 2)));
        assert_eq!(with(Some(4), false, 4), Ok(plain));
        assert_eq!(with(Some(4), false, 5), Ok(Notes::steered(0x211, Notes::NOT_TOLD, 4)));
    }
}

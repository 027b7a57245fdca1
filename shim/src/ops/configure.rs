//! Configuration: what a port cannot do is refused, or at least warned of.

use crate::device::Requested;
use crate::errno::code;
use crate::limits::RSS_TYPES;
use crate::log::{error, warning};
use crate::port::Port;
use crate::rss::RssChoice;
use crate::sys;
use std::ffi::c_int;

impl Requested {
    /// Returns how frames are to be spread over RX queues, and warnings about what will be different from the request.
    ///
    /// # Errors
    ///
    /// What the port cannot do.
    fn check(self) -> Result<(RssChoice, Vec<String>), String> {
        let rss = self.rx_mode == sys::RTE_ETH_MQ_RX_RSS;
        if !rss && self.rx_mode != sys::RTE_ETH_MQ_RX_NONE || self.tx_mode != sys::RTE_ETH_MQ_TX_NONE {
            return Err("queues can be chosen by RSS alone, not by DCB or VMDq".into());
        }
        if self.loopback {
            return Err("the port has no loopback mode".into());
        }
        let mut warnings = Vec::new();
        let choice = if rss {
            let key = self.rss_key.map_err(|problem| problem.to_string())?;
            RssChoice { key, types: self.rss_types & RSS_TYPES, reta: None }
        } else {
            RssChoice::default()
        };
        if self.rx_queues > 1 && !rss {
            warnings.push(format!(
                "frames are spread over the {} RX queues by addresses, protocol and ports, though not asked for (mq_mode)",
                self.rx_queues
            ));
        }
        if self.rx_queues > 1 && choice.types == 0 {
            warnings.push("all frames come to RX queue 0: no packets are to be hashed (rss_hf 0)".into());
        }
        if self.fixed_speed {
            warnings.push("the speed of the link is that of the wire, not the one asked for (link_speeds)".into());
        }
        Ok((choice, warnings))
    }
}

/// Refuses the configuration of `port`, or keeps it and warns of what will be different. Returns 0 or an error for ethdev.
pub(super) fn check(port: &Port) -> c_int {
    match port.device.requested().check() {
        Ok((choice, warnings)) => {
            warnings.iter().for_each(|text| warning!("port {}: {text}", port.device.port()));
            super::change(port, libc::EIO, |want| want.rss = choice)
        }
        Err(text) => {
            error!("port {}: {text}", port.device.port());
            code(libc::EINVAL)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::RssProblem;

    const PLAIN: Requested = Requested {
        rx_queues: 4,
        rx_mode: sys::RTE_ETH_MQ_RX_RSS,
        tx_mode: sys::RTE_ETH_MQ_TX_NONE,
        rss_key: Ok(None),
        rss_types: RSS_TYPES,
        loopback: false,
        fixed_speed: false,
    };

    /// Nothing that an application asks for in vain goes by without a word, and nothing that makes no difference is refused.
    #[test]
    fn what_cannot_be_is_refused_or_said() {
        assert_eq!(PLAIN.check(), Ok((RssChoice::default(), Vec::new())));
        let one = Requested { rx_queues: 1, rss_types: 0, ..PLAIN };
        assert_eq!(one.check(), Ok((RssChoice { types: 0, ..RssChoice::default() }, Vec::new())));
        let none =
            Requested { rx_mode: sys::RTE_ETH_MQ_RX_NONE, rss_key: Err(RssProblem::Key(5)), rss_types: 0, ..PLAIN };
        let refused = [
            (Requested { rss_key: Err(RssProblem::Key(52)), ..PLAIN }, "a key of 52 bytes"),
            (Requested { rss_key: Err(RssProblem::Algorithm), ..PLAIN }, "Toeplitz"),
            (Requested { rx_mode: sys::RTE_ETH_MQ_RX_DCB_RSS, ..PLAIN }, "DCB"),
            (Requested { rx_mode: sys::RTE_ETH_MQ_RX_VMDQ_ONLY, ..PLAIN }, "VMDq"),
            (Requested { tx_mode: sys::RTE_ETH_MQ_TX_DCB, ..PLAIN }, "DCB"),
            (Requested { loopback: true, ..PLAIN }, "loopback"),
        ];
        for (asked, text) in refused {
            assert!(asked.check().unwrap_err().contains(text), "{asked:?}");
        }
        let said = [
            (Requested { rss_types: 0, ..PLAIN }, "rss_hf 0"),
            (none, "mq_mode"),
            (Requested { fixed_speed: true, ..PLAIN }, "speed"),
        ];
        for (asked, text) in said {
            let (_, warnings) = asked.check().unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains(text), "{asked:?}: {warnings:?}");
        }
        assert_eq!(none.check().unwrap().0, RssChoice::default(), "what RSS would be is of no interest without it");
    }

    /// A key and types are kept as they are.
    #[test]
    fn keys_are_kept() {
        let asked = Requested { rss_key: Ok(Some([7; 40])), rss_types: sys::RTE_ETH_RSS_TCP, ..PLAIN };
        let expected = RssChoice { key: Some([7; 40]), types: sys::RTE_ETH_RSS_TCP, reta: None };
        assert_eq!(asked.check(), Ok((expected, Vec::new())));
    }
}

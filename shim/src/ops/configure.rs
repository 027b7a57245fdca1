//! Configuration: what a port cannot do is refused, or at least warned of.

use crate::device::{Device, Requested};
use crate::errno::code;
use crate::limits::RSS_TYPES;
use crate::log::{error, warning};
use crate::sys;
use std::ffi::c_int;

impl Requested {
    /// Returns warnings about what will be different from the request.
    ///
    /// # Errors
    ///
    /// What the port cannot do.
    fn check(self) -> Result<Vec<String>, &'static str> {
        let rss = self.rx_mode == sys::RTE_ETH_MQ_RX_RSS;
        if !rss && self.rx_mode != sys::RTE_ETH_MQ_RX_NONE || self.tx_mode != sys::RTE_ETH_MQ_TX_NONE {
            return Err("queues can be chosen by RSS alone, not by DCB or VMDq");
        }
        if self.loopback {
            return Err("the port has no loopback mode");
        }
        let mut warnings = Vec::new();
        if rss && self.rss_key {
            if self.rx_queues > 1 || self.hash {
                return Err("the key of the RSS hash cannot be set: leave rss_key null");
            }
            warnings.push("the key of the RSS hash is not used: it cannot be set".into());
        }
        let types = if rss { self.rss_types } else { 0 };
        if self.rx_queues > 1 && types != RSS_TYPES {
            warnings.push(format!(
                "frames are spread over the {} RX queues by addresses, protocol and ports, and not only as asked (rss_hf {types:#x})",
                self.rx_queues
            ));
        }
        if self.fixed_speed {
            warnings.push("the speed of the link is that of the wire, not the one asked for (link_speeds)".into());
        }
        Ok(warnings)
    }
}

/// Refuses the configuration of `device`, or warns of what will be different. Returns 0 or an error for ethdev.
pub(super) fn check(device: Device) -> c_int {
    match device.requested().check() {
        Ok(warnings) => {
            warnings.iter().for_each(|text| warning!("port {}: {text}", device.port()));
            0
        }
        Err(text) => {
            error!("port {}: {text}", device.port());
            code(libc::EINVAL)
        }
    }
}

/// Fills in the fields that the RSS hash covers. There is no key to report.
pub(super) unsafe extern "C" fn rss_hash_conf_get(
    _dev: *mut sys::rte_eth_dev,
    conf: *mut sys::rte_eth_rss_conf,
) -> c_int {
    // SAFETY: from ethdev.
    let Some(conf) = (unsafe { conf.as_mut() }) else { return code(libc::EINVAL) };
    conf.rss_hf = RSS_TYPES;
    conf.rss_key_len = 0;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Requested = Requested {
        rx_queues: 4,
        rx_mode: sys::RTE_ETH_MQ_RX_RSS,
        tx_mode: sys::RTE_ETH_MQ_TX_NONE,
        rss_key: false,
        rss_types: RSS_TYPES,
        hash: true,
        loopback: false,
        fixed_speed: false,
    };

    /// Nothing that an application asks for in vain goes by without a word, and nothing that makes no difference is refused.
    #[test]
    fn what_cannot_be_is_refused_or_said() {
        assert_eq!(PLAIN.check(), Ok(Vec::new()));
        let one = Requested { rx_queues: 1, hash: false, rss_types: 0, ..PLAIN };
        assert_eq!(one.check(), Ok(Vec::new()));
        let keyed = Requested { rss_key: true, ..one };
        let none = Requested { rx_mode: sys::RTE_ETH_MQ_RX_NONE, rss_key: true, ..PLAIN };
        let refused = [
            (Requested { rss_key: true, ..PLAIN }, "key"),
            (Requested { rss_key: true, hash: false, ..PLAIN }, "key"),
            (Requested { hash: true, ..keyed }, "key"),
            (Requested { rx_mode: sys::RTE_ETH_MQ_RX_DCB_RSS, ..PLAIN }, "DCB"),
            (Requested { rx_mode: sys::RTE_ETH_MQ_RX_VMDQ_ONLY, ..PLAIN }, "VMDq"),
            (Requested { tx_mode: sys::RTE_ETH_MQ_TX_DCB, ..PLAIN }, "DCB"),
            (Requested { loopback: true, ..PLAIN }, "loopback"),
        ];
        for (asked, text) in refused {
            assert!(asked.check().unwrap_err().contains(text), "{asked:?}");
        }
        let said = [
            (Requested { rss_types: sys::RTE_ETH_RSS_IP, ..PLAIN }, "rss_hf"),
            (none, "rss_hf 0x0"),
            (keyed, "key"),
            (Requested { fixed_speed: true, ..PLAIN }, "speed"),
        ];
        for (asked, text) in said {
            let warnings = asked.check().unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains(text), "{asked:?}: {warnings:?}");
        }
    }
}

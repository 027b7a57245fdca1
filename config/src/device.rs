//! The wire's device.

use std::fmt;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::value::{Fault, Form};

/// The device that becomes the wire, with its arguments, as EAL takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Device {
    /// A PCI device, for EAL's `-a`: `0000:3b:00.0` or `3b:00.0,key=value`.
    Pci(String),
    /// A virtual device, for EAL's `--vdev`: `net_af_packet0,iface=eth1`.
    Virtual(String),
}

impl Device {
    /// Most bytes of a device with its arguments.
    const LEN_MAX: usize = 1024;
    /// Most bytes of a device's name: `RTE_ETH_NAME_MAX_LEN` of DPDK, without the NUL.
    const NAME_MAX: usize = 63;

    /// The device and its arguments, as they are written.
    #[must_use]
    pub fn devargs(&self) -> &str {
        match self {
            Self::Pci(devargs) | Self::Virtual(devargs) => devargs,
        }
    }

    /// The device without its arguments, as ethdev names the port of a virtual device.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(self.devargs())
    }

    fn parse(devargs: &str) -> Option<Self> {
        let name = name_of(devargs);
        let driver = name.strip_prefix("net_").or_else(|| name.strip_prefix("eth_"));
        if is_pci(name) {
            Some(Self::Pci(devargs.to_owned()))
        } else if driver.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_word)) {
            Some(Self::Virtual(devargs.to_owned()))
        } else {
            None
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.devargs())
    }
}

fn name_of(devargs: &str) -> &str {
    devargs.split_once(',').map_or(devargs, |(name, _)| name)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Whether `name` is `[domain:]bus:device.function`, each in hexadecimal.
fn is_pci(name: &str) -> bool {
    let hex = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts: Vec<_> = name.split(':').collect();
    let (domain, bus, rest) = match parts[..] {
        [bus, rest] => ("0000", bus, rest),
        [domain, bus, rest] => (domain, bus, rest),
        _ => return false,
    };
    let Some((device, function)) = rest.split_once('.') else { return false };
    hex(domain, 4, 8) && hex(bus, 2, 2) && hex(device, 2, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

impl Form for Device {
    type Value = Self;

    fn expected() -> String {
        "a PCI address (\"0000:3b:00.0\") or a virtual device (\"net_af_packet0,iface=eth1\")".to_owned()
    }

    fn schema() -> Json {
        json!({
            "type": "string",
            "maxLength": Self::LEN_MAX,
            "pattern": r"^(([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]|(net|eth)_[0-9A-Za-z_.-]+)(,.*)?$",
        })
    }

    fn text(text: &str) -> Result<Self, Fault> {
        // EAL would take a blank as part of a value: never meant, and hard to see.
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(Fault::new("must not contain blanks or control characters", None));
        }
        if text.len() > Self::LEN_MAX {
            return Err(Fault::new(format!("must have at most {} bytes, found {}", Self::LEN_MAX, text.len()), None));
        }
        match Self::parse(text) {
            Some(device) if device.name().len() <= Self::NAME_MAX => Ok(device),
            Some(_) => Err(Fault::new(format!("must have a name of at most {} bytes", Self::NAME_MAX), None)),
            None => {
                let interface = !text.is_empty() && text.len() <= 15 && text.bytes().all(is_word);
                Err(Fault::unexpected(interface.then(|| {
                    format!("for the kernel's interface {text}, write \"net_af_xdp0,iface={text}\" or \"net_af_packet0,iface={text}\"")
                })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two buses are told apart, and what is neither is refused.
    #[test]
    fn devices_are_told_apart() {
        for text in ["0000:3b:00.0", "3b:00.7", "00010000:AF:1f.1,representor=[0-3]"] {
            assert_eq!(Device::parse(text), Some(Device::Pci(text.to_owned())));
        }
        for text in ["net_af_packet0,iface=eth1", "net_null0", "eth_ring1,nodeaction=r1:0:CREATE"] {
            assert_eq!(Device::parse(text), Some(Device::Virtual(text.to_owned())));
        }
        for text in
            ["", "eth1", "net_", "net_a/b", "crypto_null0", "3b:00", "3b:00.8", "0:3b:00.0", ":3b:00.0", "3b:0g.0"]
        {
            assert_eq!(Device::parse(text), None, "{text}");
        }
        assert_eq!(Device::Virtual("net_null0,size=64".to_owned()).name(), "net_null0");
    }
}

//! Ethernet addresses.

use std::ops::RangeInclusive;

use kopi_packet::MacAddr;
use serde_json::Value as Json;

use super::field::Field;
use super::values::{Part, Ranges};
use crate::value::{Fault, Form, pattern};

/// MAC addresses, and ranges of them with a hyphen between.
pub(super) struct MacRange;

fn parse(text: &str) -> Result<MacAddr, Fault> {
    text.trim().parse().map_err(|error: kopi_packet::ParseMacError| Fault::hint(error.to_string()))
}

impl Form for MacRange {
    type Value = Part<u64>;

    fn expected() -> String {
        "an Ethernet address such as \"02:00:00:00:00:01\", or a range of two with a hyphen between".to_owned()
    }

    fn schema() -> Json {
        let address = "[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}";
        pattern(&format!("^{address}(-{address})?$"))
    }

    fn text(text: &str) -> Result<Part<u64>, Fault> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = parse(first)?.to_u64()..=parse(last)?.to_u64();
        if range.is_empty() { Err(Fault::hint("the smaller address comes first")) } else { Ok(Part::Range(range)) }
    }
}

impl Ranges for MacRange {
    type Of = u64;
    const MAX: u64 = (1 << 48) - 1;

    fn write(field: &Field<u64>) -> Vec<String> {
        let address = |number: &u64| MacAddr::from_u64(*number);
        let range = |range: &RangeInclusive<u64>| match (address(range.start()), address(range.end())) {
            (first, last) if first == last => format!("\"{first}\""),
            (first, last) => format!("\"{first}-{last}\""),
        };
        field.ranges().iter().map(range).collect()
    }
}

/// The address of one station.
pub(crate) struct Station;

impl Form for Station {
    type Value = MacAddr;

    fn expected() -> String {
        "the Ethernet address of one station, such as \"02:00:00:00:00:01\"".to_owned()
    }

    fn schema() -> Json {
        pattern("^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")
    }

    fn text(text: &str) -> Result<MacAddr, Fault> {
        match parse(text)? {
            mac if mac.is_zero() => Err(Fault::hint("no station has the address zero")),
            mac if mac.is_multicast() => Err(Fault::hint("an odd first byte addresses a group of stations")),
            mac => Ok(mac),
        }
    }
}

//! Ethernet addresses.

use std::ops::RangeInclusive;

use kopi_packet::MacAddr;
use serde_json::{Value as Json, json};

use super::field::Field;
use super::values::{Part, Values, field};
use crate::value::{Fault, Form, Raw};

/// MAC addresses, and ranges of them with a hyphen between.
#[derive(Debug)]
pub(super) struct MacRange;

impl MacRange {
    const MAX: u64 = (1 << 48) - 1;

    /// Reads `02:00:00:00:00:01`.
    fn address(text: &str) -> Result<u64, Fault> {
        text.trim().parse::<MacAddr>().map(MacAddr::to_u64).map_err(|error| Fault::hint(error.to_string()))
    }
}

impl Form for MacRange {
    type Value = Part<u64>;

    fn expected() -> String {
        "an Ethernet address such as \"02:00:00:00:00:01\", or a range of two with a hyphen between".to_owned()
    }

    fn schema() -> Json {
        let address = "[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}";
        json!({ "type": "string", "pattern": format!("^{address}(-{address})?$") })
    }

    fn read(raw: Raw<'_>) -> Result<Part<u64>, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self::address(first)?..=Self::address(last)?;
        if range.is_empty() { Err(Fault::hint("the smaller address comes first")) } else { Ok(Part::Range(range)) }
    }
}

impl Values for MacRange {
    type Union = Field<u64>;

    fn universe() -> Field<u64> {
        Field::new([0..=Self::MAX])
    }

    fn union(parts: Vec<Part<u64>>, sets: &[&Field<u64>]) -> Field<u64> {
        field(parts, sets)
    }

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
#[derive(Debug)]
pub(crate) struct Station;

impl Form for Station {
    type Value = MacAddr;

    fn expected() -> String {
        "the Ethernet address of one station, such as \"02:00:00:00:00:01\"".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$" })
    }

    fn read(raw: Raw<'_>) -> Result<MacAddr, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        match text.parse::<MacAddr>() {
            Ok(mac) if mac.is_zero() => Err(Fault::hint("no station has the address zero")),
            Ok(mac) if mac.is_multicast() => Err(Fault::hint("an odd first byte addresses a group of stations")),
            Ok(mac) => Ok(mac),
            Err(error) => Err(Fault::hint(error.to_string())),
        }
    }
}

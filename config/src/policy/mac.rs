//! Ethernet addresses.

use std::ops::RangeInclusive;

use kopi_packet::MacAddr;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::field::Field;
use super::values::{Part, Values, field};
use crate::walk::{Form, Item};

/// MAC addresses, and ranges of them with a hyphen between.
#[derive(Clone, Copy, Debug)]
pub(super) struct MacForm;

impl MacForm {
    const MAX: u64 = (1 << 48) - 1;

    /// Reads `02:00:00:00:00:01`.
    fn address(text: &str) -> Result<u64, String> {
        text.trim().parse::<MacAddr>().map(MacAddr::to_u64).map_err(|error| error.to_string())
    }
}

impl Form for MacForm {
    type Value = Part<u64>;

    fn expected(&self) -> String {
        "an Ethernet address such as \"02:00:00:00:00:01\", or a range of two with a hyphen between".to_owned()
    }

    fn schema(&self) -> Json {
        let address = "[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}";
        json!({ "type": "string", "pattern": format!("^{address}(-{address})?$") })
    }

    fn read(&self, item: &Item<'_>) -> Option<Part<u64>> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (Self::address(first), Self::address(last)) {
            (Ok(first), Ok(last)) if first <= last => Some(Part::Range(first..=last)),
            (Ok(_), Ok(_)) => item.refuse(self, Some("the smaller address comes first".to_owned())),
            (Err(help), _) | (_, Err(help)) => item.refuse(self, Some(help)),
        }
    }
}

impl Values for MacForm {
    type Union = Field<u64>;

    fn universe(&self) -> Field<u64> {
        Field::new([0..=Self::MAX])
    }

    fn union(&self, parts: Vec<Part<u64>>, sets: &[&Field<u64>]) -> Field<u64> {
        field(parts, sets)
    }

    fn write(&self, field: &Field<u64>) -> Vec<String> {
        let address = |number: &u64| MacAddr::from_u64(*number);
        let range = |range: &RangeInclusive<u64>| match (address(range.start()), address(range.end())) {
            (first, last) if first == last => format!("\"{first}\""),
            (first, last) => format!("\"{first}-{last}\""),
        };
        field.ranges().iter().map(range).collect()
    }
}

/// The address of one station.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StationForm;

impl Form for StationForm {
    type Value = MacAddr;

    fn expected(&self) -> String {
        "the Ethernet address of one station, such as \"02:00:00:00:00:01\"".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<MacAddr> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        match text.parse::<MacAddr>() {
            Ok(mac) if mac.is_zero() => item.refuse(self, Some("no station has the address zero".to_owned())),
            Ok(mac) if mac.is_multicast() => {
                item.refuse(self, Some("an odd first byte addresses a group of stations".to_owned()))
            }
            Ok(mac) => Some(mac),
            Err(error) => item.refuse(self, Some(error.to_string())),
        }
    }
}

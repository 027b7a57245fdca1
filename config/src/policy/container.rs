//! Containers and pods, by id.

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form};

/// Digits of an id that are enough: as many as Docker and Podman show.
const SHORT: usize = 12;
/// Digits of a whole id.
const WHOLE: usize = 64;

/// Which containers or pods: one by its id or by how it begins, or all.
///
/// A unit and a slash before it mean those that are known by what that unit's user says; without, those of the system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Those that `text` stands for: `*`, from 12 to 64 hexadecimal digits, or the UID of a pod.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (unit, id) = split(text);
        let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_id = (SHORT..=WHOLE).contains(&id.len()) && hex(id);
        let is_uid = id.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && id.split('-').all(hex);
        let is_unit = |unit: &str| !unit.is_empty() && !unit.contains('/') && !unit.contains(char::is_control);
        ((id == "*" || is_id || is_uid) && unit.is_none_or(is_unit)).then(|| Self(text.to_owned()))
    }

    /// Whether the container or pod `id` is one of them. An empty one is none.
    #[must_use]
    pub fn matches(&self, id: &str) -> bool {
        let ((unit, begin), (unit_of, id)) = (split(&self.0), split(id));
        unit == unit_of && !id.is_empty() && (begin == "*" || id.starts_with(begin))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The unit before an id, if there is one.
fn split(text: &str) -> (Option<&str>, &str) {
    text.rsplit_once('/').map_or((None, text), |(unit, id)| (Some(unit), id))
}

impl Form for ContainerId {
    type Value = Self;

    fn expected() -> String {
        format!("the id of a container or pod, {SHORT} to {WHOLE} digits of it, or \"*\"")
    }

    fn schema() -> Json {
        let uid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}";
        json!({ "type": "string", "pattern": format!("^([^/]+/)?([*]|[0-9a-f]{{{SHORT},{WHOLE}}}|{uid})$") })
    }

    fn text(text: &str) -> Result<Self, Fault> {
        let short = || {
            let (_, id) = split(text);
            let hint = if id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                if id.len() < SHORT {
                    "that is too short to mean one container"
                } else {
                    "the digits are 0 to 9 and a to f"
                }
            } else {
                "names can be given to another container at any time; `kopictl apps --wide` shows ids"
            };
            Fault::hint(hint)
        };
        Self::new(text).ok_or_else(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id is meant by its first digits, from twelve on, and never that of another unit's.
    #[test]
    fn ids_match_by_their_beginning() {
        let id = "3f2a0c1b2d3e".repeat(5) + "3f2a";
        let uid = "2c48913c-b29f-11e7-9350-020968147796";
        let matches = |text: &str, id: &str| ContainerId::new(text).unwrap().matches(id);
        let of_user = format!("user-7/{id}");
        assert!(matches(&id, &id) && matches(&id[..12], &id) && matches("*", &id) && matches(uid, uid));
        assert!(matches(&of_user, &of_user) && matches(&of_user[..19], &of_user) && matches("user-7/*", &of_user));
        assert!(!matches(&id, &of_user) && !matches("*", &of_user) && !matches(&of_user, &id));
        assert!(!matches("user-8/*", &of_user) && !matches("user-7/*", &id) && !matches(&id[1..], &id));
        assert!(!matches("*", "") && !matches("user-7/*", "user-7/") && !matches(&uid.replace('2', "3"), uid));
        for bad in
            ["", "web", &id[..11], &(id.clone() + "0"), "3F2A0C1B2D3E", "/*", "a/b/*", "user-7/", &uid[1..], "3f2a*"]
        {
            assert_eq!(ContainerId::new(bad), None, "{bad}");
        }
    }
}

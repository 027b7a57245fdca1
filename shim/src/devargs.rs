//! What a user may say after `--vdev net_kopi0`.

use kopi_ring::layout::MAX_QUEUES;
use kopi_ring::message::{MAX_NAME, Mac};
use std::path::PathBuf;

/// The daemon's socket, unless another is named.
pub(crate) const DEFAULT_SOCKET: &str = "/run/kopi/kopi.sock";
/// Longest path that fits into a Unix socket's address with its terminating zero.
const MAX_PATH: usize = 107;

/// The device arguments of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// The daemon's socket.
    pub(crate) socket: PathBuf,
    /// The name to attach under, or empty for the daemon's choice.
    pub(crate) name: String,
    /// Most queues in each direction.
    pub(crate) queues: u16,
    /// The MAC address, or `None` for the daemon's choice.
    pub(crate) mac: Option<Mac>,
}

impl Default for Args {
    fn default() -> Self {
        let queues = u16::try_from(MAX_QUEUES).unwrap_or(1);
        Self { socket: DEFAULT_SOCKET.into(), name: String::new(), queues, mac: None }
    }
}

impl Args {
    /// Reads what stands behind the device's name: `key=value,key=value`.
    ///
    /// # Errors
    ///
    /// A text for the user, which names the key, at the first pair that makes no sense.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut args = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) {
                return Err(format!("`{key}` is given twice"));
            }
            seen.push(key);
            match key {
                "socket" | "name" | "queues" | "mac" if value.is_empty() => {
                    return Err(format!("`{key}` needs a value: {key}=…"));
                }
                "socket" => args.socket = socket(value)?,
                "name" => args.name = name(value)?,
                "queues" => args.queues = queues(value)?,
                "mac" => args.mac = Some(mac(value)?),
                _ => return Err(format!("unknown key `{key}`; the keys are socket, name, queues and mac")),
            }
        }
        Ok(args)
    }
}

fn socket(value: &str) -> Result<PathBuf, String> {
    match value.len() {
        0..=MAX_PATH => Ok(value.into()),
        len => Err(format!("socket: the path is {len} bytes long, a socket's path may have {MAX_PATH}")),
    }
}

fn name(value: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if value.len() <= MAX_NAME && value.chars().all(allowed) {
        return Ok(value.into());
    }
    Err(format!("name: `{value}` is not 1 to {MAX_NAME} letters, digits, dots, dashes or underscores"))
}

fn queues(value: &str) -> Result<u16, String> {
    let queues = value.parse().ok().filter(|queues| (1..=MAX_QUEUES).contains(&usize::from(*queues)));
    queues.ok_or_else(|| format!("queues: `{value}` is not a number from 1 to {MAX_QUEUES}"))
}

fn mac(value: &str) -> Result<Mac, String> {
    unicast(value).ok_or_else(|| format!("mac: `{value}` is not a unicast MAC address of the form 02:00:00:00:00:01"))
}

fn unicast(value: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut parts = value.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() <= 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let [first, ..] = mac;
    (parts.next().is_none() && first & 1 == 0 && mac != Mac::default()).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<Args, String> {
        Args::parse(&format!("{key}={value}"))
    }

    /// Every key is understood, and what is left out has its default.
    #[test]
    fn keys_are_understood() {
        assert_eq!(Args::parse(""), Ok(Args::default()));
        let expected =
            Args { socket: "/a/b".into(), name: "db-1.x_y".into(), queues: 3, mac: Some([2, 10, 11, 0, 0, 1]) };
        assert_eq!(Args::parse("socket=/a/b,name=db-1.x_y,queues=3,mac=2:a:0b:0:0:1"), Ok(expected));
        assert_eq!(one("socket", "/a=b").map(|args| args.socket), Ok("/a=b".into()));
    }

    /// Fault 25: the error names the key, whatever is wrong with it.
    #[test]
    fn errors_name_the_key() {
        let long = "x".repeat(108);
        let name = "n".repeat(33);
        let cases = [
            ("socket", long.as_str()),
            ("name", name.as_str()),
            ("name", "a b"),
            ("queues", "0"),
            ("queues", "17"),
            ("queues", "-1"),
            ("queues", "two"),
            ("mac", "02:00:00:00:00"),
            ("mac", "02:00:00:00:00:01:02"),
            ("mac", "01:00:00:00:00:01"),
            ("mac", "00:00:00:00:00:00"),
            ("mac", "02:00:00:00:00:+1"),
            ("mac", "002:0:0:0:0:1"),
        ];
        for (key, value) in cases {
            assert!(one(key, value).unwrap_err().starts_with(key), "{key}={value}");
        }
        assert!(one("socket", &"x".repeat(107)).is_ok());
        assert!(one("sokcet", "/x").unwrap_err().contains("socket, name, queues and mac"));
        assert_eq!(Args::parse("queues"), Err("`queues` needs a value: queues=…".into()));
        assert_eq!(Args::parse("mac="), Err("`mac` needs a value: mac=…".into()));
        assert_eq!(Args::parse("queues=1,queues=2"), Err("`queues` is given twice".into()));
    }
}

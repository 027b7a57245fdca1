//! Where figures are served over HTTP.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::path::SocketPath;
use crate::value::{Fault, Form, pattern};

/// Where somebody listens: at an address, or at a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Endpoint {
    /// An IP address and a TCP port.
    Address(SocketAddr),
    /// The path of a socket.
    Path(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Form for Endpoint {
    type Value = Self;

    fn expected() -> String {
        format!("an IP address and a port, or {}", SocketPath::expected())
    }

    fn schema() -> Json {
        json!({ "anyOf": [SocketPath::schema(), pattern(r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")] })
    }

    fn text(text: &str) -> Result<Self, Fault> {
        if text.starts_with('/') {
            return SocketPath::text(text).map(Self::Path);
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(Fault::hint("port 0 is none that anybody can be told of")),
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Err(Fault::hint("such as \"127.0.0.1:9469\", \"[::1]:9469\" or \"/run/kopi/metrics.sock\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, Endpoint};

    fn parse(lines: &str) -> Result<Config, String> {
        let text = format!("[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n[metrics]\n{lines}\n");
        Config::parse(text, "kopid.toml").map_err(|errors| errors.to_string())
    }

    /// An address, one of IPv6 and a path are told apart; without any, nobody listens.
    #[test]
    fn metrics_listen_where_the_file_says() {
        assert_eq!(parse("").unwrap().metrics.listen, None);
        for (text, socket) in [("127.0.0.1:9469", false), ("[::1]:9469", false), ("/run/kopi/metrics.sock", true)] {
            let metrics = parse(&format!("listen = \"{text}\"")).unwrap().metrics;
            assert_eq!(matches!(metrics.listen, Some(Endpoint::Path(_))), socket);
            assert_eq!(metrics.listen.as_ref().unwrap().to_string(), text);
            assert_eq!(metrics.socket().is_some(), socket);
        }
    }

    /// What is wrong is said with its place and what would be right.
    #[test]
    fn metrics_faults_have_their_place() {
        let said = |lines: &str| parse(lines).unwrap_err();
        for (lines, position, what) in [
            ("listen = \"localhost:9469\"", "kopid.toml:6:10", "such as \"127.0.0.1:9469\""),
            ("listen = \"127.0.0.1\"", "kopid.toml:6:10", "an IP address and a port"),
            ("listen = \"127.0.0.1:0\"", "kopid.toml:6:10", "port 0"),
            ("listen = \"run/metrics.sock\"", "kopid.toml:6:10", "such as"),
            ("listen = \"/run/kopi/control.sock\"", "kopid.toml:6:10", "is the same as in [control]"),
            ("listen = \"127.0.0.1:9469\"\nmode = \"0666\"", "kopid.toml:7:8", "is of a Unix socket"),
            ("rules = 100001", "kopid.toml:6:9", "from 0 to 100000"),
        ] {
            let error = said(lines);
            assert!(error.contains(what) && error.contains(position), "{lines}: {error}");
        }
    }
}

//! Any bytes as a line of an operator's.

use kopi_dataplane::capture::port_names::PortNames;
use kopi_dataplane::capture::request::Request;
use kopi_dataplane::control::wire_device::WireState;
use kopi_ring::message::Link;
use serde_json::Value;

thread_local! {
    static NAMES: PortNames = {
        let link = Link { up: true, speed: 0 };
        let wire = WireState { device: "net_null0".into(), driver: "net_null".into(), mac: [2; 6], mtu: 1500, link };
        PortNames::new(1, &wire, std::iter::empty(), None)
    };
}

/// A request is an object that says its command and nothing that is not in the line; what is refused is refused in words. The
/// arguments of a capture are within their limits, or are refused in words.
pub(crate) fn check(line: &[u8]) {
    let request = match kopi_api::Request::read(line) {
        Ok(request) => request,
        Err(error) => {
            assert!(!error.is_empty());
            return;
        }
    };
    let whole: Value = serde_json::from_slice(line).expect("a request is JSON");
    let whole = whole.as_object().expect("a request is an object");
    assert_eq!(whole.get("command").and_then(Value::as_str), Some(&*request.command));
    assert_eq!(whole.len(), request.arguments.len() + 1);
    assert!(request.arguments.iter().all(|(name, value)| whole.get(name) == Some(value)), "{whole:?}");
    let capture = Request::read(&request.arguments);
    match capture.and_then(|capture| NAMES.with(|names| capture.check(names)).map(|()| capture)) {
        Ok(capture) => {
            assert!((1..=262_144).contains(&capture.snap()));
            let buffer = capture.buffer(1, 1 << 30);
            assert!(buffer.is_ok_and(|buffer| (64 << 10..=256 << 20).contains(&buffer)));
            assert!(
                [capture.wanted.count, capture.wanted.bytes, capture.wanted.file_bytes]
                    .iter()
                    .all(|limit| *limit != Some(0))
            );
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

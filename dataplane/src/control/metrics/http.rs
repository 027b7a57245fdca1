//! As much of HTTP/1.1 as a scrape needs. One request a connection.

use super::encode::Format;
use std::fmt::Write;

/// Longest head of a request in bytes, and most fields in it. Prometheus sends some hundred bytes.
pub(super) const HEAD_MAX: usize = 8 << 10;
const FIELDS_MAX: usize = 64;

/// What a peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScrapeRequest {
    /// The metrics; without the text itself for `HEAD`.
    Metrics {
        /// How.
        format: Format,
        /// Whether only the head is wanted.
        head_only: bool,
    },
    /// What there is.
    Index,
}

/// Why a request is refused: the status line's number and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str);

const BAD_REQUEST: Refused = Refused(400, "Bad Request");
const NOT_FOUND: Refused = Refused(404, "Not Found");
const NOT_ALLOWED: Refused = Refused(405, "Method Not Allowed");
const TOO_LARGE: Refused = Refused(431, "Request Header Fields Too Large");
/// The control thread does not answer.
pub(super) const UNAVAILABLE: Refused = Refused(503, "Service Unavailable");

/// The request that begins `input`; `None` if its head is not whole yet.
///
/// # Errors
///
/// [`Refused`].
pub(super) fn request(input: &[u8]) -> Result<Option<ScrapeRequest>, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(input) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if input.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err(BAD_REQUEST),
    }
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(NOT_ALLOWED),
    };
    let path = head.path.and_then(|target| target.split(['?', '#']).next()).unwrap_or_default();
    match path {
        "/metrics" => Ok(Some(ScrapeRequest::Metrics { format: format(head.headers), head_only })),
        "/" => Ok(Some(ScrapeRequest::Index)),
        _ => Err(NOT_FOUND),
    }
}

/// The format that a peer accepts: OpenMetrics if it names that, whatever it likes better. Both say the same.
fn format(fields: &[httparse::Header<'_>]) -> Format {
    let accepts = |field: &httparse::Header<'_>| {
        let is_accept = field.name.eq_ignore_ascii_case("accept");
        is_accept && std::str::from_utf8(field.value).is_ok_and(|value| value.contains("application/openmetrics-text"))
    };
    if fields.iter().any(accepts) { Format::OpenMetrics } else { Format::Prometheus }
}

/// The head of an answer of `length` bytes.
pub(super) fn head(status: Refused, content_type: &str, length: usize) -> Vec<u8> {
    let Refused(number, words) = status;
    let mut head = format!("HTTP/1.1 {number} {words}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n");
    if status == NOT_ALLOWED {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    // Writing to a text does not fail.
    let _written = write!(head, "Cache-Control: no-store\r\nConnection: close\r\n\r\n");
    head.into_bytes()
}

/// The status of an answer that is none of the refusals.
pub(super) const OK: Refused = Refused(200, "OK");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METRICS: ScrapeRequest = ScrapeRequest::Metrics { format: Format::Prometheus, head_only: false };

    /// Both formats are had by the path and what a peer accepts; a request that is not whole is waited for, at any byte.
    #[test]
    fn scrapes_are_understood() {
        let plain = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(request(plain), Ok(Some(METRICS)));
        (0..plain.len()).for_each(|end| assert_eq!(request(&plain[..end]), Ok(None), "{end}"));
        assert_eq!(request(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Ok(Some(METRICS)));
        let accept = b"GET /metrics HTTP/1.1\r\naccept: text/html, application/openmetrics-text;version=1.0.0\r\n\r\n";
        let open = ScrapeRequest::Metrics { format: Format::OpenMetrics, head_only: false };
        assert_eq!(request(accept), Ok(Some(open)));
        let head = ScrapeRequest::Metrics { format: Format::Prometheus, head_only: true };
        assert_eq!(request(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Ok(Some(head)));
        assert_eq!(request(b"GET / HTTP/1.1\r\n\r\n"), Ok(Some(ScrapeRequest::Index)));
    }

    proptest! {
        /// Any bytes have an outcome, and once there is no room for more, that is not to wait.
        #[test]
        fn nobody_is_waited_for_without_end(begins in any::<bool>(), rest in prop::collection::vec(any::<u8>(), 0..HEAD_MAX)) {
            let mut input = if begins { b"GET /metrics HTTP/1.1\r\n".to_vec() } else { Vec::new() };
            input.extend_from_slice(&rest);
            input.resize(HEAD_MAX, b'a');
            prop_assert_ne!(request(&input), Ok(None));
        }
    }

    /// Whatever else comes is refused by its kind, and never waited for without end.
    #[test]
    fn what_is_no_scrape_is_refused() {
        for (input, refused) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00"[..], BAD_REQUEST),
            (b"GET /metrics HTTP/9.9\r\n\r\n", BAD_REQUEST),
            (b"GET /metrics HTTP/1.1\r\nno field\r\n\r\n", BAD_REQUEST),
            (b"POST /metrics HTTP/1.1\r\n\r\n", NOT_ALLOWED),
            (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", NOT_FOUND),
            (b"GET /metricsx HTTP/1.1\r\n\r\n", NOT_FOUND),
        ] {
            assert_eq!(request(input), Err(refused), "{}", String::from_utf8_lossy(input));
        }
        let mut long = b"GET /metrics HTTP/1.1\r\nx: ".to_vec();
        long.resize(HEAD_MAX, b'a');
        assert_eq!(request(&long), Err(TOO_LARGE));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(request(many.as_bytes()), Err(TOO_LARGE));
    }
}

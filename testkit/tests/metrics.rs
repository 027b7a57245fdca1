//! Metrics over HTTP, as Prometheus asks for them, and as those do who mean harm.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::Notes;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::ethernet;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Settings, TempDir, wait_until};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one answer takes at the most, with everything that the machine does besides.
const LIMIT: Duration = Duration::from_secs(10);

fn metrics_socket(dir: &TempDir) -> PathBuf {
    dir.path().join("metrics.sock")
}

fn at_socket(dir: &TempDir, more: &str) -> Option<String> {
    Some(format!("listen = \"{}\"\n{more}", metrics_socket(dir).display()))
}

/// Sends `request` and reads to the end of the answer.
fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("kopid takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("kopid answers in time");
    answer
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("kopid listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket has timeouts");
    stream
}

/// The text of a scrape, and how long it took.
fn scrape(socket: &Path) -> (String, Duration) {
    let begun = Instant::now();
    let request = "GET /metrics HTTP/1.1\r\nHost: kopid\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let answer = exchange(connect(socket), request);
    let took = begun.elapsed();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())) && body.ends_with("\n# EOF\n"), "{head}");
    (body.to_owned(), took)
}

/// The value of a series.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// What an app has sent, what became of it, the rule that said so and a reload are seen in the next scrape, at a Unix socket of which
/// nobody else may read.
#[test]
fn scrape_tells_what_has_happened() {
    let dir = TempDir::new("metrics");
    let policy = "[[rule]]\nname = \"no-tests\"\nmatch = { ethertype = 0x88b5 }\naction = \"drop\"\n";
    let settings = Settings { metrics: at_socket(&dir, "mode = \"0600\"\n"), ..Settings::default() }.policy(policy);
    let mut kopid = Kopid::start(&dir, &settings);
    let socket = metrics_socket(&dir);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mac = [2, 0, 0, 0, 0, 1];
    let (client, region) = Client::attach(&kopid.socket(), "sender", mac, &small());
    drop(kopid.await_app("sender"));
    let mut ring = region.tx_producer(0).unwrap();
    let frame = ethernet([2, 0, 0, 0, 0, 9], mac, 0x88b5, &[0; 46]);
    assert!(ring.free(1).is_ok_and(|free| free > 0) && ring.push(&frame, Notes::NONE));
    ring.publish();
    wait_until("the frame is dropped", SOON, || kopid.rule("no-tests") == 1);
    kopid.reload(policy).unwrap();
    kopid.reload("[[rule]]\n").unwrap_err();
    let (text, _) = scrape(&socket);
    for (series, expected) in [
        ("kopi_apps", 1.0),
        ("kopi_attaches_total", 1.0),
        ("kopi_port_running{port=\"sender\"}", 1.0),
        ("kopi_port_transmit_packets_total{port=\"sender\"}", 1.0),
        ("kopi_drop_packets_total{port=\"sender\",stage=\"filter\",reason=\"policy\"}", 1.0),
        ("kopi_rule_packets_total{rule=\"no-tests\",action=\"drop\"}", 1.0),
        ("kopi_reloads_total{outcome=\"done\"}", 1.0),
        ("kopi_reloads_total{outcome=\"failed\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
    drop(client);
    kopid.await_no_app("sender");
    wait_until("the port is gone", SOON, || {
        let (text, _) = scrape(&socket);
        value(&text, "kopi_detaches_total{reason=\"ended\"}") == Some(1.0) && !text.contains("port=\"sender\"")
    });
    assert!(kopid.stop().success());
    assert!(!socket.exists(), "the socket goes with kopid");
}

/// Whoever is silent, slow, sends garbage or does not read is no hindrance to a scrape, at an address, too; and nothing of them stays.
#[test]
fn hostile_peers_keep_nobody_waiting() {
    let dir = TempDir::new("metrics-hostile");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { metrics: Some(format!("listen = \"{address}\"\n")), ..Settings::default() };
    let kopid = Kopid::start(&dir, &settings);
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    let is_served = || {
        let begun = Instant::now();
        let answer = exchange(connect(), "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(3), "it was kept waiting for {:?}", begun.elapsed());
    };
    is_served();
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    is_served();
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect();
            // A request that never ends, and one whose answer is never read.
            stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ").unwrap();
            stream
        })
        .collect();
    is_served();
    for (request, status) in [
        ("\u{16}\u{3}\u{1}garbage\r\n\r\n".to_owned(), "400"),
        (format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(8 << 10)), "431"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n".to_owned(), "405"),
        ("GET /../../etc/passwd HTTP/1.1\r\n\r\n".to_owned(), "404"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "200"),
    ] {
        let answer = exchange(connect(), &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
    // More than fits a request, all of which is taken, or the connection is reset: either way, kopid goes on.
    let mut endless = connect();
    while endless.write_all(&[b'a'; 4096]).is_ok() {}
    is_served();
    assert_eq!(kopid.status()["apps"], 0);
    drop((silent, slow));
    is_served();
}

/// As many apps, rules and classes as a large host has: a scrape has a bounded number of series, and does not take long.
#[test]
fn large_policy_is_scraped_soon() {
    let dir = TempDir::new("metrics-large");
    let mut policy = String::new();
    for n in 0..1000 {
        write!(policy, "[[class]]\nname = \"class{n}\"\n").unwrap();
    }
    for n in 0..10_000 {
        let (host, port) = (n / 250, n % 250 + 1);
        write!(policy, "[[rule]]\nmatch = {{ proto = \"udp\", dst = \"10.9.{host}.1\", dst_port = {port} }}\n")
            .unwrap();
        policy.push_str("action = \"drop\"\n");
    }
    // An eighth of the places is for users that have none yet.
    let settings = Settings { metrics: at_socket(&dir, ""), apps: 80, ..Settings::default() }.policy(&policy);
    let kopid = Kopid::start(&dir, &settings);
    let apps: Vec<_> =
        (0..64).map(|n| Client::attach(&kopid.socket(), &format!("app{n}"), [2, 0, 0, 0, 1, n], &small())).collect();
    drop(kopid.await_app("app63"));
    let (text, took) = scrape(&metrics_socket(&dir));
    assert_eq!(value(&text, "kopi_apps"), Some(64.0));
    assert_eq!(value(&text, "kopi_rules"), Some(10_000.0));
    assert_eq!(text.lines().filter(|line| line.starts_with("kopi_rule_packets_total{")).count(), 1003);
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!((10_000..30_000).contains(&series), "{series}");
    drop(writeln!(std::io::stderr(), "{series} series, {} bytes in {took:?}", text.len()));
    assert!(took < Duration::from_secs(1), "a scrape takes {took:?}");
    drop(apps);
}

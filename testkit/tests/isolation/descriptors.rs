//! An app sends file descriptors that take their time to be closed: to its socket, and to its doorbell. Nobody waits for them.

use kopi_ring::message::Mac;
use kopi_testkit::evil::{Client, small};
use kopi_testkit::{Kopid, Settings, TempDir};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long whoever closes such a descriptor last has to wait.
const LINGER: Duration = Duration::from_secs(60);
/// Nobody who does not would need so long, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(10);
const EVIL: Mac = [2, 0, 0, 0, 0xee, 3];

/// A connection with unsent data to a peer that does not read.
pub(crate) struct Lingering {
    near: Option<TcpStream>,
    _far: (TcpListener, TcpStream),
}

impl Lingering {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let mut near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (far, _) = listener.accept().expect("somebody has connected");
        near.set_nonblocking(true).expect("a socket");
        while near.write(&[0; 65536]).is_ok() {}
        set_socket_linger(&near, Some(LINGER)).expect("a TCP socket");
        Self { near: Some(near), _far: (listener, far) }
    }

    /// Sends it over `socket`, and closes it here. Whether it was taken.
    pub(crate) fn send(self, socket: impl AsFd) -> bool {
        self.send_with(socket, b"KOPI")
    }

    /// The same, with these bytes.
    pub(crate) fn send_with(mut self, socket: impl AsFd, bytes: &[u8]) -> bool {
        let near = self.near.take().expect("it is sent once");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [near.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => {
                // Until kopid has closed it, the connection is to linger; so its other end stays.
                std::mem::forget(self);
                true
            }
            Err(errno) => {
                // By the kernel, as from Linux 6.16 on; or kopid has let go of the connection.
                assert!(matches!(errno, Errno::PERM | Errno::PIPE | Errno::CONNRESET), "{errno}");
                set_socket_linger(&near, None).expect("a TCP socket");
                false
            }
        }
    }
}

/// Asks kopid what everybody asks, and returns how long the slowest of it took: `status`, and an app that attaches, whose frames
/// leave its ring.
fn slowest(kopid: &Kopid) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0..5_u8 {
        let begun = Instant::now();
        assert!(kopid.exchange(&serde_json::json!({ "command": "status" })).is_some(), "kopid does not answer");
        let (_client, region) = Client::attach(&kopid.socket(), "", [2, 0, 0, 0, 4, number], &small());
        let mut ring = region.tx_producer(0).expect("a ring");
        assert!(ring.free(1).is_ok_and(|free| free > 0) && ring.push(&[0xff; 60], kopi_ring::layout::Notes::NONE));
        ring.publish();
        while ring.free(512) != Ok(512) {
            assert!(begun.elapsed() < LIMIT, "the worker takes no frames");
            std::thread::yield_now();
        }
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

/// Row 1: descriptors that linger, at each place where an app can send one, are closed by nobody for whom others wait; nor does the
/// end of kopid wait.
#[test]
fn descriptors_that_linger_keep_nobody_waiting() {
    for idle in ["poll", "adaptive"] {
        let dir = TempDir::new("linger");
        let mut kopid = Kopid::start(&dir, &Settings { idle, ..Settings::default() });
        // Before hello, after it, and in the doorbell of an app that is attached.
        let stranger = Client::connect(&kopid.socket());
        let mut taken = vec![Lingering::new().send(stranger.socket())];
        let mut evil = Client::connect(&kopid.socket());
        let welcome = evil.hello("evil", EVIL);
        let (_region, doorbell) = evil.setup_sleeping(&small());
        evil.settings(welcome.mac);
        assert_eq!(doorbell.is_some(), idle == "adaptive");
        if let Some(doorbell) = &doorbell {
            taken.push(Lingering::new().send(doorbell));
            (0..100).for_each(|_| {
                doorbell.ring();
                std::thread::sleep(Duration::from_millis(1));
            });
        }
        taken.push(Lingering::new().send(evil.socket()));
        let longest = slowest(&kopid);
        assert!(longest < LIMIT, "{idle}, taken {taken:?}: somebody had to wait for {longest:?}");
        let begun = Instant::now();
        assert!(kopid.stop().success());
        assert!(begun.elapsed() < LIMIT, "{idle}, taken {taken:?}: kopid took {:?} to end", begun.elapsed());
    }
}

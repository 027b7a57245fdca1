//! An app that speaks the attach protocol by hand, and breaks it where a test wants.

use kopi_ring::layout::MIN_RING;
use kopi_ring::message::{Envelope, Hello, Mac, Message, Settings, Setup, Welcome};
use kopi_ring::socket::{self, ReceiveError, connect};
use kopi_ring::{Doorbell, Geometry, OLDEST_PROTOCOL, PROTOCOL, Region, WakeFutex};
use rustix::fs::{FallocateFlags, inotify};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most descriptors that one message may carry (`SCM_MAX_FD` of Linux).
pub const MAX_FDS: usize = 253;

/// More than the instances of `inotify` that a user may have, by default 128.
const MOST_INOTIFY: usize = 900;

/// A connection to kopid's socket for apps.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    protocol: u16,
    sequence: u32,
}

impl Client {
    /// Connects. Reads give up after ten seconds.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        Self::try_connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn try_connect(path: &Path) -> Result<Self, rustix::io::Errno> {
        let socket = connect(path)?;
        // The largest rings, beside those of others, on a machine that is slow to clear memory.
        let limit = Some(Duration::from_secs(60));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)?;
        Ok(Self::on(socket))
    }

    /// A connection that somebody else has made.
    #[must_use]
    pub const fn on(socket: OwnedFd) -> Self {
        Self { socket, protocol: PROTOCOL, sequence: 0 }
    }

    /// The same client, which knows only the oldest version of the protocol.
    #[must_use]
    pub const fn old(mut self) -> Self {
        self.protocol = OLDEST_PROTOCOL;
        self
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Sends bytes as one packet, with copies of our own socket as file descriptors. Whether kopid took them.
    pub fn send_raw(&self, bytes: &[u8], fds: usize) -> bool {
        let fds = vec![self.socket.as_fd(); fds.min(MAX_FDS)];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the kernel's maximum fits");
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
    }

    /// Sends a message under the next number. Whether kopid took it.
    pub fn say(&mut self, message: Message) -> bool {
        self.sequence += 1;
        let Self { protocol, sequence, .. } = *self;
        self.send_raw(&Envelope { protocol, sequence, message }.encode(), 0)
    }

    /// The next message and the first file descriptor that came with it.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`], which includes the end of the connection.
    pub fn hear(&self) -> Result<(Message, Option<OwnedFd>), ReceiveError> {
        socket::receive(&self.socket).map(|(envelope, fds)| (envelope.message, fds.into_iter().next()))
    }

    /// Says something and returns the answer; link messages in between are skipped.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`], which includes the end of the connection.
    pub fn ask(&mut self, message: Message) -> Result<(Message, Option<OwnedFd>), ReceiveError> {
        if !self.say(message) {
            return Err(ReceiveError::Closed);
        }
        loop {
            match self.hear()? {
                (Message::Link(_), _) => {}
                answer => return Ok(answer),
            }
        }
    }

    /// The same with file descriptors.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`], which includes the end of the connection.
    pub fn ask_with(
        &mut self,
        message: Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Message, Option<OwnedFd>), ReceiveError> {
        self.sequence += 1;
        let Self { protocol, sequence, .. } = *self;
        if socket::send(&self.socket, &Envelope { protocol, sequence, message }, fds).is_err() {
            return Err(ReceiveError::Closed);
        }
        loop {
            match self.hear()? {
                (Message::Link(_), _) => {}
                answer => return Ok(answer),
            }
        }
    }

    /// The text of the refusal that must be the last thing kopid says before it closes the connection.
    #[must_use]
    pub fn refusal(&self) -> String {
        let mut text = String::new();
        loop {
            match self.hear() {
                Ok((Message::Refused(why), _)) => text = why,
                Ok(_) => {}
                Err(ReceiveError::Closed) => return text,
                Err(error) => panic!("kopid neither refuses nor closes: {error}"),
            }
        }
    }

    /// Says hello with this name and gets a port.
    #[must_use]
    pub fn hello(&mut self, name: &str, mac: Mac) -> Welcome {
        match self.ask(hello(name, mac)) {
            Ok((Message::Welcome(welcome), None)) => welcome,
            other => panic!("no welcome for {name}: {other:?}"),
        }
    }

    /// Asks for rings; `Err` is the text with which they are refused.
    ///
    /// # Errors
    ///
    /// kopid's refusal.
    pub fn try_setup(&mut self, geometry: &Geometry) -> Result<(), String> {
        match self.ask(Message::Setup(geometry.clone().into())) {
            Ok((Message::Ready(_), Some(_))) => Ok(()),
            Ok((Message::Refused(why), None)) => Err(why),
            other => panic!("neither rings nor a refusal: {other:?}"),
        }
    }

    /// Asks for rings, gets them, and says that they are mapped, if there is a word for that in its version.
    #[must_use]
    pub fn setup(&mut self, geometry: &Geometry) -> Region {
        let region = self.setup_unsealed(geometry);
        self.mapped();
        region
    }

    /// Says that its rings are mapped, if there is a word for that in its version: else its [settings](Self::settings) say so.
    pub fn mapped(&mut self) {
        if self.protocol > OLDEST_PROTOCOL {
            let answer = self.ask(Message::Mapped);
            assert!(matches!(answer, Ok((Message::Done, None))), "{answer:?}");
        }
    }

    /// Asks for rings and gets them, and does not say that they are mapped: they are not served.
    #[must_use]
    pub fn setup_unsealed(&mut self, geometry: &Geometry) -> Region {
        match self.ask(Message::Setup(geometry.clone().into())) {
            Ok((Message::Ready(ready), Some(fd))) => Region::open(fd, &ready).expect("kopid's region is right"),
            other => panic!("no rings: {other:?}"),
        }
    }

    /// As [`setup`](Self::setup), for an app that may sleep. The doorbell comes along if kopid sleeps, too.
    #[must_use]
    pub fn setup_sleeping(&mut self, geometry: &Geometry) -> (Region, Option<Doorbell>) {
        assert!(self.say(Message::Setup(Setup { geometry: geometry.clone(), sleeps: true })), "kopid has gone");
        loop {
            let (envelope, fds) = socket::receive(&self.socket).expect("kopid answers");
            let mut fds = fds.into_iter();
            match (envelope.message, fds.next()) {
                (Message::Link(_), _) => {}
                (Message::Ready(ready), Some(fd)) => {
                    let region = Region::open(fd, &ready).expect("kopid's region is right");
                    self.mapped();
                    return (region, fds.next().map(Doorbell::from));
                }
                other => panic!("no rings: {other:?}"),
            }
        }
    }

    /// Says what the port is to receive.
    pub fn settings(&mut self, mac: Mac) {
        let settings = Settings { mtu: 1500, macs: vec![mac], ..Settings::default() };
        let answer = self.ask(Message::Settings(settings));
        assert!(matches!(answer, Ok((Message::Done, None))), "{answer:?}");
    }

    /// Attaches as a well-behaved app does: port, rings, settings.
    #[must_use]
    pub fn attach(path: &Path, name: &str, mac: Mac, geometry: &Geometry) -> (Self, Region) {
        Self::connect(path).attach_as(name, mac, geometry)
    }

    /// The same as an app of the oldest version of the protocol.
    #[must_use]
    pub fn attach_old(path: &Path, name: &str, mac: Mac, geometry: &Geometry) -> (Self, Region) {
        Self::connect(path).old().attach_as(name, mac, geometry)
    }

    fn attach_as(self, name: &str, mac: Mac, geometry: &Geometry) -> (Self, Region) {
        let mut client = self;
        let welcome = client.hello(name, mac);
        let region = client.setup(geometry);
        client.settings(welcome.mac);
        (client, region)
    }
}

/// Does something on a thread of its own with the rights of user `uid`, which is then who kopid sees behind a connection that is
/// made there.
///
/// # Panics
///
/// If `act` does, or if we may not be that user.
pub fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    let work = || {
        // The thread's own, for the time that it lives; the connection keeps them.
        let user = rustix::thread::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(user, user, user).expect("root may be anybody");
        act()
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The message that asks for a port.
#[must_use]
pub fn hello(name: &str, mac: Mac) -> Message {
    Message::Hello(Hello { name: name.into(), mac, queues: 16, driver: "kopi-testkit".into() })
}

/// A small region: one queue in each direction, with 512 slots.
#[must_use]
pub fn small() -> Geometry {
    Geometry::new(&[512], &[512], kopi_ring::layout::DEFAULT_SLOT).expect("within the limits")
}

/// The smallest region that there is: one queue in each direction, with 64 slots. For who attaches thousands of times, since memory has
/// to be cleared for each.
#[must_use]
pub fn tiny() -> Geometry {
    Geometry::new(&[MIN_RING], &[MIN_RING], kopi_ring::layout::DEFAULT_SLOT).expect("within the limits")
}

/// A source of numbers that look random, the same in every run (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One that starts from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Writes into a region by way of `/proc/self/mem`: its file cannot be written any more once it is sealed.
#[derive(Debug)]
pub struct Vandal {
    fd: OwnedFd,
    memory: File,
    /// Where the region lies here.
    base: u64,
    size: u64,
    /// Keeps it there.
    _mapped: WakeFutex,
}

impl Vandal {
    /// One for `region`.
    #[must_use]
    pub fn new(region: &Region) -> Self {
        let fd = region.fd().try_clone_to_owned().expect("a descriptor can be doubled");
        let memory = File::options().write(true).open("/proc/self/mem").expect("it is ours");
        let inode = rustix::fs::fstat(&fd).expect("it is open").st_ino.to_string();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("they are ours");
        // `7f0000000000-7f0000200000 rw-s 00000000 00:01 4711   /memfd:kopi-region (deleted)`: see `proc_pid_maps(5)`.
        let of_region = |line: &&str| {
            let mut fields = line.split_whitespace().skip(2);
            (fields.next(), fields.nth(1)) == (Some("00000000"), Some(&*inode)) && line.contains("memfd:kopi-region")
        };
        let line = maps.lines().find(of_region).expect("it is mapped");
        let base = line.split('-').next().and_then(|base| u64::from_str_radix(base, 16).ok()).expect("an address");
        let size = u64::try_from(region.size()).expect("sizes fit");
        Self { fd, memory, base, size, _mapped: region.wake_futex() }
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let offset = u64::try_from(offset).expect("offsets fit");
        let written = rustix::io::pwrite(&self.memory, bytes, self.base + offset).expect("our memory can be written");
        assert_eq!(written, bytes.len());
    }

    /// Writes a 32-bit counter.
    pub fn write_u32(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Takes all pages out of the region.
    ///
    /// # Errors
    ///
    /// `EPERM` if it is sealed.
    pub fn punch(&self) -> Result<(), rustix::io::Errno> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, hole, 0, self.size)
    }

    /// Writes garbage over all of the region without pause, on a thread of its own.
    #[must_use]
    pub fn scribble(self, seed: u64) -> Scribbler {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let work = move || {
            let mut random = Random::new(seed);
            let mut garbage = vec![0; 64 << 10];
            while !stopped.load(Relaxed) {
                random.fill(&mut garbage);
                let mut at = 0;
                while at < self.size {
                    let rest = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(garbage.len());
                    // A detached region stays writable as long as we have it mapped.
                    let written = rustix::io::pwrite(&self.memory, &garbage[..rest], self.base + at);
                    at += written.map_or(self.size, |n| n as u64);
                }
                counted.fetch_add(1, Relaxed);
            }
        };
        Scribbler { stop, rounds, thread: Some(std::thread::spawn(work)) }
    }
}

/// A thread that writes garbage until its value goes.
#[derive(Debug)]
pub struct Scribbler {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Scribbler {
    /// How often all of the region has been written over.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }
}

impl Drop for Scribbler {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Does something while nobody of our user gets an `inotify`. A kopid that starts meanwhile can watch no region, so it seals none, as
/// one on a kernel without seals.
pub fn without_watches<T>(act: impl FnOnce() -> T) -> T {
    let hog = || inotify::init(inotify::CreateFlags::CLOEXEC);
    let hogs: Vec<_> = std::iter::repeat_with(hog).map_while(Result::ok).take(MOST_INOTIFY).collect();
    assert!(hogs.len() < MOST_INOTIFY, "sysctl fs.inotify.max_user_instances is too large for this test");
    let done = act();
    drop(hogs);
    done
}

/// Holds free huge pages of the machine, so that nobody else gets one.
#[derive(Debug)]
pub struct HugeHog(OwnedFd);

impl HugeHog {
    /// Takes all that are free.
    #[must_use]
    pub fn new() -> Self {
        let flags = rustix::fs::MemfdFlags::HUGETLB | rustix::fs::MemfdFlags::HUGE_2MB;
        let hog = Self(rustix::fs::memfd_create(c"kopi-hog", flags).expect("the kernel has huge pages"));
        hog.grab();
        hog
    }

    /// Takes those that have become free since.
    pub fn grab(&self) {
        let pages = crate::machine::huge_pages().0;
        for page in 0..pages {
            // The error is what is wanted: no page is left.
            if rustix::fs::fallocate(&self.0, FallocateFlags::empty(), page << 21, 2 << 20).is_err() {
                return;
            }
        }
    }
}

impl Default for HugeHog {
    fn default() -> Self {
        Self::new()
    }
}

//! The driver, alone in this process: `librte_net_kopi.so` as any application loads it, and the daemon's ends of its rings.
//!
//! A thread answers the driver's wishes as kopid would; the rings that it makes are served here, between two bursts.

use crate::error::Failure;
use crate::frames::{self, Protocol, Way};
use dpdk::{Batch, Eal, Mbuf, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue};
use kopi_ring::layout::Notes;
use kopi_ring::message::{Envelope, Hello, Link, Message, Welcome};
use kopi_ring::socket::{self, ReceiveError};
use kopi_ring::{Consumer, HugePages, PROTOCOL, Producer, Region};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{SocketAddrUnix, SocketFlags};
use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Bursts that are not counted, and that are.
const WARM_UP: usize = 75;
const BURSTS: usize = 125;
/// How long the driver may take to attach, many times slower than it is by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which burst function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Tx,
    Rx,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    function: Function,
    len: u16,
    burst: usize,
    lanes: usize,
    /// Whether checksums are left to the driver.
    checksums: bool,
}

/// All cases, in the order of the budgets.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for function in [Function::Tx, Function::Rx] {
        for (len, burst) in [(64, Batch::MAX), (1518, Batch::MAX), (64, 1)] {
            cases.push(Case { function, len, burst, lanes: 1, checksums: false });
        }
    }
    for len in [64, 1518] {
        cases.push(Case { function: Function::Tx, len, burst: Batch::MAX, lanes: 1, checksums: true });
    }
    let nothing = Case { function: Function::Rx, len: 64, burst: 0, lanes: 1, checksums: false };
    cases.push(nothing);
    cases.extend([Batch::MAX, 1, 0].map(|burst| Case { burst, lanes: 2, ..nothing }));
    cases.extend([64, 1518].map(|len| Case { len, burst: Batch::MAX, checksums: true, ..nothing }));
    cases
}

impl Case {
    /// What it is called in the budgets.
    pub(crate) fn name(&self) -> String {
        let function = if self.function == Function::Tx { "TX" } else { "RX" };
        let more = match (self.len, self.burst) {
            (_, 0) => ", nothing there",
            (_, 1) => ", one frame at a time",
            (64, _) => "",
            _ => ", 1518 bytes",
        };
        let lanes = if self.lanes == 1 { "" } else { ", 2 lanes" };
        let checksums = if self.checksums { ", checksums" } else { "" };
        format!("driver, {function}{more}{lanes}{checksums}")
    }

    /// What its instructions are divided by: frames, or calls if there are none.
    pub(crate) fn units(&self) -> usize {
        BURSTS * self.burst.max(1)
    }
}

/// An application with three ports: at a daemon with a single worker, at one with two, and at one for frames whose checksums are left to
/// the driver.
pub(crate) struct Lab {
    ends: [Ends; 3],
    _eal: Eal,
}

/// Where the socket of a port's daemon lies, and the port's number.
struct Place<'a> {
    folder: &'a Path,
    number: u16,
}

/// One port of it.
struct Ends {
    pool: Pool,
    rx: RxQueue,
    tx: TxQueue,
    /// The daemon's ends.
    from_app: Consumer,
    to_app: Vec<Producer>,
    /// The lane into which the next frame goes.
    next: usize,
    _region: Region,
    _port: Port,
}

impl Lab {
    /// Starts DPDK with the driver `library` and waits until its port can send and receive. `folder` is for a socket.
    pub(crate) fn new(folder: &Path, library: &Path) -> Result<Self, Failure> {
        let eal = Eal::init(&crate::eal_args(folder, crate::DRIVER, &["-d", &library.display().to_string()]))?;
        let pool = Pool::new(&eal, PoolConfig { name: "app", mbufs: 4095, cache: 256, frame_max: 2048, socket: None })?;
        let new = |number, workers, checksums| Ends::new(&Place { folder, number }, &eal, &pool, workers, checksums);
        let ends = [new(1, 1, false)?, new(2, 2, false)?, new(3, 1, true)?];
        Ok(Self { ends, _eal: eal })
    }

    /// Runs one case.
    pub(crate) fn run(&mut self, case: &Case) -> Result<(), Failure> {
        let [single, several, checksums] = &mut self.ends;
        match case {
            Case { checksums: true, .. } => checksums.run(case),
            Case { lanes: 1, .. } => single.run(case),
            Case { .. } => several.run(case),
        }
    }
}

impl Ends {
    /// A port at a daemon with so many workers, that can send and receive, and writes and checks checksums if it is to.
    fn new(place: &Place<'_>, eal: &Eal, pool: &Pool, workers: u16, checksums: bool) -> Result<Self, Failure> {
        let path = place.folder.join(format!("kopi{}.sock", place.number));
        let regions = serve(&path, workers)?;
        let mut port = Port::by_devargs(eal, &format!("net_kopi{},socket={}", place.number, path.display()))?;
        let config = PortConfig { one_pool: true, checksums, ..PortConfig::default() };
        port.configure(&config, std::slice::from_ref(pool))?;
        let (rx, tx) = port.start()?;
        let absent = || Failure::Said("the driver has not attached in time".into());
        let region = regions.recv_timeout(PATIENCE).map_err(|_| absent())?;
        let (Some(rx), Some(tx)) = (rx.into_iter().next(), tx.into_iter().next()) else { return Err(absent()) };
        let Some(from_app) = region.tx_consumer(0) else { return Err(absent()) };
        let to_app: Vec<_> = (0..workers).filter_map(|ring| region.rx_producer(ring.into())).collect();
        if to_app.len() != usize::from(workers) {
            return Err(Failure::Said("the driver has asked for other lanes".into()));
        }
        let pool = pool.clone();
        let mut ends = Self { pool, rx, tx, from_app, to_app, next: 0, _region: region, _port: port };
        let begun = Instant::now();
        while !ends.works()? {
            if begun.elapsed() > PATIENCE {
                return Err(absent());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(ends)
    }

    /// Whether a frame passes in each direction.
    fn works(&mut self) -> Result<bool, Failure> {
        let mut batch = self.batch(1, 64)?;
        self.tx.send(&mut batch);
        batch.free_all();
        let sent = self.take()?;
        self.put(1, &[0; 64])?;
        Ok(self.rx.receive(&mut batch) > 0 && sent > 0)
    }

    fn batch(&self, n: usize, len: u16) -> Result<Batch, Failure> {
        let mut batch = Batch::new();
        if !self.pool.fill(&mut batch, n) {
            return Err(Failure::Said("no packet buffers".into()));
        }
        let frame = frames::all(Way::Out, Protocol::Ipv4, 1, 1, len).pop().unwrap_or_default();
        let fits = batch.iter_mut().all(|mbuf| mbuf.fill(&frame));
        if fits { Ok(batch) } else { Err(Failure::Said("a frame does not fit a buffer".into())) }
    }

    /// Takes what the driver has sent, and returns how many frames there were.
    fn take(&mut self) -> Result<usize, Failure> {
        let mut taken = 0;
        while self.from_app.poll()? > 0 {
            self.from_app.next()?;
            taken += 1;
        }
        self.from_app.release();
        Ok(taken)
    }

    /// Gives the driver `n` frames to receive, through all lanes in turn.
    fn put(&mut self, n: usize, frame: &[u8]) -> Result<(), Failure> {
        let lanes = self.to_app.len();
        for ring in &mut self.to_app {
            ring.free(u32::try_from(n).unwrap_or(u32::MAX))?;
        }
        for _ in 0..n {
            self.next = (self.next + 1) % lanes;
            if let Some(ring) = self.to_app.get_mut(self.next) {
                ring.push(frame, Notes::new(0x211, 0x1234_5678));
            }
        }
        self.to_app.iter_mut().for_each(Producer::publish);
        Ok(())
    }

    fn run(&mut self, case: &Case) -> Result<(), Failure> {
        let mut done = 0;
        for burst in 0..WARM_UP + BURSTS {
            let counts = burst >= WARM_UP;
            let mut batch;
            let moved = match case.function {
                Function::Tx => {
                    batch = self.batch(case.burst, case.len)?;
                    if case.checksums {
                        batch.iter_mut().for_each(Mbuf::leave_checksums);
                    }
                    if counts {
                        counted_tx(&mut self.tx, &mut batch)
                    } else {
                        self.tx.send(&mut batch)
                    };
                    self.take()?
                }
                Function::Rx => {
                    let protocol = if case.checksums { Protocol::Ipv4 } else { Protocol::Zeros };
                    let frame = frames::all(Way::In, protocol, 1, 1, case.len).pop().unwrap_or_default();
                    self.put(case.burst, &frame)?;
                    batch = Batch::new();
                    let n = if counts { counted_rx(&mut self.rx, &mut batch) } else { self.rx.receive(&mut batch) };
                    usize::from(n)
                }
            };
            done += if counts { moved } else { 0 };
        }
        let due = BURSTS * case.burst;
        if done == due { Ok(()) } else { Err(Failure::Said(format!("{}: {done} of {due} frames passed", case.name()))) }
    }
}

/// The calls whose instructions are counted: callgrind looks for these functions by their names.
#[inline(never)]
fn counted_tx(tx: &mut TxQueue, batch: &mut Batch) -> u16 {
    black_box(tx.send(batch))
}

#[inline(never)]
fn counted_rx(rx: &mut RxQueue, batch: &mut Batch) -> u16 {
    black_box(rx.receive(batch))
}

/// Answers one driver at `path`, as kopid does, on a thread that ends with the connection. Gives out the regions made.
fn serve(path: &Path, workers: u16) -> Result<Receiver<Region>, Failure> {
    let listener = socket::new_socket(SocketFlags::CLOEXEC)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&listener, 1)?;
    let (regions, made) = channel();
    thread::spawn(move || {
        if let Ok(client) = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
            while let Ok(()) = answer(&client, &regions, workers) {}
        }
    });
    Ok(made)
}

fn answer(client: &OwnedFd, regions: &Sender<Region>, workers: u16) -> Result<(), Failure> {
    let request = match socket::receive(client) {
        Ok((request, _)) => request,
        Err(ReceiveError::WouldBlock) => return Ok(()),
        Err(error) => return Err(Failure::Said(error.to_string())),
    };
    let mut made = None;
    let message = match request.message {
        Message::Hello(hello) => welcome(&hello, workers),
        Message::Setup(setup) => {
            made = Some(Region::create(&setup.geometry, HugePages::Off)?);
            Message::Ready(setup.geometry)
        }
        _ => Message::Done,
    };
    let fds: Vec<_> = made.iter().map(|region| region.fd()).collect();
    socket::send(client.as_fd(), &Envelope { protocol: PROTOCOL, sequence: request.sequence, message }, &fds)?;
    drop(fds);
    made.map_or(Ok(()), |region| regions.send(region).map_err(|error| Failure::Said(error.to_string())))
}

fn welcome(hello: &Hello, workers: u16) -> Message {
    Message::Welcome(Welcome {
        port: 1,
        name: if hello.name.is_empty() { "app".into() } else { hello.name.clone() },
        mac: frames::mac(1),
        max_mtu: 1500,
        max_queues: 1,
        max_ring: 1024,
        slot_size: 2048,
        link: Link { up: true, speed: 10_000 },
        shares: false,
        workers,
        rss_key: [0x6d; 40],
    })
}

//! A small daemon: serves one app at a time, echoes what it sends, and misbehaves on request.

use kopi_ring::layout::Notes;
use kopi_ring::message::{
    ALL_FLOW_RULES, Envelope, FlowRule, Hello, Link, Message, RSS_KEY_SIZE, Rss, Settings, Welcome,
};
use kopi_ring::socket::{self, ReceiveError};
use kopi_ring::{Consumer, DropReason, HugePages, PROTOCOL, Producer, Region};
use rustix::fd::OwnedFd;
use rustix::net::{SocketAddrUnix, SocketFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The key that the daemon has for applications that choose none.
pub(crate) const RSS_KEY: [u8; RSS_KEY_SIZE] = [0x5a; RSS_KEY_SIZE];

/// What the daemon offers, and what it does with frames.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// The only version of the protocol that it speaks.
    pub(crate) protocol: u16,
    /// Says no to every Hello.
    pub(crate) refuse: Option<String>,
    pub(crate) max_mtu: u16,
    pub(crate) max_ring: u32,
    pub(crate) slot_size: u32,
    /// Frames from the app go back to it.
    pub(crate) echo: bool,
    /// Sends frames of this many bytes to the app without pause.
    pub(crate) flood: Option<usize>,
    /// What it says of its workers.
    pub(crate) workers: u16,
    /// Has no memory for lanes.
    pub(crate) poor: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            protocol: PROTOCOL,
            refuse: None,
            max_mtu: 9000,
            max_ring: 8192,
            slot_size: 2048,
            echo: true,
            flood: None,
            workers: 1,
            poor: false,
        }
    }
}

/// What the daemon has seen.
#[derive(Debug, Default)]
struct Seen {
    frames: AtomicU64,
    bytes: AtomicU64,
    hellos: AtomicU64,
    setups: AtomicU64,
    lanes: AtomicU64,
    mapped: AtomicU64,
    stops: AtomicU64,
    serves: AtomicBool,
    hello: Mutex<Option<Hello>>,
    settings: Mutex<Option<Settings>>,
    rss: Mutex<Option<Rss>>,
    flow_rules: Mutex<BTreeMap<u16, FlowRule>>,
    /// Rules that there were before the first Setup.
    early_flow_rules: AtomicU64,
}

/// Orders to the running daemon.
#[derive(Debug, Default)]
struct Orders {
    stop: AtomicBool,
    link_down: AtomicBool,
    scribble: AtomicBool,
    mute: AtomicBool,
    refuse_settings: Mutex<Option<String>>,
    refuse_flow_rules: AtomicBool,
}

/// A running daemon. Dropping it is its death: the socket closes and its rings are no longer served.
#[derive(Debug)]
pub(crate) struct Daemon {
    path: PathBuf,
    seen: Arc<Seen>,
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(path: &Path, behaviour: Behaviour) -> Self {
        let _old = std::fs::remove_file(path);
        let listener = socket::new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::listen(&listener, 8).unwrap();
        let seen = Arc::new(Seen::default());
        let orders = Arc::new(Orders::default());
        let server = Server { behaviour, seen: Arc::clone(&seen), orders: Arc::clone(&orders) };
        let thread = std::thread::spawn(move || server.run(&listener));
        Self { path: path.to_owned(), seen, orders, thread: Some(thread) }
    }

    pub(crate) fn set_link(&self, up: bool) {
        self.orders.link_down.store(!up, SeqCst);
    }

    /// Fault 14: from now on the daemon writes garbage over the whole region.
    pub(crate) fn scribble(&self) {
        self.orders.scribble.store(true, SeqCst);
    }

    /// From now on the daemon answers nothing.
    pub(crate) fn mute(&self) {
        self.orders.mute.store(true, SeqCst);
    }

    /// Makes the daemon say no, with this text, to every Settings.
    pub(crate) fn refuse_settings(&self, text: Option<&str>) {
        *self.orders.refuse_settings.lock().unwrap() = text.map(str::to_owned);
    }

    /// Makes the daemon say no to every flow rule.
    pub(crate) fn refuse_flow_rules(&self) {
        self.orders.refuse_flow_rules.store(true, SeqCst);
    }

    /// The flow rules that there are. Every frame of a flood is taken for one that the first of them, if told, is for.
    pub(crate) fn flow_rules(&self) -> Vec<FlowRule> {
        self.seen.flow_rules.lock().unwrap().values().cloned().collect()
    }

    /// How many of them there were before the first Setup.
    pub(crate) fn early_flow_rules(&self) -> u64 {
        self.seen.early_flow_rules.load(Relaxed)
    }

    /// Frames received from the app.
    pub(crate) fn frames(&self) -> u64 {
        self.seen.frames.load(Relaxed)
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.seen.bytes.load(Relaxed)
    }

    pub(crate) fn hellos(&self) -> u64 {
        self.seen.hellos.load(Relaxed)
    }

    pub(crate) fn setups(&self) -> u64 {
        self.seen.setups.load(Relaxed)
    }

    /// How frames are to be spread over RX queues, as last said.
    pub(crate) fn rss(&self) -> Option<Rss> {
        self.seen.rss.lock().unwrap().clone()
    }

    /// RX rings of each queue, as last asked for and granted.
    pub(crate) fn lanes(&self) -> u64 {
        self.seen.lanes.load(Relaxed)
    }

    /// Regions that the app has said to have mapped.
    pub(crate) fn mapped(&self) -> u64 {
        self.seen.mapped.load(Relaxed)
    }

    pub(crate) fn stops(&self) -> u64 {
        self.seen.stops.load(Relaxed)
    }

    /// Whether an app is connected.
    pub(crate) fn serves(&self) -> bool {
        self.seen.serves.load(SeqCst)
    }

    /// The last Hello.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.seen.hello.lock().unwrap().clone()
    }

    /// The last Settings that were not refused.
    pub(crate) fn settings(&self) -> Option<Settings> {
        self.seen.settings.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.orders.stop.store(true, SeqCst);
        let _old = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Server {
    behaviour: Behaviour,
    seen: Arc<Seen>,
    orders: Arc<Orders>,
}

struct Rings {
    region: Region,
    tx: Vec<Consumer>,
    rx: Vec<Producer>,
}

impl Server {
    fn run(&self, listener: &OwnedFd) {
        while !self.orders.stop.load(SeqCst) {
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => {
                    self.seen.serves.store(true, SeqCst);
                    self.serve(&client);
                    self.seen.serves.store(false, SeqCst);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn link(&self) -> Link {
        Link { up: !self.orders.link_down.load(SeqCst), speed: 10_000 }
    }

    fn serve(&self, client: &OwnedFd) {
        let mut rings: Option<Rings> = None;
        let mut link = self.link();
        let mut idle = 0_u32;
        while !self.orders.stop.load(SeqCst) {
            let worked = rings.as_mut().is_some_and(|rings| self.work(rings));
            idle = if worked { 0 } else { idle + 1 };
            if worked && !idle.is_multiple_of(64) {
                continue;
            }
            if self.link() != link {
                link = self.link();
                let _sent = socket::send(client, &self.envelope(0, Message::Link(link)), &[]);
            }
            match socket::receive(client) {
                Ok((request, _)) if !self.orders.mute.load(SeqCst) => self.answer(client, request, &mut rings),
                Ok(_) => {}
                Err(ReceiveError::WouldBlock) if idle > 1000 => std::thread::sleep(Duration::from_micros(50)),
                Err(ReceiveError::WouldBlock) => {}
                Err(_) => return,
            }
        }
    }

    fn answer(&self, client: &OwnedFd, request: Envelope, rings: &mut Option<Rings>) {
        let behaviour = &self.behaviour;
        if request.protocol != behaviour.protocol {
            let both =
                format!("peer speaks ring protocol {}, this side speaks {}", request.protocol, behaviour.protocol);
            let _sent = socket::send(client, &self.envelope(request.sequence, Message::Refused(both)), &[]);
            return;
        }
        let message = match request.message {
            Message::Hello(hello) => {
                self.seen.hellos.fetch_add(1, Relaxed);
                *self.seen.hello.lock().unwrap() = Some(hello.clone());
                behaviour.refuse.clone().map_or_else(|| self.welcome(&hello), Message::Refused)
            }
            Message::Setup(setup) => {
                let geometry = setup.geometry;
                if behaviour.poor && geometry.lanes() > 1 {
                    let refused = self.envelope(request.sequence, Message::Refused("not that much memory".into()));
                    let _sent = socket::send(client, &refused, &[]);
                    return;
                }
                if self.seen.setups.fetch_add(1, Relaxed) == 0 {
                    let rules = self.seen.flow_rules.lock().unwrap().len();
                    self.seen.early_flow_rules.store(rules as u64, Relaxed);
                }
                self.seen.lanes.store(geometry.lanes().into(), Relaxed);
                let region = Region::create(&geometry, HugePages::Off).unwrap();
                let tx = (0..geometry.tx().len()).map(|q| region.tx_consumer(q).unwrap()).collect();
                let rx = (0..geometry.rx().len()).map(|q| region.rx_producer(q).unwrap()).collect();
                let ready = self.envelope(request.sequence, Message::Ready(geometry));
                let _sent = socket::send(client, &ready, &[region.fd()]);
                region.daemon_status().set_drops(DropReason::RxRingFull, 3);
                *rings = Some(Rings { region, tx, rx });
                return;
            }
            Message::Settings(settings) => {
                let refused = self.orders.refuse_settings.lock().unwrap().clone();
                refused.map_or_else(
                    || {
                        *self.seen.settings.lock().unwrap() = Some(settings);
                        Message::Done
                    },
                    Message::Refused,
                )
            }
            Message::Rss(rss) => {
                *self.seen.rss.lock().unwrap() = Some(rss);
                Message::Done
            }
            Message::Mapped => {
                self.seen.mapped.fetch_add(1, Relaxed);
                Message::Done
            }
            message @ (Message::FlowRule(_) | Message::FlowRuleGone(_)) => self.flow_rule(message),
            Message::Stop => {
                self.seen.stops.fetch_add(1, Relaxed);
                *rings = None;
                Message::Done
            }
            other => panic!("an app never says {other:?}"),
        };
        let _sent = socket::send(client, &self.envelope(request.sequence, message), &[]);
    }

    fn flow_rule(&self, message: Message) -> Message {
        let mut rules = self.seen.flow_rules.lock().unwrap();
        match message {
            Message::FlowRule(_) if self.orders.refuse_flow_rules.load(SeqCst) => {
                return Message::Refused("no such rules here".into());
            }
            Message::FlowRule(rule) => drop(rules.insert(rule.slot, *rule)),
            Message::FlowRuleGone(ALL_FLOW_RULES) => rules.clear(),
            Message::FlowRuleGone(slot) => assert!(rules.remove(&slot).is_some(), "there was no rule {slot}"),
            other => panic!("not about a rule: {other:?}"),
        }
        Message::Done
    }

    fn envelope(&self, sequence: u32, message: Message) -> Envelope {
        Envelope { protocol: self.behaviour.protocol, sequence, message }
    }

    fn welcome(&self, hello: &Hello) -> Message {
        let name = if hello.name.is_empty() { "app".to_owned() } else { hello.name.clone() };
        Message::Welcome(Welcome {
            port: 1,
            name,
            mac: if hello.mac == [0; 6] { [2, 0, 0, 0, 0, 0x77] } else { hello.mac },
            max_mtu: self.behaviour.max_mtu,
            max_queues: 16,
            max_ring: self.behaviour.max_ring,
            slot_size: self.behaviour.slot_size,
            link: self.link(),
            shares: false,
            workers: self.behaviour.workers,
            rss_key: RSS_KEY,
        })
    }

    /// Moves frames once over all rings; whether there were any.
    fn work(&self, rings: &mut Rings) -> bool {
        if self.orders.scribble.load(SeqCst) {
            scribble(&rings.region);
            return false;
        }
        let mut worked = false;
        let mut bytes = vec![0_u8; 16384];
        let queues = rings.rx.len();
        for (queue, tx) in rings.tx.iter_mut().enumerate() {
            tx.poll().unwrap();
            for _ in 0..32 {
                let Some(frame) = tx.next().unwrap() else { break };
                worked = true;
                let bytes = &mut bytes[..frame.len() as usize];
                assert_eq!(tx.copy_from(&frame, 0, bytes), bytes.len());
                self.seen.frames.fetch_add(1, Relaxed);
                self.seen.bytes.fetch_add(u64::from(frame.len()), Relaxed);
                if self.behaviour.echo {
                    let rx = &mut rings.rx[queue % queues];
                    rx.free(8).unwrap();
                    rx.push(bytes, Notes::new(0x211, 0x1234_5678));
                }
            }
            tx.release();
        }
        if let Some(len) = self.behaviour.flood {
            let rules = self.seen.flow_rules.lock().unwrap();
            let told = rules.values().next().filter(|rule| rule.told);
            let notes = told.map_or(Notes::new(0x211, 0x1234_5678), |rule| Notes::steered(0x211, rule.slot, 0));
            drop(rules);
            for (queue, rx) in rings.rx.iter_mut().enumerate() {
                let frame: Vec<u8> = (0..len).map(|i| u8::try_from((i + queue) % 251).unwrap()).collect();
                while rx.free(8).unwrap() >= 8 {
                    rx.push(&frame, notes);
                    worked = true;
                }
            }
        }
        rings.rx.iter_mut().for_each(Producer::publish);
        worked
    }
}

/// Writes garbage over all of a region, through the file as the daemon holds it.
fn scribble(region: &Region) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let page: Vec<u8> = (0..4096)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    for at in (0..region.size()).step_by(4096) {
        rustix::io::pwrite(region.fd(), &page, at as u64).unwrap();
    }
}

//! Apps of several users that load kopid, in one process and on one thread: so what each gets is decided by kopid, and not
//! by whom the kernel lets run.
//!
//! `kopi-load --socket PATH APP…` attaches the apps without DPDK, says `ready`, and keeps the rings of those full that are on.
//! An app is `NAME:UID:KIND[:KEY=NUMBER…]`. Kinds:
//!
//! - `flood`: frames of one flow, as many as kopid takes;
//! - `fresh`: the same, each frame a new flow, or of so many in turn as `flows=` says;
//! - `broadcast`: the same, to everybody;
//! - `pace`: so many frames a second as `rate=` says;
//! - `talk`: frames that each begin a connection; what is answered, it answers again, so both ends talk in earnest;
//! - `echo`: the other end of that;
//! - `fragments`: first fragments, each of another packet;
//! - `silent`: nothing.
//!
//! Keys: `size=` bytes of a frame, `queues=`, `slots=`, `mtu=`, `to=` the number of the app that frames are for (none: the wire),
//! `all=1` to receive all multicast. Each line of the input is `on NAME`, `off NAME`, both for all apps whose names begin like this.
//! It ends with its input.
#![forbid(unsafe_code)]

use clap::Parser;
use kopi_ring::layout::{DEFAULT_SLOT, Notes};
use kopi_ring::message::{Mac, Message, Settings};
use kopi_ring::{Consumer, Geometry, Producer, Region};
use kopi_testkit::evil::Client;
use kopi_testkit::frames::checksum;
use nix::unistd::{Uid, seteuid};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Instant;

/// Frames that an app is given at one time, so that all are looked at often.
const BATCH: u32 = 256;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Apps of several users that load kopid.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    socket: PathBuf,
    apps: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flood,
    Fresh,
    Broadcast,
    Pace,
    Talk,
    Echo,
    Fragments,
    Silent,
}

/// What is asked of one app.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    uid: u32,
    kind: Kind,
    size: usize,
    queues: usize,
    slots: u32,
    mtu: u16,
    to: Option<usize>,
    rate: u64,
    flows: u32,
    all: bool,
}

impl Wanted {
    fn parse(text: &str) -> Outcome<Self> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or_else(|| format!("`{text}` is no app"));
        let (name, uid, kind) = (next()?.to_owned(), next()?.parse()?, next()?);
        let kind = match kind {
            "flood" => Kind::Flood,
            "fresh" => Kind::Fresh,
            "broadcast" => Kind::Broadcast,
            "pace" => Kind::Pace,
            "talk" => Kind::Talk,
            "echo" => Kind::Echo,
            "fragments" => Kind::Fragments,
            "silent" => Kind::Silent,
            other => return Err(format!("`{other}` is no kind").into()),
        };
        let mut wanted = Self {
            name,
            uid,
            kind,
            size: 60,
            queues: 1,
            slots: 1024,
            mtu: 1500,
            to: None,
            rate: 1000,
            flows: 1 << 24,
            all: false,
        };
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is no key"))?;
            match key {
                "size" => wanted.size = value.parse()?,
                "queues" => wanted.queues = value.parse()?,
                "slots" => wanted.slots = value.parse()?,
                "mtu" => wanted.mtu = value.parse()?,
                "to" => wanted.to = Some(value.parse()?),
                "rate" => wanted.rate = value.parse()?,
                "flows" => wanted.flows = value.parse()?,
                "all" => wanted.all = value == "1",
                other => return Err(format!("`{other}` is no key").into()),
            }
        }
        Ok(wanted)
    }
}

fn mac_of(app: usize) -> Mac {
    let number = u16::try_from(app).unwrap_or(u16::MAX).to_be_bytes();
    [2, 0x10, 0xad, 0, number[0], number[1]]
}

/// A frame of `size` bytes with UDP in IPv4, from app `from`.
fn frame(from: usize, to: Mac, size: usize) -> Vec<u8> {
    let mut frame = vec![0; size.max(60)];
    let number = u8::try_from(from % 250).unwrap_or(0);
    let len = u16::try_from(frame.len() - 14).unwrap_or(u16::MAX);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&mac_of(from));
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..34].copy_from_slice(&[10, 9, 0, number, 10, 9, 1, 1]);
    frame[34..38].copy_from_slice(&[4, 0, 8, 0]);
    frame[38..40].copy_from_slice(&(len - 20).to_be_bytes());
    sum_up(&mut frame);
    frame
}

/// Writes the checksum of the IPv4 header.
fn sum_up(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Where a frame of a talk says how often it went to and fro, and how often it does.
const TURN: usize = 42;
const TURNS: u8 = 2;

/// Makes a frame of a talk into its answer. Whether there is one.
fn answer(frame: &mut [u8]) -> bool {
    if frame.len() <= TURN || frame[12..14] != [8, 0] || frame[TURN] >= TURNS {
        return false;
    }
    frame[TURN] += 1;
    let (destination, source) = frame.split_at_mut(6);
    destination.swap_with_slice(&mut source[..6]);
    let (source, destination) = frame[26..34].split_at_mut(4);
    source.swap_with_slice(destination);
    let (source, destination) = frame[34..38].split_at_mut(2);
    source.swap_with_slice(destination);
    true
}

/// An attached app.
struct App {
    wanted: Wanted,
    on: bool,
    frame: Vec<u8>,
    answer: Vec<u8>,
    /// Frames made so far, for those that differ, and since it is on.
    made: u32,
    sent: u64,
    since: Instant,
    tx: Vec<Producer>,
    rx: Vec<Consumer>,
    _client: Client,
    _region: Region,
}

impl App {
    fn attach(socket: &Path, number: usize, wanted: Wanted) -> Outcome<Self> {
        // The kernel notes who connects.
        seteuid(Uid::from_raw(wanted.uid))?;
        let client = Client::try_connect(socket);
        seteuid(Uid::from_raw(0))?;
        let mut client = client?;
        let sizes = vec![wanted.slots; wanted.queues];
        let geometry = Geometry::new(&sizes, &sizes, DEFAULT_SLOT)?;
        let mac = mac_of(number);
        match client.ask(kopi_testkit::evil::hello(&wanted.name, mac)) {
            Ok((Message::Welcome(_), _)) => {}
            other => return Err(format!("{}: {other:?}", wanted.name).into()),
        }
        let region = client.setup(&geometry);
        let settings = Settings { mtu: wanted.mtu, macs: vec![mac], all_multicast: wanted.all, ..Settings::default() };
        match client.ask(Message::Settings(settings)) {
            Ok((Message::Done, _)) => {}
            other => return Err(format!("{}: {other:?}", wanted.name).into()),
        }
        let to = match (wanted.kind, wanted.to) {
            (Kind::Broadcast, _) => [0xff; 6],
            (_, Some(to)) => mac_of(to),
            (_, None) => [2, 0, 0, 0, 0xff, 0xff],
        };
        let tx = (0..wanted.queues).filter_map(|queue| region.tx_producer(queue)).collect();
        let rx = (0..wanted.queues).filter_map(|queue| region.rx_consumer(queue)).collect();
        let frame = frame(number, to, wanted.size);
        let (made, sent, since) = (0, 0, Instant::now());
        let answer = vec![0; usize::from(wanted.mtu) + 14];
        Ok(Self { wanted, on: false, frame, answer, made, sent, since, tx, rx, _client: client, _region: region })
    }

    /// Fills its rings, and empties those where it receives.
    fn serve(&mut self) -> Outcome<()> {
        if self.on && !matches!(self.wanted.kind, Kind::Silent | Kind::Echo) {
            self.send()?;
        }
        let talks = matches!(self.wanted.kind, Kind::Talk | Kind::Echo);
        for (rx, tx) in self.rx.iter_mut().zip(&mut self.tx) {
            if rx.poll()? == 0 {
                continue;
            }
            while let Some(frame) = rx.next()? {
                let len = usize::try_from(frame.len())?;
                if let (true, Some(bytes)) = (talks, self.answer.get_mut(..len)) {
                    rx.copy(&frame, bytes);
                    // With its ring full, it has nothing to say.
                    let slots = tx.slots_for(frame.len());
                    if answer(bytes) && tx.free(slots)? >= slots {
                        tx.push(bytes, Notes::NONE);
                    }
                }
            }
            rx.release();
            tx.publish();
        }
        Ok(())
    }

    fn send(&mut self) -> Outcome<()> {
        let Self { wanted, frame, made, sent, since, tx, .. } = self;
        let micros = u64::try_from(since.elapsed().as_micros())?;
        for ring in tx {
            let slots = ring.slots_for(u32::try_from(frame.len())?);
            let room = (ring.free(slots * BATCH)? / slots).min(BATCH);
            let room = match wanted.kind {
                Kind::Pace => room.min(u32::try_from((micros * wanted.rate / 1_000_000).saturating_sub(*sent))?),
                _ => room,
            };
            for _ in 0..room {
                if wanted.kind == Kind::Fresh {
                    *made = (*made + 1) % wanted.flows.clamp(1, 1 << 24);
                    let source = (*made | 0x0b00_0000).to_be_bytes();
                    frame[26..30].copy_from_slice(&source);
                    sum_up(frame);
                }
                if wanted.kind == Kind::Talk {
                    *made = made.wrapping_add(1);
                    frame[34..38].copy_from_slice(&made.to_be_bytes());
                }
                if wanted.kind == Kind::Fragments {
                    *made = made.wrapping_add(1);
                    let [_, source, id @ ..] = made.to_be_bytes();
                    frame[18..20].copy_from_slice(&id);
                    frame[20..22].copy_from_slice(&[0x20, 0]);
                    frame[28] = source;
                    sum_up(frame);
                }
                ring.push(frame, Notes::NONE);
            }
            *sent += u64::from(room);
            ring.publish();
        }
        Ok(())
    }
}

fn lines() -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

fn run() -> Outcome<()> {
    let arguments = Arguments::parse();
    let mut apps = Vec::new();
    for (number, text) in arguments.apps.iter().enumerate() {
        apps.push(App::attach(&arguments.socket, number, Wanted::parse(text)?)?);
    }
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;
    let lines = lines();
    loop {
        match lines.try_recv() {
            Ok(line) => {
                let (what, name) = line.split_once(' ').ok_or_else(|| format!("`{line}` is no order"))?;
                for app in apps.iter_mut().filter(|app| app.wanted.name.starts_with(name)) {
                    (app.on, app.sent, app.since) = (what == "on", 0, Instant::now());
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        for app in &mut apps {
            app.serve()?;
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "kopi-load: {error}"));
            ExitCode::FAILURE
        }
    }
}

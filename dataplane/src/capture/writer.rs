//! What a session writes, as blocks of pcapng: who is behind each port, each frame with its owner, and what was lost.

use super::port_names::{Member, PortNames};
use super::request::Request;
use crate::control::identity::Identity;
use crate::ids::PortId;
use crate::stages::mirror::{PortCounts, RecordHeader};
use kopi_config::policy::Decision;
use kopi_pcapng::{self as pcapng, Direction, Note};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Snapshots that records are told by, at most: those in a ring may be some snapshots old.
const SNAPSHOTS: usize = 64;
/// Labels that are kept; there are as many as there are apps, rules and reasons together.
const LABELS: usize = 4096;

/// What the mirrors of all workers have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Frames looked at, at each capture point that they pass.
    pub seen: u64,
    /// Those that were wanted.
    pub received: u64,
    /// Those of them that found no room in the ring.
    pub lost: u64,
}

impl Sums {
    /// The sums of `counts`, for one port or for all.
    #[must_use]
    pub fn of(counts: &[Arc<[PortCounts]>], port: Option<PortId>) -> Self {
        let mut sums = Self::default();
        for counts in counts {
            let one = port.and_then(|port| counts.get(usize::from(port))).map(std::slice::from_ref);
            for counts in if port.is_some() { one.unwrap_or_default() } else { counts } {
                sums.seen += counts.seen.get();
                // In this order: what is lost was received before.
                sums.lost += counts.lost.get();
                sums.received += counts.received.get();
            }
        }
        sums
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { seen: self.seen + other.seen, received: self.received + other.received, lost: self.lost + other.lost }
    }

    const fn since(self, base: Self) -> Self {
        Self {
            seen: self.seen.wrapping_sub(base.seen),
            received: self.received.wrapping_sub(base.received),
            lost: self.lost.wrapping_sub(base.lost),
        }
    }
}

/// Who is behind each port, and what had been counted there just before workers saw it so.
#[derive(Debug)]
pub struct EpochNames {
    /// The ports.
    pub names: Arc<PortNames>,
    /// By port, for as many as there are.
    pub sums: Box<[Sums]>,
}

impl EpochNames {
    /// `names` right now, over what `counts` have counted.
    #[must_use]
    pub fn new(names: Arc<PortNames>, counts: &[Arc<[PortCounts]>]) -> Self {
        let sums = sums_of_each(counts, names.ports());
        Self { names, sums }
    }

    fn base(&self, port: PortId) -> Sums {
        self.sums.get(usize::from(port)).copied().unwrap_or_default()
    }
}

fn sums_of_each(counts: &[Arc<[PortCounts]>], ports: usize) -> Box<[Sums]> {
    (0..).take(ports).map(|port| Sums::of(counts, Some(port))).collect()
}

/// One port in the file.
#[derive(Debug)]
struct Interface {
    member: Member,
    /// Its number in the file, once it is written there.
    number: Option<u32>,
    /// What the port's counters stood at when it, or the file, began.
    base: Sums,
    /// The same when another app got the port's number.
    end: Option<Sums>,
    /// Packets in blocks that are not written yet.
    pending: u64,
    /// Packets written.
    delivered: u64,
    /// Packets given up because there was no room for them.
    given_up: u64,
    /// Time of its last packet.
    last_ns: u64,
}

/// What is written with every frame that has the same owner, verdict, rule and queue.
#[derive(Clone, Debug)]
struct Label {
    interface: usize,
    comment: Arc<str>,
}

/// The blocks of one session.
#[derive(Debug)]
pub struct Writer {
    request: Arc<Request>,
    counts: Vec<Arc<[PortCounts]>>,
    snapshots: VecDeque<EpochNames>,
    interfaces: Vec<Interface>,
    labels: BTreeMap<[u64; 2], Label>,
    last: Option<([u64; 2], Label)>,
    /// Whether the file's first block is written, or waits to be.
    begun: bool,
    /// The same, and it is written for good.
    committed: bool,
    /// Interfaces that are written for good.
    numbered: u32,
    start_ns: u64,
    delivered: u64,
    given_up: u64,
}

impl Writer {
    /// The blocks for `request`, from ports as `names` has them, counted in `counts` from 0 on.
    #[must_use]
    pub fn new(request: Arc<Request>, counts: Vec<Arc<[PortCounts]>>, names: Arc<PortNames>, now_ns: u64) -> Self {
        let sums = vec![Sums::default(); names.ports()].into();
        let mut writer = Self {
            request,
            counts,
            snapshots: VecDeque::new(),
            interfaces: Vec::new(),
            labels: BTreeMap::new(),
            last: None,
            begun: false,
            committed: false,
            numbered: 0,
            start_ns: now_ns,
            delivered: 0,
            given_up: 0,
        };
        writer.learn(EpochNames { names, sums });
        writer
    }

    /// Packets written for good.
    #[must_use]
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Packets in blocks that wait to be written.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.interfaces.iter().map(|interface| interface.pending).sum()
    }

    /// Packets given up because the disk was full, or the reader did not read.
    #[must_use]
    pub const fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether the snapshot with the epoch `epoch` is known.
    #[must_use]
    pub fn knows(&self, epoch: u32) -> bool {
        self.snapshots.iter().any(|snapshot| snapshot.names.epoch == epoch)
    }

    /// Learns who is behind each port under another snapshot, or anew under one that is known.
    pub fn learn(&mut self, snapshot: EpochNames) {
        self.list(&snapshot);
        self.snapshots.retain(|known| known.names.epoch != snapshot.names.epoch);
        if self.snapshots.len() >= SNAPSHOTS {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back(snapshot);
        self.forget_labels();
    }

    /// Makes interfaces of the ports that the file is to have from the beginning.
    fn list(&mut self, snapshot: &EpochNames) {
        let request = Arc::clone(&self.request);
        for member in snapshot.names.members().filter(|member| request.lists(member)) {
            self.interface(member, snapshot.base(member.id));
        }
    }

    /// The interface of a port, made if there is none. Its counters have begun at `base`.
    fn interface(&mut self, member: &Member, base: Sums) -> usize {
        let is_it = |i: &Interface| i.member.id == member.id && i.member.generation == member.generation;
        if let Some(at) = self.interfaces.iter().position(is_it) {
            return at;
        }
        let before =
            |other: &&mut Interface| other.member.id == member.id && other.member.generation < member.generation;
        for other in self.interfaces.iter_mut().filter(before) {
            other.end.get_or_insert(base);
        }
        // A frame of an app that is gone, which another one has followed already.
        let newer = |other: &Interface| other.member.id == member.id && other.member.generation > member.generation;
        let over = self.interfaces.iter().any(newer);
        self.interfaces.push(Interface {
            member: member.clone(),
            number: None,
            base,
            end: over.then_some(base),
            pending: 0,
            delivered: 0,
            given_up: 0,
            last_ns: 0,
        });
        self.interfaces.len() - 1
    }

    /// Writes what has to stand before the next packet: the first block, and interfaces that are new.
    pub fn prepare(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            pcapng::section(
                out,
                &pcapng::Section {
                    hardware: std::env::consts::ARCH,
                    os: std::env::consts::OS,
                    application: concat!("kopid ", env!("CARGO_PKG_VERSION")),
                },
            );
        }
        let first = self.next_number();
        let expression = self.request.expression();
        let new = self.interfaces.iter_mut().filter(|interface| interface.number.is_none());
        for (number, interface) in (first..).zip(new) {
            interface.number = Some(number);
            pcapng::interface(
                out,
                &pcapng::Interface {
                    name: &interface.member.name,
                    description: &interface.member.description,
                    mac: interface.member.mac,
                    filter: (!expression.is_empty()).then_some(expression),
                    snap: self.request.snap(),
                },
            );
        }
    }

    /// Writes one frame, seen at `ns`, whose kept bytes are the pieces `data`.
    pub fn packet<'d>(
        &mut self,
        header: &RecordHeader,
        ns: u64,
        data: impl Iterator<Item = &'d [u8]>,
        out: &mut Vec<u8>,
    ) {
        let kind = header.kind();
        let label = match &self.last {
            Some((last, label)) if *last == kind => label.clone(),
            _ => {
                let label = self.label(kind, header);
                self.last = Some((kind, label.clone()));
                label
            }
        };
        if self.interfaces.get(label.interface).is_none_or(|interface| interface.number.is_none()) {
            self.prepare(out);
        }
        let Some(interface) = self.interfaces.get_mut(label.interface) else { return };
        // Workers begin their turns at different times, so what two of them have seen may come in another order.
        interface.last_ns = interface.last_ns.max(ns);
        interface.pending += 1;
        let packet = pcapng::Packet {
            interface: interface.number.unwrap_or(0),
            timestamp_ns: interface.last_ns,
            len: header.len,
            direction: if header.record.out { Direction::Outbound } else { Direction::Inbound },
            queue: Some(header.queue.into()),
            drops: header.lost.into(),
            comment: &label.comment,
        };
        pcapng::packet(out, &packet, data);
    }

    fn label(&mut self, kind: [u64; 2], header: &RecordHeader) -> Label {
        if let Some(label) = self.labels.get(&kind) {
            return label.clone();
        }
        let record = &header.record;
        let snapshots = &self.snapshots;
        let snapshot =
            snapshots.iter().rev().find(|snapshot| snapshot.names.epoch == header.epoch).or_else(|| snapshots.back());
        let base = snapshot.map(|snapshot| snapshot.base(record.port)).unwrap_or_default();
        let names = snapshot.map(|snapshot| Arc::clone(&snapshot.names));
        let member = names.as_deref().and_then(|names| names.member(record.port)).cloned();
        // The app may be gone from all snapshots that are known, if there were very many since.
        let member = member.unwrap_or_else(|| Member {
            id: record.port,
            generation: 0,
            name: format!("port-{}", record.port),
            identity: None,
            description: "not known any more".into(),
            mac: None,
        });
        let interface = self.interface(&member, base);
        let owner = names.as_deref().and_then(|names| names.member(record.owner)).filter(|owner| owner.id != 0);
        let identity = owner.and_then(|owner| owner.identity.as_ref());
        let refused = record.decision != Decision::Accept;
        let note = Note {
            app: owner.map(|owner| owner.name.as_str()),
            pid: identity.map(|of| of.pid),
            uid: identity.and_then(Identity::known_uid),
            user: identity.and_then(|of| of.user.as_deref()),
            comm: identity.map(|of| of.comm.as_str()),
            container: identity.and_then(Identity::container).map(|of| of.id.as_str()),
            pod: identity.and_then(Identity::pod),
            verdict: record.decision.as_str(),
            reason: record.reason.filter(|_| refused).map(kopi_ring::DropReason::name),
            rule: header.rule.and_then(|rule| names.as_deref()?.rule(rule)),
            queue: Some(header.queue.into()),
        };
        let mut comment = String::new();
        note.write(&mut comment);
        let label = Label { interface, comment: comment.into() };
        if self.labels.len() >= LABELS {
            self.labels.clear();
        }
        self.labels.insert(kind, label.clone());
        label
    }

    fn forget_labels(&mut self) {
        self.labels.clear();
        self.last = None;
    }

    /// Counts one frame that is not written and never will be.
    pub fn lose(&mut self, header: &RecordHeader) {
        let label = self.label(header.kind(), header);
        if let Some(interface) = self.interfaces.get_mut(label.interface) {
            interface.given_up += 1;
        }
        self.given_up += 1;
    }

    /// Notes that everything so far is written.
    pub fn commit(&mut self) {
        self.committed = self.begun;
        for interface in &mut self.interfaces {
            self.delivered += interface.pending;
            interface.delivered += std::mem::take(&mut interface.pending);
        }
        self.numbered = self.next_number();
    }

    /// The number that the file's next interface gets.
    fn next_number(&self) -> u32 {
        self.interfaces.iter().filter_map(|interface| interface.number).max().map_or(0, |last| last + 1)
    }

    /// Notes that nothing is written of what came since the last [`commit`](Self::commit), and never will be.
    pub fn give_up(&mut self) {
        self.begun = self.committed;
        for interface in &mut self.interfaces {
            self.given_up += interface.pending;
            interface.given_up += std::mem::take(&mut interface.pending);
            interface.number = interface.number.filter(|number| *number < self.numbered);
        }
    }

    /// Writes the statistics that end a file. What is counted from now on belongs to the next one.
    pub fn end(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        let sums = sums_of_each(&self.counts, self.counts.first().map_or(0, |counts| counts.len()));
        for interface in &self.interfaces {
            let Some(number) = interface.number else { continue };
            let now = interface.end.or_else(|| sums.get(usize::from(interface.member.id)).copied()).unwrap_or_default();
            let counted = now.since(interface.base);
            let statistics = pcapng::Statistics {
                interface: number,
                timestamp_ns: now_ns,
                start_ns: self.start_ns,
                end_ns: now_ns,
                received: counted.seen,
                accepted: counted.received,
                dropped: counted.lost + interface.given_up,
                delivered: interface.delivered + interface.pending,
            };
            pcapng::statistics(out, &statistics);
        }
        for snapshot in &mut self.snapshots {
            snapshot.sums.iter_mut().zip(&sums).for_each(|(base, now)| *base = *now);
        }
    }

    /// Begins another file, with the ports that there are now.
    pub fn begin_anew(&mut self, now_ns: u64) {
        (self.begun, self.committed, self.numbered) = (false, false, 0);
        self.start_ns = now_ns;
        self.interfaces.clear();
        self.forget_labels();
        if let Some(snapshot) = self.snapshots.pop_back() {
            self.list(&snapshot);
            self.snapshots.push_back(snapshot);
        }
    }
}

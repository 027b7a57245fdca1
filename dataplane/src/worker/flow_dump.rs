//! Dumps of a worker's flows, for operators.
//!
//! A list goes from a worker to an operator in pieces of a bounded size, each asked for when the one before is on its way to its reader.
//! The control thread brings the memory, which it has used before, and the worker copies a few flows into it in each iteration, so that
//! traffic does not wait. What has come is copied out, and made into text by the thread of the operator who has asked.
//!
//! A worker fills in one piece at a time. Users have their turns, however many lists each of them reads.

use crate::control::app::App;
use crate::control::ports::PortTable;
use crate::control::workers::Dataplane;
use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::{CounterKey, PolicyCounters};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use crate::worker::flow_table::{Flow, FlowTable};
use kopi_config::policy::Decision;
use kopi_packet::FlowKey;
use kopi_policy::Ruleset;
use kopi_ring::DropReason;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Flows of a piece. Each is half a kilobyte of text later, for each connection of an operator that reads a list.
pub const PIECE: usize = 256;

/// Flows copied in one iteration, and buckets looked at for them: about as long as a few bursts take.
const FLOWS: usize = 128;
const BUCKETS: usize = 256;

/// How long a worker may take for a piece.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One flow, as it was when it was copied.
#[derive(Clone, Copy, Debug)]
pub struct DumpedFlow {
    /// What its packets have in common.
    pub key: FlowKey,
    /// What is known about it.
    pub flow: Flow,
    /// What the policy said at the sender's and at the receiver's side.
    pub outcomes: [Option<CounterKey>; 2],
    /// Whether it was evaluated before the ports or the policy changed last. Its next frame has it evaluated anew.
    pub outdated: bool,
}

impl DumpedFlow {
    /// What its verdict says for the side of app `id`, as far as it is the policy's.
    #[must_use]
    pub fn decision(&self, id: PortId) -> Decision {
        let of_policy = |reason: DropReason| reason.stage() == "filter";
        match self.flow.verdict {
            Verdict::Drop(reason) if id == self.key.source() && of_policy(reason) => Decision::Drop,
            Verdict::Refuse(whose, reason) if id == whose && of_policy(reason) => Decision::Drop,
            Verdict::Reject(whose) if id == whose => Decision::Reject,
            _ => Decision::Accept,
        }
    }

    /// Number of its class at the sender's side, or at the receiver's with 1. One that was not judged by the policy of the list has none:
    /// its number is that of another policy's class.
    #[must_use]
    pub fn class(&self, side: usize) -> Option<u16> {
        self.outcomes.get(side).copied().flatten()?;
        self.flow.hooks.classes.get(side)?.checked_sub(1)
    }

    /// The app that gets its packets, or would get them if it were not for the policy.
    #[must_use]
    pub fn receiver(&self) -> Option<PortId> {
        match self.flow.verdict {
            Verdict::App(id) | Verdict::Refuse(id, _) => Some(id),
            Verdict::Reject(id) if id != self.key.source() => Some(id),
            _ => None,
        }
    }
}

/// Some flows of one worker, all evaluated under one snapshot. Never grows beyond its first capacity.
#[derive(Debug)]
pub struct FlowDump {
    /// Which piece it is, and of which worker.
    serial: u64,
    worker: usize,
    flows: Vec<DumpedFlow>,
    /// The bucket to go on with.
    next: usize,
    /// Whether there are more.
    has_more: bool,
    snapshot: Option<Arc<Snapshot>>,
}

impl FlowDump {
    /// Room for [`PIECE`] flows, all of it in memory.
    fn new() -> Self {
        let (_, key) = kopi_packet::parse(&[], 0);
        let mut flows = vec![DumpedFlow { key, flow: Flow::EMPTY, outcomes: [None; 2], outdated: false }; PIECE];
        flows.clear();
        Self { serial: 0, worker: 0, flows, next: 0, has_more: false, snapshot: None }
    }

    /// Begins piece `serial`, at `position`.
    fn begin(&mut self, serial: u64, position: Position) {
        self.flows.clear();
        (self.serial, self.worker, self.next, self.has_more) = (serial, position.worker, position.bucket, false);
    }

    /// Copies some more flows, evaluated under `snapshot` and counted in `policy_counters`, or not evaluated anew yet; returns whether these were the last ones.
    pub fn proceed(&mut self, table: &FlowTable, policy_counters: &PolicyCounters, snapshot: &Arc<Snapshot>) -> bool {
        let epoch = snapshot.epoch();
        if self.snapshot.get_or_insert_with(|| Arc::clone(snapshot)).epoch() != epoch {
            self.has_more = true;
            return true;
        }
        let full = self.flows.capacity().min(self.flows.len() + FLOWS) - FlowTable::WAYS;
        let to = table.buckets().min(self.next + BUCKETS);
        while self.next < to && self.flows.len() <= full {
            let flows = table.flows(self.next, self.next + 1).map(|(key, flow)| DumpedFlow {
                key: *key,
                flow: *flow,
                outcomes: flow
                    .hooks
                    .counter_ids
                    .map(|counter_id| policy_counters.key(counter_id).filter(|_| flow.epoch == epoch)),
                outdated: flow.epoch != epoch,
            });
            self.flows.extend(flows);
            self.next += 1;
        }
        self.has_more = self.next < table.buckets();
        !self.has_more || self.flows.len() + FlowTable::WAYS > self.flows.capacity()
    }
}

/// Where a list goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    worker: usize,
    bucket: usize,
}

/// Who is behind a port, as far as lists say it.
#[derive(Clone, Debug)]
pub struct Who {
    /// The app's name.
    pub name: String,
    /// Its process, as far as it is known.
    pub pid: i32,
    /// Its user, if one is known.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<String>,
    /// What the process calls itself.
    pub comm: String,
}

impl Who {
    fn of(app: &App) -> Self {
        let identity = &app.identity;
        Self {
            name: app.name.clone(),
            pid: identity.pid,
            uid: identity.known_uid(),
            user: identity.user.clone(),
            comm: identity.comm.clone(),
        }
    }
}

/// What a policy calls the rules and classes of some flows, and what else of it their rows need. Not the policy itself: whoever reads
/// slowly does not keep old ones, and is told of the one that was in force when the flows were copied.
#[derive(Clone, Debug, Default)]
pub struct Names {
    rules: BTreeMap<u32, String>,
    classes: BTreeMap<u16, String>,
    /// Whether it asks for states of connections.
    pub uses_state: bool,
    /// Flags of TCP that it looks at.
    pub tcp_flags: u8,
}

impl Names {
    fn of(flows: &[DumpedFlow], ruleset: &Ruleset) -> Self {
        let (uses_state, tcp_flags) = (ruleset.uses_state(), ruleset.tcp_flags_mask());
        let mut names = Self { uses_state, tcp_flags, ..Self::default() };
        for listed in flows {
            for rule in listed.outcomes.iter().flatten().filter_map(|outcome| outcome.cause.rule()) {
                if let Some(named) = usize::try_from(rule).ok().and_then(|rule| ruleset.rules().get(rule)) {
                    names.rules.entry(rule).or_insert_with(|| named.name.clone());
                }
            }
            for class in [0, 1].into_iter().filter_map(|at| listed.class(at)) {
                if let Some(named) = ruleset.policy().classes.get(usize::from(class)) {
                    names.classes.entry(class).or_insert_with(|| named.name.clone());
                }
            }
        }
        names
    }

    /// The name of rule number `rule`, if one of the flows was judged by it.
    #[must_use]
    pub fn rule(&self, rule: u32) -> Option<&str> {
        self.rules.get(&rule).map(String::as_str)
    }

    /// The name of class number `class`, if one of the flows is in it.
    #[must_use]
    pub fn class(&self, class: u16) -> Option<&str> {
        self.classes.get(&class).map(String::as_str)
    }
}

/// A piece of a list.
#[derive(Debug)]
pub struct Piece {
    /// Its flows.
    pub flows: Vec<DumpedFlow>,
    /// The apps that they come from or go to, as far as they are still there.
    pub who: BTreeMap<PortId, Who>,
    /// What the policy that they were evaluated by calls what they have to do with; `None` without a policy.
    pub names: Option<Names>,
    /// Where the next piece begins, unless this is the last one.
    pub next: Option<Position>,
}

/// A piece, or why there is none, for people.
pub type Given = Result<Piece, String>;

/// Who waits for a piece.
#[derive(Debug)]
struct Asked {
    account: u32,
    position: Position,
    to: SyncSender<Given>,
}

/// A piece that a worker fills in.
#[derive(Debug)]
struct Current {
    serial: u64,
    until: Instant,
    /// `None` once it has taken too long.
    to: Option<SyncSender<Given>>,
}

/// What there is for one worker.
#[derive(Debug, Default)]
struct Desk {
    spare: Option<Box<FlowDump>>,
    current: Option<Current>,
}

/// The lists that operators read.
#[derive(Debug, Default)]
pub struct Lists {
    waiting: Vec<Asked>,
    desks: Vec<Desk>,
    /// Number of the last piece that a user has had, of those who wait.
    served: BTreeMap<u32, u64>,
    serial: u64,
}

impl Lists {
    /// Asks for the piece at `position` for user `account`.
    pub fn ask(&mut self, account: u32, position: Position) -> Receiver<Given> {
        let (to, piece) = sync_channel(1);
        self.waiting.push(Asked { account, position, to });
        piece
    }

    /// Whether any is asked for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.desks.iter().any(|desk| desk.current.is_some())
    }

    /// Takes what a worker has filled in, and gives it to who has asked. `ports` says who the apps are.
    pub fn take(&mut self, mut part: Box<FlowDump>, ports: &PortTable) {
        let (worker, workers) = (part.worker, self.desks.len());
        let Some(desk) = self.desks.get_mut(worker) else { return };
        if let Some(Current { to: Some(to), .. }) = desk.current.take_if(|current| current.serial == part.serial) {
            let snapshot = part.snapshot.take();
            let filter = snapshot.as_deref().and_then(Snapshot::policies);
            let next = match part.has_more {
                true => Some(Position { worker, bucket: part.next }),
                false => Some(Position { worker: worker + 1, bucket: 0 }).filter(|position| position.worker < workers),
            };
            let piece = Piece {
                flows: part.flows.clone(),
                who: who(&part.flows, filter, ports),
                names: filter.map(|filter| Names::of(&part.flows, filter.ruleset())),
                next,
            };
            // Whoever does not wait any more does not need it.
            drop(to.try_send(Ok(piece)));
        }
        part.snapshot = None;
        desk.spare = Some(part);
    }

    /// Has workers that have nothing of the kind to do begin with the next pieces, and tells who has waited for too long.
    pub fn proceed(&mut self, dataplane: &mut Dataplane) {
        self.desks.resize_with(dataplane.workers(), Desk::default);
        for (worker, desk) in self.desks.iter_mut().enumerate() {
            if let Some(current) = &mut desk.current {
                if Instant::now() < current.until {
                    continue;
                }
                // It has the memory still, and is not asked again until it has given it back.
                let silent = || Err(format!("worker {worker} has not listed its flows within {TIMEOUT:?}"));
                let late = self.waiting.extract_if(.., |asked| asked.position.worker == worker).map(|asked| asked.to);
                current.to.take().into_iter().chain(late).for_each(|to| drop(to.try_send(silent())));
                continue;
            }
            let of_worker = self.waiting.iter().enumerate().filter(|(_, asked)| asked.position.worker == worker);
            let last = |asked: &Asked| self.served.get(&asked.account).copied();
            let Some(at) = of_worker.min_by_key(|(at, asked)| (last(asked), *at)).map(|(at, _)| at) else { continue };
            let Asked { account, position, to } = self.waiting.remove(at);
            self.serial += 1;
            self.served.insert(account, self.serial);
            let mut dump = desk.spare.take().unwrap_or_else(|| FlowDump::new().into());
            dump.begin(self.serial, position);
            desk.current = Some(Current { serial: self.serial, until: Instant::now() + TIMEOUT, to: Some(to) });
            dataplane.list(worker, dump);
        }
        if !self.is_busy() {
            self.served.clear();
        }
    }
}

/// The apps that `flows` come from or go to. An app that has the number of one that is gone is another one.
fn who(flows: &[DumpedFlow], filter: Option<&PolicyTable>, ports: &PortTable) -> BTreeMap<PortId, Who> {
    let mut who = BTreeMap::new();
    for id in flows.iter().flat_map(|flow| [Some(flow.key.source()), flow.receiver()]).flatten() {
        if id == WIRE || who.contains_key(&id) {
            continue;
        }
        let app = ports.get(id);
        let app = app.filter(|app| filter.is_none_or(|filter| filter.generation(id) == app.generation));
        who.insert(id, app.map(Who::of));
    }
    who.into_iter().filter_map(|(id, who)| Some((id, who?))).collect()
}

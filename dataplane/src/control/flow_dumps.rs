//! Dumps of all workers' flows, for operators.
//!
//! A dump goes from a worker to an operator in pieces of a bounded size, each asked for when the one before is on its way to its reader.
//! The control thread brings the memory, which it has used before, and a worker fills it in. What has come is copied out, and made into
//! text by the thread of the operator who has asked.
//!
//! A worker fills in one piece at a time. Users have their turns, however many dumps each of them reads.

use crate::control::app::App;
use crate::control::ports::PortTable;
use crate::control::workers::Dataplane;
use crate::ids::{PortId, WIRE};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use crate::worker::flow_dump::{DumpedFlow, FlowDump, Position};
use kopi_policy::Ruleset;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Timeout for a worker to fill in a piece.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Who is behind a port, as far as dumps say it.
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
    /// Its container, if it is in one.
    pub container: Option<String>,
    /// Its pod, likewise.
    pub pod: Option<String>,
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
            container: identity.container().map(|of| of.id.clone()),
            pod: identity.pod().map(str::to_owned),
        }
    }
}

/// What a policy calls the rules and classes of some flows, and what else of it their rows need. Not the policy itself: whoever reads
/// slowly does not keep old ones, and is told of the one that was in force when the flows were copied.
#[derive(Clone, Debug, Default)]
pub struct RuleNames {
    rules: BTreeMap<u32, String>,
    classes: BTreeMap<u16, String>,
    /// Whether it asks for states of connections.
    pub uses_state: bool,
    /// Flags of TCP that it looks at.
    pub tcp_flags: u8,
}

impl RuleNames {
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
    pub names: Option<RuleNames>,
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
struct WorkerDump {
    spare: Option<Box<FlowDump>>,
    current: Option<Current>,
}

/// The dumps that operators read.
#[derive(Debug, Default)]
pub struct FlowDumps {
    waiting: Vec<Asked>,
    workers: Vec<WorkerDump>,
    /// Number of the last piece that a user has had, of those who wait.
    served: BTreeMap<u32, u64>,
    serial: u64,
}

impl FlowDumps {
    /// Asks for the piece at `position` for user `account`.
    pub fn ask(&mut self, account: u32, position: Position) -> Receiver<Given> {
        let (to, piece) = sync_channel(1);
        self.waiting.push(Asked { account, position, to });
        piece
    }

    /// Whether any is asked for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.workers.iter().any(|slot| slot.current.is_some())
    }

    /// Takes what a worker has filled in, and gives it to who has asked. `ports` says who the apps are.
    pub fn take(&mut self, mut part: Box<FlowDump>, ports: &PortTable) {
        let (worker, workers) = (part.worker, self.workers.len());
        let Some(slot) = self.workers.get_mut(worker) else { return };
        if let Some(Current { to: Some(to), .. }) = slot.current.take_if(|current| current.serial == part.serial) {
            let snapshot = part.snapshot.take();
            let filter = snapshot.as_deref().and_then(Snapshot::policies);
            let next = match part.has_more {
                true => Some(Position { worker, bucket: part.next }),
                false => Some(Position { worker: worker + 1, bucket: 0 }).filter(|position| position.worker < workers),
            };
            let piece = Piece {
                flows: part.flows.clone(),
                who: who(&part.flows, filter, ports),
                names: filter.map(|filter| RuleNames::of(&part.flows, filter.ruleset())),
                next,
            };
            // An operator that has gone does not need it.
            drop(to.try_send(Ok(piece)));
        }
        part.snapshot = None;
        slot.spare = Some(part);
    }

    /// Has workers that have nothing of the kind to do begin with the next pieces, and tells who has waited for too long.
    pub fn proceed(&mut self, dataplane: &mut Dataplane) {
        self.workers.resize_with(dataplane.workers(), WorkerDump::default);
        for (worker, slot) in self.workers.iter_mut().enumerate() {
            if let Some(current) = &mut slot.current {
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
            let mut dump = slot.spare.take().unwrap_or_else(|| FlowDump::new().into());
            dump.begin(self.serial, position);
            slot.current = Some(Current { serial: self.serial, until: Instant::now() + TIMEOUT, to: Some(to) });
            dataplane.dump(worker, dump);
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

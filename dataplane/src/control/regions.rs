//! How regions come into being and go.
//!
//! Clearing the pages of a large region takes a tenth of a second. The control thread hands that to the thread `kopi-region`, which
//! works on all jobs in turn, a slice of memory at a time: by user first, then by job. So a small region is soon made, whatever
//! others have asked for.
//!
//! Once a client has its file, whatever the kernel does with that may have to wait for the client: a write into it that hangs, say in
//! a page fault of the client's own file system, holds the file's lock. So the [end](Ending) of a region is for the thread of
//! its client's user, and is nobody else's business.

use crate::control::kept_regions::Watch;
use crate::control::mailbox::{MailSender, Mailbox};
use kopi_ring::{CopyRoutines, DiscardedRegion, Geometry, HugePages, Region, RegionBuilder, RegionError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

/// Bytes that are cleared or given back before the next job has its turn: well under a millisecond.
const SLICE: usize = 2 << 20;

/// Memory that a user was granted for rings. It is held until the region is empty again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// The user, as limits know it.
    pub user: u32,
    /// How much.
    pub bytes: u64,
}

/// A region that is being made. Who drops this does not want it any more.
#[derive(Debug)]
pub struct Making {
    wanted: Arc<AtomicBool>,
    serial: u64,
}

impl Making {
    /// Which of all orders it is.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.wanted.store(false, Relaxed);
    }
}

/// What has been done.
#[derive(Debug)]
pub enum Done {
    /// The order with this number is ready, or cannot be carried out; then its memory is free again.
    Made {
        /// Which order.
        serial: u64,
        /// Whose memory it is.
        charge: Charge,
        /// The region.
        outcome: Result<Region, RegionError>,
    },
    /// The memory of a region was freed, or the region was not wanted before it was made. The watch on it says nothing more.
    Freed(Charge, Option<Watch>),
    /// kopid has let go of this region, whose memory goes with its last holder.
    LetGo(Watch),
}

/// The thread, and what it has to do. It ends with this.
#[derive(Debug)]
pub struct Regions {
    /// `None` once the thread is to end.
    jobs: Option<Sender<Job>>,
    done: Mailbox<Done>,
    sender: MailSender<Done>,
    thread: Option<JoinHandle<()>>,
    serial: u64,
}

#[derive(Debug)]
struct Job {
    charge: Charge,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Begin(Order, Geometry, HugePages),
    Fill(Order, Box<RegionBuilder>),
    Free(DiscardedRegion),
}

#[derive(Debug)]
struct Order {
    serial: u64,
    protocol: u16,
    wanted: Arc<AtomicBool>,
}

impl Regions {
    /// Starts the thread. Frames are copied into the rings of its regions by these routines.
    ///
    /// # Errors
    ///
    /// The system's, if there is no thread or descriptor to be had.
    pub fn start(copies: CopyRoutines) -> io::Result<Self> {
        let (jobs, theirs) = mpsc::channel();
        let (sender, done) = Mailbox::new()?;
        let answers = sender.clone();
        let thread = std::thread::Builder::new().name("kopi-region".to_owned());
        let thread = thread.spawn(move || serve(&theirs, &answers, copies))?;
        Ok(Self { jobs: Some(jobs), done, sender, thread: Some(thread), serial: 0 })
    }

    /// Orders a region for a client that speaks version `protocol`. It is told of as [`Done::Made`] if it is still wanted then.
    pub fn make(&mut self, charge: Charge, geometry: Geometry, huge_pages: HugePages, protocol: u16) -> Making {
        self.serial += 1;
        let wanted = Arc::new(AtomicBool::new(true));
        let order = Order { serial: self.serial, protocol, wanted: Arc::clone(&wanted) };
        self.push(Job { charge, task: Task::Begin(order, geometry, huge_pages) });
        Making { wanted, serial: self.serial }
    }

    /// Has a region emptied that no client has had.
    pub fn empty(&self, charge: Charge, region: Region) {
        self.push(Job { charge, task: Task::Free(DiscardedRegion::new(region)) });
    }

    /// The end of a region that is used by nobody here any more.
    #[must_use]
    pub fn ending(&self, charge: Charge, region: Region, watch: Option<Watch>) -> Ending {
        Ending { region: DiscardedRegion::new(region), charge, watch, done: self.sender.clone() }
    }

    fn push(&self, job: Job) {
        // The thread goes on as long as we are there.
        let _taken = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    /// What has been done.
    #[must_use]
    pub const fn done(&self) -> &Mailbox<Done> {
        &self.done
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that makes rings had panicked");
        }
    }
}

/// The end of a region, which has to be [carried out](Self::carry_out).
#[derive(Debug)]
pub struct Ending {
    region: DiscardedRegion,
    charge: Charge,
    watch: Option<Watch>,
    done: MailSender<Done>,
}

impl Ending {
    /// Empties the region, even if the client holds on to its file, or lets go of it if it is sealed. Takes as long as the client likes;
    /// until then its memory is charged.
    pub fn carry_out(self) {
        let Self { mut region, charge, watch, done } = self;
        match region.free(usize::MAX) {
            Ok(_) => done.send(Done::Freed(charge, watch)),
            Err(error) => {
                if watch.is_none() {
                    // Nobody can have sealed it.
                    log::warn!("{error}");
                }
                while matches!(region.unmap(SLICE), Ok(false)) {}
                // The last to close it frees all of its memory.
                drop(region);
                done.send(watch.map_or(Done::Freed(charge, None), Done::LetGo));
            }
        }
    }
}

/// The thread: takes in all jobs that there are, and does one slice of one. Ends when nobody can bring any more.
fn serve(jobs: &Receiver<Job>, done: &MailSender<Done>, copies: CopyRoutines) {
    let mut queue = FairQueue::default();
    loop {
        let new = if queue.is_empty() { jobs.recv().map_err(|_| TryRecvError::Disconnected) } else { jobs.try_recv() };
        match new {
            Ok(job) => {
                queue.push(job.charge.user, job);
                continue;
            }
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {}
        }
        let Some(job): Option<Job> = queue.take() else { continue };
        let charge = job.charge;
        match job.work(copies) {
            Progress::More(task) => queue.push(charge.user, Job { charge, task }),
            Progress::Done(what) => done.send(what),
        }
    }
}

enum Progress {
    More(Task),
    Done(Done),
}

impl Job {
    /// Does one slice of it.
    fn work(self, copies: CopyRoutines) -> Progress {
        let Self { charge, task } = self;
        let made = |serial, outcome| Progress::Done(Done::Made { serial, charge, outcome });
        match task {
            Task::Begin(order, ..) if !order.wanted.load(Relaxed) => Progress::Done(Done::Freed(charge, None)),
            Task::Fill(order, builder) if !order.wanted.load(Relaxed) => {
                Progress::More(Task::Free(DiscardedRegion::from(*builder)))
            }
            Task::Begin(order, geometry, huge_pages) => match RegionBuilder::new(&geometry, huge_pages) {
                Ok(builder) => Progress::More(Task::Fill(order, Box::new(builder.copies(copies)))),
                Err(error) => made(order.serial, Err(error)),
            },
            Task::Fill(order, mut builder) => match builder.fill(SLICE) {
                Ok(false) => Progress::More(Task::Fill(order, builder)),
                Ok(true) => made(order.serial, builder.finish(order.protocol)),
                Err(error) => made(order.serial, Err(error)),
            },
            Task::Free(mut region) => match region.free(SLICE) {
                Ok(false) => Progress::More(Task::Free(region)),
                Ok(true) => Progress::Done(Done::Freed(charge, None)),
                Err(error) => {
                    log::warn!("{error}");
                    Progress::Done(Done::Freed(charge, None))
                }
            },
        }
    }
}

/// Jobs of users, taken in turn: users first, then the jobs of each.
#[derive(Debug)]
pub struct FairQueue<J> {
    /// Users with jobs, the next one first; none of them twice, and none without jobs.
    users: VecDeque<(u32, VecDeque<J>)>,
}

impl<J> Default for FairQueue<J> {
    fn default() -> Self {
        Self { users: VecDeque::new() }
    }
}

impl<J> FairQueue<J> {
    /// Whether there is no job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Adds a job of `user`'s, behind its others.
    pub fn push(&mut self, user: u32, job: J) {
        match self.users.iter_mut().find(|(other, _)| *other == user) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.users.push_back((user, VecDeque::from([job]))),
        }
    }

    /// The next job of the user whose turn it is. What is left of the job is to be [pushed](Self::push) again.
    pub fn take(&mut self) -> Option<J> {
        let (user, mut jobs) = self.users.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.users.push_back((user, jobs));
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::kept_regions::{KeptRegions, Left};
    use kopi_ring::{CopyRoutine, PROTOCOL};
    use std::collections::BTreeMap;

    const COPIES: CopyRoutines = CopyRoutines { tx: CopyRoutine::Registers, rx: CopyRoutine::String };

    /// However many jobs a user has, and however long, each user gets a turn before any gets another.
    #[test]
    fn users_take_turns() {
        let mut queue = FairQueue::default();
        for job in 0..50 {
            queue.push(7, (7, job));
        }
        queue.push(8, (8, 0));
        queue.push(9, (9, 0));
        let mut turns: BTreeMap<u32, u32> = BTreeMap::new();
        for round in 1..=20_u32 {
            for _ in 0..3 {
                let (user, job) = queue.take().unwrap();
                *turns.entry(user).or_default() += 1;
                queue.push(user, (user, job));
            }
            assert!(turns.values().all(|turns| *turns == round), "{turns:?}");
        }
    }

    /// The jobs of one user take turns, too, and a queue ends.
    #[test]
    fn jobs_of_a_user_take_turns() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|job| queue.push(1, job));
        let mut order = Vec::new();
        for turn in 0..6 {
            let job = queue.take().unwrap();
            order.push(job);
            if turn < 3 {
                queue.push(1, job);
            }
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
        assert_eq!(queue.take(), None);
    }

    fn await_done(regions: &Regions) -> Done {
        let mut fds = [rustix::event::PollFd::new(regions.done(), rustix::event::PollFlags::IN)];
        loop {
            rustix::event::poll(&mut fds, None).unwrap();
            if let Some(done) = regions.done().receive() {
                return done;
            }
        }
    }

    /// A region is made and emptied, and what was granted for it comes back in the end.
    #[test]
    fn regions_are_made_and_emptied() {
        let mut regions = Regions::start(COPIES).unwrap();
        let charge = Charge { user: 5, bytes: 12 };
        let geometry = Geometry::new(&[1024], &[1024], 2048).unwrap();
        let making = regions.make(charge, geometry.clone(), HugePages::Off, PROTOCOL);
        let Done::Made { serial, charge: whose, outcome } = await_done(&regions) else { panic!("nothing is empty") };
        assert_eq!((serial, whose), (making.serial(), charge));
        let region = outcome.unwrap();
        assert_eq!(region.geometry(), &geometry);
        let kept = region.fd().try_clone_to_owned().unwrap();
        regions.ending(charge, region, None).carry_out();
        assert!(matches!(await_done(&regions), Done::Freed(whose, None) if whose == charge));
        assert_eq!(rustix::fs::fstat(&kept).unwrap().st_blocks, 0);
    }

    /// A sealed region is let go of, and its memory stays with who holds it.
    #[test]
    fn sealed_regions_are_let_go_of() {
        let (mut regions, mut kept) = (Regions::start(COPIES).unwrap(), KeptRegions::new());
        let charge = Charge { user: 5, bytes: 12 };
        let _making = regions.make(charge, Geometry::new(&[1024], &[1024], 2048).unwrap(), HugePages::Off, PROTOCOL);
        let Done::Made { outcome, .. } = await_done(&regions) else { panic!("nothing is empty") };
        let region = outcome.unwrap();
        let watch = kept.watch(&region).unwrap();
        region.seal().unwrap();
        let file = region.fd().try_clone_to_owned().unwrap();
        kept.keep(watch, charge);
        regions.ending(charge, region, Some(watch)).carry_out();
        assert!(matches!(await_done(&regions), Done::LetGo(which) if which == watch));
        assert!(rustix::fs::fstat(&file).unwrap().st_blocks > 0);
        assert_eq!((kept.let_go(watch), kept.gone()), (Some(Left::All(charge)), Vec::new()));
        drop(file);
        // A child of this process that is just being made has all its files for a moment.
        while kept.gone() != [charge] {
            std::thread::yield_now();
        }
    }

    /// What is not wanted any more is not made, at whatever point it is.
    #[test]
    fn unwanted_regions_come_back() {
        let mut regions = Regions::start(COPIES).unwrap();
        let charge = Charge { user: 5, bytes: 99 };
        for slots in [64, 8192] {
            let geometry = Geometry::new(&[slots; 8], &[slots; 8], 2048).unwrap();
            drop(regions.make(charge, geometry, HugePages::Off, PROTOCOL));
            match await_done(&regions) {
                Done::Freed(whose, _) => assert_eq!(whose, charge),
                // Faster than it was given up.
                Done::Made { outcome, .. } => drop(outcome.unwrap()),
                Done::LetGo(_) => panic!("nothing is sealed"),
            }
        }
    }
}

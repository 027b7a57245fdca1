//! The end of sealed regions.
//!
//! The memory of a [sealed](Region::seal) region cannot be taken out of it, not even by kopid: it goes when the last who has the
//! file open or mapped lets go of it. That may be the client, long after its port has gone, and until then the memory is its
//! user's. The kernel says when it is: a watch on a file without a name has the event `IN_DELETE_SELF` (`inotify(7)`) when nobody
//! refers to the file any more, by a descriptor, a mapping, a message under way or `O_PATH`. A region is sealed only
//! with such a watch.

use crate::control::regions::Charge;
use kopi_ring::Region;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;

/// The watch on one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch(i32);

/// A region that kopid lets go of, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    charge: Charge,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// kopid is at it.
    Leaving,
    /// The same, and the kernel has said that nobody refers to it any more. Its memory is free when kopid is done.
    Going,
    /// kopid has let go of it, so that who holds it is somebody else.
    WithOthers,
}

/// What is left of a region that kopid has let go of, and whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing(Charge),
    /// All, in the hands of others.
    All(Charge),
}

/// All sealed regions that kopid does not use any more and that are still there.
#[derive(Debug)]
pub struct KeptRegions {
    /// Or why there is none.
    inotify: Result<OwnedFd, Errno>,
    kept: BTreeMap<Watch, Kept>,
}

impl KeptRegions {
    /// None yet. Where the kernel gives no `inotify`, no region can be watched.
    #[must_use]
    pub fn new() -> Self {
        Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK), kept: BTreeMap::new() }
    }

    /// What is readable when a region is [gone](Self::gone), if regions can be watched.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().ok().map(AsFd::as_fd)
    }

    /// Watches a region that was not given away yet.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory or watches are short.
    pub fn watch(&self, region: &Region) -> Result<Watch, Errno> {
        let inotify = self.inotify.as_ref().map_err(|errno| *errno)?;
        let path = format!("/proc/self/fd/{}", region.fd().as_raw_fd());
        inotify::add_watch(inotify, path, WatchFlags::DELETE_SELF).map(Watch)
    }

    /// Watches a region no longer.
    pub fn unwatch(&self, watch: Watch) {
        // It may have gone by itself.
        let _removed = self.inotify.as_ref().map(|inotify| inotify::remove_watch(inotify, watch.0));
    }

    /// Notes that kopid is about to let go of a region, whose memory is charged until it is gone, or [empty](Self::forget).
    pub fn keep(&mut self, watch: Watch, charge: Charge) {
        self.kept.insert(watch, Kept { charge, state: State::Leaving });
    }

    /// Notes that kopid has emptied it, so that it is of no interest who holds it.
    pub fn forget(&mut self, watch: Watch) {
        self.kept.remove(&watch);
        self.unwatch(watch);
    }

    /// Notes that kopid has let go of it. `None` if it was not [kept](Self::keep).
    pub fn let_go(&mut self, watch: Watch) -> Option<Left> {
        let kept = self.kept.get_mut(&watch)?;
        let charge = kept.charge;
        if kept.state == State::Going {
            self.kept.remove(&watch);
            return Some(Left::Nothing(charge));
        }
        kept.state = State::WithOthers;
        Some(Left::All(charge))
    }

    /// Whose memory regions were that others have let go of since the last call. Never waits.
    pub fn gone(&mut self) -> Vec<Charge> {
        let Ok(inotify) = &self.inotify else { return Vec::new() };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(inotify, &mut buffer);
        let (mut ended, mut lost) = (Vec::new(), false);
        // An error says that there are no more.
        while let Ok(event) = events.next() {
            lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if event.events().contains(ReadFlags::DELETE_SELF) {
                ended.push(Watch(event.wd()));
            }
        }
        if lost {
            let there = watched(inotify);
            ended.extend(self.kept.keys().filter(|watch| !there.contains(watch)));
        }
        let mut gone = Vec::new();
        for watch in ended {
            match self.kept.get_mut(&watch) {
                Some(kept) if kept.state == State::WithOthers => {
                    gone.push(kept.charge);
                    self.kept.remove(&watch);
                }
                Some(kept) => kept.state = State::Going,
                None => {}
            }
        }
        gone
    }
}

impl Default for KeptRegions {
    fn default() -> Self {
        Self::new()
    }
}

/// The watches that there are, by the lines `inotify wd:1 …` of proc_pid_fdinfo(5). For when events were lost.
fn watched(inotify: &OwnedFd) -> BTreeSet<Watch> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", inotify.as_raw_fd())).unwrap_or_default();
    let number =
        |line: &str| line.strip_prefix("inotify wd:")?.split(' ').next().map(|hex| i32::from_str_radix(hex, 16));
    text.lines().filter_map(number).filter_map(Result::ok).map(Watch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::{DiscardedRegion, Geometry, HugePages};
    use rustix::event::{PollFd, PollFlags, Timespec};

    const CHARGE: Charge = Charge { user: 5, bytes: 12 };

    fn regions() -> impl Iterator<Item = Region> {
        let geometry = Geometry::new(&[64], &[64], 2048).unwrap();
        // Without free huge pages there is nothing to look at.
        let huge = Region::create(&geometry, HugePages::Require);
        Region::create(&geometry, HugePages::Off).into_iter().chain(huge)
    }

    /// Lets go of a region as the thread for regions does.
    fn let_go(region: Region) {
        let mut region = DiscardedRegion::new(region);
        while !region.unmap(1).unwrap() {}
        drop(region);
    }

    fn await_gone(regions: &mut KeptRegions) -> Vec<Charge> {
        let event = regions.event().unwrap();
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&limit)).unwrap();
        regions.gone()
    }

    /// A region is there as long as anybody has a mapping of it, a descriptor, or only its place, and gone right after.
    #[test]
    fn a_region_is_gone_when_nobody_holds_it() {
        let mut kept = KeptRegions::new();
        for region in regions() {
            let watch = kept.watch(&region).unwrap();
            let file = region.fd().try_clone_to_owned().unwrap();
            let client = Region::open(file, region.geometry()).unwrap();
            region.seal().unwrap();
            kept.keep(watch, CHARGE);
            let_go(region);
            assert_eq!(kept.let_go(watch), Some(Left::All(CHARGE)));
            assert_eq!(kept.gone(), []);
            let ring = client.tx_producer(0).unwrap();
            let file = client.fd().try_clone_to_owned().unwrap();
            drop(client);
            assert_eq!(kept.gone(), [], "it is mapped");
            drop(ring);
            assert_eq!(kept.gone(), [], "it is open");
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let place = rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
            drop(file);
            assert_eq!(kept.gone(), [], "it can be opened");
            drop(place);
            assert_eq!(await_gone(&mut kept), [CHARGE]);
            assert_eq!(kept.let_go(watch), None);
        }
    }

    /// Whose client has gone before is gone with our own mapping; one that is not watched any more is none of ours.
    #[test]
    fn a_region_without_client_goes_at_once() {
        let mut kept = KeptRegions::new();
        for region in regions() {
            let watch = kept.watch(&region).unwrap();
            region.seal().unwrap();
            kept.keep(watch, CHARGE);
            let_go(region);
            assert_eq!(await_gone(&mut kept), [], "the memory may not be free yet");
            assert_eq!(kept.let_go(watch), Some(Left::Nothing(CHARGE)));
        }
        for region in regions() {
            kept.unwatch(kept.watch(&region).unwrap());
            let_go(region);
            assert_eq!(kept.gone(), []);
        }
    }

    /// What is watched can be told without events.
    #[test]
    fn watches_can_be_listed() {
        let kept = KeptRegions::new();
        let inotify = kept.inotify.as_ref().unwrap();
        for region in regions() {
            let watch = kept.watch(&region).unwrap();
            assert_eq!(watched(inotify), BTreeSet::from([watch]));
            drop(region);
            // A child of this process that is just being made has all its files for a moment.
            while !watched(inotify).is_empty() {
                std::thread::yield_now();
            }
        }
    }
}

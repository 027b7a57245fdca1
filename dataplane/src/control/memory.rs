//! How much memory rings may take: of all apps together, of each user, and of what the machine has.

use crate::control::regions::Charge;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use thiserror::Error;

/// Of what is limited, one part in so many is kept for users that have none of it yet.
pub const RESERVE: u64 = 8;

/// Regions that processes of a user may keep without their ports: each takes a watch of kopid's, of which Linux gives 8,192 or more.
pub const KEPT_MAX: u32 = 64;

/// Why memory was refused. The text goes to the app.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MemoryRefusal {
    /// The user has too much.
    #[error(
        "{} of rings asked for, and the applications of this user have {} of the {} that [limits] memory_per_user allows{}: ask \
         for fewer or smaller rings, or raise it in kopid's configuration",
        Bytes(*asked), Bytes(*used), Bytes(*limit), KeptBytes(*kept)
    )]
    User {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that the user has.
        used: u64,
        /// The limit.
        limit: u64,
        /// Bytes of those that only processes of the user's keep.
        kept: u64,
    },
    /// The user keeps too many regions, however small.
    #[error(
        "processes of this user keep the rings of {regions} ports mapped that are gone, and may keep {KEPT_MAX}: end them, or have \
         them unmap those"
    )]
    Kept {
        /// Regions that are kept.
        regions: u32,
    },
    /// All together have too much.
    #[error(
        "{} of rings asked for, and all applications together have {} of the {} that [limits] memory_total allows, the last \
         {} for users that have none: ask for fewer or smaller rings, or raise it in kopid's configuration",
        Bytes(*asked), Bytes(*used), Bytes(*limit), Bytes(*limit / RESERVE)
    )]
    Total {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that all users have.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// The machine, or the cgroup of kopid's, has no more.
    #[error(
        "{} of rings asked for, and kopid can have {} more before its machine or cgroup is out of memory: give it more, or \
         lower [limits] memory_total", Bytes(*asked), Bytes(*left)
    )]
    Machine {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that are left.
        left: u64,
    },
}

/// What to say of `.0` bytes that are kept, if any are.
struct KeptBytes(u64);

impl fmt::Display for KeptBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            kept => write!(f, ", {} of it in rings of ports that are gone, which a process keeps mapped", Bytes(kept)),
        }
    }
}

/// A number of bytes for people's eyes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 10 << 20 => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{} KiB", bytes >> 10),
        }
    }
}

/// When a request for memory can be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// At once.
    Now,
    /// As soon as memory that nobody uses any more has been given back.
    Later,
}

/// What one user has.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Bytes of rings in use or in the making.
    live: u64,
    /// Bytes of rings that nobody uses any more and that are not empty yet.
    leaving: u64,
    /// Bytes of sealed rings that kopid has let go of and a process has not, and how many regions they are.
    kept: u64,
    kept_regions: u32,
}

impl Held {
    const fn all(&self) -> u64 {
        self.live + self.leaving + self.kept
    }
}

/// The memory of all rings, by user.
#[derive(Debug)]
pub struct Memory {
    total: u64,
    per_user: u64,
    users: BTreeMap<u32, Held>,
}

impl Memory {
    /// Memory of `total` bytes for all, and `per_user` for each user.
    #[must_use]
    pub fn new(total: u64, per_user: u64) -> Self {
        Self { total, per_user, users: BTreeMap::new() }
    }

    /// Bytes that all users have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.users.values().map(Held::all).sum()
    }

    /// Bytes of those that processes keep which have no port for them any more.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.users.values().map(|held| held.kept).sum()
    }

    /// Bytes for all users.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether there is room for what is asked for, in the place of `before` bytes that its user has now. They need not be given
    /// up first if that is at once.
    ///
    /// # Errors
    ///
    /// [`MemoryRefusal`] if there is none, whatever is given back.
    pub fn room(&self, asked: Charge, before: u64) -> Result<Room, MemoryRefusal> {
        let Charge { user, bytes } = asked;
        let held = self.users.get(&user).copied().unwrap_or_default();
        // What is kept comes back when its holders like, which nobody can wait for.
        let others = held.live.saturating_sub(before) + held.kept;
        if held.kept_regions >= KEPT_MAX {
            return Err(MemoryRefusal::Kept { regions: held.kept_regions });
        }
        if others + bytes > self.per_user {
            return Err(MemoryRefusal::User { asked: bytes, used: others, limit: self.per_user, kept: held.kept });
        }
        let reserve = if others == 0 { 0 } else { self.total / RESERVE };
        let live = self.users.values().map(|held| held.live + held.kept).sum::<u64>().saturating_sub(before);
        if live + bytes > self.total - reserve {
            return Err(MemoryRefusal::Total { asked: bytes, used: live, limit: self.total });
        }
        let fits = self.used() + bytes <= self.total && held.all() + bytes <= self.per_user;
        Ok(if fits { Room::Now } else { Room::Later })
    }

    /// Notes memory as taken.
    pub fn take(&mut self, charge: Charge) {
        self.users.entry(charge.user).or_default().live += charge.bytes;
    }

    /// Notes that nobody uses it any more.
    pub fn leave(&mut self, charge: Charge) {
        let held = self.users.entry(charge.user).or_default();
        held.live = held.live.saturating_sub(charge.bytes);
        held.leaving += charge.bytes;
    }

    /// Notes that it has been given back, having been [left](Self::leave).
    pub fn give_back(&mut self, charge: Charge) {
        let held = self.users.entry(charge.user).or_default();
        held.leaving = held.leaving.saturating_sub(charge.bytes);
        self.users.retain(|_, held| held.all() > 0);
    }

    /// Notes that a process keeps it, though kopid has let go of it, having been [left](Self::leave).
    pub fn keep(&mut self, charge: Charge) {
        let held = self.users.entry(charge.user).or_default();
        held.leaving = held.leaving.saturating_sub(charge.bytes);
        held.kept += charge.bytes;
        held.kept_regions += 1;
    }

    /// Notes that it is gone, having been [kept](Self::keep).
    pub fn release(&mut self, charge: Charge) {
        let held = self.users.entry(charge.user).or_default();
        held.kept = held.kept.saturating_sub(charge.bytes);
        held.kept_regions = held.kept_regions.saturating_sub(1);
        self.users.retain(|_, held| held.all() > 0);
    }
}

/// Where it stands how much memory this process may have: files of control groups, and of the machine.
#[derive(Debug)]
pub struct MachineMemory {
    groups: Vec<Group>,
}

/// The files of one control group, its own or one above.
#[derive(Debug)]
struct Group {
    limit: PathBuf,
    usage: PathBuf,
    stat: PathBuf,
    /// What of the usage the kernel takes back by itself, as `stat` calls it.
    reclaimable: &'static str,
}

impl MachineMemory {
    /// Finds the files.
    #[must_use]
    pub fn new() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self { groups: groups(&text("/proc/self/cgroup"), &text("/proc/self/mountinfo")) }
    }

    /// Bytes that the machine has, or that a control group allows this process if that is less.
    #[must_use]
    pub fn total(&self) -> u64 {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text, "MemTotal:"));
        self.groups.iter().filter_map(Group::limit).chain(machine).min().unwrap_or(u64::MAX)
    }

    /// Bytes that this process can take now before its machine or a control group is out of memory.
    #[must_use]
    pub fn left(&self) -> u64 {
        let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text, "MemAvailable:"));
        let groups = self.groups.iter().filter_map(Group::left);
        groups.chain(available).min().unwrap_or(u64::MAX)
    }
}

impl Default for MachineMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// The number that a file has.
fn number(path: &PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Group {
    /// `max`, which is no number, is no limit; an older kernel writes one that no machine has.
    fn limit(&self) -> Option<u64> {
        number(&self.limit)
    }

    fn left(&self) -> Option<u64> {
        let (limit, usage) = (self.limit()?, number(&self.usage)?);
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let line = |line: &str| line.strip_prefix(self.reclaimable)?.trim().parse::<u64>().ok();
        let reclaimable = stat.lines().find_map(line).unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
    }
}

/// Bytes of free 2 MiB pages, as the kernel tells.
#[must_use]
pub fn free_huge_memory() -> u64 {
    let free = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) << 21
}

/// Bytes that `/proc/meminfo` has for `key`.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The control groups of memory that a process is in, its own and all above that can be seen, of both versions (`cgroups(7)`).
/// `own` is its `/proc/PID/cgroup`, `mounts` its `/proc/PID/mountinfo`.
fn groups(own: &str, mounts: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for mount in mounts.lines() {
        // `36 35 98:0 /root /where options … - type device super-options`, see proc_pid_mountinfo(5).
        let Some((left, right)) = mount.split_once(" - ") else { continue };
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (Some(root), Some(place), Some(kind)) = (left.next(), left.next(), right.next()) else { continue };
        let options = right.nth(1).unwrap_or_default();
        let unified = kind == "cgroup2";
        let first = kind == "cgroup" && options.split(',').any(|option| option == "memory");
        if !unified && !first {
            continue;
        }
        let mine = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let same = if unified { controllers.is_empty() } else { controllers.split(',').any(|c| c == "memory") };
            same.then_some(path)
        });
        // In a container, what is mounted may be the group itself.
        let Some(inside) = mine.map(|path| path.strip_prefix(root).unwrap_or(path).trim_start_matches('/')) else {
            continue;
        };
        let place = PathBuf::from(place);
        let folder = place.join(inside);
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&place)) {
            let file = |name| folder.join(name);
            let stat = file("memory.stat");
            found.push(match unified {
                true => Group {
                    limit: file("memory.max"),
                    usage: file("memory.current"),
                    stat,
                    reclaimable: "inactive_file ",
                },
                false => Group {
                    limit: file("memory.limit_in_bytes"),
                    usage: file("memory.usage_in_bytes"),
                    stat,
                    reclaimable: "total_inactive_file ",
                },
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn charge(user: u32, mb: u64) -> Charge {
        Charge { user, bytes: mb * MB }
    }

    /// No user gets more than its share, however it asks, and the refusal says what it has and what would be right.
    #[test]
    fn a_user_keeps_to_its_share() {
        let mut memory = Memory::new(800 * MB, 300 * MB);
        for _ in 0..3 {
            assert_eq!(memory.room(charge(1, 100), 0), Ok(Room::Now));
            memory.take(charge(1, 100));
        }
        let refused = memory.room(charge(1, 1), 0).unwrap_err();
        assert_eq!(refused, MemoryRefusal::User { asked: MB, used: 300 * MB, limit: 300 * MB, kept: 0 });
        assert!(refused.to_string().contains("memory_per_user"), "{refused}");
        // Rings in the place of others: they have to be given up first.
        assert_eq!(memory.room(charge(1, 100), 100 * MB), Ok(Room::Later));
        memory.leave(charge(1, 100));
        assert_eq!(memory.room(charge(1, 100), 0), Ok(Room::Later));
        memory.give_back(charge(1, 100));
        assert_eq!(memory.room(charge(1, 100), 0), Ok(Room::Now));
    }

    /// What is left of the total is for users that have nothing yet, and never exceeded.
    #[test]
    fn the_rest_is_for_newcomers() {
        let mut memory = Memory::new(800 * MB, 700 * MB);
        memory.take(charge(1, 600));
        memory.take(charge(2, 50));
        assert_eq!(
            memory.room(charge(1, 51), 0),
            Err(MemoryRefusal::Total { asked: 51 * MB, used: 650 * MB, limit: 800 * MB })
        );
        assert_eq!(memory.room(charge(1, 50), 0), Ok(Room::Now));
        assert_eq!(memory.room(charge(3, 150), 0), Ok(Room::Now));
        assert!(memory.room(charge(3, 151), 0).is_err());
        memory.leave(charge(2, 50));
        assert_eq!(memory.room(charge(3, 200), 0), Ok(Room::Later));
        memory.give_back(charge(2, 50));
        assert_eq!(memory.room(charge(3, 200), 0), Ok(Room::Now));
        assert_eq!(memory.used(), 600 * MB);
    }

    /// Memory that a process keeps counts for its user and for all, is refused to wait for, and comes back.
    #[test]
    fn kept_memory_counts_until_it_is_gone() {
        let mut memory = Memory::new(800 * MB, 300 * MB);
        memory.take(charge(1, 200));
        memory.leave(charge(1, 200));
        assert_eq!(memory.room(charge(1, 200), 0), Ok(Room::Later));
        memory.keep(charge(1, 200));
        assert_eq!((memory.used(), memory.kept()), (200 * MB, 200 * MB));
        let refused = memory.room(charge(1, 200), 0).unwrap_err();
        let expected = MemoryRefusal::User { asked: 200 * MB, used: 200 * MB, limit: 300 * MB, kept: 200 * MB };
        assert_eq!(refused, expected);
        assert!(refused.to_string().contains("200 MiB of it in rings of ports that are gone"), "{refused}");
        assert_eq!(memory.room(charge(1, 100), 0), Ok(Room::Now));
        assert!(memory.room(charge(2, 300), 0).is_ok() && memory.room(charge(3, 601), 0).is_err());
        memory.release(charge(1, 200));
        assert_eq!((memory.room(charge(1, 300), 0), memory.used()), (Ok(Room::Now), 0));
    }

    /// However small they are, a user keeps no more than some regions.
    #[test]
    fn kept_regions_are_counted() {
        let mut memory = Memory::new(800 * MB, 300 * MB);
        let tiny = Charge { user: 1, bytes: 4096 };
        for _ in 0..KEPT_MAX {
            assert_eq!(memory.room(tiny, 0), Ok(Room::Now));
            memory.take(tiny);
            memory.leave(tiny);
            memory.keep(tiny);
        }
        assert_eq!(memory.room(tiny, 0), Err(MemoryRefusal::Kept { regions: KEPT_MAX }));
        assert_eq!(memory.room(Charge { user: 2, ..tiny }, 0), Ok(Room::Now));
        memory.release(tiny);
        assert_eq!(memory.room(tiny, 0), Ok(Room::Now));
    }

    /// Control groups are found in both versions, with those above, on a machine and in a container.
    #[test]
    fn control_groups_are_found() {
        let limits = |own, mounts| -> Vec<String> {
            groups(own, mounts).iter().map(|group| group.limit.display().to_string()).collect()
        };
        let v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            limits("0::/system.slice/kopid.service\n", v2),
            [
                "/sys/fs/cgroup/system.slice/kopid.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        let v1 = "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 24 0:28 / /c rw - cgroup cgroup rw,cpu\n";
        assert_eq!(
            limits("4:memory:/a\n3:cpu:/b\n0::/\n", v1),
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes",]
        );
        let inside = "31 24 0:27 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(limits("0::/docker/x\n", inside), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(limits("", ""), Vec::<String>::new());
        assert_eq!(meminfo("MemTotal: 5 kB\nMemAvailable:    2048 kB\n", "MemAvailable:"), Some(2 * MB));
    }
}

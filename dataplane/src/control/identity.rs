//! The process at the other end of an app's socket.
//!
//! The kernel says it at attach: `SO_PEERCRED` gives pid, uid and gid of the process that connected, `SO_PEERPIDFD`
//! (Linux 6.5) a handle on that very process, `SO_PEERGROUPS` and `SO_PEERSEC` its groups and its label. Everything else is
//! read from /proc while the handle proves that the process still lives, so that a pid that is used again is never taken for
//! the old one.
//!
//! What /proc says is of the process as it is now, which may have become another program since it connected. So its
//! program does not count if it has another user or group by now, and is looked at again when it says hello: what was another
//! one in between is none ([`Identity::at_hello`]).
//!
//! What takes time is done by the thread of the peer's user ([`crate::control::peers`]): the kernel's answers take as long as the process has
//! threads, and its program may lie where a file system of its user's answers, or nobody. So which file that is, as far as the kernel
//! knows by itself, is noted at once ([`Accepted`]). What its user is called is found out apart ([`crate::control::user_names`]).

use crate::control::container::{Container, Containment};
use kopi_ring::socket::{Credentials, peer_credentials, peer_groups, peer_pidfd, peer_security};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use thiserror::Error;

/// The uid of a user who has none in our user namespace, and of the user `nobody` (`user_namespaces(7)`).
pub const OVERFLOW_ID: u32 = 65534;

/// The owner of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Process id in our pid namespace; 0 if the process is not in it.
    pub pid: i32,
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
    /// The user's name, if the system knows one.
    pub user: Option<String>,
    /// The name that the process gives itself. A hint, no proof. Escaped: no control characters.
    pub comm: String,
    /// Path of its program, if we may read it and find that very program there: a process in a mount namespace of its own
    /// can give any program any path.
    pub exe: Option<String>,
    /// Path of its cgroup in the unified hierarchy.
    pub cgroup: Option<String>,
    /// The container that its cgroups say.
    pub containment: Containment,
    /// Its supplementary groups when it connected, if we may know them.
    pub groups: Option<Vec<u32>>,
    /// What a security module called it when it connected. Escaped.
    pub label: Option<String>,
    /// Which file its program is, by device and inode.
    pub(crate) file: Option<(u64, u64)>,
    /// It is no process, or none of which anything is known: uid and gid are nobody's.
    pub(crate) of_nobody: bool,
}

/// Why a peer has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The process ended before we had looked at it.
    #[error("process {0} is gone")]
    Gone(i32),
    /// The process that has the pid now started after the connection was accepted.
    #[error("pid {0} belongs to a process that started after the connection")]
    Reused(i32),
    /// The kernel could have given a handle on the process, and did not. What has its pid may be another by now.
    #[error("the kernel gives no handle on process {0}")]
    NoHandle(i32),
    /// The kernel did not answer.
    #[error("{0}: {1}")]
    System(&'static str, Errno),
}

/// The identity of the process that connected `socket`, which was accepted at `accepted`, and a handle that becomes readable
/// when the process ends. There is no handle for a process outside our pid namespace. Its user has no name yet.
///
/// # Errors
///
/// [`IdentityError`] if the process is gone, or was replaced by another with the same pid.
pub fn attest(socket: impl AsFd, accepted: Accepted) -> Result<(Identity, Option<OwnedFd>), IdentityError> {
    let credentials = peer_credentials(socket.as_fd()).map_err(|errno| IdentityError::System("SO_PEERCRED", errno))?;
    let Credentials { pid, uid, gid } = credentials;
    let (groups, label) = (peer_groups(&socket), peer_security(&socket).as_deref().map(printable));
    let mut identity = Identity { groups, label, ..Identity::unknown(Some(&credentials)) };
    let Some(raw_pid) = Pid::from_raw(pid) else { return Ok((identity, None)) };
    let handle = match peer_pidfd(socket) {
        Some(handle) => handle,
        None if gives_handles() => return Err(IdentityError::NoHandle(pid)),
        None => pidfd_open(raw_pid, PidfdFlags::NONBLOCK).map_err(|_| IdentityError::Gone(pid))?,
    };
    let stat = fs::read(format!("/proc/{pid}/stat")).ok().and_then(|text| parse_stat(&text));
    let status = fs::read(format!("/proc/{pid}/status")).ok().and_then(|text| parse_status(&text));
    (identity.cgroup, identity.containment) = match cgroup_of(pid) {
        Ok(known) => known,
        // A path that is longer than the kernel shows: whoever makes such a one has something to hide.
        Err(Errno::NAMETOOLONG) => return Err(IdentityError::System("its cgroup", Errno::NAMETOOLONG)),
        Err(_) => Default::default(),
    };
    identity.comm = stat.as_ref().map_or_else(|| "?".into(), |stat| printable(&stat.comm));
    let is_same = status.as_ref().is_some_and(|status| (status.uid, status.gid) == (uid, gid));
    if is_same && let Some((exe, file)) = program_of(pid).filter(|(_, file)| Some(*file) == accepted.file) {
        (identity.exe, identity.file) = (Some(exe), Some(file));
    }
    // Before Linux 4.13.
    identity.groups = identity.groups.or_else(|| status.map(|status| status.groups));
    // Of a process whose main thread has ended, old hierarchies say that it is in no cgroup.
    if ended(&handle) || stat.as_ref().is_some_and(|stat| stat.has_ended) {
        return Err(IdentityError::Gone(pid));
    }
    if stat.is_some_and(|stat| stat.start_time > accepted.ticks) {
        return Err(IdentityError::Reused(pid));
    }
    Ok((identity, Some(handle)))
}

/// As the log names a process.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {}, user {})", self.comm, self.pid, self.user_name())
    }
}

impl Identity {
    /// What the user is called in the log.
    #[must_use]
    pub fn user_name(&self) -> String {
        self.user.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// A process of which is known only what the kernel says of its socket, if it says anything.
    #[must_use]
    pub fn unknown(peer: Option<&Credentials>) -> Self {
        let (pid, uid, gid) = peer.map_or((0, OVERFLOW_ID, OVERFLOW_ID), |peer| (peer.pid, peer.uid, peer.gid));
        Self { pid, uid, gid, comm: "?".to_owned(), of_nobody: peer.is_none(), ..Self::default() }
    }

    /// Its user, if it has one that is known. The kernel gives the same number for users of other user namespaces as for `nobody`;
    /// if there are none that we do not know, it is `nobody`.
    #[must_use]
    pub fn known_uid(&self) -> Option<u32> {
        static ALL: OnceLock<bool> = OnceLock::new();
        self.known(self.uid, &ALL, "/proc/self/uid_map")
    }

    /// Its group, likewise.
    #[must_use]
    pub fn known_gid(&self) -> Option<u32> {
        static ALL: OnceLock<bool> = OnceLock::new();
        self.known(self.gid, &ALL, "/proc/self/gid_map")
    }

    fn known(&self, id: u32, all: &'static OnceLock<bool>, map: &str) -> Option<u32> {
        let all = || *all.get_or_init(|| fs::read_to_string(map).is_ok_and(|map| maps_all(&map)));
        (!self.of_nobody && (id != OVERFLOW_ID || all())).then_some(id)
    }

    /// The identity behind the host's port: the kernel, for all processes of the machine. So it is nobody in particular: no user,
    /// group or program that a policy may ask for, as for a process of which nothing is known.
    #[must_use]
    pub fn of_the_kernel() -> Self {
        Self { comm: "kernel".to_owned(), ..Self::unknown(None) }
    }

    /// The container that it runs in, if it is known to run in one.
    #[must_use]
    pub const fn container(&self) -> Option<&Container> {
        self.containment.container()
    }

    /// The pod of its container, likewise.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.container()?.pod.as_deref()
    }

    /// The process when it says hello: its program is known only if it runs the one that it ran when it was accepted.
    #[must_use]
    pub fn at_hello(mut self) -> Self {
        if self.exe.is_some() && file_of(self.pid) != self.file {
            (self.exe, self.file) = (None, None);
        }
        self
    }

    /// What of the process may change while it lives, read anew: its name, its cgroup, and its program if it has become another
    /// one; a file that was only replaced, as by an upgrade, is still the program that runs. `None` if it is as before, or if
    /// the process behind `handle` has ended.
    #[must_use]
    pub fn refreshed(&self, handle: &OwnedFd) -> Option<Self> {
        let stat = fs::read(format!("/proc/{}/stat", self.pid)).ok().and_then(|text| parse_stat(&text))?;
        let mut now = Self { comm: printable(&stat.comm), ..self.clone() };
        // What can be read no more, by a path that is too long or a main thread that has ended, is as it was.
        if let Ok(known) = cgroup_of(self.pid)
            && !stat.has_ended
        {
            (now.cgroup, now.containment) = known;
        }
        if self.exe.is_some() && file_of(self.pid) != self.file {
            (now.exe, now.file) = program_of(self.pid).unzip();
        }
        (now != *self && !ended(handle)).then_some(now)
    }
}

/// Whether a map of users or groups says that every number means itself (`user_namespaces(7)`).
fn maps_all(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Which file the process runs. A file system that does not answer keeps nobody: what is cached is good enough.
fn file_of(pid: i32) -> Option<(u64, u64)> {
    let file = statx(CWD, format!("/proc/{pid}/exe"), AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino))
}

/// The path of what the process runs, if that very file is there, and which one it is. Of one look: it may become another program at
/// any time.
fn program_of(pid: i32) -> Option<(String, (u64, u64))> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).ok()?;
    let (runs, lies) = (fs::metadata(link).ok()?, fs::metadata(&path).ok()?);
    let file = (runs.dev(), runs.ino());
    (file == (lies.dev(), lies.ino())).then(|| (printable(path.as_os_str().as_encoded_bytes()), file))
}

/// Its cgroup, and what all of them say of containers.
fn cgroup_of(pid: i32) -> Result<(Option<String>, Containment), Errno> {
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let text = fs::read(format!("/proc/{pid}/cgroup")).map_err(failed)?;
    Ok((parse_cgroup(&text), Containment::of(&String::from_utf8_lossy(&text))))
}

/// Whether this kernel gives a handle on a socket's peer. Found out once, with a socket whose peer surely lives, so that a
/// peer that is gone is never taken for an old kernel.
pub fn gives_handles() -> bool {
    static GIVES: OnceLock<bool> = OnceLock::new();
    *GIVES.get_or_init(|| {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        pair.is_ok_and(|(ours, _other)| peer_pidfd(&ours).is_some())
    })
}

/// Whether the process behind a pidfd has ended.
#[must_use]
pub fn ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// What is known of a connection at once.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// When it was accepted, in clock ticks since boot, rounded up, as /proc/PID/stat counts them (100 a second on every Linux,
    /// `USER_HZ`).
    ticks: u64,
    /// Which file the process ran then.
    file: Option<(u64, u64)>,
}

impl Accepted {
    /// Notes when a connection of `peer` was accepted, which was just now.
    #[must_use]
    pub fn now(peer: Option<&Credentials>) -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let ticks = seconds * 100 + u64::try_from(now.tv_nsec).unwrap_or(0).div_ceil(10_000_000);
        Self { ticks, file: peer.and_then(|peer| file_of(peer.pid)) }
    }
}

/// What is needed of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Vec<u8>,
    /// Its main thread has ended; others may live.
    has_ended: bool,
    start_time: u64,
}

/// Parses /proc/PID/stat (`proc_pid_stat(5)`). The name stands in brackets and may itself hold brackets, spaces and line
/// ends, so it reaches to the last closing one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let comm = text.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // Field 22 is the start time; the first of the rest is field 3, the state.
    let has_ended = matches!(rest.split_ascii_whitespace().next()?, "Z" | "X");
    let start_time = rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(Stat { comm, has_ended, start_time })
}

/// The path in the unified hierarchy (`cgroups(7)`): the line that starts with `0::`.
fn parse_cgroup(text: &[u8]) -> Option<String> {
    text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"0::")).map(printable)
}

/// What is needed of /proc/PID/status: the effective ids and the supplementary groups.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// Parses /proc/PID/status (`proc_pid_status(5)`): the lines `Uid:` and `Gid:`, whose second number is the effective id, and
/// `Groups:`.
fn parse_status(text: &[u8]) -> Option<Status> {
    let numbers = |key: &[u8]| -> Option<Vec<u32>> {
        let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(key))?;
        std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|id| id.parse().ok()).collect()
    };
    let effective = |key| numbers(key)?.get(1).copied();
    Some(Status { uid: effective(b"Uid:")?, gid: effective(b"Gid:")?, groups: numbers(b"Groups:")? })
}

/// Text for people's eyes: what is not UTF-8 or not printable is escaped.
fn printable(bytes: &[u8]) -> String {
    let clean = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    String::from_utf8_lossy(bytes).chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::socket::connect;
    use rustix::net::{SocketAddrUnix, accept, bind, listen, socket};
    use std::io::Read;
    use std::process::{Command, Stdio};

    /// Where [`connects_and_ends`] connects.
    const PLACE: &str = "KOPI_TEST_IDENTITY_SOCKET";

    /// The peer of [`dead_peer_has_no_identity`]: a process of its own.
    #[test]
    fn connects_and_ends() {
        if let Some(place) = std::env::var_os(PLACE) {
            connect(place.as_ref()).unwrap();
        }
    }

    /// The kernel has no user, `nobody` has one where all users are known, and elsewhere the number says nothing.
    #[test]
    fn only_known_users_are_somebody() {
        assert_eq!((Identity::of_the_kernel().known_uid(), Identity::of_the_kernel().known_gid()), (None, None));
        let of = |uid: u32| Identity { uid, gid: uid, ..Identity::default() };
        assert_eq!((of(0).known_uid(), of(1001).known_gid()), (Some(0), Some(1001)));
        let all = maps_all(&fs::read_to_string("/proc/self/uid_map").unwrap());
        assert_eq!(of(OVERFLOW_ID).known_uid(), all.then_some(OVERFLOW_ID));
        assert!(maps_all("         0          0 4294967295\n"));
        assert!(!maps_all("0 100000 65536\n") && !maps_all("0 0 65536\n1000 1000 1\n") && !maps_all(""));
    }

    /// Fault 19: a process that ended while its connection waited is nobody, whoever may have its pid by then.
    #[test]
    fn dead_peer_has_no_identity() {
        let place = std::env::temp_dir().join(format!("kopi-identity-{}", std::process::id()));
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&place).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        let mut peer = Command::new(std::env::current_exe().unwrap());
        let (_, module) = module_path!().split_once("::").unwrap();
        let test = format!("{module}::connects_and_ends");
        let ended = peer.args(["--exact", &test]).env(PLACE, &place).output().unwrap();
        fs::remove_file(&place).unwrap();
        assert!(ended.status.success(), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"), "no test `{test}`");
        let attested = attest(accept(&listener).unwrap(), Accepted::now(None));
        assert!(matches!(attested, Err(IdentityError::Gone(_) | IdentityError::NoHandle(_))), "{attested:?}");
    }

    /// The peer of our own socket pair is this process, by name, program and user.
    #[test]
    fn own_process_is_recognised() {
        let (a, _b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (identity, handle) = attest(&a, Accepted::now(peer_credentials(&a).ok().as_ref())).unwrap();
        assert_eq!(identity.pid.unsigned_abs(), std::process::id());
        assert_eq!(identity.uid, rustix::process::geteuid().as_raw());
        assert_eq!(identity.exe, std::env::current_exe().ok().map(|p| p.to_string_lossy().into_owned()));
        assert!(!identity.comm.is_empty());
        assert!(!ended(&handle.unwrap()));
    }

    /// A program that another one covers up in a mount namespace has the path of that one there, and none for us.
    #[test]
    fn program_under_a_borrowed_path_is_unknown() {
        let place = std::env::temp_dir().join(format!("kopi-identity-program-{}", std::process::id()));
        fs::copy("/bin/cat", &place).unwrap();
        let script = format!("mount --bind {} /usr/bin/env && echo && exec /usr/bin/env", place.display());
        let mut unshared = Command::new("unshare");
        let child = unshared.args(["-Urm", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Where there are no mount namespaces for us, nothing comes, and there is nothing to be tried.
        let mut ready = [0];
        if child.stdout.as_mut().unwrap().read_exact(&mut ready).is_ok() {
            // The shell is about to become the program.
            let path = || fs::read_link(format!("/proc/{pid}/exe")).unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while path() != std::path::Path::new("/usr/bin/env") && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert_eq!((path().to_str(), program_of(pid)), (Some("/usr/bin/env"), None));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(place).unwrap();
    }

    /// Fault 20: a name may hold anything, and neither the parser nor a terminal is confused by it.
    #[test]
    fn strange_names_are_parsed_and_escaped() {
        let tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        for comm in [&b"a b"[..], b"x) R 1 (y", b"line\nend", b"fifteen bytes!!", b"\xff\xfe", b"", b")", b"("] {
            let text = [b"77 (", comm, b")", tail.as_bytes()].concat();
            assert_eq!(parse_stat(&text), Some(Stat { comm: comm.to_vec(), has_ended: false, start_time: 4242 }));
            assert!(!printable(comm).chars().any(char::is_control));
        }
        assert_eq!(printable(b"a\nb\x1b[31m"), "a\\nb\\u{1b}[31m");
        for broken in [&b""[..], b"77", b"77 (x", b"77 x)", b")(", b"77 (x) S 1"] {
            assert_eq!(parse_stat(broken), None);
        }
    }

    /// Ids are read if all of them can be.
    #[test]
    fn ids_are_read_whole() {
        let read = |groups: &str| parse_status(format!("Name:\tx\nUid:\t1 2 3 4\nGid:\t5 6 7 8\n{groups}").as_bytes());
        let status = |groups: &[u32]| Some(Status { uid: 2, gid: 6, groups: groups.to_vec() });
        assert_eq!(read("Groups:\t4 27 1000 \nKthread:\t0\n"), status(&[4, 27, 1000]));
        assert_eq!(read("Groups:\t \n"), status(&[]));
        assert_eq!(read("Groups:\t4 x\n"), None);
        assert_eq!(read(""), None);
        assert_eq!(parse_status(b"Uid:\t1\nGid:\t5 6 7 8\nGroups:\t \n"), None);
    }

    /// A process that is another program by the time of its hello has none; one whose file was replaced has it still.
    #[test]
    fn program_counts_only_if_it_is_still_the_same() {
        let folder = std::env::temp_dir().join(format!("kopi-identity-exec-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("sh");
        fs::copy("/bin/sh", &program).unwrap();
        let mut child = Command::new(&program);
        let mut child = child.args(["-c", "read x; exec /bin/cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let path_of = |pid| program_of(pid).map(|(path, _)| path);
        while path_of(pid).as_deref() != program.to_str() {
            assert!(std::time::Instant::now() < deadline, "it never runs");
            std::thread::yield_now();
        }
        let handle = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::NONBLOCK).unwrap();
        let first = Identity { pid, exe: path_of(pid), file: file_of(pid), ..Identity::default() };
        fs::copy("/bin/sh", folder.join("new")).unwrap();
        fs::rename(folder.join("new"), &program).unwrap();
        assert_eq!(first.clone().at_hello(), first);
        assert_eq!(first.refreshed(&handle).unwrap().exe, first.exe, "an upgrade is no other program");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        while file_of(pid) == first.file {
            assert!(std::time::Instant::now() < deadline, "it never becomes another program");
            std::thread::yield_now();
        }
        assert_eq!(first.clone().at_hello().exe, None);
        let now = first.refreshed(&handle).unwrap();
        assert_eq!((now.exe.clone(), now.at_hello().exe), (path_of(pid), path_of(pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    /// The unified hierarchy is found among older ones.
    #[test]
    fn cgroup_is_that_of_the_unified_hierarchy() {
        assert_eq!(parse_cgroup(b"1:cpu:/x\n0::/user.slice/a\n"), Some("/user.slice/a".into()));
        assert_eq!(parse_cgroup(b"1:cpu:/x\n"), None);
    }
}

//! Who is at the other end of an app's socket.
//!
//! The kernel says it at attach: `SO_PEERCRED` gives pid, uid and gid of the process that connected, `SO_PEERPIDFD`
//! (Linux 6.5) a handle on that very process. Everything else is read from /proc while the handle proves that the
//! process still lives, so that a pid that is used again is never taken for the old one.

use kopi_ring::socket::{Credentials, peer_credentials, peer_pidfd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use thiserror::Error;

/// The uid of a user who has none in our user namespace, and of nobody (`user_namespaces(7)`).
pub const OVERFLOW_ID: u32 = 65534;

/// The owner of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Its supplementary groups, if we may know them.
    pub groups: Option<Vec<u32>>,
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
    System(&'static str, rustix::io::Errno),
}

/// The identity of the process that connected `socket`, which was accepted just now, and a handle that becomes readable
/// when the process ends. There is no handle for a process outside our pid namespace.
///
/// # Errors
///
/// [`IdentityError`] if the process is gone, or was replaced by another with the same pid.
pub fn attest(socket: impl AsFd) -> Result<(Identity, Option<OwnedFd>), IdentityError> {
    let accepted = ticks_since_boot();
    let Credentials { pid, uid, gid } =
        peer_credentials(socket.as_fd()).map_err(|errno| IdentityError::System("SO_PEERCRED", errno))?;
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let Some(raw_pid) = Pid::from_raw(pid) else {
        return Ok((
            Identity { pid: 0, uid, gid, user, comm: "?".into(), exe: None, cgroup: None, groups: None },
            None,
        ));
    };
    let handle = match peer_pidfd(socket) {
        Some(handle) => handle,
        None if gives_handles() => return Err(IdentityError::NoHandle(pid)),
        None => pidfd_open(raw_pid, PidfdFlags::NONBLOCK).map_err(|_| IdentityError::Gone(pid))?,
    };
    let stat = fs::read(format!("/proc/{pid}/stat")).ok().and_then(|text| parse_stat(&text));
    let identity = Identity {
        pid,
        uid,
        gid,
        user,
        comm: stat.as_ref().map_or_else(|| "?".into(), |stat| printable(&stat.comm)),
        exe: program_of(pid),
        cgroup: cgroup_of(pid),
        groups: fs::read(format!("/proc/{pid}/status")).ok().and_then(|text| parse_groups(&text)),
    };
    if ended(&handle) {
        return Err(IdentityError::Gone(pid));
    }
    if stat.is_some_and(|stat| stat.start_time > accepted) {
        return Err(IdentityError::Reused(pid));
    }
    Ok((identity, Some(handle)))
}

impl Identity {
    /// What the user is called in the log.
    #[must_use]
    pub fn user_name(&self) -> String {
        self.user.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// Who is behind the host's port: the kernel, for all processes of the machine. So it is nobody in particular: no user,
    /// group or program that a policy may ask for, as for a process of which nothing is known.
    #[must_use]
    pub fn of_the_kernel() -> Self {
        let (uid, gid) = (OVERFLOW_ID, OVERFLOW_ID);
        Self { pid: 0, uid, gid, user: None, comm: "kernel".to_owned(), exe: None, cgroup: None, groups: None }
    }

    /// What of the process may change while it lives, read anew: its name and its cgroup. `None` if it is as before, or if
    /// the process behind `handle` has ended.
    #[must_use]
    pub fn refreshed(&self, handle: &OwnedFd) -> Option<Self> {
        let stat = fs::read(format!("/proc/{}/stat", self.pid)).ok().and_then(|text| parse_stat(&text))?;
        let now = Self { comm: printable(&stat.comm), cgroup: cgroup_of(self.pid), ..self.clone() };
        (now != *self && !ended(handle)).then_some(now)
    }
}

fn program_of(pid: i32) -> Option<String> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).ok()?;
    let (runs, lies) = (fs::metadata(link).ok()?, fs::metadata(&path).ok()?);
    let same = (runs.dev(), runs.ino()) == (lies.dev(), lies.ino());
    same.then(|| printable(path.as_os_str().as_encoded_bytes()))
}

fn cgroup_of(pid: i32) -> Option<String> {
    fs::read(format!("/proc/{pid}/cgroup")).ok().and_then(|text| parse_cgroup(&text))
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

/// Clock ticks since boot, rounded up, as /proc/PID/stat counts them (100 a second on every Linux, `USER_HZ`).
fn ticks_since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 100 + u64::try_from(now.tv_nsec).unwrap_or(0).div_ceil(10_000_000)
}

/// What is needed of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Vec<u8>,
    start_time: u64,
}

/// Parses /proc/PID/stat (`proc_pid_stat(5)`). The name stands in brackets and may itself hold brackets, spaces and line
/// ends, so it reaches to the last closing one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let comm = text.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // Field 22 is the start time; the first of the rest is field 3.
    let start_time = rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(Stat { comm, start_time })
}

/// The path in the unified hierarchy (`cgroups(7)`): the line that starts with `0::`.
fn parse_cgroup(text: &[u8]) -> Option<String> {
    text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"0::")).map(printable)
}

/// The supplementary groups: the line `Groups:` of /proc/PID/status (`proc_pid_status(5)`).
fn parse_groups(text: &[u8]) -> Option<Vec<u32>> {
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Groups:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|group| group.parse().ok()).collect()
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

    /// Fault 19: a process that ended while its connection waited is nobody, whoever may have its pid by then.
    #[test]
    fn dead_peer_has_no_identity() {
        let place = std::env::temp_dir().join(format!("kopi-identity-{}", std::process::id()));
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&place).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        let mut peer = Command::new(std::env::current_exe().unwrap());
        let ended = peer.args(["--exact", "identity::tests::connects_and_ends"]).env(PLACE, &place).output().unwrap();
        fs::remove_file(&place).unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let attested = attest(accept(&listener).unwrap());
        assert!(matches!(attested, Err(IdentityError::Gone(_) | IdentityError::NoHandle(_))), "{attested:?}");
    }

    /// The peer of our own socket pair is this process, by name, program and user.
    #[test]
    fn own_process_is_recognised() {
        let (a, _b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (identity, handle) = attest(&a).unwrap();
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
            assert_eq!(parse_stat(&text), Some(Stat { comm: comm.to_vec(), start_time: 4242 }));
            assert!(!printable(comm).chars().any(char::is_control));
        }
        assert_eq!(printable(b"a\nb\x1b[31m"), "a\\nb\\u{1b}[31m");
        for broken in [&b""[..], b"77", b"77 (x", b"77 x)", b")(", b"77 (x) S 1"] {
            assert_eq!(parse_stat(broken), None);
        }
    }

    /// Groups are read if all of them can be.
    #[test]
    fn groups_are_read_whole() {
        assert_eq!(parse_groups(b"Name:\tx\nGroups:\t4 27 1000 \nKthread:\t0\n"), Some(vec![4, 27, 1000]));
        assert_eq!(parse_groups(b"Groups:\t \n"), Some(vec![]));
        assert_eq!(parse_groups(b"Groups:\t4 x\n"), None);
        assert_eq!(parse_groups(b"Name:\tx\n"), None);
    }

    /// The unified hierarchy is found among older ones.
    #[test]
    fn cgroup_is_that_of_the_unified_hierarchy() {
        assert_eq!(parse_cgroup(b"1:cpu:/x\n0::/user.slice/a\n"), Some("/user.slice/a".into()));
        assert_eq!(parse_cgroup(b"1:cpu:/x\n"), None);
    }
}

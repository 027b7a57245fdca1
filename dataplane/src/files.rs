//! Files of operators, read apart.
//!
//! A file may lie where nobody answers: on a server that is gone (NFS), in a program that has stopped (FUSE). Who reads it then
//! waits in the kernel, without end and not to be stopped. So that is done by a thread of its own, and given up after a while.

use crate::control::{Brief, Brought, Prepare};
use crate::capture::output::Output;
use crate::policy::Machine;
use kopi_config::Policy;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, fstat};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// How long a file is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Threads that wait for files at one time.
const THREADS: usize = 16;
/// Those that do.
static READERS: AtomicUsize = AtomicUsize::new(0);

/// Does `work` on a thread of its own, which nobody waits for longer than he likes.
///
/// # Errors
///
/// A text for people, if there are too many already, or there is no thread to be had.
pub fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<Receiver<Result<T, String>>, String> {
    if READERS.fetch_add(1, AcqRel) >= THREADS {
        READERS.fetch_sub(1, AcqRel);
        return Err(format!("{THREADS} files are waited for already, whose file systems do not answer"));
    }
    let (done, outcome) = sync_channel(1);
    let read = move || {
        // Nobody may be interested any more.
        let _heard = done.try_send(work());
        READERS.fetch_sub(1, AcqRel);
    };
    match std::thread::Builder::new().name("kopi-file".to_owned()).spawn(read) {
        Ok(_thread) => Ok(outcome),
        Err(error) => {
            READERS.fetch_sub(1, AcqRel);
            Err(format!("no thread to read a file: {error}"))
        }
    }
}

/// The same, and waits for it.
fn patiently<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    apart(work)?.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(no_answer(name)))
}

/// What is said of a file that was given up.
#[must_use]
pub fn no_answer(name: &str) -> String {
    format!("{name}: its file system has not answered for {} seconds", PATIENCE.as_secs())
}

/// Makes what commands need of files; `configured` is the policy of kopid's own configuration.
#[must_use]
pub fn prepare(configured: Option<PathBuf>) -> Prepare {
    Arc::new(move |command: &str, arguments: &Map<String, Value>, file: Option<OwnedFd>| match command {
        "reload" => reload(arguments, file, configured.as_deref()),
        "capture" => match file {
            Some(file) => Brought::Output(patiently("the file", move || Output::new(file))),
            None => Brought::Nothing,
        },
        // What is not asked for is closed here.
        _ => Brought::Nothing,
    })
}

fn reload(arguments: &Map<String, Value>, file: Option<OwnedFd>, configured: Option<&Path>) -> Brought {
    let name = arguments.get("file").and_then(Value::as_str);
    match (file, name, configured) {
        (Some(file), name, _) => {
            let name = name.unwrap_or("the file").to_owned();
            let label = name.clone();
            Brought::Policy(patiently(&label, move || {
                let policy = Policy::parse(content(file.into(), &name)?, &name).map_err(|errors| errors.to_string())?;
                Ok(Brief::new(policy, name))
            }))
        }
        (None, Some(_), _) => Brought::Policy(Err("the file itself has to come along, as a descriptor".into())),
        (None, None, None) => Brought::Policy(Err("kopid.toml names no `policy`: name a file".into())),
        (None, None, Some(path)) => {
            let path = path.to_owned();
            Brought::Policy(patiently(&path.display().to_string(), move || read(&path)))
        }
    }
}

/// The policy in `path`. May wait for its file system.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn read(path: &Path) -> Result<Brief, String> {
    let policy = Policy::read(path).map_err(|errors| errors.to_string())?;
    Ok(Brief::new(policy, path.display().to_string()))
}

impl Brief {
    fn new(policy: Policy, name: String) -> Self {
        let warnings = policy.warnings.iter().chain(&Machine::warnings(&policy)).map(ToString::to_string).collect();
        Self { policy, name, warnings }
    }
}

/// The whole of a regular file. Reading anything else could block.
fn content(mut file: File, name: &str) -> Result<Vec<u8>, String> {
    let stat = fstat(&file).map_err(|errno| format!("{name}: {errno}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(format!("{name}: is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = (&mut file).take(SIZE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{name}: {error}"))?;
    Ok(bytes)
}

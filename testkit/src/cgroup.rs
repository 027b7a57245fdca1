//! A control group with a limit on memory, of whichever version the machine has.

use crate::machine::unique;
use std::fs;
use std::path::{Path, PathBuf};

/// Where groups with the memory controller are made, and the file with the limit: version 2, then version 1.
const PLACES: [(&str, &str); 3] = [
    ("/sys/fs/cgroup", "memory.max"),
    ("/sys/fs/cgroup/unified", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// A control group. It goes with its value, when its processes have ended.
#[derive(Debug)]
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Makes one that may have `bytes`. `None` where there is no memory controller for us.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        PLACES.into_iter().find_map(|(place, limit)| {
            let path = Path::new(place).join(format!("kopi-test-{}-{}", std::process::id(), unique()));
            fs::create_dir(&path).ok()?;
            let group = Self(path);
            // Without the controller, the file is not there.
            (group.0.join(limit).exists() && fs::write(group.0.join(limit), bytes.to_string()).is_ok()).then_some(group)
        })
    }

    /// Words of a program before another one that starts it in the group.
    #[must_use]
    pub fn wrapper(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        vec!["sh".into(), "-c".into(), script]
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Whoever is in it at the end of a test that has failed goes with it.
        drop(fs::remove_dir(&self.0));
    }
}

//! Which container and which pod a process is in, by the paths of its cgroups.
//!
//! No kernel knows containers; what engines and the kubelet make of them are cgroups with certain names. A name alone proves
//! nothing: whoever may make cgroups somewhere can give one the name of another's container. So a path is read from the
//! root, and each part of it counts only as far as root alone can have made it:
//!
//! - slices, since systemd delegates units of other kinds only (`systemd.resource-control(5)`, `Delegate=`), and the
//!   folders of `PARENTS`. A container or a pod below nothing but these is the system's, and its id stands alone;
//! - any other unit, and the slice of a user, may have been handed over. What is below is what its user says, and its id
//!   has the name of that unit before it: `user-1000/…` of a rootless Podman, `web.service/…` of a Quadlet;
//! - what is below a container is of the container's own making, and counts for nothing.
//!
//! A process whose hierarchies name different containers (cgroups of version 1) is in none that is known.

use std::fmt;

/// A container, as far as its cgroup says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Who runs it.
    pub runtime: Runtime,
    /// 64 hexadecimal digits; before them the unit below which anybody may have made it, and a slash.
    pub id: String,
    /// UID of its pod in Kubernetes, or the id of Podman's, likewise.
    pub pod: Option<String>,
}

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Docker, or the kubelet by it.
    Docker,
    /// Podman.
    Podman,
    /// containerd, by Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// The kubelet has it run by a runtime that does not write its name there.
    Kubelet,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Kubelet => "kubelet",
        })
    }
}

/// Where containers of a process may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Containment {
    /// Its cgroups are not known, or contradict each other.
    #[default]
    Unknown,
    /// In none.
    Outside,
    /// In this one.
    In(Container),
}

impl Containment {
    /// What the lines of `/proc/PID/cgroup` say (`cgroups(7)`).
    #[must_use]
    pub fn of(lines: &str) -> Self {
        let mut found = None;
        let paths = || lines.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        // Of a process outside of kopid's cgroup namespace nobody knows where it begins (`cgroup_namespaces(7)`). Further down, a name
        // that looks so is somebody's choice.
        if paths().next().is_none() || paths().any(|path| path == "/.." || path.starts_with("/../")) {
            return Self::Unknown;
        }
        for container in paths().filter_map(container_of) {
            if found.as_ref().is_some_and(|other| *other != container) {
                return Self::Unknown;
            }
            found = Some(container);
        }
        found.map_or(Self::Outside, Self::In)
    }

    /// The container, if there is one.
    #[must_use]
    pub const fn container(&self) -> Option<&Container> {
        if let Self::In(container) = self { Some(container) } else { None }
    }
}

/// Folders of drivers that name cgroups themselves, each with who runs the containers directly in it. The kubelet's, Docker's,
/// Podman's and containerd's namespaces; all are made by root.
const PARENTS: &[(&str, Option<Runtime>)] = &[
    ("docker", Some(Runtime::Docker)),
    ("libpod_parent", Some(Runtime::Podman)),
    ("kubelet", None),
    ("kubepods", Some(Runtime::Kubelet)),
    ("burstable", Some(Runtime::Kubelet)),
    ("besteffort", Some(Runtime::Kubelet)),
    ("k8s.io", Some(Runtime::Containerd)),
    ("default", Some(Runtime::Containerd)),
];

/// What containers are called before their ids.
const PREFIXES: &[(&str, Runtime)] = &[
    ("docker", Runtime::Docker),
    ("libpod", Runtime::Podman),
    // Podman with `--cgroups=split`, as Quadlet has it.
    ("libpod-payload", Runtime::Podman),
    ("cri-containerd", Runtime::Containerd),
    ("nerdctl", Runtime::Containerd),
    ("crio", Runtime::CriO),
];

/// What is known of the part of a path that has been read.
#[derive(Default)]
struct Reader<'p> {
    /// The unit from which on anybody may have made what is there.
    unit: Option<&'p str>,
    /// Who runs containers directly here.
    parent: Option<Runtime>,
    /// The pod that this is the cgroup of.
    pod: Option<String>,
}

/// The outermost container of a path from the root.
fn container_of(path: &str) -> Option<Container> {
    let mut reader = Reader::default();
    let mut parts = path.strip_prefix('/')?.split('/').peekable();
    while let Some(part) = parts.next() {
        if let Some(container) = reader.container(part) {
            return Some(container);
        }
        if reader.unit.is_some() {
            reader.enter(part);
        } else if part == "user.slice" {
            // A user's own; whatever else there may be, nobody's.
            let user = parts.next()?.strip_suffix(".slice").filter(|slice| slice.starts_with("user-"))?;
            reader.unit = Some(user);
        } else if is_trusted(part) || reader.is_pod(part) {
            reader.enter(part);
        } else if reader.parent.is_none() && reader.pod.is_none() {
            reader.unit = Some(part);
        } else {
            return None;
        }
    }
    None
}

fn is_trusted(part: &str) -> bool {
    part.ends_with(".slice") || PARENTS.iter().any(|(name, _)| *name == part)
}

impl Reader<'_> {
    /// Whether `part` is the cgroup of a pod, where the one of its driver is above.
    fn is_pod(&self, part: &str) -> bool {
        match self.parent {
            Some(Runtime::Kubelet) => part.strip_prefix("pod").is_some_and(is_uid),
            Some(Runtime::Podman) => is_id(part),
            _ => false,
        }
    }

    fn enter(&mut self, part: &str) {
        let is_pod = self.is_pod(part);
        self.pod = match self.parent {
            Some(Runtime::Kubelet) if is_pod => part.strip_prefix("pod").map(str::to_owned),
            Some(Runtime::Podman) if is_pod => Some(part.to_owned()),
            _ => part.strip_suffix(".slice").and_then(pod_of_slice),
        };
        let parent = PARENTS.iter().find(|(name, _)| *name == part).and_then(|(_, runtime)| *runtime);
        self.parent = parent.or_else(|| self.parent.filter(|_| is_pod));
    }

    /// The container whose cgroup `part` is.
    fn container(&self, part: &str) -> Option<Container> {
        // What a runtime makes of the path of the other driver: `SLICE:PREFIX:ID`.
        let mut words = part.split(':');
        let (runtime, id, pod) = match (words.next()?, words.next(), words.next(), words.next()) {
            (slice, Some(prefix), Some(id), None) => {
                (by_prefix(prefix)?, id, slice.strip_suffix(".slice").and_then(pod_of_slice))
            }
            (part, None, ..) => {
                let (runtime, id) = self.named(part)?;
                (runtime, id, self.pod.clone())
            }
            _ => return None,
        };
        let below = |id: String| match self.unit {
            Some(unit) => format!("{unit}/{id}"),
            None => id,
        };
        is_id(id).then(|| Container { runtime, id: below(id.to_owned()), pod: pod.map(below) })
    }

    /// `PREFIX-ID.scope` of systemd, `PREFIX-ID`, or the id alone where the folder says whose it is.
    fn named<'a>(&self, part: &'a str) -> Option<(Runtime, &'a str)> {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        if let Some((prefix, id)) = name.rsplit_once('-') {
            return Some((by_prefix(prefix)?, id));
        }
        // Below Podman's folder these are pods.
        let parent = self.parent.filter(|parent| *parent != Runtime::Podman)?;
        let in_pod = parent != Runtime::Kubelet || self.pod.is_some();
        (in_pod && name == part).then_some((parent, part))
    }
}

fn by_prefix(prefix: &str) -> Option<Runtime> {
    PREFIXES.iter().find(|(name, _)| *name == prefix).map(|(_, runtime)| *runtime)
}

/// The pod of a slice, named without its suffix: `kubepods-burstable-podUID`, whose dashes are underscores there, below what
/// the kubelet's `--cgroup-root` puts before it; `machine-libpod_pod_ID`.
fn pod_of_slice(name: &str) -> Option<String> {
    if let Some((_, id)) = name.split_once("libpod_pod_") {
        return is_id(id).then(|| id.to_owned());
    }
    let (above, uid) = name.rsplit_once("-pod")?;
    let above = above.strip_suffix("-burstable").or_else(|| above.strip_suffix("-besteffort")).unwrap_or(above);
    let uid = uid.replace('_', "-");
    ((above == "kubepods" || above.ends_with("-kubepods")) && is_uid(&uid)).then_some(uid)
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str) -> bool {
    is_hex(text, 64)
}

/// Of a pod of the API server's, or of one that the kubelet has from a file.
fn is_uid(text: &str) -> bool {
    is_hex(text, 32) || text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && is_hex(&text.replace('-', ""), 32)
}

#[cfg(test)]
mod tests;

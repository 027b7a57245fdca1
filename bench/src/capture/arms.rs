//! The sessions that are compared.

use super::session::Target;

/// A session, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arm {
    /// Its name on the page.
    pub(super) name: &'static str,
    /// What it is, for the page.
    pub(super) what: &'static str,
    /// What is asked of kopid, as JSON, and where the session writes to; `None` for no session.
    pub(super) session: Option<(&'static str, Target)>,
}

/// The name of what all others are compared with.
pub(super) const NONE: &str = "none";
/// Likewise without a session: how far two equal arms differ.
pub(super) const AGAIN: &str = "again";
/// A filter that nothing passes.
pub(super) const PORT: &str = "port";
/// Another one.
pub(super) const HOST: &str = "host";
/// A filter that few frames pass.
pub(super) const FEW: &str = "few";
/// Few of all frames.
pub(super) const SAMPLE: &str = "sample";

/// Every one of them.
pub(super) const ALL: [Arm; 8] = [
    Arm { name: NONE, what: "no session", session: None },
    Arm { name: AGAIN, what: "no session either: how far equals differ", session: None },
    Arm {
        name: PORT,
        what: "`udp port 53`, which none of the frames is",
        session: Some((r#"{"filter": "udp port 53"}"#, Target::Null)),
    },
    Arm {
        name: HOST,
        what: "`host 192.0.2.1 and tcp`, likewise",
        session: Some((r#"{"filter": "host 192.0.2.1 and tcp"}"#, Target::Null)),
    },
    Arm {
        name: FEW,
        what: "`udp src portrange 1990-1999`, which 10 of 1,000 flows are, and the single one is not",
        session: Some((r#"{"filter": "udp src portrange 1990-1999"}"#, Target::Null)),
    },
    Arm {
        name: SAMPLE,
        what: "every hundredth frame, to `/dev/null`",
        session: Some((r#"{"sample": 100}"#, Target::Null)),
    },
    Arm {
        name: "all",
        what: "every frame, at most 96 bytes of it, to `/dev/null`",
        session: Some((r#"{"snap": 96}"#, Target::Null)),
    },
    Arm {
        name: "all-file",
        what: "the same, to files of 64 MiB in memory (tmpfs)",
        session: Some((r#"{"snap": 96, "file_bytes": 67108864}"#, Target::Memory)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Each request is an object of JSON, and no name is there twice.
    #[test]
    fn sessions_are_well_formed() {
        for (at, arm) in ALL.iter().enumerate() {
            let request = arm.session.map(|(request, _)| serde_json::from_str::<Value>(request));
            assert!(request.is_none_or(|request| request.is_ok_and(|request| request.is_object())), "{}", arm.name);
            assert!(ALL[..at].iter().all(|other| other.name != arm.name), "{}", arm.name);
        }
    }
}

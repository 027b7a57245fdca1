//! Why the control thread ends an application's connection.

use crate::control::identity::IdentityError;
use kopi_ring::PeerFault;
use thiserror::Error;

/// Why a connection ends, and its port with it. The text is for the log, behind the name of the process if it has one.
#[derive(Debug, Error)]
pub enum DetachReason {
    /// Its process has closed it, or has ended: nothing to be logged.
    #[error("has ended")]
    Ended,
    /// It cannot be told why, or has been told already.
    #[error("{0}")]
    Failed(String),
    /// This is what it is told.
    #[error("was refused: {0}")]
    Refused(String),
    /// The process could not be identified.
    #[error("refused a connection: {0}")]
    Unidentified(#[from] IdentityError),
    /// The process was not identified in time.
    #[error("is refused: it takes too long to find out who it is")]
    IdentifyTimeout,
    /// It did not send its hello in time.
    #[error("did not say hello in time")]
    HelloTimeout,
    /// Another connection needs its place.
    #[error("made room: too many silent connections")]
    MadeRoom,
    /// It broke the contract of its rings.
    #[error("broke the contract of its rings: {0}")]
    Fault(#[from] PeerFault),
    /// The policy in force does not let it stay as it is. Its driver attaches again, as the policy wants it, or is refused.
    #[error("has to attach again: {0}")]
    Policy(String),
    /// It is not known for too long whether its process is what it was, which the policy follows.
    #[error("cannot be looked at, because of what its user does")]
    RefreshTimeout,
}

impl DetachReason {
    /// The words of [`as_str`](Self::as_str).
    pub const WORDS: [&'static str; 10] = [
        "ended",
        "failed",
        "refused",
        "unidentified",
        "identify_timeout",
        "hello_timeout",
        "made_room",
        "ring_fault",
        "policy",
        "refresh_timeout",
    ];

    /// The reason in a word, for those who count.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        Self::WORDS[match self {
            Self::Ended => 0,
            Self::Failed(_) => 1,
            Self::Refused(_) => 2,
            Self::Unidentified(_) => 3,
            Self::IdentifyTimeout => 4,
            Self::HelloTimeout => 5,
            Self::MadeRoom => 6,
            Self::Fault(_) => 7,
            Self::Policy(_) => 8,
            Self::RefreshTimeout => 9,
        }]
    }

    /// What the application is told, if anything.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        Some(match self {
            Self::Ended | Self::Failed(_) => return None,
            Self::Refused(why) | Self::Policy(why) => why.clone(),
            Self::Unidentified(error) => format!("kopid could not find out who you are: {error}"),
            Self::IdentifyTimeout => "kopid could not find out in time who you are".to_owned(),
            Self::HelloTimeout => "no hello in time".to_owned(),
            Self::MadeRoom => {
                "too many connections have not said hello yet, and this one was silent for longest".to_owned()
            }
            Self::Fault(fault) => fault.to_string(),
            Self::RefreshTimeout => "kopid could not look at this process for too long".to_owned(),
        })
    }
}

//! What can be wrong with a stream that is read.

use crate::block::{MAX_BLOCK, MAX_INTERFACES};
use std::io;
use thiserror::Error;

/// Why a stream cannot be read on.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The source failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream does not begin with the header of a section.
    #[error("this is not pcapng")]
    NotPcapng,
    /// A section is in a version whose blocks may mean something else.
    #[error("pcapng version {major}.{minor} is not supported")]
    Version {
        /// Would change for what older readers cannot read at all.
        major: u16,
        /// Would change for what older readers cannot skip.
        minor: u16,
    },
    /// The stream ends within a block, as it does when its writer was killed.
    #[error("the stream ends within a block")]
    Truncated,
    /// A block is shorter than the least block, longer than [`MAX_BLOCK`], or no multiple of four.
    #[error("a block of {0} bytes: not a multiple of 4 from 12 to {MAX_BLOCK}")]
    Length(u32),
    /// The length at the end of a block differs from that at its begin.
    #[error("a block of {front} bytes says {back} at its end")]
    Lengths {
        /// Bytes, as said at the begin.
        front: u32,
        /// Bytes, as said at the end.
        back: u32,
    },
    /// A block ends before its fields, its data or an option.
    #[error("a block of type {kind:#x} ends before its content")]
    Short {
        /// The type of the block.
        kind: u32,
    },
    /// The value of a known option has not the length or the encoding that it has to have.
    #[error("option {code} of a block of type {kind:#x} is malformed")]
    Option {
        /// The type of the block.
        kind: u32,
        /// The code of the option.
        code: u16,
    },
    /// A block is about an interface that the section has not described.
    #[error("interface {0} is not described")]
    Interface(u32),
    /// A section has more than [`MAX_INTERFACES`].
    #[error("more than {MAX_INTERFACES} interfaces")]
    Interfaces,
    /// A timestamp is before 1970, or more nanoseconds after it than 64 bits hold (in the year 2554).
    #[error("a timestamp is out of range")]
    Timestamp,
}

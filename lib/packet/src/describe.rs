//! Frames from what people write about them: the words in which a [`FlowKey`] is printed, and a few more.
//!
//! ```text
//! [vlan N] tcp 10.0.0.1:5432 > 10.0.0.2:999 [flags syn,ack]
//! [vlan N] udp [fe80::1]:53 > [fe80::2]:53
//! [vlan N] icmp 10.0.0.1 > 10.0.0.2 [type T] [code C] [id I]
//! [vlan N] icmp6 fe80::1 > fe80::2 [type T] [code C] [id I] [target ADDRESS]
//! [vlan N] proto 47 10.0.0.1 > 10.0.0.2
//! [vlan N] arp request 10.0.0.1 [(MAC)] > 10.0.0.2 [(MAC)]
//! [vlan N] 0x88cc MAC > MAC
//! ```
//!
//! There are also `service-vlan`, a second tag behind the first, `udplite`, `sctp`, `arp reply` and `arp operation N`.
//! IP may end with `first fragment` or `later fragment` and `dscp N`, and all but the last form with `from MAC` and `to MAC`, the
//! addresses of the frame. Behind the tags may stand `malformed REASON`: of such there is a key, but no frame. A TCP segment of which nothing is said has the flag SYN, an ICMP message is an echo request.

extern crate alloc;

mod build;
pub(crate) mod words;

use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use crate::{FlowKey, Headers, MacAddr, Shape, checksum, parse};

/// Why a description is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DescribeError {
    /// A word that does not belong where it stands.
    Word {
        /// Its beginning.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// It ends too early.
    End {
        /// What is missing.
        expected: &'static str,
    },
    /// Parts of it do not go together: why not.
    Conflict(&'static str),
    /// It describes a malformed frame, of which it does not say enough to make one.
    Malformed,
}

impl fmt::Display for DescribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word { found, expected } => write!(f, "`{}` stands where {expected} belongs", found.escape_debug()),
            Self::End { expected } => write!(f, "at the end, {expected} is missing"),
            Self::Conflict(why) => f.write_str(why),
            Self::Malformed => f.write_str("a malformed frame cannot be made from its description"),
        }
    }
}

impl Error for DescribeError {}

/// Makes an Ethernet frame of which [`parse`] finds what `text` says.
///
/// Lengths and checksums are right; whatever `text` says nothing about is zero. So are the addresses of the frame, but
/// for an ARP request, which goes to everybody.
///
/// # Errors
///
/// [`DescribeError`], in words for whoever wrote `text`.
///
/// ```
/// use kopi_packet::{describe, parse};
///
/// let text = "vlan 7 tcp 10.0.0.1:5432 > 10.0.0.2:999";
/// let frame = describe::frame_of(text)?;
/// assert_eq!(parse(&frame, 0).1.to_string(), text);
/// # Ok::<(), describe::DescribeError>(())
/// ```
pub fn frame_of(text: &str) -> Result<Vec<u8>, DescribeError> {
    frame_between(text, MacAddr::ZERO, MacAddr::ZERO)
}

/// The same, from one station to another if `text` does not name others. A sender of ARP without an address has that of
/// the frame.
///
/// # Errors
///
/// As [`frame_of`].
pub fn frame_between(text: &str, from: MacAddr, to: MacAddr) -> Result<Vec<u8>, DescribeError> {
    let description = words::read(text)?;
    if description.malformed.is_some() {
        return Err(DescribeError::Malformed);
    }
    let mut frame = description.build(from, to);
    let (headers, _) = parse(&frame, 0);
    // Such as an ethertype that needs more than is said, or an IPv6 extension header without what it extends.
    if matches!(headers.shape, Shape::Malformed(_)) {
        return Err(DescribeError::Malformed);
    }
    checksum::complete(&mut frame, &headers);
    Ok(frame)
}

/// What [`parse`] finds of the frame that `text` describes, from one station to another if it does not name others; of a malformed one,
/// too. The frame comes along, as whole as it can be made.
///
/// So what [`FlowKey::full`] prints is read as what it was printed of, as far as policies can tell.
///
/// # Errors
///
/// [`DescribeError`], in words for whoever wrote `text`.
pub fn key_between(
    text: &str,
    from: MacAddr,
    to: MacAddr,
    source: u16,
) -> Result<(Vec<u8>, Headers, FlowKey), DescribeError> {
    let description = words::read(text)?;
    let mut frame = description.build(from, to);
    let (mut headers, key) = parse(&frame, source);
    let Some(reason) = description.malformed else {
        if matches!(headers.shape, Shape::Malformed(_)) {
            return Err(DescribeError::Malformed);
        }
        checksum::complete(&mut frame, &headers);
        return Ok((frame, headers, key));
    };
    headers.shape = Shape::Malformed(reason);
    Ok((frame, headers, key.with_malformed(reason, description.proto())))
}

#[cfg(test)]
mod tests;

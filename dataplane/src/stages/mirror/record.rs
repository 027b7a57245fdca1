//! What a mirror writes down of a frame, as it lies in the ring between a worker and a capture session.
//!
//! A record takes whole cells of 64 bytes. The first has the header and the first bytes of the frame, those behind it the
//! rest of what is kept.

use crate::ids::{PortId, WIRE};
use kopi_config::policy::Decision;
use kopi_ring::DropReason;

/// Bytes of a cache line, the unit of the ring.
const CELL: usize = 64;
/// Bytes of a record's header.
const HEADER: usize = 32;
/// In the place of a rule: none has decided.
const NO_RULE: u32 = u32::MAX;
/// In the place of a reason: the frame was not dropped.
const NO_REASON: u8 = u8::MAX;

/// One cell of a ring.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Cell([u8; CELL]);

impl Cell {
    /// A cell of zeros.
    pub const EMPTY: Self = Self([0; CELL]);
}

/// One frame at one port, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRecord {
    /// The port.
    pub port: PortId,
    /// Whether the frame comes out of it (from an app, or onto the wire), not in.
    pub out: bool,
    /// The app at whose side this is, or for the wire whose frame it is; [`WIRE`] if it is nobody's.
    pub owner: PortId,
    /// What has become of the frame here.
    pub decision: Decision,
    /// Why, if it went no further.
    pub reason: Option<DropReason>,
}

impl PacketRecord {
    /// A frame that goes on.
    #[must_use]
    pub const fn passed(port: PortId, out: bool, owner: PortId) -> Self {
        Self { port, out, owner, decision: Decision::Accept, reason: None }
    }

    /// A frame that goes no further, for `reason`.
    #[must_use]
    pub const fn dropped(port: PortId, out: bool, owner: PortId, reason: DropReason) -> Self {
        let decision = if matches!(reason, DropReason::Rejected) { Decision::Reject } else { Decision::Drop };
        Self { port, out, owner, decision, reason: Some(reason) }
    }

    /// Whether it is a frame from the wire that goes to no app.
    #[must_use]
    pub fn is_stray(&self) -> bool {
        self.port == WIRE && self.owner == WIRE && self.decision != Decision::Accept
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// TSC of the burst.
    pub tsc: u64,
    /// The snapshot by whose port and rule numbers this is told.
    pub epoch: u32,
    /// The rule that has decided, by its number in the snapshot's policy.
    pub rule: Option<u32>,
    /// Bytes of the frame, without FCS.
    pub len: u32,
    /// Records of this port that were lost since the one before. Stays at the largest number.
    pub lost: u32,
    /// The queue that the frame came by or goes to.
    pub queue: u8,
    /// Where it was seen.
    pub record: PacketRecord,
}

impl RecordHeader {
    /// Lines of a record that keeps at most `snap` bytes of the frame.
    #[inline]
    #[must_use]
    pub fn cells(&self, snap: u32) -> usize {
        (HEADER + self.kept(snap)).div_ceil(CELL)
    }

    /// Bytes of the frame that are kept.
    #[inline]
    #[must_use]
    pub fn kept(&self, snap: u32) -> usize {
        self.len.min(snap) as usize
    }

    /// Everything but time, length and losses, in two words: frames for which it is the same are told in the same words.
    #[must_use]
    pub fn kind(&self) -> [u64; 2] {
        let bytes = self.to_bytes();
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        [word(8), word(24)]
    }

    /// The cells of the record, with `kept` as the frame's bytes.
    #[inline]
    pub fn write<'f>(&self, kept: &'f [u8]) -> impl Iterator<Item = Cell> + use<'f> {
        let (now, later) = kept.split_at(kept.len().min(CELL - HEADER));
        let mut first = Cell::EMPTY;
        let (header, rest) = first.0.split_at_mut(HEADER);
        header.copy_from_slice(&self.to_bytes());
        rest.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        let rest = later.chunks(CELL).map(|bytes| {
            // A whole cell is copied as one, which nearly all are.
            bytes.first_chunk::<CELL>().map_or_else(
                || {
                    let mut cell = Cell::EMPTY;
                    cell.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                    cell
                },
                |bytes| Cell(*bytes),
            )
        });
        std::iter::once(first).chain(rest)
    }

    /// The header that `cell` begins with.
    #[must_use]
    pub fn read(cell: &Cell) -> Self {
        let bytes: [u8; HEADER] = *cell.0.first_chunk().unwrap_or(&[0; HEADER]);
        Self::from_bytes(bytes)
    }

    /// The kept bytes of a record of this header, whose cells are `first` and then `second`, in pieces.
    pub fn data<'a>(&self, snap: u32, cells: [&'a [Cell]; 2]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut skip = HEADER;
        let mut left = self.kept(snap);
        cells.into_iter().flatten().map(move |cell| {
            let bytes = cell.0.get(std::mem::take(&mut skip)..).unwrap_or_default();
            let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            left -= bytes.len();
            bytes
        })
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let PacketRecord { port, out, owner, decision, reason } = self.record;
        let decision = match decision {
            Decision::Accept => 0,
            Decision::Drop => 1,
            Decision::Reject => 2,
        };
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.tsc.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.rule.unwrap_or(NO_RULE).to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.lost.to_ne_bytes());
        bytes[24..26].copy_from_slice(&port.to_ne_bytes());
        bytes[26..28].copy_from_slice(&owner.to_ne_bytes());
        bytes[28] = self.queue;
        bytes[29] = decision << 1 | u8::from(out);
        bytes[30] = reason.map_or(NO_REASON, |reason| reason as u8);
        bytes
    }

    fn from_bytes(bytes: [u8; HEADER]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u16::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let rule = word(12);
        Self {
            tsc: u64::from_ne_bytes(std::array::from_fn(|i| bytes[i])),
            epoch: word(8),
            rule: (rule != NO_RULE).then_some(rule),
            len: word(16),
            lost: word(20),
            queue: bytes[28],
            record: PacketRecord {
                port: half(24),
                out: bytes[29] & 1 != 0,
                owner: half(26),
                decision: match bytes[29] >> 1 {
                    0 => Decision::Accept,
                    1 => Decision::Drop,
                    _ => Decision::Reject,
                },
                reason: DropReason::ALL.get(usize::from(bytes[30])).copied(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = PacketRecord> {
        let reason = prop::option::of(0..DropReason::ALL.len());
        (any::<u16>(), any::<bool>(), any::<u16>(), reason).prop_map(|(port, out, owner, reason)| match reason {
            None => PacketRecord::passed(port, out, owner),
            Some(reason) => PacketRecord::dropped(port, out, owner, DropReason::ALL[reason]),
        })
    }

    proptest! {
        /// A record comes back as it went in, whatever part of it lies behind the end of the ring.
        #[test]
        fn records_come_back(
            record in records(),
            (tsc, epoch, lost, queue) in (any::<u64>(), any::<u32>(), any::<u32>(), any::<u8>()),
            rule in prop::option::of(0..u32::MAX),
            frame in prop::collection::vec(any::<u8>(), 0..300),
            snap in 1_u32..400,
            cut in 0_usize..8,
        ) {
            let len = u32::try_from(frame.len()).unwrap();
            let header = RecordHeader { tsc, epoch, rule, len, lost, queue, record };
            let kept = &frame[..header.kept(snap)];
            let cells: Vec<Cell> = header.write(kept).collect();
            prop_assert_eq!(cells.len(), header.cells(snap));
            prop_assert_eq!(RecordHeader::read(&cells[0]), header);
            let (first, second) = cells.split_at(cut.min(cells.len()));
            let data: Vec<u8> = header.data(snap, [first, second]).flatten().copied().collect();
            prop_assert_eq!(data, kept);
        }
    }
}

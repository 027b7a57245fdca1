//! One packet of the stream, with whose it is and what became of it.

use kopi_pcapng::{Direction, ReadPacket, read_note};
use std::borrow::Cow;

/// One frame at one port. Names are as their owners chose them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PacketRecord<'s> {
    /// Nanoseconds since 1970.
    pub(crate) time_ns: u64,
    /// `wire` or an app's name.
    pub(crate) port: &'s str,
    pub(crate) direction: Option<&'static str>,
    /// Its bytes that were kept.
    pub(crate) data: &'s [u8],
    /// How many there were.
    pub(crate) length: usize,
    /// Records of this port that were lost before it.
    pub(crate) lost: u64,
    pub(crate) app: Option<Cow<'s, str>>,
    pub(crate) pid: Option<i32>,
    pub(crate) uid: Option<u32>,
    pub(crate) user: Option<Cow<'s, str>>,
    pub(crate) comm: Option<Cow<'s, str>>,
    pub(crate) container: Option<Cow<'s, str>>,
    pub(crate) pod: Option<Cow<'s, str>>,
    pub(crate) verdict: Option<Cow<'s, str>>,
    pub(crate) reason: Option<Cow<'s, str>>,
    pub(crate) rule: Option<Cow<'s, str>>,
    pub(crate) queue: Option<u32>,
}

impl<'s> PacketRecord<'s> {
    /// `packet`, seen at `port`.
    pub(crate) fn of(port: &'s str, packet: &ReadPacket<'s>) -> Self {
        let direction = packet.direction.map(|direction| match direction {
            Direction::Inbound => "in",
            Direction::Outbound => "out",
        });
        let mut record = Self {
            time_ns: packet.timestamp_ns,
            port,
            direction,
            data: packet.data,
            length: usize::try_from(packet.len).unwrap_or(usize::MAX).max(packet.data.len()),
            lost: packet.drops,
            queue: packet.queue,
            ..Self::default()
        };
        for (key, value) in read_note(packet.comment.unwrap_or_default()) {
            match key {
                "app" => record.app = Some(value),
                "pid" => record.pid = value.parse().ok(),
                "uid" => record.uid = value.parse().ok(),
                "user" => record.user = Some(value),
                "comm" => record.comm = Some(value),
                "container" => record.container = Some(value),
                "pod" => record.pod = Some(value),
                "verdict" => record.verdict = Some(value),
                "reason" => record.reason = Some(value),
                "rule" => record.rule = Some(value),
                _ => {}
            }
        }
        record
    }

    /// Whether it has an owner.
    pub(crate) const fn is_owned(&self) -> bool {
        self.app.is_some() || self.pid.is_some() || self.uid.is_some()
    }
}

//! What is in a file of packets.

use kopi_pcapng::{Block, Direction, InterfaceInfo, ReadError, Reader, SectionInfo, Statistics, read_note};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// The number of its interface.
    pub interface: usize,
    /// When it was seen: nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Its length on the wire.
    pub len: u32,
    /// Whether it left its port, or came in there.
    pub out: bool,
    /// The queue.
    pub queue: Option<u32>,
    /// Packets lost before it.
    pub drops: u64,
    /// Its comment.
    pub comment: String,
    /// Its kept bytes.
    pub data: Vec<u8>,
}

impl Shot {
    /// What its comment says under `key`; an empty text if it says nothing.
    #[must_use]
    pub fn says(&self, key: &str) -> String {
        read_note(&self.comment).find(|(name, _)| *name == key).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

/// A file of packets, as kopid writes them: one section.
#[derive(Debug, Default)]
pub struct Recording {
    /// What made it.
    pub section: SectionInfo,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceInfo>,
    /// Its packets.
    pub packets: Vec<Shot>,
    /// Its statistics, one for each interface.
    pub statistics: Vec<Statistics>,
}

impl Recording {
    /// Reads a whole file, and checks what has to hold for all of them: time never runs backwards on an interface, no
    /// packet has more bytes than the interface keeps, every one says what became of it and where it went, and the
    /// statistics say of each interface how many packets are in the file.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (recording, end) = Self::read(&bytes);
        assert!(end.is_none(), "{} of {} bytes is damaged: {end:?}", path.display(), bytes.len());
        recording.check(&path.display().to_string());
        recording
    }

    /// Reads as far as the bytes are right, and returns what is wrong behind that.
    #[must_use]
    pub fn read(bytes: &[u8]) -> (Self, Option<ReadError>) {
        let mut reader = Reader::new(bytes);
        let mut recording = Self::default();
        loop {
            match reader.next() {
                Ok(Some(block)) => recording.take(block),
                Ok(None) => return (recording, None),
                Err(error) => return (recording, Some(error)),
            }
        }
    }

    fn take(&mut self, block: Block<'_>) {
        match block {
            Block::Section(section) => {
                assert!(self.interfaces.is_empty(), "a file of kopid's has one section");
                self.section = section;
            }
            Block::Interface(interface) => self.interfaces.push(interface),
            Block::Statistics(statistics) => self.statistics.push(statistics),
            Block::Packet(packet) => {
                let interface = usize::try_from(packet.interface).expect("few");
                let direction = packet.direction.unwrap_or_else(|| panic!("no direction: {packet:?}"));
                self.packets.push(Shot {
                    interface,
                    timestamp_ns: packet.timestamp_ns,
                    len: packet.len,
                    out: direction == Direction::Outbound,
                    queue: packet.queue,
                    drops: packet.drops,
                    comment: packet.comment.unwrap_or_default().to_owned(),
                    data: packet.data.to_vec(),
                });
            }
            Block::Other(kind) => panic!("kopid writes no blocks of type {kind}"),
        }
    }

    /// What holds for every packet of a file, whole or not.
    pub fn check_packets(&self) {
        let mut last = BTreeMap::new();
        for packet in &self.packets {
            let before = last.insert(packet.interface, packet.timestamp_ns).unwrap_or(0);
            assert!(packet.timestamp_ns >= before, "time runs backwards: {packet:?} after {before}");
            let snap = self.interfaces[packet.interface].snap.min(packet.len);
            assert_eq!(packet.data.len(), usize::try_from(snap).expect("short"), "{packet:?}");
            assert!(["accept", "drop", "reject"].contains(&packet.says("verdict").as_str()), "{packet:?}");
        }
    }

    fn check(&self, name: &str) {
        self.check_packets();
        let numbers: Vec<u32> = self.statistics.iter().map(|statistics| statistics.interface).collect();
        let all: Vec<u32> = (0..).take(self.interfaces.len()).collect();
        assert_eq!(numbers, all, "{name}: statistics of each interface: {:?}", self.interfaces);
        for (at, statistics) in self.statistics.iter().enumerate() {
            let packets = self.packets.iter().filter(|packet| packet.interface == at).count() as u64;
            assert_eq!(statistics.delivered, packets, "{name}: {statistics:?}");
            assert!(statistics.start_ns <= statistics.end_ns && statistics.accepted <= statistics.received, "{name}");
        }
    }

    /// Packets that were seen at the port `name`.
    pub fn at<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Shot> {
        self.packets.iter().filter(move |packet| self.interfaces[packet.interface].name == name)
    }

    /// Its packets' bytes.
    #[must_use]
    pub fn frames(&self) -> Vec<&[u8]> {
        self.packets.iter().map(|packet| packet.data.as_slice()).collect()
    }

    /// Sums over all interfaces.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let sum = |of: fn(&Statistics) -> u64| self.statistics.iter().map(of).sum();
        Sums {
            captured: sum(|statistics| statistics.delivered),
            received: sum(|statistics| statistics.accepted),
            dropped: sum(|statistics| statistics.dropped),
        }
    }
}

/// What a capture has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Packets in the file.
    pub captured: u64,
    /// Packets that were wanted.
    pub received: u64,
    /// Packets that were wanted and lost.
    pub dropped: u64,
}

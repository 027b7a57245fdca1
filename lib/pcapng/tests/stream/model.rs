//! Streams as they are meant, written both by the crate and the long way.

use kopi_pcapng::{
    Block, Direction, Interface, InterfaceInfo, LINK_ETHERNET, MAX_TEXT, Packet, ReadPacket, Section, SectionInfo,
    Statistics,
};
use proptest::prelude::*;

/// A block as it is meant.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Section([String; 3]),
    Interface { name: String, description: String, mac: Option<[u8; 6]>, filter: Option<String>, snap: u32 },
    Packet(PacketRecord),
    Statistics(Statistics),
}

/// A packet as it is meant.
#[derive(Clone, Debug)]
pub(crate) struct PacketRecord {
    pub(crate) interface: u32,
    pub(crate) timestamp_ns: u64,
    pub(crate) len: u32,
    pub(crate) direction: Direction,
    pub(crate) queue: Option<u32>,
    pub(crate) drops: u64,
    pub(crate) comment: String,
    pub(crate) data: Vec<u8>,
    /// In pieces of how many bytes it is given to the writer.
    pub(crate) piece: usize,
}

/// Streams that begin with a section and describe each interface before they use it.
pub(crate) fn streams() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec(items(), 0..12).prop_map(arrange)
}

fn arrange(items: Vec<Item>) -> Vec<Item> {
    let mut arranged = vec![Item::Section(Default::default())];
    let mut interfaces = 0;
    for mut item in items {
        match &mut item {
            Item::Section(_) => interfaces = 0,
            Item::Interface { .. } => interfaces += 1,
            Item::Packet(PacketRecord { interface, .. }) | Item::Statistics(Statistics { interface, .. }) => {
                if interfaces == 0 {
                    let name = String::from("first");
                    arranged.push(Item::Interface {
                        name,
                        description: String::new(),
                        mac: None,
                        filter: None,
                        snap: 0,
                    });
                    interfaces = 1;
                }
                *interface %= interfaces;
            }
        }
        arranged.push(item);
    }
    arranged
}

fn items() -> impl Strategy<Value = Item> {
    let section = [texts(), texts(), texts()].prop_map(Item::Section);
    let interface = (texts(), texts(), any::<Option<[u8; 6]>>(), prop::option::of(texts()), any::<u32>())
        .prop_map(|(name, description, mac, filter, snap)| Item::Interface { name, description, mac, filter, snap });
    let data = prop::collection::vec(any::<u8>(), 0..300);
    let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)];
    let drops = prop_oneof![Just(0), any::<u64>()];
    let packet = (any::<(u32, u64, u32)>(), direction, any::<Option<u32>>(), drops, texts(), data, 1_usize..300)
        .prop_map(|((interface, timestamp_ns, len), direction, queue, drops, comment, data, piece)| {
            Item::Packet(PacketRecord { interface, timestamp_ns, len, direction, queue, drops, comment, data, piece })
        });
    let statistics = any::<(u32, [u64; 7])>().prop_map(|(interface, numbers)| {
        let [timestamp_ns, start_ns, end_ns, received, accepted, dropped, delivered] = numbers;
        Item::Statistics(Statistics {
            interface,
            timestamp_ns,
            start_ns,
            end_ns,
            received,
            accepted,
            dropped,
            delivered,
        })
    });
    prop_oneof![1 => section, 3 => interface, 6 => packet, 2 => statistics]
}

/// Texts without a NUL, which would end them. A few are about as long as an option can be, or longer.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        30 => "[^\\x00]{0,20}",
        1 => (MAX_TEXT - 10..MAX_TEXT + 3).prop_map(|len| "x".repeat(len) + "é€😀é€😀"),
    ]
}

/// What is left of `text` if it may have `max` bytes.
pub(crate) fn kept(text: &str, max: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= max).last();
    &text[..end.unwrap_or(0)]
}

/// The stream, written by the crate.
pub(crate) fn written(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        match item {
            Item::Section([hardware, os, application]) => {
                kopi_pcapng::section(&mut out, &Section { hardware, os, application });
            }
            Item::Interface { name, description, mac, filter, snap } => {
                let filter = filter.as_deref();
                kopi_pcapng::interface(&mut out, &Interface { name, description, mac: *mac, filter, snap: *snap });
            }
            Item::Packet(this) => {
                let packet = Packet {
                    interface: this.interface,
                    timestamp_ns: this.timestamp_ns,
                    len: this.len,
                    direction: this.direction,
                    queue: this.queue,
                    drops: this.drops,
                    comment: &this.comment,
                };
                kopi_pcapng::packet(&mut out, &packet, this.data.chunks(this.piece));
            }
            Item::Statistics(statistics) => kopi_pcapng::statistics(&mut out, statistics),
        }
    }
    out
}

/// What a reader says of the item.
pub(crate) fn expected(item: &Item) -> Block<'_> {
    let text = |text: &str| String::from(kept(text, MAX_TEXT));
    match item {
        Item::Section([hardware, os, application]) => {
            Block::Section(SectionInfo { hardware: text(hardware), os: text(os), application: text(application) })
        }
        Item::Interface { name, description, mac, filter, snap } => Block::Interface(InterfaceInfo {
            name: text(name),
            description: text(description),
            mac: *mac,
            filter: filter.as_deref().map(|filter| kept(filter, MAX_TEXT - 1).into()),
            snap: *snap,
            link_type: LINK_ETHERNET,
        }),
        Item::Packet(this) => Block::Packet(ReadPacket {
            interface: this.interface,
            timestamp_ns: this.timestamp_ns,
            len: this.len,
            direction: Some(this.direction),
            queue: this.queue,
            drops: this.drops,
            comment: Some(kept(&this.comment, MAX_TEXT)).filter(|comment| !comment.is_empty()),
            data: &this.data,
        }),
        Item::Statistics(statistics) => Block::Statistics(*statistics),
    }
}

/// How a stream is written the long way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) big_endian: bool,
    /// With blocks and options that nobody knows, a NUL after each text, and no mark after the last option.
    pub(crate) odd: bool,
}

impl Dialect {
    /// The stream, in this dialect.
    pub(crate) fn encode(self, items: &[Item]) -> Vec<u8> {
        let mut out = Vec::new();
        for item in items {
            out.extend(self.item(item));
            if self.odd {
                out.extend(self.block(0x0bad, vec![0xee; 8], &[]));
            }
        }
        out
    }

    fn item(self, item: &Item) -> Vec<u8> {
        match item {
            Item::Section(texts) => {
                let mut body = self.u32(0x1a2b_3c4d);
                body.extend([self.u16(1), self.u16(0), self.u64(u64::MAX)].concat());
                let options: Vec<_> = (2..).zip(texts).filter_map(|(code, text)| self.text(code, text)).collect();
                self.block(0x0a0d_0d0a, body, &options)
            }
            Item::Interface { name, description, mac, filter, snap } => {
                let body = [self.u16(1), self.u16(0), self.u32(*snap)].concat();
                let filter = filter.as_ref().map(|filter| (11, [&[0], kept(filter, MAX_TEXT - 1).as_bytes()].concat()));
                let mac = mac.map(|mac| (6, mac.to_vec()));
                let options = [self.text(2, name), self.text(3, description), mac, Some((9, vec![9])), filter];
                self.block(1, body, &options.into_iter().flatten().collect::<Vec<_>>())
            }
            Item::Packet(this) => {
                let captured = u32::try_from(this.data.len()).expect("a short packet");
                let mut body = [self.u32(this.interface), self.timestamp(this.timestamp_ns)].concat();
                body.extend([self.u32(captured), self.u32(this.len), this.data.clone()].concat());
                let direction = if this.direction == Direction::Inbound { 1 } else { 2 };
                let drops = (this.drops > 0).then(|| (4, self.u64(this.drops)));
                let queue = this.queue.map(|queue| (6, self.u32(queue)));
                let options = [Some((2, self.u32(direction))), drops, queue, self.text(1, &this.comment)];
                self.block(6, padded(body), &options.into_iter().flatten().collect::<Vec<_>>())
            }
            Item::Statistics(s) => {
                let body = [self.u32(s.interface), self.timestamp(s.timestamp_ns)].concat();
                let options = [
                    (2, self.timestamp(s.start_ns)),
                    (3, self.timestamp(s.end_ns)),
                    (4, self.u64(s.received)),
                    (5, self.u64(s.dropped)),
                    (6, self.u64(s.accepted)),
                    (8, self.u64(s.delivered)),
                ];
                self.block(5, body, &options)
            }
        }
    }

    /// A block of a type, from its body up to the options, and the options.
    pub(crate) fn block(self, kind: u32, body: Vec<u8>, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut content = body;
        if self.odd {
            content.extend([self.u16(0x8001), self.u16(5), vec![0xff; 5], vec![0; 3]].concat());
        }
        for (code, value) in options {
            let len = u16::try_from(value.len()).expect("the value of an option");
            content.extend([self.u16(*code), self.u16(len), padded(value.clone())].concat());
        }
        if !self.odd {
            content.extend([0; 4]);
        }
        let total = self.u32(u32::try_from(content.len() + 12).expect("a block of ordinary size"));
        [self.u32(kind), total.clone(), content, total].concat()
    }

    fn text(self, code: u16, text: &str) -> Option<(u16, Vec<u8>)> {
        let mut bytes = kept(text, MAX_TEXT).as_bytes().to_vec();
        if self.odd && bytes.len() < MAX_TEXT {
            bytes.push(0);
        }
        (!text.is_empty()).then_some((code, bytes))
    }

    pub(crate) fn timestamp(self, units: u64) -> Vec<u8> {
        let [upper, lower] = [units >> 32, units & 0xffff_ffff].map(|half| u32::try_from(half).expect("a half"));
        [self.u32(upper), self.u32(lower)].concat()
    }

    pub(crate) fn u16(self, value: u16) -> Vec<u8> {
        self.number(u64::from(value), 2)
    }

    pub(crate) fn u32(self, value: u32) -> Vec<u8> {
        self.number(u64::from(value), 4)
    }

    pub(crate) fn u64(self, value: u64) -> Vec<u8> {
        self.number(value, 8)
    }

    fn number(self, value: u64, bytes: u32) -> Vec<u8> {
        let byte = |place: u32| u8::try_from(value >> (8 * place) & 0xff).expect("a byte");
        if self.big_endian { (0..bytes).rev().map(byte).collect() } else { (0..bytes).map(byte).collect() }
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
    bytes
}

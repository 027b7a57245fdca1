//! The writer against the crate `pcap-parser`.

use crate::model::{Item, PacketRecord, kept, streams, written};
use kopi_pcapng::{Direction, MAX_TEXT, Statistics};
use pcap_parser::pcapng::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, InterfaceStatisticsBlock, OptionCode, PcapNGOptionError,
    PcapNGSlice, SectionHeaderBlock,
};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Linktype, PcapBlockOwned};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Another reader finds in a written stream what was meant.
    #[test]
    fn the_oracle_reads_what_was_meant(items in streams()) {
        let bytes = written(&items);
        let slice = PcapNGSlice::from_slice(&bytes).expect("it begins with a section");
        let blocks: Vec<_> = slice.map(|block| block.expect("a block in order")).collect();
        prop_assert_eq!(blocks.len(), items.len());
        for (block, item) in blocks.iter().zip(&items) {
            let PcapBlockOwned::NG(block) = block else { panic!("a block of pcap") };
            match (block, item) {
                (Block::SectionHeader(block), Item::Section(texts)) => section(block, texts),
                (Block::InterfaceDescription(block), Item::Interface { .. }) => interface(block, item),
                (Block::EnhancedPacket(block), Item::Packet(this)) => packet(block, this),
                (Block::InterfaceStatistics(block), Item::Statistics(this)) => statistics(block, this),
                other => panic!("another block than was meant: {other:?}"),
            }
        }
    }
}

/// Checks that the oracle has read `text`, or nothing if it is empty.
fn is_text(read: Option<Result<&str, PcapNGOptionError>>, text: &str) {
    let expected = Some(kept(text, MAX_TEXT)).filter(|text| !text.is_empty());
    assert_eq!(read.map(|text| text.expect("UTF-8")), expected);
}

fn section(block: &SectionHeaderBlock<'_>, [hardware, os, application]: &[String; 3]) {
    assert_eq!((block.big_endian(), block.major_version, block.minor_version), (false, 1, 0));
    assert_eq!(block.section_len, -1);
    is_text(block.shb_hardware(), hardware);
    is_text(block.shb_os(), os);
    is_text(block.shb_userappl(), application);
}

fn interface(block: &InterfaceDescriptionBlock<'_>, item: &Item) {
    let Item::Interface { name, description, mac, filter, snap } = item else { panic!("the caller has looked") };
    assert_eq!((block.linktype, block.snaplen), (Linktype::ETHERNET, *snap));
    assert_eq!((block.ts_resolution(), block.ts_offset()), (Some(1_000_000_000), 0));
    is_text(block.if_name(), name);
    is_text(block.if_description(), description);
    assert_eq!(block.if_macaddr().map(|mac| mac.expect("an address")), mac.as_ref().map(<[u8; 6]>::as_slice));
    let filter = filter.as_ref().map(|filter| format!("\0{}", kept(filter, MAX_TEXT - 1)));
    is_text(block.if_filter(), &filter.unwrap_or_default());
}

fn packet(block: &EnhancedPacketBlock<'_>, this: &PacketRecord) {
    assert_eq!((block.if_id, block.origlen), (this.interface, this.len));
    assert_eq!(u64::from(block.ts_high) << 32 | u64::from(block.ts_low), this.timestamp_ns);
    assert_eq!(block.packet_data(), this.data);
    let options = |code| block.options.iter().find(move |option| option.code == OptionCode(code));
    is_text(options(1).map(|option| option.as_str()), &this.comment);
    let flags = if this.direction == Direction::Inbound { 1 } else { 2 };
    assert_eq!(options(2).map(|option| option.as_u32_le()), Some(Ok(flags)));
    assert_eq!(options(4).map_or(Ok(0), |option| option.as_u64_le()), Ok(this.drops));
    assert_eq!(options(6).map(|option| option.as_u32_le()), this.queue.map(Ok));
}

fn statistics(block: &InterfaceStatisticsBlock<'_>, this: &Statistics) {
    let ns = |(upper, lower)| u64::from(upper) << 32 | u64::from(lower);
    assert_eq!((block.if_id, ns((block.ts_high, block.ts_low))), (this.interface, this.timestamp_ns));
    let times = [block.isb_starttime(), block.isb_endtime()].map(|time| time.map(|time| time.map(ns)));
    assert_eq!(times, [this.start_ns, this.end_ns].map(|ns| Some(Ok(ns))));
    let counts = [block.isb_ifrecv(), block.isb_filteraccept(), block.isb_ifdrop(), block.isb_usrdeliv()];
    assert_eq!(counts, [this.received, this.accepted, this.dropped, this.delivered].map(|count| Some(Ok(count))));
    assert_eq!(block.isb_osdrop(), None);
}

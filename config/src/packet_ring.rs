//! The arguments of `net_af_packet`, completed.
//!
//! That driver (22.11, `drivers/net/af_packet`) reads frames out of a ring that it shares with the kernel, and leaves the sizes of the
//! ring to whoever configures it. Sizes that do not fit each other are refused by the kernel without a word of what was wrong, or
//! have driver and kernel look for frames at different places; sizes that do not fit the MTU have frames cut short. What is written in
//! `device` stays as it is; what is missing is worked out, and what can carry nothing is refused.

use std::num::NonZeroU32;

/// What the kernel puts before a frame in the ring (`tpacket_rcv` in `net/packet/af_packet.c`: `TPACKET2_HDRLEN` and room for an
/// Ethernet header of 16 bytes, to a multiple of 16, minus that header).
const BEFORE_FRAME: u32 = 66;
/// Bytes of a place that the driver does not count as a frame's: `TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)`.
const NOT_FRAME: u32 = 32;
/// Bytes of a frame besides its MTU: the Ethernet header and two tags.
const L2: u32 = 14 + 2 * 4;
/// What every place's size is a multiple of (`TPACKET_ALIGNMENT`).
const ALIGNMENT: u32 = 16;
/// Sizes of places that are worked out are multiples of this, so that a block has four of them at most.
const STEP: u32 = 1024;
/// What the driver takes if it is not told: bytes of a place, and places.
const FRAME: u32 = 2048;
const FRAMES: u32 = 512;
/// Largest place: what is left of the longest packet buffer, 65,535 bytes, once DPDK has its headroom.
const FRAME_MAX: u32 = 65_376;

/// The ring of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRing {
    /// The device with all of its arguments.
    devargs: String,
    /// Bytes of a place.
    frame: u32,
}

/// What is wrong with arguments, and what would help.
pub(crate) type Problem = (String, String);

/// What the arguments say.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    frame: Option<NonZeroU32>,
    block: Option<NonZeroU32>,
    frames: Option<NonZeroU32>,
}

impl PacketRing {
    /// The device with all of its arguments.
    #[must_use]
    pub fn devargs(&self) -> &str {
        &self.devargs
    }

    /// Bytes that the driver wants a packet buffer to have.
    #[must_use]
    pub fn buffer(&self) -> u32 {
        self.frame - NOT_FRAME
    }

    /// Bytes of the longest frame that arrives whole.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.frame.saturating_sub(BEFORE_FRAME)
    }

    /// The ring of a wire with this MTU and so many descriptors, on a machine with pages of `page` bytes. `Ok(None)` for another
    /// driver's device, and for arguments that this driver is to refuse itself.
    pub(crate) fn complete(devargs: &str, mtu: u16, frames: u32, page: u32) -> Result<Option<Self>, Problem> {
        let Some(said) = Said::read(devargs) else { return Ok(None) };
        let need = u32::from(mtu) + L2 + BEFORE_FRAME;
        let (frame, block) = said.sizes(need, page)?;
        // The driver looks for frames as if there was no gap at the end of a block.
        let each = block / frame;
        let frames = match said.frames {
            Some(frames) => frames.get(),
            None => frames.max(each).next_multiple_of(each),
        };
        let one_block = frames == each;
        if !block.is_multiple_of(frame) && !one_block {
            let help = format!("write framesz={frame},blocksz={}, or leave blocksz out", multiple_of_both(frame, page));
            return Err((format!("blocksz={block} is not a multiple of framesz={frame}: no frame would arrive"), help));
        }
        if !frames.is_multiple_of(each) {
            let message = format!("framecnt={frames} is not a multiple of the {each} frames that fit blocksz={block}");
            let right = frames.checked_next_multiple_of(each).unwrap_or(frames - frames % each);
            return Err((message, format!("write framecnt={right}, or leave it out")));
        }
        let mut devargs = devargs.to_owned();
        for (name, was, is, without) in [
            ("framesz", said.frame, frame, FRAME),
            ("blocksz", said.block, block, page),
            ("framecnt", said.frames, frames, FRAMES),
        ] {
            if was.is_none() && is != without {
                devargs.push_str(&format!(",{name}={is}"));
            }
        }
        Ok(Some(Self { devargs, frame }))
    }
}

impl Said {
    /// `None` if it is not this driver's device, or a number is none.
    fn read(devargs: &str) -> Option<Self> {
        let mut words = devargs.split(',');
        let name = words.next().unwrap_or_default();
        if !["net_af_packet", "eth_af_packet"].iter().any(|driver| name.starts_with(driver)) {
            return None;
        }
        let mut said = Self::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let place = match key {
                "framesz" => &mut said.frame,
                "blocksz" => &mut said.block,
                "framecnt" => &mut said.frames,
                _ => continue,
            };
            // The last one counts, as for the driver.
            *place = Some(value.parse().ok()?);
        }
        Some(said)
    }

    /// Bytes of a place, of which a frame of the wire needs `need`, and of a block.
    fn sizes(self, need: u32, page: u32) -> Result<(u32, u32), Problem> {
        let frame = match (self.frame.map(NonZeroU32::get), self.block.map(NonZeroU32::get)) {
            (Some(frame), _) => frame,
            (None, Some(block)) if need > FRAME => Self::fitting(block, need)?,
            (None, _) if need > FRAME => need.next_multiple_of(STEP),
            (None, _) => FRAME,
        };
        if !frame.is_multiple_of(ALIGNMENT) || !(ALIGNMENT + BEFORE_FRAME..=FRAME_MAX).contains(&frame) {
            let message = format!("framesz={frame} is not what the kernel takes");
            let help =
                format!("write a multiple of {ALIGNMENT} up to {FRAME_MAX}, such as {}", need.next_multiple_of(STEP));
            return Err((message, help));
        }
        let block = match self.block.map(NonZeroU32::get) {
            Some(block) => block,
            None if page.is_multiple_of(frame) => page,
            None => multiple_of_both(frame, page),
        };
        if !block.is_multiple_of(page) || block < frame {
            let message = format!("blocksz={block} is not what the kernel takes");
            let help = format!(
                "write a multiple of the page size that has room for a frame: {}",
                multiple_of_both(frame, page)
            );
            return Err((message, help));
        }
        Ok((frame, block))
    }

    /// The smallest part of a block that has room for `need` bytes and leaves no gap at its end.
    fn fitting(block: u32, need: u32) -> Result<u32, Problem> {
        let fits = |count: &u32| {
            block.is_multiple_of(*count) && (block / count).is_multiple_of(ALIGNMENT) && block / count <= FRAME_MAX
        };
        match (1..=block / need).rev().find(fits) {
            Some(count) => Ok(block / count),
            None => Err((
                format!("blocksz={block} has no room for frames of the wire's MTU, which take {need} bytes"),
                format!("leave blocksz out, or write at least {need}"),
            )),
        }
    }
}

/// The smallest block of whole pages that such places fill.
fn multiple_of_both(frame: u32, page: u32) -> u32 {
    let (mut a, mut b) = (frame, page);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    frame / a * page
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u32 = 4096;

    fn complete(arguments: &str, mtu: u16) -> Result<String, String> {
        let devargs = format!("net_af_packet0,iface=eth1{arguments}");
        let ring = PacketRing::complete(&devargs, mtu, 1024, PAGE).map_err(|(message, _)| message)?;
        Ok(ring.expect("it is this driver's").devargs()["net_af_packet0,iface=eth1".len()..].to_owned())
    }

    /// What is missing is added, and nothing that the driver does by itself.
    #[test]
    fn what_is_missing_is_worked_out() {
        for (arguments, mtu, expected) in [
            ("", 1500, ",framecnt=1024"),
            (",framecnt=512", 1500, ",framecnt=512"),
            (",framecnt=512", 1960, ",framecnt=512"),
            ("", 1961, ",framesz=3072,blocksz=12288,framecnt=1024"),
            ("", 9000, ",framesz=9216,blocksz=36864,framecnt=1024"),
            (",framecnt=64,framesz=16384", 9000, ",framecnt=64,framesz=16384,blocksz=16384"),
            (",framesz=9008", 1500, ",framesz=9008,blocksz=2306048,framecnt=1024"),
            (",blocksz=65536", 9000, ",blocksz=65536,framesz=16384,framecnt=1024"),
            (",blocksz=9437184", 9000, ",blocksz=9437184,framesz=9216,framecnt=1024"),
            (",qpairs=2,blocksz=8192", 1500, ",qpairs=2,blocksz=8192,framecnt=1024"),
        ] {
            assert_eq!(complete(arguments, mtu), Ok(expected.to_owned()), "{arguments} with {mtu}");
        }
    }

    /// Sizes that the kernel refuses, or under which kernel and driver do not find each other's frames, are refused by name.
    #[test]
    fn what_can_carry_nothing_is_refused() {
        for (arguments, expected) in [
            (",framesz=9000", "framesz=9000 is not what the kernel takes"),
            (",framesz=131072", "framesz=131072 is not what the kernel takes"),
            (",framesz=16", "framesz=16 is not what the kernel takes"),
            (",blocksz=5000", "blocksz=5000"),
            (",blocksz=4096", "blocksz=4096 has no room for frames of the wire's MTU, which take 9088 bytes"),
            (",framesz=4096,blocksz=2048", "blocksz=2048 is not what the kernel takes"),
            (",framesz=3072,blocksz=4096", "blocksz=4096 is not a multiple of framesz=3072: no frame would arrive"),
            (
                ",framesz=2048,blocksz=8192,framecnt=6",
                "framecnt=6 is not a multiple of the 4 frames that fit blocksz=8192",
            ),
        ] {
            let error = complete(arguments, 9000).expect_err(arguments);
            assert!(error.starts_with(expected), "{arguments}: {error}");
        }
        assert!(
            complete(",framesz=9216,blocksz=12288,framecnt=1", 9000).is_ok(),
            "there is no second block to be missed"
        );
    }

    /// Other drivers' devices, and what this one refuses by itself, are left alone.
    #[test]
    fn others_are_left_alone() {
        for devargs in
            ["net_af_xdp0,iface=eth1", "0000:3b:00.0", "net_af_packet0,iface=e,framesz=x", "net_af_packet0,framesz=0"]
        {
            assert_eq!(PacketRing::complete(devargs, 9000, 1024, PAGE), Ok(None), "{devargs}");
        }
    }

    proptest! {
        /// Whatever is written and taken: it stays as it was written, the kernel takes the sizes, driver and kernel agree on where
        /// frames are, and, unless somebody has said otherwise, the wire's frames fit.
        #[test]
        fn rings_are_what_kernel_and_driver_take(
            mtu in 68_u16..9001,
            ring in 3_u32..15,
            frame in prop::option::of((1_u32..4097).prop_map(|n| n * 16)),
            block in prop::option::of((1_u32..300).prop_map(|n| n * 4096)),
            frames in prop::option::of(1_u32..5000),
            page in prop::sample::select(vec![4096_u32, 16384, 65536]),
        ) {
            let words = [("framesz", frame), ("blocksz", block), ("framecnt", frames)];
            let said = words.iter().filter_map(|(key, value)| value.map(|value| format!(",{key}={value}")));
            let devargs = format!("net_af_packet0,iface=e{}", said.collect::<String>());
            if let Ok(ring) = PacketRing::complete(&devargs, mtu, 1 << ring, page) {
                let ring = ring.expect("it is this driver's");
                prop_assert!(ring.devargs().starts_with(&devargs));
                let said = Said::read(ring.devargs()).expect("it can be read again");
                let number = |said: Option<NonZeroU32>, otherwise| said.map_or(otherwise, NonZeroU32::get);
                let (size, block, count) =
                    (number(said.frame, FRAME), number(said.block, page), number(said.frames, FRAMES));
                prop_assert!(size % 16 == 0 && block % page == 0 && size <= block);
                let each = block / size;
                prop_assert_eq!(count % each, 0);
                prop_assert!(block % size == 0 || count == each);
                prop_assert!(frame.is_some() || ring.longest() >= u32::from(mtu) + 22);
                prop_assert!(ring.buffer() < 1 << 16);
            } else {
                prop_assert!(frame.is_some() || block.is_some() || frames.is_some());
            }
        }
    }
}

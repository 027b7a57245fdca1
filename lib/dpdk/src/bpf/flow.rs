//! Whether a program's answer for a frame is that for every frame of its flow.
//!
//! The program runs once more, over numbers of which is known what bits may be others in another frame of the flow. It takes the
//! same way for all of them as long as no branch depends on such a bit, and no load on bytes that such a frame need not have.

use dpdk_sys as sys;

use super::Layout;
use super::interpret::{Bytes, End, Frame, Machine};

/// A number of this frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    value: u32,
    /// The bits that may differ between frames of one flow.
    open: u32,
}

impl Word {
    const fn is_same(self) -> bool {
        self.open == 0
    }

    /// The least and the largest that it is in a frame of the flow.
    const fn range(self) -> (u32, u32) {
        (self.value & !self.open, self.value | self.open)
    }
}

/// What is known of frames of one flow, by one of them.
pub(super) struct Flow<'f, B: ?Sized> {
    bytes: &'f B,
    layout: Layout,
    /// Bits that may differ of the bytes that all have behind the header of IP.
    transport: &'static [u8],
    /// The same of the type in the header of Ethernet.
    ethertype: [u8; 2],
}

impl<'f, B: Bytes + ?Sized> Flow<'f, B> {
    pub(super) fn of(bytes: &'f B, layout: Layout) -> Self {
        let proto = match layout {
            Layout::Ipv4 => bytes.number::<1>(23),
            Layout::Ipv6 => bytes.number::<1>(20),
            Layout::Arp | Layout::Ethernet => None,
        };
        // The key has the ports, or the type and the code.
        let transport: &[u8] = match (layout, proto) {
            (_, Some(6 | 17 | 132 | 136)) => &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            (Layout::Ipv4, Some(1)) | (Layout::Ipv6, Some(58)) => &[0, 0, 0xff, 0xff],
            _ => &[],
        };
        let ethertype = match bytes.number::<2>(12) {
            // A length (IEEE 802.3), of which the key says nothing but that it is one.
            None | Some(..0x0600) => [0x07, 0xff],
            // Of a service tag, too: these are the bits in which the three types differ.
            Some(0x88a8 | 0x9100 | 0x9200) => [0x1b, 0xa8],
            Some(_) => [0, 0],
        };
        Self { bytes, layout, transport, ethertype }
    }

    /// The bits that may differ of the byte at `offset`. `None` if not all frames of the flow have one there.
    fn open(&self, offset: u32) -> Option<u8> {
        let transport = |from: u32| self.transport.get((offset - from) as usize).copied();
        Some(match (self.layout, offset) {
            (_, 0..12) => 0,
            (_, 12) => self.ethertype[0],
            (_, 13) => self.ethertype[1],
            (Layout::Ethernet, _) => return None,
            (Layout::Arp, _) => return (offset < 42).then_some(0),

            (Layout::Ipv4, 14 | 21 | 23 | 26..34) => 0,
            // Six bits of DSCP, and two of ECN, which routers change.
            (Layout::Ipv4, 15) => 0b11,
            // One reserved bit, don't fragment, and the rest of a whole packet is zero.
            (Layout::Ipv4, 20) => 0xc0,
            (Layout::Ipv4, 16..34) => 0xff,
            (Layout::Ipv4, _) => return transport(34),

            (Layout::Ipv6, 14 | 20 | 22..54) => 0,
            // The lower two bits of DSCP, ECN, and the flow label.
            (Layout::Ipv6, 15) => 0b11_1111,
            (Layout::Ipv6, 16..22) => 0xff,
            (Layout::Ipv6, _) => return transport(54),
        })
    }
}

impl<B: Bytes + ?Sized> Machine for Flow<'_, B> {
    type Word = Word;

    fn constant(value: u32) -> Word {
        Word { value, open: 0 }
    }

    /// Padding is not in the key, and neither are lengths.
    fn length(&self) -> Word {
        Word { value: 0, open: !0 }
    }

    fn load<const N: usize>(&self, base: Word, offset: u32) -> Result<Word, End> {
        if !base.is_same() {
            return Err(End::Open);
        }
        let offset = base.value.checked_add(offset).ok_or(End::Fails)?;
        let value = self.bytes.number::<N>(offset).ok_or(End::Open)?;
        let open = (offset..).take(N).try_fold(0, |open, at| Some(open << 8 | u32::from(self.open(at)?)));
        Ok(Word { value, open: open.ok_or(End::Open)? })
    }

    fn alu(operation: u32, a: Word, b: Word) -> Result<Word, End> {
        // Whether it divides by zero has to be the same, too.
        if matches!(operation, sys::BPF_DIV | sys::BPF_MOD) && !b.is_same() {
            return Err(End::Open);
        }
        let apply = |a, b| Frame::<[u8]>::alu(operation, a, b);
        let open = match operation {
            // A zero, or a one, that is the same decides the bit.
            sys::BPF_AND => a.open & b.range().1 | b.open & a.range().1,
            sys::BPF_OR => a.open & !b.range().0 | b.open & !a.range().0,
            sys::BPF_XOR => a.open | b.open,
            sys::BPF_LSH | sys::BPF_RSH if b.is_same() => apply(a.open, b.value)?,
            _ if a.is_same() && b.is_same() => 0,
            _ => !0,
        };
        Ok(Word { value: apply(a.value, b.value)?, open })
    }

    fn test(test: u32, a: Word, b: Word) -> Result<bool, End> {
        let ((a_min, a_max), (b_min, b_max)) = (a.range(), b.range());
        let (always, never) = match test {
            sys::BPF_JEQ => {
                (a.is_same() && b.is_same() && a.value == b.value, (a.value ^ b.value) & !(a.open | b.open) != 0)
            }
            sys::BPF_JGT => (a_min > b_max, a_max <= b_min),
            sys::BPF_JGE => (a_min >= b_max, a_max < b_min),
            _ => (a_min & b_min != 0, a_max & b_max == 0),
        };
        if always || never { Ok(always) } else { Err(End::Open) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is known of a number, and the number in two frames of one flow.
    fn numbers() -> impl Strategy<Value = (Word, u32)> {
        let any = any::<u32>();
        let masks = prop_oneof![Just(0), any, (0_u32..32).prop_map(|bit| 1 << bit), Just(!0), Just(0xff)];
        let values = prop_oneof![any, 0_u32..40];
        (values.clone(), values, masks)
            .prop_map(|(value, other, open)| (Word { value, open }, value & !open | other & open))
    }

    const ALUS: [u32; 10] = [
        sys::BPF_ADD,
        sys::BPF_SUB,
        sys::BPF_MUL,
        sys::BPF_DIV,
        sys::BPF_MOD,
        sys::BPF_OR,
        sys::BPF_AND,
        sys::BPF_XOR,
        sys::BPF_LSH,
        sys::BPF_RSH,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Operations and comparisons say nothing that is not so of two frames of one flow.
        #[test]
        fn nothing_is_said_that_is_not_so((a, other_a) in numbers(), (b, other_b) in numbers()) {
            for alu in ALUS {
                let other = Frame::<[u8]>::alu(alu, other_a, other_b);
                match Flow::<[u8]>::alu(alu, a, b) {
                    Ok(result) => {
                        prop_assert_eq!(Ok(result.value), Frame::<[u8]>::alu(alu, a.value, b.value));
                        let other = other.expect("they divide by zero alike");
                        prop_assert_eq!((result.value ^ other) & !result.open, 0, "{} {:?} {:?}", alu, a, b);
                    }
                    Err(End::Fails) => prop_assert_eq!(other, Err(End::Fails)),
                    Err(End::Open) => prop_assert!(!a.is_same() || !b.is_same()),
                }
            }
            for test in [sys::BPF_JEQ, sys::BPF_JGT, sys::BPF_JGE, sys::BPF_JSET] {
                let answers = [(a.value, b.value), (other_a, other_b)].map(|(a, b)| Frame::<[u8]>::test(test, a, b));
                match Flow::<[u8]>::test(test, a, b) {
                    Err(_) => prop_assert!(!a.is_same() || !b.is_same()),
                    answer => prop_assert_eq!(answers, [answer; 2], "{} {:?} {:?}", test, a, b),
                }
            }
        }
    }
}

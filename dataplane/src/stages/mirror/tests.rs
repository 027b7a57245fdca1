use super::*;

fn passed(port: PortId, out: bool, owner: PortId) -> Option<PacketRecord> {
    Some(PacketRecord::passed(port, out, owner))
}

fn dropped(port: PortId, out: bool, owner: PortId, reason: DropReason) -> Option<PacketRecord> {
    Some(PacketRecord::dropped(port, out, owner, reason))
}

/// A frame is seen at the app that sends it, at the app that gets it, and on the wire; a drop where it is counted.
#[test]
fn frames_are_seen_where_they_pass() {
    use DropReason::{Policy, Rejected, RxRingFull, UnknownUnicast};
    let cases = [
        ((1, Verdict::Wire), [passed(1, true, 1), passed(WIRE, true, 1)]),
        ((1, Verdict::App(2)), [passed(1, true, 1), passed(2, false, 2)]),
        ((WIRE, Verdict::App(2)), [passed(WIRE, false, 2), passed(2, false, 2)]),
        ((1, Verdict::Drop(Policy)), [dropped(1, true, 1, Policy), None]),
        ((WIRE, Verdict::Drop(UnknownUnicast)), [dropped(WIRE, false, WIRE, UnknownUnicast), None]),
        ((1, Verdict::Refuse(2, RxRingFull)), [passed(1, true, 1), dropped(2, false, 2, RxRingFull)]),
        ((WIRE, Verdict::Refuse(2, Policy)), [dropped(WIRE, false, 2, Policy), dropped(2, false, 2, Policy)]),
        ((1, Verdict::Reject(1)), [dropped(1, true, 1, Rejected), None]),
        ((1, Verdict::Reject(2)), [passed(1, true, 1), dropped(2, false, 2, Rejected)]),
    ];
    for ((source, verdict), expected) in cases {
        assert_eq!(records(source, verdict), expected, "{source} {verdict:?}");
    }
}

fn everything() -> Selection {
    Selection {
        session: 1,
        ports: vec![[true; 2]; 3].into(),
        strays: false,
        owners: None,
        which: Which::All,
        rules: None,
        reasons: None,
        snap: 64,
        sample: 1,
    }
}

/// All that is asked for has to hold: port and direction, owner, what became of the frame, and why.
#[test]
fn selections_hold_in_every_part() {
    let [out, into] = [PacketRecord::passed(1, true, 1), PacketRecord::passed(2, false, 2)];
    let lost = PacketRecord::dropped(2, false, 2, DropReason::RxRingFull);
    let stray = PacketRecord::dropped(WIRE, false, WIRE, DropReason::UnknownUnicast);
    let wants = |selection: &Selection| [out, into, lost, stray].map(|record| selection.wants(&record));
    assert_eq!(wants(&everything()), [true; 4]);
    let ports: Box<[[bool; 2]]> = [[false; 2], [false, true], [true, false]].into();
    assert_eq!(wants(&Selection { ports: ports.clone(), ..everything() }), [true, true, true, false]);
    assert_eq!(wants(&Selection { ports, strays: true, ..everything() }), [true; 4]);
    let owners = Some([false, true, false].into());
    assert_eq!(wants(&Selection { owners, ..everything() }), [true, false, false, false]);
    assert_eq!(wants(&Selection { which: Which::Passed, ..everything() }), [true, true, false, false]);
    assert_eq!(wants(&Selection { which: Which::Dropped, ..everything() }), [false, false, true, true]);
    let reasons = Some(1 << DropReason::RxRingFull.index());
    assert_eq!(wants(&Selection { reasons, ..everything() }), [false, false, true, false]);
}

proptest::proptest! {
    /// A sample is the same whether frames are left out one by one or many at a time.
    #[test]
    fn many_are_left_out_like_one_by_one(skip in 0_u32..200, frames in 0_usize..33, places in 1_u32..3) {
        let (ring, _) = rtrb::RingBuffer::new(1);
        let mut mirror = Mirror { skip, ..Mirror::new(Arc::new(everything()), ring, [].into()) };
        let left_out = mirror.leave_out(frames, places);
        let mut left = skip;
        let one_by_one = (0..frames).take_while(|_| left.checked_sub(places).inspect(|less| left = *less).is_some()).count();
        proptest::prop_assert_eq!((left_out, mirror.skip), (one_by_one, left));
    }
}

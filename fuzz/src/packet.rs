//! What is done with frames behind the parser: marks, segments, runs.

use kopi_packet::coalesce::{self, Run};
use kopi_packet::mark::Mark;
use kopi_packet::segment::Outgoing;
use kopi_packet::vnet::{self, VnetHeader};
use kopi_packet::{Shape, parse};

/// Any bytes as a frame that is marked, as one that the kernel hands over to be cut, and as two that are put together.
pub(crate) fn check(bytes: &[u8]) {
    mark(bytes);
    cut(bytes);
    join(bytes);
}

/// A mark changes what it names and nothing else, and is the same when it is made twice.
fn mark(bytes: &[u8]) {
    let key = parse(bytes, 3).1;
    let mark = Mark { dscp: Some(46), vlan_priority: Some(5) };
    let mut marked = bytes.to_vec();
    mark.apply(&mut marked);
    let after = parse(&marked, 3).1;
    assert_eq!((after.shape(), after.vlans()), (key.shape(), key.vlans()));
    assert_eq!(
        (after.src_addr(), after.dst_addr(), after.dst_port()),
        (key.src_addr(), key.dst_addr(), key.dst_port())
    );
    if matches!(key.shape(), Shape::Ipv4 | Shape::Ipv6) {
        assert_eq!(after.dscp(), 46);
    }
    let once = marked.clone();
    mark.apply(&mut marked);
    assert_eq!(marked, once);
}

/// The pieces of a frame lie in it, one after the other, and there are as many as it says.
fn cut(bytes: &[u8]) {
    let Some((header, frame)) = bytes.split_first_chunk::<{ vnet::LEN }>() else { return };
    let Some(header) = VnetHeader::read(header) else { return };
    let mut frame = frame.to_vec();
    let whole = frame.len();
    let Ok(outgoing) = Outgoing::new(&mut frame, &header) else { return };
    let mut end = None;
    for at in 0..outgoing.len() {
        let piece = outgoing.piece(at).expect("as many as it says");
        assert!(piece.rest.start <= piece.rest.end && piece.rest.end <= whole);
        assert!(end.is_none_or(|end| end == piece.rest.start), "piece {at} begins elsewhere");
        assert!(outgoing.frame().get(piece.rest.clone()).is_some() && piece.headers().len() <= whole);
        end = Some(piece.rest.end);
    }
    assert_eq!(end, Some(whole));
    assert!(outgoing.piece(outgoing.len()).is_none());
}

/// A run is no longer than its parts, and a whole frame itself if they are.
fn join(bytes: &[u8]) {
    let Some((&at, frames)) = bytes.split_first() else { return };
    let (a, b) = frames.split_at(frames.len().min(usize::from(at) * 8));
    let Some(first) = coalesce::Candidate::of(a) else { return };
    let mut run = Box::new(Run::new());
    run.begin(&first, a);
    let mut parts = a.len();
    if let Some(next) = coalesce::Candidate::of(b) {
        for _ in 0..2 {
            let _joined = run.offer(&next, b);
            parts += b.len();
        }
    }
    assert!(run.finish().len() <= parts + vnet::LEN);
}

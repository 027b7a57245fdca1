//! Any bytes as a message of the attach protocol.

use kopi_ring::message::{Envelope, MAX_MESSAGE, Message};

/// What is decoded is encoded to the same bytes, no part of it is a message, and nothing is longer than messages may be.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    let again = envelope.encode();
    assert_eq!(Envelope::decode(&again).as_ref(), Ok(&envelope));
    assert!(again.len() <= MAX_MESSAGE, "{} bytes: {envelope:?}", again.len());
    // Each version is written as it was read, but for the bits of a flow rule's values that do not count: those are left out.
    if matches!(envelope.message, Message::FlowRule(_)) {
        assert_eq!(again.len(), bytes.len());
    } else {
        assert_eq!(again, bytes);
    }
    assert!((0..bytes.len()).all(|end| Envelope::decode(&bytes[..end]).is_err()), "{envelope:?}");
    if let Message::Setup(setup) = &envelope.message {
        let layout = setup.geometry.layout();
        assert_eq!((layout.tx.len(), layout.rx.len()), (setup.geometry.tx().len(), setup.geometry.rx().len()));
        assert!(layout.tx.iter().chain(&layout.rx).all(|ring| ring.offset + ring.size() <= layout.size));
    }
}

//! What the threads of users do, and for whom they wait.

use super::*;
use kopi_ring::layout::WindowLayout;
use kopi_ring::socket;
use rustix::fd::AsFd;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use std::io::IoSlice;
use std::mem::MaybeUninit;

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

fn message(sequence: u32) -> Envelope {
    Envelope { protocol: PROTOCOL, sequence, message: Message::Done }
}

/// The next event, waited for.
fn next(peers: &Peers) -> PeerEvent {
    let begun = Instant::now();
    loop {
        if let Some(event) = peers.events().receive() {
            return event;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "nothing is told");
        park_timeout(Duration::from_millis(1));
    }
}

/// What the peer gets, waited for.
fn received(peer: &OwnedFd) -> Result<(Envelope, Vec<OwnedFd>), ReceiveError> {
    let begun = Instant::now();
    loop {
        match socket::receive(peer) {
            Err(ReceiveError::WouldBlock) if begun.elapsed() < Duration::from_secs(10) => {
                park_timeout(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// Messages come one for each time that they are listened for, and the end of the connection comes after them.
#[test]
fn messages_come_when_they_are_listened_for() {
    let mut peers = Peers::new().unwrap();
    let (ours, theirs) = pair();
    let connection = peers.connect(Some(1), ours);
    for sequence in 0..3 {
        socket::send(&theirs, &message(sequence), &[]).unwrap();
    }
    drop(theirs);
    for sequence in 0..3 {
        connection.listen();
        let event = next(&peers);
        assert_eq!(event.serial, connection.serial());
        assert!(matches!(event.kind, PeerEventKind::Received(Ok(got)) if got == message(sequence)));
        peers.flush(Duration::from_secs(5));
        assert!(peers.events().receive().is_none(), "nobody listens");
    }
    connection.listen();
    assert!(matches!(next(&peers).kind, PeerEventKind::Received(Err(ReceiveError::Closed))));
}

/// What is sent before a connection is dropped arrives, with its descriptors, and then its end.
#[test]
fn what_was_sent_arrives_before_the_end() {
    let mut peers = Peers::new().unwrap();
    let (ours, theirs) = pair();
    let connection = peers.connect(None, ours);
    connection.send(message(7), vec![pair().0]).unwrap();
    drop(connection);
    let (envelope, fds) = received(&theirs).unwrap();
    assert_eq!((envelope, fds.len()), (message(7), 1));
    assert!(matches!(received(&theirs), Err(ReceiveError::Closed)));
}

/// A peer that is gone or takes nothing is told of.
#[test]
fn messages_that_are_not_taken_are_told_of() {
    let mut peers = Peers::new().unwrap();
    let (ours, theirs) = pair();
    let full = peers.connect(Some(1), ours);
    (0..1000).for_each(|_| drop(full.send(message(0), Vec::new())));
    assert!(matches!(next(&peers).kind, PeerEventKind::Unsent(Errno::AGAIN)));
    drop(theirs);
}

/// Descriptors, where the kernel lets them pass, end the connection, and are closed.
#[test]
fn descriptors_are_not_kept() {
    let mut peers = Peers::new().unwrap();
    let (ours, theirs) = pair();
    let connection = peers.connect(Some(1), ours);
    let (sent, other) = pair();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [sent.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = message(0).encode();
    rustix::net::sendmsg(&theirs, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    drop(sent);
    connection.listen();
    assert!(matches!(next(&peers).kind, PeerEventKind::Received(Err(ReceiveError::Descriptors))));
    assert!(matches!(received(&other), Err(ReceiveError::Closed)), "its other end hears that it is closed");
}

/// What `envelope` makes of a connection with these files, sent and then listened for.
fn receive_with(
    peers: &Peers,
    connection: &PeerConnection,
    to: &OwnedFd,
    message: Message,
    files: &[&OwnedFd],
) -> PeerEvent {
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    socket::send(to, &Envelope { protocol: PROTOCOL, sequence: 1, message }, &files).unwrap();
    connection.listen();
    next(peers)
}

/// Memory that comes in one message is shared as a whole or not at all, and its files are closed whatever becomes of them: mapped, refused
/// by the thread, not wanted by the control thread, or too many.
#[test]
fn memory_is_shared_as_a_whole_and_files_are_closed() {
    let mut peers = Peers::new().unwrap();
    let (ours, theirs) = pair();
    let connection = peers.connect(Some(1), ours);
    let window = Arc::new(Window::new(WindowLayout::new(4096, 8 * 4096).unwrap()).unwrap());
    let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::pwrite(&memory, &[1; 8192], 0), Ok(8192));
    let segment = |at: u64, offset| Segment { span: Span { at: at * 4096, length: 4096 }, offset };
    let segments = vec![segment(0, 0), segment(1, 4096), segment(2, 0)];
    let (bad, far) = pair();
    let is_closed = |far: &OwnedFd| matches!(received(far), Err(ReceiveError::Closed));
    let share = Message::Share(segments.clone());
    let event = receive_with(&peers, &connection, &theirs, share.clone(), &[&memory, &memory, &bad]);
    assert!(matches!(event.kind, PeerEventKind::Received(Ok(_))), "{event:?}");
    drop(bad);
    connection.map(Arc::clone(&window), segments.clone());
    let event = next(&peers);
    assert!(matches!(&event.kind, PeerEventKind::Shared(Err(why)) if why.contains("no memory")), "{event:?}");
    assert_eq!((window.size(), window.segments()), (0, 0), "nothing of what was mapped before stays");
    assert!(is_closed(&far));
    // The files went with the message before.
    connection.map(Arc::clone(&window), segments.clone());
    assert!(matches!(next(&peers).kind, PeerEventKind::Shared(Err(_))));
    let event = receive_with(&peers, &connection, &theirs, share.clone(), &[&memory, &memory, &memory]);
    assert!(matches!(event.kind, PeerEventKind::Received(Ok(_))), "{event:?}");
    connection.map(Arc::clone(&window), segments);
    assert!(matches!(next(&peers).kind, PeerEventKind::Shared(Ok(()))));
    assert_eq!((window.size(), window.segments()), (3 * 4096, 3));

    let (unwanted, far) = pair();
    let event = receive_with(&peers, &connection, &theirs, share.clone(), &[&memory, &memory, &unwanted]);
    assert!(matches!(event.kind, PeerEventKind::Received(Ok(_))), "{event:?}");
    drop(unwanted);
    connection.listen();
    assert!(is_closed(&far));
    let (surplus, far) = pair();
    socket::send(&theirs, &message(2), &[]).unwrap();
    assert!(matches!(next(&peers).kind, PeerEventKind::Received(Ok(_))));
    let event = receive_with(&peers, &connection, &theirs, share, &[&memory, &memory, &memory, &surplus]);
    drop(surplus);
    assert!(matches!(event.kind, PeerEventKind::Received(Err(ReceiveError::Descriptors))), "{event:?}");
    assert!(is_closed(&far));
}

/// A window that is closed says so when it is, on the thread of its user.
#[test]
fn windows_are_closed_in_their_turn() {
    let mut peers = Peers::new().unwrap();
    let (window, closing) = (Window::new(WindowLayout::new(4096, 4096).unwrap()).unwrap(), Arc::new(()));
    peers.user(1).close_window(Arc::new(window), Arc::clone(&closing));
    let begun = Instant::now();
    while Arc::strong_count(&closing) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never closed");
        park_timeout(Duration::from_millis(1));
    }
}

/// One user's job that takes long delays no other user's, and its user counts as slow, who then gets less.
#[test]
fn users_do_not_wait_for_each_other() {
    let mut peers = Peers::new().unwrap();
    let slow = peers.user(1);
    (0..9).for_each(|_| slow.note_call(LONG_CALL));
    assert!(!slow.is_slow(), "so much is put up with");
    slow.note_call(LONG_CALL);
    assert!(slow.is_slow() && !peers.user(2).is_slow());
    // As many as there may be: the thread is busy for as long as all of this takes.
    let (ours, theirs) = pair();
    let connection = peers.connect(Some(2), ours);
    socket::send(&theirs, &message(1), &[]).unwrap();
    let (busy, _far) = pair();
    let swamp = peers.connect(Some(1), busy);
    while !slow.is_swamped() && swamp.send(message(0), Vec::new()).is_ok() {
        slow.shared.backlog.fetch_add(1, Relaxed);
    }
    assert!(swamp.send(message(0), Vec::new()).is_err(), "there is a limit");
    connection.listen();
    let heard =
        |event: PeerEvent| event.serial == connection.serial() && matches!(event.kind, PeerEventKind::Received(Ok(_)));
    while !heard(next(&peers)) {}
}

/// A user's thread ends when the user has nothing here any more.
#[test]
fn users_who_are_gone_are_forgotten() {
    let mut peers = Peers::new().unwrap();
    let connection = peers.connect(Some(5), pair().0);
    peers.sweep();
    assert_eq!(peers.users.len(), 1);
    drop(connection);
    peers.flush(Duration::from_secs(5));
    peers.sweep();
    assert!(peers.users.is_empty());
}

/// A slow user whose thread has ended counts as slow still, with the next one; and others do not.
#[test]
fn slowness_outlives_the_thread() {
    let mut peers = Peers::new().unwrap();
    peers.user(5).note_call(LONG_CALLS);
    assert!(peers.user(5).is_slow());
    peers.sweep();
    assert!(peers.users.is_empty() && peers.slow.len() == 1);
    assert!(peers.user(5).is_slow() && !peers.user(6).is_slow());
    assert!(peers.slow.is_empty(), "the thread knows it");
    peers.sweep();
    // What is over is forgotten.
    peers.slow.insert(7, Instant::now());
    peers.sweep();
    assert_eq!(peers.slow.keys().collect::<Vec<_>>(), [&5]);
    assert!(!peers.user(7).is_slow());
}

/// A thread that leaves a socket alone stays, for its end would close it.
#[test]
fn who_shuns_a_socket_stays() {
    let mut peers = Peers::new().unwrap();
    let user = peers.user(5);
    user.shared.extend(&user.shared.shuns_until, SHUN_TIME);
    drop(user);
    peers.sweep();
    assert!(peers.users.contains_key(&5) && !peers.user(5).is_slow());
}

/// A doorbell is quieted and closed on its user's thread.
#[test]
fn doorbells_are_quieted() {
    let mut peers = Peers::new().unwrap();
    let (ours, theirs) = Doorbell::pair().unwrap();
    let bell = peers.quieting(3, ours);
    // Until it is full.
    (0..10_000).for_each(|_| theirs.ring());
    let room = || rustix::net::send(&theirs, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    assert_eq!(room(), Err(Errno::AGAIN));
    for _ in 0..100 {
        bell.quiet();
        peers.flush(Duration::from_secs(5));
    }
    assert_eq!(room(), Ok(1));
    drop(bell);
    peers.flush(Duration::from_secs(5));
    assert_eq!(room(), Err(Errno::PIPE));
}

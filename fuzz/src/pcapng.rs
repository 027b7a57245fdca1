//! Any bytes as a capture, and any blocks in one.

use kopi_pcapng::{
    Block, Direction, Interface, MAX_CAPTURED, Note, Packet, Reader, Section, Statistics, interface, packet, read_note,
    section, statistics,
};

use crate::input::Input;

/// Odd inputs are bytes of a capture, even ones say what is written.
pub(crate) fn check(bytes: &[u8]) {
    match bytes.split_first() {
        Some((&kind, rest)) if kind & 1 == 1 => read(rest),
        Some((_, rest)) => write(&mut Input::new(rest)),
        None => {}
    }
}

/// A block in an owned form, to be compared.
#[derive(Debug, PartialEq)]
enum Owned {
    Section(String, String, String),
    Interface(String, String, Option<[u8; 6]>, Option<String>, u32),
    Packet(u32, u64, u32, Option<Direction>, Option<u32>, u64, Option<String>, Vec<u8>),
    Statistics(Statistics),
    Other,
}

fn owned(block: &Block<'_>) -> Owned {
    match block {
        Block::Section(s) => Owned::Section(s.hardware.clone(), s.os.clone(), s.application.clone()),
        Block::Interface(i) => Owned::Interface(i.name.clone(), i.description.clone(), i.mac, i.filter.clone(), i.snap),
        Block::Packet(p) => {
            let comment = p.comment.map(str::to_owned);
            Owned::Packet(p.interface, p.timestamp_ns, p.len, p.direction, p.queue, p.drops, comment, p.data.to_vec())
        }
        Block::Statistics(statistics) => Owned::Statistics(*statistics),
        Block::Other(_) => Owned::Other,
    }
}

/// Blocks of `bytes` up to the first that is wrong, and whether there is such a one.
fn blocks(bytes: &[u8]) -> (Vec<Owned>, bool) {
    let mut reader = Reader::new(bytes);
    let mut blocks = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(block)) => blocks.push(owned(&block)),
            Ok(None) => return (blocks, false),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return (blocks, true);
            }
        }
    }
}

/// Reading ends, and what was read can be written and is the same when it is read again.
fn read(bytes: &[u8]) {
    let (found, _) = blocks(bytes);
    assert!(found.len() <= bytes.len() / 12);
    let (mut file, mut expected) = (Vec::new(), Vec::new());
    for block in found {
        match &block {
            Owned::Section(hardware, os, application) => section(&mut file, &Section { hardware, os, application }),
            Owned::Interface(name, description, mac, filter, snap) => {
                let (mac, snap, filter) = (*mac, *snap, filter.as_deref());
                interface(&mut file, &Interface { name, description, mac, filter, snap });
            }
            // A packet whose direction nobody said cannot be written, nor one of more bytes than we keep.
            Owned::Packet(interface, timestamp_ns, len, Some(direction), queue, drops, comment, data)
                if data.len() <= MAX_CAPTURED =>
            {
                let comment = comment.as_deref().unwrap_or_default();
                let (interface, timestamp_ns, len, drops) = (*interface, *timestamp_ns, *len, *drops);
                let (direction, queue) = (*direction, *queue);
                let head = Packet { interface, timestamp_ns, len, direction, queue, drops, comment };
                packet(&mut file, &head, [&data[..]].into_iter());
            }
            Owned::Statistics(of) => statistics(&mut file, of),
            Owned::Packet(..) | Owned::Other => continue,
        }
        expected.push(block);
    }
    let (again, broken) = blocks(&file);
    assert!(!broken && again.len() == expected.len(), "{expected:?}");
    for (again, expected) in again.into_iter().zip(expected) {
        assert_eq!(without_empty(again), without_empty(expected));
    }
}

/// An empty comment is not written.
fn without_empty(block: Owned) -> Owned {
    match block {
        Owned::Packet(interface, time, len, direction, queue, drops, comment, data) => {
            let comment = comment.filter(|comment| !comment.is_empty());
            Owned::Packet(interface, time, len, direction, queue, drops, comment, data)
        }
        other => other,
    }
}

/// What is written is read. A text ends at a zero for readers, so there is none in it.
fn write(input: &mut Input<'_>) {
    let text = |input: &mut Input<'_>| input.text().replace('\0', "0");
    let (hardware, os, application) = (text(input), text(input), text(input));
    let mut file = Vec::new();
    section(&mut file, &Section { hardware: &hardware, os: &os, application: &application });
    let mut expected = vec![Owned::Section(hardware, os, application)];
    let mut interfaces = 0;
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => {
                let (name, description) = (text(input), text(input));
                let mac = (input.byte() & 1 == 1).then(|| [input.byte(); 6]);
                let filter = (input.byte() & 1 == 1).then(|| text(input));
                let snap = input.u32();
                let info = Interface { name: &name, description: &description, mac, filter: filter.as_deref(), snap };
                interface(&mut file, &info);
                expected.push(Owned::Interface(name, description, mac, filter, snap));
                interfaces += 1;
            }
            1 | 2 if interfaces > 0 => {
                let comment = comment(input);
                let direction = if input.byte() & 1 == 1 { Direction::Inbound } else { Direction::Outbound };
                let queue = (input.byte() & 1 == 1).then(|| input.u32());
                let (at, timestamp_ns, len) = (input.below(interfaces), input.u64(), input.u32());
                let drops = u64::from(input.byte());
                let head = Packet { interface: at, timestamp_ns, len, direction, queue, drops, comment: &comment };
                let (a, b) = (input.piece(), input.piece());
                packet(&mut file, &head, [a, b].into_iter());
                let comment = (!comment.is_empty()).then_some(comment);
                let data = [a, b].concat();
                expected.push(Owned::Packet(at, timestamp_ns, len, Some(direction), queue, drops, comment, data));
            }
            3 if interfaces > 0 => {
                let mut of = Statistics { interface: input.below(interfaces), ..Statistics::default() };
                (of.timestamp_ns, of.start_ns, of.end_ns) = (input.u64(), input.u64(), input.u64());
                (of.received, of.dropped) = (input.u64(), input.u64());
                (of.accepted, of.delivered) = (input.u64(), input.u64());
                statistics(&mut file, &of);
                expected.push(Owned::Statistics(of));
            }
            _ => {}
        }
    }
    assert_eq!(blocks(&file), (expected, false));
}

/// A note of names that anybody may have given himself says what was put in, and nothing else, when it is read.
fn comment(input: &mut Input<'_>) -> String {
    let (app, comm, rule) = (input.text(), input.text(), input.text());
    let pid = (input.byte() & 1 == 1).then(|| i32::from(input.byte()));
    let mut text = String::new();
    Note { app: Some(&app), pid, comm: Some(&comm), verdict: "drop", rule: Some(&rule), ..Note::default() }
        .write(&mut text);
    let number = pid.map(|pid| pid.to_string());
    let mut expected = vec![("app", &*app)];
    expected.extend(number.as_deref().map(|pid| ("pid", pid)));
    expected.extend([("comm", &*comm), ("verdict", "drop"), ("rule", &*rule)]);
    let read: Vec<_> = read_note(&text).collect();
    assert_eq!(read.iter().map(|(key, value)| (*key, &**value)).collect::<Vec<_>>(), expected);
    text
}

//! The traffic that both sides judge: short conversations between each app and a host on the wire.

use crate::rules::{ADDRESSES, Direction, PORTS};
use kopi_testkit::frames::Ends;
use kopi_testkit::frames::flags::{ACK, FIN, PSH, RST, SYN};

/// The host on the wire.
pub(crate) const REMOTE: [u8; 4] = [10, 77, 0, 99];

/// One packet of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) direction: Direction,
    pub(crate) packet: Vec<u8>,
    /// Its identification, which no other packet of the matrix has.
    pub(crate) id: u16,
    /// A reset or an ICMP error, to which there is no answer even if it is rejected.
    pub(crate) silent: bool,
    /// Whether it can begin a connection or move one on: no ICMP error does, and no flags that do not go together.
    pub(crate) moves: bool,
}

/// One conversation.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Index of the user whose app it is.
    pub(crate) user: usize,
    /// What it is, for people.
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// Who sends a packet of a conversation: the one that begins it, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Caller,
    Called,
}
use Side::{Called, Caller};

/// A packet of a conversation, before it has addresses.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Flags, sequence and acknowledgement numbers, bytes of data.
    Tcp(u8, u32, u32, usize),
    Udp,
    /// Type and number of an ICMP message with an identifier.
    Icmp(u8, u16),
    /// Type and code of an ICMP error about the packet before, which came from the other side.
    Error(u8, u8),
    /// The same about a packet that nobody has sent.
    Lie(u8, u8),
}

/// A kind of conversation.
type Script = (&'static str, Vec<(Side, Part)>);

/// Conversations by TCP. A window is kept, since Linux looks at it.
fn tcp() -> Vec<Script> {
    const A: u32 = 1000;
    const B: u32 = 5000;
    let open = [
        (Caller, Part::Tcp(SYN, A, 0, 0)),
        (Called, Part::Tcp(SYN | ACK, B, A + 1, 0)),
        (Caller, Part::Tcp(ACK, A + 1, B + 1, 0)),
    ];
    let after = |more: &[(Side, Part)]| [&open[..], more].concat();
    let close = [
        (Caller, Part::Tcp(FIN | ACK, A + 1, B + 1, 0)),
        (Called, Part::Tcp(ACK, B + 1, A + 2, 0)),
        (Called, Part::Tcp(FIN | ACK, B + 1, A + 2, 0)),
        (Caller, Part::Tcp(ACK, A + 2, B + 2, 0)),
    ];
    let broken = [(Caller, Part::Tcp(RST | ACK, A + 1, B + 1, 0))];
    let alone = |flags: u8, data: usize| vec![(Caller, Part::Tcp(flags, A, B, data))];
    vec![
        ("syn", open[..1].to_vec()),
        ("syn twice", vec![open[0], open[0]]),
        (
            "talk",
            after(&[
                (Caller, Part::Tcp(ACK | PSH, A + 1, B + 1, 10)),
                (Called, Part::Tcp(ACK | PSH, B + 1, A + 11, 10)),
                (Caller, Part::Tcp(ACK, A + 11, B + 11, 0)),
            ]),
        ),
        ("close", after(&close)),
        ("close and open again", after(&[&close[..], &[(Caller, Part::Tcp(SYN, A + 70_000, 0, 0))]].concat())),
        // The caller breaks off: after the called one has, Linux takes the next SYN for one of the old connection.
        ("break off", after(&broken)),
        ("break off and open again", after(&[&broken[..], &[(Caller, Part::Tcp(SYN, A + 70_000, 0, 0))]].concat())),
        ("break off and go on", after(&[&broken[..], &[(Called, Part::Tcp(ACK, B + 1, A + 1, 0))]].concat())),
        ("called breaks off", after(&[(Called, Part::Tcp(RST | ACK, B + 1, A + 1, 0))])),
        ("refused", vec![open[0], (Called, Part::Tcp(RST | ACK, 0, A + 1, 0))]),
        ("unreachable", vec![open[0], (Called, Part::Error(3, 1))]),
        ("too big", after(&[(Caller, Part::Tcp(ACK | PSH, A + 1, B + 1, 10)), (Called, Part::Error(3, 4))])),
        (
            "picked up",
            vec![
                (Caller, Part::Tcp(ACK | PSH, A, B, 10)),
                (Called, Part::Tcp(ACK | PSH, B, A + 10, 10)),
                (Caller, Part::Tcp(ACK, A + 10, B + 10, 0)),
            ],
        ),
        ("syn-ack alone", alone(SYN | ACK, 0)),
        ("fin alone", alone(FIN | ACK, 0)),
        ("rst alone", alone(RST, 0)),
        ("no flags", alone(0, 0)),
        ("syn and fin", alone(SYN | FIN, 0)),
        ("all flags", alone(0x3f, 0)),
        (
            "bad flags in between",
            after(&[
                (Caller, Part::Tcp(SYN | FIN, A + 1, B + 1, 0)),
                (Caller, Part::Tcp(0, A + 1, B + 1, 0)),
                (Caller, Part::Tcp(PSH, A + 1, B + 1, 10)),
                (Caller, Part::Tcp(ACK, A + 1, B + 1, 0)),
            ]),
        ),
        (
            "plain after odd",
            vec![
                (Caller, Part::Tcp(FIN | ACK, A, B, 0)),
                (Caller, Part::Tcp(ACK, A, B, 0)),
                (Caller, Part::Tcp(0, A, B, 0)),
                (Caller, Part::Tcp(ACK, A, B, 0)),
            ],
        ),
        ("error about nothing", vec![(Caller, Part::Lie(3, 3))]),
    ]
}

fn udp() -> Vec<Script> {
    vec![
        ("one way", vec![(Caller, Part::Udp), (Caller, Part::Udp)]),
        ("talk", vec![(Caller, Part::Udp), (Called, Part::Udp), (Caller, Part::Udp), (Called, Part::Udp)]),
        ("unreachable", vec![(Caller, Part::Udp), (Called, Part::Error(3, 3))]),
        ("time exceeded", vec![(Caller, Part::Udp), (Called, Part::Error(11, 0))]),
        ("unreachable later", vec![(Caller, Part::Udp), (Called, Part::Udp), (Caller, Part::Error(3, 3))]),
        ("error about nothing", vec![(Caller, Part::Lie(3, 3))]),
    ]
}

/// Timestamps are left out: kopi does not tell those of two hosts apart by their identifier.
fn icmp() -> Vec<Script> {
    vec![
        ("echo", vec![(Caller, Part::Icmp(8, 1)), (Called, Part::Icmp(0, 1)), (Caller, Part::Icmp(8, 2))]),
        ("echo unreachable", vec![(Caller, Part::Icmp(8, 1)), (Called, Part::Error(3, 1))]),
        ("reply alone", vec![(Caller, Part::Icmp(0, 1))]),
        ("router advertisement", vec![(Caller, Part::Icmp(9, 1))]),
        ("unknown type", vec![(Caller, Part::Icmp(40, 1))]),
        ("both ask", vec![(Caller, Part::Icmp(8, 1)), (Called, Part::Icmp(8, 1)), (Caller, Part::Icmp(0, 1))]),
    ]
}

/// The two ends of a conversation as the caller has them, and what numbers its packets.
struct Scene<'a> {
    user: usize,
    /// Which way the caller's packets go.
    direction: Direction,
    /// The caller's port and that of the other.
    ports: (u16, u16),
    next_id: &'a mut u16,
}

impl Scene<'_> {
    fn step(&mut self, side: Side, part: Part, before: Option<&Step>) -> Step {
        let id = *self.next_id;
        *self.next_id += 1;
        let direction = match (self.direction, side) {
            (direction, Caller) => direction,
            (Direction::Egress, Called) => Direction::Ingress,
            (Direction::Ingress, Called) => Direction::Egress,
        };
        let (app, remote) = (ADDRESSES[self.user].into(), REMOTE.into());
        let (source, destination) = if direction == Direction::Egress { (app, remote) } else { (remote, app) };
        let ends = Ends { source, destination, id };
        let ports = if side == Caller { self.ports } else { (self.ports.1, self.ports.0) };
        let packet = match part {
            Part::Tcp(flags, seq, ack, data) => ends.tcp(ports, flags, (seq, ack), &vec![b'k'; data]),
            Part::Udp => ends.udp(ports, b"kopi"),
            // The identifier stands where ports would.
            Part::Icmp(kind, number) => ends.echo(kind, self.ports.0, number),
            Part::Error(kind, code) => ends.error(kind, code, &before.expect("an error is about something").packet),
            Part::Lie(kind, code) => {
                let back = Ends { source: destination, destination: source, id };
                ends.error(kind, code, &back.udp((ports.1, ports.0), b"kopi"))
            }
        };
        let (silent, moves) = match part {
            Part::Tcp(flags, ..) => {
                let flags = flags & !PSH;
                (flags & RST != 0, [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK].contains(&flags))
            }
            Part::Udp | Part::Icmp(..) => (false, true),
            Part::Error(..) | Part::Lie(..) => (true, false),
        };
        Step { direction, packet, id, silent, moves }
    }
}

/// Every conversation with every port, of every user, begun by either side. `run` is a number, by which the
/// ports of conversations differ from those of another run.
pub(crate) fn matrix(run: u16) -> Vec<Case> {
    let mut cases = Vec::new();
    let (mut next_id, mut caller) = (1, 10_000 + run * 1000);
    for user in 0..ADDRESSES.len() {
        for direction in [Direction::Egress, Direction::Ingress] {
            let with_ports = [("tcp", tcp()), ("udp", udp())].into_iter().flat_map(|(proto, scripts)| {
                scripts.into_iter().flat_map(move |script| PORTS.map(|port| (proto, script.clone(), port)))
            });
            let without = icmp().into_iter().map(|script| ("icmp", script, 0));
            for (proto, (what, parts), port) in with_ports.chain(without) {
                let mut scene = Scene { user, direction, ports: (caller, port), next_id: &mut next_id };
                let mut steps: Vec<Step> = Vec::new();
                for (side, part) in parts {
                    let step = scene.step(side, part, steps.last());
                    steps.push(step);
                }
                let way = format!("{direction:?}").to_lowercase();
                let name = format!("user {user}, {way}, {proto}/{port}: {what}");
                cases.push(Case { user, name, steps });
                caller += 1;
            }
        }
    }
    cases
}

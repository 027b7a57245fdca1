//! Frames of every kind that an expression may ask for, most of them cut or changed somewhere.

use std::net::Ipv6Addr;

/// Numbers that look random and are the same every time (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).expect("small")).expect("below limit")
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

/// A frame of any kind. One in eight is cut off anywhere, one in eight has a byte changed.
pub(crate) fn any(random: &mut Random) -> Vec<u8> {
    let mut frame = whole(random);
    match random.below(8) {
        0 => frame.truncate(random.below(frame.len())),
        1 => {
            let at = random.below(frame.len());
            frame[at] = random.byte();
        }
        2 | 3 => frame.resize(frame.len().max(60), 0),
        _ => {}
    }
    frame
}

fn whole(random: &mut Random) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(match random.below(8) {
        0 => [0xff; 6],
        1 => [0x33, 0x33, 0, 0, 0, 1],
        2 => [1, 0, 0x5e, 0, 0, 1],
        _ => mac(random),
    });
    frame.extend(mac(random));
    for _ in 0..random.pick(&[0, 0, 0, 0, 0, 1, 1, 2, 3]) {
        frame.extend(random.pick(&[[0x81, 0], [0x81, 0], [0x88, 0xa8], [0x91, 0], [0x92, 0]]));
        frame.extend(random.pick(&[[0, 7], [0, 8], [0xe0, 7], [0, 0]]));
    }
    match random.below(24) {
        0..=9 => frame.extend([&[8, 0][..], &ipv4(random)].concat()),
        10..=15 => frame.extend([&[0x86, 0xdd][..], &ipv6(random)].concat()),
        16 | 17 => frame.extend([&[8, 6][..], &arp(random)].concat()),
        18 => frame.extend([&[0x80, 0x35][..], &arp(random)].concat()),
        19 | 20 => frame.extend(mpls(random)),
        21 => frame.extend(pppoe(random)),
        22 => {
            let (lsap, rest) = (random.pick(&[0x42, 0xaa, 0xe0, 0xf0, 0xfe]), random.below(60));
            frame.extend([0, u8::try_from(rest).expect("small") + 3, lsap, lsap, 3]);
            frame.extend(random.bytes(rest));
        }
        _ => {
            let ethertype = random.pick(&[[0x88, 0xcc], [0x80, 0x9b], [0x81, 0x37], [0, 0], [0xff, 0xff]]);
            frame.extend([&ethertype[..], &random.bytes(46)].concat());
        }
    }
    frame
}

fn mac(random: &mut Random) -> [u8; 6] {
    [2, 0, 0, 0, 0, random.pick(&[1, 2, 3, 4])]
}

fn address(random: &mut Random) -> [u8; 4] {
    let some = [[10, 0, 0, 1], [10, 0, 0, 2], [192, 168, 7, 1], [192, 168, 8, 1], [224, 0, 0, 251], [255; 4], [0; 4]];
    random.pick(&[some[0], some[0], some[1], some[1], some[2], some[3], some[4], some[5], some[6], [129, 0, 0, 1]])
}

fn address6(random: &mut Random) -> [u8; 16] {
    let text = random.pick(&["2001:db8::1", "2001:db8::1", "2001:db8::2", "2001:db8::6", "fe80::1", "ff02::1", "::"]);
    text.parse::<Ipv6Addr>().expect("it is one").octets()
}

fn port(random: &mut Random) -> [u8; 2] {
    let port: u16 = random.pick(&[53, 53, 80, 80, 443, 5353, 1, 0, 1024, 32747, 60287, 65535]);
    port.to_be_bytes()
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("short").to_be_bytes()
}

fn ipv4(random: &mut Random) -> Vec<u8> {
    let proto = random.pick(&[6, 6, 6, 17, 17, 17, 1, 1, 132, 2, 47, 50, 51, 89, 103, 112, 136, 255]);
    let payload = transport(random, proto);
    let options = 4 * random.pick(&[0, 0, 0, 0, 1, 3, 10]);
    let mut packet = vec![0x45 + u8::try_from(options / 4).expect("small"), random.pick(&[0, 0, 0xb8, 2, 3])];
    packet.extend(length(20 + options + payload.len()));
    packet.extend(random.bytes(2));
    packet.extend(random.pick(&[[0x40, 0], [0x40, 0], [0, 0], [0, 0], [0x20, 0], [0x20, 7], [0, 7], [0x1f, 0xff]]));
    packet.extend([random.pick(&[64, 64, 255, 1, 4, 12, 24]), proto, 0, 0]);
    packet.extend(address(random));
    packet.extend(address(random));
    packet.extend(random.bytes(options));
    packet.extend(payload);
    packet
}

fn ipv6(random: &mut Random) -> Vec<u8> {
    let proto = random.pick(&[6, 6, 17, 17, 58, 58, 132, 50, 59]);
    let mut payload = transport(random, proto);
    let mut next = proto;
    for _ in 0..random.pick(&[0, 0, 0, 0, 1, 2, 3]) {
        let kind = random.pick(&[0, 43, 44, 51, 60]);
        let mut header = vec![next, u8::from(kind == 51) * 4];
        header.extend(match kind {
            44 => [random.pick(&[[0, 0], [0, 1], [5, 1]]).to_vec(), random.bytes(4)].concat(),
            51 => random.bytes(22),
            _ => vec![1, 4, 0, 0, 0, 0],
        });
        header.extend(payload);
        (payload, next) = (header, kind);
    }
    let mut packet = vec![0x60, random.pick(&[0, 0, 0x20, 0xb]), 0, random.pick(&[0, 1])];
    packet.extend(length(payload.len()));
    packet.extend([next, random.pick(&[64, 255, 1])]);
    packet.extend(address6(random));
    packet.extend(address6(random));
    packet.extend(payload);
    packet
}

fn transport(random: &mut Random, proto: u8) -> Vec<u8> {
    let data = match random.below(3) {
        0 => b"GET / HTTP/1.1".to_vec(),
        _ => {
            let len = random.pick(&[0, 1, 4, 26, 60, 200]);
            random.bytes(len)
        }
    };
    let ports = [port(random), port(random)].concat();
    let head = match proto {
        6 => {
            let mut head = ports;
            head.extend(random.bytes(4));
            head.extend(random.pick(&[[0; 4], [0xff; 4]]));
            head.extend([random.pick(&[0x50, 0x50, 0x80]), random.pick(&[2, 0x12, 0x10, 0x18, 1, 4, 0x29, 0, 0xc2])]);
            head.extend(random.bytes(6));
            head
        }
        17 | 136 => [&ports[..], &length(8 + data.len()), &random.pick(&[[0, 0], [0xab, 0xcd]])].concat(),
        132 => [ports, random.bytes(8), vec![random.pick(&[0, 1, 3]), 0]].concat(),
        1 => vec![random.pick(&[0, 8, 3, 3, 11, 13]), random.pick(&[0, 1, 3]), 0, 0, 0, 1, 0, random.pick(&[1, 2])],
        58 => vec![random.pick(&[128, 129, 135, 136, 1, 3]), 0, 0, 0, 0, 1, 0, 1],
        _ => random.bytes(8),
    };
    [head, data].concat()
}

fn arp(random: &mut Random) -> Vec<u8> {
    let mut message = vec![0, random.pick(&[1, 1, 1, 6]), 8, 0, 6, 4, 0, random.pick(&[1, 2, 3])];
    for _ in 0..2 {
        message.extend(mac(random));
        message.extend(address(random));
    }
    message
}

fn mpls(random: &mut Random) -> Vec<u8> {
    let mut frame = vec![0x88, 0x47];
    let labels = random.pick(&[1, 1, 2, 3]);
    for label in 0..labels {
        let bottom = u8::from(label + 1 == labels);
        frame.extend([0, 1, random.pick(&[0, 0x10]) | bottom, 64]);
    }
    frame.extend(if random.below(3) == 0 { ipv6(random) } else { ipv4(random) });
    frame
}

fn pppoe(random: &mut Random) -> Vec<u8> {
    if random.below(3) == 0 {
        return [&[0x88, 0x63, 0x11, 9, 0, 0][..], &random.bytes(40)].concat();
    }
    let (kind, packet) = match random.below(3) {
        0 => ([0, 0x57], ipv6(random)),
        _ => ([0, 0x21], ipv4(random)),
    };
    [&[0x88, 0x64, 0x11, 0, 0, random.pick(&[3, 4])][..], &length(packet.len() + 2), &kind, &packet].concat()
}

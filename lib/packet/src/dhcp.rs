//! What a client of DHCP says of itself, in which a liar could take somebody else's lease.

use core::net::Ipv4Addr;

use crate::proto::UDP;
use crate::walk::{be16, be32, be64};
use crate::{FlowKey, Fragment, Headers, MacAddr, Shape, ip};

/// Where a server of DHCP listens (RFC 2131, 4.1).
pub const SERVER: u16 = 67;
/// Where a client of DHCP listens.
pub const CLIENT: u16 = 68;
/// Where a server of DHCP for IPv6 listens (RFC 8415, 7.2).
pub const SERVER_V6: u16 = 547;
/// Where a client of DHCP for IPv6 listens.
pub const CLIENT_V6: u16 = 546;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Bytes of a message before its options, and those that say that there are any (RFC 2131, 3).
const FIXED: usize = 236;
const MAGIC_COOKIE: u32 = 0x6382_5363;
/// Operation, type and length of hardware address: a request of an Ethernet station.
const REQUEST_OF_ETHERNET: u32 = 0x01_01_06;

/// What a client says of itself (RFC 2131, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `chaddr`: the hardware address of the client, by which the server knows it.
    pub hardware: MacAddr,
    /// `ciaddr`: the address that the client has; unspecified if it has none.
    pub address: Ipv4Addr,
    /// The client identifier, by which the server knows it before all else, if that is a hardware address of Ethernet
    /// (RFC 2132, 9.14). Other identifiers tell nobody whose they are.
    pub identifier: Option<MacAddr>,
}

/// Whether a packet is for a server of DHCP, by its port alone: one for which [`request`] gives `None` is none of a client.
#[inline]
#[must_use]
pub fn is_for_server(key: &FlowKey) -> bool {
    key.proto() == UDP && key.shape() == Shape::Ipv4 && key.dst_port() == Some(SERVER)
}

/// Reads the request of a client in a frame that [`is_for_server`]; `headers` is what [`parse`](crate::parse) found in the
/// frame.
///
/// `None` if it is none: a reply, of something else than an Ethernet station, of a relay agent (`giaddr`), in fragments, too
/// short, with an option that goes beyond the end or that is there twice, or with options in other fields (RFC 2132, 9.3),
/// which no client needs.
#[must_use]
pub fn request(frame: &[u8], headers: &Headers) -> Option<Request> {
    const OVERLOAD: u8 = 52;
    const IDENTIFIER: u8 = 61;
    const PAD: u8 = 0;
    const END: u8 = 255;
    let message = ip::transport(frame, headers)?.get(UDP_HEADER..)?;
    let whole = headers.fragment == Fragment::None && message.len() >= FIXED;
    if !whole || be32(message, 0)? >> 8 != REQUEST_OF_ETHERNET || be32(message, 24)? != 0 {
        return None;
    }
    let hardware = MacAddr::from_u64(be64(message, 28)? >> 16);
    let mut request = Request { hardware, address: Ipv4Addr::from_bits(be32(message, 12)?), identifier: None };
    let mut options = match be32(message, FIXED) {
        Some(MAGIC_COOKIE) => message.get(FIXED + 4..)?,
        // What was before DHCP has vendor's information there (RFC 951).
        _ => return Some(request),
    };
    let mut identified = false;
    while let Some((&option, rest)) = options.split_first() {
        options = match option {
            PAD => rest,
            END => break,
            _ => {
                let length = usize::from(*rest.first()?);
                let body = rest.get(1..=length)?;
                match option {
                    OVERLOAD => return None,
                    IDENTIFIER if identified => return None,
                    IDENTIFIER => {
                        identified = true;
                        let ethernet = body.len() == 7 && body.first() == Some(&1);
                        request.identifier = if ethernet { be16(body, 1).zip(be32(body, 3)).map(mac) } else { None };
                    }
                    _ => {}
                }
                rest.get(1 + length..)?
            }
        };
    }
    Some(request)
}

fn mac((high, low): (u16, u32)) -> MacAddr {
    MacAddr::from_u64(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn framed(message: &[u8], to: u16) -> Vec<u8> {
        let size = |more: usize| u16::try_from(message.len() + more).unwrap().to_be_bytes();
        let mut frame = [&[0xff; 6][..], &STATION, &[8, 0, 0x45, 0]].concat();
        frame.extend([size(28), [0; 2], [0; 2], [64, 17], [0; 2], [0; 2], [0; 2], [255; 2], [255; 2]].concat());
        frame.extend([CLIENT.to_be_bytes(), to.to_be_bytes(), size(8), [0; 2]].concat());
        [&frame, message].concat()
    }

    fn message(options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; FIXED];
        message[..3].copy_from_slice(&[1, 1, 6]);
        message[12..16].copy_from_slice(&[10, 0, 0, 8]);
        message[28..34].copy_from_slice(&STATION);
        [&message, &MAGIC_COOKIE.to_be_bytes()[..], options].concat()
    }

    fn read(message: &[u8]) -> Option<Request> {
        let frame = framed(message, SERVER);
        let (headers, key) = parse(&frame, 1);
        assert!(is_for_server(&key));
        request(&frame, &headers)
    }

    /// What a client says of itself is read from where RFC 2131 has it, with options or without.
    #[test]
    fn requests_are_read() {
        let plain = Request { hardware: MacAddr::new(STATION), address: Ipv4Addr::new(10, 0, 0, 8), identifier: None };
        let other = MacAddr::new([2, 0, 0, 0, 0, 7]);
        let named = Some(Request { identifier: Some(other), ..plain });
        assert_eq!(read(&message(&[53, 1, 1, 255])), Some(plain));
        assert_eq!(read(&message(&[])[..FIXED]), Some(plain));
        assert_eq!(read(&message(&[53, 1, 3, 61, 7, 1, 2, 0, 0, 0, 0, 7, 255])), named);
        assert_eq!(read(&message(&[0, 0, 61, 7, 1, 2, 0, 0, 0, 0, 7])), named);
        assert_eq!(read(&message(&[61, 7, 255, 2, 0, 0, 0, 0, 7, 255])), Some(plain), "no hardware address");
        // Behind the end there may be anything.
        assert_eq!(read(&message(&[255, 61, 7, 1])), Some(plain));
    }

    /// What is no client's request, or could be read in two ways, is none.
    #[test]
    fn what_is_no_request_is_refused() {
        let changed = |at: usize, value| {
            let mut message = message(&[255]);
            message[at] = value;
            message
        };
        for (at, value) in [(0, 2), (0, 0), (1, 6), (2, 16), (24, 10), (27, 1)] {
            assert_eq!(read(&changed(at, value)), None, "{at}");
        }
        for options in [&[52, 1, 3, 255][..], &[61, 1, 0, 61, 1, 0, 255], &[61], &[61, 9, 1, 2], &[53, 1]] {
            assert_eq!(read(&message(options)), None, "{options:?}");
        }
        assert_eq!(read(&message(&[])[..FIXED - 1]), None);
        let frame = framed(&message(&[255]), CLIENT);
        assert!(!is_for_server(&parse(&frame, 1).1));
        let mut first = framed(&message(&[255]), SERVER);
        first[20] = 0x20;
        let (headers, key) = parse(&first, 1);
        assert_eq!((is_for_server(&key), request(&first, &headers)), (true, None));
    }

    proptest! {
        /// No bytes behind the header make the reader panic, or find an identifier that is not there.
        #[test]
        fn any_options_are_read_or_refused(options in prop::collection::vec(prop_oneof![
            3 => any::<u8>(), 1 => Just(61), 1 => Just(7), 1 => Just(1), 1 => Just(0)
        ], 0..40)) {
            let found = read(&message(&options));
            if let Some(identifier) = found.and_then(|request| request.identifier) {
                let text = [&[61, 7, 1][..], &identifier.bytes()].concat();
                prop_assert!(options.windows(9).any(|window| window == text));
            }
        }
    }
}

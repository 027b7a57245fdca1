//! How many ICMP errors a worker makes: those that Linux would, and each app's own share of them.
//!
//! An error to a host that did not send the packet is a nuisance that somebody else can cause, so there is a limit for each
//! destination, and one for all. Resets have none, as in netfilter: none is longer than the segment that it answers.
//!
//! What a packet from an app causes is charged to that app, what one from the wire causes to the app that rejects it. Who has used
//! up what is there for all still has a small share of its own, so that nobody takes the others' answers.
//!
//! # Source
//!
//! Linux, `net/ipv4/icmp.c`: `icmp_global_allow` with `icmp_msgs_per_sec` (1,000) and `icmp_msgs_burst` (50), and
//! `inet_peer_xrlim_allow` with `icmp_ratelimit` (one a second) and `XRLIM_BURST_FACTOR` (6), which ICMPv6 has too. RFC 1812,
//! 4.3.2.8; RFC 4443, 2.4 (f).

use crate::ids::PortId;
use std::net::IpAddr;

/// Errors a second, of all workers together, and at once.
const PER_SECOND: u64 = 1000;
const BURST: u64 = 50;
/// Errors at once to one destination, which gets one a second.
const DESTINATION_BURST: u64 = 6;
/// What part of all errors each app may cause that finds nothing left, and how many at once.
const SHARE: u64 = 16;
const SHARE_BURST: u64 = 4;

/// Destinations that a worker remembers, in buckets of [`WAYS`].
const DESTINATIONS: usize = 1024;
const WAYS: usize = 4;

/// Time that was saved up, of which each answer costs some.
#[derive(Clone, Copy, Debug)]
struct Savings {
    ticks: u64,
    since: u64,
}

impl Savings {
    /// What is there at `now`, `most` at most.
    fn at(self, now: u64, most: u64) -> u64 {
        self.ticks.saturating_add(now.saturating_sub(self.since)).min(most)
    }
}

/// A price in ticks, and how many of them may be saved up.
#[derive(Clone, Copy, Debug)]
struct Price {
    ticks: u64,
    burst: u64,
}

impl Price {
    /// Takes one from `savings`, unless there is too little.
    fn pay(self, savings: &mut Savings, now: u64) -> bool {
        let there = savings.at(now, self.ticks.saturating_mul(self.burst));
        let rest = there.checked_sub(self.ticks);
        if let Some(ticks) = rest {
            *savings = Savings { ticks, since: now };
        }
        rest.is_some()
    }
}

#[derive(Clone, Copy, Debug)]
struct Destination {
    address: u128,
    savings: Savings,
}

/// One worker's limits. Fixed in size.
#[derive(Debug)]
pub struct ReplyLimit {
    all: Savings,
    all_price: Price,
    /// By port number.
    shares: Box<[Savings]>,
    share_price: Price,
    destinations: Box<[Destination]>,
    destination_price: Price,
}

impl ReplyLimit {
    /// Limits for one of `workers` workers, for ports below `ports`, and a clock of `hz` ticks a second.
    pub fn new(workers: usize, ports: usize, hz: u64) -> Self {
        let workers = u64::try_from(workers.max(1)).unwrap_or(1);
        let full = Savings { ticks: u64::MAX, since: 0 };
        Self {
            all: full,
            all_price: Price { ticks: hz * workers / PER_SECOND, burst: (BURST / workers).max(1) },
            shares: vec![full; ports].into(),
            share_price: Price { ticks: hz * workers * SHARE / PER_SECOND, burst: SHARE_BURST },
            destinations: vec![Destination { address: 0, savings: full }; DESTINATIONS].into(),
            destination_price: Price { ticks: hz, burst: DESTINATION_BURST },
        }
    }

    /// Whether there may be an error to `to`, charged to port `charged`, at `now`.
    pub fn allows(&mut self, to: IpAddr, charged: PortId, now: u64) -> bool {
        let address = match to {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let price = self.destination_price;
        let start = bucket(address) * WAYS;
        let Some(ways) = self.destinations.get_mut(start..start + WAYS) else { return false };
        let known = ways.iter().position(|destination| destination.address == address);
        // One that was not heard of for longest makes room: most likely it has saved up everything again.
        let oldest = ways.iter().enumerate().min_by_key(|(_, way)| way.savings.since).map_or(0, |(at, _)| at);
        let Some(destination) = ways.get_mut(known.unwrap_or(oldest)) else { return false };
        let mut savings = if known.is_some() { destination.savings } else { Savings { ticks: u64::MAX, since: now } };
        if !price.pay(&mut savings, now) {
            return false;
        }
        let share = self.shares.get_mut(usize::from(charged));
        let paid =
            self.all_price.pay(&mut self.all, now) || share.is_some_and(|share| self.share_price.pay(share, now));
        if paid {
            *destination = Destination { address, savings };
        }
        paid
    }
}

/// The bucket of an address. Nobody gains by filling one: who is forgotten is answered.
fn bucket(address: u128) -> usize {
    let folded = (address >> 64 ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [.., a, b, _, _, _, _] = folded.to_be_bytes();
    usize::from(u16::from_be_bytes([a, b])) % (DESTINATIONS / WAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HZ: u64 = 1_000_000;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc633_6400 + n).into()
    }

    /// How many of so many errors a millisecond are made within `seconds`, to as many destinations.
    fn made(limit: &mut ReplyLimit, charged: PortId, start: u64, seconds: u64, destinations: u32) -> u64 {
        let times = (0..seconds * 1000).map(|ms| start + ms * HZ / 1000);
        let each = |now: u64| (0..4_u32).map(move |n| (now, n));
        let allowed = times.flat_map(each).filter(|&(now, n)| {
            let turn = u32::try_from(now / (HZ / 1000)).unwrap() * 4 + n;
            limit.allows(address(turn % destinations), charged, now)
        });
        allowed.count() as u64
    }

    #[test]
    fn one_destination_gets_six_at_once_and_one_a_second() {
        let mut limit = ReplyLimit::new(1, 4, HZ);
        assert_eq!(made(&mut limit, 1, HZ, 1, 1), 6);
        assert_eq!(made(&mut limit, 1, 2 * HZ, 10, 1), 10);
        assert_eq!(made(&mut limit, 1, 1000 * HZ, 1, 1), 6, "no more than six are saved up");
    }

    /// Many destinations, as of datagrams with spoofed addresses, get as many as there are for all, and the share.
    #[test]
    fn all_destinations_get_a_thousand_a_second_whatever_the_number_of_workers() {
        for workers in [1, 2, 4] {
            let mut limits: Vec<_> = (0..workers).map(|_| ReplyLimit::new(workers, 4, HZ)).collect();
            let all: u64 = limits.iter_mut().map(|limit| made(limit, 1, HZ, 4, 100_000)).sum();
            let share = 4 * PER_SECOND / SHARE;
            let burst = BURST + SHARE_BURST * workers as u64;
            assert!((4 * PER_SECOND..=4 * PER_SECOND + share + burst).contains(&all), "{workers} workers: {all}");
        }
    }

    /// Who has used up everything leaves the others their answers.
    #[test]
    fn nobody_takes_the_others_answers() {
        let mut limit = ReplyLimit::new(1, 4, HZ);
        for second in 1..5 {
            for ms in 0..1000 {
                let now = second * HZ + ms * HZ / 1000;
                (0..20).for_each(|n| {
                    limit.allows(address(u32::try_from(ms).unwrap() * 20 + n), 1, now);
                });
                if ms == 500 {
                    assert!(limit.allows(address(200_000), 2, now), "second {second}");
                }
            }
        }
    }

    #[test]
    fn a_clock_that_lags_gives_nothing() {
        let mut limit = ReplyLimit::new(1, 4, HZ);
        (0..6).for_each(|_| assert!(limit.allows(address(1), 1, 9 * HZ)));
        assert!(!limit.allows(address(1), 1, 8 * HZ));
        assert!(!limit.allows(address(1), 1, 9 * HZ));
    }
}

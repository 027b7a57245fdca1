//! How what a port receives is spread over its RX queues: by the hash that its app has chosen, and a table of queues for that, unless a
//! [flow rule](crate::flow_rules) of the app's holds.

use crate::flow_rules::FlowRules;
use crate::ids::{PortId, Verdict};
use kopi_packet::{FlowKey, RssTypes, Toeplitz};
use kopi_ring::DropReason;
use kopi_ring::layout::Notes;
use kopi_ring::message::RETA_SIZE;
use std::sync::Arc;

/// The choice of one port. Immutable: a change replaces it.
#[derive(Clone, Debug)]
pub struct Rss {
    /// The function and what it is over; `None` if nothing is hashed.
    hash: Option<(Arc<Toeplitz>, RssTypes)>,
    /// Whether that is what ports have whose apps have chosen nothing.
    is_usual: bool,
    /// The queue for each value of the low bits of a hash.
    table: [u8; RETA_SIZE],
    /// What comes before all that.
    rules: Option<Arc<FlowRules>>,
}

/// No hash: all on the first queue.
static NONE: Rss = Rss { hash: None, is_usual: false, table: [0; RETA_SIZE], rules: None };

impl Rss {
    /// What a port of `queues` RX queues has whose app has chosen nothing: all kinds of packets, all queues in turn.
    #[must_use]
    pub fn usual(toeplitz: Arc<Toeplitz>, queues: usize) -> Self {
        Self { hash: Some((toeplitz, RssTypes::ALL)), is_usual: true, table: in_turn(queues), rules: None }
    }

    /// Another choice: `types` are hashed by `toeplitz`. `usual` is the function that ports have whose apps have chosen none.
    #[must_use]
    pub fn chosen(toeplitz: Arc<Toeplitz>, types: RssTypes, table: [u8; RETA_SIZE], usual: &Arc<Toeplitz>) -> Self {
        let is_usual = Arc::ptr_eq(&toeplitz, usual) && types == RssTypes::ALL;
        Self { hash: (types != RssTypes::NONE).then_some((toeplitz, types)), is_usual, table, rules: None }
    }

    /// The same, where these rules come first.
    #[must_use]
    pub fn with_rules(self, rules: Arc<FlowRules>) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// The hash of a flow; 0 if it has none.
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u32 {
        self.hash.as_ref().map_or(0, |(toeplitz, types)| key.rss(toeplitz, *types))
    }

    /// What the app is told of frames of a flow, of which `notes` have the packet type and this port's hash.
    ///
    /// # Errors
    ///
    /// Why it does not get them.
    #[inline]
    pub fn steer(&self, key: &FlowKey, notes: Notes) -> Result<Notes, DropReason> {
        self.rules.as_deref().map_or(Ok(notes), |rules| rules.apply(key, notes, self))
    }

    /// The same for one of several receivers, where `notes` have the hash for a port whose app has chosen nothing.
    ///
    /// # Errors
    ///
    /// Why this one does not get it.
    #[inline]
    pub fn steer_copy(&self, key: &FlowKey, notes: Notes) -> Result<Notes, DropReason> {
        let notes = if self.is_usual { notes } else { notes.with_hash(self.hash(key)) };
        self.steer(key, notes)
    }

    /// The RX queue for what has this hash. What has none is where the first entry says.
    #[inline]
    #[must_use]
    pub fn queue(&self, hash: u32) -> u8 {
        self.table[hash as usize % RETA_SIZE]
    }
}

/// A table in which all queues take turns.
fn in_turn(queues: usize) -> [u8; RETA_SIZE] {
    let mut table = [0; RETA_SIZE];
    let queue = |at: usize| u8::try_from(at % queues.max(1)).unwrap_or(0);
    table.iter_mut().enumerate().for_each(|(at, entry)| *entry = queue(at));
    table
}

/// The choices of all ports.
#[derive(Clone, Debug, Default)]
pub struct RssTable {
    /// By port number.
    ports: Box<[Option<Arc<Rss>>]>,
    /// That of a port whose app has chosen nothing.
    usual: Option<Arc<Rss>>,
}

impl RssTable {
    /// Those of `ports`, where `usual` is of a port whose app has chosen nothing.
    #[must_use]
    pub fn new(usual: Arc<Rss>, ports: impl IntoIterator<Item = (PortId, Arc<Rss>)>) -> Self {
        let mut all: Vec<Option<Arc<Rss>>> = Vec::new();
        for (id, rss) in ports {
            let at = usize::from(id);
            if all.len() <= at {
                all.resize(at + 1, None);
            }
            all[at] = Some(rss);
        }
        Self { ports: all.into(), usual: Some(usual) }
    }

    /// That of port `id`.
    #[inline]
    #[must_use]
    pub fn of(&self, id: PortId) -> &Rss {
        self.ports.get(usize::from(id)).and_then(Option::as_deref).unwrap_or(&NONE)
    }

    /// The hash of a flow with this verdict: that of its receiver; for several, that of a port whose app has chosen nothing.
    #[must_use]
    pub fn hash(&self, key: &FlowKey, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::App(id) => self.of(id).hash(key),
            Verdict::Group | Verdict::Promiscuous => self.usual.as_ref().map_or(0, |usual| usual.hash(key)),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::{describe, parse, rss_key_of_boot};

    fn key(text: &str) -> FlowKey {
        parse(&describe::frame_of(text).unwrap(), 0).1
    }

    /// Without a choice every queue has its part of the table; without a hash all is where the first entry says.
    #[test]
    fn queues_take_turns() {
        let toeplitz = Arc::new(Toeplitz::new([7; 40]));
        for queues in 1..=16 {
            let rss = Rss::usual(Arc::clone(&toeplitz), queues);
            for hash in 0..300_u32 {
                assert_eq!(usize::from(rss.queue(hash)), hash as usize % RETA_SIZE % queues);
            }
        }
        let mut table = [2; RETA_SIZE];
        table[0] = 5;
        let none = Rss::chosen(Arc::clone(&toeplitz), RssTypes::NONE, table, &toeplitz);
        assert_eq!(none.hash(&key("tcp 10.0.0.1:1 > 10.0.0.2:2")), 0);
        assert_eq!((none.queue(0), none.queue(128), none.queue(129)), (5, 5, 2));
    }

    /// A flow has the hash of who gets it; copies have those of their receivers, which are worked out where these differ.
    #[test]
    fn receivers_have_their_hashes() {
        let usual = Arc::new(Toeplitz::new(rss_key_of_boot(b"boot")));
        let own = Arc::new(Toeplitz::new([0x6d; 40]));
        let addresses = RssTypes::from_bits(1 << 2).unwrap();
        let choices = [
            Rss::usual(Arc::clone(&usual), 4),
            Rss::chosen(Arc::clone(&own), RssTypes::ALL, [0; RETA_SIZE], &usual),
            Rss::chosen(Arc::clone(&usual), addresses, [0; RETA_SIZE], &usual),
            Rss::chosen(Arc::clone(&usual), RssTypes::ALL, [3; RETA_SIZE], &usual),
        ];
        let key = key("udp 10.0.0.1:1000 > 224.0.0.5:2000");
        let of = |toeplitz: &Toeplitz, types| key.rss(toeplitz, types);
        let expected =
            [of(&usual, RssTypes::ALL), of(&own, RssTypes::ALL), of(&usual, addresses), of(&usual, RssTypes::ALL)];
        assert_ne!(expected[0], expected[1]);
        assert_ne!(expected[0], expected[2]);
        let table = RssTable::new(Arc::new(choices[0].clone()), (1..).zip(choices.map(Arc::new)));
        let usual = table.hash(&key, Verdict::Group);
        assert_eq!(usual, expected[0]);
        for (id, expected) in (1..).zip(expected) {
            assert_eq!(table.hash(&key, Verdict::App(id)), expected, "port {id}");
            let notes = table.of(id).steer_copy(&key, Notes::new(0x211, usual)).unwrap();
            assert_eq!(notes, Notes::new(0x211, expected), "port {id}");
        }
        assert_eq!(table.hash(&key, Verdict::Wire), 0);
        for stranger in [0, 5, 9, u16::MAX] {
            assert_eq!((table.hash(&key, Verdict::App(stranger)), table.of(stranger).queue(77)), (0, 0));
        }
    }
}

//! How frames are spread over the RX queues of a port: what the application has chosen of it.

use crate::limits::RSS_TYPES;
use crate::port_state::Rings;
use kopi_ring::message::{RETA_SIZE, RSS_KEY_SIZE, Rss};

/// A key of the hash.
pub(crate) type RssKey = [u8; RSS_KEY_SIZE];
/// The RX queue for each value of the hash's low bits.
pub(crate) type Reta = [u8; RETA_SIZE];

/// What an application has chosen. What it has not is as the daemon has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RssChoice {
    /// The key; `None` for the daemon's.
    pub(crate) key: Option<RssKey>,
    /// What is hashed, as `RTE_ETH_RSS_*`.
    pub(crate) types: u64,
    /// The queues; `None` for all of them in turn.
    pub(crate) reta: Option<Reta>,
}

impl Default for RssChoice {
    fn default() -> Self {
        Self { key: None, types: RSS_TYPES, reta: None }
    }
}

impl RssChoice {
    /// The queues of the table, where there are `queues` of them.
    pub(crate) fn reta(&self, queues: u16) -> Reta {
        self.reta.unwrap_or_else(|| in_turn(queues))
    }

    /// The choice as the daemon wants it, for these rings. `usual` is the daemon's key.
    pub(crate) fn message(&self, rings: &Rings, usual: RssKey) -> Rss {
        let queues = u16::try_from(rings.rx.len()).unwrap_or(1);
        let reta = self.reta(queues);
        // What nobody asks for is not computed.
        let types = if rings.hashed || reta.iter().any(|queue| Some(queue) != reta.first()) { self.types } else { 0 };
        Rss { key: self.key.unwrap_or(usual), types, table: reta }
    }
}

/// A table in which all queues take turns.
fn in_turn(queues: u16) -> Reta {
    let mut reta = [0; RETA_SIZE];
    for (entry, queue) in reta.iter_mut().zip((0..u8::try_from(queues).unwrap_or(1).max(1)).cycle()) {
        *entry = queue;
    }
    reta
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(queues: usize, hashed: bool) -> Rings {
        Rings { generation: 1, tx: vec![64], rx: vec![64; queues], sleeps: false, hashed }
    }

    /// An application that has chosen nothing has what the daemon has for it, and where nobody asks for a hash there is none.
    #[test]
    fn what_is_not_chosen_is_usual() {
        let usual = [7; RSS_KEY_SIZE];
        for queues in 1..=16 {
            let sent = RssChoice::default().message(&rings(queues, false), usual);
            assert_eq!((sent.key, sent.types), (usual, if queues > 1 { RSS_TYPES } else { 0 }));
            assert!(sent.table.iter().enumerate().all(|(at, queue)| usize::from(*queue) == at % queues));
            assert_eq!(RssChoice::default().message(&rings(queues, true), usual).types, RSS_TYPES);
        }
        let own = RssChoice { key: Some([1; RSS_KEY_SIZE]), types: 4, reta: Some([2; RETA_SIZE]) };
        let expected = Rss { key: [1; RSS_KEY_SIZE], types: 4, table: [2; RETA_SIZE] };
        assert_eq!(own.message(&rings(4, true), usual), expected);
        assert_eq!(own.message(&rings(4, false), usual), Rss { types: 0, ..expected });
    }
}

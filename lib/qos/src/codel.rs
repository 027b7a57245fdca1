//! CoDel: drops from a queue whose packets wait too long, all the time.

/// Settings of CoDel, in ticks and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodelConfig {
    /// How long a packet may wait.
    pub target: u64,
    /// For how long packets may wait longer than that, before the first one is dropped: about the longest round trip.
    pub interval: u64,
    /// A queue with no more bytes than this is left alone: one full frame.
    pub mtu: u32,
}

impl CodelConfig {
    /// 5 and 100 milliseconds, for a clock of `hz` ticks in a second.
    ///
    /// # Source
    ///
    /// RFC 8289, 4.3 and 4.4 for the values, 4.2 for the last frame.
    #[must_use]
    pub const fn new(hz: u64, mtu: u32) -> Self {
        Self { target: hz / 200, interval: hz / 10, mtu }
    }
}

/// The state of CoDel for one queue.
///
/// Each packet that comes out of the queue is asked about, the oldest first, until one may go. All that CoDel knows of a
/// packet is how long it has waited: while the waits stay above the target for an interval, it drops one packet, and the next ones at
/// intervals that shrink with the square root of their number, until one did not wait.
///
/// # Source
///
/// RFC 8289, 5. The time to the next drop is `interval / sqrt(count)` as in its 5.2, as `sqrt(interval² / count)` in whole
/// ticks, rounded down: it is worked out only for drops, so there is no need of the approximation by Newton's method in
/// its 5.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codel {
    /// When the waits will have been above the target for an interval; 0 if the last one was not.
    first_above: u64,
    /// When the next packet is to be dropped, while `dropping`.
    drop_next: u64,
    /// Drops since this state was entered, or, if it was left not long ago, so many as lead to the same pace.
    count: u32,
    /// `count` when this state was entered.
    last_count: u32,
    dropping: bool,
    /// The packet before this one was dropped in the same turn.
    dropped: bool,
}

/// A state that was left less than so many intervals ago is taken up where it ended.
const MEMORY: u64 = 16;

impl Codel {
    /// Whether the packet that has just been taken out is to be dropped. Then the next one is taken out and asked about.
    ///
    /// It has waited for `sojourn` ticks, and `backlog` bytes are behind it.
    #[inline]
    pub fn should_drop(&mut self, config: &CodelConfig, (sojourn, backlog): (u64, u64), now: u64) -> bool {
        let late = self.is_late(config, sojourn, backlog, now);
        let drop = match (self.dropping, late) {
            (true, false) => {
                self.dropping = false;
                false
            }
            (true, true) => {
                if self.dropped {
                    self.drop_next = self.drop_next.saturating_add(pause(config.interval, self.count));
                }
                now >= self.drop_next
            }
            (false, true) => return self.enter(config, now),
            (false, false) => false,
        };
        self.dropped = drop;
        self.count = self.count.saturating_add(drop.into());
        drop
    }

    /// There is no packet: the queue is empty.
    #[inline]
    pub const fn idle(&mut self) {
        self.first_above = 0;
        self.dropping = false;
        self.dropped = false;
    }

    /// Whether packets have waited too long for an interval, this one too.
    fn is_late(&mut self, config: &CodelConfig, sojourn: u64, backlog: u64, now: u64) -> bool {
        if sojourn < config.target || backlog <= config.mtu.into() {
            self.first_above = 0;
        } else if self.first_above == 0 {
            // Zero means something else.
            self.first_above = now.saturating_add(config.interval).max(1);
        } else {
            return now >= self.first_above;
        }
        false
    }

    /// Begins to drop, with this packet.
    fn enter(&mut self, config: &CodelConfig, now: u64) -> bool {
        let delta = self.count.saturating_sub(self.last_count);
        let recent = now.saturating_sub(self.drop_next) < config.interval.saturating_mul(MEMORY);
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = now.saturating_add(pause(config.interval, self.count));
        self.dropping = true;
        // The next one is let go, and has its time already.
        self.dropped = false;
        true
    }
}

/// `interval / sqrt(count)`, rounded down, at least a tick.
fn pause(interval: u64, count: u32) -> u64 {
    let square = u128::from(interval) * u128::from(interval) / u128::from(count.max(1));
    let root = match u64::try_from(square) {
        Ok(square) => square.isqrt(),
        Err(_) => u64::try_from(square.isqrt()).unwrap_or(interval),
    };
    root.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const HZ: u64 = 1_000_000_000;

    /// A packet in a queue: when it came, and its length.
    type Packet = (u64, u64);

    /// The pseudocode of RFC 8289, 5.2 to 5.6, in numbers with a point.
    #[derive(Default)]
    struct Model {
        queue: VecDeque<Packet>,
        first_above: f64,
        drop_next: f64,
        count: i64,
        last_count: i64,
        dropping: bool,
    }

    #[expect(clippy::cast_precision_loss, reason = "a model in f64")]
    const fn float(number: u64) -> f64 {
        number as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "a model in f64")]
    fn law(config: &CodelConfig, time: f64, count: i64) -> f64 {
        time + float(config.interval) / (count as f64).sqrt()
    }

    impl Model {
        fn take(&mut self, config: &CodelConfig, now: f64) -> (Option<Packet>, bool) {
            let Some(packet) = self.queue.pop_front() else {
                self.first_above = 0.0;
                return (None, false);
            };
            let bytes: u64 = self.queue.iter().map(|packet| packet.1).sum();
            let mut late = false;
            if now - float(packet.0) < float(config.target) || bytes <= config.mtu.into() {
                self.first_above = 0.0;
            } else if self.first_above == 0.0 {
                self.first_above = now + float(config.interval);
            } else if now >= self.first_above {
                late = true;
            }
            (Some(packet), late)
        }

        /// The packet that goes, and how many were dropped before it.
        fn dequeue(&mut self, config: &CodelConfig, time: u64) -> (Option<Packet>, u32) {
            let now = float(time);
            let (mut packet, mut late) = self.take(config, now);
            let mut drops = 0;
            if packet.is_none() {
                self.dropping = false;
                return (None, 0);
            }
            if self.dropping {
                if !late {
                    self.dropping = false;
                }
                while now >= self.drop_next && self.dropping {
                    drops += 1;
                    self.count += 1;
                    (packet, late) = self.take(config, now);
                    if late {
                        self.drop_next = law(config, self.drop_next, self.count);
                    } else {
                        self.dropping = false;
                    }
                }
            } else if late {
                drops += 1;
                (packet, _) = self.take(config, now);
                self.dropping = true;
                let delta = self.count - self.last_count;
                self.count = 1;
                if delta > 1 && now - self.drop_next < 16.0 * float(config.interval) {
                    self.count = delta;
                }
                self.drop_next = law(config, now, self.count);
                self.last_count = self.count;
            }
            (packet, drops)
        }
    }

    fn dequeue(
        codel: &mut Codel,
        queue: &mut VecDeque<Packet>,
        config: &CodelConfig,
        now: u64,
    ) -> (Option<Packet>, u32) {
        let mut drops = 0;
        while let Some(packet) = queue.pop_front() {
            let backlog = queue.iter().map(|packet| packet.1).sum();
            if !codel.should_drop(config, (now - packet.0, backlog), now) {
                return (Some(packet), drops);
            }
            drops += 1;
        }
        codel.idle();
        (None, drops)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Over overload, recovery and pauses it drops as the pseudocode of the RFC does, to a packet or so: the times between
        /// drops are whole ticks here.
        #[test]
        fn drops_as_the_pseudocode_does(phases in prop::collection::vec((1..40_u64, 1..40_u64, 1..2_000_u64), 1..8)) {
            let config = CodelConfig::new(HZ, 1514);
            let (mut codel, mut queue, mut model) = (Codel::default(), VecDeque::new(), Model::default());
            let (mut now, mut in_credit, mut out_credit) = (1, 0, 0);
            let (mut drops, mut model_drops) = (0_u32, 0_u32);
            for (input, output, rounds) in phases {
                for _ in 0..rounds {
                    now += 1_000_003;
                    in_credit += input;
                    while in_credit >= 10 {
                        in_credit -= 10;
                        if queue.len() < 1000 {
                            queue.push_back((now, 1000));
                        }
                        if model.queue.len() < 1000 {
                            model.queue.push_back((now, 1000));
                        }
                    }
                    out_credit = (out_credit + output).min(10);
                    if out_credit >= 10 {
                        out_credit -= 10;
                        drops += dequeue(&mut codel, &mut queue, &config, now).1;
                        model_drops += model.dequeue(&config, now).1;
                        prop_assert!(drops.abs_diff(model_drops) <= 1 + model_drops / 200, "{} and {} at {}", drops, model_drops, now);
                    }
                }
            }
            prop_assert!(drops.abs_diff(model_drops) <= 1 + model_drops / 200);
        }

        /// The pause is the root that it should be, to the tick.
        #[test]
        fn pauses_are_exact(interval in 1..1_u64 << 40, count in 1..1_000_000_u32) {
            let pause = u128::from(pause(interval, count));
            let square = u128::from(interval) * u128::from(interval);
            prop_assert!(pause == 1 || pause * pause * u128::from(count) <= square);
            prop_assert!((pause + 1) * (pause + 1) * u128::from(count) > square);
        }
    }

    /// A queue that never waits for the target, or waits longer for less than an interval, loses nothing.
    #[test]
    fn a_good_queue_loses_nothing() {
        let config = CodelConfig::new(HZ, 1514);
        let mut codel = Codel::default();
        for step in 0..100_000_u64 {
            // 95 ms above, 5 ms below.
            let sojourn = if step % 100 < 95 { 50_000_000 } else { 4_000_000 };
            assert!(!codel.should_drop(&config, (sojourn, 100_000), step * 1_000_000), "{step}");
        }
    }

    /// One frame that waits long behind nothing is let go, however slow the wire is.
    #[test]
    fn the_last_frame_is_let_go() {
        let config = CodelConfig::new(HZ, 1514);
        let mut codel = Codel::default();
        for step in 1..1000 {
            assert!(!codel.should_drop(&config, (HZ, 1514), step * HZ));
        }
    }
}

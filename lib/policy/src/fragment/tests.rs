//! Verdicts on fragments, alone and against a model of who has to make room.

use super::*;
use kopi_packet::parse;
use proptest::prelude::*;

fn table(capacity: usize) -> Fragments<u32> {
    Fragments::new(capacity, Seed::from_bytes([0x5a; 64]), 1000)
}

/// An app of a user.
fn holder(zone: u16, account: u16, life: u16) -> Holder {
    Holder::new(zone, u64::from(account) << 48 | u64::from(life) << 32)
}

/// A fragment of a UDP packet from 10.0.0.`n`, the first one or a later one.
fn key(n: u8, id: u32, first: bool) -> FragmentKey {
    key_of(holder(3, 2, 1), n, id, first)
}

fn key_of(holder: Holder, n: u8, id: u32, first: bool) -> FragmentKey {
    let mut frame = [0; 60];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, if first { 0x20 } else { 1 }, 0, 64, 17]);
    frame[26..34].copy_from_slice(&[10, 0, 0, n, 10, 0, 0, 100]);
    FragmentKey::of(holder, Direction::Ingress, &parse(&frame, 1).1, id).unwrap()
}

#[test]
fn later_fragments_find_the_verdict_of_the_first() {
    let mut table = table(64);
    table.remember(&key(1, 7, true), holder(3, 2, 1), 42, 1000);
    assert_eq!(table.recall(&key(1, 7, false), 1001), Some(42));
    assert_eq!(table.recall(&key(1, 8, false), 1001), None, "another packet");
    assert_eq!(table.recall(&key(2, 7, false), 1001), None, "another sender");
    assert_eq!(table.recall(&key(1, 7, false), 30_999), Some(42));
    assert_eq!(table.recall(&key(1, 7, false), 31_000), None, "too late");
    table.remember(&key(1, 7, true), holder(3, 2, 1), 43, 40_000);
    assert_eq!(table.recall(&key(1, 7, false), 40_000), Some(43), "the identification was used again");
    table.clear();
    assert_eq!(table.recall(&key(1, 7, false), 40_000), None);
}

#[test]
fn the_oldest_verdict_of_a_full_table_makes_room() {
    let mut table = table(4);
    for id in 0..5 {
        table.remember(&key(1, id, true), holder(3, 2, 1), id, 10 + u64::from(id));
    }
    let left: Vec<_> = (0..5).map(|id| table.recall(&key(1, id, false), 20)).collect();
    assert_eq!(left, [None, Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn zones_lives_directions_and_families_are_apart() {
    let (_, v4) = parse(&[&[0; 12][..], &[8, 0, 0x45, 0, 0, 20], &[0; 16]].concat(), 1);
    let (_, v6) = parse(&[&[0; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64], &[0; 32]].concat(), 1);
    let of = |zone, life, direction, key: &FlowKey| FragmentKey::of(holder(zone, 2, life), direction, key, 5).unwrap();
    let all = [
        of(1, 1, Direction::Egress, &v4),
        of(1, 2, Direction::Egress, &v4),
        of(2, 1, Direction::Egress, &v4),
        of(1, 1, Direction::Ingress, &v4),
        of(1, 1, Direction::Egress, &v6),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|b| a != b), "{i}");
    }
}

/// A flood of one user, by any number of its applications, takes nothing from another: not even what is as old as its
/// packets' fragments may be late.
#[test]
fn a_flood_takes_nothing_from_who_has_less() {
    let mut table = table(4096);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let honest = holder(9, 2, 1);
    for id in 0..100_u32 {
        let now = u64::from(id) * 30;
        table.remember(&key_of(honest, 1, id, true), honest, id, now);
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [zone, n, a, b, c, d, ..] = random.to_be_bytes();
            let flood = holder(u16::from(zone % 8), 1, 1);
            table.remember(&key_of(flood, n, u32::from_be_bytes([a, b, c, d]), true), flood, 0, now);
        }
        assert_eq!(table.recall(&key_of(honest, 1, id, false), now + 30), Some(id), "30 ms later");
    }
    let left = (0..100).filter(|id| table.recall(&key_of(honest, 1, *id, false), 3000) == Some(*id)).count();
    assert_eq!((left, table.followed().in_zone(9)), (100, 100));
    assert_eq!((0..10).map(|zone| table.followed().in_zone(zone)).sum::<u16>(), 4096, "and the flood has all the rest");
}

/// What an application that has gone has had is free at once, whoever needs it, and its number begins anew.
#[test]
fn who_has_gone_makes_room_first() {
    let mut table = table(64);
    let (gone, other, next) = (holder(1, 1, 1), holder(2, 2, 1), holder(1, 3, 2));
    (0..32).for_each(|id| table.remember(&key_of(gone, 1, id, true), gone, id, 0));
    (0..32).for_each(|id| table.remember(&key_of(other, 1, id, true), other, id, 0));
    table.forget_gone(|holder| holder != gone);
    assert_eq!(table.followed().in_zone(1), 0);
    (0..32).for_each(|id| table.remember(&key_of(next, 1, id, true), next, 100 + id, 1));
    let all = |table: &Fragments<u32>, of, add| {
        (0..32).all(|id| table.recall(&key_of(of, 1, id, false), 2) == Some(add + id))
    };
    assert!(all(&table, other, 0) && all(&table, next, 100));
    assert!((0..32).all(|id| table.recall(&key_of(gone, 1, id, false), 2).is_none()));
    table.remember(&key_of(other, 2, 0, true), other, 7, 3);
    assert_eq!(
        (table.followed().in_zone(1), table.followed().in_zone(2)),
        (32, 32),
        "equals do not take from each other"
    );
}

/// What the model knows of a table: who has what, the oldest first.
type Model = Vec<(FragmentKey, Holder, u32)>;

/// The one that the model gives up for `holder`.
fn given_up(model: &Model, holder: Holder) -> usize {
    let of_user = |account| model.iter().filter(|(_, of, _)| of.account() == account).count();
    let of_app = |zone| model.iter().filter(|(_, of, _)| of.zone() == zone).count();
    let most = model.iter().map(|(_, of, _)| of_user(of.account())).max().unwrap();
    let users = model.iter().map(|(_, of, _)| of.account()).filter(|account| of_user(*account) == most);
    let user = if of_user(holder.account()) == most { holder.account() } else { users.max().unwrap() };
    let apps = || model.iter().map(|(_, of, _)| *of).filter(|of| of.account() == user).map(Holder::zone);
    let most = apps().map(of_app).max().unwrap();
    let own = user == holder.account() && of_app(holder.zone()) == most;
    let zone = if own { holder.zone() } else { apps().filter(|zone| of_app(*zone) == most).max().unwrap() };
    model.iter().position(|(_, of, _)| of.zone() == zone).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a list, in a table that is much too small: the user who has most makes room, its application that has most,
    /// its oldest; who has gone has nothing; all is found that is there, and nothing else.
    #[test]
    fn who_has_most_makes_room(steps in prop::collection::vec((0_u16..6, 0_u32..40, 0_u8..20), 1..300)) {
        const HOOK: u16 = 7;
        let mut table = table(16);
        let mut model = Model::new();
        let mut left: Vec<FragmentKey> = Vec::new();
        let mut lives = [1_u16; 6];
        let hook = holder(HOOK, 9, 1);
        for (value, (zone, id, what)) in (0_u32..).zip(steps) {
            let at = usize::from(zone);
            match what {
                0 => {
                    lives[at] += 1;
                    table.forget_gone(|holder| holder.zone() != zone);
                    let gone = model.extract_if(.., |(_, of, _)| of.zone() == zone);
                    left.extend(gone.map(|(key, ..)| key));
                }
                1 if id == 0 => {
                    table.clear();
                    model.clear();
                    left.clear();
                }
                _ => {
                    let holder = holder(zone, zone / 2, lives[at]);
                    // Several have a part in the same packets, as the senders of one receiver.
                    let key = key_of(hook, 1, id, true);
                    table.remember(&key, holder, value, 0);
                    if let Some(known) = model.iter().position(|(other, ..)| *other == key) {
                        model.remove(known);
                    } else if left.contains(&key) {
                        left.retain(|other| *other != key);
                    } else if model.len() + left.len() == table.capacity() && !left.is_empty() {
                        left.remove(0);
                    } else if model.len() == table.capacity() {
                        model.remove(given_up(&model, holder));
                    }
                    model.push((key, holder, value));
                }
            }
            for zone in 0..6 {
                let count = model.iter().filter(|(_, of, _)| of.zone() == zone).count();
                prop_assert_eq!(usize::from(table.followed().in_zone(zone)), count);
            }
            for id in 0..40 {
                let key = key_of(hook, 1, id, false);
                let known = model.iter().find(|(other, ..)| *other == key).map(|(.., value)| *value);
                let found = table.recall(&key, 1);
                // What was left by who has gone may be found as long as nobody needs its place.
                prop_assert!(found == known || known.is_none() && left.contains(&key), "{:?} {:?}", found, known);
            }
        }
    }
}

//! Design decision 8: what came in equals what went out plus the drops, each with a reason.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::Region;
use kopi_ring::layout::Notes;
use kopi_ring::message::Mac;
use kopi_testkit::evil::{Client, Random, small};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Settings, TempDir, wait_until};
use serde_json::Value;

const MACS: [Mac; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

/// The sides of the equation, from `kopictl --json stats` and `drops`.
#[derive(Debug, PartialEq, Eq)]
struct Books {
    /// Frames that came in, and those that were made by copying.
    debit: u64,
    /// Frames that went out, and those that were dropped.
    credit: u64,
}

impl Books {
    fn read(kopid: &Kopid) -> Self {
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap_or_else(|| panic!("no {key} in {row}"));
        let (mut debit, mut credit) = (0, 0);
        for row in answer(kopid, "stats") {
            // TX and RX are named from the app's side; on the wire they are the NIC's own.
            let (into, out) = if row["port"] == "wire" { ("rx", "tx") } else { ("tx", "rx") };
            debit += number(&row, &format!("{into}_packets")) + number(&row, "copies");
            credit += number(&row, &format!("{out}_packets"));
        }
        for row in answer(kopid, "drops") {
            assert!(row["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{row}");
            // What the device lost, no worker has seen.
            if row["stage"] != "device" {
                credit += number(&row, "packets");
            }
        }
        Self { debit, credit }
    }
}

/// What the administrator sees, by way of the real kopictl.
fn answer(kopid: &Kopid, command: &str) -> Vec<Value> {
    let output = kopid.kopictl(&["--json", command]);
    assert!(output.status.success(), "kopictl {command}: {}", String::from_utf8_lossy(&output.stderr));
    let reply: Value = serde_json::from_slice(&output.stdout).expect("kopictl prints JSON");
    reply[command].as_array().expect("an array named after the command").clone()
}

/// Puts `frames` frames into the app's ring, of every kind that a switch can meet.
fn send(region: &Region, me: usize, random: &mut Random, frames: u32) {
    let mut producer = region.tx_producer(0).expect("a ring");
    let mut bytes = [0; 3000];
    let mut sent = 0;
    wait_until("kopid takes all frames", SOON, || {
        while sent < frames && producer.free(2).is_ok_and(|free| free >= 2) {
            random.fill(&mut bytes);
            bytes[6..12].copy_from_slice(&MACS[me]);
            let kind = random.below(10);
            let other = MACS[(me + 1) % 3];
            let to: Mac = match kind {
                0 => [0xff; 6],
                1 => [0x33, 0x33, 0, 0, 0, 1],
                2 | 3 => Netns::MAC,
                4 => MACS[me],
                _ => other,
            };
            bytes[..6].copy_from_slice(&to);
            let length = match kind {
                8 => 1 + random.below(13),
                9 => 1523 + random.below(1400),
                _ => 60 + random.below(1400),
            };
            let length = usize::try_from(length).expect("small");
            assert!(producer.push(&bytes[..length], Notes::NONE));
            sent += 1;
        }
        producer.publish();
        sent == frames
    });
    wait_until("kopid has taken the last one", SOON, || producer.free(512) == Ok(512));
}

fn balance(workers: usize) {
    let dir = TempDir::new("books");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), workers));
    // The apps read nothing, so that their rings overflow, too.
    let apps: Vec<(Client, Region)> =
        (1..).zip(MACS).map(|(n, mac)| Client::attach(&kopid.socket(), &format!("app-{n}"), mac, &small())).collect();
    let peer = Peer::new(&netns);
    let mut random = Random::new(8);
    for round in 0..4 {
        for (me, (_, region)) in apps.iter().enumerate().filter(|(me, _)| *me == round % 3) {
            // Each end of a ring is made once: every app has its turn in one round, and the wire in all.
            if round < 3 {
                send(region, me, &mut random, 5000);
            }
        }
        let mut frame = [0; 200];
        for n in 0..2000 {
            random.fill(&mut frame);
            let to: Mac = [MACS[n % 3], [2, 9, 9, 9, 9, 9], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]][n % 4];
            frame[..6].copy_from_slice(&to);
            frame[6..12].copy_from_slice(&Netns::MAC);
            peer.transmit(&frame);
        }
        wait_until("the books balance", SOON, || {
            let books = Books::read(&kopid);
            books.debit == books.credit
        });
    }
    let books = Books::read(&kopid);
    assert!(books.debit > 15_000, "{books:?}");
    for reason in ["runt", "oversize", "unknown_unicast", "rx_ring_full", "same_port"] {
        assert!(kopid.drops(reason) > 0, "no frame was dropped for {reason}");
    }
    drop(apps);
    assert!(kopid.stop().success());
}

/// With one worker.
#[test]
fn frames_in_equal_frames_out_plus_drops() {
    balance(1);
}

/// With two workers, which hand frames to each other.
#[test]
fn frames_in_equal_frames_out_plus_drops_over_two_workers() {
    balance(2);
}

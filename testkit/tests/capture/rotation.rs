//! Files that follow each other.

use crate::faults::flood;
use crate::scene::Scene;
use kopi_testkit::recording::Sums;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Recording, frames, wait_until};
use std::fs;
use std::time::{Duration, Instant};

/// Names of files that begin so, in their order.
fn files(scene: &Scene, begin: &str) -> Vec<String> {
    let entries = fs::read_dir(scene.dir.path()).expect("the folder is there").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(begin)).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

fn load(scene: &Scene, names: &[String]) -> Vec<Recording> {
    names.iter().map(|name| Recording::load(&scene.path(name))).collect()
}

/// Numbers of all frames, file after file.
fn numbers(recordings: &[Recording]) -> Vec<u16> {
    recordings
        .iter()
        .flat_map(|recording| &recording.packets)
        .filter_map(|packet| frames::id_of(&packet.data))
        .collect()
}

/// What all files together have counted.
fn sums(recordings: &[Recording]) -> Sums {
    let sum = |of: fn(Sums) -> u64| recordings.iter().map(|recording| of(recording.sums())).sum();
    Sums { captured: sum(|sums| sums.captured), received: sum(|sums| sums.received), dropped: sum(|sums| sums.dropped) }
}

/// With -C each file is whole by itself, has about the size that was asked for, and together they have every packet once.
/// With -W only the last ones are left.
#[test]
fn files_follow_each_other_by_size() {
    let mut scene = Scene::new("by-size", "");
    let mut endless = scene.capture("endless", "-C 100k");
    let mut ring = scene.capture("ring", "-C 100KiB -W 3");
    for from in (0..600).step_by(20) {
        flood(&scene, from, 20);
        // Until kopictl has opened the next file, what comes goes into the old one.
        std::thread::sleep(Duration::from_millis(10));
    }
    let (endless, ring) = (endless.stop(), ring.stop());
    let names = files(&scene, "endless");
    assert_eq!(names[..3], ["endless", "endless1", "endless2"]);
    let recordings = load(&scene, &names);
    assert_eq!(numbers(&recordings), (0..600).collect::<Vec<_>>());
    assert_eq!(sums(&recordings), endless);
    for name in &names[..names.len() - 1] {
        let size = scene.path(name).metadata().expect("it is there").len();
        assert!((100 << 10..300 << 10).contains(&size), "{name} has {size} bytes");
    }
    let names = files(&scene, "ring");
    assert_eq!(names, ["ring0", "ring1", "ring2"]);
    let mut left = load(&scene, &names);
    left.sort_by_key(|recording| recording.packets.first().map(|packet| packet.timestamp_ns));
    let numbers = numbers(&left);
    let first = numbers[0];
    assert_eq!(numbers, (first..600).collect::<Vec<_>>());
    assert!(first > 200 && ring.captured == 600, "{first} {ring:?}");
    assert!(scene.kopid.stop().success());
}

/// With -G there is a file for each period; nothing is lost or doubled between them, and -W ends it.
#[test]
fn files_follow_each_other_by_time() {
    let mut scene = Scene::new("by-time", "");
    let mut timed = scene.capture("timed", "-G 1 -W 2");
    let mut stamped = scene.capture("stamped-%H%M%S", "-G 1");
    let begun = Instant::now();
    let mut next = 0;
    wait_until("two seconds are over", SOON, || {
        flood(&scene, next, 10);
        next += 10;
        std::thread::sleep(Duration::from_millis(20));
        timed.process().ended().is_some()
    });
    assert!((1800..6000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let (timed, stamped) = (timed.finish(), stamped.stop());
    let names = files(&scene, "timed");
    assert_eq!(names, ["timed0", "timed1"]);
    let recordings = load(&scene, &names);
    let seen = numbers(&recordings);
    assert_eq!(seen, (0..).take(seen.len()).collect::<Vec<u16>>());
    assert_eq!(sums(&recordings), timed);
    assert!(recordings.iter().all(|recording| recording.packets.len() > 10), "{} packets", seen.len());
    let names = files(&scene, "stamped-");
    assert!(names.len() >= 2 && names.iter().all(|name| name.len() == "stamped-".len() + 6), "{names:?}");
    let recordings = load(&scene, &names);
    assert_eq!(numbers(&recordings), (0..next).collect::<Vec<_>>());
    assert_eq!(sums(&recordings), stamped);
    assert!(scene.kopid.stop().success());
}

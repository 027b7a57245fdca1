//! Applications that share memory with kopid: who does, what becomes of it, and what can go wrong with it.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::{HEAD, WindowLayout};
use kopi_ring::message::{Mac, Message, Segment, Span};
use kopi_ring::{Producer, Region};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Memory, Netns, Peer, Settings, TempDir, Testpmd, machine, wait_until};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const A_MAC: Mac = [2, 0, 0, 0, 0, 0xa];
const B_MAC: Mac = [2, 0, 0, 0, 0, 0xb];
/// Pages of a window made by hand, and of the memory in it.
const PAGES: u64 = 64;
const PAGE: u64 = 4096;

/// The settings of a kopid that lets apps share memory.
fn sharing() -> Settings {
    Settings { share_memory: true, ..Settings::default() }
}

/// KiB that kopid has mapped of others' memory, the page of each piece that keeps its file included: nothing else of its is
/// shared and cannot be written.
fn mapped(kopid: &mut Kopid) -> u64 {
    let pid = kopid.process().pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("kopid lives");
    let length = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        (rest.starts_with("r--s") || rest.starts_with("---s")).then_some(number(end)? - number(start)?)
    };
    maps.lines().filter_map(length).sum::<u64>() >> 10
}

/// What a testpmd has sent by reference, and what by a copy.
fn ways(testpmd: &mut Testpmd) -> (u64, u64) {
    let xstats = testpmd.xstats();
    let of = |name: &str| xstats.iter().find(|(key, _)| key == name).map_or(0, |(_, value)| *value);
    (of("tx_kopi_by_reference_packets"), of("tx_kopi_copied_packets"))
}

/// One of its statistics.
fn xstat(testpmd: &mut Testpmd, name: &str) -> u64 {
    testpmd.xstats().iter().find(|(key, _)| key == name).map_or(0, |(_, value)| *value)
}

/// Waits until it sends by reference.
fn await_reference(testpmd: &mut Testpmd) {
    let before = ways(testpmd).0;
    wait_until("packets are sent by reference", SOON, || ways(testpmd).0 > before + 1000);
}

fn sender(name: &str, memory: Memory) -> Options {
    Options::new(name, "txonly").memory(memory).with("--txpkts=1000")
}

/// In every memory mode of EAL's, long packets are read where they lie, the log says so, and when the application has ended, or was
/// killed while it sent, nothing of its memory is left with kopid.
#[test]
fn every_memory_mode_is_shared() {
    let dir = TempDir::new("sharing");
    let mut kopid = Kopid::start(&dir, &sharing());
    for (round, memory) in Memory::ALL.into_iter().enumerate() {
        let name = format!("mode-{round}");
        let mut testpmd = Testpmd::forwarding(&dir, &kopid, &sender(&name, memory));
        await_reference(&mut testpmd);
        assert!(testpmd.process().log().contains("is read where it lies"), "{memory:?}");
        assert!(mapped(&mut kopid) > 8 << 10, "{memory:?}");
        let seen = kopid.counter(&name, "tx_packets");
        wait_until("kopid passes them on", SOON, || kopid.counter(&name, "tx_packets") > seen + 10_000);
        if round % 2 == 0 {
            testpmd.process().signal(Signal::KILL);
            testpmd.process().wait(SOON);
        } else {
            testpmd.quit();
        }
        kopid.await_no_app(&name);
        wait_until("its memory is let go of", SOON, || mapped(&mut kopid) == 0);
    }
}

/// Memory that is not EAL's own is copied, and so are short packets, while other long ones are not.
#[test]
fn other_memory_is_copied() {
    let dir = TempDir::new("copied");
    let mut kopid = Kopid::start(&dir, &sharing());
    for kind in ["xmem", "xbuf"] {
        let options = sender(kind, Memory::InMemory).with(&format!("--mp-alloc={kind}"));
        let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options);
        wait_until("packets are sent", SOON, || ways(&mut testpmd).1 > 10_000);
        let (by_reference, _) = ways(&mut testpmd);
        // The buffers of `xbuf` are in memory that testpmd takes from EAL, but are not its packets' own.
        assert_eq!(by_reference, 0, "{kind}");
        testpmd.quit();
    }
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &Options::new("short", "txonly").with("--txpkts=128"));
    wait_until("its memory is shared", SOON, || mapped(&mut kopid) > 0);
    let before = ways(&mut testpmd).1;
    wait_until("packets are sent", SOON, || ways(&mut testpmd).1 > before + 10_000);
    assert_eq!(ways(&mut testpmd).0, 0);
    testpmd.quit();
}

/// The administrator's no holds: for all, for one, and for one that shares already. It is copied then, and the log says why.
#[test]
fn administrator_may_refuse() {
    let dir = TempDir::new("refusal");
    let app = "[[app]]\nname = \"keeps\"\nshare_memory = false\n[[app]]\nname = \"shares\"\n";
    let mut kopid = Kopid::start(&dir, &sharing().policy(app));
    let mut keeps = Testpmd::forwarding(&dir, &kopid, &sender("keeps", Memory::NoHuge));
    wait_until("packets are copied", SOON, || ways(&mut keeps).1 > 10_000);
    assert_eq!((ways(&mut keeps).0, mapped(&mut kopid)), (0, 0));
    assert!(keeps.process().log().contains("is copied twice: kopid's configuration, policy or kernel"));
    keeps.quit();

    let mut shares = Testpmd::forwarding(&dir, &kopid, &sender("shares", Memory::NoHuge));
    await_reference(&mut shares);
    kopid.reload(&app.replace("\"shares\"", "\"shares\"\nshare_memory = false")).expect("a good policy");
    wait_until("its memory is let go of", SOON, || mapped(&mut kopid) == 0);
    let before = ways(&mut shares);
    wait_until("packets are copied", SOON, || ways(&mut shares).1 > before.1 + 10_000);
    assert_eq!(ways(&mut shares).0, before.0);
    shares.quit();
    assert!(kopid.stop().success());

    let config = dir.join("kopid.toml");
    let text = fs::read_to_string(&config).expect("it was written");
    fs::write(&config, text.replace("share_memory = true", "share_memory = false")).expect("the folder is ours");
    kopid.restart();
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &sender("shares", Memory::NoHuge));
    wait_until("packets are copied", SOON, || ways(&mut testpmd).1 > 10_000);
    assert_eq!((ways(&mut testpmd).0, mapped(&mut kopid)), (0, 0));
    testpmd.quit();
}

/// A kopid that ends, well or by a signal, leaves the application with all of its packets, and the next one is given its memory anew.
#[test]
fn restarted_daemon_is_given_the_memory_again() {
    let dir = TempDir::new("restart");
    let mut kopid = Kopid::start(&dir, &sharing());
    // Few packets: one that is lost is missed.
    let options = sender("lasting", Memory::InMemory).with("--disable-link-check");
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options);
    for round in 0..4 {
        await_reference(&mut testpmd);
        if round % 2 == 0 {
            kopid.kill();
        } else {
            assert!(kopid.stop().success());
        }
        kopid.restart();
        drop(kopid.await_app("lasting"));
    }
    await_reference(&mut testpmd);
    testpmd.tell("stop", "Accumulated forward statistics");
    testpmd.tell("port stop 0", "Done");
    let pool = testpmd.ask("dump_mempool mb_pool_0");
    let number = |key: &str| {
        let rest = pool.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
        rest.and_then(|word| word.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {key} in:\n{pool}"))
    };
    // What the forwarding core and the RX queue keep for themselves lies in caches.
    assert_eq!(number("common_pool_count=") + number("total_cache_count="), 4096, "{pool}");
    testpmd.quit();
}

/// A library that is loaded into an application. It allocates memory in huge pages and frees it, again and again; or forks.
fn library(dir: &TempDir, name: &str, body: &str) -> (String, String) {
    let (source, library) = (dir.join(&format!("{name}.c")), dir.join(&format!("{name}.so")));
    fs::write(&source, body).expect("the folder is ours");
    let (from, to) = (source.display().to_string(), library.display().to_string());
    machine::run("gcc", &["-shared", "-fPIC", "-o", &to, &from, "-lpthread"]);
    ("LD_PRELOAD".into(), to)
}

/// Memory that EAL gets and frees while the application runs is shared and let go of, as often as it likes; what is sent is not
/// disturbed.
#[test]
fn memory_comes_and_goes() {
    let dir = TempDir::new("churn");
    let mut kopid = Kopid::start(&dir, &sharing());
    let churn = "#include <pthread.h>\n#include <stddef.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
        extern void *rte_malloc(const char *, size_t, unsigned) __attribute__((weak));\n\
        extern void rte_free(void *) __attribute__((weak));\n\
        static void *work(void *unused) {\n\
            sleep(3);\n\
            for (int i = 0; i < 100; i++) {\n\
                void *p = rte_malloc(NULL, 48 << 20, 0);\n\
                if (p) memset(p, i, 48 << 20);\n\
                usleep(i < 99 ? 20000 : 2000000);\n\
                rte_free(p);\n\
                usleep(10000);\n\
            }\n\
            return unused;\n\
        }\n\
        __attribute__((constructor)) static void begin(void) {\n\
            pthread_t thread;\n\
            if (rte_malloc) pthread_create(&thread, NULL, work, NULL);\n\
        }\n";
    let library = library(&dir, "churn", churn);
    // With one file for all pages as well, where what is freed lies beside what is not.
    for memory in [Memory::InMemory, Memory::SingleFile] {
        let mut options = sender("churning", memory);
        options.env.push(library.clone());
        let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options);
        await_reference(&mut testpmd);
        let least = mapped(&mut kopid);
        wait_until("more memory is shared", SOON, || mapped(&mut kopid) >= least + (40 << 10));
        for _ in 0..20 {
            await_reference(&mut testpmd);
        }
        wait_until("what was freed is let go of", 2 * SOON, || mapped(&mut kopid) <= least);
        await_reference(&mut testpmd);
        for never in ["kopi_reconnects", "kopi_peer_faults", "tx_kopi_copy_reason"] {
            assert_eq!(xstat(&mut testpmd, never), 0, "{memory:?}: {never}");
        }
        testpmd.quit();
        kopid.await_no_app("churning");
    }
}

/// An application with more memory than its user may share attaches as ever, and sends by copies: the log says why, once, and a statistic
/// does.
#[test]
fn more_than_may_be_shared_is_copied() {
    let dir = TempDir::new("much");
    let limits = format!("memory_per_user = \"100mb\"\n{}", Settings::default().limits);
    let mut kopid = Kopid::start(&dir, &Settings { limits, ..sharing() });
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &sender("much", Memory::NoHuge));
    wait_until("packets are copied", SOON, || ways(&mut testpmd).1 > 10_000);
    assert_eq!((ways(&mut testpmd).0, mapped(&mut kopid)), (0, 0));
    assert_eq!((xstat(&mut testpmd, "tx_kopi_copy_reason"), xstat(&mut testpmd, "tx_kopi_shared_bytes")), (3, 0));
    let log = testpmd.process().log();
    assert_eq!(log.matches("is copied twice: the applications of this user would share").count(), 1, "{log}");
    assert_eq!(log.matches("copied twice").count(), 1, "{log}");
    testpmd.quit();
}

/// A kopid that cannot receive as many files as an application shares loses the connection by it, but only once: on the next one the
/// application's packets are copied.
#[test]
fn files_that_cannot_be_received_are_no_loop() {
    let dir = TempDir::new("files");
    let mut kopid = Kopid::start(&dir, &sharing());
    let pid = kopid.process().pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("kopid lives").count() as u64;
    let most = Some(open + 20);
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    rustix::process::prlimit(pid, Resource::Nofile, Rlimit { current: most, maximum: most }).expect("root may");
    // A file for each of its 96 huge pages.
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &sender("many", Memory::Legacy));
    wait_until("the connection is lost", SOON, || xstat(&mut testpmd, "kopi_reconnects") == 1);
    let before = ways(&mut testpmd).1;
    wait_until("packets are copied", SOON, || ways(&mut testpmd).1 > before + 10_000);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!((xstat(&mut testpmd, "kopi_reconnects"), xstat(&mut testpmd, "tx_kopi_copy_reason")), (1, 3));
    assert_eq!((ways(&mut testpmd).0, mapped(&mut kopid)), (0, 0));
    testpmd.quit();
}

/// A child that the application has forked off keeps what it has, but not kopid's share of it: the port goes with its owner.
#[test]
fn forked_child_keeps_nothing() {
    let dir = TempDir::new("fork");
    let mut kopid = Kopid::start(&dir, &sharing());
    let fork = "#include <pthread.h>\n#include <stddef.h>\n#include <unistd.h>\n\
        extern void *rte_malloc(const char *, size_t, unsigned) __attribute__((weak));\n\
        static void *work(void *unused) {\n\
            sleep(2);\n\
            if (fork() == 0) { sleep(12); _exit(0); }\n\
            return unused;\n\
        }\n\
        __attribute__((constructor)) static void begin(void) {\n\
            pthread_t thread;\n\
            if (rte_malloc) pthread_create(&thread, NULL, work, NULL);\n\
        }\n";
    let mut options = sender("parent", Memory::NoHuge);
    options.env.push(library(&dir, "fork", fork));
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &options);
    await_reference(&mut testpmd);
    let pid = testpmd.process().pid();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let forked = || {
        let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        !children().is_empty() || tasks.map(of).any(|children| !children.is_empty())
    };
    assert!(threads() > 1);
    wait_until("there is a child", SOON, forked);
    await_reference(&mut testpmd);
    testpmd.process().signal(Signal::KILL);
    testpmd.process().wait(SOON);
    kopid.await_no_app("parent");
    wait_until("its memory is let go of", SOON, || mapped(&mut kopid) == 0);
}

/// An app by hand that shares `PAGES` pages.
struct Hand {
    client: Client,
    memory: OwnedFd,
    /// Kept mapped, as a driver does.
    _region: Region,
    tx: Producer,
}

impl Hand {
    fn attach(kopid: &Kopid, name: &str, mac: Mac) -> Self {
        let mut client = Client::connect(&kopid.socket());
        assert!(client.hello(name, mac).shares);
        let memory = memory(PAGES);
        open(&mut client);
        assert_eq!(share(&mut client, &memory, 0, PAGES), Ok(()));
        let region = client.setup(&small());
        client.settings(mac);
        let tx = region.tx_producer(0).expect("a TX ring");
        Self { client, memory, _region: region, tx }
    }

    fn send(&mut self, head: &[u8], length: u16, at: u64) {
        wait_until("there is room", SOON, || self.tx.free(1).expect("kopid is right") > 0);
        assert!(self.tx.push_reference(head, length, at));
        self.tx.publish();
    }
}

fn memory(pages: u64) -> OwnedFd {
    let memory = rustix::fs::memfd_create("shared", MemfdFlags::CLOEXEC).expect("memory");
    for page in 0..pages {
        assert_eq!(rustix::io::pwrite(&memory, &[0x11; 4096], page * PAGE), Ok(4096));
    }
    memory
}

fn open(client: &mut Client) {
    let answer = client.ask(Message::Memory(WindowLayout::new(PAGE, PAGES * PAGE).expect("a small one")));
    assert!(matches!(answer, Ok((Message::Done, None))), "{answer:?}");
}

fn segment(at: u64, pages: u64) -> Segment {
    Segment { span: Span { at: at * PAGE, length: pages * PAGE }, offset: 0 }
}

/// Shares a file; `Err` is kopid's refusal.
fn share(client: &mut Client, file: &OwnedFd, at: u64, pages: u64) -> Result<(), String> {
    match client.ask_with(Message::Share(vec![segment(at, pages)]), &[file.as_fd()]) {
        Ok((Message::Done, None)) => Ok(()),
        Ok((Message::Refused(why), None)) => Err(why),
        other => panic!("neither done nor a refusal: {other:?}"),
    }
}

/// The head of a UDP frame from `source` to port `port` of the wire's other end.
fn head(source: Mac, port: u16, length: u16) -> Vec<u8> {
    let mut head = vec![0; usize::from(HEAD)];
    head[0..6].copy_from_slice(&Netns::MAC);
    head[6..12].copy_from_slice(&source);
    head[12..14].copy_from_slice(&[8, 0]);
    head[14] = 0x45;
    head[16..18].copy_from_slice(&(length - 14).to_be_bytes());
    (head[22], head[23]) = (64, 17);
    head[26..30].copy_from_slice(&[10, 77, 0, 9]);
    head[30..34].copy_from_slice(&[10, 77, 0, 1]);
    head[34..36].copy_from_slice(&5000_u16.to_be_bytes());
    head[36..38].copy_from_slice(&port.to_be_bytes());
    head[38..40].copy_from_slice(&(length - 34).to_be_bytes());
    head
}

/// An application that rewrites what it sends, all the time, and as what the policy denies, changes no verdict, no other application's
/// frame, and nothing in kopid: only bytes behind the head of its own frames.
#[test]
fn scribbler_changes_its_own_payload_alone() {
    const ROUNDS: u16 = 2000;
    let dir = TempDir::new("scribble");
    let netns = Netns::new(1500);
    let policy = "[[rule]]\nname = \"no\"\nmatch = { direction = \"egress\", proto = \"udp\", dst_port = 666 }\n\
        action = \"drop\"\n";
    let settings = Settings { share_memory: true, ..Settings::on_interface(netns.outside(), 1) }.policy(policy);
    let mut kopid = Kopid::start(&dir, &settings);
    let peer = Peer::new(&netns);
    let mut scribbler = Hand::attach(&kopid, "scribbler", A_MAC);
    let mut honest = Hand::attach(&kopid, "honest", B_MAC);
    let stop = AtomicBool::new(false);
    let file = scribbler.memory.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let denied = head(B_MAC, 666, 1400).repeat(11);
            let (even, odd) = (vec![0xee; 1400], denied);
            let mut turn = false;
            while !stop.load(Relaxed) {
                turn = !turn;
                let bytes = if turn { &even } else { &odd };
                assert!(rustix::io::pwrite(&file, bytes, 0).is_ok());
            }
        });
        let _stop = StopAtEnd(&stop);
        let (mut seen, mut buffer) = ([0_u64; 2], vec![0; 2048]);
        for round in 0..ROUNDS {
            scribbler.send(&head(A_MAC, 7, 1200), 1200, 0);
            scribbler.send(&head(A_MAC, 666, 1200), 1200, 0);
            honest.send(&head(B_MAC, 9, 1300), 1300, u64::from(round % 60) * PAGE + 7);
            let last = round + 1 == ROUNDS;
            let end = u64::from(ROUNDS);
            wait_until("they arrive", SOON, || {
                while let Some(frame) = peer.next(&mut buffer) {
                    match frame.get(6..12) {
                        Some(source) if source == A_MAC => {
                            assert_eq!((frame.len(), &frame[..128]), (1200, &head(A_MAC, 7, 1200)[..]));
                            seen[0] += 1;
                        }
                        Some(source) if source == B_MAC => {
                            assert_eq!((frame.len(), &frame[..128]), (1300, &head(B_MAC, 9, 1300)[..]));
                            assert!(frame[128..].iter().all(|byte| *byte == 0x11));
                            seen[1] += 1;
                        }
                        _ => {}
                    }
                }
                !last || seen == [end; 2]
            });
        }
    });
    assert_eq!(kopid.rule("no"), u64::from(ROUNDS));
    drop((scribbler, honest));
    wait_until("their memory is let go of", SOON, || mapped(&mut kopid) == 0);
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What is no reference to memory that is shared ends the connection of its sender, with a text that says so, and no other. The same goes
/// for holes in what is shared, and for files that are cut short.
#[test]
fn bad_references_end_their_sender_alone() {
    let dir = TempDir::new("bad");
    let mut kopid = Kopid::start(&dir, &sharing());
    let mut other = Hand::attach(&kopid, "other", B_MAC);
    for at in [PAGES * PAGE, PAGES * PAGE - 100, 1 << 40, (1 << 44) - 1] {
        let mut bad = Hand::attach(&kopid, "bad", A_MAC);
        bad.send(&head(A_MAC, 7, 1200), 1200, at);
        let why = bad.client.refusal();
        assert!(why.contains("which is not shared"), "{why}");
        kopid.await_no_app("bad");
    }
    for cut in [false, true] {
        let mut bad = Hand::attach(&kopid, "bad", A_MAC);
        if cut {
            rustix::fs::ftruncate(&bad.memory, 0).expect("nothing seals it");
        } else {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&bad.memory, hole, 0, PAGES * PAGE).expect("nothing seals it");
        }
        bad.send(&head(A_MAC, 7, 1200), 1200, 5 * PAGE);
        let why = bad.client.refusal();
        assert!(why.contains("punched"), "{why}");
        kopid.await_no_app("bad");
    }
    let before = kopid.counter("other", "tx_packets");
    (0..100).for_each(|_| other.send(&head(B_MAC, 7, 1200), 1200, 5 * PAGE));
    wait_until("the other goes on", SOON, || kopid.counter("other", "tx_packets") == before + 100);
    drop(other);
    wait_until("all memory is let go of", SOON, || mapped(&mut kopid) == 0);
}

/// Users who share as many pieces as there may be are refused more and keep what they have, and kopid goes on when there is a
/// hole then: two of them leave half of the mappings.
#[test]
fn nobody_takes_all_mappings() {
    let dir = TempDir::new("pieces");
    let mut kopid = Kopid::start(&dir, &sharing());
    let all = fs::read_to_string("/proc/sys/vm/max_map_count").expect("a number");
    let all = all.trim().parse::<u64>().expect("a number");
    let mut bad = Hand::attach(&kopid, "other", B_MAC);
    let memory = memory(1);
    let greedy = |name: &str| {
        let mut client = Client::connect(&kopid.socket());
        assert!(client.hello(name, [0; 6]).shares);
        let pages = 1 << 16;
        let window = WindowLayout::new(PAGE, pages * PAGE).expect("a small one");
        assert!(matches!(client.ask(Message::Memory(window)), Ok((Message::Done, None))));
        let mut shared = 0;
        for first in (0..pages).step_by(128) {
            // None beside another one, so that each takes as many mappings as it can.
            let segments: Vec<_> = (0..64).map(|n| segment(first + 2 * n, 1)).collect();
            match client.ask_with(Message::Share(segments), &[memory.as_fd(); 64]) {
                Ok((Message::Done, None)) => shared += 64,
                Ok((Message::Refused(why), None)) => {
                    assert!(why.contains("vm.max_map_count"), "{why}");
                    assert!(shared <= all / 12 && shared + 64 > all / 12, "{shared} of {all}");
                    return client;
                }
                other => panic!("neither done nor a refusal: {other:?}"),
            }
        }
        panic!("as much as it likes");
    };
    let clients = [4_243_001, 4_243_002].map(|uid| kopi_testkit::evil::as_user(uid, || greedy(&format!("u{uid}"))));
    let pid = kopid.process().pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("kopid lives").lines().count() as u64;
    // What kopid has for itself are some hundreds.
    assert!(maps > all * 2 / 5 && maps < all / 2 + 2000, "{maps} mappings");
    rustix::fs::ftruncate(&bad.memory, 0).expect("nothing seals it");
    bad.send(&head(B_MAC, 7, 1200), 1200, 5 * PAGE);
    assert!(bad.client.refusal().contains("punched"));
    drop((clients, bad));
    wait_until("all memory is let go of", SOON, || mapped(&mut kopid) == 0);
    let mut again = Hand::attach(&kopid, "again", A_MAC);
    again.send(&head(A_MAC, 7, 1200), 1200, 5 * PAGE);
}

/// Only files of memory that is all there can be shared, at places that are free, in a window that is opened in time; what is refused
/// leaves the connection as it was.
#[test]
fn only_memory_can_be_shared() {
    let dir = TempDir::new("only");
    let mut kopid = Kopid::start(&dir, &Settings { limits: "memory_per_user = \"64mb\"\n".into(), ..sharing() });
    let mut client = Client::connect(&kopid.socket());
    assert!(client.hello("hand", A_MAC).shares);
    let memory = memory(PAGES);
    assert!(share(&mut client, &memory, 0, 1).unwrap_err().contains("no window"));
    open(&mut client);
    let again = client.ask(Message::Memory(WindowLayout::new(PAGE, PAGE).expect("a small one")));
    assert!(matches!(again, Ok((Message::Refused(_), None))), "{again:?}");
    let (pipe, _end) = rustix::pipe::pipe().expect("a pipe");
    let socket = client.socket().try_clone().expect("a descriptor");
    let holes = rustix::fs::memfd_create("holes", MemfdFlags::CLOEXEC).expect("memory");
    rustix::fs::ftruncate(&holes, PAGES * PAGE).expect("a size");
    let zero = OwnedFd::from(fs::File::open("/dev/zero").expect("a device"));
    for file in [&pipe, &socket, &holes, &zero] {
        assert!(share(&mut client, file, 0, 1).is_err(), "{file:?}");
    }
    assert!(share(&mut client, &memory, PAGES, 1).is_err() && share(&mut client, &memory, 1, PAGES).is_err());
    assert_eq!(share(&mut client, &memory, 8, 8), Ok(()));
    assert!(share(&mut client, &memory, 15, 1).unwrap_err().contains("another one"));
    wait_until("it is mapped", SOON, || mapped(&mut kopid) == 32 + 4);
    let span = |at, pages| Message::Unshare(vec![Span { at: at * PAGE, length: pages * PAGE }]);
    assert!(matches!(client.ask(span(8, 4)), Ok((Message::Refused(_), None))));
    // Nor does a lie about what is let go of make room for more.
    assert!(matches!(client.ask(span(8, 16 << 8)), Ok((Message::Refused(_), None))));
    let rest = vec![Segment { span: Span { at: 16 * PAGE, length: (64 << 20) - 7 * PAGE }, offset: 0 }];
    let why = client.ask_with(Message::Share(rest), &[memory.as_fd()]);
    assert!(matches!(&why, Ok((Message::Refused(why), None)) if why.contains("memory_per_user")), "{why:?}");
    assert!(matches!(client.ask(span(8, 8)), Ok((Message::Done, None))));
    wait_until("it is let go of", SOON, || mapped(&mut kopid) == 0);
    let long = vec![Segment { span: Span { at: 0, length: 65 << 20 }, offset: 0 }];
    let why = client.ask_with(Message::Share(long), &[memory.as_fd()]);
    assert!(matches!(why, Ok((Message::Refused(why), None)) if why.contains("memory_per_user")));
    let region = client.setup(&small());
    assert!(region.tx_producer(0).is_some());
    // More files than segments belong to no message.
    let answer = client.ask_with(Message::Share(vec![segment(0, 1)]), &[memory.as_fd(), memory.as_fd()]);
    assert!(!matches!(answer, Ok((Message::Done, _))), "{answer:?}");
    kopid.await_no_app("hand");
}

//! The whole crate over DPDK's software devices. EAL starts once per process, so this is one program that runs its
//! checks in order, without the test harness, which would start threads of its own.

use std::sync::mpsc;

use dpdk::{Batch, DpdkError, Eal, Mbuf, Pool, PoolConfig, Port, PortConfig};

type Checked = Result<(), Box<dyn std::error::Error>>;

/// More than a ring of net_ring and all caches together hold.
const MBUFS: u32 = 2047;
const FRAME_MAX: u16 = 9018 + 8;

fn main() -> Checked {
    let name = format!("kopi-dpdk-test-{}", std::process::id());
    let _folder = RuntimeFolder(name.clone());
    let prefix = format!("--file-prefix={name}");
    let args = ["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
    let before = std::thread::available_parallelism()?;
    let eal = Eal::init(&args.map(str::to_owned))?;
    // EAL binds its main thread to core 0, and `init` takes that back.
    assert_eq!(std::thread::available_parallelism()?, before);
    assert!(matches!(Eal::init(&[]), Err(DpdkError::AlreadyStarted)));
    assert!(dpdk::eal::version().contains(&dpdk::eal::built_version()));
    assert!(eal.tsc_hz() > 1_000_000 && dpdk::tsc() < dpdk::tsc());

    let pool = pool(&eal, "first")?;
    pool_is_balanced(&pool)?;
    fresh_buffers_become_frames(&pool);
    mbuf_holds_a_frame(&pool);
    batch_keeps_order(&pool);
    threads_return_buffers(&eal, &pool)?;
    ring_port_loops_frames(&eal, &pool)?;
    null_port_counts(&eal, &pool)?;
    settings_are_checked(&eal, &pool)?;
    assert_eq!(Port::count(&eal), 0, "a device is left behind");
    assert_eq!(pool.available(), MBUFS, "buffers are missing");

    drop(pool);
    eal.close()?;
    Ok(())
}

/// EAL leaves the folder of its run-time files behind, even where it wrote none.
struct RuntimeFolder(String);

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        // Where an ordinary user's folder is, EAL decides by the same variable.
        let base = match std::env::var("XDG_RUNTIME_DIR") {
            Ok(base) if !std::path::Path::new("/var/run/dpdk").join(&self.0).exists() => base,
            _ => "/var/run".to_owned(),
        };
        drop(std::fs::remove_dir_all(std::path::Path::new(&base).join("dpdk").join(&self.0)));
    }
}

fn pool(eal: &Eal, name: &str) -> Result<Pool, DpdkError> {
    Pool::new(eal, PoolConfig { name, mbufs: MBUFS, cache: 64, frame_max: FRAME_MAX, socket: None })
}

/// A frame whose every byte depends on its number and its length.
fn pattern(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + number * 31 + len) % 251).expect("below 251")).collect()
}

fn frame(pool: &Pool, number: usize, len: usize) -> Mbuf {
    let mut mbuf = pool.take().expect("the pool has buffers");
    assert!(mbuf.fill(&pattern(number, len)));
    mbuf
}

/// All buffers can be taken, not one more, and all come back; a fill takes all it is asked for or none.
fn pool_is_balanced(pool: &Pool) -> Checked {
    assert_eq!((pool.available(), pool.mbufs(), pool.frame_max()), (MBUFS, MBUFS, FRAME_MAX));
    let mut all: Vec<Mbuf> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((all.len(), pool.available()), (usize::try_from(MBUFS)?, 0));
    let mut batch = Batch::new();
    assert!(!pool.fill(&mut batch, 1));

    all.truncate(all.len() - 3);
    assert!(!pool.fill(&mut batch, 4));
    assert_eq!((batch.len(), pool.available()), (0, 3));
    assert!(pool.fill(&mut batch, 3));
    assert_eq!((batch.len(), pool.available()), (3, 0));
    drop((all, batch));
    assert_eq!(pool.available(), MBUFS);

    let mut batch = Batch::new();
    assert!(!pool.fill(&mut batch, Batch::MAX + 1) && batch.is_empty());
    for _ in 0..10_000 {
        assert!(pool.fill(&mut batch, Batch::MAX) && batch.is_full());
        batch.free_all();
    }
    assert_eq!(pool.available(), MBUFS);
    Ok(())
}

/// Frames are put behind what a batch has, as long as there are fresh buffers with so much room; what is left goes back.
fn fresh_buffers_become_frames(pool: &Pool) {
    let mut batch = Batch::new();
    assert!(batch.push(frame(pool, 9, 60)).is_ok());
    let mut fresh = pool.fresh(&mut batch, 4).expect("the pool has buffers");
    assert!(fresh.frame(FRAME_MAX + 1).is_none());
    for (number, len) in [(1, 14), (2, FRAME_MAX)] {
        let bytes = pattern(number, len.into());
        fresh.frame(len).expect("there is one").copy_from_slice(&bytes);
    }
    drop(fresh);
    assert_eq!(pool.available(), MBUFS - 3);
    let all: Vec<_> = batch.iter().map(|mbuf| (mbuf.data().to_vec(), mbuf.len(), mbuf.segments())).collect();
    let expected = [(9, 60), (1, 14), (2, FRAME_MAX)].map(|(n, len)| (pattern(n, len.into()), u32::from(len), 1));
    assert_eq!(all, expected);

    let mut fresh = pool.fresh(&mut batch, Batch::MAX - 3).expect("the pool has buffers");
    while fresh.frame(0).is_some() {}
    drop(fresh);
    assert!(batch.is_full() && pool.fresh(&mut batch, 1).is_none());
    drop(batch);
    assert_eq!(pool.available(), MBUFS);
}

/// A buffer holds every length from nothing to its room, and refuses what is larger.
fn mbuf_holds_a_frame(pool: &Pool) {
    let mut mbuf = pool.take().expect("the pool has buffers");
    assert!(mbuf.is_empty() && mbuf.data().is_empty());
    assert_eq!((mbuf.room(), mbuf.segments()), (FRAME_MAX, 1));
    for len in [0, 1, 14, 60, 1518, usize::from(FRAME_MAX)] {
        let want = pattern(1, len);
        assert!(mbuf.fill(&want));
        assert_eq!((mbuf.data(), mbuf.data().len()), (&want[..], len));
        assert_eq!(usize::try_from(mbuf.len()), Ok(len));
    }
    assert!(!mbuf.fill(&pattern(1, usize::from(FRAME_MAX) + 1)));
    assert!(!mbuf.fill(&[0; 1 << 17]));
    assert_eq!(mbuf.data(), pattern(1, usize::from(FRAME_MAX)), "a refused frame leaves the old one");

    mbuf.frame_mut(64).fill(0xaa);
    mbuf.data_mut()[63] = 0xbb;
    assert_eq!((mbuf.len(), mbuf.data()[62], mbuf.data()[63]), (64, 0xaa, 0xbb));
    mbuf.linearize().expect("one segment is linear");
    for user in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        mbuf.set_user(user);
        assert_eq!((mbuf.user(), mbuf.len(), mbuf.data()[63]), (user, 64, 0xbb));
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let too_long = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mbuf.frame_mut(FRAME_MAX + 1).len()));
    std::panic::set_hook(hook);
    assert!(too_long.is_err());
}

/// A batch is a queue for `drain`, a stack for `pop`, and loses nothing.
fn batch_keeps_order(pool: &Pool) {
    let lens = |batch: &Batch| batch.iter().map(Mbuf::len).collect::<Vec<_>>();
    let mut batch = Batch::new();
    for len in 0..Batch::MAX {
        assert_eq!((batch.len(), batch.room()), (len, Batch::MAX - len));
        batch.push(frame(pool, 0, len)).expect("it is not full");
    }
    let refused = batch.push(frame(pool, 0, 99)).expect_err("it is full");
    assert_eq!(refused.len(), 99);
    drop(refused);
    assert_eq!(batch.pop().map(|mbuf| mbuf.len()), Some(31));
    batch.swap(0, 1);
    assert_eq!(lens(&batch)[..3], [1, 0, 2]);

    let mut drain = batch.drain();
    assert_eq!(drain.len(), 31);
    assert_eq!(drain.next().map(|mbuf| mbuf.len()), Some(1));
    assert_eq!(drain.by_ref().map(|mbuf| mbuf.len()).take(2).collect::<Vec<_>>(), [0, 2]);
    drop(drain);
    assert!(batch.is_empty() && batch.pop().is_none());
    assert_eq!(pool.available(), MBUFS);
}

/// Threads with and without a cache take buffers and free those of others; none is lost.
fn threads_return_buffers(eal: &Eal, pool: &Pool) -> Checked {
    let (tx, rx) = mpsc::channel::<Mbuf>();
    let threads: Vec<_> = [true, false]
        .into_iter()
        .map(|register| {
            let (handle, pool, tx) = (eal.handle(), pool.clone(), tx.clone());
            std::thread::spawn(move || {
                let _guard = register.then(|| handle.register_thread().expect("there is a place"));
                assert!(!register || handle.register_thread().is_err(), "twice");
                for number in 0..5_000 {
                    if let Some(mut mbuf) = pool.take() {
                        mbuf.set_user(number);
                        tx.send(mbuf).expect("the receiver waits for us");
                    }
                }
            })
        })
        .collect();
    drop(tx);
    let received = rx.into_iter().count();
    assert!(received > 1_000, "only {received} frames");
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")?;
    }
    assert_eq!(pool.available(), MBUFS);
    Ok(())
}

/// What is sent into a looped ring comes out in order, unchanged; a full ring leaves the rest in the batch.
fn ring_port_loops_frames(eal: &Eal, pool: &Pool) -> Checked {
    let mut port = Port::by_devargs(eal, "net_ring0")?;
    assert!(matches!(Port::by_devargs(eal, "net_ring0"), Err(DpdkError::PortTaken(_))));
    assert!(matches!(Port::by_name(eal, "net_ring0"), Err(DpdkError::PortTaken(_))));
    assert!(matches!(port.start(), Err(DpdkError::WrongState { .. })), "not configured");
    port.configure(&PortConfig { promiscuous: true, ..PortConfig::default() }, std::slice::from_ref(pool))?;
    let (mut rx, mut tx) = port.start()?;
    assert_eq!((rx.len(), tx.len()), (1, 1));
    let (mut rx, mut tx) = (rx.remove(0), tx.remove(0));
    assert!(port.start().is_err() && port.configure(&PortConfig::default(), &[]).is_err());
    assert!(matches!(port.stop(), Err(DpdkError::QueuesInUse(_))));
    assert!(port.link()?.up);

    let lens = [60, 64, 65, 1514, 9018];
    let (mut out, mut back) = (Batch::new(), Batch::new());
    let (mut sent, mut received) = (0, 0);
    while received < 10_000 {
        while !out.is_full() && sent < 10_000 {
            out.push(frame(pool, sent, lens[sent % lens.len()])).expect("it is not full");
            sent += 1;
        }
        tx.send(&mut out);
        rx.receive(&mut back);
        for mbuf in back.drain() {
            assert!(mbuf.data() == pattern(received, lens[received % lens.len()]), "frame {received} changed");
            received += 1;
        }
    }
    assert!(out.is_empty());
    ring_port_fills_up(pool, &mut tx, &mut rx);

    let stats = port.stats()?;
    assert_eq!((stats.rx_packets, stats.tx_packets), (stats.tx_packets, stats.rx_packets));
    assert!(stats.rx_packets >= 10_000);
    assert_eq!(port.xstat("rx_good_packets")?, Some(stats.rx_packets));
    assert_eq!(port.xstat("no such counter")?, None);
    drop((rx, tx));
    port.stop()?;
    let (queues, _) = port.start()?;
    // The port goes last with its queues, in any thread.
    drop(port);
    std::thread::spawn(move || drop(queues)).join().map_err(|_| "panicked")?;
    Ok(())
}

/// Sends without receiving until the ring is full, then checks that the rest is there, in order, and nothing twice.
fn ring_port_fills_up(pool: &Pool, tx: &mut dpdk::TxQueue, rx: &mut dpdk::RxQueue) {
    let (mut out, mut back) = (Batch::new(), Batch::new());
    let (mut made, mut taken) = (0_u64, 0_u64);
    // The ring of net_ring holds 1,023 frames, so a part of these stays in the batch.
    loop {
        while !out.is_full() && made < 1_040 {
            let mut mbuf = frame(pool, 0, 60);
            mbuf.set_user(made);
            made += 1;
            out.push(mbuf).expect("it is not full");
        }
        let before = out.len();
        let n = tx.send(&mut out);
        taken += u64::from(n);
        assert_eq!(out.len(), before - usize::from(n));
        assert!(out.iter().zip(taken..).all(|(mbuf, number)| mbuf.user() == number), "the rest is out of order");
        if n == 0 {
            break;
        }
    }
    assert!(!out.is_empty(), "the ring never was full");
    let mut got = 0;
    while rx.receive(&mut back) > 0 {
        for mbuf in back.drain() {
            assert_eq!(mbuf.user(), got);
            got += 1;
        }
    }
    assert_eq!(got, taken);
}

/// Received frames come from the pool; sent ones go back to it; a full batch and an empty pool receive nothing.
fn null_port_counts(eal: &Eal, pool: &Pool) -> Checked {
    let mut port = Port::by_devargs(eal, "net_null0,size=128")?;
    let info = port.info()?;
    assert_eq!((&*info.name, &*info.driver), ("net_null0", "net_null"));
    assert!(info.max_rx_queues >= 2 && info.max_mtu >= 9000);
    let config = PortConfig { rx_queues: 2, tx_queues: 2, mtu: Some(9000), rss: true, lsc: true, ..Default::default() };
    port.configure(&config, &[pool.clone(), pool.clone()])?;
    let (mut rx, mut tx) = port.start()?;
    assert_eq!((rx.len(), tx.len(), port.mtu()?), (2, 2, 9000));
    let mut batch = Batch::new();
    for (rx, tx) in rx.iter_mut().zip(&mut tx) {
        assert_eq!(rx.receive(&mut batch), 32);
        assert_eq!(rx.receive(&mut batch), 0, "no room");
        assert!(batch.iter().all(|mbuf| mbuf.len() == 128 && mbuf.data().len() == 128));
        assert_eq!((tx.send(&mut batch), batch.len()), (32, 0));
        assert_eq!(tx.send(&mut batch), 0);
    }
    assert_eq!(port.stats()?.rx_packets, 64);
    port.reset_stats()?;
    assert_eq!(port.stats()?.rx_packets, 0);

    let all: Vec<Mbuf> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(rx[0].receive(&mut batch), 0, "the pool is empty");
    drop(all);
    assert_eq!(rx[0].receive(&mut batch), 32);
    port.set_mac([2, 0, 0, 0, 0, 1])?;
    assert_eq!(port.mac()?, [2, 0, 0, 0, 0, 1]);
    Ok(())
}

/// Settings that cannot be fulfilled are refused by name, and the port can be configured again.
fn settings_are_checked(eal: &Eal, pool: &Pool) -> Checked {
    assert!(matches!(Port::by_name(eal, "net_none7"), Err(DpdkError::NoSuchPort(_))));
    assert!(matches!(Port::by_id(eal, u16::MAX), Err(DpdkError::NoSuchPort(_))));
    assert!(matches!(Port::by_devargs(eal, "net_nul\0l1"), Err(DpdkError::ZeroByte(_))));
    assert!(Port::by_devargs(eal, "no_such_driver0").is_err());
    assert!(Port::by_devargs(eal, "net_null1,no-such-key=1").is_err());

    let mut port = Port::by_devargs(eal, "net_null1")?;
    let pools = std::slice::from_ref(pool);
    let refused = [
        (PortConfig { rx_queues: 2000, ..Default::default() }, pools, "2000 receive queues"),
        (PortConfig { tx_queues: 2000, ..Default::default() }, pools, "2000 transmit queues"),
        (PortConfig { rx_queues: 2, ..Default::default() }, &[], "0 pools"),
        (PortConfig { mtu: Some(20), ..Default::default() }, pools, "mtu 20"),
        (PortConfig { mtu: Some(9100), ..Default::default() }, pools, "pool is too small"),
    ];
    for (config, pools, what) in refused {
        let error = port.configure(&config, pools).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
        assert!(port.start().is_err());
    }
    port.configure(&PortConfig::default(), pools)?;
    port.start()?;
    let twice = Pool::new(eal, PoolConfig { name: "first", mbufs: 7, cache: 0, frame_max: 64, socket: None });
    assert_eq!(twice.expect_err("the name is taken").errno(), Some(17));
    let large = PoolConfig { name: "large", mbufs: 7, cache: 0, frame_max: u16::MAX, socket: None };
    assert!(matches!(Pool::new(eal, large), Err(DpdkError::Invalid(_))));
    Ok(())
}

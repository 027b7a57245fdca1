//! Filters against libpcap itself, over frames in buffers of a pool. EAL starts once per process, so this is one program
//! that runs its checks in order.

mod frames;

use std::time::{Duration, Instant};

use dpdk::{Bpf, BpfError, Eal, Mbuf, Pool, PoolConfig};
use frames::Random;
use pcap::{Capture, Linktype};

type Checked = Result<(), Box<dyn std::error::Error>>;

const FRAMES: u32 = 4000;

fn main() -> Checked {
    let name = format!("kopi-bpf-test-{}", std::process::id());
    let prefix = format!("--file-prefix={name}");
    let args = ["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
    let args = args.map(str::to_owned);
    let _folder = RuntimeFolder(name);
    let eal = Eal::init(&args)?;
    let config = PoolConfig { name: "frames", mbufs: FRAMES, cache: 0, frame_max: 2048, socket: None };
    let pool = Pool::new(&eal, config)?;
    let mut random = Random(4);
    let mbufs: Vec<Mbuf> = std::iter::from_fn(|| pool.take())
        .map(|mut mbuf| {
            assert!(mbuf.fill(&frames::any(&mut random)));
            mbuf
        })
        .collect();
    assert_eq!(u32::try_from(mbufs.len()), Ok(FRAMES));

    filters_agree_with_libpcap(&mbufs)?;
    refusals_have_libpcaps_text();
    filters_leave_nothing_behind(&mbufs)?;
    threads_share_a_filter(&mbufs)?;
    drop(mbufs);
    drop(pool);
    eal.close()?;
    Ok(())
}

/// EAL leaves the folder of its run-time files behind.
struct RuntimeFolder(String);

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        for base in [Ok("/var/run".to_owned()), std::env::var("XDG_RUNTIME_DIR")].into_iter().flatten() {
            drop(std::fs::remove_dir_all(std::path::Path::new(&base).join("dpdk").join(&self.0)));
        }
    }
}

fn expressions() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("expressions.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Compares one filter with libpcap's own over all frames, and returns how many pass.
fn compare(filter: &Bpf, expression: &str, mbufs: &[Mbuf]) -> Result<usize, pcap::Error> {
    // Optimised, a program may find an answer before it looks for what a short frame does not have.
    let oracle = Capture::dead(Linktype::ETHERNET)?.compile(expression, expression.len() <= 2048)?;
    let mut passed = 0;
    // libpcap's program for these may never end at an authentication header.
    let loops = expression.contains("protochain");
    for mbuf in mbufs.iter().filter(|mbuf| !loops || !mbuf.data().contains(&51)) {
        let want = oracle.filter(mbuf.data());
        assert_eq!(filter.matches(mbuf), want, "\"{expression}\": {:02x?}", mbuf.data());
        passed += usize::from(want);
    }
    Ok(passed)
}

/// Every expression passes exactly the frames that libpcap passes.
fn filters_agree_with_libpcap(mbufs: &[Mbuf]) -> Checked {
    let (mut selective, mut all) = (0, 0);
    for expression in expressions() {
        let filter = Bpf::compile(expression)?;
        let passed = compare(&filter, expression, mbufs)?;
        all += 1;
        selective += usize::from((1..mbufs.len()).contains(&passed));
    }
    assert!(all >= 250 && selective * 10 > all * 9, "only {selective} of {all} expressions tell frames apart");

    // Long ones: jumps of more than 255 instructions, with and without libpcap's optimiser.
    for terms in [30, 90, 180] {
        let hosts: Vec<String> = (1..=terms).map(|host| format!("host 10.{host}.0.1")).collect();
        let long = format!("{} or host 10.0.0.2 or udp port 53", hosts.join(" or "));
        let passed = compare(&Bpf::compile(&long)?, &long, mbufs)?;
        assert!(passed > 0 && passed < mbufs.len());
    }
    for everything in ["", "  ", "1 = 1"] {
        let filter = Bpf::compile(everything)?;
        assert!(mbufs.iter().all(|mbuf| filter.matches(mbuf)), "\"{everything}\"");
    }
    Ok(())
}

/// What libpcap does not take is an error in its words; what is too long never gets that far.
fn refusals_have_libpcaps_text() {
    let refused = [
        "udp prot 53",
        "host",
        "tcp port 70000",
        "(ip",
        "ip[",
        "ether[0:3] = 1",
        "host 10.0.0.256",
        "port no-such-service",
        "ip and arp",
        "ip[0] / 0 = 1",
        "ip[0] << 32 = 1",
        "\u{1f980}",
        &"(".repeat(Bpf::EXPRESSION_MAX),
    ];
    for expression in refused {
        let theirs = Capture::dead(Linktype::ETHERNET).expect("a handle").compile(expression, true);
        let Err(pcap::Error::PcapError(theirs)) = theirs else { panic!("libpcap takes \"{expression}\"") };
        assert_eq!(Bpf::compile(expression).err(), Some(BpfError::Refused(theirs)), "\"{expression}\"");
    }
    for expression in ["inbound", "not outbound", "udp or outbound", "ether[4294963200] = 0"] {
        assert_eq!(Bpf::compile(expression).err(), Some(BpfError::NotInFrame), "\"{expression}\"");
    }
    assert_eq!(Bpf::compile("udp\0").err(), Some(BpfError::ZeroByte));
    let longest = format!("{:1$}", "arp", Bpf::EXPRESSION_MAX);
    assert!(Bpf::compile(&longest).is_ok());
    assert_eq!(Bpf::compile(&format!("{longest} ")).err(), Some(BpfError::TooLong(Bpf::EXPRESSION_MAX + 1)));
    let started = Instant::now();
    let huge = "host 10.0.0.1 or ".repeat(1 << 16);
    assert_eq!(Bpf::compile(&huge).err(), Some(BpfError::TooLong(huge.len())));
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Thousands of filters that are made, used and dropped leave no mapping and no memory behind.
fn filters_leave_nothing_behind(mbufs: &[Mbuf]) -> Checked {
    // Resident pages, and mappings.
    let measure = || -> Result<(usize, usize), Box<dyn std::error::Error>> {
        let pages = std::fs::read_to_string("/proc/self/statm")?;
        let resident = pages.split(' ').nth(1).ok_or("statm has seven numbers")?.parse()?;
        Ok((resident, std::fs::read_to_string("/proc/self/maps")?.lines().count()))
    };
    let some = ["udp port 53", "ip6 protochain 6", "tcp[13] & 2 != 0 and host 10.0.0.1", "", "no such thing"];
    let round = |times: usize| {
        for expression in some.iter().cycle().take(times) {
            let filter = Bpf::compile(expression);
            assert_eq!(filter.is_err(), *expression == "no such thing");
            assert!(
                filter.is_err() || mbufs.iter().take(500).any(|mbuf| filter.as_ref().is_ok_and(|f| f.matches(mbuf)))
            );
        }
    };
    round(500);
    let (pages, maps) = measure()?;
    round(10_000);
    let (pages_after, maps_after) = measure()?;
    assert!(maps_after <= maps + 4, "{maps} mappings, then {maps_after}");
    assert!(pages_after <= pages + 256, "{pages} pages, then {pages_after}");
    Ok(())
}

/// Threads that use one filter at once get the answers that one alone gets.
fn threads_share_a_filter(mbufs: &[Mbuf]) -> Checked {
    let filter = std::sync::Arc::new(Bpf::compile("(tcp or udp) and port 53 and net 10.0.0.0/8")?);
    let want: Vec<bool> = mbufs.iter().map(|mbuf| filter.matches(mbuf)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (filter, want) = (filter.clone(), &want);
            scope.spawn(move || {
                for _ in 0..20 {
                    assert!(mbufs.iter().zip(want).all(|(mbuf, want)| filter.matches(mbuf) == *want));
                }
            });
        }
    });
    Ok(())
}

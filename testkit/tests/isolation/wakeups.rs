//! An app makes it expensive to wake it, or is woken often. It pays for that itself: what workers and the control thread have to do
//! stays the same.

use kopi_ring::Region;
use kopi_ring::layout::Notes;
use kopi_ring::message::{Mac, Message, Settings as PortSettings};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Settings, TempDir, machine, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_thread_res_uid};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MAC: Mac = [2, 0, 0, 0, 0xee, 4];
/// Who has the evil app.
const USER: u32 = 4242;
/// How often a descriptor is polled at once. Each time is one more that the kernel looks at when something comes.
const CROWD: usize = 1_500_000;

/// Threads that wait for something to read, together so often at once that a wake-up takes a long time.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn at(fd: OwnedFd) -> Self {
        // One thread may poll as many as it may have descriptors.
        let limit = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).expect("as many as are allowed");
        let each = usize::try_from(limit.unwrap_or(u64::MAX)).map_or(CROWD, |limit| limit.min(CROWD));
        let stop = Arc::new(AtomicBool::new(false));
        let (fd, step) = (Arc::new(fd), Timespec { tv_sec: 0, tv_nsec: 500_000_000 });
        let threads = (0..CROWD.div_ceil(each)).map(|_| {
            let (fd, stopped) = (Arc::clone(&fd), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut fds: Vec<_> = (0..each).map(|_| PollFd::new(&*fd, PollFlags::IN)).collect();
                while !stopped.load(Relaxed) {
                    poll(&mut fds, Some(&step)).expect("as many may be polled");
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A connection by a process of user [`USER`].
fn connect_as_user(kopid: &Kopid) -> Client {
    let path = kopid.socket();
    // The kernel notes the user of the thread that connects.
    let other = std::thread::spawn(move || {
        let user = Uid::from_raw(USER);
        set_thread_res_uid(user, user, user).expect("as root");
        Client::connect(&path)
    });
    other.join().expect("it connects")
}

/// CPU time that the threads of kopid whose name begins with `name` have used: `/proc/PID/task/TID/schedstat`, see
/// `sched-stats` in the kernel's documentation.
fn cpu_time(kopid: &mut Kopid, name: &str) -> Duration {
    let tasks = format!("/proc/{}/task", kopid.process().pid());
    let mut sum = 0;
    for task in fs::read_dir(tasks).expect("kopid runs").flatten().map(|task| task.path()) {
        let is_it = fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        let spent = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let spent: u64 = spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        sum += if is_it { spent } else { 0 };
    }
    Duration::from_nanos(sum)
}

/// Row 2: an app that is expensive to answer is answered by its user's own thread, until it loses its port for that. The control
/// thread has no more to do than before, and other apps attach.
#[test]
fn expensive_answers_are_paid_by_their_own_thread() {
    let dir = TempDir::new("wakeups-answer");
    let mut kopid = Kopid::start(&dir, &Settings { idle: "adaptive", ..Settings::default() });
    let mut evil = connect_as_user(&kopid);
    let welcome = evil.hello("evil", MAC);
    let (_region, _doorbell) = evil.setup_sleeping(&small());
    let crowd = Crowd::at(evil.socket().try_clone().expect("a descriptor"));
    let before = cpu_time(&mut kopid, "kopid");
    let settings = || Message::Settings(PortSettings { mtu: 1500, macs: vec![welcome.mac], ..PortSettings::default() });
    let begun = Instant::now();
    while kopid.app("evil").is_some() {
        // Between the two that are put up with there is a pause, fifty times as long as the first one took.
        assert!(begun.elapsed() < 6 * SOON, "it goes on: {}", kopid.log());
        // It is answered, or it is not any more.
        let asked = evil.say(settings());
        std::thread::sleep(Duration::from_millis(if asked { 20 } else { 100 }));
        while rustix::net::recv(evil.socket(), &mut [0; 2048], rustix::net::RecvFlags::DONTWAIT).is_ok_and(|n| n.0 > 0)
        {
        }
    }
    kopid.await_log("makes system calls on its socket slow");
    let (user, control) = (cpu_time(&mut kopid, "kopi-user-4242"), cpu_time(&mut kopid, "kopid") - before);
    let worker = cpu_time(&mut kopid, "kopi-worker-");
    assert!(user >= Duration::from_millis(40), "the user's thread has paid for it: {user:?}");
    // It has answered this test a few hundred times meanwhile, and slept.
    let limit = begun.elapsed() / 5 + Duration::from_millis(100);
    assert!(control < limit && worker < limit, "user {user:?}, control {control:?}, worker {worker:?}");

    for number in 0..3_u8 {
        drop(Client::attach(&kopid.socket(), "", [2, 0, 0, 0, 5, number], &small()));
    }
    drop(crowd);
}

/// Apps that may sleep, each with a thread that waits to be called, or looks into its ring once in a millisecond.
struct Sleepers {
    stop: Arc<AtomicBool>,
    poll: Arc<AtomicBool>,
    clients: Vec<(Client, Region)>,
    threads: Vec<JoinHandle<()>>,
}

/// Keeps this thread off the CPU of the worker, which is the first.
pub(crate) fn keep_off_workers() {
    let mut cpus = CpuSet::new();
    machine::cpus().into_iter().skip(1).for_each(|cpu| cpus.set(cpu.into()));
    sched_setaffinity(None, &cpus).expect("there are two CPUs");
}

impl Sleepers {
    fn new(kopid: &Kopid, count: u8) -> Self {
        let (stop, poll) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (mut clients, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let mut client = Client::connect(&kopid.socket());
            let welcome = client.hello("", [2, 0, 0, 0, 6, number]);
            let (region, _doorbell) = client.setup_sleeping(&small());
            client.settings(welcome.mac);
            let mut ring = region.rx_consumer(0).expect("a ring");
            let interrupt = region.rx_interrupt(0).expect("a ring");
            let (futex, stopped, polls) = (region.wake_futex(), Arc::clone(&stop), Arc::clone(&poll));
            threads.push(std::thread::spawn(move || {
                keep_off_workers();
                while !stopped.load(Relaxed) {
                    let count = futex.count();
                    while let Ok(1..) = ring.poll() {
                        while let Ok(Some(_frame)) = ring.next() {}
                        ring.release();
                    }
                    if polls.load(Relaxed) {
                        interrupt.disable();
                        std::thread::sleep(Duration::from_millis(1));
                    } else if !interrupt.enable() {
                        futex.wait(count, Some(Duration::from_millis(100)));
                    }
                }
            }));
            clients.push((client, region));
        }
        Self { stop, poll, clients, threads }
    }

    /// Has them all poll from now on, or sleep.
    fn switch(&self, polls: bool) {
        self.poll.store(polls, Relaxed);
        // Longer than each of them sleeps.
        std::thread::sleep(Duration::from_millis(150));
    }

    /// How often they were called in all.
    fn calls(&self) -> u32 {
        self.clients.iter().map(|(_, region)| region.wake_futex().count()).sum()
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        self.clients.clear();
    }
}

/// Time that the worker has spent in system calls, as the kernel's clock has found it there: field 15 of its `stat`, see
/// `proc_pid_stat(5)`, in hundredths of a second.
fn system_time(kopid: &mut Kopid) -> Duration {
    let tasks = format!("/proc/{}/task", kopid.process().pid());
    let stats =
        fs::read_dir(tasks).expect("kopid runs").flatten().map(|task| fs::read_to_string(task.path().join("stat")));
    let stats = stats.flatten().filter(|stat| stat.contains("(kopi-worker-"));
    let ticks = stats.filter_map(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(12)?.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// How long the worker was busy so far.
pub(crate) fn busy_time(kopid: &Kopid) -> f64 {
    kopid.status()["workers"][0]["busy_seconds"].as_f64().expect("status says how long")
}

/// Row 20: broadcasts to 50 apps that sleep cost the worker not much more than those to the same apps when they poll as often as
/// something comes. The rounds of both alternate, and the cheapest of each count: on a busy machine it takes some until there is one
/// with nothing beside it.
#[test]
fn sleepers_cost_little_more_than_pollers() {
    const FRAMES: u32 = 200;
    let dir = TempDir::new("wakeups-busy");
    let kopid = Kopid::start(&dir, &Settings::default());
    let (_sender, region) = Client::attach(&kopid.socket(), "sender", [2, 0, 0, 0, 7, 1], &small());
    let apps = Sleepers::new(&kopid, 50);
    keep_off_workers();
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 7, 1]);
    let mut ring = region.tx_producer(0).expect("a ring");
    let mut round = |polls: bool| {
        apps.switch(polls);
        let (before, calls) = (busy_time(&kopid), apps.calls());
        for _ in 0..FRAMES {
            assert!(ring.free(1).is_ok_and(|free| free > 0) && ring.push(&frame, Notes::NONE));
            ring.publish();
            std::thread::sleep(Duration::from_millis(1));
        }
        wait_until("all are taken", SOON, || ring.free(512) == Ok(512));
        let calls = apps.calls() - calls;
        assert!(if polls { calls < 50 } else { calls > FRAMES }, "{calls} calls, polling: {polls}");
        busy_time(&kopid) - before
    };
    let (mut polling, mut sleeping) = (f64::INFINITY, f64::INFINITY);
    for count in 1..=60 {
        polling = round(true).min(polling);
        sleeping = round(false).min(sleeping);
        if count >= 5 && sleeping < 1.5 * polling {
            return;
        }
    }
    panic!("busy for {sleeping} s while they sleep, {polling} s while they poll");
}

/// Row 20: broadcasts to 40 apps that sleep make the worker do no more than have one thread woken, which calls them. If it called
/// them itself, it would be in system calls for 300 µs for each frame.
#[test]
fn sleepers_cost_a_worker_what_others_do() {
    const FRAMES: u32 = 1000;
    let dir = TempDir::new("wakeups-broadcast");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    let (_sender, region) = Client::attach(&kopid.socket(), "sender", [2, 0, 0, 0, 7, 1], &small());
    let sleepers = Sleepers::new(&kopid, 40);
    keep_off_workers();
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 7, 1]);
    let (mut ring, before) = (region.tx_producer(0).expect("a ring"), system_time(&mut kopid));
    let calls = sleepers.calls();
    for _ in 0..FRAMES {
        assert!(ring.free(1).is_ok_and(|free| free > 0) && ring.push(&frame, Notes::NONE));
        ring.publish();
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_until("all are taken", SOON, || ring.free(512) == Ok(512));
    let spent = system_time(&mut kopid) - before;
    let calls = sleepers.calls() - calls;
    assert!(calls > 4000, "only {calls} calls");
    let most = Duration::from_micros(2) * calls;
    assert!(spent < most.max(Duration::from_millis(30)), "{spent:?} in system calls, for {calls} calls");
}

/// However often an app lets itself be called, it is called once in 50 µs on the average, and never missed.
#[test]
fn calls_of_one_app_are_bounded() {
    let dir = TempDir::new("wakeups-rate");
    let kopid = Kopid::start(&dir, &Settings::default());
    let (_sender, out) = Client::attach(&kopid.socket(), "sender", [2, 0, 0, 0, 8, 1], &small());
    let mut client = Client::connect(&kopid.socket());
    let welcome = client.hello("sleeper", [2, 0, 0, 0, 8, 2]);
    let (region, _doorbell) = client.setup_sleeping(&small());
    client.settings(welcome.mac);
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&welcome.mac);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 8, 1]);
    keep_off_workers();
    let (mut sends, mut takes) = (out.tx_producer(0).expect("a ring"), region.rx_consumer(0).expect("a ring"));
    let (interrupt, futex) = (region.rx_interrupt(0).expect("a ring"), region.wake_futex());
    let (begun, first) = (Instant::now(), futex.count());
    let mut sent = 0_u32;
    while begun.elapsed() < Duration::from_secs(1) {
        // Awake and asleep again, as fast as can be.
        let _there = interrupt.enable();
        if sends.free(1).is_ok_and(|free| free > 0) && sends.push(&frame, Notes::NONE) {
            sends.publish();
            sent += 1;
        }
        while let Ok(1..) = takes.poll() {
            while let Ok(Some(_frame)) = takes.next() {}
            takes.release();
        }
    }
    let (calls, elapsed) = (futex.count().wrapping_sub(first), begun.elapsed());
    let most = elapsed.as_micros() / 50 + 100;
    assert!(u128::from(calls) <= most, "{calls} calls for {sent} frames in {elapsed:?}");
    assert!(calls > 10, "{calls} calls for {sent} frames");
    // The last one is not forgotten.
    wait_until("all are taken", SOON, || sends.free(512) == Ok(512));
    let before = futex.count();
    while let Ok(1..) = takes.poll() {
        while let Ok(Some(_frame)) = takes.next() {}
        takes.release();
    }
    let _there = interrupt.enable();
    assert!(sends.free(1).is_ok_and(|free| free > 0) && sends.push(&frame, Notes::NONE));
    sends.publish();
    wait_until("it is called", SOON, || futex.count() != before);
}

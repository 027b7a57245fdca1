//! The operators' socket, asked as operators do.

use super::*;
use rustix::net::{RecvFlags, SocketType};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// No wait comes near it.
const LIMIT: Duration = Duration::from_secs(10);

/// The control thread's side, with what it needs.
struct Scene {
    control: Control,
    peers: Peers,
    poller: Poller,
    path: PathBuf,
}

impl Scene {
    fn new(label: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kopi-control-{}-{label}", std::process::id()));
        let text = format!(
            "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n[control]\npath = \"{}\"\n",
            path.display()
        );
        let config = kopi_config::Config::parse(text, "test").unwrap();
        let listener = Listener::bind(&config.control, SocketType::STREAM).unwrap();
        let poller = Poller::new().unwrap();
        let control = Control::new(listener, Arc::new(PolicySource::new(None)), &poller).unwrap();
        Self { control, peers: Peers::new().unwrap(), poller, path }
    }

    /// An operator who is accepted as one of user `account`.
    fn operator(&mut self, account: u32) -> UnixStream {
        let operator = UnixStream::connect(&self.path).unwrap();
        operator.set_read_timeout(Some(LIMIT)).unwrap();
        self.control.accept(|_| account, &mut self.peers, &self.poller);
        operator
    }

    /// Handles events, as the daemon does, for as long as `go_on` says. Replies are of `size` bytes or more, and name what was asked.
    fn serve_while(&mut self, size: usize, mut go_on: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while go_on(self) {
            assert!(begun.elapsed() < LIMIT, "it does not come to an end");
            for token in self.poller.wait(Duration::from_millis(1)).unwrap() {
                match token {
                    Token::Operators => self.control.receive(),
                    other => panic!("{other:?}"),
                }
            }
            self.control.serve(|question| {
                let reply = json!({ question.command: "x".repeat(size), "arguments": question.arguments });
                Some(Answer::Reply(format!("{reply}\n")))
            });
            self.control.time.grant(Duration::from_millis(1));
            self.control.sweep();
        }
    }

    /// Serves until `operator` has so many replies.
    fn replies(&mut self, operator: UnixStream, count: usize) -> Vec<String> {
        let lines = move || BufReader::new(operator).lines().take(count).map(Result::unwrap).collect();
        let answered = std::thread::spawn(lines);
        self.serve_while(1, |_| !answered.is_finished());
        answered.join().unwrap()
    }
}

fn ask(mut operator: &UnixStream, command: &str) {
    operator.write_all(format!("{{\"command\": \"{command}\"}}\n").as_bytes()).unwrap();
}

/// Requests that come in one packet are all answered, in order, and those that are none are told so.
#[test]
fn requests_in_one_packet_are_answered_in_order() {
    let mut scene = Scene::new("order");
    let mut operator = scene.operator(1);
    let lines: String = (0..100).map(|n| format!("{{\"command\": \"c{n}\", \"n\": [{n}]}}\n")).collect();
    operator.write_all(format!("{lines}{{\"app\": \"b\"}}\n").as_bytes()).unwrap();
    let replies = scene.replies(operator, 101);
    let value = |n: usize| serde_json::from_str::<Value>(&replies[n]).unwrap();
    assert!((0..100).all(|n| value(n) == json!({ format!("c{n}"): "x", "arguments": { "n": [n] } })), "{replies:?}");
    assert!(value(100)["error"].as_str().unwrap().contains("missing field `command`"), "{replies:?}");
}

/// An argument that a command does not know is refused, and names what it is.
#[test]
fn strange_arguments_are_refused() {
    let arguments = Map::from_iter([("app".to_owned(), json!("b")), ("n".to_owned(), json!(1))]);
    let question = Question { command: "c".to_owned(), arguments, account: 1, brought: Brought::Nothing };
    assert_eq!(question.check(&["n", "app"]), Ok(()));
    assert_eq!(question.check(&["app"]), Err("`c` has no argument `n`".to_owned()));
}

/// Fault 9: however many operators connect and say nothing, or do not read what they asked for, one that asks is answered: of the
/// same user, and of another.
#[test]
fn silent_operators_make_room() {
    let mut scene = Scene::new("room");
    let mut crowd = Vec::new();
    for n in 0..THREADS_PER_USER + OPERATORS_PER_USER {
        // Some of them ask for more than the socket holds, and read nothing of it.
        let operator = scene.operator(1);
        if n % 2 == 0 {
            ask(&operator, "much");
            let is_answered =
                || rustix::net::recv(&operator, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok();
            scene.serve_while(1 << 20, |_| !is_answered());
        }
        crowd.push(operator);
    }
    for account in [1, 9] {
        let operator = scene.operator(account);
        ask(&operator, "c");
        assert!(scene.replies(operator, 1)[0].contains("\"c\""));
    }
    let there = |scene: &Scene| scene.control.operators.iter().filter(|operator| !operator.is(&[ENDED])).count();
    scene.serve_while(1, |scene| there(scene) > THREADS_PER_USER);
}

/// Operators whose threads hang, here since nobody answers them, take so many places of their user's, and none of others.
#[test]
fn operators_that_hang_keep_no_other_out() {
    let mut scene = Scene::new("hang");
    let crowd: Vec<_> = (0..OPERATORS_PER_USER).map(|_| scene.operator(1)).collect();
    let working = |scene: &Scene| scene.control.operators.iter().filter(|operator| operator.is(&[WORKS])).count();
    crowd.iter().for_each(|operator| drop((&*operator).write_all(b"{\"command\": \"c\"}\n")));
    let begun = Instant::now();
    while working(&scene) < OPERATORS_PER_USER {
        assert!(begun.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    let refused = scene.operator(1);
    assert!(scene.replies(refused, 1)[0].contains("wait for an answer"));
    let mut others: Vec<_> =
        (2..5).flat_map(|user| [user; OPERATORS_PER_USER]).map(|user| scene.operator(user)).collect();
    let last = others.pop().unwrap();
    ask(&last, "c");
    assert!(scene.replies(last, 1)[0].contains("\"c\""));
}

/// Fault 40: with accepting at rest, a waiting operator is no event, and after the rest it is one.
#[test]
fn resting_listener_is_quiet() {
    let mut scene = Scene::new("rest");
    scene.control.listener.pause(&scene.poller, Token::ControlListener);
    let _operator = UnixStream::connect(&scene.path).unwrap();
    assert!(scene.poller.wait(Duration::from_millis(1)).unwrap().is_empty());
    let begun = Instant::now();
    while scene.poller.wait(Duration::from_millis(1)).unwrap().is_empty() {
        assert!(begun.elapsed() < LIMIT);
        scene.control.tick(Duration::from_millis(1), &scene.poller);
    }
}

/// The operators of one user, who ask for what takes long, have no more than their part of the time; who asks for little is next.
#[test]
fn time_is_shared_by_user() {
    let mut scene = Scene::new("time");
    let crowd: Vec<_> = (0..8).map(|_| scene.operator(1)).collect();
    let modest = scene.operator(2);
    crowd.iter().for_each(|operator| ask(operator, "long"));
    ask(&modest, "short");
    let begun = Instant::now();
    while scene.control.waiting.len() < 9 {
        assert!(begun.elapsed() < LIMIT);
        scene.control.receive();
    }
    let mut asked = Vec::new();
    while scene.control.is_due() {
        scene.control.serve(|question| {
            if question.command == "long" {
                std::thread::park_timeout(Duration::from_millis(u64::from(TIME) / 4 + 1));
            }
            asked.push(question.command);
            None
        });
    }
    // The first is the first that came. Then it is the other user's turn, and then that of nobody who has used up its time.
    let long = asked.iter().filter(|command| *command == "long").count();
    assert!(asked[..2].iter().any(|command| command == "short") && (2..=4).contains(&long), "{asked:?}");
    scene.control.time.grant(Duration::from_secs(4));
    assert!(scene.control.is_due());
}

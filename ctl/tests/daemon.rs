//! kopictl against a daemon that this test plays: every exit code, and every way in which an answer can go wrong.
#![forbid(unsafe_code)]
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test, which the lints do not see"
)]

mod folder;

use folder::Folder;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Answers as kopid gave them.
const RECORDED: &str = include_str!("recorded.json");
/// How long kopictl waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Folder {
    /// Answers one connection as `play` does; it has the connection and the first request.
    fn daemon(&self, play: impl FnOnce(UnixStream, String) + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
            play(stream, request);
        })
    }

    /// What `kopictl ARGUMENTS` says to a daemon that answers with `answer` and hangs up.
    fn told(&self, answer: impl Into<Vec<u8>>, arguments: &[&str]) -> Output {
        let answer = answer.into();
        let daemon = self.daemon(move |mut stream, _| {
            // kopictl may have heard enough before the end.
            drop(stream.write_all(&answer));
        });
        let output = self.kopictl(arguments).output().unwrap();
        daemon.join().unwrap();
        fs::remove_file(self.socket()).unwrap();
        output
    }
}

/// The recorded answer to `command`, as a line.
fn answer(command: &str) -> String {
    let recorded: serde_json::Value = serde_json::from_str(RECORDED).unwrap();
    format!("{}\n", serde_json::json!({ command: recorded[command] }))
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Asserts that kopictl failed with `code`, printed no result, and said `words` in one line.
fn assert_fails(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
    assert_eq!((output.stdout.len(), said.trim_end().lines().count()), (0, 1), "{said}");
}

/// Exit code 0: each command asks for what it is named after, and shows it.
#[test]
fn every_command_shows_its_answer() {
    let folder = Folder::new("commands");
    let shown = [
        ("status", "wire link: up"),
        ("apps", "dpdk-testpmd"),
        ("stats", "wire"),
        ("drops", "unknown_unicast"),
        ("rules", "default ingress"),
        ("flows", "10.0.0.1:40000"),
    ];
    for (command, words) in shown {
        let daemon = folder.daemon(move |mut stream, request| {
            assert_eq!(request, format!("{{\"command\":\"{command}\"}}\n"));
            stream.write_all(answer(command).as_bytes()).unwrap();
        });
        let output = folder.kopictl(&[command]).output().unwrap();
        daemon.join().unwrap();
        fs::remove_file(folder.socket()).unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains(words), "{}", out(&output));
        assert!(output.stderr.is_empty());
    }
}

/// `--json` gives kopid's object, keys it does not know included, on one line.
#[test]
fn json_is_the_daemons_object() {
    let folder = Folder::new("json");
    let sent = "{ \"apps\" : [{\"tx_packets\":18446744073709551615, \"new\":[1.5,null]}] }\n";
    let output = folder.told(sent, &["--json", "apps"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(out(&output), "{\"apps\":[{\"new\":[1.5,null],\"tx_packets\":18446744073709551615}]}\n");
}

/// Exit code 1: what is no answer of kopid's, or says that something failed, and never a panic.
#[test]
fn garbage_answers_fail() {
    let folder = Folder::new("garbage");
    for garbage in [
        &b"\n"[..],
        b"hello\n",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"null\n",
        b"{\"apps\":{}}\n",
        b"{\"stats\":[]}\n",
        b"{\"apps\":[7]}\n",
        b"{\"apps\":[{\"port\":-1}]}\n",
        b"{\"apps\":[]}\n{\"apps\":[]}\n",
    ] {
        assert_fails(&folder.told(garbage, &["apps"]), 1, "no answer of kopid's");
    }
    let nested = format!("{}\n", "[".repeat(100_000));
    assert_fails(&folder.told(nested, &["apps"]), 1, "no answer of kopid's");
    let error = r#"{"error":"unknown command `apps`\u001b[2J"}"#;
    assert_fails(
        &folder.told(format!("{error}\n"), &["apps"]),
        1,
        "kopid says: unknown command `apps`\\u{1b}[2J; it is older than",
    );
}

/// Exit code 1: nothing has the name; whatever has another one is left out, in JSON too.
#[test]
fn rows_are_chosen_by_name() {
    let folder = Folder::new("names");
    let sent = "{\"rules\":[{\"name\":\"a\"},{\"name\":\"b\"}]}\n";
    assert_eq!(out(&folder.told(sent, &["--json", "rules", "b"])), "{\"rules\":[{\"name\":\"b\"}]}\n");
    assert!(!out(&folder.told(sent, &["rules", "b"])).contains(" a "));
    assert_fails(&folder.told(sent, &["--json", "rules", "c"]), 1, "there is no `c`");
    let sent = "{\"classes\":[{\"name\":\"a\"},{\"name\":\"b\"}]}\n";
    assert_eq!(out(&folder.told(sent, &["--json", "classes", "b"])), "{\"classes\":[{\"name\":\"b\"}]}\n");
}

/// Exit code 1: a daemon that ends in the middle of its answer, or before it.
#[test]
fn cut_answers_fail() {
    let folder = Folder::new("cut");
    let whole = answer("apps");
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert_fails(&folder.told(&whole.as_bytes()[..length], &["apps"]), 1, "before its answer was complete");
    }
}

/// A long answer is shown in full, and one that never ends is given up before it fills the memory.
#[test]
fn answers_are_long_but_not_endless() {
    let folder = Folder::new("long");
    let row = r#"{"app":"a","stage":"s","reason":"r","rule":null,"packets":1}"#;
    let rows = vec![row; 50_000].join(",");
    let output = folder.told(format!("{{\"drops\":[{rows}]}}\n"), &["drops"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(out(&output).lines().count(), 50_002);
    assert!(out(&output).trim_end().ends_with(" 50000"));

    let daemon = folder.daemon(|mut stream, _| while stream.write_all(&[b' '; 1 << 16]).is_ok() {});
    let output = folder.kopictl(&["drops"]).output().unwrap();
    daemon.join().unwrap();
    assert_fails(&output, 1, "longer than");
}

/// Exit code 2: what cannot be asked.
#[test]
fn usage_errors() {
    let folder = Folder::new("usage");
    let long = "x".repeat(200);
    for bad in [&["flood"][..], &[], &["apps", "--watch"], &["stats", "--watch=0"], &["--socket", &long, "apps"]] {
        assert_eq!(folder.kopictl(bad).output().unwrap().status.code(), Some(2), "{bad:?}");
    }
}

/// Exit code 3: nobody is there; the message names the socket and says what to look at.
#[test]
fn unreachable_daemons_are_told_apart() {
    let folder = Folder::new("unreachable");
    let socket = folder.socket().display().to_string();
    let output = folder.kopictl(&["apps"]).output().unwrap();
    assert_fails(&output, 3, &socket);
    assert_fails(&output, 3, "is kopid running");

    drop(UnixListener::bind(folder.socket()).unwrap());
    assert_fails(&folder.kopictl(&["apps"]).output().unwrap(), 3, "is kopid running");
    fs::remove_file(folder.socket()).unwrap();

    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET);
    let apps = rustix::net::socket_with(family, kind, flags, None).unwrap();
    rustix::net::bind(&apps, &rustix::net::SocketAddrUnix::new(folder.socket()).unwrap()).unwrap();
    rustix::net::listen(&apps, 1).unwrap();
    assert_fails(&folder.kopictl(&["apps"]).output().unwrap(), 3, "looks like the apps' socket");
}

/// Exit code 3: a daemon that takes the request and says nothing.
#[test]
fn silent_daemon_is_given_up() {
    let folder = Folder::new("silent");
    let daemon = folder.daemon(|mut stream, _| assert_eq!(stream.read(&mut [0]).unwrap(), 0));
    assert_fails(&folder.kopictl(&["apps"]).output().unwrap(), 3, "does not answer");
    daemon.join().unwrap();
}

/// Exit code 3: the time limit is for the whole answer, however little of it comes from time to time.
#[test]
fn dribbling_daemon_is_given_up() {
    let folder = Folder::new("dribbling");
    let daemon = folder.daemon(|mut stream, _| {
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let start = Instant::now();
    assert_fails(&folder.kopictl(&["apps"]).output().unwrap(), 3, "does not answer");
    assert!(start.elapsed() >= PATIENCE && start.elapsed() < PATIENCE * 2);
    daemon.join().unwrap();
}

/// Exit code 3: a stopped daemon, whose queue of connections is full, does not keep kopictl waiting either.
#[test]
fn full_backlog_is_given_up() {
    let folder = Folder::new("backlog");
    let stopped = UnixListener::bind(folder.socket()).unwrap();
    rustix::net::listen(&stopped, 0).unwrap();
    let _first = UnixStream::connect(folder.socket()).unwrap();
    assert_fails(&folder.kopictl(&["apps"]).output().unwrap(), 3, "is it stopped?");
}

/// Exit code 4: the message says whose the socket is and who may use it.
#[test]
fn forbidden_sockets_say_who_may() {
    let folder = Folder::new("forbidden");
    let _listener = UnixListener::bind(folder.socket()).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    // Root may use every socket, so it asks as somebody else. A copy of the program lies where that user may run it.
    let program = folder.0.join("kopictl");
    fs::copy(env!("CARGO_BIN_EXE_kopictl"), &program).unwrap();
    let refused = |mode| {
        fs::set_permissions(folder.socket(), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(&program);
        command.arg("--socket").arg(folder.socket()).arg("apps");
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        command.output().unwrap()
    };
    let owner = if is_root { "owner `root`" } else { "owner `" };
    assert_fails(&refused(0o400), 4, owner);
    assert_fails(&refused(0o400), 4, "mode 0400: run kopictl as ");
    if is_root {
        assert_fails(
            &refused(0o660),
            4,
            "group `root`, mode 0660: run kopictl as root or as a member of the group `root`",
        );
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o711)).unwrap();
        assert_fails(&refused(0o600), 4, "mode 0600");
    }
}

/// A reader that has seen enough ends kopictl without a word; a full disk does not go unnoticed.
#[test]
fn closed_output_ends_quietly() {
    let folder = Folder::new("closed");
    let daemon = folder.daemon(|mut stream, _| stream.write_all(answer("apps").as_bytes()).unwrap());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = folder.kopictl(&["apps"]).stdout(writer).output().unwrap();
    daemon.join().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    fs::remove_file(folder.socket()).unwrap();

    let daemon = folder.daemon(|mut stream, _| stream.write_all(answer("apps").as_bytes()).unwrap());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.kopictl(&["apps"]).stdout(full).output().unwrap();
    daemon.join().unwrap();
    assert_fails(&output, 1, "cannot write the result");
}

/// `stats --watch` looks again over the same connection until the daemon is gone, without clearing what is no terminal.
#[test]
fn watch_looks_again() {
    let folder = Folder::new("watch");
    let daemon = folder.daemon(|mut stream, _| {
        let mut requests = BufReader::new(stream.try_clone().unwrap()).lines();
        stream.write_all(answer("stats").as_bytes()).unwrap();
        for _ in 0..2 {
            requests.next().unwrap().unwrap();
            stream.write_all(answer("stats").as_bytes()).unwrap();
        }
    });
    let output = folder.kopictl(&["stats", "--watch", "0.1"]).output().unwrap();
    daemon.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "the daemon has gone");
    let looks: Vec<&str> = out(&output).split("\n\n").collect();
    assert_eq!(looks.len(), 3, "{}", out(&output));
    assert!(!out(&output).contains('\x1b'));
    assert!(looks[0].contains("RX-PKTS/S") && looks[0].contains(" -") && !looks[1].contains(" -"));
}

/// `explain` sends the packet as it was written, and shows the reason.
#[test]
fn explain_asks_about_a_packet() {
    let folder = Folder::new("explain");
    let packet = "tcp 10.0.0.1:5432 > 10.0.0.2:999";
    let daemon = folder.daemon(move |mut stream, request| {
        let request: serde_json::Value = serde_json::from_str(&request).unwrap();
        let expected = serde_json::json!({
            "command": "explain", "app": "bob", "packet": packet, "direction": "ingress", "state": "established"
        });
        assert_eq!(request, expected);
        stream.write_all(answer("explain").as_bytes()).unwrap();
    });
    let output =
        folder.kopictl(&["explain", "--app=bob", "--ingress", "--state=established", packet]).output().unwrap();
    daemon.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).contains("rule postgres-is-bobs (line 12)"), "{}", out(&output));
}

/// Takes one request off `listener`, with the text of the file that came with it, and answers.
fn serve_reload(listener: &UnixListener, answer: &str) -> (serde_json::Value, Option<String>) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 1000];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(&stream, &mut parts, &mut control, rustix::net::RecvFlags::empty()).unwrap();
    let files = control.drain().flat_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let texts: Vec<_> = files.map(|file| std::io::read_to_string(fs::File::from(file)).unwrap()).collect();
    assert!(texts.len() <= 1);
    stream.write_all(answer.as_bytes()).unwrap();
    (serde_json::from_slice(&bytes[..got.bytes]).unwrap(), texts.into_iter().next())
}

/// `reload FILE` hands kopid the open file and its name, tells warnings apart from the rest, and says how to keep it.
#[test]
fn reload_hands_over_the_open_file() {
    let folder = Folder::new("reload");
    let policy = folder.0.join("p.toml");
    fs::write(&policy, "# a policy\n").unwrap();
    let name = policy.to_str().unwrap();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let reload = |arguments: &[&str], answer: &str| {
        let kopictl = folder.kopictl(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let asked = serve_reload(&listener, answer);
        (asked, kopictl.wait_with_output().unwrap())
    };
    let ((request, file), output) = reload(&["reload", name, "--confirm", "60"], &answer("reload"));
    assert_eq!(request, serde_json::json!({ "command": "reload", "file": name, "confirm": 60 }));
    assert_eq!(file.as_deref(), Some("# a policy\n"));
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).starts_with("in force: 2 rules, 1 warning\n") && out(&output).contains("reload --keep"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "warning: there is no user `eve`\n --> p.toml:3:1\\u{1b}[2J\n");

    let ((request, file), output) = reload(&["reload"], "{\"reload\":[{\"rules\":0}]}\n");
    assert_eq!((request, file), (serde_json::json!({ "command": "reload" }), None));
    assert_eq!((out(&output), output.stderr.len()), ("in force: 0 rules\n", 0));

    let ((request, _), output) = reload(&["reload", "--keep"], "{\"reload\":[{\"rules\":7}]}\n");
    assert_eq!(request, serde_json::json!({ "command": "reload", "keep": true }));
    assert_eq!(out(&output), "kept: 7 rules\n");

    // Fault 31: what is wrong comes as it is, line by line, and nothing for a terminal to act on.
    let error = "{\"error\":\"error: unknown key `x`\\n --> p.toml:1:1\\u001b[2J\"}\n";
    let (_, output) = reload(&["reload", name], error);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: unknown key `x`\n --> p.toml:1:1\\u{1b}[2J\n");
    assert!(output.stdout.is_empty());
}

/// A file that cannot be handed over fails before kopid is looked for; nonsense is a usage error.
#[test]
fn bad_files_and_packets_need_no_daemon() {
    let folder = Folder::new("offline");
    assert_fails(&folder.kopictl(&["reload", "/nonexistent"]).output().unwrap(), 1, "/nonexistent: No such file");
    assert_fails(&folder.kopictl(&["reload", "/dev/null"]).output().unwrap(), 1, "not a regular file");
    for bad in [
        &["explain", "--app=a", "tcp 10.0.0.1 > 10.0.0.2"][..],
        &["explain", "runt"],
        &["explain", "--app=a", "--state=old", "runt"],
        &["reload", "--keep", "--confirm", "5"],
        &["reload", "--keep", "/dev/null"],
        &["reload", "--confirm", "0"],
        &["flows", "--port", "65536"],
        &["check"],
    ] {
        assert_eq!(folder.kopictl(bad).output().unwrap().status.code(), Some(2), "{bad:?}");
    }
}

/// `check` reads both files as kopid would, asks the machine about names, and needs no daemon.
#[test]
fn check_reads_the_files_itself() {
    let folder = Folder::new("check");
    let write = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let config =
        write("kopid.toml", "policy = \"policy.toml\"\n[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n");
    let good = "[[rule]]\nname = \"r\"\nowner = { user = \"no-such-user\" }\naction = \"drop\"\n";
    let policy = write("policy.toml", good);
    let check = |arguments: &[&str]| folder.kopictl(arguments).output().unwrap();

    let output = check(&["check", &config]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(out(&output), format!("{config}: ok\n{policy}: ok\n"));
    assert!(
        said.starts_with("warning: there is no user `no-such-user`\n") && said.contains("policy.toml:3:"),
        "{said}"
    );

    write("policy.toml", &good.replace("drop", "dropp"));
    for file in [&config, &policy] {
        let output = check(&["check", file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(out(&output).ends_with("policy.toml: refused\n"), "{}", out(&output));
        assert!(
            said.starts_with("error: ") && said.contains("policy.toml:4:") && said.contains("did you mean"),
            "{said}"
        );
    }

    let output = check(&["--json", "check", &policy]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
    let answer: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!((&answer["check"][0]["line"], &answer["check"][0]["severity"]), (&4.into(), &"error".into()));

    for (file, words) in [("/nonexistent", "cannot read the file"), ("/dev/null", "not a regular file")] {
        let output = check(&["check", file]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words));
    }
}

/// `check` looks at the machine as `kopid --check` does: at interfaces, accounts and CPUs; all that is missing is said at once.
#[test]
fn check_looks_at_the_machine() {
    let folder = Folder::new("check-machine");
    let config = folder.0.join("kopid.toml").display().to_string();
    let text = "[wire]\ndevice = \"net_af_xdp0,iface=nowhere0\"\n[dataplane]\ncores = [1023]\n[socket]\nowner = \"no-such-user\"\n\
                [control]\ngroup = \"no-such-group\"\n";
    fs::write(&config, text).unwrap();
    let output = folder.kopictl(&["check", &config]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), out(&output)), (Some(1), format!("{config}: refused\n").as_str()), "{said}");
    for words in [
        "error: CPU 1023 of `cores` in [dataplane] is not online",
        "error: the wire `net_af_xdp0,iface=nowhere0` cannot be used: there is no interface `nowhere0` here",
        "there is no user `no-such-user` on this system",
        "there is no group `no-such-group` on this system",
    ] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    for place in ["4:10", "2:10", "6:9", "8:9"] {
        assert!(said.contains(&format!("--> {config}:{place}\n")), "no {place} in\n{said}");
    }
    let output = folder.kopictl(&["--json", "check", &config]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(answer["check"].as_array().map(Vec::len), Some(4), "{answer}");
    assert_eq!(answer["check"][1]["line"], 2, "{answer}");
}

/// A long list is shown while it comes, and is not kept: rows that are there are shown though the answer never ends, and what goes wrong
/// then is said. An older kopid that does not know an argument says so.
#[test]
fn long_lists_are_shown_while_they_come() {
    let folder = Folder::new("long");
    let recorded: serde_json::Value = serde_json::from_str(RECORDED).unwrap();
    let row = recorded["flows"][0].to_string();
    let daemon = folder.daemon(move |mut stream, _| {
        // A blank is a sign of life.
        stream.write_all(b" {\"flows\":[").unwrap();
        stream.write_all(vec![row; 600].join(", ").as_bytes()).unwrap();
        let mut end = Vec::new();
        drop(stream.read_to_end(&mut end));
    });
    let mut child = folder.kopictl(&["flows"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown = lines.by_ref().take(513).map(Result::unwrap).collect::<Vec<_>>();
    assert!(shown[0].starts_with("PROTO") && shown[1..].iter().all(|line| line.contains("10.0.0.1:40000")));
    let output = child.wait_with_output().unwrap();
    daemon.join().unwrap();
    fs::remove_file(folder.socket()).unwrap();
    assert!(output.status.code() == Some(3), "{}", String::from_utf8_lossy(&output.stderr));

    let row = &recorded["flows"][0];
    let broken = format!("{{\"flows\":[{row}],\"error\":\"a worker is silent\"}}\n");
    assert_fails(&folder.told(broken, &["flows"]), 1, "kopid says: a worker is silent");
    let unknown = "{\"error\":\"`flows` has no argument `sort`\"}\n";
    assert_fails(&folder.told(unknown, &["flows", "--sort", "rate"]), 1, "`flows` has no argument `sort`");
    assert_fails(&folder.told("{\"flows\":[]}\n{}\n", &["flows"]), 1, "it goes on after its end");
    assert_fails(&folder.told("{\"flows\":[7]}\n", &["flows"]), 1, "is kopid of another version?");
    assert_fails(&folder.told("{\"flows\":7}\n", &["--json", "flows"]), 1, "this is no answer of kopid's");
    let endless = format!("{{\"flows\":[\"{}\"]}}\n", "x".repeat(3 << 20));
    assert_fails(&folder.told(endless, &["flows"]), 1, "is longer than 1048576 bytes");
    let json = folder.told("{\"new\":1,\"rules\":[{\"a\":\"\u{202e}\"},2]}\n", &["--json", "rules"]);
    assert_eq!(out(&json), "{\"rules\":[{\"a\":\"\\u202e\"},2],\"new\":1}\n");
}

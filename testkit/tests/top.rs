//! `kopictl top` in a real terminal, which tmux is, and in batches.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::evil::{Client, small};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Settings, TempDir, machine, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLICY: &str = "[[class]]\nname = \"gold\"\nrate = \"1gbit\"\n\n[[class]]\nname = \"brass\"\nrate = \"1mbit\"\n";

/// A terminal with a shell in it. It goes with this value.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn new(dir: &TempDir) -> Self {
        let terminal = Self { socket: dir.join("tmux") };
        let begun = terminal.try_tmux(&["new-session", "-d", "-x", "120", "-y", "30", "env", "PS1=ready>", "sh"]);
        assert!(begun.is_some_and(|output| output.status.success()), "no tmux, which ci/setup.sh installs");
        terminal
    }

    fn try_tmux(&self, words: &[&str]) -> Option<Output> {
        Command::new("tmux").arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).args(words).output().ok()
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = self.try_tmux(words).expect("tmux was there before");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, as tmux calls them.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen is as it should be, and returns it.
    fn expect(&self, what: &str, is_right: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if is_right(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < SOON, "{what} is not on the screen:\n{screen}");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.try_tmux(&["kill-server"]));
    }
}

/// Where in the text a row with this name stands.
fn row(screen: &str, name: &str) -> Option<usize> {
    screen.lines().position(|line| line.split_whitespace().any(|word| word == name))
}

/// Tables, sorting, filters and resizing by keys; and the terminal is as it was when `q` has ended it.
#[test]
fn keys_do_what_they_are_known_for() {
    let dir = TempDir::new("top");
    let terminal = Terminal::new(&dir);
    let kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let _apps = ["anna", "berta"].map(|name| Client::attach(&kopid.socket(), name, [0; 6], &small()));
    let program = machine::built("kopictl");
    terminal.expect("a prompt", |screen| screen.contains("ready>"));
    let line = format!("{} --socket {} top -d 0.2", program.display(), kopid.control().display());
    terminal.press(&[&line, "Enter"]);
    terminal.expect("both apps", |screen| row(screen, "anna").is_some() && row(screen, "berta").is_some());

    terminal.press(&["2"]);
    terminal.expect("classes", |screen| row(screen, "gold").is_some() && row(screen, "anna").is_none());
    terminal.press(&["1", "/"]);
    terminal.press(&["-l", "ert"]);
    terminal.press(&["Enter"]);
    terminal.expect("one app", |screen| row(screen, "berta").is_some() && row(screen, "anna").is_none());
    terminal.press(&["=", "N"]);
    let marked = |screen: &str| ["PIDv", "PID^"].into_iter().find(|mark| screen.contains(mark));
    let first = terminal.expect("both again, by pid", |screen| {
        row(screen, "anna").is_some() && row(screen, "berta").is_some() && marked(screen).is_some()
    });
    terminal.press(&["R"]);
    terminal.expect("the other order", |screen| marked(screen).is_some_and(|mark| Some(mark) != marked(&first)));

    terminal.tmux(&["resize-window", "-x", "60", "-y", "8"]);
    terminal.expect("a small screen", |screen| screen.lines().all(|line| line.chars().count() <= 60));
    terminal.press(&["?"]);
    terminal.expect("help", |screen| screen.contains("any key goes back"));
    terminal.press(&["x", "q"]);
    let after = terminal.expect("the prompt again", |screen| screen.trim_end().ends_with("ready>"));
    assert!(row(&after, "anna").is_none(), "what was on the screen is left there:\n{after}");
    terminal.press(&["echo $((6*7))", "Enter"]);
    terminal.expect("a terminal that echoes", |screen| screen.contains("echo $((6*7))") && screen.contains("\n42"));
}

/// A terminal that goes takes it along: it does not go on by itself.
#[test]
fn terminal_that_goes_ends_it() {
    let dir = TempDir::new("topgone");
    let kopid = Kopid::start(&dir, &Settings::default());
    for ignored in ["", "trap '' HUP; "] {
        let terminal = Terminal::new(&dir);
        terminal.expect("a prompt", |screen| screen.contains("ready>"));
        let program = machine::built("kopictl");
        let line = format!("{ignored}exec {} --socket {} top", program.display(), kopid.control().display());
        terminal.press(&[&line, "Enter"]);
        terminal.expect("the table", |screen| screen.contains("SHARE%"));
        let pid = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().to_owned();
        drop(terminal);
        wait_until("kopictl has ended", SOON, || !Path::new("/proc").join(&pid).exists());
    }
}

/// In batches it needs no terminal, and without one it says so.
#[test]
fn batches_need_no_terminal() {
    let dir = TempDir::new("topbatch");
    let kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let _app = Client::attach(&kopid.socket(), "anna", [0; 6], &small());
    let text = kopid.kopictl(&["top", "-b", "-n", "2", "-d", "0.1", "-p", "apps"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert_eq!(text.lines().filter(|line| row(line, "anna").is_some()).count(), 2, "{text}");
    let json = kopid.kopictl(&["--json", "top", "-b", "-n", "1", "-d", "0.1"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["top"][0]["apps"][0]["name"], "anna", "{json}");
    let refused = kopid.kopictl(&["top"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.trim_end().lines().count() == 1, "{refused:?}");
}

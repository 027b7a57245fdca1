//! kopictl as an extcap plugin: kopi's ports as interfaces of Wireshark and tshark.
//!
//! Wireshark asks a plugin, by running it, for its interfaces, the options of one, and at last for a capture into a FIFO
//! (Wireshark Developer's Guide, "Adding Capture Interfaces And Log Sources Using Extcap"). [`sentences`] is what it is
//! answered.

mod sentences;

use crate::arguments::{SNAP, socket_path};
use crate::capture::{Ended, Run, Session, Signals, Watched};
use crate::client::{Client, Request};
use crate::failure::Failure;
use crate::streams::print;
use crate::{capture, text};
use clap::Parser;
use kopi_api::request::{self, Way, Which};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How the file is called that Wireshark finds the plugin by; there may be more behind it.
const NAME: &str = "kopi-extcap";
/// What an interface's name begins with if it is an app.
const APP: &str = "kopi:app/";

/// kopi's interfaces for Wireshark and tshark, which run this by themselves.
#[derive(Debug, Parser)]
#[command(name = "kopi-extcap", version)]
struct Plugin {
    /// Which interfaces there are
    #[arg(long)]
    extcap_interfaces: bool,
    /// Wireshark's version
    #[arg(long)]
    extcap_version: Option<String>,
    /// The interface in question
    #[arg(long)]
    extcap_interface: Option<String>,
    /// What its packets begin with
    #[arg(long)]
    extcap_dlts: bool,
    /// What its options are
    #[arg(long)]
    extcap_config: bool,
    /// libpcap expression; without --capture, whether it is one
    #[arg(long)]
    extcap_capture_filter: Option<String>,
    /// Capture
    #[arg(long, requires = "fifo", requires = "extcap_interface")]
    capture: bool,
    /// Where packets go to
    #[arg(long)]
    fifo: Option<PathBuf>,
    /// kopid's control socket
    #[arg(long, env = "KOPI_CONTROL", default_value = crate::arguments::SOCKET, value_parser = socket_path)]
    socket: PathBuf,
    #[command(flatten)]
    choice: Choice,
}

/// What people choose in Wireshark's dialogue. Several names have commas between them.
#[derive(clap::Args, Debug)]
struct Choice {
    #[arg(long, value_enum, default_value_t = Which::All)]
    which: Which,
    #[arg(long, value_enum, default_value_t = Way::InOut)]
    direction: Way,
    #[arg(long, value_delimiter = ',')]
    user: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    group: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pid: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    comm: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    exe: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    cgroup: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    container: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pod: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    app: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    rule: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    reason: Vec<String>,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    #[arg(long, default_value_t = SNAP, value_parser = clap::value_parser!(u32).range(1..=i64::from(SNAP)))]
    snap: u32,
}

/// Whether Wireshark runs this, by the name and the first argument that it was run with.
pub(crate) fn is_meant(mut arguments: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    let begins = |text: &OsStr, with: &str| text.as_encoded_bytes().starts_with(with.as_bytes());
    let name = arguments.next();
    let name = name.as_ref().and_then(|name| Path::new(name.as_ref()).file_name());
    let first = arguments.next();
    let first = first.as_ref().map(AsRef::as_ref);
    name.is_some_and(|name| begins(name, NAME))
        || first.is_some_and(|first| begins(first, "--extcap-") || first == OsStr::new("--capture"))
}

/// Does what Wireshark wants.
///
/// # Errors
///
/// [`Failure`], whose text Wireshark shows.
pub(crate) fn run() -> Result<(), Failure> {
    let plugin = Plugin::parse();
    let interface = plugin.extcap_interface.as_deref();
    match interface {
        _ if plugin.extcap_interfaces => interfaces(&plugin.socket),
        Some(interface) if plugin.extcap_dlts => port(interface).and_then(|_| print(&sentences::links())),
        Some(interface) if plugin.extcap_config => {
            port(interface).and_then(|port| print(&sentences::options(&plugin.socket, &port)))
        }
        Some(interface) if plugin.capture => capture(&plugin, &port(interface)?),
        Some(interface) if plugin.extcap_capture_filter.is_some() => check(&plugin, &port(interface)?),
        _ => Err(Failure::Extcap("this is for Wireshark to run; see --help".into())),
    }
}

/// Without kopid there are still the interfaces that are always there, so that Wireshark has something to name.
fn interfaces(socket: &Path) -> Result<(), Failure> {
    let apps = Client::connect(socket).and_then(|mut client| capture::apps(&mut client)).unwrap_or_default();
    print(&sentences::interfaces(&apps))
}

/// What an interface stands for.
#[derive(Debug, PartialEq, Eq)]
struct Port {
    /// The one port; all of them if there is none.
    name: Option<String>,
    /// Only what was dropped.
    dropped: bool,
}

fn port(interface: &str) -> Result<Port, Failure> {
    let (name, dropped) = match interface.split_once(APP) {
        Some(("", app)) if !app.is_empty() => (Some(app.to_owned()), false),
        _ => match interface {
            "kopi:any" => (None, false),
            "kopi:wire" => (Some("wire".into()), false),
            "kopi:dropped" => (None, true),
            _ => return Err(Failure::Extcap(format!("there is no interface `{interface}`"))),
        },
    };
    Ok(Port { name, dropped })
}

/// What is asked of kopid.
fn request(plugin: &Plugin, port: &Port) -> Result<request::Capture, Failure> {
    let Choice {
        which,
        direction,
        user,
        group,
        pid,
        comm,
        exe,
        cgroup,
        container,
        pod,
        app,
        rule,
        reason,
        sample,
        snap,
    } = &plugin.choice;
    let list = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let number = |pid: &String| pid.parse().map_err(|_| Failure::Extcap(format!("`{pid}` is no process number")));
    let which = if port.dropped { Which::Dropped } else { *which };
    let filter = plugin.extcap_capture_filter.as_deref().map(str::trim).filter(|text| !text.is_empty());
    Ok(request::Capture {
        filter: filter.map(str::to_owned),
        interfaces: port.name.clone().into_iter().collect(),
        direction: Some(*direction).filter(|direction| *direction != Way::InOut),
        which: Some(which).filter(|which| *which != Which::All),
        app: list(app),
        user: list(user),
        group: list(group),
        comm: list(comm),
        exe: list(exe),
        cgroup: list(cgroup),
        container: list(container),
        pod: list(pod),
        pid: list(pid).iter().map(number).collect::<Result<_, _>>()?,
        rule: list(rule),
        reason: list(reason),
        sample: Some(*sample).filter(|n| *n > 1),
        snap: Some(*snap).filter(|snap| *snap != SNAP),
        ..request::Capture::default()
    })
}

/// Captures until Wireshark has enough. Says nothing if all is well: Wireshark takes every word for an error.
fn capture(plugin: &Plugin, port: &Port) -> Result<(), Failure> {
    let arguments = request(plugin, port)?;
    let Some(fifo) = &plugin.fifo else { return Err(Failure::Extcap("a capture needs --fifo".into())) };
    let client = Client::connect(&plugin.socket)?;
    let (file, outputs) = capture::open_file(fifo)?;
    let signals = Signals::new()?;
    let request = Request::capture(&arguments, file);
    let (session, _) = Session::start(client, &request)?;
    drop(request);
    let Ended { progress, .. } = Run::new(session, Watched { signals, outputs }, None, false).until_end()?;
    match progress.row.error {
        Some(error) if progress.row.why.as_deref() != Some("reader") => Err(Failure::Capture(error)),
        _ => Ok(()),
    }
}

/// Has kopid compile an expression. Wireshark takes what is printed for what is wrong with it.
fn check(plugin: &Plugin, port: &Port) -> Result<(), Failure> {
    let client = Client::connect(&plugin.socket)?;
    let (file, _) = capture::open_file(Path::new("/dev/null"))?;
    match Session::start(client, &Request::capture(&request(plugin, port)?, file)) {
        // With its connection the capture ends.
        Ok(_) => Ok(()),
        Err(Failure::Refusal(reason)) => print(&format!("{}\n", text::clean_lines(&reason))),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn keys(line: &str) -> Result<Value, String> {
        let plugin = Plugin::try_parse_from(["kopi-extcap"].into_iter().chain(line.split(' ')));
        let plugin = plugin.map_err(|error| error.to_string())?;
        let port = port(plugin.extcap_interface.as_deref().unwrap()).map_err(|failure| failure.to_string())?;
        let arguments = request(&plugin, &port).map_err(|failure| failure.to_string())?;
        Ok(kopi_api::Request::new("capture", &arguments).arguments.into())
    }

    /// What Wireshark fills in becomes a request; fields that are left as they were do not.
    #[test]
    fn fields_become_a_request() {
        let any = "--capture --fifo f --extcap-interface kopi:any";
        let untouched = format!("{any} --which all --direction inout --user= --pid= --sample 1 --snap 262144");
        assert_eq!(keys(&untouched), Ok(json!({})));
        assert_eq!(
            keys(&format!("{any} --user bob,,eve --pid 1,2 --which passed --direction in --sample 3 --snap 64")),
            Ok(json!({ "user": ["bob", "eve"], "pid": [1, 2], "which": "passed", "direction": "in", "sample": 3,
                       "snap": 64 }))
        );
        assert_eq!(keys("--extcap-interface kopi:wire"), Ok(json!({ "interfaces": ["wire"] })));
        assert_eq!(keys("--extcap-interface kopi:app/a-1"), Ok(json!({ "interfaces": ["a-1"] })));
        assert_eq!(keys("--extcap-interface kopi:dropped --which passed"), Ok(json!({ "which": "dropped" })));
        assert_eq!(keys("--extcap-interface kopi:any --extcap-capture-filter arp"), Ok(json!({ "filter": "arp" })));
        for bad in ["kopi:", "kopi:app/", "eth0", "xkopi:app/a", "kopi:any --pid x", "kopi:any --snap 0"] {
            assert!(keys(&format!("--extcap-interface {bad}")).is_err(), "{bad}");
        }
    }

    /// Wireshark is told from people by the name or the first argument.
    #[test]
    fn wireshark_is_recognised() {
        for (line, meant) in [
            ("/usr/bin/kopictl apps", false),
            ("kopictl", false),
            ("kopictl capture --extcap-x", false),
            ("kopictl --extcap-interfaces", true),
            ("kopictl --capture --fifo f", true),
            ("/a/kopi-extcap", true),
            ("/a/kopi-extcap.exe --help", true),
            ("/kopi-extcap/kopictl", false),
        ] {
            assert_eq!(is_meant(line.split(' ')), meant, "{line}");
        }
    }
}

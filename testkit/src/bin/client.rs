//! Small processes of a certain user, for tests of who is who.
//!
//! - `kopi-client attach` attaches to kopid without DPDK, says `{"welcome": NAME}` or `{"refused": TEXT}` on a line, sends
//!   the frames that it reads from its input, and writes down those that it receives.
//! - `kopi-client hand-over COMMAND…` connects to kopid and starts COMMAND with the connection as its standard input.
//! - `kopi-client raw` sends the IP packets that it reads from its input.
//!
//! All of them end with their input.
#![forbid(unsafe_code)]

use clap::{Args, Parser};
use kopi_ring::layout::Notes;
use kopi_ring::message::Message;
use kopi_ring::socket::ReceiveError;
use kopi_ring::{Consumer, Producer};
use kopi_testkit::evil::{Client, hello, small};
use kopi_testkit::frames::from_hex;
use kopi_testkit::piped::{frames_of_stdin, line_of};
use rustix::net::{AddressFamily, SendFlags, SocketAddrV4, SocketType, ipproto, sendto, socket};
use serde_json::{Value, json};
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

/// How long to rest when there is nothing to do.
const REST: Duration = Duration::from_micros(200);

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Small processes for tests of who is who.
#[derive(Debug, Parser)]
enum Arguments {
    Attach(Attach),
    HandOver {
        #[arg(long)]
        socket: PathBuf,
        /// Give the connection away and end
        #[arg(long)]
        leave: bool,
        /// Give the connection away and become this program, once there is a byte on our standard input
        #[arg(long)]
        r#become: Option<PathBuf>,
        command: Vec<String>,
    },
    Raw,
}

#[derive(Args, Debug)]
struct Attach {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    name: String,
    #[arg(long, value_parser = parse_mac)]
    mac: [u8; 6],
    /// What the process calls itself, in hexadecimal
    #[arg(long)]
    comm: Option<String>,
    /// The connection is our standard input
    #[arg(long)]
    inherited: bool,
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("`{text}` is no MAC address"))
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse() {
        Arguments::Attach(arguments) => attach(&arguments),
        Arguments::HandOver { socket, leave, r#become, command } => hand_over(&socket, leave, r#become, &command),
        Arguments::Raw => raw(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "kopi-client: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &Value) -> Outcome {
    writeln!(io::stdout(), "{line}")?;
    Ok(io::stdout().flush()?)
}

fn attach(arguments: &Attach) -> Outcome {
    if let Some(comm) = &arguments.comm {
        let comm = from_hex(comm).ok_or("the name is not in hexadecimal")?;
        rustix::thread::set_name(&CString::new(comm)?)?;
    }
    let mut client = match arguments.inherited {
        true => Client::on(io::stdin().as_fd().try_clone_to_owned()?),
        false => Client::try_connect(&arguments.socket)?,
    };
    let welcome = match client.ask(hello(&arguments.name, arguments.mac)) {
        Ok((Message::Welcome(welcome), None)) => welcome,
        Ok((Message::Refused(why), _)) => return say(&json!({ "refused": why })),
        // A refusal that came before our hello was read is behind the error that says so.
        Err(ReceiveError::Closed) => return say(&json!({ "refused": client.refusal() })),
        other => return say(&json!({ "refused": format!("{other:?}") })),
    };
    let region = client.setup(&small());
    client.settings(welcome.mac);
    let (Some(producer), Some(consumer)) = (region.tx_producer(0), region.rx_consumer(0)) else {
        return Err("the region has no rings".into());
    };
    say(&json!({ "welcome": welcome.name }))?;
    if arguments.inherited {
        // There is no input to read from; the connection's end is ours.
        loop {
            match client.hear() {
                Ok(_) | Err(ReceiveError::WouldBlock) => {}
                Err(_) => return Ok(()),
            }
        }
    }
    forward(producer, consumer)
}

/// Sends what comes in and writes down what comes back, until the input ends.
fn forward(mut producer: Producer, mut consumer: Consumer) -> Outcome {
    let frames = frames_of_stdin();
    loop {
        let mut busy = false;
        match frames.try_recv() {
            Ok(frame) => {
                while producer.free(1)? == 0 {
                    std::thread::sleep(REST);
                }
                producer.push(&frame, Notes::NONE);
                producer.publish();
                busy = true;
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {}
        }
        consumer.poll()?;
        let mut lines = String::new();
        while let Some(frame) = consumer.next()? {
            let mut bytes = vec![0; usize::try_from(frame.len())?];
            consumer.copy(&frame, &mut bytes);
            lines.push_str(&line_of(&bytes));
            lines.push('\n');
        }
        consumer.release();
        if lines.is_empty() && !busy {
            std::thread::sleep(REST);
        } else {
            io::stdout().write_all(lines.as_bytes())?;
            io::stdout().flush()?;
        }
    }
}

fn hand_over(path: &Path, leave: bool, other: Option<PathBuf>, command: &[String]) -> Outcome {
    let (program, args) = command.split_first().ok_or("there is no command")?;
    let client = Client::try_connect(path)?;
    let connection = client.socket().try_clone()?;
    let mut child = Command::new(program).args(args).stdin(connection).spawn()?;
    drop(client);
    if leave {
        return Ok(());
    }
    if let Some(other) = other {
        // The test says when: kopid looks at the program once it has accepted the connection, not before. A byte at a time, since
        // the other program reads our input on, until that ends.
        rustix::io::read(io::stdin(), &mut [0])?;
        return Err(Command::new(other).exec().into());
    }
    // Our input ends when we are to end, whoever has the connection by then.
    let end = frames_of_stdin();
    while end.recv().is_ok() {}
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn raw() -> Outcome {
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;
    for packet in frames_of_stdin() {
        let destination: [u8; 4] = packet.get(16..20).ok_or("a packet is too short")?.try_into()?;
        // What a firewall does not let out is an error here (EPERM), and of no interest.
        let _refused = sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV4::new(destination.into(), 0));
    }
    Ok(())
}

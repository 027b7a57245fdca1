//! What a client asks for, and what it is answered.

use super::{Client, Rings, State};
use crate::control::plane::{Asked, ControlPlane};
use crate::control::ratelimit::RatelimitedLog;
use kopi_ring::message::{Envelope, Message};
use log::Level;

/// Does what one request asks for, and prepares the reply.
///
/// # Errors
///
/// Why the connection has to end, for the log; the peer has been sent a refusal.
pub(super) fn respond(
    client: &mut Client,
    envelope: Envelope,
    plane: &mut ControlPlane,
    attach_log: &mut RatelimitedLog,
) -> Result<(), String> {
    let Envelope { protocol, sequence, message } = envelope;
    if let State::AwaitsHello(_) = client.state {
        client.protocol = protocol;
    } else if protocol != client.protocol {
        let refusal = format!("this message is of ring protocol {protocol}, the hello was of {}", client.protocol);
        client.connection.refuse(sequence, &refusal);
        return Err("changed the version of the protocol".into());
    }
    let who = || client.identity.clone().at_hello();
    let done = |outcome: Result<(), String>| outcome.map_or_else(Message::Refused, |()| Message::Done);
    let reply = match (client.state, message) {
        (State::AwaitsHello(_), Message::Hello(hello)) => match plane.admit(&hello, who(), protocol) {
            Ok(welcome) => {
                let line = format_args!("{} has port {} `{}`", client.identity, welcome.port, welcome.name);
                attach_log.log_of(Level::Info, &client.identity, &line);
                client.state = State::Attached(welcome.port);
                if welcome.shares {
                    client.connection.pass_descriptors();
                }
                Message::Welcome(welcome)
            }
            Err(refusal) => {
                client.connection.refuse(sequence, &refusal.to_string());
                return Err(format!("was refused: {refusal}"));
            }
        },
        (State::Attached(id), Message::Setup(setup)) => match plane.setup(id, &setup) {
            Ok(asked) => {
                client.asked = Some(Rings { sequence, setup, again: asked == Asked::Later });
                return Ok(());
            }
            Err(error) => Message::Refused(error.to_string()),
        },
        (State::Attached(id), Message::Settings(settings)) => {
            done(plane.change(id, settings).map_err(|no| no.to_string()))
        }
        (State::Attached(id), Message::Stop) => {
            plane.halt(id);
            Message::Done
        }
        (State::Attached(id), Message::Memory(layout)) => {
            done(plane.open_window(id, layout).map_err(|no| no.to_string()))
        }
        (State::Attached(id), Message::Share(segments)) => match plane.share(id, &segments) {
            Ok(window) => {
                client.connection.map(window, segments);
                client.sharing = Some(sequence);
                return Ok(());
            }
            Err(refusal) => Message::Refused(refusal.to_string()),
        },
        (State::Attached(id), Message::Unshare(spans)) => match plane.unshare(id, &spans) {
            Ok(window) => {
                client.connection.unmap(window, spans);
                client.sharing = Some(sequence);
                return Ok(());
            }
            Err(refusal) => Message::Refused(refusal.to_string()),
        },
        (State::Attached(id), Message::Mapped) => done(plane.seal(id).map_err(|no| no.to_string())),
        _ => {
            client.connection.refuse(sequence, "this message does not belong here");
            return Err("sent a message out of order".into());
        }
    };
    client.reply = Some((Envelope { protocol, sequence, message: reply }, plane.next_snapshot()));
    Ok(())
}

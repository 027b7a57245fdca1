//! What a client asks for, and what it is answered.

use super::{Client, Rings, State};
use crate::control::plane::{Asked, ControlPlane};
use crate::control::ratelimit::RatelimitedLog;
use crate::ids::PortId;
use kopi_ring::message::{Envelope, MAPPED, Message};
use log::Level;
use std::fmt::Display;

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
            let answer = done(plane.change(id, settings));
            // A client that has no word for it sends them when it has mapped its rings, and not before.
            let is_mapped = protocol < MAPPED && plane.app(id).is_some_and(|app| app.waiting.is_some());
            match if is_mapped { hand_over(client, id, Message::Mapped, plane) } else { Ok(false) } {
                Ok(true) => {
                    client.working = Some((sequence, answer));
                    return Ok(());
                }
                Ok(false) => answer,
                Err(refusal) => Message::Refused(refusal),
            }
        }
        (State::Attached(id), Message::Stop) => {
            plane.halt(id);
            Message::Done
        }
        (State::Attached(id), Message::Memory(layout)) => done(plane.open_window(id, layout)),
        (State::Attached(id), Message::Rss(rss)) => done(plane.change_rss(id, rss)),
        (State::Attached(id), Message::FlowRule(rule)) => done(plane.set_flow_rule(id, *rule)),
        (State::Attached(id), Message::FlowRuleGone(slot)) => remove_flow_rule(id, slot, plane),
        (State::Attached(id), message @ (Message::Share(_) | Message::Unshare(_) | Message::Mapped)) => {
            match hand_over(client, id, message, plane) {
                Ok(true) => {
                    client.working = Some((sequence, Message::Done));
                    return Ok(());
                }
                Ok(false) => Message::Done,
                Err(refusal) => Message::Refused(refusal),
            }
        }
        _ => {
            client.connection.refuse(sequence, "this message does not belong here");
            return Err("sent a message out of order".into());
        }
    };
    client.reply = Some((Envelope { protocol, sequence, message: reply }, plane.next_snapshot()));
    Ok(())
}

/// The answer to what a client has chosen for its port.
fn done<E: Display>(outcome: Result<(), E>) -> Message {
    outcome.map_or_else(|refusal| Message::Refused(refusal.to_string()), |()| Message::Done)
}

/// Takes flow rules away, which is never refused.
fn remove_flow_rule(id: PortId, slot: u16, plane: &mut ControlPlane) -> Message {
    plane.remove_flow_rule(id, slot);
    Message::Done
}

/// Gives what may take as long as the client likes to the thread of its user, and returns whether there was anything to do.
fn hand_over(client: &Client, id: PortId, message: Message, plane: &mut ControlPlane) -> Result<bool, String> {
    let connection = &client.connection;
    match message {
        Message::Share(segments) => {
            connection.map(plane.share(id, &segments).map_err(|refusal| refusal.to_string())?, segments);
        }
        Message::Unshare(spans) => {
            connection.unmap(plane.unshare(id).map_err(|refusal| refusal.to_string())?, spans);
        }
        _ => match plane.to_seal(id).map_err(|error| error.to_string())? {
            Some(file) => connection.seal(file),
            None => {
                plane.serve(id);
                return Ok(false);
            }
        },
    }
    Ok(true)
}

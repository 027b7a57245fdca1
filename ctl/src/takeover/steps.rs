//! What is done to take an interface over, in which order, and what undoes it.
//!
//! At every moment the addresses are on at least one of the two interfaces: connections live on.

use super::arrange::{Fresh, Side, arrange};
use super::cut::{Shell, cut, uncut};
use super::form::{self, IFA_PROTO, Link, address_key, aged, canonical, identity, moved};
use super::kernel::{Act, Fault, Kernel};
use super::message::{INET6, Kind, Message};
use super::state::State;
use super::survey;
use nix::libc::{IFA_ADDRESS, IFA_CACHEINFO, IFA_F_NODAD, IFA_FLAGS, IFA_LOCAL};
use rustix::io::Errno;

/// By what things are done, and when: seconds since the machine was started.
pub(crate) struct Tools<'a> {
    pub(crate) kernel: &'a mut dyn Kernel,
    pub(crate) shell: &'a mut dyn Shell,
    pub(crate) now: u32,
}

/// Moves everything to the kernel's port. Safe to be done again.
///
/// # Errors
///
/// The first step that failed, in the words of who was to do it.
pub(crate) fn take(state: &State, tools: &mut Tools<'_>) -> Result<(), String> {
    let (interface, tap) = (&state.interface.name, &state.tap);
    let here = survey::link(tap, tools.kernel)?;
    let there = survey::link(interface, tools.kernel).ok();
    set_up(&here, tools.kernel)?;
    let with_ipv6 = state.addresses.iter().any(|address| address.byte(0) == INET6);
    if with_ipv6 && tools.kernel.ipv6_off(tap) == Some(true) {
        tools.kernel.switch_ipv6(tap, false)?;
    }
    let fresh = Fresh::before(&here, tools.kernel)?;
    let side = Side::new(state, &here, there.as_ref(), tools)?;
    first(give_addresses(state, &side, tools))?;
    let fresh = fresh.after(&here, tools.kernel)?;
    first(arrange(state, &side, &fresh, false, tools.kernel))?;
    if let Some(there) = &there {
        cut(interface, tools.shell)?;
        first(drop_addresses(state, there, tools.kernel))?;
        // So that the interface makes no addresses for itself.
        if state.ipv6_off == Some(false) {
            tools.kernel.switch_ipv6(interface, true)?;
        }
    }
    // Some routes go with the addresses that they had as their source, on whatever interface.
    first(arrange(state, &side, &fresh, true, tools.kernel))
}

/// Moves everything back, as far as possible; returns what was not.
pub(crate) fn give_back(state: &State, tools: &mut Tools<'_>) -> Vec<String> {
    let interface = &state.interface.name;
    let here = match survey::link(interface, tools.kernel) {
        Ok(here) => here,
        Err(fault) => return vec![fault.into()],
    };
    // kopid may be gone, and its interface with it.
    let there = survey::link(&state.tap, tools.kernel).ok();
    let mut problems = Vec::new();
    let fresh = Fresh::before(&here, tools.kernel);
    if state.ipv6_off == Some(false) {
        problems.extend(tools.kernel.switch_ipv6(interface, false).err().map(String::from));
    }
    problems.extend(uncut(interface, tools.shell).err());
    problems.extend(set_up(&here, tools.kernel).err());
    let outcome = fresh.and_then(|fresh| {
        let side = Side::new(state, &here, there.as_ref(), tools)?;
        problems.extend(give_addresses(state, &side, tools));
        let fresh = fresh.after(&here, tools.kernel)?;
        problems.extend(fresh.drop_addresses(state, tools.kernel));
        // What is missing for want of something else is tried again below.
        let first = arrange(state, &side, &fresh, false, tools.kernel);
        if first.is_empty()
            && let Some(there) = &there
        {
            problems.extend(drop_addresses(state, there, tools.kernel));
            problems.extend(drop_neighbours(state, &side, tools.kernel));
        }
        problems.extend(arrange(state, &side, &fresh, true, tools.kernel));
        Ok(())
    });
    problems.extend(outcome.err().map(|fault: Fault| fault.into()));
    problems
}

fn first(problems: Vec<String>) -> Result<(), String> {
    problems.into_iter().next().map_or(Ok(()), Err)
}

fn set_up(link: &Link, kernel: &mut dyn Kernel) -> Result<(), String> {
    // The number, the flag `IFF_UP`, and which flags are meant (`ifinfomsg`).
    let up = Message::empty(Kind::Link, &[0]).with_header(4, &link.index.to_ne_bytes());
    let up = up.with_header(8, &1_u32.to_ne_bytes()).with_header(12, &1_u32.to_ne_bytes());
    kernel.change(Act::Replace, &up).map_err(|fault| fault.about(format!("`{}`", link.name)))
}

/// Gives the addresses to the side's interface.
fn give_addresses(state: &State, side: &Side<'_>, tools: &mut Tools<'_>) -> Vec<String> {
    let kernel = &mut *tools.kernel;
    let there = side.there.map_or(Ok(Vec::new()), |there| survey::addresses(there, kernel));
    let (here, there) = match survey::addresses(side.here, kernel).and_then(|here| Ok((here, there?))) {
        Ok(both) => both,
        Err(fault) => return vec![fault.into()],
    };
    // The kernel has the newest first in IPv6, the oldest in IPv4.
    let (six, four): (Vec<_>, Vec<_>) = state.addresses.iter().partition(|address| address.byte(0) == INET6);
    let mut problems = Vec::new();
    for address in four.into_iter().chain(six.into_iter().rev()) {
        let key = address_key(address);
        let has = |all: &[Message]| all.iter().find(|other| address_key(other) == key).map(canonical);
        // Somebody may have given it more time since.
        let times = has(&there).and_then(|other| Some(address.with(IFA_CACHEINFO, other.get(IFA_CACHEINFO)?)));
        let Some(new) = times.or_else(|| aged(address, side.age)) else { continue };
        let new = moved(&new, &side.mapping);
        let present = has(&here);
        let own = survey::is_own(address);
        if present.is_some_and(|present| own || identity(&present) == identity(&new)) {
            continue;
        }
        // What an interface makes for itself another has not made for itself.
        let new = if own && side.here.name == state.tap { new.without(&[IFA_PROTO]) } else { new };
        let given = give(&new, kernel).map_err(|fault| fault.about(format!("{new} to `{}`", side.here.name)));
        problems.extend(given.err());
    }
    problems
}

fn give(address: &Message, kernel: &mut dyn Kernel) -> Result<(), Fault> {
    let flags = form::flags(address);
    if address.byte(0) == INET6 && flags & IFA_F_NODAD == 0 {
        // Nobody else has it but the other interface, which would be taken for somebody else. The flag is taken back at once.
        kernel.change(Act::Replace, &address.with(IFA_FLAGS, &(flags | IFA_F_NODAD).to_ne_bytes()))?;
    }
    kernel.change(Act::Replace, address)
}

/// Takes the addresses from an interface, but those that it has made for itself.
fn drop_addresses(state: &State, link: &Link, kernel: &mut dyn Kernel) -> Vec<String> {
    let keys: Vec<_> = state.addresses.iter().map(address_key).collect();
    let all = match survey::addresses(link, kernel) {
        Ok(all) => all,
        Err(fault) => return vec![fault.into()],
    };
    // Secondary ones first, which would go with the first one of their network.
    let gone = all.iter().rev().filter(|address| keys.contains(&address_key(address)) && !survey::is_own(address));
    gone.filter_map(|address| drop_address(address, kernel)).collect()
}

/// Takes an address away; returns why it stays.
pub(crate) fn drop_address(address: &Message, kernel: &mut dyn Kernel) -> Option<String> {
    let named = address.only(&[IFA_LOCAL, IFA_ADDRESS]);
    match kernel.change(Act::Delete, &named) {
        Err(fault) if !fault.is(&[Errno::ADDRNOTAVAIL]) => Some(fault.about(address)),
        _ => None,
    }
}

/// Takes permanent neighbours from the other interface.
fn drop_neighbours(state: &State, side: &Side<'_>, kernel: &mut dyn Kernel) -> Vec<String> {
    let Some(mapping) = &side.away else { return Vec::new() };
    let all = state.neighbours.iter().map(|of| moved(of, mapping));
    let kept = all.filter_map(|neighbour| match kernel.change(Act::Delete, &neighbour) {
        Err(fault) if !fault.is(&[Errno::NOENT]) => Some(fault.about(&neighbour)),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
pub(crate) mod tests;

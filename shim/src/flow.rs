//! Flow rules: the operations of `rte_flow`.
//!
//! A rule is checked here, becomes a part of what is wanted of the daemon, and holds when that has agreed. The daemon matches it, after
//! the operator's policy; what packets are to say of it is done by the RX queues ([`crate::steering`]).
//!
//! - `pattern`, `actions`: what the application says, and what it becomes; `error`: why not;
//! - `list`: the rules that there are.

mod actions;
mod error;
pub(crate) mod list;
mod pattern;

use crate::errno::code;
use crate::log::error;
use crate::ops;
use crate::port::Port;
use crate::port_state::PortState;
use crate::steering::Telling;
use crate::sys;
use crate::sys::{rte_eth_dev, rte_flow, rte_flow_action, rte_flow_attr, rte_flow_error, rte_flow_item};
use actions::{Actions, Spreading};
use error::FlowError;
use kopi_packet::FlowPattern;
use kopi_ring::message::{FLOW_RULES, FlowRule};
use list::{Flow, FlowHandle};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

static OPS: FlowOps = FlowOps(table());

/// The table, which DPDK only reads.
struct FlowOps(sys::rte_flow_ops);

// SAFETY: nobody writes to it.
unsafe impl Sync for FlowOps {}

const fn table() -> sys::rte_flow_ops {
    // SAFETY: all members are optional functions, for which zero is none.
    let mut ops: sys::rte_flow_ops = unsafe { std::mem::zeroed() };
    ops.validate = Some(validate);
    ops.create = Some(create);
    ops.destroy = Some(destroy);
    ops.flush = Some(flush);
    ops.query = Some(query);
    ops.isolate = Some(isolate);
    ops
}

/// Gives ethdev these operations. It does not run two of them of one port at a time.
pub(crate) unsafe extern "C" fn ops_get(_dev: *mut rte_eth_dev, to: *mut *const sys::rte_flow_ops) -> c_int {
    // SAFETY: from ethdev.
    let Some(to) = (unsafe { to.as_mut() }) else { return code(libc::EINVAL) };
    *to = &raw const OPS.0;
    0
}

/// A rule that is in order.
struct Checked {
    priority: u32,
    pattern: FlowPattern,
    actions: Actions,
    /// The number that it can have.
    slot: u16,
}

impl Checked {
    /// Checks a rule of `port`.
    ///
    /// # Safety
    ///
    /// What the application gives to `rte_flow_create`.
    unsafe fn of(
        port: &Port,
        attr: *const rte_flow_attr,
        items: *const rte_flow_item,
        actions: *const rte_flow_action,
    ) -> Result<Self, FlowError> {
        // SAFETY: null, or from the application.
        let priority = attributes(unsafe { attr.as_ref() })?;
        // SAFETY: by the caller's word.
        let pattern = unsafe { pattern::read(items) }?;
        // The application's own structure is not to be looked at any more: its key may be gone.
        let types = port.control.state().want.rss.types;
        let spreading = Spreading { queues: port.device.rx_queues(), types };
        // SAFETY: by the caller's word.
        let actions = unsafe { actions::read(actions, spreading) }?;
        let slot = room(&port.control.state(), priority, &pattern)?;
        Ok(Self { priority, pattern, actions, slot })
    }

    fn rule(&self) -> FlowRule {
        FlowRule {
            slot: self.slot,
            priority: self.priority,
            pattern: self.pattern,
            action: self.actions.action,
            queue: self.actions.queue,
            told: self.actions.telling.is_needed(),
        }
    }
}

/// The priority of a rule with these attributes.
fn attributes(attr: Option<&rte_flow_attr>) -> Result<u32, FlowError> {
    const INGRESS: u32 = 1;
    const EGRESS: u32 = 2;
    const TRANSFER: u32 = 4;
    let Some(attr) = attr else {
        return Err(FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ATTR, c"there are no attributes"));
    };
    let refuse = |errno, kind, text| Err(FlowError::new(errno, kind, text).of(attr));
    if attr.group != 0 {
        return refuse(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_GROUP, c"there is only group 0");
    }
    if attr.flags & EGRESS != 0 {
        return refuse(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_EGRESS, c"rules are for ingress");
    }
    if attr.flags & TRANSFER != 0 {
        let text = c"rules are for frames of this port: what passes between ports is the operator's policy";
        return refuse(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ATTR_TRANSFER, text);
    }
    if attr.flags & INGRESS == 0 {
        return refuse(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ATTR_INGRESS, c"rules are for ingress: say so");
    }
    Ok(attr.priority)
}

/// The number of a rule more, if there can be one.
fn room(state: &PortState, priority: u32, pattern: &FlowPattern) -> Result<u16, FlowError> {
    let refuse = |errno, text| FlowError::new(errno, sys::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, text);
    if state.attached && state.protocol < FLOW_RULES {
        return Err(refuse(libc::ENOTSUP, c"this kopid is too old for flow rules"));
    }
    if state.flows.has(priority, pattern) {
        return Err(refuse(libc::EEXIST, c"there is a rule of this priority for these frames"));
    }
    state.flows.free_slot().ok_or_else(|| refuse(libc::ENOSPC, c"a port has up to 256 flow rules"))
}

/// The port behind `dev`.
///
/// # Safety
///
/// `dev` comes from ethdev, for the length of an operation.
unsafe fn port<'a>(dev: *mut rte_eth_dev) -> Result<&'a Port, FlowError> {
    // SAFETY: by the caller's word.
    let port = unsafe { ops::port(dev) };
    port.map(|port| &*port)
        .ok_or_else(|| FlowError::new(libc::ENODEV, sys::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, c"the port is closed"))
}

/// What an operation returns.
///
/// # Safety
///
/// `error` is null or the application's place for an error.
unsafe fn answer(result: Result<(), FlowError>, error: *mut rte_flow_error) -> c_int {
    match result {
        Ok(()) => 0,
        // SAFETY: by the caller's word.
        Err(refusal) => unsafe { refusal.tell(error) },
    }
}

unsafe extern "C" fn validate(
    dev: *mut rte_eth_dev,
    attr: *const rte_flow_attr,
    items: *const rte_flow_item,
    actions: *const rte_flow_action,
    error: *mut rte_flow_error,
) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let port = unsafe { port(dev) };
    // SAFETY: from the application, by way of ethdev.
    let checked = port.and_then(|port| unsafe { Checked::of(port, attr, items, actions) });
    // SAFETY: as above.
    unsafe { answer(checked.map(drop), error) }
}

unsafe extern "C" fn create(
    dev: *mut rte_eth_dev,
    attr: *const rte_flow_attr,
    items: *const rte_flow_item,
    actions: *const rte_flow_action,
    error: *mut rte_flow_error,
) -> *mut rte_flow {
    // SAFETY: ethdev calls this with one of our ports.
    let port = unsafe { port(dev) };
    let made = port.and_then(|port| {
        // SAFETY: from the application, by way of ethdev.
        let checked = unsafe { Checked::of(port, attr, items, actions) }?;
        add(port, &checked)
    });
    match made {
        Ok(handle) => handle.as_ptr(),
        Err(refusal) => {
            // SAFETY: as above.
            unsafe { refusal.tell(error) };
            null_mut()
        }
    }
}

/// Makes a rule hold.
fn add(port: &Port, checked: &Checked) -> Result<FlowHandle, FlowError> {
    let Checked { priority, pattern, actions, slot } = *checked;
    let state = port.control.state();
    let base = state.steering.hits(slot);
    let rule = checked.rule();
    // Before any frame comes that the rule has held for.
    state.steer(&rule, actions.telling);
    drop(state);
    if let Err(refusal) = port.control.change(|want| {
        Arc::make_mut(&mut want.flow_rules).insert(slot, rule);
    }) {
        port.control.state().steering.set(slot, Telling::default());
        error!("port {}: flow rule: {refusal}", port.device.port());
        let text = c"refused by the daemon, which says why in the log";
        return Err(FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, text));
    }
    let mut state = port.control.state();
    Ok(state.flows.insert(slot, priority, pattern, actions.telling, base))
}

/// Calls `then` with the rule of a handle and its number.
fn with_rule<T>(
    state: &mut PortState,
    flow: *const rte_flow,
    then: impl FnOnce(u16, &mut Flow) -> T,
) -> Result<T, FlowError> {
    let found = state.flows.get_mut(FlowHandle::of(flow));
    let (slot, rule) = found.ok_or_else(|| {
        FlowError::new(libc::ENOENT, sys::RTE_FLOW_ERROR_TYPE_HANDLE, c"there is no such flow rule").of(flow)
    })?;
    Ok(then(slot, rule))
}

unsafe extern "C" fn destroy(dev: *mut rte_eth_dev, flow: *mut rte_flow, error: *mut rte_flow_error) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let port = unsafe { port(dev) };
    let result = port.and_then(|port| {
        let slot = with_rule(&mut port.control.state(), flow, |slot, _| slot)?;
        remove(port, &[slot])
    });
    // SAFETY: from the application, by way of ethdev.
    unsafe { answer(result, error) }
}

unsafe extern "C" fn flush(dev: *mut rte_eth_dev, error: *mut rte_flow_error) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let port = unsafe { port(dev) };
    let result = port.and_then(|port| {
        let slots: Vec<_> = port.control.state().flows.slots().collect();
        remove(port, &slots)
    });
    // SAFETY: from the application, by way of ethdev.
    unsafe { answer(result, error) }
}

/// Makes rules hold no longer.
fn remove(port: &Port, slots: &[u16]) -> Result<(), FlowError> {
    let change = port.control.change(|want| {
        let rules = Arc::make_mut(&mut want.flow_rules);
        slots.iter().for_each(|slot| {
            rules.remove(slot);
        });
    });
    if let Err(refusal) = change {
        error!("port {}: flow rules stay: {refusal}", port.device.port());
        let text = c"refused by the daemon, which says why in the log";
        return Err(FlowError::new(libc::EIO, sys::RTE_FLOW_ERROR_TYPE_HANDLE, text));
    }
    let mut state = port.control.state();
    for slot in slots {
        state.steering.set(*slot, Telling::default());
        state.flows.remove(*slot);
    }
    Ok(())
}

unsafe extern "C" fn query(
    dev: *mut rte_eth_dev,
    flow: *mut rte_flow,
    action: *const rte_flow_action,
    data: *mut c_void,
    error: *mut rte_flow_error,
) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let port = unsafe { port(dev) };
    // SAFETY: null, or from the application.
    let action = unsafe { action.as_ref() };
    let result = port.and_then(|port| {
        if action.is_none_or(|action| action.type_ != sys::RTE_FLOW_ACTION_TYPE_COUNT) {
            let text = c"of actions, only count can be asked for";
            return Err(FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ACTION, text));
        }
        // SAFETY: null, or the application's place for what the action counts.
        let Some(data) = (unsafe { data.cast::<sys::rte_flow_query_count>().as_mut() }) else {
            return Err(FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, c"no place for the counts"));
        };
        count(&mut port.control.state(), flow, data)
    });
    // SAFETY: from the application, by way of ethdev.
    unsafe { answer(result, error) }
}

/// What a rule has counted.
fn count(state: &mut PortState, flow: *const rte_flow, data: &mut sys::rte_flow_query_count) -> Result<(), FlowError> {
    const RESET: u32 = 1;
    const HITS_AND_BYTES_SET: u32 = 6;
    let steering = Arc::clone(&state.steering);
    with_rule(state, flow, |slot, rule| {
        if !rule.telling.counts() {
            let text = c"the flow rule has no action count";
            return Err(FlowError::new(libc::EINVAL, sys::RTE_FLOW_ERROR_TYPE_ACTION, text));
        }
        let now = steering.hits(slot);
        let hits = now.since(rule.base);
        (data.hits, data.bytes) = (hits.frames, hits.bytes);
        if data.flags & RESET != 0 {
            rule.base = now;
        }
        data.flags = data.flags & RESET | HITS_AND_BYTES_SET;
        Ok(())
    })?
}

/// A port gets what its addresses and modes say, whether or not it has rules.
unsafe extern "C" fn isolate(_dev: *mut rte_eth_dev, on: c_int, error: *mut rte_flow_error) -> c_int {
    if on == 0 {
        return 0;
    }
    let text = c"the port gets what its addresses and modes say: it cannot be isolated";
    let refusal = FlowError::new(libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, text);
    // SAFETY: from the application, by way of ethdev.
    unsafe { refusal.tell(error) }
}

#[cfg(test)]
mod tests;

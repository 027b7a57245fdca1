//! Operations that read and reset counters.

use super::{copy_text, port};
use crate::errno::code;
use crate::stats::{Totals, names};
use crate::sys;
use kopi_ring::DropReason;
use std::ffi::{c_int, c_uint};

sys::stats_callback!(pub(super) stats_get, all_stats);

operations! {
    /// `stats` and `queues` may be the same structure; `queues` may be null.
    all_stats(port, stats: *mut sys::rte_eth_stats, queues: *mut sys::QueueStats) {
        // SAFETY: from ethdev.
        let Some(stats) = (unsafe { stats.as_mut() }) else { return code(libc::EINVAL) };
        let totals = Totals::of(&mut port.control.state());
        let (rx, tx) = (totals.all_rx(), totals.all_tx());
        stats.ipackets = rx.packets;
        stats.ibytes = rx.bytes;
        stats.ierrors = rx.errors();
        stats.rx_nombuf = rx.no_mbuf;
        stats.imissed = totals.drops(DropReason::RxRingFull);
        stats.opackets = tx.packets;
        stats.obytes = tx.bytes;
        stats.oerrors = tx.errors();
        // SAFETY: from ethdev. `stats`, which may be the same, is used no more.
        let Some(queues) = (unsafe { queues.as_mut() }) else { return 0 };
        let rx = queues.q_ipackets.iter_mut().zip(&mut queues.q_ibytes).zip(&mut queues.q_errors);
        for (((packets, bytes), errors), queue) in rx.zip(&totals.rx) {
            (*packets, *bytes, *errors) = (queue.packets, queue.bytes, queue.errors());
        }
        for ((packets, bytes), queue) in queues.q_opackets.iter_mut().zip(&mut queues.q_obytes).zip(&totals.tx) {
            (*packets, *bytes) = (queue.packets, queue.bytes);
        }
        0
    }

    /// All counters of the driver, those of the extended statistics too.
    pub(super) stats_reset(port) {
        Totals::reset(&mut port.control.state());
        0
    }

    /// The number of values, which are written if there is room for all.
    pub(super) xstats_get(port, to: *mut sys::rte_eth_xstat, room: c_uint) {
        let values = Totals::of(&mut port.control.state()).extended();
        if !to.is_null() && room as usize >= values.len() {
            for (id, value) in values.iter().enumerate() {
                let stat = sys::rte_eth_xstat { id: id as u64, value: *value };
                // SAFETY: the array has room for all values.
                unsafe { to.wrapping_add(id).write(stat) };
            }
        }
        c_int::try_from(values.len()).unwrap_or(0)
    }

    /// The number of names, which are written if there is room for all.
    pub(super) xstats_get_names(_port, to: *mut sys::rte_eth_xstat_name, room: c_uint) {
        let count = names().count();
        if !to.is_null() && room as usize >= count {
            for (id, name) in names().enumerate() {
                // SAFETY: the array has room for all names.
                let stat = unsafe { &mut *to.wrapping_add(id) };
                copy_text(&mut stat.name, &name);
            }
        }
        c_int::try_from(count).unwrap_or(0)
    }
}

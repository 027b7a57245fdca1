//! Operations that choose how frames are spread over RX queues.

use super::port;
use crate::device::rss_key;
use crate::errno::code;
use crate::limits::RSS_TYPES;
use crate::log::error;
use crate::port::Port;
use crate::rss::Reta;
use crate::sys;
use kopi_ring::message::{RETA_SIZE, RSS};
use std::ffi::c_int;

/// Entries of a group in which ethdev passes a table.
const GROUP: usize = sys::RTE_ETH_RETA_GROUP_SIZE as usize;

/// Refuses a choice that the daemon knows nothing of. Without a daemon it stands for the next one.
fn is_known(port: &Port) -> bool {
    let state = port.control.state();
    let known = !state.attached || state.protocol >= RSS;
    drop(state);
    if !known {
        error!("port {}: this daemon is too old to spread frames as the application chooses", port.device.port());
    }
    known
}

/// The groups of a whole table.
///
/// # Safety
///
/// `groups` is null or an array of as many groups as a table of `size` entries has, and nobody else uses it meanwhile.
unsafe fn groups<'a>(
    groups: *mut sys::rte_eth_rss_reta_entry64,
    size: u16,
) -> Option<&'a mut [sys::rte_eth_rss_reta_entry64]> {
    if groups.is_null() || usize::from(size) != RETA_SIZE {
        return None;
    }
    // SAFETY: by the caller's word.
    Some(unsafe { std::slice::from_raw_parts_mut(groups, RETA_SIZE.div_ceil(GROUP)) })
}

/// The entries of a table that are asked for, each with its group's.
fn asked<'a>(
    reta: &'a mut Reta,
    groups: &'a mut [sys::rte_eth_rss_reta_entry64],
) -> impl Iterator<Item = (&'a mut u8, &'a mut u16)> {
    reta.chunks_mut(GROUP).zip(groups).flat_map(|(entries, group)| {
        let mask = group.mask;
        let pairs = entries.iter_mut().zip(&mut group.reta).enumerate();
        pairs.filter(move |(at, _)| mask >> at & 1 == 1).map(|(_, pair)| pair)
    })
}

operations! {
    /// A null key stays as it is.
    pub(super) hash_update(port, conf: *mut sys::rte_eth_rss_conf) {
        // SAFETY: from ethdev, which passes the application's structure on.
        let Some(conf) = (unsafe { conf.as_ref() }) else { return code(libc::EINVAL) };
        // SAFETY: from ethdev: a key has as many bytes as its length says.
        let key = match unsafe { rss_key(conf) } {
            Ok(key) => key,
            Err(problem) => {
                error!("port {}: {problem}", port.device.port());
                return code(libc::EINVAL);
            }
        };
        if conf.rss_hf & !RSS_TYPES != 0 {
            error!("port {}: hash types {:#x}, there are {RSS_TYPES:#x}", port.device.port(), conf.rss_hf);
            return code(libc::EINVAL);
        }
        if !is_known(port) {
            return code(libc::ENOTSUP);
        }
        super::change(port, libc::EIO, |want| {
            want.rss.types = conf.rss_hf;
            want.rss.key = key.or(want.rss.key);
        })
    }

    /// There is no key to report as long as there was no daemon and none was chosen.
    pub(super) hash_conf_get(port, conf: *mut sys::rte_eth_rss_conf) {
        // SAFETY: from ethdev, which passes the application's structure on.
        let Some(conf) = (unsafe { conf.as_mut() }) else { return code(libc::EINVAL) };
        let state = port.control.state();
        let welcome = state.welcome.as_ref().filter(|_| state.protocol >= RSS);
        let usual = welcome.map(|welcome| welcome.rss_key);
        let (types, key) = (state.want.rss.types, state.want.rss.key.or(usual));
        let chooses = welcome.is_some() || !state.attached;
        drop(state);
        conf.rss_hf = if chooses { types } else { RSS_TYPES };
        sys::set_toeplitz(conf);
        let room = usize::from(conf.rss_key_len);
        conf.rss_key_len = 0;
        if let Some(key) = key.filter(|_| chooses) {
            if !conf.rss_key.is_null() && room >= key.len() {
                // SAFETY: from ethdev: where the application wants its key is room for as many bytes as it says.
                unsafe { conf.rss_key.copy_from_nonoverlapping(key.as_ptr(), key.len()) };
            }
            conf.rss_key_len = u8::try_from(key.len()).unwrap_or(0);
        }
        0
    }

    pub(super) reta_update(port, entries: *mut sys::rte_eth_rss_reta_entry64, size: u16) {
        // SAFETY: from ethdev, which passes the application's array on.
        let Some(groups) = (unsafe { groups(entries, size) }) else {
            error!("port {}: a redirection table of {size} entries, there are {RETA_SIZE}", port.device.port());
            return code(libc::EINVAL);
        };
        let queues = port.device.rx_queues();
        let mut reta = port.control.state().want.rss.reta(queues);
        for (entry, queue) in asked(&mut reta, groups) {
            match u8::try_from(*queue).ok().filter(|queue| u16::from(*queue) < queues) {
                Some(queue) => *entry = queue,
                None => {
                    error!("port {}: RX queue {queue} in the redirection table, there are {queues}", port.device.port());
                    return code(libc::EINVAL);
                }
            }
        }
        if !is_known(port) {
            return code(libc::ENOTSUP);
        }
        super::change(port, libc::EIO, |want| want.rss.reta = Some(reta))
    }

    pub(super) reta_query(port, entries: *mut sys::rte_eth_rss_reta_entry64, size: u16) {
        // SAFETY: from ethdev, which passes the application's array on.
        let Some(groups) = (unsafe { groups(entries, size) }) else { return code(libc::EINVAL) };
        let mut reta = port.control.state().want.rss.reta(port.device.rx_queues());
        asked(&mut reta, groups).for_each(|(entry, queue)| *queue = u16::from(*entry));
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a table are those whose bits are set, in both groups.
    #[test]
    fn masks_choose_entries() {
        let mut reta: Reta = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let group = |mask| sys::rte_eth_rss_reta_entry64 { mask, reta: [999; GROUP] };
        let mut groups = [group(1 << 63 | 1), group(0b110)];
        let seen: Vec<_> = asked(&mut reta, &mut groups).map(|(entry, queue)| (*entry, *queue)).collect();
        assert_eq!(seen, [(0, 999), (63, 999), (65, 999), (66, 999)]);
    }
}

//! From the actions of a flow rule to what becomes of its frames: by the daemon, and in the driver.

use super::error::FlowError;
use crate::steering::Telling;
use crate::sys;
use crate::sys::{rte_flow_action, rte_flow_action_mark, rte_flow_action_queue, rte_flow_action_rss};
use kopi_ring::message::FlowAction;
use std::ffi::CStr;

/// Most actions of a rule, with those that say nothing.
const MOST: usize = 64;

/// How the port spreads frames over its RX queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spreading {
    /// RX queues.
    pub(super) queues: u16,
    /// The fields that the RSS hash is over.
    pub(super) types: u64,
}

/// What becomes of the frames of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Actions {
    /// Whether the daemon drops them.
    pub(super) action: FlowAction,
    /// The queue that they go to, if that is not left to RSS.
    pub(super) queue: Option<u16>,
    /// What the driver does with them.
    pub(super) telling: Telling,
}

/// Reads the actions of a rule of a port that spreads frames in this way.
///
/// # Errors
///
/// [`FlowError`] if they cannot be, or make no sense.
///
/// # Safety
///
/// `actions` is null or an array of actions that ends with `RTE_FLOW_ACTION_TYPE_END`, as `rte_flow` describes it.
pub(super) unsafe fn read(actions: *const rte_flow_action, spreading: Spreading) -> Result<Actions, FlowError> {
    let number = |errno, text| Err(FlowError::new(errno, sys::RTE_FLOW_ERROR_TYPE_ACTION_NUM, text));
    if actions.is_null() {
        return number(libc::EINVAL, c"there are no actions");
    }
    let mut reader = ActionReader { telling: Telling::default(), fate: None, spreading };
    for at in 0..MOST {
        // SAFETY: the end has not come yet.
        let action = unsafe { &*actions.wrapping_add(at) };
        if action.type_ == sys::RTE_FLOW_ACTION_TYPE_END {
            return Ok(reader.finish());
        }
        // SAFETY: an action of the application's.
        unsafe { reader.action(action) }?;
    }
    number(libc::ENOTSUP, c"more than 64 actions")
}

/// What was read so far.
struct ActionReader {
    telling: Telling,
    fate: Option<Fate>,
    spreading: Spreading,
}

/// Where frames go. A rule has one.
#[derive(Clone, Copy)]
enum Fate {
    Drop,
    Queue(u16),
    Spread,
}

impl ActionReader {
    /// Reads the next action.
    ///
    /// # Safety
    ///
    /// An action as `rte_flow` describes it: its configuration is what its type says, or null.
    unsafe fn action(&mut self, action: &rte_flow_action) -> Result<(), FlowError> {
        let refuse = |errno, text| Err(FlowError::new(errno, sys::RTE_FLOW_ERROR_TYPE_ACTION, text).of(action));
        let fate = match action.type_ {
            sys::RTE_FLOW_ACTION_TYPE_VOID => return Ok(()),
            sys::RTE_FLOW_ACTION_TYPE_MARK => {
                // SAFETY: null, or by the caller's word.
                let mark = unsafe { action.conf.cast::<rte_flow_action_mark>().as_ref() };
                self.telling = self.telling.mark(mark.ok_or_else(|| bare(action))?.id);
                return Ok(());
            }
            sys::RTE_FLOW_ACTION_TYPE_FLAG => {
                self.telling = self.telling.flag();
                return Ok(());
            }
            // Its number only matters to who shares a counter, which is another action.
            sys::RTE_FLOW_ACTION_TYPE_COUNT => {
                self.telling = self.telling.count();
                return Ok(());
            }
            sys::RTE_FLOW_ACTION_TYPE_PASSTHRU => Fate::Spread,
            sys::RTE_FLOW_ACTION_TYPE_DROP => Fate::Drop,
            sys::RTE_FLOW_ACTION_TYPE_QUEUE => {
                // SAFETY: null, or by the caller's word.
                let queue = unsafe { action.conf.cast::<rte_flow_action_queue>().as_ref() };
                self.queue(action, queue.ok_or_else(|| bare(action))?.index)?
            }
            sys::RTE_FLOW_ACTION_TYPE_RSS => {
                // SAFETY: null, or by the caller's word.
                let rss = unsafe { action.conf.cast::<rte_flow_action_rss>().as_ref() };
                // SAFETY: its list of queues is what it says, by the caller's word.
                unsafe { self.rss(action, rss.ok_or_else(|| bare(action))?) }?
            }
            _ => return refuse(libc::ENOTSUP, c"actions are queue, rss, passthru, drop, mark, flag and count"),
        };
        if self.fate.is_some() {
            return refuse(libc::EINVAL, c"of queue, rss, passthru and drop, a rule has one");
        }
        self.fate = Some(fate);
        Ok(())
    }

    fn queue(&self, action: &rte_flow_action, index: u16) -> Result<Fate, FlowError> {
        if index < self.spreading.queues {
            return Ok(Fate::Queue(index));
        }
        Err(conf(action, libc::EINVAL, c"the port is not configured with that many RX queues"))
    }

    /// Frames are spread as all others of the port, or not at all.
    ///
    /// # Safety
    ///
    /// `rss` has a list of as many queues as it says.
    unsafe fn rss(&self, action: &rte_flow_action, rss: &rte_flow_action_rss) -> Result<Fate, FlowError> {
        let refuse = |text| Err(conf(action, libc::ENOTSUP, text));
        let has_function = matches!(rss.func, sys::RTE_ETH_HASH_FUNCTION_DEFAULT | sys::RTE_ETH_HASH_FUNCTION_TOEPLITZ);
        if !has_function || rss.level > 1 {
            return refuse(c"rss of a rule has the port's hash function, over outer headers");
        }
        if rss.key_len > 0 && !rss.key.is_null() {
            return refuse(c"rss of a rule has the port's key: give none");
        }
        let queues = if rss.queue.is_null() || rss.queue_num > self.spreading.queues.into() {
            &[][..]
        } else {
            // SAFETY: by the caller's word.
            unsafe { std::slice::from_raw_parts(rss.queue, rss.queue_num as usize) }
        };
        // One queue needs no hash.
        if let &[index] = queues {
            return self.queue(action, index);
        }
        if !queues.iter().copied().eq(0..self.spreading.queues) {
            return refuse(c"rss of a rule is over all RX queues of the port, in their order, or over one");
        }
        if rss.types != 0 && rss.types != self.spreading.types {
            return refuse(c"rss of a rule is over the fields that the port's is over (rss_hf)");
        }
        Ok(Fate::Spread)
    }

    fn finish(self) -> Actions {
        let (action, queue, telling) = match self.fate {
            // What is counted has to come here first.
            Some(Fate::Drop) if self.telling.counts() => (FlowAction::Pass, None, Telling::default().count().drop()),
            Some(Fate::Drop) => (FlowAction::Drop, None, Telling::default()),
            Some(Fate::Queue(index)) => (FlowAction::Pass, Some(index), self.telling),
            Some(Fate::Spread) | None => (FlowAction::Pass, None, self.telling),
        };
        Actions { action, queue, telling }
    }
}

/// An action that lacks its configuration.
fn bare(action: &rte_flow_action) -> FlowError {
    conf(action, libc::EINVAL, c"this action needs a configuration")
}

fn conf(action: &rte_flow_action, errno: i32, text: &'static CStr) -> FlowError {
    FlowError::new(errno, sys::RTE_FLOW_ERROR_TYPE_ACTION_CONF, text).of(action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;
    use std::ptr::{from_ref, null};

    const SPREADING: Spreading = Spreading { queues: 4, types: sys::RTE_ETH_RSS_IP };

    fn action<T>(kind: u32, conf: &T) -> rte_flow_action {
        rte_flow_action { type_: kind, conf: from_ref(conf).cast::<c_void>() }
    }

    fn plain(kind: u32) -> rte_flow_action {
        rte_flow_action { type_: kind, conf: null() }
    }

    fn read_all(actions: &[rte_flow_action]) -> Result<Actions, FlowError> {
        let mut actions = actions.to_vec();
        actions.push(plain(sys::RTE_FLOW_ACTION_TYPE_END));
        // SAFETY: actions that are complete, or have no configuration.
        unsafe { read(actions.as_ptr(), SPREADING) }
    }

    fn rss(queues: &[u16]) -> rte_flow_action_rss {
        rte_flow_action_rss {
            func: sys::RTE_ETH_HASH_FUNCTION_DEFAULT,
            level: 0,
            types: 0,
            key_len: 0,
            queue_num: queues.len().try_into().unwrap(),
            key: null(),
            queue: queues.as_ptr(),
        }
    }

    const VOID: u32 = sys::RTE_FLOW_ACTION_TYPE_VOID;
    const MARK: u32 = sys::RTE_FLOW_ACTION_TYPE_MARK;
    const FLAG: u32 = sys::RTE_FLOW_ACTION_TYPE_FLAG;
    const COUNT: u32 = sys::RTE_FLOW_ACTION_TYPE_COUNT;
    const PASSTHRU: u32 = sys::RTE_FLOW_ACTION_TYPE_PASSTHRU;
    const DROP: u32 = sys::RTE_FLOW_ACTION_TYPE_DROP;
    const QUEUE: u32 = sys::RTE_FLOW_ACTION_TYPE_QUEUE;
    const RSS: u32 = sys::RTE_FLOW_ACTION_TYPE_RSS;

    fn pass(queue: Option<u16>, telling: Telling) -> Result<Actions, FlowError> {
        Ok(Actions { action: FlowAction::Pass, queue, telling })
    }

    /// Each action becomes what the daemon or the driver does, alone and together.
    #[test]
    fn actions_become_what_is_done() {
        let none = Telling::default();
        let (mark, queue) = (rte_flow_action_mark { id: 0xabcd_1234 }, rte_flow_action_queue { index: 3 });
        assert_eq!(read_all(&[action(QUEUE, &queue)]), pass(Some(3), none));
        assert_eq!(
            read_all(&[plain(VOID), action(MARK, &mark), action(QUEUE, &queue)]),
            pass(Some(3), none.mark(mark.id))
        );
        assert_eq!(read_all(&[plain(COUNT), plain(FLAG), plain(PASSTHRU)]), pass(None, none.count().flag()));
        assert_eq!(read_all(&[plain(PASSTHRU)]), pass(None, none));
        assert_eq!(read_all(&[plain(COUNT)]), pass(None, none.count()));
        assert_eq!(read_all(&[plain(DROP)]), Ok(Actions { action: FlowAction::Drop, queue: None, telling: none }));
        assert_eq!(read_all(&[plain(COUNT), plain(DROP)]), pass(None, none.count().drop()));
        assert_eq!(read_all(&[plain(DROP), action(MARK, &mark)]).unwrap().action, FlowAction::Drop);
        assert!(!none.is_needed() && none.flag().is_needed());
    }

    /// RSS is that of the port, or one queue; anything else is refused in words that name it.
    #[test]
    fn rss_is_that_of_the_port() {
        let all = [0, 1, 2, 3];
        assert_eq!(read_all(&[action(RSS, &rss(&all))]), pass(None, Telling::default()));
        let typed = rte_flow_action_rss { types: SPREADING.types, ..rss(&all) };
        assert_eq!(read_all(&[action(RSS, &typed)]), pass(None, Telling::default()));
        assert_eq!(read_all(&[action(RSS, &rss(&[2]))]), pass(Some(2), Telling::default()));
        let key = [0_u8; 40];
        let refused = [
            (rss(&[]), "all RX queues"),
            (rss(&[0, 1]), "all RX queues"),
            (rss(&[1, 0, 2, 3]), "all RX queues"),
            (rss(&[0, 1, 2, 3, 4]), "all RX queues"),
            (rte_flow_action_rss { queue_num: u32::MAX, ..rss(&all) }, "all RX queues"),
            (rte_flow_action_rss { queue: null(), ..rss(&all) }, "all RX queues"),
            (rte_flow_action_rss { types: sys::RTE_ETH_RSS_TCP, ..rss(&all) }, "rss_hf"),
            (rte_flow_action_rss { key_len: 40, key: key.as_ptr(), ..rss(&all) }, "key"),
            (rte_flow_action_rss { func: 2, ..rss(&all) }, "hash function"),
            (rte_flow_action_rss { level: 2, ..rss(&all) }, "outer headers"),
        ];
        for (rss, text) in refused {
            let error = read_all(&[action(RSS, &rss)]).unwrap_err();
            assert_eq!((error.errno, error.kind), (libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ACTION_CONF));
            assert!(error.text.to_str().unwrap().contains(text), "{:?}: {text}", error.text);
        }
        assert_eq!(read_all(&[action(RSS, &rss(&[4]))]).unwrap_err().errno, libc::EINVAL);
    }

    /// What makes no sense is refused: two fates, queues that there are none of, missing configurations, unknown actions.
    #[test]
    fn senseless_actions_are_refused() {
        let queue = rte_flow_action_queue { index: 4 };
        let refused = |actions: &[rte_flow_action]| {
            let error = read_all(actions).unwrap_err();
            (error.errno, error.kind)
        };
        let (action_error, conf_error) = (sys::RTE_FLOW_ERROR_TYPE_ACTION, sys::RTE_FLOW_ERROR_TYPE_ACTION_CONF);
        assert_eq!(refused(&[plain(DROP), plain(PASSTHRU)]), (libc::EINVAL, action_error));
        assert_eq!(refused(&[action(QUEUE, &queue)]), (libc::EINVAL, conf_error));
        for bare in [QUEUE, MARK, RSS] {
            assert_eq!(refused(&[plain(bare)]), (libc::EINVAL, conf_error));
        }
        for other in [3, 10, 99, u32::MAX] {
            assert_eq!(refused(&[plain(other)]), (libc::ENOTSUP, action_error));
        }
        assert_eq!(refused(&vec![plain(VOID); MOST]), (libc::ENOTSUP, sys::RTE_FLOW_ERROR_TYPE_ACTION_NUM));
        // SAFETY: null is allowed.
        assert_eq!(unsafe { read(null(), SPREADING) }.unwrap_err().errno, libc::EINVAL);
    }
}

//! The apps and their ports.

use crate::control::app::{App, AttachGrant};
use crate::control::identity::Identity;
use crate::fib::{FibPort, is_group};
use crate::ids::{Generation, PortId};
use crate::worker::counters::PortTotals;
use kopi_policy::Ruleset;
use kopi_ring::layout::MAX_MTU;
use kopi_ring::message::{Hello, Mac, Settings};
use std::hash::{DefaultHasher, Hash, Hasher};
use thiserror::Error;

/// Of the ports, one in so many is kept for users that have none.
const RESERVED: usize = 8;
/// Smallest MTU that a port may have: the minimum of IPv4 (RFC 791, 3.2).
const MIN_MTU: u16 = 68;

/// How the physical port is called in every report, so no app may have that name.
pub const WIRE_NAME: &str = "wire";
/// How all ports together are called where one can be chosen.
pub const ANY_NAME: &str = "any";
/// How the host's own port is called.
pub const HOST_NAME: &str = kopi_config::policy::App::HOST;

/// Whether a name means something else to operators than an app.
fn is_reserved(name: &str) -> bool {
    [WIRE_NAME, ANY_NAME, HOST_NAME].contains(&name)
}

/// Why a port or a setting was refused. The text goes to the app.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// No number is free.
    #[error("all {0} ports are taken; raise [limits] apps in kopid's configuration")]
    Full(usize),
    /// The user has as many as one may have.
    #[error(
        "the applications of this user have {0} ports, as many as [limits] apps_per_user allows: end one of them, or raise it in \
         kopid's configuration"
    )]
    UserFull(usize),
    /// What is free is kept for users that have none.
    #[error(
        "all but {0} ports are taken, and those are for users that have none yet; raise [limits] apps in kopid's configuration"
    )]
    Kept(usize),
    /// Another app has the name.
    #[error("the name `{name}` is taken by pid {pid}; choose another with name=")]
    NameTaken {
        /// The name.
        name: String,
        /// The process that has it.
        pid: i32,
    },
    /// The name has characters that would confuse people or shells.
    #[error("the name `{0}` may have letters, digits, dot, dash and underscore only")]
    BadName(String),
    /// The name means something else to operators.
    #[error("the name `{0}` is not for apps; choose another with name=")]
    Reserved(String),
    /// Another app has the address.
    #[error("the MAC address {} is taken by `{}`", format_mac(.0), .1)]
    MacTaken(Mac, String),
    /// Not an address that a port can have.
    #[error("{} is no unicast MAC address", format_mac(.0))]
    BadMac(Mac),
    /// The policy does not let it attach.
    #[error(transparent)]
    Policy(#[from] kopi_policy::Refusal),
    /// The policy gives the port another address.
    #[error("the policy gives this app the MAC address {}, not {}", format_mac(.0), format_mac(.1))]
    OtherMac(Mac, Mac),
    /// There is no host to share an address with.
    #[error("the policy gives this app the address of the host, and kopid has no port for the host: [host] tap")]
    NoHost,
    /// The policy gives the address to somebody else.
    #[error("the policy keeps the MAC address {} for `{}`", format_mac(.0), .1)]
    MacReserved(Mac, String),
    /// The MTU is out of bounds.
    #[error("MTU {mtu} is out of bounds, the wire carries {MIN_MTU} to {max}")]
    Mtu {
        /// The MTU asked for.
        mtu: u16,
        /// The wire's.
        max: u16,
    },
}

/// All apps, by port number.
#[derive(Debug)]
pub struct PortTable {
    slots: Vec<Slot>,
    generation: Generation,
    /// The host's port, which is no app's.
    host: Option<PortId>,
}

#[derive(Debug, Default)]
struct Slot {
    app: Option<Box<App>>,
    /// Workers that have yet to let go of the number's rings.
    returning: usize,
}

impl PortTable {
    /// A table for up to `apps` apps. Their numbers start at 1.
    #[must_use]
    pub fn new(apps: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(apps + 1, Slot::default);
        Self { slots, generation: 0, host: None }
    }

    /// Gives the host its port, granted `grant`, with the address `mac` if that is one, and the wire's MTU. It takes a number
    /// beside those of the apps.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if no number is free, or the host has its port.
    pub fn admit_host(&mut self, mac: Mac, others: &[Mac], mtu: u16, grant: AttachGrant) -> Result<&App, Refusal> {
        let id = PortId::try_from(self.slots.len()).map_err(|_| Refusal::Full(self.capacity()))?;
        if self.host.is_some() {
            return Err(Refusal::Reserved(HOST_NAME.to_owned()));
        }
        let mac = if is_group(&mac) || mac == [0; 6] { self.invent_mac(HOST_NAME, 0, None) } else { mac };
        let mut macs = vec![mac];
        macs.extend(others.iter().filter(|other| **other != mac));
        self.generation = self.generation.wrapping_add(1);
        let mut app = App::new(id, self.generation, (Identity::of_the_kernel(), 0), grant);
        (app.name, app.asked, app.driver) = (HOST_NAME.to_owned(), HOST_NAME.to_owned(), "tun".to_owned());
        // The kernel chooses for itself among multicast.
        app.settings = Settings { mtu, macs, all_multicast: true, ..Settings::default() };
        self.host = Some(id);
        self.slots.push(Slot::default());
        Ok(self.slots[usize::from(id)].app.insert(Box::new(app)))
    }

    /// The host's port.
    #[must_use]
    pub const fn host(&self) -> Option<PortId> {
        self.host
    }

    /// Whether a user may have one more port: no more than `limit`, and none of the last eighth of all if it has some.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if not.
    pub fn check_account(&self, account: u32, limit: usize) -> Result<(), Refusal> {
        let apps = || self.apps().filter(|app| Some(app.id) != self.host);
        let (all, own) = (apps().count(), apps().filter(|app| app.account == account).count());
        let kept = self.capacity() / RESERVED;
        if all >= self.capacity() {
            return Err(Refusal::Full(self.capacity()));
        }
        if own >= limit {
            return Err(Refusal::UserFull(own));
        }
        if own > 0 && all + kept >= self.capacity() { Err(Refusal::Kept(kept)) } else { Ok(()) }
    }

    /// Apps that there may be.
    const fn capacity(&self) -> usize {
        self.slots.len() - 1 - self.host.is_some() as usize
    }

    /// Gives a port to the process `identity`, whose user limits know as `account`, and which is granted `grant`. `base` are the
    /// counters of each number so far, `max_mtu` is the wire's.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if no number is free, or the name or address asked for cannot be had.
    pub fn admit(
        &mut self,
        hello: &Hello,
        (identity, account): (Identity, u32),
        grant: AttachGrant,
        policy: Option<&Ruleset>,
        max_mtu: u16,
        base: impl Fn(PortId) -> PortTotals,
    ) -> Result<&mut App, Refusal> {
        let asked = grant.name.as_deref().unwrap_or(&hello.name);
        let name = self.name_for(asked, &identity.comm, policy)?;
        let mac = match (grant.mac, hello.mac) {
            (Some(mac), asked) if asked != [0; 6] && asked != mac => return Err(Refusal::OtherMac(mac, asked)),
            (Some(mac), _) => mac,
            (None, [0, 0, 0, 0, 0, 0]) => self.invent_mac(&name, identity.uid, policy),
            (None, mac) => mac,
        };
        if grant.shared && grant.mac.is_none() {
            return Err(Refusal::NoHost);
        }
        self.check_mac(None, grant.shared, &mac)?;
        check_reserved(policy, &mac, grant.entry)?;
        let free = |slot: &Slot| slot.app.is_none() && slot.returning == 0;
        let at = self.slots.iter().skip(1).position(free).ok_or_else(|| Refusal::Full(self.capacity()))? + 1;
        let id = PortId::try_from(at).map_err(|_| Refusal::Full(self.capacity()))?;
        self.generation = self.generation.wrapping_add(1);
        let mut app = App::new(id, self.generation, (identity, account), grant);
        (app.name, app.asked, app.driver) = (name, hello.name.clone(), hello.driver.clone());
        app.settings = Settings { mtu: max_mtu.min(1500), macs: vec![mac], ..Settings::default() };
        app.base = base(id);
        Ok(self.slots[at].app.insert(Box::new(app)))
    }

    /// Changes what a port receives and carries.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and the earlier settings stay.
    pub fn change(
        &mut self,
        id: PortId,
        settings: Settings,
        policy: Option<&Ruleset>,
        max_mtu: u16,
    ) -> Result<(), Refusal> {
        if !(MIN_MTU..=max_mtu.min(MAX_MTU)).contains(&settings.mtu) {
            return Err(Refusal::Mtu { mtu: settings.mtu, max: max_mtu });
        }
        let main = settings.macs.first().copied().unwrap_or_default();
        if is_group(&main) || main == [0; 6] {
            return Err(Refusal::BadMac(main));
        }
        let grant = self.get(id).map(|app| (app.grant.entry, app.grant.mac, app.grant.shared));
        let (entry, own, shared) = grant.unwrap_or_default();
        for mac in settings.macs.iter().filter(|mac| !is_group(mac)) {
            self.check_mac(Some(id), shared, mac)?;
            match own {
                Some(own) if own != *mac => return Err(Refusal::OtherMac(own, *mac)),
                Some(_) => {}
                None => check_reserved(policy, mac, entry)?,
            }
        }
        if let Some(app) = self.get_mut(id) {
            app.settings = settings;
            app.grant.port_policy = None;
        }
        Ok(())
    }

    /// Removes an app. Its number is free again once every worker has let go of its rings.
    pub fn remove(&mut self, id: PortId) -> Option<Box<App>> {
        self.slots.get_mut(usize::from(id)).and_then(|slot| slot.app.take())
    }

    /// Notes that `workers` workers were asked to let go of the port's rings.
    pub fn await_return(&mut self, id: PortId, workers: usize) {
        if let Some(slot) = self.slots.get_mut(usize::from(id)) {
            slot.returning += workers;
        }
    }

    /// Notes that one worker has let go.
    pub fn returned(&mut self, id: PortId) {
        if let Some(slot) = self.slots.get_mut(usize::from(id)) {
            slot.returning = slot.returning.saturating_sub(1);
        }
    }

    /// Whether some worker has yet to let go of some rings.
    #[must_use]
    pub fn awaits_replies(&self) -> bool {
        self.slots.iter().any(|slot| slot.returning > 0)
    }

    /// The app with this port.
    #[must_use]
    pub fn get(&self, id: PortId) -> Option<&App> {
        self.slots.get(usize::from(id)).and_then(|slot| slot.app.as_deref())
    }

    /// The app with this port, to be changed.
    pub fn get_mut(&mut self, id: PortId) -> Option<&mut App> {
        self.slots.get_mut(usize::from(id)).and_then(|slot| slot.app.as_deref_mut())
    }

    /// All apps, by number.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.slots.iter().filter_map(|slot| slot.app.as_deref())
    }

    /// All apps, to be changed.
    pub fn apps_mut(&mut self) -> impl Iterator<Item = &mut App> {
        self.slots.iter_mut().filter_map(|slot| slot.app.as_deref_mut())
    }

    /// The running ports, as the forwarding table wants them. A port whose rings are not served receives nothing and owns its address still.
    #[must_use]
    pub fn members(&self) -> Vec<FibPort> {
        let running = self.apps().filter(|app| app.is_served());
        running.map(|app| FibPort { id: app.id, settings: app.settings.clone(), link: app.grant.link }).collect()
    }

    fn name_for(&self, asked: &str, comm: &str, policy: Option<&Ruleset>) -> Result<String, Refusal> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !asked.is_empty() {
            if !asked.chars().all(allowed) {
                return Err(Refusal::BadName(asked.into()));
            }
            if is_reserved(asked) {
                return Err(Refusal::Reserved(asked.into()));
            }
            return match self.apps().find(|app| app.name == asked) {
                Some(app) => Err(Refusal::NameTaken { name: asked.into(), pid: app.identity.pid }),
                None => Ok(asked.into()),
            };
        }
        let mut name: String = comm.chars().filter(|c| allowed(*c)).take(24).collect();
        if name.is_empty() || is_reserved(&name) {
            name = "app".into();
        }
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        let mut candidates = std::iter::once(name.clone()).chain(numbered);
        let free = candidates.find(|name| !names_app(policy, name) && self.apps().all(|app| app.name != *name));
        Ok(free.unwrap_or(name))
    }

    /// A locally administered address (IEEE 802-2014, 8.4) made from the name and user, so that an app finds itself
    /// under the same address when it comes again.
    fn invent_mac(&self, name: &str, uid: u32, policy: Option<&Ruleset>) -> Mac {
        let candidate = |salt: u32| {
            let mut hasher = DefaultHasher::new();
            (name, uid, salt).hash(&mut hasher);
            let [a, b, c, d, e, ..] = hasher.finish().to_le_bytes();
            [0x02, a, b, c, d, e]
        };
        let mut candidates = (0..).map(candidate);
        let free = |mac: &Mac| self.check_mac(None, false, mac).is_ok() && check_reserved(policy, mac, None).is_ok();
        candidates.find(free).unwrap_or([2, 0, 0, 0, 0, 1])
    }

    /// Whether app `owner` may have the address, which is `shared` with the host or not.
    fn check_mac(&self, owner: Option<PortId>, shared: bool, mac: &Mac) -> Result<(), Refusal> {
        if is_group(mac) || *mac == [0; 6] {
            return Err(Refusal::BadMac(*mac));
        }
        let together = |app: &App| shared && (Some(app.id) == self.host || app.grant.shared);
        let others = self.apps().filter(|app| Some(app.id) != owner && !together(app));
        match others.into_iter().find(|app| app.settings.macs.contains(mac)) {
            Some(app) => Err(Refusal::MacTaken(*mac, app.name.clone())),
            None => Ok(()),
        }
    }
}

/// Why an app cannot stay as it is with another `grant`, if it cannot: that has another name or address for it, or its own is
/// to others.
#[must_use]
pub fn conflict(app: &App, grant: &AttachGrant, policy: Option<&Ruleset>) -> Option<String> {
    let macs = || app.settings.macs.iter().filter(|mac| !is_group(mac));
    let renamed = match &grant.name {
        Some(name) => *name != app.name,
        None => names_app(policy, &app.name),
    };
    let moved = grant.mac.is_some_and(|own| macs().any(|mac| *mac != own)) || grant.shared != app.grant.shared;
    if renamed || moved {
        return Some("the policy has another name or address for it now".to_owned());
    }
    macs().find_map(|mac| check_reserved(policy, mac, grant.entry).err()).map(|refusal| refusal.to_string())
}

/// Whether the policy has the name for one of its apps.
fn names_app(policy: Option<&Ruleset>, name: &str) -> bool {
    policy.is_some_and(|ruleset| ruleset.names_app(name))
}

/// Refuses an address that the policy has for another app than that of `entry`.
fn check_reserved(policy: Option<&Ruleset>, mac: &Mac, entry: Option<usize>) -> Result<(), Refusal> {
    let apps = policy.iter().flat_map(|ruleset| ruleset.policy().apps.iter().enumerate());
    let mut owners = apps.filter(|(_, app)| app.mac.is_some_and(|own| own.bytes() == *mac));
    let other = owners.find(|(at, _)| Some(*at) != entry);
    other.map_or(Ok(()), |(_, app)| Err(Refusal::MacReserved(*mac, app.name.clone())))
}

/// The address in the usual notation.
#[must_use]
pub fn format_mac(mac: &Mac) -> String {
    kopi_packet::MacAddr::new(*mac).to_string()
}

#[cfg(test)]
mod tests;

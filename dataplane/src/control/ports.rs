//! The apps and their ports.

use crate::control::identity::Identity;
use crate::control::regions::{Charge, Making};
use crate::fib::{FibPort, is_group};
use crate::ids::{Generation, PortId};
use crate::worker::counters::PortTotals;
use kopi_packet::LinkProtocols;
use kopi_policy::{PortPolicy, Ruleset};
use kopi_ring::layout::MAX_MTU;
use kopi_ring::message::{Hello, Mac, Settings};
use kopi_ring::status::DaemonStatus;
use kopi_ring::{Doorbell, Region};
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

/// One attached app.
#[derive(Debug)]
pub struct App {
    /// Number of its port.
    pub id: PortId,
    /// Which use of the number.
    pub generation: Generation,
    /// Its name, unique among the apps.
    pub name: String,
    /// The name it asked for; empty if it did not.
    pub asked: String,
    /// Who it is.
    pub identity: Identity,
    /// Its user, as limits know it.
    pub account: u32,
    /// What the policy says of it.
    pub grant: AttachGrant,
    /// What its driver says of itself, for the operator.
    pub driver: String,
    /// What its port is to receive and to carry. The first address is the main one.
    pub settings: Settings,
    /// Whether it has had rings before.
    pub started: bool,
    /// Whether the log has been told that it has as many connections as it may have.
    pub told_of_limit: bool,
    /// Its rings, while it is started.
    pub region: Option<Region>,
    /// Their memory.
    pub charge: Charge,
    /// The rings that it waits for.
    pub pending: Option<Pending>,
    /// The client's end of the doorbell, until it is sent.
    pub doorbell: Option<Doorbell>,
    /// Where its counters are shown to it.
    pub status: Option<DaemonStatus>,
    /// What the counters of its number stood at when it came.
    pub base: PortTotals,
}

/// Rings that are being made for an app.
#[derive(Debug)]
pub struct Pending {
    /// The order.
    pub making: Making,
    /// Their memory.
    pub charge: Charge,
    /// Whether the app may sleep.
    pub sleeps: bool,
}

/// What the policy says of an app.
#[derive(Clone, Debug, Default)]
pub struct AttachGrant {
    /// The `[[app]]` by which it has attached, as an index into the policy's.
    pub entry: Option<usize>,
    /// The name that the policy gives to it.
    pub name: Option<String>,
    /// The only address that its port may have.
    pub mac: Option<Mac>,
    /// Whether that is the host's, too.
    pub shared: bool,
    /// Most queue pairs.
    pub queues: Option<u16>,
    /// Protocols of the wire's link that it may take part in.
    pub link: LinkProtocols,
    /// What the rules know of it; `None` when that has to be worked out.
    pub port_policy: Option<PortPolicy>,
}

/// Names and addresses that the policy keeps for others.
pub trait Reserved {
    /// Whether `name` must not be made up for an app.
    fn name(&self, name: &str) -> bool;
    /// The entry of the policy whose address `mac` is, unless it is `entry` itself.
    fn mac(&self, mac: &Mac, entry: Option<usize>) -> Option<&str>;
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
        /// Who has it.
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
        let mac = if is_group(&mac) || mac == [0; 6] { self.invent_mac(HOST_NAME, 0, &()) } else { mac };
        let mut macs = vec![mac];
        macs.extend(others.iter().filter(|other| **other != mac));
        self.generation = self.generation.wrapping_add(1);
        let app = App {
            id,
            generation: self.generation,
            name: HOST_NAME.to_owned(),
            asked: HOST_NAME.to_owned(),
            identity: Identity::of_the_kernel(),
            account: 0,
            grant,
            driver: "tun".to_owned(),
            // The kernel chooses for itself among multicast.
            settings: Settings { mtu, macs, all_multicast: true, ..Settings::default() },
            started: false,
            told_of_limit: false,
            region: None,
            charge: Charge::default(),
            pending: None,
            status: None,
            doorbell: None,
            base: PortTotals::default(),
        };
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

    /// Gives a port to the process `identity`, whose user limits know as `account`, and which is granted `grant`. `base` are the counters of each number so far,
    /// `max_mtu` is the
    /// wire's.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if no number is free, or the name or address asked for cannot be had.
    pub fn admit(
        &mut self,
        hello: &Hello,
        (identity, account): (Identity, u32),
        grant: AttachGrant,
        reserved: &dyn Reserved,
        max_mtu: u16,
        base: impl Fn(PortId) -> PortTotals,
    ) -> Result<&App, Refusal> {
        let asked = grant.name.as_deref().unwrap_or(&hello.name);
        let name = self.name_for(asked, &identity.comm, reserved)?;
        let mac = match (grant.mac, hello.mac) {
            (Some(mac), asked) if asked != [0; 6] && asked != mac => return Err(Refusal::OtherMac(mac, asked)),
            (Some(mac), _) => mac,
            (None, [0, 0, 0, 0, 0, 0]) => self.invent_mac(&name, identity.uid, reserved),
            (None, mac) => mac,
        };
        if grant.shared && grant.mac.is_none() {
            return Err(Refusal::NoHost);
        }
        self.check_mac(None, grant.shared, &mac)?;
        check_reserved(reserved, &mac, grant.entry)?;
        let free = |slot: &Slot| slot.app.is_none() && slot.returning == 0;
        let at = self.slots.iter().skip(1).position(free).ok_or_else(|| Refusal::Full(self.capacity()))? + 1;
        let id = PortId::try_from(at).map_err(|_| Refusal::Full(self.capacity()))?;
        self.generation = self.generation.wrapping_add(1);
        let settings = Settings { mtu: max_mtu.min(1500), macs: vec![mac], ..Settings::default() };
        let app = App {
            id,
            generation: self.generation,
            name,
            asked: hello.name.clone(),
            identity,
            account,
            grant,
            driver: hello.driver.clone(),
            settings,
            started: false,
            told_of_limit: false,
            region: None,
            charge: Charge::default(),
            pending: None,
            doorbell: None,
            status: None,
            base: base(id),
        };
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
        reserved: &dyn Reserved,
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
                None => check_reserved(reserved, mac, entry)?,
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

    /// The running ports, as the forwarding table wants them. A port without rings receives nothing and owns its address still.
    #[must_use]
    pub fn members(&self) -> Vec<FibPort> {
        let running = self.apps().filter(|app| app.region.is_some());
        running.map(|app| FibPort { id: app.id, settings: app.settings.clone(), link: app.grant.link }).collect()
    }

    fn name_for(&self, asked: &str, comm: &str, reserved: &dyn Reserved) -> Result<String, Refusal> {
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
        let free = candidates.find(|name| !reserved.name(name) && self.apps().all(|app| app.name != *name));
        Ok(free.unwrap_or(name))
    }

    /// A locally administered address (IEEE 802-2014, 8.4) made from the name and user, so that an app finds itself
    /// under the same address when it comes again.
    fn invent_mac(&self, name: &str, uid: u32, reserved: &dyn Reserved) -> Mac {
        let candidate = |salt: u32| {
            let mut hasher = DefaultHasher::new();
            (name, uid, salt).hash(&mut hasher);
            let [a, b, c, d, e, ..] = hasher.finish().to_le_bytes();
            [0x02, a, b, c, d, e]
        };
        let mut candidates = (0..).map(candidate);
        let free = |mac: &Mac| self.check_mac(None, false, mac).is_ok() && reserved.mac(mac, None).is_none();
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
pub fn conflict(app: &App, grant: &AttachGrant, reserved: &dyn Reserved) -> Option<String> {
    let macs = || app.settings.macs.iter().filter(|mac| !is_group(mac));
    let renamed = match &grant.name {
        Some(name) => *name != app.name,
        None => reserved.name(&app.name),
    };
    let moved = grant.mac.is_some_and(|own| macs().any(|mac| *mac != own)) || grant.shared != app.grant.shared;
    let reserved = || macs().find_map(|mac| check_reserved(reserved, mac, grant.entry).err());
    if renamed || moved {
        return Some("the policy has another name or address for it now".to_owned());
    }
    reserved().map(|refusal| refusal.to_string())
}

fn check_reserved(reserved: &dyn Reserved, mac: &Mac, entry: Option<usize>) -> Result<(), Refusal> {
    reserved.mac(mac, entry).map_or(Ok(()), |name| Err(Refusal::MacReserved(*mac, name.to_owned())))
}

/// Nothing is kept for anybody.
impl Reserved for () {
    fn name(&self, _: &str) -> bool {
        false
    }

    fn mac(&self, _: &Mac, _: Option<usize>) -> Option<&str> {
        None
    }
}

/// The names and addresses of a policy's `[[app]]` entries.
impl Reserved for Ruleset {
    fn name(&self, name: &str) -> bool {
        self.names_app(name)
    }

    fn mac(&self, mac: &Mac, entry: Option<usize>) -> Option<&str> {
        let owners = self.policy().apps.iter().enumerate();
        let owner = |(_, app): &(usize, &kopi_config::policy::App)| app.mac.is_some_and(|own| own.bytes() == *mac);
        owners.filter(owner).find(|(at, _)| Some(*at) != entry).map(|(_, app)| app.name.as_str())
    }
}

/// The address in the usual notation.
#[must_use]
pub fn format_mac(mac: &Mac) -> String {
    kopi_packet::MacAddr::new(*mac).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(comm: &str) -> Identity {
        Identity { pid: 9, uid: 1, gid: 1, user: None, comm: comm.into(), ..Identity::default() }
    }

    fn hello(name: &str, mac: Mac) -> Hello {
        Hello { name: name.into(), mac, queues: 1, driver: String::new() }
    }

    fn admit(ports: &mut PortTable, name: &str, mac: Mac) -> Result<(PortId, String, Mac), Refusal> {
        let app =
            ports.admit(&hello(name, mac), (identity("testpmd"), 1), AttachGrant::default(), &(), 1500, |_| {
                PortTotals::default()
            })?;
        Ok((app.id, app.name.clone(), app.settings.macs[0]))
    }

    const A: Mac = [2, 1, 1, 1, 1, 1];
    const B: Mac = [2, 2, 2, 2, 2, 2];

    /// Fault 7: names and addresses are unique, and the refusal says who has them.
    #[test]
    fn names_and_addresses_are_unique() {
        let mut ports = PortTable::new(4);
        assert_eq!(admit(&mut ports, "db", A).unwrap(), (1, "db".into(), A));
        assert_eq!(admit(&mut ports, "db", B), Err(Refusal::NameTaken { name: "db".into(), pid: 9 }));
        assert_eq!(admit(&mut ports, "web", A), Err(Refusal::MacTaken(A, "db".into())));
        assert_eq!(admit(&mut ports, "a b", B), Err(Refusal::BadName("a b".into())));
        assert_eq!(admit(&mut ports, "wire", B), Err(Refusal::Reserved("wire".into())));
        assert_eq!(admit(&mut ports, "web", [1, 0, 0, 0, 0, 1]), Err(Refusal::BadMac([1, 0, 0, 0, 0, 1])));
    }

    /// Without a name or address, an app gets ones that are free, and the same ones when it comes again.
    #[test]
    fn invented_names_and_addresses_are_free_and_stable() {
        let mut ports = PortTable::new(4);
        let first = admit(&mut ports, "", [0; 6]).unwrap();
        let second = admit(&mut ports, "", [0; 6]).unwrap();
        assert_eq!((first.1.as_str(), second.1.as_str()), ("testpmd", "testpmd-2"));
        assert_ne!(first.2, second.2);
        assert_eq!(first.2[0] & 3, 2, "unicast and locally administered");
        ports.remove(first.0);
        assert_eq!(admit(&mut ports, "", [0; 6]).unwrap(), first);
    }

    /// Fault 7: the limit on apps holds, and a number is not used again before every worker let go of it.
    #[test]
    fn numbers_are_limited_and_used_again_late() {
        let mut ports = PortTable::new(2);
        admit(&mut ports, "a", [0; 6]).unwrap();
        admit(&mut ports, "b", [0; 6]).unwrap();
        assert_eq!(admit(&mut ports, "c", [0; 6]), Err(Refusal::Full(2)));
        ports.remove(1);
        ports.await_return(1, 2);
        assert_eq!(admit(&mut ports, "c", [0; 6]), Err(Refusal::Full(2)));
        ports.returned(1);
        assert!(ports.awaits_replies());
        ports.returned(1);
        assert_eq!(admit(&mut ports, "c", [0; 6]).unwrap().0, 1);
    }

    /// Nobody takes all ports: a user keeps to its limit, and those who have some leave the last eighth to others.
    #[test]
    fn users_leave_ports_to_others() {
        let mut ports = PortTable::new(16);
        let attach = |ports: &mut PortTable, user: u32, limit: usize| -> Result<PortId, Refusal> {
            ports.check_account(user, limit)?;
            let who = (identity("app"), user);
            ports
                .admit(&hello("", [0; 6]), who, AttachGrant::default(), &(), 1500, |_| PortTotals::default())
                .map(|app| app.id)
        };
        let first = (0..16).map_while(|_| attach(&mut ports, 1, 10).ok()).count();
        assert_eq!((first, attach(&mut ports, 1, 10)), (10, Err(Refusal::UserFull(10))));
        let second = (0..16).map_while(|_| attach(&mut ports, 2, 10).ok()).count();
        assert_eq!((second, attach(&mut ports, 2, 10)), (4, Err(Refusal::Kept(2))));
        assert!(attach(&mut ports, 3, 10).is_ok() && attach(&mut ports, 4, 10).is_ok());
        assert_eq!(attach(&mut ports, 5, 10), Err(Refusal::Full(16)));
    }

    /// The host has the wire's address and those named with it to itself, and takes no app's number, and its name is not to be had.
    #[test]
    fn host_has_its_own_place() {
        const OTHER: Mac = [2, 0, 0, 0, 0, 0x77];
        let mut ports = PortTable::new(1);
        let host = ports.admit_host(A, &[OTHER, A], 9000, AttachGrant::default()).unwrap();
        assert_eq!((host.id, host.name.as_str(), &host.settings.macs[..]), (2, "host", &[A, OTHER][..]));
        assert_eq!(ports.host(), Some(2));
        assert!(ports.admit_host(B, &[], 9000, AttachGrant::default()).is_err(), "there is one kernel");
        assert_eq!(admit(&mut ports, "x", A), Err(Refusal::MacTaken(A, "host".into())));
        assert_eq!(admit(&mut ports, "x", OTHER), Err(Refusal::MacTaken(OTHER, "host".into())));
        assert_eq!(admit(&mut ports, "host", B), Err(Refusal::Reserved("host".into())));
        assert_eq!(admit(&mut ports, "x", B).unwrap().0, 1);
        assert_eq!(admit(&mut ports, "y", [0; 6]), Err(Refusal::Full(1)));
        let made_up = PortTable::new(1).admit_host([0; 6], &[], 1500, AttachGrant::default()).unwrap().settings.macs[0];
        assert_eq!(made_up[0] & 3, 2, "a wire without an address");
    }

    /// Settings out of bounds are refused and change nothing.
    #[test]
    fn bad_settings_change_nothing() {
        let mut ports = PortTable::new(2);
        admit(&mut ports, "a", A).unwrap();
        admit(&mut ports, "b", B).unwrap();
        let before = ports.get(1).unwrap().settings.clone();
        let with = |mtu, macs: &[Mac]| Settings { mtu, macs: macs.to_vec(), ..Settings::default() };
        assert_eq!(ports.change(1, with(9001, &[A]), &(), 1500), Err(Refusal::Mtu { mtu: 9001, max: 1500 }));
        assert_eq!(ports.change(1, with(67, &[A]), &(), 1500), Err(Refusal::Mtu { mtu: 67, max: 1500 }));
        assert_eq!(ports.change(1, with(1500, &[]), &(), 1500), Err(Refusal::BadMac([0; 6])));
        assert_eq!(ports.change(1, with(1500, &[A, B]), &(), 1500), Err(Refusal::MacTaken(B, "b".into())));
        assert_eq!(ports.get(1).unwrap().settings, before);
        assert_eq!(ports.change(1, with(900, &[A, [1; 6]]), &(), 1500), Ok(()));
    }

    /// An app whose name or address another policy gives to somebody else cannot keep it, nor one beside its own.
    #[test]
    fn other_terms_conflict_with_what_is_not_its_own() {
        struct Policy;
        impl Reserved for Policy {
            fn name(&self, name: &str) -> bool {
                name == "db"
            }

            fn mac(&self, mac: &Mac, entry: Option<usize>) -> Option<&str> {
                (*mac == B && entry != Some(0)).then_some("db")
            }
        }
        let mut ports = PortTable::new(2);
        admit(&mut ports, "db", B).unwrap();
        let app = ports.get_mut(1).unwrap();
        let entry =
            |name: &str, mac| AttachGrant { entry: Some(0), name: Some(name.into()), mac, ..AttachGrant::default() };
        let other = AttachGrant { entry: Some(1), name: Some("db".into()), ..AttachGrant::default() };
        let fits = |app: &App, grant: &AttachGrant| conflict(app, grant, &Policy).is_none();
        assert!(fits(app, &entry("db", Some(B))) && fits(app, &entry("db", None)));
        assert!(!fits(app, &entry("web", None)), "another name");
        assert!(!fits(app, &entry("db", Some(A))), "another address");
        assert!(!fits(app, &other), "the address is another's");
        assert!(!fits(app, &AttachGrant::default()), "the name is another's");
        app.settings.macs.push(A);
        assert!(!fits(app, &entry("db", Some(B))), "an address beside its own");
        app.settings.macs = vec![A, [1; 6]];
        app.name = "web".into();
        assert!(fits(app, &AttachGrant::default()));
    }
}

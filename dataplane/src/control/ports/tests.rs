//! Names, addresses and numbers: unique, bounded, and used again late.

use super::*;
use crate::control::policy::compile;
use kopi_config::Policy;

fn identity(comm: &str) -> Identity {
    Identity { pid: 9, uid: 1, gid: 1, user: None, comm: comm.into(), ..Identity::default() }
}

fn hello(name: &str, mac: Mac) -> Hello {
    Hello { name: name.into(), mac, queues: 1, driver: String::new() }
}

fn admit(ports: &mut PortTable, name: &str, mac: Mac) -> Result<(PortId, String, Mac), Refusal> {
    let app = ports.admit(&hello(name, mac), (identity("testpmd"), 1), AttachGrant::default(), None, 1500, |_| {
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
            .admit(&hello("", [0; 6]), who, AttachGrant::default(), None, 1500, |_| PortTotals::default())
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
    assert_eq!(ports.change(1, with(9001, &[A]), None, 1500), Err(Refusal::Mtu { mtu: 9001, max: 1500 }));
    assert_eq!(ports.change(1, with(67, &[A]), None, 1500), Err(Refusal::Mtu { mtu: 67, max: 1500 }));
    assert_eq!(ports.change(1, with(1500, &[]), None, 1500), Err(Refusal::BadMac([0; 6])));
    assert_eq!(ports.change(1, with(1500, &[A, B]), None, 1500), Err(Refusal::MacTaken(B, "b".into())));
    assert_eq!(ports.get(1).unwrap().settings, before);
    assert_eq!(ports.change(1, with(900, &[A, [1; 6]]), None, 1500), Ok(()));
}

/// An app whose name or address another policy gives to somebody else cannot keep it, nor one beside its own.
#[test]
fn other_terms_conflict_with_what_is_not_its_own() {
    let text = "[[app]]\nname = \"db\"\nmac = \"02:02:02:02:02:02\"\n";
    let policy = compile(Policy::parse(text, "test").unwrap()).unwrap();
    let mut ports = PortTable::new(2);
    admit(&mut ports, "db", B).unwrap();
    let app = ports.get_mut(1).unwrap();
    let entry =
        |name: &str, mac| AttachGrant { entry: Some(0), name: Some(name.into()), mac, ..AttachGrant::default() };
    let other = AttachGrant { entry: Some(1), name: Some("db".into()), ..AttachGrant::default() };
    let fits = |app: &App, grant: &AttachGrant| conflict(app, grant, Some(&policy)).is_none();
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

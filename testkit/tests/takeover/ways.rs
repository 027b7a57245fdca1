//! What the programs leave on an interface that usually configure it.

use super::scene::{NEAR, Scene, TAP, same, same_rows};
use serde_json::Value;

/// Configures, takes over, looks at the port, and undoes.
fn comes_back(program: &str, commands: &str) {
    let scene = Scene::new();
    assert!(scene.batch(commands), "{program}: all of it can be configured");
    let (before, _) = scene.shown().timeless();
    let taken = scene.takeover(&[]);
    assert!(taken.status.success(), "{program}: {}", String::from_utf8_lossy(&taken.stderr));
    let (meanwhile, _) = scene.shown().timeless();
    same_rows(&before.on_tap(), &meanwhile.routes, program);
    let global = |shown: &Value| -> Vec<Value> {
        let all = shown.as_array().expect("an array").iter().filter(|address| address["scope"] == "global");
        all.map(|address| Value::from(address.to_string().replace(NEAR, TAP))).collect()
    };
    assert_eq!(global(&meanwhile.addresses[1]), global(&before.addresses[0]), "{program}");
    let undone = scene.takeover(&["--undo"]);
    assert!(undone.status.success(), "{program}: {}", String::from_utf8_lossy(&undone.stderr));
    same(&before, &scene.shown().timeless().0, program);
}

/// A DHCP client: an address with a lifetime, and a default route by its server's router.
#[test]
fn of_a_dhcp_client() {
    comes_back(
        "dhclient",
        "address add 10.88.0.2/24 brd + dev near valid_lft 3600 preferred_lft 3600\n\
         route add default via 10.88.0.1 dev near\n\
         route add 10.5.0.0/16 via 10.88.0.3 dev near proto dhcp\n",
    );
}

/// The kernel's own autoconfiguration: what a router has advertised, with all of its lifetimes.
#[test]
fn of_autoconfiguration() {
    comes_back(
        "SLAAC",
        "address add fd88::2/64 dev near mngtmpaddr noprefixroute valid_lft 86400 preferred_lft 14400\n\
         route add fd88::/64 dev near proto kernel metric 256 expires 86400\n\
         route add default via fe80::1 dev near proto ra metric 1024 expires 1800 pref high\n\
         route add fd99::/48 via fe80::1 dev near proto ra metric 1024 expires 600\n",
    );
}

/// `NetworkManager`: routes of its own in the place of the kernel's, with metrics, and link-local addresses that it makes itself.
#[test]
fn of_network_manager() {
    comes_back(
        "NetworkManager",
        "address flush dev near scope link\n\
         address add fe80::abcd/64 dev near noprefixroute\n\
         route add fe80::/64 dev near proto kernel metric 1024\n\
         address add 10.88.0.2/24 brd + dev near noprefixroute valid_lft 3600 preferred_lft 3600\n\
         route add 10.88.0.0/24 dev near proto kernel scope link src 10.88.0.2 metric 100\n\
         route add default via 10.88.0.1 dev near proto dhcp src 10.88.0.2 metric 100\n\
         address add fd88::2/64 dev near noprefixroute valid_lft 86400 preferred_lft 14400\n\
         route add fd88::/64 dev near proto ra metric 100 pref medium\n\
         route add default via fe80::1 dev near proto ra metric 100 pref medium\n",
    );
}

/// systemd-networkd: sources and metrics, routes to routers by link, rules.
#[test]
fn of_networkd() {
    comes_back(
        "networkd",
        "address add 10.88.0.2/24 brd 10.88.0.255 dev near metric 1024 valid_lft 3600 preferred_lft 3600\n\
         route add 10.88.0.1 dev near proto dhcp scope link src 10.88.0.2 metric 1024\n\
         route add default via 10.88.0.1 dev near proto dhcp src 10.88.0.2 metric 1024 mtu 1400\n\
         address add fd88::2/64 dev near noprefixroute mngtmpaddr valid_lft 86400 preferred_lft 14400\n\
         route add fd88::/64 dev near proto ra metric 512 expires 86400\n\
         route add default proto ra metric 512 expires 1800 nexthop via fe80::1 dev near nexthop via fe80::2 dev near weight 2\n\
         rule add from 10.88.0.2 lookup 100 pref 1000\n\
         rule add iif near lookup 100 pref 1000\n\
         route add default via 10.88.0.1 dev near onlink table 100\n",
    );
}

/// FRR: objects for next hops, groups of them over several interfaces, and routes by these.
#[test]
fn of_frr() {
    comes_back(
        "FRR",
        "address add 10.88.0.2/24 dev near\n\
         address add 10.255.0.1/32 dev near\n\
         nexthop add id 11 via 10.88.0.1 dev near proto zebra\n\
         nexthop add id 12 via 172.16.0.9 dev other proto zebra\n\
         nexthop add id 13 via fe80::1 dev near proto zebra\n\
         nexthop add id 20 group 11/12,3 proto zebra\n\
         route add 10.5.0.0/16 nhid 11 proto bgp metric 20\n\
         route add 10.6.0.0/16 nhid 20 proto ospf metric 20\n\
         route add 10.7.0.0/16 nhid 12 proto bgp metric 20 src 10.255.0.1\n\
         route add fd77::/32 nhid 13 proto bgp metric 20\n\
         route add default nexthop via 10.88.0.1 dev near nexthop via 10.88.0.254 dev near weight 3\n\
         route add 10.8.0.0/16 nexthop via 10.88.0.1 dev near nexthop via 172.16.0.9 dev other\n",
    );
}

/// By hand: what others have on the same network stays where it stood, the first one first.
#[test]
fn order_is_kept() {
    comes_back(
        "by hand",
        "address add 10.88.0.2/24 dev near\n\
         address add 10.88.0.3/24 dev near label near:web\n\
         address add 10.88.0.4/24 dev near\n\
         address add 10.88.0.9/24 dev other\n\
         address add fd88::2/64 dev near\n\
         address add fd88::3/64 dev near\n\
         address add fd88::9/64 dev other\n\
         route append 10.5.0.0/16 dev near\n\
         route append 10.5.0.0/16 dev other\n\
         route append 10.5.0.0/16 via 10.88.0.7 dev near\n\
         neigh add 10.88.0.50 lladdr 02:00:00:00:00:50 dev near\n\
         neigh add fd88::50 lladdr 02:00:00:00:00:51 dev near\n\
         neigh add proxy fd88::60 dev near\n",
    );
}

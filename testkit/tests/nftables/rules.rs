//! Rules that both sides understand, written down in the language of each.

use kopi_testkit::evil::Random;
use std::fmt::Write;

/// Users of the three apps. They need no accounts.
pub(crate) const USERS: [u32; 3] = [64201, 64202, 64203];
/// Their addresses.
pub(crate) const ADDRESSES: [[u8; 4]; 3] = [[10, 77, 0, 11], [10, 77, 0, 12], [10, 77, 0, 13]];
/// Ports that rules and traffic are about.
pub(crate) const PORTS: [u16; 4] = [5432, 3306, 53, 8080];
/// The port of frames that mark the end of a batch.
pub(crate) const MARK_PORT: u16 = 9;

const STATES: [&str; 4] = ["new", "established", "related", "invalid"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Egress,
    Ingress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Accept,
    Drop,
    Reject,
}

impl Action {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

/// One rule. An empty list is not looked at.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) direction: Option<Direction>,
    pub(crate) protocols: Vec<&'static str>,
    pub(crate) sources: Vec<u16>,
    pub(crate) destinations: Vec<u16>,
    pub(crate) icmp_types: Vec<u8>,
    pub(crate) states: Vec<&'static str>,
    /// Indices of users, and whether it is for everybody but them.
    pub(crate) owners: (bool, Vec<usize>),
    pub(crate) action: Action,
}

impl Rule {
    fn new(name: &str, action: Action) -> Self {
        Self {
            name: name.into(),
            direction: None,
            protocols: Vec::new(),
            sources: Vec::new(),
            destinations: Vec::new(),
            icmp_types: Vec::new(),
            states: Vec::new(),
            owners: (false, Vec::new()),
            action,
        }
    }

    fn towards(mut self, direction: Direction, protocols: &[&'static str], port: u16) -> Self {
        self.direction = Some(direction);
        self.protocols = protocols.to_vec();
        self.destinations = vec![port];
        self
    }

    fn sent_from(self, direction: Direction, protocols: &[&'static str], port: u16) -> Self {
        let mut rule = self.towards(direction, protocols, port);
        rule.sources = std::mem::take(&mut rule.destinations);
        rule
    }

    fn states(mut self, states: &[&'static str]) -> Self {
        self.states = states.to_vec();
        self
    }

    fn only(mut self, user: usize) -> Self {
        self.owners = (false, vec![user]);
        self
    }

    fn but(mut self, user: usize) -> Self {
        self.owners = (true, vec![user]);
        self
    }

    /// In kopi's language.
    fn toml(&self, out: &mut String) {
        let mut matches = Vec::new();
        if let Some(direction) = self.direction {
            matches.push(format!("direction = \"{}\"", format!("{direction:?}").to_lowercase()));
        }
        if !self.protocols.is_empty() {
            matches.push(format!("proto = {:?}", self.protocols));
        }
        if !self.sources.is_empty() {
            matches.push(format!("src_port = {:?}", self.sources));
        }
        if !self.destinations.is_empty() {
            matches.push(format!("dst_port = {:?}", self.destinations));
        }
        if !self.icmp_types.is_empty() {
            matches.push(format!("icmp_type = {:?}", self.icmp_types));
        }
        if !self.states.is_empty() {
            matches.push(format!("state = {:?}", self.states));
        }
        let (not, owners) = &self.owners;
        let uids: Vec<u32> = owners.iter().map(|user| USERS[*user]).collect();
        let owner = match (uids.is_empty(), not) {
            (true, _) => String::new(),
            (false, false) => format!("owner = {{ uid = {uids:?} }}\n"),
            (false, true) => format!("owner = {{ not = {{ uid = {uids:?} }} }}\n"),
        };
        let (name, matches, action) = (&self.name, matches.join(", "), self.action.word());
        write!(out, "[[rule]]\nname = \"{name}\"\nmatch = {{ {matches} }}\n{owner}action = \"{action}\"\n")
            .expect("a String takes everything");
    }

    /// In the language of nftables. Who has a packet is known there by its socket on egress, and by its address on
    /// ingress, where there is no socket yet.
    fn nft(&self, direction: Direction, set: &str) -> Option<String> {
        if self.direction.is_some_and(|own| own != direction) {
            return None;
        }
        let list = |values: Vec<String>| format!("{{ {} }}", values.join(", "));
        let text = |numbers: &[u16]| list(numbers.iter().map(u16::to_string).collect());
        let mut words = Vec::new();
        if !self.protocols.is_empty() {
            words.push(format!("meta l4proto {}", list(self.protocols.iter().map(|p| (*p).to_owned()).collect())));
        }
        if !self.sources.is_empty() {
            words.push(format!("th sport {}", text(&self.sources)));
        }
        if !self.destinations.is_empty() {
            words.push(format!("th dport {}", text(&self.destinations)));
        }
        if !self.icmp_types.is_empty() {
            words.push(format!("icmp type {}", list(self.icmp_types.iter().map(u8::to_string).collect())));
        }
        if !self.states.is_empty() {
            words.push(format!("ct state {}", list(self.states.iter().map(|s| (*s).to_owned()).collect())));
        }
        let (not, owners) = &self.owners;
        if !owners.is_empty() {
            let relation = if *not { "!= " } else { "" };
            words.push(match direction {
                Direction::Egress => {
                    format!(
                        "meta skuid {relation}{}",
                        list(owners.iter().map(|user| USERS[*user].to_string()).collect())
                    )
                }
                Direction::Ingress => {
                    let ip = |user: &usize| std::net::Ipv4Addr::from(ADDRESSES[*user]).to_string();
                    format!("ip daddr {relation}{}", list(owners.iter().map(ip).collect()))
                }
            });
        }
        words.push(format!("add @{set} {{ ip id }} {}", self.action.word()));
        Some(words.join(" "))
    }
}

/// A whole policy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) name: String,
    /// What happens to what no rule decides, on egress and on ingress.
    pub(crate) defaults: [Action; 2],
    pub(crate) rules: Vec<Rule>,
}

/// The names of the defaults, as `kopictl rules` has them.
pub(crate) const DEFAULTS: [&str; 2] = ["default egress", "default ingress"];

impl Policy {
    /// `policy.toml`.
    pub(crate) fn toml(&self) -> String {
        let [egress, ingress] = self.defaults.map(Action::word);
        // Linux judges what it cannot read, too, and of nftables it is counted what it rejects, not what it answers.
        let mut out = format!(
            "default = {{ egress = \"{egress}\", ingress = \"{ingress}\", malformed = \"accept\", answers = \"all\" }}\n"
        );
        write!(
            out,
            "[[rule]]\nname = \"mark\"\nmatch = {{ proto = \"udp\", dst_port = {MARK_PORT} }}\naction = \"accept\"\n"
        )
        .expect("a String takes everything");
        self.rules.iter().for_each(|rule| rule.toml(&mut out));
        out
    }

    /// What decides, by number: the rules, then the defaults.
    pub(crate) fn deciders(&self) -> impl Iterator<Item = (&str, Action)> {
        let rules = self.rules.iter().map(|rule| (rule.name.as_str(), rule.action));
        rules.chain(DEFAULTS.into_iter().zip(self.defaults))
    }

    /// The ruleset of nftables, which replaces the one before. Set *rN* has the identifications of the packets that
    /// decider *N* has decided about; the two counters tell when all of them have passed.
    pub(crate) fn nft(&self) -> String {
        let mut sets = String::new();
        for number in 0..self.rules.len() + 2 {
            writeln!(sets, "set r{number} {{ typeof ip id; flags dynamic; size 65535; }}").expect("a String");
        }
        let chain = |direction: Direction, default: usize| {
            let rules = self.rules.iter().enumerate();
            let mut lines: Vec<_> =
                rules.filter_map(|(number, rule)| rule.nft(direction, &format!("r{number}"))).collect();
            let number = self.rules.len() + default;
            lines.push(format!("add @r{number} {{ ip id }} {}", self.defaults[default].word()));
            lines.join("\n  ")
        };
        let (egress, ingress) = (chain(Direction::Egress, 0), chain(Direction::Ingress, 1));
        let users = USERS.map(|uid| uid.to_string()).join(", ");
        format!(
            "table inet kopi\ndelete table inet kopi\ntable inet kopi {{\n counter went_out {{ }}\n counter came_in {{ }}\n\
             {sets}\
             # What the kernel itself would answer is none of our business, and no business of its connection tracking.\n\
             chain before_out {{ type filter hook output priority -400; policy drop;\n  \
              meta skuid {{ {users} }} counter name went_out accept\n }}\n\
             chain before_in {{ type filter hook prerouting priority -400; policy accept;\n  \
              iifname \"wire0\" counter name came_in\n }}\n\
             chain egress {{ type filter hook output priority 0; policy accept;\n  {egress}\n }}\n\
             chain ingress {{ type filter hook input priority 0; policy accept;\n  {ingress}\n }}\n}}\n"
        )
    }
}

/// The ports of the paper: 5432 is the first user's, 3306 the second's.
pub(crate) fn paper() -> Policy {
    let both = &["tcp", "udp"];
    let mut rules = Vec::new();
    for (user, port, name) in [(0, 5432, "postgres"), (1, 3306, "mysql")] {
        rules.push(Rule::new(name, Action::Drop).towards(Direction::Ingress, both, port).but(user));
        let answers = format!("{name}-answers");
        rules.push(Rule::new(&answers, Action::Reject).sent_from(Direction::Egress, both, port).but(user));
    }
    Policy { name: "paper".into(), defaults: [Action::Accept; 2], rules }
}

/// A host that is locked down: what is not allowed is not done.
pub(crate) fn locked() -> Policy {
    use Direction::{Egress, Ingress};
    let mut ping = Rule::new("ping", Action::Accept).states(&["new"]).but(2);
    ping.icmp_types = vec![8];
    let rules = vec![
        Rule::new("invalid", Action::Drop).states(&["invalid"]),
        Rule::new("established", Action::Accept).states(&["established", "related"]),
        Rule::new("postgres", Action::Accept).towards(Ingress, &["tcp"], 5432).states(&["new"]).only(0),
        Rule::new("mysql", Action::Accept).towards(Ingress, &["tcp"], 3306).states(&["new"]).only(1),
        Rule::new("names", Action::Accept).towards(Egress, &["udp", "tcp"], 53).states(&["new"]).but(2),
        Rule::new("web", Action::Accept).towards(Egress, &["tcp"], 8080).states(&["new"]),
        Rule::new("no-web", Action::Reject).towards(Ingress, &["tcp", "udp"], 8080),
        ping,
    ];
    Policy { name: "locked".into(), defaults: [Action::Reject, Action::Drop], rules }
}

/// A policy that nobody would write.
pub(crate) fn random(seed: u64) -> Policy {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut dice = move |sides: usize| usize::try_from(random.below(sides as u64)).expect("small");
    let action = |at: usize| [Action::Accept, Action::Drop, Action::Reject][at];
    let some = |sides: usize, dice: &mut dyn FnMut(usize) -> usize| -> Vec<usize> {
        (0..sides).filter(|_| dice(2) == 0).collect()
    };
    let mut rules = Vec::new();
    for number in 0..12 {
        let mut rule = Rule::new(&format!("random-{seed}-{number}"), action(dice(3)));
        rule.direction = [None, Some(Direction::Egress), Some(Direction::Ingress)][dice(3)];
        match dice(5) {
            0 => rule.icmp_types = vec![[0, 3, 8, 13][dice(4)], 8],
            1 => rule.protocols = vec![["tcp", "udp", "icmp"][dice(3)]],
            2 | 3 => {
                rule.protocols = vec![["tcp", "udp"][dice(2)]];
                let ports = some(4, &mut dice).into_iter().map(|at| PORTS[at]).collect();
                if dice(3) == 0 {
                    rule.sources = ports;
                } else {
                    rule.destinations = ports;
                }
            }
            _ => {}
        }
        if dice(2) == 0 {
            rule.states = some(4, &mut dice).into_iter().map(|at| STATES[at]).collect();
        }
        if dice(2) == 0 {
            rule.owners = (dice(2) == 0, some(3, &mut dice));
        }
        // Rules for everything would leave nothing to those behind them.
        let narrow = [rule.protocols.len(), rule.icmp_types.len(), rule.states.len(), rule.owners.1.len()];
        if narrow.iter().filter(|n| **n > 0).count() >= 2 {
            rules.push(rule);
        }
    }
    Policy { name: format!("random {seed}"), defaults: [action(dice(3)), action(dice(3))], rules }
}

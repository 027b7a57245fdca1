//! The arms that are compared, and kopi's policies among them.

use std::fmt::{self, Write};

use super::cell::Cell;
use crate::contender::{CLASSES, Captured, Contender, Family, Kernel, Kopi, Ovs, Raw, Vhost, Virtqueue};
use crate::policy::{APP_MAC, texts};
use crate::throughput::{Direction, SHORT};

/// Rules of Open vSwitch.
pub(super) const SWITCH_RULES: u16 = 1000;
/// kopi with everything on.
pub(super) const EVERYTHING: &str = "everything";
/// kopi with classes alone, and with a capture alone.
pub(super) const CLASSES_ALONE: &str = "classes";
pub(super) const CAPTURE_ALONE: &str = "capture";

/// What stands for a contender on the page: the best of a family, and kopi twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    Kernel,
    Raw,
    Vhost,
    Ovs,
    Shared,
    Kopi,
    Everything,
}

impl Arm {
    /// Every arm, in the order of the page.
    pub(super) const ALL: [Self; 7] =
        [Self::Kernel, Self::Raw, Self::Vhost, Self::Ovs, Self::Shared, Self::Kopi, Self::Everything];

    /// The arm of a contender.
    pub(super) fn of(name: &str, family: Family) -> Self {
        match family {
            Family::Kopi if name == EVERYTHING => Self::Everything,
            Family::Kopi if name == Kopi::SHARED.name => Self::Shared,
            Family::Kopi => Self::Kopi,
            Family::Vhost => Self::Vhost,
            Family::Ovs => Self::Ovs,
            Family::Raw => Self::Raw,
            Family::Kernel => Self::Kernel,
        }
    }

    /// Its name on the page, and the colour of its bars.
    pub(super) const fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Kernel => ("kernel", "#8c4a4a"),
            Self::Raw => ("raw bypass", "#bbbbbb"),
            Self::Vhost => ("vhost", "#c9a227"),
            Self::Ovs => ("OVS, 1,000 rules", "#4a6fa5"),
            Self::Shared => ("kopi, no policy, memory shared", "#b5d3c1"),
            Self::Kopi => ("kopi, no policy", "#7fb394"),
            Self::Everything => ("kopi, everything on", "#2f6f4f"),
        }
    }
}

/// All contenders of a cell.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(super) fn contenders(cell: &Cell) -> Result<Vec<Box<dyn Contender>>, fmt::Error> {
    let mut all: Vec<Box<dyn Contender>> = vec![
        Box::new(kopi(Kopi::PLAIN.name, None)),
        everything()?,
        Box::new(Kernel { direction: cell.direction, frame_len: cell.frame_len }),
        Box::new(Raw),
    ];
    // Short frames are copied in any case, and so is what is received.
    if cell.direction == Direction::Tx && cell.frame_len > SHORT {
        all.push(Box::new(Kopi { mac: Some(APP_MAC), ..Kopi::SHARED }));
    }
    for virtqueue in [Virtqueue::Split, Virtqueue::SplitInOrder, Virtqueue::Packed] {
        all.push(Box::new(Vhost(virtqueue)));
    }
    for virtqueue in [Virtqueue::SplitInOrder, Virtqueue::Packed] {
        all.push(Box::new(Ovs { virtqueue, rules: SWITCH_RULES }));
    }
    Ok(all)
}

/// The settings of kopi whose costs are told apart, with what each is. The first is what the others are compared with.
pub(super) const SETTINGS: [(&str, &str); 7] = [
    (texts::NONE, "no policy"),
    (texts::ONE, "one rule, of protocol and network"),
    (texts::MANY, "10,000 rules, the last of which decides, by a set of 10,000 addresses"),
    (texts::STATE, "one rule, of the connection's state"),
    (CLASSES_ALONE, "nine classes, five for egress and four for ingress, and the app in one of each"),
    (CAPTURE_ALONE, "a capture of all ports whose filter, `udp port 53`, none of the frames passes"),
    (EVERYTHING, "10,000 rules of which the last one asks for address, state and owner, the classes, and the capture"),
];

/// kopi with each of [`SETTINGS`].
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(super) fn settings() -> Result<Vec<Box<dyn Contender>>, fmt::Error> {
    let contender = |&(name, _): &(&'static str, &str)| match name {
        EVERYTHING => everything(),
        CAPTURE_ALONE => Ok(Box::new(Captured(kopi(name, None))) as Box<dyn Contender>),
        CLASSES_ALONE => Ok(Box::new(kopi(name, Some(classes()?))) as Box<dyn Contender>),
        _ => texts::contender(name),
    };
    SETTINGS.iter().map(contender).collect()
}

fn everything() -> Result<Box<dyn Contender>, fmt::Error> {
    let mut text = texts::many(0, ", state = [\"new\", \"established\"]")?;
    // The last rule of the text is the one that accepts the load.
    writeln!(text, "owner = {{ user = \"root\" }}")?;
    text += &classes()?;
    Ok(Box::new(Captured(kopi(EVERYTHING, Some(text)))))
}

/// As many classes as the kernel's arm has. The app, which is root's, has the first of each direction.
fn classes() -> Result<String, fmt::Error> {
    let mut text = String::new();
    for class in 0..CLASSES {
        let direction = if class % 2 == 0 { "egress" } else { "ingress" };
        writeln!(text, "[[class]]\nname = \"c{class}\"\ndirection = \"{direction}\"")?;
    }
    text += "[[app]]\nname = \"app\"\nowner = { user = \"root\" }\nclass = [\"c0\", \"c1\"]\n";
    Ok(text)
}

fn kopi(name: &'static str, policy: Option<String>) -> Kopi {
    Kopi { name, policy, mac: Some(APP_MAC), ..Kopi::PLAIN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_config::Policy;

    /// kopid takes the policies, and they have in them what the page says.
    #[test]
    fn the_policies_are_what_they_are_said_to_be() {
        let classes = classes().expect("a string takes everything");
        assert_eq!(classes.matches("[[class]]").count(), 9);
        let many = texts::many(0, ", state = [\"new\", \"established\"]").expect("a string takes everything");
        let text = format!("{many}owner = {{ user = \"root\" }}\n{classes}");
        let policy = Policy::parse(&text, "test").expect("it is well formed");
        assert_eq!(policy.rules.len(), usize::from(texts::RULES));
    }

    #[test]
    fn each_setting_has_a_contender_of_its_name() {
        let names: Vec<_> = settings().expect("they are there").iter().map(|setting| setting.name()).collect();
        assert_eq!(names, SETTINGS.map(|(name, _)| name));
    }
}

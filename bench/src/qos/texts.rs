//! The policies that are compared.

use std::fmt::{self, Write};

use crate::contender::{Contender, Kopi};

/// Apps of the experiments with many.
pub(super) const APPS: usize = 8;
/// Classes of the large policy, of which [`APPS`] are in use.
pub(super) const CLASSES: usize = 10_000;

/// Without any policy.
pub(super) const NONE: &str = "none";
/// The apps have entries, and no classes.
pub(super) const ENTRIES: &str = "entries";
/// All in one class.
pub(super) const ONE: &str = "one";
/// Each in a class of its own.
pub(super) const EIGHT: &str = "eight";
/// The same, among many classes that nobody uses.
pub(super) const MANY: &str = "many";
/// What costs are compared of, with what each is.
pub(super) const COSTS: [(&str, &str); 5] = [
    (NONE, "no policy"),
    (ENTRIES, "an entry for each app, without classes: the addresses of senders are checked"),
    (ONE, "the same, all apps in one class"),
    (EIGHT, "the same, each app in a class of its own"),
    (MANY, "the same, and 9,992 more classes that nobody uses"),
];

/// Ceilings, by name, in bits per second.
pub(super) const CEILINGS: [(&str, u64); 5] = [
    ("1mbit", 1_000_000),
    ("10mbit", 10_000_000),
    ("100mbit", 100_000_000),
    ("1gbit", 1_000_000_000),
    ("10gbit", 10_000_000_000),
];

/// Two equals.
pub(super) const PAIR: &str = "pair";

/// Weights of the apps that share unequally.
pub(super) const WEIGHTS: [u32; 3] = [1, 2, 4];
/// Bits per second of the wire that is shared.
pub(super) const WIRE: u64 = 1_000_000_000;

/// The policies of costs.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(super) fn costs() -> Result<Vec<Box<dyn Contender>>, fmt::Error> {
    let policy = |name| match name {
        ENTRIES => policy("", 0, APPS, |_| None).map(Some),
        ONE => policy("", 1, APPS, |_| Some(0)).map(Some),
        EIGHT => policy("", APPS, APPS, Some).map(Some),
        // Those in use lie apart.
        MANY => policy("", CLASSES, APPS, |app| Some(app * (CLASSES / APPS))).map(Some),
        _ => Ok(None),
    };
    COSTS.iter().map(|&(name, _)| Ok(kopi(name, policy(name)?))).collect()
}

/// A policy for each of [`CEILINGS`].
pub(super) fn ceilings() -> Vec<Box<dyn Contender>> {
    let policy = |(name, bits): (&str, u64)| {
        let burst = burst(bits);
        format!(
            "[[class]]\nname = \"c0\"\nceil = \"{name}\"\ncburst = {burst}\n[[app]]\nname = \"app0\"\nclass = \"c0\"\n"
        )
    };
    CEILINGS.iter().map(|&(name, bits)| kopi(name, Some(policy((name, bits))))).collect()
}

/// Workers that share ceilings, and apps in the class, of which each has one.
pub(super) const WORKERS: usize = 2;

/// The same ceilings, of a class of two apps, which two workers serve.
pub(super) fn shared_ceilings() -> Vec<Box<dyn Contender>> {
    let kopi = |(name, bits): (&'static str, u64)| -> Box<dyn Contender> {
        let mut text = format!("[[class]]\nname = \"c0\"\nceil = \"{name}\"\ncburst = {}\n", burst(bits));
        (0..WORKERS).for_each(|app| text += &format!("[[app]]\nname = \"app{app}\"\nclass = \"c0\"\n"));
        Box::new(Kopi { name, policy: Some(text), workers: WORKERS, ..Kopi::PLAIN })
    };
    CEILINGS.into_iter().map(kopi).collect()
}

/// Ten milliseconds of a rate, in bytes, and at least two frames, below which frames pass one by one.
pub(super) const fn burst(bits: u64) -> u64 {
    let burst = bits / 8 / 100;
    if burst < 3084 { 3084 } else { burst }
}

/// A wire of [`WIRE`] that is shared by [`WEIGHTS`].
pub(super) fn weights() -> Vec<Box<dyn Contender>> {
    let mut text = wire();
    for (app, weight) in WEIGHTS.iter().enumerate() {
        text += &format!("[[class]]\nname = \"c{app}\"\nweight = {weight}\n");
        text += &format!("[[app]]\nname = \"app{app}\"\nclass = \"c{app}\"\n");
    }
    vec![kopi("1:2:4", Some(text))]
}

/// The same wire, shared by [`APPS`] equals.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(super) fn equals() -> Result<Vec<Box<dyn Contender>>, fmt::Error> {
    Ok(vec![kopi("equal", Some(policy(&wire(), APPS, APPS, Some)?))])
}

/// The same wire, shared by two equals.
pub(super) fn pair() -> Vec<Box<dyn Contender>> {
    let class = |app| format!("[[class]]\nname = \"c{app}\"\n[[app]]\nname = \"app{app}\"\nclass = \"c{app}\"\n");
    vec![kopi(PAIR, Some(wire() + &class(0) + &class(1)))]
}

fn wire() -> String {
    format!("[wire]\nrate = {WIRE}\nburst = {}\n", burst(WIRE))
}

fn kopi(name: &'static str, policy: Option<String>) -> Box<dyn Contender> {
    Box::new(Kopi { name, policy, ..Kopi::PLAIN })
}

/// A policy that begins with `head`, of so many classes without limits, and entries for so many apps.
fn policy(head: &str, classes: usize, apps: usize, of: fn(usize) -> Option<usize>) -> Result<String, fmt::Error> {
    let mut text = head.to_owned();
    for class in 0..classes {
        writeln!(text, "[[class]]\nname = \"c{class}\"")?;
    }
    for app in 0..apps {
        writeln!(text, "[[app]]\nname = \"app{app}\"")?;
        if let Some(class) = of(app) {
            writeln!(text, "class = \"c{class}\"")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_in_use_are_there() {
        let text = policy("", CLASSES, APPS, |app| Some(app * (CLASSES / APPS))).expect("a string takes everything");
        assert_eq!(text.matches("[[class]]").count(), CLASSES);
        for app in 0..APPS {
            let class = format!("name = \"c{}\"\n", app * (CLASSES / APPS));
            assert!(text.contains(&format!("[[class]]\n{class}")), "{class}");
        }
    }
}

//! What each class would get if traffic were a fluid: the rules, applied to rates.

use kopi_qos::{ClassSpec, GUARD};

use crate::sim::float;

/// What a class takes of a fluid.
#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    guaranteed: f64,
    /// At most, the guarantee counted.
    most: f64,
}

/// Bits per second of each class, if all leaves in `greedy` always have packets and the others never, and the wire carries
/// `capacity`. The guard is left out.
pub(crate) fn rates(classes: &[ClassSpec], greedy: &[bool], capacity: f64) -> Vec<f64> {
    let mut rates = vec![0.0; classes.len()];
    divide(classes, greedy, None, capacity, &mut rates);
    rates
}

fn children(classes: &[ClassSpec], parent: Option<u32>) -> Vec<usize> {
    (0..classes.len()).filter(|at| classes[*at].parent == parent).collect()
}

fn number(at: usize) -> Option<u32> {
    u32::try_from(at).ok()
}

fn wish(classes: &[ClassSpec], greedy: &[bool], at: usize) -> Wish {
    let bits = |limit: &Option<kopi_qos::Limit>| limit.as_ref().map(|limit| float(limit.rate.bits()));
    let below = children(classes, number(at));
    let mut sum = Wish::default();
    for child in &below {
        let child = wish(classes, greedy, *child);
        sum = Wish { guaranteed: sum.guaranteed + child.guaranteed, most: sum.most + child.most };
    }
    if below.is_empty() && greedy[at] {
        sum.most = f64::MAX / 1e6;
    }
    let most = sum.most.min(bits(&classes[at].ceil).unwrap_or(f64::MAX));
    Wish { guaranteed: sum.guaranteed.max(bits(&classes[at].rate).unwrap_or(0.0)).min(most), most }
}

/// Divides `capacity` among the children of `parent`, and so on down.
fn divide(classes: &[ClassSpec], greedy: &[bool], parent: Option<u32>, capacity: f64, rates: &mut [f64]) {
    let below = children(classes, parent);
    let wishes: Vec<Wish> = below.iter().map(|at| wish(classes, greedy, *at)).collect();
    let mut left = capacity;
    for round in 0..2 {
        for priority in 0..8 {
            let who: Vec<usize> = (0..below.len()).filter(|at| classes[below[*at]].priority == priority).collect();
            let wants = who.iter().map(|at| match round {
                0 => wishes[*at].guaranteed,
                _ => wishes[*at].most - wishes[*at].guaranteed,
            });
            let wants: Vec<f64> = wants.collect();
            let weights: Vec<f64> = who.iter().map(|at| f64::from(classes[below[*at]].weight)).collect();
            for (at, given) in who.iter().zip(fill(&wants, &weights, &mut left)) {
                rates[below[*at]] += given;
            }
        }
    }
    for at in below {
        divide(classes, greedy, number(at), rates[at], rates);
    }
}

/// Gives of `left` by `weights` until nothing is left or nobody wants any.
fn fill(wants: &[f64], weights: &[f64], left: &mut f64) -> Vec<f64> {
    let mut given = vec![0.0; wants.len()];
    loop {
        let open: Vec<usize> = (0..wants.len()).filter(|at| wants[*at] - given[*at] > 1.0).collect();
        let sum: f64 = open.iter().map(|at| weights[*at]).sum();
        if open.is_empty() || *left <= 1.0 {
            return given;
        }
        let level = open.iter().map(|at| (wants[*at] - given[*at]) / weights[*at]).fold(*left / sum, f64::min);
        for at in open {
            given[at] += level * weights[at];
        }
        *left -= level * sum;
    }
}

/// How far a class may be from the fluid because of the guard, if the wire carries `capacity` and there are so many levels.
pub(crate) fn slack(capacity: f64, levels: u32) -> f64 {
    capacity * f64::from(levels) / float(GUARD.unsigned_abs())
}

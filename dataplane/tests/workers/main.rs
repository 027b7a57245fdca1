//! Real workers in this process, over a wire that is a loop, with both ends of the apps' rings.
//!
//! EAL starts once in a process and belongs to the thread that started it, so this is one program that runs its checks in
//! order, without the test harness.

mod allocations;
mod conservation;
mod handed_over;
mod lab;
mod runs;
mod shares;
mod slow_wire;

fn main() {
    let lab = lab::Lab::new();
    runs::check(&lab);
    handed_over::check(&lab);
    conservation::check(&lab);
    allocations::check(&lab);
    slow_wire::check(&lab);
    shares::check(&lab);
}

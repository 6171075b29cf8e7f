//! A group in a partition, beside the naive one that the crate's own tests compare it with.

use crate::broker::group::state::naive::{Run, Step};
use crate::input::Input;

/// The most steps of one input.
const STEPS: usize = 300;

/// Both do the same, step by step, and everything can be brought to an end.
pub(super) fn run(input: &mut Input<'_>) {
    let mut run = Run::new(input.flag());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        run.step(&step(input));
    }
    run.drain();
}

fn step(input: &mut Input<'_>) -> Step {
    let kind = input.byte();
    let member = |input: &mut Input<'_>| input.between(0, 2);
    match kind % 32 {
        0..=2 => Step::Append((0..=kind / 64).map(|_| input.between(0, 3)).collect()),
        3..=7 => Step::Reserve(input.between(1, 5)),
        8..=13 => Step::Deliver(kind / 32, member(input), 50 + input.byte() % 51),
        14..=17 => Step::Ack(input.byte()),
        18..=19 => Step::Nack(input.byte(), kind >= 128),
        20..=21 => Step::GiveBack(input.byte(), kind >= 128),
        22 => Step::Extend(input.byte(), 1 + input.byte() % 89),
        23 => Step::GiveUp(input.byte()),
        24 => Step::Quit(member(input)),
        25 => Step::Wait(1 + input.byte() % 40),
        26 => Step::Bury,
        27 => Step::Trim(kind / 64),
        28 => Step::Damage(input.byte(), input.between(1, 2)),
        29 => Step::Revoke(member(input), kind / 32),
        30 => Step::Fail(kind >= 128),
        _ => match kind / 86 {
            0 => Step::Roll,
            1 => Step::Restart,
            _ => Step::Reorder,
        },
    }
}

//! Both scaling loops.

mod checked;
mod cluster;
mod policies;
mod reports;

use crate::input::Input;

/// Nothing panics, and what is decided keeps to the policy, whatever is reported ([`reports`]) and whatever happens to brokers that
/// the decisions are acted on ([`cluster`]).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.flag() {
        cluster::run(&mut input);
    } else {
        reports::run(&mut input);
    }
}

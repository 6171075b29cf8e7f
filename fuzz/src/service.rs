//! What a broker's service does with what comes in.

mod group;
mod publish;

use crate::input::Input;

/// A group in a partition ([`group`]), or a publish stream ([`publish`]).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.flag() {
        publish::run(&mut input);
    } else {
        group::run(&mut input);
    }
}

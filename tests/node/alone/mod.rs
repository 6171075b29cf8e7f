//! Tests that replace, kill or remove the operator, or cut a node off: nothing else can run beside them.

mod helm;
mod nodes;
mod operator_killed;

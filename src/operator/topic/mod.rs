//! The reconcile of a MessageTopic. Where its partitions live is the placement's business, one plan for all topics
//! of a cluster; here is what a topic without a cluster gets.

pub mod reconcile;
pub mod status;

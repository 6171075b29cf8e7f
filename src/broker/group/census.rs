//! How many members there are and what they have, over all groups.

use crate::broker::store::Store;

/// Members and messages of all groups on one broker, now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Members that are connected.
    pub members: u64,
    /// Messages that members have and did not settle.
    pub outstanding: u64,
}

/// Counts them.
pub fn census(store: &Store) -> Census {
    let mut census = Census::default();
    for hub in store.all_topics().iter().flat_map(|topic| topic.hubs()) {
        let inner = hub.inner.lock();
        census.members += inner.seats.len() as u64;
        for part in inner.parts.values() {
            census.outstanding += part.state.held_by_member().values().sum::<u64>();
        }
    }
    census
}

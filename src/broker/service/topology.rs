//! Which broker owns which partition, pushed on every change.

use std::sync::Arc;

use futures::{Stream, StreamExt, future};
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::credit::Open;
use super::shared::Shared;
use crate::pb;

/// The whole topology now, and again whenever it changed; it ends when the broker stops.
pub(super) fn watch(
    shared: &Arc<Shared>,
    request: pb::WatchTopologyRequest,
) -> impl Stream<Item = Result<pb::Topology, Status>> + Send + use<> {
    let open = Open::stream(&shared.counters);
    let shared = Arc::clone(shared);
    let mut last: Option<pb::Topology> = None;
    WatchStream::new(shared.signals())
        .take_while(|signals| future::ready(!signals.draining))
        .filter_map(move |_| {
            let _ = &open;
            let configuration = shared.store.configuration();
            let newest = configuration.borrow().clone();
            let next = newest
                .map(|newest| topology(&newest, &request.topics))
                .filter(|next| !is_known(&last, next));
            if next.is_some() {
                last.clone_from(&next);
            }
            future::ready(next.map(Ok))
        })
}

/// The same brokers and topics need not be sent again.
fn is_known(last: &Option<pb::Topology>, next: &pb::Topology) -> bool {
    last.as_ref()
        .is_some_and(|last| last.brokers == next.brokers && last.topics == next.topics)
}

/// What a configuration says about who owns what.
pub(super) fn topology(configuration: &pb::Configuration, topics: &[String]) -> pb::Topology {
    let wanted = configuration
        .topics
        .iter()
        .filter(|topic| topics.is_empty() || topics.contains(&topic.name));
    pb::Topology {
        generation: configuration.generation,
        brokers: configuration
            .brokers
            .iter()
            .map(|broker| pb::BrokerEndpoint {
                name: broker.name.clone(),
                address: broker.address.clone(),
            })
            .collect(),
        topics: wanted
            .map(|topic| pb::TopicTopology {
                topic: topic.name.clone(),
                partitions: topic.partitions.iter().map(owner).collect(),
            })
            .collect(),
    }
}

fn owner(partition: &pb::PartitionConfiguration) -> pb::PartitionOwner {
    let open = partition.chain.last().filter(|entry| entry.sealed_at.is_none());
    pb::PartitionOwner {
        partition: partition.index,
        epoch: partition.epoch,
        broker: open
            .and_then(|entry| entry.brokers.first().cloned())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_broker_of_the_open_entry_owns_and_a_sealed_one_nobody() {
        let entry = |epoch, sealed_at| pb::ChainEntry {
            epoch,
            brokers: vec!["orders-0".to_owned()],
            sealed_at,
        };
        let partition = |index, entry: pb::ChainEntry| pb::PartitionConfiguration {
            index,
            epoch: entry.epoch,
            chain: vec![entry],
        };
        let configuration = pb::Configuration {
            generation: 4,
            topics: vec![pb::TopicConfiguration {
                name: "orders".to_owned(),
                partitions: vec![partition(0, entry(2, None)), partition(1, entry(3, Some(7)))],
                ..pb::TopicConfiguration::default()
            }],
            ..pb::Configuration::default()
        };
        let topology = topology(&configuration, &[]);
        let owners = &topology.topics[0].partitions;
        assert_eq!((owners[0].broker.as_str(), owners[0].epoch), ("orders-0", 2));
        assert_eq!((owners[1].broker.as_str(), owners[1].epoch), ("", 3));
        assert!(
            super::topology(&configuration, &["other".to_owned()])
                .topics
                .is_empty()
        );
    }
}

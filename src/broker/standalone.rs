//! The configuration that a broker without an operator gives itself.

use std::net::SocketAddr;

use super::config::BrokerArgs;
use crate::pb;

/// The MessageBroker that a standalone broker belongs to.
const CLUSTER: &str = "standalone/standalone";

/// All partitions of all topics of the flags, owned here. The same at each start, so that data is found again.
pub fn configuration(
    args: &BrokerArgs,
    data: Option<SocketAddr>,
    control: Option<SocketAddr>,
) -> pb::Configuration {
    let local = |bound: Option<SocketAddr>, flag: SocketAddr| {
        let address = bound.unwrap_or(flag);
        if address.ip().is_unspecified() {
            format!("127.0.0.1:{}", address.port())
        } else {
            address.to_string()
        }
    };
    let address = if args.advertise.is_empty() {
        local(data, args.listen)
    } else {
        args.advertise.clone()
    };
    let cluster = if args.cluster.is_empty() {
        CLUSTER
    } else {
        &args.cluster
    };
    let durability = if args.memory_durability {
        pb::Durability::Memory
    } else {
        pb::Durability::Fsync
    };
    pb::Configuration {
        generation: 1,
        broker: args.name.clone(),
        cluster: cluster.to_owned(),
        durability: durability.into(),
        channel: Some(pb::ChannelConfiguration {
            capacity: args.channel_capacity,
        }),
        limits: None,
        brokers: vec![pb::PeerEndpoint {
            name: args.name.clone(),
            address,
            control_address: local(control, args.control_listen),
        }],
        topics: args
            .topics
            .iter()
            .map(|(name, partitions)| topic(&args.name, name, *partitions))
            .collect(),
        auto_create_topics: false,
        leader_term: 1,
    }
}

fn topic(broker: &str, name: &str, partitions: u32) -> pb::TopicConfiguration {
    let partition = |index| pb::PartitionConfiguration {
        index,
        epoch: 1,
        chain: vec![pb::ChainEntry {
            epoch: 1,
            brokers: vec![broker.to_owned()],
            sealed_at: None,
        }],
    };
    pb::TopicConfiguration {
        name: name.to_owned(),
        uid: format!("standalone-{name}"),
        partitions: (0..partitions).map(partition).collect(),
        ack_deadline: Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        }),
        max_deliveries: 0,
        dead_letter_topic: String::new(),
        retention: Some(pb::Retention::default()),
    }
}

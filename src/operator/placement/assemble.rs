//! The configuration that brokers get, made of what the reconcile wants and where the topics' partitions live.

use std::collections::BTreeMap;

use super::topics::StoredTopic;
use crate::api::names::{self, BROKER_PORT, CONTROL_PORT};
use crate::operator::cluster::{Cluster, Directive};
use crate::pb;

/// The configuration, without generation, term and the name of a broker.
pub fn configuration(cluster: &Cluster, directive: &Directive, topics: &[StoredTopic]) -> pb::Configuration {
    pb::Configuration {
        cluster: cluster.key(),
        durability: directive.durability.into(),
        channel: Some(pb::ChannelConfiguration {
            capacity: directive.capacity,
        }),
        limits: Some(directive.limits),
        brokers: ordinals(directive)
            .map(|ordinal| peer(cluster, ordinal))
            .collect(),
        topics: topics.iter().map(StoredTopic::configuration).collect(),
        auto_create_topics: directive.topic_defaults.auto_create,
        ..pb::Configuration::default()
    }
}

/// Where each broker serves its peers.
pub fn control_addresses(cluster: &Cluster, directive: &Directive) -> BTreeMap<String, String> {
    ordinals(directive)
        .map(|ordinal| peer(cluster, ordinal))
        .map(|peer| (peer.name, peer.control_address))
        .collect()
}

/// Those of the StatefulSet, and pods beyond it that are not gone yet.
fn ordinals(directive: &Directive) -> impl Iterator<Item = u32> {
    let beyond = directive
        .members
        .iter()
        .map(|member| member.ordinal)
        .filter(|ordinal| *ordinal >= directive.size);
    let mut all: Vec<u32> = (0..directive.size).chain(beyond).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

fn peer(cluster: &Cluster, ordinal: u32) -> pb::PeerEndpoint {
    let host = names::broker_host(&cluster.namespace, &cluster.name, ordinal);
    pb::PeerEndpoint {
        name: names::broker(&cluster.name, ordinal),
        address: format!("{host}:{BROKER_PORT}"),
        control_address: format!("{host}:{CONTROL_PORT}"),
    }
}

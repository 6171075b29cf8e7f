//! Topics that clients asked for and that do not exist become MessageTopics that anyone can see and edit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::topics::Listed;
use crate::api::topic::TopicDefaults;
use crate::api::{MessageTopic, MessageTopicSpec};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;

/// How long a name that was refused is not tried again.
const REFUSED: Duration = Duration::from_secs(60);
/// How many topics are made at a time.
const AT_ONCE: usize = 20;

/// Names that the API server refused lately.
#[derive(Debug, Default)]
pub struct Autocreate {
    refused: BTreeMap<String, Instant>,
}

impl Autocreate {
    /// Makes the `wanted` topics that are not listed.
    pub async fn create(
        &mut self,
        context: &Context,
        cluster: &Cluster,
        defaults: &TopicDefaults,
        (listed, wanted): (&Listed, BTreeSet<String>),
    ) {
        self.refused.retain(|_, at| at.elapsed() < REFUSED);
        if !defaults.auto_create {
            return;
        }
        let missing = wanted
            .into_iter()
            .filter(|name| {
                !self.refused.contains_key(name) && !listed.topics.iter().any(|topic| topic.name() == name)
            })
            .take(AT_ONCE);
        for name in missing.collect::<Vec<_>>() {
            let topic = topic(cluster, defaults, &name);
            match context.kube.create(&cluster.namespace, &topic).await {
                Ok(_) => {
                    let note = format!(
                        "topic {name} was published to and did not exist: created from spec.topicDefaults"
                    );
                    context
                        .events
                        .normal(&cluster.reference(), "TopicCreated", &note)
                        .await;
                }
                // Either a topic of another MessageBroker, or made this moment; the next look says.
                Err(error) if error.is_already_exists() => {
                    self.refused.insert(name, Instant::now());
                }
                Err(error) => {
                    if error.is_refused() {
                        let note = format!("topic {name} cannot be created: {}", error.message());
                        context
                            .events
                            .warning(&cluster.reference(), "TopicNotCreated", &note)
                            .await;
                    }
                    tracing::warn!(topic = name, %error, "a wanted topic was not created");
                    self.refused.insert(name, Instant::now());
                }
            }
        }
    }
}

fn topic(cluster: &Cluster, defaults: &TopicDefaults, name: &str) -> MessageTopic {
    let spec = MessageTopicSpec {
        partitions: defaults.partitions,
        retention: defaults.retention.clone().into(),
        ..MessageTopicSpec::new(&cluster.name)
    };
    MessageTopic {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(cluster.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

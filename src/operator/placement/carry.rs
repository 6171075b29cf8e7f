//! Carries a plan out: calls of brokers, and each topic's status by compare-and-swap.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::disks::Disks;
use super::execute::{self, Clients};
use super::model::{EntryKey, Model};
use super::plan::Plan;
use super::topics::{self, Listed};
use super::{assemble, chain, report};
use crate::api::topic_status::{MessageTopicStatus, PartitionStatus};
use crate::operator::cluster::{Cluster, Directive};
use crate::operator::context::Context;
use crate::operator::error::ApiError;

/// For how long after the start brokers that are not connected yet are not reported as away.
const STARTING: Duration = Duration::from_secs(8);

/// Partitions of topics, by the topic's uid, on their way to be stored.
#[derive(Debug, Default)]
struct Wanted(BTreeMap<String, Vec<PartitionStatus>>);

impl Wanted {
    /// Changes one partition; `false`: nothing changed.
    fn change(&mut self, key: &EntryKey, change: impl Fn(&mut PartitionStatus) -> bool) -> bool {
        self.change_at(&key.topic_uid, key.partition, change)
    }

    fn change_at(&mut self, uid: &str, index: u32, change: impl Fn(&mut PartitionStatus) -> bool) -> bool {
        let partitions = self.0.get_mut(uid);
        let partition = partitions.and_then(|all| all.iter_mut().find(|one| one.index == index));
        partition.is_some_and(change)
    }
}

/// Carries one plan out.
pub struct Carrier<'a> {
    /// What all loops share.
    pub context: &'a Context,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What its reconcile wants.
    pub directive: &'a Directive,
    /// What was planned on.
    pub model: &'a Model,
    /// The brokers that may be asked.
    pub clients: Clients,
}

impl Carrier<'_> {
    /// Gives partitions their first owner, seals those that go on elsewhere and extends them there, and forgets
    /// entries that hold nothing. `true`: something was stored.
    ///
    /// # Errors
    /// A topic was changed meanwhile, or the API server did not answer. What was sealed stays sealed and is extended
    /// by the next plan.
    pub async fn move_partitions(
        &self,
        plan: &Plan,
        listed: &mut Listed,
        disks: &mut Disks,
    ) -> Result<bool, ApiError> {
        let metrics = &self.context.metrics;
        let sealed = execute::seal(&self.clients, &plan.moves, metrics).await;
        let topics = self.model.topics.iter();
        let mut wanted = Wanted(
            topics
                .map(|topic| (topic.uid.clone(), topic.partitions.clone()))
                .collect(),
        );
        for assign in &plan.assign {
            wanted.change_at(&assign.topic_uid, assign.partition, |one| {
                chain::assign(one, &assign.to)
            });
        }
        for key in &plan.forget {
            wanted.change(key, |one| chain::forget(one, key.epoch));
        }
        for (step, sealed) in plan.moves.iter().zip(sealed) {
            match sealed {
                Ok(sealed) => {
                    let extended = wanted.change(&step.key, |one| {
                        chain::extend(one, step.key.epoch, sealed, &step.to)
                    });
                    metrics.moves.inc_by(u64::from(extended));
                    disks.stale(&step.from);
                }
                Err(error) => {
                    tracing::warn!(
                        topic = step.topic,
                        from = step.from,
                        error,
                        "an entry was not sealed"
                    );
                }
            }
        }
        self.store(listed, &wanted).await
    }

    /// Copies sealed entries, and places those that are whole where they are now. `true`: something was stored.
    ///
    /// # Errors
    /// As [`Carrier::move_partitions`].
    pub async fn copy_entries(
        &self,
        plan: &Plan,
        listed: &mut Listed,
        disks: &mut Disks,
    ) -> Result<bool, ApiError> {
        let addresses = assemble::control_addresses(self.cluster, self.directive);
        let copied = execute::copy(&self.clients, &plan.copies, &addresses, &self.context.metrics).await;
        let topics = listed.topics.iter();
        let mut wanted = Wanted(
            topics
                .map(|topic| (topic.uid().to_owned(), topic.status.partitions.clone()))
                .collect(),
        );
        let mut relocated = false;
        for (job, copied) in plan.copies.iter().zip(copied) {
            match copied {
                Ok(true) => {
                    relocated |= wanted.change(&job.key, |one| chain::relocate(one, job.key.epoch, &job.to));
                    disks.stale(&job.from);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        topic = job.topic,
                        from = job.from,
                        to = job.to,
                        error,
                        "a copy does not get on"
                    );
                }
            }
        }
        if relocated {
            self.store(listed, &wanted).await
        } else {
            Ok(false)
        }
    }

    /// Stores each topic whose status is to change. One that fails does not stop the others.
    async fn store(&self, listed: &mut Listed, wanted: &Wanted) -> Result<bool, ApiError> {
        let now = Time(Timestamp::now());
        let mut members = self.directive.members.iter();
        let starting = self.cluster.since.elapsed() < STARTING
            && members.any(|member| member.ready && !self.model.serves(&member.name));
        let (mut stored, mut failed) = (false, None);
        for topic in &mut listed.topics {
            let Some(partitions) = wanted.0.get(topic.uid()) else {
                continue;
            };
            if self.directive.frozen || (starting && *partitions == topic.status.partitions) {
                continue;
            }
            let mut status = MessageTopicStatus {
                partitions: partitions.clone(),
                ..topic.status.clone()
            };
            let about = report::About {
                name: topic.name(),
                uid: topic.uid(),
                generation: topic.object.metadata.generation,
            };
            report::describe(self.model, &about, &mut status, &now);
            if status == topic.status {
                continue;
            }
            match topics::store(&self.context.kube, topic, status).await {
                Ok(()) => stored = true,
                // Deleted meanwhile: the next look does not see it.
                Err(error) if error.is_not_found() => stored = true,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(stored), Err)
    }
}

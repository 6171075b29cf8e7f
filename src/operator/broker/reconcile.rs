//! The loop: observe, validate, build, plan, apply, status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::apply::{self, Applied, Applier};
use super::build::{Blueprint, DEFAULT_IMAGE, REPLICAS, build};
use super::health::{self, Problem};
use super::observe::{Observed, observe};
use super::plan::{self, Leftover, Live, Scale, ScaleInput};
use super::rivals;
use super::rollout::Rollout;
use super::status::{self, StatusInput};
use super::validate::{Validated, validate};
use crate::api::broker::Durability;
use crate::api::storage::VolumeFate;
use crate::api::{MessageBroker, MessageBrokerStatus, conditions};
use crate::operator::cluster::{Cluster, Directive, Facts};
use crate::operator::context::Context;
use crate::operator::error::ReconcileError;
use crate::operator::scaling::{self, Basis};
use crate::scaling::Policy;

/// How soon to look again while something is under way that no watch tells of.
const SOON: Duration = Duration::from_secs(2);
/// How soon to look again at rest.
const LATER: Duration = Duration::from_secs(15 * 60);
/// For how long after its start the operator takes what it does not know for unchanged.
const SETTLING: Duration = Duration::from_secs(8);

/// Brings one MessageBroker closer to what it asks for. The answer: when to look again if nothing happens.
///
/// # Errors
/// A step did not come to its end; trying again is right.
pub async fn reconcile(
    context: &Arc<Context>,
    namespace: &str,
    name: &str,
) -> Result<Duration, ReconcileError> {
    let observed = observe(&context.kube, namespace, name)
        .await
        .map_err(ReconcileError::Observe)?;
    let Some(observed) = observed else {
        context.clusters.forget(context, namespace, name);
        return Ok(LATER);
    };
    let cluster = context.clusters.of(context, &observed.broker);
    let mut pass = Pass::new(context, &cluster, observed);
    if pass.observed.broker.spec.paused {
        return pass.paused().await;
    }
    pass.run().await
}

/// One look at one MessageBroker.
struct Pass<'a> {
    context: &'a Arc<Context>,
    cluster: &'a Cluster,
    observed: Observed,
    validated: Validated,
    facts: Facts,
    policy: Policy,
    now: Time,
}

impl<'a> Pass<'a> {
    fn new(context: &'a Arc<Context>, cluster: &'a Cluster, observed: Observed) -> Self {
        let live = observed.stateful_set.as_ref().and_then(|set| set.spec.as_ref());
        let validated = validate(&observed.broker.spec, live.map(|spec| &spec.template));
        Self {
            context,
            cluster,
            policy: scaling::policy::policy(&observed.broker.spec),
            facts: cluster.facts.lock().clone(),
            observed,
            validated,
            now: Time(Timestamp::now()),
        }
    }

    async fn paused(self) -> Result<Duration, ReconcileError> {
        self.cluster.scaler.lock().pause(scaling::now());
        // Brokers that restart are still told what they own; nothing moves.
        let size = self.live().map_or(0, Live::size);
        let scale = Scale {
            replicas: size,
            keep: size,
            leaving: None,
            drain: None,
            delete_claim: None,
            waiting: String::new(),
        };
        self.cluster.direct(self.directive(&scale));
        let status = status::paused(&self.observed.broker, &self.now);
        self.write_status(&self.observed.broker, status).await?;
        Ok(LATER)
    }

    async fn run(&mut self) -> Result<Duration, ReconcileError> {
        let wanted = self.wanted();
        let scale = self.scale(wanted);
        self.write_decision_first(&scale).await?;
        let image = self.image();
        let children = build(&Blueprint {
            broker: &self.observed.broker,
            validated: &self.validated,
            image: image.clone(),
            default_image: self.default_image(),
            live_claims: self
                .live_spec()
                .map(|spec| spec.volume_claim_templates.clone().unwrap_or_default()),
            operator_namespace: &self.context.operator_namespace,
        });
        // Brokers stop getting partitions before anything else is done about them.
        self.cluster.direct(self.directive(&scale));
        let applier = Applier::new(&self.context.kube, &self.cluster.namespace, &self.cluster.uid);
        let mut applied = applier
            .all(children, scale.replicas, &self.observed)
            .await
            .map_err(ReconcileError::Apply)?;
        applied
            .problems
            .splice(0..0, apply::invalid(&self.validated.invalid));
        self.delete_claim(&scale).await?;
        let rollout = Rollout::new(applied.stateful_set.as_ref(), &self.observed.pods);
        let updated = rollout.updated();
        self.restart(&scale, &rollout).await?;
        self.set_basis(&scale, &updated);
        self.finish(wanted, &scale, &applied, (updated, image)).await
    }

    fn live_spec(&self) -> Option<&k8s_openapi::api::apps::v1::StatefulSetSpec> {
        self.observed.stateful_set.as_ref()?.spec.as_ref()
    }

    fn live(&self) -> Option<Live> {
        let set = self.observed.stateful_set.as_ref()?;
        let annotations = set.metadata.annotations.as_ref();
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Some(Live {
            replicas: u32::try_from(replicas).unwrap_or(0),
            recorded: annotations
                .and_then(|all| all.get(REPLICAS))
                .and_then(|text| text.parse().ok()),
        })
    }

    /// How many brokers there should be.
    fn wanted(&self) -> u32 {
        let scaler = self.cluster.scaler.lock();
        scaler.desired(self.policy.autoscaling.mode, self.starting_replicas())
    }

    /// `spec.replicas` as a person wrote it: what another autoscaler writes there is no wish to follow.
    fn starting_replicas(&self) -> u32 {
        let broker = &self.observed.broker;
        if !rivals::is_overruled(&self.observed.rivals, broker.spec.autoscaling.mode) {
            return broker.spec.replicas;
        }
        let autoscaling = broker
            .status
            .as_ref()
            .and_then(|status| status.autoscaling.as_ref());
        autoscaling
            .and_then(|autoscaling| autoscaling.starting_replicas)
            .unwrap_or(broker.spec.replicas)
    }

    fn scale(&self, wanted: u32) -> Scale {
        let live = self.live();
        let size = live.map_or(0, Live::size);
        let leftovers = self.leftovers(size);
        let known = self.facts.generation > 0;
        let before = self.observed.broker.status.as_ref();
        plan::scale(&ScaleInput {
            live,
            wanted,
            // Until it is known which brokers are named, all are.
            referenced: match live {
                None => self.observed.referenced,
                Some(_) if known => self.facts.referenced,
                Some(_) => u32::MAX,
            },
            drain: before.and_then(|status| status.drain.as_ref()),
            settled: self.cluster.settled(&self.facts),
            leftovers: &leftovers,
            delete_claims: self.observed.broker.spec.storage.retention_policy.when_scaled
                == VolumeFate::Delete,
            now: self.now.clone(),
        })
    }

    fn leftovers(&self, size: u32) -> Vec<Leftover> {
        let pods = self.observed.pods.iter().map(|(ordinal, _)| *ordinal);
        let claims = self.observed.claims.iter().map(|(ordinal, _)| *ordinal);
        let ordinals: BTreeSet<u32> = pods.chain(claims).filter(|ordinal| *ordinal >= size).collect();
        let one = |ordinal| {
            let claim = self.observed.claims.iter().find(|(of, _)| *of == ordinal);
            Leftover {
                ordinal,
                pod: self.observed.pods.iter().any(|(of, _)| *of == ordinal),
                claim: claim.is_some(),
                claim_ending: claim.is_some_and(|(_, claim)| claim.metadata.deletion_timestamp.is_some()),
            }
        };
        ordinals.into_iter().map(one).collect()
    }

    /// What an empty `spec.image` stands for: what it stood for when the cluster was made.
    fn default_image(&self) -> String {
        let annotations = self
            .observed
            .stateful_set
            .as_ref()
            .and_then(|set| set.metadata.annotations.as_ref());
        let pinned = annotations.and_then(|all| all.get(DEFAULT_IMAGE)).cloned();
        pinned.unwrap_or_else(|| self.context.broker_image.clone())
    }

    fn image(&self) -> String {
        let named = &self.observed.broker.spec.image;
        if named.is_empty() {
            self.default_image()
        } else {
            named.clone()
        }
    }

    /// A decision is stored before it is acted on, so that an operator that starts now goes on with it.
    async fn write_decision_first(&mut self, scale: &Scale) -> Result<(), ReconcileError> {
        let starting = self.starting_replicas();
        let before = self.observed.broker.status.clone().unwrap_or_default();
        let (autoscaling, announcement) = {
            let mut scaler = self.cluster.scaler.lock();
            (
                scaler.status(starting, self.policy.autoscaling.mode),
                scaler.announcement.take(),
            )
        };
        let desired =
            |status: &MessageBrokerStatus| status.autoscaling.as_ref().and_then(|one| one.desired_replicas);
        let drain = |status: &MessageBrokerStatus| status.drain.as_ref().map(|drain| drain.ordinal);
        let first = MessageBrokerStatus {
            autoscaling: Some(autoscaling),
            drain: scale.drain.clone(),
            ..before.clone()
        };
        if before.observed_generation.is_some()
            && (desired(&first) != desired(&before) || drain(&first) != drain(&before))
        {
            self.observed.broker = self.write_status(&self.observed.broker, first).await?;
        }
        if let Some((reason, note)) = announcement {
            self.context
                .events
                .normal(&self.cluster.reference(), reason, &note)
                .await;
        }
        Ok(())
    }

    fn directive(&self, scale: &Scale) -> Directive {
        let spec = &self.observed.broker.spec;
        Directive {
            durability: match spec.durability {
                Durability::Fsync => crate::pb::Durability::Fsync,
                Durability::Memory => crate::pb::Durability::Memory,
            },
            limits: self.validated.limits,
            capacity: self.cluster.scaler.lock().channel_capacity(&self.policy),
            topic_defaults: spec.topic_defaults.clone(),
            members: self.observed.members(),
            size: scale.replicas,
            keep: scale.keep,
            leaving: scale.leaving,
            settle: self.validated.settle,
            frozen: spec.paused,
            drain: 0,
        }
    }

    async fn delete_claim(&self, scale: &Scale) -> Result<(), ReconcileError> {
        let claim = self
            .observed
            .claims
            .iter()
            .find(|(ordinal, _)| Some(*ordinal) == scale.delete_claim);
        if let Some((ordinal, claim)) = claim {
            tracing::info!(ordinal, "deleting the volume of a broker that has left");
            self.context
                .kube
                .delete(claim)
                .await
                .map_err(ReconcileError::Apply)?;
        }
        Ok(())
    }

    async fn restart(&self, scale: &Scale, rollout: &Rollout<'_>) -> Result<(), ReconcileError> {
        let size = (scale.replicas, scale.leaving.is_some());
        let starting = self.cluster.since.elapsed() < SETTLING;
        let Some(pod) = rollout.restart(&self.facts, size, starting, &self.now) else {
            return Ok(());
        };
        let name = pod.metadata.name.clone().unwrap_or_default();
        tracing::info!(pod = name, "restarting a broker with the newest template");
        self.context
            .kube
            .delete(pod)
            .await
            .map_err(ReconcileError::Apply)?;
        let note = format!("{name} is restarted to run with the newest template");
        let events = &self.context.events;
        events
            .normal(&self.cluster.reference(), "BrokerRestarted", &note)
            .await;
        Ok(())
    }

    fn set_basis(&self, scale: &Scale, updated: &[String]) {
        let brokers = self
            .observed
            .members()
            .into_iter()
            .map(|member| (member.name, member.ready));
        self.cluster.scaler.lock().set_basis(Basis {
            policy: self.policy.clone(),
            spec_replicas: self.starting_replicas(),
            brokers: brokers.collect(),
            rolling_out: updated.len() < self.observed.pods.len(),
            draining: scale.drain.is_some(),
        });
    }

    async fn finish(
        &self,
        wanted: u32,
        scale: &Scale,
        applied: &Applied,
        (updated, image): (Vec<String>, String),
    ) -> Result<Duration, ReconcileError> {
        let health_problems = health::problems(&self.observed);
        let conflict = rivals::conflict(&self.observed.rivals, self.observed.broker.spec.autoscaling.mode);
        let (autoscaling, figures, channel_capacity) = {
            let scaler = self.cluster.scaler.lock();
            (
                scaler.status(self.starting_replicas(), self.policy.autoscaling.mode),
                scaler.figures().clone(),
                scaler.channel_capacity(&self.policy),
            )
        };
        let status = status::status(&StatusInput {
            broker: &self.observed.broker,
            wanted,
            scale,
            members: &self.observed.members(),
            updated: &updated,
            image,
            sync_problems: &applied.problems,
            health_problems: &health_problems,
            conflict: conflict.as_ref(),
            facts: &self.facts,
            autoscaling,
            figures: &figures,
            channel_capacity,
            settling: self.cluster.since.elapsed() < SETTLING,
            drain_timeout: self.validated.timeout,
            now: self.now.clone(),
        });
        self.tell(
            &status,
            applied.problems.iter().chain(&health_problems).chain(&conflict),
        )
        .await;
        let rolling = updated.len() < self.observed.pods.len();
        let at_rest = conditions::is_true(&status.conditions, conditions::READY)
            && scale.drain.is_none()
            && scale.waiting.is_empty()
            && !rolling
            && self.cluster.since.elapsed() > SETTLING;
        self.write_status(&self.observed.broker, status).await?;
        Ok(if at_rest { LATER } else { SOON })
    }

    /// Events of what a person should see.
    async fn tell(&self, status: &MessageBrokerStatus, problems: impl Iterator<Item = &Problem>) {
        let about = self.cluster.reference();
        for problem in problems {
            self.context
                .events
                .warning(&about, problem.reason, &problem.message)
                .await;
        }
        let before = self
            .observed
            .broker
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice());
        let reason =
            |conditions: &[_], type_| conditions::find(conditions, type_).map(|found| found.reason.clone());
        let drain = conditions::find(&status.conditions, conditions::DRAINING);
        if let Some(found) = drain.filter(|found| found.reason == "DrainStuck") {
            let known = before.and_then(|before| reason(before, conditions::DRAINING));
            if known.as_deref() != Some("DrainStuck") {
                self.context
                    .events
                    .warning(&about, "DrainStuck", &found.message)
                    .await;
            }
        }
    }

    async fn write_status(
        &self,
        broker: &MessageBroker,
        status: MessageBrokerStatus,
    ) -> Result<MessageBroker, ReconcileError> {
        if broker.status.as_ref() == Some(&status) {
            return Ok(broker.clone());
        }
        let wanted = MessageBroker {
            status: Some(status),
            ..broker.clone()
        };
        self.context
            .kube
            .replace_status(&wanted)
            .await
            .map_err(ReconcileError::Status)
    }
}

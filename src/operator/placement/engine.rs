//! One cluster's placement loop: reads topics and brokers, plans, carries it out, tells the brokers.
//!
//! It may die at any point: everything it must remember is in the MessageTopics' status and on the brokers' disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::assemble;
use super::carry::Carrier;
use super::disks::Disks;
use super::execute::{self, Clients};
use super::model::{Broker, Model};
use super::plan::{self, Plan};
use super::tell::{EmptySince, Telling};
use super::topics::{self, Listed, StoredTopic};
use crate::api::{MessageTopicSpec, names};
use crate::operator::cluster::{Cluster, Directive, Facts};
use crate::operator::context::Context;
use crate::operator::error::ApiError;
use crate::operator::pressure::{Link, LinkContext, LinkState, Target};
use crate::pb::Configuration;

/// How soon to look again while something moves.
const BUSY: Duration = Duration::from_millis(400);
/// How soon to look again at rest.
const IDLE: Duration = Duration::from_secs(90);
/// Events that come together are handled together.
const GATHER: Duration = Duration::from_millis(15);
/// How long new partitions wait for brokers that are about to serve.
const PATIENCE: Duration = Duration::from_secs(5);
/// A partition that cannot take appends is reported after this time.
const LASTING: Duration = Duration::from_secs(2);

/// Starts the placement of a cluster.
pub fn start(context: Arc<Context>, cluster: Arc<Cluster>) {
    let engine = Engine {
        configuration: watch::Sender::new(None),
        counter: 0,
        disks: Disks::default(),
        known: BTreeMap::new(),
        unassigned_since: None,
        empty_since: None,
        problem_since: BTreeMap::new(),
        blocked: BTreeMap::new(),
        autocreate: super::autocreate::Autocreate::default(),
        context,
        cluster,
    };
    tokio::spawn(engine.run());
}

struct Engine {
    context: Arc<Context>,
    cluster: Arc<Cluster>,
    configuration: watch::Sender<Option<Arc<Configuration>>>,
    counter: u64,
    disks: Disks,
    known: BTreeMap<String, MessageTopicSpec>,
    unassigned_since: Option<Instant>,
    empty_since: EmptySince,
    problem_since: BTreeMap<(String, u32), Instant>,
    blocked: BTreeMap<String, u64>,
    autocreate: super::autocreate::Autocreate,
}

impl Engine {
    async fn run(mut self) {
        let cluster = Arc::clone(&self.cluster);
        let mut directive = cluster.directive.subscribe();
        let mut failures = 0u32;
        loop {
            let wait = match self.pass().await {
                Ok(busy) => {
                    failures = 0;
                    if busy { BUSY } else { IDLE }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(cluster = cluster.key(), %error, "placement does not get on");
                    self.failed(&error);
                    crate::operator::backoff::delay(failures, rand::random())
                }
            };
            tokio::select! {
                () = cluster.stop.cancelled() => return,
                () = cluster.poke.notified() => {}
                changed = directive.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    fn failed(&self, error: &ApiError) {
        let facts = Facts {
            problem: if error.is_conflict() {
                String::new()
            } else {
                error.to_string()
            },
            ..self.cluster.facts.lock().clone()
        };
        self.cluster.found(facts);
    }

    /// One look at everything. `true`: look again soon.
    async fn pass(&mut self) -> Result<bool, ApiError> {
        let Some(directive) = self.cluster.directive.borrow().clone() else {
            return Ok(false);
        };
        self.connect(&directive);
        let cluster = Arc::clone(&self.cluster);
        let (namespace, name) = (cluster.namespace.as_str(), cluster.name.as_str());
        let before: BTreeSet<String> = self.known.keys().cloned().collect();
        let mut listed = topics::list(&self.context.kube, namespace, name, &mut self.known).await?;
        if before.iter().any(|uid| !self.known.contains_key(uid)) {
            // What a deleted topic left on the disks is to go.
            self.disks.all_stale();
        }
        if !directive.frozen {
            let wanted = self.wanted_topics();
            self.autocreate
                .create(
                    &self.context,
                    &cluster,
                    &directive.topic_defaults,
                    (&listed, wanted),
                )
                .await;
        }
        // Brokers serve what they own as soon as they are told; nothing else is in front of that.
        self.publish(&directive, &listed);
        let leaving = directive.leaving.map(|ordinal| names::broker(name, ordinal));
        self.disks
            .refresh(
                &cluster.link_states(),
                leaving.as_deref(),
                &sealed_at(&listed),
                &self.context.metrics,
            )
            .await;
        let model = self.model(&directive, &listed);
        let plan = plan::plan(&model);
        let context = Arc::clone(&self.context);
        let mut carrier = Carrier {
            context: &context,
            cluster: &cluster,
            directive: &directive,
            model: &model,
            clients: self.clients(),
        };
        let outcome = carrier.move_partitions(&plan, &mut listed, &mut self.disks).await;
        // Also after a conflict: what was stored is in force. Copies take their time, and come after that.
        self.publish(&directive, &listed);
        let moved = outcome?;
        carrier.clients = self.clients();
        let outcome = carrier.copy_entries(&plan, &mut listed, &mut self.disks).await;
        self.publish(&directive, &listed);
        let stored = moved | outcome?;
        self.drop_entries(&plan).await;
        let model = self.model(&directive, &listed);
        let facts = Telling {
            cluster: &cluster,
            directive: &directive,
            model: &model,
            listed: &listed,
            generation: self.generation(),
        };
        let facts = facts.facts(&plan, &mut self.empty_since);
        cluster.found(facts);
        let busy = plan.waiting
            || stored
            || !self.problem_since.is_empty()
            || directive.leaving.is_some()
            || !plan.moves.is_empty()
            || !plan.drops.is_empty();
        Ok(busy && !directive.frozen)
    }

    /// A link to every pod that has an address, and to no other.
    fn connect(&self, directive: &Directive) {
        let mut links = self.cluster.links.lock();
        let targets: BTreeMap<&str, Target> = directive
            .members
            .iter()
            .filter_map(|member| {
                let target = Target {
                    name: member.name.clone(),
                    pod_uid: member.pod_uid.clone(),
                    ip: member.ip.clone()?,
                };
                Some((member.name.as_str(), target))
            })
            .collect();
        links.retain(|name, link| targets.get(name.as_str()) == Some(&link.target));
        for (name, target) in targets {
            links.entry(name.to_owned()).or_insert_with(|| {
                let cluster = Arc::downgrade(&self.cluster);
                let context = LinkContext {
                    configuration: self.configuration.subscribe(),
                    interval: self.context.pressure_interval,
                    changed: Arc::new(move || {
                        if let Some(cluster) = cluster.upgrade() {
                            cluster.poke.notify_one();
                        }
                    }),
                    metrics: self.context.metrics.clone(),
                };
                Arc::new(Link::start(target, context, &self.cluster.stop))
            });
        }
    }

    /// What clients ask for, by the brokers that know the newest configuration: another's report may be from before
    /// the topic was made, and a topic that is deleted soon after must not come back by it.
    fn wanted_topics(&self) -> BTreeSet<String> {
        let generation = self.generation();
        let states = self.cluster.link_states().into_values();
        states
            .filter_map(|state| state.report)
            .filter(|(report, _)| report.configuration_generation == generation)
            .flat_map(|(report, _)| report.wanted_topics.clone())
            .collect()
    }

    /// Tells the brokers, if there is anything new.
    fn publish(&mut self, directive: &Directive, listed: &Listed) {
        let mut configuration = assemble::configuration(&self.cluster, directive, &listed.topics);
        configuration.leader_term = self.context.kube.term.number;
        let present = self.configuration.borrow().clone();
        configuration.generation = present.as_ref().map_or(0, |present| present.generation);
        if present.as_deref() == Some(&configuration) {
            return;
        }
        self.counter += 1;
        // Grows along a term, and from each term to the next.
        configuration.generation = (configuration.leader_term << 32) | self.counter;
        self.configuration.send_replace(Some(Arc::new(configuration)));
    }

    fn generation(&self) -> u64 {
        self.configuration
            .borrow()
            .as_ref()
            .map_or(0, |one| one.generation)
    }

    fn model(&mut self, directive: &Directive, listed: &Listed) -> Model {
        let states = self.cluster.link_states();
        let generation = self.generation();
        let lasting = self.lasting_problems(&states);
        let brokers: Vec<Broker> = directive
            .members
            .iter()
            .map(|member| {
                let state = states.get(&member.name).cloned().unwrap_or_default();
                let problems: BTreeSet<(String, u32)> = problems(&state).collect();
                Broker {
                    name: member.name.clone(),
                    ordinal: member.ordinal,
                    serving: member.ready && state.connected(),
                    current: state.confirmed == Some(generation),
                    stays: member.ordinal < directive.keep && Some(member.ordinal) != directive.leaving,
                    leaving: Some(member.ordinal) == directive.leaving,
                    held: self.disks.held(&member.name, state.connection).cloned(),
                    lasting_problems: problems.intersection(&lasting).cloned().collect(),
                    problems,
                }
            })
            .collect();
        let topics: Vec<_> = listed.topics.iter().map(StoredTopic::model).collect();
        let homeless = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|one| one.chain.is_empty());
        self.unassigned_since = homeless.then(|| self.unassigned_since.unwrap_or_else(Instant::now));
        let serving = brokers
            .iter()
            .filter(|broker| broker.serving && broker.stays)
            .count();
        let waited = self
            .unassigned_since
            .is_some_and(|since| since.elapsed() >= PATIENCE);
        Model {
            patient: serving < directive.keep as usize && !waited,
            frozen: directive.frozen,
            quiet: self.is_quiet(&states),
            unreadable: listed.unreadable.iter().cloned().collect(),
            brokers,
            topics,
        }
    }

    /// Every move brings a short one, which nobody need be told of.
    fn lasting_problems(&mut self, states: &BTreeMap<String, LinkState>) -> BTreeSet<(String, u32)> {
        let now = Instant::now();
        let present: BTreeSet<(String, u32)> = states.values().flat_map(problems).collect();
        self.problem_since.retain(|problem, _| present.contains(problem));
        for problem in present {
            self.problem_since.entry(problem).or_insert(now);
        }
        let lasting = self
            .problem_since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= LASTING);
        lasting.map(|(problem, _)| problem.clone()).collect()
    }

    /// Whether publishers were hardly held back since the last look.
    fn is_quiet(&mut self, states: &BTreeMap<String, LinkState>) -> bool {
        let newest: BTreeMap<String, u64> = states
            .iter()
            .filter_map(|(name, state)| {
                Some((name.clone(), state.report.as_ref()?.0.publisher_blocked_nanos))
            })
            .collect();
        let quiet = newest.iter().all(|(name, nanos)| {
            self.blocked
                .get(name)
                .is_none_or(|before| nanos.saturating_sub(*before) < 100_000_000)
        });
        self.blocked = newest;
        quiet
    }

    fn clients(&self) -> Clients {
        let states = self.cluster.link_states();
        states
            .into_iter()
            .filter_map(|(name, state)| Some((name, state.client?)))
            .collect()
    }

    async fn drop_entries(&mut self, plan: &Plan) {
        let clients = self.clients();
        let dropped = execute::drop_entries(&clients, &plan.drops, &self.context.metrics).await;
        for (job, dropped) in plan.drops.iter().zip(dropped) {
            match dropped {
                Ok(()) => {
                    tracing::info!(broker = job.broker, topic = job.topic, key = ?job.key, "dropped an entry");
                }
                Err(error) => tracing::warn!(
                    broker = job.broker,
                    topic = job.topic,
                    error,
                    "an entry was not dropped"
                ),
            }
            self.disks.stale(&job.broker);
        }
    }
}

fn problems(state: &LinkState) -> impl Iterator<Item = (String, u32)> {
    let problems = state.problems.iter();
    problems.map(|problem| (problem.topic.clone(), problem.partition))
}

/// Brokers that have sealed entries, by the chains.
fn sealed_at(listed: &Listed) -> BTreeSet<String> {
    let partitions = listed.topics.iter().flat_map(|topic| &topic.status.partitions);
    let sealed =
        partitions.flat_map(|partition| partition.chain.iter().filter(|entry| entry.sealed_at.is_some()));
    sealed.flat_map(|entry| entry.brokers.iter().cloned()).collect()
}

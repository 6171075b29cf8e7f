//! What the reconcile is told of brokers and partitions.

use std::time::Instant;

use super::model::{Broker, Model};
use super::plan::Plan;
use super::topics::Listed;
use super::{chain, report};
use crate::api::broker_status::HoldingCounts;
use crate::api::names;
use crate::operator::cluster::{Cluster, Directive, Facts, LinkFacts};

/// What facts are made of.
pub struct Telling<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What its reconcile wants.
    pub directive: &'a Directive,
    /// What was planned on, with the newest of the brokers.
    pub model: &'a Model,
    /// The topics as they are stored.
    pub listed: &'a Listed,
    /// The newest configuration's generation.
    pub generation: u64,
}

/// Since when the leaving broker of which drain holds nothing.
pub type EmptySince = Option<(u64, Instant)>;

impl Telling<'_> {
    /// What was found; `empty_since` goes from one look to the next.
    pub fn facts(&self, plan: &Plan, empty_since: &mut EmptySince) -> Facts {
        let mut facts = Facts {
            generation: self.generation,
            leaving: self.directive.leaving,
            drain: self.directive.drain,
            moving: !plan.moves.is_empty() || !plan.assign.is_empty(),
            ..Facts::default()
        };
        let topics = &self.listed.topics;
        for partition in topics.iter().flat_map(|topic| &topic.status.partitions) {
            if let Some(owner) = chain::owner(partition) {
                *facts.led.entry(owner.to_owned()).or_insert(0) += 1;
            }
            for broker in partition.chain.iter().flat_map(|entry| &entry.brokers) {
                let ordinal = names::ordinal(&self.cluster.name, broker);
                facts.referenced = facts.referenced.max(ordinal.map_or(0, |ordinal| ordinal + 1));
            }
        }
        for (name, state) in self.cluster.link_states() {
            let link = LinkFacts {
                connected: state.connected(),
                current: state.confirmed == Some(facts.generation),
                error: state.error,
            };
            facts.links.insert(name, link);
        }
        self.drain(&mut facts, empty_since);
        if !self.listed.unreadable.is_empty() {
            // It may name any broker.
            facts.referenced = u32::MAX;
            facts.problem = format!(
                "the status of {} topics cannot be read",
                self.listed.unreadable.len()
            );
        }
        facts
    }

    fn drain(&self, facts: &mut Facts, empty_since: &mut EmptySince) {
        let Some(ordinal) = self.directive.leaving else {
            *empty_since = None;
            return;
        };
        let name = names::broker(&self.cluster.name, ordinal);
        let absent = Broker {
            name: name.clone(),
            ordinal,
            leaving: true,
            ..Broker::default()
        };
        let broker = self.model.broker(&name).unwrap_or(&absent);
        let mut members = self.directive.members.iter();
        let running = members.any(|member| member.name == name && member.running);
        let holds = if self.model.unreadable.is_empty() {
            report::leaving_holds(self.model, broker, running)
        } else {
            let why = "a topic's status cannot be read, so what it holds is not known";
            Some((HoldingCounts::default(), why.to_owned()))
        };
        match holds {
            Some((holding, waiting_for)) => {
                *empty_since = None;
                (facts.holding, facts.waiting_for) = (holding, waiting_for);
            }
            None => {
                let since = match *empty_since {
                    Some((drain, since)) if drain == self.directive.drain => since,
                    _ => Instant::now(),
                };
                *empty_since = Some((self.directive.drain, since));
                facts.empty = true;
                facts.settled = since.elapsed() >= self.directive.settle;
            }
        }
    }
}

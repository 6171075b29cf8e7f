//! Which link a message goes to, and how partitions change links: never while one of theirs is unanswered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tonic::Code;

use super::driver::Driver;
use super::link::Link;
use super::partition::{Entry, Partition, merge};
use crate::api::partitioner::partition_for_key;
use crate::client::error::PublishError;

impl Driver {
    /// Finds the partition of a new message and puts it where that partition's messages are.
    pub(super) fn route(&mut self, mut entry: Entry, now: Instant) {
        let count = self.partitions.len() as u32;
        let partition = match entry.payload.partition {
            Some(partition) if partition >= count => {
                let text = format!("partition {partition} does not exist: the topic has {count}");
                return self.settle(
                    entry,
                    Err(PublishError::Rejected {
                        code: Code::InvalidArgument,
                        text,
                    }),
                );
            }
            Some(partition) => partition,
            None if entry.payload.key.is_empty() => self.spread(),
            None => partition_for_key(&entry.payload.key, count),
        };
        entry.partition = partition;
        entry.payload.partition = Some(partition);
        let place = &mut self.partitions[partition as usize];
        match place.link {
            Some(link) => self.links[link].push(entry, now),
            None => place.parked.push_back(entry),
        }
    }

    /// The partition for a message without a key: batch by batch the next one that has an owner.
    fn spread(&mut self) -> u32 {
        let (current, left) = self.sticky;
        if left > 0
            && self
                .partitions
                .get(current)
                .is_some_and(|partition| partition.link.is_some())
        {
            self.sticky.1 -= 1;
            return current as u32;
        }
        let count = self.partitions.len();
        let next = (1..=count)
            .map(|step| (current + step) % count)
            .find(|index| self.partitions[*index].link.is_some())
            .unwrap_or((current + 1) % count);
        self.sticky = (next, self.settings.batch_messages - 1);
        next as u32
    }

    /// Gives every partition to the link of its owner, as far as that can be done now.
    pub(super) fn place(&mut self, now: Instant) {
        self.is_moving = false;
        self.place_at = None;
        let view = self.view.clone();
        let owners = view.owners(&self.settings.topic);
        while self.partitions.len() < owners.len() {
            self.partitions.push(Partition::new());
        }
        for index in 0..self.partitions.len() {
            let owner = owners.get(index).cloned().unwrap_or_default();
            let partition = &mut self.partitions[index];
            if owner.epoch > partition.epoch {
                partition.epoch = owner.epoch;
                partition.not_before = None;
                partition.hint.take_if(|(epoch, _)| *epoch <= owner.epoch);
            }
            let address = match &partition.hint {
                _ if self.client.inner.forward => self.forward_address(),
                Some((_, address)) => Some(address.clone()),
                None => owner.address,
            };
            self.place_one(index, address, now);
        }
        if !self.partitions.is_empty() {
            for entry in std::mem::take(&mut self.unrouted) {
                self.route(entry, now);
            }
        }
    }

    fn place_one(&mut self, index: usize, address: Option<Arc<str>>, now: Instant) {
        if let Some(link) = self.partitions[index].link
            && Some(&self.links[link].address) != address.as_ref()
        {
            self.detach(index);
        }
        let partition = &mut self.partitions[index];
        partition.take_back();
        match (partition.is_ready(now), address) {
            (true, Some(address)) => self.attach(index, address, now),
            (true, None) => {}
            (false, _) => {
                if let Some(at) = partition.not_before.filter(|at| *at > now) {
                    self.place_at = Some(self.place_at.map_or(at, |other| other.min(at)));
                }
            }
        }
    }

    fn attach(&mut self, index: usize, address: Arc<str>, now: Instant) {
        let link = match self.links.iter().position(|link| link.address == address) {
            Some(link) => link,
            None => {
                self.links.push(Link::new(address));
                self.links.len() - 1
            }
        };
        let partition = &mut self.partitions[index];
        partition.link = Some(link);
        let parked = std::mem::take(&mut partition.parked);
        let link = &mut self.links[link];
        link.partitions += 1;
        if !parked.is_empty() {
            link.queued_since.get_or_insert(now);
            link.queue = merge(std::mem::take(&mut link.queue), parked);
        }
    }

    /// Takes a partition's unsent messages off its link.
    pub(super) fn detach(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        let Some(link) = partition.link.take() else { return };
        let link = &mut self.links[link];
        link.partitions -= 1;
        let (own, others): (VecDeque<_>, VecDeque<_>) = link
            .queue
            .drain(..)
            .partition(|entry| entry.partition as usize == index);
        link.queue = others;
        partition.parked = merge(std::mem::take(&mut partition.parked), own);
        self.is_moving = true;
    }

    fn forward_address(&self) -> Option<Arc<str>> {
        let bootstrap = &self.client.inner.bootstrap;
        bootstrap
            .get(self.forward_index % bootstrap.len())
            .map(|address| Arc::from(address.as_str()))
    }
}

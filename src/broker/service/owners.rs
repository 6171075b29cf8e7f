//! The part of a subscription that is at other brokers, for a client that wants the whole topic from this one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use super::remote::{Event, Remote};
use super::subscribe::Session;
use super::{delivery, settle, token};
use crate::pb::subscribe_response::Response;

/// A broker that was lost is tried again after this time.
const RETRY: Duration = Duration::from_millis(200);

impl Session {
    /// Sends what other brokers sent ahead, as far as the client's credit, and lets them send more.
    pub(super) fn release(&mut self) {
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        while self.credit.0 > deliveries.len() as u64 && self.credit.1 > bytes {
            let Some((delivery, size)) = self.held.pop_front() else {
                break;
            };
            bytes += size;
            deliveries.push(delivery);
        }
        if !deliveries.is_empty() {
            self.push(deliveries, bytes);
        }
        if self.credit.0 > 0 && self.credit.1 > 0 && self.held.is_empty() {
            let owners = self.remotes.len() as u64 + 1;
            for remote in self.remotes.values_mut() {
                remote.grant(self.credit, owners);
            }
        }
    }

    /// Subscribes at brokers that became owners, and leaves those that own nothing any more.
    pub(super) fn follow_owners(&mut self) {
        let Some(topic) = self.shared.store.topic(&self.open.topic) else {
            return;
        };
        self.topic = topic;
        if self.open.direct {
            return;
        }
        let owners: Vec<String> = self
            .topic
            .partitions
            .iter()
            .map(|partition| partition.owner())
            .filter(|(is_ours, owner, _)| !is_ours && !owner.is_empty() && *owner != self.shared.name)
            .map(|(_, owner, _)| owner)
            .collect();
        self.remotes
            .retain(|known, _| owners.iter().any(|owner| **owner == **known));
        for owner in owners {
            let owner: Arc<str> = owner.into();
            if !self.remotes.contains_key(&owner) && self.retry_at.is_none() {
                self.remote_id += 1;
                let open = self.open.clone();
                let remote = Remote::open(&self.shared, &owner, self.remote_id, open, self.events.clone());
                self.remotes.insert(owner, remote);
            }
        }
    }

    /// Takes what another broker said.
    ///
    /// # Errors
    /// It refused for good.
    pub(super) fn hear(&mut self, event: Event) -> Result<(), Status> {
        let Event { owner, id, said } = event;
        let Some(remote) = self.remotes.get_mut(&owner).filter(|remote| remote.id == id) else {
            return Ok(());
        };
        match said {
            Ok(Response::Deliveries(batch)) => {
                let mut bytes = 0;
                for mut one in batch.deliveries {
                    let size = delivery::wire_size(&one);
                    bytes += size;
                    one.token = token::wrap(&owner, &one.token);
                    self.held.push_back((one, size));
                    remote.received(1, 0);
                }
                remote.received(0, bytes);
            }
            Ok(Response::Settled(mut settled)) => {
                remote.without_given_back(&mut settled);
                settle::wrap(&mut settled, &owner);
                self.outbox.push(|out| out.settled(settled));
            }
            Ok(Response::Revoke(revoke)) => self.revoke_remote(&owner, &revoke.tokens),
            Ok(Response::Unavailable(unavailable)) => {
                self.outbox
                    .push(|out| out.say(Response::Unavailable(unavailable)));
            }
            Ok(_) => {}
            Err(status) if status.code() == Code::FailedPrecondition => return Err(status),
            Err(status) => {
                tracing::debug!(%owner, %status, "a subscription at another broker ended; trying again");
                self.remotes.remove(&owner);
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        Ok(())
    }
}

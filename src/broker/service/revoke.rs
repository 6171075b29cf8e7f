//! Asking a subscriber to give messages back that others wait for.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::subscribe::Session;
use super::{settle, token};
use crate::broker::group::Answer;
use crate::pb;
use crate::pb::subscribe_response::Response;

impl Session {
    /// Gives back what the client was not sent yet, and asks it for the rest. The tokens are this broker's own.
    pub(super) fn revoke(&mut self, tokens: Vec<Bytes>) {
        let tokens = if self.open.direct {
            tokens
        } else {
            tokens.iter().map(|inner| token::wrap("", inner)).collect()
        };
        let unsent = self.retract(tokens);
        let answers = unsent
            .into_iter()
            .filter_map(|wrapped| {
                let inner = if self.open.direct {
                    Some(wrapped)
                } else {
                    token::unwrap(&wrapped).map(|(_, inner)| inner)
                };
                inner.map(|inner| (inner, Answer::GiveBack(Duration::ZERO)))
            })
            .collect();
        // Nothing to wait for: what is given back is not told to the journal.
        drop(self.member.settle(answers));
    }

    /// The same for what another broker asks for, by its own tokens.
    pub(super) fn revoke_remote(&mut self, owner: &str, tokens: &[Bytes]) {
        let wrapped: HashSet<Bytes> = tokens.iter().map(|inner| token::wrap(owner, inner)).collect();
        let mut unseen = Vec::new();
        self.held.retain(|(delivery, _)| {
            let keep = !wrapped.contains(&delivery.token);
            if !keep {
                unseen.push(delivery.token.clone());
            }
            keep
        });
        let held: HashSet<Bytes> = unseen.iter().cloned().collect();
        unseen.extend(self.retract(wrapped.into_iter().filter(|one| !held.contains(one)).collect()));
        let nack: Vec<_> = unseen
            .into_iter()
            .map(|token| pb::Nack {
                token,
                delay: None,
                unseen: true,
            })
            .collect();
        if nack.is_empty() {
            return;
        }
        let routed = settle::route(pb::Settle {
            nack,
            ..pb::Settle::default()
        });
        for (owner, settle) in routed.elsewhere {
            if let Some(remote) = self.remotes.get_mut(owner.as_str()) {
                remote.give_back(settle);
            }
        }
    }

    /// Takes back what was not sent yet, with its credit, and asks the client for the rest. Returns what was taken
    /// back.
    fn retract(&mut self, tokens: Vec<Bytes>) -> Vec<Bytes> {
        let mut asked: HashSet<Bytes> = tokens.into_iter().collect();
        let mut unsent = Vec::new();
        self.outbox.push(|out| {
            let (taken, bytes) = out.retract(&asked);
            self.credit.0 = self.credit.0.saturating_add(taken.len() as u64);
            self.credit.1 = self.credit.1.saturating_add(bytes);
            for token in &taken {
                asked.remove(token);
            }
            unsent = taken;
            if !asked.is_empty() {
                let tokens = asked.drain().collect();
                out.say(Response::Revoke(pb::Revoke { tokens }));
            }
        });
        unsent
    }
}

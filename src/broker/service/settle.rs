//! Answers to deliveries: from the wire, to the broker that issued each token, and what became of them back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use super::token;
use crate::broker::group::{Answer, Refused};
use crate::pb;

/// Answers that wait for the settlement before them.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(Bytes, Answer)>);

impl Answers {
    /// Adds a request's answers.
    pub(super) fn add(&mut self, settle: pb::Settle) {
        let answers = &mut self.0;
        answers.extend(settle.ack.into_iter().map(|token| (token, Answer::Ack)));
        answers.extend(
            settle
                .nack
                .into_iter()
                .map(|nack| match (duration(nack.delay), nack.unseen) {
                    (delay, false) => (nack.token, Answer::Nack(delay)),
                    (delay, true) => (nack.token, Answer::GiveBack(delay)),
                }),
        );
        answers.extend(
            settle
                .extend
                .into_iter()
                .map(|extend| (extend.token, Answer::Extend(duration(extend.deadline)))),
        );
        answers.extend(settle.give_up.into_iter().map(|token| (token, Answer::GiveUp)));
    }

    /// Whether none wait.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes them all.
    pub(super) fn take(&mut self) -> Vec<(Bytes, Answer)> {
        std::mem::take(&mut self.0)
    }
}

/// A negative one is none.
fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default()
}

/// A request whose tokens were sorted by the broker that issued them.
#[derive(Debug, Default)]
pub(super) struct Routed {
    /// For this broker.
    pub here: pb::Settle,
    /// For others, by name.
    pub elsewhere: BTreeMap<String, pb::Settle>,
    /// No tokens at all.
    pub malformed: Vec<pb::RefusedToken>,
}

/// Sorts wrapped tokens.
pub(super) fn route(settle: pb::Settle) -> Routed {
    let mut routed = Routed::default();
    for wrapped in settle.ack {
        if let Some((to, token)) = routed.find(&wrapped) {
            to.ack.push(token);
        }
    }
    for nack in settle.nack {
        if let Some((to, token)) = routed.find(&nack.token) {
            to.nack.push(pb::Nack { token, ..nack });
        }
    }
    for extend in settle.extend {
        if let Some((to, token)) = routed.find(&extend.token) {
            to.extend.push(pb::Extend { token, ..extend });
        }
    }
    for wrapped in settle.give_up {
        if let Some((to, token)) = routed.find(&wrapped) {
            to.give_up.push(token);
        }
    }
    routed
}

impl Routed {
    fn find(&mut self, wrapped: &Bytes) -> Option<(&mut pb::Settle, Bytes)> {
        match token::unwrap(wrapped) {
            Some(("", inner)) => Some((&mut self.here, inner)),
            Some((owner, inner)) => {
                if !self.elsewhere.contains_key(owner) {
                    self.elsewhere.insert(owner.to_owned(), pb::Settle::default());
                }
                self.elsewhere.get_mut(owner).map(|settle| (settle, inner))
            }
            None => {
                self.malformed.push(refused(wrapped.clone(), &Refused::Malformed));
                None
            }
        }
    }
}

/// Every token of a request.
pub(super) fn tokens(settle: pb::Settle) -> Vec<Bytes> {
    let mut tokens = settle.ack;
    tokens.extend(settle.nack.into_iter().map(|nack| nack.token));
    tokens.extend(settle.extend.into_iter().map(|extend| extend.token));
    tokens.extend(settle.give_up);
    tokens
}

/// What became of `tokens`, for the wire.
pub(super) fn answer(tokens: Vec<Bytes>, results: Vec<Result<(), Refused>>) -> pb::Settled {
    let mut answer = pb::Settled::default();
    for (token, result) in tokens.into_iter().zip(results) {
        match result {
            Ok(()) => answer.settled.push(token),
            Err(why) => answer.refused.push(refused(token, &why)),
        }
    }
    answer
}

/// Puts the broker's name before every token.
pub(super) fn wrap(settled: &mut pb::Settled, broker: &str) {
    for token in &mut settled.settled {
        *token = token::wrap(broker, token);
    }
    for refused in &mut settled.refused {
        refused.token = token::wrap(broker, &refused.token);
    }
}

fn refused(token: Bytes, why: &Refused) -> pb::RefusedToken {
    let code = match why {
        Refused::Stale => Code::Aborted,
        Refused::Malformed => Code::InvalidArgument,
        Refused::Log(_) => Code::Unavailable,
    };
    pb::RefusedToken {
        token,
        code: code.into(),
        text: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_the_broker_that_issued_the_token() {
        let settle = pb::Settle {
            ack: vec![token::wrap("", b"a"), token::wrap("orders-1", b"b"), Bytes::new()],
            nack: vec![pb::Nack {
                token: token::wrap("orders-1", b"c"),
                delay: None,
                unseen: true,
            }],
            ..pb::Settle::default()
        };
        let routed = route(settle);
        assert_eq!(routed.here.ack, [Bytes::from_static(b"a")]);
        assert_eq!(routed.elsewhere["orders-1"].ack, [Bytes::from_static(b"b")]);
        let nack = &routed.elsewhere["orders-1"].nack[0];
        assert_eq!((&nack.token[..], nack.unseen), (&b"c"[..], true));
        assert_eq!(routed.malformed[0].code, i32::from(Code::InvalidArgument));
    }
}

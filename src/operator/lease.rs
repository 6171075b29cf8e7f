//! Leader election by client-go's rules: the Lease is replaced with its resourceVersion, time is measured by this
//! process's monotonic clock only, and the leader steps down before its Lease can be taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Seconds of 2020-01-01 since the Unix epoch: what a Lease that is made anew counts its transitions from, so that
/// terms grow even if somebody deletes the Lease.
const EPOCH_2020: i64 = 1_577_836_800;

/// The times of the election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others leave the Lease alone after they saw it change.
    pub duration: Duration,
    /// How long the leader goes on without a renewal; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between tries.
    pub retry: Duration,
}

impl Timing {
    /// client-go's proportions: 15 s, 10 s, 2 s.
    pub fn of(duration: Duration) -> Self {
        Self {
            duration,
            renew_deadline: duration.mul_f64(2.0 / 3.0),
            retry: duration.mul_f64(2.0 / 15.0),
        }
    }
}

/// One time of leading.
#[derive(Clone, Debug)]
pub struct Term {
    /// Grows with every term of any operator.
    pub number: u64,
    /// Cancelled when the term ends.
    pub ended: CancellationToken,
    deadline: Arc<Mutex<Instant>>,
}

impl Term {
    fn new(number: u64, deadline: Instant) -> Self {
        Self {
            number,
            ended: CancellationToken::new(),
            deadline: Arc::new(Mutex::new(deadline)),
        }
    }

    /// A term that lasts for so long from now; for tests and tools that need no election.
    pub fn lasting(number: u64, duration: Duration) -> Self {
        Self::new(number, Instant::now() + duration)
    }

    /// How much longer this operator may write; `None`: not any more.
    pub fn remaining(&self) -> Option<Duration> {
        if self.ended.is_cancelled() {
            return None;
        }
        let remaining = self.deadline.lock().saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then_some(remaining)
    }
}

/// What was last seen of the Lease, and since when it is so by this process's clock.
#[derive(Debug, Default)]
pub struct Seen {
    version: Option<(Option<String>, Option<MicroTime>, Option<i32>)>,
    since: Option<Instant>,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is ours: keep it.
    Renew(LeaseSpec),
    /// Nobody's: take it.
    Take(LeaseSpec),
    /// Somebody else has it.
    Wait,
}

/// The rules of the election, without a clock or a client.
pub fn decide(
    spec: Option<&LeaseSpec>,
    seen: &mut Seen,
    me: &str,
    timing: Timing,
    now: (Instant, Timestamp),
) -> Step {
    let (instant, wall) = now;
    let fresh = |transitions: i32, acquired: Option<MicroTime>| LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(i32::try_from(timing.duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: acquired.or(Some(MicroTime(wall))),
        renew_time: Some(MicroTime(wall)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(spec) = spec else {
        let first = i32::try_from(wall.as_second() - EPOCH_2020).unwrap_or(1).max(1);
        return Step::Take(fresh(first, None));
    };
    let version = (
        spec.holder_identity.clone(),
        spec.renew_time.clone(),
        spec.lease_transitions,
    );
    if seen.version.as_ref() != Some(&version) {
        seen.version = Some(version);
        seen.since = Some(instant);
    }
    let transitions = spec.lease_transitions.unwrap_or(0);
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == me => Step::Renew(fresh(transitions, spec.acquire_time.clone())),
        None | Some("") => Step::Take(fresh(transitions.saturating_add(1), None)),
        Some(_) => {
            let theirs =
                Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
            let unchanged = seen
                .since
                .map_or(Duration::ZERO, |since| instant.duration_since(since));
            if unchanged > theirs.max(timing.duration) {
                Step::Take(fresh(transitions.saturating_add(1), None))
            } else {
                Step::Wait
            }
        }
    }
}

/// How one try ended.
enum Attempt {
    /// The Lease is ours, with this term's number.
    Held(u64),
    /// Somebody else has it.
    Theirs,
    /// Somebody wrote it at the same time; the next try sees who.
    Contended,
}

/// Takes part in the election until `shutdown`, and then releases the Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    terms: watch::Sender<Option<Term>>,
}

impl Elector {
    /// An elector, and where its terms are seen. `identity` must be of this process alone.
    pub fn new(
        client: Client,
        place: (&str, &str),
        identity: String,
        timing: Timing,
    ) -> (Self, watch::Receiver<Option<Term>>) {
        let (terms, receiver) = watch::channel(None);
        let (namespace, name) = place;
        let elector = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            timing,
            terms,
        };
        (elector, receiver)
    }

    /// Runs the election.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut seen = Seen::default();
        loop {
            let started = Instant::now();
            let limit = self.attempt_limit();
            match tokio::time::timeout(limit, self.attempt(&mut seen)).await {
                Ok(Ok(Attempt::Held(number))) => self.held(number, started),
                Ok(Ok(Attempt::Theirs)) => self.lost("another operator holds the Lease"),
                Ok(Ok(Attempt::Contended)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be read or written"),
                Err(_) => tracing::warn!(?limit, "the API server did not answer about the Lease"),
            }
            let pause = self.pause();
            self.expire();
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.expire();
        }
        self.release().await;
    }

    /// Never longer than until the present term ends.
    fn attempt_limit(&self) -> Duration {
        let remaining = self.terms.borrow().as_ref().and_then(Term::remaining);
        remaining
            .unwrap_or(self.timing.renew_deadline)
            .min(self.timing.renew_deadline / 2)
            .max(Duration::from_millis(50))
    }

    fn pause(&self) -> Duration {
        let jitter = 0.8 + 0.4 * rand::random::<f64>();
        let pause = self.timing.retry.mul_f64(jitter);
        match self.terms.borrow().as_ref().and_then(Term::remaining) {
            Some(remaining) => pause.min(remaining),
            None => pause,
        }
    }

    /// One try: the term's number if the Lease is ours now.
    async fn attempt(&self, seen: &mut Seen) -> Result<Attempt, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        let now = (Instant::now(), Timestamp::now());
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let spec = match decide(spec, seen, &self.identity, self.timing, now) {
            Step::Wait => return Ok(Attempt::Theirs),
            Step::Renew(spec) if self.terms.borrow().is_none() => LeaseSpec {
                // Ours, and yet no term of this process: an answer that was lost. Count it as a new term.
                lease_transitions: spec.lease_transitions.map(|count| count.saturating_add(1)),
                ..spec
            },
            Step::Renew(spec) | Step::Take(spec) => spec,
        };
        let number = u64::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0);
        let written = match found {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                lease.spec = Some(spec);
                self.api.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(Attempt::Held(number)),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Attempt::Contended)
            }
            Err(error) => Err(error),
        }
    }

    /// The Lease is ours, as of `since`.
    fn held(&self, number: u64, since: Instant) {
        let deadline = since + self.timing.renew_deadline;
        let renewed = self.terms.borrow().as_ref().is_some_and(|term| {
            let same = term.number == number && !term.ended.is_cancelled();
            if same {
                *term.deadline.lock() = deadline;
            }
            same
        });
        if !renewed {
            self.lost("a new term begins");
            tracing::info!(term = number, "this operator leads");
            self.terms.send_replace(Some(Term::new(number, deadline)));
        }
    }

    fn lost(&self, why: &str) {
        if let Some(term) = self.terms.send_replace(None) {
            term.ended.cancel();
            tracing::warn!(term = term.number, why, "this operator does not lead any more");
        }
    }

    fn expire(&self) {
        let expired = self
            .terms
            .borrow()
            .as_ref()
            .is_some_and(|term| term.remaining().is_none());
        if expired {
            self.lost("the Lease could not be renewed in time");
        }
    }

    /// Gives the Lease up, so that another operator need not wait for it to run out.
    async fn release(&self) {
        self.lost("it is shutting down");
        let released = tokio::time::timeout(Duration::from_secs(3), async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            if let Some(spec) = lease.spec.as_mut()
                && spec.holder_identity.as_deref() == Some(self.identity.as_str())
            {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        })
        .await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::warn!(?released, "the Lease was not released; it runs out by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn lease(holder: &str, renewed: i64, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).expect("valid"))),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn wall() -> Timestamp {
        Timestamp::from_second(EPOCH_2020 + 1000).expect("valid")
    }

    #[test]
    fn a_lease_is_taken_only_after_it_was_seen_unchanged_for_its_whole_duration() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| (start + Duration::from_secs(seconds), wall());
        // However old it claims to be.
        let theirs = lease("b", 0, 4);
        assert_eq!(decide(Some(&theirs), &mut seen, "a", TIMING, at(0)), Step::Wait);
        assert_eq!(decide(Some(&theirs), &mut seen, "a", TIMING, at(15)), Step::Wait);
        let renewed = lease("b", 1, 4);
        assert_eq!(decide(Some(&renewed), &mut seen, "a", TIMING, at(16)), Step::Wait);
        assert_eq!(decide(Some(&renewed), &mut seen, "a", TIMING, at(31)), Step::Wait);
        let Step::Take(taken) = decide(Some(&renewed), &mut seen, "a", TIMING, at(32)) else {
            panic!("it ran out");
        };
        assert_eq!(
            (taken.holder_identity.as_deref(), taken.lease_transitions),
            (Some("a"), Some(5))
        );
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_terms_grow() {
        let mut seen = Seen::default();
        let Step::Take(taken) = decide(
            Some(&lease("", 0, 7)),
            &mut seen,
            "a",
            TIMING,
            (Instant::now(), wall()),
        ) else {
            panic!("it is free");
        };
        assert_eq!(taken.lease_transitions, Some(8));
    }

    #[test]
    fn a_deleted_lease_starts_at_a_number_that_no_term_had() {
        let mut seen = Seen::default();
        let Step::Take(taken) = decide(None, &mut seen, "a", TIMING, (Instant::now(), wall())) else {
            panic!("it is free");
        };
        assert_eq!(taken.lease_transitions, Some(1000));
    }

    #[test]
    fn renewing_keeps_the_term() {
        let mut seen = Seen::default();
        let Step::Renew(kept) = decide(
            Some(&lease("a", 0, 7)),
            &mut seen,
            "a",
            TIMING,
            (Instant::now(), wall()),
        ) else {
            panic!("it is ours");
        };
        assert_eq!(kept.lease_transitions, Some(7));
    }

    #[test]
    fn the_leader_steps_down_before_anybody_may_take_over() {
        for seconds in [3, 15, 600] {
            let timing = Timing::of(Duration::from_secs(seconds));
            assert!(timing.renew_deadline + timing.retry < timing.duration);
        }
        let term = Term::lasting(1, Duration::ZERO);
        assert!(term.remaining().is_none());
    }
}

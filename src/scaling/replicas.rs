//! The slow loop: how many brokers there should be.

use super::capacity::{self, Capacity};
use super::decision::{Decision, Inputs, LimitedBy, Reason};
use super::demand::{Reading, Sizing, whole};
use super::guards::{self, Guard, SATURATED};
use super::jump::{Jump, Phase, Progress};
use super::observed::Observed;
use super::policy::{Mode, Policy};
use super::state::State;
use super::time::Time;

/// Seconds of reports that a mean must cover to be acted on.
const SHORTEST_MEAN: f64 = 10.0;
/// How far two readings may differ to agree.
const AGREEMENT: f64 = 0.2;

/// Everything that is known now, in plain numbers.
pub(super) struct View<'a> {
    pub(super) policy: &'a Policy,
    pub(super) observed: &'a Observed,
    pub(super) now: Time,
    /// Brokers that are Ready; of those, brokers with a fresh report; of those, brokers with a rate.
    pub(super) ready: u32,
    pub(super) fresh: u32,
    pub(super) measured: u32,
    /// The last three readings, the newest first.
    pub(super) latest: [Option<Reading>; 3],
    /// Over the window, and how many seconds of it there are.
    mean: Option<Reading>,
    mean_seconds: f64,
    /// What a broker can do, by the last two reports and by the window.
    capacity_now: Option<f64>,
    capacity_mean: Option<f64>,
    queued: u64,
    queue_delay_p99: std::time::Duration,
}

impl<'a> View<'a> {
    pub(super) fn new(policy: &'a Policy, observed: &'a Observed, state: &State, now: Time) -> Self {
        let staleness = policy.autoscaling.metrics_staleness;
        let measured = state.histories.measured(observed, staleness, now);
        let all = state.histories.all();
        let correction = state.durable.correction;
        let rate = |capacity: Option<Capacity>| capacity.map(|capacity| capacity.per_broker);
        let capacity_mean = rate(capacity::estimate(
            &all,
            |history| history.since(Time::default()),
            &policy.channel,
            correction,
        ))
        .or(state.capacity);
        let capacity_now = rate(capacity::estimate(
            &measured,
            |history| history.newest(2),
            &policy.channel,
            correction,
        ))
        .or(capacity_mean);
        let mean_seconds = state.histories.span_since(state.mean_from).as_secs_f64();
        let latest = [0, 1, 2].map(|back| {
            Reading::take(
                &measured,
                |history| history.newest(back + 1).skip(back),
                capacity_now,
                None,
            )
        });
        let fresh = |report: &super::observed::Report| report.is_fresh(staleness, now);
        let reports = || observed.ready().filter_map(|broker| broker.report).filter(fresh);
        Self {
            policy,
            observed,
            now,
            ready: observed.ready_brokers(),
            fresh: reports().count() as u32,
            measured: measured.len() as u32,
            latest,
            mean: Reading::take(
                &all,
                |history| history.since(state.mean_from),
                capacity_mean,
                (mean_seconds > 0.0).then_some(mean_seconds),
            ),
            mean_seconds,
            capacity_now,
            capacity_mean,
            queued: reports().fold(0, |sum, report| {
                sum.saturating_add(report.gauges.channel_messages)
            }),
            queue_delay_p99: std::time::Duration::from_nanos(
                reports()
                    .map(|report| report.gauges.sojourn_p99_nanos)
                    .max()
                    .unwrap_or(0),
            ),
        }
    }

    /// Publishers are held back by busy brokers, or messages wait and none is acknowledged.
    pub(super) fn is_distressed(&self) -> bool {
        self.latest[0].is_some_and(|reading| {
            reading.hidden >= SATURATED
                || (reading.acked <= 0.0 && (reading.accepted > 0.0 || self.queued > 0))
        })
    }

    fn sizing(&self, demand: f64, capacity: f64) -> Sizing {
        Sizing {
            demand,
            capacity,
            queued: self.queued as f64,
            ready: self.ready,
            start_seconds: self.observed.start_time.as_secs_f64(),
        }
    }

    /// The demand that two saturated readings in a row agree on; of three that do not agree, the lower of the
    /// last two, so that a decision is never more than three reports away. And whether it is only a least value.
    fn saturated_demand(&self) -> Option<(f64, Reading)> {
        let saturated = |reading: &Option<Reading>| reading.filter(|r| r.hidden >= SATURATED);
        let newest = saturated(&self.latest[0])?;
        let before = saturated(&self.latest[1])?;
        let (a, b) = (newest.demand(), before.demand());
        if (a - b).abs() <= AGREEMENT * a.max(b) {
            Some((f64::midpoint(a, b), newest))
        } else {
            saturated(&self.latest[2]).map(|_| (a.min(b), newest))
        }
    }

    fn inputs(&self, basis: &Basis) -> Inputs {
        Inputs {
            demand_per_second: basis.demand.round() as u64,
            accepted_per_second: basis.reading.accepted.round() as u64,
            capacity_per_broker: basis.capacity.map(|capacity| capacity.round().max(1.0) as u64),
            blocked_percent: (basis.reading.blocked * 100.0).round() as u32,
            backlog: self.queued,
            queue_delay_p99: self.queue_delay_p99,
            brokers_ready: self.ready,
            brokers_reporting: self.measured,
            target_utilization_percent: self.policy.autoscaling.target_utilization_percent,
        }
    }
}

/// The numbers that a proposal came from.
#[derive(Clone, Copy, Default)]
struct Basis {
    reading: Reading,
    demand: f64,
    capacity: Option<f64>,
}

/// What the demand asks for.
struct Proposal {
    reason: Reason,
    /// Before tolerance.
    recommended: u32,
    /// After it.
    replicas: u32,
    basis: Basis,
}

/// What came of a proposal.
struct Outcome {
    to: u32,
    reason: Reason,
    limited_by: Option<LimitedBy>,
}

impl Outcome {
    fn hold(current: u32, reason: Reason, recommended: u32) -> Self {
        Self {
            to: current,
            reason,
            limited_by: (recommended != current).then_some(LimitedBy::Guard),
        }
    }
}

/// Decides on the number of brokers.
///
/// The state that is returned goes into the next call if the decision was acted on; else the one before does.
/// Calling again with the same observation and time, and the state returned, takes in nothing twice.
pub fn decide(policy: &Policy, observed: &Observed, state: &State, now: Time) -> (Decision, State) {
    let mut state = state.clone();
    state.observe(policy, observed, now);
    let view = View::new(policy, observed, &state, now);
    if view.capacity_mean.is_some() {
        state.capacity = view.capacity_mean;
    }
    let mode = policy.autoscaling.mode;
    let current = observed.current_replicas;
    let acting = matches!(mode, Mode::ScaleUpOnly | Mode::Auto);
    let before = state.durable.starting_replicas.replace(observed.spec_replicas);

    let phase = advance_jump(&view, &mut state);
    let proposal = propose(&view, &state, phase);
    let outcome = if mode == Mode::Off {
        Outcome::hold(current, Reason::Off, current)
    } else if acting && before.is_some_and(|before| before != observed.spec_replicas) {
        start_over(&view, &mut state)
    } else {
        conclude(&view, &mut state, &proposal)
    };

    let desired = match mode {
        Mode::Off | Mode::Recommend => observed.spec_replicas,
        Mode::ScaleUpOnly if outcome.reason != Reason::StartingPoint => outcome.to.max(current),
        Mode::ScaleUpOnly | Mode::Auto => outcome.to,
    };
    if acting && desired != current {
        note_change(&view, &mut state, &proposal, (desired, outcome.reason));
    }
    let mode_limits = mode != Mode::Off && desired != outcome.to;
    let decision = Decision {
        from: current,
        desired_replicas: desired,
        proposed_replicas: if mode == Mode::Off { desired } else { outcome.to },
        recommended_replicas: if mode == Mode::Off {
            desired
        } else {
            proposal.recommended
        },
        reason: outcome.reason,
        limited_by: if mode_limits {
            Some(LimitedBy::Mode)
        } else {
            outcome.limited_by
        },
        mode,
        inputs: view.inputs(&proposal.basis),
    };
    (decision, state)
}

/// Goes on with the jump that is under way, if one is.
fn advance_jump(view: &View<'_>, state: &mut State) -> Phase {
    let Some(mut jump) = state.durable.jump else {
        return Phase::Over;
    };
    let hidden = |reading: &Option<Reading>| reading.map_or(0.0, |reading| reading.hidden);
    let progress = Progress {
        current: view.observed.current_replicas,
        ready: view.ready,
        start_time: view.observed.start_time,
        catch_up: view.policy.autoscaling.catch_up,
        hidden: hidden(&view.latest[0]).max(hidden(&view.latest[1])),
    };
    let staleness = view.policy.autoscaling.metrics_staleness;
    let measured = state.histories.measured(view.observed, staleness, view.now);
    let reports_since = |since| {
        let all_measured = measured.len() as u32 >= view.ready;
        let fewest = measured.iter().map(|history| history.count_since(since)).min();
        if all_measured { fewest.unwrap_or(0) } else { 0 }
    };
    let phase = jump.advance(&progress, reports_since, view.now);
    state.durable.jump = Some(jump);
    if phase == Phase::Over {
        state.durable.jump = None;
        state.mean_from = view.now;
    }
    phase
}

/// What the demand asks for: at once if the brokers are saturated, else by the mean.
fn propose(view: &View<'_>, state: &State, phase: Phase) -> Proposal {
    let current = view.observed.current_replicas;
    let stay = |reason, basis| Proposal {
        reason,
        recommended: current,
        replicas: current,
        basis,
    };
    let basis_of = |reading: Option<Reading>, capacity| {
        let reading = reading.unwrap_or_default();
        Basis {
            reading,
            demand: reading.demand(),
            capacity,
        }
    };
    if phase == Phase::Starting {
        return stay(
            Reason::AwaitingBrokers,
            basis_of(view.latest[0], view.capacity_now),
        );
    }
    let jump = state.durable.jump.filter(|_| phase == Phase::CatchingUp);
    if jump.is_some_and(|jump| jump.censored) {
        return stay(Reason::CatchingUp, basis_of(view.latest[0], view.capacity_now));
    }
    let most = jump.map_or(f64::INFINITY, |jump| jump.demand as f64);

    if let (Some((demand, reading)), Some(capacity)) = (view.saturated_demand(), view.capacity_now) {
        let basis = Basis {
            reading,
            demand: demand.min(most),
            capacity: Some(capacity),
        };
        let proposal = size(view, basis, Reason::Saturated);
        if proposal.replicas > current {
            return proposal;
        }
    }
    if jump.is_some() {
        return stay(Reason::CatchingUp, basis_of(view.latest[0], view.capacity_now));
    }
    let basis = basis_of(view.mean, view.capacity_mean);
    if view.mean.is_none() || view.mean_seconds < SHORTEST_MEAN {
        return stay(Reason::Measuring, basis_of(view.latest[0], view.capacity_now));
    }
    size(view, basis, Reason::DemandHigh)
}

/// The number of brokers for a demand, and what it is called if it is more than there are.
fn size(view: &View<'_>, basis: Basis, more: Reason) -> Proposal {
    let current = view.observed.current_replicas;
    let idle = basis.demand <= 0.0 && !view.is_distressed();
    let brokers = match basis.capacity {
        _ if idle => Some(0.0),
        Some(capacity) => view
            .sizing(basis.demand, capacity)
            .brokers(&view.policy.autoscaling),
        None => None,
    };
    let (reason, recommended, replicas) = match brokers {
        None => (Reason::CapacityUnknown, current, current),
        Some(brokers) if view.policy.autoscaling.behavior.tolerates(current, brokers) => {
            (Reason::WithinTolerance, whole(brokers), current)
        }
        Some(brokers) => {
            let whole = whole(brokers);
            let reason = match whole.cmp(&current) {
                std::cmp::Ordering::Greater => more,
                std::cmp::Ordering::Equal => Reason::WithinTolerance,
                std::cmp::Ordering::Less => Reason::DemandLow,
            };
            (reason, whole, whole)
        }
    };
    Proposal {
        reason,
        recommended,
        replicas,
        basis,
    }
}

/// Somebody changed `spec.replicas`: that is where it goes on from.
fn start_over(view: &View<'_>, state: &mut State) -> Outcome {
    let wanted = view.observed.spec_replicas;
    let to = view.policy.autoscaling.within_bounds(wanted);
    state.recommendations.restart(to, view.now);
    state.durable.jump = None;
    Outcome {
        to,
        reason: Reason::StartingPoint,
        limited_by: match wanted.cmp(&to) {
            std::cmp::Ordering::Less => Some(LimitedBy::MinReplicas),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(LimitedBy::MaxReplicas),
        },
    }
}

/// Guards, then stabilisation, policies and bounds.
fn conclude(view: &View<'_>, state: &mut State, proposal: &Proposal) -> Outcome {
    let policy = &view.policy.autoscaling;
    let current = view.observed.current_replicas;
    let guard = guards::blocks(view, state);

    // What is recommended while nothing may be done still counts, if all of it is known.
    let known = matches!(guard, None | Some(Guard::Hold(Reason::Draining))) && view.measured >= view.ready;
    let counts = if known {
        proposal.replicas
    } else {
        proposal.replicas.max(current)
    };
    state.recommendations.record(counts, &policy.behavior, view.now);

    if policy.within_bounds(current) > current && guard != Some(Guard::Hold(Reason::Rollout)) {
        return Outcome {
            to: policy.within_bounds(current),
            reason: Reason::OutOfBounds,
            limited_by: Some(LimitedBy::MinReplicas),
        };
    }
    match guard {
        Some(Guard::Hold(reason)) => return Outcome::hold(current, reason, proposal.recommended),
        Some(Guard::Fallback(replicas)) => return fall_back(view, state, replicas),
        None => {}
    }
    if proposal.replicas >= current && guards::consumer_bound(view) && proposal.reason != Reason::Measuring {
        return Outcome::hold(current, Reason::ConsumerBound, proposal.recommended);
    }
    let stable = state
        .recommendations
        .stabilize(current, &policy.behavior, view.now);
    let over = policy.within_bounds(current) < current;
    let wanted = if over {
        stable.min(policy.within_bounds(current))
    } else {
        stable
    };
    if wanted > current {
        let (to, limited_by) = limit_up(view, state, wanted);
        return Outcome {
            to,
            reason: proposal.reason,
            limited_by,
        };
    }
    if wanted < current {
        let (to, limited_by) = limit_down(view, state, wanted);
        if to < current
            && let Some(reason) = guards::forbids_down(view, state)
        {
            return Outcome::hold(current, reason, proposal.recommended);
        }
        return Outcome {
            to,
            reason: if over {
                Reason::OutOfBounds
            } else {
                Reason::DemandLow
            },
            limited_by,
        };
    }
    if proposal.replicas == current {
        return Outcome {
            to: current,
            reason: proposal.reason,
            limited_by: None,
        };
    }
    // Bounds may be all that keeps it here.
    let bounded = policy.within_bounds(proposal.replicas);
    let (reason, limited_by) = if bounded == current && proposal.replicas < current {
        (Reason::WithinTolerance, LimitedBy::MinReplicas)
    } else {
        (Reason::Stabilizing, LimitedBy::StabilizationWindow)
    };
    Outcome {
        to: current,
        reason,
        limited_by: Some(limited_by),
    }
}

/// `wanted` within the policies and the bounds, and which of them made it less.
fn limit_up(view: &View<'_>, state: &State, wanted: u32) -> (u32, Option<LimitedBy>) {
    let policy = &view.policy.autoscaling;
    let current = view.observed.current_replicas;
    let allowed = state
        .durable
        .events
        .up_limit(&policy.behavior.scale_up, current, view.now);
    let most = policy.within_bounds(u32::MAX);
    let to = wanted.min(allowed).min(most).max(current);
    let limited_by = if to >= wanted {
        None
    } else if most <= allowed {
        Some(LimitedBy::MaxReplicas)
    } else {
        Some(LimitedBy::ScaleUpPolicy)
    };
    (to, limited_by)
}

/// `wanted` within the bounds and the policies, one broker at a time, and which of them made it more.
fn limit_down(view: &View<'_>, state: &State, wanted: u32) -> (u32, Option<LimitedBy>) {
    let policy = &view.policy.autoscaling;
    let current = view.observed.current_replicas;
    let allowed = state
        .durable
        .events
        .down_limit(&policy.behavior.scale_down, current, view.now);
    let fewest = policy.within_bounds(0);
    let one_less = current.saturating_sub(1);
    let to = wanted.max(allowed).max(fewest).max(one_less).min(current);
    let limited_by = if to <= wanted {
        None
    } else if to == fewest.min(current) {
        Some(LimitedBy::MinReplicas)
    } else if allowed >= one_less.max(fewest) && allowed > wanted {
        Some(LimitedBy::ScaleDownPolicy)
    } else {
        Some(LimitedBy::OneAtATime)
    };
    (to, limited_by)
}

fn fall_back(view: &View<'_>, state: &State, replicas: u32) -> Outcome {
    let current = view.observed.current_replicas;
    let (to, limited_by) = if replicas >= current {
        limit_up(view, state, replicas)
    } else {
        limit_down(view, state, replicas)
    };
    Outcome {
        to,
        reason: Reason::Fallback,
        limited_by,
    }
}

/// Writes down what must be remembered of a change.
fn note_change(view: &View<'_>, state: &mut State, proposal: &Proposal, (to, reason): (u32, Reason)) {
    let durable = &mut state.durable;
    durable.last_scale = Some(view.now);
    durable.capacity_per_broker = proposal.basis.capacity.map(|capacity| capacity.round() as u64);
    if reason == Reason::StartingPoint {
        return;
    }
    durable
        .events
        .record(view.observed.current_replicas, to, view.now);
    durable.jump = (reason == Reason::Saturated).then_some(Jump {
        at: view.now,
        to,
        demand: proposal.basis.demand.round() as u64,
        censored: proposal.basis.reading.is_censored(),
        ready_since: None,
    });
}

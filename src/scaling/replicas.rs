//! The slow loop: how many brokers there should be.

use std::time::Duration;

use super::decision::{Decision, LimitedBy, Reason};
use super::demand::{FELT, Reading};
use super::guards::{self, Guard};
use super::jump::{Jump, Phase, Progress};
use super::observed::Observed;
use super::policy::{Mode, Policy};
use super::state::State;
use super::time::Time;
use super::view::{Basis, SHORTEST_MEAN, View};

/// How long brokers of a jump must have served before it is said that they gained nothing: partitions take a moment.
const SETTLED: Duration = Duration::from_secs(5);

/// How many times the demand of a jump is another rise rather than noise.
const ROSE_AGAIN: f64 = 1.3;

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
/// `state` is as it must be for the next call if the decision is acted on. Calling again with the same observation and
/// time takes in nothing twice.
pub fn decide(policy: &Policy, observed: &Observed, state: &mut State, now: Time) -> Decision {
    state.observe(policy, observed, now);
    let mut view = View::new(policy, observed, state, now);
    if view.capacity_mean.is_some() {
        state.capacity = view.capacity_mean;
    }
    let mode = policy.autoscaling.mode;
    let current = observed.current_replicas;
    let acting = mode.acts();
    let before = state.durable.starting_replicas.replace(observed.spec_replicas);

    let jumping = state.durable.jump.is_some();
    let phase = advance_jump(&view, state);
    if jumping && phase == Phase::Over {
        // The mean leaves out what was until now.
        view = View::new(policy, observed, state, now);
    }
    let proposal = propose(&view, state, phase);
    let mut outcome = if mode == Mode::Off {
        Outcome::hold(current, Reason::Off, current)
    } else if acting && before.is_some_and(|before| before != observed.spec_replicas) {
        start_over(&view, state)
    } else {
        conclude(&view, state, &proposal)
    };

    // Where nothing is done, whatever the reason, a broker that suffers is what there is to say.
    let quiet = matches!(
        outcome.reason,
        Reason::Measuring
            | Reason::OperatorRestarted
            | Reason::WithinTolerance
            | Reason::Stabilizing
            | Reason::Unsettled
    );
    if quiet && outcome.to == current && view.uneven.is_some() {
        outcome.reason = Reason::HotPartition;
    }

    let desired = match mode {
        Mode::Off | Mode::Recommend => observed.spec_replicas,
        Mode::ScaleUpOnly if outcome.reason != Reason::StartingPoint => outcome.to.max(current),
        Mode::ScaleUpOnly | Mode::Auto => outcome.to,
    };
    if acting && desired != current {
        note_change(&view, state, &proposal, (desired, outcome.reason));
    }
    let hot = view
        .uneven
        .as_ref()
        .filter(|_| outcome.reason == Reason::HotPartition);
    let mode_limits = mode != Mode::Off && desired != outcome.to;
    Decision {
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
        partition: hot
            .and_then(|hot| observed.brokers.iter().find(|broker| broker.name == hot.broker))
            .and_then(|broker| broker.hottest.clone()),
        broker: hot.map(|hot| hot.broker.clone()),
    }
}

/// Goes on with the jump that is under way, if one is.
fn advance_jump(view: &View<'_>, state: &mut State) -> Phase {
    let Some(mut jump) = state.durable.jump else {
        return Phase::Over;
    };
    let last_two = || view.latest.iter().take(2).flatten();
    let progress = Progress {
        current: view.observed.current_replicas,
        ready: view.ready,
        start_time: view.observed.start_time,
        catch_up: view.policy.autoscaling.catch_up,
        hidden: last_two().map(|reading| reading.hidden).fold(0.0, f64::max),
        accepted: last_two().map(|reading| reading.accepted).fold(0.0, f64::max),
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
    note_in_vain(view, state, &jump, phase);
    phase
}

/// Writes down that the brokers of a jump serve and gained next to nothing, or that publishers are relieved.
fn note_in_vain(view: &View<'_>, state: &mut State, jump: &Jump, phase: Phase) {
    let serving = phase != Phase::Starting && view.observed.current_replicas == jump.to;
    let settled = jump
        .ready_since
        .is_some_and(|since| view.now.since(since) >= SETTLED);
    if serving && settled && guards::was_in_vain(view, state.durable.capacity_per_broker, jump) {
        state.durable.in_vain = Some(view.now);
    }
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
    if phase != Phase::Over
        && let Some(more) = correct_jump(view, state)
    {
        return more;
    }
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
    // Two readings of a noisy load are too little to correct a jump by; a load that rose again is another one.
    let again = |demand: f64| jump.is_none_or(|jump| demand > ROSE_AGAIN * jump.demand as f64);
    let told_since = view.since_jump.filter(Reading::do_tell);
    let told_since = told_since.map_or(f64::INFINITY, |reading| reading.offered());
    let most = jump.map_or(f64::INFINITY, |jump| told_since.min(jump.demand as f64));

    let delayed = || view.delayed_demand().filter(|_| jump.is_none());
    let felt = view.saturated_demand().or_else(delayed);
    if let (Some((demand, reading)), Some(capacity)) = (felt, view.capacity_now) {
        let basis = Basis {
            reading,
            demand: if reading.is_told() && again(demand) {
                demand
            } else if reading.is_censored() || reading.do_tell() {
                demand.min(view.plausible).min(most)
            } else {
                demand.min(most)
            },
            capacity: Some(capacity),
        };
        let proposal = size(view, basis, Reason::Saturated);
        // Of an unknown demand nobody knows that the brokers on their way are too few.
        if basis.reading.is_censored() && view.are_starting(state) {
            return stay(Reason::AwaitingBrokers, basis);
        }
        if proposal.replicas > current {
            return match guards::forbids_up(view, state) {
                Some(reason) => stay(reason, basis),
                None => proposal,
            };
        }
    }
    if jump.is_some() {
        return stay(Reason::CatchingUp, basis_of(view.latest[0], view.capacity_now));
    }
    let basis = basis_of(view.mean, view.capacity_mean);
    if view.mean.is_none() || view.mean_seconds < SHORTEST_MEAN {
        return stay(Reason::Measuring, basis_of(view.latest[0], view.capacity_now));
    }
    let mut basis = basis;
    let mut more = Reason::DemandHigh;
    let ahead = view.observed.start_time.as_secs_f64();
    if let Some(rising) = view.trend.map(|trend| trend.in_seconds(ahead))
        && rising > basis.demand
        && basis.reading.accepted > 0.0
    {
        basis.demand = rising;
        more = Reason::DemandRising;
    }
    let proposal = size(view, basis, more);
    if view.uneven.is_some() && proposal.replicas >= current {
        return stay(Reason::HotPartition, basis);
    }
    // A load that fell and rises again has a low mean: what is needed now is not taken away.
    if proposal.replicas < current
        && let Some(recent) = view.recent(state).filter(|recent| recent.demand() > basis.demand)
    {
        let basis = basis_of(Some(recent), view.capacity_mean);
        let needed = size(view, basis, Reason::Unsettled);
        return if needed.replicas >= current {
            stay(Reason::Unsettled, basis)
        } else {
            needed
        };
    }
    // What the model says of a load at which nobody was ever held back is too little to add brokers for.
    let known = state.durable.seen.is_limit() || basis.reading.hidden >= FELT;
    if known || proposal.replicas <= current {
        proposal
    } else {
        stay(Reason::NotFelt, basis)
    }
}

/// More brokers than the jump that is under way, where publishers have told by now that they have so much more to send.
fn correct_jump(view: &View<'_>, state: &State) -> Option<Proposal> {
    let reading = view.since_jump.filter(Reading::is_told)?;
    let basis = Basis {
        reading,
        demand: reading.demand(),
        capacity: view.capacity_now,
    };
    let proposal = size(view, basis, Reason::Saturated);
    let allowed = guards::forbids_up(view, state).is_none();
    (allowed && proposal.replicas > view.observed.current_replicas).then_some(proposal)
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
    let behavior = &view.policy.autoscaling.behavior;
    let (reason, recommended, replicas) = match brokers {
        None => (Reason::CapacityUnknown, current, current),
        Some(brokers) if behavior.tolerates(current, brokers) => {
            (Reason::WithinTolerance, behavior.round(current, brokers), current)
        }
        Some(brokers) => {
            let whole = behavior.round(current, brokers);
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
        // Nothing has left yet that would not be needed at once: the drain is given up.
        Some(Guard::Hold(Reason::Draining))
            if proposal.reason == Reason::Saturated && proposal.replicas > current => {}
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
        let reason = match limited_by {
            _ if over => Reason::OutOfBounds,
            Some(LimitedBy::MinReplicas) if to == current => Reason::WithinTolerance,
            _ => Reason::DemandLow,
        };
        return Outcome {
            to,
            reason,
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
    let forbidden = (proposal.replicas < current).then(|| guards::forbids_down(view, state));
    Outcome {
        to: current,
        reason: forbidden.flatten().unwrap_or(Reason::Stabilizing),
        limited_by: Some(LimitedBy::StabilizationWindow),
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
    // Where messages only wait, little has piled up.
    let jumps = reason == Reason::Saturated && proposal.basis.reading.is_saturated();
    durable.in_vain = None;
    durable.jump = jumps.then_some(Jump {
        at: view.now,
        to,
        from: view.observed.current_replicas,
        acked: proposal.basis.reading.acked.round() as u64,
        demand: proposal.basis.demand.round() as u64,
        censored: proposal.basis.reading.is_censored(),
        ready_since: None,
    });
}

//! The slow loop: how many brokers there should be.

use std::time::Duration;

use super::decision::{Decision, LimitedBy, Reason};
use super::guards;
use super::jump::{Jump, Phase, Progress};
use super::observed::Observed;
use super::outcome::{Outcome, conclude, start_over};
use super::policy::{Mode, Policy};
use super::proposal::{Proposal, propose};
use super::state::State;
use super::time::Time;
use super::view::View;

/// How long brokers of a jump must have served before it is said that they gained nothing: partitions take a moment.
const SETTLED: Duration = Duration::from_secs(5);

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

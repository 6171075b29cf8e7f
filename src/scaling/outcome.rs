//! What comes of a proposal: guards, stabilisation, policies and bounds, in this order.

use super::decision::{LimitedBy, Reason};
use super::guards::{self, Guard};
use super::proposal::Proposal;
use super::state::State;
use super::view::View;

/// What came of a proposal.
pub(super) struct Outcome {
    pub(super) to: u32,
    pub(super) reason: Reason,
    /// What kept it from being what was asked for.
    pub(super) limited_by: Option<LimitedBy>,
}

impl Outcome {
    /// Stays with `current`, whatever is recommended.
    pub(super) fn hold(current: u32, reason: Reason, recommended: u32) -> Self {
        Self {
            to: current,
            reason,
            limited_by: (recommended != current).then_some(LimitedBy::Guard),
        }
    }
}

/// Somebody changed `spec.replicas`: that is where it goes on from.
pub(super) fn start_over(view: &View<'_>, state: &mut State) -> Outcome {
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
pub(super) fn conclude(view: &View<'_>, state: &mut State, proposal: &Proposal) -> Outcome {
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

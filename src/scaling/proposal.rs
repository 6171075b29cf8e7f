//! What the demand asks for, before anything that may stand against it.

use super::decision::Reason;
use super::demand::{FELT, Reading};
use super::guards;
use super::jump::Phase;
use super::state::State;
use super::view::{Basis, SHORTEST_MEAN, View};

/// How many times the demand of a jump is another rise rather than noise.
const ROSE_AGAIN: f64 = 1.3;

/// A number of brokers, and why.
pub(super) struct Proposal {
    pub(super) reason: Reason,
    /// Before tolerance.
    pub(super) recommended: u32,
    /// After it.
    pub(super) replicas: u32,
    /// What it was reckoned from.
    pub(super) basis: Basis,
}

/// What the demand asks for: at once if the brokers are saturated, else by the mean.
pub(super) fn propose(view: &View<'_>, state: &State, phase: Phase) -> Proposal {
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

//! What came of a simulation, in numbers.

use serde::Serialize;

/// The figures of one policy on one load.
///
/// Accuracies and shares are those of the SPEC research group (Herbst et al., "Quantifying Cloud Performance and Dependability",
/// 2018): how far supply was below or above the demand, in parts of the demand and averaged over the whole time, and for which part
/// of the time it was so at all. Both are in brokers that serve, against the fewest that keep the utilization at its target.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Changes of the number of brokers.
    pub actions: f64,
    /// Changes in the other direction than the one before.
    pub reversals: f64,
    /// Seconds from when the load first asked for another number of brokers to the first change after that; none if
    /// either never happened.
    pub first_decision_seconds: Option<f64>,
    /// The most brokers decided on.
    pub max_replicas: f64,
    /// Seconds in which a message that came waited for longer than the objective, or was given up.
    pub seconds_over_objective: f64,
    /// Brokers that existed, starting and leaving ones included, summed over the seconds.
    pub replica_seconds: f64,
    /// The fewest brokers that keep the utilization at its target, summed over the seconds.
    pub ideal_replica_seconds: f64,
    /// How far supply was below the demand.
    pub under_accuracy: f64,
    /// How far supply was above the demand.
    pub over_accuracy: f64,
    /// The part of the time in which supply was below the demand.
    pub under_share: f64,
    /// The part of the time in which supply was above the demand.
    pub over_share: f64,
    /// Messages that publishers gave up.
    pub dropped: f64,
}

/// The mean over several seeds; of `first_decision_seconds`, over those that have it.
pub fn mean(all: &[Figures]) -> Figures {
    let count = all.len().max(1) as f64;
    let over = |field: fn(&Figures) -> f64| all.iter().map(field).sum::<f64>() / count;
    let firsts: Vec<f64> = all.iter().filter_map(|one| one.first_decision_seconds).collect();
    Figures {
        actions: over(|f| f.actions),
        reversals: over(|f| f.reversals),
        first_decision_seconds: (!firsts.is_empty())
            .then(|| firsts.iter().sum::<f64>() / firsts.len() as f64),
        max_replicas: over(|f| f.max_replicas),
        seconds_over_objective: over(|f| f.seconds_over_objective),
        replica_seconds: over(|f| f.replica_seconds),
        ideal_replica_seconds: over(|f| f.ideal_replica_seconds),
        under_accuracy: over(|f| f.under_accuracy),
        over_accuracy: over(|f| f.over_accuracy),
        under_share: over(|f| f.under_share),
        over_share: over(|f| f.over_share),
        dropped: over(|f| f.dropped),
    }
}

/// Adds up a simulation second by second.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    figures: Figures,
    seconds: u64,
    last_up: Option<bool>,
    /// When the load first asked for another number of brokers than at the start.
    asked: Option<u64>,
}

/// A second, as it counts.
pub(super) struct Second {
    pub(super) second: u64,
    pub(super) existing: u32,
    pub(super) ready: u32,
    pub(super) ideal: u32,
    pub(super) initial: u32,
    pub(super) over_objective: bool,
}

impl Tally {
    pub(super) fn second(&mut self, second: &Second) {
        let figures = &mut self.figures;
        self.seconds += 1;
        if self.asked.is_none() && second.ideal != second.initial {
            self.asked = Some(second.second);
        }
        figures.replica_seconds += f64::from(second.existing);
        figures.ideal_replica_seconds += f64::from(second.ideal);
        figures.seconds_over_objective += f64::from(u8::from(second.over_objective));
        let ideal = f64::from(second.ideal.max(1));
        let gap = (f64::from(second.ready) - f64::from(second.ideal)) / ideal;
        if gap < 0.0 {
            figures.under_accuracy -= gap;
            figures.under_share += 1.0;
        } else if gap > 0.0 {
            figures.over_accuracy += gap;
            figures.over_share += 1.0;
        }
    }

    pub(super) fn action(&mut self, second: u64, from: u32, to: u32) {
        let figures = &mut self.figures;
        let up = to > from;
        figures.actions += 1.0;
        figures.reversals += f64::from(u8::from(self.last_up.is_some_and(|last| last != up)));
        self.last_up = Some(up);
        if let Some(asked) = self.asked
            && figures.first_decision_seconds.is_none()
        {
            figures.first_decision_seconds = Some((second.saturating_sub(asked)) as f64);
        }
        figures.max_replicas = figures.max_replicas.max(f64::from(to));
    }

    pub(super) fn finish(mut self, initial: u32, dropped: f64) -> Figures {
        let seconds = self.seconds.max(1) as f64;
        let figures = &mut self.figures;
        figures.max_replicas = figures.max_replicas.max(f64::from(initial));
        figures.under_accuracy /= seconds;
        figures.over_accuracy /= seconds;
        figures.under_share /= seconds;
        figures.over_share /= seconds;
        figures.dropped = dropped;
        self.figures
    }
}

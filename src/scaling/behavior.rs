//! How fast to scale, by the rules of HorizontalPodAutoscaler v2 (Kubernetes, `pkg/controller/podautoscaler`):
//! stabilise, then rate policies over sliding periods.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// How fast to scale, each way.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Behavior {
    /// How fast to add brokers.
    pub scale_up: ScalingRules,
    /// How fast to remove brokers.
    pub scale_down: ScalingRules,
}

impl Default for Behavior {
    fn default() -> Self {
        let per_15_seconds = |kind, value| RatePolicy {
            kind,
            value,
            period: Duration::from_secs(15),
        };
        Self {
            scale_up: ScalingRules {
                stabilization_window: Duration::ZERO,
                tolerance_percent: 10,
                select_policy: SelectPolicy::Max,
                policies: vec![
                    per_15_seconds(RatePolicyKind::Percent, 400),
                    per_15_seconds(RatePolicyKind::Pods, 4),
                ],
            },
            scale_down: ScalingRules {
                stabilization_window: Duration::from_secs(300),
                tolerance_percent: 15,
                select_policy: SelectPolicy::Max,
                policies: vec![per_15_seconds(RatePolicyKind::Pods, 1)],
            },
        }
    }
}

impl Behavior {
    /// Whether `wanted` brokers (a fraction, not rounded) differ too little from `current` to act on.
    pub fn tolerates(&self, current: u32, wanted: f64) -> bool {
        let current = f64::from(current);
        wanted <= current * (1.0 + f64::from(self.scale_up.tolerance_percent) / 100.0)
            && wanted >= current * (1.0 - f64::from(self.scale_down.tolerance_percent) / 100.0)
    }

    /// `wanted` brokers (a fraction) as a whole number, seen from `current`.
    ///
    /// Rounded up, but a small part of the tolerance is forgiven first: more of it upwards than downwards, so
    /// that noise around a whole number never leads up and down again.
    pub fn round(&self, current: u32, wanted: f64) -> u32 {
        let tolerance = f64::from(self.scale_up.tolerance_percent.min(100)) / 100.0;
        let up = whole(wanted * (1.0 - 0.5 * tolerance));
        let down = whole(wanted * (1.0 - 0.2 * tolerance));
        if up > current { up } else { down.min(current) }
    }

    fn longest_period(&self) -> Duration {
        let periods = |rules: &ScalingRules| rules.policies.iter().map(|p| p.period).max();
        periods(&self.scale_up)
            .max(periods(&self.scale_down))
            .unwrap_or_default()
    }
}

/// Rounded up; a hair above a whole number is that number.
fn whole(brokers: f64) -> u32 {
    (brokers - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// How fast to scale one way.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ScalingRules {
    /// Over how long the most cautious recommendation counts.
    pub stabilization_window: Duration,
    /// How far off the number of brokers must be for anything to be done, in percent of the current one.
    pub tolerance_percent: u32,
    /// Which of the policies counts.
    pub select_policy: SelectPolicy,
    /// How much may change in a period.
    pub policies: Vec<RatePolicy>,
}

/// Which of several policies counts.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: never scale this way.
    Disabled,
}

/// How much may change in a period.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// What `value` counts.
    pub kind: RatePolicyKind,
    /// How much.
    pub value: u32,
    /// In what time.
    pub period: Duration,
}

/// What the value of a policy counts.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatePolicyKind {
    /// Brokers.
    Pods,
    /// Percent of the brokers there were at the start of the period.
    Percent,
}

/// A change of the number of brokers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleEvent {
    /// When it was decided.
    pub at: Time,
    /// Brokers added; negative: removed.
    pub change: i64,
}

/// The changes of the recent past.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct ScaleEvents(Vec<ScaleEvent>);

impl ScaleEvents {
    /// Notes a change, if it is one.
    pub fn record(&mut self, from: u32, to: u32, now: Time) {
        if from != to {
            let change = i64::from(to) - i64::from(from);
            self.0.push(ScaleEvent { at: now, change });
        }
    }

    /// Forgets what no policy asks for any more, and takes what a clock step put into the future for now.
    pub fn prune(&mut self, behavior: &Behavior, now: Time) {
        let longest = behavior.longest_period();
        for event in &mut self.0 {
            event.at = event.at.min(now);
        }
        self.0.retain(|event| now.since(event.at) < longest);
    }

    /// How many brokers there were a period ago.
    fn period_start(&self, current: u32, period: Duration, now: Time) -> i64 {
        let changed: i64 = self
            .0
            .iter()
            .filter(|event| now.since(event.at) < period)
            .map(|event| event.change)
            .sum();
        (i64::from(current) - changed).max(0)
    }

    /// The most brokers that the scale-up policies allow now; never below `current`.
    pub fn up_limit(&self, rules: &ScalingRules, current: u32, now: Time) -> u32 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.period_start(current, policy.period, now);
            let value = i64::from(policy.value);
            match policy.kind {
                RatePolicyKind::Pods => start.saturating_add(value),
                // Rounded up, or a small cluster would never grow.
                RatePolicyKind::Percent => start
                    .saturating_mul(value.saturating_add(100))
                    .saturating_add(99)
                    .div_euclid(100),
            }
        });
        let limit = match rules.select_policy {
            SelectPolicy::Disabled => None,
            SelectPolicy::Max => proposals.max(),
            SelectPolicy::Min => proposals.min(),
        };
        limit
            .map_or(current, |limit| u32::try_from(limit.max(0)).unwrap_or(u32::MAX))
            .max(current)
    }

    /// The fewest brokers that the scale-down policies allow now; never above `current`.
    pub fn down_limit(&self, rules: &ScalingRules, current: u32, now: Time) -> u32 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.period_start(current, policy.period, now);
            let value = i64::from(policy.value);
            match policy.kind {
                RatePolicyKind::Pods => start.saturating_sub(value),
                RatePolicyKind::Percent => start.saturating_mul((100 - value).max(0)) / 100,
            }
        });
        let limit = match rules.select_policy {
            SelectPolicy::Disabled => None,
            SelectPolicy::Max => proposals.min(),
            SelectPolicy::Min => proposals.max(),
        };
        limit
            .map_or(current, |limit| u32::try_from(limit.max(0)).unwrap_or(u32::MAX))
            .min(current)
    }
}

/// A number of brokers that was recommended from one moment to another.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    replicas: u32,
    last: Time,
}

/// The recommendations of the recent past, equal ones in a row as one.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct Recommendations(Vec<Run>);

impl Recommendations {
    /// Notes a recommendation and forgets those that no window reaches any more.
    pub fn record(&mut self, replicas: u32, behavior: &Behavior, now: Time) {
        let window = |rules: &ScalingRules| rules.stabilization_window;
        let longest = window(&behavior.scale_up).max(window(&behavior.scale_down));
        for run in &mut self.0 {
            run.last = run.last.min(now);
        }
        match self.0.last_mut() {
            Some(run) if run.replicas == replicas => run.last = now,
            _ => self.0.push(Run { replicas, last: now }),
        }
        self.0.retain(|run| now.since(run.last) <= longest);
    }

    /// Forgets everything but this one: what somebody else decided is a new start.
    pub fn restart(&mut self, replicas: u32, now: Time) {
        self.0 = vec![Run { replicas, last: now }];
    }

    /// `current`, moved to within the lowest recommendation of the scale-up window and the highest of the
    /// scale-down window.
    pub fn stabilize(&self, current: u32, behavior: &Behavior, now: Time) -> u32 {
        let within = |rules: &ScalingRules| {
            let window = rules.stabilization_window;
            let newest = self.0.last().copied();
            self.0
                .iter()
                .filter(move |run| now.since(run.last) < window)
                .chain(newest.as_ref())
                .map(|run| run.replicas)
                .collect::<Vec<_>>()
        };
        let lowest = within(&behavior.scale_up).into_iter().min();
        let highest = within(&behavior.scale_down).into_iter().max();
        current
            .max(lowest.unwrap_or(current))
            .min(highest.unwrap_or(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_millis(second * 1_000)
    }

    fn policy(kind: RatePolicyKind, value: u32, seconds: u64) -> RatePolicy {
        RatePolicy {
            kind,
            value,
            period: Duration::from_secs(seconds),
        }
    }

    fn rules(select_policy: SelectPolicy, policies: &[RatePolicy]) -> ScalingRules {
        ScalingRules {
            stabilization_window: Duration::ZERO,
            tolerance_percent: 10,
            select_policy,
            policies: policies.to_vec(),
        }
    }

    /// Kubernetes' documentation, "Scaling policies": 4 pods or 10 percent a minute, whichever is more, so 80 replicas
    /// go down by 8, then 8 (7.2 rounded up), and below 40 by 4.
    #[test]
    fn scaling_down_by_the_larger_of_pods_and_percent_is_as_published() {
        let policies = [
            policy(RatePolicyKind::Pods, 4, 60),
            policy(RatePolicyKind::Percent, 10, 60),
        ];
        let events = ScaleEvents::default();
        for (current, limit) in [(80, 72), (72, 64), (40, 36), (39, 35), (36, 32), (10, 6), (3, 0)] {
            let rules = rules(SelectPolicy::Max, &policies);
            assert_eq!(events.down_limit(&rules, current, at(0)), limit, "{current}");
        }
        let least = rules(SelectPolicy::Min, &policies);
        assert_eq!(events.down_limit(&least, 80, at(0)), 76);
        assert_eq!(
            events.down_limit(&rules(SelectPolicy::Disabled, &policies), 80, at(0)),
            80
        );
    }

    /// The published default of scale-up: 100 percent or 4 pods in 15 seconds, whichever is more.
    #[test]
    fn scaling_up_by_the_larger_of_pods_and_percent_is_as_published() {
        let policies = [
            policy(RatePolicyKind::Percent, 100, 15),
            policy(RatePolicyKind::Pods, 4, 15),
        ];
        let mut events = ScaleEvents::default();
        let rules = |select| rules(select, &policies);
        for (current, limit) in [(1, 5), (3, 7), (4, 8), (10, 20)] {
            assert_eq!(events.up_limit(&rules(SelectPolicy::Max), current, at(0)), limit);
        }
        assert_eq!(events.up_limit(&rules(SelectPolicy::Min), 10, at(0)), 14);
        assert_eq!(events.up_limit(&rules(SelectPolicy::Disabled), 10, at(0)), 10);
        // What was added in the period counts; what was added before does not.
        events.record(10, 18, at(0));
        assert_eq!(events.up_limit(&rules(SelectPolicy::Max), 18, at(14)), 20);
        assert_eq!(events.up_limit(&rules(SelectPolicy::Max), 18, at(15)), 36);
    }

    #[test]
    fn brokers_removed_in_the_period_count_for_the_start_of_it() {
        let mut events = ScaleEvents::default();
        events.record(10, 8, at(0));
        let up = rules(SelectPolicy::Max, &[policy(RatePolicyKind::Pods, 4, 60)]);
        assert_eq!(events.up_limit(&up, 8, at(30)), 14);
        let down = rules(SelectPolicy::Max, &[policy(RatePolicyKind::Pods, 2, 60)]);
        assert_eq!(events.down_limit(&down, 8, at(30)), 8);
        assert_eq!(events.down_limit(&down, 8, at(60)), 6);
    }

    #[test]
    fn the_most_cautious_recommendation_of_the_window_counts() {
        let mut behavior = Behavior::default();
        behavior.scale_up.stabilization_window = Duration::from_secs(30);
        let mut past = Recommendations::default();
        for (second, replicas) in [(0, 9), (100, 3), (120, 7), (390, 5)] {
            past.record(replicas, &behavior, at(second));
        }
        // 9 is too old, 7 is the highest of the last 300 s; upwards only 5 is of the last 30 s.
        assert_eq!(past.stabilize(10, &behavior, at(390)), 7);
        assert_eq!(past.stabilize(6, &behavior, at(390)), 6);
        assert_eq!(past.stabilize(2, &behavior, at(390)), 5);
    }

    #[test]
    fn a_clock_that_steps_back_makes_nothing_fresher_than_now() {
        let behavior = Behavior::default();
        let mut past = Recommendations::default();
        past.record(9, &behavior, at(10_000));
        past.record(2, &behavior, at(100));
        assert_eq!(past.stabilize(9, &behavior, at(399)), 9);
        assert_eq!(past.stabilize(9, &behavior, at(400)), 2);
        let mut events = ScaleEvents::default();
        events.record(1, 5, at(10_000));
        events.prune(&behavior, at(100));
        let rules = &behavior.scale_up;
        assert_eq!(events.up_limit(rules, 5, at(114)), 5);
        assert_eq!(events.up_limit(rules, 5, at(115)), 25);
    }

    #[test]
    fn rounding_never_leads_up_and_down_again() {
        let behavior = Behavior::default();
        assert_eq!(behavior.round(3, 4.1), 4);
        assert_eq!(behavior.round(4, 4.1), 4);
        assert_eq!(behavior.round(5, 4.1), 5);
        assert_eq!(behavior.round(5, 4.05), 4);
        assert_eq!(behavior.round(5, 0.0), 0);
        assert_eq!(behavior.round(5, 1e30), u32::MAX);
    }
}

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

    fn longest_period(&self) -> Duration {
        let periods = |rules: &ScalingRules| rules.policies.iter().map(|p| p.period).max();
        periods(&self.scale_up)
            .max(periods(&self.scale_down))
            .unwrap_or_default()
    }
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

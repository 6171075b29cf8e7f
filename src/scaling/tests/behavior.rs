//! `behavior` by the rules of HorizontalPodAutoscaler v2: its published examples and the edges of them.
//!
//! Source: <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#configurable-scaling-behavior>.

use std::time::Duration;

use crate::scaling::Time;
use crate::scaling::behavior::{
    Behavior, RatePolicy, RatePolicyKind, Recommendations, ScaleEvents, ScalingRules, SelectPolicy,
};
use RatePolicyKind::{Percent, Pods};
use SelectPolicy::{Disabled, Max, Min};

fn at(second: u64) -> Time {
    Time::from_millis(second * 1_000)
}

/// Rules from (kind, value, period in seconds).
fn rules(select_policy: SelectPolicy, policies: &[(RatePolicyKind, u32, u64)]) -> ScalingRules {
    ScalingRules {
        stabilization_window: Duration::ZERO,
        tolerance_percent: 0,
        select_policy,
        policies: policies
            .iter()
            .map(|(kind, value, period)| RatePolicy {
                kind: *kind,
                value: *value,
                period: Duration::from_secs(*period),
            })
            .collect(),
    }
}

/// Select, policies, current, changes before (second, from, to), now, the limit.
type Case<'a> = (
    SelectPolicy,
    &'a [(RatePolicyKind, u32, u64)],
    u32,
    &'a [(u64, u32, u32)],
    u64,
    u32,
);

fn events(changes: &[(u64, u32, u32)]) -> ScaleEvents {
    let mut events = ScaleEvents::default();
    for (second, from, to) in changes {
        events.record(*from, *to, at(*second));
    }
    events
}

#[test]
fn scale_up_policies_limit_what_is_added_in_a_sliding_period() {
    let cases: &[Case<'_>] = &[
        // "scale up by 100 % every 15 s": doubles each period.
        (Max, &[(Percent, 100, 15)], 10, &[], 0, 20),
        (Max, &[(Percent, 100, 15)], 20, &[(0, 10, 20)], 14, 20),
        (Max, &[(Percent, 100, 15)], 20, &[(0, 10, 20)], 15, 40),
        // Percent are of what there was at the start of the period, rounded up.
        (Max, &[(Percent, 10, 60)], 15, &[], 0, 17),
        (Max, &[(Percent, 10, 60)], 16, &[(0, 15, 16)], 30, 17),
        (Max, &[(Percent, 1, 60)], 1, &[], 0, 2),
        // Several small changes add up; each leaves the period on its own.
        (Max, &[(Pods, 4, 60)], 13, &[(0, 10, 12), (40, 12, 13)], 50, 14),
        (Max, &[(Pods, 4, 60)], 13, &[(0, 10, 12), (40, 12, 13)], 60, 16),
        (Max, &[(Pods, 4, 60)], 13, &[(0, 10, 12), (40, 12, 13)], 100, 17),
        // More was added than a policy allows, by somebody else: no more, and nothing taken back.
        (Max, &[(Pods, 1, 60)], 20, &[(0, 10, 20)], 10, 20),
        // What was removed in the period may come back on top.
        (Max, &[(Pods, 1, 60)], 5, &[(0, 10, 5)], 10, 11),
        // The larger or the smaller of two policies, each with its own period.
        (Max, &[(Percent, 100, 15), (Pods, 4, 15)], 2, &[], 0, 6),
        (Min, &[(Percent, 100, 15), (Pods, 4, 15)], 2, &[], 0, 4),
        (Min, &[(Pods, 4, 15), (Pods, 10, 600)], 30, &[(0, 20, 30)], 20, 30),
        (Min, &[(Pods, 4, 15), (Pods, 10, 600)], 24, &[(0, 20, 24)], 20, 28),
        (Disabled, &[(Percent, 100, 15)], 10, &[], 0, 10),
        // No policy at all allows nothing.
        (Max, &[], 10, &[], 0, 10),
        (Max, &[(Percent, 100, 15)], 0, &[], 0, 0),
        (Max, &[(Pods, u32::MAX, 15)], 10, &[], 0, u32::MAX),
    ];
    for (select, policies, current, changes, now, limit) in cases {
        let rules = rules(*select, policies);
        assert_eq!(
            events(changes).up_limit(&rules, *current, at(*now)),
            *limit,
            "{select:?} {policies:?} {current} {changes:?} at {now}"
        );
    }
}

#[test]
fn scale_down_policies_limit_what_is_removed_in_a_sliding_period() {
    let cases: &[Case<'_>] = &[
        // The example with 4 pods and 10 % in 60 s: 80 -> 72 by percent, and below 40 by pods.
        (Max, &[(Pods, 4, 60), (Percent, 10, 60)], 80, &[], 0, 72),
        (Max, &[(Pods, 4, 60), (Percent, 10, 60)], 40, &[], 0, 36),
        (Max, &[(Pods, 4, 60), (Percent, 10, 60)], 39, &[], 0, 35),
        // The example with selectPolicy Min: at most 5 pods and at most 10 %.
        (Min, &[(Percent, 10, 60), (Pods, 5, 60)], 80, &[], 0, 75),
        (Min, &[(Percent, 10, 60), (Pods, 5, 60)], 20, &[], 0, 18),
        // Cut off, as the original does: 10 % of 15 leaves 13.5.
        (Max, &[(Percent, 10, 60)], 15, &[], 0, 13),
        (Max, &[(Percent, 100, 15)], 15, &[], 0, 0),
        (Max, &[(Percent, 150, 15)], 15, &[], 0, 0),
        // Within the period.
        (Max, &[(Pods, 1, 15)], 9, &[(0, 10, 9)], 14, 9),
        (Max, &[(Pods, 1, 15)], 9, &[(0, 10, 9)], 15, 8),
        (Max, &[(Pods, 4, 60)], 8, &[(0, 10, 9), (30, 9, 8)], 59, 6),
        // What was added in the period may go on top.
        (Max, &[(Pods, 1, 60)], 10, &[(0, 5, 10)], 10, 4),
        (Disabled, &[(Percent, 10, 60)], 80, &[], 0, 80),
        (Max, &[], 10, &[], 0, 10),
        (Max, &[(Pods, 4, 60)], 3, &[], 0, 0),
    ];
    for (select, policies, current, changes, now, limit) in cases {
        let rules = rules(*select, policies);
        assert_eq!(
            events(changes).down_limit(&rules, *current, at(*now)),
            *limit,
            "{select:?} {policies:?} {current} {changes:?} at {now}"
        );
    }
}

#[test]
fn stabilisation_takes_the_most_cautious_recommendation_of_each_window() {
    // Windows up and down, recommendations (second, replicas), current, at the last one's second: what remains.
    type Stable<'a> = (u64, u64, &'a [(u64, u32)], u32, u32);
    let cases: &[Stable<'_>] = &[
        // The default: up at once, down to the highest of five minutes.
        (0, 300, &[(0, 10), (100, 2)], 10, 10),
        (0, 300, &[(0, 10), (299, 2)], 10, 10),
        (0, 300, &[(0, 10), (300, 2)], 10, 2),
        (0, 300, &[(0, 10), (100, 6), (301, 2)], 10, 6),
        (0, 300, &[(0, 3), (1, 20)], 3, 20),
        // A window of 0 each way: whatever is recommended now.
        (0, 0, &[(0, 10), (1, 2)], 10, 2),
        // Upwards the lowest of the window.
        (60, 0, &[(0, 3), (30, 9)], 3, 3),
        (60, 0, &[(0, 3), (30, 9), (60, 8)], 3, 8),
        // Between both: neither up nor down.
        (60, 300, &[(0, 8), (10, 4)], 6, 6),
    ];
    for (up, down, recommendations, current, stable) in cases {
        let mut behavior = Behavior::default();
        behavior.scale_up.stabilization_window = Duration::from_secs(*up);
        behavior.scale_down.stabilization_window = Duration::from_secs(*down);
        let mut past = Recommendations::default();
        let mut now = at(0);
        for (second, replicas) in *recommendations {
            now = at(*second);
            past.record(*replicas, &behavior, now);
        }
        assert_eq!(
            past.stabilize(*current, &behavior, now),
            *stable,
            "{up} {down} {recommendations:?} from {current}"
        );
    }
}

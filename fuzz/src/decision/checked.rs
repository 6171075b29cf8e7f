//! The loops, and what must hold after each decision.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::scaling::behavior::{RatePolicy, RatePolicyKind, ScalingRules, SelectPolicy};
use crate::scaling::{
    ChannelDecision, ChannelMode, ChannelReason, Decision, Durable, Mode, Observed, Policy, Reason, State,
    Time, decide, decide_channel,
};

/// Every so many steps, what is dear to check is checked.
const SOMETIMES: u64 = 16;
/// How long at least lies between a change of the channel's capacity and one that makes it smaller.
const CHANNEL_INTERVAL: Duration = Duration::from_secs(5);
/// The same where it grows.
const GROWTH_INTERVAL: Duration = Duration::from_secs(2);

/// The loops' memory, and beside it what of the past the checks need.
pub(super) struct Checked {
    pub(super) policy: Policy,
    state: State,
    /// When the memory began.
    began: Time,
    /// When the channel's capacity changed, as far as the memory goes back.
    channel_changed: Option<Time>,
    /// Changes of the number of brokers that rate policies count.
    changes: Vec<(Time, i64)>,
    steps: u64,
}

impl Checked {
    pub(super) fn new(policy: Policy, now: Time) -> Self {
        Self {
            policy,
            state: State::new(now),
            began: now,
            channel_changed: None,
            changes: Vec::new(),
            steps: 0,
        }
    }

    /// The operator starts anew with what it wrote down.
    pub(super) fn restart(&mut self, now: Time) {
        self.state = State::resume(again(&self.state.durable), now);
        self.began = now;
        self.channel_changed = None;
    }

    /// One call of each loop.
    pub(super) fn step(&mut self, observed: &Observed, now: Time) -> (Decision, ChannelDecision) {
        self.began = self.began.min(now);
        self.forget_changes(now);
        let spec_before = self.state.durable.starting_replicas;
        let decision = decide(&self.policy, observed, &mut self.state, now);
        let is_start = self.acts() && spec_before.is_some_and(|before| before != observed.spec_replicas);
        assert_eq!(decision.reason == Reason::StartingPoint, is_start, "{decision}");
        self.check(&decision, observed, now);
        if self.acts() && decision.changes() && !is_start {
            let change = i64::from(decision.desired_replicas) - i64::from(decision.from);
            self.changes.push((now, change));
        }
        self.steps += 1;
        if self.steps.is_multiple_of(SOMETIMES) {
            self.check_memory(observed, now);
        }
        self.channel_changed = self.channel_changed.map(|at| at.min(now));
        let channel = decide_channel(&self.policy, observed, &mut self.state, now);
        self.check_channel(&channel, observed, now);
        assert_eq!(again::<Durable>(&self.state.durable), self.state.durable);
        if decision.changes() || self.steps.is_multiple_of(SOMETIMES) {
            assert_eq!(again::<Decision>(&decision), decision);
            assert_eq!(again::<ChannelDecision>(&channel), channel);
            again::<State>(&self.state);
            assert!(!decision.to_string().is_empty() && !channel.to_string().is_empty());
        }
        (decision, channel)
    }

    fn acts(&self) -> bool {
        self.policy.autoscaling.mode.acts()
    }

    /// What no policy counts any more is forgotten, and nothing is later than now.
    fn forget_changes(&mut self, now: Time) {
        let behavior = &self.policy.autoscaling.behavior;
        let all = [&behavior.scale_up.policies, &behavior.scale_down.policies];
        let longest = all.into_iter().flatten().map(|policy| policy.period).max();
        for (at, _) in &mut self.changes {
            *at = (*at).min(now);
        }
        self.changes
            .retain(|(at, _)| longest.is_some_and(|longest| now.since(*at) < longest));
    }

    fn check(&self, decision: &Decision, observed: &Observed, now: Time) {
        let (from, to) = (decision.from, decision.desired_replicas);
        assert_eq!(from, observed.current_replicas);
        let policy = &self.policy.autoscaling;
        if !self.acts() {
            assert_eq!(to, observed.spec_replicas, "{decision}");
            return;
        }
        let (min, max) = (policy.min_replicas, policy.max_replicas);
        if decision.reason == Reason::StartingPoint {
            assert_eq!(to, observed.spec_replicas.clamp(min, max), "{decision}");
            return;
        }
        if to > from {
            assert!(to <= max, "{decision}");
            self.check_more(decision, observed, now);
        } else if to < from {
            assert_eq!(policy.mode, Mode::Auto, "{decision}");
            assert_eq!(to, from - 1, "{decision}");
            assert!(to >= min, "{decision}");
            self.check_fewer(decision, observed, now);
        }
    }

    fn check_more(&self, decision: &Decision, observed: &Observed, now: Time) {
        assert!(!observed.rolling_out, "{decision}");
        let policy = &self.policy.autoscaling;
        if decision.reason == Reason::OutOfBounds {
            assert_eq!(decision.desired_replicas, policy.min_replicas, "{decision}");
            return;
        }
        assert!(observed.ready_brokers() > 0, "{decision}");
        assert!(
            !observed.draining || decision.reason == Reason::Saturated,
            "{decision}"
        );
        let most = self.most(&policy.behavior.scale_up, decision.from, now);
        assert!(i64::from(decision.desired_replicas) <= most, "{most}: {decision}");
    }

    fn check_fewer(&self, decision: &Decision, observed: &Observed, now: Time) {
        let policy = &self.policy.autoscaling;
        assert!(
            !observed.rolling_out && !observed.draining && observed.ready_brokers() > 0,
            "{decision}"
        );
        let fewest = self.fewest(&policy.behavior.scale_down, decision.from, now);
        assert!(
            i64::from(decision.desired_replicas) >= fewest,
            "{fewest}: {decision}"
        );
        let watched = now.since(self.began);
        if decision.reason == Reason::Fallback {
            let fallback = &policy.fallback;
            assert!(
                watched >= policy.metrics_staleness * fallback.failure_threshold,
                "{decision}"
            );
            assert!(decision.desired_replicas >= fallback.replicas, "{decision}");
            return;
        }
        let is_fresh = |report: &crate::scaling::Report| report.is_fresh(policy.metrics_staleness, now);
        let mut reports = observed.ready().map(|broker| broker.report.as_ref());
        assert!(reports.all(|report| report.is_some_and(is_fresh)), "{decision}");
        assert!(
            watched >= policy.behavior.scale_down.stabilization_window,
            "{decision}"
        );
    }

    /// Brokers that there were a period ago.
    fn before(&self, from: u32, period: Duration, now: Time) -> i64 {
        let lately = self.changes.iter().filter(|(at, _)| now.since(*at) < period);
        (i64::from(from) - lately.map(|(_, change)| change).sum::<i64>()).max(0)
    }

    fn most(&self, rules: &ScalingRules, from: u32, now: Time) -> i64 {
        let allowed = |policy: &RatePolicy| {
            let before = self.before(from, policy.period, now);
            let value = i64::from(policy.value);
            match policy.kind {
                RatePolicyKind::Pods => before + value,
                RatePolicyKind::Percent => (before * (100 + value) + 99) / 100,
            }
        };
        let all = rules.policies.iter().map(allowed);
        match rules.select_policy {
            SelectPolicy::Max => all.max(),
            SelectPolicy::Min => all.min(),
            SelectPolicy::Disabled => None,
        }
        .unwrap_or(0)
    }

    fn fewest(&self, rules: &ScalingRules, from: u32, now: Time) -> i64 {
        let allowed = |policy: &RatePolicy| {
            let before = self.before(from, policy.period, now);
            let value = i64::from(policy.value);
            match policy.kind {
                RatePolicyKind::Pods => before - value,
                RatePolicyKind::Percent => before * (100 - value.min(100)) / 100,
            }
        };
        let all = rules.policies.iter().map(allowed);
        match rules.select_policy {
            SelectPolicy::Max => all.min(),
            SelectPolicy::Min => all.max(),
            SelectPolicy::Disabled => None,
        }
        .unwrap_or(i64::MAX)
    }

    /// The same reports again teach nothing.
    fn check_memory(&self, observed: &Observed, now: Time) {
        let mut twice = self.state.clone();
        decide(&self.policy, observed, &mut twice, now);
        let (once, twice) = (&self.state.durable, &twice.durable);
        assert_eq!((once.correction, once.seen), (twice.correction, twice.seen));
    }

    fn check_channel(&mut self, decision: &ChannelDecision, observed: &Observed, now: Time) {
        let policy = &self.policy.channel;
        let (from, to) = (decision.from, decision.capacity);
        if observed.channel_capacity > 0 {
            assert_eq!(from, observed.channel_capacity);
        }
        if policy.mode == ChannelMode::Fixed {
            assert_eq!(to, policy.capacity, "{decision}");
        } else {
            assert!((policy.min..=policy.max).contains(&to), "{decision}");
        }
        let is_chosen = !matches!(decision.reason, ChannelReason::Fixed | ChannelReason::OutOfBounds);
        if decision.changes() && is_chosen {
            assert!(!observed.rolling_out && !observed.draining, "{decision}");
            let most = u64::from(from) * u64::from(policy.max_change_percent) / 100;
            assert!(u64::from(from.abs_diff(to)) <= most.max(1), "{decision}");
            let grows = to > from;
            let interval = if grows { GROWTH_INTERVAL } else { CHANNEL_INTERVAL };
            let quiet = self.channel_changed.is_none_or(|at| now.since(at) >= interval);
            assert!(quiet, "{decision}");
            // While brokers are on their way it may only grow.
            let all_here = observed.ready_brokers() == observed.current_replicas;
            assert!(grows || all_here, "{decision}");
        }
        if decision.changes() {
            self.channel_changed = Some(now);
        }
    }
}

/// Written down and read back.
fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let written = serde_json::to_string(value).expect("everything can be written");
    serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"))
}

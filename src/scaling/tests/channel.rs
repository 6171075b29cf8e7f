//! The fast loop.

use std::time::Duration;

use crate::scaling::*;

const SECOND: u64 = 1_000_000_000;

/// Brokers that all feel the same.
struct Channels {
    policy: Policy,
    state: State,
    observed: Observed,
    second: u64,
    /// What a commit takes, in nanoseconds; 0: there are none.
    commit_nanos: u64,
}

/// One second at each broker.
#[derive(Clone, Copy)]
struct Felt {
    accepted: u64,
    blocked_percent: u64,
    shortest_wait: Duration,
}

const CALM: Felt = Felt {
    accepted: 500,
    blocked_percent: 0,
    shortest_wait: Duration::from_millis(1),
};
const BURST: Felt = Felt {
    accepted: 5_000,
    blocked_percent: 60,
    shortest_wait: Duration::from_millis(20),
};
const STANDING: Felt = Felt {
    accepted: 5_000,
    blocked_percent: 60,
    shortest_wait: Duration::from_millis(150),
};

impl Channels {
    /// Two brokers of 5000/s by their CPU.
    fn new() -> Self {
        let broker = |ordinal| ObservedBroker {
            name: format!("orders-{ordinal}"),
            ready: true,
            report: Some(Report::default()),
            hottest: None,
        };
        Self {
            policy: Policy::default(),
            state: State::new(Time::from_millis(0)),
            observed: Observed {
                spec_replicas: 2,
                current_replicas: 2,
                brokers: (0..2).map(broker).collect(),
                channel_capacity: 128,
                ..Observed::default()
            },
            second: 0,
            commit_nanos: 0,
        }
    }

    fn tick(&mut self, felt: Felt) -> ChannelDecision {
        self.second += 1;
        let now = Time::from_millis(self.second * 1_000);
        for broker in &mut self.observed.brokers {
            let Some(report) = broker.report.as_mut() else {
                continue;
            };
            report.received = now;
            let counters = &mut report.counters;
            counters.uptime_nanos += SECOND;
            counters.accepted_messages += felt.accepted;
            counters.acked_messages += felt.accepted;
            counters.acked_bytes += felt.accepted * 1_000;
            counters.cpu_nanos += felt.accepted * 40_000;
            if let Some(commits) = SECOND.checked_div(self.commit_nanos) {
                counters.commits += commits;
                counters.commit_nanos += commits * self.commit_nanos;
            }
            counters.publisher_active_nanos += SECOND;
            counters.publisher_blocked_nanos += SECOND / 100 * felt.blocked_percent;
            report.gauges.cpu_quota_nanos = SECOND / 5;
            report.gauges.channel_capacity = u64::from(self.observed.channel_capacity);
            report.gauges.sojourn_min_nanos = felt.shortest_wait.as_nanos() as u64;
        }
        let decision = decide_channel(&self.policy, &self.observed, &mut self.state, now);
        self.observed.channel_capacity = decision.capacity;
        decision
    }

    fn run(&mut self, seconds: u64, felt: Felt) -> ChannelDecision {
        let mut last = self.tick(felt);
        for _ in 1..seconds {
            last = self.tick(felt);
        }
        last
    }
}

#[test]
fn a_burst_makes_room_up_to_what_the_delay_allows() {
    let mut channels = Channels::new();
    channels.run(5, CALM);
    let decision = channels.run(60, BURST);
    // 5000/s for 100 ms.
    assert_eq!(channels.observed.channel_capacity, 500);
    assert_eq!(decision.reason, ChannelReason::AtCeiling);
}

#[test]
fn publishers_held_back_by_less_than_a_broker_can_do_get_as_much_room_as_a_step_allows() {
    let held_back = Felt {
        accepted: 1_000,
        ..BURST
    };
    for percent in [10, 50, 100] {
        let mut channels = Channels::new();
        channels.policy.channel.max_change_percent = percent;
        let mut grown = Vec::new();
        for _ in 0..12 {
            let decision = channels.tick(held_back);
            if decision.changes() {
                assert_eq!(decision.reason, ChannelReason::Burst);
                grown.push((decision.capacity - decision.from) * 100 / decision.from);
            }
        }
        assert!(
            grown.first().is_some_and(|by| by.abs_diff(percent) <= 1),
            "{percent}: {grown:?}"
        );
    }
}

#[test]
fn it_never_grows_on_a_standing_queue_and_goes_back_to_what_the_delay_allows() {
    for start in [64, 128, 400, 5_000, 65_536] {
        let mut channels = Channels::new();
        channels.observed.channel_capacity = start;
        let mut before = start;
        for _ in 0..200 {
            let decision = channels.tick(STANDING);
            assert!(decision.capacity <= before, "{decision}");
            before = decision.capacity;
        }
        // Within the dead band of 500.
        assert_eq!(before, start.min(before));
        assert!(before <= 556, "{start} -> {before}");
    }
}

#[test]
fn a_disk_that_is_slower_than_the_target_delay_gets_room_for_two_commits() {
    for (commit, wait, expected) in [
        // Two commits of 300 ms at 5000/s; no message can wait for less than one.
        (300, 350, 2_700..=3_000),
        // Three commits and more: others are before it, so the queue stands.
        (300, 1_000, 128..=128),
        // A fast one leaves the target as it is.
        (2, 20, 450..=500),
    ] {
        let mut channels = Channels::new();
        channels.commit_nanos = commit * 1_000_000;
        let felt = Felt {
            shortest_wait: Duration::from_millis(wait),
            ..BURST
        };
        channels.run(120, felt);
        let capacity = channels.observed.channel_capacity;
        assert!(expected.contains(&capacity), "{commit} ms, {wait} ms: {capacity}");
    }
}

#[test]
fn steps_are_limited_two_seconds_apart_upwards_and_five_downwards() {
    let mut channels = Channels::new();
    let mut last_change = None;
    let (mut soonest_up, mut soonest_down) = (u64::MAX, u64::MAX);
    for second in 1..120_u64 {
        let felt = if second % 40 < 20 { BURST } else { STANDING };
        let decision = channels.tick(felt);
        if !decision.changes() {
            continue;
        }
        assert!(
            decision.capacity.abs_diff(decision.from) * 2 <= decision.from,
            "{decision}"
        );
        if let Some(last) = last_change.replace(second) {
            let soonest = if decision.capacity > decision.from {
                &mut soonest_up
            } else {
                &mut soonest_down
            };
            *soonest = (*soonest).min(second - last);
        }
    }
    assert_eq!(soonest_up, 2);
    assert!(soonest_down >= 5, "{soonest_down}");
}

#[test]
fn small_changes_are_not_made() {
    let mut channels = Channels::new();
    channels.observed.channel_capacity = 460;
    channels.run(60, BURST);
    assert_eq!(channels.observed.channel_capacity, 460);
}

#[test]
fn calm_and_silence_change_nothing() {
    let mut channels = Channels::new();
    let idle = Felt {
        accepted: 0,
        shortest_wait: Duration::ZERO,
        ..CALM
    };
    assert_eq!(channels.run(20, idle).reason, ChannelReason::CapacityUnknown);
    assert_eq!(channels.run(20, CALM).reason, ChannelReason::Steady);
    assert_eq!(channels.observed.channel_capacity, 128);
}

#[test]
fn memory_bounds_it() {
    let mut channels = Channels::new();
    channels.policy.channel.max_inflight_bytes = 200_000;
    channels.run(60, BURST);
    assert!(
        (190..=200).contains(&channels.observed.channel_capacity),
        "{}",
        channels.observed.channel_capacity
    );
}

type Change = fn(&mut Observed);

#[test]
fn it_is_frozen_while_brokers_go_or_restart() {
    let changes: [(&str, Change); 2] = [
        ("draining", |observed| observed.draining = true),
        ("rolling out", |observed| observed.rolling_out = true),
    ];
    for (name, change) in changes {
        let mut channels = Channels::new();
        change(&mut channels.observed);
        assert_eq!(channels.run(60, BURST).reason, ChannelReason::Frozen, "{name}");
        assert_eq!(channels.observed.channel_capacity, 128, "{name}");
    }
}

#[test]
fn while_brokers_come_it_grows_and_does_not_shrink() {
    for (felt, start, expected) in [(BURST, 128, 500), (STANDING, 5_000, 5_000), (CALM, 128, 128)] {
        let mut channels = Channels::new();
        channels.observed.current_replicas = 3;
        channels.observed.channel_capacity = start;
        let last = channels.run(60, felt);
        assert_eq!(channels.observed.channel_capacity, expected, "{last}");
        assert_eq!(last.reason, ChannelReason::Frozen);
    }
}

#[test]
fn missing_reports_change_nothing() {
    let mut channels = Channels::new();
    channels.observed.brokers.push(ObservedBroker {
        name: "orders-2".into(),
        ready: true,
        report: None,
        hottest: None,
    });
    channels.observed.current_replicas = 3;
    assert_eq!(channels.run(60, BURST).reason, ChannelReason::MetricsMissing);
    assert_eq!(channels.observed.channel_capacity, 128);
}

#[test]
fn what_holds_it_is_said_also_right_after_a_change() {
    let changes: [(ChannelReason, Change); 3] = [
        (ChannelReason::Frozen, |observed| observed.draining = true),
        (ChannelReason::Frozen, |observed| observed.rolling_out = true),
        (ChannelReason::MetricsMissing, |observed| {
            observed.current_replicas = 3;
            observed.brokers.push(ObservedBroker {
                name: "orders-2".into(),
                ready: true,
                report: None,
                hottest: None,
            });
        }),
    ];
    for (reason, change) in changes {
        let mut channels = Channels::new();
        channels.run(5, CALM);
        while !channels.tick(BURST).changes() {}
        change(&mut channels.observed);
        assert_eq!(channels.tick(BURST).reason, reason);
    }
}

#[test]
fn a_fixed_channel_and_one_out_of_bounds_are_as_configured() {
    let mut channels = Channels::new();
    channels.observed.channel_capacity = 10;
    let decision = channels.tick(CALM);
    assert_eq!(
        (decision.capacity, decision.reason),
        (64, ChannelReason::OutOfBounds)
    );
    channels.policy.channel.mode = ChannelMode::Fixed;
    channels.policy.channel.capacity = 300;
    let decision = channels.tick(CALM);
    assert_eq!((decision.capacity, decision.reason), (300, ChannelReason::Fixed));
}

#[test]
fn a_decision_on_the_channel_is_one_sentence_with_the_numbers() {
    let mut channels = Channels::new();
    channels.run(5, CALM);
    let mut decision = channels.tick(BURST);
    while !decision.changes() {
        decision = channels.tick(BURST);
    }
    insta::assert_snapshot!(decision, @"publishers were blocked 12 % of the time while the shortest wait was 1 ms: 128 -> 192 messages");
    insta::assert_snapshot!(channels.run(60, STANDING), @"messages never waited less than 150 ms: stays at 192 messages");
}

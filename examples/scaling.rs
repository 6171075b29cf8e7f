//! `cargo run --release --example scaling`: what decisions cost, and what the channel's loop makes of bursts and of overload, both
//! without a cluster.

use std::time::{Duration, Instant};

use sluice::scaling::simulation::broker::{Broker, Step};
use sluice::scaling::simulation::{BrokerModel, Cluster, Event, Publishers};
use sluice::scaling::{
    ChannelMode, Mode, Observed, ObservedBroker, Policy, Report, State, Time, decide, decide_channel,
};

fn main() {
    decisions();
    channels();
}

/// How long both loops take for 1,000 clusters of three brokers with a full minute of reports.
fn decisions() {
    const CLUSTERS: usize = 1_000;
    let mut policy = Policy::default();
    policy.autoscaling.mode = Mode::Auto;
    let mut cluster = Cluster::new(BrokerModel::new(1_000.0), 3);
    let mut state = State::new(Time::from_millis(0));
    let calm = Event {
        health: 1.0,
        consumed: 1.0,
        ..Event::default()
    };
    let second = |cluster: &mut Cluster| {
        cluster.serve(|_| 2_000.0, &calm);
        (cluster.observed(), cluster.now())
    };
    for _ in 0..90 {
        let (observed, now) = second(&mut cluster);
        decide(&policy, &observed, &mut state, now);
        decide_channel(&policy, &observed, &mut state, now);
    }
    let mut states = vec![state; CLUSTERS];
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let (observed, now) = second(&mut cluster);
        let start = Instant::now();
        for state in &mut states {
            decide(&policy, &observed, state, now);
            decide_channel(&policy, &observed, state, now);
        }
        best = best.min(start.elapsed());
    }
    println!(
        "{CLUSTERS} clusters of 3 brokers decided, both loops: {:.1} ms of one core (best of ten)\n",
        best.as_secs_f64() * 1e3
    );
}

const RATE: f64 = 5_000.0;
const STEP_SECONDS: f64 = 0.005;
const SECONDS: u64 = 300;
/// The first seconds do not count: the loop needs some to find its capacity.
const WARM_UP: u64 = 120;

/// Fixed and automatic channels side by side.
fn channels() {
    println!(
        "one broker of {RATE:.0}/s, 256 B, a target delay of 100 ms; publishers that slow down when blocked\n"
    );
    println!("| load | channel | wait p50 ms | wait p99 ms | blocked % | most queued KB | acknowledged/s |");
    println!("|---|---|---|---|---|---|---|");
    for (name, load) in [
        ("bursts", bursts as fn(f64) -> f64),
        ("steady overload", overload),
    ] {
        for (label, mode, capacity) in [
            ("fixed 128", ChannelMode::Fixed, 128),
            ("fixed 65536", ChannelMode::Fixed, 65_536),
            ("auto", ChannelMode::Auto, 128),
        ] {
            let mut policy = Policy::default();
            policy.channel.mode = mode;
            policy.channel.capacity = capacity;
            println!("| {name} | {} |", row(label, &policy, load));
        }
    }
}

/// A third of what the broker can do, and every two seconds four times as much as it can for 100 ms.
fn bursts(at: f64) -> f64 {
    if at % 2.0 < 0.1 { 4.0 * RATE } else { RATE / 3.0 }
}

/// Half as much again as the broker can do.
fn overload(_at: f64) -> f64 {
    1.5 * RATE
}

fn row(label: &str, policy: &Policy, load: fn(f64) -> f64) -> String {
    let model = BrokerModel {
        publishers: Publishers::GiveUp,
        ..BrokerModel::new(RATE)
    };
    let mut broker = Broker::new(0.0, 1);
    let mut state = State::new(Time::from_millis(0));
    let mut capacity = policy.channel.capacity;
    let (mut waits, mut acked, mut most) = (Vec::new(), 0.0, 0.0_f64);
    let mut blocked = (0, 0);
    for second in 0..SECONDS {
        broker.begin_second();
        let before = (
            broker.counters.publisher_blocked_nanos,
            broker.counters.publisher_active_nanos,
        );
        for step in 0..200 {
            let at = second as f64 + f64::from(step) * STEP_SECONDS;
            broker.step(
                &model,
                &Step {
                    seconds: STEP_SECONDS,
                    offered: load(at) * STEP_SECONDS,
                    capacity: f64::from(capacity),
                    slow_commit: None,
                    health: 1.0,
                    consumed: 1.0,
                },
            );
            if second >= WARM_UP {
                waits.push(broker.delay());
                most = most.max(broker.backlog());
            }
        }
        broker.end_second(&model, capacity);
        if second >= WARM_UP {
            acked += broker.acked;
            blocked.0 += broker.counters.publisher_blocked_nanos - before.0;
            blocked.1 += broker.counters.publisher_active_nanos - before.1;
        }
        let now = Time::from_millis((second + 1) * 1_000);
        let observed = Observed {
            spec_replicas: 1,
            current_replicas: 1,
            brokers: vec![ObservedBroker {
                name: "orders-0".to_owned(),
                ready: true,
                report: Some(Report {
                    received: now,
                    counters: broker.counters,
                    gauges: broker.gauges,
                }),
                hottest: None,
            }],
            channel_capacity: capacity,
            ..Observed::default()
        };
        capacity = decide_channel(policy, &observed, &mut state, now).capacity;
    }
    waits.sort_by(f64::total_cmp);
    let quantile = |part: f64| waits[(waits.len() as f64 * part) as usize] * 1e3;
    format!(
        "{label} (ends at {capacity}) | {:.0} | {:.0} | {:.1} | {:.0} | {:.0}",
        quantile(0.5),
        quantile(0.99),
        blocked.0 as f64 / blocked.1 as f64 * 100.0,
        most * 256.0 / 1024.0,
        acked / (SECONDS - WARM_UP) as f64
    )
}
